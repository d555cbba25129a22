"""The network, before it has learned anything."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from simformer_ppl.network import NetworkConfig, Simformer, TokenIndex

CHANNELS = np.array([0, 1, 2, 2, 2, 3])
INDEX = TokenIndex(tuple(CHANNELS.tolist()), (0, 1, 2, 3), (0, 1, 2, 3, 4, 5))


@pytest.fixture(scope="module")
def network():
    network = Simformer(INDEX, NetworkConfig(width=16, depth=2), rngs=nnx.Rngs(0))
    # the output starts at zero; a random head makes differences visible
    network.head[...] = jax.random.normal(jax.random.key(1), network.head[...].shape)
    return network


def inputs(batch=3):
    values = jax.random.normal(jax.random.key(2), (batch, 6))
    return values, jnp.zeros((batch, 4), bool), jnp.linspace(-1.0, 1.0, batch)


def test_one_output_a_channel(network):
    assert network(*inputs(), jnp.ones((1, 4, 4), bool)).shape == (3, 6)


def test_a_token_reads_only_what_the_mask_lets_it(network):
    # 0 <- 1 <- 2 (channels 2, 3, 4) and 3 alone; two layers carry 2 to 0, none carries 3 anywhere
    mask = jnp.eye(4, dtype=bool).at[0, 1].set(True).at[1, 2].set(True)[None]
    values, conditioned, label = inputs(1)
    jacobian = jax.jacobian(lambda v: network(v[None], conditioned, label, mask)[0])(values[0])
    reads = np.asarray(jnp.abs(jacobian) > 0)
    tokens = np.array([[reads[np.ix_(i == CHANNELS, j == CHANNELS)].any() for j in range(4)] for i in range(4)])
    assert tokens.tolist() == [[1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


def test_sequences_of_a_batch_do_not_mix(network):
    values, conditioned, label = inputs()
    mask = jnp.ones((1, 4, 4), bool)
    together = network(values, conditioned, label, mask)
    alone = jnp.concatenate(
        [network(values[i : i + 1], conditioned[i : i + 1], label[i : i + 1], mask) for i in range(3)]
    )
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_given_and_latent_differ(network):
    values, conditioned, label = inputs()
    mask = jnp.ones((1, 4, 4), bool)
    assert not jnp.allclose(network(values, conditioned, label, mask), network(values, ~conditioned, label, mask))


def test_shared_condition_broadcasts(network):
    values, conditioned, label = inputs()
    mask = jnp.ones((1, 4, 4), bool)
    np.testing.assert_allclose(
        network(values, conditioned[:1], label, mask), network(values, conditioned, label, mask), atol=1e-6
    )
