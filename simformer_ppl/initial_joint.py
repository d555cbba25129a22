"""The joint before training: a network of random weights that knows the model's structure."""

import jax
import numpy as np
from flax import nnx
from jaxtyping import Bool, Float, PRNGKeyArray

from simformer_ppl.compilation import COMPILED_QUICKLY
from simformer_ppl.diffusion.process import Process
from simformer_ppl.joint import LearnedJoint
from simformer_ppl.network import NetworkConfig, Simformer, StaticArray, TokenIndex
from simformer_ppl.structure import ModelStructure
from simformer_ppl.structure.attention_masks import token_relations
from simformer_ppl.tokens.attention import Attention, AttentionFunction
from simformer_ppl.tokens.layout import TokenLayout
from simformer_ppl.tokens.sharing import same_element
from simformer_ppl.tokens.standardisation import fit_standardisation


def initial_joint(
    rng_key: PRNGKeyArray,
    channels: Float[np.ndarray, "simulations channels"],
    layout: TokenLayout,
    attention: AttentionFunction,
    process: Process,
    config: NetworkConfig,
    relations: Bool[np.ndarray, "relations tokens tokens"] | None,
) -> LearnedJoint:
    """Draw the weights of a network, and standardise its channels.

    Parameters
    ----------
    rng_key
        Of the weights.
    channels
        Simulations whose scale the standardisation takes.
    layout
        Where sites live.
    attention
        Mask of every sequence from what is given in it.
    process
        Noise levels and preconditioning.
    config
        Size of the network.
    relations
        Of :func:`relations_of`.
    """
    index = TokenIndex(
        token_of_channel=tuple(layout.token_of_channel.tolist()),
        group_of_token=tuple(layout.group_of_token.tolist()),
        group_of_channel=tuple(layout.group_of_channel.tolist()),
        own_vector_of_token=tuple(layout.own_vector_of_token.tolist()),
        constants=StaticArray.of(layout.constants.astype(np.float32)),
    )

    def create(key: PRNGKeyArray) -> Simformer:
        return Simformer(index, config, relations=relations, rngs=nnx.Rngs(key))

    graph = nnx.graphdef(nnx.eval_shape(create, rng_key))
    parameters = jax.jit(lambda key: nnx.state(create(key)), compiler_options=COMPILED_QUICKLY)(rng_key)
    groups = layout.standardised_alike(channels)
    standardisation = fit_standardisation(channels, ~(layout.is_one_hot | layout.is_bounded), groups)
    return LearnedJoint(parameters, standardisation, graph, layout, attention, process)


def relations_of(
    structure: ModelStructure, attention: Attention, share_exchangeable: bool
) -> Bool[np.ndarray, "relations tokens tokens"] | None:
    """Pairs of tokens that get an attention bias of their own; none for a network that is not to know them."""
    known = token_relations(structure.adjacency, structure.moral())
    if share_exchangeable:
        return np.concatenate([known, same_element(structure)[None]])
    return known if isinstance(attention, str) and attention in ("moral", "contextual") else None
