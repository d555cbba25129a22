"""Draw simulations from a NumPyro model, and leave out those that are not finite."""

import warnings
from collections.abc import Mapping

import jax
import numpy as np
from jaxtyping import Bool, Float, PRNGKeyArray

from simformer_ppl.replay import Replay

CHUNK = 8_192
LARGEST_LOSS = 0.5
"""Share of simulations that may be left out."""


def simulate(
    replay: Replay, rng_key: PRNGKeyArray, num_simulations: int, names: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """Run the model many times, vectorised and in chunks.

    Parameters
    ----------
    replay
        The unconditioned model.
    rng_key
        Source of all simulations.
    num_simulations
        How many.
    names
        Sites whose values are returned.

    Returns
    -------
    Arrays of shape ``(num_simulations, *site.shape)`` by site.
    """
    keys = jax.random.split(rng_key, num_simulations)
    starts = range(0, num_simulations, CHUNK)
    parts = [jax.device_get(replay.sites(keys[start : start + CHUNK], {}, names)) for start in starts]
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def keep_finite(
    channels: Float[np.ndarray, "simulations channels"], channel_slices: Mapping[str, slice]
) -> Bool[np.ndarray, " simulations"]:
    """Which simulations are finite everywhere; warn of the others.

    Parameters
    ----------
    channels
        Unconstrained values.
    channel_slices
        Channels of each site.

    Raises
    ------
    ValueError
        If more than half are not finite, naming the sites.
    """
    finite = np.isfinite(channels)
    keep = finite.all(1)
    lost = len(keep) - int(keep.sum())
    if not lost:
        return keep
    culprits = {name: int((~finite[:, part].all(1)).sum()) for name, part in channel_slices.items()}
    listed = ", ".join(f"'{name}' in {count}" for name, count in culprits.items() if count)
    message = f"{lost} of {len(keep)} simulations are NaN, infinite or at the edge of a support: site {listed}."
    if lost > LARGEST_LOSS * len(keep):
        raise ValueError(f"{message} Expected at most {LARGEST_LOSS:.0%}; check the model's priors.")
    warnings.warn(
        f"{message} They are left out: answers mean 'given a valid simulation'.", RuntimeWarning, stacklevel=3
    )
    return keep
