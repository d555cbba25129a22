"""From noise to draws in few evaluations of the denoiser."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from simformer_ppl.diffusion.process import Denoiser


def dpm_solver(
    rng_key: PRNGKeyArray, denoiser: Denoiser, shape: tuple[int, ...], grid: Float[np.ndarray, " steps"]
) -> Float[Array, "batch channels"]:
    """Solve the probability-flow ODE by DPM-Solver++(2M): second order, one evaluation a step.

    Lu et al. 2022 (arXiv 2211.01095), algorithm 2, for a process whose signal is not scaled.

    Parameters
    ----------
    rng_key
        Draws the initial noise.
    denoiser
        Expected clean values.
    shape
        Batch and channels.
    grid
        Falling noise levels. One evaluation each, and one at the first level that finds the mean of the target; the
        last step goes from the last level to the denoised value.

    Returns
    -------
    Draws, given channels as given.
    """
    levels = jnp.asarray(grid)
    # noise around the mean of the target: around zero, every draw would be off by mean / grid[0] of its sd
    centre = denoiser(jnp.zeros(shape), jnp.full(shape[0], levels[0]))
    start = centre + jax.random.normal(rng_key, shape) * jnp.sqrt(1 + levels[0] ** 2)

    def step(state: tuple[Array, Array, Array], ends: tuple[Array, Array]) -> tuple[tuple[Array, Array, Array], None]:
        noised, previous, previous_gap = state
        level, next_level = ends
        clean = denoiser(noised, jnp.full(shape[0], level))
        gap = jnp.log(level / next_level)
        slope = jnp.where(jnp.isinf(previous_gap), 0.0, (clean - previous) * gap / (2 * previous_gap))
        noised = next_level / level * noised - jnp.expm1(-gap) * (clean + slope)
        return (noised, clean, gap), None

    # an infinite previous gap marks the first step, which has no slope yet
    initial = (start, jnp.zeros_like(start), jnp.asarray(jnp.inf))
    (noised, _, _), _ = jax.lax.scan(step, initial, (levels[:-1], levels[1:]))
    return denoiser(noised, jnp.full(shape[0], levels[-1]))
