"""What a query returns: exact answers on the Gaussian chain, and the contract on the zoo."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from scipy.stats import multivariate_normal

from simformer_ppl import Simformer, above, below, between
from simformer_ppl.diagnostics.c2st import c2st
from tests.conftest import chain_model, untrained

NAN = np.nan
Y = np.array([1.5, 0.2, -1.0])
QUERIES = {
    "posterior": {"y": Y},
    "one datum": {"y": np.array([1.5, NAN, NAN])},
    "mixed": {"a": 0.8, "y": np.array([1.5, NAN, NAN])},
    "likelihood": {"a": 0.8, "b": np.array([1.0, 0.0, 2.0])},
    "joint": {},
}
SOME_QUERIES = [pytest.param(name, marks=[pytest.mark.slow] * (name == "one datum")) for name in QUERIES]


def flat(values, names=("a", "b", "y")):
    """Draws by site as one array (draws, 7)."""
    return np.concatenate([np.asarray(values[n]).reshape(len(values["a"]), -1) for n in names], -1)


def exact(gaussian_chain, given):
    full = np.concatenate([np.ravel(np.broadcast_to(given.get(n, NAN), s)) for n, s in (("a", 1), ("b", 3), ("y", 3))])
    mask = ~np.isnan(full)
    mean, covariance = gaussian_chain.conditional(mask, full)
    return mask, mean, covariance


def complete(draws, given, count):
    """Draws with the wholly given sites added."""
    sizes = {"a": (), "b": (3,), "y": (3,)}
    return {n: draws[n] if n in draws else np.broadcast_to(given[n], (count, *sizes[n])) for n in sizes}


@pytest.mark.parametrize("query", SOME_QUERIES)
def test_draws_are_those_of_the_exact_conditional(chain, gaussian_chain, query):
    given = QUERIES[query]
    mask, mean, covariance = exact(gaussian_chain, given)
    draws = flat(complete(chain.condition(given).draw(jax.random.key(1), (1_000,)), given, 1_000))[:, ~mask]
    reference = np.random.default_rng(0).multivariate_normal(mean, covariance, 1_000)
    # 2,000 labels: the accuracy of guessing has sd .011; the rest is what 6,000 steps leave
    assert c2st(draws, reference) < 0.58
    np.testing.assert_allclose(draws.mean(0), mean, atol=0.2 * np.sqrt(np.diag(covariance)).max())


@pytest.mark.parametrize("query", SOME_QUERIES)
def test_log_prob_is_that_of_the_exact_conditional(chain, gaussian_chain, query):
    given = QUERIES[query]
    mask, mean, covariance = exact(gaussian_chain, given)
    reference = np.random.default_rng(0).multivariate_normal(mean, covariance, 200)
    full = np.zeros((200, 7))
    full[:, ~mask] = reference
    values = {"a": full[:, 0], "b": full[:, 1:4], "y": full[:, 4:]}
    errors = chain.condition(given).log_prob(values) - multivariate_normal(mean, covariance).logpdf(reference)
    assert np.median(np.abs(errors)) < 0.25


def test_given_scalars_come_back_to_the_bit(chain):
    y = np.array([1.1, NAN, -0.3], np.float32)
    drawn = np.asarray(chain.condition(y=y).draw(jax.random.key(0), (20,))["y"])
    assert (drawn[:, [0, 2]] == y[[0, 2]]).all() and len(np.unique(drawn[:, 1])) == 20


def test_a_batch_is_the_conditions_one_by_one(chain):
    batch = np.stack([Y, Y + 2.0, np.array([0.3, NAN, 4.0])])
    together = chain.condition(y=batch)
    assert together.batch_shape == (3,)
    draws = together.draw(jax.random.key(0), (400,))
    assert draws["a"].shape == (400, 3) and draws["b"].shape == (400, 3, 3)
    for i, y in enumerate(batch):
        alone = chain.condition(y=y).draw(jax.random.key(1), (400,))
        standard_error = float(alone["a"].std()) / np.sqrt(400)
        assert abs(float(draws["a"][:, i].mean() - alone["a"].mean())) < 5 * np.sqrt(2) * standard_error


def test_log_prob_of_a_batch_and_of_samples_broadcast(chain):
    posterior = chain.condition(y=np.stack([Y, Y + 1.0]))
    draws = posterior.draw(jax.random.key(0), (5,))
    log_prob = posterior.log_prob(draws)
    assert log_prob.shape == (5, 2)
    alone = chain.condition(y=Y + 1.0).log_prob({name: value[:, 1] for name, value in draws.items()})
    np.testing.assert_allclose(log_prob[:, 1], alone, atol=1e-3)


@pytest.mark.parametrize("count", [5, 1_000])
def test_draws_in_many_threads_are_those_of_one_program(chain, count):
    posterior = chain.condition(y=Y)
    draw = lambda key: posterior.draw(key, (count,))["b"]  # noqa: E731
    np.testing.assert_allclose(draw(jax.random.key(3)), jax.jit(draw)(jax.random.key(3)), atol=1e-3)


def test_draw_under_jit_with_traced_data(chain):
    @jax.jit
    def mean_of_a(key, y):
        return chain.condition(y=y).draw(key, (200,))["a"].mean()

    eager = chain.condition(y=Y.astype(np.float32)).draw(jax.random.key(3), (200,))["a"].mean()
    np.testing.assert_allclose(mean_of_a(jax.random.key(3), Y.astype(np.float32)), eager, atol=1e-3)


def test_conditioning_in_two_steps_is_conditioning_at_once(chain):
    once, twice = chain.condition(y=Y, a=0.5), chain.condition(y=Y).condition(a=0.5)
    assert repr(once) == repr(twice) == "p(b | a, y)"
    assert jnp.array_equal(once.draw(jax.random.key(0), (5,))["b"], twice.draw(jax.random.key(0), (5,))["b"])


def test_repr_reads_as_a_conditional(chain):
    assert repr(chain.condition(y=Y)) == "p(a, b | y)"
    assert repr(chain.condition()) == "p(a, b, y)"
    assert repr(chain.condition(y=np.array([1.0, NAN, 2.0]))) == "p(a, b, y[1 of 3] | y[2 of 3])"
    assert repr(chain.condition(a=between(0.0, 1.0))) == "p(a, b, y | a in [0, 1])"


@pytest.mark.parametrize("interval", [between(0.0, 1.0), above(1.0), below(-2.0)])
def test_intervals_are_kept_and_right(chain, interval):
    draws = np.asarray(chain.condition(a=interval).draw(jax.random.key(0), (500,))["a"])
    assert (draws >= interval.lower).all() and (draws <= interval.upper).all()
    prior = 2.0 * np.random.default_rng(0).standard_normal(200_000)
    inside = prior[(prior >= interval.lower) & (prior <= interval.upper)]
    assert abs(draws.mean() - inside.mean()) < 5 * inside.std() / np.sqrt(500) + 0.05


def test_an_interval_out_of_reach_is_an_error(chain):
    with pytest.raises(ValueError, match=r"0 of .* draws fulfil what is asked"):
        chain.condition(a=above(30.0)).draw(jax.random.key(0), (4,))


def test_draws_of_every_kind_of_site_are_inside_its_support(zoo):
    draws = zoo.condition().draw(jax.random.key(0), (300,))
    for name, site in zoo.structure.sites.items():
        assert draws[name].shape == (300, *site.shape) and draws[name].dtype == site.dtype
        assert jnp.all(site.support(draws[name])), name
    assert jnp.all(draws["width"] <= draws["rate"] + 0.1)  # a support that depends on another site


def test_data_arrays_align_by_name_and_label(zoo):
    ordered = zoo.condition(x=np.array([1.0, 2.0, 3.0, 4.0]))
    shuffled = zoo.condition(x=xr.DataArray([4.0, 2.0, 1.0, 3.0], dims="item", coords={"item": list("dbac")}))
    assert jnp.array_equal(
        ordered.draw(jax.random.key(0), (3,))["rate"], shuffled.draw(jax.random.key(0), (3,))["rate"]
    )
    partial = zoo.condition(x=xr.DataArray([2.0], dims="item", coords={"item": ["b"]}))
    assert repr(partial).endswith("x[3 of 4] | x[1 of 4])")


ERRORS = {
    "unknown site": (lambda s: s.condition(z=1.0), r"Site 'z' is not in the model. Expected one of: rate"),
    "deterministic site": (lambda s: s.condition(ratio=1.0), r"Site 'ratio' is a deterministic site"),
    "wrong shape": (lambda s: s.condition(x=np.zeros(3)), r"Site 'x': expected shape \(4,\).*got \(3,\)"),
    "outside the support": (lambda s: s.condition(rate=-1.0), r"Site 'rate': expected values in .*positive.*got -1"),
    "outside the box": (lambda s: s.condition(angle=9.0), r"Site 'angle': .*from -1 to 3.*got 9"),
    "no integer": (lambda s: s.condition(count=1.5), r"Site 'count': expected values in .*integer.*got 1.5"),
    "no category": (lambda s: s.condition(kind=7), r"Site 'kind': .*got 7"),
    "no simplex": (lambda s: s.condition(weights=np.ones(3)), r"Site 'weights': expected values in"),
    "part of a simplex": (
        lambda s: s.condition(weights=[0.5, NAN, 0.2]),
        r"Site 'weights': part of an event is missing",
    ),
    "given twice": (lambda s: s.condition({"rate": 1.0}, rate=2.0), r"Site 'rate' is given twice"),
    "edge of a simplex": (lambda s: s.condition(weights=[1.0, 0.0, 0.0]), r"Site 'weights': .*on its edge"),
    "too few evaluations": (lambda s: s.condition(x=0.0).sample(jax.random.key(0), 4, num_steps=0), r"num_steps"),
    "given twice in steps": (lambda s: s.condition(rate=1.0).condition(rate=2.0), r"Site 'rate' is given twice"),
    "ragged": (lambda s: s.condition(x=[[1.0], [2.0, 3.0]]), r"Site 'x': expected an array of shape \(4,\)"),
    "text": (lambda s: s.condition(rate="high"), r"Site 'rate': expected numbers"),
    "empty interval": (lambda s: s.condition(rate=between(2.0, 1.0)), r"low < high"),
    "interval outside": (lambda s: s.condition(rate=below(-1.0)), r"Site 'rate': no value of"),
    "interval of categories": (lambda s: s.condition(kind=between(0, 1)), r"Site 'kind': expected values"),
    "batches that differ": (lambda s: s.condition(rate=np.ones(3), angle=np.ones(2)), r"Batch axes.*'rate' \(3,\)"),
    "nothing left": (
        lambda s: s.condition(
            rate=1.0, angle=0.0, weights=[0.2, 0.3, 0.5], switch=1, kind=0, width=0.5, count=1, x=0.0
        ),
        r"Nothing is left to sample",
    ),
    "chains": (lambda s: s.condition(x=0.0).sample(jax.random.key(0), 10), r"multiple of num_chains, got 10 and 4"),
    "density of counts": (lambda s: s.condition(x=0.0).log_prob({}), r"Site 'switch' is discrete and latent"),
    "density in an interval": (
        lambda s: s.condition(rate=above(1.0)).log_prob({}),
        r"Site 'rate' is given as an interval",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_name_the_site_and_what_is_expected(zoo, case):
    ask, message = ERRORS[case]
    with pytest.raises(ValueError, match=message):
        ask(zoo)


def test_asking_before_fitting_is_an_error():
    with pytest.raises(ValueError, match="Not fitted yet: call fit"):
        Simformer(chain_model).condition(y=Y)


def test_log_prob_needs_latent_sites_in_their_shapes(chain):
    with pytest.raises(ValueError, match="expected values of some of the latent sites a, b, got none"):
        chain.condition(y=Y).log_prob({})
    with pytest.raises(ValueError, match=r"Site 'b': expected shape .*got \(2,\)"):
        chain.condition(y=Y).log_prob({"a": 0.0, "b": np.zeros(2)})


def test_log_prob_outside_the_support_is_minus_infinity(zoo):
    posterior = zoo.condition(switch=0, kind=1, count=2, x=0.0, weights=[0.2, 0.3, 0.5], width=0.1)
    rate, angle = np.linspace(-1.0, 2.0, 100), np.array([[0.0], [5.0]])
    log_prob = posterior.log_prob({"rate": np.broadcast_to(rate, (2, 100)), "angle": np.broadcast_to(angle, (2, 100))})
    np.testing.assert_array_equal(np.isfinite(log_prob), [rate > 0, np.zeros(100, bool)])
    assert (log_prob[~np.isfinite(log_prob)] == -np.inf).all()


def test_density_of_positive_and_boxed_sites_integrates_to_one(zoo):
    posterior = zoo.condition(switch=0, kind=1, count=2, x=0.5, weights=[0.2, 0.3, 0.5], width=0.1)
    rate, angle = np.meshgrid(np.geomspace(0.02, 30.0, 40), np.linspace(-0.999, 2.999, 25), indexing="ij")
    density = np.exp(posterior.log_prob({"rate": rate.ravel(), "angle": angle.ravel()})).reshape(rate.shape)
    total = np.trapezoid(np.trapezoid(density, angle[0], axis=1), rate[:, 0])
    assert abs(total - 1) < 0.1


def test_inference_data_of_a_posterior(zoo):
    tree = zoo.condition(x=np.array([1.0, NAN, 3.0, 4.0])).sample(jax.random.key(0), 40, predictive=True)
    assert set(tree.children) == {"posterior", "observed_data", "posterior_predictive"}
    posterior = tree["posterior"]
    assert posterior["x"].dims == ("chain", "draw", "item") and posterior["x"].sizes["chain"] == 4
    assert posterior["item"].values.tolist() == list("abcd")
    np.testing.assert_allclose(posterior["ratio"], posterior["rate"] / (1 + posterior["width"]), rtol=1e-5)
    assert tree["posterior_predictive"]["x"].std() > 0 and np.isnan(tree["observed_data"]["x"][1])
    assert tree.attrs["inference_library"] == "simformer_ppl" and tree.attrs["num_steps"] == 20


def test_groups_of_the_likelihood_and_of_the_joint(chain):
    likelihood = chain.condition(a=1.0, b=0.0).sample(jax.random.key(0), 8)
    assert set(likelihood.children) == {"posterior_predictive", "constant_data"}
    joint = chain.condition().sample(jax.random.key(0), 8)
    assert set(joint.children) == {"prior", "prior_predictive"}


def test_log_density_is_stored_with_the_draws(chain):
    posterior = chain.condition(y=Y)
    tree = posterior.sample(jax.random.key(0), 8, log_prob=True)
    draws = {name: tree["posterior"][name].stack(sample=("chain", "draw")).values for name in ("a", "b")}
    expected = posterior.log_prob({"a": draws["a"], "b": np.moveaxis(draws["b"], -1, 0)})
    np.testing.assert_allclose(tree["sample_stats"]["lp"].values.ravel(), expected, atol=1e-4)


def test_netcdf_round_trip(zoo, tmp_path):
    tree = zoo.condition(x=1.0).sample(jax.random.key(0), 8)
    tree.to_netcdf(tmp_path / "draws.nc", engine="h5netcdf")
    back = xr.open_datatree(tmp_path / "draws.nc", engine="h5netcdf")
    xr.testing.assert_equal(back["posterior"].to_dataset(), tree["posterior"].to_dataset())


def test_missing_entries_can_be_given_later(chain):
    later = chain.condition(y=np.array([1.5, NAN, -1.0])).condition(y=np.array([NAN, 0.2, NAN]))
    ours, theirs = (c.draw(jax.random.key(0), (3,))["a"] for c in (later, chain.condition(y=Y)))
    assert jnp.array_equal(ours, theirs)
    with pytest.raises(ValueError, match="Site 'y' is given twice"):
        later.condition(y=np.array([1.0, NAN, NAN]))


def test_masked_entries_are_missing(zoo):
    masked = np.ma.masked_array([1.0, 2.0, 3.0, 4.0], mask=[0, 1, 0, 0])
    assert repr(zoo.condition(x=masked)).endswith("x[1 of 4] | x[3 of 4])")


def test_bounds_are_inside_a_closed_support(zoo):
    assert zoo.condition(angle=3.0).observed_sites == ("angle",)
    assert zoo.condition(angle=-1.0).observed_sites == ("angle",)


def test_observed_data_are_what_was_given(zoo):
    tree = zoo.condition(x=np.array([28.1, 1.0, 2.0, 3.0]), count=np.array([1, 2, 3, 4])).sample(jax.random.key(0), 4)
    assert float(tree["observed_data"]["x"][0]) == 28.1
    assert tree["constant_data"]["count"].dtype.kind == "i"


def test_batch_labels_of_two_sites_must_agree(chain):
    y = xr.DataArray(np.zeros((2, 3)), dims=("patient", "k"), coords={"patient": ["p", "q"]})
    a = xr.DataArray([0.5, 1.0], dims="patient", coords={"patient": ["q", "p"]})
    with pytest.raises(ValueError, match=r"Site 'a': expected the labels .*'p'"):
        chain.condition(y=y, a=a)
    with pytest.raises(ValueError, match=r"Site 'a': expected the batch dims \('patient',\)"):
        chain.condition(y=y, a=a.rename(patient="other"))
    tree = chain.condition(y=y, a=a[::-1]).sample(jax.random.key(0), 4)
    assert tree["posterior"]["b"].dims == ("chain", "draw", "patient", "k")


def test_one_hopeless_condition_of_a_batch_is_named(zoo):
    # width <= rate + 0.1, which the second condition rules out
    conditions = zoo.condition(rate=np.array([2.0, 0.1]), width=np.array([0.5, 9.0]))
    with pytest.raises(ValueError, match=r"condition 1 of the batch"):
        conditions.draw(jax.random.key(0), (5,))


def test_density_is_divided_by_the_acceptance_of_a_support_that_depends_on_another_site(zoo):
    # rate given, the width lies in [0, rate + 0.1]
    given = {"switch": 0, "kind": 1, "count": 2, "x": 0.5, "weights": [0.2, 0.3, 0.5], "angle": 0.0, "rate": 1.0}
    width = np.linspace(1e-3, 1.1 - 1e-4, 400)
    density = np.exp(zoo.condition(given).log_prob({"width": width}))
    assert abs(np.trapezoid(density, width) - 1) < 0.1


def test_a_density_of_a_misspelt_site_is_refused(chain):
    with pytest.raises(ValueError, match=r"Site 'c' is not in the model\. Expected one of: a, b, y"):
        chain.condition(y=Y).log_prob({"a": 0.0, "c": 0.0})


def test_intervals_of_several_scalars_are_told_as_such(chain):
    assert repr(chain.condition(y=Y, b=above([0.0, 1.0, 2.0]))) == "p(a, b | y, b in 3 intervals)"
    assert repr(chain.condition(y=Y, b=above(0.0))) == "p(a, b | y, b in [0, inf])"


def test_a_density_reads_labels():
    joint = untrained(chain_model, coords={"k": list("pqr")}).condition(a=0.3)
    b = np.random.default_rng(0).normal(size=(2, 3))
    named = xr.DataArray(b, {"k": list("pqr")}, ("draw", "k"))
    expected = joint.log_prob({"b": b})
    np.testing.assert_array_equal(joint.log_prob({"b": named[:, ::-1]}), expected)
    np.testing.assert_array_equal(joint.log_prob({"b": named.T}), expected)
    with pytest.raises(ValueError, match="expected the dims"):
        joint.log_prob({"b": named.rename(k="place")})
