"""A training target of lower variance, from the gradient of the model's own log density.

Denoising teaches the mean of ``x_0`` given its noised value ``x = x_0 + s * noise``, by the example of one ``x_0``
after another. Where the gradient ``g(x_0)`` of the clean log density is known, so is the gradient by ``x_0`` of
``log p(x_0 | x)``, which is ``r / s`` for ``r = noise + s * g(x_0)``. Its mean given ``x`` is zero, so
``x_0 + s * W r`` has the same mean as ``x_0`` for every matrix W that depends on nothing but ``x``, the noise level and
what is given (target score matching; De Bortoli et al. 2024, arXiv 2402.08667). It has the least variance for
``W = E[r r^T | x]^-1``, by partial integration of ``E[x_0 r^T | x]``; for a Gaussian that is no variance at all.

Of a channel whose density ends at an edge, the gradient is taken in coordinates in which it ends nowhere: with ``w``,
the derivative of the value by such a coordinate, ``w * noise + s * g`` has mean zero given ``x``, where
``noise + s * g`` has not. It is divided by ``w`` at the denoised value, which depends on nothing but ``x`` and is about
the mean of ``w``.

The gradient by a latent channel of the joint density is that of the conditional density too, whatever is given: one
gradient for each simulation serves every condition.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from simformer_ppl.tokens.bounds import LEAST_SLOPE, Bounds

_CLIP = 6.0
"""Standard deviations at which ``r`` is cut: the one thing that moves the mean, where ``r`` is very skewed."""

_LARGEST_MATRIX = 128
"""Channels above which they are taken to be uncorrelated: the matrices would cost more than they save."""

_LARGEST_SURPRISE = 30.0
"""Squares of ``r`` over their expectation at which their part in the fit of the variance is cut."""


class ModelGradient(NamedTuple):
    """Gradient of the log density of the clean standardised channels, of bounded ones by their unbounded coordinates.

    Attributes
    ----------
    values
        At every example.
    information
        Second moment over the simulations of the gradient by the channels themselves, outliers cut.
    known
        Channels whose gradient can be relied on.
    """

    values: Float[Array, "batch channels"]
    information: Float[Array, "*batch channels channels"]
    known: Bool[Array, "*batch channels"]

    def at(self, channels: Int[Array, "batch some"]) -> "ModelGradient":
        """Of some channels of each example."""
        values = jnp.take_along_axis(self.values, channels, 1)
        return ModelGradient(values, self.information[channels[:, :, None], channels[:, None]], self.known[channels])


def within_bounds(
    bounds: Bounds,
    noise: Float[Array, "batch channels"],
    gradient: ModelGradient,
    target: Float[Array, "batch channels"],
    denoised: Float[Array, "batch channels"],
) -> tuple[Float[Array, "batch channels"], ModelGradient]:
    """Noise and gradient whose sum ``r`` has mean zero in spite of the edges of the target's density.

    Parameters
    ----------
    bounds
        The edges.
    noise
        Of unit variance.
    gradient
        By the unbounded coordinates.
    target
        Clean standardised values.
    denoised
        Any values that depend on nothing but the noised ones; best their mean.
    """
    around = jnp.maximum(bounds.slope(denoised), LEAST_SLOPE)
    return noise * bounds.slope(target) / around, gradient._replace(values=gradient.values / around)


def controlled_target(
    target: Float[Array, "batch channels"],
    noise: Float[Array, "batch channels"],
    level: Float[Array, " batch"],
    latent: Bool[Array, "batch channels"],
    gradient: ModelGradient,
    log_variance: Float[Array, "batch channels"],
) -> tuple[Float[Array, "batch channels"], Float[Array, ""]]:
    """Move the target by the control variate.

    ``E[r r^T | x]`` is taken to be ``I + s^2 * information`` between the latent channels, each channel scaled by the
    variance that the network reads off the noised and given values.

    Parameters
    ----------
    target
        Clean standardised values.
    noise
        Of unit variance, or what :func:`within_bounds` made of it.
    level
        Noise levels.
    latent
        Channels that are noised.
    gradient
        Of the model.
    log_variance
        Logarithm of the variance of ``r`` over its expectation, from the network.

    Returns
    -------
    The new target, and twice the negative log likelihood of ``r`` under the variances but for a constant, whose
    gradient teaches the network to tell them.
    """
    moved, sigma = latent & gradient.known, level[:, None]
    residual = jnp.where(moved, noise + sigma * gradient.values, 0.0)
    expected = 1 + sigma**2 * jnp.diagonal(gradient.information, axis1=-2, axis2=-1)
    # cut before it is squared: a square that overflows would have no derivative
    relative = jnp.clip(residual * jax.lax.rsqrt(expected), -1e6, 1e6)
    surprise = jnp.minimum(relative**2 * jnp.exp(-log_variance), _LARGEST_SURPRISE)
    unlikelihood = jnp.where(moved, log_variance + surprise, 0.0).sum() / jnp.maximum(moved.sum(), 1)
    spread = jax.lax.stop_gradient(jnp.sqrt(expected * jnp.exp(log_variance)))
    step = jnp.clip(residual / spread, -_CLIP, _CLIP)
    if step.shape[-1] <= _LARGEST_MATRIX:
        step = jax.vmap(_solve)(_correlation(level, moved, gradient.information), step)
    return target + sigma * jnp.where(moved, step / spread, 0.0), unlikelihood


def _solve(matrix: Float[Array, "n n"], right: Float[Array, " n"]) -> Float[Array, " n"]:
    return jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(matrix), right)


def _correlation(
    level: Float[Array, " batch"], moved: Bool[Array, "batch n"], information: Float[Array, "#batch n n"]
) -> Float[Array, "batch n n"]:
    """Correlation of ``r`` between the channels that are moved; the identity elsewhere."""
    variance = level[:, None, None] ** 2 * information
    scale = jax.lax.rsqrt(1 + jnp.diagonal(variance, axis1=1, axis2=2))
    eye = jnp.eye(information.shape[-1])
    between = jnp.where(moved[:, :, None] & moved[:, None, :], 1 - eye, 0.0)
    return eye + between * variance * scale[:, :, None] * scale[:, None, :]
