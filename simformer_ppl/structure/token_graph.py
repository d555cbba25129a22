"""From the graph over scalars to the graph over tokens, and out of it what is not tokenised."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from jaxtyping import Bool

from simformer_ppl.structure import bitsets
from simformer_ppl.structure.graph import (
    Graph,
    ancestral_order,
    eliminate,
    eliminate_directed,
    moralise,
    relabel,
    without_loops,
)


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


def tokenise(scalars: Graph, blocks: Sequence[Block]) -> Graph:
    """Directed graph over tokens, nuisances included.

    The tokens of an event whose support couples its scalars read what any of them reads, and the earlier tokens of
    the event; what reads any scalar of such an event reads all its tokens.
    """
    if all(block.event_size == 1 for block in blocks):
        return list(scalars)
    runs = _runs(blocks)
    tokens: Graph = []
    moved: dict[int, int] = {}
    for run in runs:
        for event in range(run.scalars // run.event_size):
            first = run.first_scalar + event * run.event_size
            reads = 0
            for scalar in range(first, first + run.event_size):
                reads |= scalars[scalar]
            if reads not in moved:
                moved[reads] = _tokens_read(reads, runs)
            start = len(tokens)
            if run.event_size == 1:
                tokens.append(moved[reads])
                continue
            outside = moved[reads] & ~(((1 << run.tokens_per_event) - 1) << start)
            tokens.extend(outside | ((1 << i) - 1) << start for i in range(run.tokens_per_event))
    return without_loops(tokens)


@dataclass(frozen=True)
class _Run:
    """Neighbouring blocks of single scalars, or one block of larger events."""

    first_scalar: int
    scalars: int
    first_token: int
    event_size: int
    tokens_per_event: int


def _runs(blocks: Sequence[Block]) -> list[_Run]:
    runs: list[_Run] = []
    scalar = token = 0
    for is_single, group in groupby(blocks, lambda block: block.event_size == 1):
        members = list(group)
        merged = [Block(sum(block.size for block in members))] if is_single else members
        for block in merged:
            runs.append(_Run(scalar, block.size, token, block.event_size, block.tokens_per_event))
            scalar, token = scalar + block.size, token + block.num_tokens
    return runs


def _tokens_read(reads: int, runs: Sequence[_Run]) -> int:
    """Tokens that stand for the scalars of a set."""
    out = 0
    for run in runs:
        part = reads >> run.first_scalar & ((1 << run.scalars) - 1)
        if run.event_size > 1:
            events = {scalar // run.event_size for scalar in bitsets.members(part)}
            width = run.tokens_per_event
            part = 0
            for event in events:
                part |= ((1 << width) - 1) << event * width
        out |= part << run.first_token
    return out


def kept_tokens(blocks: Sequence[Block]) -> Bool[np.ndarray, " nodes"]:
    """Which nodes of the token graph stay."""
    return np.concatenate([np.full(block.num_tokens, block.is_token) for block in blocks])


def marginal_directed(directed: Graph, keep: Bool[np.ndarray, " nodes"]) -> Graph:
    """Directed graph over the kept nodes."""
    order = ancestral_order(directed)
    reduced = eliminate_directed(relabel(directed, order), np.flatnonzero(~keep[order]).tolist())
    return relabel(reduced, np.argsort(order)[keep])


def marginal_moral(directed: Graph, keep: Bool[np.ndarray, " nodes"]) -> Graph:
    """Moral graph over the kept nodes.

    A removed node that nothing reads couples nothing, so those go first, one after the other; the rest is moralised,
    then eliminated.
    """
    graph, children = list(directed), bitsets.transpose(directed, len(directed))
    barren = [node for node in np.flatnonzero(~keep).tolist() if not children[node]]
    for node in barren:  # grows while it is read
        for parent in bitsets.members(graph[node]):
            children[parent] &= ~(1 << node)
            if not children[parent] and not keep[parent]:
                barren.append(parent)
        graph[node] = 0
    left = sorted(set(np.flatnonzero(~keep).tolist()) - set(barren))
    return relabel(eliminate(moralise(graph), left), np.flatnonzero(keep))
