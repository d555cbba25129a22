"""Points of functions: what the network knows of where they lie."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from simformer_ppl.network.token_vectors import TokenIndex

_SLOWEST, _FASTEST = 0.25, 16.0
"""Cycles over the range of a coordinate that its features start with."""

_DAMPED = 0.5
"""Cycles above which features are damped, by their frequency; and weight of the coordinate itself."""

_LINEAR = 3.0

NEARNESS_SCALES = (0.01, 0.03, 0.1, 0.3)
"""Distances, as shares of the range, at which points count as near."""


class CoordinateVectors(nnx.Module):
    """Moves the vectors of a point by Fourier features of its coordinate (Tancik et al. 2020), function by function.

    Parameters
    ----------
    index
        Which tokens are points of which function.
    width
        Size of a token's vectors.
    features
        Frequencies.
    hidden
        Units between features and vectors.
    rngs
        Source of the initial weights.
    """

    def __init__(self, index: TokenIndex, width: int, features: int, hidden: int, rngs: nnx.Rngs):
        normal = lambda scale, *shape: nnx.Param(scale * jax.random.normal(rngs.params(), shape))  # noqa: E731
        frequencies = jnp.geomspace(_SLOWEST, _FASTEST, features)
        self.frequencies = nnx.Param(frequencies)
        self.feature_in = normal(1.0, 2 * features + 1, hidden)
        # smooth at first, as functions are taken to be
        damping = jnp.minimum(1.0, _DAMPED / frequencies)
        scale = jnp.concatenate([jnp.full(1, _LINEAR), damping, damping])
        self.feature_in[...] *= scale[:, None] * jax.lax.rsqrt((scale**2).sum())
        self.function_in = normal(1.0, max(index.group_of_token) + 1, hidden)
        self.identity_out = normal(0.5 * hidden**-0.5, hidden, width)
        self.rest_out = nnx.Param(jnp.zeros((hidden, 3 * width)))
        self.index = index

    def __call__(self, coordinates: Float[Array, "#batch tokens"]) -> Float[Array, "#batch tokens 4*width"]:
        """Moves of the vectors of every token: zero where it is no point of a function."""
        places = np.asarray(self.index.functions, int)
        own = coordinates[:, places, None]
        angles = 2 * jnp.pi * own * self.frequencies[...]
        features = jnp.concatenate([own - 0.5, jnp.sin(angles), jnp.cos(angles)], -1)
        groups = np.asarray(self.index.group_of_token)[places]
        hidden = jax.nn.gelu(features @ self.feature_in[...] + self.function_in[groups])
        moves = hidden @ jnp.concatenate([self.identity_out[...], self.rest_out[...]], -1)
        empty = jnp.zeros((*coordinates.shape, moves.shape[-1]), moves.dtype)
        return empty.at[:, places].set(moves)


class Waves(nnx.Module):
    """Tells a point the waves of its coordinate, of frequencies and phases that its token sets by what it knows so far.

    What other variables do to a function of time is often to stretch it, or to shift it: a rate sets how fast the
    solution of a differential equation runs.

    Parameters
    ----------
    index
        Which tokens are points of functions.
    width
        Size of a token's vector.
    features
        Frequencies.
    """

    def __init__(self, index: TokenIndex, width: int, features: int):
        self.frequencies = nnx.Param(jnp.geomspace(_SLOWEST, _FASTEST / 2, features))
        self.stretch, self.shift = (nnx.Param(jnp.zeros((width, features))) for _ in range(2))
        self.out = nnx.Param(jnp.zeros((2 * features, width)))
        self.index = index

    def __call__(
        self, tokens: Float[Array, "batch tokens width"], coordinates: Float[Array, "#batch tokens"]
    ) -> Float[Array, "batch tokens width"]:
        """What to add to the tokens: zero where they are no points."""
        flat = tokens.reshape(-1, tokens.shape[-1])
        stretch, shift = ((flat @ part[...]).reshape(*tokens.shape[:-1], -1) for part in (self.stretch, self.shift))
        angles = 2 * jnp.pi * (coordinates[..., None] * (self.frequencies[...] + stretch) + shift)
        waves = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)
        moves = (waves.reshape(-1, waves.shape[-1]) @ self.out[...]).reshape(tokens.shape)
        is_point = np.isin(np.arange(tokens.shape[1]), self.index.functions)
        return jnp.where(is_point[:, None], moves, 0.0)


def nearness(coordinates: Float[Array, "#batch tokens"], index: TokenIndex) -> Float[Array, "#batch scales n n"]:
    """How near points of functions lie to each other at several scales, from 0 to 1; 0 for other tokens."""
    apart = coordinates[:, None, :, None] - coordinates[:, None, None, :]
    scales = jnp.asarray(NEARNESS_SCALES)[:, None, None]
    is_point = np.isin(np.arange(coordinates.shape[-1]), index.functions)
    return jnp.where(is_point[:, None] & is_point[None], jnp.exp(-0.5 * (apart / scales) ** 2), 0.0)
