"""Arrays to disk and back through Orbax."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp


def flatten(tree: Any) -> dict[str, np.ndarray]:
    """Leaves of a tree by their path."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf) for path, leaf in leaves}


def unflatten[Tree](template: Tree, arrays: Mapping[str, np.ndarray]) -> Tree:
    """Put arrays into the places of a tree of the same structure.

    Raises
    ------
    ValueError
        If a leaf is missing or has another shape.
    """

    def leaf(path: tuple, old: Any) -> Any:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        got = arrays[name].shape if name in arrays else "nothing"
        if got != np.shape(old):
            raise ValueError(f"Stored array '{name}': expected shape {np.shape(old)}, got {got}.")
        return jax.numpy.asarray(arrays[name])

    return jax.tree_util.tree_map_with_path(leaf, template)


def fingerprint(*parts: Any) -> str:
    """Hash of trees of arrays and numbers: equal for equal runs."""
    digest = hashlib.sha256()
    for name, leaf in flatten(parts).items():
        digest.update(f"{name} {leaf.dtype} {leaf.shape}".encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def claim(folder: Path, run: str) -> None:
    """Take a folder, made if it is not there, for one run.

    Parameters
    ----------
    folder
        For this run alone.
    run
        Fingerprint of the run.

    Raises
    ------
    ValueError
        If the folder holds another run.
    """
    label = folder / "run.txt"
    if label.exists() and label.read_text() != run:
        raise ValueError(
            f"checkpoint_dir: {folder} holds another run (other simulations, key, settings or starting weights). "
            "Expected a new folder, or the same call to go on with it."
        )
    folder.mkdir(parents=True, exist_ok=True)
    label.write_text(run)


class Checkpoints:
    """The state of training in a folder, newest kept.

    Parameters
    ----------
    folder
        Made if it is not there.
    run
        Fingerprint of the run: a folder holds one.

    Raises
    ------
    ValueError
        If the folder holds the state of another run.
    """

    def __init__(self, folder: str | Path, run: str):
        claim(Path(folder), run)
        options = ocp.CheckpointManagerOptions(max_to_keep=1, create=True)
        self._manager = ocp.CheckpointManager(Path(folder).absolute(), options=options)

    def write(self, step: int, state: Any) -> None:
        """Save a state."""
        self._manager.save(step, args=ocp.args.StandardSave(flatten(state)))
        self._manager.wait_until_finished()

    def newest[Tree](self, template: Tree) -> Tree | None:
        """The last state saved, or None."""
        step = self._manager.latest_step()
        if step is None:
            return None
        abstract = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in flatten(template).items()}
        stored = self._manager.restore(step, args=ocp.args.StandardRestore(abstract))
        return unflatten(template, stored)
