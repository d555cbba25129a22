"""What a program computes from constants alone, taken out of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend import core


def split_known(jaxpr: core.ClosedJaxpr) -> tuple[list[Any], Callable[[Sequence[Any], Sequence[Any]], list[Any]]]:
    """Evaluate the equations that read no input.

    Parameters
    ----------
    jaxpr
        What ``jax.make_jaxpr`` returns.

    Returns
    -------
    The known arrays that the other equations read: constants, and what is computed from constants. And the other
    equations as a function of ``(known arrays, inputs)``.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> known, rest = split_known(jax.make_jaxpr(lambda x: x * jnp.cumsum(jnp.ones(3)))(1.0))
    >>> [array.tolist() for array in known]
    [[1.0, 2.0, 3.0]]
    >>> rest([2 * known[0]], [10.0])[0].tolist()
    [20.0, 40.0, 60.0]
    """
    known: dict[Any, Any] = dict(zip(jaxpr.jaxpr.constvars, jaxpr.consts, strict=True))
    left = []
    for eqn in jaxpr.jaxpr.eqns:
        if eqn.effects or not all(_is_literal(var) or var in known for var in eqn.invars):
            left.append(eqn)
            continue
        with jax.ensure_compile_time_eval():
            _apply(eqn, known)
    reads = [var for eqn in left for var in eqn.invars] + list(jaxpr.jaxpr.outvars)
    frontier = list(dict.fromkeys(var for var in reads if not _is_literal(var) and var in known))

    def rest(arrays: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
        environment = dict(zip([*frontier, *jaxpr.jaxpr.invars], [*arrays, *inputs], strict=True))
        for eqn in left:
            _apply(eqn, environment)
        return [_read(var, environment) for var in jaxpr.jaxpr.outvars]

    return [known[var] for var in frontier], rest


def _apply(eqn: Any, environment: dict[Any, Any]) -> None:
    operands = [_read(var, environment) for var in eqn.invars]
    results = eqn.primitive.bind(*operands, **eqn.primitive.get_bind_params(eqn.params))
    results = results if eqn.primitive.multiple_results else [results]
    environment.update(zip(eqn.outvars, results, strict=True))


def _is_literal(var: Any) -> bool:
    return isinstance(var, core.Literal)


def _read(var: Any, environment: dict[Any, Any]) -> Any:
    return var.val if _is_literal(var) else environment[var]
