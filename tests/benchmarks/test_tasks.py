"""References of the benchmark tasks: they must be draws of the conditionals of the models themselves."""

import numpy as np
import pytest
from scipy.stats import kstest

from simformer_ppl.benchmarks.asking import _score
from simformer_ppl.benchmarks.tasks import slcp
from simformer_ppl.benchmarks.tasks.catalogue import TASKS
from simformer_ppl.benchmarks.tasks.gaussians import MIXTURE
from simformer_ppl.benchmarks.tasks.task import fresh_questions, shipped_questions
from simformer_ppl.benchmarks.tasks.two_moons import radius
from simformer_ppl.diagnostics.c2st import c2st
from simformer_ppl.simformer import Simformer

DRAWS = 99


def ranks(name, count):
    """Ranks of what was simulated among reference draws given the rest of it, scalar by scalar."""
    rng = np.random.default_rng(0)
    questions = fresh_questions(TASKS[name], count, DRAWS, 1)
    below = np.stack([(q.reference < q.values).sum(0) for q in questions])
    known = np.stack([q.given for q in questions])
    uniform = (below + rng.uniform(size=below.shape)) / (DRAWS + 1)
    return [column[~given] for column, given in zip(uniform.T, known.T, strict=True)]


# uniform, if and only if simulations and reference agree (Talts et al. 2018); one in a thousand true ones fails
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("gaussian_linear", 200),
        ("gaussian_mixture", 200),
        ("two_moons_all", 400),
        ("tree", 60),
        ("slcp_all", 60),
        pytest.param("hmm", 300, marks=pytest.mark.slow),
    ],
)
def test_simulations_rank_uniformly_among_reference_draws(name, count, monkeypatch):
    monkeypatch.setattr(slcp, "_CELLS", 200_000)
    columns = ranks(name, count)
    p_values = [kstest(column, "uniform").pvalue for column in columns if len(column)]
    assert min(p_values) > 1e-3 / len(p_values)


def test_two_moons_have_their_radius():
    question = fresh_questions(TASKS["two_moons"], 1, 20_000, 3)[0]
    lengths = radius(question.reference[:, :2], question.reference[:, 2:])
    assert abs(lengths.mean() - 0.1) < 5 * 0.01 / np.sqrt(20_000)
    assert abs(lengths.std() - 0.01) < 5 * 0.01 / np.sqrt(40_000)


def test_a_reference_says_what_it_cannot_draw():
    with pytest.raises(ValueError, match="Expected x to be given and theta not"):
        MIXTURE.draw_conditional(np.random.default_rng(0), np.zeros(4), np.zeros(4, bool), 10)
    half = np.arange(13) == 5
    with pytest.raises(ValueError, match="Expected pairs given as a whole"):
        slcp.draw_slcp(np.random.default_rng(0), np.zeros(13), half, 10)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gaussian_linear", "gaussian_mixture", "two_moons", "slcp"])
def test_shipped_references_are_the_posteriors_of_our_models(name):
    pytest.importorskip("sbibm_jax", reason="the extra `bench`")
    scores = []
    for question in shipped_questions(TASKS[name], 1_000):
        own = TASKS[name].draw_conditional(np.random.default_rng(0), question.values, question.given, 1_000)
        scores.append(c2st(own[:, ~question.given], question.latent_reference))
    # five standard errors of an accuracy over all labels
    assert np.mean(scores) < 0.5 + 5 * 0.5 / np.sqrt(2_000 * len(scores))


def test_without_a_reference_there_is_no_score():
    questions = fresh_questions(TASKS["sird"], 2, 10, 0)
    sites = Simformer(TASKS["sird"].model, **TASKS["sird"].options).structure.sites.values()
    counts = [len(questions[0].coordinates.get(site.name, np.zeros(site.size))) for site in sites]
    for question in questions:
        np.testing.assert_array_equal(question.given, np.repeat([site.is_data for site in sites], counts))
        assert question.reference.shape == (0, sum(counts)) and np.isfinite(question.values).all()
    scores = _score(None, questions, np.zeros((2, 10, sum(counts))), np.zeros((2, 10, sum(counts))))
    assert scores["c2st_rf"] is None and scores["c2st_mlp"] is None
