"""The structure of a model: its sites, its tokens, and which token's law reads which."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import networkx as nx
import numpy as np
from jaxtyping import Bool, Float

from simformer_ppl.structure import bitsets, plots
from simformer_ppl.structure.attention_masks import attention_mask
from simformer_ppl.structure.contexts import Contexts, read_contexts
from simformer_ppl.structure.exchangeability import Exchangeability
from simformer_ppl.structure.explanation import Path, explain_edge
from simformer_ppl.structure.graph import Graph, to_matrix
from simformer_ppl.structure.sites import Deterministic, Site
from simformer_ppl.structure.supports import describe
from simformer_ppl.structure.tables import html_table, text_table
from simformer_ppl.structure.token_graph import TokenGraph

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
    _graph: TokenGraph
    _axes: Mapping[str, tuple[tuple[int, ...], tuple[str, ...]]]
    _scalar_graph: Callable[[Mapping[str, np.ndarray]], Graph] | None = None
    _path: Path | None = None
    _exchangeability: Callable[[], Exchangeability] | None = None

    @property
    def num_tokens(self) -> int:
        """Number of tokens."""
        return len(self.tokens)

    @property
    def num_edges(self) -> int:
        """Number of pairs of tokens one of which reads the other."""
        return sum(parents.bit_count() for parents in self._graph.parents)

    @cached_property
    def adjacency(self) -> Bool[np.ndarray, "tokens tokens"]:
        """The law of the token of the row, given those before it, may read the token of the column.

        Diagonal False; nuisances eliminated. Made when first asked for: the structure itself keeps sets of parents.
        """
        return to_matrix(self._graph.parents)

    @property
    def exchangeable(self) -> tuple[str, ...]:
        """Plates whose elements the model cannot tell apart.

        The graph and, at 64 simulations (16 where a part of the model runs outside JAX), the densities stay as they
        are when all sites inside are permuted along the plate. Simulated when first asked for; a model that cannot be
        run has none.
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

    def reads_across(self, plate: str) -> tuple[str, str] | None:
        """Two sites, nuisances among them, the first of which reads the second in an element that it is not in itself.

        Without such a pair, the model with fewer elements of the plate is what is left of the larger one.
        """
        elements, names = [], []
        for name, block in self._graph.blocks.items():
            shape, dims = self._axes.get(str(name), ((), ()))
            within = plate in dims and not block.is_noise
            # scalars of an event that are read together may be one node each, or fewer
            index = np.indices(shape)[dims.index(plate)].ravel() if within else np.full(block.num_tokens, -1)
            elements.append(index)
            names += [str(name)] * block.num_tokens
        element = np.concatenate(elements)
        for child, parents in enumerate(self._graph.full):
            for parent in np.flatnonzero((element >= 0) & (element != element[child])):
                if parents >> int(parent) & 1:
                    return names[child], names[parent]
        return None

    @property
    def has_hidden_noise(self) -> bool:
        """Whether a law reads noise that is no site, such as ``numpyro.prng_key``."""
        return self._graph.reads_noise

    def moral(self) -> Bool[np.ndarray, "tokens tokens"]:
        """Moral graph of the tokens, symmetric, diagonal False.

        It comes from the full graph: nuisances that nothing reads go first, then parents of a common child are
        joined, then the other nuisances are eliminated.
        """
        return self._moral.copy()

    @cached_property
    def _moral(self) -> Bool[np.ndarray, "tokens tokens"]:
        return to_matrix(self._graph.moral())

    @property
    def parents(self) -> Graph:
        """For every token, the set of the tokens that its law reads, as the bits of an int; see `bitsets`."""
        return self._graph.parents

    def given_tokens(self, conditioned: Bool[np.ndarray, " tokens"] | Collection[str]) -> Bool[np.ndarray, " tokens"]:
        """True for the given tokens.

        Parameters
        ----------
        conditioned
            A mask over tokens, or names of sites that are wholly given.

        Raises
        ------
        ValueError
            If a mask is no bool array with an entry for every token, or a site is unknown.
        """
        names = [conditioned] if isinstance(conditioned, str) else list(conditioned)
        given = np.zeros(self.num_tokens, bool)
        if not all(isinstance(name, str) for name in names):
            mask = np.asarray(conditioned)
            if mask.shape != given.shape or mask.dtype != bool:
                raise ValueError(
                    f"conditioned: expected bools of shape {given.shape}, got {mask.dtype} of {mask.shape}"
                )
            return mask
        for name in names:
            if name not in self.sites:
                raise ValueError(f"conditioned: unknown site {name!r}, expected some of {list(self.sites)}")
            given[self.sites[name].token_slice] = True
        return given

    def attention_mask(
        self, conditioned: Bool[np.ndarray, " tokens"] | Collection[str], values: Mapping[str, Any] | None = None
    ) -> Bool[np.ndarray, "tokens tokens"]:
        """Which token attends to which, for a set of given tokens.

        Parameters
        ----------
        conditioned
            True for given tokens; or names of sites that are wholly given.
        values
            Values of sites. Those that are wholly given are taken as constants, which removes the edges that these
            values rule out: with ``z`` given, ``m[z]`` reads one element.

        Returns
        -------
        Row = query, diagonal True.

        Raises
        ------
        ValueError
            If a site is unknown, or a value does not fit its site.
        """
        given = self.given_tokens(conditioned)
        moral = self.moral() if values is None else self._moral_given(given, values)
        return np.asarray(attention_mask(jnp.asarray(moral), jnp.asarray(given)))

    def _moral_given(
        self, conditioned: Bool[np.ndarray, " tokens"], values: Mapping[str, Any]
    ) -> Bool[np.ndarray, "tokens tokens"]:
        unknown = [name for name in values if name not in self.sites]
        if unknown:
            raise ValueError(f"unknown sites {unknown}: the sites are {list(self.sites)}")
        read = {name: _fitting(self.sites[name], value) for name, value in values.items()}
        given = {name: value for name, value in read.items() if conditioned[self.sites[name].token_slice].all()}
        if not given or self._scalar_graph is None:
            return self.moral()
        return to_matrix(TokenGraph.of_scalars(self._scalar_graph(given), self._graph.blocks).moral())

    @cached_property
    def contexts(self) -> Contexts | None:
        """What known discrete values rule out: with ``z`` given, ``m[z]`` reads one element.

        None where they rule out nothing; where sites are left out or there is hidden noise, which would have to be
        eliminated anew for every value; and where too many values would have to be gone through.
        """
        graph, scalars = self._graph, self._scalar_graph
        if scalars is None or self.has_hidden_noise or self.nuisances:
            return None
        return read_contexts(
            self.sites, graph.parents, lambda values: TokenGraph.of_scalars(scalars(values), graph.blocks).parents
        )

    def explain(self, child: str, parent: str) -> str:
        """Say which law made an edge, and by which operations of the model.

        Parameters
        ----------
        child, parent
            Token labels, such as ``"y[2]"`` and ``"theta[2]"``.

        Raises
        ------
        ValueError
            If a token is unknown.
        """
        return explain_edge(self, child, parent, self._graph, self._path)

    def plot(self, kind: str = "matrix", ax: Axes | None = None, **kwargs: Any) -> Axes:
        """Draw a matrix over the tokens, or the graph of the sites.

        Parameters
        ----------
        kind
            ``"matrix"``: who is a neighbour of whom (the moral graph); with ``kind_matrix="adjacency"``, which row
            reads which column; with ``conditioned=["y"]``, who attends to whom when these sites are given, and with
            ``values={"z": ...}`` too, when their values are known. Or ``"graph"``: sites, plates and arrows.
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
        for child, parents in zip(self.tokens, self._graph.parents, strict=True):
            out.add_edges_from((self.tokens[parent], child) for parent in bitsets.members(parents))
        return out

    def __repr__(self) -> str:
        return text_table(self)

    def _repr_html_(self) -> str:
        return html_table(self)


def _fitting(site: Site, value: Any) -> np.ndarray:
    """A value of a site, in its shape; or a ValueError."""
    array = np.asarray(value)
    try:
        array = np.broadcast_to(array, site.shape)
    except ValueError:
        raise ValueError(f"Site '{site.name}': expected a value of shape {site.shape}, got {array.shape}.") from None
    if not np.asarray(site.support(array)).all():
        raise ValueError(f"Site '{site.name}': expected values in its support ({describe(site.support)}), got {value}.")
    return array
