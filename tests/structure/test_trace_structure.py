"""Sites, roles, dims, supports, deterministics, nuisances, and what is refused."""

import sys
import warnings

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan
from numpyro.distributions import constraints

from simformer_ppl.structure import trace_structure

sample, plate, deterministic = numpyro.sample, numpyro.plate, numpyro.deterministic


def schools(y=None, sigma=None):
    mu, tau = sample("mu", dist.Normal(0, 5)), sample("tau", dist.HalfCauchy(5))
    with plate("school", 4):
        theta = sample("theta", dist.Normal(mu, tau))
        sample("y", dist.Normal(theta, 1.0 if sigma is None else sigma), obs=y)


def data_of(structure):
    return [name for name, site in structure.sites.items() if site.is_data]


def test_tokens_are_the_scalars_in_trace_order():
    structure = trace_structure(schools)
    assert structure.tokens[:3] == ("mu", "tau", "theta[0]")
    assert structure.num_tokens == 10 and structure.sites["y"].token_slice == slice(6, 10)
    assert structure.plates == {"school": 4}


@pytest.mark.parametrize(
    "arguments", [{}, {"model_args": (np.zeros(4),)}, {"model_kwargs": {"y": np.zeros(4)}}, {"model_args": (None, 2.0)}]
)
def test_observed_sites_are_data(arguments):
    assert data_of(trace_structure(schools, **arguments)) == ["y"]


def test_data_in_a_dict():
    def model(data=None):
        x = sample("x", dist.Normal(0, 1))
        z = sample("z", dist.Normal(x, 1), obs=None if data is None else data["z"])
        sample("w", dist.Normal(z, 1))

    assert data_of(trace_structure(model)) == ["z"]


def test_an_argument_that_is_no_data_does_not_disturb():
    def model(scale=None, y=None):
        x = sample("x", dist.Normal(0, 1 if scale is None else float(scale)))
        sample("w", dist.Normal(sample("y", dist.Normal(x, 1), obs=y), 1))

    assert data_of(trace_structure(model)) == ["y"]


def test_unread_sites_are_data_when_nothing_is_observed():
    def model():
        x = sample("x", dist.Normal(0, 1))
        sample("a", dist.Normal(x, 1))
        sample("b", dist.Normal(x, 1))

    assert data_of(trace_structure(model)) == ["a", "b"]
    assert data_of(trace_structure(model, data_sites=["x"])) == ["x"]


def test_observations_in_a_scan_are_data_and_ignored():
    def model(y=None):
        def step(x, observed):
            x = sample("x", dist.Normal(x, 1))
            sample("y", dist.Normal(x, 1), obs=observed)
            return x, None

        scan(step, 0.0, y, length=5)

    without, with_data = trace_structure(model), trace_structure(model, (jnp.zeros(5),))
    assert data_of(without) == data_of(with_data) == ["y"]
    np.testing.assert_array_equal(without.adjacency, with_data.adjacency)


def test_dims_are_named_by_plates_outermost_first():
    def model():
        with plate("a", 2, dim=-3), plate("b", 3, dim=-1):
            x = sample("x", dist.MultivariateNormal(jnp.zeros(4), jnp.eye(4)))
            deterministic("sum", x.sum(-1))
            deterministic("twice", 2 * x)
        sample("free", dist.Normal(0, 1).expand([2, 2]).to_event(2))

    structure = trace_structure(model)
    x = structure.sites["x"]
    assert x.shape == (2, 1, 3, 4) and x.event_dim == 1
    assert x.plates == ("a", "b") and x.dims == ("a", "x_dim_0", "b", "x_dim_1")
    assert structure.sites["free"].dims == ("free_dim_0", "free_dim_1") and structure.sites["free"].plates == ()
    assert structure.deterministics["sum"].dims == ("a", "sum_dim_0", "b")
    assert structure.deterministics["twice"].dims == ("a", "twice_dim_0", "b", "twice_dim_1")


def test_supports_enclose_every_value():
    def model():
        s = sample("s", dist.Uniform(jnp.array([1.0, 2.0]), 4.0).to_event(1))
        sample("positive", dist.HalfNormal(s[0]))
        sample("above", dist.Uniform(0.0, s[0]))
        sample("anywhere", dist.Uniform(-s[0], s[0]))
        sample("truncated", dist.TruncatedNormal(s[0], 1.0, high=5.0))
        sample("up_to", dist.Binomial((10 * s[0]).astype(int), 0.5))

    sites = trace_structure(model).sites
    assert isinstance(sites["s"].support, type(constraints.interval(0, 1)))
    np.testing.assert_array_equal(sites["s"].support.lower_bound, [1, 2])
    assert sites["positive"].support is constraints.positive or sites["positive"].support == constraints.positive
    assert [sites[n].support_is_static for n in ("s", "positive", "truncated")] == [True, True, True]
    assert [sites[n].support_is_static for n in ("above", "anywhere", "up_to")] == [False, False, False]
    assert sites["above"].support(0.5) and not sites["above"].support(-0.5)
    assert sites["anywhere"].support == constraints.real
    assert sites["truncated"].support(4.9) and not sites["truncated"].support(5.1)
    assert sites["up_to"].is_discrete and sites["up_to"].support(12) and not sites["up_to"].support(-1)


def test_tokens_of_supports_that_couple_scalars():
    def model():
        p = sample("p", dist.Dirichlet(jnp.ones(3)).expand([2]))
        sample("chol", dist.LKJCholesky(3, 1.0))
        sample("c", dist.Multinomial(5, p))
        sample("ordered", dist.TransformedDistribution(dist.Normal(0, 1).expand([3]).to_event(1), ORDERED))

    sites = trace_structure(model).sites
    shapes = {name: site.token_shape for name, site in sites.items()}
    assert shapes == {"p": (2, 2), "chol": (3,), "c": (2, 2), "ordered": (3,)}
    assert not any(site.is_elementwise for site in sites.values())


ORDERED = dist.transforms.OrderedTransform()


def test_an_unordered_categorical_is_one_token_per_scalar():
    def model():
        sample("z", dist.Categorical(jnp.ones(3) / 3).expand([4]).to_event(1))
        sample("grade", dist.OrderedLogistic(0.0, jnp.array([-1.0, 1.0])))
        sample("flip", dist.Bernoulli(0.5))

    sites = trace_structure(model).sites
    assert [site.num_categories for site in sites.values()] == [3, 0, 0]
    assert sites["z"].token_shape == (4,) and sites["z"].is_elementwise and sites["z"].is_discrete
    assert [site.distribution for site in sites.values()] == ["CategoricalProbs", "OrderedLogistic", "BernoulliProbs"]


def summary_model():
    mu = sample("mu", dist.Normal(0, 1))
    nuisance = sample("nuisance", dist.Normal(0, 1))
    x = sample("x", dist.Normal(mu, 1).expand([3]).to_event(1))
    mean = deterministic("mean", x.mean() + nuisance)
    deterministic("twice", 2 * mean)
    deterministic("noisy", mu + jax.random.normal(numpyro.prng_key()))


def test_deterministics_say_what_they_read():
    structure = trace_structure(summary_model, sites=["mu", "mean"])
    assert structure.tokens == ("mu", "mean")
    assert structure.nuisances == ("nuisance", "x")
    reads = {name: site.reads for name, site in structure.deterministics.items()}
    assert reads == {"mean": {"nuisance", "x"}, "twice": {"nuisance", "x"}, "noisy": {"mu"}}
    assert {n for n, site in structure.deterministics.items() if site.is_random} == {"noisy"}
    assert structure.sites["mean"].is_deterministic and data_of(structure) == ["mean"]
    assert structure.adjacency.tolist() == [[False, False], [True, False]]


def test_eliminated_nuisances_join_their_neighbours():
    def model():
        z = sample("z", dist.Normal(0, 1))
        for name in "abc":
            sample(name, dist.Normal(z, 1))
        sample("child", dist.Normal(z, 1))

    full, reduced = trace_structure(model), trace_structure(model, sites=["a", "b", "c"])
    assert not full.moral()[1:, 1:].any()
    assert (reduced.moral() == ~np.eye(3, dtype=bool)).all()
    assert (reduced.adjacency == np.tri(3, k=-1, dtype=bool)).all()


def test_a_childless_nuisance_couples_nothing():
    def model():
        a, b = sample("a", dist.Normal(0, 1)), sample("b", dist.Normal(0, 1))
        sample("c", dist.Normal(a + b, 1))

    assert not trace_structure(model, sites=["a", "b"]).moral().any()


def test_auxiliary_sites_are_no_tokens():
    def model():
        hidden = sample("hidden", dist.Normal(0, 1), infer={"is_auxiliary": True})
        sample("y", dist.Normal(hidden, 1))

    structure = trace_structure(model)
    assert structure.tokens == ("y",) and structure.nuisances == ("hidden",)


def test_masked_observations_are_one_site():
    def model(y=None):
        mu = sample("mu", dist.Normal(0, 1))
        with plate("n", 3):
            sample("y", dist.Normal(mu, 1), obs=y, obs_mask=np.array([True, False, True]))

    structure = trace_structure(model, (np.zeros(3),))
    assert list(structure.sites) == ["mu", "y"] and data_of(structure) == ["y"]
    assert structure.sites["y"].dims == ("n",) and not structure.deterministics


def test_factors_are_no_tokens_and_warn():
    def model():
        x = sample("x", dist.Normal(0, 1))
        numpyro.factor("soft", -(x**2))

    with pytest.warns(UserWarning, match="soft"):
        structure = trace_structure(model)
    assert structure.tokens == ("x",) and structure.factors == ("soft",)


def test_a_python_if_makes_the_graph_dense_and_warns():
    def model():
        x = sample("x", dist.Normal(0, 1))
        mean = 1.0 if x > 0 else -1.0
        y = sample("y", dist.Uniform(0, 1 + x**2))
        deterministic("d", mean * y)
        sample("z", dist.Normal(mean, 1))

    with pytest.warns(UserWarning, match="Python `if`"):
        structure = trace_structure(model)
    assert (structure.adjacency == np.tri(3, k=-1, dtype=bool)).all()
    assert structure.info and not structure.sites["y"].support_is_static
    assert structure.deterministics["d"].reads == {"x", "y"}


def refused_subsample():
    with plate("batch", 10, subsample_size=5):
        sample("x", dist.Normal(0, 1))


def refused_improper():
    sample("flat", dist.ImproperUniform(constraints.real, (), ()))


@pytest.mark.parametrize(
    ("model", "options", "names"),
    [
        (refused_subsample, {}, "batch"),
        (refused_improper, {}, "flat"),
        (schools, {"sites": ["mu", "nu"]}, "nu.*theta"),
        (schools, {"data_sites": ["yy"]}, "yy.*theta"),
        (schools, {"sites": ["mu"], "data_sites": ["y"]}, "y"),
        (schools, {"sites": "mu"}, "mu"),
        (schools, {"sites": []}, "theta"),
    ],
)
def test_refusals_name_the_site(model, options, names):
    with pytest.raises(ValueError, match=names):
        trace_structure(model, **options)


def test_observation_of_another_shape_warns():
    with pytest.warns(UserWarning, match="'y'.*plate"):
        trace_structure(lambda y: sample("y", dist.Normal(0, 1), obs=y), (np.zeros(3),))


def test_given_values_rule_edges_out():
    def model():
        m = sample("m", dist.Normal(0, 1).expand([3]).to_event(1))
        z = sample("z", dist.Categorical(jnp.ones(3) / 3))
        sample("y", dist.Normal(m[z], 1))

    structure = trace_structure(model)
    m, z, y = (structure.sites[name].token_slice for name in "mzy")
    conditioned = np.zeros(structure.num_tokens, bool)
    conditioned[z] = True
    mask = structure.attention_mask(conditioned, {"z": 1})
    assert mask[y, m].tolist() == [[False, True, False]] and mask[y, z].all()
    assert structure.attention_mask(conditioned)[y, m].all()
    with pytest.raises(ValueError, match="q"):
        structure.attention_mask(conditioned, {"q": 1})


def test_summaries_that_read_the_same_data_are_data_alike():
    def model():
        mu = sample("mu", dist.Normal(0, 1))
        with plate("n", 4):
            y = sample("y", dist.Normal(mu, 1))
        deterministic("mean", y.mean())
        deterministic("sd", y.std())

    assert data_of(trace_structure(model, sites=["mu", "mean", "sd"])) == ["mean", "sd"]


def test_arguments_that_are_no_tuple_are_refused():
    with pytest.raises(ValueError, match="model_args: expected a tuple of arguments, got ndarray"):
        trace_structure(schools, np.zeros(4))


@pytest.mark.parametrize(
    ("value", "message"), [([0, 1], r"shape \(3,\), got \(2,\)"), ([0, 1, 2], "support"), ([0, 0.5, 1], "support")]
)
def test_values_that_do_not_fit_are_refused(value, message):
    def model():
        with plate("n", 3):
            z = sample("z", dist.Bernoulli(0.5))
            sample("y", dist.Normal(z, 1))

    with pytest.raises(ValueError, match=f"Site 'z': .*{message}"):
        trace_structure(model).attention_mask(["z"], {"z": value})


def test_what_has_no_real_values_is_refused():
    def fourier():
        transform = dist.transforms.RealFastFourierTransform(3)
        sample("x", dist.TransformedDistribution(dist.Normal(0, 1).expand([3]).to_event(1), transform))

    def censored():
        with plate("n", 3):
            none = jnp.zeros(3, bool)
            sample("x", dist.IntervalCensoredDistribution(dist.Normal(0, 1), none, none))

    for model, what in ((fourier, "complex"), (censored, "interval censored")):
        with pytest.raises(ValueError, match=f"site 'x' .*{what}"):
            trace_structure(model)


def test_graphs_are_small_where_models_are_large():
    def model():
        mu = sample("mu", dist.Normal(0, 1))
        with plate("n", 3000):
            sample("y", dist.Normal(sample("theta", dist.Normal(mu, 1)), 1))

    structure = trace_structure(model)
    kept = sum(sys.getsizeof(parents) for parents in structure._graph.full)
    assert structure.num_edges == 6000 and kept < structure.num_tokens**2 / 20


def test_networkx_edges_run_from_parent_to_child():
    out = trace_structure(schools).to_networkx()
    assert nx.is_directed_acyclic_graph(out) and out.has_edge("theta[2]", "y[2]")
    assert out.nodes["y[2]"] == {"site": "y", "is_data": True}


def test_tables_name_what_matters():
    structure = trace_structure(schools, sites=["mu", "tau", "y"])
    for text in (repr(structure), structure._repr_html_()):
        for word in ("mu", "HalfCauchy", "school", "positive", "parameter", "data", "6 tokens", "theta"):
            assert word in text


def test_no_warnings_for_a_plain_model():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert trace_structure(schools).info == []
