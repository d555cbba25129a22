"""Train on a task, and ask what was trained."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from simformer_ppl.benchmarks.asking import Asking, ask, questions_of
from simformer_ppl.benchmarks.tasks.catalogue import TASKS
from simformer_ppl.benchmarks.training import Settings, train


def run(
    name: str,
    simulations: int,
    seed: int,
    settings: Settings | None = None,
    asking: Asking | None = None,
    save_draws: Path | None = None,
) -> Iterator[dict[str, Any]]:
    """Train and measure.

    Parameters
    ----------
    name
        Of the task.
    simulations
        How many to train on.
    seed
        Of simulations, weights, training and draws.
    settings
        Of training, where they differ from the defaults.
    asking
        The same of draws.
    save_draws
        Where to keep observations, given masks, draws and references.

    Yields
    ------
    What was measured, ready for JSON; then the same of corrected draws, if they are asked for.
    """
    asking = asking or Asking()
    questions = questions_of(TASKS[name], asking.question_seed)  # before training: what is missing is told at once
    trained = train(name, simulations, seed, settings or Settings())
    print(f"{name}: trained in {trained.row['train_seconds']:.0f} s; drawing", file=sys.stderr)
    yield from ask(trained, asking, save_draws, questions)
