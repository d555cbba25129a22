"""Additive factors of a log density, read off the equations that computed it."""

import heapq
from typing import Any

import jax.numpy as jnp
import numpy as np

from simformer_ppl.structure import bitsets
from simformer_ppl.structure.abstract_value import Value
from simformer_ppl.structure.bitsets import Bitsets
from simformer_ppl.structure.rules.moves import MOVES, rearrange


def additive_factors(log_prob: Value) -> list[set[int]]:
    """Sets of scalars ``S_k`` with ``log_prob[b] = sum_k f_k(S_k)``, for every element ``b`` in C order.

    The sum is followed backwards through additions, sums over axes, multiplications by constants and moves. Where it
    cannot be followed further, what an element reads is one factor. An indicator of the support that validation adds,
    ``where(valid, log_prob, -inf)``, factorises as a sum does.
    """
    found: list[set[int]] = [set() for _ in range(int(np.prod(log_prob.shape, dtype=int)))]
    queue = _Queue()
    queue.add(log_prob, bitsets.singletons(log_prob.shape, 0))
    while queue:
        value, owners = queue.pop()
        summands = _summands(value, owners)
        if summands is None:
            _collect(found, value, owners)
            continue
        for summand, its_owners in summands:
            queue.add(summand, its_owners)
    return found


class _Queue:
    """Values still to be taken apart, latest first, each with the outputs that its elements are summands of."""

    def __init__(self) -> None:
        self._order: list[int] = []
        self._entries: dict[int, tuple[Value, Bitsets]] = {}

    def __bool__(self) -> bool:
        return bool(self._order)

    def add(self, value: Value, owners: Bitsets) -> None:
        if value.reads is None or not bitsets.union_all(owners):
            return
        owners = _unbroadcast(owners, value.shape)
        if value.serial in self._entries:
            owners = bitsets.union(owners, self._entries[value.serial][1])
        else:
            heapq.heappush(self._order, -value.serial)
        self._entries[value.serial] = (value, owners)

    def pop(self) -> tuple[Value, Bitsets]:
        return self._entries.pop(-heapq.heappop(self._order))


def _collect(found: list[set[int]], value: Value, owners: Bitsets) -> None:
    for element, reads in zip(np.broadcast_to(owners, value.shape).flat, value.sets().flat, strict=True):
        if element and reads:
            for owner in bitsets.members(element):
                found[owner].add(reads)


def _summands(value: Value, owners: Bitsets) -> list[tuple[Value, Bitsets]] | None:
    """Values whose sum it is, with their owners; None if it is no sum."""
    if value.origin is None or value.is_constant:
        return None
    eqn, inputs = value.origin
    name = eqn.primitive.name
    if name in ("add", "sub", "add_any"):
        return [(summand, owners) for summand in inputs]
    if name in ("neg", "copy", "stop_gradient", "reduce_precision", "convert_element_type"):
        return [(inputs[0], owners)] if _is_float(inputs[0]) and _is_float(value) else None
    if name == "mul" or name == "div":
        return _scaled(name, inputs, owners, value)
    if name == "reduce_sum" or (name == "reduce_and" and value.dtype == bool):
        spread = np.expand_dims(owners, tuple(eqn.params["axes"]))
        return [(inputs[0], np.broadcast_to(spread, inputs[0].shape))]
    if name == "and" and value.dtype == bool:
        return [(condition, owners) for condition in inputs]
    if name == "select_n":
        return _selected(inputs, owners)
    if name in MOVES:
        return [(inputs[0], _move_back(eqn, inputs[0], owners))]
    if name == "concatenate":
        axis = eqn.params["dimension"]
        cuts = np.cumsum([part.shape[axis] for part in inputs])[:-1]
        return list(zip(inputs, np.split(owners, cuts, axis), strict=True))
    return None


def _scaled(name: str, inputs: list[Value], owners: Bitsets, value: Value) -> list[tuple[Value, Bitsets]] | None:
    left, right = inputs
    if name == "mul" and _is_pure_constant(left):
        left, right = right, left
    if not _is_pure_constant(right):
        return None
    zeros = right.zeros()
    live = owners if zeros is None or name == "div" else np.where(np.broadcast_to(zeros, value.shape), 0, owners)
    return [(left, live)]


def _selected(inputs: list[Value], owners: Bitsets) -> list[tuple[Value, Bitsets]] | None:
    which, *cases = inputs
    if _is_pure_constant(which):
        chosen = np.broadcast_to(which.as_numpy().astype(int), owners.shape)
        return [(case, np.where(chosen == index, owners, 0)) for index, case in enumerate(cases)]
    if len(cases) == 2 and _is_pure_constant(cases[0]) and np.all(np.isneginf(cases[0].as_numpy().astype(float))):
        return [(which, owners), (cases[1], owners)]
    return None


def _move_back(eqn: Any, source: Value, owners: Bitsets) -> Bitsets:
    positions = rearrange(eqn, np.arange(int(np.prod(source.shape, dtype=int))).reshape(source.shape))
    back = np.zeros(int(np.prod(source.shape, dtype=int)), dtype=object)
    np.bitwise_or.at(back, positions.ravel(), owners.ravel())
    return back.reshape(source.shape)


def _unbroadcast(owners: Bitsets, shape: tuple[int, ...]) -> Bitsets:
    leading = tuple(range(owners.ndim - len(shape)))
    owners = bitsets.union_over(owners, leading) if leading else owners
    stretched = tuple(axis for axis, size in enumerate(shape) if size == 1 and owners.shape[axis] != 1)
    return bitsets.union_over(owners, stretched, keepdims=True) if stretched else owners


def _is_pure_constant(value: Value) -> bool:
    return value.is_constant and value.reads is None


def _is_float(value: Value) -> bool:
    return value.dtype is not None and jnp.issubdtype(value.dtype, jnp.floating)
