"""Reductions, cumulative operations and sorting."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from simformer_ppl.structure import bitsets
from simformer_ppl.structure.abstract_value import Value, union_of
from simformer_ppl.structure.rules.registry import rule


@rule(
    "reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or reduce_xor argmax argmin",
)
def _reduce(flow: Any, eqn: Any, values: list[Value]) -> list[Value]:
    (value,), axes = values, tuple(eqn.params["axes"])
    reads = bitsets.union_over(value.sets(), axes) if axes else value.sets()
    keeps_zero = value.zero is not None and eqn.primitive.name == "reduce_sum"
    zero = np.asarray(value.zero.all(axis=axes)) if keeps_zero and value.zero is not None else None
    out = Value(eqn.outvars[0].aval.shape, reads=reads, zero=zero)
    out.origin = (eqn, values)
    return [out]


@rule("reduce")
def _general_reduce(flow: Any, eqn: Any, values: list[Value]) -> list[Value]:
    """Reduction by any function: operands, then their initial values."""
    operands, initial = values[: len(values) // 2], values[len(values) // 2 :]
    reads = bitsets.union_over(_union(operands), tuple(eqn.params["dimensions"]))
    reads = bitsets.union(reads, *(value.sets() for value in initial))
    return [Value(var.aval.shape, reads=reads) for var in eqn.outvars]


@rule("reduce_window reduce_window_sum reduce_window_max reduce_window_min")
def _reduce_window(flow: Any, eqn: Any, values: list[Value]) -> list[Value]:
    """Pooling: the union over every offset in a window; initial values count everywhere."""
    params, shape = eqn.params, values[0].shape
    operands = [value for value in values if value.shape == shape]
    others = [value.all_reads() for value in values if value.shape != shape]
    padding = [
        (low, high, dilation - 1)
        for (low, high), dilation in zip(params["padding"], params["base_dilation"], strict=True)
    ]
    positions = np.arange(math.prod(shape), dtype=np.int32).reshape(shape)
    with jax.ensure_compile_time_eval():
        positions = np.asarray(lax.pad(jnp.asarray(positions), jnp.int32(-1), padding))
    sets = np.append(_union(operands).ravel(), 0)[positions]
    outer = eqn.outvars[0].aval.shape
    out = bitsets.empty(outer)
    for everywhere in others:
        out = bitsets.union(out, np.asarray(everywhere, object))
    for offset in np.ndindex(*params["window_dimensions"]):
        starts = [step * dilation for step, dilation in zip(offset, params["window_dilation"], strict=True)]
        spans = zip(starts, outer, params["window_strides"], strict=True)
        window = sets[tuple(slice(start, start + (n - 1) * stride + 1, stride) for start, n, stride in spans)]
        out = bitsets.union(out, window)
    return [Value(outer, reads=out) for _ in eqn.outvars]


@rule("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp")
def _cumulative(flow: Any, eqn: Any, values: list[Value]) -> list[Value]:
    axis, reverse = eqn.params["axis"], eqn.params["reverse"]
    sets = values[0].sets()
    sets = np.flip(sets, axis) if reverse else sets
    out = bitsets.running_union(sets, axis)
    return [Value(out.shape, reads=np.flip(out, axis) if reverse else out)]


@rule("sort")
def _sort(flow: Any, eqn: Any, values: list[Value]) -> list[Value]:
    # an operand moves with the keys: every output reads the whole line of every operand
    return _over_line(eqn, values, eqn.params["dimension"])


@rule("top_k", "approx_top_k")
def _top_k(flow: Any, eqn: Any, values: list[Value]) -> list[Value]:
    last = len(values[0].shape) - 1
    return _over_line(eqn, values, eqn.params.get("axis", eqn.params.get("reduction_dimension", last)))


@rule("lu_pivots_to_permutation")
def _permutation(flow: Any, eqn: Any, values: list[Value]) -> list[Value]:
    return _over_line(eqn, values, len(values[0].shape) - 1)


def _over_line(eqn: Any, values: list[Value], axis: int) -> list[Value]:
    line = bitsets.union_over(_union(values), (axis,), keepdims=True)
    return [Value(var.aval.shape, reads=np.broadcast_to(line, var.aval.shape)) for var in eqn.outvars]


def _union(values: list[Value]) -> bitsets.Bitsets:
    reads = union_of(values, values[0].shape)
    return bitsets.empty(values[0].shape) if reads is None else reads
