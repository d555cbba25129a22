"""The training mixture of questions: which tokens are given, latent, or left out."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Int8, PRNGKeyArray

from simformer_ppl.tokens.states import ABSENT, GIVEN, LATENT

_SHOWN = 0.8
"""Share of the examples in which a site that is embedded is given; in the others it is left out."""


class Questions(NamedTuple):
    """How often training asks each kind of question; the shares sum to one, but for the last.

    Attributes
    ----------
    joint
        Nothing is given.
    posterior
        All data are given.
    likelihood
        All but data are given.
    partial_data
        Some units of the data are given.
    any_sites
        Some sites are given, each as a whole.
    any_units
        Some units are given, of any site.
    left_out
        Share of all examples in which some of the latent tokens are left out.
    """

    joint: float = 0.1
    posterior: float = 0.3
    likelihood: float = 0.1
    partial_data: float = 0.1
    any_sites: float = 0.15
    any_units: float = 0.25
    left_out: float = 0.1

    @property
    def kinds(self) -> tuple[float, ...]:
        """Shares of the kinds of question."""
        return self[:-1]


EVERY_QUESTION = Questions()
POSTERIOR_ONLY = Questions(0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def draw_states(
    rng_key: PRNGKeyArray,
    batch: int,
    is_data: Bool[np.ndarray, " tokens"],
    unit_of_token: Int[np.ndarray, " tokens"],
    site_of_token: Int[np.ndarray, " tokens"],
    questions: Questions = EVERY_QUESTION,
    always: Bool[np.ndarray, " tokens"] | None = None,
    embedded: Bool[np.ndarray, " tokens"] | None = None,
) -> Int8[Array, "batch tokens"]:
    """Draw which tokens are given (:func:`draw_conditioned`), and which of the latent ones are left out.

    In a share of the examples, sites or units of latent tokens are left out, each with a probability that is drawn
    from U(0, 1); one latent unit at least is not. Where sites are, half of the time all but one.

    Parameters
    ----------
    rng_key, batch, is_data, unit_of_token, site_of_token, questions, always
        As of :func:`draw_conditioned`.
    embedded
        Tokens of sites that are given or left out as a whole, never latent; none by default.
    """
    if embedded is not None and embedded.any():
        shown_key, rng_key = jax.random.split(rng_key)
        held = embedded if always is None else embedded | always
        states = draw_states(rng_key, batch, is_data, unit_of_token, site_of_token, questions, held)
        shown = jax.random.bernoulli(shown_key, _SHOWN, (batch, int(site_of_token.max()) + 1))[:, site_of_token]
        return jnp.where(embedded & ~shown, ABSENT, states).astype(jnp.int8)
    given_key, which_key, rate_key, kind_key, part_key, one_key = jax.random.split(rng_key, 6)
    given = draw_conditioned(given_key, batch, is_data, unit_of_token, site_of_token, questions, always)
    if not questions.left_out:
        return jnp.where(given, GIVEN, LATENT).astype(jnp.int8)
    by_site = jax.random.bernoulli(kind_key, 0.5, (batch, 1))
    sites, units = jax.random.split(part_key)
    values = jnp.where(
        by_site,
        jax.random.uniform(sites, (batch, int(site_of_token.max(initial=0)) + 1))[:, site_of_token],
        jax.random.uniform(units, (batch, int(unit_of_token.max(initial=0)) + 1))[:, unit_of_token],
    )
    most = values.max(-1, keepdims=True, where=~given, initial=0.0)
    all_but_one = by_site & jax.random.bernoulli(one_key, 0.5, (batch, 1))
    rate = jnp.where(all_but_one, 1.0, jax.random.uniform(rate_key, (batch, 1)))
    left_out = ~given & (values < rate) & (values < most)
    left_out &= jax.random.bernoulli(which_key, questions.left_out, (batch, 1))
    return jnp.select([given, left_out], [GIVEN, ABSENT], LATENT).astype(jnp.int8)


def draw_conditioned(
    rng_key: PRNGKeyArray,
    batch: int,
    is_data: Bool[np.ndarray, " tokens"],
    unit_of_token: Int[np.ndarray, " tokens"],
    site_of_token: Int[np.ndarray, " tokens"],
    questions: Questions = EVERY_QUESTION,
    always: Bool[np.ndarray, " tokens"] | None = None,
) -> Bool[Array, "batch tokens"]:
    """Draw which tokens are given, afresh for every example.

    The mixture of Gloeckler et al. 2024 (section 3.3: joint, posterior, likelihood, two Bernoulli masks), with the
    Bernoulli probability itself drawn from U(0, 1), with posteriors given part of the data, and with whole sites given
    at random: of a site of many scalars, Bernoulli masks hardly ever give all. Where only some are to be given, one at
    least is and one at least is not: of two sites, all or none would be given two times out of three.

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
    site_of_token
        The site of every token, numbered from 0.
    questions
        The mixture.
    always
        Tokens that are given in every question; none by default.

    Returns
    -------
    True for given tokens; at least one token of every example is latent.
    """
    if always is not None and always.any():
        free = ~always
        given = draw_conditioned(
            rng_key, batch, is_data[free], _renumbered(unit_of_token[free]), _renumbered(site_of_token[free]), questions
        )
        return jnp.ones((batch, len(always)), bool).at[:, free].set(given)
    kind_key, rate_key, unit_key, site_key = jax.random.split(rng_key, 4)
    kind = jax.random.choice(kind_key, len(questions.kinds), (batch, 1), p=jnp.array(questions.kinds))
    rate = jax.random.uniform(rate_key, (batch, 1))

    def some(
        key: PRNGKeyArray, part_of_token: Int[np.ndarray, " tokens"], among: Bool[np.ndarray, " tokens"]
    ) -> Bool[Array, "batch tokens"]:
        kept = np.isin(np.arange(part_of_token.max(initial=0) + 1), part_of_token[among])
        values = jax.random.uniform(key, (batch, len(kept)))
        least = values.min(-1, keepdims=True, where=kept, initial=1.0)
        most = values.max(-1, keepdims=True, where=kept, initial=0.0)
        parts = (values < rate) & (values < most) | (values == least)
        return (parts & kept)[:, part_of_token]

    everywhere = np.ones_like(is_data)
    data = jnp.asarray(is_data)[None]
    units = some(unit_key, unit_of_token, everywhere)
    given = jnp.select(
        [kind == 0, kind == 1, kind == 2, kind == 3, kind == 4],
        [
            jnp.zeros_like(units),
            data,
            ~data,
            data & some(unit_key, unit_of_token, is_data),
            some(site_key, site_of_token, everywhere),
        ],
        units,
    )
    return given & ~given.all(-1, keepdims=True)


def _renumbered(numbers: Int[np.ndarray, " tokens"]) -> Int[np.ndarray, " tokens"]:
    """The same parts, numbered from 0."""
    return np.unique(numbers, return_inverse=True)[1].ravel()
