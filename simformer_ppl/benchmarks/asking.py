"""Ask a trained Simformer the questions of a task, and score its answers against references."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr
from jaxtyping import Float

from simformer_ppl.benchmarks.machine import device, versions
from simformer_ppl.benchmarks.memory import peak_mib
from simformer_ppl.benchmarks.tasks.catalogue import TASKS
from simformer_ppl.benchmarks.tasks.task import Question, Task, fresh_questions, shipped_questions
from simformer_ppl.benchmarks.tasks.two_moons import radius
from simformer_ppl.benchmarks.training import Trained
from simformer_ppl.conditioned import ConditionedDistribution
from simformer_ppl.corrected_draws import corrected_draws
from simformer_ppl.diagnostics.c2st import c2st
from simformer_ppl.diffusion.process import PROCESSES
from simformer_ppl.naming import resolve_dims
from simformer_ppl.simformer import Simformer

DRAWS, MANY_DRAWS = 1_000, 5_000
"""Draws a side of the two-sample tests: as in the paper, and enough to see what that misses."""

TIMED_DRAWS = 10_000
QUESTIONS, QUESTIONS_IN_DEPTH = 100, 10
"""Random conditionals of a task, and how many of them meet the MLP and many draws, and are corrected."""

Answer = Callable[[ConditionedDistribution, jax.Array, int, int | None], dict[str, Any]]
"""``(question, key, draws, network evaluations)`` to draws by site."""

REFERENCE_SEED = 2024


class Asking(NamedTuple):
    """How a trained network is asked.

    Attributes
    ----------
    evaluations
        Network evaluations of a draw.
    question_seed
        Ask about observations simulated from this seed, in place of the reference observations.
    corrected
        Ask the first questions once more, and weight the draws by the density of the model: of ten, since densities
        take far longer than draws.
    """

    evaluations: int | None = None
    question_seed: int | None = None
    corrected: bool = False


def ask(
    trained: Trained, asking: Asking, save_draws: Path | None = None, questions: Sequence[Question] | None = None
) -> Iterator[dict[str, Any]]:
    """Ask and score.

    Parameters
    ----------
    trained
        A fitted Simformer of a task.
    asking
        Where draws differ from the defaults.
    save_draws
        Where to keep observations, given masks, draws and references.
    questions
        From :func:`questions_of`, if they are at hand.

    Yields
    ------
    What was measured, ready for JSON; then the same of corrected draws, if they are asked for.
    """
    questions = questions or questions_of(TASKS[trained.row["task"]], asking.question_seed)
    simformer, row, seed = trained.simformer, dict(trained.row), trained.row["seed"]
    row["question_seed"] = asking.question_seed
    if row["device"] != device():
        row |= {"asked_on": device(), "asked_with": versions()}
    times = time_draws(simformer, _alike(questions), asking.evaluations)
    draws = draw(simformer, questions, DRAWS, jax.random.key(seed + 1), asking.evaluations)
    in_depth = draw(simformer, questions[:QUESTIONS_IN_DEPTH], MANY_DRAWS, jax.random.key(seed + 2), asking.evaluations)
    peak = {"peak_rss_mib": round(peak_mib())}
    if save_draws is not None:
        keep(save_draws, questions, draws)
    scores = _score(simformer, questions, draws, in_depth)
    if row["task"] == "two_moons":
        scores["radius_sd"] = float(np.mean([radius(d[:, :2], d[:, 2:]).std() for d in in_depth]))
    yield row | times | scores | peak
    if asking.corrected:
        first = questions[:QUESTIONS_IN_DEPTH]
        key, answer = jax.random.key(seed + 1), _corrected_answer
        corrected = draw(simformer, first, DRAWS, key, asking.evaluations, answer)
        row["overrides"] = row["overrides"] | {"draws": "corrected", "questions": len(first)}
        row |= {"evaluations": times["evaluations"], "peak_rss_mib": round(peak_mib())}
        yield row | _score(simformer, first, corrected, in_depth[:0])


def _score(
    simformer: Simformer, questions: Sequence[Question], draws: np.ndarray, in_depth: np.ndarray
) -> dict[str, Any]:
    """Of all questions, and of the posteriors among random conditionals; null where there is no reference."""
    if not all(len(question.reference) for question in questions):
        return {"c2st_rf": None, "c2st_mlp": None, "c2st_rf_each": [], "c2st_mlp_each": []}
    scores = score(questions, draws, in_depth)
    posteriors = [s for s, q in zip(scores["c2st_rf_each"], questions, strict=True) if _is_posterior(simformer, q)]
    if 0 < len(posteriors) < len(questions):
        scores["c2st_rf_posterior"] = round(float(np.mean(posteriors)), 4)
    return scores


def questions_of(task: Task, seed: int | None = None) -> list[Question]:
    """The reference questions of a task; or others, from a seed."""
    if task.shipped and seed is None:
        return shipped_questions(task, MANY_DRAWS)
    seed = REFERENCE_SEED if seed is None else seed
    count = QUESTIONS if task.all_conditionals else QUESTIONS_IN_DEPTH
    return fresh_questions(task, count, MANY_DRAWS, seed)


def condition(simformer: Simformer, questions: Sequence[Question]) -> ConditionedDistribution:
    """Ask all questions in one batch, what is not given missing."""
    values = np.stack([np.where(q.given, q.values, np.nan) for q in questions])
    sites = simformer.structure.sites.values()
    return simformer.condition(
        {site.name: values[:, site.token_slice].reshape(len(questions), *site.shape) for site in sites}
    )


def _answer(asked: ConditionedDistribution, key: jax.Array, count: int, evaluations: int | None) -> dict[str, Any]:
    """Draws of what is not given in full."""
    return asked.draw(key, (count,), num_steps=evaluations)


def _corrected_answer(
    asked: ConditionedDistribution, key: jax.Array, count: int, evaluations: int | None
) -> dict[str, Any]:
    """The same, weighted by the density of the model."""
    drawn = corrected_draws(asked._model_density, key, count, evaluations).values
    return {name: drawn[name] for name in asked.latent_sites}


def draw(
    simformer: Simformer,
    questions: Sequence[Question],
    count: int,
    key: jax.Array,
    evaluations: int | None = None,
    answer: Answer = _answer,
) -> Float[np.ndarray, "questions draws scalars"]:
    """Draws of all scalars for every question, the given ones as given."""
    if any(question.coordinates for question in questions):
        keys = jax.random.split(key, len(questions))
        pairs = zip(keys, questions, strict=True)
        return np.stack([_draw_points(simformer, question, count, own, evaluations, answer) for own, question in pairs])
    drawn = answer(condition(simformer, questions), key, count, evaluations)
    scalars = np.stack([np.tile(q.values, (count, 1)) for q in questions])
    for name, array in drawn.items():
        scalars[..., simformer.structure.sites[name].token_slice] = np.moveaxis(np.asarray(array), 0, 1).reshape(
            len(questions), count, -1
        )
    return scalars


def _draw_points(
    simformer: Simformer,
    question: Question,
    count: int,
    key: jax.Array,
    evaluations: int | None,
    answer: Answer,
) -> Float[np.ndarray, "draws scalars"]:
    """Draws of all scalars of one question about points of functions."""
    asked = condition_points(simformer, question).of_sites(None, question.coordinates)
    drawn = answer(asked, key, count, evaluations)
    scalars = np.tile(question.values, (count, 1))
    for name, part in _parts(simformer, question).items():
        if name in drawn:
            scalars[:, part] = np.asarray(drawn[name]).reshape(count, -1)
    return np.where(question.given, question.values, scalars)


def condition_points(simformer: Simformer, question: Question) -> ConditionedDistribution:
    """Ask one question about points of functions."""
    given: dict[str, Any] = {}
    for name, part in _parts(simformer, question).items():
        values = np.where(question.given[part], question.values[part], np.nan)
        if name in question.coordinates:
            dim = resolve_dims(simformer.structure, simformer.dims)[name][0]
            given[name] = xr.DataArray(values, {dim: question.coordinates[name]}, (dim,))
        else:
            given[name] = values.reshape(simformer.structure.sites[name].shape)
    return simformer.condition(given)


def _parts(simformer: Simformer, question: Question) -> dict[str, slice]:
    """Where the scalars of every site stand in a question."""
    parts, start = {}, 0
    for name, site in simformer.structure.sites.items():
        stop = start + len(question.coordinates.get(name, np.zeros(site.size)))
        parts[name], start = slice(start, stop), stop
    return parts


def score(
    questions: Sequence[Question], draws: np.ndarray, in_depth: Float[np.ndarray, "some draws scalars"]
) -> dict[str, Any]:
    """Two-sample tests of every question, and their means; with many draws where there are some."""
    forest, mlp, many = [], [], []
    for number, question in enumerate(questions):
        latent, reference = ~question.given, question.latent_reference
        forest.append(c2st(draws[number][:, latent], reference[:DRAWS]))
        if number < QUESTIONS_IN_DEPTH:
            mlp.append(c2st(draws[number][:, latent], reference[:DRAWS], classifier="mlp"))
        if number < len(in_depth):
            many.append(c2st(in_depth[number][:, latent], reference[:MANY_DRAWS]))
        print(f"question {number}: {forest[-1]:.3f}", file=sys.stderr)
    scores = {"c2st_rf": forest, "c2st_mlp": mlp, "c2st_rf_5000": many}
    scores = {name: each for name, each in scores.items() if each}
    means = {name: round(float(np.mean(each)), 4) for name, each in scores.items()}
    return means | {f"{name}_each": np.round(each, 4).tolist() for name, each in scores.items()}


def keep(path: Path, questions: Sequence[Question], draws: np.ndarray) -> None:
    """Write observations, given masks, draws and references of all questions to one file."""
    np.savez_compressed(
        path,
        observation=np.stack([q.values for q in questions]),
        given=np.stack([q.given for q in questions]),
        draws=draws,
        reference=np.stack([q.reference[:DRAWS] for q in questions]),
    )


def time_draws(simformer: Simformer, questions: Sequence[Question], evaluations: int | None) -> dict[str, Any]:
    """Seconds for many draws of one condition, then of another that is given the same way."""
    seconds = []
    for number, question in enumerate(questions):
        start = time.perf_counter()
        draw(simformer, [question], TIMED_DRAWS, jax.random.key(number), evaluations)
        seconds.append(round(time.perf_counter() - start, 2))
    return {
        "sample_seconds_cold": seconds[0],
        "sample_seconds_warm": seconds[1],
        "evaluations": evaluations or PROCESSES[simformer.process].default_steps,
    }


def _is_posterior(simformer: Simformer, question: Question) -> bool:
    """Whether all data are given, and nothing else."""
    parts = _parts(simformer, question).items()
    return all(bool((question.given[part] == simformer.structure.sites[name].is_data).all()) for name, part in parts)


def _alike(questions: Sequence[Question]) -> Sequence[Question]:
    """Two questions that are given the same way, and something is; or one, twice."""
    asked = [question for question in questions if question.given.any()]
    patterns = [question.given.tolist() for question in asked]
    common = max(patterns, key=patterns.count)
    alike = [question for question, pattern in zip(asked, patterns, strict=True) if pattern == common]
    return (alike * 2)[:2]
