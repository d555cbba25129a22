"""Noise levels, preconditioning and loss weight."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from jaxtyping import Array, Bool, Float, PRNGKeyArray


class Output(Protocol):
    """What a network says: a prediction, and the logarithm of a variance, of every channel."""

    prediction: Float[Array, "batch channels"]
    log_variance: Float[Array, "batch channels"]


Network = Callable[[Array, Array, Array, Array], Output]
"""``(values, conditioned, noise_label, mask) -> output``, batched over sequences."""

Denoiser = Callable[[Float[Array, "batch channels"], Float[Array, " batch"]], Float[Array, "batch channels"]]
"""``(noised, noise_level) -> expected clean values``; given channels come back as given."""


class Condition(NamedTuple):
    """What is given in every sequence of a batch.

    Attributes
    ----------
    values
        Standardised values of the given channels; whatever, elsewhere.
    tokens
        True for given tokens.
    channels
        True for given channels.
    mask
        Attention mask, row = query.
    """

    values: Float[Array, "batch channels"]
    tokens: Bool[Array, "batch tokens"]
    channels: Bool[Array, "batch channels"]
    mask: Bool[Array, "#batch tokens tokens"]


class EDM(NamedTuple):
    """The design of Karras et al. 2022 for data standardised to sd 1.

    Attributes
    ----------
    log_mean, log_sd
        Training noise levels are log-normal.
    lowest, highest
        Noise levels at the two ends of sampling.
    curvature
        Exponent of the sampling grid (their rho, equation 5).
    """

    log_mean: float = -2.0
    log_sd: float = 2.0
    lowest: float = 2e-3
    highest: float = 20.0
    curvature: float = 7.0

    def training_levels(self, rng_key: PRNGKeyArray, batch: int) -> Float[Array, " batch"]:
        """Draw noise levels, stratified over the batch."""
        uniform = (jnp.arange(batch) + jax.random.uniform(rng_key, (batch,))) / batch
        return jnp.exp(self.log_mean + self.log_sd * ndtri(jnp.clip(uniform, 1e-5, 1 - 1e-5)))

    def weight(self, level: Float[Array, " batch"]) -> Float[Array, " batch"]:
        """Loss weight that makes the regression target of the network unit-variance at every level (table 1)."""
        return (1 + level**2) / level**2

    def grid(self, num_steps: int) -> Float[np.ndarray, " steps"]:
        """Falling noise levels for sampling (equation 5), the last one :attr:`lowest`."""
        highest, lowest = (end ** (1 / self.curvature) for end in (self.highest, self.lowest))
        return (np.linspace(highest, lowest, num_steps) ** self.curvature).astype(np.float32)

    def output(
        self, network: Network, condition: Condition, noised: Float[Array, "batch channels"], level: Float[Array, " b"]
    ) -> Output:
        """Raw output of the network for noised values; given entries enter clean and unscaled."""
        scaled = noised * jax.lax.rsqrt(1 + level**2)[:, None]
        inputs = jnp.where(condition.channels, condition.values, scaled)
        return network(inputs, condition.tokens, jnp.log(level) / 4, condition.mask)

    def precondition(
        self,
        prediction: Float[Array, "batch channels"],
        noised: Float[Array, "batch channels"],
        level: Float[Array, " b"],
    ) -> Float[Array, "batch channels"]:
        """Expected clean values from the raw prediction (equation 7, sigma_data = 1)."""
        skip = (1 / (1 + level**2))[:, None]
        out = (level * jax.lax.rsqrt(1 + level**2))[:, None]
        return skip * noised + out * prediction

    def denoiser(self, network: Network, condition: Condition) -> Denoiser:
        """Expected clean values under a condition."""

        def denoise(
            noised: Float[Array, "batch channels"], level: Float[Array, " b"]
        ) -> Float[Array, "batch channels"]:
            clean = self.precondition(self.output(network, condition, noised, level).prediction, noised, level)
            return jnp.where(condition.channels, condition.values, clean)

        return denoise
