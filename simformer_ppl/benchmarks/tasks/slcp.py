"""Simple likelihood, complex posterior: four Gaussian pairs, whose mean and covariance five parameters tell."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Bool, Float

from simformer_ppl.benchmarks.tasks.task import Task

_BOUND = 3.0
_JITTER = 1e-6
_CELLS = 2_000_000
"""Strata of the prior of the scale and correlation parameters that are not given."""

_FEWEST_EFFECTIVE = 20.0
"""Effective strata for each draw: below, the strata are drawn anew where the mass is."""


def slcp(x: Any = None) -> None:
    """Papamakarios et al. 2019, as in sbibm."""
    theta = numpyro.sample("theta", dist.Uniform(-_BOUND, _BOUND).expand([5]).to_event(1))
    scales, correlation = theta[2:4] ** 2, jnp.tanh(theta[4])
    variances = scales**2 + _JITTER
    covariance = correlation * scales[0] * scales[1]
    corner = jnp.sqrt(variances[0])
    below = covariance / corner
    factor = jnp.array([[corner, 0.0], [below, jnp.sqrt(variances[1] - below**2)]])
    with numpyro.plate("pair", 4):
        numpyro.sample("x", dist.MultivariateNormal(theta[:2], scale_tril=factor), obs=x)


def draw_slcp(
    rng: np.random.Generator, values: Float[np.ndarray, " 13"], given: Bool[np.ndarray, " 13"], num_draws: int
) -> Float[np.ndarray, "draws 13"]:
    """Draw any conditional in which a pair is given as a whole.

    Under a flat prior of the means, the marginal likelihood of scales and correlation is in closed form, and the means
    given these are Gaussian. So scales and correlation are drawn from strata of their prior, weighted, then the means,
    and those draws are kept whose means the prior allows; pairs that are not given are simulated.

    Raises
    ------
    ValueError
        If half a pair is given.
    """
    pairs, seen = values[5:].reshape(4, 2), given[5:].reshape(4, 2)
    if (seen[:, 0] != seen[:, 1]).any():
        raise ValueError(f"Expected pairs given as a whole, got {seen.tolist()}.")
    pairs, kept = pairs[seen[:, 0]], np.zeros((0, 5))
    while len(kept) < num_draws:
        shape = _draw_shape(rng, values[2:5], given[2:5], values[:2], given[:2], pairs, 4 * num_draws)
        means = _draw_means(rng, shape, values[:2], given[:2], pairs)
        theta = np.concatenate([means, shape], 1)
        kept = np.concatenate([kept, theta[(np.abs(theta) <= _BOUND).all(1)]])
    theta = kept[:num_draws]
    deviations = np.einsum("nij,npj->npi", _factor(theta[:, 2:]), rng.normal(size=(num_draws, 4, 2)))
    x = (theta[:, None, :2] + deviations).reshape(num_draws, 8)
    return np.where(given, values, np.concatenate([theta, x], 1))


def _draw_shape(
    rng: np.random.Generator,
    values: Float[np.ndarray, " 3"],
    given: Bool[np.ndarray, " 3"],
    means: Float[np.ndarray, " 2"],
    means_given: Bool[np.ndarray, " 2"],
    pairs: Float[np.ndarray, "pairs 2"],
    count: int,
) -> Float[np.ndarray, "draws 3"]:
    """Scales' and correlation's parameters, the means integrated out over the plane."""
    low, high = np.where([True, True, False], 0.0, -_BOUND), np.full(3, _BOUND)
    while True:
        points = _strata(rng, np.where(given, values, low), np.where(given, values, high), given)
        log_weight = _log_marginal(points, means, means_given, pairs)
        weight = np.exp(log_weight - log_weight.max())
        effective = weight.sum() ** 2 / (weight**2).sum()
        if effective > _FEWEST_EFFECTIVE * count or given.all():
            break
        # a smaller box around all that has mass
        inside = points[weight > 1e-9]
        margin = 0.05 * (inside.max(0) - inside.min(0)) + 1e-3
        smaller = np.maximum(inside.min(0) - margin, low), np.minimum(inside.max(0) + margin, high)
        if np.allclose(smaller[0], low, atol=0.02) and np.allclose(smaller[1], high, atol=0.02):
            break
        low, high = smaller
    chosen = points[rng.choice(len(points), count, p=weight / weight.sum())]
    # the data see the squares of the first two: the prior gives either sign
    signs = np.where(given[:2], 1.0, rng.choice([-1.0, 1.0], (count, 2)))
    return chosen * np.concatenate([signs, np.ones((count, 1))], 1)


def _strata(
    rng: np.random.Generator, low: np.ndarray, high: np.ndarray, given: np.ndarray
) -> Float[np.ndarray, "points 3"]:
    """One uniform point in every cell of a grid."""
    side = int(_CELLS ** (1 / max(1, int((~given).sum()))))
    axes = [np.zeros(1) if known else np.arange(side) for known in given]
    corners = np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], 1)
    cells = np.where(given, 0.0, (corners + rng.uniform(size=corners.shape)) / side)
    return low + cells * (high - low)


def _factor(shape: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 2 2"]:
    """Cholesky factor of the covariance."""
    scales, correlation = shape[:, :2] ** 2, np.tanh(shape[:, 2])
    corner = np.sqrt(scales[:, 0] ** 2 + _JITTER)
    below = correlation * scales[:, 0] * scales[:, 1] / corner
    last = np.sqrt(scales[:, 1] ** 2 + _JITTER - below**2)
    zero = np.zeros_like(corner)
    return np.stack([np.stack([corner, zero], 1), np.stack([below, last], 1)], 1)


def _log_marginal(
    shape: Float[np.ndarray, "n 3"], means: np.ndarray, means_given: np.ndarray, pairs: Float[np.ndarray, "pairs 2"]
) -> Float[np.ndarray, " n"]:
    """Log density of the pairs, integrated over the means that are not given."""
    count = len(pairs)
    if not count:
        return np.zeros(len(shape))
    factor = _factor(shape)
    corner, below, last = factor[:, 0, 0], factor[:, 1, 0], factor[:, 1, 1]

    def standardised(deviation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        first = deviation[0] / corner
        return first, (deviation[1] - below * first) / last

    centre = pairs.mean(0)
    total = -count * (np.log(corner) + np.log(last))
    for pair in pairs:
        total -= 0.5 * sum(part**2 for part in standardised(pair - centre))
    # the mean of the pairs is N(means, covariance / count)
    if means_given.all():
        return total - 0.5 * count * sum(part**2 for part in standardised(centre - means))
    total += np.log(corner) + np.log(last)
    if means_given.any():
        known = int(means_given[1])
        variance = (factor[:, known] ** 2).sum(1)
        total -= 0.5 * (np.log(variance) + count * (centre[known] - means[known]) ** 2 / variance)
    return total


def _draw_means(
    rng: np.random.Generator, shape: Float[np.ndarray, "n 3"], means: np.ndarray, given: np.ndarray, pairs: np.ndarray
) -> Float[np.ndarray, "n 2"]:
    """The means given scales, correlation and pairs; from the prior, where there is no pair."""
    size = len(shape)
    if not len(pairs):
        return np.where(given, means, rng.uniform(-_BOUND, _BOUND, (size, 2)))
    factor = _factor(shape) / np.sqrt(len(pairs))
    centre = pairs.mean(0)
    if given.any() and not given.all():
        known = int(given[1])
        covariance = np.einsum("nij,nkj->nik", factor, factor)
        slope = covariance[:, 0, 1] / covariance[:, known, known]
        variance = covariance[:, 1 - known, 1 - known] - slope * covariance[:, 0, 1]
        expected = centre[1 - known] + slope * (means[known] - centre[known])
        drawn = rng.normal(expected, np.sqrt(np.maximum(variance, 0.0)))
        return np.stack([np.full(size, means[0]), drawn] if known == 0 else [drawn, np.full(size, means[1])], 1)
    drawn = centre + np.einsum("nij,nj->ni", factor, rng.normal(size=(size, 2)))
    return np.where(given, means, drawn)


_PAIRS = tuple((first, first + 1) for first in range(5, 13, 2))
POSTERIOR = Task("slcp", slcp, draw_slcp, shipped="slcp")
ALL = Task("slcp_all", slcp, draw_slcp, all_conditionals=True, units=_PAIRS)
