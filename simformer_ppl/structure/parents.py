"""From laws to parents: which scalar's conditional, given all scalars before it, reads which scalar."""

import numpy as np

from simformer_ppl.structure import bitsets
from simformer_ppl.structure.bitsets import Bitsets
from simformer_ppl.structure.factors import additive_factors
from simformer_ppl.structure.graph import Graph, without_loops
from simformer_ppl.structure.laws import Laws, SiteLaw
from simformer_ppl.structure.tracing import TracedSite


def parents_of_scalars(laws: Laws, found: dict[str, SiteLaw]) -> Graph:
    """Directed graph over the noise sources and the scalars of all nodes.

    A noise source is a node without parents, to be eliminated like any other nuisance.
    """
    starts = laws.starts()
    rows: list[int] = [0] * laws.num_noise
    for name in laws.nodes:
        rows.extend(_site_parents(laws.trace.sites[name], found[name], starts[name]))
    return without_loops(rows)


def _site_parents(site: TracedSite, law: SiteLaw, start: int) -> list[int]:
    if law.kind == "deterministic":
        return list(np.broadcast_to(law.output.sets(), site.shape).flat)
    batch = site.shape[: len(site.shape) - law.event_dim]
    event_size = int(np.prod(site.shape[len(batch) :], dtype=int))
    reads = _per_event(law.output.sets(), batch if law.kind == "log_prob" else site.shape, batch)
    support = _support_reads(site, law, batch)
    reads = bitsets.union(reads, support)
    if event_size == 1:
        return list(reads.flat)
    factors: list[set[int]] | None = None
    if law.factorises and law.output.shape == batch:
        factors = additive_factors(law.output)
    parents: list[int] = []
    for index, (block_reads, support_reads) in enumerate(zip(reads.flat, support.flat, strict=True)):
        first = start + index * event_size
        if factors is None:
            parents.extend(_ordered_block(block_reads, first, event_size))
        else:
            ordered = law.is_sum_of_conditionals
            parents.extend(_eliminated_block(factors[index], block_reads, support_reads, first, event_size, ordered))
    return parents


def _support_reads(site: TracedSite, law: SiteLaw, batch: tuple[int, ...]) -> Bitsets:
    """What the bounds of each event read; those of a support that acts per scalar align with the scalars."""
    reads = bitsets.empty(batch)
    for parameter in law.parameters:
        shape = site.shape if law.factorises else batch
        reads = bitsets.union(reads, _per_event(parameter.sets(), shape, batch))
    return reads


def _per_event(sets: Bitsets, shape: tuple[int, ...], batch: tuple[int, ...]) -> Bitsets:
    """Union per batch element of an array that broadcasts to ``shape``; of all of it, if it does not."""
    try:
        sets = np.broadcast_to(sets, shape)
    except ValueError:
        return np.broadcast_to(np.asarray(bitsets.union_all(sets), object), batch)
    axes = tuple(range(len(batch), len(shape)))
    return bitsets.union_over(sets, axes) if axes else sets


def _ordered_block(reads: int, first: int, size: int) -> list[int]:
    """Each scalar of an event reads all that the event does, and the scalars before it."""
    outside = reads & ~_block(first, size)
    return [outside | _block(first, i) for i in range(size)]


def _eliminated_block(
    factors: set[int], reads: int, support_reads: int, first: int, size: int, is_sum_of_conditionals: bool
) -> list[int]:
    """Conditionals of an event, from last to first: the factors of a scalar, which are then joined without it."""
    block = _block(first, size)
    # the normaliser of a density cancels; that of an unnormalised one is attributed to the whole event
    inner = {factor for factor in factors if factor & block}
    covered = support_reads
    for factor in inner:
        covered |= factor
    always = support_reads | (reads & ~covered & ~block)
    by_last: dict[int, list[int]] = {}
    for factor in inner:
        by_last.setdefault((factor & block).bit_length() - 1, []).append(factor)
    is_ordered = is_sum_of_conditionals and len(by_last) == size
    parents = [0] * size
    for i in reversed(range(size)):
        scalar, joined = 1 << (first + i), 0
        for factor in by_last.pop(first + i, []):
            joined |= factor
        parents[i] = (joined | always) & ~scalar
        rest = joined & ~scalar
        if rest & block and not is_ordered:
            by_last.setdefault((rest & block).bit_length() - 1, []).append(rest)
    return parents


def _block(first: int, size: int) -> int:
    return ((1 << size) - 1) << first
