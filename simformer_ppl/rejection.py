"""Draw and keep: exact conditioning on intervals, and on supports that depend on other sites."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from simformer_ppl.joint import chunk_size

SMALLEST_ACCEPTANCE = 1e-3
"""Share of draws that must be kept; below it, drawing is given up."""


def redraw(
    rng_key: PRNGKeyArray,
    rows: Float[Array, "rows channels"],
    patterns: Bool[np.ndarray, "#rows tokens"],
    draw: Callable[[PRNGKeyArray, Array, np.ndarray], Array],
    inside: Callable[[Array], Array],
    conditions: int,
    label: str,
) -> Float[Array, "rows channels"]:
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
    label
        Names the distribution in the error.

    Returns
    -------
    One kept draw for every row.

    Raises
    ------
    ValueError
        If the acceptance falls under :data:`SMALLEST_ACCEPTANCE`.
    """
    result = np.array(rows)
    pending = np.arange(len(result))
    tried, accepted = np.zeros(conditions, int), np.zeros(conditions, int)
    while pending.size:
        rng_key, key = jax.random.split(rng_key)
        # whole chunks, so that few shapes are compiled; rows that are hard to place are tried many times in one call
        turns = np.resize(pending, -(-pending.size // chunk_size()) * chunk_size())
        draws = np.asarray(draw(key, rows[turns], patterns if len(patterns) == 1 else patterns[turns]))
        good = np.flatnonzero(np.asarray(inside(jnp.asarray(draws))))
        placed, first = np.unique(turns[good], return_index=True)
        result[placed] = draws[good[first]]
        pending = np.setdiff1d(pending, placed)
        tried += np.bincount(turns % conditions, minlength=conditions)
        accepted += np.bincount(turns[good] % conditions, minlength=conditions)
        hopeless = np.flatnonzero((tried > 2 / SMALLEST_ACCEPTANCE) & (accepted < SMALLEST_ACCEPTANCE * tried))
        if hopeless.size:
            first = hopeless[0]
            which = f" (condition {first} of the batch)" if conditions > 1 else ""
            raise ValueError(
                f"{label}{which}: {accepted[first]} of {tried[first]} draws lay inside the given intervals and the "
                f"supports that depend on other sites. Expected at least one in {1 / SMALLEST_ACCEPTANCE:.0f}."
            )
    return jnp.asarray(result)


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
    most = int(1 / SMALLEST_ACCEPTANCE)
    return jax.lax.while_loop(lambda state: (state[0] < most) & ~state[1].all(), turn, start)[2]
