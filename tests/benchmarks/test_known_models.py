"""The models whose answers are known are what they say."""

import jax
import jax.numpy as jnp
import numpy as np

from simformer_ppl.benchmarks.known_models import HalfCircle
from simformer_ppl.benchmarks.questions import compare


def test_the_density_of_the_half_circle_is_that_of_its_draws():
    law = HalfCircle(jnp.array([0.3, -0.2]))
    step = 5e-4
    across, along = jnp.meshgrid(jnp.arange(0.3, 0.5, step), jnp.arange(-0.4, 0.0, step))
    grid = jnp.stack([across, along], -1)
    density = jnp.exp(law.log_prob(grid))
    np.testing.assert_allclose(density.sum() * step**2, 1.0, atol=0.01)
    draws = law.sample(jax.random.key(0), (20_000,))
    mean = (grid * density[..., None]).sum((0, 1)) * step**2
    np.testing.assert_allclose(draws.mean(0), mean, atol=0.003)
    # minus the entropy, by draws and by the grid
    entropy = -(jnp.where(density > 0, density * jnp.log(jnp.maximum(density, 1e-30)), 0.0)).sum() * step**2
    found = -law.log_prob(draws)
    # five standard errors, and the error of the grid
    assert abs(found.mean() - entropy) < 5 * found.std() / np.sqrt(20_000) + 0.01


def test_errors_are_in_exact_standard_deviations():
    exact = np.random.default_rng(0).normal(size=(4_000, 2)) * [1.0, 10.0]
    errors = compare(exact * [1.5, 1.0] + [0.0, 2.0], exact)
    assert abs(errors["worst_mean_error"] - 0.2) < 0.01 and abs(errors["sd_error"] - 0.25) < 0.01
