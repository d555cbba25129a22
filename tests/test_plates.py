"""Plates that training sees with any number of elements."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from simformer_ppl import Simformer
from simformer_ppl.tokens.plates import draw_present, read_plates
from tests.conftest import untrained

NOISE = 0.7


def group(size, y=None):
    """mu ~ N(0, 1), theta_i ~ N(mu, 0.5), y_i ~ N(theta_i, 0.7): Gaussian at every size."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    with numpyro.plate("person", size):
        theta = numpyro.sample("theta", dist.Normal(mu, 0.5))
        numpyro.sample("y", dist.Normal(theta, NOISE), obs=y)


def regression(x, y=None):
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    with numpyro.plate("row", len(x)):
        numpyro.sample("y", dist.Normal(slope * x, NOISE), obs=y)


def exact(y):
    """Mean and sd of mu, and of the first theta."""
    variance = 0.5**2 + NOISE**2
    precision = 1 + len(y) / variance
    mean = y.sum() / variance / precision
    shrink = 0.5**2 / variance
    theta_mean = mean + shrink * (y[0] - mean)
    theta_sd = np.sqrt(shrink * NOISE**2 + (1 - shrink) ** 2 / precision)
    return np.array([mean, theta_mean]), np.array([precision**-0.5, theta_sd])


@pytest.fixture(scope="module")
def fitted():
    """For what holds whatever a network has learned."""
    return untrained(group, shaken=True, model_args=(6,), varying_plates=["person"])


@pytest.mark.slow
def test_the_posterior_is_the_exact_one_at_every_size():
    simformer = Simformer(group, (12,), varying_plates=["person"])
    simformer.fit(jax.random.key(0), 10_000, num_steps=10_000, progress_bar=False)
    errors, widths = [], []
    for size in (1, 2, 5, 12):
        sized = simformer.resize((size,))
        y = sized.simulate(jax.random.key(1), 10, progress_bar=False)["y"].values
        draws = sized.condition(y=y).draw(jax.random.key(2), (1_000,))
        both = np.stack([draws["mu"], draws["theta"][..., 0]], -1)
        for number, own in enumerate(y):
            mean, deviation = exact(own)
            errors.append((both[:, number].mean(0) - mean) / deviation)
            widths.append(np.log(both[:, number].std(0) / deviation))
    # a sixth of a standard deviation, on average over all datasets
    assert np.sqrt(np.mean(np.square(errors))) < 1 / 6
    assert abs(np.mean(widths)) < 0.05 and np.sqrt(np.mean(np.square(widths))) < 0.1


def test_fewer_elements_are_as_many_of_which_some_are_left_out(fitted):
    y, mu = np.array([0.3, -1.2, 0.8]), np.linspace(-1.0, 1.0, 5)
    small = fitted.resize((3,)).condition(y=y).log_prob({"mu": mu})
    large = fitted.condition(y=np.r_[y, np.nan, np.nan, np.nan]).log_prob({"mu": mu})
    np.testing.assert_allclose(small, large, atol=1e-3)
    none = fitted.resize((1,)).condition().log_prob({"mu": mu})
    np.testing.assert_allclose(none, fitted.condition().log_prob({"mu": mu}), atol=1e-3)


def test_the_same_size_gives_the_same_draws(fitted):
    draws = [s.condition(y=np.zeros(6)).draw(jax.random.key(0), (3,)) for s in (fitted, fitted.resize((6,)))]
    np.testing.assert_array_equal(draws[0]["theta"], draws[1]["theta"])


def test_all_that_is_known_of_a_model_follows_its_size(fitted):
    resized = fitted.resize((9,), coords={"person": list("abcdefghi")})
    assert "(fitted:" in repr(resized) and resized.structure.plates == {"person": 9}
    tree = resized.condition(y=np.zeros(9)).sample(jax.random.key(0), 8, predictive=True, log_prob=True)
    assert tree.posterior["theta"].dims == ("chain", "draw", "person")
    assert tree.posterior["person"].values.tolist() == list("abcdefghi")
    assert tree.posterior_predictive["y"].sizes["person"] == 9
    order = np.arange(9)[::-1]
    y, theta = np.linspace(-1.0, 1.0, 9), np.linspace(0.5, 1.5, 9)
    values = {"mu": 0.2, "theta": theta}
    one = resized.condition(y=y).log_prob(values)
    np.testing.assert_allclose(
        one, resized.condition(y=y[order]).log_prob({**values, "theta": theta[order]}), atol=1e-3
    )


def test_a_network_is_saved_before_it_is_resized(fitted, tmp_path):
    with pytest.raises(ValueError, match="Resized: expected the Simformer that was trained"):
        fitted.resize((1,)).save(tmp_path / "one")
    fitted.save(tmp_path / "six")
    again = Simformer.load(tmp_path / "six", group, (6,))
    draws = [s.resize((1,)).condition(y=np.zeros(1)).draw(jax.random.key(0), (3,))["mu"] for s in (fitted, again)]
    np.testing.assert_array_equal(draws[0], draws[1])


@pytest.mark.slow
def test_a_resized_network_goes_on_learning_by_itself(fitted):
    resized = fitted.resize((2,))
    before = fitted.condition(y=np.zeros(6)).log_prob({"mu": 0.0})
    resized.fit(jax.random.key(0), 100, num_steps=5, batch_size=16, progress_bar=False)
    assert fitted.condition(y=np.zeros(6)).log_prob({"mu": 0.0}) == before


def test_designs_of_any_size():
    rows = lambda count: dist.Normal(jnp.zeros(count), 1.0)  # noqa: E731
    options = {"covariates": {"x": rows(5)}, "dims": {"x": ["row"]}, "varying_plates": ["row"]}
    resized = untrained(regression, **options).resize(covariates={"x": rows(2)})
    draws = resized.condition(x=np.array([1.0, 2.0]), y=np.zeros(2)).draw(jax.random.key(0), (3,))
    assert draws["slope"].shape == (3,)


def test_training_sees_any_number_of_elements():
    elements = read_plates(untrained(group, model_args=(4,)).structure, ["person"])
    assert elements.tolist() == [[-1, 0, 1, 2, 3, 0, 1, 2, 3]]
    present = np.asarray(draw_present(jax.random.key(0), 8_000, elements))
    assert present[:, 0].all()
    np.testing.assert_array_equal(present[:, 1:5], present[:, 5:])
    share = np.bincount(present[:, 1:5].sum(1), minlength=5) / len(present)
    np.testing.assert_allclose(share, [0, 1 / 8, 1 / 8, 1 / 8, 5 / 8], atol=0.02)
    np.testing.assert_allclose(present[:, 1:5].mean(0), present[:, 1:5].mean(), atol=0.02)


def summed(size):
    with numpyro.plate("person", size):
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
    numpyro.sample("total", dist.Normal(x.sum(), 1.0))


def weighed(size, scale, errors, sigma):
    mu = numpyro.sample("mu", dist.Normal(0.0, scale))
    with numpyro.plate("lab", 3):
        numpyro.sample("m", dist.Normal(mu, errors))
    with numpyro.plate("person", size):
        numpyro.sample("y", dist.Normal(mu, sigma))


ERRORS = np.array([0.1, 1.0, 5.0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "site"),
    [((3, 1.0, ERRORS, 70.0), "y"), ((3, 1.0, ERRORS[::-1], 0.7), "m"), ((3, 2.0, ERRORS, 0.7), "mu")],
)
def test_a_model_with_other_laws_is_not_the_same_model_of_another_size(arguments, site):
    simformer = untrained(weighed, model_args=(6, 1.0, ERRORS, 0.7), varying_plates=["person"])
    assert simformer.resize((3, 1.0, ERRORS, 0.7)).structure.num_tokens == 7
    with pytest.raises(ValueError, match=f"Site '{site}': expected the law that it has in training"):
        simformer.resize(arguments)


def test_what_is_no_token_is_seen_too():
    def model(size):
        with numpyro.plate("person", size):
            z = numpyro.sample("z", dist.Normal())
            numpyro.sample("y", dist.Normal())
        numpyro.sample("total", dist.Normal(z.sum(), 1.0))

    with pytest.raises(ValueError, match="'total' reads 'z' in elements"):
        Simformer(model, (4,), sites=["y", "total"], varying_plates=["person"])
    # read by the elements of the plate, a site that is left out sets none of them apart
    assert untrained(group, model_args=(4,), sites=["theta", "y"], varying_plates=["person"]).resize((2,))


def known_errors(errors):
    with numpyro.plate("person", len(errors)):
        numpyro.sample("x", dist.Normal(0.0, errors))


@pytest.mark.parametrize(
    ("model", "arguments", "plate", "told"),
    [
        (group, (3,), "school", "'school' is no plate of the model. Expected some of: person"),
        (
            known_errors,
            (np.array([1.0, 2.0, 3.0]),),
            "person",
            "'person' differ by known constants, which `cov",
        ),
        (summed, (3,), "person", r"'total' reads 'x' in elements of 'person' that are not its own.* another model"),
        (group, (1,), "person", "'person' are one alone"),
    ],
)
def test_plates_that_cannot_vary(model, arguments, plate, told):
    with pytest.raises(ValueError, match=told):
        Simformer(model, arguments, varying_plates=[plate])


def test_other_errors_say_what_is_expected():
    with pytest.raises(ValueError, match=r"Expected plates that training sees at any size"):
        untrained(group, model_args=(3,)).resize()
    with pytest.raises(ValueError, match="Not fitted yet: call fit before resize"):
        Simformer(group, (3,), varying_plates=["person"]).resize((2,))
    with pytest.raises(ValueError, match="Resized already"):
        untrained(group, model_args=(3,), varying_plates=["person"]).resize((2,)).resize((4,))
    with pytest.raises(ValueError, match="expected share_exchangeable=True"):
        Simformer(group, (3,), varying_plates=["person"], share_exchangeable=False)


def test_functions_are_simulated_where_they_were_at_every_size():
    def growth(size):
        rate = numpyro.sample("rate", dist.Normal(0.0, 1.0))
        with numpyro.plate("person", size, dim=-2), numpyro.plate("time", 5, dim=-1):
            numpyro.sample("y", dist.Normal(rate * jnp.linspace(0.0, 2.0, 5), NOISE))

    options = {"coords": {"time": np.linspace(0.0, 2.0, 5)}, "continuous_dims": ["time"], "varying_plates": ["person"]}
    fitted = untrained(growth, model_args=(3,), **options)
    resized = fitted.resize((2,), coords={"person": ["ann", "bob"]})
    np.testing.assert_array_equal(resized.coords["time"], options["coords"]["time"])
    assert resized.coords["person"] == ["ann", "bob"]
    with pytest.raises(ValueError, match="expected 'time' as in training, 5 numbers from 0 to 2, got 5 from 0 to 4"):
        fitted.resize((2,), coords={"time": np.arange(5.0)})
