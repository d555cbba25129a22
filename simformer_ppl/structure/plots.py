"""A model's structure, drawn: a matrix over tokens, and a graph of sites with plates.

The graph is laid out in layers, as Graphviz's dot does (Gansner, Koutsofios, North & Vo 1993, *A technique for drawing
directed graphs*): depth by depth, ordered by barycentres within a layer, then placed by a linear program in which the
plates are boxes that hold their own sites and no others.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
from jaxtyping import Bool
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Ellipse, FancyArrowPatch, FancyBboxPatch, Patch, Rectangle
from matplotlib.path import Path
from matplotlib.textpath import TextPath
from scipy.optimize import isotonic_regression, linprog

if TYPE_CHECKING:
    from simformer_ppl.structure.model_structure import ModelStructure
    from simformer_ppl.structure.sites import Site

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
SITE_SIZE = 10.0
PLATE_SIZE = 8.5

# inches
MAX_FIGURE = 12.0
MARGIN = 0.08
GAP = 0.28
BEND_GAP = 0.16
LAYER_GAP = 0.42
PAD = 0.13
LOOP = 0.34
BOW = 0.3

# sites in a chain that is drawn straight
SPINE = 3

MAX_TOKEN_LABELS = 25
MAX_RULED_SITES = 50
STARTS = 20
SWEEPS = 8


def plot_matrix(
    structure: ModelStructure,
    *,
    conditioned: Bool[np.ndarray, " tokens"] | Collection[str] | None = None,
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
    given = _given_tokens(structure, conditioned)
    kind = kind_matrix or ("moral" if conditioned is None else "attention")
    if ax is None:
        _, ax = plt.subplots(figsize=(5.5, 5.5), layout="constrained")
    ax.imshow(_matrix_colours(_matrix(structure, kind, given), given, kind), interpolation="nearest")
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
    of the other; a loop, that scalars of one site read each other. Long models run from left to right.

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
    layout = _lay_out(structure)
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
        _draw_site(ax, structure.sites[name], node, scale)
    for name in layout.loops:
        _draw_loop(ax, layout.nodes[name], layout.horizontal, scale)
    return ax


def _matrix(structure: ModelStructure, kind: str, given: Bool[np.ndarray, " n"]) -> Bool[np.ndarray, "n n"]:
    match kind:
        case "moral":
            return np.asarray(structure.moral(), bool)
        case "adjacency":
            return np.asarray(structure.adjacency, bool)
        case "attention":
            return np.asarray(structure.attention_mask(given), bool)
    raise ValueError(f"expected kind_matrix 'moral', 'adjacency' or 'attention', got {kind!r}")


def _given_tokens(
    structure: ModelStructure, conditioned: Bool[np.ndarray, " n"] | Collection[str] | None
) -> Bool[np.ndarray, " n"]:
    given = np.zeros(structure.num_tokens, bool)
    if conditioned is None:
        return given
    names = [conditioned] if isinstance(conditioned, str) else list(conditioned)
    if not all(isinstance(name, str) for name in names):
        mask = np.asarray(conditioned)
        if mask.shape != given.shape or mask.dtype != bool:
            raise ValueError(f"conditioned: expected bools of shape {given.shape}, got {mask.dtype} of {mask.shape}")
        return mask
    for name in names:
        if name not in structure.sites:
            raise ValueError(f"conditioned: unknown site {name!r}, expected some of {list(structure.sites)}")
        given[structure.sites[name].token_slice] = True
    return given


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
    labels = _token_labels(structure, capacity=int(structure.num_tokens / pitch))
    wanted = np.array([(start + stop - 1) / 2 for _, start, stop in labels])
    placed = _spread(wanted, pitch, structure.num_tokens)
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


def _token_labels(structure: ModelStructure, capacity: int) -> list[tuple[str, int, int]]:
    """Labels with the first token and the one past the last: of tokens where they fit, else of the largest sites."""
    if structure.num_tokens <= min(MAX_TOKEN_LABELS, capacity):
        return [(str(token), index, index + 1) for index, token in enumerate(structure.tokens)]
    labels = [(name, site.token_slice.start, site.token_slice.stop) for name, site in structure.sites.items()]
    if len(labels) <= max(capacity, 1):
        return labels
    # sites of one size, such as those of a loop, thin out evenly
    cutoff = sorted((stop - start for _, start, stop in labels), reverse=True)[max(capacity, 1) - 1]
    larger = [label for label in labels if label[2] - label[1] > cutoff]
    tied = [label for label in labels if label[2] - label[1] == cutoff]
    every = -(-len(tied) // (max(capacity, 1) - len(larger)))
    return sorted(larger + tied[::every], key=lambda label: label[1])


def _spread(wanted: np.ndarray, pitch: float, count: int) -> np.ndarray:
    """Positions nearest to those wanted, in order, at least `pitch` apart and within the axis."""
    steps = pitch * np.arange(len(wanted))
    if not len(wanted):
        return wanted
    low = (pitch - 1) / 2
    high = max(count - 0.5 - pitch / 2 - steps[-1], low)
    return (
        np.clip(isotonic_regression(wanted - steps).x, min(low, wanted[0]), max(high, wanted[-1] - steps[-1])) + steps
    )


@dataclass(frozen=True)
class _Ellipse:
    """A site on the page, in inches."""

    centre: np.ndarray
    size: np.ndarray


@dataclass(frozen=True)
class _Layout:
    """Where everything is, in inches from the lower left."""

    extent: np.ndarray
    nodes: dict[str, _Ellipse]
    boxes: dict[str, np.ndarray]  # [[left, bottom], [right, top]]
    routes: dict[tuple[str, str], np.ndarray]  # (parent, child) -> points
    loops: list[str]
    horizontal: bool


# A site by name, or a bend (parent, layer) of the edges that leave a site for layers beyond the next.
type _Knot = str | tuple[str, int]


@dataclass(frozen=True)
class _Layers:
    """Sites and bends in layers. Layers go *along* the direction of reading, their knots lie *across* it."""

    depth: dict[_Knot, int]
    plates: dict[_Knot, frozenset[str]]
    segments: list[tuple[_Knot, _Knot]]
    spine: set[tuple[_Knot, _Knot]]
    routes: dict[tuple[str, str], list[_Knot]]
    loops: list[str]

    @property
    def num_layers(self) -> int:
        return max(self.depth.values()) + 1

    def rows(self, order: Sequence[_Knot]) -> list[list[_Knot]]:
        return [[knot for knot in order if self.depth[knot] == layer] for layer in range(self.num_layers)]

    def members(self, plate: str) -> list[str]:
        return [knot for knot, plates in self.plates.items() if isinstance(knot, str) and plate in plates]

    def span(self, plate: str) -> tuple[int, int]:
        depths = [self.depth[name] for name in self.members(plate)]
        return min(depths), max(depths)

    def plate_names(self) -> list[str]:
        """From the outermost to the innermost."""
        names = sorted({plate for plates in self.plates.values() for plate in plates})
        return sorted(names, key=lambda plate: -len(self.members(plate)))

    def encloses(self, outer: str, inner: str) -> bool:
        names = self.plate_names()
        return names.index(outer) < names.index(inner) and set(self.members(inner)) <= set(self.members(outer))


def _read_layers(structure: ModelStructure) -> _Layers:
    names = list(structure.sites)
    edges, loops = _site_edges(structure)
    # a site made in one piece can be read back by an earlier one (a scan): such an edge does not set the depth
    forward = [(parent, child) for parent, child in edges if names.index(parent) < names.index(child)]
    depth = _depths(names, forward)
    plates: dict[_Knot, frozenset[str]] = {name: frozenset(structure.sites[name].plates) for name in names}
    routes: dict[tuple[str, str], list[_Knot]] = {edge: list(edge) for edge in edges}
    for parent, child in forward:
        between = range(depth[parent] + 1, depth[child])
        routes[parent, child] = [parent, *((parent, layer) for layer in between), child]
        for layer in between:
            depth[parent, layer] = layer
            shared = plates.get((parent, layer), plates[parent])
            plates[parent, layer] = shared & plates[child]
    segments = list(dict.fromkeys(pair for edge in forward for pair in pairwise(routes[edge])))
    return _Layers(depth, plates, segments, _spine(structure, forward), routes, loops)


def _spine(structure: ModelStructure, edges: list[tuple[str, str]]) -> set[tuple[_Knot, _Knot]]:
    """Find the longest path through the latent sites, such as a hidden chain: drawn straight."""
    latent = nx.DiGraph([edge for edge in edges if not any(structure.sites[name].is_data for name in edge)])
    path: list[_Knot] = nx.dag_longest_path(latent)
    return set(pairwise(path)) if len(path) > SPINE else set()


def _site_edges(structure: ModelStructure) -> tuple[list[tuple[str, str]], list[str]]:
    reads = np.asarray(structure.adjacency, bool)
    edges, loops = [], []
    for child, site in structure.sites.items():
        for parent, other in structure.sites.items():
            if reads[site.token_slice, other.token_slice].any():
                (loops.append(child) if parent == child else edges.append((parent, child)))
    return edges, loops


def _depths(names: list[str], edges: list[tuple[str, str]]) -> dict[_Knot, int]:
    """Length of the longest path from a root; a site that mostly feeds others moves down to the first it feeds."""
    graph = nx.DiGraph()
    graph.add_nodes_from(names)
    graph.add_edges_from(edges)
    depth = {name: layer for layer, layer_names in enumerate(nx.topological_generations(graph)) for name in layer_names}
    for name in reversed(list(nx.topological_sort(graph))):
        if graph.out_degree(name) > graph.in_degree(name):
            depth[name] = min(depth[child] for child in graph.successors(name)) - 1
    return {name: depth[name] - min(depth.values()) for name in names}


def _order(layers: _Layers) -> list[_Knot]:
    """Put the knots in one order whose restriction to every layer crosses few edges and tears no plate apart.

    Barycentre sweeps (Sugiyama, Tagawa & Toda 1981) over the tree of plates, from several starts.
    """
    rng = np.random.default_rng(0)
    order = _flatten(_plate_tree(layers, list(layers.depth)))
    best, best_cost = order, _disorder(layers, order)
    for start in range(STARTS):
        if best_cost == 0:
            break
        knots = list(layers.depth)
        if start:
            knots = [knots[index] for index in rng.permutation(len(knots))]
        order = _flatten(_plate_tree(layers, knots))
        for sweep in range(SWEEPS):
            order = _sweep(layers, order, upwards=sweep % 2 == 1)
            cost = _disorder(layers, order)
            if cost < best_cost:
                best, best_cost = order, cost
    return best


def _sweep(layers: _Layers, order: list[_Knot], *, upwards: bool) -> list[_Knot]:
    """Sort layer after layer by the mean place of the knots read, or upwards of those that read."""
    rows = layers.rows(order)
    place = {knot: (index + 0.5) / len(row) for row in rows for index, knot in enumerate(row)}
    neighbours: dict[_Knot, list[_Knot]] = {knot: [] for knot in order}
    for parent, child in layers.segments:
        knot, other = (parent, child) if upwards else (child, parent)
        neighbours[knot].append(other)
    for row in reversed(rows) if upwards else rows:
        centre = {knot: float(np.mean([place[n] for n in neighbours[knot] or [knot]])) for knot in row}
        for index, knot in enumerate(sorted(row, key=centre.__getitem__)):
            place[knot] = (index + 0.5) / len(row)
    return _flatten(_sorted_tree(_plate_tree(layers, order), place))


type _Tree = list[_Knot | _Tree]


def _plate_tree(layers: _Layers, order: Sequence[_Knot]) -> _Tree:
    """Nest the knots, taken in order, by their plates, the outermost first."""
    ranks = {plate: rank for rank, plate in enumerate(layers.plate_names())}
    root: _Tree = []
    groups: dict[tuple[str, ...], _Tree] = {(): root}
    for knot in order:
        path = tuple(sorted(layers.plates[knot], key=ranks.__getitem__))
        for length in range(1, len(path) + 1):
            if path[:length] not in groups:
                groups[path[:length]] = []
                groups[path[: length - 1]].append(groups[path[:length]])
        groups[path].append(knot)
    return root


def _flatten(tree: _Tree) -> list[_Knot]:
    return [knot for child in tree for knot in (_flatten(child) if isinstance(child, list) else [child])]


def _sorted_tree(tree: _Tree, centre: dict[_Knot, float]) -> _Tree:
    children = [_sorted_tree(child, centre) if isinstance(child, list) else child for child in tree]
    return sorted(children, key=lambda child: np.mean([centre[knot] for knot in _flatten([child])]))


def _disorder(layers: _Layers, order: Sequence[_Knot]) -> float:
    """Crossings; strangers inside plates count more, edges that run through a plate less."""
    place = {knot: index for index, knot in enumerate(order)}
    ends = np.array([(layers.depth[u], place[u], place[v]) for u, v in layers.segments]).reshape(-1, 3)
    depth, upper, lower = ends.T
    crossed = (upper[:, None] - upper) * (lower[:, None] - lower) < 0
    cost = (crossed & (depth[:, None] == depth)).sum() / 2
    for plate in layers.plate_names():
        first, last = layers.span(plate)
        places = [place[name] for name in layers.members(plate)]
        for knot in order:
            inside = min(places) < place[knot] < max(places) and first <= layers.depth[knot] <= last
            if inside and plate not in layers.plates[knot]:
                cost += 20.0 if isinstance(knot, str) else 0.5
    return float(cost)


class _Program:
    """A linear program over positions: terms ``weight * |expression|`` and distances kept."""

    def __init__(self, variables: Sequence[object]):
        self.index = {variable: index for index, variable in enumerate(variables)}
        self.terms: list[tuple[float, dict[object, float]]] = []
        self.apart: list[tuple[object, object, float]] = []

    def pull(self, weight: float, variable: object, towards: Sequence[object]) -> None:
        if towards:
            self.terms.append((weight, {variable: 1.0} | {other: -1 / len(towards) for other in towards}))

    def keep(self, low: object, high: object, distance: float) -> None:
        self.apart.append((low, high, distance))

    def solve(self) -> dict[object, float]:
        count, terms = len(self.index), len(self.terms)
        rows = np.zeros((2 * terms + len(self.apart), count + terms))
        bounds = np.zeros(len(rows))
        for i, (_, expression) in enumerate(self.terms):
            for variable, factor in expression.items():
                rows[2 * i : 2 * i + 2, self.index[variable]] = factor, -factor
            rows[2 * i : 2 * i + 2, count + i] = -1
        for i, (low, high, distance) in enumerate(self.apart, start=2 * terms):
            rows[i, self.index[low]], rows[i, self.index[high]], bounds[i] = 1, -1, -distance
        cost = np.r_[np.zeros(count), [weight for weight, _ in self.terms]]
        solution = linprog(cost, A_ub=rows, b_ub=bounds, bounds=(0, None), method="highs")
        return {variable: float(solution.x[index]) for variable, index in self.index.items()}


def _place_across(
    layers: _Layers,
    order: Sequence[_Knot],
    sizes: dict[_Knot, float],
    pads: tuple[float, float],
    labels: dict[str, float],
) -> tuple[dict[_Knot, float], dict[str, tuple[float, float]]]:
    """Centre children under parents and parents over children, as far as ellipses and boxes leave room."""
    plates = layers.plate_names()
    sides = [(side, plate) for plate in [None, *plates] for side in ("low", "high")]
    program = _Program([*(("knot", knot) for knot in layers.depth), *sides])
    _pull_together(program, layers)
    for row in layers.rows(order):
        for left, right in pairwise(row):
            bend = not (isinstance(left, str) and isinstance(right, str))
            gap = BEND_GAP if bend else GAP
            program.keep(("knot", left), ("knot", right), (sizes[left] + sizes[right]) / 2 + gap)
    for knot in layers.depth:
        program.keep(("low", None), ("knot", knot), sizes[knot] / 2)
        program.keep(("knot", knot), ("high", None), sizes[knot] / 2)
    for plate in plates:
        _hold_plate(program, layers, order, plate, sizes, pads)
        program.keep(("low", plate), ("high", plate), labels[plate])
    at = program.solve()
    return {knot: at["knot", knot] for knot in layers.depth}, {p: (at["low", p], at["high", p]) for p in plates}


def _pull_together(program: _Program, layers: _Layers) -> None:
    parents: dict[_Knot, list[object]] = {knot: [] for knot in layers.depth}
    children: dict[_Knot, list[object]] = {knot: [] for knot in layers.depth}
    for parent, child in layers.segments:
        parents[child].append(("knot", parent))
        children[parent].append(("knot", child))
        bends = (not isinstance(parent, str)) + (not isinstance(child, str))
        program.pull(
            3.0 if (parent, child) in layers.spine else (0.1, 0.3, 3.0)[bends], ("knot", child), [("knot", parent)]
        )
    for knot in layers.depth:
        program.pull(1.0, ("knot", knot), parents[knot])
        program.pull(1.0, ("knot", knot), children[knot])
    for plate in [None, *layers.plate_names()]:
        program.pull(0.05, ("high", plate), [("low", plate)])


def _hold_plate(
    program: _Program,
    layers: _Layers,
    order: Sequence[_Knot],
    plate: str,
    sizes: dict[_Knot, float],
    pads: tuple[float, float],
) -> None:
    """Box the members of a plate, keep other sites, bends and plates off the box."""
    place = {knot: index for index, knot in enumerate(order)}
    members = layers.members(plate)
    first, last = layers.span(plate)
    program.keep(("low", None), ("low", plate), pads[0])
    program.keep(("high", plate), ("high", None), pads[1])
    for name in members:
        program.keep(("low", plate), ("knot", name), sizes[name] / 2 + pads[0])
        program.keep(("knot", name), ("high", plate), sizes[name] / 2 + pads[1])
    for knot, depth in layers.depth.items():
        if plate in layers.plates[knot] or not first <= depth <= last:
            continue
        if place[knot] < min(place[name] for name in members):
            program.keep(("knot", knot), ("low", plate), sizes[knot] / 2 + BEND_GAP)
        elif place[knot] > max(place[name] for name in members):
            program.keep(("high", plate), ("knot", knot), sizes[knot] / 2 + BEND_GAP)
    for other in layers.plate_names():
        if layers.encloses(plate, other):
            program.keep(("low", plate), ("low", other), pads[0])
            program.keep(("high", other), ("high", plate), pads[1])
        elif layers.span(other)[0] <= last and first <= layers.span(other)[1]:
            others = [place[name] for name in layers.members(other)]
            if max(place[name] for name in members) < min(others):
                program.keep(("high", plate), ("low", other), GAP)


def _place_along(
    layers: _Layers, sizes: dict[_Knot, float], pads: tuple[float, float], labels: dict[str, float]
) -> tuple[list[float], dict[str, tuple[float, float]]]:
    """Stack the layers, with room for the borders of the plates that begin or end between two of them."""
    plates = layers.plate_names()
    thickness = [
        max(sizes[knot] for knot, depth in layers.depth.items() if depth == i) for i in range(layers.num_layers)
    ]
    for plate in plates:
        first, last = layers.span(plate)
        if first == last:
            thickness[first] = max(thickness[first], labels[plate] - sum(pads))
    begins = {plate: _nesting(layers, plate, 0) for plate in plates}
    ends = {plate: _nesting(layers, plate, 1) for plate in plates}
    centres, edge = [], 0.0
    for layer, thick in enumerate(thickness):
        edge += pads[0] * max((n for plate, n in begins.items() if layers.span(plate)[0] == layer), default=0)
        centres.append(edge + thick / 2)
        edge += thick
        edge += pads[1] * max((n for plate, n in ends.items() if layers.span(plate)[1] == layer), default=0)
        edge += LAYER_GAP
    bounds = {}
    for plate in plates:
        first, last = layers.span(plate)
        bounds[plate] = (
            centres[first] - thickness[first] / 2 - pads[0] * begins[plate],
            centres[last] + thickness[last] / 2 + pads[1] * ends[plate],
        )
    return centres, bounds


def _nesting(layers: _Layers, plate: str, side: int) -> int:
    """How many borders lie between a plate's outermost layer and its own border, that one included."""
    names = layers.plate_names()
    members = set(layers.members(plate))
    inner = [
        other
        for other in names[names.index(plate) + 1 :]
        if members & set(layers.members(other)) and layers.span(other)[side] == layers.span(plate)[side]
    ]
    return 1 + max((_nesting(layers, other, side) for other in inner), default=0)


def _lay_out(structure: ModelStructure) -> _Layout:
    layers = _read_layers(structure)
    order = _order(layers)
    widest = max(sum(isinstance(knot, str) for knot in row) for row in layers.rows(order))
    horizontal = layers.num_layers > max(2 * widest, 4)
    ellipses = {name: _ellipse_size(name) for name in structure.sites}
    sizes = {knot: _room(layers, knot, ellipses, horizontal) for knot in layers.depth}
    labels = {plate: _text_width(f"{plate} ({size})", PLATE_SIZE) + 0.24 for plate, size in structure.plates.items()}
    # a plate's label sits below its sites: at the far side of the layers, or across them when they run to the right
    upright, sideways = (PAD, PAD + 0.17), (PAD, PAD)
    across_pads, along_pads = (upright, sideways) if horizontal else (sideways, upright)
    nothing = dict.fromkeys(labels, 0.0)
    across, sides = _place_across(
        layers, order, {k: s[int(horizontal)] for k, s in sizes.items()}, across_pads, nothing if horizontal else labels
    )
    along, bounds = _place_along(
        layers, {k: s[int(not horizontal)] for k, s in sizes.items()}, along_pads, labels if horizontal else nothing
    )
    points = {knot: np.array([across[knot], along[depth]]) for knot, depth in layers.depth.items()}
    corners = {plate: np.array([sides[plate], bounds[plate]]).T for plate in sides}
    return _on_page(layers, points, ellipses, corners, horizontal)


def _room(layers: _Layers, knot: _Knot, ellipses: dict[str, np.ndarray], horizontal: bool) -> np.ndarray:
    """Width and height of a knot; a loop is drawn beside its ellipse, or above it where layers run to the right."""
    if not isinstance(knot, str):
        return np.zeros(2)
    loop = 2 * LOOP * np.array([not horizontal, horizontal])
    return ellipses[knot] + (loop if knot in layers.loops else 0)


def _on_page(
    layers: _Layers,
    points: dict[_Knot, np.ndarray],
    sizes: dict[str, np.ndarray],
    corners: dict[str, np.ndarray],
    horizontal: bool,
) -> _Layout:
    """Turn (across, along) into inches to the right and up, the first layer above or on the left."""

    def turn(point: np.ndarray) -> np.ndarray:
        return np.array([point[1], -point[0]]) if horizontal else np.array([point[0], -point[1]])

    centres = {knot: turn(point) for knot, point in points.items()}
    boxes = {plate: np.sort([turn(corner) for corner in pair], axis=0) for plate, pair in corners.items()}
    reach = [corner for box in boxes.values() for corner in box]
    for knot, centre in centres.items():
        room = _room(layers, knot, sizes, horizontal) / 2
        reach += [centre - room, centre + room]
    reach += [point for edge in layers.routes for point in _route(layers, centres, edge)]
    low, high = np.min(reach, axis=0) - MARGIN, np.max(reach, axis=0) + MARGIN
    return _Layout(
        extent=high - low,
        nodes={name: _Ellipse(centres[name] - low, size) for name, size in sizes.items()},
        boxes={plate: box - low for plate, box in boxes.items()},
        routes={edge: _route(layers, centres, edge) - low for edge in layers.routes},
        loops=layers.loops,
        horizontal=horizontal,
    )


def _route(layers: _Layers, centres: dict[_Knot, np.ndarray], edge: tuple[str, str]) -> np.ndarray:
    points = [centres[knot] for knot in layers.routes[edge]]
    if edge not in layers.segments and len(points) == 2:
        # an edge against the order of the layers is bowed, clear of the edge that runs with them
        along = points[1] - points[0]
        aside = np.array([-along[1], along[0]]) / max(np.hypot(*along), 1e-9)
        points.insert(1, (points[0] + points[1]) / 2 + BOW * aside)
    return np.array(points)


def _text_width(text: str, size: float) -> float:
    return float(TextPath((0, 0), text or " ", size=size, prop=FontProperties()).get_extents().width) / 72


def _ellipse_size(label: str) -> np.ndarray:
    width = max(0.62, 1.2 * _text_width(label, SITE_SIZE) + 0.2)
    return np.array([width, 0.46])


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


def _clip(curve: np.ndarray, parent: _Ellipse, child: _Ellipse) -> np.ndarray:
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


def _draw_loop(ax: Axes, node: _Ellipse, horizontal: bool, scale: float) -> None:
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


def _draw_site(ax: Axes, site: Site, node: _Ellipse, scale: float) -> None:
    x, y = node.centre
    style: dict[str, Any] = {"edgecolor": INK, "linewidth": 1.1 * scale, "zorder": 3}
    border = "--" if site.is_deterministic else "-"
    ax.add_patch(Ellipse((x, y), *node.size, facecolor=SHADE if site.is_data else "white", linestyle=border, **style))
    style = {"fontsize": SITE_SIZE * scale, "color": INK, "parse_math": False, "zorder": 4}
    ax.text(x, y, site.name, ha="center", va="center", **style)
