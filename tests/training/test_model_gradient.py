"""The gradient of the model's density, and where it is not to be relied on."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr

from simformer_ppl import Simformer
from simformer_ppl.tokens.bounds import Bounds
from simformer_ppl.tokens.standardisation import fit_standardisation
from simformer_ppl.training.model_gradient import model_gradient
from simformer_ppl.training.provenance import is_own
from tests.conftest import SMALL, chain_model

sample = numpyro.sample


def gradient_of(model, count=500, **options):
    simformer = Simformer(model, **options)
    layout = simformer._sequences.layout
    values = simformer.simulate(jax.random.key(0), count)
    channels = np.asarray(layout.encode({name: values[name].values for name in layout.sites}))
    standardisation = fit_standardisation(channels, ~layout.is_one_hot, layout.group_of_channel)
    found = model_gradient(simformer._replay, simformer.structure, layout, standardisation, channels)
    return found, channels, standardisation


def test_the_gradient_of_a_gaussian_is_minus_the_precision_times_the_point(gaussian_chain):
    found, channels, standardisation = gradient_of(chain_model)
    exact = -channels @ np.linalg.inv(gaussian_chain.covariance) * np.asarray(standardisation.scale[-1])
    np.testing.assert_allclose(found.values, exact, rtol=1e-3, atol=1e-3)
    assert found.known.all()


def kinds(y=None):
    rate = sample("rate", dist.Gamma(2.0, 1.0))
    angle = sample("angle", dist.Uniform(-1.0, 2.0))
    weights = sample("weights", dist.Dirichlet(jnp.ones(3)))
    count = sample("count", dist.Poisson(rate))
    sample("y", dist.StudentT(4.0, angle + weights[0] + count, rate), obs=y)


@pytest.mark.slow
def test_partial_integration_holds_on_every_kind_of_support():
    found, channels, standardisation = gradient_of(kinds, 5_000)
    known = np.asarray(found.known)
    assert known.tolist() == [True, True, True, True, False, True]  # all but the count
    bounds = Bounds.of(np.arange(6) == 1, standardisation)  # the angle
    points = np.asarray(bounds.unbounded(standardisation.forward(jnp.asarray(channels))))[:, known]
    # E[d/du f(u) + f(u) g] = 0 for every bounded f
    stein = 1 - np.tanh(points) ** 2 + np.tanh(points) * np.asarray(found.values)[:, known]
    assert (abs(stein.mean(0)) < 5 * stein.std(0) / np.sqrt(len(stein))).all()


def threshold(y=None):
    x = sample("x", dist.Normal(0.0, 1.0))
    z = sample("z", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(z + 2.0 * (x > 0.3), 1.0), obs=y)


def rounded(y=None):
    x = sample("x", dist.Normal(0.0, 1.0))
    z = sample("z", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(z + jnp.round(2 * x), 1.0), obs=y)


def moving_support(y=None):
    x = sample("x", dist.HalfNormal(1.0))
    z = sample("z", dist.Normal(0.0, 1.0))
    sample("w", dist.Uniform(0.0, x))
    sample("y", dist.Normal(z, 1.0), obs=y)


@pytest.mark.parametrize(
    ("model", "known"),
    [(threshold, [False, True, True]), (rounded, [False, True, True]), (moving_support, [False, True, False, True])],
)
def test_where_a_density_jumps_its_gradient_is_not_used(model, known):
    assert gradient_of(model)[0].known.tolist() == known


def callback(y=None):
    x = sample("x", dist.Normal(0.0, 1.0))
    blurred = jax.pure_callback(
        lambda a: np.sin(a).astype(np.float32), jax.ShapeDtypeStruct((), jnp.float32), x, vmap_method="expand_dims"
    )
    sample("y", dist.Normal(blurred, 1.0), obs=y)


def hidden_noise(y=None):
    x = sample("x", dist.Normal(0.0, 1.0))
    noise = jax.random.normal(numpyro.prng_key())
    sample("y", dist.Normal(x + noise, 0.1), obs=y)


def test_a_model_without_a_density_has_no_gradient():
    assert gradient_of(callback)[0] is None
    assert gradient_of(hidden_noise)[0] is None
    assert gradient_of(chain_model, sites=["a", "y"])[0] is None


def masked(y=None):
    x = sample("x", dist.Normal(0.0, 1.0))
    with numpyro.plate("n", 2), numpyro.handlers.mask(mask=False):
        sample("y", dist.Normal(x, 0.5), obs=y)


def test_a_mask_does_not_change_what_is_simulated():
    found, channels, standardisation = gradient_of(masked)
    scale = np.asarray(standardisation.scale[-1])
    exact = -channels[:, 0] + (channels[:, 1:] - channels[:, :1]).sum(1) / 0.25
    np.testing.assert_allclose(found.values[:, 0], exact * scale[0], rtol=1e-3, atol=1e-3)


class Flat(dist.Normal):
    """A simulator whose density is not known."""

    def log_prob(self, value):
        return jnp.zeros(jnp.shape(value))


def not_its_density(y=None):
    x = sample("x", dist.Normal(0.0, 1.0))
    z = sample("z", dist.Normal(0.0, 1.0))
    sample("w", dist.Normal(z, 1.0))
    sample("y", Flat(x, 0.5), obs=y)


def test_a_log_prob_that_is_not_the_density_is_found_out():
    assert gradient_of(not_its_density, 5_000)[0].known.tolist() == [False, True, True, False]


def test_simulations_are_known_again_unless_changed(tmp_path):
    simformer = Simformer(chain_model)
    simulations = simformer.simulate(jax.random.key(0), 20)
    values = {name: simulations[name].values for name in simulations.data_vars}
    assert is_own(simulations, values, simformer._replay)
    simulations.to_netcdf(tmp_path / "simulations.nc", engine="h5netcdf")
    read = xr.load_dataset(tmp_path / "simulations.nc", engine="h5netcdf")
    assert is_own(read, {name: read[name].values for name in read.data_vars}, simformer._replay)
    assert not is_own(values, values, simformer._replay)  # where plain arrays come from is not known
    assert not is_own(simulations, {**values, "a": values["a"] + 1}, simformer._replay)

    def other(y=None):
        a = sample("a", dist.Normal(0.0, 3.0))
        with numpyro.plate("k", 3):
            b = sample("b", dist.Normal(a, 1.0))
            sample("y", dist.Normal(b, 0.5), obs=y)

    assert not is_own(simulations, values, Simformer(other)._replay)


@pytest.mark.slow
def test_training_goes_without_where_it_must():
    losses = [
        Simformer(callback, network=SMALL, use_density=use)
        .fit(jax.random.key(0), 200, num_steps=50, progress_bar=False)
        .history["training_loss"]
        for use in (True, False)
    ]
    assert np.array_equal(*losses)
