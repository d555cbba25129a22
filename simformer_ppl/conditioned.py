"""ConditionedDistribution: what a user asks, and what is returned."""

import math
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import numpy as np
import numpyro.distributions as dist
import xarray as xr
from jaxtyping import Array, ArrayLike, Bool, PRNGKeyArray

from simformer_ppl.corrected_draws import corrected_draws
from simformer_ppl.diagnostics.novelty import Simulated
from simformer_ppl.given_check import GivenCheck, check_given, simulate_again, warn_if_far
from simformer_ppl.inference_data import to_inference_data
from simformer_ppl.joint import LearnedJoint
from simformer_ppl.labelled_arrays import align
from simformer_ppl.model_density import ModelDensity
from simformer_ppl.naming import SAMPLE_DIMS
from simformer_ppl.numpyro_distribution import LatentDistribution
from simformer_ppl.progress import progress
from simformer_ppl.query import Query
from simformer_ppl.replicates import recompute, replicate
from simformer_ppl.restrictions import read_constraint, read_prior
from simformer_ppl.structure import ModelStructure, Site
from simformer_ppl.tokens.conditions import (
    Given,
    encode_values,
    join_batches,
    merge_values,
    name_batch,
    read_values,
)
from simformer_ppl.tokens.intervals import Interval, read_interval
from simformer_ppl.weighted_draws import Restricted


class Labelled(NamedTuple):
    """What names the draws as InferenceData.

    Attributes
    ----------
    structure
        Sites in the shapes of what is drawn.
    coords
        Labels of dims.
    given
        Given values in these shapes.
    known
        Sites of which something is given, in other shapes.
    constants
        Array arguments of the model.
    """

    structure: ModelStructure
    coords: Mapping[str, Any]
    given: Mapping[str, np.ndarray]
    known: frozenset[str]
    constants: Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False, repr=False)
class ConditionedDistribution(Query):
    """The distribution of everything not given, from :meth:`simformer_ppl.Simformer.condition`.

    Attributes
    ----------
    structure
        The model's structure.
    joint
        The trained network.
    replay
        The model, to be run again on draws.
    given
        What is known.
    simulated
        What the network has learned from, if it is at hand.
    coords, dims
        Of the returned InferenceData.
    """

    simulated: Simulated | None = field(default=None)
    coords: Mapping[str, Any] = field(default_factory=dict)
    dims: Mapping[str, Any] = field(default_factory=dict)

    def condition(
        self,
        data: Mapping[str, Any] | None = None,
        /,
        *,
        constraint: Callable[[Mapping[str, Array]], Array] | None = None,
        prior: Mapping[str, dist.Distribution] | None = None,
        **sites: Any,
    ) -> "ConditionedDistribution":
        """Add to what is given.

        Parameters
        ----------
        data, constraint, prior, **sites
            See :meth:`simformer_ppl.Simformer.condition`.

        Raises
        ------
        ValueError
            See :meth:`simformer_ppl.Simformer.condition`.

        Warns
        -----
        NoveltyWarning
            If given values lie far outside the simulations, see :meth:`check_given`.
        """
        both = sorted(set(data or ()) & set(sites))
        if both:
            raise ValueError(f"Site '{both[0]}' is given twice: in the dict and as an argument. Expected it once.")
        given = self.given
        for name, value in {**(data or {}), **sites}.items():
            given = self._add(given, name, value)
        if constraint is not None:
            read = read_constraint(self._weighable, constraint)
            given = replace(given, constraints=(*given.constraints, read))
        for name, new in (prior or {}).items():
            if name in given.priors:
                raise ValueError(f"prior: site '{name}' has a new prior already. Expected one.")
            if name in self.structure.sites and name not in self._weighable:
                what = "has an embedding" if self.structure.sites[name].is_embedded else "is a function"
                raise ValueError(f"prior: site '{name}' {what}. Expected one of: {', '.join(self._weighable)}.")
            held = [n for n, site in self.structure.sites.items() if n in self._weighable or site.is_embedded]
            read_new = read_prior(self.structure, self.replay, name, new, held)
            given = replace(given, priors={**given.priors, name: read_new})
        pairs = {name: (self.structure.sites[name], value) for name, value in given.values.items()}
        result = replace(self, given=replace(given, batch_shape=join_batches(pairs)))
        if self.structure.sites and not result._open_sites:
            sites_of_model = self.structure.sites.items()
            never = [repr(name) for name, site in sites_of_model if site.is_embedded and not result._is_whole(name)]
            rest = f" but {', '.join(never)}, read by an embedding, which is never asked for" if never else ""
            raise ValueError(
                f"Nothing is left to sample: every site is given in full{rest}. Expected at least one latent scalar."
            )
        new = [name for name in {**(data or {}), **sites} if name in result.given.values]
        if new and self.simulated is not None:
            warn_if_far(*result._compared(self.simulated), result.given, new, repr(result))
        return result

    def check_given(self) -> GivenCheck:
        """Whether what is given lies where the network has learned: among the simulations.

        The distance to the nearest simulation is compared with that of other simulations, for each site that has given
        values and for all of them jointly; intervals are not looked at. Values far outside, where an answer is a guess,
        are warned of by :meth:`condition` too, unless the network was loaded: then this simulates afresh.

        Returns
        -------
        P-values and remoteness by site, of ``batch_shape``; a table where it is printed.

        Raises
        ------
        ValueError
            If the network has learned from too few simulations, or a value is traced by JAX.

        Examples
        --------
        >>> import jax, numpyro, numpyro.distributions as dist
        >>> from simformer_ppl import Simformer
        >>> def model(y=None):
        ...     mu = numpyro.sample("mu", dist.Normal(0, 1))
        ...     numpyro.sample("y", dist.Normal(mu, 0.5), obs=y)
        >>> simformer = Simformer(model).fit(jax.random.key(0), 1_000, num_steps=500, progress_bar=False)
        >>> simformer.condition(y=1.0).check_given().far
        ()
        >>> import warnings
        >>> with warnings.catch_warnings(action="ignore"):
        ...     far_off = simformer.condition(y=30.0)
        >>> far_off.check_given().far
        ('y',)
        """
        joint, simulated = self._compared(self.simulated or simulate_again(self.joint, self.replay))
        return check_given(joint, self.given, simulated, repr(self))

    def sample(
        self,
        rng_key: PRNGKeyArray,
        num_samples: int = 1000,
        *,
        num_chains: int = 4,
        num_steps: int | None = None,
        log_prob: bool = False,
        predictive: bool = False,
        sites: Collection[str] | None = None,
        at: Mapping[str, ArrayLike] | None = None,
        progress_bar: bool = True,
    ) -> xr.DataTree:
        """Draw as an ArviZ InferenceData.

        Parameters
        ----------
        rng_key
            Source of all draws.
        num_samples
            Independent draws in all.
        num_chains
            Chains that the draws are laid out as, so that every ArviZ function works.
        num_steps
            Evaluations of the network for a draw; the default of the process if None (20 for ``"edm"``).
        log_prob
            Add ``sample_stats["lp"]``, the log density of each draw.
        predictive
            Add replicates of the given data, from runs of the model on the draws, to ``posterior_predictive``.
        sites
            Those to draw, all that are not given by default; others are left out, and marginalised.
        at
            Coordinates by continuous dim where functions are asked for; where they were simulated by default.
        progress_bar
            Shows the progress of what takes longer than seconds.

        Returns
        -------
        Groups by what is given: ``posterior``, ``posterior_predictive``, ``observed_data``, ``constant_data``; or
        ``prior`` and ``prior_predictive`` where nothing is.

        Raises
        ------
        ValueError
            If `num_samples` is not a multiple of `num_chains`, or as :meth:`draw` and :meth:`log_prob` do.
        """
        _check_chains(num_samples, num_chains)
        asked = self.of_sites(sites, at)
        asked._labelled()  # refuses what has no labels
        if log_prob:
            asked._refuse_density()
        steps = self._evaluations(num_steps)
        started = time.perf_counter()
        draw_key, replay_key = jax.random.split(rng_key)
        # the model needs all that it reads
        drawn = self.of_sites(None, at) if predictive else asked
        if predictive:
            drawn._refuse_replicates()
        with progress("sample", progress_bar):
            values, restricted = drawn._draw_all(draw_key, (num_samples,), steps)
            stats, notes = self._sample_stats(restricted, num_samples)
            if log_prob:
                stats["lp"] = np.asarray(asked.log_prob(values))
        replicates = drawn._replicates(replay_key, values) if predictive else None
        attrs = {"sampling_time": time.perf_counter() - started, "num_steps": steps}
        return asked._lay_out(values, num_chains, attrs, stats, notes, predictive=replicates)

    def importance_resample(
        self,
        rng_key: PRNGKeyArray,
        num_samples: int = 1000,
        *,
        num_chains: int = 4,
        num_steps: int | None = None,
        predictive: bool = False,
        at: Mapping[str, ArrayLike] | None = None,
        progress_bar: bool = True,
    ) -> xr.DataTree:
        """Draw, and correct the draws by the model's own density, where it is known.

        Twice as many draws are weighted by the density of the model over that of the network, the tail of the weights
        is smoothed (PSIS; Vehtari et al. 2024, arXiv 1507.02646), and `num_samples` are resampled by their weights.
        This takes the density of every draw, which costs far more than the draw. Beside functions, sites that are
        none are weighted by the density of the points that are given, and the model draws the other points.

        Parameters
        ----------
        rng_key, num_samples, num_chains, num_steps, predictive, at, progress_bar
            As of :meth:`sample`.

        Returns
        -------
        As :meth:`sample`; with ``log_likelihood`` and ``log_prior``, element by element, as ``az.loo``, ``az.psense``
        and ``az.compare`` read them, and ``sample_stats["log_weight"]``, the smoothed log weight of each draw. The
        attributes of ``sample_stats`` tell ``pareto_k`` (above .7 the weights cannot be trusted, which is warned of; if
        a handful has all the weight, the largest are made equal) and ``effective_sample_size``, that of the weights.

        Raises
        ------
        ValueError
            As :meth:`log_prob`; or if the model's density is not known: a site is left out, a deterministic site is a
            token, the model hides noise, or points of functions depend on each other or are given or asked for where
            the model is not simulated.
        """
        _check_chains(num_samples, num_chains)
        asked = self.of_sites(None, at)
        asked._labelled()  # refuses what has no labels
        density = asked._model_density
        density.refuse_if_unknown()
        if predictive:
            asked._refuse_replicates()
        started = time.perf_counter()
        draw_key, replay_key = jax.random.split(rng_key)
        with progress("importance_resample", progress_bar):
            corrected = corrected_draws(density, draw_key, num_samples, num_steps)
        stats = {"log_weight": corrected.log_weight}
        notes: dict[str, Any] = {"route": "importance resampling"}
        for name in ("pareto_k", "effective_sample_size"):
            told = getattr(corrected, name)
            notes[name] = told if self.batch_shape else told[0]
        known = {
            name: value
            for name, value in corrected.log_probs.items()
            if name in (asked.observed_sites if asked.structure.sites[name].is_data else asked.latent_sites)
        }
        replicates = asked._replicates(replay_key, corrected.values) if predictive else None
        attrs = {"sampling_time": time.perf_counter() - started, "num_steps": asked._evaluations(num_steps)}
        return asked._lay_out(corrected.values, num_chains, attrs, stats, notes, predictive=replicates, log_probs=known)

    def as_numpyro(
        self, *, sites: Collection[str] | None = None, at: Mapping[str, ArrayLike] | None = None
    ) -> LatentDistribution:
        """The same as a NumPyro distribution, for use in another model's ``sample`` statement.

        Parameters
        ----------
        sites
            Those that it is over, all that are not given by default; others are marginalised.
        at
            As of :meth:`sample`.

        Returns
        -------
        Over the latent site where there is one, else over the flat vector of latent scalars, with ``unpack`` to a
        dict of sites and ``pack`` back. Its ``log_prob`` is differentiable.

        Raises
        ------
        ValueError
            As :meth:`log_prob`, or if the conditions of a batch differ in what is missing.

        Examples
        --------
        >>> import jax, numpyro, numpyro.distributions as dist
        >>> from simformer_ppl import Simformer
        >>> def model(y=None):
        ...     mu = numpyro.sample("mu", dist.Normal(0, 1))
        ...     numpyro.sample("y", dist.Normal(mu, 0.5), obs=y)
        >>> simformer = Simformer(model).fit(jax.random.key(0), 1_000, num_steps=100, progress_bar=False)
        >>> learned = simformer.condition(y=1.0).as_numpyro()
        >>> def next_model():
        ...     mu = numpyro.sample("mu", learned)
        ...     numpyro.sample("z", dist.Poisson(jax.numpy.exp(mu)))
        >>> traced = numpyro.handlers.trace(numpyro.handlers.seed(next_model, 0)).get_trace()
        >>> traced["mu"]["value"].shape, traced["mu"]["fn"].log_prob(0.8).shape
        ((), ())
        """
        asked = self.of_sites(sites, at)
        asked._refuse_density()
        missing = {}
        for name in asked.latent_sites:
            holes = asked._holes(name)
            if (holes != holes[:1]).any():
                raise ValueError(f"Site '{name}': expected the same scalars missing in every condition of the batch.")
            missing[name] = np.flatnonzero(holes[0])
        return LatentDistribution(asked, missing)

    @property
    def _model_density(self) -> ModelDensity:
        return ModelDensity(self)

    def _holes(self, name: str) -> Bool[np.ndarray, "#conditions scalars"]:
        """Scalars of a site that are not given."""
        size, given = self.sites[name].size, self.given.values.get(name)
        return np.ones((1, size), bool) if given is None else np.isnan(given).reshape(-1, size)

    def where_asked(self, name: str, simulated: np.ndarray) -> np.ndarray:
        """Simulated values of a site where it is asked for; one leading axis."""
        return simulated

    # ------------------------------------------------------------------ what is given

    @property
    def _weighable(self) -> Mapping[str, Site]:
        """Sites that constraints and new priors may look at."""
        return {name: site for name, site in self.structure.sites.items() if not site.is_embedded}

    def _compared(self, simulated: Simulated) -> tuple[LearnedJoint, Simulated]:
        """What tells the channels of given values, and simulations of these."""
        return self.joint, simulated

    def _add(self, given: Given, name: str, value: Any) -> Given:
        site = self._site(name)
        if name in given.intervals or (name in given.values and isinstance(value, Interval)):
            raise ValueError(f"Site '{name}' is given twice: it is part of {self!r} already. Expected it once.")
        if isinstance(value, Interval) and site.is_covariate:
            raise ValueError(f"Site '{name}' is a covariate: expected values, got an interval.")
        if isinstance(value, Interval):
            return replace(given, intervals={**given.intervals, name: read_interval(site, value)})
        if isinstance(value, xr.DataArray):
            value, batch_dims, batch_coords = align(site, value, self.coords, self.dims)
            given = name_batch(given, name, tuple(batch_dims), batch_coords)
        array = read_values(site, value)
        missing = isinstance(array, np.ndarray) and np.isnan(array)
        if site.is_covariate and np.any(missing) and not np.all(missing):
            raise ValueError(
                f"Site '{name}' is a covariate, which is only ever given. Expected a value for all of it, got NaN in "
                f"{np.sum(missing)} of {np.size(missing)}."
            )
        if name in given.values:
            array = merge_values(site, given.values[name], array)
        encode_values(self.joint.layout, name, array)  # refuses what lies on the edge of a support
        if isinstance(array, np.ndarray) and array.shape == site.shape and np.isnan(array).all():
            return given
        return replace(given, values={**given.values, name: array})

    def _site(self, name: str) -> Site:
        if name in self.structure.sites:
            return self.structure.sites[name]
        if name in self.structure.deterministics:
            why = "is a deterministic site and no token; name it in Simformer(..., sites=[...]) to condition on it"
        elif name in self.structure.nuisances:
            why = "is a nuisance site, left out of `sites`"
        else:
            why = "is not in the model"
        raise ValueError(f"Site '{name}' {why}. Expected one of: {', '.join(self.structure.sites)}.")

    def _in_order(self, name: str, value: Any) -> Any:
        if not isinstance(value, xr.DataArray):
            return value
        own = value.rename({dim: f"{dim} of values" for dim in value.dims if dim in SAMPLE_DIMS})
        return align(self.sites[name], own, self.coords, self.dims)[0]

    # ------------------------------------------------------------------ InferenceData

    def _sample_stats(
        self, restricted: Restricted | None, num_samples: int
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Weights of the draws, and how they were come by: of each condition of a batch."""
        given = self.given
        if restricted is None or not (given.intervals or given.constraints or given.priors):
            return {}, {}
        log_weight = restricted.log_weight.reshape(num_samples, *self.batch_shape)
        columns = {name: [getattr(r, name) for r in restricted.reports] for name in restricted.reports[0]._fields}
        notes = {name: values if self.batch_shape else values[0] for name, values in columns.items()}
        return {"log_weight": log_weight}, notes

    def _lay_out(
        self,
        values: Mapping[str, Array],
        num_chains: int,
        attrs: Mapping[str, Any],
        stats: Mapping[str, np.ndarray],
        notes: Mapping[str, Any],
        **groups: Mapping[str, np.ndarray] | None,
    ) -> xr.DataTree:
        """Draws of every site as InferenceData, with notes on how they were come by."""
        labelled = self._labelled()
        read = {name for constraint in self.given.constraints for name in constraint.reads}
        tree = to_inference_data(
            labelled.structure,
            {name: np.asarray(values[name]) for name in self.latent_sites},
            given=labelled.given,
            restricted={*self.given.intervals, *read, *labelled.known},
            batch_shape=self.batch_shape,
            batch_dims=self.given.batch_dims,
            batch_coords=self.given.batch_coords,
            deterministics=self._deterministics(values),
            sample_stats=stats,
            num_chains=num_chains,
            coords=labelled.coords,
            dims=self.dims,
            constants=labelled.constants,
            attrs=attrs,
            **groups,
        )
        if notes:
            tree["sample_stats"].attrs.update(notes)
        return tree

    def _labelled(self) -> Labelled:
        given = {name: self._as_given(name) for name in self.given.values}
        return Labelled(self.structure, self.coords, given, frozenset(), self.replay.array_arguments())

    def _as_given(self, name: str) -> np.ndarray:
        value = np.asarray(self.given.values[name])
        return value.astype(self.structure.sites[name].dtype) if self._is_count(name) else value

    def _is_count(self, name: str) -> bool:
        return self.structure.sites[name].is_discrete and self._is_whole(name)

    def _deterministics(self, values: Mapping[str, Array]) -> dict[str, np.ndarray]:
        sites, at_hand = self.structure.sites.keys(), self._at_hand
        records = self._labelled().structure.deterministics
        wanted = [n for n, r in records.items() if n not in sites and not r.is_random and r.reads <= at_hand]
        if not wanted:
            return {}
        held = {name: value for name, value in values.items() if name in at_hand}
        rows, leading = self._as_rows(held, values)
        keys = jax.random.split(jax.random.key(0), math.prod(leading))
        found = recompute(self.replay, keys, {name: records[name] for name in wanted}, rows)
        return {name: value.reshape(leading + value.shape[1:]) for name, value in found.items()}

    def _refuse_replicates(self) -> None:
        """Tell why the model cannot be run on the draws."""

    def _replicates(self, rng_key: PRNGKeyArray, values: Mapping[str, Array]) -> dict[str, np.ndarray]:
        at_hand = {name for name in self._at_hand if not self.structure.sites[name].is_data}
        held = {name: value for name, value in values.items() if name in at_hand}
        wanted = tuple(name for name in self.observed_sites if self.structure.sites[name].is_data)
        if not wanted:
            return {}
        rows, leading = self._as_rows(held, values)
        keys = jax.random.split(rng_key, math.prod(leading))
        told = replicate(self.replay, keys, {name: self.structure.sites[name] for name in wanted}, rows)
        return {name: value.reshape(leading + value.shape[1:]) for name, value in told.items()}

    def _as_rows(
        self, held: Mapping[str, Array], values: Mapping[str, Array]
    ) -> tuple[dict[str, Array], tuple[int, ...]]:
        """Draws with their leading axes flattened for the model, and these axes."""
        name = next(iter(values))
        leading = values[name].shape[: values[name].ndim - len(self.sites[name].shape)]
        return {name: value.reshape(-1, *self.sites[name].shape) for name, value in held.items()}, leading


def _check_chains(num_samples: int, num_chains: int) -> None:
    if num_samples < 1 or num_chains < 1 or num_samples % num_chains:
        raise ValueError(
            f"Expected num_samples to be a positive multiple of num_chains, got {num_samples} and {num_chains}."
        )
