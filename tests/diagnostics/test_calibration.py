"""Ranks of true values among draws, on laws that are known."""

import numpy as np
import pytest

from simformer_ppl.diagnostics.calibration import central_coverage, pit_values, tarp_values, uniformity
from simformer_ppl.diagnostics.local_c2st import local_c2st

SIMULATIONS, DRAWS = 1_000, 99


def correlated(rng, shape, correlation):
    first, second = rng.normal(size=(2, *shape))
    return np.stack([first, correlation * first + np.sqrt(1 - correlation**2) * second], -1)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_draws_from_the_law_of_the_truths_rank_uniformly(rng):
    truths, draws = correlated(rng, (SIMULATIONS,), 0.9), correlated(rng, (DRAWS, SIMULATIONS), 0.9)
    values = pit_values(rng, truths, draws)
    assert (uniformity(values) > 0.01).all() and uniformity(tarp_values(rng, truths, draws)) > 0.01
    assert abs(central_coverage(values, 0.9) - 0.9) < 4 * np.sqrt(0.09 / values.size)


@pytest.mark.parametrize("distortion", [lambda d: d + 0.3, lambda d: 1.3 * d, lambda d: d / 1.3])
def test_shifted_and_scaled_draws_are_found_out(rng, distortion):
    truths, draws = correlated(rng, (SIMULATIONS,), 0.5), correlated(rng, (DRAWS, SIMULATIONS), 0.5)
    assert (uniformity(pit_values(rng, truths, distortion(draws))) < 1e-3).all()


def test_wrong_correlations_show_jointly_but_not_in_ranks(rng):
    truths, draws = correlated(rng, (SIMULATIONS,), 0.9), correlated(rng, (DRAWS, SIMULATIONS), -0.9)
    assert (uniformity(pit_values(rng, truths, draws)) > 0.01).all()
    assert uniformity(tarp_values(rng, truths, draws)) < 1e-3


def test_ties_are_broken_at_random(rng):
    truths, draws = rng.poisson(1.0, (SIMULATIONS, 1)), rng.poisson(1.0, (DRAWS, SIMULATIONS, 1))
    assert uniformity(pit_values(rng, truths, draws)) > 0.01


def test_a_local_test_finds_the_observation_whose_answer_is_wrong(rng):
    """Draws of t given x are right for negative x, and off by two standard deviations for positive x."""
    given = rng.normal(size=(500, 1))
    truths, draws = given + rng.normal(size=(2, *given.shape))
    draws = draws + 2 * (given > 0)
    p_values = []
    for x in (-1.0, 1.0):
        answer = x + 2 * (x > 0) + rng.normal(size=(300, 1))
        p_values.append(local_c2st(rng, truths, draws, given, answer, np.array([x]), 19).p_value)
    assert p_values[0] > 0.05 and p_values[1] == 0.05
