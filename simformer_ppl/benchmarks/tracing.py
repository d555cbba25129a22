"""How long it takes to read a model, and what it takes to keep what was read."""

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from simformer_ppl.benchmarks.memory import peak_mib
from simformer_ppl.benchmarks.models import SIZED
from simformer_ppl.structure import trace_structure


def measure_tracing(kinds: Sequence[str], sizes: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Read models of several sizes, each in a process of its own.

    Parameters
    ----------
    kinds
        Names in :data:`simformer_ppl.benchmarks.models.SIZED`.
    sizes
        Numbers of tokens.

    Yields
    ------
    Tokens, edges, seconds to read the model, seconds for the moral graph, and by how many MiB the peak of the process'
    memory grew.
    """
    context = multiprocessing.get_context("spawn")
    for kind in kinds:
        for size in sizes:
            with ProcessPoolExecutor(1, mp_context=context) as process:
                yield process.submit(_read, kind, size).result()


def _read(kind: str, size: int) -> dict[str, Any]:
    trace_structure(SIZED[kind](60))  # what Python and JAX load once is not the model's
    model, before, start = SIZED[kind](size), peak_mib(), time.perf_counter()
    structure = trace_structure(model)
    traced = time.perf_counter()
    structure._graph.moral()  # as sets: the dense matrix is made on request
    finished = time.perf_counter()
    return {
        "model": kind,
        "tokens": structure.num_tokens,
        "edges": structure.num_edges,
        "seconds": round(traced - start, 3),
        "moral_seconds": round(finished - traced, 3),
        "mib": round(peak_mib() - before, 1),
    }
