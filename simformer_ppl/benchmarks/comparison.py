"""Other libraries on the same simulations, on the same machine, in one go."""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from simformer_ppl.benchmarks import peers
from simformer_ppl.benchmarks.asking import DRAWS, draw, questions_of, score, time_draws
from simformer_ppl.benchmarks.machine import device
from simformer_ppl.benchmarks.tasks.catalogue import TASKS
from simformer_ppl.benchmarks.tasks.task import Question, Task
from simformer_ppl.simformer import Simformer
from simformer_ppl.structure import Site
from simformer_ppl.tokens.transforms import box_bounds, scalar_support


class Peer(NamedTuple):
    """Another library's method.

    Attributes
    ----------
    package
        Whose environment runs it.
    script
        In the folder of the peers.
    option
        Passed to the script.
    """

    package: str
    script: str
    option: str = ""


SIMULATIONS_ONLY = "simformer_ppl, simulations only"

PEERS = {
    "sbi NPE (spline flow)": Peer("sbi", "sbi_npe.py", "nsf"),
    "sbi NPE (MAF)": Peer("sbi", "sbi_npe.py", "maf"),
    "GenSBI Simformer (flow)": Peer("gensbi", "gensbi_simformer.py"),
}


def compare(
    name: str, simulations: int, seed: int, budget: float, pythons: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """Train ours and every peer on the same simulations; score the same posteriors.

    Parameters
    ----------
    name
        Of a task that asks for posteriors.
    simulations, seed
        Of training.
    budget
        Seconds of training of the peers that have no stopping rule.
    pythons
        The interpreter that runs each package; a peer whose package has none is left out.

    Raises
    ------
    RuntimeError
        If a peer fails; the message ends as its output does.
    """
    task = TASKS[name]
    questions = questions_of(task)
    asked = {"task": name, "simulations": simulations, "seed": seed}
    ours = _ours(task, simulations, seed, questions, use_density=True)
    yield asked | ours
    if ours["method"] != SIMULATIONS_ONLY:
        yield asked | _ours(task, simulations, seed, questions, use_density=False)
    inputs = _inputs(task, simulations, seed, questions)
    for method, peer in PEERS.items():
        if peer.package in pythons:
            drawn, measured = _theirs(method, peer, pythons[peer.package], inputs, budget)
            given = np.stack([np.tile(q.values[q.given], (DRAWS, 1)) for q in questions])
            scores = score(questions, np.concatenate([drawn, given], -1), np.zeros((0, DRAWS, 0)))
            yield asked | {"method": method} | scores | measured


def _theirs(
    method: str, peer: Peer, python: str, inputs: Mapping[str, Any], budget: float
) -> tuple[np.ndarray, dict[str, Any]]:
    """Draws of every posterior, and what was measured."""
    script = Path(str(peers.__file__)).parent / peer.script
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "simulations.npz", Path(folder) / "draws.npz"
        np.savez(source, **inputs, option=peer.option)
        finished = subprocess.run(
            [python, str(script), str(source), str(target), str(budget)],
            capture_output=True, text=True, cwd=folder, env=os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
        )  # fmt: skip
        if finished.returncode:
            raise RuntimeError(f"{method} failed:\n{finished.stderr[-2_000:]}")
        return np.load(target)["draws"], json.loads(finished.stdout.strip().splitlines()[-1])


def _ours(task: Task, simulations: int, seed: int, questions: list[Question], use_density: bool) -> dict[str, Any]:
    simformer = Simformer(task.model, **task.options, use_density=use_density)
    start = time.perf_counter()
    simformer.fit(jax.random.key(seed), simulations=_simulations(simformer, simulations, seed))
    seconds = time.perf_counter() - start
    drawn = draw(simformer, questions, DRAWS, jax.random.key(seed + 1))
    return {
        "method": "simformer_ppl" if simformer.history.attrs["model_gradient"] else SIMULATIONS_ONLY,
        **score(questions, drawn, drawn[:0]),
        "train_seconds": round(seconds, 1),
        "train_steps": int(simformer.history["step"][-1]),
        "sample_seconds_warm": time_draws(simformer, questions[:2], None)["sample_seconds_warm"],
        "device": device(),
    }


def _simulations(simformer: Simformer, count: int, seed: int) -> Any:
    return simformer.simulate(jax.random.key(seed), count)


def _inputs(task: Task, count: int, seed: int, questions: list[Question]) -> dict[str, Any]:
    """Simulations, observations and prior box as arrays."""
    simformer = Simformer(task.model, **task.options)
    simulated, sites = _simulations(simformer, count, seed), simformer.structure.sites.values()
    theta, x = (
        np.concatenate([simulated[s.name].values.reshape(count, -1) for s in sites if s.is_data == is_data], 1)
        for is_data in (False, True)
    )
    low, high = _box([site for site in sites if not site.is_data])
    observations = np.stack([q.values[q.given] for q in questions])
    return {
        "theta": theta, "x": x, "observations": observations, "low": low, "high": high, "draws": DRAWS, "seed": seed,
    }  # fmt: skip


def _box(sites: Sequence[Site]) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of all parameters; empty, where they have none."""
    bounds = [box_bounds(scalar_support(site)) for site in sites]
    if any(bound is None for bound in bounds):
        return np.zeros(0), np.zeros(0)
    pairs = zip(sites, bounds, strict=True)
    ends = [[np.broadcast_to(end, site.shape).ravel() for end in bound] for site, bound in pairs if bound is not None]
    low, high = (np.concatenate(parts) for parts in zip(*ends, strict=True))
    return low, high
