"""Random NumPyro models, and numerical probes of the graphs that are read from them.

Three things are asked of a graph. A density or deterministic value that moves when one event of another site is
replaced has an edge to it. The mean and variance of a scalar of a Gaussian event, given the earlier ones, move only
with what it has an edge to. And two tokens with ``p(a, b) p(a', b') != p(a, b') p(a', b)`` at some values of all the
others are neighbours in the moral graph.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from textwrap import indent
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from hypothesis import strategies as st
from numpyro import handlers

from simformer_ppl.structure import trace_structure
from simformer_ppl.structure.model_structure import ModelStructure
from tests.structure.model_draft import MODEL_SCOPE, written
from tests.structure.probing import (
    QUICK,
    Values,
    event_tokens,
    laws_at,
    num_events,
    one_event_changes,
    probe,
    simulated,
)

MOST_TOKENS = 40


@dataclass(frozen=True)
class Model:
    """The statements of a model.

    Attributes
    ----------
    code
        Statements, which may span several lines.
    sites
        What is tokenised; None for all sample sites.
    """

    code: tuple[str, ...]
    sites: tuple[str, ...] | None = None

    def __call__(self) -> None:
        """Run as a NumPyro model."""
        exec(compile("\n".join(self.code), "<model>", "exec"), dict(MODEL_SCOPE))

    def __str__(self) -> str:
        return f"# sites: {self.sites}\ndef model():\n" + indent("\n".join(self.code), "    ")


def random_model(seed: int, size: int) -> Model:
    """The model of a seed, of a prior and ``size`` further statements."""
    return Model(tuple(written(seed, size)), None)


@st.composite
def models(draw: Any, largest: int = 6) -> Model:
    """Strategy: a model per integer seed and size."""
    return random_model(draw(st.integers(0, 2**32 - 1)), draw(st.integers(1, largest)))


def with_some_sites(model: Model, seed: int) -> Model:
    """The model with some of its sites left out of the tokens, and its deterministic sites among them."""
    with handlers.seed(rng_seed=0), handlers.trace() as trace:
        jax.eval_shape(lambda: model())
    names = [name for name, site in trace.items() if site["type"] in ("sample", "deterministic")]
    kept = np.random.default_rng(seed).uniform(size=len(names)) < 0.7
    return Model(model.code, tuple(name for name, keep in zip(names, kept, strict=True) if keep) or (names[0],))


@dataclass
class Findings:
    """What the probes found of one model.

    Attributes
    ----------
    unsound
        What moved without an edge, in words.
    num_edges, num_loose
        Edges between tokens of different sites; those of them that no probe of a density needed.
    loose
        (distribution, distribution of the parent) of these.
    joint
        Whether the joint density was probed, and if not, why.
    info
        What the structure says of its being dense.
    """

    unsound: list[str] = field(default_factory=list)
    num_edges: int = 0
    num_loose: int = 0
    loose: list[tuple[str, str]] = field(default_factory=list)
    joint: str = "no"
    info: list[str] = field(default_factory=list)


def check_model(model: Model, seed: int = 0) -> Findings:
    """Read the graph of a model and probe it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        structure = trace_structure(model, sites=model.sites)
    draws, probed = simulated(model, structure, 2, seed), probe(model, structure, seed)
    findings = Findings(unsound=probed.unsound, info=structure.info)
    if structure.num_tokens <= MOST_TOKENS:
        _probe_in_double_precision(model, structure, draws, findings)
    _count_loose(structure, probed.needed, findings)
    return findings


def _probe_in_double_precision(model: Model, structure: ModelStructure, draws: Values, findings: Findings) -> None:
    wide = {n: d.astype(np.float64) if d.dtype.kind == "f" else d.astype(np.int64) for n, d in draws.items()}
    pair = tuple({name: draw[row] for name, draw in wide.items()} for row in (0, 1))
    try:
        with jax.enable_x64(True):
            _probe_gaussian_events(model, structure, pair, findings)
            if model.sites is None and not structure.has_hidden_noise:
                _probe_pairs(model, structure, pair, findings)
        findings.joint = "yes"
    except (TypeError, ValueError) as error:  # a program that fixes the width of a number
        findings.joint = f"{type(error).__name__} {error}"[:200]


def _probe_pairs(model: Model, structure: ModelStructure, pair: tuple[Values, Values], findings: Findings) -> None:
    """Two tokens whose log density has a mixed difference are neighbours in the moral graph."""

    def joint(values):
        laws, _ = laws_at(model, structure, values)
        # the law of a discrete site whose parameters are known is evaluated in single precision
        parts = [laws[name].log_prob(values[name]).astype(jnp.float64) for name in structure.sites]
        return sum(jnp.sum(part) for part in parts)

    compiled, moral = jax.jit(joint, compiler_options=QUICK), structure.moral()
    changes = [(n, e, c) for n, e, c in one_event_changes(structure, *pair) if structure.sites[n].is_elementwise]
    start = float(compiled(pair[0]))
    single = [float(compiled(changed)) for _, _, changed in changes]
    for i, (name, event, changed) in enumerate(changes):
        row = structure.sites[name].token_slice.start + event
        for j, (other, other_event, _) in enumerate(changes[:i]):
            column = structure.sites[other].token_slice.start + other_event
            if moral[row, column]:
                continue
            both = _replaced(changed, pair[1], other, other_event)
            if _differ(float(compiled(both)) + start, single[i] + single[j], start, single[i], single[j]):
                findings.unsound.append(f"joint density couples {name}[{event}] and {other}[{other_event}]")


def _replaced(values: Values, replacement: Values, name: str, element: int) -> Values:
    changed = values[name].copy().ravel()
    changed[element] = replacement[name].ravel()[element]
    return {**values, name: changed.reshape(values[name].shape)}


def _differ(left: float, right: float, *terms: float) -> bool:
    """Whether two sums of log densities differ by more than rounding; ``-inf`` is a density of zero."""
    if any(np.isnan(x) or x == np.inf for x in (left, right)) or left == right:
        return False
    if np.isinf(left) or np.isinf(right):
        return True
    return abs(left - right) > 1e-9 * (1 + max(abs(term) for term in terms))


def _probe_gaussian_events(
    model: Model, structure: ModelStructure, pair: tuple[Values, Values], findings: Findings
) -> None:
    """A scalar of a Gaussian event given the earlier ones: its coefficients and variance move only with its parents."""
    kinds = ("MultivariateNormal", "LowRankMultivariateNormal")
    names = [name for name, site in structure.sites.items() if site.distribution in kinds]
    if not names:
        return

    def moments(values):
        laws, _ = laws_at(model, structure, values)
        return {name: _moments(laws[name], structure.sites[name].shape) for name in names}

    compiled = jax.jit(moments, compiler_options=QUICK)
    before = {name: _conditionals(*moment) for name, moment in compiled(pair[0]).items()}
    for name, law in before.items():
        _require_edges(structure, name, law, findings)
    for parent, event, changed in one_event_changes(structure, *pair):
        columns = event_tokens(structure.sites[parent], event, num_events(structure.sites[parent]))
        for name, moment in compiled(changed).items():
            moved = np.abs(_conditionals(*moment) - before[name]).max(-1) > 1e-9
            for scalar in np.flatnonzero(moved):
                row = structure.sites[name].token_slice.start + scalar
                if not structure.adjacency[row, columns].any():
                    findings.unsound.append(f"conditional of {name}[{scalar}] moves with {parent}[{event}]")


def _moments(law: Any, shape: tuple[int, ...]) -> tuple[Any, Any]:
    while isinstance(law, dist.ExpandedDistribution):
        law = law.base_dist
    return jnp.broadcast_to(law.mean, shape), jnp.broadcast_to(law.covariance_matrix, (*shape, shape[-1]))


def _conditionals(mean: Any, covariance: Any) -> np.ndarray:
    """Intercept, coefficients of the earlier scalars and variance of each scalar, a row for each."""
    mean, covariance = np.asarray(mean), np.asarray(covariance)
    n, rows = mean.shape[-1], []
    for loc, cov in zip(mean.reshape(-1, n), covariance.reshape(-1, n, n), strict=True):
        for i in range(n):
            coefficients = np.linalg.solve(cov[:i, :i], cov[:i, i])
            padded = np.append(coefficients, np.zeros(n - i))
            rows.append([loc[i] - coefficients @ loc[:i], cov[i, i] - coefficients @ cov[:i, i], *padded])
    return np.asarray(rows)


def _require_edges(structure: ModelStructure, name: str, law: np.ndarray, findings: Findings) -> None:
    site, n = structure.sites[name], law.shape[1] - 2
    for scalar, row in enumerate(law):
        first = scalar - scalar % n
        for j in np.flatnonzero(np.abs(row[2:]) > 1e-9):
            start = site.token_slice.start
            if not structure.adjacency[start + scalar, start + first + j]:
                findings.unsound.append(f"conditional of {name}[{scalar}] reads {name}[{first + j}]")


def _count_loose(structure: ModelStructure, needed: np.ndarray, findings: Findings) -> None:
    owner = [site for site in structure.sites.values() for _ in range(site.num_tokens)]
    for row, column in np.argwhere(structure.adjacency):
        child, parent = owner[row], owner[column]
        if child is not parent:
            findings.num_edges += 1
            if not needed[row, column]:
                findings.num_loose += 1
                findings.loose.append((child.distribution, parent.distribution))
