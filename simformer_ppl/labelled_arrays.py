"""Labelled arrays in and out: simulations as a dataset, and values given for a site."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import arviz_base as azb
import numpy as np
import pandas as pd
import xarray as xr

from simformer_ppl.datasets import Variables, check_lengths, check_shape, library_attributes, to_dataset
from simformer_ppl.naming import (
    SIMULATION_DIM,
    Dims,
    check_batch_dims,
    default_batch_dims,
    find_record,
    name_axes,
    resolve_dims,
    stored,
    stored_labels,
    stored_names,
)

if TYPE_CHECKING:
    from simformer_ppl.structure import ModelStructure, Site

__all__ = ["align", "dataset_to_arrays", "simulations_to_dataset"]


def simulations_to_dataset(
    structure: ModelStructure,
    values: Mapping[str, np.ndarray],
    coords: Mapping[str, Any] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
) -> xr.Dataset:
    """Label simulations of the joint.

    Parameters
    ----------
    structure
        The model simulated.
    values
        ``(num_simulations, *site.shape)`` by name of a site or deterministic site.
    coords
        Labels of dims.
    dims
        Names of the axes by site, in place of `Site.dims`.

    Returns
    -------
    Dataset with dims ``(simulation, *site dims)``.

    Raises
    ------
    ValueError
        When a name is unknown or an array does not fit its site.

    Examples
    --------
    >>> import numpy as np, numpyro, numpyro.distributions as dist
    >>> from simformer_ppl.structure import trace_structure
    >>> structure = trace_structure(lambda: numpyro.sample("x", dist.Normal()))
    >>> dict(simulations_to_dataset(structure, {"x": np.zeros(10)}).sizes)
    {'simulation': 10}
    """
    names, site_dims = stored_names(structure), resolve_dims(structure, dims)
    variables: Variables = {}
    count = None
    for name, value in values.items():
        array = np.asarray(value)
        shape = find_record(structure, name).shape
        count = array.shape[0] if count is None and array.ndim else count
        check_shape(name, array, (count if count is not None else 0, *shape))
        variables[names[name]] = ((SIMULATION_DIM, *site_dims[name]), array)
    labels = stored_labels(coords)
    check_lengths([variables], labels)
    return to_dataset(variables, labels, (SIMULATION_DIM,), library_attributes(None))


def dataset_to_arrays(
    structure: ModelStructure,
    simulations: xr.Dataset | Mapping[str, Any],
    coords: Mapping[str, Any] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, np.ndarray]:
    """Read simulations back, checked against the model.

    Parameters
    ----------
    structure
        The model the simulations belong to.
    simulations
        A dataset with the dim ``simulation`` anywhere among its dims, or arrays ``(num_simulations, *site.shape)`` by
        site. Variables that are no sites of `structure` are passed over, so simulations of a model serve every choice
        of its sites.
    coords
        Our labels of dims: scalars of labelled simulations are found by them.
    dims
        Names of the axes by site, in place of `Site.dims`.

    Returns
    -------
    ``(num_simulations, *site.shape)`` for every site.

    Raises
    ------
    ValueError
        When a site is missing, its shape is another, it holds no numbers, or the sites disagree in the number of
        simulations.

    Examples
    --------
    >>> import numpy as np, numpyro, numpyro.distributions as dist
    >>> from simformer_ppl.structure import trace_structure
    >>> structure = trace_structure(lambda: numpyro.sample("x", dist.Normal()))
    >>> dataset_to_arrays(structure, {"x": np.zeros(10)})["x"].shape
    (10,)
    """
    if not isinstance(simulations, xr.Dataset | Mapping):
        raise ValueError(
            f"simulations: expected a dataset, or arrays by site ({list(structure.sites)}), got "
            f"{type(simulations).__name__}"
        )
    names, site_dims = stored_names(structure), resolve_dims(structure, dims)
    keys = {name: name if name in simulations else names[name] for name in structure.sites}
    missing = [name for name, key in keys.items() if key not in simulations]
    if missing:
        raise ValueError(
            f"simulations lack the sites {missing}: expected {list(structure.sites)}, got {_keys(simulations)}"
        )
    arrays = {name: _simulation_first(name, simulations[key], site_dims[name], coords) for name, key in keys.items()}
    first, count = next(((name, array.shape[0]) for name, array in arrays.items() if array.ndim), ("", 0))
    if count < 2:
        raise ValueError(f"simulations: expected at least 2, got {count}")
    for name, array in arrays.items():
        shape = structure.sites[name].shape
        if array.ndim == len(shape) + 1 and array.shape[1:] == shape and array.shape[0] != count:
            raise ValueError(f"site {name!r} has {array.shape[0]} simulations, site {first!r} has {count}")
        check_shape(name, array, (count, *shape))
        if array.dtype.kind not in "biuf":
            raise ValueError(f"site {name!r}: expected numbers, got an array of {array.dtype}")
    return arrays


def _simulation_first(name: str, value: Any, site_dims: Dims, coords: Mapping[str, Any] | None) -> np.ndarray:
    if not isinstance(value, xr.DataArray):
        return np.asarray(value)
    if SIMULATION_DIM not in value.dims:
        raise ValueError(f"site {name!r}: expected a dim {SIMULATION_DIM!r}, got dims {value.dims}")
    rest: list[Hashable] = [dim for dim in value.dims if dim != SIMULATION_DIM]
    if set(site_dims) != set(rest):
        return value.transpose(SIMULATION_DIM, *rest).to_numpy()
    for dim in site_dims:
        value = _align_dim(name, value, dim, value.sizes[dim], stored_labels(coords).get(dim), site_dims)
    return value.transpose(SIMULATION_DIM, *site_dims).to_numpy()


def _keys(simulations: xr.Dataset | Mapping[str, Any]) -> list[str]:
    return [str(name) for name in (simulations.data_vars if isinstance(simulations, xr.Dataset) else simulations)]


def align(
    site: Site,
    value: xr.DataArray,
    coords: Mapping[str, Any] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
) -> tuple[np.ndarray, Dims, dict[str, np.ndarray]]:
    """Read a labelled value given for a site: its dims by name, its scalars by label.

    A value without labels on a dim is read by position. A value whose dims xarray numbered itself (``dim_0``, ...) is
    read by position altogether.

    Parameters
    ----------
    site
        The site the value is given for.
    value
        Holds every dim of the site longer than 1, in any order; a scalar is broadcast.
    coords
        Our labels of dims. A dim without any is numbered, as in what `to_inference_data` returns.
    dims
        Names of the axes by site, in place of `Site.dims`.

    Returns
    -------
    array
        ``(*batch_shape, *site.shape)``; NaN where a label of ours is absent from `value`.
    extra_dims
        Names of the leading axes: the dims of `value` that are not the site's.
    extra_coords
        Their labels, where there are any that netCDF can store.

    Raises
    ------
    ValueError
        When a dim of the site is absent or of another length, or a label is unknown or repeated.

    Examples
    --------
    >>> import numpyro, numpyro.distributions as dist, xarray as xr
    >>> from simformer_ppl.structure import trace_structure
    >>> def model():
    ...     with numpyro.plate("school", 3):
    ...         numpyro.sample("y", dist.Normal())
    >>> site = trace_structure(model).sites["y"]
    >>> value = xr.DataArray([3.0, 1.0], coords={"school": ["C", "A"]})
    >>> align(site, value, coords={"school": ["A", "B", "C"]})
    (array([ 1., nan,  3.]), (), {})
    """
    site_dims = name_axes(site.name, site.shape, site.dims, dims or {})
    value = value.rename({dim: stored(str(dim)) for dim in value.dims})
    if not value.ndim:
        return np.broadcast_to(value.to_numpy(), site.shape), (), {}
    if value.dims == tuple(f"dim_{axis}" for axis in range(value.ndim)):
        count = max(value.ndim - len(site_dims), 0)
        return value.to_numpy(), default_batch_dims(count, set(site_dims)), {}
    extra_dims = tuple(str(dim) for dim in value.dims if dim not in site_dims)
    check_batch_dims(extra_dims, ())
    for dim, length in zip(site_dims, site.shape, strict=True):
        value = _align_dim(site.name, value, dim, length, stored_labels(coords).get(dim), site_dims)
    value = value.transpose(*extra_dims, *site_dims)
    labels = {dim: value.indexes[dim] for dim in extra_dims if dim in value.indexes}
    return value.to_numpy(), extra_dims, {dim: np.asarray(i) for dim, i in labels.items() if i.nlevels == 1}


def _align_dim(
    name: str, value: xr.DataArray, dim: str, length: int, ours: np.ndarray | None, site_dims: Dims
) -> xr.DataArray:
    if dim not in value.dims:
        if length > 1:
            raise ValueError(
                f"site {name!r}: expected the dims {site_dims}, got {value.dims}: rename yours, or give "
                f"dims={{{name!r}: ...}}"
            )
        return value.expand_dims({dim: length})
    if dim in value.indexes and value.indexes[dim].nlevels == 1:
        origin = azb.rcParams["data.index_origin"]
        numbers = np.arange(origin, origin + length)
        theirs = value.indexes[dim]
        if theirs.has_duplicates:
            raise ValueError(f"site {name!r}: repeated labels {list(theirs[theirs.duplicated()])} of dim {dim!r}")
        # without labels of ours, numbers of another range are the user's own: read by position
        if ours is not None or theirs.isin(numbers).all():
            value = _reindex(name, value, dim, numbers if ours is None else ours)
    if value.sizes[dim] != length:
        raise ValueError(f"site {name!r}: expected length {length} of dim {dim!r}, got {value.sizes[dim]}")
    return value


def _reindex(name: str, value: xr.DataArray, dim: str, labels: np.ndarray) -> xr.DataArray:
    theirs, ours = value.indexes[dim], pd.Index(labels)
    unknown = theirs[~theirs.isin(ours)].tolist()
    if unknown:
        raise ValueError(f"site {name!r}: unknown labels {unknown} of dim {dim!r}, expected some of {ours.tolist()}")
    if value.sizes[dim] < len(labels) and value.dtype == bool:
        # xarray would fill the gaps of a bool array with objects
        value = value.astype(float)
    return value.reindex({dim: labels})
