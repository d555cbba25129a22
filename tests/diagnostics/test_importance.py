"""Weights with tails that can be smoothed, and that cannot."""

import numpy as np
from scipy.stats import norm

from simformer_ppl.diagnostics.importance import UNRELIABLE, pareto_smooth


def weighted_mean(draws, log_weight):
    return float((np.exp(log_weight) * draws).sum())


def test_a_moved_target_is_reached_by_smoothed_weights():
    draws = np.random.default_rng(0).normal(size=4_000)
    smoothed = pareto_smooth(norm.logpdf(draws, 0.4) - norm.logpdf(draws))
    assert smoothed.pareto_k < UNRELIABLE
    assert abs(weighted_mean(draws, smoothed.log_weight) - 0.4) < 0.06  # three standard errors and a half


def test_a_draw_that_should_not_be_there_does_not_crowd_out_the_others():
    draws = np.random.default_rng(0).normal(size=4_000)
    log_weight = norm.logpdf(draws, 0.4) - norm.logpdf(draws)
    # as if the proposal had hardly any density at one draw
    log_weight[np.argmin(draws)] += 40
    smoothed = pareto_smooth(log_weight)
    assert smoothed.pareto_k > UNRELIABLE
    assert smoothed.effective_sample_size > 1_000
    assert abs(weighted_mean(draws, smoothed.log_weight) - 0.4) < 0.06  # three standard errors and a half


def test_a_heavy_tail_is_smoothed_while_many_draws_share_the_weight():
    # a scale, and eight values as wide, which the proposal keeps no narrower than .05
    rng = np.random.default_rng(0)
    scale = rng.normal(size=8_000) ** 2 + 1e-4
    width = np.hypot(scale, 0.05)
    values = width[:, None] * rng.normal(size=(8_000, 8))
    density = norm.logpdf(values, scale=scale[:, None]) - norm.logpdf(values, scale=width[:, None])
    smoothed = pareto_smooth(density.sum(1))
    assert smoothed.pareto_k > UNRELIABLE
    largest = np.sort(density.sum(1))[-int(8_000**0.5)]
    cut = np.minimum(density.sum(1), largest)

    def error(log_weight):
        return abs(weighted_mean(scale, log_weight) - scale.mean())

    # cut, the weights would be further off
    assert error(smoothed.log_weight) < 0.7 * error(cut - np.logaddexp.reduce(cut))
