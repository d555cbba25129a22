"""Simulators with functions and statistics: coverage, and what a bound on the energy does."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from simformer_ppl.benchmarks.machine import device
from simformer_ppl.benchmarks.tasks import hodgkin_huxley, sird
from simformer_ppl.simformer import Simformer
from simformer_ppl.tokens.intervals import below

Row = dict[str, Any]

SEEN, ASKED = (5.0, 15.0, 25.0, 35.0, 45.0), (2.0, 10.0, 20.0, 30.0, 40.0, 48.0)
"""Times of data, and times at which the contact rate is asked for."""

CALIBRATED, DRAWS = 1_000, 2_000


def measure_functions(kinds: Sequence[str], simulations: int, seed: int, folder: Path) -> Iterator[Row]:
    """Train at the defaults, and ask.

    Parameters
    ----------
    kinds
        Names in :data:`FUNCTIONS`.
    simulations
        How many to train on.
    seed
        Of training, questions and draws.
    folder
        Where pictures go.
    """
    for kind in kinds:
        yield from FUNCTIONS[kind](simulations, seed, folder)


def coverage(simulations: int, seed: int, folder: Path) -> Iterator[Row]:
    """Of the epidemic's parameters and contact rate, given five observations each of three functions."""
    simformer, seconds = _fit(sird.sird, sird.OPTIONS, simulations, seed)
    given = {name: np.isin(sird.TIMES, SEEN) for name in sird.FUNCTIONS[1:]}
    start = time.perf_counter()
    calibration = simformer.calibrate(
        jax.random.key(seed + 1), given, num_simulations=CALIBRATED, sites=["gamma", "delta", "beta"],
        at={"time": np.array(ASKED)},
    )  # fmt: skip
    az.plot_ecdf_pit(calibration.pit, group="prior_sbc", coverage=True, envelope_prob=0.95)
    _save(folder / "coverage_sird.png")
    az.plot_ecdf_pit(calibration.pit, group="tarp", envelope_prob=0.95)
    _save(folder / "coverage_sird_jointly.png")
    yield {
        "asked": "calibration",
        "model": "sird",
        "case": f"contact rate at {len(ASKED)} times, {CALIBRATED:,} simulations",
        "simulations": simulations,
        "train_seconds": round(seconds, 1),
        "p_values": {name: round(p, 4) for name, p in calibration.p_values.items()},
        "coverage": {str(level): calibration.coverage(level) for level in (0.5, 0.9)},
        "seconds": round(time.perf_counter() - start, 1),
        "device": device(),
    }


def energy(simulations: int, seed: int, folder: Path) -> Iterator[Row]:
    """Parameters of a neuron that explain its statistics and spend little energy, checked by simulating them."""
    simformer, seconds = _fit(hodgkin_huxley.hodgkin_huxley, hodgkin_huxley.OPTIONS, simulations, seed)
    observed = simformer.simulate(jax.random.key(seed + 1), 500, progress_bar=False)
    spiking = np.flatnonzero((observed["spikes"] >= 3) & (observed["spikes"] <= 10))[:5]
    for number in spiking:
        data = {name: float(observed[name][number]) for name in hodgkin_huxley.STATISTICS}
        posterior = simformer.condition(data)
        free = posterior.sample(jax.random.key(seed + 2), DRAWS)
        bound = float(np.quantile(free.posterior["energy"], 0.1))
        start = time.perf_counter()
        guided = posterior.condition(energy=below(bound)).sample(jax.random.key(seed + 3), DRAWS)
        asked = time.perf_counter() - start
        spent = {name: _energy(draws.posterior.to_dataset()) for name, draws in (("free", free), ("guided", guided))}
        yield {
            "asked": "energy below a bound",
            "model": "hodgkin_huxley",
            "case": f"observation {number}: {bound:.0f} of {spent['free'].mean():.0f} on average",
            "route": guided.sample_stats.attrs["route"],
            "simulations": simulations,
            "train_seconds": round(seconds, 1),
            "unguided": round(float((spent["free"] <= bound).mean()), 4),
            "inside": round(float((spent["guided"] <= bound).mean()), 4),
            "seconds": round(asked, 1),
            "device": device(),
        }


def _energy(draws: xr.Dataset) -> np.ndarray:
    """What the simulator says that draws of the parameters spend."""
    parameters = np.stack([draws[name].values.ravel() for name in hodgkin_huxley.PARAMETERS], 1)
    return np.asarray(jax.jit(jax.vmap(lambda each: hodgkin_huxley.simulate(each)[1]))(jnp.asarray(parameters)))


def _fit(model: Any, options: dict[str, Any], simulations: int, seed: int) -> tuple[Simformer, float]:
    simformer, start = Simformer(model, **options), time.perf_counter()
    simformer.fit(jax.random.key(seed), simulations)
    return simformer, time.perf_counter() - start


def _save(file: Path) -> None:
    import matplotlib.pyplot as plt

    plt.savefig(file, dpi=110, bbox_inches="tight")
    plt.close("all")


FUNCTIONS = {"coverage": coverage, "energy": energy}
