"""Simulations elsewhere, that fail, and that are cut off."""

import multiprocessing
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from simformer_ppl import NetworkConfig, Simformer
from simformer_ppl.exceptions import StructureWarning

KEY = jax.random.key(3)


def chain(y=None):
    """At the top level of a module, where other processes find it."""
    x = numpyro.sample("x", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(x, 0.5).expand([2]).to_event(1), obs=y)


class Simulator:
    """Outside JAX, and raising an error for some parameters."""

    def __init__(self, fails_above):
        self.fails_above, self.number, self._lock = fails_above, 0, threading.Lock()

    def square(self, x):
        with self._lock:
            self.number += 1
        if x > self.fails_above:
            raise FloatingPointError(f"no solution for x = {x:.1f}")
        return np.square(x, dtype=np.float32)

    def model(self, y=None):
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        mean = jax.pure_callback(self.square, jax.ShapeDtypeStruct((), jnp.float32), x, vmap_method="sequential")
        numpyro.sample("y", dist.Normal(mean, 0.1), obs=y)


def same(one, other):
    assert set(one.data_vars) == set(other.data_vars) and dict(one.sizes) == dict(other.sizes)
    for name in one.data_vars:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-5, atol=1e-6)


def test_threads_simulate_the_same():
    simformer = Simformer(chain)
    with ThreadPoolExecutor(2) as pool:
        same(simformer.simulate(KEY, 100), simformer.simulate(KEY, 100, executor=pool))


@pytest.mark.slow
def test_processes_simulate_the_same():
    simformer = Simformer(chain)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        same(simformer.simulate(KEY, 100), simformer.simulate(KEY, 100, executor=pool))


@pytest.mark.slow
def test_what_processes_cannot_find_is_told():
    def local(y=None):
        numpyro.sample("y", dist.Normal(0.0, 1.0), obs=y)

    simformer, message = Simformer(local), r"ProcessPoolExecutor could not run the model: .*local.*top level"
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool, pytest.raises(RuntimeError, match=message):
        simformer.simulate(KEY, 10, executor=pool)


@pytest.mark.parametrize("executor", [None, 2])
def test_simulations_that_raise_errors_are_left_out(executor, caplog):
    every, some = (Simformer(Simulator(limit).model) for limit in (np.inf, 1.5))
    complete = every.simulate(KEY, 100)
    with pytest.warns(RuntimeWarning, match=r"of 100 simulations fail, the first: .*no solution for x"):
        if executor:
            with ThreadPoolExecutor(executor) as pool:
                left = some.simulate(KEY, 100, executor=pool)
        else:
            left = some.simulate(KEY, 100)
    valid = complete.isel(simulation=complete["x"].values <= 1.5)
    assert 80 < valid.sizes["simulation"] < 100
    for name in ("x", "y"):
        np.testing.assert_allclose(left[name], valid[name], rtol=1e-5)
    assert not caplog.records  # told once, in the warning


def test_counts_of_a_simulator_that_returns_nan_are_left_out():
    def model():
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        rate = jnp.where(x > 1.0, jnp.nan, jnp.exp(x))  # no solution there
        numpyro.sample("counts", dist.Poisson(rate))
        numpyro.sample("label", dist.Categorical(probs=jnp.stack([rate, 1.0]) / (rate + 1.0)))

    message = r"of 400 simulations fail, the first: the law of site 'counts' has a parameter that is NaN"
    with pytest.warns(RuntimeWarning, match=message):
        left = Simformer(model).simulate(KEY, 400)
    assert left.sizes["simulation"] < 400 and float(left["x"].max()) <= 1.0
    assert set(np.unique(left["label"])) == {0, 1} and (left["counts"] >= 0).all()


def test_what_is_masked_may_have_any_law():
    def model():
        with numpyro.plate("n", 2):
            rate = jnp.array([2.0, jnp.nan])
            numpyro.sample("counts", dist.Poisson(rate).mask(jnp.array([True, False])))
        numpyro.sample("x", dist.Normal(0.0, 1.0))

    assert Simformer(model).simulate(KEY, 20).sizes["simulation"] == 20


def test_counts_that_are_drawn_in_some_runs_only_are_simulated():
    def model():
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        if float(x) > 0:  # read row by row
            numpyro.sample("more", dist.Poisson(1.0))
        numpyro.sample("counts", dist.Poisson(jnp.exp(x)))

    with pytest.warns(StructureWarning):
        simformer = Simformer(model, sites=["x", "counts"])
    assert simformer.simulate(KEY, 40).sizes["simulation"] == 40


def test_a_simulator_that_mostly_fails_is_refused():
    simformer = Simformer(Simulator(-0.5).model)
    with pytest.raises(ValueError, match=r"of 100 simulations fail.*Expected at most 50%; check the simula"):
        simformer.simulate(KEY, 100)


def test_what_was_cut_off_goes_on(tmp_path):
    simulator = Simulator(np.inf)
    simformer = Simformer(simulator.model)
    complete = simformer.simulate(KEY, 128, checkpoint_dir=tmp_path)
    at_first = simulator.number
    # what a run that was cut off leaves behind
    for number in (32, 96):
        (tmp_path / f"simulations_{number:09d}.npz").unlink()
    same(complete, simformer.simulate(KEY, 128, checkpoint_dir=tmp_path))
    assert simulator.number - at_first == at_first - 64
    with pytest.raises(ValueError, match="holds another run"):
        simformer.simulate(jax.random.key(4), 128, checkpoint_dir=tmp_path)

    def other(y=None):
        x = numpyro.sample("x", dist.Normal(100.0, 1.0))
        numpyro.sample("y", dist.Normal(x, 0.1), obs=y)

    with pytest.raises(ValueError, match="holds another run"):
        Simformer(other).simulate(KEY, 128, checkpoint_dir=tmp_path)


def test_no_more_are_run_than_asked():
    simulator = Simulator(np.inf)
    with ThreadPoolExecutor(1) as pool:
        Simformer(simulator.model).simulate(KEY, 40, executor=pool)
    # and the densities of eight, by which simulations are known again
    assert simulator.number == 40 + 8


def test_an_interrupt_in_a_callback_is_one():
    class Interrupted(Simulator):
        def square(self, x):
            if self.number == 5:
                raise KeyboardInterrupt
            return super().square(x)

    with pytest.raises(KeyboardInterrupt):
        Simformer(Interrupted(np.inf).model).simulate(KEY, 40)


@pytest.mark.slow
def test_calibration_goes_without_what_fails():
    simformer = Simformer(Simulator(1.5).model, network=NetworkConfig(width=8, depth=1, heads=1))
    with pytest.warns(RuntimeWarning, match="simulations fail"):
        simformer.fit(KEY, 200, num_steps=2, progress_bar=False)
    with pytest.warns(RuntimeWarning, match="simulations fail"):
        calibration = simformer.calibrate(KEY, num_simulations=60, num_draws=50)
    assert 40 < calibration.num_simulations < 60


class Scaled:
    """A model that is an object."""

    def __init__(self, scale):
        self.scale = scale

    def __call__(self):
        numpyro.sample("x", dist.Normal(0.0, self.scale))


def scaled(scale):
    numpyro.sample("x", dist.Normal(0.0, scale))


@pytest.mark.parametrize("make", [Scaled, lambda scale: partial(scaled, scale), lambda scale: lambda: scaled(scale)])
def test_stored_simulations_of_another_model_are_not_taken_for_its_own(make, tmp_path):
    stored = Simformer(make(1.0)).simulate(KEY, 40, checkpoint_dir=tmp_path)
    same(Simformer(make(1.0)).simulate(KEY, 40, checkpoint_dir=tmp_path), stored)
    with pytest.raises(ValueError, match="holds another run"):
        Simformer(make(100.0)).simulate(KEY, 40, checkpoint_dir=tmp_path)


def test_functions_that_hold_each_other_are_compared():
    def make(scale):
        def even(number):
            return number == 0 or odd(number - 1)

        def odd(number):
            return number > 0 and even(number - 1)

        return lambda: numpyro.sample("x", dist.Normal(float(odd(3)), scale))

    same_, other = (str(Simformer(make(scale))._replay.identity()) for scale in (1.0, 2.0))
    assert str(Simformer(make(1.0))._replay.identity()) == same_ != other
