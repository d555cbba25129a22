"""The conditioned distribution of a model some of whose sites are functions, given and asked for at any coordinates."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
import xarray as xr
from jaxtyping import Array, Bool, Float

from simformer_ppl.conditioned import ConditionedDistribution, Labelled
from simformer_ppl.diagnostics.novelty import Simulated
from simformer_ppl.function_density import FunctionDensity
from simformer_ppl.function_points import on_places, read_coordinates
from simformer_ppl.function_query import FunctionQuery
from simformer_ppl.joint import LearnedJoint
from simformer_ppl.labelled_arrays import align
from simformer_ppl.naming import SAMPLE_DIMS, resolve_batch_dims, resolve_dims, stored, stored_labels, stored_names
from simformer_ppl.structure import Site
from simformer_ppl.tokens.conditions import Given, encode_values, merge_values, name_batch, read_values
from simformer_ppl.tokens.intervals import Interval


@dataclass(frozen=True, eq=False, repr=False)
class FunctionDistribution(FunctionQuery, ConditionedDistribution):
    """The distribution of everything not given, functions among it, from :meth:`simformer_ppl.Simformer.condition`."""

    # ------------------------------------------------------------------ what is given

    def _add(self, given: Given, name: str, value: Any) -> Given:
        if name not in self._functions.axes:
            return super()._add(given, name, value)
        if isinstance(value, Interval):
            raise ValueError(f"Site '{name}' is a function of '{self._functions.axes[name][1]}': expected values.")
        site, value, coordinates, given = self._align(given, name, value)
        array = read_values(site, value)
        assert self.sequences is not None
        encode_values(self.sequences.layout_of({name: len(coordinates)}), name, array)  # refuses edges of the support
        axis = self._functions.axes[name][0] - len(self.structure.sites[name].shape)
        if isinstance(array, np.ndarray):
            others = tuple(i for i in range(array.ndim) if i != array.ndim + axis)
            there = ~np.isnan(array).all(others)
            if not there.any():
                if array.ndim == len(self.structure.sites[name].shape):
                    return given
                there[0] = True  # a point without any value keeps the batch axes
            array, coordinates = np.compress(there, array, axis), coordinates[there]
        if name in given.values:
            array, coordinates = self._merge(name, (given.values[name], given.coordinates[name]), (array, coordinates))
        coordinates_of = {**given.coordinates, name: coordinates}
        return replace(given, values={**given.values, name: array}, coordinates=coordinates_of)

    def _merge(self, name: str, *parts: tuple[Any, np.ndarray]) -> tuple[Any, Float[np.ndarray, " points"]]:
        """Values that were given before and now, at all their coordinates; NaN where there is none."""
        axis, site = self._functions.axes[name][0], self.structure.sites[name]
        placed = [on_places(coordinates, self._functions.grid(name)) for _, coordinates in parts]
        both, spread = np.union1d(*placed), []
        for (array, _), places in zip(parts, placed, strict=True):
            if isinstance(array, jax.core.Tracer):
                raise ValueError(f"Site '{name}': expected its values at once where one of them is traced by JAX.")
            start = array.ndim - len(site.shape) + axis
            full = np.full((*array.shape[:start], len(both), *array.shape[start + 1 :]), np.nan)
            np.moveaxis(full, start, 0)[np.searchsorted(both, places)] = np.moveaxis(array, start, 0)
            spread.append(full)
        return merge_values(site, *spread), both

    def _align(self, given: Given, name: str, value: Any) -> tuple[Site, Any, Float[np.ndarray, " points"], Given]:
        """A function as a site of so many points, its values, coordinates, and what is given with batch axes named."""
        axis, dim = self._functions.axes[name]
        site, coordinates = self.structure.sites[name], self._functions.grid(name)
        if isinstance(value, xr.DataArray):
            if dim in value.coords:
                coordinates = read_coordinates(f"Site '{name}'", np.atleast_1d(value[dim].values), coordinates)
                value = value.drop_vars(dim)
                value = value if dim in value.dims else value.expand_dims(dim)
            shape = (*site.shape[:axis], len(coordinates), *site.shape[axis + 1 :])
            site = replace(site, shape=shape, token_shape=shape)
            labels = {other: own for other, own in self.coords.items() if other != dim}
            value, batch_dims, batch_coords = align(site, value, labels, self.dims)
            given = name_batch(given, name, tuple(batch_dims), batch_coords)
        return site, value, coordinates, given

    def _read_points(self, name: str, value: Any) -> tuple[Any, Float[np.ndarray, " points"]]:
        if not isinstance(value, xr.DataArray):
            return super()._read_points(name, value)
        value = value.rename({dim: f"{dim} of values" for dim in value.dims if dim in SAMPLE_DIMS})
        _, array, coordinates, _ = self._align(Given(), name, value)
        return array, coordinates

    # ------------------------------------------------------------------ checks

    @property
    def _model_density(self) -> FunctionDensity:
        return FunctionDensity(self)

    @property
    def _weighable(self) -> Mapping[str, Site]:
        return {name: self.structure.sites[name] for name in self._fixed(self.structure.sites)}

    def _compared(self, simulated: Simulated) -> tuple[LearnedJoint, Simulated]:
        """The joint of the points where functions are given, and simulations there."""
        assert self.sequences is not None
        places = {}
        for name, coordinates in self.given.coordinates.items():
            place, share = self._functions.between(name, coordinates)
            places[name] = place + (share > 0.5)
        sequence = self.sequences.of({name: len(own) for name, own in places.items()})
        with jax.ensure_compile_time_eval():  # coordinates are known inside of ``jax.jit`` too
            joint = self.sequences.joint_at(self.joint, self.given.coordinates)
            return joint, simulated.at(np.asarray(sequence.channels_at(places)))

    def _holes(self, name: str) -> Bool[np.ndarray, "#conditions scalars"]:
        if name in self._functions.axes:
            raise ValueError(
                f"Site '{name}' is a function. Expected sites that are none: as_numpyro(sites=[...]) with some of "
                f"{self._fixed(self.latent_sites)}."
            )
        return super()._holes(name)

    def where_asked(self, name: str, simulated: np.ndarray) -> np.ndarray:
        """Simulated values of a site where it is asked for; one leading axis.

        Raises
        ------
        ValueError
            If that is between the places where it was simulated.
        """
        if name not in self._functions.axes:
            return simulated
        places = self._functions.grid_places(name, self._coordinates(name), "at")
        return np.take(simulated, places, self._functions.axes[name][0] + 1)

    # ------------------------------------------------------------------ InferenceData

    def _lay_out(
        self,
        values: Mapping[str, Array],
        num_chains: int,
        *args: Any,
        log_probs: Mapping[str, np.ndarray] | None = None,
        **groups: Any,
    ) -> xr.DataTree:
        functions = {name: own for name, own in (log_probs or {}).items() if name in self._functions.axes}
        rest = {name: own for name, own in (log_probs or {}).items() if name not in functions}
        tree = super()._lay_out(values, num_chains, *args, log_probs=rest, **groups)
        batch = resolve_batch_dims(self.structure, self.batch_shape, self.given.batch_dims, self.dims)
        for name in self.given.coordinates:
            value, is_data = self._as_given(name), self.structure.sites[name].is_data
            lacking = len(batch) + len(self.structure.sites[name].shape) - value.ndim
            _merge(tree, "observed_data" if is_data else "constant_data", self._at_given(name, value, batch[lacking:]))
            if name in functions:
                density = functions[name].reshape(num_chains, -1, *functions[name].shape[1:])
                array = self._at_given(name, density, (*SAMPLE_DIMS, *batch))
                _merge(tree, "log_likelihood" if is_data else "log_prior", array if batch else _along_observed(array))
        return tree

    def _at_given(self, name: str, value: np.ndarray, leading: tuple[str, ...]) -> xr.DataArray:
        """What is said of a function at the points that are given."""
        dim, own = self._functions.axes[name][1], stored_names(self.structure)[name]
        dims = resolve_dims(self.structure, self.dims)[name][: value.ndim - len(leading)]
        labels = stored_labels(self.coords) | stored_labels(self.given.batch_coords)
        labels |= {d: np.arange(value.shape[axis]) for axis, d in enumerate(leading) if d in SAMPLE_DIMS}
        labels[stored(dim)] = self.given.coordinates[name]
        kept = {d: own_labels for d, own_labels in labels.items() if d in (*leading, *dims)}
        return xr.DataArray(value, dims=(*leading, *dims), coords=kept, name=own).sortby(stored(dim))

    def _labelled(self) -> Labelled:
        for name, (_, dim) in self._functions.axes.items():
            if name in self.at:
                raise ValueError(f"at: expected '{dim}' in place of '{name}': labelled functions share coordinates.")
        off, structure = self._off_grid, self.structure
        dims = {**{name: record.dims for name, record in structure.deterministics.items()}, **self.dims}
        kept = {name: own for name, own in structure.deterministics.items() if not set(dims[name]) & off}
        at = {dim: self.at.get(dim, self.coords.get(dim, grid)) for dim, grid in self._functions.grids.items()}
        constants = {
            name: own for name, own in self.replay.array_arguments().items() if not set(self.dims.get(name, ())) & off
        }
        return Labelled(
            replace(structure, sites=dict(self.sites), deterministics=kept),
            {**self.coords, **at},
            {name: self._as_given(name) for name in self.given.values if name not in self._functions.axes},
            frozenset(self.given.coordinates),
            constants,
        )

    @property
    def _at_hand(self) -> frozenset[str]:
        """Sites that the model can be held at: functions where they were simulated only."""
        functions = self._functions.axes
        return frozenset(
            name for name in super()._at_hand if name not in functions or functions[name][1] not in self._off_grid
        )

    def _refuse_replicates(self) -> None:
        lacking = [name for name in self.sites if not self.sites[name].is_data and name not in self._at_hand]
        if lacking or self._off_grid:
            raise ValueError(
                f"predictive: the model is run on functions where they were simulated, but {[*lacking, 'data'][0]!r} "
                "is asked for elsewhere. Expected no `at`."
            )

    @property
    def _off_grid(self) -> set[str]:
        """Continuous dims along which functions are asked for elsewhere than they were simulated."""
        grids = self._functions.grids
        elsewhere = {dim for dim, own in self.at.items() if dim in grids and not _is_grid(own, grids[dim])}
        axes = self._functions.axes
        return elsewhere | {
            axes[n][1] for n in axes if n in self.at and not _is_grid(self.at[n], self._functions.grid(n))
        }


def _is_grid(coordinates: np.ndarray, grid: np.ndarray) -> bool:
    return np.array_equal(on_places(coordinates, grid), grid)


def _merge(tree: xr.DataTree, group: str, array: xr.DataArray) -> None:
    """Add a variable to a group; coordinates that others have too are joined, NaN where there is no value."""
    there = tree[group].to_dataset() if group in tree.children else xr.Dataset(attrs=dict(tree.attrs))
    tree[group] = xr.DataTree(xr.merge([there, array], join="outer", combine_attrs="override"))


def _along_observed(array: xr.DataArray) -> xr.DataArray:
    """Elements that are there along a dim of their own: functions need not be given at the same coordinates."""
    dims = array.dims[len(SAMPLE_DIMS) :]
    there = np.argwhere(~np.isnan(array.values).all((0, 1)))
    labels = [
        ", ".join(str(array[d].values[i]) if d in array.coords else str(i) for d, i in zip(dims, at, strict=True))
        for at in there
    ]
    coords = {
        **{d: array[d] for d in SAMPLE_DIMS},
        f"{array.name}_observed": [f"{array.name}[{each}]" for each in labels],
    }
    return xr.DataArray(array.values[(..., *there.T)], coords, tuple(coords), array.name)
