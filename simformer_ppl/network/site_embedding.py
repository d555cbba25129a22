"""Networks of the user that read a site as a whole: an image, a long series."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from simformer_ppl.network.static_array import StaticArray


@dataclass(frozen=True, eq=False)
class Embedding:
    """A module from a site's array to tokens, in parts.

    Attributes
    ----------
    program
        What is left of the module without its weights.
    weights
        That it starts from.
    num_tokens, num_features
        Shape of what it returns.
    """

    program: "Program"
    weights: list[Array]
    num_tokens: int
    num_features: int


@dataclass(frozen=True)
class Program:
    """A module without its weights; hashable, as the static part of another module must be.

    Attributes
    ----------
    graph, weights, held
        Static part, and where its weights and its other arrays belong.
    keys
        The other arrays: streams of random numbers, of which it makes no use.
    """

    graph: nnx.GraphDef
    weights: Any
    held: Any
    keys: tuple[StaticArray, ...]

    @classmethod
    def of(cls, module: nnx.Module) -> tuple["Program", list[Array]]:
        """The two parts of a module."""
        graph, *states = nnx.split(module, nnx.Param, nnx.RngState)
        (leaves, treedef), (others, places) = map(jax.tree.flatten, states)
        return cls(graph, treedef, places, tuple(StaticArray.of(_numbers(each)) for each in others)), leaves

    def __call__(self, weights: list[Array], value: Array, seed: int = 0) -> Any:
        """Call the module on a value, with other random numbers if a seed is told."""
        held = [_array(each.array, seed) for each in self.keys]
        module = nnx.merge(self.graph, jax.tree.unflatten(self.weights, weights), jax.tree.unflatten(self.held, held))
        return module(value)


class SiteEmbedding(nnx.Module):
    """What a module says of a site, as vectors of the tokens that stand for it.

    Parameters
    ----------
    embedding
        The module.
    tokens
        Which these are.
    width
        Size of a token's vector.
    rngs
        Source of the initial weights.
    """

    def __init__(self, embedding: Embedding, tokens: slice, width: int, rngs: nnx.Rngs):
        self.program = embedding.program
        self.weights = nnx.List([nnx.Param(jnp.asarray(each)) for each in embedding.weights])
        scale = embedding.num_features**-0.5
        self.out = nnx.Param(scale * jax.random.normal(rngs.params(), (embedding.num_features, width)))
        self.tokens = tokens.start, tokens.stop

    def __call__(self, value: Float[Array, "batch *shape"]) -> Float[Array, "batch some_tokens width"]:
        """Read one value for each sequence."""
        weights = [each[...] for each in self.weights]
        said = jax.vmap(lambda each: self.program(weights, each))(value)
        return said.reshape(len(value), self.tokens[1] - self.tokens[0], -1) @ self.out[...]

    def add(
        self, tokens: Float[Array, "batch tokens width"], said: Float[Array, "batch some_tokens width"]
    ) -> Float[Array, "batch tokens width"]:
        """Add what was said to the tokens of the site."""
        return tokens.at[:, self.tokens[0] : self.tokens[1]].add(said)


def read_embedding(name: str, module: Any, shape: tuple[int, ...]) -> Embedding:
    """Find out what a module makes of a site.

    Parameters
    ----------
    name
        Of the site.
    module
        The NNX module.
    shape
        Of the site.

    Raises
    ------
    ValueError
        If it is no NNX module, has a state that training cannot keep, makes use of random numbers, fails, or returns no
        array of one or two axes.
    """
    if not isinstance(module, nnx.Module):
        raise ValueError(f"embeddings: expected a flax.nnx.Module for '{name}', got {type(module).__name__}.")
    kept = nnx.to_flat_state(nnx.state(module, nnx.Not(nnx.Any(nnx.Param, nnx.RngState))))
    kinds = {type(leaf).__name__ for _, leaf in kept}
    if kinds:
        raise ValueError(
            f"embeddings: the module for '{name}' has a state ({', '.join(sorted(kinds))}). Expected nnx.Param "
            "alone, no batch normalisation."
        )
    program, weights = Program.of(module)
    try:
        said = jax.eval_shape(program, weights, jax.ShapeDtypeStruct(shape, jnp.float32))
    except Exception as error:
        raise ValueError(
            f"embeddings: the module for '{name}' fails on an array of shape {shape} with {type(error).__name__}: "
            f"{str(error).splitlines()[0]}"
        ) from error
    if not isinstance(said, jax.ShapeDtypeStruct) or len(said.shape) not in (1, 2) or 0 in said.shape:
        got = said.shape if isinstance(said, jax.ShapeDtypeStruct) else type(said).__name__
        raise ValueError(
            f"embeddings: expected the module for '{name}' to return an array (tokens, features), or (features,), for "
            f"one value of the site, got {got}."
        )
    if program.keys:
        value = jax.random.normal(jax.random.key(0), shape)
        if not np.array_equal(program(weights, value, 0), program(weights, value, 1)):
            raise ValueError(
                f"embeddings: the module for '{name}' draws random numbers, as dropout does. Expected one that does "
                "not (deterministic=True)."
            )
    tokens = said.shape[0] if len(said.shape) == 2 else 1
    return Embedding(program, weights, tokens, said.shape[-1])


def _array(numbers: np.ndarray, seed: int) -> Array:
    """A key, which has an axis of numbers, or a counter, which has none."""
    return jax.random.wrap_key_data(jnp.asarray(numbers + seed)) if numbers.ndim else jnp.asarray(numbers)


def _numbers(array: Array) -> np.ndarray:
    """A key as its numbers."""
    is_key = jnp.issubdtype(array.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(array) if is_key else array)
