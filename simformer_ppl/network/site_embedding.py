"""Networks of the user that read a site as a whole: an image, a long series."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float


@dataclass(frozen=True, eq=False)
class Embedding:
    """A module from a site's array to tokens.

    Attributes
    ----------
    graph, parameters
        The two halves of the NNX module, with the weights that it starts from.
    num_tokens, num_features
        Shape of what it returns.
    """

    graph: nnx.GraphDef
    parameters: nnx.State
    num_tokens: int
    num_features: int


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
        self.module = nnx.merge(embedding.graph, embedding.parameters)
        scale = embedding.num_features**-0.5
        self.out = nnx.Param(scale * jax.random.normal(rngs.params(), (embedding.num_features, width)))
        self.tokens = tokens.start, tokens.stop

    def __call__(self, value: Float[Array, "batch *shape"]) -> Float[Array, "batch some_tokens width"]:
        """Read one value for each sequence."""
        said = jax.vmap(self.module)(value)
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
        If it is no NNX module, has a state that training cannot keep, fails, or returns no array of one or two axes.
    """
    if not isinstance(module, nnx.Module):
        raise ValueError(f"embeddings: expected a flax.nnx.Module for '{name}', got {type(module).__name__}.")
    graph, parameters = nnx.split(module)
    kinds = {type(leaf).__name__ for _, leaf in nnx.to_flat_state(nnx.state(module, nnx.Not(nnx.Param)))}
    if kinds:
        raise ValueError(
            f"embeddings: the module for '{name}' has a state ({', '.join(sorted(kinds))}). Expected nnx.Param "
            "alone, no dropout and no batch normalisation."
        )
    try:
        said = jax.eval_shape(module, jax.ShapeDtypeStruct(shape, jnp.float32))
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
    tokens = said.shape[0] if len(said.shape) == 2 else 1
    return Embedding(graph, parameters, tokens, said.shape[-1])


def count_tokens(name: str, module: Any, shape: tuple[int, ...]) -> int:
    """Number of tokens that a module makes of a site, as :func:`read_embedding`."""
    return read_embedding(name, module, shape).num_tokens
