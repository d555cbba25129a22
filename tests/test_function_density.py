"""Parameters behind functions, corrected by the model's own density of the points that are given."""

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr
from scipy.stats import norm

from simformer_ppl import above
from tests.conftest import untrained
from tests.test_functions import NOISE, OPTIONS, TIMES, exact, given, line

SEEN = TIMES[[2, 9]], [0.4, -0.2]
DRAWS = 1_000


@pytest.fixture(scope="module")
def fitted():
    """A network that has learned nothing: only the weights make its draws right."""
    return untrained(line, shaken=True, **OPTIONS)


def by_place():
    """A line of its own in each of two places, and counts at the same times."""
    level = numpyro.sample("level", dist.Normal(0.0, 1.0))
    with numpyro.plate("time", len(TIMES)):
        numpyro.sample("count", dist.Poisson(jnp.exp(level)))
        with numpyro.plate("place", 2):
            numpyro.sample("y", dist.Normal(level + jnp.array([[-1.0], [1.0]]) * TIMES, NOISE))


@pytest.fixture(scope="module")
def in_places():
    return untrained(by_place, **OPTIONS)


def test_the_parameters_of_an_untrained_network_become_exact(fitted):
    tree = fitted.condition(y=given(*SEEN)).importance_resample(jax.random.key(0), DRAWS, at={"time": TIMES[[9, 20]]})
    mean, covariance = exact(*SEEN, TIMES[[20]])
    posterior = tree.posterior
    draws = np.stack([posterior["a"], posterior["b"], posterior["y"].sel(time=2.0)], -1).reshape(-1, 3)
    size, scale = tree["sample_stats"].attrs["effective_sample_size"], np.sqrt(np.diag(covariance))
    assert size > 100
    off = (draws.mean(0) - mean) / scale
    assert np.abs(off).max() < 4 / np.sqrt(min(size, DRAWS)), off
    np.testing.assert_allclose(
        np.cov(draws.T / scale[:, None]), covariance / np.outer(scale, scale), atol=6 / np.sqrt(size)
    )
    np.testing.assert_allclose(posterior["y"].sel(time=TIMES[9]), SEEN[1][1], rtol=1e-6)  # given where it is asked for


def test_arviz_reads_the_densities_at_the_points_that_are_given(fitted):
    tree = fitted.condition(y=given(*SEEN)).importance_resample(jax.random.key(0), 200, at={"time": [1.0]})
    a, b = (tree.posterior[name] for name in "ab")
    path = a + b * xr.DataArray(SEEN[0], {"time": SEEN[0]}, ("time",))
    likelihood = tree["log_likelihood"]["y"]
    assert likelihood.dims == ("chain", "draw", "y_observed") and "chain" in likelihood.coords
    np.testing.assert_allclose(likelihood, norm.logpdf(SEEN[1], path, NOISE), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(tree["log_prior"]["a"], norm.logpdf(a), rtol=1e-4, atol=1e-4)
    assert set(tree["log_prior"].data_vars) == {"a", "b"}
    assert np.isfinite(az.loo(tree).elpd)


@pytest.mark.slow
def test_conditions_of_a_batch_have_weights_and_densities_of_their_own(fitted):
    labels = {"time": SEEN[0], "case": ["both", "one"]}
    values = xr.DataArray([[0.4, -0.2], [-0.4, np.nan]], labels, ("case", "time"))
    tree = fitted.condition(y=values).importance_resample(jax.random.key(0), DRAWS, at={"time": [1.0]})
    for case, count in enumerate((2, 1)):
        mean, covariance = exact(SEEN[0][:count], values[case, :count], [1.0])
        size = tree["sample_stats"].attrs["effective_sample_size"][case]
        drawn = tree.posterior.isel(case=case).mean()
        assert size > 50
        off = (np.array([drawn["a"], drawn["b"], drawn["y"]]) - mean) / np.sqrt(np.diag(covariance))
        assert np.abs(off).max() < 5 / np.sqrt(size), off
    likelihood = tree["log_likelihood"]["y"]
    assert likelihood.dims == ("chain", "draw", "case", "time")
    assert likelihood["case"].values.tolist() == ["both", "one"]
    assert np.isnan(likelihood[..., 1, 1]).all() and np.isfinite(likelihood[..., 0, :]).all()


@pytest.mark.slow
def test_counts_and_places_that_are_missing_in_part(in_places):
    y = np.array([[0.1, np.nan], [np.nan, 1.2]])
    posterior = in_places.condition(
        y=xr.DataArray(y, {"time": TIMES[[0, 10]]}, ("place", "time")), count=given(TIMES[[3, 4, 5]], [1, 2, 0])
    )
    tree = posterior.importance_resample(jax.random.key(0), 400, at={"time": TIMES[[3, 10, 15]]}, num_chains=2)
    # normals of one mean, and counts: on a grid
    level = np.linspace(-3.0, 3.0, 2_001)
    log_density = norm.logpdf(level) + norm.logpdf(0.1, level, NOISE) + norm.logpdf(1.2, level + 1.0, NOISE)
    weight = np.exp(log_density + 3 * level - 3 * np.exp(level))
    mean = (weight * level).sum() / weight.sum()
    deviation = np.sqrt((weight * (level - mean) ** 2).sum() / weight.sum())
    size = min(400, tree["sample_stats"].attrs["effective_sample_size"])
    assert size > 50
    assert abs(float(tree.posterior["level"].mean()) - mean) < 5 * deviation / np.sqrt(size)
    likelihood = tree["log_likelihood"]
    assert likelihood["y"].dims == ("chain", "draw", "y_observed")
    assert likelihood["y_observed"].values.tolist() == ["y[0, 0.0]", "y[1, 1.0]"]
    assert likelihood["count"].sizes["count_observed"] == 3
    assert np.isfinite(az.loo(tree, var_name="y").elpd) and np.isfinite(az.loo(tree, var_name="count").elpd)
    counts = tree.posterior["count"]
    assert (counts.sel(time=TIMES[3]) == 1).all() and counts.dtype.kind == "i" and (counts >= 0).all()
    expected = float(np.exp(tree.posterior["level"]).mean())
    assert abs(float(counts.sel(time=TIMES[15]).mean()) - expected) < 5 * np.sqrt(expected / 400)
    np.testing.assert_allclose(tree.posterior["y"].sel(time=TIMES[10])[..., 1], 1.2, rtol=1e-6)


@pytest.mark.parametrize(
    ("asked", "at", "message"),
    [
        ({"y": given(*SEEN)}, [0.123], "at: expected coordinates of 'time' where .* got 0.123 between 0.1 and 0.2"),
        ({"y": given([0.123], [0.0])}, [1.0], "Site 'y': expected coordinates of 'time' where .* got 0.123"),
        ({"a": above(0.0), "y": given(*SEEN)}, [1.0], "given as an interval"),
    ],
)
def test_what_cannot_be_corrected(fitted, asked, at, message):
    with pytest.raises(ValueError, match=message):
        fitted.condition(asked).importance_resample(jax.random.key(0), 8, at={"time": at})


def test_given_all_parameters_the_model_draws_the_points(fitted):
    asked = fitted.condition(a=xr.DataArray([0.5, -1.0], dims="case"), b=2.0, y=given([1.0], [2.0]))
    tree = asked.importance_resample(jax.random.key(0), DRAWS, at={"time": [0.5, 1.0]})
    y = tree.posterior["y"]
    np.testing.assert_allclose(y.sel(time=1.0), 2.0)
    drawn = y.sel(time=0.5).stack(sample=("chain", "draw"))
    np.testing.assert_allclose(drawn.mean("sample"), [1.5, 0.0], atol=5 * NOISE / np.sqrt(DRAWS))
    np.testing.assert_allclose(drawn.std("sample"), NOISE, rtol=5 / np.sqrt(2 * DRAWS))
    np.testing.assert_allclose(np.exp(tree["sample_stats"]["log_weight"]), 1 / (2 * DRAWS), rtol=1e-5)


def test_replicates_are_of_the_whole_grid(fitted):
    with pytest.raises(ValueError, match="Expected no `at`"):
        fitted.condition(y=given(*SEEN)).importance_resample(jax.random.key(0), 8, predictive=True, at={"time": [1.0]})


def walk():
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    numpyro.sample("x", dist.GaussianRandomWalk(scale, num_steps=7))


def one_event():
    level = numpyro.sample("level", dist.Normal(0.0, 1.0))
    base = dist.Normal(level * jnp.ones(7), 1.0).to_event(1)
    numpyro.sample("x", dist.TransformedDistribution(base, dist.transforms.ExpTransform()))


def read_by_another():
    level = numpyro.sample("level", dist.Normal(0.0, 1.0))
    x = numpyro.sample("x", dist.Normal(level * jnp.ones(7), 1.0).to_event(1))
    numpyro.sample("total", dist.Normal(x.sum(), 1.0))


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (walk, "'x' depends on them"),
        (one_event, "their density is one of all points"),
        (read_by_another, "'total' depends on them"),
    ],
)
def test_points_that_have_no_density_each(model, why):
    simformer = untrained(model, dims={"x": ["time"]}, continuous_dims={"time": 3})
    with pytest.raises(ValueError, match=f"some points of 'x' is not known, since {why}"):
        simformer.condition(x=given([1.0, 2.0], [0.5, 0.1])).importance_resample(jax.random.key(0), 8)


def test_points_of_which_a_part_is_missing():
    def pairs():
        level = numpyro.sample("level", dist.Normal(0.0, 1.0))
        with numpyro.plate("time", 7):
            numpyro.sample("x", dist.MultivariateNormal(level * jnp.ones((7, 2)), jnp.eye(2)))

    simformer = untrained(pairs, dims={"x": ["time", "of"]}, continuous_dims={"time": 3})
    half = xr.DataArray([[0.1, np.nan], [0.2, 0.3]], {"time": [1.0, 2.0]}, ("time", "of"))
    with pytest.raises(ValueError, match="where a part of a point is missing"):
        simformer.condition(x=half).importance_resample(jax.random.key(0), 8)
