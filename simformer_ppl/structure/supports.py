"""Static supports: a constraint with concrete parameters that encloses every value of a site."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from numpyro.distributions import biject_to, constraints
from numpyro.distributions.constraints import Constraint

from simformer_ppl.structure.abstract_value import Value

_LOWER_BOUNDED = (constraints.greater_than, constraints.greater_than_eq)
_UPPER_BOUNDED = (constraints.less_than, constraints.less_than_eq)
_INTERVALS = (constraints.interval, constraints.open_interval)
_integers = constraints.integer_greater_than(np.iinfo(np.int32).min)


def base_constraint(constraint: Constraint) -> Constraint:
    """Strip ``independent``, also the one that ``real_vector`` and the like are made of."""
    while hasattr(constraint, "base_constraint"):
        constraint = constraint.base_constraint
    return constraint


def acts_per_scalar(constraint: Constraint) -> bool:
    """Whether the constraint holds if it holds for each scalar."""
    return base_constraint(constraint).event_dim == 0


def static_support(constraint: Constraint, parameters: Sequence[Value]) -> tuple[Constraint, bool]:
    """Concrete constraint that encloses an abstract one.

    Parameters
    ----------
    constraint
        As the distribution has it, with traced parameters.
    parameters
        What is known of its pytree leaves.

    Returns
    -------
    The constraint, and whether it is exact. Where it acts per scalar it is the constraint of a scalar.
    """
    treedef = jax.tree.structure(constraint)
    known = [value.as_numpy() if value.is_constant else None for value in parameters]
    if all(array is not None for array in known):
        exact = jax.tree.unflatten(treedef, known)
        return (base_constraint(exact) if acts_per_scalar(exact) else exact), True
    # None is an empty pytree: a stand-in marks what is unknown
    marked = jax.tree.unflatten(treedef, [_UNKNOWN if array is None else array for array in known])
    enclosing = _enclosing(base_constraint(marked))
    outer_dim = constraint.event_dim - enclosing.event_dim
    keep_outer = outer_dim > 0 and not acts_per_scalar(enclosing)
    return (constraints.independent(enclosing, outer_dim) if keep_outer else enclosing), False


def unconstrained_shape(constraint: Constraint, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of the tokens of a value: that of its unconstrained image.

    Raises
    ------
    NotImplementedError
        If there is no map to unconstrained space.
    """
    if acts_per_scalar(constraint):
        return shape
    if isinstance(base_constraint(constraint), constraints.multinomial):
        return (*shape[:-1], shape[-1] - 1)
    return tuple(biject_to(constraint).inverse_shape(shape))


def describe(constraint: Constraint) -> str:
    """Short text such as ``interval(0, 1)``."""
    name = type(constraint).__name__.lstrip("_")
    if isinstance(constraint, constraints.independent):
        return describe(constraint.base_constraint)
    leaves = jax.tree.leaves(constraint) if type(constraint) in _WITH_BOUNDS else []
    bounds = ", ".join(_describe_bound(np.asarray(leaf)) for leaf in leaves)
    return _snake(name) + (f"({bounds})" if bounds else "")


class _Unknown:
    """Marks a parameter that depends on other sites."""


_UNKNOWN = _Unknown()
_WITH_BOUNDS = {
    *_LOWER_BOUNDED,
    *_UPPER_BOUNDED,
    *_INTERVALS,
    constraints.integer_interval,
    constraints.integer_greater_than,
    constraints.multinomial,
}


def _enclosing(constraint: Constraint) -> Constraint:
    lower = _known(getattr(constraint, "lower_bound", None))
    upper = _known(getattr(constraint, "upper_bound", None))
    if isinstance(constraint, constraints.multinomial):
        return constraints.nonnegative_integer
    if isinstance(constraint, constraints.integer_interval):
        return _integers if lower is None else constraints.integer_greater_than(lower)
    if constraint.is_discrete:
        return _integers
    if isinstance(constraint, _INTERVALS):
        if lower is not None:
            return constraints.greater_than_eq(lower)
        return constraints.real if upper is None else constraints.less_than_eq(upper)
    return constraints.real


def _known(parameter: Any) -> Any:
    return None if isinstance(parameter, _Unknown) else parameter


def _describe_bound(bound: np.ndarray) -> str:
    if bound.size == 0:
        return "[]"
    low, high = bound.min(), bound.max()
    return f"{low:g}" if low == high else f"{low:g}..{high:g}"


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
