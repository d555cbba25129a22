"""Seconds and memory of training and of draws: by the places of a function's grid, by points asked for, by tokens."""

import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import xarray as xr

from simformer_ppl.benchmarks.machine import device
from simformer_ppl.benchmarks.memory import peak_mib
from simformer_ppl.benchmarks.throughput import fastest
from simformer_ppl.conditioned import ConditionedDistribution
from simformer_ppl.labelled_arrays import dataset_to_arrays
from simformer_ppl.simformer import Simformer
from simformer_ppl.training.fit import Trainer
from simformer_ppl.training.optimiser import make_optimiser
from simformer_ppl.training.recipe import BATCH_SIZE

Row = dict[str, Any]

GRIDS = POINTS = (25, 100, 400, 1_600)
TOKENS = (25, 100, 400)
_SIMULATIONS, _STEPS, _DRAWS = 500, 10, 100


def measure_costs(kinds: Sequence[str]) -> Iterator[Row]:
    """Time steps and draws of models of several sizes, each in a process of its own, without the model's gradient.

    Parameters
    ----------
    kinds
        Names in :data:`COSTS`.

    Yields
    ------
    Milliseconds a training step, seconds for a hundred draws, and the peak of the process' memory after each.
    """
    for kind in kinds:
        measure, sizes = COSTS[kind]
        for size in sizes:
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
                yield from process.submit(measure, size).result()


def _of_grid(size: int) -> list[Row]:
    """A noisy function of two parameters, simulated at so many places, with two points given."""
    times = np.linspace(0.0, 10.0, size)

    def model() -> None:
        level = numpyro.sample("level", dist.Normal())
        rate = numpyro.sample("rate", dist.LogNormal(0.0, 0.3))
        with numpyro.plate("time", size):
            numpyro.sample("y", dist.Normal(level + jnp.sin(rate * times), 0.2))

    coords = {"time": times}
    simformer = Simformer(model, coords=coords, continuous_dims=["time"], data_sites=["y"], use_density=False)
    trained = _train(simformer)
    posterior = simformer.condition(y=xr.DataArray([0.0, 1.0], {"time": [1.0, 5.0]}, ("time",)))
    asked = {points: {"at": {"time": np.linspace(0.0, 10.0, points)}} for points in POINTS}
    return [
        {"cost": f"grid of {size:,}", "points": points, **trained, **_draw(posterior, options)}
        for points, options in asked.items()
    ]


def _of_tokens(size: int) -> list[Row]:
    """A mean, a scale, and a plate of scalars, so many tokens in all; half of the plate is given."""
    elements = size - 2

    def model() -> None:
        mean = numpyro.sample("mean", dist.Normal())
        scale = numpyro.sample("scale", dist.HalfNormal())
        with numpyro.plate("element", elements):
            numpyro.sample("y", dist.Normal(mean, scale))

    simformer = Simformer(model, data_sites=["y"], use_density=False)
    trained = _train(simformer)
    seen = np.where(np.arange(elements) % 2, np.nan, 0.0)
    return [{"cost": f"{size:,} tokens", **trained, **_draw(simformer.condition(y=seen), {})}]


COSTS: dict[str, tuple[Callable[[int], list[Row]], tuple[int, ...]]] = {
    "grid": (_of_grid, GRIDS),
    "tokens": (_of_tokens, TOKENS),
}


def _train(simformer: Simformer) -> Row:
    """Fit for a moment, and time steps on sequences as training takes them in turn."""
    simulations = simformer.simulate(jax.random.key(0), _SIMULATIONS, progress_bar=False)
    simformer.fit(jax.random.key(1), simulations=simulations, num_steps=2, progress_bar=False)
    joint, sequences = simformer._joint, simformer._sequences
    assert joint is not None
    channels = jax.jit(joint.layout.encode)(dataset_to_arrays(simformer.structure, simulations))
    total = 0.0
    for sequence, turns in Counter(sequences.trained_on).items():
        trainer = Trainer(
            sequence, joint.standardisation, joint.process, make_optimiser(1e-3, 1_000), BATCH_SIZE,
            functions=sequences.functions,
        )  # fmt: skip
        state = trainer.start(joint.parameters)
        total += turns * fastest(partial(trainer.run, state, jax.random.key(2), (channels, None), _STEPS)) / _STEPS
    return {"step_ms": round(1e3 * total / len(sequences.trained_on), 1), "training_mib": round(peak_mib())}


def _draw(posterior: ConditionedDistribution, options: dict[str, Any]) -> Row:
    seconds = fastest(lambda: posterior.draw(jax.random.key(0), (_DRAWS,), **options))
    return {"draws": _DRAWS, "seconds": round(seconds, 2), "peak_mib": round(peak_mib()), "device": device()}
