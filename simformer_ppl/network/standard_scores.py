"""How values compare with their like, in standard deviations of these: what tells the law of a plate's elements."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

SMALLEST_DEVIATION = 1e-4
"""Added in quadrature to standard deviations."""

_LARGEST_SCORE = 5.0
"""Scores are drawn in smoothly around here, where an outlier among many would shout."""

Average = Callable[[Float[Array, "batch channels"]], Float[Array, "batch channels"]]
"""The mean over a channel's like, in place of every channel's value."""


class StandardScores(nnx.Module):
    """Features of the standard score of a value among those with the same vectors, and of their standard deviation.

    Scale and correlation of a plate's elements show in differences, which may be small beside the values themselves: a
    network that is given the values alone does not resolve them. Scores are equivariant, and are taken over what the
    attention mask lets the token know: latent values over the latent ones that it attends to; given values over the
    given ones, as each latent token that attends to them sees them.

    Parameters
    ----------
    width
        Size of a token's vector.
    features
        Nonlinear features of score and deviation.
    rngs
        Source of the initial weights.
    """

    def __init__(self, width: int, features: int, rngs: nnx.Rngs):
        normal = lambda: nnx.Param(jax.random.normal(rngs.params(), (features,)))  # noqa: E731
        self.score_slope, self.size_slope, self.shift = normal(), normal(), normal()
        self.latent_feature = nnx.Param(jnp.zeros((features + 2, width)))
        self.given_feature = nnx.Param(jnp.zeros((features + 2, width)))

    def __call__(
        self,
        values: Float[Array, "batch channels"],
        given: Bool[Array, "#batch channels"],
        mask: Bool[Array, "#batch channels channels"],
        groups: Int[np.ndarray, " channels"],
    ) -> Float[Array, "batch channels width"]:
        """Embed the scores of channels; `mask` has a row for every channel's query."""
        scores = standard_scores(values, given, mask, groups)
        score = (scores.score / jnp.sqrt(1 + (scores.score / _LARGEST_SCORE) ** 2))[..., None]
        size = scores.log_deviation[..., None] / 2
        hidden = jax.nn.gelu(score * self.score_slope[...] + size * self.size_slope[...] + self.shift[...])
        features = jnp.where(scores.exists[..., None], jnp.concatenate([score, size, hidden], -1), 0.0)
        # two products and a choice between vectors: a choice between matrices would be a batched product
        return jnp.where(given[..., None], features @ self.given_feature[...], features @ self.latent_feature[...])


class Scores(NamedTuple):
    """How every channel compares with its like.

    Attributes
    ----------
    score
        Distance from the mean, in standard deviations.
    log_deviation
        Logarithm of the standard deviation.
    exists
        Whether there is anything to compare with; the others mean nothing where not.
    """

    score: Float[Array, "batch channels"]
    log_deviation: Float[Array, "batch channels"]
    exists: Bool[Array, "#batch channels"]


def standard_scores(
    values: Float[Array, "batch channels"],
    given: Bool[Array, "#batch channels"],
    mask: Bool[Array, "#batch channels channels"],
    groups: Int[np.ndarray, " channels"],
) -> Scores:
    """Compare values with those of their group and state that the mask lets them know.

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
    average, number = _among_alike(given, mask, groups)
    deviations = values - average(values)
    variance = average(deviations**2) + SMALLEST_DEVIATION**2
    return Scores(deviations * jax.lax.rsqrt(variance), 0.5 * jnp.log(variance), number > 1)


def _among_alike(
    given: Bool[Array, "#batch channels"], mask: Bool[Array, "#batch channels channels"], groups: np.ndarray
) -> tuple[Average, Float[Array, "#batch channels"]]:
    """The mean over what is known of a channel's like, and their number."""
    member = (groups[:, None] == np.unique(groups)[None]).astype(np.float32)
    is_given, mask = given.astype(jnp.float32), mask.astype(jnp.float32)
    latent_reach, given_reach = mask * (1 - is_given)[:, None], mask * is_given[:, None]
    asking = mask * (1 - is_given)[..., None]  # the latent queries that attend to a given channel
    askers = jnp.maximum(asking.sum(1), 1.0)

    def total(reach: Array, weighted: Array) -> Float[Array, "batch channels channels"]:
        """Sum over each group, as every query sees it, at every channel."""
        return (reach @ weighted)[..., groups]

    latent_count, given_count = total(latent_reach, member), total(given_reach, member)

    def at_channels(by_latent: Array, by_given: Array) -> Float[Array, "batch channels"]:
        among_given = (asking * by_given).sum(1) / askers
        return jnp.where(given, among_given, jnp.diagonal(by_latent, axis1=1, axis2=2))

    def average(values: Float[Array, "batch channels"]) -> Float[Array, "batch channels"]:
        weighted = member * values[..., None]
        return at_channels(
            total(latent_reach, weighted) / jnp.maximum(latent_count, 1.0),
            total(given_reach, weighted) / jnp.maximum(given_count, 1.0),
        )

    return average, at_channels(latent_count, given_count)
