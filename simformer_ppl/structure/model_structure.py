"""The structure of a model: its sites, its tokens, and which token's law reads which."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import networkx as nx
import numpy as np
from jaxtyping import Bool, Float

from simformer_ppl.structure import bitsets, plots
from simformer_ppl.structure.attention_masks import attention_mask
from simformer_ppl.structure.exchangeability import Exchangeability
from simformer_ppl.structure.graph import Graph, to_matrix
from simformer_ppl.structure.sites import Deterministic, Site
from simformer_ppl.structure.tables import html_table, text_table
from simformer_ppl.structure.token_graph import Block, kept_tokens, marginal_moral, tokenise

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, repr=False, eq=False)
class ModelStructure:
    """What `trace_structure` reads from a model.

    Attributes
    ----------
    sites
        Sites whose scalars are tokens, in trace order.
    tokens
        A label per token, such as ``theta[3]``.
    plates
        Size of every plate.
    deterministics
        Every ``numpyro.deterministic`` site, token or not.
    nuisances
        Random sites that are simulated but no tokens.
    factors
        ``numpyro.factor`` sites; a soft constraint is not simulated.
    info
        Every place where the graph had to be dense, and why.
    """

    sites: dict[str, Site]
    tokens: tuple[str, ...]
    plates: dict[str, int]
    deterministics: dict[str, Deterministic]
    nuisances: tuple[str, ...]
    factors: tuple[str, ...]
    info: list[str]
    _parents: Graph = field(default_factory=list)
    _blocks: dict[str, Block] = field(default_factory=dict)
    _full: Graph = field(default_factory=list)
    _scalar_graph: Callable[[Mapping[str, np.ndarray]], Graph] | None = None
    _exchangeability: Callable[[], Exchangeability] | None = None

    @property
    def num_tokens(self) -> int:
        """Number of tokens."""
        return len(self.tokens)

    @property
    def num_edges(self) -> int:
        """Number of pairs of tokens one of which reads the other."""
        return sum(parents.bit_count() for parents in self._parents)

    @cached_property
    def adjacency(self) -> Bool[np.ndarray, "tokens tokens"]:
        """The law of the token of the row, given those before it, may read the token of the column.

        Diagonal False; nuisances eliminated. Made when first asked for: the structure itself keeps sets of parents.
        """
        return to_matrix(self._parents)

    @property
    def exchangeable(self) -> tuple[str, ...]:
        """Plates whose elements the model cannot tell apart.

        The graph and, at a few simulated draws, the densities stay as they are when all sites inside are permuted
        along the plate. Simulated when first asked for; a model that cannot be run has none.
        """
        return self._alike.plates

    @property
    def constant_plates(self) -> tuple[str, ...]:
        """Plates whose elements differ by known constants only: standard errors, covariates, group indices.

        The densities stay as they are when these constants are permuted along with all sites inside.
        """
        return self._alike.constant_plates

    @cached_property
    def token_constants(self) -> Float[np.ndarray, "tokens constants"]:
        """Known constants by which elements of :attr:`constant_plates` differ; NaN where one does not apply."""
        constants = self._alike.constants
        if constants is None:
            return np.zeros((self.num_tokens, 0), np.float32)
        return np.concatenate([constants[name].reshape(site.num_tokens, -1) for name, site in self.sites.items()])

    @cached_property
    def _alike(self) -> Exchangeability:
        if self._exchangeability is None:
            return Exchangeability()
        try:
            return self._exchangeability()
        except Exception as error:  # sharing weights is an economy: not worth failing for
            self.info.append(f"exchangeable plates unknown: {type(error).__name__} {error}"[:160])
            return Exchangeability()

    @property
    def has_hidden_noise(self) -> bool:
        """Whether a law reads noise that is no site, such as ``numpyro.prng_key``."""
        width = len(self._full) - sum(b.num_tokens for name, b in self._blocks.items() if not name.startswith("noise "))
        return any(parents & ((1 << width) - 1) for parents in self._full)

    def moral(self) -> Bool[np.ndarray, "tokens tokens"]:
        """Moral graph of the tokens, symmetric, diagonal False.

        It comes from the full graph: nuisances that nothing reads go first, then parents of a common child are
        joined, then the other nuisances are eliminated.
        """
        return self._moral.copy()

    @cached_property
    def _moral(self) -> Bool[np.ndarray, "tokens tokens"]:
        return to_matrix(marginal_moral(self._full, kept_tokens(list(self._blocks.values()))))

    def attention_mask(
        self, conditioned: Bool[np.ndarray, " tokens"], values: Mapping[str, Any] | None = None
    ) -> Bool[np.ndarray, "tokens tokens"]:
        """Which token attends to which, for a set of given tokens.

        Parameters
        ----------
        conditioned
            True for given tokens.
        values
            Values of sites. Those that are wholly given are taken as constants, which removes the edges that these
            values rule out: with ``z`` given, ``m[z]`` reads one element.

        Returns
        -------
        Row = query, diagonal True.
        """
        conditioned = np.asarray(conditioned, bool)
        moral = self.moral() if values is None else self._moral_given(conditioned, values)
        return np.asarray(attention_mask(jnp.asarray(moral), jnp.asarray(conditioned)))

    def _moral_given(
        self, conditioned: Bool[np.ndarray, " tokens"], values: Mapping[str, Any]
    ) -> Bool[np.ndarray, "tokens tokens"]:
        unknown = [name for name in values if name not in self.sites]
        if unknown:
            raise ValueError(f"unknown sites {unknown}: the sites are {list(self.sites)}")
        given = {n: np.asarray(v) for n, v in values.items() if conditioned[self.sites[n].token_slice].all()}
        if not given or self._scalar_graph is None:
            return self.moral()
        blocks = list(self._blocks.values())
        return to_matrix(marginal_moral(tokenise(self._scalar_graph(given), blocks), kept_tokens(blocks)))

    def explain(self, child: str, parent: str) -> str:
        """Say which law made an edge.

        Parameters
        ----------
        child, parent
            Token labels, such as ``"y[2]"`` and ``"theta[2]"``.
        """
        row, column = self._position(child), self._position(parent)
        if not self._parents[row] >> column & 1:
            return f"no edge: the law of {child} does not read {parent}"
        site, other = self._site_of(row), self._site_of(column)
        law = "the value" if site.is_deterministic else f"the {site.distribution} law"
        if not self._full[self._node(row)] >> self._node(column) & 1:
            return f"{child} reads {parent} through what is no token: {', '.join(self._between(row)) or 'hidden noise'}"
        if site is other and not site.is_elementwise:
            return f"{child} and {parent} belong to one event of {site.name!r}, whose support couples its scalars"
        if site is other:
            return f"{law} of {site.name!r} reads its own earlier scalar {parent}"
        return f"{law} of {site.name!r} reads {parent}"

    def _position(self, token: str) -> int:
        if token not in self.tokens:
            raise ValueError(f"unknown token {token!r}: the tokens are {', '.join(self.tokens[:20])}, ...")
        return self.tokens.index(token)

    def _site_of(self, position: int) -> Site:
        return next(s for s in self.sites.values() if s.token_slice.start <= position < s.token_slice.stop)

    def _node(self, position: int) -> int:
        return int(np.flatnonzero(kept_tokens(list(self._blocks.values())))[position])

    def _between(self, position: int) -> list[str]:
        """Nuisance sites that a token reads."""
        reads, start, found = self._full[self._node(position)], 0, []
        for name, block in self._blocks.items():
            if name in self.nuisances and reads >> start & ((1 << block.num_tokens) - 1):
                found.append(name)
            start += block.num_tokens
        return found

    def plot(self, kind: str = "matrix", ax: Axes | None = None, **kwargs: Any) -> Axes:
        """Draw the adjacency matrix, or the graph.

        Parameters
        ----------
        kind
            ``"matrix"`` or ``"graph"``.
        ax
            Where to draw.
        **kwargs
            For `plots.plot_matrix` or `plots.plot_graph`.
        """
        drawings = {"matrix": plots.plot_matrix, "graph": plots.plot_graph}
        if kind not in drawings:
            raise ValueError(f"kind is 'matrix' or 'graph', not {kind!r}")
        return drawings[kind](self, ax=ax, **kwargs)

    def to_networkx(self) -> nx.DiGraph:
        """Graph with a node per token (attributes ``site`` and ``is_data``) and edges from parent to child."""
        out = nx.DiGraph()
        for site in self.sites.values():
            for token in self.tokens[site.token_slice]:
                out.add_node(token, site=site.name, is_data=site.is_data)
        for child, parents in zip(self.tokens, self._parents, strict=True):
            out.add_edges_from((self.tokens[parent], child) for parent in bitsets.members(parents))
        return out

    def __repr__(self) -> str:
        return text_table(self)

    def _repr_html_(self) -> str:
        return html_table(self)
