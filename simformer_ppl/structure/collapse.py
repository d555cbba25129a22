"""The graph of a sequence that holds some points of functions, whichever they are."""

import numpy as np
from jaxtyping import Bool, Int
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components


def joined_by_points(
    moral: Bool[np.ndarray, "tokens tokens"], is_point: Bool[np.ndarray, " tokens"]
) -> Bool[np.ndarray, "tokens tokens"]:
    """The moral graph after any points of functions may have been eliminated: paths through points join their ends.

    Parameters
    ----------
    moral
        Symmetric graph over all tokens.
    is_point
        Tokens that may be left out.

    Returns
    -------
    Symmetric graph that holds every edge there can be. Diagonal False.
    """
    points = np.flatnonzero(is_point)
    joined = moral.copy()
    if len(points):
        labels = connected_components(csr_array(moral[np.ix_(points, points)]), directed=False)[1]
        member = np.zeros((len(moral), labels.max() + 1), np.float32)
        member[points, labels] = 1
        reached = ((moral | np.eye(len(moral), dtype=bool)).astype(np.float32) @ member > 0).astype(np.float32)
        joined |= reached @ reached.T > 0
    return joined & ~np.eye(len(moral), dtype=bool)


def at_any_points(
    graph: Bool[np.ndarray, "tokens tokens"], kind_of_token: Int[np.ndarray, " tokens"], kinds: Int[np.ndarray, " n"]
) -> Bool[np.ndarray, "n n"]:
    """A graph over tokens of these kinds, with every edge that two tokens of their kinds have anywhere.

    Parameters
    ----------
    graph
        Over all tokens.
    kind_of_token
        Points of one function are of one kind, told by any number; other tokens are each of their own.
    kinds
        Those of the tokens asked for.
    """
    numbers, place = np.unique(kind_of_token, return_inverse=True)
    member = np.eye(len(numbers), dtype=np.float32)[place]
    between = member.T @ (graph & ~np.eye(len(graph), dtype=bool)).astype(np.float32) @ member > 0
    asked = np.searchsorted(numbers, kinds)
    return between[np.ix_(asked, asked)] & ~np.eye(len(kinds), dtype=bool)
