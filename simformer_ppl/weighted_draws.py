"""Draws under restrictions: kept, resampled or led there by tempering, as the share of useful draws calls for."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from simformer_ppl.diagnostics.importance import pareto_smooth, warn_if_unreliable
from simformer_ppl.diffusion.tempering import effective, log_mean_exp, systematic, temper
from simformer_ppl.rejection import redraw
from simformer_ppl.restrictions import Restrictions

PILOT = 1_024
"""Fewest draws by which the route is chosen, and fewest particles of a population."""

RESAMPLED_SHARE = 0.05
"""Effective share of weighted draws, from which on they are resampled."""

LEAST_PROBABILITY = 1e-9
"""Of intervals: draws for less would show how the network goes on where it has seen nothing."""

_SPARE = 4.0
"""Effective draws to choose each resampled one from."""

_MOST_ROUNDS = 2 * int(_SPARE / RESAMPLED_SHARE)
"""Rounds of draws after which a pool is resampled, however little it is worth: weights with a tail may never do."""


class Report(NamedTuple):
    """How the draws of one condition were come by.

    Attributes
    ----------
    route
        ``"draw and keep"``, ``"importance resampling"`` or ``"tempering"``.
    log_mean_weight
        Logarithm of the mean weight of draws without the restrictions; of their probability, where weights are 0 and 1.
    effective_sample_size
        How many independent draws the returned ones are worth, as far as copies tell.
    pareto_k
        Shape of the tail of the weights of unrestricted draws: above .7 they alone would not do. NaN where all weights
        are 0 or 1.
    """

    route: str
    log_mean_weight: float
    effective_sample_size: float
    pareto_k: float


class Restricted(NamedTuple):
    """Equally weighted draws that fulfil restrictions.

    Attributes
    ----------
    draws
        One for every row.
    log_weight
        Of each draw among the unrestricted ones.
    reports
        How those of every condition were come by.
    """

    draws: Float[Array, "rows channels"]
    log_weight: Float[np.ndarray, " rows"]
    reports: tuple[Report, ...]


def restricted_draws(
    rng_key: PRNGKeyArray,
    rows: Float[Array, "rows channels"],
    patterns: Bool[np.ndarray, "#rows tokens"],
    conditions: int,
    restrictions: Restrictions,
    num_steps: int,
    label: str,
) -> Restricted:
    """One draw for every row, under restrictions.

    Weights that are 0 or 1 are answered by drawing until enough draws are inside, others by resampling weighted draws:
    exact and nearly exact. Where too few draws have any weight to speak of, by tempering
    (:mod:`simformer_ppl.diffusion.tempering`).

    Parameters
    ----------
    rng_key
        Source of all draws.
    rows, patterns
        Given channels and given tokens; see :meth:`simformer_ppl.joint.LearnedJoint.draw`.
    conditions
        Row i belongs to condition ``i % conditions``.
    restrictions
        What is asked of the draws.
    num_steps
        Evaluations of the network for a draw.
    label
        Names the distribution in errors.

    Raises
    ------
    ValueError
        If no draw can be led to a positive weight.
    """
    joint = restrictions.joint
    key, *keys = jax.random.split(rng_key, conditions + 1)
    reports: list[Report | None] = [None] * conditions
    draws, pending = np.array(rows), np.arange(conditions)
    if restrictions.are_certain:
        draw = lambda key, rows, patterns: joint.draw(key, rows, patterns, num_steps)  # noqa: E731
        kept = redraw(key, rows, patterns, draw, restrictions.inside, conditions)
        draws, pending = np.array(kept.draws), kept.given_up
        count = len(rows) // conditions
        reports = [Report("draw and keep", float(np.log(max(a, 1e-30))), count, np.nan) for a in kept.acceptance]
    for condition in pending:
        part = slice(int(condition), None, conditions)
        of_condition = _Condition(rows[part][:1], patterns[part][:1] if len(patterns) > 1 else patterns, num_steps)
        which = f"{label} (condition {condition} of the batch)" if conditions > 1 else label
        draws[part], reports[condition] = of_condition.draw(keys[condition], len(draws[part]), restrictions, which)
    known = tuple(report for report in reports if report)
    worst = max((report.pareto_k for report in known if report.pareto_k == report.pareto_k), default=0.0)
    warn_if_unreliable(
        label,
        worst,
        "draws under these constraints and priors lie where unrestricted ones hardly reach, and are as good as what "
        "was learned there.",
    )
    return Restricted(jnp.asarray(draws), restrictions.weigh(jnp.asarray(draws)).tempered(1.0), known)


class _Condition(NamedTuple):
    """What is given, a single row of it."""

    row: Float[Array, "1 channels"]
    pattern: Bool[np.ndarray, "1 tokens"]
    num_steps: int

    def draw(
        self, rng_key: PRNGKeyArray, count: int, restrictions: Restrictions, label: str
    ) -> tuple[Float[np.ndarray, "count channels"], Report]:
        """Draws under restrictions, and how they were come by."""
        size, joint = max(PILOT, count), restrictions.joint
        rows = jnp.broadcast_to(self.row, (size, self.row.shape[1]))
        draw = lambda key: joint.draw(key, rows, self.pattern, self.num_steps)  # noqa: E731
        transport = lambda noise: joint.transport(noise, rows, self.pattern, self.num_steps)  # noqa: E731
        pilot_key, key = jax.random.split(rng_key)
        pilot = draw(pilot_key)
        log_weight = restrictions.weigh(pilot).tempered(1.0)
        certain = restrictions.are_certain or not np.isfinite(log_weight).any()
        pareto_k = np.nan if certain else pareto_smooth(log_weight).pareto_k
        if effective(log_weight) >= RESAMPLED_SHARE * size:
            return _resample(key, draw, restrictions, count, pilot, pareto_k)
        least = float(np.log(LEAST_PROBABILITY)) if restrictions.are_certain else -np.inf
        population = temper(key, transport, restrictions.weigh, (size, rows.shape[1]), least)
        if population is None:
            raise ValueError(
                f"{label}: {np.isfinite(log_weight).sum()} of {size} draws fulfil what is asked of them, and no draws "
                f"could be led there. Expected intervals of a probability of {LEAST_PROBABILITY:g} at least, "
                "constraints and priors that what is given does not rule out, and a constraint that says how far "
                "values are from what it wants, rather than minus infinity."
            )
        chosen = np.asarray(jax.random.permutation(key, size))[:count]
        report = Report("tempering", population.log_mean_weight, population.distinct * count / size, pareto_k)
        return np.asarray(population.draws)[chosen], report


def _resample(
    rng_key: PRNGKeyArray,
    draw: Callable[[PRNGKeyArray], Float[Array, "size channels"]],
    restrictions: Restrictions,
    count: int,
    pilot: Float[Array, "size channels"],
    pareto_k: float,
) -> tuple[Float[np.ndarray, "count channels"], Report]:
    """Draw until the pool is worth several times what is asked for, and resample it."""
    pool, log_weights = [np.asarray(pilot)], restrictions.weigh(pilot).tempered(1.0)
    while effective(log_weights) < _SPARE * count and len(pool) < _MOST_ROUNDS:
        rng_key, draw_key = jax.random.split(rng_key)
        more = draw(draw_key)
        pool.append(np.asarray(more))
        log_weights = np.concatenate([log_weights, restrictions.weigh(more).tempered(1.0)])
    rng = np.random.default_rng(np.asarray(jax.random.key_data(rng_key)).ravel())
    chosen = rng.permutation(systematic(rng, log_weights, count))
    distinct = count**2 / (np.unique(chosen, return_counts=True)[1] ** 2).sum()
    report = Report("importance resampling", log_mean_exp(log_weights), float(distinct), pareto_k)
    return np.concatenate(pool)[chosen], report
