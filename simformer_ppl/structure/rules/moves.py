"""Primitives that only move elements: every output element is one input element."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from simformer_ppl.structure import bitsets
from simformer_ppl.structure.abstract_value import Value, union_of
from simformer_ppl.structure.rules.registry import rule


def _broadcast_in_dim(array: np.ndarray, params: dict[str, Any]) -> np.ndarray:
    shape = [1] * len(params["shape"])
    for axis, dimension in enumerate(params["broadcast_dimensions"]):
        shape[dimension] = array.shape[axis]
    return np.broadcast_to(array.reshape(shape), params["shape"])


def _slice(array: np.ndarray, params: dict[str, Any]) -> np.ndarray:
    strides = params["strides"] or (1,) * array.ndim
    return array[tuple(map(slice, params["start_indices"], params["limit_indices"], strides))]


MOVES: dict[str, Callable[[np.ndarray, dict[str, Any]], np.ndarray]] = {
    "reshape": lambda array, params: array.reshape(params["new_sizes"]),
    "broadcast_in_dim": _broadcast_in_dim,
    "transpose": lambda array, params: array.transpose(params["permutation"]),
    "squeeze": lambda array, params: np.squeeze(array, tuple(params["dimensions"])),
    "expand_dims": lambda array, params: np.expand_dims(array, tuple(params["dimensions"])),
    "rev": lambda array, params: np.flip(array, tuple(params["dimensions"])),
    "slice": _slice,
    "tile": lambda array, params: np.tile(array, params["reps"]),
}


def rearrange(eqn: Any, array: np.ndarray) -> np.ndarray:
    """Move the elements of a numpy array of any dtype as the equation moves its operand."""
    return MOVES[eqn.primitive.name](array, eqn.params)


@rule(*MOVES)
def _move(flow: Any, eqn: Any, values: list[Value]) -> list[Value]:
    value = values[0]
    zero = None if value.zero is None else rearrange(eqn, value.zero)
    out = Value(eqn.outvars[0].aval.shape, reads=rearrange(eqn, value.sets()), zero=zero)
    out.origin = (eqn, values)
    return [out]


@rule("concatenate")
def _concatenate(flow: Any, eqn: Any, values: list[Value]) -> list[Value]:
    axis = eqn.params["dimension"]
    out = Value(
        eqn.outvars[0].aval.shape,
        reads=np.concatenate([value.sets() for value in values], axis),
        zero=np.concatenate([_zeros(value) for value in values], axis),
    )
    out.origin = (eqn, values)
    return [out]


@rule("stack")
def _stack(flow: Any, eqn: Any, values: list[Value]) -> list[Value]:
    axis = eqn.params["axis"]
    reads = np.stack([value.sets() for value in values], axis)
    zero = np.stack([_zeros(value) for value in values], axis)
    return [Value(eqn.outvars[0].aval.shape, reads=reads, zero=zero)]


@rule("unstack")
def _unstack(flow: Any, eqn: Any, values: list[Value]) -> list[Value]:
    parts = np.moveaxis(values[0].sets(), eqn.params["axis"], 0)
    return [Value(var.aval.shape, reads=np.asarray(part, object)) for var, part in zip(eqn.outvars, parts, strict=True)]


@rule("split")
def _split(flow: Any, eqn: Any, values: list[Value]) -> list[Value]:
    cuts, axis = np.cumsum(eqn.params["sizes"])[:-1], eqn.params["axis"]
    zeros = np.split(_zeros(values[0]), cuts, axis)
    return [Value(r.shape, reads=r, zero=z) for r, z in zip(np.split(values[0].sets(), cuts, axis), zeros, strict=True)]


@rule("pad")
def _pad(flow: Any, eqn: Any, values: list[Value]) -> list[Value]:
    value, filler = values
    positions = np.arange(np.prod(value.shape, dtype=int), dtype=np.int32).reshape(value.shape)
    with jax.ensure_compile_time_eval():
        positions = np.asarray(lax.pad(jnp.asarray(positions), jnp.int32(-1), eqn.params["padding_config"]))
    reads = np.append(value.sets().ravel(), filler.sets())[positions]
    zero = np.append(_zeros(value).ravel(), _zeros(filler))[positions]
    return [Value(positions.shape, reads=reads, zero=zero)]


@rule("bitcast_convert_type")
def _bitcast(flow: Any, eqn: Any, values: list[Value]) -> list[Value]:
    shape = eqn.outvars[0].aval.shape
    sets = values[0].sets()
    if len(shape) < sets.ndim:
        sets = bitsets.union_over(sets, (sets.ndim - 1,))
    elif len(shape) > sets.ndim:
        sets = np.broadcast_to(sets[..., None], shape)
    return [Value(shape, reads=sets)]


@rule("conv_general_dilated")
def _convolution(flow: Any, eqn: Any, values: list[Value]) -> list[Value]:
    """Probe with a one at every input position: a convolution with a kernel of ones shows what reaches what."""
    signal, kernel = values
    shape, size = eqn.outvars[0].aval.shape, int(np.prod(signal.shape))
    if size * int(np.prod(shape)) > 4_000_000 or eqn.params["batch_group_count"] != 1:
        return flow.dense(eqn, values, reason="conv_general_dilated: too large")
    live = np.ones(kernel.shape, np.float32) - _zeros(kernel)
    params = {**eqn.params, "preferred_element_type": np.dtype(np.float32)}
    reached = np.empty((size, *shape), bool)
    with jax.ensure_compile_time_eval():
        for position in range(size):
            probe = np.zeros(size, np.float32)
            probe[position] = 1
            operands = jnp.asarray(probe.reshape(signal.shape)), jnp.asarray(live)
            reached[position] = np.asarray(eqn.primitive.bind(*operands, **params)) > 0.5
    lines = np.broadcast_to(signal.sets().reshape(size, *(1,) * len(shape)), reached.shape)
    out = Value(shape, reads=bitsets.union_where(lines, reached, 0))
    extra = Value(shape, reads=np.broadcast_to(np.asarray(kernel.all_reads(), object), shape))
    return [Value(shape, reads=union_of([out, extra], shape))]


def _zeros(value: Value) -> np.ndarray:
    mask = value.zeros()
    return np.zeros(value.shape, bool) if mask is None else mask
