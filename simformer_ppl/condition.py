"""What a network is told of every sequence of a batch, from values and the states of their tokens."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int8

from simformer_ppl.diffusion.process import Condition
from simformer_ppl.network import Simformer
from simformer_ppl.tokens.attention import AttentionFunction
from simformer_ppl.tokens.bounds import Bounds
from simformer_ppl.tokens.layout import TokenLayout
from simformer_ppl.tokens.standardisation import Standardisation
from simformer_ppl.tokens.states import ABSENT, GIVEN, seen_mask


def make_condition(
    network: Simformer,
    layout: TokenLayout,
    attention: AttentionFunction,
    standardisation: Standardisation,
    channels: Float[Array, "batch channels"],
    states: Int8[Array, "#batch tokens"],
    coordinates: Float[Array, "#batch tokens"] | None = None,
) -> Condition:
    """Standardise, and find out who attends to whom.

    Parameters
    ----------
    network
        Reads sites that have an embedding.
    layout
        Where sites live.
    attention
        Mask of every sequence.
    standardisation
        Of the channels.
    channels
        Not standardised; whatever, where they are latent.
    states
        Of the tokens.
    coordinates
        Of the points of functions.
    """
    given, left_out = states == GIVEN, states == ABSENT
    known = given[:, layout.token_of_channel]
    mask = seen_mask(attention(given, jnp.where(known, channels, 0.0)), ~left_out)
    bounds = Bounds.of(layout.is_bounded, standardisation)
    values = standardisation.forward(channels)
    said, left_out = network.read(layout.embedded(values)), left_out[:, layout.token_of_channel]
    if said:
        values = jnp.where(layout.is_embedded, 0.0, values)
        values, known, left_out = (layout.for_network(part) for part in (values, known, left_out))
        bounds = None if bounds is None else Bounds(*(layout.for_network(edges) for edges in bounds))
    return Condition(values, given, known, mask, bounds, left_out, coordinates, said)
