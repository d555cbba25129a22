"""What is given, among the simulations that the network has learned from."""

import warnings
from copy import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simformer_ppl import between
from simformer_ppl.diagnostics.novelty import Simulated
from tests.conftest import chain_model, untrained, zoo_model

Y = np.array([1.0, 2.0, 0.5])


@pytest.fixture(scope="module")
def fresh_chain():
    return untrained(chain_model)


def test_p_values_of_fresh_simulations_are_uniform():
    zoo = untrained(zoo_model)
    simulated = zoo.simulate(jax.random.key(7), 400)
    with warnings.catch_warnings(action="error"):
        asked = zoo.condition({name: simulated[name].values for name in ("rate", "count", "kind", "x")})
    check = asked.check_given()
    assert set(check.p_values) == {"rate", "count", "kind", "x", "jointly"}
    for name, values in check.p_values.items():
        assert values.shape == (400,)
        share, chance = (values <= 0.2).mean(), 4 * np.sqrt(0.16 * (1 / 400 + 1 / 1_000))
        assert share < 0.2 + chance, name
        if name in ("rate", "x", "jointly"):  # the others are discrete, and tied
            assert share > 0.2 - chance, name


def test_values_far_outside_are_warned_of_and_named(fresh_chain):
    with pytest.warns(
        RuntimeWarning, match=r"p\(a, b \| y\): given values \('y'\) lie far outside the simulations \(remot"
    ):
        asked = fresh_chain.condition(y=[1.0, 2.0, 60.0])
    assert asked.check_given().far == ("y",) and "far outside" in repr(asked.check_given())
    with warnings.catch_warnings(action="error"):
        asked.condition(a=between(0.0, 3.0))  # said once


def test_values_that_are_usual_alone_may_be_far_together(fresh_chain):
    # b - a is N(0, 1) in the model
    with pytest.warns(RuntimeWarning, match=r"\(all together\)"):
        asked = fresh_chain.condition(a=5.0, b=-4.0 * np.ones(3))
    assert asked.check_given().far == ("jointly",)


def test_every_condition_of_a_batch_is_compared_in_what_it_gives(fresh_chain):
    y = np.stack([Y, [np.nan, 2.0, np.nan], [np.nan, np.nan, 60.0], [np.nan] * 3])
    with pytest.warns(RuntimeWarning, match=r"\('y'\) lie far outside the simulations in 1 of 4 conditions"):
        check = fresh_chain.condition(y=y).check_given()
    assert (check.remoteness["y"] > 2).tolist() == [False, False, True, False]
    assert check.p_values["y"][3] == 1.0  # nothing is given


def test_known_values_are_looked_at_under_jit_and_traced_ones_are_not(fresh_chain):
    with pytest.warns(RuntimeWarning, match="lie far outside"):
        jax.make_jaxpr(lambda key: fresh_chain.condition(y=60.0).draw(key))(jax.random.key(0))
    with warnings.catch_warnings(action="error"):
        jax.make_jaxpr(lambda y: fresh_chain.condition(y=y).draw(jax.random.key(0)))(60.0 * Y)
    with pytest.raises(ValueError, match="Site 'y': expected values that are known"):
        jax.make_jaxpr(lambda y: fresh_chain.condition(y=y).check_given() and y)(Y)


def test_a_loaded_network_is_asked(hasty):
    with warnings.catch_warnings(action="error"):
        asked = hasty.condition(y=60.0)  # no simulations are at hand
    assert asked.check_given().far == ("y",)


def test_few_simulations_tell_nothing(fresh_chain):
    few = copy(fresh_chain)
    few._simulated = Simulated(np.zeros((10, 7)))
    with warnings.catch_warnings(action="error"):
        asked = few.condition(y=60.0)
    with pytest.raises(ValueError, match="at least 50 finite simulations to compare with, got 10"):
        asked.check_given()


def test_rows_of_any_number_are_those_of_the_model(fresh_chain):
    # runs of the model go through programs of few sizes: 129 rows take two calls of 128
    for count in (1, 31, 129):
        b = jnp.arange(3.0 * count).reshape(count, 3)
        held = {"a": jnp.arange(1.0 * count), "b": b, "y": b + 0.5}
        densities = fresh_chain._replay.log_probs(held, ("y",))["y"]
        np.testing.assert_allclose(densities, np.full((count, 3), -0.5 - 0.5 * np.log(2 * np.pi * 0.25)), rtol=1e-4)
