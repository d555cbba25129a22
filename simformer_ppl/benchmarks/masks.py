"""What attention masks cost beside the training step that they serve."""

import time
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from simformer_ppl.benchmarks.models import SIZED
from simformer_ppl.joint import LearnedJoint
from simformer_ppl.simformer import Simformer
from simformer_ppl.tokens.masks import draw_conditioned
from simformer_ppl.training.fit import STEPS_PER_REPORT, Trainer
from simformer_ppl.training.optimiser import make_optimiser
from simformer_ppl.training.recipe import LEARNING_RATE

_REPEATS = 3


def measure_masks(kind: str, num_tokens: int, batch: int, attention: Literal["moral", "contextual"]) -> dict[str, Any]:
    """Time the drawing of conditions with their masks, and whole training steps, in turn.

    Parameters
    ----------
    kind
        Name in :data:`simformer_ppl.benchmarks.models.SIZED`.
    num_tokens
        Size of the model.
    batch
        Examples a step.
    attention
        Kind of the masks.

    Returns
    -------
    Milliseconds of either, and the share of the masks in a step: the smallest of a few runs.
    """
    simformer = Simformer(SIZED[kind](num_tokens), attention=attention)
    channels, _ = simformer._channels(jax.random.key(0), batch, None)
    joint = simformer._initialise(jax.random.key(1), channels)
    optimiser = make_optimiser(LEARNING_RATE, STEPS_PER_REPORT)
    trainer = Trainer(simformer._sequences.training, joint.standardisation, joint.process, optimiser, batch)
    state, data = trainer.start(joint.parameters), (jnp.asarray(channels), None)
    masks = _mask_loop(joint, data[0])
    mask = _milliseconds(lambda: masks(jax.random.key(2)))
    step = _milliseconds(lambda: trainer.run(state, jax.random.key(3), data, STEPS_PER_REPORT))
    tokens = simformer.structure.num_tokens
    row = {"model": kind, "tokens": tokens, "batch": batch, "attention": attention}
    return row | {"mask_ms": round(mask, 2), "step_ms": round(step, 2), "share": round(mask / step, 4)}


def _mask_loop(joint: LearnedJoint, channels: Float[Array, "batch channels"]) -> Callable[[PRNGKeyArray], Array]:
    """Draw conditions and make their masks, as often as training steps are taken in one go."""
    layout = joint.layout

    def one(total: Array, key: PRNGKeyArray) -> tuple[Array, None]:
        given = draw_conditioned(key, len(channels), layout.is_data, layout.unit_of_token, layout.site_of_token)
        mask = joint.attention(given, jnp.where(given[:, layout.token_of_channel], channels, 0.0))
        return total + mask.sum(), None  # summed, so that no part of it can be left out

    return jax.jit(lambda key: jax.lax.scan(one, jnp.zeros((), int), jax.random.split(key, STEPS_PER_REPORT))[0])


def _milliseconds(call: Callable[[], Any]) -> float:
    """Per step; the first call compiles."""
    call()
    seconds = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - start)
    return 1e3 * min(seconds) / STEPS_PER_REPORT
