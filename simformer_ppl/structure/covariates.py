"""Models some of whose arguments are drawn: covariates, which vary between datasets and are only ever given."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions import constraints

type Covariate = dist.Distribution | Callable[[PRNGKeyArray], Array]
"""Where a covariate is drawn from."""


class WithCovariates:
    """A model that draws some of its arguments, each as a sample site of the argument's name.

    What is drawn only says for which designs the network is trained: covariates are given in every question.

    Parameters
    ----------
    model
        A NumPyro model.
    covariates
        By argument, a distribution or a function of a key.
    dims
        Names of the axes, by argument. Axes of a distribution's batch, or all of a function's result, that have names
        lie in plates of these names, so that they can be told to be exchangeable along with the model's.

    Raises
    ------
    ValueError
        If the model has no such argument, or what is to be drawn from is neither distribution nor function.
    """

    def __init__(self, model: Callable, covariates: Mapping[str, Covariate], dims: Mapping[str, Sequence[str]]):
        signature = inspect.signature(model)
        for name, drawn in covariates.items():
            if name not in signature.parameters:
                raise ValueError(
                    f"covariates: expected arguments of the model, among {list(signature.parameters)}, got {name!r}."
                )
            if not isinstance(drawn, dist.Distribution) and (isinstance(drawn, type) or not callable(drawn)):
                raise ValueError(
                    f"covariates: expected a NumPyro distribution or a function of a key for {name!r}, got {drawn!r}."
                )
        self.model, self.names = model, tuple(covariates)
        self.laws = {
            name: drawn if isinstance(drawn, dist.Distribution) else FunctionOfKey(name, drawn, len(dims.get(name, ())))
            for name, drawn in covariates.items()
        }
        self._plates = {name: tuple(dims.get(name, ())) for name in covariates}
        self._check_plates(dims)
        left = [parameter for name, parameter in signature.parameters.items() if name not in covariates]
        self.__signature__ = signature.replace(parameters=left)

    def _check_plates(self, dims: Mapping[str, Sequence[str]]) -> None:
        sizes: dict[str, tuple[str, int]] = {}
        for name, law in self.laws.items():
            for plate, size in zip(dims.get(name, ()), law.batch_shape, strict=False):
                other, had = sizes.setdefault(plate, (name, size))
                if had != size:
                    raise ValueError(
                        f"covariates: {name!r} has {size} elements along {plate!r}, and {other!r} has {had}. Expected "
                        "as many."
                    )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Draw the covariates, then run the model."""
        for name in set(self.names) & set(kwargs):
            raise ValueError(f"covariates: {name!r} is drawn. Expected no value for it in model_kwargs.")
        given = self.__signature__.bind(*args, **kwargs).arguments
        bound = inspect.signature(self.model).bind_partial()
        bound.arguments.update({**given, **{name: self._draw(name) for name in self.names}})
        return self.model(*bound.args, **bound.kwargs)

    def _draw(self, name: str) -> Array:
        law = self.laws[name]
        axes = len(law.batch_shape)
        with ExitStack() as plates:
            for axis, (plate, size) in enumerate(zip(self._plates[name], law.batch_shape, strict=False)):
                plates.enter_context(numpyro.plate(plate, size, dim=axis - axes))
            return numpyro.sample(name, law)


class FunctionOfKey(dist.Distribution):
    """What a function of a key returns; of no known density, which cancels where the value is given."""

    pytree_aux_fields = ("_draw", "_support", "_dtype")

    def __init__(self, name: str, draw: Callable[[PRNGKeyArray], Array], batch_ndim: int):
        compiled = jax.jit(draw)
        result = jax.eval_shape(compiled, jax.random.key(0))
        if not isinstance(result, jax.ShapeDtypeStruct):
            raise ValueError(
                f"covariates: expected a function of a key for {name!r} that returns an array, got {result!r}."
            )
        # traced once: what a function draws without its key is the same for ever
        if result.size and np.array_equal(*(compiled(jax.random.key(seed)) for seed in (0, 1))):
            raise ValueError(
                f"covariates: the function for {name!r} returns the same for two keys. Expected one that draws by the "
                "key it is given (jax.random), not by NumPy's generator."
            )
        self._draw, self._dtype = draw, result.dtype
        self._support = _support(result.dtype)
        super().__init__(result.shape[:batch_ndim], result.shape[batch_ndim:], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """Any number, or any whole one."""
        return constraints.independent(self._support, len(self.event_shape))

    def sample(self, key: PRNGKeyArray, sample_shape: tuple[int, ...] = ()) -> Array:
        """Call the function."""
        if not sample_shape:
            return jnp.asarray(self._draw(key), self._dtype)
        return jax.vmap(self._draw)(jax.random.split(key, sample_shape).reshape(-1)).reshape(
            *sample_shape, *self.batch_shape, *self.event_shape
        )

    def log_prob(self, value: Array) -> Float[Array, "*batch"]:
        """Zero."""
        return jnp.zeros(jnp.shape(value)[: jnp.ndim(value) - len(self.event_shape)])


def _support(dtype: Any) -> constraints.Constraint:
    if jnp.issubdtype(dtype, jnp.floating):
        return constraints.real
    return (
        constraints.boolean
        if jnp.issubdtype(dtype, jnp.bool_)
        else constraints.integer_greater_than(jnp.iinfo(jnp.int32).min)
    )
