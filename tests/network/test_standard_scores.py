"""Scores among the like: small differences of large values, and nothing that the mask hides."""

import jax.numpy as jnp
import numpy as np

from simformer_ppl.network.standard_scores import standard_scores

# a parameter, and four data that it alone ties together
GROUPS = np.array([0, 1, 1, 1, 1])
STAR = np.eye(5, dtype=bool)
STAR[0] = STAR[:, 0] = True
VALUES = jnp.array([[7.0, 1.0, 1.1, 0.9, 3.0]])


def test_given_data_are_compared_through_the_parameter_that_asks():
    given = jnp.array([[False, True, True, True, False]])
    got = standard_scores(VALUES, given, jnp.asarray(STAR)[None], GROUPS)
    deviation = np.std([1.0, 1.1, 0.9])
    assert got.exists.tolist() == [[False, True, True, True, False]]
    np.testing.assert_allclose(got.score[0, 1:4], [0.0, 0.1 / deviation, -0.1 / deviation], atol=1e-3)
    np.testing.assert_allclose(got.log_deviation[0, 1:4], np.log(deviation), atol=1e-4)


def test_where_the_parameter_is_given_nobody_is_compared():
    given = jnp.array([[True, True, True, True, False]])
    mask = np.eye(5, dtype=bool)
    mask[4, 0] = True
    assert not standard_scores(VALUES, given, jnp.asarray(mask)[None], GROUPS).exists.any()


def test_latent_values_are_compared_with_the_latent_ones_they_attend_to():
    given = jnp.array([[False, False, False, True, True]])
    got = standard_scores(VALUES, given, jnp.ones((1, 5, 5), bool), GROUPS)
    # two latent and two given of the group
    np.testing.assert_allclose(got.score[0, 1:], [-1.0, 1.0, -1.0, 1.0], atol=1e-3)
    np.testing.assert_allclose(np.exp(got.log_deviation[0, 1:]), [0.05, 0.05, 1.05, 1.05], rtol=1e-3)


def test_scores_are_those_of_any_location_and_scale():
    given = jnp.array([[False, True, True, True, True]])
    plain = standard_scores(VALUES, given, jnp.asarray(STAR)[None], GROUPS)
    moved = standard_scores(3.0 + VALUES / 20, given, jnp.asarray(STAR)[None], GROUPS)
    np.testing.assert_allclose(moved.score[0, 1:], plain.score[0, 1:], atol=1e-4)
    np.testing.assert_allclose(moved.log_deviation[0, 1:], plain.log_deviation[0, 1:] - np.log(20), atol=1e-4)


def test_a_permutation_of_the_plate_permutes_the_scores():
    rng = np.random.default_rng(0)
    values, given = rng.normal(size=(3, 5)), rng.uniform(size=(3, 5)) < 0.5
    order = np.array([0, 3, 1, 4, 2])
    mask = jnp.asarray(STAR)[None]
    got = standard_scores(jnp.asarray(values), jnp.asarray(given), mask, GROUPS)
    permuted = standard_scores(jnp.asarray(values[:, order]), jnp.asarray(given[:, order]), mask, GROUPS)
    np.testing.assert_array_equal(permuted.exists, got.exists[:, order])
    for new, old in zip(permuted[:2], got[:2], strict=True):
        expected = jnp.where(got.exists, old, 0.0)[:, order]
        np.testing.assert_allclose(jnp.where(permuted.exists, new, 0.0), expected, atol=1e-5)
