"""The network, before it has learned anything."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from simformer_ppl.network import NetworkConfig, Simformer, StaticArray, TokenIndex

CHANNELS = np.array([0, 1, 2, 2, 2, 3])
INDEX = TokenIndex(
    tuple(CHANNELS.tolist()), (0, 1, 2, 3), (0, 1, 2, 3, 4, 5), (-1,) * 4, StaticArray.of(np.zeros((4, 0)))
)


@pytest.fixture(scope="module")
def network():
    network = Simformer(INDEX, NetworkConfig(width=16, depth=2), rngs=nnx.Rngs(0))
    # the output starts at zero; a random head makes differences visible
    head = network.vectors.head
    head[...] = jax.random.normal(jax.random.key(1), head[...].shape)
    return network


def inputs(batch=3):
    values = jax.random.normal(jax.random.key(2), (batch, 6))
    return values, jnp.zeros((batch, 4), bool), jnp.linspace(-1.0, 1.0, batch)


def test_one_output_a_channel(network):
    assert network(*inputs(), jnp.ones((1, 4, 4), bool)).prediction.shape == (3, 6)


def test_a_token_reads_only_what_the_mask_lets_it(network):
    # 0 <- 1 <- 2 (channels 2, 3, 4) and 3 alone; two layers carry 2 to 0, none carries 3 anywhere
    mask = jnp.eye(4, dtype=bool).at[0, 1].set(True).at[1, 2].set(True)[None]
    values, conditioned, label = inputs(1)
    jacobian = jax.jacobian(lambda v: network(v[None], conditioned, label, mask).prediction[0])(values[0])
    reads = np.asarray(jnp.abs(jacobian) > 0)
    tokens = np.array([[reads[np.ix_(i == CHANNELS, j == CHANNELS)].any() for j in range(4)] for i in range(4)])
    assert tokens.tolist() == [[1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


def test_sequences_of_a_batch_do_not_mix(network):
    values, conditioned, label = inputs()
    mask = jnp.ones((1, 4, 4), bool)
    together = network(values, conditioned, label, mask).prediction
    alone = jnp.concatenate(
        [network(values[i : i + 1], conditioned[i : i + 1], label[i : i + 1], mask).prediction for i in range(3)]
    )
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_given_and_latent_differ(network):
    values, conditioned, label = inputs()
    mask = jnp.ones((1, 4, 4), bool)
    latent, given = (network(values, state, label, mask).prediction for state in (conditioned, ~conditioned))
    assert not jnp.allclose(latent, given)


def test_shared_condition_broadcasts(network):
    values, conditioned, label = inputs()
    mask = jnp.ones((1, 4, 4), bool)
    one, each = (network(values, state, label, mask).prediction for state in (conditioned[:1], conditioned))
    np.testing.assert_allclose(one, each, atol=1e-6)


def test_tokens_of_a_group_differ_by_their_constants_only():
    constants = StaticArray.of(np.array([[0.0], [0.5], [0.5], [-2.0]], np.float32))
    index = TokenIndex((0, 1, 2, 3), (0, 1, 1, 1), (0, 1, 1, 1), (-1, 0, 1, 2), constants)
    vectors = Simformer(index, NetworkConfig(width=16, depth=1), rngs=nnx.Rngs(0)).vectors
    vectors.constant_out[...] = jax.random.normal(jax.random.key(1), vectors.constant_out[...].shape)
    for part in vectors():
        assert jnp.array_equal(part[1], part[2]) and not jnp.allclose(part[1], part[3])
