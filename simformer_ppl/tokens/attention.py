"""Choose the attention mask: from the model's graph, dense, directed, or the user's own."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from simformer_ppl.structure.attention_masks import attention_mask, directed_attention_mask
from simformer_ppl.structure.contexts import Contexts
from simformer_ppl.tokens.layout import TokenLayout

AttentionFunction = Callable[[Bool[Array, "#batch tokens"], Float[Array, "batch channels"]], Bool[Array, "#batch n n"]]
"""``(conditioned, given channels, 0 elsewhere) -> mask``, batched, row = query."""

OwnAttention = Callable[[Bool[Array, " tokens"], dict[str, Array]], Bool[Array, "tokens tokens"]]
"""``(conditioned, values by site) -> mask`` of one example. What is not given holds a constant inside its support."""

Attention = Literal["moral", "contextual", "dense", "directed"] | Bool[np.ndarray, "tokens tokens"] | OwnAttention


def attention_function(
    attention: Attention,
    neighbours: Bool[np.ndarray, "tokens tokens"],
    layout: TokenLayout,
    contexts: Contexts | None = None,
) -> AttentionFunction:
    """The mask of a batch of examples as a JAX function of what is given in each.

    Parameters
    ----------
    attention
        A kind, a matrix, or a function of one example.
    neighbours
        Moral graph of the tokens.
    layout
        Where sites live.
    contexts
        What given discrete values rule out, for ``"contextual"``.

    Raises
    ------
    ValueError
        If the kind is unknown, or a matrix or what a function returns has the wrong shape or dtype.
    """
    tokens = len(neighbours)
    if callable(attention):
        _check_own(attention, tokens, layout)
        own = attention
        return _of_values(lambda conditioned, values: own(conditioned, values) | jnp.eye(tokens, dtype=bool), layout)
    if isinstance(attention, str):
        if attention == "dense":
            return lambda conditioned, given: jnp.ones((1, tokens, tokens), bool)
        if attention == "contextual" and contexts is not None:
            return _of_values(_in_context(contexts, layout), layout)
        kinds = {"moral": attention_mask, "contextual": attention_mask, "directed": directed_attention_mask}
        if attention in kinds:
            # numpy's, here and below: a mask may first be asked for under a trace, and for good
            return lambda conditioned, given: kinds[attention](jnp.asarray(neighbours), conditioned)
        raise ValueError(
            f"attention: expected 'moral', 'contextual', 'dense', 'directed', a matrix or a function, got "
            f"{attention!r}."
        )
    matrix = np.asarray(attention)
    if matrix.shape != (tokens, tokens) or matrix.dtype != bool:
        raise ValueError(
            f"attention: expected a bool matrix of shape {(tokens, tokens)}, got {matrix.dtype} {matrix.shape}."
        )
    fixed = (matrix | np.eye(tokens, dtype=bool))[None]
    return lambda conditioned, given: jnp.asarray(fixed)


def _of_values(each: OwnAttention, layout: TokenLayout) -> AttentionFunction:
    """Batched, over the values that channels stand for."""

    def batched(conditioned: Array, given: Array) -> Array:
        conditioned = jnp.broadcast_to(conditioned, (len(given), conditioned.shape[-1]))
        return jax.vmap(each)(conditioned, layout.decode(given))

    return batched


def _in_context(contexts: Contexts, layout: TokenLayout) -> OwnAttention:
    """The mask of the moral graph that is left when the discrete values that are given rule out edges."""

    def mask(conditioned: Array, values: dict[str, Array]) -> Array:
        parts = [
            values[name].ravel().astype(int)
            if site.is_discrete and site.is_elementwise
            else jnp.zeros(site.num_tokens, int)
            for name, site in layout.sites.items()
        ]
        return attention_mask(contexts.moral(conditioned, jnp.concatenate(parts)), conditioned)

    return mask


def _check_own(attention: OwnAttention, tokens: int, layout: TokenLayout) -> None:
    conditioned = jax.ShapeDtypeStruct((tokens,), bool)
    values = jax.eval_shape(layout.decode, jax.ShapeDtypeStruct((layout.num_channels,), np.float32))
    try:
        mask = jax.eval_shape(lambda c, v: jnp.asarray(attention(c, v)), conditioned, values)
    except Exception as error:
        listed = ", ".join(f"{name} {value.shape} {value.dtype}" for name, value in values.items())
        raise ValueError(
            f"attention: the function fails with {type(error).__name__}: {str(error).splitlines()[0]}. Expected a JAX "
            f"function of (conditioned {(tokens,)} bool, values by site: {listed}), without a Python `if` on these."
        ) from error
    if mask.shape != (tokens, tokens) or mask.dtype != bool:
        raise ValueError(
            f"attention: expected a function that returns a bool mask of shape {(tokens, tokens)}, "
            f"got {mask.dtype} {mask.shape}."
        )
