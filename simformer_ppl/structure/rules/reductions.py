"""Reductions, cumulative operations and sorting."""

from typing import Any

import numpy as np

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
    return _over_line(eqn, values, len(values[0].shape) - 1)


@rule("lu_pivots_to_permutation")
def _permutation(flow: Any, eqn: Any, values: list[Value]) -> list[Value]:
    return _over_line(eqn, values, len(values[0].shape) - 1)


def _over_line(eqn: Any, values: list[Value], axis: int) -> list[Value]:
    line = bitsets.union_over(_union(values), (axis,), keepdims=True)
    return [Value(var.aval.shape, reads=np.broadcast_to(line, var.aval.shape)) for var in eqn.outvars]


def _union(values: list[Value]) -> bitsets.Bitsets:
    reads = union_of(values, values[0].shape)
    return bitsets.empty(values[0].shape) if reads is None else reads
