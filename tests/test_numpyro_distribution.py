"""Conditioned distributions inside NumPyro."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers

Y = np.array([1.5, 0.2, -1.0])


def test_one_latent_site_is_a_distribution_over_it(chain):
    law = chain.condition(y=Y, a=0.5).as_numpyro()
    assert law.event_shape == (3,) and law.batch_shape == ()
    draws = law.sample(jax.random.key(0), (10,))
    np.testing.assert_allclose(law.log_prob(draws), chain.condition(y=Y, a=0.5).log_prob({"b": draws}), atol=1e-4)


def test_several_latent_sites_are_one_vector(chain):
    law = chain.condition(y=np.array([1.5, np.nan, -1.0])).as_numpyro()
    assert law.event_shape == (5,)  # a, b_0, b_1, b_2, y_1
    draws = law.sample(jax.random.key(0), (10,))
    unpacked = law.unpack(draws)
    assert unpacked["b"].shape == (10, 3) and unpacked["y"].shape == (10, 3)
    np.testing.assert_array_equal(unpacked["y"][:, 1], draws[:, 4])
    np.testing.assert_array_equal(law.pack(unpacked), draws)


def test_gradient_of_log_prob_is_the_score_of_the_exact_conditional(chain, gaussian_chain):
    given = np.array([True, False, False, False, True, True, True])
    mean, covariance = gaussian_chain.conditional(given, np.concatenate([[0.5], np.zeros(3), Y]))
    law = chain.condition(y=Y, a=0.5).as_numpyro()
    point = mean + np.sqrt(np.diag(covariance))
    exact = -np.linalg.solve(covariance, point - mean)
    np.testing.assert_allclose(
        jax.grad(law.log_prob)(jnp.asarray(point, jnp.float32)), exact, atol=0.3 * abs(exact).max()
    )


def test_passes_through_jit_as_an_argument(chain):
    law = chain.condition(y=Y, a=0.5).as_numpyro()
    b = jnp.zeros(3)
    np.testing.assert_allclose(jax.jit(lambda d, v: d.log_prob(v))(law, b), law.log_prob(b), atol=1e-4)


def test_used_in_another_model(chain):
    law = chain.condition(y=Y, a=0.5).as_numpyro()

    def outer():
        b = numpyro.sample("b", law)
        numpyro.sample("z", dist.Normal(b.sum(), 1.0), obs=1.0)

    trace = handlers.trace(handlers.seed(outer, jax.random.key(0))).get_trace()
    assert trace["b"]["value"].shape == (3,)
    log_density, _ = numpyro.infer.util.log_density(outer, (), {}, {"b": trace["b"]["value"]})
    assert np.isfinite(log_density)


def test_support_of_a_vector_of_mixed_sites(zoo):
    law = zoo.condition(switch=0, kind=1, count=2, x=0.5, weights=[0.2, 0.3, 0.5]).as_numpyro()
    draws = law.sample(jax.random.key(0), (50,))
    assert jnp.all(law.support(draws))
    assert not law.support(draws[0].at[0].set(-1.0))  # rate is positive
    unconstrained = numpyro.distributions.biject_to(law.support).inv(draws)
    np.testing.assert_allclose(numpyro.distributions.biject_to(law.support)(unconstrained), draws, rtol=1e-3, atol=1e-4)


def test_a_simplex_beside_other_sites_has_no_support_of_its_own(zoo):
    law = zoo.condition(switch=0, kind=1, count=2, x=0.5).as_numpyro()
    with pytest.raises(ValueError, match="Site 'weights': expected an elementwise support"):
        _ = law.support


def test_discrete_latents_are_refused(zoo):
    with pytest.raises(ValueError, match="Site 'switch' is discrete"):
        zoo.condition(x=0.0).as_numpyro()
