"""Predators and their prey, seen at a few times (Gloeckler et al. 2024, section 4.2)."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Bool, Float
from numpyro.distributions import transforms

from simformer_ppl.benchmarks.tasks.task import Task
from simformer_ppl.diffusion.tempering import Weight, temper

TIMES = np.linspace(0.0, 15.0, 150)
RATES = ("alpha", "beta", "gamma", "delta")
_START, _NOISE, _POINTS = (1.0, 0.5), 0.1, 20


def lotka_volterra() -> None:
    """Rates between 1 and 3; prey and predators at 150 times, with noise."""
    rates = [numpyro.sample(name, _rate()) for name in RATES]
    path = solve(jnp.stack(rates))
    with numpyro.plate("time", len(TIMES)):
        numpyro.sample("prey", dist.Normal(path[:, 0], _NOISE))
        numpyro.sample("predator", dist.Normal(path[:, 1], _NOISE))


def _rate() -> dist.Distribution:
    """``1 + 2 sigmoid(N(0, 1))``."""
    steps = [transforms.SigmoidTransform(), transforms.AffineTransform(1.0, 2.0, domain=dist.constraints.unit_interval)]
    return dist.TransformedDistribution(dist.Normal(), steps)


def solve(rates: Float[Array, "4"]) -> Float[Array, "times 2"]:
    """Prey and predators at all times, by the fourth-order Runge-Kutta method."""
    alpha, beta, gamma, delta = rates
    step = TIMES[1] - TIMES[0]

    def slope(state: Array) -> Array:
        prey, predator = state
        return jnp.stack([prey * (alpha - beta * predator), predator * (delta * prey - gamma)])

    def forward(state: Array, _: None) -> tuple[Array, Array]:
        first = slope(state)
        second = slope(state + step / 2 * first)
        third = slope(state + step / 2 * second)
        fourth = slope(state + step * third)
        return state + step / 6 * (first + 2 * second + 2 * third + fourth), state

    return jax.lax.scan(forward, jnp.array(_START), None, length=len(TIMES))[1]


@jax.jit
def _paths(noise: Float[Array, "draws 4"]) -> Float[Array, "draws times 2"]:
    return jax.vmap(solve)(1 + 2 * jax.nn.sigmoid(noise))


def draw_lotka_volterra(
    rng: np.random.Generator,
    values: Float[np.ndarray, " scalars"],
    given: Bool[np.ndarray, " scalars"],
    num_draws: int,
    coordinates: Mapping[str, Float[np.ndarray, " points"]],
) -> Float[np.ndarray, "draws scalars"]:
    """Draw any conditional: rates by sequential Monte Carlo under the likelihood of what is seen, then the rest.

    Parameters
    ----------
    rng
        Source of the draws.
    values
        The four rates, prey and predators at their times; whatever, where not given.
    given
        Which are given.
    num_draws
        How many to draw.
    coordinates
        Times of prey and predators.
    """
    places = [np.searchsorted(TIMES, coordinates[name] - 1e-9) for name in ("prey", "predator")]
    split = np.array([4, 4 + len(places[0])])
    fixed, (seen_prey, seen_predator) = given[:4], np.split(given, split)[1:]
    prey, predator = np.split(values, split)[1:]
    share = np.where(fixed, (values[:4] - 1) / 2, 0.5)
    known = np.where(fixed, np.log(share / (1 - share)), 0.0)

    def paths(noise: Array) -> np.ndarray:
        path = np.asarray(_paths(noise), np.float64)
        return np.concatenate([path[:, places[0], 0], path[:, places[1], 1]], 1)

    seen, data = np.concatenate([seen_prey, seen_predator]), np.concatenate([prey, predator])

    def weigh(noise: Array) -> Weight:
        off = np.where(seen, (paths(noise) - data) / _NOISE, 0.0)
        return Weight(-0.5 * (off**2).sum(1), np.zeros(len(noise)))

    def transport(noise: Array) -> Array:
        return jnp.where(fixed, known, noise)

    population = temper(jax.random.key(int(rng.integers(2**31))), transport, weigh, (num_draws, 4))
    if population is None:
        raise RuntimeError("Expected rates under which the data are likely, found none.")
    noise = np.asarray(population.draws)
    drawn = rng.normal(paths(jnp.asarray(noise)), _NOISE)
    draws = np.concatenate([1 + 2 / (1 + np.exp(-noise)), drawn], 1)
    return np.where(given, values, draws[rng.permutation(num_draws)])


LOTKA_VOLTERRA = Task(
    "lotka_volterra",
    lotka_volterra,
    draw_lotka_volterra,
    {"coords": {"time": TIMES}, "continuous_dims": ["time"], "data_sites": ("prey", "predator")},
    all_conditionals=True,
    points={"prey": _POINTS, "predator": _POINTS},
)
