"""Channels whose values end at an edge where their density does not: means and coordinates that know of it."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr, ndtr, ndtri
from jax.scipy.stats import norm
from jaxtyping import Array, Bool, Float

from simformer_ppl.tokens.standardisation import Standardisation

_FARTHEST = 30.0
"""Standard deviations beyond the nearer edge at which a mean is drawn in."""

_NARROWEST = 1e-2
"""Standard deviations between the edges, at least."""

_LEAST_QUANTILE = 1e-6
LEAST_SLOPE = 0.03
"""What :meth:`Bounds.slope` is taken to be at least, where something is divided by it."""


class Bounds(NamedTuple):
    """Edges of standardised channels.

    Attributes
    ----------
    low, high
        The edges; infinite where there are none. The leading axis broadcasts over a batch.
    """

    low: Float[Array, "#batch channels"]
    high: Float[Array, "#batch channels"]

    @classmethod
    def of(cls, is_bounded: Bool[np.ndarray, " channels"], standardisation: Standardisation) -> "Bounds | None":
        """Bounds of channels that lie between 0 and 1 before they are standardised; None, where none does."""
        if not is_bounded.any():
            return None
        low, high = (standardisation.forward(jnp.full(is_bounded.shape, edge)) for edge in (0.0, 1.0))
        edges = jnp.where(is_bounded, low, -jnp.inf), jnp.where(is_bounded, high, jnp.inf)
        return cls(*(edge.reshape(-1, len(is_bounded)) for edge in edges))

    @property
    def exist(self) -> Bool[Array, "#batch channels"]:
        """Which channels have edges."""
        return jnp.isfinite(self.low)

    def truncated_mean(
        self, mean: Float[Array, "batch channels"], deviation: Float[Array, "batch channels"]
    ) -> Float[Array, "batch channels"]:
        """Mean of normal distributions cut at the edges.

        Parameters
        ----------
        mean, deviation
            Before they are cut.
        """
        exist, (low, high) = self.exist, self._finite()
        half = (high - low) / 2
        offset, deviation = jnp.where(exist, mean - low - half, 0.0), jnp.where(exist, deviation, 1.0)
        # by symmetry the mean lies left of the middle: probabilities right of the left edge do not cancel
        sign = jnp.where(offset > 0, -1.0, 1.0)
        left = jnp.clip((-half - sign * offset) / deviation, -_FARTHEST, _FARTHEST)
        right = jnp.clip((half - sign * offset) / deviation, left + _NARROWEST, 2 * _FARTHEST)
        beyond_left, beyond_right = log_ndtr(-left), log_ndtr(-right)
        ratio = jnp.expm1((left**2 - right**2) / 2) / jnp.expm1(beyond_right - beyond_left)
        shift = jnp.exp(norm.logpdf(left) - beyond_left) * ratio
        inside = jnp.clip(offset + sign * deviation * shift, -half, half)
        return jnp.where(exist, low + half + inside, mean)

    def unbounded(self, values: Float[Array, "*batch channels"]) -> Float[Array, "*batch channels"]:
        """Coordinates in which densities end nowhere: normal quantiles between the edges."""
        return jnp.where(self.exist, ndtri(self._share(values)), values).reshape(values.shape)

    def bounded(self, coordinates: Float[Array, "*batch channels"]) -> Float[Array, "*batch channels"]:
        """Undo :meth:`unbounded`."""
        low, high = self._finite()
        return jnp.where(self.exist, low + (high - low) * ndtr(coordinates), coordinates).reshape(coordinates.shape)

    def slope(self, values: Float[Array, "*batch channels"]) -> Float[Array, "*batch channels"]:
        """Derivative of values by their unbounded coordinates: zero at the edges, and 1 where there are none."""
        low, high = self._finite()
        slope = norm.pdf(ndtri(self._share(values))) * (high - low)
        return jnp.where(self.exist, slope, 1.0).reshape(values.shape)

    def _finite(self) -> tuple[Float[Array, "#batch channels"], Float[Array, "#batch channels"]]:
        """Edges, with any in place of none: what follows from those is not used, but must be differentiable."""
        return jnp.where(self.exist, self.low, -1.0), jnp.where(self.exist, self.high, 1.0)

    def _share(self, values: Float[Array, "*batch channels"]) -> Float[Array, "*batch channels"]:
        """Place between the edges, from 0 to 1."""
        low, high = self._finite()
        return jnp.clip((values - low) / (high - low), _LEAST_QUANTILE, 1 - _LEAST_QUANTILE)
