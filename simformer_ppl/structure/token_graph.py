"""From the graph over scalars to the graph over tokens, and out of it what is not tokenised."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import numpy as np
from jaxtyping import Int

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
    is_noise
        Whether it is a noise source rather than a site.
    """

    size: int
    event_size: int = 1
    tokens_per_event: int = 1
    is_token: bool = True
    is_noise: bool = False

    @property
    def is_single(self) -> bool:
        """Whether every scalar is a token of its own; of an event of one scalar, such as a simplex, none may be."""
        return self.event_size == 1 and self.tokens_per_event == 1

    @property
    def num_tokens(self) -> int:
        """Number of tokens of the site."""
        return self.size // self.event_size * self.tokens_per_event


@dataclass(frozen=True)
class TokenGraph:
    """Directed graph over noise sources and the tokens of all nodes, nuisances included.

    Attributes
    ----------
    blocks
        By name of the site, in the order of the graph; noise sources, by number, first.
    full
        The graph.
    """

    blocks: Mapping[str | int, Block]
    full: Graph

    @classmethod
    def of_scalars(cls, scalars: Graph, blocks: Mapping[str | int, Block]) -> "TokenGraph":
        """From the graph over scalars."""
        return cls(blocks, tokenise(scalars, list(blocks.values())))

    @cached_property
    def kept(self) -> Int[np.ndarray, " tokens"]:
        """The node of every token."""
        return np.flatnonzero(np.concatenate([np.full(b.num_tokens, b.is_token) for b in self.blocks.values()]))

    @cached_property
    def parents(self) -> Graph:
        """Directed graph over the tokens."""
        return marginal_directed(self.full, self.kept)

    def moral(self) -> Graph:
        """Moral graph over the tokens."""
        return marginal_moral(self.full, self.kept)

    def is_direct(self, child: int, parent: int) -> bool:
        """Whether the law of a token itself reads another, not through what is eliminated."""
        return bool(self.full[self.kept[child]] >> int(self.kept[parent]) & 1)

    def between(self, token: int) -> list[str]:
        """What is no token and is read by the law of a token: sites, or hidden noise."""
        reads, start, found = self.full[self.kept[token]], 0, []
        for name, block in self.blocks.items():
            if isinstance(name, str) and not block.is_token and reads >> start & ((1 << block.num_tokens) - 1):
                found.append(name)
            start += block.num_tokens
        noise = (1 << sum(block.is_noise for block in self.blocks.values())) - 1
        return [*found, "hidden noise"] if reads & noise else found

    @property
    def reads_noise(self) -> bool:
        """Whether any law reads a noise source."""
        noise = (1 << sum(block.is_noise for block in self.blocks.values())) - 1
        return any(parents & noise for parents in self.full)


def tokenise(scalars: Graph, blocks: Sequence[Block]) -> Graph:
    """Directed graph over tokens, nuisances included.

    The tokens of an event whose support couples its scalars read what any of them reads, and the earlier tokens of
    the event; what reads any scalar of such an event reads all its tokens.
    """
    if all(block.is_single for block in blocks):
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
            if run.is_single:
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

    @property
    def is_single(self) -> bool:
        return self.event_size == 1 and self.tokens_per_event == 1


def _runs(blocks: Sequence[Block]) -> list[_Run]:
    runs: list[_Run] = []
    scalar = token = 0
    for is_single, group in groupby(blocks, lambda block: block.is_single):
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
        if not run.is_single:
            events = {scalar // run.event_size for scalar in bitsets.members(part)}
            width = run.tokens_per_event
            part = 0
            for event in events:
                part |= ((1 << width) - 1) << event * width
        out |= part << run.first_token
    return out


def marginal_directed(directed: Graph, kept: Int[np.ndarray, " tokens"]) -> Graph:
    """Directed graph over the kept nodes."""
    order = ancestral_order(directed)
    place = np.argsort(order)
    removed = np.setdiff1d(np.arange(len(directed)), place[kept])
    return relabel(eliminate_directed(relabel(directed, order), removed.tolist()), place[kept])


def marginal_moral(directed: Graph, kept: Int[np.ndarray, " tokens"]) -> Graph:
    """Moral graph over the kept nodes.

    A removed node that nothing reads couples nothing, so those go first, one after the other; the rest is moralised,
    then eliminated.
    """
    graph, children = list(directed), bitsets.transpose(directed, len(directed))
    removed = set(range(len(directed))) - set(kept.tolist())
    barren = [node for node in sorted(removed) if not children[node]]
    for node in barren:  # grows while it is read
        for parent in bitsets.members(graph[node]):
            children[parent] &= ~(1 << node)
            if not children[parent] and parent in removed:
                barren.append(parent)
        graph[node] = 0
    return relabel(eliminate(moralise(graph), sorted(removed - set(barren))), kept)
