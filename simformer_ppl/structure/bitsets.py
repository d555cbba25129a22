"""Arrays of sets of scalars: each element is a Python int whose bit ``i`` says that scalar ``i`` is in the set.

Python ints have no width, so a model may have any number of scalars. They live in object arrays: on two plain ints
``np.bitwise_or`` would silently fall back to 64 bits. Axes along which an array is a broadcast view are computed once.
"""

from collections.abc import Iterable, Sequence
from math import prod
from typing import Any

import numpy as np
from jaxtyping import Bool

Bitsets = np.ndarray[Any, np.dtype[np.object_]]

# Up to here a loop over the members of a set is faster than unpacking it.
_FEW = 16
# One member in so many possible ones is few enough to go through them one by one.
_SPARSE = 128
# Sets that are unpacked into bools at a time; a multiple of 8.
_BLOCK = 1024


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
    if bitset.bit_count() > _FEW:
        packed = np.frombuffer(bitset.to_bytes((bitset.bit_length() + 7) // 8, "little"), np.uint8)
        return np.flatnonzero(np.unpackbits(packed, bitorder="little")).tolist()
    found = []
    while bitset:
        lowest = bitset & -bitset
        found.append(lowest.bit_length() - 1)
        bitset ^= lowest
    return found


def of_members(scalars: Iterable[int]) -> int:
    """The set of some scalars."""
    bitset = 0
    for scalar in scalars:
        bitset |= 1 << scalar
    return bitset


def transpose(sets: Sequence[int], width: int) -> list[int]:
    """For every scalar below ``width``, the set of the positions of the sets that it is in."""
    if sum(bitset.bit_count() for bitset in sets) * _SPARSE <= len(sets) * width:
        columns = [0] * width
        for position, bitset in enumerate(sets):
            for scalar in members(bitset):
                columns[scalar] |= 1 << position
        return columns
    blocks = []
    for start in range(0, len(sets), _BLOCK):
        block = to_matrix(sets[start : start + _BLOCK], width)
        blocks.append(np.packbits(block, axis=0, bitorder="little"))
    packed = np.ascontiguousarray(np.concatenate(blocks).T)
    return [int.from_bytes(column.tobytes(), "little") for column in packed]


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
