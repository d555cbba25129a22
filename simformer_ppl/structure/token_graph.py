"""From the graph over scalars to the graph over tokens, and out of it what is not tokenised."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from simformer_ppl.structure.graph import eliminate, eliminate_directed, moralise

Matrix = Bool[np.ndarray, "nodes nodes"]


@dataclass(frozen=True)
class Block:
    """Scalars of one site in the scalar graph.

    Attributes
    ----------
    size
        Number of scalars.
    event_size
        Scalars per event; 1 where the support acts per scalar.
    tokens_per_event
        Tokens that stand for an event.
    is_token
        False for noise and nuisances, which are eliminated.
    """

    size: int
    event_size: int = 1
    tokens_per_event: int = 1
    is_token: bool = True

    @property
    def num_tokens(self) -> int:
        """Number of tokens of the site."""
        return self.size // self.event_size * self.tokens_per_event


def tokenise(scalars: Matrix, blocks: Sequence[Block]) -> Matrix:
    """Directed graph over tokens, nuisances included.

    The tokens of an event whose support couples its scalars read what any of them reads, and the earlier tokens of
    the event; what reads any scalar of such an event reads all its tokens.
    """
    columns = _per_token(scalars, blocks, axis=1)
    tokens = _per_token(columns, blocks, axis=0)
    start = 0
    for block in blocks:
        if block.event_size > 1:
            width = block.tokens_per_event
            for first in range(start, start + block.num_tokens, width):
                tokens[first : first + width, first : first + width] = np.tri(width, k=-1, dtype=bool)
        start += block.num_tokens
    np.fill_diagonal(tokens, False)
    return tokens


def _per_token(matrix: Matrix, blocks: Sequence[Block], axis: int) -> Matrix:
    parts, start = [], 0
    for block in blocks:
        part = np.moveaxis(matrix, axis, 0)[start : start + block.size]
        start += block.size
        if block.event_size > 1:
            events = part.reshape(-1, block.event_size, part.shape[1]).any(1)
            part = np.repeat(events, block.tokens_per_event, axis=0)
        parts.append(part)
    return np.ascontiguousarray(np.moveaxis(np.concatenate(parts), 0, axis))


def kept_tokens(blocks: Sequence[Block]) -> Bool[np.ndarray, " nodes"]:
    """Which nodes of the token graph stay."""
    return np.concatenate([np.full(block.num_tokens, block.is_token) for block in blocks])


def ancestral_order(directed: Matrix) -> np.ndarray:
    """Nodes such that parents come first; as they stand, where that already holds."""
    n = len(directed)
    if not np.triu(directed).any():
        return np.arange(n)
    missing, done = directed.sum(1), np.zeros(n, bool)
    order: list[int] = []
    while len(order) < n:
        ready = np.flatnonzero((missing == 0) & ~done)
        if not ready.size:  # a cycle cannot come from a model; should it, the rest keeps its order
            order.extend(np.flatnonzero(~done))
            break
        done[ready] = True
        order.extend(ready)
        missing = missing - directed[:, ready].sum(1)
    return np.asarray(order)


def marginal_directed(directed: Matrix, keep: Bool[np.ndarray, " nodes"]) -> Bool[np.ndarray, "tokens tokens"]:
    """Directed graph over the kept nodes."""
    order = ancestral_order(directed)
    reduced = eliminate_directed(directed[np.ix_(order, order)], keep[order])
    kept = order[keep[order]]
    back = np.argsort(kept)
    return reduced[np.ix_(back, back)]


def marginal_moral(directed: Matrix, keep: Bool[np.ndarray, " nodes"]) -> Bool[np.ndarray, "tokens tokens"]:
    """Moral graph over the kept nodes.

    A removed node that nothing reads couples nothing, so those go first, one after the other; the rest is moralised,
    then eliminated.
    """
    alive = np.ones(len(keep), bool)
    while True:
        barren = alive & ~keep & ~directed[alive].any(0)
        if not barren.any():
            break
        alive &= ~barren
    return eliminate(moralise(directed[np.ix_(alive, alive)]), keep[alive])
