"""Long calls tell how far they are."""

import jax
import pytest
from tqdm import tqdm

from simformer_ppl import progress


@pytest.fixture
def bars(monkeypatch):
    made = []

    def make(**options):
        made.append(tqdm(**options | {"delay": 0.0}))
        return made[-1]

    monkeypatch.setattr(progress, "tqdm", make)
    return made


def test_a_bar_counts_every_sequence_that_is_asked(bars, chain):
    posterior = chain.condition(y=1.0)
    posterior.sample(jax.random.key(0), 400)
    (bar,) = bars
    assert bar.n == bar.total >= 400
    assert bar.desc.startswith("sample")


def test_calls_within_calls_share_a_bar(bars, chain):
    chain.calibrate(jax.random.key(0), num_simulations=20, num_draws=10)
    (bar,) = bars
    assert bar.desc.startswith("calibrate") and bar.n == bar.total >= 200


def test_without_a_bar_nothing_is_shown(bars, chain, capfd):
    chain.condition(y=1.0).sample(jax.random.key(0), 400, progress_bar=False)
    chain.calibrate(jax.random.key(0), num_simulations=20, num_draws=10, progress_bar=False)
    assert not bars and capfd.readouterr().err == ""
