"""Graph algebra: moralise, eliminate, order.

A graph is a list with one set of nodes per node, packed into a Python int (see `bitsets`): an eighth of a byte for
every possible edge at most, and far less where sets are small or far from the last node. In a directed graph the set of
a node holds its parents; in an undirected one, its neighbours. No node is in its own set.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from simformer_ppl.structure import bitsets

Graph = list[int]


def moralise(parents: Graph) -> Graph:
    """Join every node with its parents, and the parents of a common child with each other.

    Lauritzen & Spiegelhalter 1988, section 2.

    Parameters
    ----------
    parents
        Directed graph.

    Returns
    -------
    Undirected graph.

    Examples
    --------
    >>> collider = [0, 0, 0b011]
    >>> [bitsets.members(neighbours) for neighbours in moralise(collider)]
    [[1, 2], [0, 2], [0, 1]]
    """
    moral = [own | children for own, children in zip(parents, bitsets.transpose(parents, len(parents)), strict=True)]
    for family in {own for own in parents if own.bit_count() > 1}:
        for parent in bitsets.members(family):
            moral[parent] |= family
    return without_loops(moral)


def eliminate(moral: Graph, removed: Sequence[int]) -> Graph:
    """Marginalise nodes out of an undirected graph: the neighbours of a removed node are joined.

    Parameters
    ----------
    moral
        Undirected graph.
    removed
        Nodes that go.

    Returns
    -------
    Undirected graph over all nodes, nothing left at the removed ones.
    """
    graph = list(moral)
    for node in removed:
        neighbours, graph[node] = graph[node], 0
        for neighbour in bitsets.members(neighbours):
            graph[neighbour] = (graph[neighbour] | neighbours) & ~(1 << node)
    return without_loops(graph)


def eliminate_directed(parents: Graph, removed: Sequence[int]) -> Graph:
    """Marginalise nodes out of a directed graph in ancestral order.

    A child of a removed node gets the parents of that node, the earlier children of it, and their parents.

    Parameters
    ----------
    parents
        Directed graph, parents before children.
    removed
        Nodes that go, ascending.

    Returns
    -------
    Directed graph over all nodes, nothing left at the removed ones.
    """
    graph, children = list(parents), bitsets.transpose(parents, len(parents))
    for node in reversed(removed):
        own, graph[node] = graph[node], 0
        reached = own
        for child in bitsets.members(children[node]):
            gained = reached & ~graph[child]
            for parent in bitsets.members(gained):
                children[parent] |= 1 << child
            graph[child] = (graph[child] | gained) & ~(1 << node)
            reached |= graph[child] | 1 << child
        for parent in bitsets.members(own):
            children[parent] &= ~(1 << node)
    return graph


def ancestral_order(parents: Graph) -> Int[np.ndarray, " nodes"]:
    """Nodes such that parents come first; as they stand, where that already holds."""
    n = len(parents)
    if all(own.bit_length() <= node for node, own in enumerate(parents)):
        return np.arange(n)
    children = bitsets.transpose(parents, n)
    missing = [own.bit_count() for own in parents]
    order = [node for node in range(n) if not missing[node]]
    for node in order:  # grows while it is read
        for child in bitsets.members(children[node]):
            missing[child] -= 1
            if not missing[child]:
                order.append(child)
    if len(order) < n:  # a cycle cannot come from a model; should it, the rest keeps its order
        order.extend(sorted(set(range(n)) - set(order)))
    return np.asarray(order)


def relabel(graph: Graph, order: Sequence[int] | Int[np.ndarray, " kept"]) -> Graph:
    """The graph over some nodes, in a new order.

    Parameters
    ----------
    graph
        Any graph.
    order
        Nodes to keep; the first becomes node 0, and so on.
    """
    n, kept = len(graph), np.asarray(order, int)
    if np.array_equal(kept, np.arange(n)):
        return list(graph)
    moved = bitsets.transpose([graph[node] for node in kept], n)  # by old node, over new rows
    return bitsets.transpose([moved[node] for node in kept], len(kept))


def to_matrix(graph: Graph) -> Bool[np.ndarray, "nodes nodes"]:
    """Bool matrix, row = the node whose set it is."""
    return bitsets.to_matrix(graph, len(graph))


def without_loops(sets: Sequence[int] | Any) -> Graph:
    """Take every node out of its own set."""
    return [own & ~(1 << node) for node, own in enumerate(sets)]
