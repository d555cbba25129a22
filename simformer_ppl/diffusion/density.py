"""Log density by the probability-flow ODE."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm
from jaxtyping import Array, Bool, Float, PRNGKeyArray

Prediction = Callable[[Float[Array, "batch channels"], Float[Array, " batch"]], Float[Array, "batch channels"]]
"""``(noised, noise_level) -> raw output`` of the network F in the preconditioned form ``D = x / (1 + s^2) + ...``."""


def log_density(
    prediction: Prediction,
    values: Float[Array, "batch channels"],
    latent: Bool[Array, "batch channels"],
    levels: Float[np.ndarray, " levels"],
    probes: Float[Array, "probes batch channels"],
) -> Float[Array, " batch"]:
    """Log density of the latent channels, by following them from clean to noise.

    In the scaled coordinate ``y = x / sqrt(1 + s^2)`` and the angle ``arctan s`` the probability-flow ODE of EDM's
    preconditioning is ``dy / d angle = -F(y, s)`` (Lu & Song 2024, arXiv 2410.11081, equation 5): a standard Gaussian
    stands still, and only what differs from it has to be integrated. The density follows from the instantaneous change
    of variables (Chen et al. 2018, equation 8), with Heun's method in log s.

    Parameters
    ----------
    prediction
        Raw network output under the condition.
    values
        Clean standardised values.
    latent
        Channels whose density is asked.
    levels
        Rising noise levels.
    probes
        Vectors v with E[v v^T] = identity over the latent channels; the rows of the identity give the exact trace.

    Returns
    -------
    Log density in standardised space.
    """

    def field(
        scaled: Float[Array, "batch channels"], level: Float[Array, ""]
    ) -> tuple[Float[Array, "batch channels"], Float[Array, " batch"]]:
        def velocity(scaled: Float[Array, "batch channels"]) -> Float[Array, "batch channels"]:
            stretch = jnp.sqrt(1 + level**2)
            output = prediction(scaled * stretch, jnp.full(scaled.shape[0], level))
            return jnp.where(latent, -output * level / stretch**2, 0.0)

        speed, push = jax.linearize(velocity, scaled)
        divergence = (jax.vmap(push)(probes) * probes).sum((0, 2))
        return speed, divergence

    def heun(state: tuple[Array, Array], ends: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        scaled, expansion = state
        level, next_level = ends
        gap = jnp.log(next_level / level)
        speed, divergence = field(scaled, level)
        end_speed, end_divergence = field(scaled + gap * speed, next_level)
        scaled = scaled + 0.5 * gap * (speed + end_speed)
        return (scaled, expansion + 0.5 * gap * (divergence + end_divergence)), None

    start = values / jnp.sqrt(1 + levels[0] ** 2)
    (scaled, expansion), _ = jax.lax.scan(
        heun, (start, jnp.zeros(values.shape[0])), (jnp.asarray(levels[:-1]), jnp.asarray(levels[1:]))
    )
    # at the highest level the values are noise around their mean, which is what is predicted from zero
    mean = prediction(jnp.zeros_like(values), jnp.full(values.shape[0], levels[-1]))
    centre = mean * levels[-1] / (1 + levels[-1] ** 2)
    base = jnp.where(latent, norm.logpdf(scaled - centre), 0.0).sum(-1)
    return base + expansion - 0.5 * jnp.log1p(levels[0] ** 2) * latent.sum(-1)


def exact_probes(latent: Bool[Array, "batch channels"], count: int) -> Float[Array, "count batch channels"]:
    """Unit vectors of the latent channels of every sequence: the exact trace.

    Parameters
    ----------
    latent
        Channels whose density is asked.
    count
        At least the largest number of latent channels of a sequence.
    """
    rank = jnp.cumsum(latent, -1) - 1
    return (latent & (rank == jnp.arange(count)[:, None, None])).astype(jnp.float32)


def hutchinson_probes(
    rng_key: PRNGKeyArray, latent: Bool[Array, "batch channels"], count: int
) -> Float[Array, "count batch channels"]:
    """Random signs on the latent channels: an unbiased trace (Hutchinson 1989)."""
    signs = jax.random.rademacher(rng_key, (count, *latent.shape), jnp.float32)
    return jnp.where(latent, signs, 0.0) / jnp.sqrt(count)
