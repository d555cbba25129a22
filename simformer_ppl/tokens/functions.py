"""Sites along a continuous dim: functions of a coordinate, of which a sequence of tokens holds any number of points."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from simformer_ppl.structure import ModelStructure, Site
from simformer_ppl.tokens.transforms import scalar_support

MOST_TOKENS, MOST_POINTS, FEWEST_POINTS = 48, 24, 8
"""Tokens that all functions of a training sequence have together, and points of each."""

_NONE_AT_ALL = 0.15
"""Share of training sequences in which a function has no points."""

_ALIGNED = 0.5
"""Share of training sequences in which all functions have their points at the same places, as far as they go."""


class DrawnPoints(NamedTuple):
    """DrawnPoints of functions in the examples of a batch, by function.

    Attributes
    ----------
    places
        Where they are on the grid of the function.
    scaled
        Their coordinates, from 0 to 1.
    there
        Which of them an example has.
    """

    places: dict[str, Int[Array, "batch points"]]
    scaled: dict[str, Float[Array, "batch points"]]
    there: dict[str, Bool[Array, "batch points"]]


@dataclass(frozen=True, eq=False)
class Functions:
    """Which sites are functions, and where they are simulated.

    Attributes
    ----------
    grids
        Coordinates of the simulations by dim, increasing.
    axes
        The axis of every function that is continuous, and its dim.
    most_points
        DrawnPoints of every function in a training sequence.
    """

    grids: Mapping[str, Float[np.ndarray, " grid"]]
    axes: Mapping[str, tuple[int, str]]
    most_points: Mapping[str, int]

    def grid(self, name: str) -> Float[np.ndarray, " grid"]:
        """Coordinates at which a function is simulated."""
        return self.grids[self.axes[name][1]]

    def share_dim(self, name: str, other: str) -> bool:
        """Whether two functions have the same coordinate."""
        return self.axes[name][1] == self.axes[other][1]

    @property
    def few_points(self) -> dict[str, int]:
        """A third of the most points."""
        return {name: -(-most // 3) for name, most in self.most_points.items()}

    @property
    def grid_sizes(self) -> dict[str, int]:
        """Number of places where every function is simulated."""
        return {name: len(self.grid(name)) for name in self.axes}

    def are_points(self, sites: Mapping[str, Site]) -> Bool[np.ndarray, " tokens"]:
        """Tokens that are points of functions."""
        return np.concatenate([np.full(site.num_tokens, name in self.axes) for name, site in sites.items()])

    def place_of_token(self, sites: Mapping[str, Site]) -> Int[np.ndarray, " tokens"]:
        """Where along its function, simulated on its grid, every token stands; 0 for others."""
        parts = []
        for name, site in sites.items():
            along = np.indices(site.shape)[self.axes[name][0]] if name in self.axes else np.zeros(site.num_tokens, int)
            parts.append(along.ravel())
        return np.concatenate(parts)

    def places(
        self, sites: Mapping[str, Site], points: Mapping[str, int]
    ) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """Where the tokens of a sequence stand among those of all sites.

        Parameters
        ----------
        sites
            All sites, functions on their grids.
        points
            DrawnPoints of every function in the sequence.

        Returns
        -------
        The token itself, or, of a point, the first along its function; the tokens from one place along the function to
        the next, or 0; and which of the function's points it is, or 0.
        """
        parts = []
        for name, site in sites.items():
            tokens = np.arange(site.token_slice.start, site.token_slice.stop)
            if name not in self.axes:
                parts.append((tokens, 0 * tokens, 0 * tokens))
                continue
            axis, count = self.axes[name][0], points.get(name, 0)
            first = np.repeat(np.take(tokens.reshape(site.shape), [0], axis), count, axis)
            slots = np.broadcast_to(np.arange(count).reshape(-1, *(1,) * (len(site.shape) - axis - 1)), first.shape)
            stride = int(np.prod(site.shape[axis + 1 :], dtype=int))
            parts.append((first.ravel(), np.full(first.size, stride), slots.ravel()))
        first, strides, slots = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        return first, strides, slots

    def between(
        self, name: str, coordinates: Float[np.ndarray, " points"]
    ) -> tuple[Int[np.ndarray, " points"], Float[np.ndarray, " points"]]:
        """The place on the grid below each coordinate, and how far it lies on the way to the next."""
        grid = self.grid(name)
        lower = np.clip(np.searchsorted(grid, coordinates, "right") - 1, 0, len(grid) - 2)
        return lower, ((coordinates - grid[lower]) / (grid[lower + 1] - grid[lower])).astype(np.float32)

    def grid_places(
        self, name: str, coordinates: Float[np.ndarray, " points"], label: str
    ) -> Int[np.ndarray, " points"]:
        """Where coordinates stand on the grid of a function.

        Raises
        ------
        ValueError
            If one lies between two places.
        """
        lower, share = self.between(name, coordinates)
        between = (share > 0) & (share < 1)
        if between.any():
            first = int(np.argmax(between))
            near = self.grid(name)[lower[first] : lower[first] + 2]
            raise ValueError(
                f"{label}: expected coordinates of '{self.axes[name][1]}' where the model is simulated, got "
                f"{coordinates[first]:g} between {near[0]:g} and {near[1]:g}."
            )
        return lower + share.astype(int)

    def refuse_other_grids(self, other: "Functions") -> None:
        """Refuse functions that are simulated elsewhere.

        Raises
        ------
        ValueError
            If a dim has other coordinates.
        """
        for dim, grid in self.grids.items():
            own = other.grids[dim]
            if not np.array_equal(grid, own):
                raise ValueError(
                    f"coords: expected '{dim}' as in training, {len(grid)} numbers from {grid[0]:g} to {grid[-1]:g}, "
                    f"got {len(own)} from {own[0]:g} to {own[-1]:g}."
                )

    def resize(self, sites: Mapping[str, Site], points: Mapping[str, int]) -> dict[str, Site]:
        """The sites of a sequence: functions with so many points, and none without any."""
        resized, start = {}, 0
        for name, site in sites.items():
            if name in self.axes:
                axis = self.axes[name][0]
                shape = (*site.shape[:axis], points.get(name, 0), *site.shape[axis + 1 :])
                site = replace(site, shape=shape, token_shape=shape)
            tokens = int(np.prod(site.token_shape, dtype=int))
            if tokens or name not in self.axes:
                resized[name] = replace(site, token_slice=slice(start, start + tokens))
                start += tokens
        return resized

    def scale(self, name: str, coordinates: Float[np.ndarray, "*batch points"]) -> Float[np.ndarray, "*batch points"]:
        """Coordinates from 0 to 1."""
        grid = self.grid(name)
        return (coordinates - grid[0]) / (grid[-1] - grid[0])

    def draw_points(self, rng_key: PRNGKeyArray, batch: int, most_points: Mapping[str, int]) -> DrawnPoints:
        """Draw the points of training sequences.

        The number of points is uniform, with sequences in which a function has none; their places are drawn without
        replacement.

        Parameters
        ----------
        rng_key
            Source of all randomness.
        batch
            Number of sequences.
        most_points
            DrawnPoints of every function, if all are there.
        """
        points = DrawnPoints({}, {}, {})
        common_key, aligned_key, *keys = jax.random.split(rng_key, 2 + len(self.axes))
        aligned = jax.random.bernoulli(aligned_key, _ALIGNED, (batch, 1))
        for key, name in zip(keys, self.axes, strict=True):
            own_key, count_key, none_key = jax.random.split(key, 3)
            size, most = len(self.grid(name)), most_points[name]
            own = jax.random.uniform(own_key, (batch, size))
            order = jnp.where(aligned, jax.random.uniform(common_key, (batch, size)), own)
            points.places[name] = jax.lax.top_k(order, most)[1]
            scaled = jnp.asarray(self.scale(name, self.grid(name)), jnp.float32)
            points.scaled[name] = scaled[points.places[name]]
            count = jax.random.randint(count_key, (batch, 1), 1, most + 1)
            count = jnp.where(jax.random.bernoulli(none_key, _NONE_AT_ALL, (batch, 1)), 0, count)
            points.there[name] = jnp.arange(most) < count
        return points


def read_functions(
    structure: ModelStructure,
    continuous_dims: Collection[str] | Mapping[str, int],
    coords: Mapping[str, Any],
    dims: Mapping[str, Sequence[str]],
) -> Functions:
    """Find the sites along continuous dims.

    Parameters
    ----------
    structure
        The model.
    continuous_dims
        Names of dims; with the number of points of each function in a training sequence, if in a dict.
    coords
        Coordinates by dim; 0, 1, 2, ... by default.
    dims
        Names of the axes by site, where plates do not name them.

    Raises
    ------
    ValueError
        If no site has such a dim, coordinates do not increase, or a site cannot be a function.
    """
    names = [continuous_dims] if isinstance(continuous_dims, str) else list(continuous_dims)
    axes: dict[str, tuple[int, str]] = {}
    sizes: dict[str, int] = {}
    for name, site in structure.sites.items():
        own = tuple(dims.get(name, site.dims))
        along = [axis for axis, dim in enumerate(own) if dim in names]
        if along:
            _check_function(site, along, own)
            axes[name] = along[0], own[along[0]]
            sizes[own[along[0]]] = site.shape[along[0]]
    grids = {}
    for dim in names:
        if dim not in sizes:
            known = sorted({d for name, site in structure.sites.items() for d in dims.get(name, site.dims)})
            raise ValueError(f"continuous_dims: '{dim}' is a dim of no site; the dims are {known}.")
        grid = np.asarray(coords.get(dim, np.arange(sizes[dim])))
        if grid.dtype.kind not in "fiu" or not (np.diff(grid) > 0).all() or len(grid) < 2:
            raise ValueError(f"coords: expected at least two increasing numbers for the continuous dim '{dim}'.")
        grids[dim] = grid.astype(float)
    rows = {name: structure.sites[name].size // sizes[dim] for name, (_, dim) in axes.items()}
    shared = max(FEWEST_POINTS, min(MOST_POINTS, MOST_TOKENS // sum(rows.values())))
    wanted = continuous_dims if isinstance(continuous_dims, Mapping) else dict.fromkeys(names, shared)
    for dim, points in wanted.items():
        if points < 1:
            raise ValueError(f"continuous_dims: expected a positive number of points for '{dim}', got {points}.")
    most = {name: min(wanted[dim], sizes[dim]) for name, (_, dim) in axes.items()}
    return Functions(grids, axes, most)


def _check_function(site: Site, along: list[int], own: tuple[str, ...]) -> None:
    """Refuse a site that cannot be a function."""
    support = scalar_support(site)
    bounds = [getattr(support, name, 0.0) for name in ("lower_bound", "upper_bound")]
    reasons = {
        f"it has {len(along)} continuous dims, {[own[axis] for axis in along]}": len(along) > 1,
        "it is a covariate": site.is_covariate,
        "its support is not elementwise": not site.is_elementwise,
        "its values are categories": site.num_categories > 0,
        "its support depends on other sites": not site.support_is_static,
        "its bounds are arrays": any(np.ndim(bound) for bound in bounds),
    }
    for reason, holds in reasons.items():
        if holds:
            raise ValueError(
                f"Site '{site.name}' cannot be a function of '{own[along[0]]}': {reason}. Expected one continuous dim, "
                "and a support of ordered scalars that is the same everywhere."
            )
