"""The learned joint distribution over channels: draws and densities of any conditional, compiled once per shape."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from simformer_ppl.compilation import ONE_THREAD
from simformer_ppl.condition import make_condition
from simformer_ppl.diffusion.density import estimated_log_density, even_levels, hutchinson_probes, log_density
from simformer_ppl.diffusion.process import Condition, Process, denoiser
from simformer_ppl.diffusion.samplers import ADAMS, Sampler
from simformer_ppl.network import Simformer
from simformer_ppl.progress import tracked
from simformer_ppl.row_counts import rows_of_program
from simformer_ppl.tokens.attention import AttentionFunction
from simformer_ppl.tokens.layout import TokenLayout
from simformer_ppl.tokens.standardisation import Standardisation
from simformer_ppl.tokens.states import LATENT, States

EXACT_TRACE_LIMIT = 32
"""Latent channels up to which the density uses the exact trace."""

FEWEST_DRAWS = 128
FEWEST_DENSITIES = 8
"""Rows that are computed, if fewer are asked: they take a moment, and what is compiled for them serves more."""

DENSITY_GAP = 0.24
"""Of the logarithm of noise levels: 40 levels for EDM. Wider gaps miss some of the trace between levels."""

HUTCHINSON_PROBES, HUTCHINSON_GAP = 16, 0.15
"""Above the limit: an evaluation and its random derivatives at both ends of every gap, 63 of EDM."""


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["parameters", "standardisation", "coordinates"],
    meta_fields=["graph", "layout", "attention", "process"],
)
@dataclass(frozen=True)
class LearnedJoint:
    """A trained network and all that is needed to ask it.

    Attributes
    ----------
    parameters, graph
        The two halves of the NNX module.
    standardisation
        Of the channels.
    layout
        Where sites live.
    attention
        Mask of every sequence from what is given in it.
    process
        Noise levels and preconditioning.
    coordinates
        Of the points of functions, from 0 to 1, where the joint is that of a sequence with some.
    """

    parameters: nnx.State
    standardisation: Standardisation
    graph: nnx.GraphDef
    layout: TokenLayout
    attention: AttentionFunction
    process: Process
    coordinates: Float[Array, "1 tokens"] | None = None

    def draw(
        self,
        rng_key: PRNGKeyArray,
        channels: Float[Array, "rows channels"],
        states: States,
        num_steps: int,
    ) -> Float[Array, "rows channels"]:
        """One draw for every row.

        Parameters
        ----------
        rng_key
            Source of all draws.
        channels
            Given channels, not standardised; whatever, elsewhere.
        states
            Of the tokens: one pattern, or one for every row. Bools say which are given.
        num_steps
            Evaluations of the network.

        Returns
        -------
        Channels, not standardised, the given ones as given; what is left out has no meaning.
        """
        return _in_chunks(partial(_draw, num_steps=num_steps), self, rng_key, (channels,), states, FEWEST_DRAWS)

    def transport(
        self,
        noise: Float[Array, "rows channels"],
        channels: Float[Array, "rows channels"],
        states: States,
        num_steps: int,
    ) -> Float[Array, "rows channels"]:
        """The draw that follows from given standard normal noise, by the deterministic sampler.

        Parameters
        ----------
        noise
            Where every row starts.
        channels, states, num_steps
            As of :meth:`draw`.
        """
        solve = partial(_transport, num_steps=num_steps)
        return _in_chunks(solve, self, jax.random.key(0), (channels, noise), states, FEWEST_DRAWS)

    def log_density(
        self, rng_key: PRNGKeyArray, channels: Float[Array, "rows channels"], states: States
    ) -> Float[Array, " rows"]:
        """Log density of the latent channels given the given ones, in unstandardised channels.

        Parameters
        ----------
        rng_key
            Draws the probes where the trace is estimated: above :data:`EXACT_TRACE_LIMIT` latent channels.
        channels
            Latent and given channels.
        states
            Of the tokens, as of :meth:`draw`.
        """
        latent = int((np.asarray(states)[:, self.layout.token_of_channel] == LATENT).sum(-1).max())
        return _in_chunks(partial(_log_density, latent=latent), self, rng_key, (channels,), states, FEWEST_DENSITIES)

    def condition(self, network: Simformer, channels: Array, states: Array) -> Condition:
        """Standardised condition of a batch."""
        parts = network, self.layout, self.attention, self.standardisation
        return make_condition(*parts, channels, jnp.asarray(states), self.coordinates)


def _program(static: str) -> Callable[[Callable[..., Array]], Callable[..., Array]]:
    """Compile a function for one thread a call, since calls run side by side; within a traced caller, do nothing."""

    def decorate(function: Callable[..., Array]) -> Callable[..., Array]:
        compiled = jax.jit(function, static_argnames=static, compiler_options=ONE_THREAD)

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Array:
            traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(args))
            return (function if traced else compiled)(*args, **kwargs)

        return call

    return decorate


@_program("num_steps")
def _draw(joint: LearnedJoint, rng_key: PRNGKeyArray, channels: Array, states: Array, *, num_steps: int) -> Array:
    noise = jax.random.normal(rng_key, (len(channels), len(joint.layout.network_channels)))
    return _solve(joint, joint.process.sampler, jax.random.fold_in(rng_key, 1), channels, noise, states, num_steps)


@_program("num_steps")
def _transport(
    joint: LearnedJoint, rng_key: PRNGKeyArray, channels: Array, noise: Array, states: Array, *, num_steps: int
) -> Array:
    return _solve(joint, ADAMS, rng_key, channels, joint.layout.for_network(noise), states, num_steps)


def _solve(
    joint: LearnedJoint,
    sampler: Sampler,
    rng_key: PRNGKeyArray,
    channels: Array,
    noise: Array,
    states: Array,
    steps: int,
) -> Array:
    network = nnx.merge(joint.graph, joint.parameters)
    condition = joint.condition(network, channels, states)
    denoise = denoiser(joint.process, network, condition)
    draws = sampler.solve(rng_key, denoise, noise, joint.process.grid(sampler.num_levels(steps)))
    layout = joint.layout
    if layout.is_embedded.any():
        whole = jnp.zeros_like(channels).at[:, layout.network_channels].set(draws)
        drawn = jnp.zeros_like(channels, bool).at[:, layout.network_channels].set(~condition.channels)
        return jnp.where(drawn & ~layout.is_embedded, joint.standardisation.inverse(whole), channels)
    return jnp.where(condition.channels, channels, joint.standardisation.inverse(draws))


@_program("latent")
def _log_density(joint: LearnedJoint, rng_key: PRNGKeyArray, channels: Array, states: Array, *, latent: int) -> Array:
    network = nnx.merge(joint.graph, joint.parameters)
    condition = joint.condition(network, channels, states)
    asked = jnp.broadcast_to(condition.latent, condition.values.shape)

    def prediction(noised: Array, level: Array) -> Array:
        return joint.process.output(network, condition, noised, level).prediction

    ends = joint.process.lowest, joint.process.highest
    if latent <= EXACT_TRACE_LIMIT:
        standardised = log_density(prediction, condition.values, asked, even_levels(*ends, DENSITY_GAP), latent)
    else:
        probes, grid = hutchinson_probes(rng_key, asked, HUTCHINSON_PROBES), even_levels(*ends, HUTCHINSON_GAP)
        standardised = estimated_log_density(prediction, condition.values, asked, grid, probes)
    derivative = joint.layout.for_network(joint.standardisation.log_derivative(channels))
    return standardised + jnp.where(asked, derivative, 0.0).sum(-1)


def _in_chunks(
    function: Callable[..., Array],
    joint: LearnedJoint,
    rng_key: PRNGKeyArray,
    rows: tuple[Float[Array, "rows channels"], ...],
    states: States,
    fewest: int,
) -> Array:
    """Map over rows in chunks of one of few sizes, so that any number of rows runs the same compiled code."""
    total = rows[0].shape[0]
    traced = any(isinstance(array, jax.core.Tracer) for array in (*rows, rng_key))
    most = chunk_size(states.shape[-1])
    size = max(min(total, most), 1) if traced else rows_of_program(total, fewest, most)
    count = -(-total // size)
    missing = count * size - total
    padded = [jnp.concatenate([part, jnp.broadcast_to(part[-1:], (missing, part.shape[1]))]) for part in rows]
    states = np.asarray(states, np.int8)
    shared = len(states) == 1
    patterns = states if shared else np.concatenate([states, np.repeat(states[-1:], missing, 0)])
    keys = jax.random.split(rng_key, count)

    def chunk(index: int) -> Array:
        part = slice(index * size, (index + 1) * size)
        return function(joint, keys[index], *(array[part] for array in padded), patterns if shared else patterns[part])

    if traced:
        # a Python loop would be unrolled into the caller's program
        chunked = [array.reshape(count, size, -1) for array in padded]
        masks = (
            jnp.broadcast_to(patterns, (count, 1, patterns.shape[-1])) if shared else patterns.reshape(count, size, -1)
        )
        parts = jax.lax.map(lambda args: function(joint, *args), (keys, *chunked, masks))
        return parts.reshape(count * size, *parts.shape[2:])[:total]
    return jnp.concatenate(list(tracked(_side_by_side(chunk, count), size, count)))[:total]


def _side_by_side(chunk: Callable[[int], Array], count: int) -> Iterator[Array]:
    """Several calls at a time, in their order."""
    yield jax.block_until_ready(chunk(0))  # compiles, once
    with ThreadPoolExecutor(_calls_at_a_time()) as pool:
        yield from pool.map(lambda index: jax.block_until_ready(chunk(index)), range(1, count))


def chunk_size(num_tokens: int) -> int:
    """Rows of one compiled call: few on a CPU, where the activations should stay in the cache, and few long ones."""
    most, attended = (128, 2**22) if jax.default_backend() == "cpu" else (8192, 2**27)
    return min(most, 1 << max(attended // num_tokens**2, 1).bit_length() - 1)


def _calls_at_a_time() -> int:
    """One for every core of a CPU, which so small a call does not fill."""
    return os.cpu_count() or 1 if jax.default_backend() == "cpu" else 1
