"""Labelled arrays in and out: what is written is read back, by name and by label."""

import arviz_base as azb
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr

from simformer_ppl.inference_data import to_inference_data
from simformer_ppl.labelled_arrays import align, dataset_to_arrays, simulations_to_dataset
from simformer_ppl.naming import resolve_dims
from simformer_ppl.structure import trace_structure

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


@pytest.fixture(scope="module")
def schools():
    return trace_structure(school_model, data_sites=["y", "z"])


def draws_of(structure, names, batch_shape=()):
    rng = np.random.default_rng(0)
    shapes = {name: (NUM_SAMPLES, *batch_shape, *structure.sites[name].shape) for name in names}
    dtype = {name: int if structure.sites[name].is_discrete else np.float32 for name in names}
    return {name: rng.normal(size=shape).astype(dtype[name]) for name, shape in shapes.items()}


PARTLY = np.array([1.0, np.nan, 3.0])


def test_one_dim_of_two_lengths_is_refused():
    def model():
        numpyro.sample("a", dist.Normal().expand([2]))
        numpyro.sample("b", dist.Normal().expand([3]))

    # xarray would pad the shorter one with NaN
    with pytest.raises(ValueError, match=r"dim 'time' has length 2 in site 'a' and 3 in site 'b'"):
        resolve_dims(trace_structure(model), {"a": ["time"], "b": ["time"]})


class TestSimulations:
    def test_round_trip_in_any_order_of_dims(self, schools):
        values = draws_of(schools, schools.sites)
        dataset = simulations_to_dataset(schools, values, coords={"school": ["A", "B", "C"]})
        assert dataset.theta.dims == ("simulation", "school")
        for stored in (dataset, dataset.transpose("school", ...), dict(dataset), values):
            read = dataset_to_arrays(schools, stored)
            assert list(read) == list(schools.sites)
            for name in values:
                np.testing.assert_array_equal(read[name], values[name])

    def test_user_dims_and_deterministics(self, schools):
        values = draws_of(schools, schools.sites) | {"shifted": np.ones((NUM_SAMPLES, 3))}
        dataset = simulations_to_dataset(schools, values, dims={"theta": ["place"]})
        assert (dataset.theta.dims[1], dataset.shifted.dims[1]) == ("place", "school")
        assert "shifted" not in dataset_to_arrays(schools, dataset.transpose(..., "simulation"))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"theta": np.ones((NUM_SAMPLES, 4))}, r"site 'theta': expected shape \(40, 3\), got \(40, 4\)"),
            ({"theta": np.ones((NUM_SAMPLES + 1, 3))}, r"site 'theta' has 41 simulations, site 'mu' has 40"),
            ({"theta": xr.DataArray(np.ones((NUM_SAMPLES, 3)))}, r"site 'theta': expected a dim 'simulation'"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, schools, change, message):
        with pytest.raises(ValueError, match=message):
            dataset_to_arrays(schools, draws_of(schools, schools.sites) | change)

    def test_a_missing_site_is_named(self, schools):
        with pytest.raises(ValueError, match=r"lack the sites \['z'\].*got \['mu', 'theta', 'y'\]"):
            dataset_to_arrays(schools, draws_of(schools, ["mu", "theta", "y"]))

    def test_an_unknown_site_is_refused(self, schools):
        with pytest.raises(ValueError, match="unknown site 'nu'"):
            simulations_to_dataset(schools, {"nu": np.ones(3)})


class TestAlign:
    labels = {"school": ["A", "B", "C"]}  # noqa: RUF012

    def test_labels_decide_the_order(self, schools):
        value = xr.DataArray([3.0, 1.0, 2.0], coords={"school": ["C", "A", "B"]})
        array, dims, coords = align(schools.sites["y"], value, self.labels)
        assert (array.tolist(), dims, coords) == ([1.0, 2.0, 3.0], (), {})

    @pytest.mark.parametrize("dtype", [float, int, bool])
    def test_absent_labels_are_missing(self, schools, dtype):
        value = xr.DataArray(np.ones(2, dtype), coords={"school": ["C", "A"]})
        array, _, _ = align(schools.sites["y"], value, self.labels)
        np.testing.assert_array_equal(array, [1.0, np.nan, 1.0])
        assert array.dtype.kind == "f"

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (xr.DataArray([1.0, 2.0], coords={"school": ["A", "D"]}), r"site 'y': unknown labels \['D'\]"),
            (xr.DataArray([1.0, 2.0], coords={"school": ["A", "A"]}), r"site 'y': repeated labels \['A'\]"),
            (xr.DataArray([1.0, 2.0], dims="school"), r"site 'y': expected length 3 of dim 'school', got 2"),
            (xr.DataArray(np.ones(3), dims="place"), r"site 'y': expected the dims \('school',\), got \('place',\)"),
            (xr.DataArray(np.ones((3, 2)), dims=("school", "draw")), r"draw"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, schools, value, message):
        with pytest.raises(ValueError, match=message):
            align(schools.sites["y"], value, self.labels)

    def test_other_dims_are_the_batch(self, schools):
        value = xr.DataArray(
            np.arange(12.0).reshape(3, 2, 2),
            dims=("school", "day", "arm"),
            coords={"arm": ["placebo", "drug"], "school": ["B", "C", "A"]},
        )
        array, dims, coords = align(schools.sites["y"], value, self.labels)
        assert dims == ("day", "arm")
        assert {dim: labels.tolist() for dim, labels in coords.items()} == {"arm": ["placebo", "drug"]}
        np.testing.assert_array_equal(array[..., 0], value.sel(school="A"))

    def test_numbers_are_labels_where_we_number(self, schools):
        site = schools.sites["y"]
        stored = xr.DataArray([1.0, 2.0, 3.0], coords={"school": [2, 0, 1]})
        assert align(site, stored)[0].tolist() == [2.0, 3.0, 1.0]
        own = xr.DataArray([1.0, 2.0, 3.0], coords={"school": [1, 2, 3]})
        assert align(site, own)[0].tolist() == [1.0, 2.0, 3.0]

    def test_values_without_names_are_read_by_position(self, schools):
        array, dims, _ = align(schools.sites["y"], xr.DataArray(np.ones((2, 3))))
        assert (array.shape, dims) == ((2, 3), ("batch",))
        assert align(schools.sites["y"], xr.DataArray(2.0))[0].tolist() == [2.0, 2.0, 2.0]

    def test_an_axis_of_length_one_may_be_left_out(self):
        site = trace_structure(gap_model).sites["x"]
        value = xr.DataArray(np.ones((4, 2, 3)), dims=("b", "a", site.dims[-1]))
        assert align(site, value)[0].shape == site.shape

    def test_what_sample_returns_can_be_given_again(self, schools):
        tree = to_inference_data(
            schools, draws_of(schools, ["theta"]), given={"y": PARTLY}, coords=self.labels, num_chains=1
        )
        array, _, _ = align(schools.sites["y"], tree.observed_data.y.isel(school=[2, 0, 1]), self.labels)
        np.testing.assert_array_equal(array, PARTLY)
        stacked = azb.extract(tree, var_names="theta").rename(sample="replicate")
        array, dims, coords = align(schools.sites["theta"], stacked, self.labels)
        assert (array.shape, dims, coords) == ((NUM_SAMPLES, 3), ("replicate",), {})


def test_simulations_are_read_by_names_and_labels():
    structure = trace_structure(lambda: numpyro.sample("w", dist.Normal(jnp.zeros((2, 2)), 1.0).to_event(2)))
    own = {"coords": {"row": ["a", "b"]}, "dims": {"w": ["row", "col"]}}
    w = np.arange(12.0).reshape(3, 2, 2)
    data = simulations_to_dataset(structure, {"w": w}, **own)
    for moved in (data.transpose("simulation", "col", "row"), data.isel(row=[1, 0])):
        np.testing.assert_array_equal(dataset_to_arrays(structure, moved, **own)["w"], w)
