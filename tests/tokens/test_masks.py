"""The training mixture of condition masks."""

import jax
import numpy as np
import pytest

from simformer_ppl.tokens.masks import EVERY_QUESTION, POSTERIOR_ONLY, Questions, draw_conditioned, draw_states
from simformer_ppl.tokens.states import ABSENT, GIVEN, LATENT

IS_DATA = np.array([False, False, False, True, True])
SITES = np.array([0, 1, 1, 2, 2])
MASKS = np.asarray(draw_conditioned(jax.random.key(0), 20_000, IS_DATA, np.arange(5), SITES))


def test_every_example_has_something_to_learn():
    assert not MASKS.all(1).any()


def test_every_pattern_is_asked():
    assert len({tuple(row) for row in MASKS.tolist()}) == 2**5 - 1


def test_posterior_likelihood_and_joint_are_asked_most():
    patterns, counts = np.unique(MASKS, axis=0, return_counts=True)
    common = {tuple(row) for row in patterns[np.argsort(counts)[-3:]].tolist()}
    assert common == {tuple(IS_DATA), tuple(~IS_DATA), (False,) * 5}


def test_tokens_of_a_unit_are_given_together():
    units = np.array([0, 0, 0, 1, 2])
    given = np.asarray(draw_conditioned(jax.random.key(1), 2_000, np.array([True] * 3 + [False] * 2), units, units))
    assert (given[:, 0] == given[:, 1]).all() and (given[:, 1] == given[:, 2]).all()


def test_masks_differ_between_examples_of_a_batch():
    assert len({tuple(row) for row in MASKS[:128].tolist()}) > 10


def test_whole_sites_of_many_scalars_are_given():
    sites = np.repeat(np.arange(3), 50)
    given = np.asarray(draw_conditioned(jax.random.key(2), 4_000, sites == 2, np.arange(150), sites))
    whole = given.reshape(4_000, 3, 50).all(2)
    # the first and the last site, but not the second: neither a posterior nor a likelihood
    assert (whole == [True, False, True]).all(1).mean() > 0.01


def test_a_network_for_the_posterior_alone_is_asked_nothing_else():
    given = draw_conditioned(jax.random.key(3), 100, IS_DATA, np.arange(5), SITES, POSTERIOR_ONLY)
    np.testing.assert_array_equal(given, np.tile(IS_DATA, (100, 1)))


@pytest.mark.parametrize("kind", ["partial_data", "any_sites", "any_units"])
def test_some_are_given_and_some_are_not(kind):
    questions = Questions(**{name: float(name == kind) for name in Questions._fields if name != "left_out"})
    is_data = np.array([False, False, True, True])
    sites = np.array([0, 0, 1, 1])
    given = np.asarray(draw_conditioned(jax.random.key(4), 10_000, is_data, np.arange(4), sites, questions))
    assert given.any(1).all() and not given.all(1).any()
    patterns, counts = np.unique(given, axis=0, return_counts=True)
    # every pattern that is possible, and none that is not; as often as its mirror image
    assert len(patterns) == {"partial_data": 2, "any_sites": 2, "any_units": 14}[kind]
    for pattern, count in zip(patterns, counts, strict=True):
        mirrored = pattern[[1, 0, 3, 2]] if kind == "partial_data" else ~pattern
        assert abs(count - counts[(patterns == mirrored).all(1)]) < 5 * np.sqrt(count)


def test_one_datum_is_given_whole_and_one_site_leaves_the_joint():
    one = np.array([True])
    assert not np.asarray(draw_conditioned(jax.random.key(5), 200, one, one * 0, one * 0)).any()
    questions = Questions(0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)
    given = draw_conditioned(jax.random.key(6), 200, np.array([False, True]), np.arange(2), np.arange(2), questions)
    np.testing.assert_array_equal(given, np.tile([False, True], (200, 1)))


def test_what_is_left_out_is_of_the_latent_and_never_all_of_it():
    questions = EVERY_QUESTION._replace(left_out=1.0)
    states = np.asarray(draw_states(jax.random.key(0), 20_000, IS_DATA, np.arange(5), SITES, questions))
    assert (states == LATENT).any(1).all()
    # every way to divide the tokens into three that leaves one to learn
    assert len({tuple(row) for row in states.tolist()}) == 3**5 - 2**5
    both_left_out = (states[:, 1:3] == ABSENT).all(1)
    assert both_left_out.mean() > 2 * (states[:, [1, 3]] == ABSENT).all(1).mean()  # a site as a whole
    # of three sites of which nothing is given, one alone is asked for in a quarter of the examples, or more
    nothing_given = states[(states != GIVEN).all(1)]
    latent_sites = np.stack([(nothing_given[:, site == SITES] == LATENT).any(1) for site in range(SITES.max() + 1)], 1)
    assert (latent_sites.sum(1) == 1).mean() > 0.25


def test_as_many_examples_leave_something_out_as_are_to():
    states = np.asarray(draw_states(jax.random.key(1), 20_000, IS_DATA, np.arange(5), SITES))
    assert 0.03 < (states == ABSENT).any(1).mean() < 0.1
    states = np.asarray(draw_states(jax.random.key(1), 200, IS_DATA, np.arange(5), SITES, POSTERIOR_ONLY))
    assert set(np.unique(states)) == {LATENT, GIVEN}
    np.testing.assert_array_equal(states == GIVEN, np.tile(IS_DATA, (200, 1)))
