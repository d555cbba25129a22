"""A structure as a table, in text and in HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from simformer_ppl.structure.sites import Site
from simformer_ppl.structure.supports import describe

if TYPE_CHECKING:
    from simformer_ppl.structure.model_structure import ModelStructure

_CELL = "text-align: left; padding: 0.2em 0.8em"
_HEADER = ("site", "distribution", "shape", "dims", "support", "role", "tokens")


def text_table(structure: ModelStructure, dims: Mapping[str, Sequence[str]] | None = None) -> str:
    """Aligned columns, then counts and remarks; with names of axes, by site, in place of the structure's."""
    rows = [_HEADER, *(_row(site, dims or {}) for site in structure.sites.values())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(["ModelStructure", *lines, *remarks(structure)])


def html_table(structure: ModelStructure, dims: Mapping[str, Sequence[str]] | None = None) -> str:
    """The same as an HTML table."""
    head = "".join(f"<th style='{_CELL}'>{cell}</th>" for cell in _HEADER)
    body = "".join(
        "<tr>" + "".join(f"<td style='{_CELL}'>{escape(cell)}</td>" for cell in _row(site, dims or {})) + "</tr>"
        for site in structure.sites.values()
    )
    notes = "<br>".join(escape(line) for line in remarks(structure))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><p>{notes}</p>"


def remarks(structure: ModelStructure) -> list[str]:
    """Counts, and what is worth knowing: what is no token, what is exchangeable, what is dense."""
    tokens, edges = structure.num_tokens, structure.num_edges
    density = edges / (tokens * (tokens - 1) / 2) if tokens > 1 else 0.0
    counts = [f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in ((tokens, "token"), (edges, "edge"))]
    lines = [f"{', '.join(counts)}, {density:.1%} of the possible pairs"]
    if structure.nuisances:
        lines.append(f"nuisances, simulated and left out: {', '.join(structure.nuisances)}")
    if structure.exchangeable:
        lines.append(f"exchangeable plates: {', '.join(structure.exchangeable)}")
    if structure.constant_plates:
        lines.append(f"plates whose elements differ by known constants only: {', '.join(structure.constant_plates)}")
    if structure.factors:
        lines.append(f"factors, not simulated: {', '.join(structure.factors)}")
    return lines + [f"dense: {reason}" for reason in structure.info]


def _row(site: Site, dims: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    kinds = {
        "covariate": site.is_covariate,
        "embedded": site.is_embedded,
        "data": site.is_data,
        "deterministic": site.is_deterministic,
    }
    role = next((role for role, holds in kinds.items() if holds), "parameter")
    support = describe(site.support) + ("" if site.support_is_static else " *")
    named = ", ".join(dims.get(site.name, site.dims))
    return site.name, site.distribution, str(site.shape), named, support, role, str(site.num_tokens)
