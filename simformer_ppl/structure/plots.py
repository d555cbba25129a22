"""A model's structure, drawn: a matrix over tokens, and a graph of sites with plates."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Bool
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Ellipse, FancyArrowPatch, FancyBboxPatch, Patch, Rectangle
from matplotlib.path import Path

from simformer_ppl.structure.axis_labels import MAX_TOKEN_LABELS, spread, token_labels
from simformer_ppl.structure.drawn_sites import DrawnSite
from simformer_ppl.structure.graph_layout import LOOP, PLATE_SIZE, SITE_SIZE, Node, lay_out

if TYPE_CHECKING:
    from simformer_ppl.structure.model_structure import ModelStructure

__all__ = ["plot_graph", "plot_matrix"]

# Okabe & Ito's palette: told apart under every common colour blindness
LATENT = "#0072B2"
GIVEN = "#E69F00"
INK = "#222222"
FAINT = "#9A9A9A"
SHADE = "#D9D9D9"

GIVEN_INK = "#9C5F00"

MEANING = {"moral": "neighbours", "adjacency": "row reads column", "attention": "row attends to column"}

# points
LABEL_SIZE = 8.0

# inches
MAX_FIGURE = 12.0

MAX_RULED_SITES = 50


def plot_matrix(
    structure: ModelStructure,
    *,
    conditioned: Bool[np.ndarray, " tokens"] | Collection[str] | None = None,
    values: Mapping[str, Any] | None = None,
    kind_matrix: Literal["moral", "adjacency", "attention"] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw a bool matrix over the tokens of a model.

    Parameters
    ----------
    structure
        The model.
    conditioned
        The tokens given: a mask over tokens, or names of sites. They are marked along both axes.
    values
        Values of given sites, for the attention that is left when they are known.
    kind_matrix
        ``"moral"``: who is a neighbour of whom. ``"adjacency"``: row reads column. ``"attention"``: row attends to
        column under `conditioned`. By default ``"attention"`` with `conditioned`, else ``"moral"``.
    ax
        Where to draw, by default a new figure.

    Returns
    -------
    The axes drawn on.

    Raises
    ------
    ValueError
        When `conditioned` names an unknown site or has another length than there are tokens.

    Examples
    --------
    >>> import numpyro, numpyro.distributions as dist
    >>> from simformer_ppl.structure import trace_structure
    >>> def model():
    ...     mu = numpyro.sample("mu", dist.Normal())
    ...     with numpyro.plate("school", 3):
    ...         numpyro.sample("y", dist.Normal(mu, 1))
    >>> ax = plot_matrix(trace_structure(model), conditioned=["y"])
    """
    given = structure.given_tokens([] if conditioned is None else conditioned)
    kind = kind_matrix or ("moral" if conditioned is None else "attention")
    if ax is None:
        _, ax = plt.subplots(figsize=(5.5, 5.5), layout="constrained")
    ax.imshow(_matrix_colours(_matrix(structure, kind, given, values), given, kind), interpolation="nearest")
    _rule_matrix(ax, structure)
    if given.any():
        _mark_given(ax, given)
        handles = [Patch(color=LATENT, label="latent"), Patch(color=GIVEN, label="given")]
        below: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.035), "ncols": 2}
        ax.legend(handles=handles, frameon=False, fontsize=LABEL_SIZE, **below)
    _label_tokens(ax, structure, given)
    ax.set_xlabel(MEANING[kind], fontsize=LABEL_SIZE, color=INK)
    return ax


def plot_graph(structure: ModelStructure, *, ax: Axes | None = None) -> Axes:
    """Draw the directed graph of a model's sites in plate notation.

    Data are shaded, deterministic sites dashed, plates boxed. An arrow says that a scalar of one site reads a scalar
    of the other; a loop, that scalars of one site read each other. Long models run from left to right. Of many sites,
    those that a Python loop has numbered are drawn as one.

    Parameters
    ----------
    structure
        The model.
    ax
        Where to draw, by default a new figure of the size of the graph.

    Returns
    -------
    The axes drawn on.

    Examples
    --------
    >>> import numpyro, numpyro.distributions as dist
    >>> from simformer_ppl.structure import trace_structure
    >>> def model():
    ...     mu = numpyro.sample("mu", dist.Normal())
    ...     with numpyro.plate("school", 3):
    ...         numpyro.sample("y", dist.Normal(mu, 1))
    >>> ax = plot_graph(trace_structure(model))
    """
    layout = lay_out(structure)
    width, height = layout.extent
    if ax is None:
        scale = min(1.0, MAX_FIGURE / max(width, height))
        _, ax = plt.subplots(figsize=(width * scale, height * scale), layout="constrained")
    else:
        scale = min(1.0, *(_inches(ax) / layout.extent))
    ax.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    ax.set_axis_off()
    for plate, size in structure.plates.items():
        if plate in layout.boxes:
            _draw_plate(ax, f"{plate} ({size})", layout.boxes[plate], scale)
    for (parent, child), route in layout.routes.items():
        curve = _smooth(route, layout.horizontal)
        _draw_arrow(ax, _clip(curve, layout.nodes[parent], layout.nodes[child]), scale)
    for name, node in layout.nodes.items():
        _draw_site(ax, layout.sites[name], node, scale)
    for name in layout.loops:
        _draw_loop(ax, layout.nodes[name], layout.horizontal, scale)
    return ax


def _matrix(
    structure: ModelStructure, kind: str, given: Bool[np.ndarray, " n"], values: Mapping[str, Any] | None
) -> Bool[np.ndarray, "n n"]:
    match kind:
        case "moral":
            return np.asarray(structure.moral(), bool)
        case "adjacency":
            return np.asarray(structure.adjacency, bool)
        case "attention":
            return np.asarray(structure.attention_mask(given, values), bool)
    raise ValueError(f"expected kind_matrix 'moral', 'adjacency' or 'attention', got {kind!r}")


def _matrix_colours(matrix: Bool[np.ndarray, "n n"], given: Bool[np.ndarray, " n"], kind: str) -> np.ndarray:
    image = np.ones((*matrix.shape, 3))
    image[matrix] = to_rgb(LATENT)
    image[matrix & given[None, :]] = to_rgb(GIVEN)
    if kind != "attention":
        # the diagonal is False by convention: shown, it guides the eye
        image[np.eye(len(matrix), dtype=bool)] = to_rgb(SHADE)
    return image


def _rule_matrix(ax: Axes, structure: ModelStructure) -> None:
    count = structure.num_tokens
    if count <= MAX_TOKEN_LABELS:
        between = np.arange(1, count) - 0.5
        ax.hlines(between, -0.5, count - 0.5, color="white", linewidth=0.8)
        ax.vlines(between, -0.5, count - 0.5, color="white", linewidth=0.8)
    starts = [site.token_slice.start for site in structure.sites.values()][1:]
    bounds = np.array(starts if len(starts) < MAX_RULED_SITES else []) - 0.5
    ax.hlines(bounds, -0.5, count - 0.5, color=FAINT, linewidth=0.6)
    ax.vlines(bounds, -0.5, count - 0.5, color=FAINT, linewidth=0.6)
    ax.set(xticks=[], yticks=[], xlim=(-0.5, count - 0.5), ylim=(count - 0.5, -0.5))
    for spine in ax.spines.values():
        spine.set(color=FAINT, linewidth=0.6)


def _mark_given(ax: Axes, given: Bool[np.ndarray, " n"]) -> None:
    """Bands beside the rows and above the columns of given tokens."""
    edges = np.flatnonzero(np.diff(np.r_[False, given, False].astype(int)))
    for start, stop in edges.reshape(-1, 2):
        style: dict[str, Any] = {"color": GIVEN, "linewidth": 0, "clip_on": False}
        ax.add_patch(Rectangle((-0.022, start - 0.5), 0.014, stop - start, transform=ax.get_yaxis_transform(), **style))
        ax.add_patch(Rectangle((start - 0.5, 1.008), stop - start, 0.014, transform=ax.get_xaxis_transform(), **style))


def _label_tokens(ax: Axes, structure: ModelStructure, given: Bool[np.ndarray, " n"]) -> None:
    inches = _inches(ax).min()
    pitch = structure.num_tokens * 1.3 * LABEL_SIZE / 72 / inches
    labels = token_labels(structure, capacity=int(structure.num_tokens / pitch))
    wanted = np.array([(start + stop - 1) / 2 for _, start, stop in labels])
    placed = spread(wanted, pitch, structure.num_tokens)
    # room for leaders only where labels had to move
    near = 0.03 if given.any() else 0.01
    far = near + (0.045 if np.abs(placed - wanted).max(initial=0) > pitch / 4 else 0)
    rows, columns = ax.get_yaxis_transform(), ax.get_xaxis_transform()
    line: dict[str, Any] = {"color": FAINT, "linewidth": 0.5, "clip_on": False}
    for (label, start, stop), at, to in zip(labels, wanted, placed, strict=True):
        colour = GIVEN_INK if given[start:stop].all() else INK
        text: dict[str, Any] = {"color": colour, "fontsize": LABEL_SIZE, "parse_math": False}
        if far > near:
            ax.plot([-near, -far], [at, to], transform=rows, **line)
            ax.plot([at, to], [1 + near, 1 + far], transform=columns, **line)
        ax.text(-far - 0.01, to, label, transform=rows, ha="right", va="center", **text)
        ax.text(to, 1.01 + far, label, transform=columns, ha="center", va="bottom", rotation=90, **text)


def _inches(ax: Axes) -> np.ndarray:
    figure = ax.get_figure(root=True)
    return np.asarray(ax.get_window_extent().size) / (figure.dpi if figure else 72)


def _smooth(points: np.ndarray, horizontal: bool) -> np.ndarray:
    """Draw a route piece by piece, along the layers at every bend: routes that share a piece lie on one another."""
    along = np.array([horizontal, not horizontal])
    t = np.linspace(0, 1, 24)[:, None]
    pieces = []
    for index, (start, stop) in enumerate(pairwise(points)):
        reach = (stop - start) * along / 2
        leave = start + (reach if index else (stop - start) / 3)
        arrive = stop - (reach if index < len(points) - 2 else (stop - start) / 3)
        pieces.append((1 - t) ** 3 * start + 3 * t * (1 - t) * ((1 - t) * leave + t * arrive) + t**3 * stop)
    return np.concatenate(pieces)


def _clip(curve: np.ndarray, parent: Node, child: Node) -> np.ndarray:
    """Keep what lies outside the ellipses at both ends."""
    at = np.linspace(0, len(curve) - 1, 10 * len(curve))
    curve = np.stack([np.interp(at, np.arange(len(curve)), axis) for axis in curve.T], -1)
    for node in (parent, child):
        curve = curve[(((curve - node.centre) / (node.size / 2)) ** 2).sum(-1) > 1]
    return curve


def _draw_arrow(ax: Axes, curve: np.ndarray, scale: float) -> None:
    if len(curve) > 1:
        style: dict[str, Any] = {
            "arrowstyle": "-|>",
            "mutation_scale": 11 * scale,
            "linewidth": 0.9 * scale,
            "joinstyle": "miter",
        }
        ax.add_patch(FancyArrowPatch(path=Path(curve), color=INK, zorder=2, shrinkA=0, shrinkB=0, **style))


def _draw_loop(ax: Axes, node: Node, horizontal: bool, scale: float) -> None:
    angles = np.radians([115, 65] if horizontal else [25, -25])
    start, stop = node.centre + np.stack([np.cos(angles), np.sin(angles)], -1) * node.size / 2
    out = (LOOP / 0.75) * np.array([not horizontal, horizontal])
    t = np.linspace(0, 1, 30)[:, None]
    curve = (1 - t) ** 3 * start + 3 * t * (1 - t) * ((1 - t) * (start + out) + t * (stop + out)) + t**3 * stop
    _draw_arrow(ax, curve, scale)


def _draw_plate(ax: Axes, label: str, box: np.ndarray, scale: float) -> None:
    (left, bottom), (right, top) = box
    style: dict[str, Any] = {"boxstyle": "round,pad=0,rounding_size=0.08", "facecolor": "none", "edgecolor": FAINT}
    ax.add_patch(FancyBboxPatch((left, bottom), right - left, top - bottom, linewidth=0.9 * scale, zorder=1, **style))
    style = {"fontsize": PLATE_SIZE * scale, "color": INK, "parse_math": False, "zorder": 4}
    ax.text(right - 0.07, bottom + 0.05, label, ha="right", va="bottom", **style)


def _draw_site(ax: Axes, site: DrawnSite, node: Node, scale: float) -> None:
    x, y = node.centre
    style: dict[str, Any] = {"edgecolor": INK, "linewidth": 1.1 * scale, "zorder": 3}
    border = "--" if site.is_deterministic else "-"
    ax.add_patch(Ellipse((x, y), *node.size, facecolor=SHADE if site.is_data else "white", linestyle=border, **style))
    style = {"fontsize": SITE_SIZE * scale, "color": INK, "parse_math": False, "zorder": 4}
    ax.text(x, y, site.name, ha="center", va="center", **style)
