"""Why there is an edge, in a sentence."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import TYPE_CHECKING

from simformer_ppl.structure.sites import Site
from simformer_ppl.structure.token_graph import TokenGraph
from simformer_ppl.structure.trail import Step, describe

if TYPE_CHECKING:
    from simformer_ppl.structure.model_structure import ModelStructure

_MOST_NAMES = 8


Path = Callable[[str, int, str, int, int], list[Step] | None]
"""From a site and a scalar of it, and another site, a first scalar of it and a number of them, to the equations
between."""


def explain_edge(structure: ModelStructure, child: str, parent: str, graph: TokenGraph, path: Path | None) -> str:
    """Say which law made an edge between two tokens, and by which operations of the model.

    Parameters
    ----------
    structure
        The model.
    child, parent
        Token labels.
    graph
        Over all nodes, before nuisances are eliminated.
    path
        The equations between two sites; None if the model could not be traced.

    Raises
    ------
    ValueError
        If a token is unknown.
    """
    row, column = _position(structure, child), _position(structure, parent)
    if not graph.parents[row] >> column & 1:
        backwards = f", it is {parent} that reads {child}" if graph.parents[column] >> row & 1 else ""
        return f"no edge: {child} does not read {parent}{backwards}"
    if not graph.is_direct(row, column):
        between = ", ".join(graph.between(row))
        return f"{child} reads {parent} through what is no token: {between}"
    site, other = _site_of(structure, row), _site_of(structure, column)
    if path is None:
        return f"{child} is taken to read all before it: {'; '.join(structure.info)}"
    unit = (column - other.token_slice.start) // other.tokens_per_unit
    if site is other and (row - site.token_slice.start) // site.tokens_per_unit == unit and site.tokens_per_unit > 1:
        return f"{child} and {parent} belong to one event of {site.name!r}, whose support couples its scalars"
    law = "the value" if site.is_deterministic else f"the {site.distribution} law"
    own = "the earlier scalar " if site is other else ""
    scalar = (row - site.token_slice.start) // site.tokens_per_unit * site.scalars_per_unit
    steps = path(site.name, scalar, other.name, unit * other.scalars_per_unit, other.scalars_per_unit)
    through = describe(steps or [])
    return f"{law} of {site.name!r} reads {own}{parent}" + (f", through {through}" if through else "")


def _position(structure: ModelStructure, token: str) -> int:
    """Which token a label means; blanks do not matter."""
    wanted = token.replace(" ", "")
    for position, label in enumerate(structure.tokens):
        if label.replace(" ", "") == wanted:
            return position
    name = token.split("[")[0]
    if name in structure.nuisances:
        raise ValueError(f"{token!r} is no token: {name!r} is left out, and marginalised")
    if name in structure.factors:
        raise ValueError(f"{token!r} is no token: {name!r} is a factor, which is not simulated")
    if name in structure.sites:
        labels = structure.tokens[structure.sites[name].token_slice]
        listed = ", ".join(labels) if len(labels) <= _MOST_NAMES else f"{labels[0]}, ..., {labels[-1]}"
        raise ValueError(f"unknown token {token!r}: the tokens of {name!r} are {listed}")
    if name in structure.deterministics:
        raise ValueError(f"{token!r} is no token: {name!r} is a deterministic site that is not among `sites`")
    close = difflib.get_close_matches(token, structure.tokens, 3) or difflib.get_close_matches(name, structure.sites, 3)
    hint = f", did you mean {' or '.join(close)}?" if close else f": the sites are {', '.join(structure.sites)}"
    raise ValueError(f"unknown token {token!r}{hint}")


def _site_of(structure: ModelStructure, position: int) -> Site:
    return next(s for s in structure.sites.values() if s.token_slice.start <= position < s.token_slice.stop)
