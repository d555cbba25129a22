"""Pictures of answers show what the draws are."""

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr

from simformer_ppl.plots import plot_function, plot_mask, plot_pair, plot_prior_posterior
from tests.conftest import untrained

TIME = np.array([0.0, 0.25, 1.0])


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture
def draws():
    rng = np.random.default_rng(0)
    values = {"theta": rng.normal(size=(4, 100, 2)), "mu": rng.normal(size=(4, 100))}
    return az.from_dict({"posterior": values})


def lines(ax):
    """Dashed lines across and along, by coordinate."""
    dashed = [line for line in ax.lines if line.get_linestyle() == "--"]
    upright = [line.get_xdata()[0] for line in dashed if line.get_xdata()[0] == line.get_xdata()[1]]
    level = [line.get_ydata()[0] for line in dashed if line.get_ydata()[0] == line.get_ydata()[1]]
    return upright, level


def test_true_values_lie_on_their_axes(draws):
    grid = plot_pair(draws, {"theta": [0.1, 0.2], "mu": 0.3}).viz["plot"].values
    truth = [0.1, 0.2, 0.3]
    for row, column in np.ndindex(3, 3):
        ax = grid[row, column]
        if row < column:
            assert lines(ax) == ([], [])  # not shown
        else:
            assert lines(ax) == ([truth[column]], [] if row == column else [truth[row]])


def test_lines_follow_the_coordinates_that_are_shown(draws):
    grid = plot_pair(draws, {"theta": [0.1, 0.2], "mu": 0.3}, coords={"theta_dim_0": [1]}).viz["plot"].values
    assert grid.shape == (2, 2)
    assert lines(grid[1, 0]) == ([0.2], [0.3])


def test_a_truth_must_fit(draws):
    with pytest.raises(ValueError, match="truth: site 'nu' is not among the draws"):
        plot_pair(draws, {"nu": 0.0})
    with pytest.raises(ValueError, match=r"truth: site 'theta': expected shape \(2,\), got \(\)"):
        plot_pair(draws, {"theta": 0.0})


def test_prior_and_posterior_share_their_axes(draws):
    prior = az.from_dict({"prior": {"mu": 5.0 + np.random.default_rng(1).normal(size=(4, 100))}})
    collection = plot_prior_posterior(prior, draws)
    (ax,) = np.atleast_1d(collection.viz["plot"]["mu"].values)
    means = sorted(np.average(line.get_xdata(), weights=line.get_ydata()) for line in ax.lines[:2])
    np.testing.assert_allclose(means, [0.0, 5.0], atol=0.5)
    with pytest.raises(ValueError, match="Expected draws with the group 'prior'"):
        plot_prior_posterior(draws, draws)


def test_bands_are_quantiles_and_points_what_is_given():
    values = np.linspace(0.0, 1.0, 101)[:, None] + TIME
    seen = xr.Dataset({"f": ("time", [0.4])}, {"time": [0.5]})
    tree = az.from_dict({"posterior": {"f": values[None]}}, coords={"time": TIME}, dims={"f": ["time"]})
    tree["observed_data"] = xr.DataTree(seen)
    ax = plot_function(tree, "f", levels=(0.8,), truth=xr.DataArray(TIME, {"time": TIME}, ("time",)))
    (band,) = ax.collections
    edges = band.get_paths()[0].vertices
    np.testing.assert_allclose([edges[:, 1].min(), edges[:, 1].max()], [0.1, 1.9])
    (given,) = [line for line in ax.lines if line.get_label() == "given"]
    assert (given.get_xdata().item(), given.get_ydata().item()) == (0.5, 0.4)
    parameter = az.from_dict(
        {"posterior": {"f": tree.posterior["f"].values}, "constant_data": {"f": np.ones(3)}},
        coords={"time": TIME},
        dims={"f": ["time"]},
    )
    assert "given" in [line.get_label() for line in plot_function(parameter, "f").lines]
    with pytest.raises(ValueError, match="truth: expected a DataArray along 'time', got ndarray"):
        plot_function(tree, "f", truth=TIME)
    with pytest.raises(ValueError, match=r"Site 'g' is not among the draws\. Expected one of: f"):
        plot_function(tree, "g")
    with pytest.raises(ValueError, match=r"has the dims \['time'\]: expected one, 'place'"):
        plot_function(tree, "f", dim="place")


def two_groups():
    mu = numpyro.sample("mu", dist.Normal())
    with numpyro.plate("n", 3):
        theta = numpyro.sample("theta", dist.Normal(mu, 1))
        numpyro.sample("y", dist.Normal(theta, 1))


def test_a_mask_is_that_of_what_is_given():
    simformer = untrained(two_groups)
    structure = simformer.structure
    given = structure.given_tokens(["mu", "y"])
    given[structure.tokens.index("y[1]")] = False
    ax = plot_mask(simformer.condition(mu=0.3, y=[0.1, np.nan, 0.2]))
    blank = np.all(ax.images[0].get_array() == np.ones(3), -1)
    np.testing.assert_array_equal(~blank, structure.attention_mask(given))
    assert ax.get_xlabel().startswith("p(theta, y[1 of 3] | mu, y[2 of 3]): ")
    with pytest.raises(ValueError, match="Site 'y': other elements are missing in each condition"):
        plot_mask(simformer.condition(y=[[0.1, np.nan, 0.2], [0.1, 0.2, np.nan]]))
