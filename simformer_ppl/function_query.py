"""A question to the learned joint of a model some of whose sites are functions, answered in arrays."""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from simformer_ppl.function_blocks import blocks_of, nearest
from simformer_ppl.function_points import Points, on_places, read_coordinates
from simformer_ppl.joint import LearnedJoint
from simformer_ppl.query import Query
from simformer_ppl.restrictions import Restrictions
from simformer_ppl.sequences import Sequences
from simformer_ppl.structure import Site
from simformer_ppl.tokens.conditions import complete_values, encode_values
from simformer_ppl.tokens.functions import Functions
from simformer_ppl.tokens.states import ABSENT, GIVEN, LATENT, States
from simformer_ppl.weighted_draws import Restricted

Coordinates = Mapping[str, ArrayLike]


@dataclass(frozen=True, eq=False, repr=False)
class FunctionQuery(Query):
    """The distribution of everything not given, functions among it, as arrays.

    Attributes
    ----------
    sequences
        Makes the sequences of tokens that the network is asked with.
    at
        Coordinates by dim, or by function, at which functions are asked for; where they were simulated by default.
    """

    sequences: Sequences | None = field(default=None, kw_only=True)
    at: Mapping[str, Float[np.ndarray, " points"]] = field(default_factory=dict, kw_only=True)

    @property
    def _functions(self) -> Functions:
        assert self.sequences is not None and self.sequences.functions is not None
        return self.sequences.functions

    @property
    def sites(self) -> Mapping[str, Site]:
        """All token sites, functions at the coordinates where they are asked for."""
        points = {name: len(self._coordinates(name)) for name in self._functions.axes}
        return self._functions.resize(self.structure.sites, points)

    def _coordinates(self, name: str) -> Float[np.ndarray, " points"]:
        """Where a function is asked for."""
        dim, grid = self._functions.axes[name][1], self._functions.grid(name)
        return on_places(self.at.get(name, self.at.get(dim, grid)), grid)

    # ------------------------------------------------------------------ what is asked

    def of_sites(self, sites: Collection[str] | None, at: Coordinates | None = None) -> Self:
        """The distribution of some sites at some coordinates, the others marginalised.

        Raises
        ------
        ValueError
            If a site is unknown or given in full, a dim is not continuous, or a coordinate is out of range.
        """
        asked = self._asked_at(at or {})
        if not asked.latent_sites:
            raise ValueError(
                "Nothing is left to sample: every site is given in full where it is asked for. Expected `at` other "
                f"coordinates of {', '.join(self._functions.axes)}."
            )
        return super(FunctionQuery, asked).of_sites(sites)

    def _asked_at(self, at: Coordinates) -> Self:
        """The same question about functions at some coordinates."""
        grids = {**self._functions.grids, **{name: self._functions.grid(name) for name in self._functions.axes}}
        for dim in at:
            if dim not in grids:
                raise ValueError(f"at: '{dim}' is no continuous dim or function. Expected some of {list(grids)}.")
        read = {dim: read_coordinates(f"at['{dim}']", own, grids[dim]) for dim, own in at.items()}
        return replace(self, at={**self.at, **read})

    @property
    def _open_sites(self) -> tuple[str, ...]:
        return self.latent_sites or tuple(self._functions.axes)

    def log_prob(self, values: Mapping[str, ArrayLike], *, at: Coordinates | None = None) -> Float[Array, "*batch"]:
        """Normalised log density; functions at the coordinates of their DataArrays, or `at` some, or on their grids.

        See :meth:`simformer_ppl.ConditionedDistribution.log_prob`.
        """
        asked, read = self._asked_at(at or {}), dict(values)
        for name in self._functions.axes:
            if name in values:
                read[name], coordinates = asked._read_points(name, values[name])
                asked = replace(asked, at={**asked.at, name: coordinates})
        return super(FunctionQuery, asked).log_prob(read)

    def _is_whole(self, name: str) -> bool:
        if name not in self._functions.axes or name not in self.given.values:
            return super()._is_whole(name)
        axis, known = self._functions.axes[name][0], self._given_points(name)
        here = {c: i for i, c in enumerate(known.coordinates)}
        places = [here.get(c, -1) for c in self._coordinates(name)]
        return -1 not in places and bool(np.take(known.known, places, axis + 1).all())

    def _label(self, name: str, *, latent: bool) -> str:
        if name not in self._functions.axes:
            return super()._label(name, latent=latent)
        dim = self._functions.axes[name][1]
        count = len(self._coordinates(name)) if latent else len(self.given.coordinates[name])
        return f"{name}({dim})" if latent else f"{name}[{count} of {dim}]"

    def _given_points(self, name: str, leading: tuple[int, ...] | None = None) -> Points:
        """What is given of a function, a row for every draw of every condition."""
        value, shape = self.given.values[name], self.structure.sites[name].shape
        traced = isinstance(value, jax.core.Tracer)
        known = np.ones(value.shape, bool) if traced else ~np.isnan(value)
        leading = self.batch_shape if leading is None else leading
        coordinates = on_places(self.given.coordinates[name], self._functions.grid(name))
        axis = self._functions.axes[name][0]
        own = (*shape[:axis], len(coordinates), *shape[axis + 1 :])
        values = jnp.where(jnp.isnan(value), self._inner_value(name), value)
        if known.ndim == len(own):
            return Points(coordinates, values[None], known[None], np.zeros(len(coordinates), bool))
        known = np.broadcast_to(known, leading + own).reshape(-1, *own)
        values = jnp.broadcast_to(values, leading + own).reshape(-1, *own)
        return Points(coordinates, values, known, np.zeros(len(coordinates), bool))

    # ------------------------------------------------------------------ sequences

    def _fixed(self, names: Iterable[str]) -> list[str]:
        """Sites that are no functions."""
        return [name for name in names if name not in self._functions.axes]

    def _sequence(
        self,
        fixed: Mapping[str, Array],
        points: Mapping[str, Points],
        rows: int,
        *,
        asked: bool,
    ) -> tuple[LearnedJoint, Float[Array, "rows channels"], States]:
        """A joint, channels and states for what is known and asked.

        Parameters
        ----------
        fixed
            Values of sites that are no functions, which are taken as given; others as the question has them.
        points
            Of functions.
        rows
            Number of rows.
        asked
            Whether sites that are no functions are asked for, even if their draws are not.
        """
        assert self.sequences is not None
        axes = {name: axis + 1 for name, (axis, _) in self._functions.axes.items()}
        padded = {name: own.padded(axes[name]) for name, own in points.items() if len(own.coordinates)}
        joint = self.sequences.joint_at(self.joint, {name: own.coordinates for name, own in padded.items()})
        channels, states = [], []
        for name, site in joint.layout.sites.items():
            tokens = site.num_tokens
            if name in padded:
                own, axis = padded[name], self._functions.axes[name][0]
                latent = own.asked.reshape(-1, *(1,) * (len(site.shape) - axis - 1))
                state = np.where(own.known, GIVEN, np.where(latent, LATENT, ABSENT))
                encoded = joint.layout.transforms[name].forward(own.values)
            elif name in fixed:
                encoded = joint.layout.transforms[name].forward(jnp.asarray(fixed[name]))
                state = np.full((1, tokens), GIVEN)
            else:
                value = self.given.values.get(name, np.full(site.shape, np.nan))
                encoded, present = encode_values(joint.layout, name, value)
                leading = encoded.shape[:-1]
                if leading:
                    shape = (rows // math.prod(self.batch_shape), *self.batch_shape)
                    encoded = jnp.broadcast_to(encoded, (*shape, encoded.shape[-1])).reshape(rows, -1)
                    present = np.broadcast_to(present, (*shape, tokens)).reshape(rows, -1)
                state = np.where(present, GIVEN, LATENT if asked or self._is_asked(name) else ABSENT)
            channels.append(jnp.broadcast_to(encoded.reshape(-1, encoded.shape[-1]), (rows, encoded.shape[-1])))
            states.append(state.reshape(-1, tokens).astype(np.int8))
        count = max(map(len, states))
        pattern = np.concatenate([np.broadcast_to(state, (count, state.shape[-1])) for state in states], -1)
        return joint, jnp.concatenate(channels, -1), pattern

    def _wanted(self, name: str, leading: tuple[int, ...]) -> tuple[Points, Points]:
        """Points of a function that are to be drawn, with what is known of them; and the others that are known."""
        axis, shape = self._functions.axes[name][0] + 1, self.structure.sites[name].shape
        coordinates = self._coordinates(name) if self._is_asked(name) else np.zeros(0)
        inner = jnp.broadcast_to(self._inner_value(name), (1, *shape[: axis - 1], len(coordinates), *shape[axis:]))
        new = Points(coordinates, inner, np.zeros(inner.shape, bool), np.ones(len(coordinates), bool))
        if name not in self.given.values:
            return new, new.take(np.zeros(0, int), axis)
        given = self._given_points(name, leading)
        others = tuple(i for i in range(given.known.ndim) if i != axis)
        whole = given.coordinates[given.known.all(others)]
        new = new.take(np.flatnonzero(~np.isin(coordinates, whole)), axis)
        partly = np.isin(given.coordinates, new.coordinates)
        if partly.any():
            order = [int(np.flatnonzero(new.coordinates == c)[0]) for c in given.coordinates[partly]]
            rest = np.setdiff1d(np.arange(len(new.coordinates)), order)
            part = given.take(np.flatnonzero(partly), axis)._replace(asked=np.ones(int(partly.sum()), bool))
            new = new.take(rest, axis).join(part, axis)
            new = new.take(np.argsort(new.coordinates, kind="stable"), axis)
        return new, given.take(np.flatnonzero(~partly), axis)

    def _inner_value(self, name: str) -> Array:
        """A value inside the support of a function."""
        layout = self.sequences.layout if self.sequences else None
        assert layout is not None
        part = layout.channel_slices[name]
        middle = self.joint.standardisation.inverse(jnp.zeros(layout.num_channels))
        return layout.transforms[name].inverse(middle[part]).ravel()[:1].astype(jnp.float32)

    # ------------------------------------------------------------------ draws

    def _draw_all(
        self, rng_key: PRNGKeyArray, sample_shape: tuple[int, ...], num_steps: int
    ) -> tuple[dict[str, Array], Restricted | None]:
        """Draws of every site that is asked for or given, and how restricted ones were come by.

        Many points of functions are drawn block by block, given the sites that are no functions and the nearest points
        that are known: exact where points do not depend on each other but through these sites.
        """
        self._refuse_missing_covariates()
        leading, functions = sample_shape + self.batch_shape, self._functions
        rows = math.prod(leading)
        pairs = {name: self._wanted(name, leading) for name in functions.axes}
        new, known = ({name: pair[i] for name, pair in pairs.items()} for i in (0, 1))
        traced = [rng_key, *self.given.values.values()]
        at_once = self._is_restricted or any(isinstance(value, jax.core.Tracer) for value in traced)
        most = {name: len(new[name].coordinates) if at_once else functions.most_points[name] for name in new}
        plan = {name: blocks_of(len(own.coordinates), most[name]) for name, own in new.items()}
        fixed: dict[str, Array] = {}
        count, restricted = max(map(len, plan.values())), None
        for number, key in enumerate(jax.random.split(rng_key, count)):
            block, told = {}, {}
            for name, own in new.items():
                chosen = plan[name][number] if number < len(plan[name]) else np.zeros(0, int)
                block[name] = own.take(chosen, functions.axes[name][0] + 1)
            for name, own in known.items():
                near = np.arange(len(own.coordinates))
                if number:
                    room = functions.most_points[name] if self._points_are_linked else 0
                    around = [part.coordinates for other, part in block.items() if functions.share_dim(name, other)]
                    near = nearest(own.coordinates, np.concatenate(around), room)
                told[name] = own.take(near, functions.axes[name][0] + 1)
            drawn, fixed, report = self._draw_block(key, leading, fixed, told, block, num_steps)
            restricted = report or restricted
            known = {name: known[name].join(drawn[name], functions.axes[name][0] + 1) for name in known}
        values = {name: value.reshape(*leading, *self.sites[name].shape) for name, value in fixed.items()}
        for name in functions.axes:
            if self._is_asked(name) or self._is_whole(name):
                values[name] = self._assemble(name, known[name], leading, rows)
        return values, restricted

    def _draw_block(
        self,
        rng_key: PRNGKeyArray,
        leading: tuple[int, ...],
        fixed: Mapping[str, Array],
        told: Mapping[str, Points],
        block: Mapping[str, Points],
        num_steps: int,
    ) -> tuple[dict[str, Points], dict[str, Array], Restricted | None]:
        """Draw some points, and, unless they are known, the sites that are no functions.

        These are drawn even where they are not asked for: a network that is to marginalise them is seldom as exact, and
        errs towards answers that are too narrow.
        """
        rows, functions, restricted = math.prod(leading), self._functions, None
        axes = {name: axis + 1 for name, (axis, _) in functions.axes.items()}
        points = {name: told[name].join(own, axes[name]) for name, own in block.items()}
        joint, channels, states = self._sequence(fixed, points, rows, asked=True)
        if self._is_restricted or self._dynamic_sites:
            draws, restricted = self._restricted(rng_key, channels, states, self._restrictions_of(joint), num_steps)
        elif (states == LATENT).any():
            draws = joint.draw(rng_key, channels, states, num_steps)
        else:
            draws = channels
        values = joint.layout.decode(draws)
        drawn = {}
        for name, own in block.items():
            count = len(told[name].coordinates)
            if name not in values:
                drawn[name] = own
                continue
            here = jnp.take(values[name], np.arange(count, count + len(own.coordinates)), axes[name])
            merged = jnp.where(own.known, own.values, here)
            drawn[name] = own._replace(values=merged, known=np.ones((1, *merged.shape[1:]), bool))
        out = fixed or {
            name: values[name].reshape(*leading, *site.shape)
            for name, site in joint.layout.sites.items()
            if name not in functions.axes
        }
        out = {
            name: self._fill(name, jnp.asarray(value).reshape(*leading, *self.structure.sites[name].shape), leading)
            for name, value in out.items()
        }
        out |= {} if fixed else self._compute(out, leading)
        flat = {name: value.reshape(rows, *self.structure.sites[name].shape) for name, value in out.items()}
        return drawn, flat, restricted

    def _assemble(self, name: str, known: Points, leading: tuple[int, ...], rows: int) -> Array:
        """Values of a function where it is asked for."""
        axis, site = self._functions.axes[name][0] + 1, self.sites[name]
        places = {coordinate: place for place, coordinate in enumerate(known.coordinates)}
        chosen = np.array([places[coordinate] for coordinate in self._coordinates(name)], int)
        values = jnp.take(known.values, chosen, axis)
        return jnp.broadcast_to(values, (rows, *site.shape)).reshape(*leading, *site.shape).astype(site.dtype)

    @property
    def _points_are_linked(self) -> bool:
        assert self.sequences is not None
        return self.sequences.training.index.points_are_linked

    @property
    def _dynamic_sites(self) -> tuple[str, ...]:
        fixed = {name for name in self.structure.sites if name not in self._functions.axes}
        return tuple(name for name in super()._dynamic_sites if self.sites[name].support_reads | {name} <= fixed)

    def _restrictions_of(self, joint: LearnedJoint) -> Restrictions:
        given = self.given
        return Restrictions(
            joint, self.replay, given.intervals, self._dynamic_sites, given.constraints, given.priors,
            frozenset(self._fixed(self.structure.sites)), self._computed_sites,
        )  # fmt: skip

    @property
    def _computed_sites(self) -> frozenset[str]:
        fixed = frozenset(self._fixed(self.structure.sites))
        reads = {name: self.structure.deterministics[name].reads for name in super()._computed_sites & fixed}
        return frozenset(name for name in reads if reads[name] <= fixed)

    # ------------------------------------------------------------------ density

    def _refuse_density(self) -> None:
        super()._refuse_density()
        if self._dynamic_sites:
            raise ValueError(
                f"Site '{self._dynamic_sites[0]}': its support depends on other sites, which leaves the density beside "
                "functions without a known normaliser."
            )

    def _log_prob(self, values: Mapping[str, ArrayLike]) -> Float[Array, "*sample_and_batch"]:
        self._refuse_density()
        functions, own, latent = self._functions, self.structure.sites, self.latent_sites
        fixed = replace(self.given, values={name: self.given.values[name] for name in self._fixed(self.given.values)})
        full, leading = complete_values(self.sites, fixed, latent, values)
        rows = math.prod(leading)
        flat = {name: value.reshape(rows, *self.sites[name].shape) for name, value in full.items()}
        points = {}
        for name, (axis, _) in functions.axes.items():
            new, known = self._wanted(name, leading)
            if name in latent:
                places = np.searchsorted(np.sort(self._coordinates(name)), new.coordinates)
                asked = jnp.take(flat[name], np.argsort(self._coordinates(name))[places], axis + 1)
                new = new._replace(values=jnp.where(new.known, new.values, asked))
                flat[name] = jnp.broadcast_to(new.values, (rows, *new.values.shape[1:]))
            points[name] = known.join(new, axis + 1)
        joint, channels, states = self._sequence({}, points, rows, asked=False)
        layout, inside = joint.layout, jnp.ones(rows, bool)
        for name in latent:
            if name not in functions.axes:
                channels = channels.at[:, layout.channel_slices[name]].set(layout.transforms[name].forward(flat[name]))
            inside &= jnp.asarray(own[name].support(flat[name])).reshape(rows, -1).all(-1)
        safe = jnp.where(jnp.isfinite(channels), channels, 0.0)
        decoded = {**layout.decode(safe), **{name: flat[name] for name in self._fixed(self.sites)}}
        log_density = joint.log_density(jax.random.key(0), safe, states)
        is_latent = states[:, layout.token_of_channel] == LATENT
        jacobian = jnp.where(is_latent, layout.log_abs_det_jacobian(decoded), 0.0).sum(-1)
        return jnp.where(inside, log_density + jacobian, -jnp.inf).reshape(leading)

    def _read_points(self, name: str, value: Any) -> tuple[Any, Float[np.ndarray, " points"]]:
        """Values of a function whose density is asked for, and their coordinates."""
        return value, self._coordinates(name)
