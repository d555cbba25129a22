"""The Simformer: a transformer over the tokens of the joint, with one output for every channel."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from simformer_ppl.network.coordinates import NEARNESS_SCALES, CoordinateVectors, Waves, nearness
from simformer_ppl.network.embedding import NoiseEmbedding, TokenEmbedding
from simformer_ppl.network.site_embedding import Embedding, SiteEmbedding
from simformer_ppl.network.static_array import StaticArray
from simformer_ppl.network.token_vectors import TokenIndex, TokenVectors

_MASKED = -1e9


class NetworkConfig(NamedTuple):
    """Size of the network.

    Attributes
    ----------
    width
        Size of a token's vector.
    depth
        Number of layers.
    heads, head_width
        Attention heads and the size of each.
    widening
        Hidden size of the feed-forward layer over `width`.
    noise_features
        Fourier features of the noise level.
    value_features
        Nonlinear features of a value, beside the value itself.
    constant_features
        Hidden units between the known constants of a token and its vectors.
    coordinate_features, coordinate_hidden
        Frequencies of the coordinate of a function's point, of its vectors and of the waves that every layer adds; and
        hidden units between these and its vectors.
    """

    width: int = 32
    depth: int = 4
    heads: int = 4
    head_width: int = 8
    widening: int = 4
    noise_features: int = 64
    value_features: int = 16
    constant_features: int = 32
    coordinate_features: int = 16
    coordinate_hidden: int = 32


class Output(NamedTuple):
    """What the network says of every channel.

    Attributes
    ----------
    prediction
        Raw output F, to be preconditioned.
    log_variance
        How much more a control variate varies than is expected on the whole, in logarithms; see
        :mod:`simformer_ppl.diffusion.control_variate`.
    log_width
        Of a bounded channel, how much wider a clean value is spread before it is cut than noise alone has it, in
        logarithms; see :mod:`simformer_ppl.diffusion.process`.
    """

    prediction: Float[Array, "batch channels"]
    log_variance: Float[Array, "batch channels"]
    log_width: Float[Array, "batch channels"]


class Layer(nnx.Module):
    """Pre-norm attention and feed-forward, each shifted by the noise level of the sequence."""

    def __init__(self, config: NetworkConfig, num_relations: int, index: TokenIndex, rngs: nnx.Rngs):
        width, inner, hidden = config.width, config.heads * config.head_width, config.widening * config.width
        residual = (2 * config.depth) ** -0.5  # keeps the variance of the residual stream at initialisation
        normal = lambda scale, *shape: nnx.Param(scale * jax.random.normal(rngs.params(), shape))  # noqa: E731
        self.qkv = normal(width**-0.5, width, 3 * inner)
        self.attention_out = normal(residual * inner**-0.5, inner, width)
        self.up = normal(width**-0.5, width, hidden)
        self.up_bias = nnx.Param(jnp.zeros(hidden))
        self.down = normal(residual * hidden**-0.5, hidden, width)
        self.down_bias = nnx.Param(jnp.zeros(width))
        self.shift = nnx.Param(jnp.zeros((width, 2 * width)))
        # heads start with different tastes: where tokens share their identity, only relations tell them apart
        self.relation_bias = nnx.Param(jax.random.normal(rngs.params(), (config.heads, num_relations)))
        if index.points_are_linked:
            self.nearness_bias = nnx.Param(jax.random.normal(rngs.params(), (config.heads, len(NEARNESS_SCALES))))
        if index.has_functions:
            self.waves = Waves(index, width, config.coordinate_features)
        self.attention_norm = nnx.RMSNorm(width, rngs=rngs)
        self.feed_forward_norm = nnx.RMSNorm(width, rngs=rngs)
        self.heads, self.head_width = config.heads, config.head_width

    def __call__(
        self,
        tokens: Float[Array, "batch tokens width"],
        noise: Float[Array, "batch width"],
        mask: Bool[Array, "#batch tokens tokens"],
        relations: Bool[np.ndarray, "relations tokens tokens"],
        near: Float[Array, "#batch scales tokens tokens"] | None,
        coordinates: Float[Array, "#batch tokens"] | None,
    ) -> Float[Array, "batch tokens width"]:
        """Let tokens talk, then think."""
        attention_shift, feed_forward_shift = jnp.split((noise @ self.shift[...])[:, None], 2, -1)
        tokens = tokens + self._attend(self.attention_norm(tokens) + attention_shift, mask, relations, near)
        if coordinates is not None:
            tokens = tokens + self.waves(self.feed_forward_norm(tokens), coordinates)
        flat = (self.feed_forward_norm(tokens) + feed_forward_shift).reshape(-1, tokens.shape[-1])
        hidden = jax.nn.gelu(flat @ self.up[...] + self.up_bias[...], approximate=True)
        return tokens + (hidden @ self.down[...] + self.down_bias[...]).reshape(tokens.shape)

    def _attend(
        self,
        tokens: Float[Array, "batch tokens width"],
        mask: Bool[Array, "#batch tokens tokens"],
        relations: Bool[np.ndarray, "relations tokens tokens"],
        near: Float[Array, "#batch scales tokens tokens"] | None,
    ) -> Float[Array, "batch tokens width"]:
        batch, length, width = tokens.shape
        # two-dimensional products, and no transpose of the heads: both are several times faster on CPU
        qkv = (tokens.reshape(-1, width) @ self.qkv[...]).reshape(batch, length, 3, self.heads, self.head_width)
        query, key, value = jnp.moveaxis(qkv, 2, 0)
        logits = jnp.einsum("bnhc,bmhc->bhnm", query, key) * self.head_width**-0.5
        logits = logits + jnp.einsum("hr,rnm->hnm", self.relation_bias[...], relations.astype(np.float32))
        if near is not None:
            logits = logits + jnp.einsum("hr,brnm->bhnm", self.nearness_bias[...], near)
        logits = jnp.where(mask[:, None], logits, _MASKED)
        weights = jnp.exp(logits - jax.lax.stop_gradient(logits.max(-1, keepdims=True)))
        # normalised by a column of ones in the product: gradients of sums along the last axis are slow on CPU
        value = jnp.concatenate([value, jnp.ones((*value.shape[:-1], 1), value.dtype)], -1)
        mixed, total = jnp.split(jnp.einsum("bhnm,bmhc->bnhc", weights, value), [self.head_width], -1)
        mixed = mixed / total
        return (mixed.reshape(-1, self.heads * self.head_width) @ self.attention_out[...]).reshape(tokens.shape)


class Simformer(nnx.Module):
    """Transformer over tokens that are given or latent (Gloeckler et al. 2024, section 3).

    Parameters
    ----------
    index
        Which channels, tokens and groups belong together.
    config
        Size of the network.
    relations
        Kinds of pairs of tokens (row = query) that get an attention bias of their own in every head; none by
        default.
    embeddings
        Networks that read a site as a whole into tokens, and which tokens; none by default.
    rngs
        Source of the initial weights.
    """

    def __init__(
        self,
        index: TokenIndex,
        config: NetworkConfig = NetworkConfig(),  # noqa: B008  (an immutable tuple)
        *,
        relations: Bool[np.ndarray, "relations tokens tokens"] | None = None,
        embeddings: Mapping[str, tuple[Embedding, slice]] | None = None,
        rngs: nnx.Rngs,
    ):
        channels, tokens = max(index.group_of_channel) + 1, len(index.group_of_token)
        self.vectors = TokenVectors(index, config.width, config.constant_features, rngs)
        self.embedding = TokenEmbedding(config.width, config.value_features, rngs)
        self.noise = NoiseEmbedding(config.noise_features, config.width, rngs)
        relations = np.zeros((0, tokens, tokens), bool) if relations is None else relations
        if index.has_functions:
            sizes = config.coordinate_features, config.coordinate_hidden
            self.coordinates = CoordinateVectors(index, config.width, *sizes, rngs)
        read = {name: SiteEmbedding(*pair, config.width, rngs) for name, pair in (embeddings or {}).items()}
        self.embeddings = nnx.Dict(read)
        self.layers = _stack(config, len(relations), index, rngs)
        self.relations = StaticArray.of(relations)
        self.head_bias = nnx.Param(jnp.zeros(channels))
        self.variance_head = nnx.Param(jnp.zeros((channels, config.width)))
        self.variance_bias = nnx.Param(jnp.zeros(channels))
        self.width_head = nnx.Param(jnp.zeros((channels, config.width)))
        self.width_bias = nnx.Param(jnp.zeros(channels))
        self.index = index

    def __call__(
        self,
        values: Float[Array, "batch channels"],
        conditioned: Bool[Array, "batch tokens"],
        noise_label: Float[Array, " batch"],
        mask: Bool[Array, "#batch tokens tokens"],
        coordinates: Float[Array, "#batch tokens"] | None = None,
        said: Mapping[str, Float[Array, "batch some_tokens width"]] | None = None,
    ) -> Output:
        """Read values of one noise level a sequence, and say three numbers of every channel.

        Parameters
        ----------
        values
            Noised latent values scaled to unit variance, and given values.
        conditioned
            True for given tokens.
        noise_label
            Function of the noise level, of order 1.
        mask
            Row = query. One for all sequences, or one each.
        coordinates
            Of the points of functions, from 0 to 1; whatever, elsewhere.
        said
            What :meth:`read` returns.
        """
        vectors, token_of_channel = self.vectors(), np.asarray(self.index.token_of_channel)
        groups, near = np.asarray(self.index.group_of_channel), None
        if coordinates is not None:
            vectors = vectors.moved(self.coordinates(coordinates), token_of_channel)
            near = nearness(coordinates, self.index) if self.index.points_are_linked else None
        tokens = self.embedding(values, conditioned, vectors, token_of_channel, self._compared(), mask)
        for name, module in self.embeddings.items():
            tokens = module.add(tokens, (said or {})[name])
        noise = self.noise(noise_label)
        graph, layers = nnx.split(self.layers)

        def through(tokens: Array, layer: nnx.State) -> tuple[Array, None]:
            return nnx.merge(graph, layer)(tokens, noise, mask, self.relations.array, near, coordinates), None

        # what a layer computes is computed again for its gradient: memory traffic takes longer, and far more room
        tokens, _ = jax.lax.scan(jax.checkpoint(through, prevent_cse=False), tokens, layers)
        tokens = tokens[:, token_of_channel]
        prediction = (tokens * vectors.head).sum(-1) + self.head_bias[groups]
        log_variance = (tokens * self.variance_head[groups]).sum(-1) + self.variance_bias[groups]
        log_width = (tokens * self.width_head[groups]).sum(-1) + self.width_bias[groups]
        return Output(prediction, log_variance, log_width)

    def read(
        self, values: Mapping[str, Float[Array, "batch *shape"]]
    ) -> dict[str, Float[Array, "batch some_tokens width"]]:
        """Read the sites that have an embedding, once for all noise levels."""
        return {name: module(values[name]) for name, module in self.embeddings.items()}

    def _compared(self) -> Int[np.ndarray, " channels"]:
        """Groups of channels that are compared with each other, numbered from 0: points of a function are not."""
        groups = np.asarray(self.index.group_of_channel)
        alone = np.isin(self.index.token_of_channel, self.index.functions)
        return np.unique(np.where(alone, -1 - np.arange(len(groups)), groups), return_inverse=True)[1]


def _stack(config: NetworkConfig, num_relations: int, index: TokenIndex, rngs: nnx.Rngs) -> Layer:
    """Layers in one, the parameters of each along a leading axis: a loop over them compiles the layer once."""

    @nnx.split_rngs(splits=config.depth)
    @nnx.vmap
    def create(rngs: nnx.Rngs) -> Layer:
        return Layer(config, num_relations, index, rngs)

    return create(rngs)
