"""Choose the attention mask: from the model's graph, dense, directed, or the user's own."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from simformer_ppl.structure import ModelStructure
from simformer_ppl.structure.attention_masks import attention_mask, directed_attention_mask

AttentionFunction = Callable[[Bool[Array, "batch tokens"], Float[Array, "batch channels"]], Bool[Array, "#b n n"]]
"""``(conditioned, standardised given values, 0 elsewhere) -> mask``, batched, row = query."""

Attention = Literal["moral", "dense", "directed"] | Bool[np.ndarray, "tokens tokens"] | Callable[[Array, Array], Array]


def attention_function(attention: Attention, structure: ModelStructure, num_channels: int) -> AttentionFunction:
    """The mask of a batch of examples as a JAX function of what is given in each.

    Parameters
    ----------
    attention
        A kind, a matrix, or a function of one example.
    structure
        The model's structure.
    num_channels
        Length of the values that a function sees.

    Raises
    ------
    ValueError
        If the kind is unknown, or a matrix or what a function returns has the wrong shape or dtype.
    """
    tokens = structure.num_tokens
    if callable(attention):
        _check_mask(attention, tokens, num_channels)
        each = jax.vmap(lambda conditioned, values: attention(conditioned, values) | jnp.eye(tokens, dtype=bool))
        return lambda conditioned, values: each(jnp.broadcast_to(conditioned, (len(values), tokens)), values)
    if isinstance(attention, str):
        if attention == "dense":
            return lambda conditioned, values: jnp.ones((1, tokens, tokens), bool)
        kinds = {"moral": attention_mask, "directed": directed_attention_mask}
        if attention in kinds:
            moral = jnp.asarray(structure.moral())
            return lambda conditioned, values: kinds[attention](moral, conditioned)
        raise ValueError(
            f"attention: expected 'moral', 'dense', 'directed', a matrix or a function, got {attention!r}."
        )
    matrix = np.asarray(attention)
    if matrix.shape != (tokens, tokens) or matrix.dtype != bool:
        raise ValueError(
            f"attention: expected a bool matrix of shape {(tokens, tokens)}, got {matrix.dtype} {matrix.shape}."
        )
    own = jnp.asarray(matrix | np.eye(tokens, dtype=bool))[None]
    return lambda conditioned, values: own


def _check_mask(attention: Callable[[Array, Array], Array], tokens: int, num_channels: int) -> None:
    conditioned, values = jax.ShapeDtypeStruct((tokens,), bool), jax.ShapeDtypeStruct((num_channels,), np.float32)
    mask = jax.eval_shape(attention, conditioned, values)
    if mask.shape != (tokens, tokens) or mask.dtype != bool:
        raise ValueError(
            f"attention: expected a function that returns a bool mask of shape {(tokens, tokens)}, "
            f"got {mask.dtype} {mask.shape}."
        )
