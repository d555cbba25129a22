"""Names of variables and dims in labelled arrays.

Every axis is named by `Site.dims`, one name per axis of the site's shape, so nothing is inferred from plates here. A
slash, which `numpyro.handlers.scope` puts into names, is a path separator in netCDF and in `xarray.DataTree`: sites
and dims are stored with a dot in its place (``scope/x`` becomes ``scope.x``), and may be looked up, labelled and read
back under their NumPyro names.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from simformer_ppl.structure import Deterministic, ModelStructure, Site

__all__ = [
    "SAMPLE_DIMS",
    "SIMULATION_DIM",
    "Dims",
    "check_batch_dims",
    "check_coords",
    "default_batch_dims",
    "find_record",
    "find_site",
    "name_axes",
    "resolve_batch_dims",
    "resolve_dims",
    "stored",
    "stored_labels",
    "stored_names",
]

SAMPLE_DIMS = ("chain", "draw")
SIMULATION_DIM = "simulation"

type Dims = tuple[str, ...]


def resolve_dims(structure: ModelStructure, dims: Mapping[str, Sequence[str]] | None = None) -> dict[str, Dims]:
    """Name the axes of every site and deterministic site.

    Parameters
    ----------
    structure
        The model.
    dims
        Names by site, in place of `Site.dims`.

    Returns
    -------
    One name per axis, by site; slashes replaced.

    Raises
    ------
    ValueError
        When a site has too few or too many names, the same name twice, one that InferenceData needs for itself, or
        when two sites give one name to axes of different lengths.

    Examples
    --------
    >>> import numpyro, numpyro.distributions as dist
    >>> from simformer_ppl.structure import trace_structure
    >>> structure = trace_structure(lambda: numpyro.sample("w", dist.Normal().expand([3])))
    >>> resolve_dims(structure, {"w": ["feature"]})
    {'w': ('feature',)}
    """
    records: dict[str, Site | Deterministic] = {**structure.sites, **structure.deterministics}
    names = stored_names(structure)
    resolved: dict[str, Dims] = {}
    lengths: dict[str, tuple[str, int]] = {}
    for name, record in records.items():
        resolved[name] = name_axes(name, record.shape, record.dims, dims or {})
        for dim, length in zip(resolved[name], record.shape, strict=True):
            other, seen = lengths.setdefault(dim, (name, length))
            if seen != length:
                raise ValueError(
                    f"dim {dim!r} has length {seen} in site {other!r} and {length} in site {name!r}: "
                    f"name one of them otherwise, e.g. dims={{{name!r}: ...}}"
                )
            if dim in names.values():
                raise ValueError(f"site {name!r} has the dim {dim!r}, which is a site's name: choose another in dims")
    return resolved


def check_coords(
    structure: ModelStructure,
    arguments: Mapping[str, np.ndarray],
    dims: Mapping[str, Sequence[str]],
    coords: Mapping[str, Any],
) -> None:
    """Refuse coordinates and names of axes that fit nothing in the model.

    Parameters
    ----------
    structure
        The model.
    arguments
        Its arguments that are arrays.
    dims
        Names of the axes, by site or argument.
    coords
        Labels by dim.

    Raises
    ------
    ValueError
        If a name in `dims` is no site or argument, or a dim in `coords` is of none, has another length or the same
        label twice.
    """
    records: dict[str, Site | Deterministic] = {**structure.sites, **structure.deterministics}
    shapes = {**{n: array.shape for n, array in arguments.items()}, **{n: r.shape for n, r in records.items()}}
    unknown = sorted(dims.keys() - shapes.keys())
    if unknown:
        raise ValueError(f"dims: '{unknown[0]}' is no site or array argument; expected some of {list(shapes)}.")
    named = {**{name: tuple(dims[name]) for name in dims}, **resolve_dims(structure, dims)}
    lengths = {stored(dim): n for name in named for dim, n in zip(named[name], shapes[name], strict=True)}
    for dim, labels in coords.items():
        if stored(dim) not in lengths:
            raise ValueError(f"coords: '{dim}' is a dim of no site; the dims are {sorted(lengths)}.")
        if len(labels) != lengths[stored(dim)]:
            raise ValueError(f"coords: expected {lengths[stored(dim)]} labels for '{dim}', got {len(labels)}.")
        index = pd.Index(labels)
        if index.has_duplicates:
            repeated = index[index.duplicated()].unique().tolist()
            raise ValueError(f"coords: expected different labels for '{dim}', got {repeated[:3]} several times.")


def name_axes(name: str, shape: tuple[int, ...], own: Sequence[str], dims: Mapping[str, Sequence[str]]) -> Dims:
    """Name the axes of one array: by `dims` where they hold its name, else its own names."""
    chosen = tuple(stored(dim) for dim in dims.get(name, own))
    if len(chosen) != len(shape):
        raise ValueError(f"site {name!r}: expected {len(shape)} dims for its shape {shape}, got {chosen}")
    reserved = [dim for dim in chosen if dim in (*SAMPLE_DIMS, SIMULATION_DIM)]
    if reserved:
        raise ValueError(
            f"site {name!r}: {reserved} are dims of the draws, got dims {chosen}: "
            f"rename the plate or give dims={{{name!r}: ...}}"
        )
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"site {name!r}: expected a different dim for every axis, got {chosen}")
    return chosen


def resolve_batch_dims(
    structure: ModelStructure,
    batch_shape: tuple[int, ...],
    batch_dims: Sequence[str] | None,
    dims: Mapping[str, Sequence[str]] | None,
) -> Dims:
    """Name the batch axes: as given, or numbered."""
    taken = {dim for names in resolve_dims(structure, dims).values() for dim in names}
    if batch_dims is None:
        return default_batch_dims(len(batch_shape), taken)
    chosen = tuple(stored(dim) for dim in batch_dims)
    if len(chosen) != len(batch_shape):
        raise ValueError(f"expected {len(batch_shape)} batch dims for the batch shape {batch_shape}, got {chosen}")
    check_batch_dims(chosen, taken | set(stored_names(structure).values()))
    return chosen


def default_batch_dims(count: int, taken: Collection[str]) -> Dims:
    """Number batch axes, under a stem that no other dim has."""
    stem = "batch"
    while True:
        names = (stem,) if count == 1 else tuple(f"{stem}_{axis}" for axis in range(count))
        if not set(names) & set(taken):
            return names
        stem += "_"


def check_batch_dims(batch_dims: Dims, taken: Collection[str]) -> None:
    """Refuse names of batch axes that are taken, reserved or repeated."""
    clash = [dim for dim in batch_dims if dim in taken or dim in (*SAMPLE_DIMS, SIMULATION_DIM)]
    if clash or len(set(batch_dims)) < len(batch_dims):
        raise ValueError(
            f"expected batch dims that are different and no dims of the draws or of a site, got {batch_dims}: "
            f"rename {clash or batch_dims} in the values given"
        )


def stored(name: str) -> str:
    """Replace slashes, which are path separators in netCDF."""
    return name.replace("/", ".")


def stored_names(structure: ModelStructure) -> dict[str, str]:
    """Name the variable of every site and deterministic site."""
    taken: dict[str, str] = {}
    # names without a slash first: they are stored as they are
    for name in sorted({*structure.sites, *structure.deterministics}, key=lambda name: "/" in name):
        free = stored(name)
        while free in taken.values():
            free += "_"
        taken[name] = free
    return taken


def stored_labels(coords: Mapping[str, Any] | None) -> dict[str, np.ndarray]:
    """Labels of dims, as arrays under the names that the dims are stored by."""
    return {stored(dim): np.asarray(labels) for dim, labels in (coords or {}).items()}


def find_site(structure: ModelStructure, name: str) -> Site:
    """Look a site up, or refuse its name."""
    if name not in structure.sites:
        raise ValueError(f"unknown site {name!r}: expected one of {list(structure.sites)}")
    return structure.sites[name]


def find_record(structure: ModelStructure, name: str) -> Site | Deterministic:
    """Look a site or deterministic site up, or refuse its name."""
    if name in structure.deterministics and name not in structure.sites:
        return structure.deterministics[name]
    return find_site(structure, name)
