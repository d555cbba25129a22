"""C2ST against the number of network evaluations, for every sampler."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from simformer_ppl.benchmarks.asking import condition, questions_of
from simformer_ppl.benchmarks.tasks.catalogue import TASKS
from simformer_ppl.diagnostics.c2st import c2st
from simformer_ppl.diffusion.process import EDM
from simformer_ppl.diffusion.samplers import SAMPLERS
from simformer_ppl.simformer import Simformer

DRAWS, FEW_DRAWS, QUESTIONS = 5_000, 1_000, 5


def compare_samplers(
    name: str, simulations: int, seed: int, evaluations: Sequence[int], question_seed: int | None = None
) -> Iterator[dict[str, Any]]:
    """Train once at the defaults, then draw with every sampler and number of evaluations.

    Parameters
    ----------
    name
        Of a task that asks for posteriors.
    simulations, seed
        Of training.
    evaluations
        Of the network, for a draw.
    question_seed
        Ask about observations simulated from this seed, in place of the reference observations.
    """
    task = TASKS[name]
    questions = questions_of(task, question_seed)[:QUESTIONS]
    simformer = Simformer(task.model, **task.options).fit(jax.random.key(seed), simulations)
    asked = condition(simformer, questions)
    for sampler in SAMPLERS:
        process = EDM()._replace(sampler=SAMPLERS[sampler])
        sampled = replace(asked, joint=replace(asked.joint, process=process))
        for count in evaluations:
            drawn = sampled.draw(jax.random.key(seed + 1), (DRAWS,), num_steps=count)
            scores, many = [], []
            for number, question in enumerate(questions):
                parts = [np.asarray(drawn[site])[:, number].reshape(DRAWS, -1) for site in asked.latent_sites]
                draws, reference = np.concatenate(parts, 1), question.latent_reference
                scores.append(c2st(draws[:FEW_DRAWS], reference[:FEW_DRAWS]))
                many.append(c2st(draws, reference[:DRAWS]))
            yield {
                "task": name, "simulations": simulations, "seed": seed, "sampler": sampler, "evaluations": count,
                "c2st_rf": round(float(np.mean(scores)), 4), "c2st_rf_5000": round(float(np.mean(many)), 4),
                "c2st_rf_5000_each": np.round(many, 4).tolist(), "question_seed": question_seed,
            }  # fmt: skip
