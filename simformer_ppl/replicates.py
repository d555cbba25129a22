"""Runs of the model on draws, where a run may fail."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from simformer_ppl.exceptions import SimulationWarning
from simformer_ppl.replay import FEWEST_ROWS, Replay
from simformer_ppl.simulator_errors import last_line, raise_if_interrupted, tell_failures_once
from simformer_ppl.structure import Deterministic, Site

Run = Callable[[PRNGKeyArray, Mapping[str, Array]], dict[str, np.ndarray]]
"""From keys and held sites to the sites asked."""

_PACKAGE = str(Path(__file__).parent)


def replicate(
    replay: Replay, rng_keys: PRNGKeyArray, records: Mapping[str, Site], values: Mapping[str, Array]
) -> dict[str, np.ndarray]:
    """Simulate some sites once for every draw; NaN where that fails, or where the law of a count is NaN.

    Parameters
    ----------
    replay
        The unconditioned model.
    rng_keys
        One for each draw.
    records
        Sites that are asked for.
    values
        Held sites, each with one leading axis of draws.

    Returns
    -------
    Arrays ``(draws, *shape)`` by site; whole numbers are floats if a run failed, for only these can be NaN.

    Warns
    -----
    SimulationWarning
        If the model raises errors.
    """

    def run(keys: PRNGKeyArray, held: Mapping[str, Array]) -> dict[str, np.ndarray]:
        found, undefined = jax.device_get(replay.simulations(keys, tuple(records), held))
        failed = np.any(list(undefined.values()), 0)
        return {name: _without(value, failed) for name, value in found.items()}

    return _on_all(run, rng_keys, records, values)


def recompute(
    replay: Replay, rng_keys: PRNGKeyArray, records: Mapping[str, Deterministic], values: Mapping[str, Array]
) -> dict[str, np.ndarray]:
    """Compute deterministic sites once for every draw, as :func:`replicate`; what they do not need is not run."""

    def run(keys: PRNGKeyArray, held: Mapping[str, Array]) -> dict[str, np.ndarray]:
        return jax.device_get(replay.sites(keys, held, tuple(records)))

    return _on_all(run, rng_keys, records, values)


def _on_all(
    run: Run, rng_keys: PRNGKeyArray, records: Mapping[str, Site | Deterministic], values: Mapping[str, Array]
) -> dict[str, np.ndarray]:
    tell_failures_once()
    found, errors = _on_some(run, rng_keys, records, values)
    if errors:
        warnings.warn(
            f"{len(errors)} of {len(rng_keys)} runs of the model on draws fail, the first: {errors[0]}. Their values "
            f"of {', '.join(records)} are NaN.",
            SimulationWarning,
            skip_file_prefixes=(_PACKAGE,),
        )
    return found


def _on_some(
    run: Run, rng_keys: PRNGKeyArray, records: Mapping[str, Site | Deterministic], values: Mapping[str, Array]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Values of all draws, and the errors of some: looked for one by one where there are any."""
    count = len(rng_keys)
    try:
        return run(rng_keys, values), []
    except Exception as error:  # of a simulator that is not ours
        raise_if_interrupted(error)
        if count == 1:
            return {name: np.full((1, *record.shape), np.nan) for name, record in records.items()}, [last_line(error)]
    size = count // 2 if count > FEWEST_ROWS else 1
    parts = [slice(start, start + size) for start in range(0, count, size)]
    done = [_on_some(run, rng_keys[p], records, {name: value[p] for name, value in values.items()}) for p in parts]
    joined = {name: np.concatenate([found[name] for found, _ in done]) for name in records}
    return joined, [each for _, errors in done for each in errors]


def _without(values: np.ndarray, failed: np.ndarray) -> np.ndarray:
    """NaN for whole numbers of runs whose law is undefined, which no integer can say."""
    if values.dtype.kind not in "iub" or not failed.any():
        return values
    return np.where(failed.reshape(-1, *[1] * (values.ndim - 1)), np.nan, values)
