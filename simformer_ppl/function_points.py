"""Points of a function: where they lie, what is known of them, and which are asked for."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from simformer_ppl.function_blocks import slots


class Points(NamedTuple):
    """Points of one function, in every row.

    Attributes
    ----------
    coordinates
        Where they lie.
    values
        Arrays of the rows and the site's shape at these points; whatever, where they are not known.
    known
        Where they are known.
    asked
        Which of them are asked for.
    """

    coordinates: Float[np.ndarray, " points"]
    values: Float[Array, "#rows *shape"]
    known: Bool[np.ndarray, "#rows *shape"]
    asked: Bool[np.ndarray, " points"]

    def take(self, chosen: np.ndarray, axis: int) -> "Points":
        """Some of the points."""
        known = np.take(self.known, chosen, axis)
        return Points(self.coordinates[chosen], jnp.take(self.values, chosen, axis), known, self.asked[chosen])

    def join(self, other: "Points", axis: int) -> "Points":
        """These points, then others."""
        known = concatenate(np, self.known, other.known, axis)
        return Points(
            np.concatenate([self.coordinates, other.coordinates]),
            concatenate(jnp, self.values, other.values, axis),
            known,
            np.concatenate([self.asked, other.asked]),
        )

    def padded(self, axis: int) -> "Points":
        """The same points, and room for some that are not there."""
        missing = slots(len(self.coordinates)) - len(self.coordinates)
        if not missing:
            return self
        widths = [(0, missing if i == axis else 0) for i in range(self.known.ndim)]
        coordinates = np.concatenate([self.coordinates, np.repeat(self.coordinates[:1], missing)])
        # a value of the support, which has a place among the channels
        filling = jnp.repeat(jnp.take(self.values, np.array([0]), axis), missing, axis)
        values = jnp.concatenate([self.values, filling], axis)
        return Points(coordinates, values, np.pad(self.known, widths), np.pad(self.asked, (0, missing)))


def read_coordinates(label: str, coordinates: ArrayLike, grid: Float[np.ndarray, " grid"]) -> np.ndarray:
    """Coordinates within the range of the simulations, each once."""
    given = np.atleast_1d(np.asarray(coordinates))
    if given.dtype.kind not in "biuf":
        raise ValueError(f"{label}: expected numbers, got {given.dtype}.")
    read = given.astype(float)
    if read.ndim != 1 or not len(read):
        raise ValueError(f"{label}: expected coordinates along one axis, got shape {read.shape}.")
    places, counts = np.unique(read, return_counts=True)
    if (counts > 1).any():
        raise ValueError(
            f"{label}: expected every coordinate once, got {places[counts > 1][:3].tolist()} several times. Several "
            "values at one place need a plate of their own in the model."
        )
    placed = on_places(read, grid)
    outside = (placed < grid[0]) | (placed > grid[-1]) | ~np.isfinite(read)
    if outside.any():
        raise ValueError(
            f"{label}: expected coordinates from {grid[0]:g} to {grid[-1]:g}, where the model was simulated, got "
            f"{read[outside][:3].tolist()}."
        )
    return read


def on_places(coordinates: Float[np.ndarray, " points"], grid: Float[np.ndarray, " grid"]) -> np.ndarray:
    """Coordinates, those that differ from a place of the grid by rounding moved there."""
    nearest_place = grid[np.abs(coordinates[:, None] - grid[None]).argmin(1)]
    close = np.abs(coordinates - nearest_place) < 1e-6 * (grid[-1] - grid[0])
    return np.where(close, nearest_place, coordinates)


def concatenate(module: Any, first: Any, second: Any, axis: int) -> Any:
    """Join two arrays along an axis, their other axes broadcast."""
    axis = axis if axis < 0 else axis - first.ndim
    others = np.broadcast_shapes(*(np.delete(np.array(part.shape, int), axis) for part in (first, second)))
    place = max(first.ndim, second.ndim) + axis
    full = [(*others[:place], part.shape[axis], *others[place:]) for part in (first, second)]
    return module.concatenate([module.broadcast_to(*pair) for pair in zip((first, second), full, strict=True)], axis)
