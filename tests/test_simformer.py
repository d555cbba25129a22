"""Simformer: simulate, options, save and load."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr
from flax import nnx

from simformer_ppl import Simformer
from simformer_ppl.diffusion.process import PROCESSES
from tests.conftest import SMALL, chain_model, untrained, zoo_model

SHORT = {"num_steps": 50, "batch_size": 32, "progress_bar": False}


def test_simulations_are_draws_from_the_prior_with_dims_and_coords(zoo):
    simulations = zoo.simulate(jax.random.key(0), 4_000)
    assert simulations["x"].dims == ("simulation", "item") and simulations["item"].values.tolist() == list("abcd")
    # HalfNormal(2): mean 2 sqrt(2 / pi)
    mean, sd = 2 * np.sqrt(2 / np.pi), 2 * np.sqrt(1 - 2 / np.pi)
    assert abs(float(simulations["rate"].mean()) - mean) < 5 * sd / np.sqrt(4_000)


def test_observations_passed_as_arguments_are_not_used_in_simulations():
    simformer = Simformer(chain_model, (np.array([100.0, 100.0, 100.0]),))
    assert simformer.structure.sites["y"].is_data
    assert abs(simformer.simulate(jax.random.key(0), 100)["y"].values).max() < 50


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["contextual", "dense", "directed"])
def test_every_kind_of_attention_trains_and_draws(attention):
    simformer = Simformer(chain_model, attention=attention, network=SMALL).fit(jax.random.key(0), 100, **SHORT)
    assert simformer.condition(y=0.0).draw(jax.random.key(0), (4,))["b"].shape == (4, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention": "sparse"}, "attention: expected 'moral'"),
        ({"attention": np.ones((3, 3), bool)}, r"attention: expected a bool matrix of shape \(7, 7\)"),
        ({"process": "ddpm"}, r"process: expected one of \['edm', 've', 'vp'\], got 'ddpm'"),
        ({"sites": ["a", "nope"]}, r"sites: unknown \['nope'\]"),
        ({"data_sites": ["nope"]}, r"data_sites: unknown \['nope'\]"),
        ({"dims": {"y": ["one", "two"]}}, r"site 'y'"),
        ({"dims": {"z": ["one"]}}, r"dims: 'z' is no site or array argument"),
        ({"coords": {"k": ["p", "q"]}}, r"coords: expected 3 labels for 'k', got 2"),
        ({"coords": {"q": ["p", "q"]}}, r"coords: 'q' is a dim of no site"),
        ({"coords": {"k": ["p", "q", "p"]}}, r"coords: expected different labels for 'k', got \['p'\] several times"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Simformer(chain_model, **options)


def test_a_loaded_network_gives_the_same_draws_to_the_bit(zoo, tmp_path):
    zoo.save(tmp_path / "zoo")
    loaded = Simformer.load(tmp_path / "zoo", zoo_model)
    question = {"x": np.array([1.0, np.nan, 0.0, 2.0])}
    ours, theirs = (s.condition(question).draw(jax.random.key(3), (20,)) for s in (zoo, loaded))
    assert all(jnp.array_equal(ours[name], theirs[name]) for name in ours)
    assert loaded.coords["item"] == zoo.coords["item"]
    assert float(loaded.history["training_loss"][-1]) == float(zoo.history["training_loss"][-1])


@pytest.mark.parametrize("resolution", ["D", "ns"])
def test_dates_are_labels_that_are_saved(resolution, tmp_path):
    days = np.arange("2026-01-30", "2026-02-02", dtype="datetime64[D]").astype(f"datetime64[{resolution}]")
    simformer = untrained(chain_model, coords={"k": days})
    simformer.save(tmp_path / "days")
    loaded = Simformer.load(tmp_path / "days", chain_model)
    y = xr.DataArray([0.1, 0.2], {"k": days[1:]}, ("k",))
    ours, theirs = (s.condition(y=y).sample(jax.random.key(0), 8) for s in (simformer, loaded))
    xr.testing.assert_equal(ours.posterior.to_dataset(), theirs.posterior.to_dataset())
    assert (loaded.coords["k"] == days).all()


def test_labels_that_cannot_be_saved_are_refused_at_once():
    with pytest.raises(ValueError, match="coords: expected numbers, text, dates or times for 'k', got"):
        Simformer(chain_model, coords={"k": [object(), object(), object()]})


def test_saved_files_hold_no_pickle_and_name_the_versions(zoo, tmp_path):
    zoo.save(tmp_path / "zoo")
    configuration = json.loads((tmp_path / "zoo" / "configuration.json").read_text())
    assert {"simformer-ppl", "jax", "flax", "numpyro"} <= set(configuration["versions"])
    files = [path for path in (tmp_path / "zoo").rglob("*") if path.is_file()]
    assert not any(path.suffix in {".pkl", ".pickle"} for path in files)
    assert sum(path.stat().st_size for path in files) < 4e6  # weights, not simulations


def test_loading_with_another_model_says_where_it_differs(zoo, tmp_path):
    zoo.save(tmp_path / "zoo")
    with pytest.raises(ValueError, match=r"Site '.*' of the model is not the saved one"):
        Simformer.load(tmp_path / "zoo", chain_model, sites=None, data_sites=None, coords=None)


def test_loading_what_is_not_there_or_saving_over_something_else_is_an_error(zoo, tmp_path):
    with pytest.raises(ValueError, match=r"expected a folder written by Simformer\.save"):
        Simformer.load(tmp_path / "nothing", zoo_model)
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="got a folder with other files"):
        zoo.save(tmp_path)
    with pytest.raises(ValueError, match="Not fitted yet"):
        Simformer(chain_model).save(tmp_path / "new")


def test_nuisances_are_simulated_and_marginalised():
    def model(y=None):
        scale = numpyro.sample("scale", dist.Uniform(1.0, 10.0))
        x = numpyro.sample("x", dist.Uniform(0.0, scale))
        hidden = numpyro.sample("hidden", dist.Normal(x, 1.0))
        numpyro.sample("y", dist.Normal(hidden, 1.0), obs=y)

    simformer = untrained(model, sites=["x", "y"])
    assert simformer.structure.tokens == ("x", "y")
    joint = simformer.condition()
    drawn = joint.draw(jax.random.key(1), (500,))
    assert set(drawn) == {"x", "y"}
    with pytest.raises(ValueError, match="Site 'scale' is a nuisance site"):
        simformer.condition(scale=1.0)
    # the support of x reads a nuisance, which is not drawn. Were draws beyond the smallest scale there is rejected
    # against a scale drawn apart, few would be left
    assert simformer.structure.sites["x"].support_reads == {"scale"}
    assert float((drawn["x"] > 1.0).mean()) > 0.5


def test_a_model_that_branches_in_python_is_simulated_row_by_row():
    def model(y=None):
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(3.0 if x > 0 else -3.0, 1.0), obs=y)

    with pytest.warns(UserWarning, match="dense"):
        simformer = Simformer(model, network=SMALL)
    simulations = simformer.simulate(jax.random.key(0), 50)
    assert ((simulations["y"] > 0) == (simulations["x"] > 0)).mean() > 0.9


def test_repr_shows_the_table_and_whether_it_is_fitted(zoo):
    assert repr(Simformer(zoo_model)).startswith("Simformer (not fitted)")
    text = repr(zoo)
    assert text.startswith("Simformer (fitted: ") and "300 steps" in text.splitlines()[0] and "weights" in text
    assert "<table" in zoo._repr_html_()


def test_the_printed_table_has_the_names_of_axes_that_were_told():
    def model():
        numpyro.sample("weights", dist.Normal(jnp.zeros(3), 1.0).to_event(1))

    simformer = Simformer(model, dims={"weights": ["feature"]})
    for text in (repr(simformer), simformer._repr_html_()):
        assert "feature" in text and "weights_dim_0" not in text
    assert "weights_dim_0" in repr(simformer.structure)


def test_plots_draw(zoo):
    assert zoo.plot_history().get_xlabel() == "step"
    with pytest.raises(ValueError, match="Not fitted yet"):
        Simformer(chain_model).plot_history()


def panel(limit, y=None):
    """Subjects that nothing but their index tells apart, measured twice at known times up to known limits."""
    spread = numpyro.sample("spread", dist.HalfNormal(1.0))
    with numpyro.plate("subject", 3, dim=-2):
        level = numpyro.sample("level", dist.Normal(0.0, 1.0 + spread))
        with numpyro.plate("repeat", 2, dim=-3), numpyro.plate("time", 2, dim=-1):
            numpyro.sample("y", dist.Normal(jnp.minimum(level, limit) + jnp.arange(2.0), spread + 0.1), obs=y)


LIMIT = np.array([np.inf, 0.0])
LEVEL = np.array([[0.9], [-1.2], [0.1]])
Y = LEVEL + np.array([[[0.1, 0.8]], [[0.6, 1.4]]]) * np.array([[1.0], [-2.0], [0.5]])


@pytest.fixture(scope="module")
def measured():
    return Simformer(panel, (LIMIT,), network=SMALL).fit(jax.random.key(0), 500, **SHORT)


def log_prob(simformer, y, level):
    return float(simformer.condition(y=y).log_prob({"spread": 0.7, "level": level}))


def test_answers_follow_a_permutation_of_an_exchangeable_plate(measured):
    assert set(measured.structure.exchangeable) == {"subject", "repeat"}
    order = np.array([2, 0, 1])
    here = log_prob(measured, Y, LEVEL)
    assert log_prob(measured, Y[::-1][:, order], LEVEL[order]) == pytest.approx(here, rel=1e-4)
    # which level goes with which data does matter
    assert abs(log_prob(measured, Y, LEVEL[order]) - here) > 1e-3


def test_known_times_are_told_apart(measured):
    assert measured.structure.constant_plates == ("time",)
    assert abs(log_prob(measured, Y[..., ::-1], LEVEL) - log_prob(measured, Y, LEVEL)) > 1e-4


def test_other_constants_are_not_loaded(measured, tmp_path):
    measured.save(tmp_path / "panel")
    loaded = Simformer.load(tmp_path / "panel", panel, (LIMIT,))
    ours, theirs = (s.condition(y=0.0).draw(jax.random.key(0), (3,))["level"] for s in (measured, loaded))
    assert jnp.array_equal(ours, theirs)
    with pytest.raises(ValueError, match=r"Token y\[0, 0, 1\]: expected the saved constants"):
        Simformer.load(tmp_path / "panel", panel, (np.array([np.inf, 0.5]),))


@pytest.mark.slow
def test_sharing_can_be_declined():
    apart = Simformer(panel, (LIMIT,), network=SMALL, share_exchangeable=False)
    apart.fit(jax.random.key(0), 500, **{**SHORT, "num_steps": 500})
    assert abs(log_prob(apart, Y[::-1], LEVEL) - log_prob(apart, Y, LEVEL)) > 1e-3


@pytest.mark.slow
def test_an_attention_of_ones_own_must_be_passed_again_to_load(tmp_path):
    own = np.tri(7, dtype=bool)
    simformer = Simformer(chain_model, attention=own, network=SMALL).fit(jax.random.key(0), 100, **SHORT)
    simformer.save(tmp_path / "own")
    with pytest.raises(ValueError, match="an attention of your own"):
        Simformer.load(tmp_path / "own", chain_model)
    loaded = Simformer.load(tmp_path / "own", chain_model, attention=own)
    ours, theirs = (s.condition(y=0.0).draw(jax.random.key(0), (3,))["a"] for s in (simformer, loaded))
    assert jnp.array_equal(ours, theirs)


def test_an_attention_function_of_the_wrong_shape_is_refused_at_once():
    with pytest.raises(ValueError, match=r"attention: expected a function that returns a bool mask of shape \(7, 7\)"):
        Simformer(chain_model, attention=lambda conditioned, values: jnp.ones((3, 3), bool))


def test_an_attention_function_that_fails_says_what_it_gets():
    for wrong in (lambda conditioned, values: values["zz"], lambda conditioned: conditioned):
        with pytest.raises(
            ValueError, match=r"attention: the function fails .* values by site: a \(\) float32, b \(3,\)"
        ):
            Simformer(chain_model, attention=wrong)


def test_an_attention_function_sees_given_values_only():
    # a mask that shuts every token off once it sees a value that is not given
    def nosy(conditioned, values):
        flat = jnp.concatenate([value.ravel() for value in values.values()])
        return jnp.where(jnp.any((flat != 0) & ~conditioned), jnp.zeros((7, 7), bool), jnp.ones((7, 7), bool))

    simformer = Simformer(chain_model, attention=nosy)
    joint = simformer._sequences.initial_joint(jax.random.key(0), np.eye(7), PROCESSES["edm"])
    condition = joint.condition(
        nnx.merge(joint.graph, joint.parameters), jnp.full((1, 7), 5.0), np.array([[True] + [False] * 6])
    )
    assert condition.mask.all()


def test_replicates_follow_drawn_deterministic_tokens():
    def model(y=None):
        hidden = numpyro.sample("hidden", dist.Normal(0.0, 2.0))
        level = numpyro.deterministic("level", 3.0 * hidden)
        numpyro.sample("y", dist.Normal(level, 0.1), obs=y)

    simformer = untrained(model, sites=["level", "y"])
    tree = simformer.condition(y=2.0).sample(jax.random.key(0), 200, predictive=True)
    level, replicate = tree["posterior"]["level"].values.ravel(), tree["posterior_predictive"]["y"].values.ravel()
    np.testing.assert_allclose(replicate, level, atol=5 * 0.1)


@pytest.mark.slow
def test_a_model_of_data_alone_has_replicates():
    def model(x=None, y=None):
        x = numpyro.sample("x", dist.Normal(0.0, 1.0), obs=x)
        numpyro.sample("y", dist.Normal(x, 1.0), obs=y)

    simformer = Simformer(model, network=SMALL).fit(jax.random.key(0), 100, **SHORT)
    tree = simformer.condition(y=0.5).sample(jax.random.key(0), 8, predictive=True)
    assert set(tree["posterior_predictive"].data_vars) == {"x", "y"}
