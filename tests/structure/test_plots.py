"""The pictures of a structure: they show what is there, and nothing covers anything."""

import itertools

import jax.numpy as jnp
import matplotlib
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Ellipse, FancyArrowPatch, FancyBboxPatch

from simformer_ppl.structure import trace_structure
from simformer_ppl.structure.graph_layout import lay_out
from simformer_ppl.structure.plots import plot_graph, plot_matrix

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def eight_schools(y=None):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("school", 8):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(theta, 1), obs=y)


def hidden_markov():
    z = 0.0
    for t in range(10):
        z = numpyro.sample(f"z_{t}", dist.Normal(z, 1))
        numpyro.sample(f"y_{t}", dist.Normal(z, 1))


def regression():
    alpha = numpyro.sample("alpha", dist.Normal())
    beta = numpyro.sample("beta", dist.Normal().expand([8]))
    sigma = numpyro.sample("sigma", dist.HalfNormal())
    with numpyro.plate("observation", 190):
        numpyro.sample("y", dist.Normal(alpha + jnp.ones((190, 8)) @ beta, sigma))


def item_response():
    sd = numpyro.sample("sd", dist.HalfNormal())
    with numpyro.plate("student", 4, dim=-2):
        ability = numpyro.sample("ability", dist.Normal(0, sd))
    with numpyro.plate("item", 5, dim=-1):
        difficulty = numpyro.sample("difficulty", dist.Normal())
        guess = numpyro.sample("guess", dist.Normal())
    with numpyro.plate("student", 4, dim=-2), numpyro.plate("item", 5, dim=-1):
        margin = numpyro.deterministic("margin", ability - difficulty)
        numpyro.sample("answer", dist.Normal(margin + guess, 1))


def radon():
    mu = numpyro.sample("mu", dist.Normal())
    slope = numpyro.sample("slope", dist.Normal())
    with numpyro.plate("county", 3, dim=-2):
        intercept = numpyro.sample("intercept", dist.Normal(mu, 1))
        numpyro.sample("uranium", dist.Normal(intercept, 1))
        with numpyro.plate("house", 4, dim=-1):
            level = numpyro.sample("level", dist.Normal(intercept, 1))
            numpyro.sample("log_radon", dist.Normal(level + slope, 1))
    numpyro.sample("elsewhere", dist.Normal(mu, 1))


def shared_parameters():
    drift = numpyro.sample("drift", dist.Normal())
    noise = numpyro.sample("noise", dist.HalfNormal())
    z = 0.0
    for t in range(9):
        z = numpyro.sample(f"z_{t}", dist.Normal(z + drift, 1))
        numpyro.sample(f"y_{t}", dist.Normal(z, noise))


def many_parents():
    parameters = [numpyro.sample(f"parameter_{i}", dist.Normal()) for i in range(9)]
    numpyro.sample("y", dist.Normal(sum(parameters), 1))


def nested_plates():
    top = numpyro.sample("top", dist.Normal())
    with numpyro.plate("region", 2, dim=-3):
        region = numpyro.sample("region_mean", dist.Normal(top, 1))
        with numpyro.plate("town", 3, dim=-2):
            town = numpyro.sample("town_mean", dist.Normal(region, 1))
            with numpyro.plate("person", 4, dim=-1):
                noise = numpyro.sample("noise", dist.HalfNormal())
                numpyro.sample("y", dist.Normal(town, noise))


def random_walk():
    numpyro.sample("x", dist.GaussianRandomWalk(num_steps=4))


MODELS = {
    "eight_schools": (eight_schools, {}),
    "hidden_markov": (hidden_markov, {}),
    "regression": (regression, {}),
    "item_response": (item_response, {"sites": ["sd", "ability", "difficulty", "guess", "margin", "answer"]}),
    "radon": (radon, {}),
    "shared_parameters": (shared_parameters, {}),
    "many_parents": (many_parents, {}),
    "nested_plates": (nested_plates, {}),
    "random_walk": (random_walk, {}),
}


@pytest.fixture(scope="module")
def structures():
    return {name: trace_structure(model, **kwargs) for name, (model, kwargs) in MODELS.items()}


@pytest.fixture(scope="module")
def graphs(structures):
    return {name: plot_graph(structure) for name, structure in structures.items()}


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def labels(ax):
    return [text.get_text() for text in ax.texts]


def overlaps(ax):
    """Lay the figure out, and find the pairs of texts that cover each other."""
    ax.figure.draw_without_rendering()
    boxes = [(text.get_text(), text.get_window_extent().padded(-1)) for text in ax.texts]
    return [(a, b) for (a, first), (b, second) in itertools.combinations(boxes, 2) if first.overlaps(second)]


def inside_figure(ax):
    frame = ax.figure.bbox.padded(1)
    return all(frame.contains(*text.get_window_extent().get_points()[i]) for text in ax.texts for i in (0, 1))


class TestMatrix:
    def test_cells_are_those_of_the_matrix(self, structures):
        structure = structures["eight_schools"]
        for kind, matrix in [("moral", structure.moral()), ("adjacency", structure.adjacency)]:
            image = plot_matrix(structure, kind_matrix=kind).images[0].get_array()
            shown = np.asarray(image).min(-1) < 1
            np.testing.assert_array_equal(shown, matrix | np.eye(structure.num_tokens, dtype=bool))

    def test_attention_under_a_condition(self, structures):
        structure = structures["eight_schools"]
        given = np.zeros(structure.num_tokens, bool)
        given[structure.sites["y"].token_slice] = True
        image = np.asarray(plot_matrix(structure, conditioned=given).images[0].get_array())
        mask = np.asarray(structure.attention_mask(given))
        np.testing.assert_array_equal(image.min(-1) < 1, mask)
        # keys that are given have a colour of their own
        colours = {(bool(given[key]), to_hex(image[query, key])) for query, key in np.argwhere(mask)}
        assert len(colours) == 2
        named = plot_matrix(structure, conditioned=["y"]).images[0].get_array()
        np.testing.assert_array_equal(named, image)
        np.testing.assert_array_equal(plot_matrix(structure, conditioned="y").images[0].get_array(), image)

    def test_few_tokens_are_labelled_each_and_many_by_site(self, structures):
        few, many = structures["eight_schools"], structures["regression"]
        assert sorted(labels(plot_matrix(few))) == sorted([*few.tokens, *few.tokens])
        assert sorted(labels(plot_matrix(many))) == sorted([*many.sites, *many.sites])

    @pytest.mark.parametrize(
        ("name", "conditioned"),
        [("eight_schools", ["mu"]), ("hidden_markov", None), ("regression", ["y"]), ("radon", None)],
    )
    def test_labels_are_legible(self, structures, name, conditioned):
        ax = plot_matrix(structures[name], conditioned=conditioned)
        assert overlaps(ax) == []
        assert inside_figure(ax)

    def test_more_sites_than_labels_fit(self):
        def long_chain():
            x = 0.0
            for t in range(80):
                x = numpyro.sample(f"x_{t}", dist.Normal(x, 1))

        ax = plot_matrix(trace_structure(long_chain))
        assert "x_0" in labels(ax)
        assert overlaps(ax) == []

    @pytest.mark.parametrize(
        ("conditioned", "message"),
        [
            (["nu"], r"unknown site 'nu', expected some of \['mu'"),
            (np.ones(3, bool), r"expected bools of shape \(18,\), got bool of \(3,\)"),
            (np.ones(18), r"expected bools of shape \(18,\), got float64"),
        ],
    )
    def test_what_is_no_condition_is_refused(self, structures, conditioned, message):
        with pytest.raises(ValueError, match=message):
            plot_matrix(structures["eight_schools"], conditioned=conditioned)

    def test_unknown_kind(self, structures):
        with pytest.raises(ValueError, match="kind_matrix"):
            plot_matrix(structures["eight_schools"], kind_matrix="markov")


def ellipses(structure, ax):
    return dict(zip(structure.sites, (p for p in ax.patches if isinstance(p, Ellipse)), strict=True))


def bounds(patch):
    """Left, bottom, right and top in the data units of the axes."""
    if isinstance(patch, Ellipse):
        (x, y), width, height = patch.center, patch.width, patch.height
        return np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
    return np.array(
        [patch.get_x(), patch.get_y(), patch.get_x() + patch.get_width(), patch.get_y() + patch.get_height()]
    )


def contains(outer, inner):
    return (outer[:2] <= inner[:2]).all() and (inner[2:] <= outer[2:]).all()


def apart(first, second):
    return (first[2:] < second[:2]).any() or (second[2:] < first[:2]).any()


def site_edges(structure):
    reads = structure.adjacency
    return [
        (parent.name, child.name)
        for child in structure.sites.values()
        for parent in structure.sites.values()
        if reads[child.token_slice, parent.token_slice].any()
    ]


@pytest.mark.parametrize("name", MODELS)
class TestGraph:
    def test_an_arrow_per_edge(self, structures, graphs, name):
        ax = graphs[name]
        arrows = [patch for patch in ax.patches if isinstance(patch, FancyArrowPatch)]
        assert len(arrows) == len(site_edges(structures[name]))

    def test_nothing_covers_anything(self, structures, graphs, name):
        ax = graphs[name]
        nodes = ellipses(structures[name], ax)
        for first, second in itertools.combinations(nodes.values(), 2):
            assert apart(bounds(first), bounds(second))
        assert overlaps(ax) == []
        assert inside_figure(ax)

    def test_arrows_keep_off_other_sites(self, structures, graphs, name):
        ax = graphs[name]
        for patch in ellipses(structures[name], ax).values():
            for arrow in ax.patches:
                if isinstance(arrow, FancyArrowPatch):
                    points = (arrow._path_original.vertices - patch.center) / [patch.width / 2, patch.height / 2]
                    assert (np.hypot(*points.T) > 0.97).all()

    def test_plates_hold_their_sites_and_no_others(self, structures, graphs, name):
        structure = structures[name]
        ax = graphs[name]
        boxes = [patch for patch in ax.patches if isinstance(patch, FancyBboxPatch)]
        for plate, box in zip(structure.plates, boxes, strict=True):
            for site, node in ellipses(structure, ax).items():
                inside = plate in structure.sites[site].plates
                check = contains if inside else apart
                assert check(bounds(box), bounds(node)), (plate, site)

    def test_reading_goes_one_way(self, structures, graphs, name):
        nodes = ellipses(structures[name], graphs[name])
        steps = [
            np.subtract(nodes[child].center, nodes[parent].center)
            for parent, child in site_edges(structures[name])
            if parent != child
        ]
        down = all(step[1] < 0 for step in steps)
        right = all(step[0] > 0 for step in steps)
        assert down or right

    def test_data_are_shaded_and_deterministic_sites_dashed(self, structures, graphs, name):
        structure = structures[name]
        for site, patch in ellipses(structure, graphs[name]).items():
            assert (to_hex(patch.get_facecolor()) != "#ffffff") == structure.sites[site].is_data
            assert (patch.get_linestyle() != "-") == structure.sites[site].is_deterministic


def test_a_chain_within_a_site_is_a_loop(structures):
    assert site_edges(structures["random_walk"]) == [("x", "x")]


def test_a_hidden_chain_is_straight(structures, graphs):
    nodes = ellipses(structures["hidden_markov"], graphs["hidden_markov"])
    heights = [patch.center[1] for name, patch in nodes.items() if name.startswith("z")]
    np.testing.assert_allclose(heights, heights[0], atol=1e-6)


def test_given_axes_are_drawn_on(structures):
    _, axes = plt.subplots(1, 2, figsize=(4, 2))
    assert plot_graph(structures["radon"], ax=axes[0]) is axes[0]
    assert overlaps(axes[0]) == []
    assert plot_matrix(structures["eight_schools"], ax=axes[1]) is axes[1]
    assert overlaps(axes[1]) == []


def test_a_long_loop_is_drawn_as_one_series():
    def model():
        x, scale = 0.0, numpyro.sample("scale", dist.HalfNormal(1))
        for t in range(40):
            x = numpyro.sample(f"x{t}", dist.Normal(x, scale))
            numpyro.sample(f"y[{t}]", dist.Normal(x, 1))

    layout = lay_out(trace_structure(model))
    assert list(layout.nodes) == ["scale", "x0 … x39", "y[0] … y[39]"]
    assert layout.loops == ["x0 … x39"] and set(layout.routes) == {
        ("scale", "x0 … x39"),
        ("x0 … x39", "y[0] … y[39]"),
    }
