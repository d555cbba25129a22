"""How far values lie from the mean of their like: what tells the scale of a plate."""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

SCALES = 2.0 ** np.arange(9)
"""Deviations are looked at under these magnifications, from one standard deviation to a few thousandths."""


class Spread(nnx.Module):
    """Features of the deviation of a value from the mean of the values with the same vectors.

    A scale shows in differences between the elements of a plate, which may be small beside the values themselves: a
    network that is given the values alone does not resolve them. The mean is equivariant, and is taken over what the
    attention mask lets the token know: latent values over the latent ones that it attends to; given values over the
    given ones, as each latent token that attends to them sees them.

    Parameters
    ----------
    width
        Size of a token's vector.
    """

    def __init__(self, width: int):
        self.latent_feature = nnx.Param(jnp.zeros((2 * len(SCALES), width)))
        self.given_feature = nnx.Param(jnp.zeros((2 * len(SCALES), width)))

    def __call__(
        self,
        values: Float[Array, "batch channels"],
        given: Bool[Array, "#batch channels"],
        mask: Bool[Array, "#batch channels channels"],
        groups: Int[np.ndarray, " channels"],
    ) -> Float[Array, "batch channels width"]:
        """Embed the deviations of channels; `mask` has a row for every channel's query."""
        scaled = deviations(values, given, mask, groups)[..., None] * SCALES.astype(np.float32)
        features = jnp.concatenate([scaled / (1 + jnp.abs(scaled)), scaled**2 / (1 + scaled**2)], -1)
        # two products and a choice between vectors: a choice between matrices would be a batched product
        return jnp.where(given[..., None], features @ self.given_feature[...], features @ self.latent_feature[...])


def deviations(
    values: Float[Array, "batch channels"],
    given: Bool[Array, "#batch channels"],
    mask: Bool[Array, "#batch channels channels"],
    groups: Int[np.ndarray, " channels"],
) -> Float[Array, "batch channels"]:
    """Values minus the mean of those of their group and state that the mask lets them know; 0 where there is no other.

    Parameters
    ----------
    values
        Standardised.
    given
        Which are given.
    mask
        Row = query.
    groups
        The group of every channel.
    """
    member = (groups[:, None] == np.unique(groups)[None]).astype(np.float32)
    given, mask = given.astype(jnp.float32), mask.astype(jnp.float32)

    def seen_by_each(state: Float[Array, "#batch channels"]) -> tuple[Array, Array]:
        """Mean of each group's values in a state, and their number, as every query sees them, at every channel."""
        reach = mask * state[:, None]
        count = (reach @ member)[..., groups]
        total = (reach @ (member * values[..., None]))[..., groups]
        return total / jnp.maximum(count, 1.0), count

    among_latent, latent_count = (jnp.diagonal(part, axis1=1, axis2=2) for part in seen_by_each(1 - given))
    mean, count = seen_by_each(given)
    asking = mask * (1 - given)[..., None]  # the latent queries that attend to a given channel
    number = jnp.maximum(asking.sum(1), 1.0)
    among_given, given_count = (asking * mean).sum(1) / number, (asking * count).sum(1) / number
    deviation = jnp.where(given > 0, values - among_given, values - among_latent)
    return jnp.where(jnp.where(given > 0, given_count, latent_count) > 1, deviation, 0.0)
