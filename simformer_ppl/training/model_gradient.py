"""The gradient of the model's log density at every simulation, where the model has one that can be relied on."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from simformer_ppl.compilation import COMPILED_QUICKLY
from simformer_ppl.diffusion.control_variate import ModelGradient
from simformer_ppl.replay import Replay
from simformer_ppl.structure import ModelStructure
from simformer_ppl.tokens.bounds import LEAST_SLOPE, Bounds
from simformer_ppl.tokens.layout import TokenLayout
from simformer_ppl.tokens.standardisation import Standardisation

CHUNK = 1_000

_CUT = 4.0
"""Robust standard deviations at which gradients are cut for their second moment."""

_NORMAL_SQUARE_MEDIAN = 0.4549
"""Median of the square of a standard normal variable."""

_LARGEST_SHIFT = 0.1
"""Mean of the cut gradients, in standard deviations, up to which cutting them does no harm."""

_LARGEST_DEVIATION = 6.0
"""Standard errors by which partial integration may fail."""

_SEGMENTS = 4_096
_FEWEST_SEGMENTS = 256
_TESTED_OF_GROUP = 8
"""Channels of a group of likes that speak for the others."""

_MOST_BROKEN = 0.01
"""Share of segments along which a smooth density may seem to jump."""

LogDensity = Callable[[Float[Array, " channels"]], Float[Array, ""]]


def model_gradient(
    replay: Replay,
    structure: ModelStructure,
    layout: TokenLayout,
    standardisation: Standardisation,
    channels: Float[np.ndarray, "simulations channels"],
) -> ModelGradient | None:
    """Differentiate the log density of the model by the standardised channels, bounded ones in unbounded coordinates.

    Parameters
    ----------
    replay
        The model.
    structure
        Its structure.
    layout, standardisation
        From values to standardised channels.
    channels
        Simulations of the model, not standardised.

    Returns
    -------
    The gradient, and the channels where it can be relied on: it is finite and not very skewed, partial integration
    holds at the simulations, and the density does not jump between neighbouring values. None where there are none, or
    the density is unknown: sites are left out, deterministic sites are tokens, or noise is hidden.
    """
    if structure.nuisances or structure.has_hidden_noise or any(s.is_deterministic for s in structure.sites.values()):
        return None
    bounds = Bounds.of(layout.is_bounded, standardisation)
    log_density = partial(_log_density, replay, layout, standardisation, bounds)
    standardised = standardisation.forward(jnp.asarray(channels))
    points = np.asarray(standardised if bounds is None else bounds.unbounded(standardised))
    try:
        differentiate = jax.jit(jax.vmap(jax.grad(log_density)))
        parts = [differentiate(points[start : start + CHUNK]) for start in range(0, len(points), CHUNK)]
        values = np.concatenate([np.asarray(part) for part in parts])
    except Exception:  # a simulator without a density, or one that JAX cannot differentiate
        return None
    # of sites that are embedded nothing is asked
    kept = layout.network_channels
    values, groups = values[:, kept], layout.group_of_channel[kept]
    finite = np.isfinite(values)
    information = _information(np.where(finite, values, 0.0))
    known = finite.all(0) & (np.diagonal(information) > 0) & _may_be_continuous(structure, layout)[kept]
    values = np.where(known, values, 0.0)
    known &= ~_is_skewed(values, np.diagonal(information)) & _is_that_of_the_simulations(points[:, kept], values)
    if known.any():
        tested = _some_of_each(groups)
        broken = _is_broken(log_density, points, values, np.diagonal(information), tested, kept)
        known &= ~np.isin(groups, groups[tested][broken])
    if not known.any():
        return None
    if bounds is not None:
        slope = np.asarray(bounds.slope(standardised))[:, kept]
        information = _information(values / np.maximum(slope, LEAST_SLOPE))
    information = np.where(known & known[:, None], information, 0.0)
    values, information = np.where(known, values, 0.0), information.astype(np.float32)
    return ModelGradient(jnp.asarray(values), jnp.asarray(information), jnp.asarray(known))


def _log_density(
    replay: Replay,
    layout: TokenLayout,
    standardisation: Standardisation,
    bounds: Bounds | None,
    point: Float[Array, " channels"],
) -> Float[Array, ""]:
    standardised = point if bounds is None else bounds.bounded(point)
    channels = standardisation.inverse(standardised)
    values = layout.decode(channels)
    jacobian = layout.log_abs_det_jacobian(values).sum() + standardisation.log_derivative(channels).sum()
    if bounds is not None:
        jacobian -= jnp.log(bounds.slope(standardised)).sum()
    return replay.log_density(values) - jacobian


def _information(gradients: Float[np.ndarray, "simulations channels"]) -> Float[np.ndarray, "channels channels"]:
    """Second moment, each channel cut at a few robust standard deviations."""
    scale = np.sqrt(np.median(gradients**2, 0) / _NORMAL_SQUARE_MEDIAN)
    cut = np.clip(gradients, -_CUT * scale, _CUT * scale)
    return cut.T @ cut / len(cut)


def _may_be_continuous(structure: ModelStructure, layout: TokenLayout) -> Bool[np.ndarray, " channels"]:
    """Continuous sites whose density does not end where another site says so, nor say so themselves."""
    moving = {name for name, site in structure.sites.items() if not site.support_is_static}
    moving |= {other for name in moving for other in structure.sites[name].support_reads}
    may = np.zeros(layout.num_channels, bool)
    for name, part in layout.channel_slices.items():
        may[part] = not structure.sites[name].is_discrete and name not in moving
    return may


def _is_skewed(
    gradients: Float[np.ndarray, "simulations channels"], information: Float[np.ndarray, " channels"]
) -> Bool[np.ndarray, " channels"]:
    """Whether cutting outliers, as training does, would move the mean, which is zero."""
    deviation = np.sqrt(np.maximum(information, 1e-30))
    chance = _LARGEST_DEVIATION / np.sqrt(len(gradients))
    return np.abs(np.clip(gradients / deviation, -_CUT, _CUT).mean(0)) > _LARGEST_SHIFT + chance


def _is_that_of_the_simulations(
    points: Float[np.ndarray, "simulations channels"], gradients: Float[np.ndarray, "simulations channels"]
) -> Bool[np.ndarray, " channels"]:
    """Whether ``E[f g_i + df/du_i] = 0``, as partial integration has it, for f = 1 and f = tanh(u_j), every j.

    A ``log_prob`` that is not the density of what is drawn fails it.
    """
    count = len(points)
    tests = np.concatenate([np.ones((count, 1)), np.tanh(points)], 1).astype(np.float64)
    total = gradients.T @ tests
    total[:, 1:] += np.diag((1 - tests[:, 1:] ** 2).sum(0))
    deviation = np.sqrt((gradients.astype(np.float64) ** 2).T @ tests**2)
    return (np.abs(total) <= _LARGEST_DEVIATION * (deviation + 1e-3 * np.sqrt(count))).all(1)


def _some_of_each(groups: Int[np.ndarray, " channels"]) -> Int[np.ndarray, " tested"]:
    """Channels spread over every group."""
    members = (np.flatnonzero(groups == group) for group in np.unique(groups))
    chosen = (own[np.linspace(0, len(own) - 1, min(len(own), _TESTED_OF_GROUP)).astype(int)] for own in members)
    return np.concatenate(list(chosen))


def _is_broken(
    log_density: LogDensity,
    points: Float[np.ndarray, "simulations channels"],
    slopes: Float[np.ndarray, "simulations some_channels"],
    information: Float[np.ndarray, " some_channels"],
    tested: Int[np.ndarray, " tested"],
    kept: Int[np.ndarray, " some_channels"],
) -> Bool[np.ndarray, " tested"]:
    """Whether the log density changes along short segments otherwise than by the integral of its slope.

    A density that jumps, at a threshold or where a value is rounded, has a gradient that does not tell. A segment is as
    long as the density takes to change by about one nat.
    """
    channels = points.shape[1]
    count = min(len(points), max(_FEWEST_SEGMENTS, _SEGMENTS // len(tested)))
    places, weights = (jnp.asarray(part / 2, jnp.float32) for part in np.polynomial.legendre.leggauss(4))

    def broken(point: Float[Array, " channels"], direction: Float[Array, " channels"]) -> Bool[Array, ""]:
        along = lambda t: log_density(point + t * direction)  # noqa: E731
        rise, integral = along(1.0) - along(0.0), (jax.vmap(jax.grad(along))(0.5 + places) * weights).sum()
        return ~(jnp.abs(rise - integral) < 0.1 * (1 + jnp.abs(rise)))

    chosen = np.linspace(0, len(points) - 1, count).astype(int)
    lengths = np.where(np.arange(count) % 2, 1.0, -1.0)[:, None] / np.sqrt(1 + information + slopes[chosen] ** 2)
    test = jax.jit(jax.vmap(broken), compiler_options=COMPILED_QUICKLY)
    shares = []
    for i in tested:
        directions = np.zeros((count, channels), np.float32)
        directions[:, kept[i]] = lengths[:, i]
        shares.append(np.asarray(test(points[chosen], directions)).mean())
    return np.array(shares) > _MOST_BROKEN
