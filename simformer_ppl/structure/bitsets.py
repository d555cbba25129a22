"""Arrays of sets of scalars: each element is a Python int whose bit ``i`` says that scalar ``i`` is in the set.

Python ints have no width, so a model may have any number of scalars. They live in object arrays: on two plain ints
``np.bitwise_or`` would silently fall back to 64 bits. Axes along which an array is a broadcast view are computed once.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from jaxtyping import Bool

Bitsets = np.ndarray[Any, np.dtype[np.object_]]


def empty(shape: tuple[int, ...]) -> Bitsets:
    """Array of empty sets; a broadcast view, not to be written to."""
    return np.broadcast_to(_as_sets(0), shape)


def singletons(shape: tuple[int, ...], start: int) -> Bitsets:
    """Array whose elements, in C order, are the sets ``{start}``, ``{start + 1}``, and so on."""
    sets = np.empty(prod(shape), dtype=object)
    sets[:] = [1 << position for position in range(start, start + sets.size)]
    return sets.reshape(shape)


def union(*arrays: Bitsets) -> Bitsets:
    """Elementwise union of arrays, broadcast against each other."""
    shape = np.broadcast_shapes(*(array.shape for array in arrays))
    out = _compact(arrays[0])
    for array in arrays[1:]:
        out = _as_sets(np.bitwise_or(out, _compact(array)))
    return np.broadcast_to(out, shape)


def union_over(array: Bitsets, axes: tuple[int, ...], keepdims: bool = False) -> Bitsets:
    """Union along axes."""
    kept = [1 if axis in axes else size for axis, size in enumerate(array.shape)]
    if 0 in array.shape:
        out = empty(tuple(kept))
    else:
        out = np.broadcast_to(_as_sets(np.bitwise_or.reduce(_compact(array), axis=axes, keepdims=True)), kept)
    return out if keepdims else np.squeeze(out, axes)


def union_where(array: Bitsets, mask: Bool[np.ndarray, "*shape"], axis: int) -> Bitsets:
    """Union along one axis of the elements that ``mask`` (broadcast to ``array``) marks."""
    return _as_sets(np.bitwise_or.reduce(array, axis=axis, where=np.broadcast_to(mask, array.shape), initial=0))


def union_all(array: Bitsets) -> int:
    """Union of all elements."""
    compact = _compact(array)
    return int(np.bitwise_or.reduce(compact.ravel())) if compact.size else 0


def running_union(array: Bitsets, axis: int) -> Bitsets:
    """Union of each element with those before it along an axis."""
    return _as_sets(np.bitwise_or.accumulate(array, axis=axis))


def members(bitset: int) -> list[int]:
    """Scalars in a set, ascending."""
    found = []
    while bitset:
        lowest = bitset & -bitset
        found.append(lowest.bit_length() - 1)
        bitset ^= lowest
    return found


def to_matrix(sets: Sequence[int], width: int) -> Bool[np.ndarray, "sets width"]:
    """Bool matrix with a row per set."""
    everything = (1 << width) - 1
    num_bytes = (width + 7) // 8
    packed = b"".join((bitset & everything).to_bytes(num_bytes, "little") for bitset in sets)
    rows = np.frombuffer(packed, np.uint8).reshape(len(sets), num_bytes)
    return np.unpackbits(rows, axis=1, bitorder="little")[:, :width].astype(bool)


def _as_sets(array: Any) -> Bitsets:
    return np.asarray(array, dtype=object)


def _compact(array: Bitsets) -> Bitsets:
    view = tuple(
        slice(0, 1) if step == 0 and size > 1 else slice(None)
        for step, size in zip(array.strides, array.shape, strict=True)
    )
    return array[view] if array.ndim else array
