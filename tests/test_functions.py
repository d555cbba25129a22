"""Sites along a continuous dim: given and asked for at any coordinates."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr
from scipy import stats

from simformer_ppl import Simformer, above
from simformer_ppl.diffusion.process import PROCESSES
from simformer_ppl.function_blocks import nearest
from simformer_ppl.structure.collapse import KindGraph, joined_by_points
from tests.conftest import SMALL, trained_once, untrained

TIMES = np.linspace(0.0, 2.0, 21)
NOISE = 0.3
OPTIONS = {"coords": {"time": TIMES}, "continuous_dims": {"time": 6}}


def line(y=None):
    """a + b t with noise: every conditional is Gaussian and known, at any times."""
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    b = numpyro.sample("b", dist.Normal(0.0, 1.0))
    with numpyro.plate("time", len(TIMES)):
        numpyro.sample("y", dist.Normal(a + b * TIMES, NOISE), obs=y)


def walk():
    """A random walk, seen in two places at every time: points depend on each other."""
    steps = numpyro.sample("steps", dist.Normal(jnp.zeros(7), 1.0).to_event(1))
    path = numpyro.deterministic("path", jnp.cumsum(steps))
    with numpyro.plate("place", 2), numpyro.plate("time", 7):
        numpyro.sample("x", dist.Normal(path[:, None], 0.1))


def exact(times, values, asked):
    """Mean and covariance of a, b and the noisy line at other times, given it at some."""
    times, asked = np.asarray(times, float), np.asarray(asked, float)
    design, rows = np.stack([np.ones_like(times), times], 1), np.stack([np.ones_like(asked), asked], 1)
    covariance = np.linalg.inv(np.eye(2) + design.T @ design / NOISE**2)
    mean = covariance @ design.T @ np.asarray(values) / NOISE**2
    both = np.concatenate([np.eye(2), rows])
    noise = np.diag(np.concatenate([np.zeros(2), np.full(len(asked), NOISE**2)]))
    return both @ mean, both @ covariance @ both.T + noise


@pytest.fixture(scope="module")
def fitted():
    """For what holds whatever a network has learned."""
    return untrained(line, shaken=True, **OPTIONS)


@pytest.fixture(scope="module")
def learned(shared_folder):
    """A network that has learned the line."""
    return trained_once(shared_folder / "line", line, 10_000, 30_000, **OPTIONS)


@pytest.fixture(scope="module")
def walker():
    options = {"coords": {"time": np.arange(7.0)}, "dims": {"steps": ["time"]}, "continuous_dims": {"time": 3}}
    return untrained(walk, **options)


@pytest.fixture(scope="module")
def summing():
    def model():
        scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0))
        path = numpyro.sample("path", dist.Normal(jnp.zeros(7), scale).to_event(1))
        numpyro.deterministic("total", path.sum())

    return untrained(model, dims={"path": ["time"]}, continuous_dims=["time"])


def given(times, values):
    return xr.DataArray(values, {"time": times}, ("time",))


def flat(draws, *names):
    arrays = [np.asarray(draws[name]) for name in names]
    return np.concatenate([array.reshape(len(array), -1) for array in arrays], 1)


def check_moments(draws, mean, covariance):
    """A third of a standard deviation, and a sixth of its size."""
    deviation = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose((draws.mean(0) - mean) / deviation, 0, atol=1 / 3)
    np.testing.assert_allclose(draws.std(0) / deviation, 1, atol=1 / 6)
    correlation = covariance / np.outer(deviation, deviation)
    np.testing.assert_allclose(np.corrcoef(draws.T), correlation, atol=1 / 6)


SEEN = [0.13, 0.8, 1.94], [1.2, 0.4, -0.3]


@pytest.mark.slow
def test_few_values_at_any_times_make_the_posterior(learned):
    drawn = learned.condition(y=given(*SEEN)).draw(jax.random.key(0), (4_000,), sites=["a", "b"])
    check_moments(flat(drawn, "a", "b"), *exact(*SEEN, []))


@pytest.mark.slow
def test_the_posterior_predictive_at_other_times(learned):
    asked = [0.05, 1.0, 1.37]
    posterior = learned.condition(y=given(*SEEN))
    drawn = posterior.draw(jax.random.key(0), (4_000,), at={"time": asked})
    check_moments(flat(drawn, "a", "b", "y"), *exact(*SEEN, asked))


@pytest.mark.slow
def test_many_points_are_drawn_a_few_at_a_time(learned):
    asked = np.linspace(0.0, 2.0, 33)
    drawn = learned.condition(y=given(*SEEN)).draw(jax.random.key(0), (4_000,), at={"time": asked})
    assert drawn["y"].shape == (4_000, 33)
    mean, covariance = exact(*SEEN, asked)
    check_moments(flat(drawn, "a", "b", "y"), mean, covariance)
    # on average over all pairs, where single ones err by chance
    correlation = np.corrcoef(np.asarray(drawn["y"]).T)
    deviation = np.sqrt(np.diag(covariance)[2:])
    assert abs((correlation - covariance[2:, 2:] / np.outer(deviation, deviation)).mean()) < 0.05


def nats_from_exact(density, law, values):
    """Kullback-Leibler divergence of a learned density, estimated at draws from the exact one."""
    return float((stats.multivariate_normal(*law).logpdf(values) - density).mean())


@pytest.mark.slow
def test_the_density_of_parameters(learned):
    mean, covariance = exact(*SEEN, [])
    values = np.random.default_rng(0).multivariate_normal(mean, covariance, 200)
    density = learned.condition(y=given(*SEEN)).log_prob({"a": values[:, 0], "b": values[:, 1]})
    assert nats_from_exact(density, (mean, covariance), values) < 0.1


@pytest.mark.slow
def test_the_density_of_points_with_the_parameters_left_out(learned):
    mean, covariance = exact(*SEEN, [0.5, 1.5])
    mean, covariance = mean[2:], covariance[2:, 2:]
    values = np.random.default_rng(0).multivariate_normal(mean, covariance, 200)
    density = learned.condition(y=given(*SEEN)).log_prob({"y": values}, at={"time": [0.5, 1.5]})
    assert nats_from_exact(density, (mean, covariance), values) < 0.1


def test_a_density_at_coordinates_of_a_labelled_array(fitted):
    values, posterior = np.array([[0.1, 0.4], [-0.2, 0.3]]), fitted.condition(y=given(*SEEN))
    points = posterior.log_prob({"y": values}, at={"time": [0.5, 1.5]})
    labelled = xr.DataArray(values, {"time": [0.5, 1.5]}, ("draw", "time"))
    np.testing.assert_allclose(posterior.log_prob({"y": labelled}), points, atol=1e-5)


def test_a_whole_grid_a_grid_with_gaps_and_points_say_the_same(fitted):
    values = np.where(np.isin(np.arange(21), [1, 8, 20]), 0.5 - TIMES, np.nan)
    on_grid, points = fitted.condition(y=values), fitted.condition(y=given(TIMES[[1, 8, 20]], values[[1, 8, 20]]))
    assert repr(on_grid) == repr(points) == "p(a, b, y(time) | y[3 of time])"
    draws = [asked.draw(jax.random.key(0), (8,), sites=["a"])["a"] for asked in (on_grid, points)]
    np.testing.assert_array_equal(*draws)
    more = points.condition(y=given([0.33], [0.1]))
    assert repr(more) == "p(a, b, y(time) | y[4 of time])"
    assert repr(fitted.condition(y=np.zeros(21))) == "p(a, b | y[21 of time])"


@pytest.mark.slow
def test_conditions_of_a_batch_may_lack_different_points(learned):
    values = np.array([[1.0, np.nan, 0.0], [np.nan, 0.5, 1.0], [0.3, 0.2, 0.1]])
    batch = learned.condition(y=xr.DataArray(values, {"time": [0.2, 1.0, 1.9]}, ("case", "time")))
    tree = batch.sample(jax.random.key(0), 4_000, sites=["a", "b"])
    assert tree.posterior["a"].dims == ("chain", "draw", "case")
    for number, own in enumerate(values):
        there = ~np.isnan(own)
        draws = np.stack([tree.posterior[n].values.reshape(-1, 3)[:, number] for n in "ab"], 1)
        check_moments(draws, *exact(np.array([0.2, 1.0, 1.9])[there], own[there], []))


def test_inference_data_has_the_coordinates_of_what_is_asked_and_given(fitted):
    posterior = fitted.condition(y=given([1.94, 0.13], [0.4, 1.2]))
    tree = posterior.sample(jax.random.key(0), 8, at={"time": [0.13, 0.7]}, log_prob=True)
    np.testing.assert_allclose(tree.posterior["time"], [0.13, 0.7])
    np.testing.assert_allclose(tree.posterior["y"].sel(time=0.13), 1.2)  # given there
    assert tree.posterior["y"].sel(time=0.7).std() > 0
    assert tree.observed_data["y"].sel(time=1.94) == 0.4 and tree.observed_data["time"].values.tolist() == [0.13, 1.94]
    assert np.isfinite(tree.sample_stats["lp"]).all()
    prior = fitted.condition().sample(jax.random.key(0), 8)
    np.testing.assert_allclose(prior.prior_predictive["time"], TIMES)


def test_replicates_are_runs_of_the_model(fitted):
    tree = fitted.condition(y=given(*SEEN)).sample(jax.random.key(0), 400, predictive=True, sites=["a", "b"])
    np.testing.assert_allclose(tree.posterior_predictive["time"], TIMES)
    lines = tree.posterior["a"] + tree.posterior["b"] * xr.DataArray(TIMES, {"time": TIMES}, ("time",))
    residual = tree.posterior_predictive["y"] - lines
    assert abs(float(residual.std()) / NOISE - 1) < 0.05
    with pytest.raises(ValueError, match="Expected no `at`"):
        fitted.condition(y=given(*SEEN)).sample(jax.random.key(0), 8, predictive=True, at={"time": [0.5]})


def test_parameters_in_an_interval_under_a_constraint_or_a_new_prior(fitted):
    posterior = fitted.condition(y=given(*SEEN))
    cut = posterior.condition(b=above(0.0)).sample(jax.random.key(0), 40, sites=["a", "b"])
    assert (cut.posterior["b"] > 0).all()
    held = posterior.condition(constraint=lambda values: -20.0 * values["a"] ** 2).draw(jax.random.key(0), (400,))
    assert abs(np.asarray(held["a"]).std() / 20**-0.5 * 2**0.5 - 1) < 0.2
    with pytest.raises(ValueError, match="no site 'y'"):
        posterior.condition(constraint=lambda values: values["y"].sum())
    with pytest.raises(ValueError, match="'y' is a function"):
        posterior.condition(prior={"y": dist.Normal(0.0, 1.0)})


@pytest.mark.slow
def test_the_answers_at_other_times_are_calibrated(learned):
    mask = np.isin(np.arange(21), [0, 10, 20])
    asked = {"sites": ["a", "b", "y"], "at": {"time": TIMES[[5, 13]]}}
    assert learned.calibrate(jax.random.key(0), {"y": mask}, num_simulations=200, num_draws=50, **asked).is_calibrated


def test_ranks_at_some_times(fitted):
    mask = np.isin(np.arange(21), [0, 10, 20])
    calibration = fitted.calibrate(
        jax.random.key(0), {"y": mask}, num_simulations=20, num_draws=10, sites=["a", "y"], at={"time": TIMES[[5, 10]]}
    )
    assert set(calibration.p_values) == {"a", "y", "jointly"}
    assert np.isnan(calibration.pits["y"][:, 1]).all() and not np.isnan(calibration.pits["y"][:, 0]).any()
    with pytest.raises(ValueError, match="where the model is simulated"):
        fitted.calibrate(jax.random.key(0), {"y": mask}, num_simulations=20, num_draws=5, at={"time": [0.123]})


def test_values_are_added_at_other_and_at_missing_places(fitted):
    values = np.array([[0.1, np.nan, 0.3], [np.nan, 0.2, np.nan]])
    first = fitted.condition(y=xr.DataArray(values, {"time": [0.2, 1.0, 1.9]}, ("case", "time")))
    rest = np.where(np.isnan(values), 0.7, np.nan)
    both = first.condition(y=xr.DataArray(rest, {"time": [0.2, 1.0, 1.9]}, ("case", "time")))
    assert both.batch_shape == (2,)
    drawn = both.draw(jax.random.key(0), at={"time": [0.2, 1.0, 1.5, 1.9]})["y"]
    np.testing.assert_allclose(drawn[:, [0, 1, 3]], np.where(np.isnan(values), rest, values), rtol=1e-6)
    with pytest.raises(ValueError, match="'y' is given twice"):
        both.condition(y=given([1.0], [0.0]))


def test_a_batch_that_knows_nothing_is_a_batch(fitted):
    empty = fitted.condition(y=np.full((3, 21), np.nan))
    assert empty.batch_shape == (3,)
    assert empty.draw(jax.random.key(0), (2,), sites=["a"])["a"].shape == (2, 3)
    assert fitted.condition(y=np.full(21, np.nan)).batch_shape == ()


def test_a_function_given_on_its_grid_is_asked_for_in_between(fitted):
    between = fitted.condition(a=0.0, b=1.0, y=TIMES)
    assert repr(between) == "p(y(time) | a, b, y[21 of time])"
    drawn = between.draw(jax.random.key(0), (3,), at={"time": [0.5, 0.55]})["y"]
    assert drawn.shape == (3, 2) and (np.asarray(drawn[:, 0]) == np.float32(0.5)).all()
    assert np.asarray(drawn[:, 1]).std() > 0
    assert np.isfinite(between.log_prob({"y": given([0.55], [0.5])}))
    with pytest.raises(ValueError, match=r"Nothing is left to sample: .* Expected `at` other coordinates of y"):
        between.sample(jax.random.key(0))


def test_given_entries_are_ignored_in_a_density(fitted):
    posterior = fitted.condition(y=given(*SEEN))
    same = [posterior.log_prob({"y": given([0.8, 1.0], [known, 0.2])}) for known in (0.4, 77.0, np.inf)]
    np.testing.assert_array_equal(same, same[0])
    np.testing.assert_array_equal(same[0], posterior.log_prob({"y": given([1.0], [0.2])}))
    with pytest.raises(ValueError, match=r"Site 'y': leading axes \(2,\) do not broadcast with \(3,\)"):
        posterior.log_prob({"a": np.zeros(3), "y": np.zeros((2, 1))}, at={"time": [1.0]})


def test_functions_of_given_values_are_computed_from_them(summing):
    values = np.linspace(0.0, 1.0, 7)
    posterior = summing.condition(path=values)
    tree = posterior.sample(jax.random.key(0), 8, sites=["scale"])
    np.testing.assert_allclose(tree.posterior["total"], values.sum(), rtol=1e-6)


def test_values_traced_by_jax(fitted):
    draw = lambda values: fitted.condition(y=values).draw(jax.random.key(0), (5,), sites=["a"])["a"]  # noqa: E731
    np.testing.assert_allclose(jax.jit(draw)(TIMES), draw(TIMES), atol=1e-3)
    posterior = fitted.condition(y=given(*SEEN), b=above(0.0))
    drawn = jax.jit(lambda key: posterior.draw(key, (50,), sites=["a", "b"]))(jax.random.key(0))
    assert (drawn["b"] > 0).all()


@pytest.mark.parametrize(
    ("law", "reason"),
    [
        (lambda scale: dist.Uniform(jnp.zeros(7), jnp.ones(7)), "its bounds are arrays"),
        (lambda scale: dist.Uniform(0.0, scale).expand([7]), "its support depends on other sites"),
    ],
)
def test_sites_that_cannot_be_functions(law, reason):
    def model():
        scale = numpyro.sample("scale", dist.HalfNormal(1.0))
        numpyro.sample("path", law(scale).to_event(1))

    with pytest.raises(ValueError, match=f"'path' cannot be a function of 'time': {reason}"):
        Simformer(model, dims={"path": ["time"]}, continuous_dims=["time"])


def test_known_points_are_chosen_near_the_new_ones_or_all_over():
    known = np.linspace(0.0, 1.0, 11)
    np.testing.assert_array_equal(nearest(known, np.array([0.31]), 2), [3, 4])
    np.testing.assert_array_equal(nearest(known, np.zeros(0), 3), [0, 5, 10])
    np.testing.assert_array_equal(nearest(known[:2], np.array([0.5]), 3), [0, 1])


def test_draws_under_jit_and_as_a_numpyro_distribution(fitted):
    posterior = fitted.condition(y=given(*SEEN))
    ask = lambda key: posterior.draw(key, (200,), at={"time": [0.4]})  # noqa: E731
    np.testing.assert_allclose(jax.jit(ask)(jax.random.key(0))["y"], ask(jax.random.key(0))["y"], atol=1e-3)
    learned = posterior.as_numpyro(sites=["a"])
    assert np.isfinite(learned.log_prob(0.5)) and learned.sample(jax.random.key(0), (3,)).shape == (3,)
    with pytest.raises(ValueError, match="'y' is a function"):
        posterior.as_numpyro()


def test_a_question_may_be_about_no_points(fitted):
    drawn = fitted.condition().draw(jax.random.key(0), (3,), sites=["a"])
    assert {name: value.shape for name, value in drawn.items()} == {"a": (3,)}
    assert np.isfinite(fitted.condition(a=0.5).log_prob({"b": np.zeros(2)})).all()


def test_a_saved_network_answers_the_same(fitted, tmp_path):
    fitted.save(tmp_path / "line")
    again = Simformer.load(tmp_path / "line", line)
    draws = [each.condition(y=given(*SEEN)).draw(jax.random.key(0), (4,)) for each in (fitted, again)]
    np.testing.assert_array_equal(draws[0]["y"], draws[1]["y"])


def test_far_values_are_warned_of_at_any_times():
    simformer = untrained(line, **OPTIONS)
    with pytest.warns(RuntimeWarning, match="far outside"):
        asked = simformer.condition(y=given([0.13, 1.94], [30.0, -30.0]))
    assert "y" in asked.check_given().far
    assert simformer.condition(y=given(*SEEN)).check_given().far == ()


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (given([0.5, 2.5], [0.0, 0.0]), r"Site 'y': expected coordinates from 0 to 2.*got \[2.5\]"),
        (given([0.5, 0.5], [0.0, 0.0]), r"Site 'y': expected every coordinate once, got \[0.5\] several times"),
        (np.zeros(5), r"Site 'y': expected shape \(21,\)"),
        (above(0.0), "Site 'y' is a function of 'time': expected values"),
    ],
)
def test_values_that_cannot_be_given(fitted, value, told):
    with pytest.raises(ValueError, match=told):
        fitted.condition(y=value)


def test_a_new_prior_on_what_reads_a_function_is_refused():
    def model():
        path = numpyro.sample("path", dist.Normal(jnp.zeros(5), 1.0).to_event(1))
        numpyro.sample("total", dist.Normal(path.sum(), 0.1))
        numpyro.sample("offset", dist.Normal(0.0, 1.0))

    fitted = untrained(model, dims={"path": ["time"]}, continuous_dims=["time"])
    with pytest.raises(ValueError, match=r"prior: the density of 'total' depends on .* that is a function"):
        fitted.condition(prior={"total": dist.Normal(1.0, 0.1)})
    assert "offset ~ Normal" in repr(fitted.condition(prior={"offset": dist.Normal(1.0, 0.1)}))


def test_coordinates_by_function_are_refused_before_labelled_draws(fitted, monkeypatch):
    monkeypatch.setattr(type(fitted.condition()), "_draw_all", None)
    with pytest.raises(ValueError, match="at: expected 'time' in place of 'y'"):
        fitted.condition().sample(jax.random.key(0), 8, at={"y": [0.5]})


def test_other_errors_say_what_is_expected(fitted):
    with pytest.raises(ValueError, match="'place' is no continuous dim"):
        fitted.condition().draw(jax.random.key(0), at={"place": [0.0]})
    with pytest.raises(ValueError, match=r"at\['time'\]: expected coordinates from 0 to 2"):
        fitted.condition().draw(jax.random.key(0), at={"time": [3.0]})
    with pytest.raises(ValueError, match="'hour' is a dim of no site"):
        Simformer(line, continuous_dims=["hour"])
    with pytest.raises(ValueError, match="two increasing numbers"):
        Simformer(line, coords={"time": list("abcdefghijklmnopqrstu")}, continuous_dims=["time"])
    with pytest.raises(ValueError, match="expected 'moral', 'dense' or 'directed'"):
        Simformer(line, attention=np.eye(23, dtype=bool), **OPTIONS)


def test_points_that_depend_on_each_other_see_each_other(walker):
    sequence = walker._sequences.training
    assert sequence.index.points_are_linked
    sites = walker._sequences.functions.resize(walker.structure.sites, sequence.points)
    tokens = sum(site.num_tokens for site in sites.values())
    steps, far = sites["steps"].token_slice.start, sites["x"].token_slice.stop - 1
    given_but_two = jnp.ones((1, tokens), bool).at[0, jnp.array([steps, far])].set(False)
    mask = sequence.attention(given_but_two, jnp.zeros(given_but_two.shape))[0]
    assert mask[steps].all() and mask[far].all()
    tree = walker.condition(x=xr.DataArray([[0.0], [1.0]], {"time": [0.5, 3.0]}, ("time", "place"))[:, [0, 0]]).sample(
        jax.random.key(0), 8, at={"time": [1.5, 2.0, 2.5, 4.0, 4.5, 5.0, 5.5]}
    )
    assert tree.posterior["steps"].dims == ("chain", "draw", "time") and tree.posterior["x"].sizes["place"] == 2


def test_given_rates_make_points_independent(fitted):
    sequence = fitted._sequences.training
    rates = jnp.zeros((1, 8), bool).at[:, :2].set(True)
    mask = sequence.attention(rates, jnp.zeros((1, 8)))[0]
    np.testing.assert_array_equal(mask[2:, 2:], np.eye(6, dtype=bool))
    assert mask[2:, :2].all() and not sequence.index.points_are_linked


@pytest.mark.parametrize("seed", range(20))
def test_no_edge_is_missing_whatever_points_are_left_out(seed):
    """Against elimination, one left-out point after another."""
    rng = np.random.default_rng(seed)
    size, is_point = 9, np.arange(9) >= 3
    graph = np.triu(rng.uniform(size=(size, size)) < 0.25, 1)
    graph |= graph.T
    kinds = np.array([0, 1, 2, 3, 3, 3, 6, 6, 6])
    joined = joined_by_points(graph, is_point)
    collapsed = KindGraph.of(joined, kinds).among(kinds)
    kept = ~is_point | (rng.uniform(size=size) < 0.5)
    rest = graph.copy()
    for token in np.flatnonzero(~kept):
        rest |= np.outer(rest[token], rest[token])
        rest[token] = rest[:, token] = False
    rest &= ~np.eye(size, dtype=bool)
    assert not (rest & ~joined)[np.ix_(kept, kept)].any()
    assert not (rest & ~collapsed)[np.ix_(kept, kept)].any()


def test_no_edge_is_added_that_no_points_left_out_make():
    """Of the tokens a, b, c, x0, x1, y0, y1: a reaches x, and through x1 also b; c stands alone with y."""
    graph = np.zeros((7, 7), bool)
    for pair in [(0, 3), (0, 4), (1, 4), (2, 5), (2, 6)]:
        graph[pair] = graph[pair[::-1]] = True
    is_point = np.arange(7) >= 3
    joined = joined_by_points(graph, is_point)
    expected = graph.copy()
    expected[0, 1] = expected[1, 0] = True
    np.testing.assert_array_equal(joined, expected)
    np.testing.assert_array_equal(joined_by_points(graph, np.zeros(7, bool)), graph)
    collapsed = KindGraph.of(joined, np.array([0, 1, 2, 3, 3, 5, 5])).among(np.array([0, 1, 2, 3, 3, 5]))
    expected = np.zeros((6, 6), bool)
    for pair in [(0, 1), (0, 3), (0, 4), (1, 3), (1, 4), (2, 5)]:
        expected[pair] = expected[pair[::-1]] = True
    np.testing.assert_array_equal(collapsed, expected)


def test_small_functions_use_every_place():
    simformer = Simformer(walk, continuous_dims=["time"], dims={"steps": ["time"]}, network=SMALL)
    assert simformer._sequences.functions.most_points == {"steps": 7, "x": 7}


def test_a_length_first_asked_for_under_a_trace_is_answered_ever_after(fitted):
    posterior = fitted.condition(y=given(np.linspace(0.0, 2.0, 17), np.zeros(17)))
    assert np.isfinite(jax.jit(jax.grad(lambda a: posterior.log_prob({"a": a})))(0.3))
    assert np.isfinite(posterior.log_prob({"a": 0.3}))


def test_a_covariate_is_given_beside_functions_too():
    def dosed(dose):
        a = numpyro.sample("a", dist.Normal())
        with numpyro.plate("time", len(TIMES)):
            numpyro.sample("y", dist.Normal(a + dose * TIMES, NOISE))

    simformer = untrained(dosed, covariates={"dose": dist.Uniform(0.0, 1.0)}, **OPTIONS)
    seen = given([0.5], [0.0])
    for ask in (lambda d: d.draw(jax.random.key(0)), lambda d: d.sample(jax.random.key(0), 4, sites=["a"])):
        with pytest.raises(ValueError, match="Site 'dose' is a covariate"):
            ask(simformer.condition(y=seen))


def test_answers_follow_a_permutation_of_the_functions_of_a_plate():
    def crowd():
        a = numpyro.sample("a", dist.Normal())
        with numpyro.plate("person", 3, dim=-2), numpyro.plate("time", len(TIMES), dim=-1):
            numpyro.sample("y", dist.Normal(a * TIMES, NOISE))

    simformer = untrained(crowd, shaken=True, **OPTIONS)
    y = np.random.default_rng(0).normal(size=(3, len(TIMES)))[:, :4]
    densities = [
        simformer.condition(y=xr.DataArray(each, {"time": TIMES[:4]}, ("person", "time"))).log_prob({"a": 1.0})
        for each in (y, y[[1, 2, 0]])
    ]
    np.testing.assert_allclose(densities[0], densities[1], rtol=1e-5)


def test_functions_are_trained_at_more_of_the_higher_noise_levels():
    def levels(simformer):
        process = simformer._sequences.initial_joint(jax.random.key(0), np.eye(23), PROCESSES["edm"]).process
        return process.training_levels(jax.random.key(1), 10_000), process.grid(20)

    (functions, drawn_at), (scalars, others) = levels(Simformer(line, **OPTIONS)), levels(Simformer(line))
    # low levels are not forgotten, and sampling passes through the same
    assert np.allclose(np.log(np.median(functions)), -1.0, atol=0.05)
    assert np.mean(functions < 0.1) > 0.15
    assert np.mean(functions > 1.0) > 1.4 * np.mean(scalars > 1.0)
    assert np.array_equal(drawn_at, others)


def test_a_continuous_dim_does_not_vary_in_size():
    with pytest.raises(ValueError, match="varying_plates: 'time' is a continuous dim"):
        Simformer(line, varying_plates=["time"], **OPTIONS)
