"""Standardised channels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simformer_ppl.tokens.standardisation import EXTREME_KURTOSIS, fit_standardisation

RNG = np.random.default_rng(0)
SAMPLES = np.stack(
    [RNG.normal(5, 3, 20_000), 100 * RNG.standard_cauchy(20_000), RNG.standard_t(2, 20_000) - 4, np.full(20_000, 7.0)],
    1,
)


@pytest.fixture(scope="module")
def standardisation():
    return fit_standardisation(SAMPLES, np.ones(4, bool), np.arange(4))


def test_moments_are_zero_and_one_and_tails_are_drawn_in(standardisation):
    z = np.asarray(standardisation.forward(jnp.asarray(SAMPLES, jnp.float32)), np.float64)[:, :3]
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(z.std(0), 1, atol=1e-3)
    assert (((z - z.mean(0)) ** 4).mean(0) < EXTREME_KURTOSIS).all()


def test_a_gaussian_stays_affine(standardisation):
    assert not np.asarray(standardisation.warp)[:, 0].any()


def test_inverse_undoes_forward_far_outside_the_simulations(standardisation):
    x = jnp.array([[1e3, 1e7, -1e5, 7.0], [-1e3, -3e6, 1e6, 7.0], [0.0, 0.0, 0.0, 7.0]])
    np.testing.assert_allclose(standardisation.inverse(standardisation.forward(x)), x, rtol=1e-3, atol=1e-2)


def test_log_derivative_is_that_of_autodiff(standardisation):
    x = jnp.asarray(SAMPLES[:50], jnp.float32)
    slopes = jax.vmap(lambda row: jnp.diagonal(jax.jacfwd(standardisation.forward)(row)))(x)
    np.testing.assert_allclose(standardisation.log_derivative(x), jnp.log(slopes), atol=1e-3)


def test_order_is_kept(standardisation):
    x = np.sort(SAMPLES, 0)[::50]
    assert (np.diff(np.asarray(standardisation.forward(jnp.asarray(x, jnp.float32)))[:, :3], axis=0) >= 0).all()
