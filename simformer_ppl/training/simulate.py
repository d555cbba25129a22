"""Draw simulations from a NumPyro model, side by side where asked."""

import pickle
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor, as_completed
from functools import lru_cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, PRNGKeyArray
from tqdm import tqdm

from simformer_ppl.replay import FEWEST_ROWS, OTHERS, Replay
from simformer_ppl.simulator_errors import last_line, raise_if_interrupted, tell_failures_once
from simformer_ppl.training.checkpoint import fingerprint
from simformer_ppl.training.left_out import LARGEST_LOSS, tell_errors
from simformer_ppl.training.simulation_store import Simulations, SimulationStore

CHUNK = 8_192
TASK = FEWEST_ROWS
"""Simulations of one task of an executor, and of one file."""

_BEFORE_THE_BAR = 2.0
"""Seconds after which progress is shown."""


def simulate(
    replay: Replay,
    rng_key: PRNGKeyArray,
    num_simulations: int,
    names: tuple[str, ...],
    *,
    executor: Executor | None = None,
    folder: str | Path | None = None,
    progress_bar: bool = False,
) -> dict[str, np.ndarray]:
    """Run the model many times, vectorised and in chunks.

    The simulations are the same however they are run: each has a key of its own.

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
    executor
        Runs chunks elsewhere; one after another here, by default.
    folder
        Where to keep finished chunks, and to go on from.
    progress_bar
        Show how many are done, if it takes longer than a moment.

    Returns
    -------
    Arrays of shape ``(number, *site.shape)`` by site, in the order of the keys. The number is smaller where
    simulations raise errors, which is warned of.

    Raises
    ------
    ValueError
        If more than half of the simulations raise errors, or `folder` holds other simulations.
    RuntimeError
        If the executor cannot run the model.
    """
    keys = jax.random.split(rng_key, num_simulations)
    implementation, numbers = str(jax.random.key_impl(keys)), np.asarray(jax.random.key_data(keys))
    size = CHUNK if executor is None and folder is None else TASK
    starts = range(0, num_simulations, size)
    store = None if folder is None else SimulationStore(Path(folder), fingerprint(numbers, names, replay.identity()))
    done = {start: stored for start in starts if store and (stored := store.read(start))}
    parts = {start: numbers[start : start + size] for start in starts}
    left = {start: (part, implementation, names) for start, part in parts.items() if start not in done}
    bar = tqdm(
        total=num_simulations, initial=size * len(done), desc="simulate", unit="simulation", delay=_BEFORE_THE_BAR,
        disable=not progress_bar,
    )  # fmt: skip
    with bar:
        for start, part in _run_all(replay, left, executor):
            done[start] = part
            bar.update(len(parts[start]))
            if store:
                store.write(start, part)
            if sum(len(part.errors) for part in done.values()) > LARGEST_LOSS * num_simulations:
                break
    whole = _join([done[start] for start in starts if start in done])
    tell_errors(whole.errors, num_simulations, folder)
    return whole.values


def run_chunk(replay: Replay | bytes, numbers: np.ndarray, implementation: str, names: tuple[str, ...]) -> Simulations:
    """Simulate for some keys; where this raises an error, look for the simulations that do.

    Parameters
    ----------
    replay
        The unconditioned model, or its pickle, which a process loads and compiles once.
    numbers, implementation
        Of the keys, as other processes can read them.
    names
        Sites whose values are returned.
    """
    if isinstance(replay, bytes):
        replay = _loaded(replay)
    keys = jax.random.wrap_key_data(jnp.asarray(numbers), impl=implementation)
    tell_failures_once()
    try:
        return _defined(len(keys), *jax.device_get(replay.simulations(keys, names)))
    except Exception as error:  # of a simulator that is not ours
        raise_if_interrupted(error)
        if len(keys) > FEWEST_ROWS:
            middle = len(keys) // 2
            halves = [run_chunk(replay, part, implementation, names) for part in (numbers[:middle], numbers[middle:])]
            return _join(halves)
    return _join([_run_one(replay, key, names) for key in keys])


def _run_all(
    replay: Replay, tasks: Mapping[int, tuple], executor: Executor | None
) -> Iterator[tuple[int, Simulations]]:
    """Chunks by their first simulation, as they come to an end."""
    if executor is None:
        yield from ((start, run_chunk(replay, *task)) for start, task in tasks.items())
        return
    model = replay if isinstance(executor, ThreadPoolExecutor) else _pickled(replay)
    futures: dict[Future, int] = {}
    try:
        futures |= {executor.submit(run_chunk, model, *task): start for start, task in tasks.items()}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except Exception as error:
        raise RuntimeError(
            f"executor: {type(executor).__name__} could not run the model: {error!r}. Expected one that can send it to "
            "its workers, and workers that live: processes need a model, and functions that draw covariates, from the "
            "top level of a module, and must not be forked."
        ) from error
    finally:
        for future in futures:
            future.cancel()


def _run_one(replay: Replay, rng_key: PRNGKeyArray, names: tuple[str, ...]) -> Simulations:
    try:
        one = jax.device_get(replay.simulation(rng_key, names))
    except Exception as error:
        raise_if_interrupted(error)
        return Simulations({}, [last_line(error)])
    return _defined(1, *jax.tree.map(lambda value: np.asarray(value)[None], one))


def _defined(
    count: int, values: dict[str, np.ndarray], undefined: Mapping[str, Bool[np.ndarray, " rows"]]
) -> Simulations:
    """Without the simulations in which a discrete site has a law of NaN, as one has after a simulator that failed."""
    errors: list[str] = []
    lost = np.zeros(count, bool)
    for name, rows in undefined.items():
        where = "a site that is left out" if name == OTHERS else f"site '{name}'"
        errors += [f"the law of {where} has a parameter that is NaN"] * int((rows & ~lost).sum())
        lost |= rows
    return Simulations({name: array[~lost] for name, array in values.items()}, errors)


def _join(parts: list[Simulations]) -> Simulations:
    whole = [part.values for part in parts if part.values]
    names = whole[0] if whole else ()
    values = {name: np.concatenate([each[name] for each in whole]) for name in names}
    return Simulations(values, [error for part in parts for error in part.errors])


def _pickled(replay: Replay) -> Replay | bytes:
    """A pickle, or the model itself where only the executor may know how to send it."""
    try:
        return pickle.dumps(replay)
    except Exception:
        return replay


@lru_cache(maxsize=1)
def _loaded(pickled: bytes) -> Replay:
    return pickle.loads(pickled)
