"""Which plates a model cannot tell apart."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from simformer_ppl.structure import trace_structure

sample, plate = numpyro.sample, numpyro.plate


def schools(sigma=1.0):
    mu, tau = sample("mu", dist.Normal(0, 5)), sample("tau", dist.HalfCauchy(5))
    with plate("school", 5):
        theta = sample("theta", dist.Normal(mu, tau))
        sample("y", dist.Normal(theta, sigma))


def slcp():
    theta = sample("theta", dist.Uniform(-3, 3).expand([3]).to_event(1))
    with plate("pair", 4):
        sample("x", dist.MultivariateNormal(theta[:2], (0.1 + theta[2] ** 2) * jnp.array([[1, 0.5], [0.5, 1]])))


def ring():
    with plate("place", 5):
        x = sample("x", dist.Normal(0, 1))
        sample("y", dist.Normal(jnp.roll(x, 1) + x, 1))


def pooled():
    with plate("n", 4):
        x = sample("x", dist.Normal(0, 1))
    sample("mean", dist.Normal(x.mean(), 1))


def weighted():
    with plate("n", 4):
        x = sample("x", dist.Normal(0, 1))
    sample("mean", dist.Normal((x * jnp.arange(1.0, 5)).sum(), 1))


def nested():
    with plate("group", 3, dim=-2):
        g = sample("g", dist.Normal(0, 1))
        with plate("unit", 4, dim=-1):
            sample("y", dist.Normal(g, jnp.array([1.0, 2, 3, 4])))


def dirichlet():
    with plate("n", 3):
        p = sample("p", dist.Dirichlet(jnp.ones(3)))
        sample("c", dist.Multinomial(10, p))


@pytest.mark.parametrize(
    ("model", "plates"),
    [
        (schools, ("school",)),
        (slcp, ("pair",)),
        (ring, ()),
        (pooled, ("n",)),
        (weighted, ()),
        (nested, ("group",)),
        (dirichlet, ("n",)),
    ],
)
def test_exchangeable_plates(model, plates):
    assert trace_structure(model).exchangeable == plates


def test_known_constants_that_differ_break_the_symmetry():
    assert trace_structure(schools, (np.arange(1.0, 6),)).exchangeable == ()


def test_a_nuisance_inside_the_plate_keeps_it():
    assert trace_structure(schools, sites=["mu", "tau", "y"]).exchangeable == ("school",)
