"""Which plates a model cannot tell apart."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from simformer_ppl.structure import trace_structure

sample, plate = numpyro.sample, numpyro.plate


def schools(sigma=1.0):
    mu, tau = sample("mu", dist.Normal(0, 5)), sample("tau", dist.HalfCauchy(5))
    with plate("school", 5):
        theta = sample("theta", dist.Normal(mu, tau))
        sample("y", dist.Normal(theta, sigma))


def slcp():
    theta = sample("theta", dist.Uniform(-3, 3).expand([3]).to_event(1))
    with plate("pair", 4):
        sample("x", dist.MultivariateNormal(theta[:2], (0.1 + theta[2] ** 2) * jnp.array([[1, 0.5], [0.5, 1]])))


def ring():
    with plate("place", 5):
        x = sample("x", dist.Normal(0, 1))
        sample("y", dist.Normal(jnp.roll(x, 1) + x, 1))


def pooled():
    with plate("n", 4):
        x = sample("x", dist.Normal(0, 1))
    sample("mean", dist.Normal(x.mean(), 1))


def weighted():
    with plate("n", 4):
        x = sample("x", dist.Normal(0, 1))
    sample("mean", dist.Normal((x * jnp.arange(1.0, 5)).sum(), 1))


def nested():
    with plate("group", 3, dim=-2):
        g = sample("g", dist.Normal(0, 1))
        with plate("unit", 4, dim=-1):
            sample("y", dist.Normal(g, jnp.array([1.0, 2, 3, 4])))


def dirichlet():
    with plate("n", 3):
        p = sample("p", dist.Dirichlet(jnp.ones(3)))
        sample("c", dist.Multinomial(10, p))


@pytest.mark.parametrize(
    ("model", "plates"),
    [
        (schools, ("school",)),
        (slcp, ("pair",)),
        (ring, ()),
        (pooled, ("n",)),
        (weighted, ()),
        (nested, ("group",)),
        (dirichlet, ("n",)),
    ],
)
def test_exchangeable_plates(model, plates):
    assert trace_structure(model).exchangeable == plates


def test_elements_may_differ_by_known_constants():
    sigma = np.array([3.0, 1.0, 4.0, 1.5, 9.0])
    structure = trace_structure(schools, (sigma,))
    assert structure.exchangeable == () and structure.constant_plates == ("school",)
    constants, sites = structure.token_constants, structure.sites
    assert np.isnan(constants[:2]).all()  # mu and tau lie in no plate
    for name in ("theta", "y"):
        assert (constants[sites[name].token_slice] == sigma[:, None].astype(np.float32)).all(0).any()
    assert "differ by known constants only: school" in repr(structure)


def regression(design, group):
    slope = sample("slope", dist.Normal(0, 1).expand([2]).to_event(1))
    with plate("group", 3):
        level = sample("level", dist.Normal(0, 1))
    time = jnp.linspace(0, 1, 7)
    with plate("row", 7):
        sample("y", dist.Normal(design @ slope + level[group] + time, 1))


def test_covariates_group_indices_and_times_are_constants_of_a_row():
    design, group = np.random.default_rng(0).normal(size=(7, 2)), np.array([0, 1, 2, 0, 1, 2, 0])
    structure = trace_structure(regression, (design, group))
    assert structure.constant_plates == ("row",)
    rows = structure.token_constants[structure.sites["y"].token_slice]
    for known in (*design.T, group, np.linspace(0, 1, 7)):
        assert np.isclose(rows, known[:, None], atol=1e-6).all(0).any()
    assert np.isnan(structure.token_constants[structure.sites["level"].token_slice]).all()


def crossed(weight):
    with plate("row", 3, dim=-2):
        a = sample("a", dist.Normal(0, 1))
    with plate("column", 4, dim=-1):
        b = sample("b", dist.Normal(0, 1))
    with plate("row", 3, dim=-2), plate("column", 4, dim=-1):
        sample("y", dist.Normal(a + b, weight))


def test_crossed_plates_share_a_table_of_constants():
    weight = np.random.default_rng(0).uniform(1, 2, (3, 4)).astype(np.float32)
    structure = trace_structure(crossed, (weight,))
    assert set(structure.constant_plates) == {"row", "column"}
    cells = structure.token_constants[structure.sites["y"].token_slice]
    assert (cells == weight.reshape(12, 1)).all(0).any()


def walk():
    with plate("time", 5):
        x = sample("x", dist.Normal(0, 1))
        sample("y", dist.Normal(x[np.array([0, 0, 1, 2, 3])], jnp.arange(1.0, 6)))


def test_neighbours_in_time_are_no_constants():
    structure = trace_structure(walk)
    assert structure.exchangeable == () and structure.constant_plates == ()


def test_a_nuisance_inside_the_plate_keeps_it():
    assert trace_structure(schools, sites=["mu", "tau", "y"]).exchangeable == ("school",)


def test_a_mask_in_a_plate_hides_no_edge():
    def model():
        x = sample("x", dist.Normal(0, 1))
        with plate("n", 2), numpyro.handlers.mask(mask=False):
            sample("y", dist.Normal(x, 0.5))

    assert trace_structure(model).adjacency.astype(int).tolist() == [[0, 0, 0], [1, 0, 0], [1, 0, 0]]


def above_a_threshold():
    rate = sample("rate", dist.Normal(0.0, 1.0))
    with plate("time", 6):
        sample("y", dist.Normal(jnp.maximum(rate - 1.0, 0.0) * np.arange(1.0, 7.0), 0.1))


def solve(rate):
    return np.full(6, np.nan, np.float32) if rate < 0.5 else np.float32(rate) * np.arange(6, dtype=np.float32)


def that_gives_nan():
    rate = sample("rate", dist.Normal(0.0, 1.0))
    path = jax.pure_callback(solve, jax.ShapeDtypeStruct((6,), jnp.float32), rate, vmap_method="sequential")
    with plate("time", 6):
        sample("y", dist.Normal(path, 0.1))


def grow(rate):
    if rate > -0.5:
        raise RuntimeError("no growth")
    return np.float32(rate)


def that_raises():
    rate = sample("rate", dist.Normal(0.0, 1.0))
    size = jax.pure_callback(grow, jax.ShapeDtypeStruct((), jnp.float32), rate, vmap_method="sequential")
    with plate("bed", 6):
        sample("y", dist.Normal(size, 0.1))


def test_elements_that_differ_in_a_part_of_the_prior_only_are_told_apart():
    structure = trace_structure(above_a_threshold)
    assert structure.exchangeable == () and structure.constant_plates == ("time",)


def test_simulations_that_fail_say_nothing_of_elements():
    assert trace_structure(that_gives_nan).exchangeable == ()
    assert trace_structure(that_raises).exchangeable == ("bed",)


def fail(rate):
    raise RuntimeError("no growth")


def that_always_raises():
    rate = sample("rate", dist.Normal(0.0, 1.0))
    size = jax.pure_callback(fail, jax.ShapeDtypeStruct((), jnp.float32), rate, vmap_method="sequential")
    with plate("bed", 6):
        sample("y", dist.Normal(size, 0.1))


def test_a_simulator_that_always_fails_is_told():
    structure = trace_structure(that_always_raises)
    assert structure.exchangeable == ()
    assert "exchangeable plates unknown: RuntimeError the simulator always fails" in structure.info
