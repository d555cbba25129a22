"""The graph of a sequence that holds some points of functions, whichever they are."""

from dataclasses import dataclass

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


@dataclass(frozen=True)
class KindGraph:
    """A graph over kinds of tokens, with every edge that two tokens of these kinds have anywhere.

    Attributes
    ----------
    kinds
        Points of one function are of one kind, told by any number; other tokens are each of their own. Increasing.
    edges
        Between them; on the diagonal, between different tokens of one kind.
    """

    kinds: Int[np.ndarray, " kinds"]
    edges: Bool[np.ndarray, "kinds kinds"]

    @classmethod
    def of(cls, graph: Bool[np.ndarray, "tokens tokens"], kind_of_token: Int[np.ndarray, " tokens"]) -> "KindGraph":
        """Collapse a graph over all tokens."""
        kinds, place = np.unique(kind_of_token, return_inverse=True)
        member = np.eye(len(kinds), dtype=np.float32)[place]
        different = (graph & ~np.eye(len(graph), dtype=bool)).astype(np.float32)
        return cls(kinds, member.T @ different @ member > 0)

    def among(self, kinds: Int[np.ndarray, " n"]) -> Bool[np.ndarray, "n n"]:
        """The graph over tokens of these kinds. Diagonal False."""
        asked = np.searchsorted(self.kinds, kinds)
        return self.edges[np.ix_(asked, asked)] & ~np.eye(len(kinds), dtype=bool)
