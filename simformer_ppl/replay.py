"""Run the model, many times over: on nothing (simulations), or on drawn values (deterministic sites, replicates)."""

import inspect
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import CodeType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from simformer_ppl.row_counts import rows_of_program
from simformer_ppl.structure.running import asks_for_values, run
from simformer_ppl.structure.tracing import elementary, is_factor

OTHERS = "sites that are left out"

FEWEST_ROWS = 32
"""Of one call of a vectorised model."""

_NUMBERS = (np.ndarray, jax.Array, int, float)
_ONE_AT_A_TIME = threading.RLock()
"""NumPyro's handlers are one stack for all threads. What is compiled meets none, and runs side by side."""


@dataclass(frozen=True, eq=False)
class Replay:
    """The unconditioned model with some sites held at given values.

    A model that asks for the values of random sites in Python, and so cannot be vectorised, is run row by row.

    Attributes
    ----------
    model, model_args, model_kwargs
        The NumPyro model and its arguments.
    """

    model: Callable
    model_args: tuple = ()
    model_kwargs: Mapping[str, Any] = field(default_factory=dict)

    def sites(self, rng_keys: PRNGKeyArray, values: Mapping[str, Array], names: tuple[str, ...]) -> dict[str, Array]:
        """Values of some sites.

        Parameters
        ----------
        rng_keys
            One for each row: simulates what is not held.
        values
            Held sites, each with one leading axis of rows.
        names
            Sites asked: deterministic ones are recomputed, sample sites simulated.

        Returns
        -------
        Arrays with the leading axis of rows.
        """
        return _over_rows(partial(self._sites_of_rows, names=names), self._sites_of_row, rng_keys, dict(values), names)

    def simulations(
        self, rng_keys: PRNGKeyArray, names: tuple[str, ...], values: Mapping[str, Array] | None = None
    ) -> tuple[dict[str, Array], dict[str, Bool[Array, " rows"]]]:
        """As :meth:`sites`, and what failed; of few rows, no more are run than asked.

        Returns
        -------
        Arrays with the leading axis of rows; and for every one of the sites, whether it is discrete, so that its draws
        cannot be NaN, and a parameter of its law is; for the discrete sites that are not asked, under :data:`OTHERS`.
        """
        rows = partial(self._simulations_of_rows, names=names)
        padded = len(rng_keys) > FEWEST_ROWS
        return _over_rows(rows, self._simulation_of_row, rng_keys, dict(values or {}), names, padded=padded)

    def identity(self) -> tuple[str, list[Any]]:
        """The model's own code, and the numbers among its arguments: equal for equal models, as far as these tell."""
        model, laws = getattr(self.model, "model", self.model), getattr(self.model, "laws", {})
        code, held = _parts(model)
        kinds = [f"{name} {type(law).__name__}" for name, law in laws.items()]
        leaves = jax.tree.leaves((self.model_args, dict(self.model_kwargs), laws, held))
        return str(code + kinds), [leaf for leaf in leaves if isinstance(leaf, _NUMBERS)]

    def simulation(
        self, rng_key: PRNGKeyArray, names: tuple[str, ...]
    ) -> tuple[dict[str, Array], dict[str, Bool[Array, ""]]]:
        """As :meth:`simulations`, of one run of the model, which is not compiled."""
        return self._simulation_of_row(rng_key, {}, names)

    def inside(self, values: Mapping[str, Array], names: tuple[str, ...]) -> Bool[Array, " rows"]:
        """Whether every one of the named sites lies in its support given the other values.

        Parameters
        ----------
        values
            All token sites, each with one leading axis of rows.
        names
            Sites whose support depends on other sites.
        """
        keys = jax.random.split(jax.random.key(0), next(iter(values.values())).shape[0])
        rows = partial(self._inside_of_rows, names=names)
        return _over_rows(rows, self._inside_of_row, keys, dict(values), names)

    def log_probs(
        self, values: Mapping[str, Array], names: tuple[str, ...], rng_key: PRNGKeyArray | None = None
    ) -> dict[str, Float[Array, "rows ..."]]:
        """Log densities of some sites given the other values, element by element (masks and scales do not count).

        Parameters
        ----------
        values
            All token sites, each with one leading axis of rows.
        names
            The sites.
        rng_key
            Simulates what is not held.

        Returns
        -------
        Arrays of the rows and the batch shape of each distribution, without ``to_event``.
        """
        rng_key = jax.random.key(0) if rng_key is None else rng_key
        keys = jax.random.split(rng_key, next(iter(values.values())).shape[0])
        rows = partial(self._log_probs_of_rows, names=names)
        return _over_rows(rows, self._log_probs_of_row, keys, dict(values), names)

    def log_density(self, values: Mapping[str, Array]) -> Float[Array, ""]:
        """Log density of one simulation: of all sample sites, as they are simulated (masks and scales do not count).

        Parameters
        ----------
        values
            Every sample site.

        Raises
        ------
        ValueError
            If the model has sample sites that are not among the values.
        """
        total = jnp.zeros(())
        for name, site in self._trace(jax.random.key(0), values).items():
            if site["type"] != "sample" or is_factor(site["fn"]):
                continue
            if name not in values:
                raise ValueError(f"Site '{name}': expected a value for every sample site.")
            total = total + elementary(site["fn"]).log_prob(values[name]).sum()
        return total

    def array_arguments(self) -> dict[str, np.ndarray]:
        """Arguments of the model that are arrays or numbers, by name."""
        bound = inspect.signature(self.model).bind(*self.model_args, **self.model_kwargs).arguments
        arrays = {name: np.asarray(value) for name, value in bound.items() if isinstance(value, _NUMBERS)}
        return {name: array for name, array in arrays.items() if array.dtype.kind in "fiu"}

    def _trace(self, rng_key: PRNGKeyArray, values: Mapping[str, Array]) -> dict[str, Any]:
        with _ONE_AT_A_TIME:
            return run(self.model, self.model_args, self.model_kwargs, rng_key, held=values)[0]

    def _sites_of_row(
        self, rng_key: PRNGKeyArray, row: Mapping[str, Array], names: tuple[str, ...]
    ) -> dict[str, Array]:
        trace = self._trace(rng_key, row)
        return {name: trace[name]["value"] for name in names}

    def _simulation_of_row(
        self, rng_key: PRNGKeyArray, row: Mapping[str, Array], names: tuple[str, ...]
    ) -> tuple[dict[str, Array], dict[str, Bool[Array, ""]]]:
        trace = self._trace(rng_key, row)
        undefined = dict.fromkeys([*names, OTHERS], jnp.zeros((), bool))
        for name, site in trace.items():
            if site["type"] == "sample" and jnp.asarray(site["value"]).dtype.kind in "iub":
                where = name if name in names else OTHERS
                undefined[where] |= _is_undefined(site["fn"])
        return {name: trace[name]["value"] for name in names}, undefined

    def _inside_of_row(
        self, rng_key: PRNGKeyArray, row: Mapping[str, Array], names: tuple[str, ...]
    ) -> Bool[Array, ""]:
        trace = self._trace(rng_key, row)
        return jnp.all(jnp.stack([jnp.all(_law(trace, name).support(row[name])) for name in names]))

    def _log_probs_of_row(
        self, rng_key: PRNGKeyArray, row: Mapping[str, Array], names: tuple[str, ...]
    ) -> dict[str, Float[Array, "..."]]:
        trace = self._trace(rng_key, row)
        return {name: elementary(_law(trace, name)).log_prob(row[name]) for name in names}

    @partial(jax.jit, static_argnums=0, static_argnames="names")
    def _log_probs_of_rows(self, keys: PRNGKeyArray, values: Mapping[str, Array], names: tuple[str, ...]) -> Any:
        return jax.vmap(partial(self._log_probs_of_row, names=names))(keys, values)

    @partial(jax.jit, static_argnums=0, static_argnames="names")
    def _sites_of_rows(self, keys: PRNGKeyArray, values: Mapping[str, Array], names: tuple[str, ...]) -> Any:
        return jax.vmap(partial(self._sites_of_row, names=names))(keys, values)

    @partial(jax.jit, static_argnums=0, static_argnames="names")
    def _simulations_of_rows(self, keys: PRNGKeyArray, values: Mapping[str, Array], names: tuple[str, ...]) -> Any:
        return jax.vmap(partial(self._simulation_of_row, names=names))(keys, values)

    @partial(jax.jit, static_argnums=0, static_argnames="names")
    def _inside_of_rows(self, keys: PRNGKeyArray, values: Mapping[str, Array], names: tuple[str, ...]) -> Any:
        return jax.vmap(partial(self._inside_of_row, names=names))(keys, values)


def _law(trace: dict[str, Any], name: str) -> Any:
    """Distribution of a site; that of its observed part, where NumPyro has split it by an ``obs_mask``."""
    return trace[name if "fn" in trace[name] and trace[name]["type"] == "sample" else f"{name}_observed"]["fn"]


def _is_undefined(law: Any) -> Bool[Array, ""]:
    """Whether a parameter of a law is NaN; what is masked may have any."""
    if is_factor(law) or isinstance(law, dist.MaskedDistribution):
        return jnp.zeros((), bool)
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(law)]
    missing = [jnp.isnan(leaf).any() for leaf in leaves if leaf.dtype.kind == "f"]
    return jnp.stack(missing).any() if missing else jnp.zeros((), bool)


def _in_chunks(vectorised: Callable, keys: PRNGKeyArray, values: dict[str, Array]) -> Any:
    total = len(keys)
    if not total or any(isinstance(array, jax.core.Tracer) for array in (keys, *values.values())):
        return vectorised(keys, values)
    size = rows_of_program(total, FEWEST_ROWS, _most_rows())
    chosen = np.minimum(np.arange(-(-total // size) * size), total - 1).reshape(-1, size)
    parts = [
        vectorised(keys[rows], {name: np.asarray(value)[rows] for name, value in values.items()}) for rows in chosen
    ]
    return jax.tree.map(lambda *arrays: jnp.concatenate(arrays)[:total], *parts)


def _most_rows() -> int:
    return 2_048 if jax.default_backend() == "cpu" else 8_192


def _over_rows(
    vectorised: Callable,
    single: Callable,
    keys: PRNGKeyArray,
    values: dict[str, Array],
    names: tuple[str, ...],
    *,
    padded: bool = True,
) -> Any:
    try:
        return _in_chunks(vectorised, keys, values) if padded else vectorised(keys, values)
    except Exception as error:
        if not asks_for_values(error):
            raise
        rows = [single(keys[i], jax.tree.map(lambda v: v[i], values), names) for i in range(len(keys))]  # noqa: B023
        return jax.tree.map(lambda *parts: jnp.stack(parts), *rows)


def _parts(model: Any, seen: tuple[Any, ...] = ()) -> tuple[list[str], list[Any]]:
    """Code of a model, and what it holds: arguments of a partial, variables of a closure, attributes of an object."""
    if isinstance(model, partial):
        code, held = _parts(model.func, seen)
        return code, [*held, model.args, model.keywords]
    if not hasattr(model, "__code__"):
        call = type(model).__call__
        code = [_content(call.__code__)] if hasattr(call, "__code__") else []
        return code, [vars(model)] if hasattr(model, "__dict__") else []
    cells = [_cell(cell) for cell in model.__closure__ or ()]
    seen = (*seen, model)  # functions may hold each other
    inner = [_parts(cell, seen) for cell in cells if hasattr(cell, "__code__") and cell not in seen]
    held = [cells, model.__defaults__, model.__kwdefaults__, *(part for _, parts in inner for part in parts)]
    return [_content(model.__code__), *(text for codes, _ in inner for text in codes)], held


def _cell(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _content(code: CodeType) -> str:
    """Instructions, names and constants of a function, those of functions within it too."""
    return f"{code.co_code.hex()} {code.co_names} {[_constant(each) for each in code.co_consts]}"


def _constant(value: Any) -> str:
    if isinstance(value, CodeType):
        return _content(value)
    return str(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)
