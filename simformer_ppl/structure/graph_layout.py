"""Where the sites, plates and edges of a model go on a page.

The layers of `graph_layers` lie *along* the direction of reading, the sites of one layer *across* it. On both axes
every distance to be kept (between sites, from a site to the border of its plate, between plates) bounds a difference
of two positions, so the smallest and the largest positions solve by a walk through the graph of these bounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from simformer_ppl.structure.drawn_sites import DrawnSite, drawn_sites
from simformer_ppl.structure.graph_layers import Knot, Layers, Track, order_tracks, read_layers

if TYPE_CHECKING:
    from simformer_ppl.structure.model_structure import ModelStructure

__all__ = ["GraphLayout", "Node", "lay_out"]

# points
SITE_SIZE = 10.0
PLATE_SIZE = 8.5

# inches
MARGIN = 0.08
GAP = 0.28
LANE_GAP = 0.16
LAYER_GAP = 0.42
PAD = 0.13
LABEL_ROOM = 0.17
LOOP = 0.34
BOW = 0.3

# least rise of the widest edge between two layers
SLOPE = 0.15

ROUNDS = 60


@dataclass(frozen=True)
class Node:
    """The ellipse of a site, in inches."""

    centre: np.ndarray
    size: np.ndarray


@dataclass(frozen=True)
class GraphLayout:
    """Where everything is, in inches from the lower left.

    Attributes
    ----------
    extent
        Width and height of the page.
    sites
        What is drawn.
    nodes
        Of every site.
    boxes
        ``[[left, bottom], [right, top]]`` of every plate that holds a site.
    routes
        Points that the edge (parent, child) passes, from centre to centre.
    loops
        Sites whose scalars read each other.
    horizontal
        Whether the graph is read from left to right, rather than downwards.
    """

    extent: np.ndarray
    sites: dict[str, DrawnSite]
    nodes: dict[str, Node]
    boxes: dict[str, np.ndarray]
    routes: dict[tuple[str, str], np.ndarray]
    loops: list[str]
    horizontal: bool


@dataclass(frozen=True)
class _Room:
    """What is to be kept clear on one axis, in inches."""

    knots: dict[Knot, float]  # extent of a knot
    pads: tuple[float, float]  # from the sites in a plate to its borders
    labels: dict[str, float]  # least extent of a plate


def lay_out(structure: ModelStructure) -> GraphLayout:
    """Place the sites and plates of a model, and route its edges.

    Parameters
    ----------
    structure
        The model.

    Returns
    -------
    A layout that is read downwards, or from left to right if the graph is long.
    """
    sites, edges = drawn_sites(structure)
    layers = read_layers(sites, edges)
    widest = max(sum(track[0] != "lane" for track, _ in row) for row in layers.rows)
    horizontal = len(layers.rows) > max(2 * widest, 4)
    labels = {plate: _text_width(f"{plate} ({size})", PLATE_SIZE) + 0.24 for plate, size in structure.plates.items()}
    nodes = {name: np.array([max(0.62, 1.2 * _text_width(name, SITE_SIZE) + 0.2), 0.46]) for name in sites}
    taken = {knot: np.zeros(2) for row in layers.rows for knot in row}
    # a loop is drawn beside its ellipse, or above it where layers run to the right
    beside = 2 * LOOP * np.array([not horizontal, horizontal])
    taken |= {knot: nodes[name] + beside * (name in layers.loops) for name, knot in layers.knots.items()}
    # labels of plates stand at their lower border
    width = _Room({knot: size[0] for knot, size in taken.items()}, (PAD, PAD), labels)
    height = _Room({knot: size[1] for knot, size in taken.items()}, (PAD, PAD + LABEL_ROOM), dict.fromkeys(labels, 0.0))
    across = _place_across(layers, order_tracks(layers), height if horizontal else width)
    along = _place_along(layers, across, width if horizontal else height)
    points = {knot: np.array([across[knot[0]], along[knot[1]]]) for knot in taken}
    corners = {p: np.array([[across[p, side], along[p, side]] for side in (0, 1)]) for p in layers.members}
    turn = np.array([[0.0, 1.0], [-1.0, 0.0]] if horizontal else [[1.0, 0.0], [0.0, -1.0]])
    centres = {knot: turn @ point for knot, point in points.items()}
    boxes = {plate: np.sort(pair @ turn.T, axis=0) for plate, pair in corners.items()}
    return _on_page(layers, centres, taken, boxes, nodes, horizontal)


def _place_across(layers: Layers, place: dict[Track, int], room: _Room) -> dict[Any, float]:
    """Centre children under parents and parents over children, as far as ellipses and boxes leave room."""
    bounds = nx.DiGraph()
    bounds.add_nodes_from(place)
    for row in layers.rows:
        for left, right in pairwise(sorted(row, key=lambda knot: place[knot[0]])):
            gap = LANE_GAP if "lane" in (left[0][0], right[0][0]) else GAP
            _keep(bounds, left[0], right[0], (room.knots[left] + room.knots[right]) / 2 + gap)
    for plate in layers.members:
        _box_across(bounds, layers, place, plate, room)
    _part_plates(bounds, layers, place, room)
    neighbours: dict[Track, list[Track]] = {track: [] for track in place}
    for (parent, _), (child, _) in layers.segments:
        if parent != child:
            neighbours[parent].append(child)
            neighbours[child].append(parent)
    at: dict[Any, float] = dict.fromkeys(bounds, 0.0)
    for _ in range(ROUNDS):
        wanted: dict[Any, float] = {
            t: (at[t] + float(np.mean([at[n] for n in neighbours[t] or [t]]))) / 2 for t in place
        }
        # from the innermost plate to the outermost
        for plate in reversed(layers.members):
            low, high = (plate, 0), (plate, 1)
            wanted[low] = min(wanted[v] - d for _, v, d in bounds.out_edges(low, "distance") if v in wanted)
            wanted[high] = max(
                wanted[u] + d for u, _, d in bounds.in_edges(high, "distance") if u in wanted and u != low
            )
        early, late = _earliest(bounds, wanted), _latest(bounds, wanted)
        # differences that are kept by both are kept by their mean
        at = {variable: (early[variable] + late[variable]) / 2 for variable in bounds}
    _straighten(bounds, neighbours, at)
    return at


def _straighten(bounds: nx.DiGraph, neighbours: dict[Track, list[Track]], at: dict[Any, float]) -> None:
    """Move every track onto the median of its neighbours, where the others leave room: most edges become straight."""
    for _ in range(4):
        for track, others in neighbours.items():
            low = max([-np.inf, *(at[u] + distance for u, _, distance in bounds.in_edges(track, "distance"))])
            high = min([np.inf, *(at[v] - distance for _, v, distance in bounds.out_edges(track, "distance"))])
            at[track] = min(max(float(np.median([at[n] for n in others or [track]])), low), high)


def _box_across(bounds: nx.DiGraph, layers: Layers, place: dict[Track, int], plate: str, room: _Room) -> None:
    """Keep the members of a plate inside its box, and others in its layers off it."""
    members, (low, high) = layers.members[plate], ((plate, 0), (plate, 1))
    first, last = layers.spans[plate]
    _keep(bounds, low, high, room.labels[plate])
    for knot in (knot for row in layers.rows[first : last + 1] for knot in row):
        track, half = knot[0], room.knots[knot] / 2
        if track in members:
            _keep(bounds, low, track, half + room.pads[0])
            _keep(bounds, track, high, half + room.pads[1])
        elif place[track] < min(place[member] for member in members):
            _keep(bounds, track, low, half + LANE_GAP)
        elif place[track] > max(place[member] for member in members):
            _keep(bounds, high, track, half + LANE_GAP)


def _part_plates(bounds: nx.DiGraph, layers: Layers, place: dict[Track, int], room: _Room) -> None:
    """Keep a plate inside the one that encloses it, and plates of the same layers beside each other."""
    for (outer, members), (inner, others) in combinations(layers.members.items(), 2):
        if set(others) <= set(members):
            _keep(bounds, (outer, 0), (inner, 0), room.pads[0])
            _keep(bounds, (inner, 1), (outer, 1), room.pads[1])
            continue
        (first, last), (start, stop) = layers.spans[outer], layers.spans[inner]
        if first <= stop and start <= last:
            for left, right in ((outer, inner), (inner, outer)):
                rightmost = max(place[track] for track in layers.members[left])
                if rightmost < min(place[track] for track in layers.members[right]):
                    _keep(bounds, (left, 1), (right, 0), GAP)


def _place_along(layers: Layers, across: Mapping[Any, float], room: _Room) -> dict[Any, float]:
    """Stack the layers, with room for the borders of the plates that begin or end between two of them."""
    half = [max(room.knots[knot] for knot in row) / 2 for row in layers.rows]
    for plate, (first, last) in layers.spans.items():
        if first == last:
            half[first] = max(half[first], (room.labels[plate] - sum(room.pads)) / 2)
    gaps = [LAYER_GAP] * (len(half) - 1)
    for (parent, layer), (child, _) in layers.segments:
        gaps[layer] = max(gaps[layer], SLOPE * abs(across[parent] - across[child]))
    bounds = nx.DiGraph()
    bounds.add_nodes_from(range(len(half)))
    for layer, gap in enumerate(gaps):
        _keep(bounds, layer, layer + 1, half[layer] + gap + half[layer + 1])
    for plate, (first, last) in layers.spans.items():
        _keep(bounds, (plate, 0), first, room.pads[0] + half[first])
        _keep(bounds, last, (plate, 1), half[last] + room.pads[1])
        if first > 0:
            _keep(bounds, first - 1, (plate, 0), half[first - 1] + LAYER_GAP)
        if last + 1 < len(half):
            _keep(bounds, (plate, 1), last + 1, LAYER_GAP + half[last + 1])
    _nest_along(bounds, layers, room)
    wanted = dict.fromkeys(bounds, 0.0)
    early, late = _earliest(bounds, wanted), _latest(bounds, wanted)
    # every way through the bounds passes every layer, so both agree on the layers; boxes are drawn close
    shift = early[0] - late[0]
    ends = {border for border in bounds if border in [(plate, 1) for plate in layers.members]}
    return {v: early[v] if v in ends else late[v] + shift for v in bounds}


def _nest_along(bounds: nx.DiGraph, layers: Layers, room: _Room) -> None:
    """Keep apart the borders of plates that share a site, and of plates that share no layer."""
    for (outer, members), (inner, others) in combinations(layers.members.items(), 2):
        (first, last), (start, stop) = layers.spans[outer], layers.spans[inner]
        if not set(members) & set(others):
            if last < start:
                _keep(bounds, (outer, 1), (inner, 0), LAYER_GAP)
            if stop < first:
                _keep(bounds, (inner, 1), (outer, 0), LAYER_GAP)
            continue
        if first == start:
            _keep(bounds, (outer, 0), (inner, 0), room.pads[0])
        if last == stop:
            _keep(bounds, (inner, 1), (outer, 1), room.pads[1])


def _keep(bounds: nx.DiGraph, low: object, high: object, distance: float) -> None:
    known = bounds.get_edge_data(low, high, {"distance": distance})["distance"]
    bounds.add_edge(low, high, distance=max(distance, known))


def _earliest(bounds: nx.DiGraph, wanted: Mapping[Any, float]) -> dict[Any, float]:
    """Find the smallest positions that keep all distances and are nowhere below those wanted."""
    at: dict[Any, float] = {}
    for variable in nx.topological_sort(bounds):
        before = bounds.in_edges(variable, "distance")
        at[variable] = max([wanted[variable], *(at[other] + distance for other, _, distance in before)])
    return at


def _latest(bounds: nx.DiGraph, wanted: Mapping[Any, float]) -> dict[Any, float]:
    """Find the largest positions that keep all distances and are nowhere above those wanted."""
    mirrored = _earliest(bounds.reverse(copy=False), {variable: -at for variable, at in wanted.items()})
    return {variable: -at for variable, at in mirrored.items()}


def _on_page(
    layers: Layers,
    centres: dict[Knot, np.ndarray],
    taken: dict[Knot, np.ndarray],
    boxes: dict[str, np.ndarray],
    sizes: dict[str, np.ndarray],
    horizontal: bool,
) -> GraphLayout:
    """Shift everything onto a page that just holds it."""
    routes = {edge: _route([centres[knot] for knot in layers.routes[edge]], layers, edge) for edge in layers.routes}
    reach = [np.stack([centres[knot] - size / 2, centres[knot] + size / 2]) for knot, size in taken.items()]
    reached = np.concatenate([*reach, *boxes.values(), *routes.values()])
    low, high = reached.min(0) - MARGIN, reached.max(0) + MARGIN
    return GraphLayout(
        extent=high - low,
        sites=dict(layers.sites),
        nodes={name: Node(centres[layers.knots[name]] - low, size) for name, size in sizes.items()},
        boxes={plate: box - low for plate, box in boxes.items()},
        routes={edge: route - low for edge, route in routes.items()},
        loops=layers.loops,
        horizontal=horizontal,
    )


def _route(points: list[np.ndarray], layers: Layers, edge: tuple[str, str]) -> np.ndarray:
    parent, child = edge
    if layers.knots[child][1] <= layers.knots[parent][1]:
        # an edge against the order of the layers is bowed, clear of the edge that runs with them
        along = points[1] - points[0]
        aside = np.array([-along[1], along[0]]) / max(np.hypot(*along), 1e-9)
        points = [points[0], (points[0] + points[1]) / 2 + BOW * aside, points[1]]
    return np.array(points)


def _text_width(text: str, size: float) -> float:
    return float(TextPath((0, 0), text or " ", size=size, prop=FontProperties()).get_extents().width) / 72
