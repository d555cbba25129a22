"""A model's sites in layers: depth by depth, in an order that crosses few edges and tears no plate apart.

The method is Sugiyama's (Sugiyama, Tagawa & Toda 1981, *Methods for visual understanding of hierarchical system
structures*), on *tracks* instead of single vertices: a site, the sites of a hidden chain, or the lane in which the
edges of a site pass the layers between it and those that read it. What shares a track is drawn on a straight line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import networkx as nx
import numpy as np

from simformer_ppl.structure.drawn_sites import DrawnSite

__all__ = ["Knot", "Layers", "Track", "order_tracks", "read_layers"]

# sites of a hidden chain that is drawn straight
MIN_CHAIN = 4

STARTS = 20
SWEEPS = 8

type Edge = tuple[str, str]
type Track = tuple[str, str]  # "site", "chain" or "lane", and a name
type Knot = tuple[Track, int]  # where a track passes a layer


@dataclass(frozen=True)
class Layers:
    """Where sites and edges pass the layers.

    Attributes
    ----------
    sites
        What is drawn.
    knots
        Of every site.
    routes
        The knots that an edge (parent, child) passes.
    loops
        Sites whose scalars read each other.
    plates
        The plates around a track.
    """

    sites: Mapping[str, DrawnSite]
    knots: dict[str, Knot]
    routes: dict[Edge, list[Knot]]
    loops: list[str]
    plates: dict[Track, frozenset[str]]

    @cached_property
    def segments(self) -> list[tuple[Knot, Knot]]:
        """Pieces of routes from one layer to the next."""
        pieces = dict.fromkeys(piece for route in self.routes.values() for piece in pairwise(route))
        return [(start, stop) for start, stop in pieces if stop[1] == start[1] + 1]

    @cached_property
    def rows(self) -> list[list[Knot]]:
        """The knots of every layer."""
        knots = dict.fromkeys([*self.knots.values(), *(knot for route in self.routes.values() for knot in route)])
        return [[knot for knot in knots if knot[1] == layer] for layer in range(max(d for _, d in knots) + 1)]

    @cached_property
    def members(self) -> dict[str, list[Track]]:
        """The tracks in every plate, the outermost plate first."""
        names = sorted({plate for plates in self.plates.values() for plate in plates})
        inside = {plate: [track for track, plates in self.plates.items() if plate in plates] for plate in names}
        return dict(sorted(inside.items(), key=lambda item: -len(item[1])))

    @cached_property
    def spans(self) -> dict[str, tuple[int, int]]:
        """First and last layer of every plate."""
        layers = {
            plate: [layer for row in self.rows for track, layer in row if track in tracks]
            for plate, tracks in self.members.items()
        }
        return {plate: (min(depths), max(depths)) for plate, depths in layers.items()}

    @cached_property
    def outsiders(self) -> dict[str, list[Track]]:
        """The tracks in the layers of a plate but not in it, once per layer."""
        return {
            plate: [track for row in self.rows[first : last + 1] for track, _ in row if plate not in self.plates[track]]
            for plate, (first, last) in self.spans.items()
        }


def read_layers(sites: Mapping[str, DrawnSite], edges: Sequence[Edge]) -> Layers:
    """Find the layers of drawn sites, and the tracks of these and of their edges."""
    loops = [child for parent, child in edges if parent == child]
    edges = [edge for edge in edges if edge[0] != edge[1]]
    rank = {name: index for index, name in enumerate(sites)}
    # a site made in one piece can be read back by an earlier one (a scan): such an edge does not set the depth
    forward = [(parent, child) for parent, child in edges if rank[parent] < rank[child]]
    depth, tracks = _depths(list(rank), forward), _site_tracks(sites, forward)
    knots = {name: (tracks[name], depth[name]) for name in rank}
    plates = {tracks[name]: frozenset(site.plates) for name, site in sites.items()}
    routes: dict[Edge, list[Knot]] = {}
    for parent, child in edges:
        lane, between = ("lane", parent), range(depth[parent] + 1, depth[child])
        routes[parent, child] = [knots[parent], *((lane, layer) for layer in between), knots[child]]
        if between:
            plates[lane] = plates.get(lane, plates[tracks[parent]]) & plates[tracks[child]]
    return Layers(sites, knots, routes, loops, plates)


def _depths(names: list[str], edges: list[Edge]) -> dict[str, int]:
    """Length of the longest path from a root; a site that mostly feeds others moves down to the first it feeds."""
    graph = nx.DiGraph()
    graph.add_nodes_from(names)
    graph.add_edges_from(edges)
    depth = {name: layer for layer, layer_names in enumerate(nx.topological_generations(graph)) for name in layer_names}
    for name in reversed(list(nx.topological_sort(graph))):
        if graph.out_degree(name) > graph.in_degree(name):
            depth[name] = min(depth[child] for child in graph.successors(name)) - 1
    return {name: depth[name] - min(depth.values()) for name in names}


def _site_tracks(sites: Mapping[str, DrawnSite], edges: list[Edge]) -> dict[str, Track]:
    """One track for the longest path through the latent sites, such as a hidden chain, and one for every other site."""
    tracks: dict[str, Track] = {name: ("site", name) for name in sites}
    latent = nx.DiGraph([edge for edge in edges if not any(sites[name].is_data for name in edge)])
    path: list[str] = nx.dag_longest_path(latent)
    if len(path) >= MIN_CHAIN:
        tracks |= {name: ("chain", ", ".join(sites[name].plates)) for name in path}
    return tracks


def order_tracks(layers: Layers) -> dict[Track, int]:
    """Put the tracks in one order, by barycentre sweeps from several starts."""
    rng = np.random.default_rng(0)
    tracks = list(layers.plates)
    parents: dict[Track, list[Track]] = {track: [] for track in tracks}
    children: dict[Track, list[Track]] = {track: [] for track in tracks}
    for (parent, _), (child, _) in layers.segments:
        parents[child].append(parent)
        children[parent].append(child)
    best, best_cost = _arrange(layers, {track: float(i) for i, track in enumerate(tracks)}), np.inf
    for start in range(STARTS):
        places = rng.permutation(len(tracks)) if start else range(len(tracks))
        place = _arrange(layers, {track: float(i) for track, i in zip(tracks, places, strict=True)})
        for sweep in range(SWEEPS):
            cost = _disorder(layers, place)
            if cost < best_cost:
                best, best_cost = place, cost
            if best_cost == 0:
                return best
            neighbours = (parents, children)[sweep % 2]
            place = _arrange(
                layers, {track: float(np.mean([place[n] for n in neighbours[track] or [track]])) for track in place}
            )
    return best


def _arrange(layers: Layers, centres: dict[Track, float]) -> dict[Track, int]:
    """Sort by centre what lies in the same plates, and plates by the mean centre of what they hold."""
    means = {plate: float(np.mean([centres[track] for track in tracks])) for plate, tracks in layers.members.items()}

    def path(track: Track) -> list[tuple[float, str]]:
        return [(means[plate], plate) for plate in means if plate in layers.plates[track]] + [(centres[track], "")]

    return {track: index for index, track in enumerate(sorted(centres, key=path))}


def _disorder(layers: Layers, place: dict[Track, int]) -> float:
    """Crossings; strangers inside plates count more, edges that run through a plate less."""
    ends = np.array([(start[1], place[start[0]], place[stop[0]]) for start, stop in layers.segments]).reshape(-1, 3)
    depth, upper, lower = ends.T
    crossed = (upper[:, None] - upper) * (lower[:, None] - lower) < 0
    cost = (crossed & (depth[:, None] == depth)).sum() / 2
    for plate, members in layers.members.items():
        places = [place[track] for track in members]
        among = [track for track in layers.outsiders[plate] if min(places) < place[track] < max(places)]
        cost += sum(0.5 if kind == "lane" else 20.0 for kind, _ in among)
    return float(cost)
