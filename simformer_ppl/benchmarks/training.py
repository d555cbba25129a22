"""Train a Simformer on a task through the public API, and keep it."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from simformer_ppl.benchmarks.machine import device, versions
from simformer_ppl.benchmarks.tasks.catalogue import TASKS
from simformer_ppl.benchmarks.tasks.task import Task
from simformer_ppl.network import NetworkConfig
from simformer_ppl.simformer import Simformer
from simformer_ppl.tokens.masks import POSTERIOR_ONLY

_TRAINING = "training.json"


class Settings(NamedTuple):
    """What training changes of the defaults.

    Attributes
    ----------
    model
        Arguments of :class:`~simformer_ppl.Simformer`.
    fit
        Arguments of :meth:`~simformer_ppl.Simformer.fit`.
    budget
        Seconds of training, in place of the default number of steps.
    posterior_only
        Train for the posterior alone: what a network for one question costs and gains.
    """

    model: Mapping[str, Any] = {}
    fit: Mapping[str, Any] = {}
    budget: float | None = None
    posterior_only: bool = False

    def simformer(self, task: Task) -> Simformer:
        """Of a task, not fitted."""
        kind = PosteriorSimformer if self.posterior_only else Simformer
        return kind(task.model, **task.options, **self.model)


class PosteriorSimformer(Simformer):
    """Trained for the posterior alone."""

    questions = POSTERIOR_ONLY


class Trained(NamedTuple):
    """A fitted Simformer of a task.

    Attributes
    ----------
    simformer
        What was fitted.
    row
        What is told of its training, ready for JSON.
    """

    simformer: Simformer
    row: dict[str, Any]

    def save(self, folder: Path) -> None:
        """Write both to a folder, new or written before."""
        self.simformer.save(folder)
        (folder / _TRAINING).write_text(json.dumps(self.row))

    @classmethod
    def load(cls, folder: Path) -> "Trained":
        """Read what :meth:`save` wrote.

        Raises
        ------
        FileNotFoundError
            If the folder holds none.
        """
        row = json.loads((folder / _TRAINING).read_text())
        kind = PosteriorSimformer if "trained for" in row["overrides"] else Simformer
        return cls(kind.load(folder, TASKS[row["task"]].model), row)


def train(name: str, simulations: int, seed: int, settings: Settings) -> Trained:
    """Train on simulations of a task: on a GPU, say, to ask elsewhere."""
    simformer, train_seconds = _train(TASKS[name], simulations, seed, settings)
    overrides = _named({**settings.model, **settings.fit})
    overrides |= {"trained for": "the posterior alone"} if settings.posterior_only else {}
    row = {
        "task": name,
        "simulations": simulations,
        "seed": seed,
        "attention": simformer.attention,
        "process": simformer.process,
        "model_gradient": bool(simformer.history.attrs["model_gradient"]),
        "overrides": overrides,
        "budget": settings.budget,
        "train_seconds": round(train_seconds, 1),
        "train_steps": int(simformer.history["step"][-1]),
        "validation_loss": round(float(simformer.history["validation_loss"].min()), 5),
        "parameters": simformer.num_parameters,
        "device": device(),
        "versions": versions(),
    }
    return Trained(simformer, row)


def _train(task: Task, simulations: int, seed: int, settings: Settings) -> tuple[Simformer, float]:
    """A fitted Simformer, and the seconds of its training."""
    simformer, fit = settings.simformer(task), dict(settings.fit)
    if settings.budget is not None:
        fit["num_steps"] = _affordable_steps(task, simulations, settings, settings.budget)
    start = time.perf_counter()
    simformer.fit(jax.random.key(seed), simulations, **fit)
    return simformer, time.perf_counter() - start


def _named(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that differ from the defaults, as JSON has them."""
    rest = {name: value for name, value in arguments.items() if name not in ("attention", "process", "network")}
    network = arguments.get("network", NetworkConfig())
    changed = {name: value for name, value in network._asdict().items() if value != getattr(NetworkConfig(), name)}
    return rest | changed


def _affordable_steps(task: Task, simulations: int, settings: Settings, seconds: float) -> int:
    """How many steps a time allows, by the speed of short trials; the first fit, which compiles the most, is not timed.

    Raises
    ------
    RuntimeError
        If the longer trial did not take longer.
    """
    trial, times = settings.simformer(task), []
    for steps in (50, 50, 850):
        start = time.perf_counter()
        trial.fit(jax.random.key(0), simulations, **settings.fit, num_steps=steps, progress_bar=False)
        times.append(time.perf_counter() - start)
    per_step = (times[2] - times[1]) / 800
    if per_step <= 0:
        raise RuntimeError(f"Expected a longer trial to take longer, got {times[1]:.2f} and {times[2]:.2f} s.")
    return max(100, int((seconds - times[0]) / per_step))
