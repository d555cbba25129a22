"""Which sites are data."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from simformer_ppl.structure.tracing import ModelTrace, trace_with_key


def observed_sites(
    model: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], trace: ModelTrace
) -> frozenset[str]:
    """Sites that carry observations, now or when the arguments that are None get simulated values.

    An argument is filled with the value of the site of its name, else with a dict of all values: this finds
    ``obs=y`` as well as ``obs=None if data is None else data["y"]``.
    """
    observed = frozenset(name for name, site in trace.random.items() if site.is_observed)
    if observed:
        return observed
    for filled_args, filled_kwargs in _filled_arguments(model, args, kwargs, trace):
        observed = _observed_with(model, filled_args, filled_kwargs, trace)
        if observed:
            return observed
    return frozenset()


def _filled_arguments(
    model: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], trace: ModelTrace
) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Arguments with more or fewer of the None filled: those that mean something else may break the model."""
    try:
        signature = inspect.signature(model)
        bound = signature.bind(*args, **kwargs)
    except (TypeError, ValueError):
        return
    bound.apply_defaults()
    missing = [name for name, value in bound.arguments.items() if value is None]
    named = [name for name in missing if name in trace.sites]
    choices = [missing, named, *([name] for name in missing if name not in named)]
    for choice in choices:
        if choice:
            filled = {name: _Placeholder(name if name in trace.sites else None) for name in choice}
            bound.arguments.update({name: filled.get(name, bound.arguments[name]) for name in bound.arguments})
            yield bound.args, bound.kwargs
            bound.arguments.update(dict.fromkeys(choice))


class _Placeholder:
    """Stands for the simulated value of a site, or for the dict of all of them."""

    def __init__(self, name: str | None):
        self.name = name

    def fill(self, values: dict[str, jax.Array]) -> Any:
        return values if self.name is None else values[self.name]


def _observed_with(
    model: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], trace: ModelTrace
) -> frozenset[str]:
    observed: set[str] = set()

    def run() -> None:
        values = {name: jnp.zeros(site.shape, site.dtype) for name, site in trace.sites.items()}

        def filled(value: Any) -> Any:
            return value.fill(values) if isinstance(value, _Placeholder) else value

        found, _ = trace_with_key(
            model, [filled(v) for v in args], {k: filled(v) for k, v in kwargs.items()}, jax.random.key(0)
        )
        observed.update(name for name, site in found.random.items() if site.is_observed)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            jax.eval_shape(run)
        except Exception:  # the argument was not for data after all
            return frozenset()
    return frozenset(observed) & frozenset(trace.sites)
