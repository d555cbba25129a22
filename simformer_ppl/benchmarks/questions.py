"""Questions beyond the posterior of complete data, beside exact answers."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import arviz as az
import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Float, PRNGKeyArray
from numpyro.infer import MCMC, NUTS
from numpyro.infer.reparam import LocScaleReparam
from scipy.stats import norm, truncnorm

from simformer_ppl.benchmarks.known_models import (
    EFFECT,
    STANDARD_ERROR,
    eight_schools,
    measurements,
    normals,
    two_moons_with_density,
)
from simformer_ppl.benchmarks.machine import device
from simformer_ppl.benchmarks.tasks.catalogue import TASKS
from simformer_ppl.benchmarks.tasks.two_moons import draw_two_moons
from simformer_ppl.conditioned import ConditionedDistribution
from simformer_ppl.diagnostics.c2st import c2st
from simformer_ppl.diffusion.process import EDM
from simformer_ppl.diffusion.samplers import ADAMS
from simformer_ppl.diffusion.tempering import Weight, temper
from simformer_ppl.simformer import Simformer
from simformer_ppl.tokens.intervals import above

DRAWS, COMPARED = 4_000, 1_000
SAMPLER_DRAWS = 20_000
"""Of the sampler alone: of fewer, the worst mean of seven would err by 2 % of a standard deviation by chance."""

DATASETS = 5
Row = dict[str, Any]


def measure_questions(kinds: Sequence[str], seed: int, folder: Path) -> Iterator[Row]:
    """Train at the defaults, and ask.

    Parameters
    ----------
    kinds
        Names in :data:`QUESTIONS`.
    seed
        Of training, questions and draws.
    folder
        Where pictures go.
    """
    for kind in kinds:
        yield from QUESTIONS[kind](seed, folder)


def missing_data(seed: int, folder: Path) -> Iterator[Row]:
    """Posterior and imputation by the share of missing data, beside NUTS on the likelihood of the rest."""
    simformer = Simformer(measurements).fit(jax.random.key(seed))
    complete = simformer.simulate(jax.random.key(seed + 1), DATASETS)["y"].values
    rng = np.random.default_rng(seed)
    shares = 0.0, 0.2, 0.5, 0.8
    y = np.stack([[np.where(_mask(rng, each.shape, share), np.nan, each) for each in complete] for share in shares])
    start = time.perf_counter()
    # every dataset and share has a pattern of its own, in one batch
    drawn = simformer.condition(y=y).draw(jax.random.key(seed + 2), (DRAWS,))
    seconds = time.perf_counter() - start
    for number, share in enumerate(shares):
        errors = []
        for dataset, values in enumerate(y[number]):
            arguments = {"y": np.nan_to_num(values), "seen": ~np.isnan(values)}
            exact = _nuts(measurements, ("theta",), jax.random.key(dataset), **arguments)
            exact["y"] = exact["theta"] + rng.normal(size=(DRAWS, *values.shape))
            ours = {name: np.asarray(draws)[:, number, dataset] for name, draws in drawn.items()}
            places = np.isnan(values).ravel()
            errors.append(compare(_flat(ours, y=places), _flat(exact, y=places)))
        row = {"asked": "missing data", "model": "measurements", "case": f"{share:.0%} missing"}
        yield row | _average(errors) | {"seconds": round(seconds / len(shares), 1), "device": device()}


def intervals(seed: int, folder: Path) -> Iterator[Row]:
    """Normals cut from below: by the sampler alone, fed the exact denoiser, and by a network."""
    for dims, probability in ((d, p) for d in (1, 2, 7) for p in (0.3, 0.01, 1e-4)):
        bound = norm.isf(probability ** (1 / dims))
        exact = truncnorm(bound, np.inf)
        case = {"asked": "interval", "case": f"{dims} cut to probability {probability:g}"}
        start = time.perf_counter()
        population = temper(jax.random.key(seed), _exact_sampler, _beyond(bound), (SAMPLER_DRAWS, dims))
        row = case | {"model": "sampler alone"}
        if population is None:
            yield row | {"route": "given up", "device": device()}
        else:
            yield row | _moments(np.asarray(population.draws), exact, bound, time.perf_counter() - start)
        if probability >= 0.01:
            simformer = _normals(dims, seed)
            start = time.perf_counter()
            idata = simformer.condition(x=above(bound)).sample(jax.random.key(seed + 1), DRAWS)
            draws = idata.posterior["x"].values.reshape(DRAWS, dims)
            row = case | {"model": "network", "route": idata.sample_stats.attrs["route"]}
            yield row | _moments(draws, exact, bound, time.perf_counter() - start)


def new_priors(seed: int, folder: Path) -> Iterator[Row]:
    """Eight schools under priors that training did not have, beside NUTS under the same."""
    changes: dict[str, dict[str, dist.Distribution]] = {
        "mu ~ N(0, 5), as trained": {},
        "mu ~ N(1, 0.2)": {"mu": dist.Normal(1.0, 0.2)},
        "mu ~ N(15, 1)": {"mu": dist.Normal(15.0, 1.0)},
        "tau ~ HalfNormal(1)": {"tau": dist.HalfNormal(1.0)},
        "tau ~ LogNormal(3, 0.3)": {"tau": dist.LogNormal(3.0, 0.3)},
    }
    simformer = _eight_schools(seed)
    for case, priors in changes.items():
        start = time.perf_counter()
        posterior = simformer.condition(y=EFFECT, prior=priors)
        idata = posterior.sample(jax.random.key(seed + 1), DRAWS)
        seconds = time.perf_counter() - start
        exact = _nuts(eight_schools, ("theta",), jax.random.key(seed), STANDARD_ERROR, y=EFFECT, priors=priors)
        attributes = idata.sample_stats.attrs if priors else {}
        told = {name: attributes[name] for name in ("route", "pareto_k") if name in attributes}
        row = {"asked": "new prior", "model": "eight_schools", "case": case} | told
        yield row | compare(_flat(_draws(idata)), _flat(exact)) | {"seconds": round(seconds, 1), "device": device()}


def corrections(seed: int, folder: Path) -> Iterator[Row]:
    """Posteriors before and after the model's density corrects them, with the shape of the weights' tail."""
    for name, posterior, exact in _correctable(seed):
        plain = posterior.sample(jax.random.key(seed + 1), DRAWS)
        start = time.perf_counter()
        corrected = posterior.importance_resample(jax.random.key(seed + 1), DRAWS)
        seconds, told = time.perf_counter() - start, corrected.sample_stats.attrs
        told = {key: round(float(told[key]), 3) for key in ("pareto_k", "effective_sample_size")}
        row = {"asked": "correction", "model": name, "device": device()}
        yield row | {"case": "as drawn"} | compare(_flat(_draws(plain)), exact)
        yield (
            row | {"case": "corrected", "seconds": round(seconds, 1)} | told | compare(_flat(_draws(corrected)), exact)
        )


def calibration(seed: int, folder: Path) -> Iterator[Row]:
    """Simulation-based calibration of the chains and trees, with its picture."""
    for name in ("tree", "hmm"):
        simformer = Simformer(TASKS[name].model, **TASKS[name].options).fit(jax.random.key(seed))
        start = time.perf_counter()
        checked = simformer.calibrate(jax.random.key(seed + 1), num_simulations=1_000)
        seconds = round(time.perf_counter() - start, 1)
        az.plot_ecdf_pit(checked.pit, envelope_prob=0.95).savefig(folder / f"calibration_{name}.png")
        values = {site: round(p, 4) for site, p in checked.p_values.items()}
        row = {"asked": "calibration", "model": name, "case": "posterior, 1,000 simulations", "p_values": values}
        yield row | {"deviates": list(checked.deviations), "seconds": seconds, "device": device()}


QUESTIONS: Mapping[str, Callable[[int, Path], Iterator[Row]]] = {
    "missing": missing_data,
    "intervals": intervals,
    "priors": new_priors,
    "corrections": corrections,
    "calibration": calibration,
}


def compare(draws: Float[np.ndarray, "n scalars"], exact: Float[np.ndarray, "m scalars"]) -> dict[str, float]:
    """How far means and standard deviations are off, in exact standard deviations: on average, and the worst mean."""
    spread = exact.std(0)
    mean = np.abs(draws.mean(0) - exact.mean(0)) / spread
    return {
        "mean_error": round(float(mean.mean()), 3),
        "worst_mean_error": round(float(mean.max()), 3),
        "sd_error": round(float(np.abs(draws.std(0) / spread - 1).mean()), 3),
        "c2st_rf": round(c2st(draws[:COMPARED], exact[:COMPARED]), 3),
    }


@cache
def _eight_schools(seed: int) -> Simformer:
    return Simformer(eight_schools, (STANDARD_ERROR,)).fit(jax.random.key(seed))


@cache
def _normals(dims: int, seed: int) -> Simformer:
    return Simformer(normals(dims)).fit(jax.random.key(seed))


def _correctable(seed: int) -> Iterator[tuple[str, ConditionedDistribution, np.ndarray]]:
    """Name, posterior, and exact draws of it."""
    exact = _nuts(eight_schools, ("theta",), jax.random.key(seed), STANDARD_ERROR, y=EFFECT)
    yield "eight_schools", _eight_schools(seed).condition(y=EFFECT), _flat(exact)
    simformer = Simformer(two_moons_with_density).fit(jax.random.key(seed))
    x, given = np.zeros(2), np.array([False, False, True, True])
    reference = draw_two_moons(np.random.default_rng(seed), np.zeros(4), given, DRAWS)[:, :2]
    yield "two_moons_with_density", simformer.condition(x=x), reference


def _nuts(
    model: Callable[..., None], scaled: tuple[str, ...], rng_key: PRNGKeyArray, *arguments: Any, **keywords: Any
) -> dict[str, np.ndarray]:
    """Shuffled draws of four chains, with the named sites scaled and shifted to standard ones."""
    free = numpyro.handlers.reparam(model, config={name: LocScaleReparam(0) for name in scaled})
    mcmc = MCMC(
        NUTS(free, target_accept_prob=0.95), num_warmup=1_000, num_samples=DRAWS // 4, num_chains=4,
        chain_method="vectorized", progress_bar=False,
    )  # fmt: skip
    mcmc.run(rng_key, *arguments, **keywords)
    order = np.random.default_rng(0).permutation(DRAWS)
    return {name: np.asarray(draws)[order] for name, draws in mcmc.get_samples().items()}


def _flat(draws: Mapping[str, np.ndarray], **places: np.ndarray) -> Float[np.ndarray, "draws scalars"]:
    """Scalars of the parameters side by side, and of other sites those at the places."""
    parts = []
    for name in ("mu", "tau", "theta", *places):
        if name in draws:
            flat = np.asarray(draws[name], float).reshape(len(draws[name]), -1)
            parts.append(flat[:, places.get(name, slice(None))])
    return np.concatenate(parts, 1)


def _draws(idata: Any) -> dict[str, np.ndarray]:
    """Shuffled draws of the posterior group."""
    order = np.random.default_rng(1).permutation(DRAWS)
    return {n: v.values.reshape(DRAWS, *v.shape[2:])[order] for n, v in idata.posterior.data_vars.items()}


def _mask(rng: np.random.Generator, shape: tuple[int, ...], share: float) -> np.ndarray:
    flat = np.arange(np.prod(shape)) < round(share * np.prod(shape))
    return rng.permutation(flat).reshape(shape)


def _average(errors: list[dict[str, float]]) -> dict[str, float]:
    average = {name: round(float(np.mean([each[name] for each in errors])), 3) for name in errors[0]}
    return average | {"worst_mean_error": max(each["worst_mean_error"] for each in errors)}


def _moments(draws: np.ndarray, exact: Any, bound: float, seconds: float) -> dict[str, Any]:
    """Errors in standard deviations of the normals before they were cut, the worst of the dims."""
    return {
        "worst_mean_error": round(float(np.abs(draws.mean(0) - exact.mean()).max()), 4),
        "sd_error": round(float(np.abs(draws.std(0) - exact.std()).max()), 4),
        "inside": round(float((draws >= bound).all(1).mean()), 4),
        "seconds": round(seconds, 1),
        "device": device(),
    }


@jax.jit
def _exact_sampler(noise: jax.Array) -> jax.Array:
    """The default sampler, fed the denoiser of standard normals."""
    process = EDM()
    grid = process.grid(ADAMS.num_levels(process.default_steps))
    return ADAMS.solve(jax.random.key(0), lambda noised, level: noised / (1 + level[:, None] ** 2), noise, grid)


def _beyond(bound: float) -> Callable[[jax.Array], Weight]:
    def weigh(draws: jax.Array) -> Weight:
        short = np.maximum(bound - np.asarray(draws), 0.0)
        return Weight(np.zeros(len(short)), np.sqrt((short**2).sum(1)))

    return weigh
