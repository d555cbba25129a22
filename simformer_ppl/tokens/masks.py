"""The training mixture of condition masks."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PRNGKeyArray

JOINT, POSTERIOR, LIKELIHOOD, PARTIAL_DATA, ANY = 0.1, 0.3, 0.1, 0.2, 0.3
"""How often training asks each kind of question; see :func:`draw_conditioned`."""


def draw_conditioned(
    rng_key: PRNGKeyArray, batch: int, is_data: Bool[np.ndarray, " tokens"], unit_of_token: Int[np.ndarray, " tokens"]
) -> Bool[Array, "batch tokens"]:
    """Draw which tokens are given, afresh for every example.

    The mixture of Gloeckler et al. 2024 (section 3.3: joint, posterior, likelihood, two Bernoulli masks), with the
    Bernoulli probability itself drawn from U(0, 1), and with posteriors given part of the data.

    Parameters
    ----------
    rng_key
        Source of the masks.
    batch
        Number of examples.
    is_data
        Tokens of data sites.
    unit_of_token
        Tokens of one unit are given together.

    Returns
    -------
    True for given tokens; at least one token of every example is latent.
    """
    kind_key, rate_key, unit_key = jax.random.split(rng_key, 3)
    kind = jax.random.choice(kind_key, 5, (batch, 1), p=jnp.array([JOINT, POSTERIOR, LIKELIHOOD, PARTIAL_DATA, ANY]))
    rate = jax.random.uniform(rate_key, (batch, 1))
    units = jax.random.uniform(unit_key, (batch, int(unit_of_token.max(initial=0)) + 1)) < rate
    some = units[:, unit_of_token]
    data = jnp.asarray(is_data)[None]
    given = jnp.select(
        [kind == 0, kind == 1, kind == 2, kind == 3], [jnp.zeros_like(some), data, ~data, data & some], some
    )
    return given & ~given.all(-1, keepdims=True)
