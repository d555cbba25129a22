"""Draws of a conditioned distribution, corrected by the density of the model itself."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from simformer_ppl.diagnostics.importance import pareto_smooth, warn_if_unreliable
from simformer_ppl.diffusion.tempering import systematic
from simformer_ppl.query import Query

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
        Log densities of every site, element by element; NaN where a scalar of data is missing.
    pareto_k, effective_sample_size
        Of the weights of every condition of the batch, in C order.
    """

    values: dict[str, Array]
    log_weight: Float[np.ndarray, "draws *batch"]
    log_probs: dict[str, np.ndarray]
    pareto_k: list[float]
    effective_sample_size: list[float]


def corrected_draws(asked: Query, rng_key: PRNGKeyArray, num_samples: int, num_steps: int | None) -> Corrected:
    """Weight draws by the model's density over the network's, and resample them.

    Pareto-smoothed importance resampling (Vehtari et al. 2024, arXiv 1507.02646). The density of a draw is that of the
    probability-flow ODE, with the exact trace up to 32 latent scalars; above, its estimate adds noise to the weights.
    The sampler solves the same ODE in fewer steps, which the weights do not know of.

    Parameters
    ----------
    asked
        The distribution.
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
    _check(asked)
    draw_key, choose_key = jax.random.split(rng_key)
    pool = PROPOSALS_PER_DRAW * num_samples
    values = asked.draw_all(draw_key, (pool,), num_steps)
    leading, sites = (pool, *asked.batch_shape), asked.structure.sites
    rows = {name: value.reshape(-1, *sites[name].shape) for name, value in values.items()}
    densities = asked.replay.log_probs(rows, tuple(sites))
    summed = [np.asarray(d, np.float64).reshape(math.prod(leading), -1).sum(1) for d in densities.values()]
    log_joint = np.sum(summed, 0)
    log_weight = (log_joint.reshape(leading) - np.asarray(asked.log_prob(values))).reshape(pool, -1)
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

    known = {name: _of_given(asked, name, density, leading) for name, density in densities.items()}
    return Corrected(
        {name: jnp.asarray(choose(value, sites[name].shape)) for name, value in values.items()},
        choose(np.stack([each.log_weight for each in smoothed], 1)),
        {name: choose(density, density.shape[len(leading) :]) for name, density in known.items()},
        [each.pareto_k for each in smoothed],
        [each.effective_sample_size for each in smoothed],
    )


def _check(asked: Query) -> None:
    structure = asked.structure
    deterministic = [name for name, site in structure.sites.items() if site.is_deterministic]
    unknown = {
        "a nuisance site is left out": structure.nuisances,
        "a deterministic site is a token": deterministic,
        "the model draws noise that is no site": ["numpyro.prng_key"] if structure.has_hidden_noise else [],
        "a site with an embedding is not given": [
            name for name, site in structure.sites.items() if site.is_embedded and name not in asked.given.values
        ],
    }
    for why, names in unknown.items():
        if names:
            raise ValueError(
                f"{asked!r}: the model's density is not known, since {why} ({', '.join(names)}). "
                "Expected every random choice to be a sample site and a token."
            )


def _of_given(asked: Query, name: str, density: Array, leading: tuple[int, ...]) -> Float[Array, "..."]:
    """Density of a site, without the elements of data that have a missing scalar."""
    site, shape = asked.structure.sites[name], density.shape[1:]
    density = density.reshape(leading + shape)
    given = asked.given.values.get(name)
    if given is None or not site.is_data:
        return density
    missing = np.isnan(given)
    missing = missing.any(tuple(range(missing.ndim - len(site.shape) + len(shape), missing.ndim)))
    return jnp.where(missing, jnp.nan, density)
