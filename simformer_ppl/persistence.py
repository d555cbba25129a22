"""Save and load a trained Simformer: a folder of JSON, NetCDF and Orbax arrays, no pickle."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import xarray as xr
from flax import nnx

from simformer_ppl.joint import LearnedJoint
from simformer_ppl.structure import ModelStructure
from simformer_ppl.tokens.standardisation import Standardisation
from simformer_ppl.training.checkpoint import flatten, unflatten

FORMAT = 6
_PACKAGES = ("simformer-ppl", "jax", "flax", "numpyro", "orbax-checkpoint")


def save(
    folder: Path, joint: LearnedJoint, structure: ModelStructure, configuration: dict[str, Any], history: xr.Dataset
) -> None:
    """Write a trained network.

    Raises
    ------
    ValueError
        If the folder exists and holds no saved Simformer.
    """
    refuse_other_files(folder)
    folder.mkdir(parents=True, exist_ok=True)
    versions = {package: version(package) for package in _PACKAGES}
    text = json.dumps({"format": FORMAT, "versions": versions, **configuration}, indent=2)
    (folder / "configuration.json").write_text(text)
    arrays = flatten({"parameters": joint.parameters, "standardisation": joint.standardisation})
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save((folder / "arrays").absolute(), arrays, force=True)
    np.savez(folder / "constants.npz", known=structure.token_constants, components=joint.layout.constants)
    history.to_netcdf(folder / "history.nc", engine="h5netcdf")


def refuse_other_files(folder: Path) -> None:
    """Refuse a folder to save to.

    Raises
    ------
    ValueError
        If it exists and holds no saved Simformer.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / "configuration.json").exists():
        raise ValueError(f"{folder}: expected a new folder or a saved Simformer, got a folder with other files.")


def read_configuration(folder: Path) -> dict[str, Any]:
    """Configuration of a saved network.

    Raises
    ------
    ValueError
        If the folder holds none, or one of another format.
    """
    file = folder / "configuration.json"
    if not file.exists():
        raise ValueError(f"{folder}: expected a folder written by Simformer.save, got none.")
    configuration = json.loads(file.read_text())
    if configuration["format"] != FORMAT:
        raise ValueError(f"{folder}: expected format {FORMAT}, got {configuration['format']}.")
    return configuration


def read_arrays(folder: Path, template: LearnedJoint) -> tuple[nnx.State, Standardisation]:
    """Weights and standardisation, into the places of a freshly made network.

    Raises
    ------
    ValueError
        If an array is missing or has another shape.
    """
    places: dict[str, Any] = {"parameters": template.parameters, "standardisation": template.standardisation}
    abstract = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in flatten(places).items()}
    with ocp.StandardCheckpointer() as checkpointer:
        try:
            filled = unflatten(places, checkpointer.restore((folder / "arrays").absolute(), abstract))
        except ValueError as error:
            raise ValueError(
                f"{folder}: the saved weights do not fit. Expected the network and the embeddings that were saved."
            ) from error
    return filled["parameters"], filled["standardisation"]


def read_constants(folder: Path, structure: ModelStructure) -> np.ndarray:
    """Components of the known constants of every token, as they were in training.

    Raises
    ------
    ValueError
        If the model has other constants now, naming the first token where.
    """
    with np.load(folder / "constants.npz", allow_pickle=False) as saved:
        known, components = saved["known"], saved["components"]
    present = structure.token_constants
    same = known.shape == present.shape and np.isclose(known, present, rtol=1e-5, atol=0.0, equal_nan=True).all(1)
    if not np.all(same):
        first = int(np.argmin(same)) if np.ndim(same) else 0
        raise ValueError(
            f"Token {structure.tokens[first]}: expected the saved constants of the model (standard errors, "
            f"covariates) {known[first].tolist()}, got {present[first].tolist()}."
        )
    return components


def read_history(folder: Path) -> xr.Dataset:
    """Losses of the saved network."""
    with xr.open_dataset(folder / "history.nc", engine="h5netcdf") as history:
        return history.load()


def labels_as_json(dim: str, labels: Any) -> list[Any] | dict[str, Any]:
    """Labels of a dim as JSON has them: dates and times with their type.

    Raises
    ------
    ValueError
        If they are neither numbers nor text, dates or times.
    """
    array = xr.Variable((dim,), np.asarray(labels)).values  # which knows dates among objects
    if array.dtype.kind in "mM":
        return {"dtype": str(array.dtype), "labels": array.astype(np.int64).tolist()}
    if not all(isinstance(label, (str, int, float, bool)) for label in array.tolist()):
        raise ValueError(f"coords: expected numbers, text, dates or times for '{dim}', got {array.tolist()[:3]}.")
    return array.tolist()


def read_labels(stored: list[Any] | dict[str, Any]) -> list[Any] | np.ndarray:
    """What :func:`labels_as_json` made."""
    if isinstance(stored, list):
        return stored
    return np.array(stored["labels"], np.int64).astype(stored["dtype"])


def describe_structure(structure: ModelStructure) -> dict[str, Any]:
    """What of a structure the weights depend on."""
    sites = {
        name: {
            "shape": list(site.shape),
            "distribution": site.distribution,
            "support": str(site.support),
            "tokens": [site.token_slice.start, site.token_slice.stop],
            "is_data": site.is_data,
            **({"is_covariate": True} if site.is_covariate else {}),
            **({"is_embedded": True} if site.is_embedded else {}),
        }
        for name, site in structure.sites.items()
    }
    graphs = {"parents": structure.adjacency, "neighbours": structure.moral()}
    return {"sites": sites, **{kind: [row.nonzero()[0].tolist() for row in graph] for kind, graph in graphs.items()}}


def check_structure(saved: dict[str, Any], present: dict[str, Any]) -> None:
    """Refuse a model whose structure is not the saved one.

    Raises
    ------
    ValueError
        Naming the first site or token that differs.
    """
    for name in saved["sites"].keys() | present["sites"].keys():
        was, now = saved["sites"].get(name), present["sites"].get(name)
        if was != now:
            raise ValueError(f"Site '{name}' of the model is not the saved one: expected {was}, got {now}.")
    for kind in ("parents", "neighbours"):
        for token, (was, now) in enumerate(zip(saved[kind], present[kind], strict=True)):
            if was != now:
                raise ValueError(f"Token {token}: expected the saved {kind} {was}, got {now}.")
