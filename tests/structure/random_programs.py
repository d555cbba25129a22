"""Random programs, as source code, and a numerical probe of what each of their values moves with.

A program is a list of assignments, ``v3 = jnp.roll(v1, 2, axis=0)``: the shorter program of the same seed is a prefix
of the longer one, so that hypothesis shrinks the size, and a failure is read off as Python code.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from simformer_ppl.structure import bitsets
from simformer_ppl.structure.abstract_value import Value
from simformer_ppl.structure.dataflow import Dataflow
from tests.structure.draft import SCOPE, Draft
from tests.structure.probing import QUICK
from tests.structure.random_operations import OPERATIONS

SCALES = (0.3, 0.8, 2.0)
STEPS = (1e-2, 0.3, -0.7, 2.0, -5.0)


@dataclass(frozen=True)
class Program:
    """Assignments from a vector ``x`` on.

    Attributes
    ----------
    num_inputs
        Length of ``x``.
    lines
        Name, expression and the kind of operation that it came from, per variable.
    """

    num_inputs: int
    lines: tuple[tuple[str, str, str], ...]

    def __call__(self, x: Any) -> list[Any]:
        """All variables, in order."""
        scope = {**SCOPE, "x": x}
        for name, expression, _ in self.lines:
            scope[name] = eval(expression, scope)
        return [scope[name] for name, _, _ in self.lines]

    def __str__(self) -> str:
        return "\n".join([f"# x: {self.num_inputs}", *(f"{name} = {code}" for name, code, _ in self.lines)])

    def upto(self, position: int) -> Program:
        """What the variable at a position needs."""
        needed, kept = {self.lines[position][0]}, []
        for name, code, kind in reversed(self.lines[: position + 1]):
            if name in needed:
                needed |= {other for other, _, _ in self.lines if _mentions(code, other)}
                kept.append((name, code, kind))
        return Program(self.num_inputs, tuple(reversed(kept)))


def _mentions(code: str, name: str) -> bool:
    return name in compile(code, "", "eval").co_names or any(
        name in const.co_names or name in const.co_freevars for const in _nested(compile(code, "", "eval"))
    )


def _nested(code: Any) -> list[Any]:
    inner = [const for const in code.co_consts if hasattr(const, "co_names")]
    return inner + [deep for const in inner for deep in _nested(const)]


def random_program(seed: int, size: int) -> Program:
    """The program of a seed, of ``size`` operations and what these need."""
    rng = np.random.default_rng(seed)
    draft = Draft(rng, int(rng.integers(2, 9)))
    names = list(OPERATIONS)
    for _ in range(size):
        kind = names[int(rng.integers(len(names)))]
        draft.emit(OPERATIONS[kind](draft), kind)
    return Program(draft.num_inputs, tuple(draft.lines))


@st.composite
def programs(draw: Any, largest: int = 12) -> Program:
    """Strategy: a program per integer seed and size."""
    return random_program(draw(st.integers(0, 2**32 - 1)), draw(st.integers(1, largest)))


@dataclass
class Verdict:
    """What the probe found of one program.

    Attributes
    ----------
    unsound
        Positions of variables of which an element moved with an input that it does not read.
    first
        For the first of them: the element, and the input.
    num_read, num_loose
        Pairs of elements and inputs that are read; those of them that never moved.
    loose
        Kinds of operation whose operands were sharp and whose result is not.
    fallbacks
        Why the interpreter was dense.
    """

    unsound: list[int] = field(default_factory=list)
    first: tuple[int, int] | None = None
    num_read: int = 0
    num_loose: int = 0
    loose: Counter[str] = field(default_factory=Counter)
    fallbacks: Counter[str] = field(default_factory=Counter)


def check(program: Program, seed: int = 0, known: np.ndarray | None = None) -> Verdict:
    """Compare what the variables of a program read with what moves them.

    Parameters
    ----------
    program
        The program.
    seed
        Of the base points.
    known
        With a bool per input, the interpreter is told the values of these at the only base point.
    """
    rng = np.random.default_rng(seed)
    scales = SCALES if known is None else SCALES[1:2]
    bases = np.stack([scale * rng.normal(size=program.num_inputs) for scale in scales]).astype(np.float32)
    reads, fallbacks = read_sets(program, bases[0], known)
    verdict, sharp = Verdict(fallbacks=fallbacks), {"x"}
    compiled = jax.jit(program, compiler_options=QUICK)
    for position, (read, moved) in enumerate(zip(reads, moves(compiled, bases), strict=True)):
        wrong, loose = moved & ~read, read & ~moved
        verdict.num_read += int(read.sum())
        verdict.num_loose += int(loose.sum())
        if wrong.any() and is_confirmed(program, position, bases, read):
            verdict.unsound.append(position)
            verdict.first = verdict.first or tuple(int(i) for i in np.argwhere(wrong)[0])
        name, code, kind = program.lines[position]
        operands = {other for other, _, _ in program.lines if _mentions(code, other)}
        if not loose.any():
            sharp.add(name)
        elif operands <= sharp:
            verdict.loose[kind] += 1
    return verdict


def read_sets(
    program: Program, base: np.ndarray, known: np.ndarray | None = None
) -> tuple[list[np.ndarray], Counter[str]]:
    """Per variable, which inputs each element may read."""
    flow, n = Dataflow(), program.num_inputs
    if known is None:
        jaxpr = jax.make_jaxpr(program)(base)
        inputs = [Value((n,), base.dtype, bitsets.singletons((n,), 0))]
    else:
        jaxpr = jax.make_jaxpr(lambda *scalars: program(jnp.stack(scalars)))(*base)
        sets = [bitsets.singletons((), i) for i in range(n)]
        inputs = [Value.of_constant(base[i], sets[i]) if known[i] else Value((), base.dtype, sets[i]) for i in range(n)]
    outputs = flow.run(jaxpr, inputs)
    return [bitsets.to_matrix([int(s) for s in out.sets().flat], n) for out in outputs], flow.fallbacks


def moves(run: Callable[[Any], list[Any]], bases: np.ndarray) -> list[np.ndarray]:
    """Per variable, which inputs moved which element.

    Point by point: in a batch, a vectorised sum rounds differently from one place to the next.
    """
    n = bases.shape[1]
    shifts = np.concatenate([np.zeros((1, n)), *(step * np.eye(n) for step in STEPS)]).astype(np.float32)
    points = (bases[:, None] + shifts).reshape(-1, n)
    rows = [[np.asarray(value).ravel() for value in run(jnp.asarray(point))] for point in points]
    out = []
    for value in (np.stack(values) for values in zip(*rows, strict=True)):
        table = value.reshape(len(bases), len(shifts), -1)
        before, after = table[:, :1], table[:, 1:]
        same = (before == after) | ((before != before) & (after != after))
        out.append(~same.reshape(len(bases), len(STEPS), n, -1).all((0, 1)).T)
    return out


def is_confirmed(program: Program, position: int, bases: np.ndarray, reads: np.ndarray) -> bool:
    """Whether a variable moves with what it does not read when every primitive runs by itself, too.

    XLA for CPUs fuses ``x.at[1:].add(x[:-1])`` in loops such that it overwrites what it still has to read.
    """
    with jax.disable_jit():
        (*_, moved) = moves(program.upto(position), bases)
    return bool((moved & ~reads).any())
