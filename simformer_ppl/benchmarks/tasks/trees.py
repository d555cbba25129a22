"""Parameters in a tree, each datum a noisy function of one of them: the nonlinear tree, the hidden Markov chain."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Bool, Float
from numpyro.contrib.control_flow import scan
from scipy.special import logsumexp
from scipy.stats import norm

from simformer_ppl.benchmarks.tasks.task import Task

_EDGES = np.linspace(-8.0, 8.0, 1_001)
_STEPS, _CHAIN_SD = 10, 0.5


def tree() -> None:
    """Three parameters, four data (Gloeckler et al. 2024, appendix A2.2)."""
    root = numpyro.sample("theta1", dist.Normal(0, 1))
    left, right = numpyro.sample("theta2", dist.Normal(root, 1)), numpyro.sample("theta3", dist.Normal(root, 1))
    numpyro.sample("x1", dist.Normal(jnp.sin(left) ** 2, 0.2))
    numpyro.sample("x2", dist.Normal(0.1 * left**2, 0.2))
    numpyro.sample("x3", dist.Normal(0.1 * right**2, 0.6))
    numpyro.sample("x4", dist.Normal(jnp.cos(right) ** 2, 0.1))


def hidden_markov_chain() -> None:
    """Ten steps of a random walk, its squares seen with noise (Gloeckler et al. 2024, appendix A2.2)."""

    def step(theta, _):
        theta = numpyro.sample("theta", dist.Normal(theta, _CHAIN_SD))
        numpyro.sample("x", dist.Normal(theta**2, _CHAIN_SD))
        return theta, None

    scan(step, 0.0, None, length=_STEPS)


class GaussianTree(NamedTuple):
    """What the reference knows of a model whose scalars are the parameters, then the data.

    Attributes
    ----------
    parents
        Of every parameter, an earlier one; -1 at the root, which has mean 0.
    deviations
        Of every parameter, given its parent.
    owners
        The parameter that each datum reads.
    links
        Mean of each datum as a function of its parameter.
    noises
        Standard deviations of the data.
    """

    parents: tuple[int, ...]
    deviations: tuple[float, ...]
    owners: tuple[int, ...]
    links: tuple[Callable[[np.ndarray], np.ndarray], ...]
    noises: tuple[float, ...]


def draw_tree(
    model: GaussianTree,
    rng: np.random.Generator,
    values: Float[np.ndarray, " n"],
    given: Bool[np.ndarray, " n"],
    num_draws: int,
) -> Float[np.ndarray, "draws n"]:
    """Draw any conditional by messages from the leaves to the root, then from the root to the leaves.

    A parameter that is not given lives on a grid of cells, far finer than any posterior here, and is uniform in its
    cell; one that is given has its value.
    """
    size = len(model.parents)
    centres = (_EDGES[1:] + _EDGES[:-1]) / 2
    points = [values[i : i + 1] if given[i] else centres for i in range(size)]
    belief = [np.zeros(len(p)) for p in points]
    for datum, (owner, link, noise) in enumerate(zip(model.owners, model.links, model.noises, strict=True)):
        if given[size + datum]:
            belief[owner] = belief[owner] + norm.logpdf(values[size + datum], link(points[owner]), noise)
    for child in reversed(range(1, size)):
        parent = model.parents[child]
        step = norm.logpdf(points[child][None], points[parent][:, None], model.deviations[child])
        belief[parent] = belief[parent] + logsumexp(step + belief[child], 1)
    draws = np.tile(values, (num_draws, 1))
    for node in range(size):
        if not given[node]:
            mean = np.zeros(1) if node == 0 else draws[:, model.parents[node]]
            log_weight = norm.logpdf(centres, mean[:, None], model.deviations[node]) + belief[node]
            cell = _draw_cell(rng, log_weight, num_draws)
            draws[:, node] = rng.uniform(_EDGES[cell], _EDGES[cell + 1])
    for datum, (owner, link, noise) in enumerate(zip(model.owners, model.links, model.noises, strict=True)):
        if not given[size + datum]:
            draws[:, size + datum] = rng.normal(link(draws[:, owner]), noise)
    return draws


def _draw_cell(rng: np.random.Generator, log_weight: Float[np.ndarray, "#draws cells"], count: int) -> np.ndarray:
    cumulative = np.cumsum(np.exp(log_weight - log_weight.max(1, keepdims=True)), 1)
    target = rng.uniform(size=(count, 1)) * cumulative[:, -1:]
    return (cumulative < target).sum(1)


_TREE = GaussianTree(
    parents=(-1, 0, 0),
    deviations=(1.0, 1.0, 1.0),
    owners=(1, 1, 2, 2),
    links=(lambda t: np.sin(t) ** 2, lambda t: 0.1 * t**2, lambda t: 0.1 * t**2, lambda t: np.cos(t) ** 2),
    noises=(0.2, 0.2, 0.6, 0.1),
)
_CHAIN = GaussianTree(
    parents=tuple(range(-1, _STEPS - 1)),
    deviations=(_CHAIN_SD,) * _STEPS,
    owners=tuple(range(_STEPS)),
    links=(np.square,) * _STEPS,
    noises=(_CHAIN_SD,) * _STEPS,
)
_DATA = ("x1", "x2", "x3", "x4")
TREE = Task("tree", tree, partial(draw_tree, _TREE), {"data_sites": _DATA}, all_conditionals=True)
HMM = Task("hmm", hidden_markov_chain, partial(draw_tree, _CHAIN), {"data_sites": ("x",)}, all_conditionals=True)
