"""Tokens as vectors: identity, value and condition state; and the noise level of a sequence."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from simformer_ppl.network.standard_scores import StandardScores
from simformer_ppl.network.token_vectors import Vectors


class TokenEmbedding(nnx.Module):
    """Sum of an identity vector, a value vector scaled by the value, features of the value, and the given state.

    The paper (Gloeckler et al. 2024, section 3.1) concatenates the three parts and repeats the scalar value; a learned
    direction for every channel and state is cheaper, and features that all channels share bend it. Tokens that share
    their vectors are told how they compare with each other. A token with several channels adds them up.

    Parameters
    ----------
    width
        Size of the vectors.
    features
        Nonlinear features of a value.
    rngs
        Source of the initial weights.
    """

    def __init__(self, width: int, features: int, rngs: nnx.Rngs):
        self.given_state = nnx.Param(0.5 * jax.random.normal(rngs.params(), (width,)))
        self.feature_slope = nnx.Param(jax.random.normal(rngs.params(), (features,)))
        self.feature_shift = nnx.Param(jax.random.normal(rngs.params(), (features,)))
        self.latent_feature = nnx.Param(jnp.zeros((features, width)))
        self.given_feature = nnx.Param(jnp.zeros((features, width)))
        self.scores = StandardScores(width, 2 * features, rngs)
        self.count = nnx.Param(jnp.zeros((2, width)))

    def __call__(
        self,
        values: Float[Array, "batch channels"],
        conditioned: Bool[Array, "batch tokens"],
        vectors: Vectors,
        token_of_channel: Int[np.ndarray, " channels"],
        group_of_channel: Int[np.ndarray, " channels"],
        mask: Bool[Array, "#batch tokens tokens"],
    ) -> Float[Array, "batch tokens width"]:
        """Embed values, given or latent, and how they compare with their like."""
        given = conditioned[:, token_of_channel, None]
        embedded = values[..., None] * jnp.where(given, vectors.given_value, vectors.latent_value)
        features = jax.nn.gelu(values[..., None] * self.feature_slope[...] + self.feature_shift[...])
        embedded += jnp.where(given, features @ self.given_feature[...], features @ self.latent_feature[...])
        if len(np.unique(group_of_channel)) < len(group_of_channel):
            known = (
                mask if len(token_of_channel) == mask.shape[-1] else mask[:, token_of_channel][..., token_of_channel]
            )
            embedded += self.scores(values, given[..., 0], known, group_of_channel)
        embedded = sum_channels(embedded, token_of_channel, conditioned.shape[1])
        # attention averages: how many tokens it averages over is told apart
        attended = [(mask & state[:, None]).sum(-1, dtype=jnp.float32) for state in (conditioned, ~conditioned)]
        embedded += jnp.log1p(jnp.stack(attended, -1)) @ self.count[...]
        return embedded + vectors.identity + conditioned[..., None] * self.given_state[...]


class NoiseEmbedding(nnx.Module):
    """Random Fourier features of the noise level through one layer (Tancik et al. 2020)."""

    def __init__(self, features: int, width: int, rngs: nnx.Rngs):
        self.frequencies = nnx.Param(4.0 * jax.random.normal(rngs.params(), (features // 2,)))
        self.linear = nnx.Linear(features, width, rngs=rngs)

    def __call__(self, noise_label: Float[Array, " batch"]) -> Float[Array, "batch width"]:
        """Embed one label for each sequence."""
        angles = noise_label[:, None] * self.frequencies[...]
        return jax.nn.silu(self.linear(jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)))


def sum_channels(
    embedded: Float[Array, "batch channels width"], token_of_channel: Int[np.ndarray, " channels"], num_tokens: int
) -> Float[Array, "batch tokens width"]:
    """Add up the channels of every token."""
    if len(token_of_channel) == num_tokens:  # one channel each: nothing to add up, and a scatter is slow on CPU
        return embedded
    empty = jnp.zeros((embedded.shape[0], num_tokens, embedded.shape[2]), embedded.dtype)
    return empty.at[:, token_of_channel].add(embedded)
