"""Deterministic sites that the model computes from draws of the others."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr

from simformer_ppl import Simformer, below, between
from tests.conftest import SMALL, untrained

SITES = ["a", "b", "energy", "y"]


def model(y=None):
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    b = numpyro.sample("b", dist.Normal(0.0, 1.0))
    numpyro.deterministic("energy", a**2 + b**2)
    numpyro.sample("y", dist.Normal(a + b, 0.5), obs=y)


@pytest.fixture(scope="module")
def fitted():
    return untrained(model, shaken=True, sites=SITES)


def energy(draws):
    return np.asarray(draws["a"]) ** 2 + np.asarray(draws["b"]) ** 2


def test_draws_obey_the_function(fitted):
    posterior = fitted.condition(y=np.array([0.0, 1.0]))
    for draw in (posterior.draw, jax.jit(lambda key: posterior.draw(key, (50,)))):
        draws = draw(jax.random.key(0), (50,)) if draw == posterior.draw else draw(jax.random.key(0))
        np.testing.assert_allclose(draws["energy"], energy(draws), rtol=1e-5)
    assert fitted.condition(y=0.0).draw(jax.random.key(0), sites=["a", "energy"]).keys() == {"a", "energy"}


@pytest.mark.parametrize(
    ("interval", "route"),
    [
        (below(1.0), "draw and keep"),
        pytest.param(between(0.01, 0.02), "tempering", marks=pytest.mark.slow),
    ],
)
def test_what_is_computed_lies_in_the_interval(fitted, interval, route):
    tree = fitted.condition(y=0.3, energy=interval).sample(jax.random.key(0), 200)
    assert tree.sample_stats.attrs["route"] == route
    spent = tree.posterior["energy"].values
    np.testing.assert_allclose(spent, energy(tree.posterior), rtol=1e-4)
    assert (spent >= interval.lower).all() and (spent <= interval.upper).all()


def test_a_given_value_is_the_networks(fitted):
    draws = fitted.condition(energy=2.0).draw(jax.random.key(0), (10,))
    assert draws.keys() == {"a", "b", "y"}


@pytest.mark.slow
def test_simulations_from_elsewhere_are_not_contradicted(fitted, tmp_path):
    simulations = {name: array.values for name, array in fitted.simulate(jax.random.key(0), 200).items()}
    short = {"num_steps": 5, "batch_size": 16, "progress_bar": False}
    own = Simformer(model, sites=SITES, network=SMALL).fit(jax.random.key(0), simulations=simulations, **short)
    own.save(tmp_path / "own")
    draws = Simformer.load(tmp_path / "own", model).condition().draw(jax.random.key(0), (10,))
    np.testing.assert_allclose(draws["energy"], energy(draws), rtol=1e-5)
    doubled = {**simulations, "energy": 2 * simulations["energy"]}
    other = Simformer(model, sites=SITES, network=SMALL).fit(jax.random.key(0), simulations=doubled, **short)
    draws = other.condition().draw(jax.random.key(0), (10,))
    assert not np.allclose(draws["energy"], energy(draws), rtol=0.01)


def test_a_simulator_outside_jax_is_not_run_again():
    runs = []

    def square(x):
        runs.append(len(runs))
        return np.asarray(x) ** 2

    def outside():
        a = numpyro.sample("a", dist.Normal(0.0, 1.0))
        shape = jax.ShapeDtypeStruct((), jnp.float32)
        numpyro.deterministic("energy", jax.pure_callback(square, shape, a, vmap_method="sequential"))

    simformer = untrained(outside, sites=["a", "energy"])
    before = len(runs)
    simformer.condition().draw(jax.random.key(0), (10,))
    assert len(runs) == before


def test_so_it_is_beside_functions():
    times = np.linspace(0.0, 1.0, 12)

    def curve():
        level = numpyro.sample("level", dist.Normal(0.0, 1.0))
        slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
        numpyro.deterministic("area", (level + slope * times).mean())
        with numpyro.plate("time", 12):
            numpyro.sample("y", dist.Normal(level + slope * times, 0.3))

    options = {"coords": {"time": times}, "continuous_dims": {"time": 4}}
    simformer = untrained(curve, shaken=True, sites=["level", "slope", "area", "y"], **options)
    posterior = simformer.condition(y=xr.DataArray([0.3], {"time": [0.5]}, ("time",)))
    for asked in (posterior, posterior.condition(area=below(-0.2))):
        draws = asked.draw(jax.random.key(0), (50,), at={"time": [0.1, 0.77]})
        np.testing.assert_allclose(draws["area"], draws["level"] + draws["slope"] / 2, atol=1e-4)
    assert (np.asarray(draws["area"]) <= -0.2).all()
