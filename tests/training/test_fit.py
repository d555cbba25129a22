"""Training: reproducible, resumable, data-parallel, honest about bad simulations."""

import os
import subprocess
import sys
from copy import copy

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr

from simformer_ppl import Simformer
from simformer_ppl.exceptions import TrainingWarning
from tests.conftest import SMALL, chain_model

SHORT = {"num_steps": 500, "batch_size": 32, "progress_bar": False}


def draws_of(simformer):
    return simformer.condition(y=np.array([0.5, 1.0, -1.0])).draw(jax.random.key(9), (50,))["b"]


@pytest.fixture(scope="module")
def again():
    return Simformer(chain_model, network=SMALL).fit(jax.random.key(0), 500, **SHORT)


def test_the_same_key_gives_the_same_network(again, hasty):
    assert jnp.array_equal(draws_of(again), draws_of(hasty))
    xr.testing.assert_identical(again.history, hasty.history)


def test_history_falls_and_holds_both_losses(hasty):
    assert set(hasty.history.data_vars) == {"training_loss", "validation_loss"}
    assert hasty.history["step"].values.tolist() == [250, 500]
    assert float(hasty.history["validation_loss"][-1]) < 1.0  # the loss of predicting nothing


def test_simulations_may_be_passed(hasty):
    simulations = hasty.simulate(jax.random.split(jax.random.key(0), 4)[0], 500)
    fitted = Simformer(chain_model, network=SMALL).fit(jax.random.key(0), simulations=simulations, **SHORT)
    assert jnp.array_equal(draws_of(fitted), draws_of(hasty))


@pytest.mark.slow
def test_arrays_are_learned_without_the_density_that_they_may_not_have(hasty):
    simulations = hasty.simulate(jax.random.split(jax.random.key(0), 4)[0], 500)
    passed = {name: simulations[name].values for name in simulations.data_vars}
    one, other = (
        Simformer(chain_model, network=SMALL, use_density=use).fit(jax.random.key(0), simulations=values, **SHORT)
        for use, values in ((True, passed), (False, simulations))
    )
    assert jnp.array_equal(draws_of(one), draws_of(other))


def test_fitting_again_goes_on(again):
    twice = copy(again).fit(jax.random.key(5), 500, **SHORT)
    assert twice.history["step"].values.tolist() == [250, 500, 750, 1000]
    # the first 250 steps of a second fit, at a rising learning rate, end below those of the first
    first, second = twice.history["training_loss"].values[[0, 2]]
    assert second < first


def test_a_run_that_was_cut_off_goes_on_from_its_checkpoint_and_no_other_does(hasty, tmp_path, monkeypatch):
    from simformer_ppl.training import fit as training

    def interrupt(self, state, rng_key, data):
        if int(state.step) > 250:
            raise RuntimeError("power cut")
        return validate(self, state, rng_key, data)

    validate = training.Trainer.validate
    monkeypatch.setattr(training.Trainer, "validate", interrupt)
    with pytest.raises(RuntimeError, match="power cut"):
        Simformer(chain_model, network=SMALL).fit(jax.random.key(0), 500, checkpoint_dir=tmp_path, **SHORT)
    monkeypatch.undo()
    resumed = Simformer(chain_model, network=SMALL).fit(jax.random.key(0), 500, checkpoint_dir=tmp_path, **SHORT)
    assert resumed.history["step"].values.tolist() == [500]
    assert jnp.array_equal(draws_of(resumed), draws_of(hasty))
    with pytest.raises(ValueError, match="holds another run"):
        Simformer(chain_model, network=SMALL).fit(jax.random.key(1), 500, checkpoint_dir=tmp_path, **SHORT)


def test_an_interrupt_keeps_the_weights_so_far(monkeypatch):
    from simformer_ppl.training import fit as training

    run = training.Trainer.run

    def interrupt(self, state, rng_key, data, count):
        if int(state.step) >= 300:
            raise KeyboardInterrupt
        return run(self, state, rng_key, data, count)

    monkeypatch.setattr(training.Trainer, "run", interrupt)
    with pytest.warns(RuntimeWarning, match="interrupted at step 300 of 500"):
        simformer = Simformer(chain_model, network=SMALL).fit(jax.random.key(0), 500, **SHORT)
    assert simformer.history["step"].values.tolist() == [250]
    assert jnp.isfinite(draws_of(simformer)).all()


def fit_until(simformer, step, monkeypatch):
    """Interrupt the run of the test below at a step."""
    from simformer_ppl.training import fit as training

    run = training.Trainer.run

    def interrupt(self, state, rng_key, data, count):
        if int(state.step) >= step:
            raise KeyboardInterrupt
        return run(self, state, rng_key, data, count)

    monkeypatch.setattr(training.Trainer, "run", interrupt)
    simformer.fit(jax.random.key(0), 40, num_steps=1_500, batch_size=32, validation_fraction=0.5, progress_bar=False)


def test_a_loss_that_is_no_number_ends_training_and_keeps_the_weights_before():
    simformer = Simformer(chain_model, network=SMALL)
    with pytest.warns(TrainingWarning, match="no number any more at step 250 of 1000; the best weights"):
        simformer.fit(jax.random.key(0), 200, num_steps=1_000, learning_rate=1e30, progress_bar=False)
    assert simformer.history.sizes["step"] == 1
    draws = simformer.condition(y=np.zeros(3)).draw(jax.random.key(1), (10,))
    assert np.isfinite(draws["a"]).all()


@pytest.mark.slow
def test_best_weights_are_those_of_the_lowest_validation_loss(monkeypatch):
    # twenty simulations are soon learned by heart: the last weights are worse than the best
    simformer = Simformer(chain_model, network=SMALL, use_density=False)
    simformer.fit(jax.random.key(0), 40, num_steps=1_500, batch_size=32, validation_fraction=0.5, progress_bar=False)
    losses = simformer.history["validation_loss"].values
    assert losses.argmin() < len(losses) - 1
    # the weights kept are those of that step: a run that stops there gives the same network
    again = Simformer(chain_model, network=SMALL, use_density=False)
    with pytest.warns(RuntimeWarning, match="interrupted"):
        fit_until(again, simformer.history["step"].values[losses.argmin()], monkeypatch)
    assert jnp.array_equal(draws_of(again), draws_of(simformer))


def broken_model(y=None):
    x = numpyro.sample("x", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(jnp.where(x > 1.0, jnp.nan, x), 1.0), obs=y)


def test_simulations_that_are_not_finite_are_counted_and_left_out():
    simformer = Simformer(broken_model, network=SMALL)
    with pytest.warns(RuntimeWarning, match=r"of 1000 simulations .* site 'y' in"):
        simformer.fit(jax.random.key(0), 1_000, **SHORT)
    # what is left has x <= 1: the prior means "given a valid simulation"
    assert float(jnp.mean(simformer.condition().draw(jax.random.key(1), (500,))["x"] > 1.2)) < 0.05


def mixed_model():
    numpyro.sample("kind", dist.Categorical(jnp.ones(3) / 3))
    numpyro.sample("count", dist.Poisson(3.0))
    numpyro.sample("share", dist.Dirichlet(jnp.ones(3)))
    numpyro.sample("place", dist.Uniform(0.0, 1.0))


@pytest.mark.parametrize(("site", "value"), [("kind", 7), ("count", -5), ("share", 1.0), ("place", -9.0)])
def test_simulations_outside_a_support_are_refused(site, value):
    simformer = Simformer(mixed_model, network=SMALL)
    simulations = {name: array.values for name, array in simformer.simulate(jax.random.key(0), 50).items()}
    simulations[site][3] = value
    with pytest.raises(ValueError, match=f"Site '{site}': expected values in the support"):
        simformer.fit(jax.random.key(0), simulations=simulations, **SHORT)


def test_too_many_bad_simulations_are_an_error():
    def hopeless(y=None):
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(jnp.where(x > -9.0, jnp.nan, x), 1.0), obs=y)

    with pytest.raises(ValueError, match="site 'y' in 100"):
        Simformer(hopeless, network=SMALL).fit(jax.random.key(0), 100, **SHORT)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_simulations": 0}, "num_simulations: expected at least 1, got 0"),
        ({"num_steps": 0}, "num_steps: expected a positive number, got 0"),
        ({"batch_size": -1}, "batch_size: expected a positive number, got -1"),
        ({"validation_fraction": 1.5}, "validation_fraction: expected a number between 0 and 1, got 1.5"),
        ({"simulations": {"a": np.zeros(5)}}, r"'b'"),
        ({"simulations": np.zeros((5, 7))}, "expected a dataset, or arrays by site"),
        (
            {"simulations": {name: np.zeros((0, 3)[: 1 + (name != "a")]) for name in "aby"}},
            "expected at least 2, got 0",
        ),
        (
            {"simulations": {"a": np.array(["x", "y"]), "b": np.zeros((2, 3)), "y": np.zeros((2, 3))}},
            "expected numbers",
        ),
        ({"simulations": {"a": np.zeros(5), "b": np.zeros((5, 2)), "y": np.zeros((5, 3))}}, "'b'"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Simformer(chain_model, network=SMALL).fit(jax.random.key(0), **{"num_simulations": 100, **SHORT, **arguments})


EIGHT_DEVICES = """
import sys
import jax, numpy as np
from simformer_ppl.training.devices import batch_sharding
from tests.training.test_fit import twenty_steps
assert batch_sharding(32).mesh.size == len(jax.devices()) == 8
np.save(sys.argv[1], twenty_steps())
"""


def twenty_steps():
    simformer = Simformer(chain_model, network=SMALL)
    return draws_of(simformer.fit(jax.random.key(0), 500, **{**SHORT, "num_steps": 20}))


@pytest.mark.slow
def test_eight_devices_give_the_result_of_one(tmp_path):
    path = str(tmp_path / "draws.npy")
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    subprocess.run([sys.executable, "-c", EIGHT_DEVICES, path], check=True, env=environment)
    # sums over the batch are taken in another order
    np.testing.assert_allclose(np.load(path), twenty_steps(), atol=1e-3)
