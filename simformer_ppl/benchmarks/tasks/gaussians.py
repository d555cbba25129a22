"""Two posteriors in closed form: a Gaussian mean, and the mean of a narrow and a wide Gaussian."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Bool, Float

from simformer_ppl.benchmarks.tasks.task import Task

_VARIANCE = 0.1
_BOUND = 10.0
_SCALES = np.array([1.0, 0.1])


def linear(x: Any = None) -> None:
    """Ten means under a Gaussian prior, each seen once (sbibm's Gaussian linear task)."""
    with numpyro.plate("dim", 10):
        theta = numpyro.sample("theta", dist.Normal(0, _VARIANCE**0.5))
        numpyro.sample("x", dist.Normal(theta, _VARIANCE**0.5), obs=x)


def mixture(x: Any = None) -> None:
    """The common mean of two Gaussians in the plane, a wide and a narrow one (sbibm's Gaussian mixture task)."""
    theta = numpyro.sample("theta", dist.Uniform(-_BOUND, _BOUND).expand([2]).to_event(1))
    components = dist.Normal(theta, jnp.asarray(_SCALES, jnp.float32)[:, None]).to_event(1)
    numpyro.sample("x", dist.MixtureSameFamily(dist.Categorical(jnp.array([0.5, 0.5])), components), obs=x)


def draw_linear(
    rng: np.random.Generator, values: Float[np.ndarray, " 20"], given: Bool[np.ndarray, " 20"], num_draws: int
) -> Float[np.ndarray, "draws 20"]:
    """Draw any conditional: the pairs of a mean and its datum are independent."""
    draws = np.tile(values, (num_draws, 1))
    for mean, datum in zip(range(10), range(10, 20), strict=True):
        if not given[mean]:
            centre, variance = (values[datum] / 2, _VARIANCE / 2) if given[datum] else (0.0, _VARIANCE)
            draws[:, mean] = rng.normal(centre, variance**0.5, num_draws)
        if not given[datum]:
            draws[:, datum] = rng.normal(draws[:, mean], _VARIANCE**0.5)
    return draws


def draw_mixture(
    rng: np.random.Generator, values: Float[np.ndarray, " 4"], given: Bool[np.ndarray, " 4"], num_draws: int
) -> Float[np.ndarray, "draws 4"]:
    """Draw the posterior: from the mixture around the datum, kept where the prior allows it.

    Raises
    ------
    ValueError
        If not just the data are given.
    """
    if given.tolist() != [False, False, True, True]:
        raise ValueError(f"Expected x to be given and theta not, got the given scalars {given.tolist()}.")
    kept = np.zeros((0, 2))
    while len(kept) < num_draws:
        scale = rng.choice(_SCALES, (num_draws, 1))
        theta = rng.normal(values[2:], scale, (num_draws, 2))
        kept = np.concatenate([kept, theta[(np.abs(theta) < _BOUND).all(1)]])
    return np.concatenate([kept[:num_draws], np.tile(values[2:], (num_draws, 1))], 1)


LINEAR = Task("gaussian_linear", linear, draw_linear, shipped="gaussian_linear")
MIXTURE = Task("gaussian_mixture", mixture, draw_mixture, shipped="gaussian_mixture")
