"""Sites that a network of the user reads as a whole."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from flax import nnx

from simformer_ppl import Simformer, above
from simformer_ppl.structure import trace_structure
from simformer_ppl.training.model_gradient import model_gradient
from tests.conftest import SMALL, trained_once, untrained

LENGTH, NOISE = 60, 1.0
WAVES = np.stack([np.sin(np.arange(LENGTH) / 3), np.cos(np.arange(LENGTH) / 9)], 1).astype(np.float32)


def waves(series=None):
    """A long series that is the sum of two waves and noise: the posterior of their heights is Gaussian and known."""
    heights = numpyro.sample("heights", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
    with numpyro.plate("time", LENGTH):
        numpyro.sample("series", dist.Normal(WAVES @ heights, NOISE), obs=series)


class Reader(nnx.Module):
    """Two tokens from a series."""

    def __init__(self, rngs, tokens=2):
        self.first = nnx.Linear(LENGTH, 16, rngs=rngs)
        self.second = nnx.Linear(16, tokens * 8, rngs=rngs)
        self.tokens = tokens

    def __call__(self, series):
        return self.second(nnx.gelu(self.first(series))).reshape(self.tokens, 8)


def reader():
    return Reader(nnx.Rngs(0))


@pytest.fixture(scope="module")
def fitted():
    """For what holds whatever a network has learned."""
    return untrained(waves, shaken=True, embeddings={"series": reader()})


@pytest.fixture(scope="module")
def learned(shared_folder):
    return trained_once(shared_folder / "waves", waves, 10_000, 6_000, embeddings={"series": reader()})


def simulate(simformer, count, seed=1):
    return {n: v.values for n, v in simformer.simulate(jax.random.key(seed), count, progress_bar=False).items()}


@pytest.mark.slow
def test_the_posterior_is_the_exact_one(learned):
    covariance = np.linalg.inv(np.eye(2) + WAVES.T @ WAVES / NOISE**2)
    deviation = np.sqrt(np.diag(covariance))
    series = simulate(learned, 20)["series"]
    draws = np.asarray(learned.condition(series=series).draw(jax.random.key(2), (1_000,))["heights"])
    means = series @ WAVES @ covariance / NOISE**2
    # a fifth of a standard deviation, on average over all series
    assert np.sqrt((((draws.mean(0) - means) / deviation) ** 2).mean()) < 0.2
    np.testing.assert_allclose(np.log(draws.std(0) / deviation).mean(0), 0.0, atol=0.1)


@pytest.mark.slow
def test_without_the_series_the_prior_is_left(learned):
    draws = np.asarray(learned.condition().draw(jax.random.key(0), (4_000,))["heights"])
    np.testing.assert_allclose(draws.mean(0), 0.0, atol=0.1)
    np.testing.assert_allclose(draws.std(0), 1.0, atol=0.1)


def test_a_site_becomes_as_many_tokens_as_its_network_returns(fitted):
    structure = fitted.structure
    assert structure.tokens == ("heights[0]", "heights[1]", "series[0]", "series[1]")
    assert structure.sites["series"].shape == (LENGTH,) and structure.exchangeable == ()
    assert "embedded" in repr(structure)
    edges = structure.moral()
    assert edges[:2, 2:].all()


def test_a_series_is_given_or_left_out_and_never_asked_for(fitted):
    assert repr(fitted.condition()) == "p(heights)"
    assert repr(fitted.condition(series=np.zeros(LENGTH))) == "p(heights | series)"
    assert set(fitted.condition().draw(jax.random.key(0), (2,))) == {"heights"}
    with pytest.raises(ValueError, match="some of the sites that are not given, heights; got 'series'"):
        fitted.condition().draw(jax.random.key(0), sites=["series"])
    with pytest.raises(ValueError, match="part of an event is missing, but it is embedded"):
        fitted.condition(series=np.r_[np.nan, np.zeros(LENGTH - 1)])
    with pytest.raises(ValueError, match=r"Site 'series'.*interval"):
        fitted.condition(series=above(0.0))


def test_the_network_reads_the_series(fitted):
    answers = [fitted.condition(series=np.full(LENGTH, level)).log_prob({"heights": jnp.zeros(2)}) for level in (0, 1)]
    assert np.isfinite(answers).all() and answers[0] != answers[1]


@pytest.mark.slow
def test_its_weights_are_trained_and_the_module_stays_as_it_was():
    module = reader()
    before = nnx.state(module)
    simformer = Simformer(waves, embeddings={"series": module}, network=SMALL, use_density=False)
    simformer.fit(jax.random.key(0), 200, num_steps=20, batch_size=16, progress_bar=False)
    trained = jax.tree.leaves(simformer._joint.parameters["embeddings"]["series"]["weights"])
    assert jax.tree.all(jax.tree.map(lambda old, new: bool((old == new).all()), before, nnx.state(module)))
    assert not any(map(np.array_equal, trained, jax.tree.leaves(before)))


def test_conditions_of_a_batch_are_answered_as_each_alone(fitted):
    series = simulate(fitted, 3)["series"]
    values = np.random.default_rng(0).normal(size=(3, 2))
    together = fitted.condition(series=series).log_prob({"heights": values})
    alone = [
        fitted.condition(series=own).log_prob({"heights": value}) for own, value in zip(series, values, strict=True)
    ]
    np.testing.assert_allclose(together, alone, atol=1e-4)
    assert fitted.condition(series=series).draw(jax.random.key(0), (4,))["heights"].shape == (4, 3, 2)


def test_inference_data_and_corrected_draws(fitted):
    posterior = fitted.condition(series=simulate(fitted, 1)["series"][0])
    tree = posterior.sample(jax.random.key(0), 8, predictive=True, log_prob=True)
    assert tree.posterior_predictive["series"].dims == ("chain", "draw", "time")
    assert tree.observed_data["series"].sizes == {"time": LENGTH}
    with pytest.warns(RuntimeWarning, match="Pareto k-hat"):
        corrected = posterior.importance_resample(jax.random.key(0), 400)
    assert corrected.log_likelihood["series"].sizes["time"] == LENGTH
    with pytest.raises(ValueError, match=r"a site with an embedding is not given \(series\)"):
        fitted.condition().importance_resample(jax.random.key(0))


def test_the_posterior_and_the_prior_are_checked_and_no_likelihood(fitted):
    checked = fitted.check(jax.random.key(0), num_simulations=20, num_draws=10)
    assert set(checked) == {"posterior", "joint"}


def test_constraints_and_priors_are_of_what_is_asked_for(fitted):
    posterior = fitted.condition(series=np.zeros(LENGTH))
    near = posterior.condition(constraint=lambda values: -2.0 * (values["heights"] ** 2).sum())
    sizes = [float((asked.draw(jax.random.key(0), (400,))["heights"] ** 2).mean()) for asked in (near, posterior)]
    assert sizes[0] < 0.7 * sizes[1]
    with pytest.raises(ValueError, match="no site 'series'"):
        fitted.condition(constraint=lambda values: values["series"].sum())


def test_a_saved_network_answers_the_same(fitted, tmp_path):
    fitted.save(tmp_path / "waves")
    with pytest.raises(ValueError, match=r"saved with embeddings of \['series'\]"):
        Simformer.load(tmp_path / "waves", waves)
    again = Simformer.load(tmp_path / "waves", waves, embeddings={"series": Reader(nnx.Rngs(7))})
    draws = [each.condition(series=np.ones(LENGTH)).draw(jax.random.key(0), (4,)) for each in (fitted, again)]
    np.testing.assert_array_equal(draws[0]["heights"], draws[1]["heights"])


def test_the_models_gradient_is_that_without_an_embedding():
    options = {"network": SMALL}
    plain, read = Simformer(waves, **options), Simformer(waves, embeddings={"series": reader()}, **options)
    gradients = []
    for simformer in (plain, read):
        simulations = simformer.simulate(jax.random.key(0), 500, progress_bar=False)
        channels, _ = simformer._channels(jax.random.key(0), 500, simulations)
        joint = simformer._initialise(jax.random.key(0), channels)
        gradients.append(
            model_gradient(simformer._replay, simformer.structure, joint.layout, joint.standardisation, channels)
        )
    np.testing.assert_allclose(gradients[0].values[:, :2], gradients[1].values[:, :2], rtol=1e-4, atol=1e-4)
    assert gradients[1].values.shape == (500, 4) and gradients[1].known[:2].all()


def test_an_image_far_from_the_simulations_is_warned_of():
    simformer = untrained(waves, embeddings={"series": reader()})
    with pytest.warns(RuntimeWarning, match="'series'.*far outside"):
        simformer.condition(series=np.full(LENGTH, 50.0))


def test_a_series_of_many_scalars_makes_few_tokens():
    def model():
        level = numpyro.sample("level", dist.Normal(0, 1))
        numpyro.sample("series", dist.Normal(level, jnp.ones(20_000)).to_event(1))

    structure = trace_structure(model, embedded={"series": lambda shape: 1})
    assert structure.tokens == ("level", "series[0]")


class Noisy(nnx.Module):
    def __init__(self):
        self.dropout = nnx.Dropout(0.1, rngs=nnx.Rngs(0))

    def __call__(self, series):
        return self.dropout(series)


class Counting(nnx.Module):
    def __init__(self):
        self.count = nnx.BatchStat(jnp.zeros(()))

    def __call__(self, series):
        return series


class Recurrent(nnx.Module):
    """Its cell has a stream of random numbers, of which it makes no use."""

    def __init__(self):
        self.layers = nnx.RNN(nnx.GRUCell(1, 4, rngs=nnx.Rngs(0)))

    def __call__(self, series):
        return self.layers(series[:, None])[-1]


def through():
    """z, of ten, stands between a and all the rest."""
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    with numpyro.plate("k", 10):
        z = numpyro.sample("z", dist.Normal(a + 5.0, 1.0))
    numpyro.sample("b", dist.Normal(z.sum(), 3.0))
    numpyro.sample("y", dist.Normal(z.sum(), 0.1))


@pytest.fixture(scope="module")
def recurrent():
    return untrained(through, embeddings={"z": Recurrent()}, data_sites=["y"])


@pytest.mark.slow
def test_a_recurrent_network_reads_in_order(recurrent):
    z = np.linspace(4.0, 6.0, 10)
    forth, back = (float(recurrent.condition(z=series).log_prob({"a": 0.0})) for series in (z, z[::-1]))
    assert np.isfinite([forth, back]).all()
    simformer = Simformer(through, embeddings={"z": Recurrent()}, network=SMALL, use_density=False)
    simformer.fit(jax.random.key(0), 200, num_steps=20, batch_size=16, progress_bar=False)
    trained = simformer._joint.parameters["embeddings"]["z"]["weights"]
    assert not any(map(np.array_equal, jax.tree.leaves(trained), jax.tree.leaves(nnx.state(Recurrent(), nnx.Param))))


def test_replicates_do_not_take_what_is_left_out_for_zeros(recurrent):
    replicates = recurrent.condition(y=50.0).sample(jax.random.key(0), 200, predictive=True).posterior_predictive["y"]
    assert 30.0 < float(replicates.mean()) < 70.0


def test_a_new_prior_needs_what_its_site_reads(recurrent):
    asked = recurrent.condition(y=50.0, prior={"b": dist.Normal(50.0, 3.0)})
    with pytest.raises(ValueError, match="the law of 'b' reads 'z', which is not given"):
        asked.draw(jax.random.key(0), (2,))
    assert asked.condition(z=np.full(10, 5.0)).draw(jax.random.key(0), (2,))["b"].shape == (2,)


def test_what_is_never_asked_for_is_named(recurrent):
    with pytest.raises(ValueError, match="every site is given in full but 'z', read by an embedding"):
        recurrent.condition(a=0.0, b=0.0, y=1.0)

    def alone():
        numpyro.sample("z", dist.Normal(jnp.zeros(5), 1.0).to_event(1))

    with pytest.raises(ValueError, match="Expected a site that can be asked for, got z alone"):
        Simformer(alone, embeddings={"z": Recurrent()})


class Returns(nnx.Module):
    def __init__(self, result):
        self.result = result

    def __call__(self, series):
        return jnp.zeros(self.result) if isinstance(self.result, tuple) else self.result[series]


@pytest.mark.parametrize(
    ("embeddings", "told"),
    [
        ({"series": lambda series: series}, "expected a flax.nnx.Module for 'series', got function"),
        ({"picture": reader()}, "'picture' is no token site. Expected some of: heights, series"),
        ({"series": Counting()}, "the module for 'series' has a state .*BatchStat.*Expected nnx.Param alone"),
        ({"series": Noisy()}, "the module for 'series' draws random numbers, as dropout does"),
        ([reader()], "embeddings: expected modules by site, got list"),
        ({"series": Returns((2, 3, 4))}, r"return an array \(tokens, features\), .* got \(2, 3, 4\)"),
        ({"series": Returns("no")}, r"the module for 'series' fails on an array of shape \(60,\)"),
        ({"series": Returns((61, 4))}, "'series' cannot be embedded: it has 60 scalars, fewer than the 61 tokens"),
    ],
)
def test_what_cannot_be_an_embedding(embeddings, told):
    with pytest.raises(ValueError, match=told):
        Simformer(waves, embeddings=embeddings)


def test_a_function_cannot_be_embedded():
    with pytest.raises(ValueError, match="embeddings: expected none beside continuous_dims"):
        Simformer(waves, embeddings={"series": reader()}, continuous_dims=["time"])
