"""Draws corrected by the model's own density."""

from types import SimpleNamespace

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy.stats import norm

from simformer_ppl import trace_structure
from simformer_ppl.model_density import ModelDensity

Y = np.array([1.5, -0.5, 2.0])
GIVEN = np.array([False] * 4 + [True] * 3)


def errors(tree, gaussian_chain, missing=()):
    """Of means and standard deviations, in exact standard deviations."""
    given = GIVEN.copy()
    given[4 + np.array(missing, int)] = False
    mean, covariance = gaussian_chain.conditional(given, np.array([0.0] * 4 + list(Y)))
    exact = np.sqrt(np.diag(covariance))[:4]
    draws = np.concatenate([tree.posterior["a"].values[..., None], tree.posterior["b"].values], -1).reshape(-1, 4)
    return (draws.mean(0) - mean[:4]) / exact, draws.std(0) / exact - 1


@pytest.mark.slow
def test_a_rough_posterior_is_made_exact(hasty, gaussian_chain):
    posterior = hasty.condition(y=Y)
    rough = np.abs(errors(posterior.sample(jax.random.key(1), 4_000), gaussian_chain)).max()
    tree = posterior.importance_resample(jax.random.key(1), 1_000)
    stats = tree["sample_stats"]
    assert stats.attrs["pareto_k"] < 0.7 and stats["log_weight"].dims == ("chain", "draw")
    chance = 4 / np.sqrt(stats.attrs["effective_sample_size"] / 2)
    corrected = np.abs(errors(tree, gaussian_chain)).max()
    assert corrected < chance and corrected < rough / 2, (corrected, rough)


def test_arviz_compares_and_perturbs(chain):
    tree = chain.condition(y=Y).importance_resample(jax.random.key(1), 200)
    b = tree.posterior["b"].values
    np.testing.assert_allclose(tree["log_likelihood"]["y"], norm.logpdf(Y, b, 0.5), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(tree["log_prior"]["a"], norm.logpdf(tree.posterior["a"], 0, 2), rtol=1e-4, atol=1e-4)
    assert tree["log_likelihood"]["y"].dims == ("chain", "draw", "k")
    assert np.isfinite(az.loo(tree).elpd)
    assert len(az.compare({"one": tree, "two": tree})) == 2
    assert set(az.psense(tree, group="prior")) == {"a", "b"}


@pytest.mark.slow
def test_missing_data_have_no_likelihood(chain, gaussian_chain):
    y = np.where([False, True, False], np.nan, Y)
    tree = chain.condition(y=y).importance_resample(jax.random.key(1), 500)
    likelihood = tree["log_likelihood"]["y"]
    assert likelihood.dims == ("chain", "draw", "y_observed")
    assert likelihood["y_observed"].values.tolist() == ["y[0]", "y[2]"]
    mean_error, sd_error = errors(tree, gaussian_chain, missing=[1])
    assert np.abs(mean_error).max() < 5 / np.sqrt(500) and np.abs(sd_error).max() < 5 / np.sqrt(1_000)
    assert np.isfinite(az.loo(tree).elpd)


def test_every_condition_of_a_batch_has_its_own_weights(chain):
    batch = chain.condition(y=np.stack([Y, -Y]))
    tree = batch.importance_resample(jax.random.key(1), 200)
    assert tree["sample_stats"]["log_weight"].dims == ("chain", "draw", "batch")
    assert len(tree["sample_stats"].attrs["pareto_k"]) == 2
    means = tree.posterior["a"].mean(("chain", "draw")).values
    np.testing.assert_allclose(means[0], -means[1], atol=5 * np.sqrt(2 / 200))


def with_count(y=None):
    rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
    count = numpyro.sample("count", dist.Poisson(rate))
    numpyro.deterministic("twice", 2 * rate)
    numpyro.sample("y", dist.Normal(count, 1.0), obs=y)


def hidden(y=None):
    x = numpyro.sample("x", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(x + jax.random.normal(numpyro.prng_key()), 1.0), obs=y)


@pytest.mark.parametrize(
    ("model", "sites", "message"),
    [
        (with_count, ["rate", "y"], r"nuisance site is left out \(count\)"),
        (with_count, ["rate", "count", "twice", "y"], r"deterministic site is a token \(twice\)"),
        (hidden, None, "noise that is no site"),
    ],
)
def test_without_a_density_there_is_nothing_to_weigh_by(model, sites, message):
    asked = SimpleNamespace(structure=trace_structure(model, sites=sites))
    with pytest.raises(ValueError, match=message):
        ModelDensity(asked).refuse_if_unknown()


@pytest.mark.parametrize("far", [20.0, 60.0])
def test_values_far_from_what_was_learned_are_warned_of(hasty, far):
    with pytest.warns(RuntimeWarning, match="Pareto k-hat of the weights is"):
        hasty.condition(y=jnp.full(3, far)).importance_resample(jax.random.key(1), 200)
