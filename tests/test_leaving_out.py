"""Sites that are neither given nor asked for are marginalised."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats

from simformer_ppl.tokens.states import ABSENT, GIVEN, LATENT
from tests.conftest import untrained

Y = np.array([1.0, 2.0, -0.5])
GIVEN_Y = np.array([False] * 4 + [True] * 3)


@pytest.fixture(scope="module")
def posterior(chain):
    return chain.condition(y=Y)


def _exact(gaussian_chain):
    return gaussian_chain.conditional(GIVEN_Y, np.concatenate([np.zeros(4), Y]))


def test_the_density_of_some_sites_is_the_marginal_one(posterior, gaussian_chain):
    mean, covariance = _exact(gaussian_chain)
    drawn = np.random.default_rng(0).multivariate_normal(mean, covariance, 16)
    for sites, values in {(0,): {"a": drawn[:, 0]}, (1, 2, 3): {"b": drawn[:, 1:]}}.items():
        law = stats.multivariate_normal(mean[list(sites)], covariance[np.ix_(sites, sites)])
        errors = np.asarray(posterior.log_prob(values)) - law.logpdf(drawn[:, sites])
        assert np.abs(errors).mean() < 0.1 * len(sites)


def test_draws_of_some_sites_have_their_marginal_law(posterior, gaussian_chain):
    mean, covariance = _exact(gaussian_chain)
    tree = posterior.sample(jax.random.key(0), 4_000, sites=["a"])
    assert list(tree.posterior.data_vars) == ["a"]
    drawn = tree.posterior["a"].values.ravel()
    deviation = covariance[0, 0] ** 0.5
    assert abs(drawn.mean() - mean[0]) < 0.1 * deviation and abs(drawn.std() / deviation - 1) < 0.08
    told = posterior.sample(jax.random.key(1), 8, sites=["a"], log_prob=True)
    density = posterior.log_prob({"a": told.posterior["a"].values.ravel()})
    np.testing.assert_allclose(told.sample_stats["lp"].values.ravel(), density, atol=1e-4)
    assert set(posterior.draw(jax.random.key(0), (3,), sites="b")) == {"b"}


def test_without_data_the_prior_is_left(chain):
    drawn = chain.condition().draw(jax.random.key(0), (4_000,), sites=["b"])["b"]
    assert abs(np.asarray(drawn).std() / 5**0.5 - 1) < 0.1
    assert abs(np.corrcoef(np.asarray(drawn).T)[0, 1] - 0.8) < 0.08  # they share their mean


def test_a_marginal_is_a_numpyro_distribution(posterior):
    marginal = posterior.as_numpyro(sites=["a"])
    assert marginal.event_shape == ()
    traced = numpyro.handlers.trace(numpyro.handlers.seed(lambda: numpyro.sample("next", marginal), 0)).get_trace()
    np.testing.assert_allclose(
        marginal.log_prob(traced["next"]["value"]), posterior.log_prob({"a": traced["next"]["value"]}), atol=1e-5
    )


def test_what_is_left_out_cannot_be_seen():
    def model(y=None):
        a = numpyro.sample("a", dist.Normal())
        b = numpyro.sample("b", dist.Normal(a, 1.0))
        numpyro.sample("y", dist.Normal(a + b, 1.0), obs=y)

    joint = untrained(model)._joint
    # weights that answer: those of a fresh network say nothing
    noise = lambda leaf: leaf + 0.3 * jax.random.normal(jax.random.key(leaf.size), leaf.shape)  # noqa: E731
    joint = type(joint)(jax.tree.map(noise, joint.parameters), *[getattr(joint, name) for name in (
        "standardisation", "graph", "layout", "attention", "process")])  # fmt: skip
    values = jnp.array([[0.5, -1.0, 2.0], [0.5, 1e6, 2.0]])
    left_out = np.array([[LATENT, ABSENT, GIVEN]], np.int8)
    densities = joint.log_density(jax.random.key(0), values, left_out)
    assert densities[0] == densities[1]
    assert not jnp.isclose(*joint.log_density(jax.random.key(0), values, left_out % ABSENT))


def test_a_discrete_site_that_is_left_out_leaves_a_density():
    def mixture(y=None):
        z = numpyro.sample("z", dist.Bernoulli(0.3))
        mu = numpyro.sample("mu", dist.Normal(4.0 * z, 1.0))
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    posterior = untrained(mixture).condition(y=1.0)
    assert np.isfinite(posterior.log_prob({"mu": 0.5}))
    with pytest.raises(ValueError, match="'z' is discrete"):
        posterior.log_prob({"mu": 0.5, "z": 1})


def test_intervals_on_what_is_not_asked_hold_all_the_same(chain, gaussian_chain):
    from simformer_ppl import above

    with_b = chain.condition(y=Y).condition(a=above(1.5))
    tree = with_b.sample(jax.random.key(0), 1_000, sites=["b"])
    assert list(tree.posterior.data_vars) == ["b"]
    unconditional = chain.condition(y=Y).sample(jax.random.key(0), 1_000, sites=["b"])
    assert (tree.posterior["b"].mean() > unconditional.posterior["b"].mean()).item()


@pytest.mark.parametrize(("sites", "told"), [(["tau"], "'tau'"), (["y"], "'y'"), ([], "none"), (["a", "c"], "'c'")])
def test_sites_that_cannot_be_asked_for(posterior, sites, told):
    with pytest.raises(ValueError, match=f"expected some of the sites that are not given, a, b; got {told}"):
        posterior.sample(jax.random.key(0), 4, sites=sites)


def test_a_density_of_nothing(posterior):
    with pytest.raises(ValueError, match=r"Site 'mu' is not in the model\. Expected one of: a, b, y"):
        posterior.log_prob({"mu": 0.0})


def test_a_deterministic_site_that_is_no_token_is_told_to_be_none():
    def model():
        x = numpyro.sample("x", dist.Normal())
        numpyro.deterministic("twice", 2 * x)

    with pytest.raises(ValueError, match=r"Deterministic 'twice' is no token: name it in Simformer\(\.\.\., sites="):
        untrained(model).condition().sample(jax.random.key(0), 8, sites=["twice"])
