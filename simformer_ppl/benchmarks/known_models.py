"""Models whose answers are known, or found by NUTS."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions import constraints

EFFECT = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
STANDARD_ERROR = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
"""Of the eight schools (Rubin 1981)."""


def eight_schools(standard_error: Any, y: Any = None, priors: Mapping[str, dist.Distribution] | None = None) -> None:
    """True effects vary around ``mu`` with spread ``tau``."""
    laws = {"mu": dist.Normal(0, 5), "tau": dist.HalfCauchy(5)} | dict(priors or {})
    mu, tau = (numpyro.sample(name, law) for name, law in laws.items())
    with numpyro.plate("school", len(standard_error)):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(theta, standard_error), obs=y)


def measurements(y: Any = None, seen: Any = None) -> None:
    """Five groups, measured four times each; of what was not seen there is no likelihood."""
    mu, tau = numpyro.sample("mu", dist.Normal(0, 2)), numpyro.sample("tau", dist.HalfNormal(1))
    with numpyro.plate("group", 5, dim=-2):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        with numpyro.plate("repeat", 4, dim=-1):
            law = dist.Normal(theta, 1.0).expand([5, 4])
            numpyro.sample("y", law if seen is None else law.mask(seen), obs=y)


def normals(dims: int) -> Callable[[], None]:
    """Independent standard normals, and a noisy sum of them."""

    def model() -> None:
        with numpyro.plate("dim", dims):
            x = numpyro.sample("x", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(x.sum(), 1.0))

    return model


def two_moons_with_density(x: Any = None) -> None:
    """Two moons, with the density of the data written down."""
    theta = numpyro.sample("theta", dist.Uniform(-1, 1).expand([2]).to_event(1))
    total, difference = theta[0] + theta[1], theta[1] - theta[0]
    centre = jnp.stack([0.25 - jnp.abs(total) / jnp.sqrt(2.0), difference / jnp.sqrt(2.0)])
    numpyro.sample("x", HalfCircle(centre), obs=x)


class HalfCircle(dist.Distribution):
    """A point to the right of a centre, at a normal distance of .1 with standard deviation .01, in any direction."""

    arg_constraints = {"centre": constraints.real_vector}  # noqa: RUF012  (as NumPyro has it)
    support = constraints.real_vector

    def __init__(self, centre: Float[Array, "*batch 2"]):
        self.centre = centre
        super().__init__(jnp.shape(centre)[:-1], (2,))

    def sample(self, key: PRNGKeyArray, sample_shape: tuple[int, ...] = ()) -> Float[Array, "*shape 2"]:
        """Angle and radius."""
        angle_key, radius_key = jax.random.split(key)
        shape = sample_shape + self.batch_shape
        angle = jax.random.uniform(angle_key, shape, minval=-jnp.pi / 2, maxval=jnp.pi / 2)
        radius = 0.1 + 0.01 * jax.random.normal(radius_key, shape)
        return self.centre + radius[..., None] * jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)

    def log_prob(self, value: Float[Array, "*shape 2"]) -> Float[Array, "*shape"]:
        """By polar coordinates."""
        across, along = jnp.moveaxis(value - self.centre, -1, 0)
        squared = across**2 + along**2
        radius = jnp.sqrt(jnp.maximum(squared, 1e-12))
        log_density = dist.Normal(0.1, 0.01).log_prob(radius) - jnp.log(jnp.pi * radius)
        return jnp.where(across > 0, log_density, -jnp.inf)
