"""Which element of an output may change with which input scalar: an abstract interpreter of jaxprs.

Every value carries, per element, the set of input scalars it may read. Reading is by value, not by derivative: a sign,
a comparison or the index of a gather counts. Constants are propagated (they resolve indices, loop counters and
predicates), and so are structural zeros (``A @ x`` reads no ``x[j]`` where ``A[:, j]`` is zero). An absent element of a
set is proven; a present one is possible. Proven for finite numbers: zero times anything counts as zero, whose sign
nothing is taken to ask for.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.extend import core

from simformer_ppl.structure import bitsets
from simformer_ppl.structure.abstract_value import Value
from simformer_ppl.structure.constants import fold
from simformer_ppl.structure.rules import RULES
from simformer_ppl.structure.source_lines import line_of_equation
from simformer_ppl.structure.trail import Step, Trail

# Neither constant nor reading anything: they have no value outside a compiled program, or a new one at every call.
_UNKNOWABLE = {"platform_index", "axis_index", "io_callback"}
# Their jaxpr is a combiner or a loop body, not a function of the operands.
_NOT_CALLS = {"scan", "while", "cond", "reduce", "reduce_window", "custom_linear_solve", "custom_root"}
# Arrays larger than this share one set.
_LARGEST = 4_000_000


class Dataflow:
    """Abstract interpreter.

    Parameters
    ----------
    trail
        Where to keep what every value came from, if that is wanted.

    Attributes
    ----------
    fallbacks
        Counts, per reason and line of the model, the equations that were taken to be dense over their inputs for want
        of a rule.
    """

    def __init__(self, trail: Trail | None = None) -> None:
        self.fallbacks: Counter[str] = Counter()
        self.trail = trail
        self._calls: list[Any] = []

    def run(self, closed_jaxpr: core.ClosedJaxpr, inputs: Sequence[Value]) -> list[Value]:
        """Interpret a jaxpr.

        Parameters
        ----------
        closed_jaxpr
            What ``jax.make_jaxpr`` returns.
        inputs
            One per input of the jaxpr.

        Returns
        -------
        One value per output.
        """
        return self.evaluate(closed_jaxpr.jaxpr, closed_jaxpr.consts, inputs)

    def evaluate(self, jaxpr: Any, consts: Sequence[Any], inputs: Sequence[Value]) -> list[Value]:
        """Interpret an open jaxpr."""
        environment = {var: Value.of_constant(const) for var, const in zip(jaxpr.constvars, consts, strict=True)}
        environment.update(zip(jaxpr.invars, inputs, strict=True))

        def read(var: Any) -> Value:
            return Value.of_constant(var.val) if isinstance(var, core.Literal) else environment[var]

        for eqn in jaxpr.eqns:
            outputs = self.apply(eqn, [read(var) for var in eqn.invars])
            environment.update(zip(eqn.outvars, outputs, strict=True))
        return [read(var) for var in jaxpr.outvars]

    def apply(self, eqn: Any, values: list[Value]) -> list[Value]:
        """Interpret one equation."""
        called = _called_jaxpr(eqn, values)
        if called is not None:
            self._calls.append(eqn)
            outputs = self.evaluate(*open_jaxpr(called), values)
            self._calls.pop()
            return outputs
        known = eqn.primitive.name not in _UNKNOWABLE and all(value.is_constant for value in values)
        constants = fold(eqn, values) if known else None
        if constants is not None and all(value.reads is None for value in values):
            return constants
        num_dense = self.fallbacks.total()
        outputs = self._ruled(eqn, values)
        is_dense = self.fallbacks.total() > num_dense
        for index, output in enumerate(outputs):
            if constants is not None:
                output.share_constant(constants[index])
            elif output.reads is not None and output.reads.size > _LARGEST:
                everything = np.asarray(bitsets.union_all(output.reads), dtype=object)
                output.reads = np.broadcast_to(everything, output.shape)
        if self.trail is not None:
            self.trail.add(outputs, values, Step(eqn.primitive.name, self._line(eqn), is_dense))
        return outputs

    def _line(self, eqn: Any) -> str | None:
        """Line of the model; of the outermost call, since what is compiled once keeps the lines of its first call."""
        return next(filter(None, map(line_of_equation, [*self._calls, eqn])), None)

    def dense(self, eqn: Any, values: Sequence[Value], reason: str | None = None) -> list[Value]:
        """Every output reads all that any input reads; with a reason, it is counted as a fallback."""
        everything = 0
        for value in values:
            everything |= value.all_reads()
        if reason is not None and everything:
            line = self._line(eqn)
            self.fallbacks[reason if line is None else f"{reason}, at {line}"] += 1
        return [_uniform(var.aval, everything) for var in eqn.outvars]

    def _ruled(self, eqn: Any, values: list[Value]) -> list[Value]:
        name = eqn.primitive.name
        rule = RULES.get(name)
        if rule is None:
            return self.dense(eqn, values, reason=f"{name}: no rule")
        try:
            outputs = rule(self, eqn, values)
            for var, output in zip(eqn.outvars, outputs, strict=True):
                if output.reads is not None and output.reads.shape != tuple(var.aval.shape):
                    raise ValueError(f"shape {output.reads.shape} instead of {var.aval.shape}")
                output.dtype = getattr(var.aval, "dtype", None)
            return outputs
        except Exception as error:  # a wrong rule must cost sharpness, never the trace
            return self.dense(eqn, values, reason=f"{name}: {type(error).__name__} {error}"[:120])


def open_jaxpr(jaxpr: Any) -> tuple[Any, Sequence[Any]]:
    """The jaxpr and its constants, of a closed or an open one."""
    return (jaxpr.jaxpr, jaxpr.consts) if hasattr(jaxpr, "consts") else (jaxpr, ())


def _uniform(aval: Any, bitset: int) -> Value:
    shape = getattr(aval, "shape", ())
    reads = np.broadcast_to(np.asarray(bitset, dtype=object), shape) if bitset else None
    return Value(shape, getattr(aval, "dtype", None), reads)


def _called_jaxpr(eqn: Any, values: Sequence[Value]) -> Any | None:
    if eqn.primitive.name in _NOT_CALLS:
        return None
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        if key in eqn.params:
            inner, _ = open_jaxpr(eqn.params[key])
            if [tuple(v.aval.shape) for v in inner.invars] == [v.shape for v in values] and len(inner.outvars) == len(
                eqn.outvars
            ):
                return eqn.params[key]
    return None
