"""Whether the answers can be trusted on the whole: true values of fresh simulations among the draws given the rest."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, PRNGKeyArray

from simformer_ppl.conditioned import ConditionedDistribution
from simformer_ppl.diagnostics.calibration import central_coverage, pit_values, tarp_values, uniformity
from simformer_ppl.diagnostics.local_c2st import LocalC2ST, local_c2st
from simformer_ppl.given_check import JOINTLY
from simformer_ppl.naming import stored_labels, stored_names
from simformer_ppl.structure import ModelStructure
from simformer_ppl.tokens.conditions import Given

LEVELS = 0.5, 0.9
"""Of the intervals whose coverage is told."""

SIGNIFICANCE = 0.05

Ask = Callable[[Mapping[str, np.ndarray]], ConditionedDistribution]


@dataclass(frozen=True, eq=False)
class Calibration:
    """Ranks of simulated values among draws given the rest, uniform where the answers are right.

    Attributes
    ----------
    asked
        The conditioned distribution, a batch of all simulations.
    truths
        Simulated values of the sites with a latent scalar.
    draws
        ``(draws, simulations, *site.shape)`` of the same.
    pits
        Probability integral transforms of the truths by site (Talts et al. 2018); NaN for given scalars.
    levels
        Credibility level at which all latent scalars together cover each truth (TARP; Lemos et al. 2023).
    coords
        Of the dims.
    dims
        Names of the axes by site.
    """

    asked: ConditionedDistribution
    truths: dict[str, np.ndarray]
    draws: dict[str, np.ndarray]
    pits: dict[str, np.ndarray]
    levels: Float[np.ndarray, " simulations"]
    coords: Mapping[str, Any]
    dims: Mapping[str, tuple[str, ...]]

    @property
    def num_simulations(self) -> int:
        """Number of simulations."""
        return len(next(iter(self.truths.values())))

    @cached_property
    def p_values(self) -> dict[str, float]:
        """P-value of uniformity by site, the smallest of its scalars times their number; and ``jointly``, by TARP."""
        each = {name: uniformity(values) for name, values in self._latent().items()}
        each[JOINTLY] = uniformity(self.levels)
        return {name: float(min(1.0, p.size * p.min())) for name, p in each.items()}

    @property
    def pit(self) -> xr.DataTree:
        """What ``az.plot_ecdf_pit`` draws, with ``coverage=True`` too: groups ``prior_sbc`` and ``tarp``."""
        names = stored_names(self.asked.structure)
        variables = {names[n]: (("chain", "draw", *self.dims[n]), values[None]) for n, values in self.pits.items()}
        lengths = {dim: n for dims, values in variables.values() for dim, n in zip(dims, values.shape, strict=True)}
        own = stored_labels(self.coords)
        labels = {dim: own.get(dim, np.arange(n)) for dim, n in lengths.items()}
        jointly = xr.Dataset({JOINTLY: (("chain", "draw"), self.levels[None])})
        return xr.DataTree.from_dict({"prior_sbc": xr.Dataset(variables, labels), "tarp": jointly})

    @property
    def is_calibrated(self) -> bool:
        """Whether no deviation shows, at 5 % for all sites together."""
        return not self.deviations

    @property
    def deviations(self) -> tuple[str, ...]:
        """Sites whose values deviate from uniformity, or ``jointly``, at 5 % for all together."""
        return tuple(name for name, p in self.p_values.items() if p * len(self.p_values) < SIGNIFICANCE)

    def coverage(self, level: float) -> dict[str, float]:
        """Share of intervals that hold the truth: central ones of scalars by site, and credible regions of all jointly.

        Parameters
        ----------
        level
            Nominal coverage, between 0 and 1.
        """
        found = {name: central_coverage(values, level) for name, values in self._latent().items()}
        return found | {JOINTLY: float((self.levels <= level).mean())}

    def local_c2st(
        self, asked: ConditionedDistribution, rng_key: PRNGKeyArray, *, num_draws: int = 1_000, num_null: int = 50
    ) -> LocalC2ST:
        """Test the answer to one observation (Linhart et al. 2023). Needs scikit-learn.

        Parameters
        ----------
        asked
            The same scalars given, with values of interest; asked for what was calibrated.
        rng_key
            Source of all randomness.
        num_draws
            Draws of the answer.
        num_null
            Classifiers that tell what chance gives.

        Raises
        ------
        ValueError
            If other scalars are given, or a batch is.
        """
        latent = {name: self._is_latent(name) for name in self.truths}
        if asked.batch_shape or not _give_alike(asked.given, self.asked.given):
            raise ValueError(f"Expected one condition that gives what {self.asked!r} gives, got {asked!r}.")
        asked = replace(self.asked, given=asked.given)
        given = _given_scalars(self.asked, self.num_simulations)
        draw_key, choice_key = jax.random.split(rng_key)
        rng = np.random.default_rng(np.asarray(jax.random.key_data(choice_key)).ravel())
        one_each = {name: values[0] for name, values in self.draws.items()}
        truths, draws = (_flat(values, latent, (self.num_simulations,)) for values in (self.truths, one_each))
        answer = _flat(asked.draw(draw_key, (num_draws,)), latent, (num_draws,))
        return local_c2st(rng, truths, draws, given, answer, _given_scalars(asked, 1)[0], num_null)

    def __repr__(self) -> str:
        scalars = {name: values.shape[1] for name, values in self._latent().items()}
        coverages = [self.coverage(level) for level in LEVELS]
        rows = [["", "scalars", "p-value", *(f"{level:.0%} hold" for level in LEVELS)]]
        for name, p_value in self.p_values.items():
            count = scalars.get(name, sum(scalars.values()))
            rows.append([name, str(count), f"{p_value:.3f}", *(f"{c[name]:.1%}" for c in coverages)])
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
        return "\n".join([self._headline(), *lines])

    def _headline(self) -> str:
        count, draws = self.num_simulations, len(next(iter(self.draws.values())))
        verdict = "no deviation shows" if self.is_calibrated else f"deviates: {', '.join(self.deviations)}"
        return f"{repr(self.asked).partition(' with batch')[0]}: {verdict} ({count} simulations, {draws} draws each)"

    def _is_latent(self, name: str) -> Bool[np.ndarray, "..."]:
        return ~np.isnan(self.pits[name][0])

    def _latent(self) -> dict[str, Float[np.ndarray, "simulations scalars"]]:
        count = self.num_simulations
        return {n: values.reshape(count, -1)[:, self._is_latent(n).ravel()] for n, values in self.pits.items()}


def read_given(
    structure: ModelStructure, given: Collection[str] | Mapping[str, Any] | None
) -> dict[str, Bool[np.ndarray, "..."]]:
    """Which scalars are given, by site.

    Parameters
    ----------
    structure
        Of the model.
    given
        Names of sites; or bool arrays that broadcast to their shapes, by site; the data sites, if None. Covariates are
        always given.

    Raises
    ------
    ValueError
        If a site is unknown, a mask is none, or everything is given.
    """
    if given is None:
        given = [name for name, site in structure.sites.items() if site.is_data]
    covariates = {name: True for name, site in structure.sites.items() if site.is_covariate}
    masks = dict(given if isinstance(given, Mapping) else dict.fromkeys(given, True)) | covariates
    read = {}
    for name, mask in masks.items():
        if name not in structure.sites:
            raise ValueError(f"given: expected sites among {', '.join(structure.sites)}, got {name!r}.")
        array, shape = np.asarray(mask), structure.sites[name].shape
        try:
            read[name] = np.broadcast_to(array, shape)
        except ValueError:
            array = np.asarray(None)
        if array.dtype != bool:
            raise ValueError(f"given: expected a bool array of shape {shape} for site '{name}', got {mask!r}.")
    if all(name in read and read[name].all() for name in structure.sites):
        raise ValueError("given: expected at least one latent scalar, got every site in full.")
    return read


def calibrate(
    ask: Ask,
    simulations: Mapping[str, np.ndarray],
    given: Mapping[str, Bool[np.ndarray, "..."]],
    coords: Mapping[str, Any],
    dims: Mapping[str, tuple[str, ...]],
    rng_key: PRNGKeyArray,
    num_draws: int,
) -> Calibration:
    """Ask about every simulation, and rank it among the answers.

    Parameters
    ----------
    ask
        From values by site to the conditioned distribution.
    simulations
        Values of every site, finite.
    given
        Which scalars are given, by site.
    coords
        Of the dims.
    dims
        Names of the axes by site.
    rng_key
        Source of all randomness.
    num_draws
        Draws for every simulation.
    """
    draw_key, rank_key = jax.random.split(rng_key)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(rank_key)).ravel())
    asked = ask({name: np.where(mask, simulations[name], np.nan) for name, mask in given.items() if mask.any()})
    count = len(next(iter(simulations.values())))
    # where nothing is given there is no batch of conditions
    shape = (num_draws,) if asked.batch_shape else (num_draws, count)
    drawn = {name: np.asarray(values) for name, values in asked.draw(draw_key, shape).items()}
    truths = {name: asked.where_asked(name, simulations[name]) for name in drawn}
    masks = {name: np.broadcast_to(given.get(name, False), simulations[name].shape[1:])[None] for name in drawn}
    latent = {name: ~asked.where_asked(name, mask)[0] for name, mask in masks.items()}
    pits = {}
    for name, truth in truths.items():
        pit = pit_values(rng, truth.reshape(count, -1), drawn[name].reshape(num_draws, count, -1))
        pits[name] = np.where(latent[name], pit.reshape(truth.shape), np.nan)
    levels = tarp_values(rng, _flat(truths, latent, (count,)), _flat(drawn, latent, (num_draws, count)))
    return Calibration(asked, truths, drawn, pits, levels, coords, dims)


def _flat(
    values: Mapping[str, Any], latent: Mapping[str, Bool[np.ndarray, "..."]], leading: tuple[int, ...]
) -> Float[np.ndarray, "*leading scalars"]:
    """Latent scalars of all sites."""
    parts = [np.asarray(values[n], float).reshape(*leading, -1)[..., mask.ravel()] for n, mask in latent.items()]
    return np.concatenate(parts, -1)


def _give_alike(given: Given, other: Given) -> bool:
    """Whether the same scalars are given by values, and nothing else."""
    if given.intervals or given.constraints or given.priors or given.values.keys() != other.values.keys():
        return False
    for name, value in given.values.items():
        if not np.array_equal(given.coordinates.get(name, ()), other.coordinates.get(name, ())):
            return False
        if not np.array_equal(np.isnan(value), np.isnan(other.values[name]).reshape(-1, *np.shape(value))[0]):
            return False
    return True


def _given_scalars(asked: ConditionedDistribution, count: int) -> Float[np.ndarray, "count scalars"]:
    """Given scalars of all sites."""
    sites = asked.structure.sites
    own = {name: value.shape[value.ndim - len(sites[name].shape) :] for name, value in asked.given.values.items()}
    shaped = {n: np.broadcast_to(v, (count, *own[n])).reshape(count, -1) for n, v in asked.given.values.items()}
    parts = [np.asarray(values[:, ~np.isnan(values[0])], float) for values in shaped.values()]
    return np.concatenate([np.zeros((count, 0)), *parts], 1)
