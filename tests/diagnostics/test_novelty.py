"""Values that no simulation is like."""

import numpy as np
import pytest

from simformer_ppl.diagnostics.novelty import FAR, Simulated

LAWS = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "of a heavy tail": lambda rng, shape: rng.standard_t(3, size=shape),
    "of one random scale": lambda rng, shape: rng.normal(size=shape) * np.exp(rng.normal(size=(shape[0], 1))),
    "correlated": lambda rng, shape: rng.normal(size=(shape[0], 1)) + 0.01 * rng.normal(size=shape),
}


@pytest.mark.parametrize("channels", [1, 3, 40, 700])
@pytest.mark.parametrize("law", LAWS)
def test_p_values_of_further_simulations_are_uniform(law, channels):
    rng = np.random.default_rng(channels)
    simulated = Simulated(LAWS[law](rng, (2_000, channels)))
    found = simulated.novelty(LAWS[law](rng, (1_000, channels)), np.ones(channels, bool))
    # a share of 1,000 values, relative to one of 1,000 others
    for level in (0.05, 0.25, 0.5):
        assert abs((found.p_value <= level).mean() - level) < 4 * np.sqrt(2 * level * (1 - level) / 1_000)
    assert (found.remoteness > FAR).mean() < 0.005


def test_ties_make_p_values_large_and_nothing_that_occurs_is_far():
    rng = np.random.default_rng(0)
    categories = np.eye(3)[rng.choice(3, 3_000, p=[0.6, 0.37, 0.03])] / 0.3 - 1.0
    counts = rng.poisson(2.0, (3_000, 2)).astype(float)
    channels = np.concatenate([categories, counts], 1)
    simulated = Simulated(channels[:2_000])
    for given in ([1, 1, 1, 0, 0], [0, 0, 0, 1, 1], [1, 1, 1, 1, 1]):
        found = simulated.novelty(channels[2_000:], np.array(given, bool))
        assert (found.p_value <= 0.05).mean() < 0.05 + 4 * np.sqrt(2 * 0.05 * 0.95 / 1_000)
        assert (found.remoteness > FAR).mean() < 0.005
    assert (simulated.novelty(channels[2_000:], np.array([1, 1, 1, 0, 0], bool)).p_value == 1).all()
    assert simulated.novelty(np.array([[0.0, 0.0, 0.0, 40.0, 2.0]]), np.array([0, 0, 0, 1, 1], bool)).remoteness > FAR


@pytest.mark.parametrize("channels", [1, 3, 40])
def test_what_only_the_joint_law_rules_out_is_far(channels):
    simulated = Simulated(LAWS["correlated"](np.random.default_rng(0), (2_000, channels + 1)))
    usual = np.full((1, channels + 1), 0.5)
    apart = usual * np.where(np.arange(channels + 1), 1.0, -1.0)
    both = simulated.novelty(np.concatenate([usual, apart]), np.ones(channels + 1, bool))
    assert (both.remoteness > FAR).tolist() == [False, True]
    # what is not given is not looked at
    assert simulated.novelty(apart, np.arange(channels + 1) > 0).remoteness < FAR
