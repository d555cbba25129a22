"""Simulations that are known to come from the model itself, unchanged."""

import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import xarray as xr

from simformer_ppl.compilation import COMPILED_QUICKLY
from simformer_ppl.replay import Replay

_DIGEST, _DENSITIES = "simulations_digest", "simulations_log_density"
_COMPARED = 8
"""Simulations whose log density is compared."""


def mark(simulations: xr.Dataset, values: Mapping[str, np.ndarray], replay: Replay) -> xr.Dataset:
    """Note on a dataset what its values are, and how the model that made them weighs some of them.

    Parameters
    ----------
    simulations
        Is given two attributes, which NetCDF keeps. None, where the model's density is unknown.
    values
        Arrays of ``(num_simulations, *site.shape)`` by site.
    replay
        The model.
    """
    densities = _log_densities(replay, values)
    if densities is None:
        return simulations
    return simulations.assign_attrs({_DIGEST: _digest(values), _DENSITIES: densities})


def is_own(simulations: Any, values: Mapping[str, np.ndarray], replay: Replay) -> bool:
    """Whether simulations bear the mark of this model, and are as they were then.

    Parameters
    ----------
    simulations
        As passed: arrays by site, or a dataset.
    values
        The arrays in them.
    replay
        The model.
    """
    attrs = getattr(simulations, "attrs", {})
    if _DIGEST not in attrs or attrs[_DIGEST] != _digest(values):
        return False
    densities = _log_densities(replay, values)
    return densities is not None and np.allclose(densities, attrs[_DENSITIES], rtol=1e-3, atol=1e-2)


def _digest(values: Mapping[str, np.ndarray]) -> str:
    content = hashlib.sha256()
    for name in sorted(values):
        content.update(name.encode() + np.ascontiguousarray(values[name]).tobytes())
    return content.hexdigest()


def _log_densities(replay: Replay, values: Mapping[str, np.ndarray]) -> list[float] | None:
    first = {name: array[:_COMPARED] for name, array in values.items()}
    try:
        densities = np.asarray(jax.jit(jax.vmap(replay.log_density), compiler_options=COMPILED_QUICKLY)(first), float)
    except Exception:  # a simulator without a density
        return None
    return np.nan_to_num(np.atleast_1d(densities)).tolist()
