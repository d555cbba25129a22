"""Constant folding: equations whose inputs are all known."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from simformer_ppl.structure.abstract_value import Recipe, Value
from simformer_ppl.structure.rules.moves import MOVES, rearrange

# Small arrays are folded at once, with numpy: loop counters and predicates are asked for at every step, and a
# primitive bound through JAX compiles for every new shape.
SMALL = 64

_NUMPY: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "neg": np.negative,
    "max": np.maximum,
    "min": np.minimum,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "not": np.invert,
    "convert_element_type": np.asarray,
    "copy": np.asarray,
    "stop_gradient": np.asarray,
}


def fold(eqn: Any, values: Sequence[Value]) -> list[Value]:
    """Values of the outputs of an equation with known inputs, computed now where it is cheap, else when asked for."""
    recipe = Recipe(values, partial(_evaluate, eqn))
    outputs = [Value.of_recipe(v.aval.shape, v.aval.dtype, recipe, i) for i, v in enumerate(eqn.outvars)]
    if eqn.primitive.name in _FAST and all(v.is_evaluated and np.size(v.constant) <= SMALL for v in values):
        for output in outputs:
            _ = output.constant
    return outputs


def _evaluate(eqn: Any, arrays: list[Any]) -> list[Any]:
    name, aval = eqn.primitive.name, eqn.outvars[0].aval
    if name in _FAST and not any(_is_opaque(array) for array in arrays):
        arrays = [np.asarray(array) for array in arrays]
        with np.errstate(all="ignore"):
            if name in _NUMPY:
                return [np.asarray(_NUMPY[name](*arrays)).astype(aval.dtype)]
            if name in MOVES:
                return [rearrange(eqn, arrays[0])]
            if len(arrays) == 3:
                return [np.where(arrays[0], arrays[2], arrays[1])]
    with jax.ensure_compile_time_eval():
        operands = [array if _is_opaque(array) else jnp.asarray(array) for array in arrays]
        out = eqn.primitive.bind(*operands, **eqn.params)
    return list(out) if eqn.primitive.multiple_results else [out]


_FAST = {*_NUMPY, *MOVES, "select_n"}


def _is_opaque(array: Any) -> bool:
    dtype = getattr(array, "dtype", None)
    return dtype is not None and jax.dtypes.issubdtype(dtype, jax.dtypes.extended)
