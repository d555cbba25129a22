"""Log density by the probability-flow ODE."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm
from jaxtyping import Array, Bool, Float, PRNGKeyArray

Prediction = Callable[[Float[Array, "batch channels"], Float[Array, " batch"]], Float[Array, "batch channels"]]
"""``(noised, noise_level) -> raw output`` of the network F in the preconditioned form ``D = x / (1 + s^2) + ...``."""

Velocity = Callable[[Float[Array, "batch channels"], Float[Array, ""]], Float[Array, "batch channels"]]
"""``(scaled, log noise level) -> d scaled / d log noise level``."""

EXACT = jax.lax.Precision.HIGHEST
"""Products as exact on accelerators as elsewhere: stiff flows multiply small differences by large numbers."""


class _State(NamedTuple):
    """What is followed from level to level.

    Attributes
    ----------
    scaled
        Values in the scaled coordinate.
    place, move
        Of the latent channels at the previous level: where they were, and their speed times the gap between levels.
    expansion
        Log volume that the flow has gained.
    """

    scaled: Float[Array, "batch channels"]
    place: Float[Array, "batch latent"]
    move: Float[Array, "batch latent"]
    expansion: Float[Array, " batch"]


def log_density(
    prediction: Prediction,
    values: Float[Array, "batch channels"],
    latent: Bool[Array, "batch channels"],
    levels: Float[np.ndarray, " levels"],
    count: int,
) -> Float[Array, " batch"]:
    """Log density of the latent channels, by following them from clean to noise.

    In the scaled coordinate ``y = x / sqrt(1 + s^2)`` and the angle ``arctan s`` the probability-flow ODE of EDM's
    preconditioning is ``dy / d angle = -F(y, s)`` (Lu & Song 2024, arXiv 2410.11081, equation 5): a standard Gaussian
    stands still, and only what differs from it has to be integrated. The density follows from the instantaneous change
    of variables (Chen et al. 2018, equation 8), in log s.

    Away from the draws the flow is stiff: values between two modes are drawn to the line that parts them, at a rate
    that explicit methods follow in small steps only. The trace needs the Jacobian anyway, and with it the linear part
    of the flow is solved as such: a linearised exponential multistep method of third order (Hochbruck & Ostermann 2011,
    *Exponential multistep methods of Adams-type*), with one evaluation a level.

    Parameters
    ----------
    prediction
        Raw network output under the condition.
    values
        Clean standardised values.
    latent
        Channels whose density is asked.
    levels
        Rising noise levels, evenly spaced in their logarithm.
    count
        At least the largest number of latent channels of a sequence; cost and memory grow with it.

    Returns
    -------
    Log density in standardised space.
    """
    velocity = _velocity(prediction, latent)
    gap = float(np.log(levels[-1] / levels[0])) / (len(levels) - 1)
    start = values / jnp.sqrt(1 + levels[0] ** 2)
    axes = unit_vectors(latent, count).astype(start.dtype)
    # along every axis, and along time
    directions = jnp.concatenate([axes, jnp.zeros_like(start)[None]]), jnp.zeros(count + 1, start.dtype).at[-1].set(1)

    def step(state: _State, at: tuple[Array, Array, Array]) -> tuple[_State, None]:
        log_level, is_first, weight = at
        speed, push = jax.linearize(velocity, state.scaled, log_level)
        pushed = jax.vmap(push)(*directions)
        jacobian = gap * jnp.einsum("ibc,jbc->bij", axes, pushed[:-1], precision=EXACT)
        place, move, change = _pick(axes, state.scaled), gap * _pick(axes, speed), gap**2 * _pick(axes, pushed[-1])
        # by how much the linear part, taken here, misses the speed at the previous level
        remainder = state.move - move + change - _apply(jacobian, state.place - place)
        flow = _linear_flow(jacobian, move, change, jnp.where(is_first, 0.0, 2 * remainder))
        scaled = state.scaled + (axes * flow.T[..., None]).sum(0)
        expansion = state.expansion + weight * jnp.trace(jacobian, axis1=1, axis2=2)
        return _State(scaled, place, move, expansion), None

    nothing = jnp.zeros((values.shape[0], count), start.dtype)
    logs, number = jnp.log(jnp.asarray(levels[:-1], start.dtype)), np.arange(len(levels) - 1)
    # the trapezoidal rule; the trace has vanished at the last level
    weights = jnp.asarray(np.where(number == 0, 0.5, 1.0), start.dtype)
    state = _State(start, nothing, nothing, jnp.zeros_like(start[:, 0]))
    state, _ = jax.lax.scan(step, state, (logs, jnp.asarray(number == 0), weights))
    return _with_base(prediction, state.scaled, state.expansion, latent, levels)


def estimated_log_density(
    prediction: Prediction,
    values: Float[Array, "batch channels"],
    latent: Bool[Array, "batch channels"],
    levels: Float[np.ndarray, " levels"],
    probes: Float[Array, "probes batch channels"],
) -> Float[Array, " batch"]:
    """As :func:`log_density`, where the channels are too many for their Jacobian: the trace by probes, Heun's method.

    Parameters
    ----------
    prediction, values, latent, levels
        As of :func:`log_density`.
    probes
        Vectors v with E[v v^T] = identity over the latent channels.

    Returns
    -------
    Log density in standardised space.
    """
    velocity = _velocity(prediction, latent)

    def field(scaled: Array, log_level: Array) -> tuple[Array, Array]:
        speed, push = jax.linearize(lambda scaled: velocity(scaled, log_level), scaled)
        return speed, (jax.vmap(push)(probes) * probes).sum((0, 2))

    def heun(state: tuple[Array, Array], ends: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        scaled, expansion = state
        gap = ends[1] - ends[0]
        speed, divergence = field(scaled, ends[0])
        end_speed, end_divergence = field(scaled + gap * speed, ends[1])
        scaled = scaled + 0.5 * gap * (speed + end_speed)
        return (scaled, expansion + 0.5 * gap * (divergence + end_divergence)), None

    start = values / jnp.sqrt(1 + levels[0] ** 2)
    logs = jnp.log(jnp.asarray(levels))
    (scaled, expansion), _ = jax.lax.scan(heun, (start, jnp.zeros_like(start[:, 0])), (logs[:-1], logs[1:]))
    return _with_base(prediction, scaled, expansion, latent, levels)


def _velocity(prediction: Prediction, latent: Bool[Array, "batch channels"]) -> Velocity:
    """Of the probability flow."""

    def velocity(scaled: Float[Array, "batch channels"], log_level: Float[Array, ""]) -> Float[Array, "batch channels"]:
        level = jnp.exp(log_level)
        output = prediction(scaled * jnp.sqrt(1 + level**2), jnp.full(scaled.shape[0], level))
        return jnp.where(latent, -output * level / (1 + level**2), 0.0)

    return velocity


def _linear_flow(
    jacobian: Float[Array, "batch latent latent"],
    constant: Float[Array, "batch latent"],
    linear: Float[Array, "batch latent"],
    quadratic: Float[Array, "batch latent"],
) -> Float[Array, "batch latent"]:
    """``w(1)`` of ``w' = A w + c + l t + q t^2 / 2``, ``w(0) = 0``.

    This is ``phi_1(A) c + phi_2(A) l + phi_3(A) q``, with the exponential by its Padé approximant
    ``(1 + A / 3) / (1 - 2 A / 3 + A^2 / 6)``, which is of third order and L-stable.
    """
    right = constant + linear / 2 + quadratic / 6 - _apply(jacobian, constant / 6 + linear / 6 + quadratic / 12)
    square = jnp.matmul(jacobian, jacobian, precision=EXACT)
    left = jnp.eye(jacobian.shape[-1], dtype=jacobian.dtype) - 2 / 3 * jacobian + square / 6
    return jnp.linalg.solve(left, right[..., None])[..., 0]


def _apply(
    matrix: Float[Array, "batch latent latent"], vector: Float[Array, "batch latent"]
) -> Float[Array, "batch latent"]:
    return jnp.einsum("bij,bj->bi", matrix, vector, precision=EXACT)


def _pick(axes: Float[Array, "latent batch channels"], vector: Float[Array, "batch channels"]) -> Array:
    """Coordinates along unit vectors, ``[batch, latent]``; sums of one term, so exact."""
    return (axes * vector).sum(-1).T


def _with_base(
    prediction: Prediction,
    scaled: Float[Array, "batch channels"],
    expansion: Float[Array, " batch"],
    latent: Bool[Array, "batch channels"],
    levels: Float[np.ndarray, " levels"],
) -> Float[Array, " batch"]:
    """Log density of what the values have become, and by how much the flow has spread them."""
    # at the highest level the values are noise around their mean, which is what is predicted from zero
    mean = prediction(jnp.zeros_like(scaled), jnp.full(scaled.shape[0], levels[-1]))
    centre = mean * levels[-1] / (1 + levels[-1] ** 2)
    base = jnp.where(latent, norm.logpdf(scaled - centre), 0.0).sum(-1)
    return base + expansion - 0.5 * jnp.log1p(levels[0] ** 2) * latent.sum(-1)


def even_levels(lowest: float, highest: float, gap: float) -> Float[np.ndarray, " levels"]:
    """Rising noise levels, evenly spaced in their logarithm by at most `gap`."""
    return np.geomspace(lowest, highest, 1 + math.ceil(math.log(highest / lowest) / gap)).astype(np.float32)


def unit_vectors(latent: Bool[Array, "batch channels"], count: int) -> Float[Array, "count batch channels"]:
    """Unit vectors of the latent channels of every sequence; zero beyond its last.

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
