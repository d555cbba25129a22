"""Standardise channels: mean 0, sd 1, and heavy tails drawn in by a smooth monotone map."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

EXTREME_KURTOSIS = 8.0
"""Kurtosis (3 for a Gaussian) above which a channel is drawn in by asinh before it is standardised."""

_ALIKE = 0.1
"""Difference of quartiles, over their range, up to which channels count as having the same law."""


class Standardisation(NamedTuple):
    """Stages of ``u = (x - location) / scale``, followed by ``asinh(u)`` where `warp` holds.

    The inverse hyperbolic sine is linear at the centre and logarithmic in the tails, and so extrapolates (it is the
    map of Johnson's unbounded system; Johnson 1949). The last stage never warps, so that the result has mean 0, sd 1.
    """

    location: Float[Array, "stages *batch channels"]
    scale: Float[Array, "stages *batch channels"]
    warp: Bool[Array, "stages *batch channels"]

    def forward(self, channels: Float[Array, "*batch channels"]) -> Float[Array, "*batch channels"]:
        """Standardise."""
        for location, scale, warp in zip(*self, strict=True):
            centred = (channels - location) / scale
            channels = jnp.where(warp, jnp.arcsinh(centred), centred)
        return channels

    def inverse(self, standardised: Float[Array, "*batch channels"]) -> Float[Array, "*batch channels"]:
        """Undo :meth:`forward`."""
        for location, scale, warp in reversed(list(zip(*self, strict=True))):
            # sinh of a value that is not to be warped could overflow and poison gradients
            warped = jnp.sinh(jnp.where(warp, standardised, 0.0))
            standardised = jnp.where(warp, warped, standardised) * scale + location
        return standardised

    def log_derivative(self, channels: Float[Array, "*batch channels"]) -> Float[Array, "*batch channels"]:
        """Log of d standardised / d channel, channel by channel."""
        total = jnp.zeros_like(channels)
        for location, scale, warp in zip(*self, strict=True):
            centred = (channels - location) / scale
            total = total - jnp.log(scale) - jnp.where(warp, 0.5 * jnp.log1p(centred**2), 0.0)
            channels = jnp.where(warp, jnp.arcsinh(centred), centred)
        return total


def fit_standardisation(
    channels: Float[np.ndarray, "simulations channels"],
    continuous: Bool[np.ndarray, " channels"],
    groups: Int[np.ndarray, " channels"],
    warped_alike: Int[np.ndarray, " channels"] | None = None,
) -> Standardisation:
    """Fit the stages to simulations.

    Parameters
    ----------
    channels
        Finite unconstrained values.
    continuous
        Channels that may be warped; one-hot channels may not.
    groups
        Channels of a group are standardised alike, by moments pooled over the group.
    warped_alike
        Coarser groups, the channels of which are warped alike; `groups` by default.

    Returns
    -------
    Two stages that warp where the kurtosis is extreme, and a last affine one.
    """
    values = np.asarray(channels, np.float64)
    stages, coarse = [], groups if warped_alike is None else warped_alike
    for _ in range(2):
        warp = continuous & (_kurtosis(values, coarse) > EXTREME_KURTOSIS)
        median, scale = _robust_moments(values, coarse)
        location, scale = np.where(warp, median, 0.0), np.where(warp, scale, 1.0)
        centred = (values - location) / scale
        values = np.where(warp, np.arcsinh(centred), centred)
        stages.append((location, scale, warp))
    mean, deviation = _moments(values, groups)
    stages.append((mean, np.where(deviation > 0, deviation, 1.0), np.zeros(values.shape[1], bool)))
    location, scale, warp = (np.stack(parts) for parts in zip(*stages, strict=True))
    return Standardisation(jnp.asarray(location, jnp.float32), jnp.asarray(scale, jnp.float32), jnp.asarray(warp))


def join_alike(
    channels: Float[np.ndarray, "simulations channels"],
    groups: Int[np.ndarray, " channels"],
    candidates: Int[np.ndarray, " channels"],
) -> Int[np.ndarray, " channels"]:
    """Join groups of channels whose values have the same law, as far as quartiles tell.

    Parameters
    ----------
    channels
        Unconstrained values.
    groups
        Finer groups.
    candidates
        Coarser groups, of which those are joined whose channels have alike quartiles.

    Returns
    -------
    The group of every channel, numbered from 0.
    """
    joined = groups.copy()
    quartiles = np.quantile(channels, [0.25, 0.5, 0.75], axis=0)
    for candidate in np.unique(candidates):
        members = np.flatnonzero(candidates == candidate)
        pooled = np.quantile(channels[:, members], [0.25, 0.5, 0.75])[:, None]
        if (np.abs(quartiles[:, members] - pooled) <= _ALIKE * (pooled[2] - pooled[0])).all():
            joined[members] = groups[members[0]]
    return np.unique(joined, return_inverse=True)[1]


def _pooled(statistic: Float[np.ndarray, " channels"], groups: Int[np.ndarray, " channels"]) -> np.ndarray:
    """Mean over the channels of each group, at each channel."""
    return (np.bincount(groups, statistic) / np.bincount(groups))[groups]


def _moments(values: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean = _pooled(values.mean(0), groups)
    return mean, np.sqrt(_pooled(((values - mean) ** 2).mean(0), groups))


def _kurtosis(values: np.ndarray, groups: np.ndarray) -> Float[np.ndarray, " channels"]:
    mean, deviation = _moments(values, groups)
    fourth = _pooled(((values - mean) ** 4).mean(0), groups)
    return fourth / np.where(deviation > 0, deviation, 1.0) ** 4


def _robust_moments(values: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median and half the interquartile range; sd or 1 where more than half of the values are equal."""
    low, median, high = (_pooled(quantile, groups) for quantile in np.quantile(values, [0.25, 0.5, 0.75], axis=0))
    half_range, (_, deviation) = (high - low) / 2, _moments(values, groups)
    return median, np.where(half_range > 0, half_range, np.where(deviation > 0, deviation, 1.0))
