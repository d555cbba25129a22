"""What is read from a model before it is decided how to present it: sites, scalar graph and supports."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import constraints

from simformer_ppl.structure.abstract_value import Value
from simformer_ppl.structure.exchangeability import Exchangeability, read_exchangeability
from simformer_ppl.structure.explanation import Path
from simformer_ppl.structure.graph import Graph
from simformer_ppl.structure.laws import Laws, SiteLaw, trace_laws
from simformer_ppl.structure.parents import parents_of_scalars
from simformer_ppl.structure.supports import static_support
from simformer_ppl.structure.tracing import ModelTrace, trace_with_key
from simformer_ppl.structure.trail import Step, Trail

HIDDEN_NOISE = "hidden noise"
"""Stands among the sites that a support reads, for noise that is no site."""


@dataclass(frozen=True)
class Reading:
    """What a model's laws say.

    Attributes
    ----------
    nodes
        Sites whose scalars are nodes, in trace order.
    num_noise
        Noise sources that come before them.
    scalars
        Directed graph over noise sources and scalars.
    supports
        Static support per node, and whether it is exact.
    support_reads
        Per node whose support is not static, the sample sites it reads; :data:`HIDDEN_NOISE` among them, if any.
    deterministics
        Per deterministic site, the sample sites it reads and whether it reads hidden noise.
    info
        Where and why the graph had to be dense.
    soft
        Sites that are observed at a value which reads other sites.
    given
        The graph with the values of some sites taken as constants; None if it is dense.
    path
        The equations by which scalars of a site came into the law of another; None if the graph is dense.
    exchangeability
        Which plates have elements that are alike, from the graph over tokens and the shapes of the tokens of all nodes.
    """

    nodes: tuple[str, ...]
    num_noise: int
    scalars: Graph
    supports: dict[str, tuple[constraints.Constraint, bool]]
    support_reads: dict[str, frozenset[str]]
    deterministics: dict[str, tuple[frozenset[str], bool]]
    info: list[str]
    soft: tuple[str, ...] = ()
    given: Callable[[Mapping[str, np.ndarray]], Graph] | None = None
    path: Path | None = None
    exchangeability: Callable[[Graph, Mapping[str, tuple[int, ...]], Collection[str]], Exchangeability] | None = None


def read_laws(
    model: Callable[..., Any],
    args: Sequence[Any],
    kwargs: dict[str, Any],
    trace: ModelTrace,
    deterministic_nodes: frozenset[str],
) -> Reading:
    """Interpret the laws of all sites."""
    laws = trace_laws(model, args, kwargs, trace, deterministic_nodes)
    found, info, unheld, soft = laws.interpret()
    if unheld:
        raise ValueError(
            f"sites {unheld}: their values cannot be set from outside the model, so what reads them cannot be told. "
            "Sample them in the model itself, or in a plain scan or cond of numpyro.contrib.control_flow"
        )
    deterministics = _deterministic_reads(laws, found)

    def simulate(key: jax.Array) -> dict[str, jax.Array]:
        _, messages = trace_with_key(model, args, kwargs, key)
        return {name: jnp.reshape(messages[name]["value"], trace.sites[name].shape) for name in laws.nodes}

    return Reading(
        nodes=laws.nodes,
        num_noise=laws.num_noise,
        scalars=parents_of_scalars(laws, found),
        supports={name: _support(found[name]) for name in laws.nodes},
        support_reads=_support_reads(laws, found, deterministics),
        deterministics=deterministics,
        info=info,
        soft=tuple(soft),
        given=lambda values: parents_of_scalars(laws, laws.interpret(values).laws),
        path=_Paths(laws),
        exchangeability=lambda full, shapes, apart: read_exchangeability(laws, simulate, full, shapes, apart),
    )


class _Paths:
    """The equations between two sites. Keeps every value of the program, so it is made when first asked for."""

    def __init__(self, laws: Laws):
        self._laws = laws

    @cached_property
    def _interpreted(self) -> tuple[dict[str, SiteLaw], Trail]:
        trail = Trail()
        return self._laws.interpret(trail=trail).laws, trail

    def __call__(self, child: str, scalar: int, parent: str, first: int, count: int) -> list[Step] | None:
        found, trail = self._interpreted
        law, shape = found[child], self._laws.trace.sites[child].shape
        scalars = ((1 << count) - 1) << self._laws.starts()[parent] + first
        element = tuple(map(int, np.unravel_index(scalar, shape)))[: len(shape) - law.event_dim]
        output = trail.back(law.output, scalars, element if law.output.shape == shape[: len(element)] else None)
        paths = (output, *(trail.back(parameter, scalars) for parameter in law.parameters))
        return next((path for path in paths if path is not None), None)


def read_densely(
    model: Callable[..., Any],
    args: Sequence[Any],
    kwargs: dict[str, Any],
    deterministic_nodes: frozenset[str],
    reason: str,
) -> tuple[ModelTrace, Reading]:
    """Simulate a model that cannot be traced abstractly: every scalar reads all before it.

    A support is exact if two simulations agree on it. The reason stands in the structure's `info`.
    """
    (trace, first), (_, second) = (trace_with_key(model, args, kwargs, jax.random.key(seed)) for seed in (0, 1))
    nodes = tuple(n for n, site in trace.sites.items() if not site.is_deterministic or n in deterministic_nodes)
    num_scalars = sum(trace.sites[name].size for name in nodes)
    supports = {}
    for name in nodes:
        supports[name] = (constraints.real, True)
        if not trace.sites[name].is_deterministic:
            traced = trace.sites[name].traced_names[0]
            supports[name] = _agreed_support(first[traced]["fn"], second.get(traced, first[traced])["fn"])
    deterministics: dict[str, tuple[frozenset[str], bool]] = {}
    earlier: set[str] = set()
    support_reads = {}
    for name, site in trace.sites.items():
        if name in nodes and not supports[name][1]:
            support_reads[name] = frozenset(earlier)
        if site.is_deterministic:
            deterministics[name] = (frozenset(earlier), trace.num_keys > 0)
        else:
            earlier.add(name)
    scalars = [(1 << scalar) - 1 for scalar in range(num_scalars)]
    return trace, Reading(nodes, 0, scalars, supports, support_reads, deterministics, [reason])


def _support(law: SiteLaw) -> tuple[constraints.Constraint, bool]:
    if law.kind == "deterministic" or law.support is None:
        return constraints.real, True
    return static_support(law.support, law.parameters)


def _agreed_support(first: Any, second: Any) -> tuple[constraints.Constraint, bool]:
    leaves, others = jax.tree.leaves(first.support), jax.tree.leaves(second.support)
    same = len(leaves) == len(others)
    parameters = []
    for index, leaf in enumerate(leaves):
        agrees = same and np.array_equal(leaf, others[index])
        parameters.append(Value.of_constant(np.asarray(leaf)) if agrees else Value(np.shape(leaf)))
    return static_support(first.support, parameters)


def _deterministic_reads(laws: Laws, found: dict[str, SiteLaw]) -> dict[str, tuple[frozenset[str], bool]]:
    """Deterministic nodes are looked through: what counts is which sample sites must be at hand."""
    starts = laws.starts()
    reads: dict[str, tuple[frozenset[str], bool]] = {}
    for name in laws.trace.deterministic:
        reads[name] = _sample_sites_read(laws, found[name].output.all_reads(), starts, reads)
    return reads


def _support_reads(
    laws: Laws, found: dict[str, SiteLaw], deterministics: dict[str, tuple[frozenset[str], bool]]
) -> dict[str, frozenset[str]]:
    starts = laws.starts()
    reads = {}
    for name in laws.nodes:
        if not _support(found[name])[1]:
            bitset = 0
            for parameter in found[name].parameters:
                bitset |= parameter.all_reads()
            names, is_random = _sample_sites_read(laws, bitset, starts, deterministics)
            reads[name] = names | {HIDDEN_NOISE} if is_random else names
    return reads


def _sample_sites_read(
    laws: Laws, bitset: int, starts: Mapping[str, int], deterministics: Mapping[str, tuple[frozenset[str], bool]]
) -> tuple[frozenset[str], bool]:
    """Sample sites among the scalars of a bitset, and whether hidden noise is; deterministic nodes looked through."""
    names: set[str] = set()
    is_random = bool(bitset & ((1 << laws.num_noise) - 1))
    for node in laws.nodes:
        if bitset >> starts[node] & ((1 << laws.trace.sites[node].size) - 1):
            through, noisy = deterministics.get(node, (frozenset({node}), False))
            names |= through
            is_random |= noisy
    return frozenset(names), is_random
