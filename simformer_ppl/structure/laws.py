"""The law of every site, as equations: log densities, supports and deterministic values as functions of all sites."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.extend import core
from numpyro.distributions.constraints import Constraint

from simformer_ppl.structure import bitsets
from simformer_ppl.structure.abstract_value import Value
from simformer_ppl.structure.dataflow import Dataflow
from simformer_ppl.structure.running import innermost, run
from simformer_ppl.structure.supports import acts_per_scalar
from simformer_ppl.structure.tracing import ModelTrace, TracedSite, elementary
from simformer_ppl.structure.trail import Trail

# Their log density is a sum of the log densities of each scalar given the earlier ones, up to terms in parameters that
# those already read.
_SUMS_OF_CONDITIONALS = (dist.MultivariateNormal, dist.GaussianRandomWalk)


@dataclass
class SiteLaw:
    """What the law of one site reads.

    Attributes
    ----------
    kind
        ``"log_prob"``; ``"sample"`` for a distribution that has no density; ``"opaque"`` if it has neither;
        ``"deterministic"``.
    output
        The log density per batch element, a draw, or the deterministic value.
    parameters
        The leaves of the support, or of an opaque distribution.
    event_dim
        Event axes that one element of a log density covers.
    factorises
        Whether an event is to be taken apart into factors of its density, rather than kept as one block.
    is_sum_of_conditionals
        Whether those factors are conditionals, in order.
    support
        The support, with traced parameters.
    """

    kind: str
    output: Any
    parameters: list[Any]
    event_dim: int = 0
    factorises: bool = False
    is_sum_of_conditionals: bool = False
    support: Constraint | None = None


class Interpretation(NamedTuple):
    """What the laws of a model say.

    Attributes
    ----------
    laws
        With `Value` outputs and parameters.
    info
        Where the interpreter had to be dense.
    unheld
        Sites whose values cannot be set from outside, so that nothing is known of what reads them.
    soft
        Sites that are observed at a value which reads other sites.
    """

    laws: dict[str, SiteLaw]
    info: list[str]
    unheld: list[str]
    soft: list[str]


@dataclass(frozen=True)
class Laws:
    """The laws of all sites as one jaxpr, from (values of the nodes, noise keys).

    Attributes
    ----------
    trace
        Sites of the model.
    nodes
        Names of the sites whose scalars are the inputs, in trace order.
    jaxpr
        From the values and the keys to the outputs and parameters of the laws.
    templates
        The laws; their arrays are those of the trace, to be replaced by what the interpreter finds.
    fallbacks
        Sites whose laws could not be read as densities, and why.
    observed
        Sites that are observed at a value which the model computes.
    """

    trace: ModelTrace
    nodes: tuple[str, ...]
    jaxpr: core.ClosedJaxpr
    templates: dict[str, SiteLaw]
    fallbacks: list[str] = field(default_factory=list)
    observed: tuple[str, ...] = ()

    @property
    def num_noise(self) -> int:
        """Number of hidden noise sources: the seed, and every ``numpyro.prng_key``."""
        return 1 + self.trace.num_keys

    def starts(self) -> dict[str, int]:
        """First scalar of every node; the noise sources come before them all."""
        starts, position = {}, self.num_noise
        for name in self.nodes:
            starts[name] = position
            position += self.trace.sites[name].size
        return starts

    def interpret(self, given: Mapping[str, np.ndarray] | None = None, trail: Trail | None = None) -> Interpretation:
        """Find what every law reads.

        Parameters
        ----------
        given
            Values of sites, taken as known. Their scalars still count as read.
        trail
            Where to keep what every value came from, if that is wanted.

        Returns
        -------
        What was found.
        """
        given, starts, flow = given or {}, self.starts(), Dataflow(trail)
        inputs = {}
        for name in self.nodes:
            site = self.trace.sites[name]
            reads = bitsets.singletons(site.shape, starts[name])
            if name in given:
                array = np.broadcast_to(np.asarray(given[name], site.dtype), site.shape)
                inputs[name] = Value.of_constant(array, reads)
            else:
                inputs[name] = Value(site.shape, site.dtype, reads)
        keys = Value((self.num_noise,), None, bitsets.singletons((self.num_noise,), 0))
        outputs = iter(flow.run(self.jaxpr, [*jax.tree.leaves(inputs), keys]))
        laws = {}
        for name, law in self.templates.items():
            output = next(outputs)
            parameters = [next(outputs) for _ in law.parameters]
            laws[name] = SiteLaw(
                law.kind,
                output,
                parameters,
                law.event_dim,
                law.factorises,
                law.is_sum_of_conditionals,
                law.support,
            )
        counted = [f"{reason} ({count} times)" for reason, count in sorted(flow.fallbacks.items())]
        values = dict(zip(sorted(self.trace.random), outputs, strict=False))
        unheld = [n for n, value in values.items() if list(value.sets().flat) != list(inputs[n].sets().flat)]
        soft = [n for n, value in zip(self.observed, outputs, strict=True) if value.all_reads()]
        return Interpretation(laws, [*self.fallbacks, *counted], unheld, soft)


def trace_laws(
    model: Callable[..., Any],
    args: Sequence[Any],
    kwargs: dict[str, Any],
    trace: ModelTrace,
    deterministic_nodes: frozenset[str] = frozenset(),
) -> Laws:
    """Trace the laws of a model's sites.

    Parameters
    ----------
    model, args, kwargs
        The model and its arguments.
    trace
        What `trace_abstractly` found.
    deterministic_nodes
        Deterministic sites that are nodes of their own: what uses their value reads them, not what they read.
    """
    nodes = tuple(n for n, site in trace.sites.items() if not site.is_deterministic or n in deterministic_nodes)
    templates: dict[str, SiteLaw] = {}
    fallbacks: list[str] = []
    observed: list[str] = []

    def laws(values: dict[str, jax.Array], keys: jax.Array) -> list[Any]:
        templates.clear()
        fallbacks.clear()
        substituted = {name: values[n] for n in nodes for name in trace.sites[n].traced_names}
        substituted |= {n: values[n] for n in nodes}
        messages, handler = run(model, args, kwargs, keys[0], held=substituted, keys=keys[1:])
        with numpyro.validation_enabled(False):
            for name, site in trace.sites.items():
                if site.is_deterministic:
                    templates[name] = SiteLaw("deterministic", handler.deterministic[name], [])
                else:
                    fn = messages[site.traced_names[0]]["fn"]
                    templates[name] = _sample_law(site, fn, values[name], keys[0], fallbacks)
        found = {name: messages[trace.sites[name].traced_names[0]]["value"] for name in trace.random}
        soft = {n: v for n, v in handler.observations.items() if isinstance(v, jax.core.Tracer) and n in found}
        observed.clear()
        observed.extend(sorted(soft))
        return [[[law.output, *law.parameters] for law in templates.values()], found, soft]

    shapes = {n: jax.ShapeDtypeStruct(trace.sites[n].shape, trace.sites[n].dtype) for n in nodes}
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1 + trace.num_keys))
    jaxpr = jax.make_jaxpr(laws)(shapes, keys)
    return Laws(trace, nodes, jaxpr, templates, list(dict.fromkeys(fallbacks)), tuple(observed))


def _sample_law(site: TracedSite, fn: Any, value: jax.Array, key: jax.Array, fallbacks: list[str]) -> SiteLaw:
    fn = elementary(fn)
    try:
        support = fn.support
        log_prob = fn.log_prob(value)
    except jax.errors.JAXTypeError:
        raise
    except Exception as error:
        fallbacks.append(f"site {site.name!r}: no log density ({type(error).__name__}), parents taken from its draws")
        return _simulated_law(site, fn, key)
    parameters = [leaf for leaf in jax.tree.leaves(support)]
    return SiteLaw(
        kind="log_prob",
        output=log_prob,
        parameters=parameters,
        event_dim=fn.event_dim,
        factorises=acts_per_scalar(support),
        is_sum_of_conditionals=isinstance(innermost(fn), _SUMS_OF_CONDITIONALS),
        support=support,
    )


def _simulated_law(site: TracedSite, fn: Any, key: jax.Array) -> SiteLaw:
    """The law of a distribution that can only be drawn from: an event reads what a draw of it does."""
    try:
        draw = jnp.broadcast_to(fn.sample(key), site.shape)
        return SiteLaw("sample", draw, [], fn.event_dim, support=None)
    except Exception:
        leaves = [leaf for leaf in jax.tree.leaves(fn) if hasattr(leaf, "shape")]
        return SiteLaw("opaque", jnp.zeros(site.shape), leaves, fn.event_dim, support=None)
