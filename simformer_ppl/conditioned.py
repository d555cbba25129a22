"""ConditionedDistribution: what a query returns."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import xarray as xr
from jaxtyping import Array, ArrayLike, Bool, Float, PRNGKeyArray

from simformer_ppl.corrected_draws import corrected_draws
from simformer_ppl.inference_data import to_inference_data
from simformer_ppl.joint import LearnedJoint
from simformer_ppl.labelled_arrays import align
from simformer_ppl.numpyro_distribution import LatentDistribution
from simformer_ppl.rejection import redraw_traced, resample_traced
from simformer_ppl.replay import Replay
from simformer_ppl.restrictions import Restrictions, read_constraint, read_prior
from simformer_ppl.structure import ModelStructure, Site
from simformer_ppl.tokens.conditions import (
    Given,
    Interval,
    complete_values,
    encode_given,
    encode_values,
    join_batches,
    merge_values,
    name_batch,
    read_interval,
    read_values,
)
from simformer_ppl.weighted_draws import Restricted, restricted_draws

ACCEPTANCE_DRAWS = 1024
"""Draws that the normaliser of a density is estimated from, where draws outside a support are rejected."""

TRACED_PROPOSALS = 64
"""Weighted draws that each draw is chosen from under ``jax.jit``."""


@dataclass(frozen=True, eq=False)
class ConditionedDistribution:
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
    coords, dims
        Of the returned InferenceData.
    """

    structure: ModelStructure = field(repr=False)
    joint: LearnedJoint = field(repr=False)
    replay: Replay = field(repr=False)
    given: Given = field(default_factory=Given)
    coords: Mapping[str, Any] = field(default_factory=dict, repr=False)
    dims: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the batch of conditions."""
        return self.given.batch_shape

    @property
    def latent_sites(self) -> tuple[str, ...]:
        """Sites with at least one latent scalar, in trace order."""
        return tuple(name for name in self.structure.sites if not self._is_whole(name))

    @property
    def observed_sites(self) -> tuple[str, ...]:
        """Sites with at least one given scalar, in trace order."""
        return tuple(name for name in self.structure.sites if name in self.given.values)

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
        """
        both = sorted(set(data or ()) & set(sites))
        if both:
            raise ValueError(f"Site '{both[0]}' is given twice: in the dict and as an argument. Expected it once.")
        given = self.given
        for name, value in {**(data or {}), **sites}.items():
            given = self._add(given, name, value)
        if constraint is not None:
            read = read_constraint(self.structure.sites, constraint)
            given = replace(given, constraints=(*given.constraints, read))
        for name, new in (prior or {}).items():
            if name in given.priors:
                raise ValueError(f"prior: site '{name}' has a new prior already. Expected one.")
            read_new = read_prior(self.structure, self.replay, name, new)
            given = replace(given, priors={**given.priors, name: read_new})
        pairs = {name: (self.structure.sites[name], value) for name, value in given.values.items()}
        result = replace(self, given=replace(given, batch_shape=join_batches(pairs)))
        if self.structure.sites and not result.latent_sites:
            raise ValueError(
                "Nothing is left to sample: every site is given in full. Expected at least one latent scalar."
            )
        return result

    def draw(
        self, rng_key: PRNGKeyArray, sample_shape: tuple[int, ...] = (), *, num_steps: int | None = None
    ) -> dict[str, Array]:
        """Draw as arrays; works under ``jax.jit``.

        Parameters
        ----------
        rng_key
            Source of all draws.
        sample_shape
            Leading shape of independent draws.
        num_steps
            Evaluations of the network for a draw; the default of the process if None (20 for ``"edm"``).

        Returns
        -------
        Arrays of ``sample_shape + batch_shape + site.shape`` for every site with a latent scalar, inside its support.

        Raises
        ------
        ValueError
            If no draw can be led into the given intervals, or to a weight under the given constraints and priors. Under
            ``jax.jit``, where nothing can be raised, such draws are NaN, and the lowest value for discrete sites.
        """
        values = self.draw_all(rng_key, tuple(sample_shape), num_steps)
        return {name: values[name] for name in self.latent_sites}

    def sample(
        self,
        rng_key: PRNGKeyArray,
        num_samples: int = 1000,
        *,
        num_chains: int = 4,
        num_steps: int | None = None,
        log_prob: bool = False,
        predictive: bool = False,
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
        if log_prob:
            self._refuse_density()
        steps = self._evaluations(num_steps)
        started = time.perf_counter()
        draw_key, replay_key = jax.random.split(rng_key)
        values, restricted = self._draw_all(draw_key, (num_samples,), steps)
        stats, notes = self._sample_stats(restricted, num_samples)
        if log_prob:
            stats["lp"] = np.asarray(self.log_prob(values))
        replicates = self._replicates(replay_key, values) if predictive else None
        attrs = {"sampling_time": time.perf_counter() - started, "num_steps": steps}
        return self._lay_out(values, num_chains, attrs, stats, notes, predictive=replicates)

    def importance_resample(
        self,
        rng_key: PRNGKeyArray,
        num_samples: int = 1000,
        *,
        num_chains: int = 4,
        num_steps: int | None = None,
        predictive: bool = False,
    ) -> xr.DataTree:
        """Draw, and correct the draws by the model's own density, where it is known.

        Twice as many draws are weighted by the density of the model over that of the network, the tail of the weights
        is smoothed (PSIS; Vehtari et al. 2024, arXiv 1507.02646), and `num_samples` are resampled by their weights.
        This takes the density of every draw, which costs far more than the draw.

        Parameters
        ----------
        rng_key, num_samples, num_chains, num_steps, predictive
            As of :meth:`sample`.

        Returns
        -------
        As :meth:`sample`; with ``log_likelihood`` and ``log_prior``, element by element, as ``az.loo``, ``az.psense``
        and ``az.compare`` read them, and ``sample_stats["log_weight"]``, the smoothed log weight of each draw. The
        attributes of ``sample_stats`` tell ``pareto_k`` (above .7 the weights cannot be trusted, which is warned of)
        and ``effective_sample_size``, that of the weights.

        Raises
        ------
        ValueError
            As :meth:`log_prob`; or if the model's density is not known: a site is left out, a deterministic site is a
            token, or the model hides noise.
        """
        _check_chains(num_samples, num_chains)
        self._refuse_density()
        started = time.perf_counter()
        draw_key, replay_key = jax.random.split(rng_key)
        corrected = corrected_draws(self, draw_key, num_samples, num_steps)
        stats = {"log_weight": corrected.log_weight}
        notes: dict[str, Any] = {"route": "importance resampling"}
        for name in ("pareto_k", "effective_sample_size"):
            told = getattr(corrected, name)
            notes[name] = told if self.batch_shape else told[0]
        known = {
            name: value
            for name, value in corrected.log_probs.items()
            if name in (self.observed_sites if self.structure.sites[name].is_data else self.latent_sites)
        }
        replicates = self._replicates(replay_key, corrected.values) if predictive else None
        attrs = {"sampling_time": time.perf_counter() - started, "num_steps": self._evaluations(num_steps)}
        return self._lay_out(corrected.values, num_chains, attrs, stats, notes, predictive=replicates, log_probs=known)

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
        tree = to_inference_data(
            self.structure,
            {name: np.asarray(values[name]) for name in self.latent_sites},
            given={name: self._as_given(name) for name in self.given.values},
            restricted={*self.given.intervals, *(name for c in self.given.constraints for name in c.reads)},
            batch_shape=self.batch_shape,
            batch_dims=self.given.batch_dims,
            batch_coords=self.given.batch_coords,
            deterministics=self._deterministics(values),
            sample_stats=stats,
            num_chains=num_chains,
            coords=self.coords,
            dims=self.dims,
            constants=self.replay.array_arguments(),
            attrs=attrs,
            **groups,
        )
        if notes:
            tree["sample_stats"].attrs.update(notes)
        return tree

    def log_prob(self, values: Mapping[str, ArrayLike]) -> Float[Array, "*sample_and_batch"]:
        """Normalised log density of the latent scalars, in their own space.

        Parameters
        ----------
        values
            Arrays of ``sample_shape + batch_shape + site.shape`` for every site with a latent scalar; entries that
            are given are ignored, and so are other sites.

        Returns
        -------
        Log density in nats, of ``sample_shape + batch_shape``; minus infinity outside the support. The trace of the
        Jacobian is exact up to 32 latent scalars, and Hutchinson's estimate with fixed probes above.

        Raises
        ------
        ValueError
            If a latent site is discrete or deterministic, if intervals are given, or if a value is missing or has the
            wrong shape.
        """
        self._refuse_density()
        full, leading = complete_values(self.structure.sites, self.given, self.latent_sites, values)
        layout = self.joint.layout
        channels = layout.encode(full)
        rows = channels.reshape(-1, layout.num_channels)
        tokens = np.broadcast_to(self._tokens, (*leading, self.structure.num_tokens)).reshape(
            -1, self.structure.num_tokens
        )
        tokens = tokens[:1] if self._tokens.ndim == 1 else tokens
        safe = jnp.where(jnp.isfinite(rows), rows, 0.0)
        log_density = self.joint.log_density(jax.random.key(0), safe, tokens).reshape(leading)
        jacobian = jnp.where(self._latent_channels, layout.log_abs_det_jacobian(full), 0.0).sum(-1)
        log_density = log_density + jacobian - self._log_acceptance()
        return jnp.where(self._supported(full, leading), log_density, -jnp.inf)

    def as_numpyro(self) -> LatentDistribution:
        """The same as a NumPyro distribution, for use in another model's ``sample`` statement.

        Returns
        -------
        Over the latent site where there is one, else over the flat vector of latent scalars, with ``unpack`` to a
        dict of sites and ``pack`` back. Its ``log_prob`` is differentiable.

        Raises
        ------
        ValueError
            As :meth:`log_prob`, or if the conditions of a batch differ in what is missing.
        """
        self._refuse_density()
        missing = {}
        for name in self.latent_sites:
            size = math.prod(self.structure.sites[name].shape)
            given = self.given.values.get(name)
            holes = np.ones((1, size), bool) if given is None else np.isnan(given).reshape(-1, size)
            if (holes != holes[:1]).any():
                raise ValueError(f"Site '{name}': expected the same scalars missing in every condition of the batch.")
            missing[name] = np.flatnonzero(holes[0])
        return LatentDistribution(self, missing)

    def __repr__(self) -> str:
        latent = ", ".join(self._label(name, latent=True) for name in self.latent_sites)
        known = [self._label(name, latent=False) for name in self.observed_sites]
        known += [f"{name} in {self._bounds(name)}" for name in self.given.intervals]
        known += [constraint.label for constraint in self.given.constraints]
        known += [f"{name} ~ {type(new).__name__}" for name, new in self.given.priors.items()]
        batch = f" with batch_shape={self.batch_shape}" if self.batch_shape else ""
        return f"p({latent}{' | ' + ', '.join(known) if known else ''}){batch}"

    # ------------------------------------------------------------------ what is given

    def _add(self, given: Given, name: str, value: Any) -> Given:
        site = self._site(name)
        if name in given.intervals or (name in given.values and isinstance(value, Interval)):
            raise ValueError(f"Site '{name}' is given twice: it is part of {self!r} already. Expected it once.")
        if isinstance(value, Interval):
            return replace(given, intervals={**given.intervals, name: read_interval(site, value)})
        if isinstance(value, xr.DataArray):
            value, batch_dims, batch_coords = align(site, value, self.coords, self.dims)
            given = name_batch(given, name, tuple(batch_dims), batch_coords)
        array = read_values(site, value)
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

    def _is_whole(self, name: str) -> bool:
        value = self.given.values.get(name)
        return value is not None and (isinstance(value, jax.core.Tracer) or not np.isnan(value).any())

    def _label(self, name: str, *, latent: bool) -> str:
        if name not in self.given.values or self._is_whole(name):
            return name
        missing = np.isnan(self.given.values[name])
        count = missing.sum() if latent else (~missing).sum()
        return f"{name}[{count} of {missing.size}]"

    def _bounds(self, name: str) -> str:
        lower, upper = self.given.intervals[name]
        return f"[{np.min(lower):g}, {np.max(upper):g}]"

    @property
    def _tokens(self) -> Bool[np.ndarray, "*batch tokens"]:
        return encode_given(self.joint.layout, self.given)[1]

    @property
    def _latent_channels(self) -> Bool[np.ndarray, "*batch channels"]:
        return ~self._tokens[..., self.joint.layout.token_of_channel]

    # ------------------------------------------------------------------ drawing

    def draw_all(
        self, rng_key: PRNGKeyArray, sample_shape: tuple[int, ...], num_steps: int | None = None
    ) -> dict[str, Array]:
        """Draw as :meth:`draw`, but every site, given scalars as given."""
        return self._draw_all(rng_key, sample_shape, self._evaluations(num_steps))[0]

    def _draw_all(
        self, rng_key: PRNGKeyArray, sample_shape: tuple[int, ...], num_steps: int
    ) -> tuple[dict[str, Array], Restricted | None]:
        """Draws of every site, given scalars as given; and how restricted ones were come by, if not traced."""
        leading, restricted = sample_shape + self.batch_shape, None
        rows, patterns = self._rows(sample_shape)
        if not self._restrictions:
            draws = self.joint.draw(rng_key, rows, patterns, num_steps)
        elif isinstance(rows, jax.core.Tracer) or isinstance(rng_key, jax.core.Tracer):
            draws = self._restricted_traced(rng_key, rows, patterns, num_steps)
        else:
            conditions = math.prod(self.batch_shape)
            restricted = restricted_draws(
                rng_key, rows, patterns, conditions, self._restrictions, num_steps, repr(self)
            )
            draws = restricted.draws
        values = self.joint.layout.decode(draws.reshape(*leading, -1))
        return {name: self._fill(name, value, leading) for name, value in values.items()}, restricted

    def _restricted_traced(
        self, rng_key: PRNGKeyArray, rows: Array, patterns: Bool[np.ndarray, "#rows tokens"], num_steps: int
    ) -> Float[Array, "rows channels"]:
        draw = lambda key: self.joint.draw(key, rows, patterns, num_steps)  # noqa: E731

        log_weight = self._restrictions.log_weight
        if self._restrictions.are_certain:
            return redraw_traced(rng_key, rows, draw, lambda draws: log_weight(draws) > -jnp.inf)
        return resample_traced(rng_key, rows, draw, log_weight, TRACED_PROPOSALS)

    @cached_property
    def _restrictions(self) -> Restrictions:
        given = self.given
        return Restrictions(
            self.joint, self.replay, given.intervals, self._dynamic_sites, given.constraints, given.priors
        )

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

    def _evaluations(self, num_steps: int | None) -> int:
        if num_steps is None:
            return self.joint.process.default_steps
        if num_steps < 3:
            raise ValueError(f"num_steps: expected at least 3 evaluations of the network, got {num_steps}.")
        return num_steps

    def _rows(
        self, sample_shape: tuple[int, ...]
    ) -> tuple[Float[Array, "rows channels"], Bool[np.ndarray, "#rows tokens"]]:
        """Given channels and tokens, a row for every draw of every condition."""
        channels, tokens = encode_given(self.joint.layout, self.given)
        leading = sample_shape + self.batch_shape
        rows = jnp.broadcast_to(channels, (*leading, channels.shape[-1])).reshape(-1, channels.shape[-1])
        if tokens.ndim == 1:
            return rows, tokens[None]
        return rows, np.broadcast_to(tokens, (*leading, tokens.shape[-1])).reshape(-1, tokens.shape[-1])

    def _fill(self, name: str, drawn: Array, leading: tuple[int, ...]) -> Array:
        """Put what is given, to the bit, where it is given."""
        given = self.given.values.get(name)
        if given is None:
            return drawn
        # float32 until filled: what is given for a discrete site may be missing in part
        filled = jnp.where(jnp.isnan(given), drawn, given)
        return jnp.broadcast_to(filled, leading + self.structure.sites[name].shape).astype(drawn.dtype)

    @property
    def _dynamic_sites(self) -> tuple[str, ...]:
        """Sites whose support depends on others, all of which are tokens: their draws can be checked."""
        sites = self.structure.sites
        return tuple(n for n, s in sites.items() if not s.support_is_static and s.support_reads <= sites.keys())

    # ------------------------------------------------------------------ InferenceData

    def _as_given(self, name: str) -> np.ndarray:
        value = np.asarray(self.given.values[name])
        return value.astype(self.structure.sites[name].dtype) if self._is_count(name) else value

    def _is_count(self, name: str) -> bool:
        return self.structure.sites[name].is_discrete and self._is_whole(name)

    def _deterministics(self, values: Mapping[str, Array]) -> dict[str, np.ndarray]:
        at_hand = self.structure.sites.keys()
        records = self.structure.deterministics.items()
        wanted = [name for name, r in records if name not in at_hand and not r.is_random and r.reads <= at_hand]
        return self._replayed(jax.random.key(0), values, values, tuple(wanted))

    def _replicates(self, rng_key: PRNGKeyArray, values: Mapping[str, Array]) -> dict[str, np.ndarray]:
        held = {name: value for name, value in values.items() if not self.structure.sites[name].is_data}
        wanted = tuple(name for name in self.observed_sites if self.structure.sites[name].is_data)
        return self._replayed(rng_key, held, values, wanted)

    def _replayed(
        self, rng_key: PRNGKeyArray, held: Mapping[str, Array], values: Mapping[str, Array], wanted: tuple[str, ...]
    ) -> dict[str, np.ndarray]:
        """Run the model on draws whose leading axes are flattened for it."""
        if not wanted:
            return {}
        name = next(iter(values))
        leading = values[name].shape[: values[name].ndim - len(self.structure.sites[name].shape)]
        rows = {name: value.reshape(-1, *self.structure.sites[name].shape) for name, value in held.items()}
        results = self.replay.sites(jax.random.split(rng_key, math.prod(leading)), rows, wanted)
        return {name: np.asarray(value).reshape(leading + value.shape[1:]) for name, value in results.items()}

    # ------------------------------------------------------------------ density

    def _refuse_density(self) -> None:
        if self.given.intervals:
            raise ValueError(
                f"Site '{next(iter(self.given.intervals))}' is given as an interval, which leaves the density "
                "without a known normaliser. Expected values, or no interval, for log_prob."
            )
        if self.given.constraints or self.given.priors:
            what = "a constraint" if self.given.constraints else "a new prior"
            raise ValueError(
                f"{self!r}: {what} leaves the density without a known normaliser. Expected none for log_prob."
            )
        for name in self.latent_sites:
            site = self.structure.sites[name]
            kind = "discrete" if site.is_discrete else "deterministic" if site.is_deterministic else None
            if kind:
                raise ValueError(f"Site '{name}' is {kind} and latent: it has no density. Expected it to be given.")

    def _log_acceptance(self) -> Float[Array, "*batch"]:
        """Log share of the network's draws that lie inside supports that depend on other sites."""
        if not self._dynamic_sites:
            return jnp.zeros(self.batch_shape)
        rows, patterns = self._rows((ACCEPTANCE_DRAWS,))
        draws = self.joint.draw(jax.random.key(0), rows, patterns, self._evaluations(None))
        inside = self._restrictions.log_weight(draws) > -jnp.inf
        share = inside.reshape(ACCEPTANCE_DRAWS, *self.batch_shape).mean(0)
        return jnp.log(jnp.maximum(share, 1 / ACCEPTANCE_DRAWS))

    def _supported(self, full: Mapping[str, Array], leading: tuple[int, ...]) -> Bool[Array, "*leading"]:
        inside = jnp.ones(leading, bool)
        for name in self.latent_sites:
            site = self.structure.sites[name]
            check = jnp.asarray(site.support(full[name]))
            inside &= check.reshape(*leading, -1).all(-1)
        if self._dynamic_sites:
            rows = {name: value.reshape(-1, *self.structure.sites[name].shape) for name, value in full.items()}
            inside &= self.replay.inside(rows, self._dynamic_sites).reshape(leading)
        return inside


def _check_chains(num_samples: int, num_chains: int) -> None:
    if num_samples < 1 or num_chains < 1 or num_samples % num_chains:
        raise ValueError(
            f"Expected num_samples to be a positive multiple of num_chains, got {num_samples} and {num_chains}."
        )
