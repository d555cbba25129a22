"""Equinox's batched primitives: what is no JAX primitive itself, mapped over an axis."""

from typing import Any

import numpy as np

from simformer_ppl.structure import bitsets
from simformer_ppl.structure.abstract_value import Value
from simformer_ppl.structure.rules.registry import rule


@rule("vprim")
def _mapped_primitive(flow: Any, eqn: Any, values: list[Value]) -> list[Value]:
    """Elements of the mapped axis, which is the first of every output, are apart; each is dense."""
    size, axes = eqn.params["__axis_size"], eqn.params["__batch_axes"]
    per_element = bitsets.empty((size,))
    for value, axis in zip(values, axes, strict=True):
        if axis is None:
            per_element = bitsets.union(per_element, np.asarray(value.all_reads(), object))
        else:
            others = tuple(other for other in range(len(value.shape)) if other != axis)
            per_element = bitsets.union(per_element, bitsets.union_over(value.sets(), others))
    shapes = [tuple(var.aval.shape) for var in eqn.outvars]
    if any(shape[:1] != (size,) for shape in shapes):
        return flow.dense(eqn, values, reason="vprim: not mapped over the first axis")
    return [Value(s, reads=np.broadcast_to(per_element.reshape(size, *(1,) * (len(s) - 1)), s)) for s in shapes]
