"""Numerical probes of a graph: what moves when one event of one site is replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from simformer_ppl.structure.model_structure import ModelStructure
from simformer_ppl.structure.running import run
from simformer_ppl.structure.sites import Site
from simformer_ppl.structure.tracing import elementary

Values = dict[str, np.ndarray]

# compiled once, run a few times
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@dataclass
class Probed:
    """What a probe found: edges without which nothing would have moved, and what moved without an edge, in words."""

    needed: Bool[np.ndarray, "tokens tokens"]
    unsound: list[str]


def probe(model: Callable[[], None], structure: ModelStructure, seed: int = 0) -> Probed:
    """Probe the densities of a model at two pairs of draws."""
    draws, densities = simulated(model, structure, 4, seed), densities_of(model, structure)
    probed = Probed(np.zeros_like(structure.adjacency), [])
    for base in (0, 2):
        pair = tuple({name: draw[row] for name, draw in draws.items()} for row in (base, base + 1))
        probed.unsound.extend(probe_densities(densities, structure, pair, probed.needed))
    return probed


def simulated(model: Callable[[], None], structure: ModelStructure, count: int, seed: int) -> Values:
    """Draws of all sites of a structure, and of the nuisances."""
    names = [*structure.sites, *structure.nuisances]

    def draw(key):
        messages, _ = run(model, (), {}, key)
        return {name: jnp.asarray(messages[name]["value"]) for name in names}

    compiled = jax.jit(draw, compiler_options=QUICK)
    draws = [compiled(key) for key in jax.random.split(jax.random.key(seed), count)]
    return {name: np.stack([np.asarray(draw[name]) for draw in draws]) for name in names}


def laws_at(model: Callable[[], None], structure: ModelStructure, values: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Distributions of all sample sites without masks and ``to_event``, and the deterministic values."""
    parts = {f"{n}_{suffix}": v for n, v in values.items() for suffix in ("observed", "unobserved")}
    messages, handler = run(model, (), {}, jax.random.key(0), held={**parts, **values})
    laws = {}
    for name in [*structure.sites, *structure.nuisances]:
        message = messages[name]
        if message["type"] == "deterministic" and f"{name}_observed" in messages:
            message = messages[f"{name}_observed"]
        if message["type"] == "sample":
            laws[name] = elementary(message["fn"])
    return laws, handler.deterministic


def densities_of(model: Callable[[], None], structure: ModelStructure) -> Callable[[Values], Values]:
    """Log densities, or deterministic values, of all sites of a structure given the values of all."""

    def densities(values):
        laws, computed = laws_at(model, structure, values)
        return {
            n: computed[n] if s.is_deterministic else laws[n].log_prob(values[n]) for n, s in structure.sites.items()
        }

    return jax.jit(densities, compiler_options=QUICK)


def probe_densities(
    densities: Callable[[Values], Values],
    structure: ModelStructure,
    pair: tuple[Values, Values],
    needed: np.ndarray,
) -> list[str]:
    """Replace one event by that of another draw: what moves must belong to a child of it.

    Parameters
    ----------
    densities
        What `densities_of` returns.
    structure
        The model's.
    pair
        Two draws.
    needed
        Adjacency matrix in which the edges that were needed are marked.

    Returns
    -------
    What moved without an edge, in words.
    """
    unsound = []
    before = {name: np.asarray(value) for name, value in densities(pair[0]).items()}
    for parent, event, changed in one_event_changes(structure, *pair):
        columns = event_tokens(structure.sites[parent], event, num_events(structure.sites[parent]))
        for child, found in densities(changed).items():
            found = np.asarray(found)
            moved = ~((found == before[child]) | (np.isnan(found) & np.isnan(before[child])))
            for element in np.flatnonzero(moved.ravel()):
                rows = event_tokens(structure.sites[child], element, moved.size)
                block = np.ix_(rows, columns)
                if child == parent and set(rows) & set(columns):
                    continue
                if not structure.adjacency[block].any():
                    size = np.ravel(found)[element] - np.ravel(before[child])[element]
                    unsound.append(f"{child}[{element}] moves by {size:.3g} with {parent}[{event}]")
                needed[block] = True
    return unsound


def num_events(site: Site) -> int:
    """Events of a site; scalars, where its support acts on them one by one."""
    return site.num_tokens if site.is_elementwise else int(np.prod(site.shape[: len(site.shape) - site.event_dim]))


def event_tokens(site: Site, event: int, count: int) -> list[int]:
    """Tokens of one of so many equal parts of a site."""
    width = site.num_tokens // max(count, 1)
    if width == 0:
        return list(range(site.token_slice.start, site.token_slice.stop))
    return list(range(site.token_slice.start + event * width, site.token_slice.start + (event + 1) * width))


def one_event_changes(
    structure: ModelStructure, values: Values, replacement: Values
) -> Iterator[tuple[str, int, Values]]:
    """Site, event, and the values with that event replaced."""
    for name, site in structure.sites.items():
        count = num_events(site)
        for event in range(count):
            changed = values[name].copy().reshape(count, -1)
            changed[event] = replacement[name].reshape(count, -1)[event]
            yield name, event, {**values, name: changed.reshape(values[name].shape)}
