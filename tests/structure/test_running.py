"""Models run as simulators: what is forgotten, held, told of and refused, also inside loops and branches."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.contrib.control_flow import cond, scan

from simformer_ppl import Simformer
from simformer_ppl.structure import trace_structure
from simformer_ppl.structure.running import run

sample, plate = numpyro.sample, numpyro.plate


def edges(model, **options):
    structure = trace_structure(model, **options)
    return {(structure.tokens[i], structure.tokens[j]) for i, j in np.argwhere(structure.adjacency)}


def walk(name, length, start=0.0, **options):
    return scan(lambda c, _: (sample(name, dist.Normal(c, 1)),) * 2, start, jnp.arange(length), **options)


def scoped():
    with handlers.scope(prefix="s"):
        walk("x", 3)


def reversed_walk():
    walk("x", 3, reverse=True)


def nested():
    def outer(c, _):
        with handlers.scope(prefix="in"):
            c, _ = walk("x", 2, c)
        sample("y", dist.Normal(c, 1))
        return c, None

    scan(outer, 0.0, None, length=2)


def branches():
    a, b = sample("a", dist.Normal(0, 1)), sample("b", dist.Normal(0, 1))
    x = cond(a > 0, lambda _: sample("x", dist.Normal(b, 1)), lambda _: sample("x", dist.Normal(-b, 1)), None)
    sample("z", dist.Normal(x, 1))


LOOPS = {
    scoped: {("s/x[1]", "s/x[0]"), ("s/x[2]", "s/x[1]")},
    reversed_walk: {("x[0]", "x[1]"), ("x[1]", "x[2]")},
    nested: {
        ("in/x[0, 1]", "in/x[0, 0]"),
        ("in/x[1, 0]", "in/x[0, 1]"),
        ("in/x[1, 1]", "in/x[1, 0]"),
        ("y[0]", "in/x[0, 1]"),
        ("y[1]", "in/x[1, 1]"),
    },
    branches: {("x", "a"), ("x", "b"), ("z", "x")},
}


@pytest.mark.parametrize("model", LOOPS)
def test_loops_and_branches_are_entered(model):
    assert edges(model) == LOOPS[model]


@pytest.mark.parametrize("model", LOOPS)
def test_held_values_reach_every_statement(model):
    drawn, _ = run(model, (), {}, jax.random.key(0))
    values = {name: message["value"] for name, message in drawn.items() if message["type"] == "sample"}
    again, _ = run(model, (), {}, jax.random.key(1), held=values)
    for name, value in values.items():
        np.testing.assert_array_equal(again[name]["value"], value)
    # the law of the last step of a chain is centred on the step before
    if model is reversed_walk:
        np.testing.assert_array_equal(again["x"]["fn"].loc[:-1], values["x"][1:])


def test_observations_in_a_loop_are_forgotten_and_are_data():
    def model(y=jnp.arange(3.0)):  # noqa: B008
        scan(lambda c, o: (sample("y", dist.Normal(c, 1), obs=o), None), 0.0, y)

    assert edges(model) == {("y[1]", "y[0]"), ("y[2]", "y[1]")}
    simformer = Simformer(model)
    assert simformer.structure.sites["y"].is_data
    assert float(simformer.simulate(jax.random.key(0), 50)["y"].std("simulation").min()) > 0.5


def test_parameters_stay_at_one_value():
    def model():
        weight = numpyro.param("weight", lambda key: jax.random.normal(key))
        with plate("n", 2):
            numpyro.deterministic("used", weight + 0 * sample("x", dist.Normal(0, 1)))

    with pytest.warns(UserWarning, match=r"numpyro.param sites \['weight'\] are not learned"):
        simformer = Simformer(model, sites=["x", "used"])
    assert not simformer.structure.has_hidden_noise
    used = simformer.simulate(jax.random.key(0), 20)["used"]
    assert float(used.std()) < 1e-6 < abs(float(used.mean()))


def test_a_seed_inside_the_model_is_not_used():
    def model():
        sample("y", dist.Normal(sample("x", dist.Normal(0, 1)), 1))

    with pytest.warns(UserWarning, match=r"\['x', 'y'\] are seeded inside the model"):
        simformer = Simformer(handlers.seed(model, 0))
    assert float(simformer.simulate(jax.random.key(0), 50)["x"].std()) > 0.5


def test_a_value_set_inside_the_model_is_refused():
    def model():
        with handlers.substitute(data={"x": 1.0}):
            x = sample("x", dist.Normal(0, 1))
        sample("y", dist.Normal(x, 1))

    with pytest.raises(ValueError, match=r"site 'x' is set to a value inside the model .* Use handlers.do"):
        trace_structure(model)


def test_an_intervention_is_no_token():
    def model():
        x = sample("x", dist.Normal(0, 1))
        sample("y", dist.Normal(x, 1))

    assert edges(handlers.do(model, data={"x": 1.0})) == set()


def test_an_observation_that_reads_another_site_is_told_of():
    def model():
        z = sample("z", dist.Normal(0, 1))
        sample("soft", dist.Normal(3.0, 1), obs=z)

    with pytest.warns(UserWarning, match=r"\['soft'\] are observed at values that read other sites"):
        trace_structure(model)


def test_what_is_computed_from_constants_may_be_asked_for():
    groups, counts = jnp.array([0, 1, 1, 2]), jnp.array([[1, 2, 0], [2, 2, 2]])

    def model():
        with plate("group", int(groups.max()) + 1):
            level = sample("level", dist.Normal(0, 1))
        with plate("n", 4):
            sample("y", dist.Normal(level[groups], 1))
        with plate("document", 2):
            sample("words", dist.Multinomial(counts.sum(-1), probs=jnp.ones(3) / 3))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        simformer = Simformer(model)
    assert simformer.structure.sites["level"].shape == (3,) and not simformer.structure.info
    assert {("y[2]", "level[1]"), ("y[3]", "level[2]")} < edges(model)
    assert (simformer.simulate(jax.random.key(0), 5)["words"].sum("words_dim_0") == counts.sum(-1)).all()


def test_a_latent_that_is_printed_makes_the_graph_dense():
    def model():
        x = sample("x", dist.Normal(0, 1))
        sample("y", dist.Normal(len(f"{x:.1f}"), 1))

    with pytest.warns(UserWarning, match="dense"):
        assert edges(model) == {("y", "x")}


def test_sites_may_have_any_name():
    def model():
        sample("noise 0", dist.Normal(sample("a b/c", dist.Normal(0, 1)), 1))

    assert edges(model) == {("noise 0", "a b/c")}


def test_a_module_that_is_looked_for_leaves_noise_alone():
    def model():
        numpyro.param("absent")
        noise = jax.random.normal(numpyro.prng_key())
        sample("y", dist.Normal(noise, 0.1))
        sample("z", dist.Normal(noise, 0.1))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert edges(model) == {("z", "y")}


def test_a_seed_inside_the_model_does_not_freeze_its_noise():
    def model():
        sample("y", dist.Normal(jax.random.normal(numpyro.prng_key()), 1e-3))

    with pytest.warns(UserWarning, match="seeded inside"):
        simformer = Simformer(handlers.seed(model, 0))
    assert float(simformer.simulate(jax.random.key(0), 50)["y"].std()) > 0.5


def test_a_loop_that_is_conditioned_from_outside_is_unconditioned():
    def model():
        walk("y", 3)

    structure = trace_structure(handlers.condition(model, data={"y": jnp.arange(3.0)}))
    assert structure.sites["y"].is_data and structure.num_edges == 2
    with pytest.raises(ValueError, match="'y' is set to a value inside the model"):
        trace_structure(handlers.substitute(model, data={"y": jnp.arange(3.0)}))


def test_parameters_in_a_loop_stay_at_one_value():
    def model():
        def step(carry, _):
            weight = numpyro.param("weight", lambda key: jax.random.normal(key))
            return carry, sample("x", dist.Normal(weight, 1e-3))

        scan(step, 0.0, None, length=3)

    with pytest.warns(UserWarning, match="not learned"):
        simformer = Simformer(model)
    assert not simformer.structure.has_hidden_noise
    assert float(simformer.simulate(jax.random.key(0), 20)["x"].std()) < 0.01


@pytest.mark.parametrize("before", [dist.Dirichlet(jnp.ones(1)), dist.Dirichlet(jnp.ones((2, 1)))])
def test_an_event_without_a_free_scalar_does_not_shift_the_others(before):
    def model():
        a = sample("a", dist.Normal(0, 1))
        sample("p", before.to_event(len(before.batch_shape)))
        b = sample("b", dist.Normal(a, 1))
        sample("y", dist.Normal(b, 1))

    assert edges(model) == {("b", "a"), ("y", "b")}


def test_noise_in_a_loop_is_drawn_afresh_in_every_step():
    def model():
        def step(carry, _):
            return carry, sample("x", dist.Normal(jax.random.normal(numpyro.prng_key()), 1e-3))

        scan(step, 0.0, None, length=3)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        simformer = Simformer(model)
    assert simformer.structure.has_hidden_noise
    drawn = simformer.simulate(jax.random.key(0), 200)["x"].values
    correlation = np.corrcoef(drawn.T) - np.eye(3)
    # 200 draws: four standard errors
    assert np.abs(correlation).max() < 4 / np.sqrt(200) and drawn.std(0).min() > 0.5
