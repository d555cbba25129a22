"""Calibration of a trained network, through what users hold."""

import arviz as az
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr

from simformer_ppl import above
from simformer_ppl.calibration import calibrate, read_given
from tests.conftest import chain_model, untrained


@pytest.mark.slow
def test_a_trained_network_is_calibrated_and_a_distorted_one_is_not(chain):
    found = chain.calibrate(jax.random.key(3), num_simulations=300, num_draws=50)
    assert found.is_calibrated and found.deviations == ()
    assert set(found.p_values) == {"a", "b", "jointly"}
    assert found.pit["prior_sbc"]["b"].dims == ("chain", "draw", "k")
    assert abs(found.coverage(0.5)["b"] - 0.5) < 4 * np.sqrt(0.25 / 300)
    assert "no deviation shows (300 simulations, 50 draws each)" in repr(found)

    simulations = {name: values.values for name, values in chain.simulate(jax.random.key(4), 300).items()}
    shifted = calibrate(
        lambda values: chain.condition(y=values["y"] + 1), simulations, read_given(chain.structure, ["y"]), {},
        {"a": (), "b": ("k",)}, jax.random.key(5), 50,
    )  # fmt: skip
    assert {"a", "b", "jointly"} <= set(shifted.deviations) and "deviates: a, b, jointly" in repr(shifted)


def test_parts_of_a_site_may_be_given(chain):
    found = chain.calibrate(
        jax.random.key(3), {"y": np.array([True, False, True]), "a": True}, num_simulations=60, num_draws=20
    )
    pit = found.pit["prior_sbc"]
    assert np.isnan(pit["y"].isel(k=[0, 2])).all() and np.isfinite(pit["y"].isel(k=1)).all()
    assert "a" not in pit and np.isfinite(pit["b"]).all()


def test_arviz_draws_it(chain):
    found = chain.calibrate(jax.random.key(3), num_simulations=60, num_draws=20)
    for options in ({}, {"coverage": True}, {"group": "tarp"}):
        az.plot_ecdf_pit(found.pit, backend="matplotlib", **options)
    plt.close("all")


def test_a_local_test_needs_the_scalars_that_were_calibrated():
    simformer = untrained(chain_model)
    found = simformer.calibrate(
        jax.random.key(0), {"y": np.array([True, True, False])}, num_simulations=40, num_draws=5, sites=["a"]
    )
    local = found.local_c2st(simformer.condition(y=[0.5, -0.2, np.nan]), jax.random.key(0), num_draws=40, num_null=3)
    assert 0 <= local.p_value <= 1
    for others in ({"y": [np.nan, 0.5, -0.2]}, {"y": [0.5, -0.2, np.nan], "a": above(0.0)}):
        with pytest.raises(ValueError, match="Expected one condition that gives what"):
            found.local_c2st(simformer.condition(others), jax.random.key(0))


def test_functions_are_tested_where_they_were_calibrated():
    def line():
        slope = numpyro.sample("slope", dist.Normal())
        with numpyro.plate("time", 5):
            numpyro.sample("y", dist.Normal(slope * jnp.arange(5.0), 0.1))

    simformer = untrained(line, continuous_dims=["time"])
    given, places = {"y": np.array([True, True, False, False, False])}, {"time": [2.0, 3.0]}
    found = simformer.calibrate(jax.random.key(0), given, num_simulations=40, num_draws=5, at=places)
    asked = simformer.condition(y=xr.DataArray([0.1, 0.2], {"time": [0.0, 1.0]}, ("time",)))
    assert 0 <= found.local_c2st(asked, jax.random.key(0), num_draws=40, num_null=3).p_value <= 1
    elsewhere = simformer.condition(y=xr.DataArray([0.1, 0.2], {"time": [1.0, 4.0]}, ("time",)))
    with pytest.raises(ValueError, match="Expected one condition that gives what"):
        found.local_c2st(elsewhere, jax.random.key(0))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"sites": ["c"]}, "sites: expected some of"),
        ({"at": {"time": [0.5]}}, "at: expected coordinates of 'time' where"),
    ],
)
def test_what_cannot_be_asked_is_told_before_simulating(arguments, told, monkeypatch):
    def line():
        slope = numpyro.sample("slope", dist.Normal())
        with numpyro.plate("time", 5):
            numpyro.sample("y", dist.Normal(slope * jnp.arange(5.0), 0.1))

    simformer = untrained(line, continuous_dims=["time"])
    monkeypatch.setattr(simformer, "simulate", None)
    with pytest.raises(ValueError, match=told):
        simformer.calibrate(jax.random.key(0), **arguments)


def test_sites_in_a_scope_are_calibrated():
    def scoped():
        with numpyro.handlers.scope(prefix="group"):
            mu = numpyro.sample("mu", dist.Normal())
        numpyro.sample("y", dist.Normal(mu, 1.0))

    found = untrained(scoped).calibrate(jax.random.key(0), ["y"], num_simulations=40, num_draws=5)
    assert set(found.pit["prior_sbc"].data_vars) == {"group.mu"}
    assert set(found.p_values) == {"group/mu", "jointly"}


@pytest.mark.slow
def test_the_answer_to_one_observation_is_tested(chain):
    found = chain.calibrate(jax.random.key(3), num_simulations=300, num_draws=5)
    local = found.local_c2st(chain.condition(y=[0.5, -0.2, 1.0]), jax.random.key(0), num_draws=300, num_null=9)
    assert local.p_value > 0.1 and "not told apart" in repr(local)
    with pytest.raises(ValueError, match="Expected one condition that gives what"):
        found.local_c2st(chain.condition(a=0.0), jax.random.key(0))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["c"], r"expected sites among a, b, y, got 'c'"),
        ({"y": [True, False]}, r"expected a bool array of shape \(3,\) for site 'y'"),
        ({"y": [1.0, 2.0, 3.0]}, "expected a bool array"),
        (["a", "b", "y"], "at least one latent scalar"),
    ],
)
def test_what_is_given_is_checked(chain, given, message):
    with pytest.raises(ValueError, match=message):
        chain.calibrate(jax.random.key(0), given)


def test_check_prints_posterior_likelihood_and_joint(chain, capsys):
    found = chain.check(jax.random.key(0), num_simulations=50, num_draws=20)
    assert list(found) == ["posterior", "likelihood", "joint"]
    printed = capsys.readouterr().out
    assert all(f"p({latent})" in printed for latent in ("a, b | y", "y | a, b", "a, b, y"))
