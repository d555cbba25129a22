"""The published network, ported as it is described, to time ours against."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

IDENTITY, VALUE, STATE, TIME = 20, 20, 10, 128
DEPTH, HEADS, HEAD_WIDTH, WIDENING = 6, 4, 10, 3


class PublishedLayer(nnx.Module):
    """Pre-norm attention, then a feed-forward layer that reads the time."""

    def __init__(self, width: int, rngs: nnx.Rngs):
        self.attention_norm, self.norm = nnx.LayerNorm(width, rngs=rngs), nnx.LayerNorm(width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(HEADS, width, HEADS * HEAD_WIDTH, width, decode=False, rngs=rngs)
        self.time = nnx.Linear(TIME, width, rngs=rngs)
        self.up, self.down = (
            nnx.Linear(width, WIDENING * width, rngs=rngs),
            nnx.Linear(WIDENING * width, width, rngs=rngs),
        )

    def __call__(
        self,
        tokens: Float[Array, "batch tokens width"],
        time: Float[Array, "batch time"],
        mask: Bool[Array, "#batch tokens tokens"],
    ) -> Float[Array, "batch tokens width"]:
        """One layer."""
        tokens = tokens + self.attention(self.attention_norm(tokens), mask=mask[:, None])
        hidden = self.norm(tokens)
        return tokens + self.down(jax.nn.gelu(self.up(hidden + self.time(time)[:, None])))


class PublishedNetwork(nnx.Module):
    """Identity, repeated value and condition state, concatenated, through six layers (Gloeckler et al. 2024, A2.1).

    Parameters
    ----------
    num_tokens
        Scalars of the joint.
    rngs
        Source of the initial weights.
    """

    def __init__(self, num_tokens: int, rngs: nnx.Rngs):
        width = IDENTITY + VALUE + STATE
        self.identity = nnx.Embed(num_tokens, IDENTITY, rngs=rngs)
        self.state = nnx.Param(0.1 * jax.random.normal(rngs.params(), (STATE,)))
        self.frequencies = nnx.Param(jax.random.normal(rngs.params(), (TIME // 2,)))
        self.layers = nnx.List([PublishedLayer(width, rngs) for _ in range(DEPTH)])
        self.out = nnx.Linear(width, 1, rngs=rngs)

    def __call__(
        self,
        values: Float[Array, "batch tokens"],
        conditioned: Bool[Array, "batch tokens"],
        noise_label: Float[Array, " batch"],
        mask: Bool[Array, "#batch tokens tokens"],
    ) -> Float[Array, "batch tokens"]:
        """Score of every token."""
        batch, count = values.shape
        identity = jnp.broadcast_to(self.identity(jnp.arange(count)), (batch, count, IDENTITY))
        value = jnp.broadcast_to(values[..., None], (batch, count, VALUE))
        tokens = jnp.concatenate([identity, value, conditioned[..., None] * self.state[...]], -1)
        angles = noise_label[:, None] * self.frequencies[...]
        time = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)
        for layer in self.layers:
            tokens = layer(tokens, time, mask)
        return self.out(tokens)[..., 0]
