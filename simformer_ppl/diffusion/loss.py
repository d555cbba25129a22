"""The training objective."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from simformer_ppl.diffusion.process import EDM, Condition, Network


def denoising_loss(
    rng_key: PRNGKeyArray,
    process: EDM,
    network: Network,
    condition: Condition,
    target: Float[Array, "batch channels"],
) -> Float[Array, ""]:
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

    Returns
    -------
    Mean over the latent channels of the batch, each example noised twice, antithetically.
    """
    level_key, noise_key = jax.random.split(rng_key)
    level = process.training_levels(level_key, target.shape[0])
    noise = level[:, None] * jax.random.normal(noise_key, target.shape)
    condition, target, level = jax.tree.map(_twice, (condition, target, level))
    # every example under a noise and its opposite: their gradients' noise cancels in part
    noised = target + jnp.stack([noise, -noise], 1).reshape(-1, target.shape[-1])
    error = process.denoiser(network, condition)(noised, level) - target
    latent = ~condition.channels
    squares = process.weight(level)[:, None] * jnp.where(latent, error**2, 0.0)
    return squares.sum() / jnp.maximum(latent.sum(), 1)


def _twice(array: Array) -> Array:
    """Every row twice in a row, so that copies stay on one device; what all rows share stays as it is."""
    return array if array.shape[0] == 1 else jnp.repeat(array, 2, 0)
