"""Primitives that act on each element by itself."""

from typing import Any

import numpy as np

from simformer_ppl.structure import bitsets
from simformer_ppl.structure.abstract_value import Value, all_zero, union_of
from simformer_ppl.structure.rules.registry import rule

_KEEP_ZERO = (
    "neg sin tan tanh sinh asin asinh atan atanh sqrt cbrt sign floor ceil round abs square convert_element_type "
    "expm1 log1p erf erf_inv copy copy_p real imag conj reduce_precision stop_gradient optimization_barrier "
    "nonbatchable nondifferentiable_backward device_put"
)
_UNARY = (
    "exp exp2 log log2 cos cosh acos acosh logistic rsqrt erfc digamma lgamma bessel_i0e bessel_i1e is_finite not "
    "population_count clz name one_minus_square"
)
_SUMS = "add sub add_any or xor max min"
_NARY = (
    "pow atan2 rem nextafter complex polygamma igamma igammac igamma_grad_a random_gamma_grad "
    "regularized_incomplete_beta zeta eq ne lt le gt ge eq_to lt_to le_to shift_left shift_right_arithmetic "
    "shift_right_logical clamp select_if_vmap polynomial"
)


@rule(_KEEP_ZERO)
def _keep_zero(flow: Any, eqn: Any, values: list[Value]) -> list[Value]:
    return [_follow(eqn, value, Value(value.shape, reads=value.reads, zero=value.zero)) for value in values]


@rule(_UNARY)
def _unary(flow: Any, eqn: Any, values: list[Value]) -> list[Value]:
    return [Value(values[0].shape, reads=values[0].reads)]


@rule("integer_pow")
def _integer_pow(flow: Any, eqn: Any, values: list[Value]) -> list[Value]:
    power = eqn.params["y"]
    reads = values[0].reads if power else None
    return [Value(values[0].shape, reads=reads, zero=values[0].zero if power > 0 else None)]


@rule(_NARY)
def _nary(flow: Any, eqn: Any, values: list[Value]) -> list[Value]:
    shape = eqn.outvars[0].aval.shape
    return [Value(shape, reads=union_of(values, shape))]


@rule(_SUMS)
def _zero_if_all_zero(flow: Any, eqn: Any, values: list[Value]) -> list[Value]:
    shape = eqn.outvars[0].aval.shape
    out = Value(shape, reads=union_of(values, shape), zero=all_zero(values, shape))
    out.origin = (eqn, values)
    return [out]


@rule("mul", "and")
def _zero_if_any_zero(flow: Any, eqn: Any, values: list[Value]) -> list[Value]:
    shape = eqn.outvars[0].aval.shape
    reads, zero = bitsets.union(*(value.sets() for value in values)), np.zeros(shape, bool)
    for value in values:
        mask = value.zeros()
        if mask is not None:  # the other factor no longer matters; why this one is zero still does
            reads = np.where(mask & ~zero, value.sets(), reads)
            zero |= mask
    out = Value(shape, reads=reads, zero=zero)
    out.origin = (eqn, values)
    return [out]


@rule("div")
def _div(flow: Any, eqn: Any, values: list[Value]) -> list[Value]:
    shape = eqn.outvars[0].aval.shape
    mask = values[0].zeros()
    zero = None if mask is None else np.broadcast_to(mask, shape)
    reads = bitsets.union(*(value.sets() for value in values))
    if zero is not None:
        reads = np.where(zero, values[0].sets(), reads)
    out = Value(shape, reads=reads, zero=zero)
    out.origin = (eqn, values)
    return [out]


@rule("select_n")
def _select_n(flow: Any, eqn: Any, values: list[Value]) -> list[Value]:
    which, *cases = values
    shape = eqn.outvars[0].aval.shape
    if not which.is_constant:
        out = Value(shape, reads=union_of(values, shape), zero=all_zero(cases, shape))
        out.origin = (eqn, values)
        return [out]
    chosen = np.broadcast_to(which.as_numpy().astype(int), shape)
    reads, zero = bitsets.empty(shape), np.zeros(shape, bool)
    for index, case in enumerate(cases):
        here = chosen == index
        if not here.any():
            continue
        reads = case.sets() if here.all() else np.where(here, case.sets(), reads)
        mask = case.zeros()
        if mask is not None:
            zero |= here & mask
    if which.reads is not None:
        reads = bitsets.union(reads, which.reads)
    out = Value(shape, reads=np.broadcast_to(reads, shape), zero=zero)
    out.origin = (eqn, values)
    return [out]


def _follow(eqn: Any, source: Value, out: Value) -> Value:
    # only these let a sum of factors through
    if eqn.primitive.name in ("convert_element_type", "neg", "copy", "stop_gradient", "reduce_precision", "real"):
        out.origin = (eqn, [source])
    return out
