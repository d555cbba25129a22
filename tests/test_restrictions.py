"""Constraints, new priors and rare intervals, on the Gaussian chain whose every conditional is known."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from simformer_ppl import above

Y = np.array([1.0, 2.0, 0.5])


def near_two(values):
    return -0.5 * ((values["a"] - 2.0) / 0.5) ** 2


def posterior_of_a(gaussian_chain):
    given = np.arange(7) >= 4
    mean, covariance = gaussian_chain.conditional(given, np.concatenate([np.zeros(4), Y]))
    return mean[0], np.sqrt(covariance[0, 0])


def product(first, second):
    """Mean and sd of the normalised product of two Gaussian densities."""
    precision = first[1] ** -2 + second[1] ** -2
    return (first[0] * first[1] ** -2 + second[0] * second[1] ** -2) / precision, precision**-0.5


@pytest.mark.slow
def test_a_constraint_multiplies_the_density(chain, gaussian_chain):
    tree = chain.condition(y=Y, constraint=near_two).sample(jax.random.key(0), 4_000)
    mean, sd = product(posterior_of_a(gaussian_chain), (2.0, 0.5))
    a = tree.posterior["a"].values
    assert abs(a.mean() - mean) < 0.05 and abs(a.std() - sd) < 0.05
    assert tree.sample_stats.attrs["route"] == "importance resampling"
    assert tree.sample_stats["log_weight"].sizes == {"chain": 4, "draw": 1_000}


def test_constraints_are_named(chain):
    assert repr(chain.condition(y=Y, constraint=near_two)) == "p(a, b | y, near_two)"


@pytest.mark.slow
def test_constraints_multiply(chain):
    once = chain.condition(y=Y, constraint=near_two)
    twice = once.condition(constraint=near_two)
    assert (
        np.asarray(twice.draw(jax.random.key(0), (1_000,))["a"]).std()
        < 0.97 * np.asarray(once.draw(jax.random.key(0), (1_000,))["a"]).std()
    )


def test_a_new_prior_is_that_of_the_answer(chain, gaussian_chain):
    # the old prior N(0, 2) is divided out
    mean, sd = posterior_of_a(gaussian_chain)
    precision = sd**-2 - 2.0**-2
    likelihood = (mean * sd**-2 / precision, precision**-0.5)
    new = chain.condition(y=Y, prior={"a": dist.Normal(1.5, 0.5)})
    draws = np.asarray(new.draw(jax.random.key(1), (4_000,))["a"])
    expected = product(likelihood, (1.5, 0.5))
    assert abs(draws.mean() - expected[0]) < 0.05 and abs(draws.std() - expected[1]) < 0.05


def test_the_prior_that_the_model_has_changes_nothing(chain):
    tree = chain.condition(y=Y, prior={"a": dist.Normal(0.0, 2.0)}).sample(jax.random.key(0), 400)
    np.testing.assert_allclose(tree.sample_stats["log_weight"], 0.0, atol=1e-4)
    assert tree.sample_stats.attrs["pareto_k"] == -np.inf


@pytest.mark.slow
def test_a_rare_interval_is_reached(chain):
    tree = chain.condition(a=above(2 * 2.6)).sample(jax.random.key(0), 1_000)
    assert tree.sample_stats.attrs["route"] == "tempering"
    a = tree.posterior["a"].values
    assert (a > 2 * 2.6).all()
    # what the network itself draws there, one time out of two hundred
    own = np.asarray(chain.condition().draw(jax.random.key(1), (20_000,))["a"])
    own = own[own > 2 * 2.6]
    # moved particles are not independent: counted as a quarter of their number
    error = np.sqrt(own.var() / own.size + a.var() / (a.size / 4))
    assert abs(a.mean() - own.mean()) < 4 * error and abs(np.log(a.std() / own.std())) < 4 * error / own.std()


def test_every_condition_of_a_batch_is_restricted(chain):
    tree = chain.condition(y=np.stack([Y, Y + 1.0]), constraint=near_two).sample(jax.random.key(0), 400)
    assert tree.posterior["a"].sizes == {"chain": 4, "draw": 100, "batch": 2}
    assert len(tree.sample_stats.attrs["route"]) == 2


def test_constraints_hold_under_jit(chain):
    asked = chain.condition(y=Y, constraint=lambda v: jnp.where(v["a"] > 1.0, 0.0, -jnp.inf))
    draws = jax.jit(lambda key: asked.draw(key, (50,))["a"])(jax.random.key(0))
    assert (np.asarray(draws) > 1.0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"constraint": 3.0}, "constraint: expected a function"),
        ({"constraint": lambda v: v["b"]}, r"constraint '<lambda>': expected a scalar"),
        ({"constraint": lambda v: v["c"]}, r"constraint '<lambda>': no site 'c'"),
        ({"constraint": lambda v: float(v["a"])}, "constraint '<lambda>': expected a JAX function"),
        ({"prior": {"c": dist.Normal(0, 1)}}, "prior: site 'c' is unknown"),
        ({"prior": {"a": 1.0}}, "prior: site 'a': expected a NumPyro distribution"),
        ({"prior": {"a": dist.Normal(jnp.zeros(2), 1)}}, r"prior: site 'a': expected a distribution that broadcasts"),
    ],
)
def test_what_cannot_be_asked_is_told(chain, arguments, message):
    with pytest.raises(ValueError, match=message):
        chain.condition(y=Y, **arguments)


def test_densities_under_constraints_are_refused(chain):
    with pytest.raises(ValueError, match="without a known normaliser"):
        chain.condition(y=Y, constraint=near_two).log_prob({})
