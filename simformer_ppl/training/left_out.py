"""Simulations that failed: told of, and left out."""

import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from simformer_ppl.exceptions import SimulationWarning

LARGEST_LOSS = 0.5
"""Share of simulations that may be left out."""

_PACKAGE = str(Path(__file__).parents[1])


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
    _leave_out(
        lost, len(keep), f"are NaN, infinite or at the edge of a support: site {listed}.", "check the model's priors"
    )
    return keep


def tell_errors(errors: list[str], total: int, folder: str | Path | None) -> None:
    """Warn of simulations that failed, or raise an error if they are too many."""
    if errors:
        advice = "check the simulator" + ("" if folder is None else f", and empty {folder}")
        _leave_out(len(errors), total, f"fail, the first: {errors[0]}.", advice)


def _leave_out(lost: int, total: int, what: str, advice: str) -> None:
    message = f"{lost} of {total} simulations {what}"
    if lost > LARGEST_LOSS * total:
        raise ValueError(f"{message} Expected at most {LARGEST_LOSS:.0%}; {advice}.")
    warnings.warn(
        f"{message} They are left out: answers mean 'given a valid simulation'.",
        SimulationWarning,
        skip_file_prefixes=(_PACKAGE,),
    )
