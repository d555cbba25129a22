"""Draws in ArviZ's schema: every variable in its group, under its dims, on disk as in memory."""

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr
from numpyro.handlers import scope

from simformer_ppl import Simformer
from simformer_ppl.exceptions import SimulationWarning
from simformer_ppl.inference_data import to_inference_data
from simformer_ppl.labelled_arrays import dataset_to_arrays, simulations_to_dataset
from simformer_ppl.structure import trace_structure
from tests.conftest import SMALL, untrained

NUM_SAMPLES = 40


def school_model(y=None, z=None):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    with numpyro.plate("school", 3):
        theta = numpyro.sample("theta", dist.Normal(mu, 1))
        numpyro.deterministic("shifted", theta + 1)
        numpyro.sample("y", dist.Normal(theta, 1), obs=y)
        numpyro.sample("z", dist.Poisson(2.0), obs=z)


def gap_model():
    # plate `a` three axes to the left, one event axis: an axis of length 1 in between has no plate
    with numpyro.plate("a", 2, dim=-3), numpyro.plate("b", 4, dim=-1):
        numpyro.sample("x", dist.Dirichlet(np.ones(3)))


def scoped_model():
    with scope(prefix="block"), numpyro.plate("row", 2):
        numpyro.sample("x", dist.Normal())


@pytest.fixture(scope="module")
def schools():
    return trace_structure(school_model, data_sites=["y", "z"])


def draws_of(structure, names, batch_shape=()):
    rng = np.random.default_rng(0)
    shapes = {name: (NUM_SAMPLES, *batch_shape, *structure.sites[name].shape) for name in names}
    dtype = {name: int if structure.sites[name].is_discrete else np.float32 for name in names}
    return {name: rng.normal(size=shape).astype(dtype[name]) for name, shape in shapes.items()}


def values_of(structure, names):
    return {name: np.ones(structure.sites[name].shape, np.float32) for name in names}


def groups(tree):
    return {group: set(node.data_vars) for group, node in tree.children.items()}


PARTLY = np.array([1.0, np.nan, 3.0])


@pytest.mark.parametrize(
    ("drawn", "given", "expected"),
    [
        (
            ["mu", "theta", "z"],
            ["y"],
            {"posterior": {"mu", "theta"}, "posterior_predictive": {"z"}, "observed_data": {"y"}},
        ),
        (
            ["theta", "y"],
            ["mu", "z"],
            {
                "posterior": {"theta"},
                "posterior_predictive": {"y"},
                "constant_data": {"mu"},
                "observed_data": {"z"},
            },
        ),
        (["y", "z"], ["mu", "theta"], {"posterior_predictive": {"y", "z"}, "constant_data": {"mu", "theta"}}),
        (["mu", "theta", "y", "z"], [], {"prior": {"mu", "theta"}, "prior_predictive": {"y", "z"}}),
    ],
)
def test_every_site_has_one_group(schools, drawn, given, expected):
    tree = to_inference_data(schools, draws_of(schools, drawn), given=values_of(schools, given))
    assert groups(tree) == expected


def test_a_partly_given_site_is_imputed_in_the_posterior_and_keeps_its_nan(schools):
    given = {"y": PARTLY, "theta": PARTLY}
    tree = to_inference_data(schools, draws_of(schools, ["mu", "theta", "y", "z"]), given=given)
    assert groups(tree) == {
        "posterior": {"mu", "theta", "y"},
        "posterior_predictive": {"z"},
        "observed_data": {"y"},
        "constant_data": {"theta"},
    }
    np.testing.assert_array_equal(tree.observed_data.y, PARTLY)
    assert not np.isnan(tree.posterior.y).any()


def test_a_condition_without_a_value_makes_a_posterior(schools):
    draws = draws_of(schools, ["mu", "theta", "y", "z"])
    tree = to_inference_data(schools, draws, given={}, restricted=["y"])
    assert groups(tree) == {"posterior": {"mu", "theta", "y"}, "posterior_predictive": {"z"}}


def test_deterministics_follow_the_drawn_parameters(schools):
    shifted = {"shifted": np.zeros((NUM_SAMPLES, 3))}
    for drawn, given, group in [
        (["mu", "theta"], ["y", "z"], "posterior"),
        (["y"], ["mu", "theta", "z"], "posterior_predictive"),
        (["mu", "theta", "y", "z"], [], "prior"),
    ]:
        tree = to_inference_data(
            schools, draws_of(schools, drawn), given=values_of(schools, given), deterministics=shifted
        )
        assert "shifted" in tree[group].data_vars
        assert tree[group]["shifted"].dims == ("chain", "draw", "school")


def test_a_deterministic_token_is_passed_over_among_the_deterministics():
    structure = trace_structure(school_model, sites=["mu", "shifted", "y"], data_sites=["y"])
    draws = draws_of(structure, ["mu", "shifted"])
    other = {"shifted": draws["shifted"] + 1}
    tree = to_inference_data(structure, draws, given=values_of(structure, ["y"]), deterministics=other)
    np.testing.assert_array_equal(tree.posterior.shifted.values.reshape(NUM_SAMPLES, 3), draws["shifted"])


def test_log_density_and_replicates(schools):
    draws, lp = draws_of(schools, ["mu", "theta"]), np.arange(NUM_SAMPLES)
    tree = to_inference_data(
        schools,
        draws,
        given=values_of(schools, ["y", "z"]),
        predictive=draws_of(schools, ["y"]),
        sample_stats={"lp": lp},
    )
    np.testing.assert_array_equal(tree.sample_stats.lp.values.ravel(), lp)
    assert set(tree.posterior_predictive.data_vars) == {"y"}
    prior = to_inference_data(schools, draws_of(schools, ["mu"]), given={}, sample_stats={"lp": lp})
    assert "lp" in prior.sample_stats
    with pytest.raises(ValueError, match=r"site 'y' is not given"):
        to_inference_data(
            schools,
            draws_of(schools, ["mu", "y"]),
            given=values_of(schools, ["z"]),
            predictive=draws_of(schools, ["y"]),
        )


@pytest.mark.parametrize("num_chains", [1, 4, 40])
def test_chains_cut_the_draws_in_order(schools, num_chains):
    draws = draws_of(schools, ["theta"])
    tree = to_inference_data(schools, draws, given=values_of(schools, ["y"]), num_chains=num_chains)
    assert dict(tree.posterior.sizes) == {"chain": num_chains, "draw": NUM_SAMPLES // num_chains, "school": 3}
    np.testing.assert_array_equal(tree.posterior.theta.values.reshape(NUM_SAMPLES, 3), draws["theta"])


def test_chains_that_do_not_divide_the_draws_are_refused(schools):
    with pytest.raises(ValueError, match=r"num_samples=40.*num_chains=3"):
        to_inference_data(schools, draws_of(schools, ["mu"]), given=values_of(schools, ["y"]), num_chains=3)


def test_labels(schools):
    tree = to_inference_data(
        schools, draws_of(schools, ["theta"]), given=values_of(schools, ["y"]), coords={"school": ["A", "B", "C"]}
    )
    assert tree.posterior.theta.sel(school="B").dims == ("chain", "draw")
    assert tree.observed_data.school.values.tolist() == ["A", "B", "C"]
    numbered = to_inference_data(
        schools, draws_of(schools, ["theta"]), given={}, dims={"theta": ["place"], "shifted": ["place"]}
    )
    assert numbered.prior.place.values.tolist() == [0, 1, 2]


def test_an_axis_without_a_plate_keeps_its_own_dim():
    structure = trace_structure(gap_model)
    site = structure.sites["x"]
    assert site.shape == (2, 1, 4, 3)
    tree = to_inference_data(structure, draws_of(structure, ["x"]), given={})
    (node,) = tree.children.values()
    assert node["x"].dims == ("chain", "draw", *site.dims)
    assert (node.sizes["a"], node.sizes["b"]) == (2, 4)


def test_batch_dims_come_before_the_site(schools):
    draws = draws_of(schools, ["mu", "theta"], (5,))
    given = {"y": np.random.default_rng(1).normal(size=(5, 3)), "z": np.ones(3)}
    tree = to_inference_data(
        schools, draws, given=given, batch_shape=(5,), sample_stats={"lp": np.zeros((NUM_SAMPLES, 5))}
    )
    assert tree.posterior.theta.dims == ("chain", "draw", "batch", "school")
    assert tree.posterior.mu.dims == tree.sample_stats.lp.dims == ("chain", "draw", "batch")
    assert tree.observed_data.y.dims == ("batch", "school")
    assert tree.observed_data.z.dims == ("school",)
    np.testing.assert_array_equal(tree.observed_data.y, given["y"])


def test_several_batch_dims_named_or_not(schools):
    draws = draws_of(schools, ["mu"], (5, 2))
    given = {"y": np.ones((5, 2, 3)), "z": np.ones((2, 3)), "theta": np.ones((5, 1, 3))}
    tree = to_inference_data(schools, draws, given=given, batch_shape=(5, 2))
    assert tree.posterior.mu.dims == ("chain", "draw", "batch_0", "batch_1")
    assert tree.observed_data.z.dims == ("batch_1", "school")
    assert tree.constant_data.theta.shape == (5, 2, 3)
    named = to_inference_data(
        schools,
        draws,
        given=given,
        batch_shape=(5, 2),
        batch_dims=("day", "arm"),
        batch_coords={"arm": ["placebo", "drug"]},
    )
    assert named.posterior.mu.sel(arm="drug").dims == ("chain", "draw", "day")
    with pytest.raises(ValueError, match="school"):
        to_inference_data(schools, draws, given=given, batch_shape=(5, 2), batch_dims=("day", "school"))


def test_a_plate_called_batch_leaves_the_name_to_the_model():
    def model():
        with numpyro.plate("batch", 2):
            numpyro.sample("x", dist.Normal())

    structure = trace_structure(model)
    tree = to_inference_data(structure, draws_of(structure, ["x"], (3,)), given={}, batch_shape=(3,))
    (node,) = tree.children.values()
    assert node["x"].dims == ("chain", "draw", "batch_", "batch")


def test_constants_take_dims_from_the_user_alone(schools):
    constants = {"sigma": np.ones(3), "design": np.ones((3, 2)), "school": np.arange(3), "y": np.ones(3)}
    tree = to_inference_data(
        schools,
        draws_of(schools, ["mu"]),
        given=values_of(schools, ["theta"]),
        constants=constants,
        dims={"sigma": ["school"]},
    )
    data = tree.constant_data
    assert data.sigma.dims == ("school",)
    assert data.design.dims == ("design_dim_0", "design_dim_1")
    assert set(data.data_vars) == {"theta", "sigma", "design", "school_"}


def full_tree(structure):
    draws = draws_of(structure, ["mu", "theta", "z"])
    return to_inference_data(
        structure,
        draws,
        given={"y": PARTLY},
        deterministics={"shifted": draws["theta"] > 0},
        predictive=draws_of(structure, ["y"]),
        sample_stats={"lp": np.zeros(NUM_SAMPLES)},
        coords={"school": ["å", "b c", "d/e"]},
        constants={"flag": np.array([True, False]), "count": np.arange(2)},
        attrs={"sampling_time": 1.5, "num_steps": 30, "corrected": True, "note": None, "sizes": (1, 2)},
    )


def test_net_cdf_round_trip(schools, tmp_path):
    tree = full_tree(schools)
    tree.to_netcdf(tmp_path / "draws.nc", engine="h5netcdf")
    with xr.open_datatree(tmp_path / "draws.nc", engine="h5netcdf") as read:
        xr.testing.assert_equal(read.load(), tree)
        assert read.constant_data.flag.dtype == bool
        assert read.posterior_predictive.z.dtype.kind == "i"
        assert read.posterior.attrs["sample_dims"] == ["chain", "draw"]
    xr.testing.assert_equal(az.from_netcdf(tmp_path / "draws.nc"), tree)


def test_attributes_are_on_the_root_and_every_group(schools):
    tree = full_tree(schools)
    for node in (tree, *tree.children.values()):
        assert node.attrs["inference_library"] == "simformer_ppl"
        assert {"inference_library_version", "created_at", "sampling_time", "num_steps"} <= set(node.attrs)
        assert node.attrs["created_at"] == tree.attrs["created_at"]


def test_arviz_reads_the_tree(schools):
    tree = full_tree(schools)
    assert list(az.summary(tree, var_names=["mu", "theta"]).index)[:2] == ["mu", "theta[å]"]
    # a bool draw is stored as a number: ArviZ takes no quantiles of bools
    assert len(az.summary(tree)) == 7
    az.plot_forest(tree, backend="none")


def test_slashes_become_dots(tmp_path):
    structure = trace_structure(scoped_model)
    (name,) = structure.sites
    assert "/" in name
    stored = name.replace("/", ".")
    plate = structure.sites[name].dims[0]
    draws = {name: np.arange(2.0 * NUM_SAMPLES).reshape(NUM_SAMPLES, 2)}
    tree = to_inference_data(structure, draws, given={}, coords={plate: ["u", "v"]})
    (node,) = tree.children.values()
    np.testing.assert_array_equal(node[stored].values.reshape(NUM_SAMPLES, 2), draws[name])
    assert node[plate.replace("/", ".")].values.tolist() == ["u", "v"]
    tree.to_netcdf(tmp_path / "draws.nc", engine="h5netcdf")
    xr.testing.assert_equal(az.from_netcdf(tmp_path / "draws.nc"), tree)
    dataset = simulations_to_dataset(structure, draws)
    np.testing.assert_array_equal(dataset_to_arrays(structure, dataset)[name], draws[name])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"coords": {"school": ["A", "B"]}}, r"coords\['school'\]: expected 3 labels"),
        ({"dims": {"theta": ["a", "b"]}}, r"site 'theta': expected 1 dims .* got \('a', 'b'\)"),
        ({"dims": {"theta": ["chain"]}}, r"site 'theta': \['chain'\] are dims of the draws"),
        ({"dims": {"theta": ["mu"]}}, r"site 'theta' has the dim 'mu', which is a site's name"),
        ({"constants": {"c": np.ones(4)}, "dims": {"c": ["school"]}}, r"dim 'school' has length 3 in .* and 4 in 'c'"),
        ({"draws": {"theta": np.ones((NUM_SAMPLES, 4))}}, r"site 'theta': expected shape \(40, 3\), got \(40, 4\)"),
        ({"draws": {"nu": np.ones(NUM_SAMPLES)}}, r"unknown site 'nu'"),
        ({"given": {"y": np.ones((2, 3))}}, r"site 'y': expected shape \(3,\), got \(2, 3\)"),
        ({"draws": {}}, r"expected draws of at least one site"),
    ],
)
def test_what_does_not_fit_is_refused(schools, arguments, message):
    base = {"draws": draws_of(schools, ["theta"]), "given": values_of(schools, ["y"])}
    with pytest.raises(ValueError, match=message):
        to_inference_data(schools, **(base | arguments))


def test_a_summary_names_the_scalars_right():
    def model():
        with numpyro.plate("item", 3, dim=-1):
            difficulty = numpyro.sample("difficulty", dist.Normal())
            with numpyro.plate("person", 2, dim=-2):
                numpyro.sample("score", dist.Normal(difficulty, 1.0))

    structure = trace_structure(model, data_sites=[])
    scores = np.arange(6.0).reshape(2, 3) + np.random.default_rng(0).normal(0.0, 0.01, (NUM_SAMPLES, 2, 3))
    draws = {"difficulty": np.random.default_rng(1).normal(size=(NUM_SAMPLES, 3)), "score": scores}
    coords = {"person": ["ann", "bob"], "item": list("xyz")}
    tree = to_inference_data(structure, draws, given={}, coords=coords)
    means = az.summary(tree, group=next(iter(tree.children)), round_to=None)["mean"].astype(float)
    found = [means[f"score[{person}, {item}]"] for person in coords["person"] for item in coords["item"]]
    np.testing.assert_allclose(found, range(6), atol=0.05)


def test_deterministic_sites_run_no_simulator_that_they_do_not_need():
    calls = []

    def slow(rate):
        calls.append(rate)
        return np.float32(rate)

    def model(counts=None):
        rate = numpyro.sample("rate", dist.Uniform(0.5, 2.0))
        result = jax.pure_callback(slow, jax.ShapeDtypeStruct((), jnp.float32), rate, vmap_method="sequential")
        numpyro.sample("counts", dist.Poisson(result), obs=counts)
        numpyro.deterministic("twice", 2 * rate)

    simformer = untrained(model)
    calls.clear()
    tree = simformer.condition(counts=1).sample(jax.random.key(0), 40)
    np.testing.assert_allclose(tree.posterior["twice"], 2 * tree.posterior["rate"], rtol=1e-6)
    assert not calls


def test_counts_of_runs_that_failed_are_missing():
    def model(counts=None):
        rate = numpyro.sample("rate", dist.Uniform(0.0, 2.0))
        numpyro.sample("counts", dist.Poisson(jnp.where(rate > 1.5, jnp.nan, rate)), obs=counts)

    with pytest.warns(RuntimeWarning, match="simulations fail"):
        simformer = untrained(model)
    tree = simformer.condition(counts=1).sample(jax.random.key(0), 200, predictive=True)
    failed = tree.posterior["rate"].values > 1.5
    assert 0 < failed.sum() < 200
    np.testing.assert_array_equal(np.isnan(tree.posterior_predictive["counts"].values), failed)


def test_runs_on_draws_that_fail_are_told_and_leave_the_draws():
    def solve(rate):
        if rate > 1.5:
            raise RuntimeError("no solution")
        return np.float32(rate)

    def model(y=None):
        rate = numpyro.sample("rate", dist.Uniform(0.5, 2.0))
        result = jax.pure_callback(solve, jax.ShapeDtypeStruct((), jnp.float32), rate, vmap_method="sequential")
        numpyro.deterministic("result", result)
        numpyro.sample("y", dist.Normal(result, 0.1), obs=y)

    with pytest.warns(SimulationWarning, match="simulations fail"):
        simformer = Simformer(model, network=SMALL, sites=["rate", "y"]).fit(
            jax.random.key(0), 64, num_steps=2, progress_bar=False
        )
    with pytest.warns(SimulationWarning) as told:
        tree = simformer.condition(y=1.0).sample(jax.random.key(0), 60, predictive=True)
    rate = tree.posterior["rate"].values
    failed = rate > 1.5
    assert 0 < failed.sum() < 60
    messages = [str(each.message) for each in told]
    for name in ("y", "result"):
        start = f"{failed.sum()} of 60 runs of the model on draws fail, the first: RuntimeError: no solution. "
        assert any(each == f"{start}Their values of {name} are NaN." for each in messages)
    np.testing.assert_array_equal(np.isnan(tree.posterior_predictive["y"].values), failed)
    np.testing.assert_allclose(tree.posterior["result"].values, np.where(failed, np.nan, rate), rtol=1e-6)


def test_draws_of_which_the_density_fails_have_no_weight():
    def solve(x):
        if x > 0.5:
            raise RuntimeError("no solution")
        return np.float32(x)

    def model(y=None):
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        result = jax.pure_callback(solve, jax.ShapeDtypeStruct((), jnp.float32), x, vmap_method="sequential")
        numpyro.sample("y", dist.Normal(result, 0.5), obs=y)

    with pytest.warns(SimulationWarning, match="simulations fail"):
        simulated = Simformer(model, network=SMALL).simulate(jax.random.key(0), 400)
    spread = {"x": -simulated["x"].values[::-1], "y": simulated["y"].values}
    simformer = Simformer(model, network=SMALL).fit(
        jax.random.key(0), simulations=spread, num_steps=2, progress_bar=False
    )
    with pytest.warns(SimulationWarning, match="fail, the first: RuntimeError: no solution. Their densities are NaN"):
        tree = simformer.condition(y=-0.2).importance_resample(jax.random.key(1), 40)
    assert (tree.posterior["x"] <= 0.5).all()
