"""Run the model again on drawn values: deterministic sites, replicated data, supports that depend on other sites."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PRNGKeyArray
from numpyro import handlers


@dataclass(frozen=True, eq=False)
class Replay:
    """The unconditioned model with some sites held at given values.

    Attributes
    ----------
    model, model_args, model_kwargs
        The NumPyro model and its arguments.
    """

    model: Callable
    model_args: tuple = ()
    model_kwargs: Mapping[str, Any] = field(default_factory=dict)

    def trace(self, rng_key: PRNGKeyArray, values: Mapping[str, Array]) -> dict[str, Any]:
        """Trace of one run; sites not in `values` are simulated."""
        held = handlers.substitute(handlers.uncondition(self.model), data=dict(values))
        return handlers.trace(handlers.seed(held, rng_key)).get_trace(*self.model_args, **self.model_kwargs)

    @partial(jax.jit, static_argnums=(0, 3))
    def sites(self, rng_key: PRNGKeyArray, values: Mapping[str, Array], names: tuple[str, ...]) -> dict[str, Array]:
        """Values of some sites.

        Parameters
        ----------
        rng_key
            Simulates what is not held.
        values
            Held sites, each with one leading axis of draws.
        names
            Sites asked: deterministic ones are recomputed, sample sites simulated.

        Returns
        -------
        Arrays with the same leading axis.
        """

        def run(key: PRNGKeyArray, row: Mapping[str, Array]) -> dict[str, Array]:
            trace = self.trace(key, row)
            return {name: trace[name]["value"] for name in names}

        count = next(iter(values.values())).shape[0]
        return jax.vmap(run)(jax.random.split(rng_key, count), dict(values))

    @partial(jax.jit, static_argnums=(0, 2))
    def inside(self, values: Mapping[str, Array], names: tuple[str, ...]) -> Bool[Array, " draws"]:
        """Whether every one of the named sites lies in its support given the other values.

        Parameters
        ----------
        values
            All token sites, each with one leading axis of draws.
        names
            Sites whose support depends on other sites.
        """

        def run(row: Mapping[str, Array]) -> Bool[Array, ""]:
            trace = self.trace(jax.random.key(0), row)
            checks = [jnp.all(trace[name]["fn"].support(row[name])) for name in names]
            return jnp.all(jnp.stack(checks))

        return jax.vmap(run)(dict(values))
