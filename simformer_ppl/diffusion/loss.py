"""The training objective."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from simformer_ppl.diffusion.control_variate import ModelGradient, controlled_target, within_bounds
from simformer_ppl.diffusion.process import Condition, Network, Process, precondition

_VARIANCE_WEIGHT = 0.1
"""Weight of learning the variance of the control variate."""


def denoising_loss(
    rng_key: PRNGKeyArray,
    process: Process,
    network: Network,
    condition: Condition,
    target: Float[Array, "batch channels"],
    gradient: ModelGradient | None = None,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Weighted squared error of the denoised latent channels (Gloeckler et al. 2024, equation 6, in EDM's form).

    Parameters
    ----------
    rng_key
        Draws the noise and its levels.
    process
        Noise levels, preconditioning and weight.
    network
        The network.
    condition
        What is given in every sequence.
    target
        Clean standardised values, dequantised where discrete.
    gradient
        Of the model's log density at the target, where it is known: lowers the variance of the loss, not its minimum.

    Returns
    -------
    What is to be minimised, and the plain denoising loss: means over the latent channels of the batch. They are the
    same without a gradient; each example is noised twice then, antithetically.
    """
    level_key, noise_key = jax.random.split(rng_key)
    level = process.training_levels(level_key, target.shape[0])
    noise = jax.random.normal(noise_key, target.shape)
    if gradient is None:
        # every example under a noise and its opposite: their gradients' noise cancels in part
        condition, target, level = jax.tree.map(_twice, (condition, target, level))
        noise = jnp.stack([noise, -noise], 1).reshape(-1, target.shape[-1])
    noised = target + level[:, None] * noise
    output = process.output(network, condition, noised, level)
    clean = precondition(output.prediction, noised, level)
    latent = condition.latent

    def error(target: Float[Array, "batch channels"]) -> Float[Array, ""]:
        squares = process.weight(level)[:, None] * jnp.where(latent, (clean - target) ** 2, 0.0)
        return squares.sum() / jnp.maximum(latent.sum(), 1)

    plain = error(target)
    if gradient is None:
        return plain, plain
    if condition.bounds is not None:
        noise, gradient = within_bounds(condition.bounds, noise, gradient, target, jax.lax.stop_gradient(clean))
    target, unlikelihood = controlled_target(target, noise, level, latent, gradient, output.log_variance)
    return error(target) + _VARIANCE_WEIGHT * unlikelihood, plain


def _twice(array: Array) -> Array:
    """Every row twice in a row, so that copies stay on one device; what all rows share stays as it is."""
    return array if array.shape[0] == 1 else jnp.repeat(array, 2, 0)
