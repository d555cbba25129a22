"""Products, Cholesky factors and triangular solves that see structural zeros; other decompositions are dense."""

from math import prod
from typing import Any

import numpy as np
from jaxtyping import Bool

from simformer_ppl.structure import bitsets
from simformer_ppl.structure.abstract_value import Value
from simformer_ppl.structure.bitsets import Bitsets
from simformer_ppl.structure.rules.registry import rule

# Above this many elementary steps, factorisations use running unions instead of the symbolic algorithm.
_SYMBOLIC = 3_000_000


@rule("dot_general")
def _dot_general(flow: Any, eqn: Any, values: list[Value]) -> list[Value]:
    (contract, batch), shape = eqn.params["dimension_numbers"], eqn.outvars[0].aval.shape
    (a, a_live), (b, b_live) = (
        _as_batched_matrix(value, tuple(batch[side]), tuple(contract[side])) for side, value in enumerate(values)
    )
    if a_live is None and b_live is None:
        rows, columns = bitsets.union_over(a, (2,)), bitsets.union_over(b, (2,))
        return [Value(shape, reads=bitsets.union(rows[:, :, None], columns[:, None, :]).reshape(shape))]
    a_live = np.ones(a.shape, bool) if a_live is None else a_live
    b_live = np.ones(b.shape, bool) if b_live is None else b_live
    # where a factor is zero the other does not matter; why it is zero does
    rows, columns = (bitsets.union_over(np.where(x_live, 0, x), (2,)) for x, x_live in ((a, a_live), (b, b_live)))
    sets = np.array(bitsets.union(rows[:, :, None], columns[:, None, :]), dtype=object)
    nonzero = np.zeros(sets.shape, bool)
    for k in range(a.shape[2]):
        where = np.nonzero(a_live[:, :, None, k] & b_live[:, None, :, k])
        batch_index, row, column = where
        if row.size:
            sets[where] |= np.bitwise_or(a[batch_index, row, k], b[batch_index, column, k])
            nonzero[where] = True
    return [Value(shape, reads=sets.reshape(shape), zero=~nonzero.reshape(shape))]


def _as_batched_matrix(
    value: Value, batch: tuple[int, ...], contract: tuple[int, ...]
) -> tuple[Bitsets, Bool[np.ndarray, "batch rows k"] | None]:
    """Sets as (batch, free, contracted), and where they are not zero (None: nowhere known to be)."""
    free = tuple(axis for axis in range(len(value.shape)) if axis not in batch and axis not in contract)
    groups = [prod(value.shape[axis] for axis in axes) for axes in (batch, free, contract)]
    order = (*batch, *free, *contract)
    zero = value.zeros()
    live = None if zero is None else ~zero.transpose(order).reshape(groups)
    return value.sets().transpose(order).reshape(groups), live


@rule("cholesky")
def _cholesky(flow: Any, eqn: Any, values: list[Value]) -> list[Value]:
    """Symbolic factorisation: fill-in only where a row and a column share an earlier nonzero."""
    value, n = values[0], values[0].shape[-1]
    sets, live = _batched(value)
    if sets.shape[0] * n**3 > _SYMBOLIC:
        return [_leading_blocks(value, sets)]
    factor = np.tril(np.ones((n, n), bool)) & live
    out = np.where(factor, sets, 0)
    for j in range(n):
        meet = factor[:, j:, :j] & factor[:, j : j + 1, :j]
        both = bitsets.union(out[:, j:, :j], out[:, j : j + 1, :j])
        column = bitsets.union(out[:, j:, j], bitsets.union_where(both, meet, 2))
        factor[:, j:, j] |= meet.any(2)
        factor[:, j, j] = True
        column = bitsets.union(column, column[:, :1])  # every entry is divided by the pivot
        out[:, j:, j] = np.where(factor[:, j:, j], column, 0)
    return [Value(value.shape, reads=out.reshape(value.shape), zero=~factor.reshape(value.shape))]


def _leading_blocks(value: Value, sets: Bitsets) -> Value:
    rows = bitsets.running_union(bitsets.running_union(sets, 1), 2)
    block = np.diagonal(rows, axis1=1, axis2=2)[:, :, None]
    return Value(value.shape, reads=np.broadcast_to(block, sets.shape).reshape(value.shape))


@rule("triangular_solve")
def _triangular_solve(flow: Any, eqn: Any, values: list[Value]) -> list[Value]:
    params, (matrix, target) = eqn.params, values
    n, (sets, live) = matrix.shape[-1], _batched(matrix)
    right, right_live = _batched(target)
    transposed = params["transpose_a"]
    if not params["left_side"]:  # x A = b  is  A' x' = b'
        right, right_live, transposed = right.swapaxes(1, 2), right_live.swapaxes(1, 2), not transposed
    if transposed:
        sets, live = sets.swapaxes(1, 2), live.swapaxes(1, 2)
    forward = params["lower"] != transposed
    order = list(range(n)) if forward else list(range(n - 1, -1, -1))
    sets, live = sets[:, order][:, :, order], live[:, order][:, :, order]
    unit = params["unit_diagonal"]
    out, out_live = _forward_substitution(sets, live, right[:, order], right_live[:, order], unit)
    out, out_live = out[:, order], out_live[:, order]  # the order is its own inverse
    if not params["left_side"]:
        out, out_live = out.swapaxes(1, 2), out_live.swapaxes(1, 2)
    return [Value(target.shape, reads=out.reshape(target.shape), zero=~out_live.reshape(target.shape))]


def _forward_substitution(
    sets: Bitsets,
    live: Bool[np.ndarray, "batch n n"],
    right: Bitsets,
    right_live: Bool[np.ndarray, "batch n m"],
    unit_diagonal: bool,
) -> tuple[Bitsets, Bool[np.ndarray, "batch n m"]]:
    """Solve a lower-triangular system, row by row."""
    n = sets.shape[1]
    out, out_live = np.array(right, dtype=object), right_live.copy()
    if right.size * n > _SYMBOLIC:
        rows = bitsets.running_union(bitsets.union_over(np.where(np.tril(np.ones((n, n), bool)), sets, 0), (2,)), 1)
        return bitsets.union(bitsets.running_union(out, 1), rows[:, :, None]), np.ones(out.shape, bool)
    for i in range(n):
        meet = live[:, i, :i, None] & out_live[:, :i]
        terms = bitsets.union(out[:, :i], sets[:, i, :i, None])
        row = bitsets.union(out[:, i], bitsets.union_where(terms, meet, 1))
        out_live[:, i] |= meet.any(1)
        row = row if unit_diagonal else bitsets.union(row, sets[:, i, i, None])
        out[:, i] = np.where(out_live[:, i], row, 0)
    return out, out_live


@rule("lu eigh eig svd qr geqrf householder_product schur hessenberg tridiagonal tridiagonal_solve")
def _dense_per_matrix(flow: Any, eqn: Any, values: list[Value]) -> list[Value]:
    """Every output of one matrix of a batch reads the whole of that matrix."""
    batch = values[0].shape[:-2]
    per_matrix = bitsets.empty(batch)
    for value in values:
        trailing = tuple(range(len(batch), len(value.shape)))
        per_matrix = bitsets.union(per_matrix, bitsets.union_over(value.sets(), trailing))
    return [
        Value(v.aval.shape, reads=np.broadcast_to(_with_axes(per_matrix, v.aval.ndim), v.aval.shape))
        for v in eqn.outvars
    ]


@rule("fft")
def _fourier(flow: Any, eqn: Any, values: list[Value]) -> list[Value]:
    """Every output reads the whole of the transformed axes, which are the last."""
    value = values[0]
    axes = tuple(range(len(value.shape) - len(eqn.params["fft_lengths"]), len(value.shape)))
    shape = eqn.outvars[0].aval.shape
    return [Value(shape, reads=np.broadcast_to(bitsets.union_over(value.sets(), axes, keepdims=True), shape))]


@rule("unvmap_any unvmap_all unvmap_max")
def _dense(flow: Any, eqn: Any, values: list[Value]) -> list[Value]:
    return flow.dense(eqn, values)


@rule(
    "random_bits random_split random_fold_in random_seed random_wrap random_unwrap random_clone threefry2x32",
    "random_gamma random_poisson rng_bit_generator",
)
def _random(flow: Any, eqn: Any, values: list[Value]) -> list[Value]:
    return flow.dense(eqn, values)


def _with_axes(sets: Bitsets, ndim: int) -> Bitsets:
    return sets.reshape(sets.shape + (1,) * (ndim - sets.ndim))


def _batched(value: Value) -> tuple[Bitsets, Bool[np.ndarray, "batch n m"]]:
    shape = (-1, *value.shape[-2:])
    zero = value.structural_zeros()
    live = np.ones(value.shape, bool) if zero is None else ~zero
    return value.sets().reshape(shape), live.reshape(shape)
