"""An epidemic whose contact rate is an unknown function of time (Gloeckler et al. 2024, section 4.3)."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions import transforms

from simformer_ppl.benchmarks.tasks.task import Task

TIMES = np.linspace(0.0, 50.0, 51)
_LENGTH, _DEVIATION, _JITTER = 7.0, 2.5, 1e-3
_SUBSTEPS, _NOISE, _LEAST, _POINTS = 4, 0.05, 1e-6, 5

_GAPS = (TIMES[:, None] - TIMES) / _LENGTH
_FACTOR = np.linalg.cholesky(_DEVIATION**2 * (np.exp(-0.5 * _GAPS**2) + _JITTER * np.eye(len(TIMES))))


def sird() -> None:
    """Infected, recovered and deceased shares of a population, at 51 times, with relative noise."""
    recovery = numpyro.sample("gamma", dist.Uniform(0.0, 0.5))
    death = numpyro.sample("delta", dist.Uniform(0.0, 0.5))
    start = numpyro.sample("start", dist.Uniform(0.0, 0.2))
    process = dist.MultivariateNormal(jnp.zeros(len(TIMES)), scale_tril=jnp.asarray(_FACTOR, jnp.float32))
    contact = numpyro.sample("beta", dist.TransformedDistribution(process, transforms.SigmoidTransform()))
    shares = jnp.log(solve(contact, recovery, death, start))
    with numpyro.plate("time", len(TIMES)):
        numpyro.sample("infected", dist.LogNormal(shares[:, 0], _NOISE))
        numpyro.sample("recovered", dist.LogNormal(shares[:, 1], _NOISE))
        numpyro.sample("deceased", dist.LogNormal(shares[:, 2], _NOISE))


def solve(
    contact: Float[Array, " times"], recovery: Float[Array, ""], death: Float[Array, ""], start: Float[Array, ""]
) -> Float[Array, "times 3"]:
    """Shares at all times, by the fourth-order Runge-Kutta method, the contact rate linear between its times."""
    step = (TIMES[1] - TIMES[0]) / _SUBSTEPS

    def slope(state: Array, rate: Array) -> Array:
        susceptible, infected = state[0], state[1]
        new = rate * susceptible * infected
        return jnp.stack([-new, new - (recovery + death) * infected, recovery * infected, death * infected])

    def forward(state: Array, rates: Array) -> tuple[Array, None]:
        begin, middle, end = rates
        first = slope(state, begin)
        second = slope(state + step / 2 * first, middle)
        third = slope(state + step / 2 * second, middle)
        fourth = slope(state + step * third, end)
        return state + step / 6 * (first + 2 * second + 2 * third + fourth), None

    def interval(state: Array, ends: Array) -> tuple[Array, Array]:
        shares = jnp.arange(_SUBSTEPS)[:, None] / _SUBSTEPS + jnp.array([0.0, 0.5, 1.0]) / _SUBSTEPS
        return jax.lax.scan(forward, state, ends[0] + shares * (ends[1] - ends[0]))[0], state

    begin = jnp.stack([1 - start, start, 0 * start, 0 * start])
    pairs = jnp.stack([contact, jnp.append(contact[1:], contact[-1])], 1)
    return jnp.maximum(jax.lax.scan(interval, begin, pairs)[1][:, 1:], _LEAST)


FUNCTIONS = ("beta", "infected", "recovered", "deceased")
OPTIONS = {
    "coords": {"time": TIMES},
    "dims": {"beta": ["time"]},
    "continuous_dims": ["time"],
    "data_sites": FUNCTIONS[1:],
}
"""Of :class:`~simformer_ppl.Simformer`."""

SIRD = Task("sird", sird, options=OPTIONS, points=dict.fromkeys(FUNCTIONS, _POINTS))
