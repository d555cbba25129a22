"""The training mixture of condition masks."""

import jax
import numpy as np

from simformer_ppl.tokens.masks import POSTERIOR_ONLY, draw_conditioned

IS_DATA = np.array([False, False, False, True, True])
SITES = np.array([0, 1, 1, 2, 2])
GIVEN = np.asarray(draw_conditioned(jax.random.key(0), 20_000, IS_DATA, np.arange(5), SITES))


def test_every_example_has_something_to_learn():
    assert not GIVEN.all(1).any()


def test_every_pattern_is_asked():
    assert len({tuple(row) for row in GIVEN.tolist()}) == 2**5 - 1


def test_posterior_likelihood_and_joint_are_asked_most():
    patterns, counts = np.unique(GIVEN, axis=0, return_counts=True)
    common = {tuple(row) for row in patterns[np.argsort(counts)[-3:]].tolist()}
    assert common == {tuple(IS_DATA), tuple(~IS_DATA), (False,) * 5}


def test_tokens_of_a_unit_are_given_together():
    units = np.array([0, 0, 0, 1, 2])
    given = np.asarray(draw_conditioned(jax.random.key(1), 2_000, np.array([True] * 3 + [False] * 2), units, units))
    assert (given[:, 0] == given[:, 1]).all() and (given[:, 1] == given[:, 2]).all()


def test_masks_differ_between_examples_of_a_batch():
    assert len({tuple(row) for row in GIVEN[:128].tolist()}) > 10


def test_whole_sites_of_many_scalars_are_given():
    sites = np.repeat(np.arange(3), 50)
    given = np.asarray(draw_conditioned(jax.random.key(2), 4_000, sites == 2, np.arange(150), sites))
    whole = given.reshape(4_000, 3, 50).all(2)
    # the first and the last site, but not the second: neither a posterior nor a likelihood
    assert (whole == [True, False, True]).all(1).mean() > 0.01


def test_a_network_for_the_posterior_alone_is_asked_nothing_else():
    given = draw_conditioned(jax.random.key(3), 100, IS_DATA, np.arange(5), SITES, POSTERIOR_ONLY)
    np.testing.assert_array_equal(given, np.tile(IS_DATA, (100, 1)))
