"""From noise to draws in few evaluations of the denoiser."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

Denoiser = Callable[[Float[Array, "batch channels"], Float[Array, " batch"]], Float[Array, "batch channels"]]
"""``(noised, noise_level) -> expected clean values``; given channels come back as given."""

Solve = Callable[[PRNGKeyArray, Denoiser, Float[Array, "batch channels"], Float[np.ndarray, " levels"]], Array]
"""``(rng_key, denoiser, noise, grid) -> draws`` for falling noise levels, given channels as given."""


class Sampler(NamedTuple):
    """A sampler, and how many noise levels it visits for a number of evaluations.

    Attributes
    ----------
    solve
        Draws, for a grid of noise levels.
    num_levels
        Size of the grid that takes that many evaluations, or one fewer.
    """

    solve: Solve
    num_levels: Callable[[int], int]


def adams(
    rng_key: PRNGKeyArray, denoiser: Denoiser, noise: Float[Array, "batch channels"], grid: Float[np.ndarray, " levels"]
) -> Float[Array, "batch channels"]:
    """Solve the probability-flow ODE by an exponential Adams predictor and corrector, one evaluation a step.

    In ``l = -log s`` the ODE is ``dx/dl = D(x, l) - x``, whose linear part is solved exactly; the denoised values D are
    interpolated quadratically through the last three levels to predict, and through the next and the last two to
    correct (Adams-Bashforth and Adams-Moulton; Hochbruck & Ostermann 2010, section 2.5; UniPC of Zhao et al. 2023 is of
    this kind). The corrected values are not evaluated again.

    Parameters
    ----------
    rng_key
        Unused: all randomness is in the noise.
    denoiser
        Expected clean values.
    noise
        Standard normal, where to start.
    grid
        Falling noise levels. One evaluation each, and one at the first level that finds the mean of the target; the
        last step goes from the last level to the denoised value.

    Returns
    -------
    Draws, given channels as given.
    """
    predict, correct = _adams_weights(-np.log(np.asarray(grid, np.float64)))
    levels = jnp.asarray(grid)

    def step(state: tuple[Array, Array], inputs: tuple[Array, ...]) -> tuple[tuple[Array, Array], None]:
        noised, known = state  # denoised values at the last three levels, the newest first
        next_level, shrinkage, before, after = inputs
        kept = shrinkage * noised
        new = denoiser(kept + jnp.tensordot(before, known, 1), jnp.full(noise.shape[0], next_level))
        known = jnp.concatenate([new[None], known[:2]])
        return (kept + jnp.tensordot(after, known, 1), known), None

    start = _start(noise, denoiser, levels[0])
    clean = denoiser(start, jnp.full(noise.shape[0], levels[0]))
    inputs = levels[1:], levels[1:] / levels[:-1], predict, correct
    known = jnp.stack([clean, jnp.zeros_like(clean), jnp.zeros_like(clean)])
    (_, known), _ = jax.lax.scan(step, (start, known), inputs)
    return known[0]


def _adams_weights(
    times: Float[np.ndarray, " levels"],
) -> tuple[Float[Array, "steps 3"], Float[Array, "steps 3"]]:
    """Weights of the denoised values in every step, the newest first; the first steps know fewer values.

    Each is the integral of ``exp(l - l_end)`` times a Lagrange polynomial over the step.
    """
    places, weights = np.polynomial.legendre.leggauss(8)

    def integrals(nodes: list[float], start: float, end: float) -> np.ndarray:
        points = (start + end) / 2 + (end - start) / 2 * places
        measure = (end - start) / 2 * weights * np.exp(points - end)
        others = [[other for other in nodes if other != node] for node in nodes]
        basis = [np.prod([(points - o) / (n - o) for o in rest], 0) for n, rest in zip(nodes, others, strict=True)]
        return np.array([(polynomial * measure).sum() for polynomial in basis])

    predict, correct = np.zeros((len(times) - 1, 3)), np.zeros((len(times) - 1, 3))
    for i in range(len(times) - 1):
        known = [times[k] for k in range(i, max(i - 3, -1), -1)]
        predict[i, : len(known)] = integrals(known, times[i], times[i + 1])
        past = known[:2]
        correct[i, : len(past) + 1] = integrals([times[i + 1], *past], times[i], times[i + 1])
    return jnp.asarray(predict, jnp.float32), jnp.asarray(correct, jnp.float32)


def dpm_solver(
    rng_key: PRNGKeyArray, denoiser: Denoiser, noise: Float[Array, "batch channels"], grid: Float[np.ndarray, " levels"]
) -> Float[Array, "batch channels"]:
    """Solve the probability-flow ODE by DPM-Solver++(2M): second order, one evaluation a step.

    Lu et al. 2022 (arXiv 2211.01095), algorithm 2, for a process whose signal is not scaled.

    Parameters
    ----------
    rng_key
        Unused: all randomness is in the noise.
    denoiser
        Expected clean values.
    noise
        Standard normal, where to start.
    grid
        Falling noise levels. One evaluation each, and one at the first level that finds the mean of the target; the
        last step goes from the last level to the denoised value.

    Returns
    -------
    Draws, given channels as given.
    """
    levels = jnp.asarray(grid)

    def step(state: tuple[Array, Array, Array], ends: tuple[Array, Array]) -> tuple[tuple[Array, Array, Array], None]:
        noised, previous, previous_gap = state
        level, next_level = ends
        clean = denoiser(noised, jnp.full(noise.shape[0], level))
        gap = jnp.log(level / next_level)
        slope = jnp.where(jnp.isinf(previous_gap), 0.0, (clean - previous) * gap / (2 * previous_gap))
        noised = next_level / level * noised - jnp.expm1(-gap) * (clean + slope)
        return (noised, clean, gap), None

    # an infinite previous gap marks the first step, which has no slope yet
    start = _start(noise, denoiser, levels[0])
    initial = (start, jnp.zeros_like(start), jnp.asarray(jnp.inf))
    (noised, _, _), _ = jax.lax.scan(step, initial, (levels[:-1], levels[1:]))
    return denoiser(noised, jnp.full(noise.shape[0], levels[-1]))


def heun(
    rng_key: PRNGKeyArray, denoiser: Denoiser, noise: Float[Array, "batch channels"], grid: Float[np.ndarray, " levels"]
) -> Float[Array, "batch channels"]:
    """Solve the probability-flow ODE by Heun's method: second order, two evaluations a step.

    Karras et al. 2022, algorithm 1. Parameters and return value as of :func:`dpm_solver`.
    """
    levels = jnp.asarray(grid)

    def direction(noised: Array, level: Array) -> Array:
        return (noised - denoiser(noised, jnp.full(noise.shape[0], level))) / level

    def step(noised: Array, ends: tuple[Array, Array]) -> tuple[Array, None]:
        level, next_level = ends
        first = direction(noised, level)
        second = direction(noised + (next_level - level) * first, next_level)
        return noised + (next_level - level) * (first + second) / 2, None

    noised, _ = jax.lax.scan(step, _start(noise, denoiser, levels[0]), (levels[:-1], levels[1:]))
    return denoiser(noised, jnp.full(noise.shape[0], levels[-1]))


def euler(
    rng_key: PRNGKeyArray, denoiser: Denoiser, noise: Float[Array, "batch channels"], grid: Float[np.ndarray, " levels"]
) -> Float[Array, "batch channels"]:
    """Solve the probability-flow ODE by Euler's method, also known as DDIM (Song et al. 2021): first order.

    Parameters and return value as of :func:`dpm_solver`.
    """
    levels = jnp.asarray(grid)

    def step(noised: Array, ends: tuple[Array, Array]) -> tuple[Array, None]:
        level, next_level = ends
        clean = denoiser(noised, jnp.full(noise.shape[0], level))
        return clean + next_level / level * (noised - clean), None

    noised, _ = jax.lax.scan(step, _start(noise, denoiser, levels[0]), (levels[:-1], levels[1:]))
    return denoiser(noised, jnp.full(noise.shape[0], levels[-1]))


def euler_maruyama(
    rng_key: PRNGKeyArray, denoiser: Denoiser, noise: Float[Array, "batch channels"], grid: Float[np.ndarray, " levels"]
) -> Float[Array, "batch channels"]:
    """Simulate the reverse SDE by Euler-Maruyama, as Gloeckler et al. 2024 do: many small steps.

    Song et al. 2021, equation 6, in the variance of the noise as time. A process that scales its signal is the same in
    this coordinate, but for the error of the steps. Parameters and return value as of :func:`dpm_solver`; the key
    draws the noise of the steps.
    """
    levels = jnp.asarray(grid)

    def step(noised: Array, ends: tuple[Array, Array, Array]) -> tuple[Array, None]:
        level, next_level, key = ends
        gap = level**2 - next_level**2
        clean = denoiser(noised, jnp.full(noise.shape[0], level))
        drift = (clean - noised) * gap / level**2
        return noised + drift + jnp.sqrt(gap) * jax.random.normal(key, noise.shape), None

    keys = jax.random.split(rng_key, len(grid) - 1)
    noised, _ = jax.lax.scan(step, _start(noise, denoiser, levels[0]), (levels[:-1], levels[1:], keys))
    return denoiser(noised, jnp.full(noise.shape[0], levels[-1]))


ADAMS = Sampler(adams, lambda evaluations: evaluations - 1)
DPM_SOLVER = Sampler(dpm_solver, lambda evaluations: evaluations - 1)
HEUN = Sampler(heun, lambda evaluations: evaluations // 2)
EULER = Sampler(euler, lambda evaluations: evaluations - 1)
EULER_MARUYAMA = Sampler(euler_maruyama, lambda evaluations: evaluations - 1)
SAMPLERS = {
    "Adams": ADAMS,
    "DPM-Solver++(2M)": DPM_SOLVER,
    "Heun": HEUN,
    "DDIM": EULER,
    "Euler-Maruyama": EULER_MARUYAMA,
}


def _start(noise: Float[Array, "batch channels"], denoiser: Denoiser, level: Array) -> Array:
    """Noise around the mean of the target: around zero, every draw would be off by mean / level of its sd."""
    centre = denoiser(jnp.zeros_like(noise), jnp.full(noise.shape[0], level))
    return centre + noise * jnp.sqrt(1 + level**2)
