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
    Mean over the latent channels of the batch.
    """
    level_key, noise_key = jax.random.split(rng_key)
    level = process.training_levels(level_key, target.shape[0])
    noised = target + level[:, None] * jax.random.normal(noise_key, target.shape)
    error = process.denoiser(network, condition)(noised, level) - target
    latent = ~condition.channels
    squares = process.weight(level)[:, None] * jnp.where(latent, error**2, 0.0)
    return squares.sum() / jnp.maximum(latent.sum(), 1)
