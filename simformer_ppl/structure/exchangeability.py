"""Plates whose elements a model cannot tell apart, or tells apart by known constants only.

A swap of the first two indices and a cyclic shift generate every permutation of a plate. A plate is exchangeable if
both, applied at once to all sites inside it, leave the graph and the densities as they are. If the densities stay only
when some constants of the model (standard errors, covariates, group indices) are permuted along, the elements differ by
these constants.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
from jax.extend import core
from jaxtyping import Float, Int

from simformer_ppl.compilation import COMPILED_QUICKLY
from simformer_ppl.simulator_errors import raise_if_interrupted, tell_failures_once
from simformer_ppl.structure.graph import Graph, relabel
from simformer_ppl.structure.known_parts import split_known
from simformer_ppl.structure.laws import Laws
from simformer_ppl.structure.tracing import TracedSite

Values = dict[str, np.ndarray]
Evaluation = Callable[[Values, Sequence[np.ndarray]], Values]
Moves = tuple[int | None, ...]
"""Per known array, the axis that is permuted along with a plate."""

# Simulations at which densities are compared: many, since elements may differ in a part of the prior only. Fewer of a
# simulator outside JAX, which may be slow. Some may fail.
_NUM_DRAWS, _NUM_OPAQUE_DRAWS = 64, 16
_ATTEMPTS = 4
# To which relative accuracy (float32 sums in another order).
_TOLERANCE = 1e-3
# Choices of constants that are tried before a plate is given up.
_MOST_MOVES = 64


@dataclass(frozen=True)
class Exchangeability:
    """Which plates have elements that are alike.

    Attributes
    ----------
    plates
        Plates whose elements cannot be told apart.
    constant_plates
        Plates whose elements differ by known constants only.
    constants
        For every node, those constants at each of its tokens: ``(*token_shape, columns)``, NaN where a column does
        not apply.
    """

    plates: tuple[str, ...] = ()
    constant_plates: tuple[str, ...] = ()
    constants: Mapping[str, Float[np.ndarray, "*token_shape columns"]] | None = None


def read_exchangeability(
    laws: Laws,
    simulate: Callable[[jax.Array], dict[str, jax.Array]],
    full: Graph,
    token_shapes: Mapping[str, tuple[int, ...]],
    apart: Collection[str] = (),
) -> Exchangeability:
    """Find the plates whose elements are alike.

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
    apart
        Plates that are not to be looked at.

    Returns
    -------
    Plates of two elements or more. One with a site that has no density is never among them.
    """
    sizes = {plate: size for plate, size in laws.trace.plates.items() if size > 1 and plate not in apart}
    if not sizes or any(law.kind not in ("log_prob", "deterministic") for law in laws.templates.values()):
        return Exchangeability()
    known, evaluate = _evaluation(laws)
    draw = jax.jit(simulate, compiler_options=COMPILED_QUICKLY)
    draws = _draws(draw, lambda values: evaluate(values, known), _calls_back(laws.jaxpr.jaxpr))
    plates, differing = [], {}
    for plate, size in sizes.items():
        follow = partial(_densities_follow, plate, laws, evaluate, draws, known)
        orders = (_node_order(plate, order, laws.trace.sites, token_shapes, laws.num_noise) for order in _orders(size))
        if follow((None,) * len(known)) and all(relabel(full, o) == full for o in orders):
            plates.append(plate)
        else:
            moves = next(filter(follow, _choices(known, size)), None)
            if moves is not None:
                differing[plate] = moves
    constants = _constants_of_tokens(laws.trace.sites, token_shapes, known, differing) if differing else None
    return Exchangeability(tuple(plates), tuple(differing), constants)


def _draws(
    draw: Callable[[jax.Array], dict[str, jax.Array]], evaluate: Callable[[Values], Values], calls_back: bool
) -> list[tuple[Values, Values]]:
    """Simulations and their densities: those that come to an end and are finite, if there are any.

    Raises
    ------
    RuntimeError
        If a simulator outside JAX always fails.
    """
    tell_failures_once()
    count = _NUM_OPAQUE_DRAWS if calls_back else _NUM_DRAWS
    finite: list[tuple[Values, Values]] = []
    others: list[tuple[Values, Values]] = []
    for key in jax.random.split(jax.random.key(0), _ATTEMPTS * count):
        try:
            values = {name: np.asarray(value) for name, value in draw(key).items()}
            pair = values, evaluate(values)
        except Exception as error:
            raise_if_interrupted(error)
            if not calls_back:
                raise
            continue
        (finite if all(np.isfinite(each).all() for part in pair for each in part.values()) else others).append(pair)
        if len(finite) == count:
            break
    if not finite and not others:
        raise RuntimeError("the simulator always fails")
    return finite or others[:count]


def _calls_back(jaxpr: core.Jaxpr) -> bool:
    """Whether a part of a program runs outside JAX."""
    names = {eqn.primitive.name for eqn in jaxpr.eqns}
    return bool(names & {"pure_callback", "io_callback"}) or any(map(_calls_back, core.subjaxprs(jaxpr)))


def _orders(size: int) -> Iterator[Int[np.ndarray, " size"]]:
    swap = np.arange(size)
    swap[:2] = swap[:2][::-1]
    yield swap
    if size > 2:
        yield np.roll(np.arange(size), 1)


def _choices(known: Sequence[np.ndarray], size: int) -> Iterator[Moves]:
    """Axes of known arrays that may belong to a plate of this size, most of them first."""
    options: list[list[int | None]] = []
    for array in known:
        axes = [axis for axis, length in enumerate(array.shape) if length == size and _varies(array, axis)]
        options.append([*axes, None])
    choices = [c for c in itertools.islice(itertools.product(*options), _MOST_MOVES) if any(a is not None for a in c)]
    return iter(choices)


def _varies(array: np.ndarray, axis: int) -> bool:
    return bool((array != np.take(array, [0], axis)).any())


def _constants_of_tokens(
    sites: Mapping[str, TracedSite],
    token_shapes: Mapping[str, tuple[int, ...]],
    known: Sequence[np.ndarray],
    differing: Mapping[str, Moves],
) -> dict[str, Float[np.ndarray, "*token_shape columns"]]:
    """The known arrays at the element of every plate that a token lies in, side by side."""
    columns: dict[str, list[np.ndarray]] = {name: [] for name in token_shapes}
    for position, array in enumerate(known):
        moved = [(moves[position], plate) for plate, moves in differing.items()]
        axes = {axis: plate for axis, plate in moved if axis is not None}
        seen = {name: tuple(sorted(a for a, plate in axes.items() if plate in sites[name].dims)) for name in columns}
        for indexed in sorted(set(seen.values()) - {()}):
            for name, shape in token_shapes.items():
                width = math.prod(length for axis, length in enumerate(array.shape) if axis not in indexed)
                part = np.full((*shape, width), np.nan, np.float32)
                if seen[name] == indexed:
                    places = np.indices(shape)
                    index = tuple(places[sites[name].dims.index(axes[axis])] for axis in indexed)
                    part = np.moveaxis(array, indexed, range(len(indexed)))[index].reshape(*shape, width)
                columns[name].append(part.astype(np.float32))
    return {name: np.concatenate(parts, -1) for name, parts in columns.items()}


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


def _evaluation(laws: Laws) -> tuple[list[np.ndarray], Evaluation]:
    """Known arrays, and from values and those to log densities (or deterministic values) of the batch shape."""
    keys = jax.random.split(jax.random.key(0), laws.num_noise)
    arrays, rest = split_known(laws.jaxpr)
    movable = [position for position, array in enumerate(arrays) if _is_numeric(array) and np.ndim(array)]

    @partial(jax.jit, compiler_options=COMPILED_QUICKLY)
    def run(values: Values, known: Sequence[jax.Array]) -> list[jax.Array]:
        filled = list(arrays)
        for position, array in zip(movable, known, strict=True):
            filled[position] = array
        return rest(filled, [*(values[name] for name in sorted(laws.nodes)), keys])

    def evaluate(values: Values, known: Sequence[np.ndarray]) -> Values:
        outputs = iter(run(values, list(known)))
        found = {}
        for name, law in laws.templates.items():
            shape = laws.trace.sites[name].shape
            found[name] = np.broadcast_to(np.asarray(next(outputs)), shape[: len(shape) - law.event_dim])
            for _ in law.parameters:
                next(outputs)
        return found

    return [np.asarray(arrays[position]) for position in movable], evaluate


def _is_numeric(array: object) -> bool:
    return not jax.dtypes.issubdtype(getattr(array, "dtype", np.dtype(float)), jax.dtypes.extended)


def _densities_follow(
    plate: str,
    laws: Laws,
    evaluate: Evaluation,
    draws: Sequence[tuple[Values, Values]],
    known: Sequence[np.ndarray],
    moves: Moves,
) -> bool:
    """Whether densities are permuted when the plate is, and the known arrays along the given axes."""
    sites = laws.trace.sites
    close = partial(np.allclose, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True)
    for order in _orders(laws.trace.plates[plate]):
        moved = [a if axis is None else np.take(a, order, axis) for a, axis in zip(known, moves, strict=True)]
        for values, before in draws:
            swapped = {name: _permuted(value, plate, order, sites[name]) for name, value in values.items()}
            after = evaluate(swapped, moved)
            if not all(close(after[name], _permuted(before[name], plate, order, sites[name])) for name in before):
                return False
    return True
