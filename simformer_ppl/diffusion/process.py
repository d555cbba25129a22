"""Noise levels, preconditioning, loss weight and sampler of a diffusion process."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from simformer_ppl.diffusion.samplers import ADAMS, EULER_MARUYAMA, Denoiser, Sampler
from simformer_ppl.network.transformer import Output
from simformer_ppl.tokens.bounds import Bounds

_LOG_WIDTHS = -3.0, 1.0
"""Range of the logarithm of a width over that of noise."""

Network = Callable[[Array, Array, Array, Array, Array | None, Mapping[str, Array]], Output]
"""``(values, conditioned, noise_label, mask, coordinates, said) -> output``, batched over sequences."""


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
    bounds
        Edges of channels that have some.
    left_out
        True for channels that are neither given nor asked for; None, where there are none.
    coordinates
        Of the points of functions, from 0 to 1; None, where there are no functions.
    said
        What the network says of sites that have an embedding.
    """

    values: Float[Array, "batch channels"]
    tokens: Bool[Array, "batch tokens"]
    channels: Bool[Array, "batch channels"]
    mask: Bool[Array, "#batch tokens tokens"]
    bounds: Bounds | None = None
    left_out: Bool[Array, "batch channels"] | None = None
    coordinates: Float[Array, "#batch tokens"] | None = None
    said: Mapping[str, Float[Array, "batch some_tokens width"]] = {}

    @property
    def latent(self) -> Bool[Array, "batch channels"]:
        """Channels that are asked for."""
        return ~self.channels if self.left_out is None else ~self.channels & ~self.left_out


class Process(Protocol):
    """What a diffusion process supplies.

    All are told in the coordinate in which noise is added to a signal that is not scaled, ``x = x_0 + s * noise``, and
    by the output ``F`` of EDM's preconditioning (Karras et al. 2022, equation 7, sigma_data = 1),

        E[x_0 | x] = x / (1 + s^2) + s / sqrt(1 + s^2) * F,

    so that samplers and densities need not know which process trained the network.
    """

    @property
    def lowest(self) -> float:
        """Noise level at which sampling ends."""
        ...

    @property
    def highest(self) -> float:
        """Noise level at which sampling starts."""
        ...

    @property
    def default_steps(self) -> int:
        """Evaluations of the network for a draw."""
        ...

    def training_levels(self, rng_key: PRNGKeyArray, batch: int) -> Float[Array, " batch"]:
        """Draw noise levels, stratified over the batch."""
        ...

    def for_functions(self) -> "Process":
        """The same process, as models with functions are trained."""
        ...

    def weight(self, level: Float[Array, " batch"]) -> Float[Array, " batch"]:
        """Loss weight of the squared error of the denoised values."""
        ...

    def grid(self, num_steps: int) -> Float[np.ndarray, " steps"]:
        """Falling noise levels for sampling."""
        ...

    def output(
        self, network: Network, condition: Condition, noised: Float[Array, "batch channels"], level: Float[Array, " b"]
    ) -> Output:
        """F, and the logarithm of a variance, for noised values."""
        ...

    @property
    def sampler(self) -> Sampler:
        """What turns noise into draws."""
        ...


class EDM(NamedTuple):
    """The design of Karras et al. 2022 for data standardised to sd 1.

    Attributes
    ----------
    log_mean, log_sd
        Training noise levels are log-normal.
    lowest, highest
        Noise levels at the two ends of sampling.
    curvature
        Exponent of the sampling grid (their rho, equation 5): at 20, levels are nearly geometric.
    default_steps
        Evaluations of the network for a draw.
    sampler
        What turns noise into draws.
    """

    log_mean: float = -2.0
    log_sd: float = 2.0
    lowest: float = 2e-3
    highest: float = 20.0
    curvature: float = 20.0
    default_steps: int = 20
    sampler: Sampler = ADAMS

    def training_levels(self, rng_key: PRNGKeyArray, batch: int) -> Float[Array, " batch"]:
        """Log-normal noise levels."""
        uniform = jnp.clip(stratified(rng_key, batch), 1e-5, 1 - 1e-5)
        return jnp.exp(self.log_mean + self.log_sd * ndtri(uniform))

    def for_functions(self) -> "EDM":
        """More of the higher levels: how a function follows from what is given is learned there, and takes longest."""
        return self._replace(log_mean=-1.0, log_sd=1.5)

    def weight(self, level: Float[Array, " batch"]) -> Float[Array, " batch"]:
        """Loss weight that makes the regression target of the network unit-variance at every level (table 1)."""
        return (1 + level**2) / level**2

    def grid(self, num_steps: int) -> Float[np.ndarray, " steps"]:
        """Falling noise levels (equation 5), the last one :attr:`lowest`."""
        highest, lowest = (end ** (1 / self.curvature) for end in (self.highest, self.lowest))
        return (np.linspace(highest, lowest, num_steps) ** self.curvature).astype(np.float32)

    def output(
        self, network: Network, condition: Condition, noised: Float[Array, "batch channels"], level: Float[Array, " b"]
    ) -> Output:
        """The network's output is F; given entries enter clean and unscaled."""
        scaled = noised * jax.lax.rsqrt(1 + level**2)[:, None]
        inputs = jnp.where(condition.channels, condition.values, scaled)
        raw = _ask(network, inputs, condition, level)
        return _within(condition.bounds, raw, noised, level)


@dataclass(frozen=True)
class NoisePrediction(ABC):
    """What the processes of Gloeckler et al. 2024 have in common, for comparison.

    The network predicts the score times the noise level, which is the negative noise; times are uniform, and the loss
    is the squared error of the noise.

    Attributes
    ----------
    earliest
        Time at which sampling ends.
    default_steps
        Evaluations of the network for a draw.
    sampler
        What turns noise into draws.
    """

    earliest: float = 1e-5
    default_steps: int = 500
    sampler: Sampler = EULER_MARUYAMA

    @property
    def lowest(self) -> float:
        """Noise level at which sampling ends."""
        return float(self.level(np.float64(self.earliest)))

    @property
    def highest(self) -> float:
        """Noise level at which sampling starts."""
        return float(self.level(np.float64(1.0)))

    @abstractmethod
    def level(self, time: Any) -> Any:
        """Noise level at a time between 0 and 1."""

    @abstractmethod
    def inputs(self, noised: Float[Array, "batch channels"], level: Float[Array, " b"]) -> Float[Array, "batch ..."]:
        """What the network sees of noised values."""

    def training_levels(self, rng_key: PRNGKeyArray, batch: int) -> Float[Array, " batch"]:
        """Noise levels at uniform times."""
        return self.level(self.earliest + (1 - self.earliest) * stratified(rng_key, batch))

    def for_functions(self) -> "NoisePrediction":
        """As published."""
        return self

    def weight(self, level: Float[Array, " batch"]) -> Float[Array, " batch"]:
        """That of the squared error of the noise."""
        return level**-2

    def grid(self, num_steps: int) -> Float[np.ndarray, " steps"]:
        """Noise levels at evenly spaced times."""
        return np.asarray(self.level(np.linspace(1.0, self.earliest, num_steps)), np.float32)

    def output(
        self, network: Network, condition: Condition, noised: Float[Array, "batch channels"], level: Float[Array, " b"]
    ) -> Output:
        """F from the predicted negative noise; given entries enter clean and unscaled."""
        inputs = jnp.where(condition.channels, condition.values, self.inputs(noised, level))
        raw = _ask(network, inputs, condition, level)
        # the denoised values are x + s * raw
        stretch = jnp.sqrt(1 + level**2)[:, None]
        raw = raw._replace(prediction=stretch * raw.prediction + level[:, None] / stretch * noised)
        return _within(condition.bounds, raw, noised, level)


@dataclass(frozen=True)
class VarianceExploding(NoisePrediction):
    """The VESDE of Song et al. 2021: noise levels are geometric in time, and values are not scaled.

    Attributes
    ----------
    first, last
        Noise levels at time 0 and 1.
    """

    first: float = 1e-4
    last: float = 15.0

    def level(self, time: Any) -> Any:
        """Noise level at a time."""
        return self.first * (self.last / self.first) ** time

    def inputs(self, noised: Float[Array, "batch channels"], level: Float[Array, " b"]) -> Float[Array, "batch ..."]:
        """The noised values."""
        return noised


@dataclass(frozen=True)
class VariancePreserving(NoisePrediction):
    """The VPSDE of Song et al. 2021: values are scaled down while noise is added.

    Attributes
    ----------
    lowest_rate, highest_rate
        Their beta at time 0 and 1, linear between.
    """

    lowest_rate: float = 0.01
    highest_rate: float = 10.0

    def level(self, time: Any) -> Any:
        """Noise over signal at a time."""
        integral = self.lowest_rate * time + 0.5 * (self.highest_rate - self.lowest_rate) * time**2
        return (jnp.expm1(integral) if isinstance(time, jax.Array) else np.expm1(integral)) ** 0.5

    def inputs(self, noised: Float[Array, "batch channels"], level: Float[Array, " b"]) -> Float[Array, "batch ..."]:
        """The noised values, scaled down."""
        return noised * jax.lax.rsqrt(1 + level**2)[:, None]


PROCESSES: dict[str, Process] = {"edm": EDM(), "ve": VarianceExploding(), "vp": VariancePreserving()}


def _ask(
    network: Network, inputs: Float[Array, "batch channels"], condition: Condition, level: Float[Array, " b"]
) -> Output:
    """The network's output for values scaled to unit variance."""
    label = jnp.log(level) / 4
    return network(inputs, condition.tokens, label, condition.mask, condition.coordinates, condition.said)


def precondition(
    prediction: Float[Array, "batch channels"], noised: Float[Array, "batch channels"], level: Float[Array, " b"]
) -> Float[Array, "batch channels"]:
    """Expected clean values from F (Karras et al. 2022, equation 7, sigma_data = 1)."""
    skip, out = _scales(level)
    return skip * noised + out * prediction


def _within(
    bounds: Bounds | None, output: Output, noised: Float[Array, "batch channels"], level: Float[Array, " b"]
) -> Output:
    """F of bounded channels: the mean of a normal distribution cut at the edges, in place of the network's.

    A density that ends at an edge, noised, is smooth, but the network would have to learn the edge for every level.
    What it learns here is the mean and width of the clean value as if there were no edges.
    """
    if bounds is None:
        return output
    skip, out = _scales(level)
    deviation = out * jnp.exp(jnp.clip(output.log_width, *_LOG_WIDTHS))
    clean = bounds.truncated_mean(precondition(output.prediction, noised, level), deviation)
    return output._replace(prediction=jnp.where(bounds.exist, (clean - skip * noised) / out, output.prediction))


def _scales(level: Float[Array, " b"]) -> tuple[Float[Array, "b 1"], Float[Array, "b 1"]]:
    """Of the noised value and of F in the expected clean value."""
    return (1 / (1 + level**2))[:, None], (level * jax.lax.rsqrt(1 + level**2))[:, None]


def denoiser(process: Process, network: Network, condition: Condition) -> Denoiser:
    """Expected clean values under a condition."""

    def denoise(noised: Float[Array, "batch channels"], level: Float[Array, " b"]) -> Float[Array, "batch channels"]:
        clean = precondition(process.output(network, condition, noised, level).prediction, noised, level)
        # what is said of channels that are left out means nothing
        clean = clean if condition.left_out is None else jnp.where(condition.left_out, 0.0, clean)
        return jnp.where(condition.channels, condition.values, clean)

    return denoise


def stratified(rng_key: PRNGKeyArray, batch: int) -> Float[Array, " batch"]:
    """Uniform numbers, one in each of as many equal intervals."""
    return (jnp.arange(batch) + jax.random.uniform(rng_key, (batch,))) / batch
