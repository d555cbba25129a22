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

Shapes = dict[str, tuple[int, ...]]

Run = Callable[[slice], dict[str, np.ndarray]]
"""From some of the draws to arrays by site."""

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

    def run(part: slice) -> dict[str, np.ndarray]:
        found, undefined = jax.device_get(replay.simulations(rng_keys[part], tuple(records), _rows(values, part)))
        failed = np.any(list(undefined.values()), 0)
        return {name: _without(value, failed) for name, value in found.items()}

    return _on_all(run, len(rng_keys), lambda: _shapes(records), f"Their values of {', '.join(records)} are NaN")


def recompute(
    replay: Replay, rng_keys: PRNGKeyArray, records: Mapping[str, Deterministic], values: Mapping[str, Array]
) -> dict[str, np.ndarray]:
    """Compute deterministic sites once for every draw, as :func:`replicate`; what they do not need is not run."""

    def run(part: slice) -> dict[str, np.ndarray]:
        return jax.device_get(replay.sites(rng_keys[part], _rows(values, part), tuple(records)))

    return _on_all(run, len(rng_keys), lambda: _shapes(records), f"Their values of {', '.join(records)} are NaN")


def log_probs(replay: Replay, values: Mapping[str, Array], names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """As :meth:`Replay.log_probs`, NaN where the model raises an error, which is warned of as in :func:`replicate`."""

    def run(part: slice) -> dict[str, np.ndarray]:
        return jax.device_get(replay.log_probs(_rows(values, part), names))

    def shapes() -> Shapes:
        found = jax.eval_shape(lambda held: replay.log_probs(held, names), _rows(values, slice(1)))
        return {name: density.shape[1:] for name, density in found.items()}

    return _on_all(run, len(next(iter(values.values()))), shapes, "Their densities are NaN, and they have no weight")


def _on_all(run: Run, count: int, shapes: Callable[[], Shapes], outcome: str) -> dict[str, np.ndarray]:
    tell_failures_once()
    found, errors = _on_some(run, range(count), shapes)
    if errors:
        warnings.warn(
            f"{len(errors)} of {count} runs of the model on draws fail, the first: {errors[0]}. {outcome}.",
            SimulationWarning,
            skip_file_prefixes=(_PACKAGE,),
        )
    return found


def _on_some(run: Run, rows: range, shapes: Callable[[], Shapes]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Arrays of some draws, and the errors of some: looked for one by one where there are any."""
    try:
        return run(slice(rows.start, rows.stop)), []
    except Exception as error:  # of a simulator that is not ours
        raise_if_interrupted(error)
        if len(rows) == 1:
            return {name: np.full((1, *shape), np.nan) for name, shape in shapes().items()}, [last_line(error)]
    size = len(rows) // 2 if len(rows) > FEWEST_ROWS else 1
    done = [_on_some(run, rows[start : start + size], shapes) for start in range(0, len(rows), size)]
    joined = {name: np.concatenate([found[name] for found, _ in done]) for name in done[0][0]}
    return joined, [each for _, errors in done for each in errors]


def _rows(values: Mapping[str, Array], part: slice) -> dict[str, Array]:
    return {name: value[part] for name, value in values.items()}


def _shapes(records: Mapping[str, Site | Deterministic]) -> Shapes:
    return {name: record.shape for name, record in records.items()}


def _without(values: np.ndarray, failed: np.ndarray) -> np.ndarray:
    """NaN for whole numbers of runs whose law is undefined, which no integer can say."""
    if values.dtype.kind not in "iub" or not failed.any():
        return values
    return np.where(failed.reshape(-1, *[1] * (values.ndim - 1)), np.nan, values)
