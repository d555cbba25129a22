"""What tells tokens apart: the vectors by which each enters and leaves the transformer."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from simformer_ppl.network.static_array import StaticArray


class TokenIndex(NamedTuple):
    """Which channels make up which token, and which tokens share weights; hashable.

    Attributes
    ----------
    token_of_channel
        The token of each channel, sorted.
    group_of_token
        Tokens of a group share their identity.
    group_of_channel
        Channels of a group share their value vectors and head.
    own_vector_of_token
        Tokens of a group that differ by known constants have corrections of their own, numbered from 0; -1 where none.
    constants
        Those constants, ``[tokens, constants]``.
    functions
        Tokens that are points of a function: all of a group, along its coordinate.
    has_functions
        Whether there are functions at all: a sequence may have no points of them.
    points_are_linked
        Whether points depend on each other, so that it matters how near they are.
    """

    token_of_channel: tuple[int, ...]
    group_of_token: tuple[int, ...]
    group_of_channel: tuple[int, ...]
    own_vector_of_token: tuple[int, ...]
    constants: StaticArray
    functions: tuple[int, ...] = ()
    has_functions: bool = False
    points_are_linked: bool = False


class Vectors(NamedTuple):
    """One vector for each use, token by token or channel by channel."""

    identity: Float[Array, "*batch tokens width"]
    latent_value: Float[Array, "*batch channels width"]
    given_value: Float[Array, "*batch channels width"]
    head: Float[Array, "*batch channels width"]

    def moved(self, moves: Float[Array, "*batch tokens 4*width"], token_of_channel: np.ndarray) -> "Vectors":
        """The same, moved by the four parts of what is said of every token."""
        identity, *channel_wise = jnp.split(moves, 4, -1)
        parts = identity, *(part[..., token_of_channel, :] for part in channel_wise)
        return Vectors(*(vectors + part for vectors, part in zip(self, parts, strict=True)))


class TokenVectors(nnx.Module):
    """Vectors of a group, moved by what is known to set its tokens apart.

    Tokens with constants get the vectors of their group, a function of their constants learned for all tokens, and a
    correction of their own that starts at zero.

    Parameters
    ----------
    index
        Which channels, tokens and groups belong together.
    width
        Size of the vectors.
    features
        Hidden units between constants and vectors.
    rngs
        Source of the initial weights.
    """

    def __init__(self, index: TokenIndex, width: int, features: int, rngs: nnx.Rngs):
        groups, channels = max(index.group_of_token) + 1, max(index.group_of_channel) + 1
        normal = lambda *shape: nnx.Param(0.5 * jax.random.normal(rngs.params(), shape))  # noqa: E731
        self.identity = normal(groups, width)
        self.latent_value = normal(channels, width)
        self.given_value = normal(channels, width)
        self.head = nnx.Param(jnp.zeros((channels, width)))
        self.index = index
        owners = max(index.own_vector_of_token) + 1
        if owners:
            self.constant_in = nnx.Param(jax.random.normal(rngs.params(), (index.constants.shape[1], features)))
            self.group_in = nnx.Param(jax.random.normal(rngs.params(), (groups, features)))
            self.constant_out = nnx.Param(jnp.zeros((features, 4 * width)))
            self.own = nnx.Param(jnp.zeros((owners, 4 * width)))

    def __call__(self) -> Vectors:
        """Vectors of all tokens and channels."""
        tokens, token_groups, groups, owner = (np.asarray(part) for part in self.index[:4])
        of_channels = (v[groups] for v in (self.latent_value, self.given_value, self.head))
        shared = Vectors(self.identity[token_groups], *of_channels)
        if owner.max() < 0:
            return shared
        hidden = jax.nn.gelu(self.index.constants.array @ self.constant_in[...] + self.group_in[token_groups])
        moved = hidden @ self.constant_out[...] + self.own[owner]
        return shared.moved(jnp.where(owner[:, None] >= 0, moved, 0.0), tokens)
