"""What a question does with a token: draw it, take it as given, or leave it out."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int8

LATENT, GIVEN, ABSENT = 0, 1, 2
"""A token that is left out is marginalised: it is neither known nor drawn. ``given.astype(int)`` leaves out none."""

type States = Int8[np.ndarray, "*batch tokens"]


def seen_mask(mask: Bool[Array, "#batch tokens tokens"], present: Bool[Array, "batch tokens"]) -> Bool[Array, "b n n"]:
    """Attention without the tokens that are left out, which attend to themselves alone.

    What a mask joins by way of tokens that are latent, it joins by way of such that are left out.
    """
    eye = jnp.eye(mask.shape[-1], dtype=bool)
    return mask & present[:, :, None] & present[:, None, :] | eye
