"""Plates whose elements a model cannot tell apart.

A swap of the first two indices and a cyclic shift generate every permutation of a plate. A plate is exchangeable if
both, applied at once to all sites inside it, leave the graph and the densities as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import jax
import numpy as np
from jax.extend import core
from jaxtyping import Bool, Int

from simformer_ppl.structure.laws import Laws
from simformer_ppl.structure.tracing import TracedSite

Values = dict[str, np.ndarray]

# Simulations at which densities are compared, and to which relative accuracy (float32 sums in another order).
_NUM_DRAWS = 2
_TOLERANCE = 1e-3


def exchangeable_plates(
    laws: Laws,
    simulate: Callable[[jax.Array], dict[str, jax.Array]],
    full: Bool[np.ndarray, "nodes nodes"],
    token_shapes: Mapping[str, tuple[int, ...]],
) -> tuple[str, ...]:
    """Names of the exchangeable plates.

    Parameters
    ----------
    laws
        The laws of all sites.
    simulate
        From a key to the values of all nodes.
    full
        Graph over noise sources and the tokens of all nodes, before anything is eliminated.
    token_shapes
        Per node, in the order of ``full``.

    Returns
    -------
    Plates of two elements or more. One with a site that has no density is never among them.
    """
    sites = laws.trace.sites
    candidates = []
    for plate, size in laws.trace.plates.items():
        orders = (_node_order(plate, order, sites, token_shapes, laws.num_noise) for order in _generators(size))
        if size > 1 and all(np.array_equal(full[np.ix_(order, order)], full) for order in orders):
            candidates.append(plate)
    if not candidates or any(law.kind not in ("log_prob", "deterministic") for law in laws.templates.values()):
        return ()
    evaluate, draw = _evaluation(laws), jax.jit(simulate)
    for seed in range(_NUM_DRAWS):
        values = {name: np.asarray(value) for name, value in draw(jax.random.key(seed)).items()}
        before = evaluate(values)
        candidates = [p for p in candidates if _densities_follow(p, laws, evaluate, values, before)]
    return tuple(candidates)


def _generators(size: int) -> Iterator[Int[np.ndarray, " size"]]:
    swap = np.arange(size)
    swap[:2] = swap[:2][::-1]
    yield swap
    if size > 2:
        yield np.roll(np.arange(size), 1)


def _node_order(
    plate: str,
    order: Int[np.ndarray, " size"],
    sites: Mapping[str, TracedSite],
    token_shapes: Mapping[str, tuple[int, ...]],
    num_noise: int,
) -> Int[np.ndarray, " nodes"]:
    parts, start = [np.arange(num_noise)], num_noise
    for name, shape in token_shapes.items():
        size = int(np.prod(shape, dtype=int))
        positions = np.arange(start, start + size).reshape(shape)
        parts.append(_permuted(positions, plate, order, sites[name]).ravel())
        start += size
    return np.concatenate(parts)


def _permuted(array: np.ndarray, plate: str, order: Int[np.ndarray, " size"], site: TracedSite) -> np.ndarray:
    return np.take(array, order, axis=site.dims.index(plate)) if plate in site.dims else array


def _evaluation(laws: Laws) -> Callable[[Values], Values]:
    """From values to log densities (or deterministic values), each of the batch shape of its site."""
    keys = jax.random.split(jax.random.key(0), laws.num_noise)
    compiled = jax.jit(core.jaxpr_as_fun(laws.jaxpr))

    def evaluate(values: Values) -> Values:
        outputs = iter(compiled(*(values[name] for name in sorted(laws.nodes)), keys))
        found = {}
        for name, law in laws.templates.items():
            shape = laws.trace.sites[name].shape
            found[name] = np.broadcast_to(np.asarray(next(outputs)), shape[: len(shape) - law.event_dim])
            for _ in law.parameters:
                next(outputs)
        return found

    return evaluate


def _densities_follow(
    plate: str, laws: Laws, evaluate: Callable[[Values], Values], values: Values, before: Values
) -> bool:
    sites = laws.trace.sites
    close = partial(np.allclose, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True)
    for order in _generators(laws.trace.plates[plate]):
        after = evaluate({name: _permuted(value, plate, order, sites[name]) for name, value in values.items()})
        if not all(close(after[name], _permuted(before[name], plate, order, sites[name])) for name in before):
            return False
    return True
