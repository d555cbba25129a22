"""Random NumPyro models, and numerical probes of the graphs that are read from them.

Three things are asked of a graph. A density or deterministic value that moves when one event of another site is
replaced has an edge to it. The mean and variance of a scalar of a Gaussian event, given the earlier ones, move only
with what it has an edge to. And two tokens with ``p(a, b) p(a', b') != p(a, b') p(a', b)`` at some values of all the
others are neighbours in the moral graph.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from textwrap import indent
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from hypothesis import strategies as st
from numpyro import handlers
from numpyro.primitives import Messenger

from simformer_ppl.structure import trace_structure
from simformer_ppl.structure.model_structure import ModelStructure
from simformer_ppl.structure.sites import Site
from tests.structure.model_draft import MODEL_SCOPE, written
from tests.structure.random_programs import QUICK

Values = dict[str, np.ndarray]
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
    findings, draws = Findings(info=structure.info), simulated(model, structure, 4, seed)
    needed, densities = np.zeros_like(structure.adjacency), densities_of(model, structure)
    for base in (0, 2):
        pair = tuple({name: draw[row] for name, draw in draws.items()} for row in (base, base + 1))
        _probe_densities(densities, structure, pair, needed, findings)
    if structure.num_tokens <= MOST_TOKENS:
        _probe_in_double_precision(model, structure, draws, findings)
    _count_loose(structure, needed, findings)
    return findings


def simulated(model: Callable[[], None], structure: ModelStructure, count: int, seed: int) -> Values:
    """Draws of all sites of a structure, and of the nuisances."""
    names = [*structure.sites, *structure.nuisances]

    def draw(key):
        with handlers.seed(rng_seed=key), handlers.trace() as trace:
            model()
        return {name: jnp.asarray(trace[name]["value"]) for name in names}

    compiled = jax.jit(draw, compiler_options=QUICK)
    draws = [compiled(key) for key in jax.random.split(jax.random.key(seed), count)]
    return {name: np.stack([np.asarray(draw[name]) for draw in draws]) for name in names}


class _Computed(Messenger):
    """Keep the values of deterministic sites, before what is substituted replaces them."""

    def __init__(self) -> None:
        super().__init__(None)
        self.values: dict[str, Any] = {}

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "deterministic":
            self.values[msg["name"]] = msg["value"]


def laws_at(model: Callable[[], None], values: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Distributions of all sample sites without masks and ``to_event``, and the deterministic values."""
    computed = _Computed()
    with handlers.seed(rng_seed=0), handlers.trace() as trace, handlers.substitute(data=values), computed:
        model()
    laws = {}
    for name, site in trace.items():
        if site["type"] == "sample":
            laws[name] = _bare(site["fn"])
    return laws, computed.values


def _bare(fn: Any) -> Any:
    if isinstance(fn, dist.MaskedDistribution):
        return _bare(fn.base_dist).expand(fn.batch_shape) if not fn.event_dim else _bare(fn.base_dist)
    if isinstance(fn, dist.Independent):
        return _bare(fn.base_dist)
    if isinstance(fn, dist.ExpandedDistribution):
        inner = fn.base_dist
        while isinstance(inner, dist.Independent | dist.ExpandedDistribution):
            inner = inner.base_dist
        return _bare(inner).expand(fn.batch_shape) if isinstance(inner, dist.MaskedDistribution) else fn
    return fn


def densities_of(model: Model, structure: ModelStructure) -> Callable[[Values], Values]:
    """Log densities, or deterministic values, of all sites of a structure given the values of all."""

    def densities(values):
        laws, computed = laws_at(model, values)
        return {
            n: computed[n] if s.is_deterministic else laws[n].log_prob(values[n]) for n, s in structure.sites.items()
        }

    return jax.jit(densities, compiler_options=QUICK)


def _probe_densities(
    densities: Callable[[Values], Values],
    structure: ModelStructure,
    pair: tuple[Values, Values],
    needed: np.ndarray,
    findings: Findings,
) -> None:
    """Replace one event by that of another draw: what moves must belong to a child of it."""
    before = {name: np.asarray(value) for name, value in densities(pair[0]).items()}
    for parent, event, changed in one_event_changes(structure, *pair):
        columns = event_tokens(structure.sites[parent], event, num_events(structure.sites[parent]))
        for child, found in densities(changed).items():
            found = np.asarray(found)
            moved = ~((found == before[child]) | (np.isnan(found) & np.isnan(before[child])))
            for element in np.flatnonzero(moved.ravel()):
                rows = event_tokens(structure.sites[child], element, moved.size)
                block = np.ix_(rows, columns)
                if child == parent and set(rows) & set(columns):
                    continue
                if not structure.adjacency[block].any():
                    size = np.ravel(found)[element] - np.ravel(before[child])[element]
                    findings.unsound.append(f"{child}[{element}] moves by {size:.3g} with {parent}[{event}]")
                needed[block] = True


def num_events(site: Site) -> int:
    """Events of a site; scalars, where its support acts on them one by one."""
    return site.num_tokens if site.is_elementwise else int(np.prod(site.shape[: len(site.shape) - site.event_dim]))


def event_tokens(site: Site, event: int, count: int) -> list[int]:
    """Tokens of one of so many equal parts of a site."""
    width = site.num_tokens // max(count, 1)
    if width == 0:
        return list(range(site.token_slice.start, site.token_slice.stop))
    return list(range(site.token_slice.start + event * width, site.token_slice.start + (event + 1) * width))


def one_event_changes(
    structure: ModelStructure, values: Values, replacement: Values
) -> Iterator[tuple[str, int, Values]]:
    """Site, event, and the values with that event replaced."""
    for name, site in structure.sites.items():
        count = num_events(site)
        for event in range(count):
            changed = values[name].copy().reshape(count, -1)
            changed[event] = replacement[name].reshape(count, -1)[event]
            yield name, event, {**values, name: changed.reshape(values[name].shape)}


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
        laws, _ = laws_at(model, values)
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
        laws, _ = laws_at(model, values)
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
