"""The density of a model some of whose sites are functions, of any points of them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from simformer_ppl.function_points import on_places
from simformer_ppl.function_query import FunctionQuery
from simformer_ppl.model_density import ModelDensity
from simformer_ppl.query import Query
from simformer_ppl.replicates import log_probs


@dataclass(frozen=True)
class FunctionDensity(ModelDensity):
    """Where the points of functions depend on nothing but sites that are none, and nothing on them.

    The density of some points is the product of theirs then, whatever the others are. Weighted are draws of the sites
    that are no functions, given the points that are known; the model itself draws the other points, exactly.
    """

    asked: FunctionQuery

    @cached_property
    def proposal(self) -> Query | None:
        """The sites that are no functions; None, if all are given."""
        weighted = [name for name in self.asked.latent_sites if name not in self.asked._functions.axes]
        return self.asked.of_sites(weighted) if weighted else None

    def refuse_if_unknown(self) -> None:
        """Tell why the density is not known, or cannot be of points."""
        super().refuse_if_unknown()
        for name in self.asked._functions.axes:
            self._refuse_links(name)
            self._places(name)
            if name in self.asked.given.coordinates:
                self._given_places(name)
                self._refuse_parts_of_events(name)

    def _refuse_links(self, name: str) -> None:
        """Refuse a function whose points depend on each other, or whose points another site reads."""
        structure, site = self.asked.structure, self.asked.structure.sites[name]
        readers = structure.adjacency[:, site.token_slice].any(1)
        read_by = [repr(other) for other, each in structure.sites.items() if readers[each.token_slice].any()]
        if read_by or self._density_axes(name) <= self.asked._functions.axes[name][0]:
            why = f"{read_by[0]} depends on them" if read_by else "their density is one of all points"
            raise ValueError(
                f"{self.asked!r}: the model's density of some points of '{name}' is not known, since {why}. Expected a "
                "function whose points have a density each, and on which nothing depends."
            )

    def _refuse_parts_of_events(self, name: str) -> None:
        """Refuse points of several scalars with one density, of which only some are given."""
        known = self.asked._given_points(name).known
        event = tuple(range(1 + self._density_axes(name), known.ndim))
        if (known.any(event) != known.all(event)).any():
            raise ValueError(
                f"{self.asked!r}: the model's density of '{name}' is not known where a part of a point is missing. "
                "Expected all of its scalars, or none."
            )

    def _density_axes(self, name: str) -> int:
        """Axes of the log density of a function: those of the site but for its events."""
        sites = self.asked.structure.sites
        rows = {other: jax.ShapeDtypeStruct((1, *site.shape), site.dtype) for other, site in sites.items()}
        return jax.eval_shape(lambda values: self.asked.replay.log_probs(values, (name,)), rows)[name].ndim - 1

    def log_probs(self, values: Mapping[str, Array], leading: tuple[int, ...]) -> dict[str, Float[Array, "..."]]:
        """Log densities of sites, and of functions at all places; zero, where they are not given."""
        sites, rows = self.asked.structure.sites, math.prod(leading)
        axes, held, known = self.asked._functions.axes, {}, {}
        for name, site in sites.items():
            if name in axes:
                held[name], known[name] = self._on_grid(name, leading)
                held[name] = jnp.broadcast_to(held[name], (rows, *site.shape)).astype(site.dtype)
            else:
                held[name] = values[name].reshape(rows, *site.shape)
        found: dict[str, Any] = dict(log_probs(self.asked.replay, held, tuple(sites)))
        found |= {name: jnp.where(_of_events(own, found[name].ndim), found[name], 0.0) for name, own in known.items()}
        return {name: density.reshape(leading + density.shape[1:]) for name, density in found.items()}

    def of_given(self, name: str, density: Float[Array, "..."], leading: tuple[int, ...]) -> Float[Array, "..."]:
        """The density of a site, at the points that are given; NaN, where one is missing."""
        if name not in self.asked.given.coordinates:
            return super().of_given(name, density, leading)
        known = _of_events(self._on_grid(name, leading)[1], density.ndim - len(leading) + 1)
        flat = density.reshape(-1, *density.shape[len(leading) :])
        given = jnp.where(known, flat, jnp.nan).reshape(density.shape)
        return jnp.take(given, self._given_places(name), len(leading) + self.asked._functions.axes[name][0])

    def completed(
        self, rng_key: PRNGKeyArray, values: Mapping[str, Array], leading: tuple[int, ...]
    ) -> dict[str, Array]:
        """Corrected draws, and points of functions that the model draws."""
        asked, axes = self.asked, self.asked._functions.axes
        wanted = tuple(name for name in axes if name in asked.latent_sites or asked._is_whole(name))
        if not wanted:
            return dict(values)
        sites, drawn = asked.structure.sites, {}
        held = {name: own.reshape(-1, *sites[name].shape) for name, own in values.items() if name not in axes}
        found = asked.replay.sites(jax.random.split(rng_key, math.prod(leading)), held, wanted)
        for name, simulated in found.items():
            own, known = self._on_grid(name, leading)
            full = jnp.where(known, own.astype(simulated.dtype), simulated)
            points = jnp.take(full, self._places(name), axes[name][0] + 1)
            drawn[name] = points.reshape(leading + points.shape[1:])
        return {**values, **drawn}

    def _places(self, name: str) -> Int[np.ndarray, " points"]:
        """Where a function is asked for."""
        return self.asked._functions.grid_places(name, self.asked._coordinates(name), "at")

    def _given_places(self, name: str) -> Int[np.ndarray, " points"]:
        """Where a function is given."""
        functions = self.asked._functions
        given = on_places(self.asked.given.coordinates[name], functions.grid(name))
        return functions.grid_places(name, given, f"Site '{name}'")

    def _on_grid(
        self, name: str, leading: tuple[int, ...]
    ) -> tuple[Float[Array, "#rows *shape"], Bool[np.ndarray, "#rows *shape"]]:
        """What is given of a function, at all places where it is simulated, and where that is."""
        axis, shape = self.asked._functions.axes[name][0], self.asked.structure.sites[name].shape
        values, known = jnp.full((1, *shape), self.asked._inner_value(name)[0]), np.zeros((1, *shape), bool)
        if name not in self.asked.given.coordinates:
            return values, known
        points = self.asked._given_points(name, leading)
        here = (slice(None),) * (axis + 1) + (self._given_places(name),)
        values = jnp.broadcast_to(values, (len(points.values), *shape)).at[here].set(points.values)
        known = np.repeat(known, len(points.known), 0)
        known[here] = points.known
        return values, known


def _of_events(known: Bool[np.ndarray, "rows *shape"], axes: int) -> Bool[np.ndarray, "rows *some"]:
    """Which events, after so many axes, are known as a whole."""
    return known.all(tuple(range(axes, known.ndim)))
