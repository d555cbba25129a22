"""Simulations on disk, chunk by chunk, to go on from."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from simformer_ppl.training.checkpoint import claim


class Simulations(NamedTuple):
    """Values by site of the simulations that came to an end, and the errors of the others."""

    values: dict[str, np.ndarray]
    errors: list[str]


class SimulationStore:
    """Finished chunks of one run in a folder."""

    def __init__(self, folder: Path, run: str):
        claim(folder, run)
        self._folder = folder

    def read(self, start: int) -> Simulations | None:
        """A chunk by its first simulation, or None."""
        path = self._path(start)
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as file:
            values = {name.removeprefix("site:"): file[name] for name in file.files if name.startswith("site:")}
            return Simulations(values, file["errors"].tolist())

    def write(self, start: int, part: Simulations) -> None:
        """Save a chunk, whole or not at all."""
        unfinished = self._path(start).with_suffix(".part.npz")
        arrays: dict[str, Any] = {f"site:{name}": value for name, value in part.values.items()}
        np.savez(unfinished, errors=np.array(part.errors, str), **arrays)
        os.replace(unfinished, self._path(start))

    def _path(self, start: int) -> Path:
        return self._folder / f"simulations_{start:09d}.npz"
