"""Conditioned distributions as a prior, a likelihood and a guide of other models, beside exact answers."""

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from scipy.stats import multivariate_normal, skewnorm

from simformer_ppl import Simformer, trace_structure
from tests.conftest import untrained

Y = np.array([1.5, 0.2, -1.0])
SLANT = 3.0


def differ(draws, mean, sd, allowed):
    """Whether mean or log sd of a chain are off by more sd than it says, three standard errors and what is allowed."""
    effective = float(az.ess(np.asarray(draws)[None]))
    errors = abs(draws.mean() - mean) / sd, abs(np.log(draws.std() / sd))
    print(f"mean off by {errors[0]:.3f} sd, log sd by {errors[1]:.3f}; {effective:.0f} effective of {len(draws)} draws")
    return errors[0] > 3 * effective**-0.5 + allowed or errors[1] > 3 * (2 * effective) ** -0.5 + allowed


def nuts(model, num_draws, *arguments, **keywords):
    # one or two parameters: derivatives along each cost less than a gradient through the density
    kernel = NUTS(model, forward_mode_differentiation=True)
    mcmc = MCMC(kernel, num_warmup=100, num_samples=num_draws, progress_bar=False)
    mcmc.run(jax.random.key(0), *arguments, **keywords)
    return mcmc.get_samples()


@pytest.mark.slow
def test_a_posterior_is_the_prior_of_another_model(chain, gaussian_chain):
    law = chain.condition(y=Y, b=np.array([1.0, 0.2, -0.5])).as_numpyro()

    def later(z):
        a = numpyro.sample("a", law)
        numpyro.sample("z", dist.Normal(a, 0.5), obs=z)

    draws = nuts(later, 300, 1.2)["a"]
    given = np.arange(7) > 0
    values = np.concatenate([[0.0], [1.0, 0.2, -0.5], Y])
    mean, covariance = gaussian_chain.conditional(given, values)
    precision = 1 / covariance[0, 0] + 1 / 0.25
    expected, sd = (mean[0] / covariance[0, 0] + 1.2 / 0.25) / precision, precision**-0.5
    assert not differ(draws, expected, sd, 0.1)


def skewed():
    """x = location + scale * (noise that leans to one side), of a density that NumPyro is not told."""
    location = numpyro.sample("location", dist.Normal(0.0, 1.0))
    scale = numpyro.sample("scale", dist.LogNormal(-0.5, 0.4))
    lean = numpyro.sample("lean", dist.HalfNormal(1.0))
    rest = numpyro.sample("rest", dist.Normal(0.0, 1.0))
    share = SLANT / np.sqrt(1 + SLANT**2)
    numpyro.deterministic("x", location + scale * (share * lean + np.sqrt(1 - share**2) * rest))


@pytest.mark.slow
def test_a_network_is_the_likelihood_of_a_simulator_without_density():
    options = {"sites": ["location", "scale", "x"], "data_sites": ["x"]}
    simformer = Simformer(skewed, **options).fit(jax.random.key(0), 10_000, num_steps=6_000, progress_bar=False)
    truth = np.random.default_rng(1)
    data = jnp.asarray(skewnorm.rvs(SLANT, 0.5, 0.7, size=20, random_state=truth), jnp.float32)

    def outer(x, log_likelihood=None):
        location = numpyro.sample("location", dist.Normal(0.0, 1.0))
        scale = numpyro.sample("scale", dist.LogNormal(-0.5, 0.4))
        if log_likelihood is None:
            each = simformer.condition(location=location * jnp.ones(20), scale=scale * jnp.ones(20)).as_numpyro()
            with numpyro.plate("n", 20):
                numpyro.sample("x", each, obs=x)
        else:
            numpyro.factor("x", log_likelihood(x, location, scale))

    def exact(x, location, scale):
        z = (x - location) / scale
        return (dist.Normal(0, 1).log_prob(z) - jnp.log(scale) + jax.scipy.stats.norm.logcdf(SLANT * z)).sum()

    ours, reference = nuts(outer, 300, data), nuts(outer, 2_000, data, log_likelihood=exact)
    for name in ("location", "scale"):
        # what one learned likelihood is off counts twenty times
        assert not differ(ours[name], reference[name].mean(), reference[name].std(), 0.15)


@pytest.mark.slow
def test_a_guide_is_refined_by_svi(chain, gaussian_chain):
    # the posterior where b is half a unit lower than in the model
    law = chain.condition(y=Y, b=np.array([1.0, 0.2, -0.5])).as_numpyro()

    def model():
        a = numpyro.sample("a", dist.Normal(0.0, 2.0))
        numpyro.sample("b", dist.Normal(a, 1.0).expand([3]).to_event(1), obs=jnp.array([1.0, 0.2, -0.5]) + 0.5)

    def guide():
        shift = numpyro.param("shift", 0.0)
        log_scale = numpyro.param("log_scale", 0.0)
        moved = dist.transforms.AffineTransform(shift, jnp.exp(log_scale))
        numpyro.sample("a", dist.TransformedDistribution(law, moved))

    svi = SVI(model, guide, optax.adam(0.02), Trace_ELBO(num_particles=8))
    result = svi.run(jax.random.key(0), 300, progress_bar=False)
    # p(a | b) of the model is that of the chain where b is half a unit higher
    given, values = np.arange(7) > 0, np.concatenate([[0.0], np.array([1.5, 0.7, 0.0]), Y])
    mean, covariance = gaussian_chain.conditional(given, values)
    draws = numpyro.infer.Predictive(guide, params=result.params, num_samples=2_000)(jax.random.key(1))["a"]
    sd = covariance[0, 0] ** 0.5
    # of the network's error and of 300 noisy steps
    assert abs(draws.mean() - mean[0]) < 0.15 * sd and abs(np.log(draws.std() / sd)) < 0.15
    evidence = multivariate_normal(np.zeros(3), 4.0 + np.eye(3)).logpdf([1.5, 0.7, 0.0])
    # at its best the ELBO is the evidence
    assert abs(-np.mean(np.asarray(result.losses[-50:])) - evidence) < 0.05


def test_what_has_no_noise_of_its_own_has_no_density():
    def model():
        t = numpyro.sample("t", dist.Normal(0.0, 1.0))
        with numpyro.plate("n", 3):
            noise = numpyro.sample("noise", dist.Normal(0.0, 1.0))
        count = numpyro.sample("count", dist.Poisson(2.0))
        x = numpyro.deterministic("x", t + noise)
        numpyro.deterministic("mean", x.mean())
        numpyro.deterministic("square", t**2)
        numpyro.deterministic("jump", t + count)
        numpyro.deterministic("rounded", jnp.floor(x[0]).astype(int))

    def densities(*sites):
        structure = trace_structure(model, sites=["t", *sites])
        return {name for name in sites if structure.deterministics[name].has_density}

    assert densities("x", "square", "jump") == {"x"}
    assert densities("mean", "jump") == {"mean"}
    assert densities("x", "mean") == set()  # four scalars of three numbers
    assert densities("rounded") == set()
    asked = untrained(model, sites=["t", "x", "square"], data_sites=["x", "square"]).condition(t=0.3)
    with pytest.raises(ValueError, match="Site 'square' is latent, and a function of other sites without noise"):
        asked.log_prob({"x": np.zeros(3), "square": 0.09})
