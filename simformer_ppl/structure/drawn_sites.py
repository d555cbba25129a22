"""What a graph shows a node for: a site, or a series of sites that a Python loop has numbered."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from simformer_ppl.structure import bitsets
from simformer_ppl.structure.sites import Site

if TYPE_CHECKING:
    from simformer_ppl.structure.model_structure import ModelStructure

# Sites up to which every one gets a node of its own.
MOST_SITES = 24
_SHORTEST_SERIES = 3
_NUMBERED = re.compile(r"^(.*?)[_\[(]?\d+[\])]?$")


@dataclass(frozen=True)
class DrawnSite:
    """A node of the drawn graph.

    Attributes
    ----------
    name
        Of the site, or the first and last of a series.
    plates
        Around it.
    is_data, is_deterministic
        As of the site.
    """

    name: str
    plates: tuple[str, ...]
    is_data: bool
    is_deterministic: bool


def drawn_sites(structure: ModelStructure) -> tuple[dict[str, DrawnSite], list[tuple[str, str]]]:
    """The nodes of a graph and its edges (parent, child), loops among them, in trace order."""
    groups = _groups(structure)
    drawn: dict[str, DrawnSite] = {}
    node_of_site: dict[str, str] = {}
    for members in groups:
        first, name = members[0], members[0].name
        if len(members) > 1:
            name = f"{first.name} … {members[-1].name}"
        drawn[name] = DrawnSite(name, first.plates, first.is_data, first.is_deterministic)
        node_of_site |= {site.name: name for site in members}
    node_of_token = [node_of_site[name] for name, site in structure.sites.items() for _ in range(site.num_tokens)]
    edges = dict.fromkeys(
        (node_of_token[parent], child)
        for child, parents in zip(node_of_token, structure.parents, strict=True)
        for parent in bitsets.members(parents)
    )
    return drawn, list(edges)


def _groups(structure: ModelStructure) -> list[list[Site]]:
    """Sites that are drawn as one node, in trace order."""
    sites = list(structure.sites.values())
    if len(sites) <= MOST_SITES:
        return [[site] for site in sites]
    series: dict[tuple, list[Site]] = {}
    for site in sites:
        numbered = _NUMBERED.match(site.name)
        stem = numbered.group(1) if numbered else None
        alike = (site.distribution, site.shape, site.plates, site.is_data) if stem else (site.name,)
        series.setdefault((stem, *alike), []).append(site)
    return [
        part
        for members in series.values()
        for part in ([members] if len(members) >= _SHORTEST_SERIES else [[site] for site in members])
    ]
