"""Named arrays as an ArviZ dataset, refused where they do not fit."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from numbers import Number
from typing import Any

import arviz_base as azb
import numpy as np
import xarray as xr

from simformer_ppl.naming import SAMPLE_DIMS, Dims

__all__ = ["Variables", "check_lengths", "check_shape", "library_attributes", "to_dataset"]

type Variables = dict[str, tuple[Dims, np.ndarray]]


def to_dataset(
    variables: Variables, coords: dict[str, np.ndarray], sample_dims: Dims, attrs: dict[str, Any]
) -> xr.Dataset:
    """Lay variables out as a dataset."""
    variables = _in_order_of_dims(variables)
    dataset = azb.dict_to_dataset(
        {name: array for name, (_, array) in variables.items()},
        dims={name: list(dims) for name, (dims, _) in variables.items()},
        coords={dim: labels for dim, labels in coords.items() if dim not in sample_dims},
        sample_dims=list(sample_dims),
        attrs=attrs,
        # the conventions it checks hold by construction; it would warn of more chains than draws
        check_conventions=False,
    )
    if not sample_dims:
        # netCDF gives an empty list back as an array of floats
        del dataset.attrs["sample_dims"]
    return dataset


def _in_order_of_dims(variables: Variables) -> Variables:
    """The same, those of most dims first if need be: no variable has two dims in another order than the dataset.

    ArviZ labels the rows of a summary wrongly where one has (arviz-stats 1.3).
    """
    order = {dim: place for place, dim in enumerate(dict.fromkeys(d for dims, _ in variables.values() for d in dims))}
    if all([order[dim] for dim in dims] == sorted(order[dim] for dim in dims) for dims, _ in variables.values()):
        return variables
    return dict(sorted(variables.items(), key=lambda item: -len(item[1][0])))


def library_attributes(attrs: Mapping[str, Any] | None) -> dict[str, Any]:
    """Attributes of what this library makes: its name, its version and the time, and those given."""
    own = {
        "created_at": datetime.now(UTC).isoformat(),
        "inference_library": "simformer_ppl",
        "inference_library_version": importlib.metadata.version("simformer_ppl"),
    }
    return own | {name: _attribute(value) for name, value in (attrs or {}).items()}


def _attribute(value: Any) -> Any:
    """Numbers, strings and flat lists of them are what a netCDF attribute can be."""
    if isinstance(value, bool | np.bool_):
        return int(value)
    if isinstance(value, str | Number | np.number):
        return value
    if isinstance(value, list | tuple | np.ndarray) and len(value) and all(isinstance(v, str | Number) for v in value):
        return [_attribute(v) for v in value]
    return str(value)


def check_shape(name: str, array: np.ndarray, expected: tuple[int, ...]) -> None:
    """Refuse an array of another shape."""
    if array.shape != expected:
        raise ValueError(f"site {name!r}: expected shape {expected}, got {array.shape}")


def check_lengths(groups: Sequence[Variables], coords: Mapping[str, np.ndarray]) -> None:
    """Refuse what xarray would pad with NaN: one dim of two lengths, or labels of another length."""
    seen: dict[str, tuple[str, int]] = {}
    for variables in groups:
        for name, (dims, array) in variables.items():
            for dim, length in zip(dims, array.shape, strict=True):
                other, expected = seen.setdefault(dim, (name, length))
                if length != expected:
                    raise ValueError(f"dim {dim!r} has length {expected} in {other!r} and {length} in {name!r}")
    for dim, labels in coords.items():
        if dim in seen and dim not in SAMPLE_DIMS and labels.shape != (seen[dim][1],):
            raise ValueError(
                f"coords[{dim!r}]: expected {seen[dim][1]} labels for site {seen[dim][0]!r}, got shape {labels.shape}"
            )
