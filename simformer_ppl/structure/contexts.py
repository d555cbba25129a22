"""Independence that holds once some discrete values are known: with ``z`` given, ``m[z]`` reads one element of ``m``.

The law of a token may read some discrete tokens. The program is read once for every combination of values of these,
taken as constants, and the edges that a combination rules out are kept in a table. Discrete tokens that no law reads
together take their values at the same time, so that few readings are enough: a law cannot tell what values tokens have
that it does not read.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int
from numpyro.distributions import constraints

from simformer_ppl.structure import bitsets
from simformer_ppl.structure.graph import Graph, to_matrix
from simformer_ppl.structure.sites import Site
from simformer_ppl.structure.supports import base_constraint

# Readings of the program, tokens read in all, and entries of the table that are worth it.
_MOST_READINGS = 64
_MOST_TOKENS_READ = 20_000
_LARGEST_TABLE = 20_000_000


@dataclass(frozen=True, eq=False, repr=False)
class Contexts:
    """What the values of discrete tokens rule out.

    Attributes
    ----------
    adjacency
        Directed graph over tokens, row = child.
    rows
        Tokens whose laws read less once some discrete tokens are known.
    selectors
        Per row and factor of the combinations, the discrete token that decides; -1 where none does.
    sizes
        Number of values of each factor.
    table
        Per row and combination, the parents that are left.
    first_value
        Smallest value of every discrete token.
    """

    adjacency: Bool[np.ndarray, "tokens tokens"]
    rows: Int[np.ndarray, " rows"]
    selectors: Int[np.ndarray, "rows factors"]
    sizes: tuple[int, ...]
    table: Bool[np.ndarray, "rows combinations tokens"]
    first_value: Int[np.ndarray, " tokens"]

    def __repr__(self) -> str:
        combinations = math.prod(self.sizes)
        return f"Contexts({len(self.rows)} tokens read less under {combinations} combinations of discrete values)"

    def moral(self, conditioned: Bool[Array, " tokens"], values: Int[Array, " tokens"]) -> Bool[Array, "tokens tokens"]:
        """Moral graph, given the values of discrete tokens.

        Parameters
        ----------
        conditioned
            True for given tokens. Traceable by JAX.
        values
            Values of the discrete tokens; those of latent ones do not matter.

        Returns
        -------
        Symmetric, diagonal False.
        """
        decides = self.selectors >= 0
        known = (conditioned[self.selectors] | ~decides).all(1)
        steps = np.append(np.cumprod(self.sizes[::-1])[::-1][1:], 1)
        digits = jnp.clip((values - self.first_value)[self.selectors], 0, np.asarray(self.sizes) - 1)
        combination = (jnp.where(decides, digits, 0) * steps).sum(1)
        left = jnp.asarray(self.table)[np.arange(len(self.rows)), combination]
        rows = jnp.where(known[:, None], left, self.adjacency[self.rows])
        adjacency = jnp.asarray(self.adjacency).at[self.rows].set(rows)
        counts = adjacency.astype(jnp.float32)
        married = counts.T @ counts > 0
        return (adjacency | adjacency.T | married) & ~np.eye(len(self.adjacency), dtype=bool)


def read_contexts(
    sites: Mapping[str, Site], parents: Graph, given: Callable[[Mapping[str, np.ndarray]], Graph]
) -> Contexts | None:
    """Find what known discrete values rule out.

    Parameters
    ----------
    sites
        All sites are tokens, and there is no hidden noise: what is eliminated would have to be eliminated anew for
        every combination.
    parents
        Directed graph over tokens.
    given
        The same graph, with the values of some sites taken as constants.

    Returns
    -------
    None if nothing is ruled out, or finding out would take too long.
    """
    low, count = _ranges(sites, len(parents))
    discrete = bitsets.of_members(np.flatnonzero(count).tolist())
    read = [(own | 1 << token) & discrete for token, own in enumerate(parents)]
    most = min(_MOST_READINGS, _MOST_TOKENS_READ // len(parents))
    read = [family if math.prod(count[bitsets.members(family)].tolist()) <= most else 0 for family in read]
    factor_of = _colour(read)
    sizes = tuple(max(count[t].item() for t in factor_of if factor_of[t] == f) for f in sorted(set(factor_of.values())))
    if not sizes or math.prod(sizes) > most:
        return None
    factor = np.asarray([factor_of.get(token, 0) for token in range(len(parents))])
    readings: list[Graph] = []
    for combination in itertools.product(*map(range, sizes)):
        values = low + np.minimum(np.asarray(combination)[factor], np.maximum(count - 1, 0))
        known = {n: values[s.token_slice].reshape(s.shape) for n, s in sites.items() if count[s.token_slice].any()}
        readings.append(given(known))
    rows = [t for t, own in enumerate(parents) if read[t] and any(reading[t] != own for reading in readings)]
    if not rows or len(rows) * len(readings) * len(parents) > _LARGEST_TABLE:
        return None
    selectors = np.full((len(rows), len(sizes)), -1)
    for row, token in enumerate(rows):
        for other in bitsets.members(read[token]):
            selectors[row, factor_of[other]] = other
    table = np.stack([bitsets.to_matrix([reading[token] for token in rows], len(parents)) for reading in readings], 1)
    return Contexts(to_matrix(parents), np.asarray(rows), selectors, sizes, table, low)


def _ranges(
    sites: Mapping[str, Site], num_tokens: int
) -> tuple[Int[np.ndarray, " tokens"], Int[np.ndarray, " tokens"]]:
    """Per token, the smallest value and the number of values; 0 and 0 for those that do not have few."""
    low, count = np.zeros(num_tokens, int), np.zeros(num_tokens, int)
    for site in sites.values():
        support = base_constraint(site.support)
        if site.is_deterministic or not site.is_elementwise or not site.support_is_static:
            continue
        if site.num_categories:
            bounds = 0, site.num_categories - 1
        elif support is constraints.boolean:
            bounds = 0, 1
        elif isinstance(support, constraints.integer_interval):
            bounds = int(np.min(support.lower_bound)), int(np.max(support.upper_bound))
        else:
            continue
        if bounds[1] - bounds[0] < _MOST_READINGS:
            low[site.token_slice], count[site.token_slice] = bounds[0], bounds[1] - bounds[0] + 1
    return low, count


def _colour(read: Sequence[int]) -> dict[int, int]:
    """Number discrete tokens such that those read by one law have different numbers; greedily."""
    together: dict[int, int] = {}
    for family in set(read):
        for token in bitsets.members(family):
            together[token] = together.get(token, 0) | family
    factor_of: dict[int, int] = {}
    for token in sorted(together):
        taken = {factor_of[other] for other in bitsets.members(together[token]) if other in factor_of}
        factor_of[token] = next(number for number in itertools.count() if number not in taken)
    return factor_of
