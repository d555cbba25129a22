"""The constant maps between site values and channels."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from scipy.stats import kstest

from simformer_ppl import trace_structure
from simformer_ppl.tokens.layout import TokenLayout

DISTRIBUTIONS = {
    "normal": dist.Normal(1.0, 3.0),
    "half_normal": dist.HalfNormal(2.0),
    "truncated_above": dist.TruncatedNormal(0.0, 1.0, high=0.5),
    "shifted_pareto": dist.Pareto(1.0, 3.0),
    "uniform": dist.Uniform(-2.0, 5.0),
    "beta": dist.Beta(2.0, 3.0),
    "von_mises": dist.VonMises(0.0, 1.0),
    "event_box": dist.Uniform(-3.0, 3.0).expand([5]).to_event(1),
    "normal_vector": dist.MultivariateNormal(jnp.zeros(3), jnp.eye(3)),
    "dirichlet": dist.Dirichlet(jnp.ones(4)),
    "ordered": dist.TransformedDistribution(
        dist.Normal(0.0, 1.0).expand([3]).to_event(1), dist.transforms.OrderedTransform()
    ),
    "cholesky": dist.LKJCholesky(3, 1.0),
    "bernoulli": dist.Bernoulli(0.3),
    "poisson": dist.Poisson(4.0),
    "binomial": dist.Binomial(7, 0.5),
    "categorical": dist.Categorical(jnp.array([0.2, 0.3, 0.5])),
    "multinomial": dist.Multinomial(10, jnp.array([0.2, 0.3, 0.5])),
}


def layout_of(distribution):
    def model():
        with numpyro.plate("copy", 2):
            numpyro.sample("x", distribution)

    structure = trace_structure(model)
    draw = jax.vmap(lambda key: handlers.trace(handlers.seed(model, key)).get_trace()["x"]["value"])
    return structure, TokenLayout.of(structure), draw(jax.random.split(jax.random.key(0), 200))


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_channels_and_back(name):
    _, layout, values = layout_of(DISTRIBUTIONS[name])
    channels = layout.encode({"x": values})
    assert channels.shape == (200, layout.num_channels)
    back = layout.decode(channels)["x"]
    assert back.dtype == values.dtype
    np.testing.assert_allclose(back, values, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_any_channels_land_inside_the_support(name):
    structure, layout, _ = layout_of(DISTRIBUTIONS[name])
    # gaps of an ordered vector are exponentials, which float32 cannot add to values far larger
    scale = 1.5 if name == "ordered" else 4.0
    channels = scale * jax.random.normal(jax.random.key(1), (500, layout.num_channels))
    inside = structure.sites["x"].support(layout.decode(channels)["x"])
    assert jnp.all(inside)


@pytest.mark.parametrize(
    "name", ["normal", "half_normal", "truncated_above", "shifted_pareto", "uniform", "beta", "event_box"]
)
def test_elementwise_jacobian_is_the_derivative(name):
    _, layout, values = layout_of(DISTRIBUTIONS[name])

    def first_channel(scalar, value):
        flat = value.ravel().at[0].set(scalar).reshape(value.shape)
        return layout.encode({"x": flat})[0]

    slope = jax.vmap(jax.grad(first_channel))(values.reshape(200, -1)[:, 0], values)
    got = layout.log_abs_det_jacobian({"x": values})[:, 0]
    np.testing.assert_allclose(got, jnp.log(jnp.abs(slope)), atol=1e-3)


def test_simplex_density_integrates_to_that_of_the_prior():
    # a uniform density on the 2-simplex is 2; pushed to channels and back it must stay so
    _, layout, values = layout_of(dist.Dirichlet(jnp.ones(3)))
    unconstrained = dist.TransformedDistribution(
        dist.Dirichlet(jnp.ones(3)), dist.transforms.StickBreakingTransform().inv
    )
    log_density = unconstrained.log_prob(layout.encode({"x": values}).reshape(200, 2, 2)).sum(-1)
    jacobian = layout.log_abs_det_jacobian({"x": values}).sum(-1)
    np.testing.assert_allclose(log_density + jacobian, 2 * np.log(2.0), atol=1e-3)


def test_a_uniform_prior_fills_the_unit_interval():
    _, layout, values = layout_of(DISTRIBUTIONS["uniform"])
    assert layout.is_bounded.all()
    assert kstest(np.asarray(layout.encode({"x": values})).ravel(), "uniform").pvalue > 1e-4


@pytest.mark.parametrize("name", ["normal", "half_normal", "beta", "dirichlet", "binomial"])
def test_other_densities_need_no_edges(name):
    assert not layout_of(DISTRIBUTIONS[name])[1].is_bounded.any()


def test_a_categorical_scalar_is_one_token_of_many_channels_and_a_simplex_one_token_less():
    structure, layout, _ = layout_of(DISTRIBUTIONS["categorical"])
    assert structure.num_tokens == 2 and layout.num_channels == 6
    assert layout.token_of_channel.tolist() == [0, 0, 0, 1, 1, 1]
    structure, layout, _ = layout_of(DISTRIBUTIONS["dirichlet"])
    assert structure.num_tokens == 6 and layout.unit_of_token.tolist() == [0, 0, 0, 1, 1, 1]


def test_dequantised_counts_round_back():
    _, layout, values = layout_of(DISTRIBUTIONS["poisson"])
    noised = layout.dequantise(jax.random.key(0), layout.encode({"x": values}))
    assert not jnp.array_equal(noised, layout.encode({"x": values}))
    np.testing.assert_array_equal(layout.decode(noised)["x"], values)
