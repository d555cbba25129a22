"""Linear systems that are known by a matrix-vector product: each unknown reads what it is coupled to."""

from math import prod
from typing import Any

import numpy as np

from simformer_ppl.structure import bitsets
from simformer_ppl.structure.abstract_value import Value
from simformer_ppl.structure.graph import ancestral_order, without_loops
from simformer_ppl.structure.rules.moves import MOVES
from simformer_ppl.structure.rules.registry import rule

# What direct solvers are made of: factors, triangular systems, and the permutation of pivots.
_DIRECT = {
    *MOVES,
    *("lu", "cholesky", "triangular_solve", "lu_pivots_to_permutation", "concatenate", "conj", "copy"),
    *("convert_element_type", "stop_gradient", "gather", "sort", "iota", "lt", "add", "select_n"),
}


@rule("custom_linear_solve")
def _linear_solve(flow: Any, eqn: Any, values: list[Value]) -> list[Value]:
    """Solve ``A x = b``, of which ``A`` is known by its product with a vector.

    Unknowns that no chain of equations connects are solved apart. Where the matrix is triangular, in some order of the
    unknowns, each unknown reads those before it only.
    """
    matvec, count = eqn.params["jaxprs"].matvec, eqn.params["const_lengths"].matvec
    targets = values[sum(eqn.params["const_lengths"]) :]
    if len(targets) != 1 or not _is_direct(eqn.params["jaxprs"].solve):
        return flow.dense(eqn, values, reason="custom_linear_solve: no direct solver")
    target = targets[0]
    width = 1 + max((value.all_reads().bit_length() for value in values), default=0)
    size = prod(target.shape)
    unknowns = Value(target.shape, target.dtype, bitsets.singletons(target.shape, width))
    (product,) = flow.run(matvec, [*values[:count], unknowns])
    equations = [int(reads) for reads in product.sets().flat]
    coupled = [reads >> width for reads in equations]
    zero = target.structural_zeros()
    live = 0 if zero is None else bitsets.of_members(np.flatnonzero(~zero).tolist())
    own = [reads & ((1 << width) - 1) | right for reads, right in zip(equations, target.sets().flat, strict=True)]
    reads, is_zero = [], np.zeros(size, bool)
    for unknown, reached in enumerate(_reached(coupled)):
        is_zero[unknown] = zero is not None and not reached & live
        read = 0
        for other in bitsets.members(0 if is_zero[unknown] else reached):
            read |= own[other]
        reads.append(read)
    sets = np.empty(size, object)
    sets[:] = reads
    return [Value(target.shape, reads=sets.reshape(target.shape), zero=is_zero.reshape(target.shape))]


def _is_direct(jaxpr: Any) -> bool:
    """Whether a solver factorises; the step lengths and the stopping of an iterative one couple all unknowns."""
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        inner = [value for value in eqn.params.values() if hasattr(value, "eqns") or hasattr(value, "jaxpr")]
        if eqn.primitive.name not in _DIRECT and not (inner and all(map(_is_direct, inner))):
            return False
    return True


def _reached(coupled: list[int]) -> list[int]:
    """Per unknown, the equations that its solution may read, from the unknowns of each equation."""
    others = without_loops(coupled)
    order = ancestral_order(others)
    place = np.argsort(order)
    is_ordered = all(place[i] < place[j] for j, own in enumerate(others) for i in bitsets.members(own))
    if not is_ordered or not all(own >> unknown & 1 for unknown, own in enumerate(coupled)):
        return _components(others)
    reached = [own | 1 << unknown for unknown, own in enumerate(others)]
    for unknown in order.tolist():
        for earlier in bitsets.members(others[unknown]):
            reached[unknown] |= reached[earlier]
    return reached


def _components(graph: list[int]) -> list[int]:
    """Per node, the set of the nodes it is connected to, itself among them."""
    neighbours = [own | other for own, other in zip(graph, bitsets.transpose(graph, len(graph)), strict=True)]
    found = [0] * len(graph)
    for start in range(len(graph)):
        if found[start]:
            continue
        pending, seen = 1 << start, 0
        while pending:
            node = pending.bit_length() - 1
            seen |= 1 << node
            pending = (pending | neighbours[node]) & ~seen
        for node in bitsets.members(seen):
            found[node] = seen
    return found
