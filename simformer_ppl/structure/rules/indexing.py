"""Gather, scatter and dynamic slices: exact where the indices are known, whole axes where they are not."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from simformer_ppl.structure import bitsets
from simformer_ppl.structure.abstract_value import Value
from simformer_ppl.structure.bitsets import Bitsets
from simformer_ppl.structure.rules.registry import rule

_OUTSIDE = -1


@rule("gather")
def _gather(flow: Any, eqn: Any, values: list[Value]) -> list[Value]:
    operand, indices = values
    shape, numbers = eqn.outvars[0].aval.shape, eqn.params["dimension_numbers"]
    if indices.is_constant:
        positions = _positions(operand.shape, indices, numbers, eqn.params["slice_sizes"], eqn.params["mode"])
        out = np.append(operand.sets().ravel(), 0)[positions]
    else:
        out = _gather_anywhere(operand, shape, numbers, eqn.params["slice_sizes"])
    if indices.reads is not None:
        row = bitsets.union_over(indices.reads, (len(indices.shape) - 1,))
        per_output = row.reshape([1 if axis in numbers.offset_dims else size for axis, size in enumerate(shape)])
        out = bitsets.union(out, per_output)
    return [Value(shape, reads=np.broadcast_to(out, shape))]


def _gather_anywhere(operand: Value, shape: tuple[int, ...], numbers: Any, sizes: tuple[int, ...]) -> Bitsets:
    """With unknown indices an axis that is not indexed is still told apart: ``x[i, :]`` keeps its columns."""
    sets = operand.sets()
    if numbers.operand_batching_dims:
        return _gather_batched(sets, shape, numbers)
    indexed = tuple(axis for axis in numbers.start_index_map if sizes[axis] != operand.shape[axis])
    sets = bitsets.union_over(sets, indexed, keepdims=True) if indexed else sets
    window = sets[tuple(slice(0, 1) if axis in indexed else slice(0, n) for axis, n in enumerate(sizes))]
    window = np.squeeze(window, tuple(numbers.collapsed_slice_dims))
    target = [1] * len(shape)
    for axis, size in zip(numbers.offset_dims, window.shape, strict=True):
        target[axis] = size
    return np.broadcast_to(window.reshape(target), shape)


def _gather_batched(sets: Bitsets, shape: tuple[int, ...], numbers: Any) -> Bitsets:
    """Batch axes (vmap) correspond one to one; everything else is one set."""
    batch = tuple(numbers.operand_batching_dims)
    others = tuple(axis for axis in range(sets.ndim) if axis not in batch)
    per_batch = bitsets.union_over(sets, others)
    kept = [axis for axis in range(len(shape)) if axis not in numbers.offset_dims]
    target = [1] * len(shape)
    order = np.argsort(numbers.start_indices_batching_dims)
    for dim in numbers.start_indices_batching_dims:
        target[kept[dim]] = shape[kept[dim]]
    return np.broadcast_to(per_batch.transpose(order).reshape(target), shape)


@rule("scatter scatter-add scatter-sub scatter-mul scatter-min scatter-max")
def _scatter(flow: Any, eqn: Any, values: list[Value]) -> list[Value]:
    operand, indices, updates = values
    if not indices.is_constant:
        everything = np.asarray(indices.all_reads() | updates.all_reads(), object)
        return [Value(operand.shape, reads=bitsets.union(operand.sets(), everything))]
    numbers = eqn.params["dimension_numbers"]
    gather = lax.GatherDimensionNumbers(
        offset_dims=tuple(numbers.update_window_dims),
        collapsed_slice_dims=tuple(numbers.inserted_window_dims),
        start_index_map=tuple(numbers.scatter_dims_to_operand_dims),
        operand_batching_dims=tuple(numbers.operand_batching_dims),
        start_indices_batching_dims=tuple(numbers.scatter_indices_batching_dims),
    )
    sizes = _window_sizes(operand.shape, updates.shape, numbers)
    positions = _positions(operand.shape, indices, gather, sizes, eqn.params["mode"]).ravel()
    inside = positions != _OUTSIDE
    where, sets = positions[inside], updates.sets().ravel()[inside]
    out = operand.sets().ravel().copy()
    if _overwrites(eqn) and len(np.unique(where)) == len(where):
        out[where] = sets
    else:  # the order of duplicate writes is unspecified
        np.bitwise_or.at(out, where, sets)
    if indices.reads is not None:
        out = bitsets.union(out, np.asarray(indices.all_reads(), object))
    return [Value(operand.shape, reads=out.reshape(operand.shape))]


def _window_sizes(operand: tuple[int, ...], updates: tuple[int, ...], numbers: Any) -> tuple[int, ...]:
    fixed = {*numbers.inserted_window_dims, *numbers.operand_batching_dims}
    window = iter(numbers.update_window_dims)
    return tuple(1 if axis in fixed else updates[next(window)] for axis in range(len(operand)))


def _overwrites(eqn: Any) -> bool:
    """Whether a scatter forgets what was there: ``x.at[i].apply`` is one that does not."""
    return eqn.primitive.name == "scatter" and eqn.params.get("update_jaxpr") is None


def _positions(shape: tuple[int, ...], indices: Value, numbers: Any, sizes: tuple[int, ...], mode: Any) -> np.ndarray:
    """Flat operand position of each gathered element; -1 where it is filled or dropped."""
    clips = mode is not None and str(mode).endswith(("CLIP", "PROMISE_IN_BOUNDS"))
    with jax.ensure_compile_time_eval():
        operand = jnp.arange(np.prod(shape, dtype=int), dtype=jnp.int32).reshape(shape)
        gathered = lax.gather(
            operand,
            jnp.asarray(indices.constant),
            numbers,
            sizes,
            mode=mode if clips else lax.GatherScatterMode.FILL_OR_DROP,
            fill_value=_OUTSIDE,
        )
    return np.asarray(gathered)


@rule("dynamic_slice")
def _dynamic_slice(flow: Any, eqn: Any, values: list[Value]) -> list[Value]:
    operand, *starts = values
    sets, zero, known, index_reads = operand.sets(), operand.zero, [], 0
    for axis, (start, size) in enumerate(zip(starts, eqn.params["slice_sizes"], strict=True)):
        length = operand.shape[axis]
        index_reads |= start.all_reads()
        if size == length:
            known.append(slice(None))
        elif start.is_constant:
            first = int(np.clip(start.as_numpy(), 0, length - size))
            known.append(slice(first, first + size))
        else:
            sets = np.broadcast_to(bitsets.union_over(sets, (axis,), keepdims=True), operand.shape)
            zero = None
            known.append(slice(0, size))
    out = sets[tuple(known)]
    if index_reads:
        out = bitsets.union(out, np.asarray(index_reads, object))
    return [Value(out.shape, reads=out, zero=None if zero is None else zero[tuple(known)])]


@rule("dynamic_update_slice")
def _dynamic_update_slice(flow: Any, eqn: Any, values: list[Value]) -> list[Value]:
    operand, update, *starts = values
    index_reads = 0
    for start in starts:
        index_reads |= start.all_reads()
    if all(start.is_constant for start in starts):
        firsts = [
            int(np.clip(start.as_numpy(), 0, length - size))
            for start, length, size in zip(starts, operand.shape, update.shape, strict=True)
        ]
        out = operand.sets().copy()
        out[tuple(slice(first, first + size) for first, size in zip(firsts, update.shape, strict=True))] = update.sets()
    else:
        out, index_reads = operand.sets(), index_reads | update.all_reads()
    if index_reads:
        out = bitsets.union(out, np.asarray(index_reads, object))
    return [Value(operand.shape, reads=out)]
