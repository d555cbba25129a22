"""Draws of a conditioned distribution, corrected by the density of the model itself."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from simformer_ppl.diagnostics.importance import pareto_smooth, warn_if_unreliable
from simformer_ppl.diffusion.tempering import systematic
from simformer_ppl.model_density import ModelDensity

PROPOSALS_PER_DRAW = 2
"""Weighted draws that each returned one is chosen from."""


class Corrected(NamedTuple):
    """Equally weighted draws.

    Attributes
    ----------
    values
        Of every site, given scalars as given.
    log_weight
        Smoothed log weight of each draw; the weights of all proposals sum to one.
    log_probs
        Log densities of every site, element by element (of functions, at the points that are given); NaN where a
        scalar of data is missing.
    pareto_k, effective_sample_size
        Of the weights of every condition of the batch, in C order.
    """

    values: dict[str, Array]
    log_weight: Float[np.ndarray, "draws *batch"]
    log_probs: dict[str, np.ndarray]
    pareto_k: list[float]
    effective_sample_size: list[float]


def corrected_draws(density: ModelDensity, rng_key: PRNGKeyArray, num_samples: int, num_steps: int | None) -> Corrected:
    """Weight draws by the model's density over the network's, and resample them.

    Pareto-smoothed importance resampling (Vehtari et al. 2024, arXiv 1507.02646). The density of a draw is that of the
    probability-flow ODE, with the exact trace up to 32 latent scalars; above, its estimate adds noise to the weights.
    The sampler solves the same ODE in fewer steps, which the weights do not know of.

    Parameters
    ----------
    density
        The question, and what the model says of it.
    rng_key
        Source of all draws.
    num_samples
        Draws to return.
    num_steps
        Evaluations of the network for a draw.

    Raises
    ------
    ValueError
        If the model's density is not known, or that of the conditioned distribution is not.
    """
    density.refuse_if_unknown()
    asked = density.asked
    draw_key, choose_key, rest_key = jax.random.split(rng_key, 3)
    pool = PROPOSALS_PER_DRAW * num_samples
    leading = (pool, *asked.batch_shape)
    values, log_proposal = _propose(density, draw_key, pool, num_steps)
    densities = density.log_probs(values, leading)
    summed = [np.asarray(d, np.float64).reshape(math.prod(leading), -1).sum(1) for d in densities.values()]
    log_joint = np.sum(summed, 0)
    log_weight = (log_joint.reshape(leading) - log_proposal).reshape(pool, -1)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(choose_key)).ravel())
    if not np.isfinite(log_weight).any(0).all():
        raise ValueError(f"{asked!r}: no draw has a finite density under the model, so none can be weighted.")
    smoothed = [pareto_smooth(column) for column in log_weight.T]
    chosen = np.stack([rng.permutation(systematic(rng, each.log_weight, num_samples)) for each in smoothed], 1)
    worst = max(each.pareto_k for each in smoothed)
    warn_if_unreliable(
        repr(asked), worst, "the network's draws miss a part of the distribution, which no weights can bring back."
    )

    def choose(value: Any, shape: tuple[int, ...] = ()) -> np.ndarray:
        columns = np.asarray(value).reshape(pool, -1, *shape)
        picked = columns[chosen, np.arange(columns.shape[1])]
        return picked.reshape(num_samples, *asked.batch_shape, *shape)

    known = {name: density.of_given(name, each, leading) for name, each in densities.items()}
    drawn = {name: jnp.asarray(choose(value, asked.sites[name].shape)) for name, value in values.items()}
    return Corrected(
        density.completed(rest_key, drawn, (num_samples, *asked.batch_shape)),
        choose(np.stack([each.log_weight for each in smoothed], 1)),
        {name: choose(each, each.shape[len(leading) :]) for name, each in known.items()},
        [each.pareto_k for each in smoothed],
        [each.effective_sample_size for each in smoothed],
    )


def _propose(
    density: ModelDensity, rng_key: PRNGKeyArray, count: int, num_steps: int | None
) -> tuple[dict[str, Array], Float[np.ndarray, "count *batch"]]:
    """Draws, and their log density by the network; what is given, if that is all that the model needs."""
    asked, leading = density.asked, (count, *density.asked.batch_shape)
    if density.proposal is None:
        shapes = {name: asked.structure.sites[name].shape for name in asked.given.values}
        whole = {name: asked.given.values[name] for name in shapes if name not in asked.given.coordinates}
        return {name: jnp.broadcast_to(own, leading + shapes[name]) for name, own in whole.items()}, np.zeros(leading)
    values = density.proposal.draw_all(rng_key, (count,), num_steps)
    return values, np.asarray(density.proposal.log_prob(values))
