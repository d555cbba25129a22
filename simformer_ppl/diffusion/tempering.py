"""Draws under a weight that few draws have: sequential Monte Carlo in the noise that the sampler starts from.

A deterministic sampler is a map ``x = F(z)`` from standard normal noise z to draws. Draws weighted by ``w(x)`` are
``F(z)`` for z of density ``N(z; 0, I) w(F(z))``, which a population reaches by way of tempered weights: particles are
reweighted, resampled, and moved by steps that leave the normal density invariant (preconditioned Crank-Nicolson; Cotter
et al. 2013). Intervals are relaxed into a penalty on the distance from them, as in subset simulation (Au & Beck 2001).
No gradient is needed, the weight may be any function, and but for the size of the population nothing is approximated
beyond the sampler itself (Del Moral et al. 2006 for samplers of this kind).
"""

from collections.abc import Callable
from operator import itemgetter
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

EFFECTIVE_SHARE = 0.4
"""Effective share of the population that every reweighting leaves."""

FEWEST_EFFECTIVE = 16.0
"""Effective particles below which a population is given up."""

_FORGOTTEN = 0.5
"""Between reweightings particles move until the logarithm of the correlation with where they were has fallen by this
much, on average; twice that at the end."""

_MOST_MOVES = 100
_TARGET_ACCEPTANCE = 0.4
_FIRST_SCALE = 0.7

Transport = Callable[[Float[Array, "particles channels"]], Float[Array, "particles channels"]]
"""From noise to draws."""


class Weight(NamedTuple):
    """What is asked of draws.

    Attributes
    ----------
    log
        Logarithm of a weight, minus infinity where it is zero.
    violation
        Distance from what must hold, 0 where it does.
    """

    log: Float[np.ndarray, " particles"]
    violation: Float[np.ndarray, " particles"]

    def tempered(self, share: float) -> Float[np.ndarray, " particles"]:
        """Log weight at a share of the way from none to all."""
        if share == 0:
            return np.zeros_like(self.log)
        penalty = np.where(self.violation > 0, np.inf, 0.0) if share == 1 else share / (1 - share) * self.violation
        return share * self.log - penalty


class Population(NamedTuple):
    """Equally weighted draws.

    Attributes
    ----------
    draws
        All of them fulfil what must hold.
    log_mean_weight
        Logarithm of the mean weight of unweighted draws: of the probability, where weights are 0 and 1. Rough where the
        weights are rare.
    distinct
        Effective number of distinct draws: copies count as one.
    """

    draws: Float[Array, "particles channels"]
    log_mean_weight: float
    distinct: float


def temper(
    rng_key: PRNGKeyArray,
    transport: Transport,
    weigh: Callable[[Float[Array, "particles channels"]], Weight],
    shape: tuple[int, int],
    least: float = -np.inf,
) -> Population | None:
    """Draw under a weight.

    Parameters
    ----------
    rng_key
        Source of all draws.
    transport
        The sampler, from noise to draws.
    weigh
        The weight of draws.
    shape
        Particles and channels.
    least
        Logarithm of the mean weight below which the population is given up.

    Returns
    -------
    The population; None where it is given up, or too few particles are left of it, as where none has any weight.
    """
    noise_key, move_key = jax.random.split(rng_key)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(move_key)).ravel())

    def place(noise: Array) -> _Particles:
        draws = transport(noise)
        return _Particles(noise, draws, weigh(draws))

    particles = place(jax.random.normal(noise_key, shape))
    reached, log_mean, scale = 0.0, 0.0, _FIRST_SCALE
    while reached < 1:
        share, gain = _next_share(particles.weight, reached)
        if effective(gain) < FEWEST_EFFECTIVE:
            return None
        log_mean += log_mean_exp(gain)
        if log_mean < least:
            return None
        chosen = systematic(rng, gain, len(gain))
        particles, reached, forgotten = jax.tree.map(itemgetter(chosen), particles), share, 0.0
        wanted = _FORGOTTEN * (1 + (reached == 1))
        for _ in range(_MOST_MOVES):
            particles, accepted = _move(rng, particles, place, reached, scale)
            forgotten -= 0.5 * accepted * np.log1p(-(scale**2))
            scale = float(np.clip(scale * np.exp(accepted - _TARGET_ACCEPTANCE), 0.02, 0.99))
            if forgotten >= wanted:
                break
    return Population(particles.draws, log_mean, _distinct(np.asarray(particles.noise)))


class _Particles(NamedTuple):
    """Noise, the draws that follow from it, and their weight."""

    noise: Array
    draws: Array
    weight: Weight


def _move(
    rng: np.random.Generator,
    particles: _Particles,
    place: Callable[[Array], _Particles],
    share: float,
    scale: float,
) -> tuple[_Particles, float]:
    """A step of preconditioned Crank-Nicolson under a share of the weight, and the rate at which it was accepted."""
    step = rng.normal(size=particles.noise.shape).astype(np.float32)
    proposed = place(np.sqrt(1 - scale**2) * particles.noise + scale * step)
    ratio = proposed.weight.tempered(share) - particles.weight.tempered(share)
    better = np.log(rng.uniform(size=len(ratio))) < ratio
    rows = better[:, None]
    moved = _Particles(
        jnp.where(rows, proposed.noise, particles.noise),
        jnp.where(rows, proposed.draws, particles.draws),
        Weight(*(np.where(better, new, old) for new, old in zip(proposed.weight, particles.weight, strict=True))),
    )
    return moved, float(better.mean())


def effective(log_weight: Float[np.ndarray, " particles"]) -> float:
    """Kish's effective number of weighted draws."""
    highest = log_weight.max()
    if not np.isfinite(highest):
        return 0.0
    weight = np.exp(log_weight - highest)
    return float(weight.sum() ** 2 / (weight**2).sum())


def _next_share(weight: Weight, reached: float) -> tuple[float, Float[np.ndarray, " particles"]]:
    """How far to go at once, and the log weights of that step."""
    before = weight.tempered(reached)

    def gain(share: float) -> np.ndarray:
        return weight.tempered(share) - before

    enough = EFFECTIVE_SHARE * len(before)
    if effective(gain(1.0)) >= enough:
        return 1.0, gain(1.0)
    low, high = reached, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if effective(gain(middle)) >= enough else (low, middle)
    # where every step, however small, loses more: weights that are zero for most
    share = low if low > reached else high
    return share, gain(share)


def systematic(
    rng: np.random.Generator, log_weight: Float[np.ndarray, " particles"], count: int
) -> Int[np.ndarray, " count"]:
    """Resample, the numbers of copies within one of what the weights say."""
    cumulative = np.cumsum(np.exp(log_weight - log_weight.max()))
    places = (np.arange(count) + rng.uniform()) / count
    return np.minimum(np.searchsorted(cumulative / cumulative[-1], places), len(log_weight) - 1)


def log_mean_exp(log_weight: Float[np.ndarray, " particles"]) -> float:
    """Logarithm of the mean weight."""
    highest = log_weight.max()
    return float(highest + np.log(np.exp(log_weight - highest).mean()))


def _distinct(noise: Float[np.ndarray, "particles channels"]) -> float:
    """Effective number of distinct rows."""
    copies = np.unique(noise, axis=0, return_counts=True)[1]
    return float(len(noise) ** 2 / (copies**2).sum())
