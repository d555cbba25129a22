"""Draws under weights, from samplers that are known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm, truncnorm

from simformer_ppl.diffusion.process import EDM
from simformer_ppl.diffusion.samplers import adams
from simformer_ppl.diffusion.tempering import Weight, systematic, temper


def gaussian_sampler(noise):
    """The default sampler, fed the denoiser of a standard normal target."""
    denoiser = lambda noised, level: noised / (1 + level[:, None] ** 2)  # noqa: E731
    return jax.jit(lambda z: adams(jax.random.key(0), denoiser, z, EDM().grid(19)))(noise)


def above(bound):
    def weigh(draws):
        beyond = np.maximum(bound - np.asarray(draws), 0.0)
        return Weight(np.zeros(len(beyond)), np.sqrt((beyond**2).sum(1)))

    return weigh


@pytest.mark.parametrize(
    ("dims", "probability"),
    [(1, 0.01), *(pytest.param(d, p, marks=pytest.mark.slow) for d, p in ((2, 1e-4), (7, 0.01), (7, 1e-4)))],
)
def test_a_truncated_gaussian_has_its_moments(dims, probability):
    bound = norm.isf(probability ** (1 / dims))
    population = temper(jax.random.key(0), gaussian_sampler, above(bound), (4_000, dims))
    draws, exact = np.asarray(population.draws), truncnorm(bound, np.inf)
    assert (draws > bound).all()
    # of the untruncated sd, the worst of the coordinates
    assert np.abs(draws.mean(0) - exact.mean()).max() < 0.02
    assert np.abs(draws.std(0) - exact.std()).max() < 0.02
    assert abs(population.log_mean_weight - np.log(probability)) < 0.5


def test_a_soft_weight_multiplies_densities():
    # N(0, 1) times a likelihood of N(3, 0.2)
    weigh = lambda draws: Weight(np.asarray(-0.5 * ((draws[:, 0] - 3.0) / 0.2) ** 2), np.zeros(len(draws)))  # noqa: E731
    draws = np.asarray(temper(jax.random.key(1), gaussian_sampler, weigh, (4_000, 1)).draws)
    variance = 1 / (1 + 1 / 0.04)
    assert abs(draws.mean() - variance * 3.0 / 0.04) < 0.02
    assert abs(draws.std() - np.sqrt(variance)) < 0.02


def test_nothing_is_led_to_where_no_weight_is():
    weigh = lambda draws: Weight(np.full(len(draws), -np.inf), np.zeros(len(draws)))  # noqa: E731
    assert temper(jax.random.key(0), lambda noise: noise, weigh, (100, 2)) is None


def test_resampling_follows_the_weights():
    weights = np.array([0.1, 0.2, 0.3, 0.4])
    counts = np.bincount(systematic(np.random.default_rng(0), np.log(weights), 1_000), minlength=4)
    assert np.abs(counts - 1_000 * weights).max() <= 1


def test_a_moved_population_is_of_distinct_draws():
    population = temper(jax.random.key(2), lambda noise: jnp.asarray(noise), above(2.0), (1_000, 3))
    assert population.distinct > 0.9 * 1_000
