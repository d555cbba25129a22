"""What training does when it is not told otherwise: steps, batch size, learning rate, held-out simulations."""

import jax
import numpy as np
from jaxtyping import Float, PRNGKeyArray

BATCH_SIZE = 64
LEARNING_RATE = 1.5e-3


def default_steps(num_simulations: int, num_tokens: int) -> int:
    """More steps for more simulations, up to 30,000 of them at 20 tokens.

    Up to twice that where tokens are few and a step is cheap; fewer where they are many, but 5,000 at least.
    """
    steps = min(300 * num_simulations**0.5, 30_000) * min(2.0, (20 / num_tokens) ** 0.5)
    return max(5_000, round(steps))


def split(
    rng_key: PRNGKeyArray, channels: Float[np.ndarray, "n channels"], fraction: float
) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation set, at least one simulation each."""
    if not 0 < fraction < 1:
        raise ValueError(f"validation_fraction: expected a number between 0 and 1, got {fraction}.")
    count = len(channels)
    if count < 2:
        raise ValueError(f"simulations: expected at least 2 finite ones, got {count}.")
    held_out = min(max(1, round(fraction * count)), count - 1)
    shuffled = channels[np.asarray(jax.random.permutation(rng_key, count))]
    return shuffled[held_out:], shuffled[:held_out]
