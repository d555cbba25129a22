"""Edges of channels: means and coordinates that know of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import truncnorm

from simformer_ppl.tokens.bounds import Bounds
from simformer_ppl.tokens.standardisation import Standardisation

LOW, HIGH = -0.5, 2.0
AFFINE = Standardisation(jnp.array([[0.2, 5.0]]), jnp.array([[0.4, 2.0]]), jnp.zeros((1, 2), bool))


@pytest.fixture(scope="module")
def bounds():
    """The first of two channels has edges."""
    return Bounds.of(np.array([True, False]), AFFINE)


def test_edges_are_standardised_like_values(bounds):
    assert Bounds.of(np.zeros(2, bool), AFFINE) is None
    assert np.allclose(bounds.low, [[LOW, -np.inf]]) and np.allclose(bounds.high, [[HIGH, np.inf]])
    assert bounds.exist.tolist() == [[True, False]]


@pytest.mark.parametrize("deviation", [1e-3, 0.05, 0.5, 2.7])
@pytest.mark.parametrize("mean", [-9.0, -0.7, -0.501, -0.2, 0.75, 1.9, 2.1, 11.0])
def test_means_are_those_of_a_truncated_normal_with_finite_derivatives(bounds, mean, deviation):
    far = max(LOW - mean, mean - HIGH) / deviation
    both = jnp.full((1, 2), mean), jnp.full((1, 2), deviation)
    cut, whole = bounds.truncated_mean(*both)[0]
    assert whole == mean and LOW <= cut <= HIGH
    slopes = jax.grad(lambda m, d: bounds.truncated_mean(m, d).sum(), (0, 1))(*both)
    assert np.isfinite(slopes).all()
    if far < 30:  # beyond, the mean is at the edge but for a thirtieth of the deviation
        exact = truncnorm.mean((LOW - mean) / deviation, (HIGH - mean) / deviation, loc=mean, scale=deviation)
        assert abs(cut - exact) < 1e-3 * min(deviation, 1)


def test_unbounded_coordinates_and_back(bounds):
    values = jnp.stack([jnp.linspace(LOW + 1e-3, HIGH - 1e-3, 50), jnp.linspace(-9, 9, 50)], 1)
    coordinates = bounds.unbounded(values)
    np.testing.assert_allclose(bounds.bounded(coordinates), values, atol=1e-5)
    slope = jax.vmap(jax.grad(lambda point: bounds.bounded(point)[0]))(coordinates)[:, 0]
    np.testing.assert_allclose(bounds.slope(values)[:, 0], slope, rtol=1e-3)
    assert (bounds.slope(values)[:, 1] == 1).all()
