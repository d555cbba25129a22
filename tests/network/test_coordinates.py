"""What the network knows of where the points of functions lie."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simformer_ppl.network import StaticArray, TokenIndex
from simformer_ppl.network.coordinates import Waves

WIDTH = 4


@pytest.fixture(scope="module")
def waves():
    """Of a site that is no function, and three points; where the first entry of a token's vector is its frequency."""
    groups = (0, 1, 1, 1)
    index = TokenIndex(
        (0, 1, 1, 1), groups, (0, 1, 2, 3), (-1,) * 4, StaticArray.of(np.zeros((4, 0))), functions=(1, 2, 3)
    )
    waves = Waves(index, WIDTH, 3)
    waves.frequencies[...] = jnp.zeros(3)
    waves.stretch[...] = jnp.zeros((WIDTH, 3)).at[0].set(jnp.arange(1.0, 4.0))
    waves.shift[...] = jnp.zeros((WIDTH, 3)).at[1].set(1.0)
    waves.out[...] = jax.random.normal(jax.random.key(0), waves.out[...].shape)
    return waves


def test_a_point_of_twice_the_frequency_hears_what_one_twice_as_far_does(waves):
    fast, slow = jnp.array([1.0, 0.0, 0.3, 0.0]), jnp.array([0.5, 0.0, 0.3, 0.0])
    heard = waves(jnp.stack([fast, fast, slow, slow])[None], jnp.array([[0.0, 0.2, 0.4, 0.2]]))[0]
    np.testing.assert_allclose(heard[1], heard[2], atol=1e-5)
    assert float(jnp.abs(heard[1] - heard[3]).max()) > 0.1


def test_a_shift_by_a_cycle_changes_nothing(waves):
    here, later, half = (jnp.array([0.7, shift, 0.0, 0.0]) for shift in (0.0, 1.0, 0.5))
    heard = waves(jnp.stack([here, here, later, half])[None], jnp.full((1, 4), 0.3))[0]
    np.testing.assert_allclose(heard[1], heard[2], atol=1e-5)
    assert float(jnp.abs(heard[1] - heard[3]).max()) > 0.1


def test_what_is_no_point_hears_nothing(waves):
    heard = waves(jnp.ones((1, 4, WIDTH)), jnp.full((1, 4), 0.3))[0]
    assert (heard[0] == 0).all() and (heard[1:] != 0).any(-1).all()
