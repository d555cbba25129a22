"""Known discrete values rule out edges: the table of all of them against reading the model again."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from simformer_ppl import Simformer
from simformer_ppl.network import NetworkConfig
from simformer_ppl.structure import trace_structure

sample, plate = numpyro.sample, numpyro.plate
SMALL = NetworkConfig(width=16, depth=2, heads=2)


def mixture(y=None):
    with plate("k", 3):
        m = sample("m", dist.Normal(0, 3))
    with plate("n", 5):
        z = sample("z", dist.Categorical(jnp.ones(3) / 3))
        sample("y", dist.Normal(m[z], 1), obs=y)


def hidden_states():
    with plate("k", 2):
        m, p = sample("m", dist.Normal(0, 3)), sample("p", dist.Beta(2, 2))
    z = 0
    for t in range(4):
        z = sample(f"z{t}", dist.Bernoulli(p[z]))
        sample(f"y{t}", dist.Normal(m[z], 1))


def crossed():
    a, b = sample("a", dist.Normal(0, 1).expand([2])), sample("b", dist.Normal(0, 1).expand([3]))
    with plate("n", 3):
        z, w = sample("z", dist.Bernoulli(0.5)), sample("w", dist.Categorical(jnp.ones(3) / 3))
        sample("y", dist.Normal(a[z] * b[w], 1))


def gated_event():
    on = sample("on", dist.Bernoulli(0.5))
    u = sample("u", dist.Normal(0, 1).expand([2]).to_event(1))
    coupling = jnp.array([[1.0, 0.0], [0.0, 1.0]]) + jnp.where(on == 1, 0.5, 0.0) * jnp.array([[0.0, 1.0], [1.0, 0.0]])
    sample("x", dist.MultivariateNormal(jnp.where(on == 1, u, 0.0), coupling))


def one_value_matters():
    sample("p", dist.Dirichlet(jnp.ones(1)))
    z, w = sample("z", dist.Bernoulli(0.5)), sample("w", dist.Normal(0, 1))
    sample("y", dist.Normal(jnp.where(z == 1, 0.0, w), 1.0))


@pytest.mark.parametrize("model", [mixture, hidden_states, crossed, gated_event, one_value_matters])
def test_the_table_is_what_reading_again_finds(model):
    structure, rng = trace_structure(model), np.random.default_rng(0)
    contexts = structure.contexts
    assert contexts is not None
    discrete = {name: site for name, site in structure.sites.items() if site.is_discrete}
    smaller = 0
    for _ in range(10):
        values = {name: rng.integers(0, max(site.num_categories, 2), site.shape) for name, site in discrete.items()}
        conditioned = rng.random(structure.num_tokens) < 0.5
        flat = np.zeros(structure.num_tokens, int)
        for name, site in discrete.items():
            conditioned[site.token_slice], flat[site.token_slice] = True, values[name].ravel()
        found = np.asarray(contexts.moral(jnp.asarray(conditioned), jnp.asarray(flat)))
        again = structure._moral_given(conditioned, values)
        np.testing.assert_array_equal(found, again)
        smaller += (structure.moral() & ~found).any()
    assert smaller


def test_latent_values_rule_nothing_out():
    structure = trace_structure(mixture)
    found = structure.contexts.moral(jnp.zeros(structure.num_tokens, bool), jnp.ones(structure.num_tokens, int))
    np.testing.assert_array_equal(np.asarray(found), structure.moral())


@pytest.mark.parametrize("sites", [None, ["m", "y"]])
def test_there_are_none_where_nothing_is_discrete_or_something_is_left_out(sites):
    def plain():
        sample("y", dist.Normal(sample("m", dist.Normal(0, 1)), 1))

    assert trace_structure(mixture if sites else plain, sites=sites).contexts is None


def test_masks_follow_the_values_given():
    simformer = Simformer(mixture, attention="contextual", network=SMALL)
    structure, layout = simformer.structure, simformer._sequences.layout
    z = np.array([[0, 1, 2, 0, 1], [2, 2, 2, 2, 2]])
    values = {"m": np.zeros((2, 3)), "z": z, "y": np.zeros((2, 5))}
    conditioned = np.zeros(structure.num_tokens, bool)
    conditioned[structure.sites["z"].token_slice] = conditioned[structure.sites["y"].token_slice] = True
    masks = np.asarray(simformer._sequences.training.attention(jnp.asarray(conditioned)[None], layout.encode(values)))
    first = structure.sites["y"].token_slice.start
    for example in range(2):
        for component in range(3):
            assert list(masks[example, component, first : first + 5]) == list(z[example] == component)
            assert masks[example, component, :3].sum() == 1
        expected = structure.attention_mask(conditioned, {"z": z[example]})
        np.testing.assert_array_equal(masks[example], expected)


@pytest.mark.slow
def test_with_labels_given_a_component_does_not_see_the_data_of_another():
    simformer = Simformer(mixture, attention="contextual", network=SMALL)
    simformer.fit(jax.random.key(0), 200, num_steps=50, progress_bar=False)
    y, labels = np.array([2.0, 3.0, -4.0, 2.5, -3.0]), [0, 0, 1, 0, 1]

    def drawn(y):
        return np.asarray(simformer.condition(y=y, z=labels).draw(jax.random.key(1), (20,))["m"])

    before, after = drawn(y), drawn(np.where(np.array(labels) == 0, y + 3.0, y))
    np.testing.assert_allclose(after[:, 1:], before[:, 1:], atol=1e-4)
    assert np.abs(after[:, 0] - before[:, 0]).min() > 1e-3
