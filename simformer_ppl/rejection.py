"""Draw and keep: exact conditioning on intervals, and on supports that depend on other sites."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from simformer_ppl.joint import chunk_size

SMALLEST_ACCEPTANCE = 0.01
"""Share of draws that must be kept; below it, drawing is given up."""

_MOST_TURNS = 1_000
"""Rounds of draws under ``jax.jit``, where none can be given up early."""


class Kept(NamedTuple):
    """Draws that were kept.

    Attributes
    ----------
    draws
        One for every row; of conditions that were given up, some lie outside.
    given_up
        Conditions of too small an acceptance.
    acceptance
        Share of the draws of every condition that lay inside.
    """

    draws: Float[Array, "rows channels"]
    given_up: Int[np.ndarray, " some"]
    acceptance: Float[np.ndarray, " conditions"]


def redraw(
    rng_key: PRNGKeyArray,
    rows: Float[Array, "rows channels"],
    patterns: Bool[np.ndarray, "#rows tokens"],
    draw: Callable[[PRNGKeyArray, Array, np.ndarray], Array],
    inside: Callable[[Array], Bool[np.ndarray, " rows"]],
    conditions: int,
) -> Kept:
    """Draw the rows that are still outside again, until none is.

    Parameters
    ----------
    rng_key
        Source of all draws.
    rows, patterns
        Given channels and given tokens; see :meth:`simformer_ppl.joint.LearnedJoint.draw`.
    draw
        One draw for each row: ``(rng_key, rows, patterns) -> rows``.
    inside
        Which draws are kept.
    conditions
        Row i belongs to condition ``i % conditions``.
    """
    result, chunk = np.array(rows), chunk_size(patterns.shape[-1])
    pending, given_up = np.arange(len(result)), np.zeros(conditions, bool)
    tried, accepted = np.zeros(conditions, int), np.zeros(conditions, int)
    while pending.size:
        rng_key, key = jax.random.split(rng_key)
        # whole chunks, so that few shapes are compiled; rows that are hard to place are tried many times in one call
        turns = np.resize(pending, -(-pending.size // chunk) * chunk)
        draws = np.asarray(draw(key, rows[turns], patterns if len(patterns) == 1 else patterns[turns]))
        good = np.flatnonzero(inside(jnp.asarray(draws)))
        placed, first = np.unique(turns[good], return_index=True)
        result[placed] = draws[good[first]]
        pending = np.setdiff1d(pending, placed)
        tried += np.bincount(turns % conditions, minlength=conditions)
        accepted += np.bincount(turns[good] % conditions, minlength=conditions)
        given_up |= (tried > 2 / SMALLEST_ACCEPTANCE) & (accepted < SMALLEST_ACCEPTANCE * tried)
        pending = pending[~given_up[pending % conditions]]
    return Kept(jnp.asarray(result), np.flatnonzero(given_up), accepted / np.maximum(tried, 1))


def redraw_traced(
    rng_key: PRNGKeyArray,
    rows: Float[Array, "rows channels"],
    draw: Callable[[PRNGKeyArray], Array],
    inside: Callable[[Array], Array],
) -> Float[Array, "rows channels"]:
    """Like :func:`redraw` with fixed shapes: each round draws all rows; those that were never inside come back NaN."""

    def turn(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        count, done, result = state
        draws = draw(jax.random.fold_in(rng_key, count))
        fits = inside(draws) & ~done
        return count + 1, done | fits, jnp.where(fits[:, None], draws, result)

    start = (jnp.zeros((), jnp.int32), jnp.zeros(rows.shape[0], bool), jnp.full(rows.shape, jnp.nan))
    return jax.lax.while_loop(lambda state: (state[0] < _MOST_TURNS) & ~state[1].all(), turn, start)[2]


def resample_traced(
    rng_key: PRNGKeyArray,
    rows: Float[Array, "rows channels"],
    draw: Callable[[PRNGKeyArray], Array],
    log_weight: Callable[[Array], Array],
    proposals: int,
) -> Float[Array, "rows channels"]:
    """One of some proposals for each row, by their weights; NaN where none has any."""
    draw_key, choice_key = jax.random.split(rng_key)
    draws = jax.lax.map(draw, jax.random.split(draw_key, proposals))
    log_weights = jax.lax.map(log_weight, draws)
    chosen = jax.random.categorical(choice_key, log_weights, axis=0)
    picked = draws[chosen, jnp.arange(rows.shape[0])]
    return jnp.where((log_weights > -jnp.inf).any(0)[:, None], picked, jnp.nan)
