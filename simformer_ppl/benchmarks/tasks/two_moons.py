"""Two moons: a point on a noisy half circle, whose place the parameters tell but for a sign."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Bool, Float
from scipy.stats import norm

from simformer_ppl.benchmarks.tasks.task import Task

_RADIUS, _RADIUS_SD, _OFFSET = 0.1, 0.01, 0.25
_ROOT = np.sqrt(2.0)
_POINTS = 200_000


def two_moons(x: Any = None) -> None:
    """A simulator: angle and radius are its noise, and the data a function of all (sbibm's two moons)."""
    theta = numpyro.sample("theta", dist.Uniform(-1, 1).expand([2]).to_event(1))
    angle = numpyro.sample("angle", dist.Uniform(-jnp.pi / 2, jnp.pi / 2))
    radius = numpyro.sample("radius", dist.Normal(_RADIUS, _RADIUS_SD))
    across = radius * jnp.cos(angle) + _OFFSET - jnp.abs(theta[0] + theta[1]) / _ROOT
    along = radius * jnp.sin(angle) + (theta[1] - theta[0]) / _ROOT
    numpyro.deterministic("x", jnp.stack([across, along]))


def draw_two_moons(
    rng: np.random.Generator, values: Float[np.ndarray, " 4"], given: Bool[np.ndarray, " 4"], num_draws: int
) -> Float[np.ndarray, "draws 4"]:
    """Draw any conditional, by drawing the noise from its prior and solving for what is not given.

    A datum is a sum of noise and a function of the parameters of constant slope, so that, the noise drawn, the free
    parameters follow from the given data, with the density of their prior. Where too little is free for that, one
    dimension remains, which is drawn from its density on a fine grid.
    """
    free_parameters, given_data = int((~given[:2]).sum()), int(given[2:].sum())
    kept = np.zeros((0, 4))
    while len(kept) < num_draws:
        if free_parameters >= given_data:
            draws = _solve(rng, values, given, 4 * num_draws)
        elif free_parameters == 1:
            draws = _on_grid(rng, values, given, num_draws)
        elif given_data == 1:
            draws = _noise_on_grid(rng, values, given, num_draws)
        else:
            raise ValueError("Expected a scalar that is not given.")
        kept = np.concatenate([kept, draws])
    return kept[:num_draws]


def radius(theta: Float[np.ndarray, "draws 2"], x: Float[np.ndarray, "#draws 2"]) -> Float[np.ndarray, " draws"]:
    """Distance of the data from where the parameters put the centre of the circle: N(.1, .01) under the posterior."""
    return np.hypot(*_noise(theta, x))


def _noise(theta: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    across = x[:, 0] - _OFFSET + np.abs(theta[:, 0] + theta[:, 1]) / _ROOT
    return across, x[:, 1] - (theta[:, 1] - theta[:, 0]) / _ROOT


def _solve(rng: np.random.Generator, values: np.ndarray, given: np.ndarray, count: int) -> np.ndarray:
    """Noise and free parameters from their prior, parameters then moved to meet the given data; some are kept."""
    angle, length = rng.uniform(-np.pi / 2, np.pi / 2, count), rng.normal(_RADIUS, _RADIUS_SD, count)
    noise = np.stack([length * np.cos(angle) + _OFFSET, length * np.sin(angle)], 1)
    theta = np.where(given[:2], values[:2], rng.uniform(-1, 1, (count, 2)))
    # the data tell the sum of the parameters but for its sign, and their difference
    total = rng.choice([-1.0, 1.0], count) * (noise[:, 0] - values[2]) * _ROOT
    difference = (values[3] - noise[:, 1]) * _ROOT
    possible = ~given[2] | (noise[:, 0] >= values[2])
    if given[2] and given[3]:
        theta = np.stack([total - difference, total + difference], 1) / 2
    elif given[2] or given[3]:
        # of two free parameters the second is moved; the first stays as drawn
        moved = 0 if given[1] else 1
        other = theta[:, 1 - moved]
        theta[:, moved] = total - other if given[2] else other + (difference if moved else -difference)
    possible &= (np.abs(theta) < 1).all(1)
    x = noise + np.stack([-np.abs(theta.sum(1)), theta[:, 1] - theta[:, 0]], 1) / _ROOT
    return np.concatenate([theta, np.where(given[2:], values[2:], x)], 1)[possible]


def _on_grid(rng: np.random.Generator, values: np.ndarray, given: np.ndarray, count: int) -> np.ndarray:
    """One free parameter, both data given."""
    edges = np.linspace(-1, 1, _POINTS + 1)
    theta = np.tile(values[:2], (_POINTS, 1))
    theta[:, int(given[0])] = (edges[1:] + edges[:-1]) / 2
    across, along = _noise(theta, values[None, 2:])
    length = np.hypot(across, along)
    density = np.where(across > 0, norm.pdf(length, _RADIUS, _RADIUS_SD) / length, 0.0)
    draws = np.tile(values, (count, 1))
    draws[:, int(given[0])] = _draw_cells(rng, edges, density, count)
    return draws


def _noise_on_grid(rng: np.random.Generator, values: np.ndarray, given: np.ndarray, count: int) -> np.ndarray:
    """Both parameters and one datum given: the angle, and with it the radius."""
    observed = int(given[3])
    shift = np.array([_OFFSET - abs(values[0] + values[1]) / _ROOT, (values[1] - values[0]) / _ROOT])
    edges = np.linspace(-np.pi / 2, np.pi / 2, _POINTS + 1)
    middle = (edges[1:] + edges[:-1]) / 2
    direction = np.sin(middle) if observed else np.cos(middle)
    part = values[2 + observed] - shift[observed]
    angle = _draw_cells(rng, edges, norm.pdf(part / direction, _RADIUS, _RADIUS_SD) / np.abs(direction), count)
    draws = np.tile(values, (count, 1))
    draws[:, 3 - observed] = shift[1 - observed] + part * (1 / np.tan(angle) if observed else np.tan(angle))
    return draws


def _draw_cells(rng: np.random.Generator, edges: np.ndarray, density: np.ndarray, count: int) -> np.ndarray:
    cells = rng.choice(len(density), count, p=density / density.sum())
    return rng.uniform(edges[cells], edges[cells + 1])


_OPTIONS = {"sites": ("theta", "x"), "data_sites": ("x",)}
POSTERIOR = Task("two_moons", two_moons, draw_two_moons, _OPTIONS, shipped="two_moons")
ALL = Task("two_moons_all", two_moons, draw_two_moons, _OPTIONS, all_conditionals=True)
