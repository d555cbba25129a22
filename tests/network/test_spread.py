"""Deviations from the mean of the like: small differences of large values, and nothing that the mask hides."""

import jax.numpy as jnp
import numpy as np

from simformer_ppl.network.spread import deviations

# a parameter, and four data that it alone ties together
GROUPS = np.array([0, 1, 1, 1, 1])
STAR = np.eye(5, dtype=bool)
STAR[0] = STAR[:, 0] = True
VALUES = jnp.array([[7.0, 1.0, 1.1, 0.9, 3.0]])


def test_given_data_are_compared_through_the_parameter_that_asks():
    given = jnp.array([[False, True, True, True, False]])
    got = deviations(VALUES, given, jnp.asarray(STAR)[None], GROUPS)[0]
    np.testing.assert_allclose(got, [0.0, 0.0, 0.1, -0.1, 0.0], atol=1e-6)


def test_where_the_parameter_is_given_nobody_is_compared():
    given = jnp.array([[True, True, True, True, False]])
    mask = np.eye(5, dtype=bool)
    mask[4, 0] = True
    assert not deviations(VALUES, given, jnp.asarray(mask)[None], GROUPS).any()


def test_latent_values_are_compared_with_the_latent_ones_they_attend_to():
    given = jnp.array([[False, False, False, True, True]])
    got = deviations(VALUES, given, jnp.ones((1, 5, 5), bool), GROUPS)[0]
    # two latent and two given of the group
    np.testing.assert_allclose(got, [0.0, -0.05, 0.05, -1.05, 1.05], atol=1e-6)


def test_a_permutation_of_the_plate_permutes_the_deviations():
    rng = np.random.default_rng(0)
    values, given = rng.normal(size=(3, 5)), rng.uniform(size=(3, 5)) < 0.5
    order = np.array([0, 3, 1, 4, 2])
    mask = jnp.asarray(STAR)[None]
    got = deviations(jnp.asarray(values), jnp.asarray(given), mask, GROUPS)
    permuted = deviations(jnp.asarray(values[:, order]), jnp.asarray(given[:, order]), mask, GROUPS)
    np.testing.assert_allclose(permuted, got[:, order], atol=1e-6)
