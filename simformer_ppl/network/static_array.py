"""Arrays as hashable constants of a module."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class StaticArray:
    """A numpy array that compares and hashes by value, as the static part of an NNX module must.

    Examples
    --------
    >>> StaticArray.of(np.eye(2)) == StaticArray.of(np.eye(2))
    True
    """

    shape: tuple[int, ...]
    dtype: str
    content: bytes

    @classmethod
    def of(cls, array: np.ndarray) -> "StaticArray":
        """Freeze an array."""
        array = np.asarray(array)
        return cls(array.shape, array.dtype.str, array.tobytes())

    @property
    def array(self) -> np.ndarray:
        """The array, read-only."""
        return np.frombuffer(self.content, self.dtype).reshape(self.shape)
