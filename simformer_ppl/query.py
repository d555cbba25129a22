"""A question to the learned joint, answered in arrays: draws and densities of what is not given."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, PRNGKeyArray

from simformer_ppl.computed_sites import compute
from simformer_ppl.joint import LearnedJoint
from simformer_ppl.rejection import redraw_traced, resample_traced
from simformer_ppl.replay import Replay
from simformer_ppl.restrictions import Restrictions
from simformer_ppl.structure import ModelStructure, Site
from simformer_ppl.tokens.conditions import Given, complete_values, encode_given
from simformer_ppl.tokens.states import ABSENT, GIVEN, LATENT, States
from simformer_ppl.weighted_draws import Restricted, restricted_draws

ACCEPTANCE_DRAWS = 1024
"""Draws that the normaliser of a density is estimated from, where draws outside a support are rejected."""

TRACED_PROPOSALS = 64
"""Weighted draws that each draw is chosen from under ``jax.jit``."""


@dataclass(frozen=True, eq=False, repr=False)
class Query:
    """The distribution of everything not given, as arrays.

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
    asked
        Sites that are asked for; the latent scalars of others are left out, and marginalised. None asks for all.
    computed
        Deterministic sites that the model computes from draws of the others.
    """

    structure: ModelStructure
    joint: LearnedJoint
    replay: Replay
    given: Given
    asked: frozenset[str] | None = field(default=None, kw_only=True)
    computed: frozenset[str] = field(default=frozenset(), kw_only=True)

    @property
    def sites(self) -> Mapping[str, Site]:
        """All token sites."""
        return self.structure.sites

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the batch of conditions."""
        return self.given.batch_shape

    @property
    def latent_sites(self) -> tuple[str, ...]:
        """Sites that are asked for, those with at least one latent scalar, in trace order."""
        return tuple(name for name in self.sites if not self._is_whole(name) and self._is_asked(name))

    @property
    def _open_sites(self) -> tuple[str, ...]:
        """Sites of which something can be asked."""
        return self.latent_sites

    @property
    def observed_sites(self) -> tuple[str, ...]:
        """Sites with at least one given scalar, in trace order."""
        return tuple(name for name in self.sites if name in self.given.values)

    def draw(
        self,
        rng_key: PRNGKeyArray,
        sample_shape: tuple[int, ...] = (),
        *,
        num_steps: int | None = None,
        sites: Collection[str] | None = None,
        at: Mapping[str, ArrayLike] | None = None,
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
        sites
            Those to draw, all with a latent scalar by default; others are left out.
        at
            Coordinates by continuous dim, or by function, where functions are asked for; where they were simulated by
            default.

        Returns
        -------
        Arrays of ``sample_shape + batch_shape + site.shape`` for every site with a latent scalar, inside its support.

        Raises
        ------
        ValueError
            If a covariate is not given, a site is unknown or given in full; or if no draw can be led into the given
            intervals, or to a weight under the given constraints and priors. Under ``jax.jit``, where that cannot be
            raised, such draws are NaN, and the lowest value for discrete sites.
        """
        asked = self.of_sites(sites, at)
        values = asked.draw_all(rng_key, tuple(sample_shape), num_steps)
        return {name: values[name] for name in asked.latent_sites}

    def of_sites(self, sites: Collection[str] | None, at: Mapping[str, ArrayLike] | None = None) -> Self:
        """The distribution of some sites, the others marginalised.

        Raises
        ------
        ValueError
            If there are none, one is unknown or given in full, or coordinates are asked for of no functions.
        """
        if at:
            raise ValueError(f"at: '{next(iter(at))}' is no continuous dim: the model has none.")
        if sites is None:
            return self
        names = [sites] if isinstance(sites, str) else list(sites)
        wrong = [name for name in names if name not in self.latent_sites]
        if wrong or not names:
            no_tokens = self.structure.deterministics.keys() - self.sites.keys()
            computed = [repr(name) for name in wrong if name in no_tokens]
            why = f" Deterministic {', '.join(computed)} is no token: name it in Simformer(..., sites=[...])."
            raise ValueError(
                f"sites: expected some of the sites that are not given, {', '.join(self.latent_sites)}; got "
                f"{', '.join(map(repr, wrong)) or 'none'}.{why if computed else ''}"
            )
        return replace(self, asked=frozenset(names))

    def draw_all(
        self, rng_key: PRNGKeyArray, sample_shape: tuple[int, ...], num_steps: int | None = None
    ) -> dict[str, Array]:
        """Draw as :meth:`draw`, but every site, given scalars as given; what is left out has no meaning."""
        return self._draw_all(rng_key, sample_shape, self._evaluations(num_steps))[0]

    def log_prob(self, values: Mapping[str, ArrayLike]) -> Float[Array, "*sample_and_batch"]:
        """Normalised log density of the latent scalars, in their own space.

        Parameters
        ----------
        values
            Arrays of ``sample_shape + batch_shape + site.shape`` for sites with a latent scalar, or DataArrays, which
            are read by their dims and labels; entries that are given are ignored, and so are other sites. Latent sites
            that are not among them are left out: the density is that of the others, these marginalised.

        Returns
        -------
        Log density in nats, of ``sample_shape + batch_shape``; minus infinity outside the support. The trace of the
        Jacobian is exact up to 32 latent scalars, and Hutchinson's estimate with fixed probes above.

        Raises
        ------
        ValueError
            If a name is no site of the model; a covariate is not given; a latent site is discrete, or deterministic
            without noise of its own (see :class:`~simformer_ppl.structure.sites.Deterministic`); intervals are given;
            or no latent site has a value, or one has the wrong shape.
        """
        known = {*self.structure.sites, *self.structure.deterministics, *self.structure.nuisances}
        for name in values.keys() - known:
            raise ValueError(f"Site '{name}' is not in the model. Expected one of: {', '.join(self.sites)}.")
        named = [name for name in self.latent_sites if name in values]
        if not named:
            self._refuse_density()
            raise ValueError(
                f"{self!r}: expected values of some of the latent sites {', '.join(self.latent_sites)}, got "
                f"{', '.join(map(repr, values)) or 'none'}."
            )
        return self.of_sites(named)._log_prob({name: self._in_order(name, values[name]) for name in named})

    def _in_order(self, name: str, value: ArrayLike) -> ArrayLike:
        """A value as an array."""
        return value

    def _log_prob(self, values: Mapping[str, ArrayLike]) -> Float[Array, "*sample_and_batch"]:
        self._refuse_density()
        full, leading = complete_values(self.sites, self.given, self.latent_sites, values)
        layout = self.joint.layout
        channels = layout.encode(full)
        rows = channels.reshape(-1, layout.num_channels)
        pattern = self._states
        states = np.broadcast_to(pattern, (*leading, pattern.shape[-1])).reshape(-1, pattern.shape[-1])
        states = states[:1] if pattern.ndim == 1 else states
        safe = jnp.where(jnp.isfinite(rows), rows, 0.0)
        log_density = self.joint.log_density(jax.random.key(0), safe, states).reshape(leading)
        jacobian = jnp.where(self._latent_channels, layout.log_abs_det_jacobian(full), 0.0).sum(-1)
        log_density = log_density + jacobian - self._log_acceptance()
        return jnp.where(self._supported(full, leading), log_density, -jnp.inf)

    def __repr__(self) -> str:
        latent = ", ".join(self._label(name, latent=True) for name in self._open_sites)
        known = [self._label(name, latent=False) for name in self.observed_sites]
        known += [f"{name} in {self._bounds(name)}" for name in self.given.intervals]
        known += [constraint.label for constraint in self.given.constraints]
        known += [f"{name} ~ {type(new).__name__}" for name, new in self.given.priors.items()]
        batch = f" with batch_shape={self.batch_shape}" if self.batch_shape else ""
        return f"p({latent}{' | ' + ', '.join(known) if known else ''}){batch}"

    # ------------------------------------------------------------------ what is given

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
        if np.ptp(np.nan_to_num(lower)) or np.ptp(np.nan_to_num(upper)):
            return f"{np.size(lower)} intervals"
        return f"[{np.min(lower):g}, {np.max(upper):g}]"

    @property
    def _encoded(self) -> tuple[Float[Array, "*batch channels"], Bool[np.ndarray, "*batch tokens"]]:
        """Channels of what is given, and which tokens that is."""
        self._refuse_missing_covariates()
        return encode_given(self.joint.layout, self.given)

    def _refuse_missing_covariates(self) -> None:
        for name, site in self.sites.items():
            if site.is_covariate and not self._is_whole(name):
                raise ValueError(
                    f"Site '{name}' is a covariate, which is only ever given. Expected a value for all of it."
                )

    def _refuse_unknown_laws(self) -> None:
        """A new prior is weighed against the model's, which may read a site that is not at hand."""
        for name in self.given.priors:
            read = self.structure.adjacency[self.sites[name].token_slice].any(0)
            for other, site in self.sites.items():
                if site.is_embedded and not self._is_whole(other) and read[site.token_slice].any():
                    raise ValueError(
                        f"prior: the law of '{name}' reads '{other}', which is not given, and never drawn, since it "
                        f"has an embedding. Expected a value of '{other}'."
                    )

    @property
    def _states(self) -> States:
        return self._with_left_out(self._encoded[1])

    @property
    def _latent_channels(self) -> Bool[np.ndarray, "*batch channels"]:
        return self._states[..., self.joint.layout.token_of_channel] == LATENT

    def _is_asked(self, name: str) -> bool:
        return (self.asked is None or name in self.asked) and not self.structure.sites[name].is_embedded

    def _with_left_out(self, given: Bool[np.ndarray, "*batch tokens"]) -> States:
        """States of the tokens, of which these are given."""
        states = np.where(given, GIVEN, LATENT).astype(np.int8)
        for name, site in self.sites.items():
            if not self._is_asked(name):
                part = states[..., site.token_slice]
                part[part == LATENT] = ABSENT
        return states

    def _rows(self, sample_shape: tuple[int, ...]) -> tuple[Float[Array, "rows channels"], States]:
        """Given channels and states of the tokens, a row for every draw of every condition."""
        channels, given = self._encoded
        states, leading = self._with_left_out(given), sample_shape + self.batch_shape
        rows = jnp.broadcast_to(channels, (*leading, channels.shape[-1])).reshape(-1, channels.shape[-1])
        if states.ndim == 1:
            return rows, states[None]
        return rows, np.broadcast_to(states, (*leading, states.shape[-1])).reshape(-1, states.shape[-1])

    def _fill(self, name: str, drawn: Array, leading: tuple[int, ...]) -> Array:
        """Put what is given, to the bit, where it is given."""
        given = self.given.values.get(name)
        if given is None:
            return drawn
        # float32 until filled: what is given for a discrete site may be missing in part
        filled = jnp.where(jnp.isnan(given), drawn, given)
        return jnp.broadcast_to(filled, leading + self.sites[name].shape).astype(drawn.dtype)

    # ------------------------------------------------------------------ draws

    def _draw_all(
        self, rng_key: PRNGKeyArray, sample_shape: tuple[int, ...], num_steps: int
    ) -> tuple[dict[str, Array], Restricted | None]:
        """Draws of every site, given scalars as given; and how restricted ones were come by, if not traced."""
        leading, restricted = sample_shape + self.batch_shape, None
        if self.asked is not None and self._is_restricted:
            # weights may read what is left out
            return replace(self, asked=None)._draw_all(rng_key, sample_shape, num_steps)
        self._refuse_unknown_laws()
        rows, patterns = self._rows(sample_shape)
        if not self._restrictions:
            draws = self.joint.draw(rng_key, rows, patterns, num_steps)
        else:
            draws, restricted = self._restricted(rng_key, rows, patterns, self._restrictions, num_steps)
        values = self.joint.layout.decode(draws.reshape(*leading, -1))
        filled = {name: self._fill(name, value, leading) for name, value in values.items()}
        return {**filled, **self._compute(filled, leading)}, restricted

    def _compute(self, values: Mapping[str, Array], leading: tuple[int, ...]) -> dict[str, Array]:
        """Deterministic sites as the model has them, in place of what the network takes them for."""
        names = self._computed_sites
        if not names:
            return {}
        rows = {name: value.reshape(-1, *self.sites[name].shape) for name, value in values.items()}
        computed = compute(self.replay, rows, names, self._at_hand)
        inside = {name: self.given.intervals.get(name, (-np.inf, np.inf)) for name in names}  # up to rounding
        return {
            name: jnp.clip(value.reshape(*leading, *self.sites[name].shape), *inside[name]).astype(value.dtype)
            for name, value in computed.items()
        }

    @property
    def _computed_sites(self) -> frozenset[str]:
        """Deterministic sites of which nothing is given, and all that they read is at hand."""
        reads = {name: self.structure.deterministics[name].reads for name in self.computed}
        asked = {name for name in self.computed if self._is_asked(name) and name not in self.given.values}
        return frozenset(name for name in asked if reads[name] <= self._at_hand)

    @property
    def _at_hand(self) -> frozenset[str]:
        """Sites that the model can be held at."""
        return frozenset(name for name in self.structure.sites if self._is_asked(name) or self._is_whole(name))

    def _restricted(
        self, rng_key: PRNGKeyArray, rows: Array, patterns: States, restrictions: Restrictions, num_steps: int
    ) -> tuple[Float[Array, "rows channels"], Restricted | None]:
        """Restricted draws, and how they were come by, if not traced."""
        if not (isinstance(rows, jax.core.Tracer) or isinstance(rng_key, jax.core.Tracer)):
            conditions = math.prod(self.batch_shape)
            found = restricted_draws(rng_key, rows, patterns, conditions, restrictions, num_steps, repr(self))
            return found.draws, found
        draw = lambda key: restrictions.joint.draw(key, rows, patterns, num_steps)  # noqa: E731
        log_weight = restrictions.log_weight
        if restrictions.are_certain:
            return redraw_traced(rng_key, rows, draw, lambda draws: log_weight(draws) > -jnp.inf), None
        return resample_traced(rng_key, rows, draw, log_weight, TRACED_PROPOSALS), None

    @cached_property
    def _restrictions(self) -> Restrictions:
        given = self.given
        return Restrictions(
            self.joint, self.replay, given.intervals, self._dynamic_sites, given.constraints, given.priors,
            computed=self._computed_sites,
        )  # fmt: skip

    @property
    def _dynamic_sites(self) -> tuple[str, ...]:
        """Sites whose support depends on others, all of which are tokens at hand: their draws can be checked."""
        sites = self._at_hand
        return tuple(
            name
            for name, site in self.sites.items()
            if not site.support_is_static and site.support_reads | {name} <= sites
        )

    @property
    def _is_restricted(self) -> bool:
        return bool(self.given.intervals or self.given.constraints or self.given.priors)

    def _evaluations(self, num_steps: int | None) -> int:
        if num_steps is None:
            return self.joint.process.default_steps
        if num_steps < 3:
            raise ValueError(f"num_steps: expected at least 3 evaluations of the network, got {num_steps}.")
        return num_steps

    # ------------------------------------------------------------------ density

    def _refuse_density(self) -> None:
        self._refuse_missing_covariates()
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
            site = self.sites[name]
            if site.is_discrete:
                raise ValueError(f"Site '{name}' is discrete and latent: it has no density. Expected it to be given.")
            if site.is_deterministic and not self.structure.deterministics[name].has_density:
                raise ValueError(
                    f"Site '{name}' is latent, and a function of other sites without noise of its own: it has no "
                    "density. Expected it to be given."
                )

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
            site = self.sites[name]
            check = jnp.asarray(site.support(full[name]))
            inside &= check.reshape(*leading, -1).all(-1)
        if self._dynamic_sites:
            rows = {name: value.reshape(-1, *self.sites[name].shape) for name, value in full.items()}
            inside &= self.replay.inside(rows, self._dynamic_sites).reshape(leading)
        return inside
