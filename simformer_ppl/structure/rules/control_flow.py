"""Loops and branches: run step by step while the counters are known, to a fixed point when they are not."""

from typing import Any

import jax
import numpy as np

from simformer_ppl.structure import bitsets
from simformer_ppl.structure.abstract_value import Recipe, Value, all_zero, union_of
from simformer_ppl.structure.rules.registry import rule

# Steps of a `while` that are run one by one before its trip count is given up as unknown.
_MOST_STEPS = 4096


def _run(flow: Any, jaxpr: Any, values: list[Value]) -> list[Value]:
    inner, consts = (jaxpr.jaxpr, jaxpr.consts) if hasattr(jaxpr, "consts") else (jaxpr, ())
    return flow.evaluate(inner, consts, values)


def _also_reading(value: Value, bitset: int) -> Value:
    if not bitset:
        return value
    out = Value(value.shape, value.dtype, bitsets.union(value.sets(), np.asarray(bitset, object)), value.zero)
    if value.is_constant:
        out.share_constant(value)
    return out


def _forget_constant(value: Value) -> Value:
    return Value(value.shape, value.dtype, value.reads)


@rule("cond")
def _cond(flow: Any, eqn: Any, values: list[Value]) -> list[Value]:
    (index, *operands), branches = values, eqn.params["branches"]
    chosen_by = index.all_reads()
    if index.is_constant:
        branch = branches[int(np.clip(index.as_numpy(), 0, len(branches) - 1))]
        return [_also_reading(out, chosen_by) for out in _run(flow, branch, operands)]
    outputs = []
    for options in zip(*(_run(flow, branch, operands) for branch in branches), strict=True):
        shape = options[0].shape
        merged = Value(shape, options[0].dtype, union_of(options, shape), all_zero(options, shape))
        outputs.append(_also_reading(merged, chosen_by))
    return outputs


@rule("while")
def _while(flow: Any, eqn: Any, values: list[Value]) -> list[Value]:
    params = eqn.params
    num_cond, num_body = params["cond_nconsts"], params["body_nconsts"]
    cond_consts, body_consts = values[:num_cond], values[num_cond : num_cond + num_body]
    carry = values[num_cond + num_body :]
    reads = 0
    for _ in range(_MOST_STEPS):
        (going_on,) = _run(flow, params["cond_jaxpr"], cond_consts + carry)
        reads |= going_on.all_reads()
        if not going_on.is_constant:
            break
        if not going_on.as_numpy():
            return [_also_reading(value, reads) for value in carry]
        carry = _run(flow, params["body_jaxpr"], body_consts + carry)
    carry = [_also_reading(_forget_constant(value), reads) for value in carry]
    while True:
        (going_on,) = _run(flow, params["cond_jaxpr"], cond_consts + carry)
        stepped = _run(flow, params["body_jaxpr"], body_consts + carry)
        reads = going_on.all_reads()
        merged = [
            _also_reading(Value(old.shape, old.dtype, union_of([old, new], old.shape)), reads)
            for old, new in zip(carry, stepped, strict=True)
        ]
        if all(_same(old, new) for old, new in zip(carry, merged, strict=True)):
            return merged
        carry = merged


@rule("scan")
def _scan(flow: Any, eqn: Any, values: list[Value]) -> list[Value]:
    params, length = eqn.params, eqn.params["length"]
    num_consts, num_carry = _scan_counts(params)
    consts, carry = values[:num_consts], values[num_consts : num_consts + num_carry]
    inputs = values[num_consts + num_carry :]
    steps: list[list[Value]] = [[] for _ in range(length)]
    for step in reversed(range(length)) if params["reverse"] else range(length):
        outputs = _run(flow, params["jaxpr"], consts + carry + [_row(flow, value, step) for value in inputs])
        # a factor of the density is not followed into the loop, and its equations need not be kept
        carry, steps[step] = outputs[:num_carry], outputs[num_carry:]
    avals = [var.aval for var in eqn.outvars[num_carry:]]
    return carry + [_stacked(flow, aval, [rows[index] for rows in steps]) for index, aval in enumerate(avals)]


@rule("call_hi_primitive")
def _high_level(flow: Any, eqn: Any, values: list[Value]) -> list[Value]:
    """A primitive that JAX lowers late (such as ``SearchSorted``): interpret what it expands to."""
    primitive = eqn.params["_prim"]
    operands = [jax.ShapeDtypeStruct(var.aval.shape, var.aval.dtype) for var in eqn.invars]
    expanded = jax.make_jaxpr(primitive.expand)(*jax.tree.unflatten(primitive.in_tree, operands))
    return flow.run(expanded, values)


def _scan_counts(params: dict[str, Any]) -> tuple[int, int]:
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    consts, carry, _ = params["ft_in"].unpack()
    return len(consts), len(carry)


def _row(flow: Any, value: Value, step: int) -> Value:
    shape = value.shape[1:]
    if value.is_constant:
        row = Value.of_recipe(shape, value.dtype, Recipe([value], lambda arrays: [arrays[0][step]]))
        if value.is_evaluated:
            _ = row.constant
    else:
        row = Value(shape, value.dtype, zero=None if value.zero is None else np.asarray(value.zero[step]))
    row.reads = None if value.reads is None else np.asarray(value.reads[step], object)
    if flow.trail is not None:
        flow.trail.add([row], [value])
    return row


def _stacked(flow: Any, aval: Any, rows: list[Value]) -> Value:
    if not rows:
        return Value(aval.shape, aval.dtype)
    out = Value(aval.shape, aval.dtype)
    if any(row.reads is not None for row in rows):
        out.reads = np.stack([row.sets() for row in rows])
    if all(row.is_constant for row in rows):
        recipe = Recipe(rows, lambda arrays: [np.stack([np.asarray(array) for array in arrays])])
        out.share_constant(Value.of_recipe(aval.shape, aval.dtype, recipe))
    elif all(row.zero is not None for row in rows if not row.is_constant):
        masks = [row.zeros() for row in rows]
        out.zero = np.stack([np.zeros(aval.shape[1:], bool) if mask is None else mask for mask in masks])
    if flow.trail is not None:
        flow.trail.add([out], rows)
    return out


def _same(old: Value, new: Value) -> bool:
    if old.reads is None or new.reads is None:
        return old.reads is new.reads
    return bool(np.all(old.reads == new.reads))
