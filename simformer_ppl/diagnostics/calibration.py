"""Where true values fall among draws: uniformly, if the draws come from the true conditional distribution."""

import numpy as np
from arviz_stats.base import array_stats
from jaxtyping import Float


def pit_values(
    rng: np.random.Generator,
    truths: Float[np.ndarray, "simulations scalars"],
    draws: Float[np.ndarray, "draws simulations scalars"],
) -> Float[np.ndarray, "simulations scalars"]:
    """Probability integral transform of every scalar: its rank among the draws, spread over the unit interval.

    Simulation-based calibration (Talts et al. 2018, arXiv 1804.06788). Ties, as discrete values have, are broken at
    random.

    Parameters
    ----------
    rng
        Breaks ties, and places values within ranks.
    truths
        Simulated values.
    draws
        From their conditional distributions.

    Returns
    -------
    Uniform values, if the draws are right.
    """
    below, equal = (draws < truths).sum(0), (draws == truths).sum(0)
    return (below + rng.uniform(size=truths.shape) * (equal + 1)) / (len(draws) + 1)


def tarp_values(
    rng: np.random.Generator,
    truths: Float[np.ndarray, "simulations scalars"],
    draws: Float[np.ndarray, "draws simulations scalars"],
) -> Float[np.ndarray, " simulations"]:
    """Share of the draws that lie nearer than the truth to a random point: tests of accuracy with random points.

    Lemos et al. 2023 (arXiv 2302.03026), algorithm 2. Unlike ranks of scalars, it sees how they depend on each other.

    Parameters
    ----------
    rng
        Draws the points, from a box that holds all simulated values, and places values within ranks.
    truths
        Simulated values.
    draws
        From their conditional distributions.

    Returns
    -------
    The credibility level at which each truth is covered: uniform values, if the draws are right.
    """
    centre, scale = truths.mean(0), np.where(truths.std(0) > 0, truths.std(0), 1.0)
    truths, draws = (truths - centre) / scale, (draws - centre) / scale
    points = rng.uniform(truths.min(0), truths.max(0), truths.shape)
    distance, distances = ((truths - points) ** 2).sum(-1), ((draws - points) ** 2).sum(-1)
    return pit_values(rng, distance[:, None], distances[..., None])[:, 0]


def uniformity(values: Float[np.ndarray, "simulations ..."]) -> Float[np.ndarray, "..."]:
    """P-values of uniformity along the first axis (the pointwise test of arviz-stats, ``pot_c``)."""
    return np.asarray(array_stats.uniformity_test(np.moveaxis(values, 0, -1))[0])


def central_coverage(values: Float[np.ndarray, "simulations ..."], level: float) -> float:
    """Share of central intervals of a level that hold the true value."""
    return float((np.abs(values - 0.5) <= level / 2).mean())
