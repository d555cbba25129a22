"""Whether a model with plates of other sizes is the same model but for these."""

from collections.abc import Collection

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from simformer_ppl.replay import Replay
from simformer_ppl.structure import ModelStructure

_COMPARED = 32
"""Simulations at which laws are compared, those where the densities are finite."""


def refuse_other_laws(
    old: ModelStructure, old_replay: Replay, new: ModelStructure, new_replay: Replay, varying: Collection[str]
) -> None:
    """Compare the laws of two models at simulations that are the same in all elements of some plates.

    Parameters
    ----------
    old, old_replay
        The one model.
    new, new_replay
        The other one, with the same sites.
    varying
        The plates, which may differ in size.

    Raises
    ------
    ValueError
        If the law of a site differs, naming it. Laws that read noise or sites that are no tokens are not compared, nor
        those of models that have sites without a density.
    """
    keys = jax.random.split(jax.random.key(0), _COMPARED)
    names = tuple(name for name, site in old.sites.items() if not site.is_deterministic)
    simulated = old_replay.sites(keys, {}, names)
    held = [
        {name: _all_alike(structure, name, value, varying) for name, value in simulated.items()}
        for structure in (old, new)
    ]
    replays = (old_replay, new_replay)
    try:
        densities = [replay.log_probs(values, names) for replay, values in zip(replays, held, strict=True)]
    except NotImplementedError:
        return
    repeated = old_replay.log_probs(held[0], names, rng_key=jax.random.key(1))
    for name in names:
        before, after, again = (_first(old, name, np.asarray(d[name]), varying) for d in (*densities, repeated))
        finite = np.isfinite(before)
        far = finite & ~np.isclose(before, after, rtol=1e-3, atol=1e-3)
        # what the law reads beside tokens is simulated afresh
        if np.allclose(before[finite], again[finite]) and far.any():
            raise ValueError(
                f"Site '{name}': expected the law that it has in training, but for the sizes of {', '.join(varying)}; "
                f"its log density at a simulation is {after[far][0]:.4g}, and was {before[far][0]:.4g}."
            )


def _all_alike(structure: ModelStructure, name: str, value: Array, varying: Collection[str]) -> Array:
    """A site, in every element of the plates as in the first."""
    site = structure.sites[name]
    for plate in set(varying) & set(site.plates):
        axis = 1 + site.dims.index(plate)
        value = jnp.repeat(jnp.take(value, np.array([0]), axis), site.shape[axis - 1], axis)
    return value


def _first(structure: ModelStructure, name: str, value: np.ndarray, varying: Collection[str]) -> np.ndarray:
    """Log densities of a site in the first element of the plates."""
    site = structure.sites[name]
    for plate in set(varying) & set(site.plates):
        axis = 1 + site.dims.index(plate)
        if axis < value.ndim:
            value = np.take(value, [0], axis)
    return value
