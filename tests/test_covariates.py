"""Arguments that vary between datasets: one network for every design."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from simformer_ppl import NetworkConfig, Simformer, above
from tests.conftest import untrained

N, SIGMA = 6, 0.5


def line(x, y=None):
    intercept = numpyro.sample("intercept", dist.Normal(0.0, 1.0))
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    with numpyro.plate("n", N):
        numpyro.sample("y", dist.Normal(intercept + slope * x, SIGMA), obs=y)


def conjugate(x, y):
    """Mean and covariance of intercept and slope."""
    design = np.stack([np.ones(N), x], 1)
    covariance = np.linalg.inv(np.eye(2) + design.T @ design / SIGMA**2)
    return covariance @ design.T @ y / SIGMA**2, covariance


SPREAD = {"x": dist.Uniform(-2.0, 2.0).expand([N])}


@pytest.fixture(scope="module")
def lines():
    """As good as untrained."""
    simformer = Simformer(line, covariates=SPREAD, dims={"x": ["n"]}, network=NetworkConfig(width=8, depth=1, heads=1))
    return simformer.fit(jax.random.key(0), 500, num_steps=5, progress_bar=False)


@pytest.fixture(scope="module")
def trained():
    simformer = Simformer(line, covariates=SPREAD, dims={"x": ["n"]})
    return simformer.fit(jax.random.key(0), 10_000, num_steps=6_000, progress_bar=False)


def test_designs_are_read_as_covariates():
    structure = Simformer(line, covariates=SPREAD, dims={"x": ["n"]}).structure
    assert [site.is_covariate for site in structure.sites.values()] == [True, False, False, False]
    assert [site.is_data for site in structure.sites.values()] == [False, False, False, True]
    assert "covariate" in repr(structure)
    # every y reads its own x; with x in the plate of y, its elements are alike
    start = {name: site.token_slice.start for name, site in structure.sites.items()}
    for i in range(N):
        read = structure.adjacency[start["y"] + i]
        assert set(np.flatnonzero(read)) == {start["x"] + i, start["intercept"], start["slope"]}
    assert structure.exchangeable == ("n",)
    assert Simformer(line, covariates=SPREAD).structure.exchangeable == ()


@pytest.mark.slow
def test_one_network_serves_every_design(trained):
    rng = np.random.default_rng(0)
    x = rng.uniform(-2.0, 2.0, (20, N)).astype(np.float32)
    y = (rng.normal(size=(20, 1)) + rng.normal(size=(20, 1)) * x + SIGMA * rng.normal(size=x.shape)).astype(np.float32)
    draws = trained.condition(x=x, y=y).draw(jax.random.key(1), (2_000,))
    assert set(draws) == {"intercept", "slope"}
    drawn = np.stack([draws["intercept"], draws["slope"]], -1)
    exact = [conjugate(*pair) for pair in zip(x, y, strict=True)]
    mean, sd = np.stack([m for m, _ in exact]), np.sqrt([np.diag(c) for _, c in exact])
    errors, log_ratio = (drawn.mean(0) - mean) / sd, np.log(drawn.std(0) / sd)
    print(f"root mean squares: {np.sqrt((errors**2).mean()):.3f} sd, {np.sqrt((log_ratio**2).mean()):.3f} of log sd")
    assert np.sqrt((errors**2).mean()) < 0.2 and np.sqrt((log_ratio**2).mean()) < 0.15
    # how much a design tells, it tells
    assert np.corrcoef(np.log(drawn.std(0)[:, 1]), np.log(sd[:, 1]))[0, 1] > 0.9
    shape = [np.corrcoef(drawn[:, i].T)[0, 1] for i in range(20)]
    assert np.corrcoef(shape, [c[0, 1] / np.sqrt(c[0, 0] * c[1, 1]) for _, c in exact])[0, 1] > 0.9


def test_covariates_are_always_given(lines):
    with pytest.raises(ValueError, match=f"Expected a value for all of it, got NaN in 1 of {N}"):
        lines.condition(x=np.r_[np.nan, np.zeros(N - 1)])
    for asked in (lines.condition(), lines.condition(y=np.zeros(N))):
        with pytest.raises(ValueError, match=r"Site 'x' is a covariate, which is only ever given\. Expected a value"):
            asked.draw(jax.random.key(0))
    x = np.linspace(-1, 1, N)
    idata = lines.condition(x=x).sample(jax.random.key(0), 100)
    assert set(idata.children) == {"prior", "prior_predictive", "constant_data"}
    np.testing.assert_allclose(idata.constant_data["x"], x, rtol=1e-6)
    assert idata.constant_data["x"].dims == ("n",)
    with pytest.raises(ValueError, match="prior: site 'x' is a covariate"):
        lines.condition(x=x, prior={"x": dist.Normal(0.0, 1.0).expand([N])})
    with pytest.raises(ValueError, match="Site 'x' is a covariate: expected values, got an interval"):
        lines.condition(x=above(0.0))
    with pytest.raises(ValueError, match="Site 'x' is a covariate"):
        lines.condition(y=np.zeros(N)).as_numpyro()
    posterior = lines.condition(x=x, y=np.zeros(N))
    assert repr(posterior) == "p(intercept, slope | x, y)"
    assert set(posterior.sample(jax.random.key(0), 100).children) == {"posterior", "observed_data", "constant_data"}
    assert posterior.condition().log_prob({"intercept": 0.1, "slope": 0.0}).shape == ()
    assert lines.calibrate(jax.random.key(0), [], num_simulations=60, num_draws=50).pits.keys() == {
        "intercept",
        "slope",
        "y",
    }


@pytest.mark.slow
def test_a_corrected_posterior_of_a_design_is_exact(trained):
    x, y = np.linspace(-2, 2, N), np.linspace(1, -1, N)
    idata = trained.condition(x=x, y=y).importance_resample(jax.random.key(2), 2_000)
    mean, covariance = conjugate(x, y)
    for value, name, sd in zip(mean, ("intercept", "slope"), np.sqrt(np.diag(covariance)), strict=True):
        assert abs(float(idata.posterior[name].mean()) - value) < 0.1 * sd
    assert set(idata.log_prior.data_vars) == {"intercept", "slope"}


def test_a_fitted_network_is_saved_and_loaded(lines, tmp_path):
    lines.save(tmp_path / "lines")
    with pytest.raises(ValueError, match=r"saved with covariates \['x'\]. Expected them again"):
        Simformer.load(tmp_path / "lines", line)
    loaded = Simformer.load(tmp_path / "lines", line, covariates=SPREAD)
    given = {"x": np.linspace(-1, 1, N), "y": np.zeros(N)}
    one, other = (s.condition(given).draw(jax.random.key(0), (5,)) for s in (lines, loaded))
    np.testing.assert_array_equal(one["slope"], other["slope"])


def test_a_function_of_a_key_draws_covariates():
    def grouped(count, group, y=None):
        with numpyro.plate("clinic", 3):
            level = numpyro.sample("level", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(level[group] + 0.0 * count, 1.0).to_event(1), obs=y)

    def groups(key):
        return jax.random.randint(key, (4,), 0, 3)

    simformer = untrained(grouped, model_args=(2.0,), covariates={"group": groups})
    site = simformer.structure.sites["group"]
    assert site.shape == (4,) and site.is_discrete and site.is_covariate
    simulations = simformer.simulate(jax.random.key(0), 200)
    assert set(np.unique(simulations["group"])) == {0, 1, 2}
    posterior = simformer.condition(group=jnp.array([0, 0, 1, 2]), y=np.zeros(4))
    assert posterior.draw(jax.random.key(0))["level"].shape == (3,)


def test_a_new_size_needs_new_covariates():
    def slope(n, x=None, y=None):
        slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
        with numpyro.plate("n", n):
            numpyro.sample("y", dist.Normal(slope * x, SIGMA), obs=y)

    spread = lambda n: {"x": dist.Uniform(-2.0, 2.0).expand([n])}  # noqa: E731
    simformer = untrained(slope, model_args=(4,), covariates=spread(4), dims={"x": ["n"]}, varying_plates=["n"])
    with pytest.raises(ValueError, match=r"covariates: expected where 'x' is drawn from, which varies in size by 'n'"):
        simformer.resize((3,))
    assert simformer.resize((3,), covariates=spread(3)).structure.plates == {"n": 3}


def test_what_cannot_be_drawn_is_refused():
    def sized(n, y=None):
        with numpyro.plate("n", N):
            numpyro.sample("y", dist.Normal(n, 1.0), obs=y)

    with pytest.raises(ValueError, match=r"covariates: expected arguments of the model, among \['x', 'y'\], got 'z'"):
        Simformer(line, covariates={"z": dist.Normal()})
    with pytest.raises(ValueError, match=r"covariates: 'x' is drawn\. Expected no value for it in model_kwargs"):
        Simformer(line, model_kwargs={"x": np.zeros(N)}, covariates=SPREAD)
    with pytest.raises(ValueError, match="data_sites: 'x' is a covariate"):
        Simformer(line, covariates=SPREAD, data_sites=["x", "y"])
    with pytest.raises(ValueError, match="a function of a key for 'x' that returns an array"):
        Simformer(line, covariates={"x": lambda key: {"x": key}})
    with pytest.raises(ValueError, match="the function for 'x' returns the same for two keys"):
        Simformer(line, covariates={"x": lambda key: np.random.default_rng().normal(size=N)})
    with pytest.raises(ValueError, match=r"covariates: 'n' is the name of a plate of the model too"):
        Simformer(sized, covariates={"n": dist.Normal()})
    with pytest.raises(ValueError, match="covariates: expected a NumPyro distribution or a function of a key for 'x'"):
        Simformer(line, covariates={"x": np.zeros(N)})


def test_what_keeps_a_plate_of_covariates_from_varying_is_told():
    with pytest.raises(ValueError, match=r"the covariate 'x' lies in it, its axes need names: dims=\{'x': \['n'\]\}"):
        Simformer(line, covariates=SPREAD, varying_plates=["n"])
