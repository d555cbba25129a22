"""What a random program is written with: its variables so far, and ways to choose among them."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

LARGEST = 72


@jax.custom_jvp
def with_custom_jvp(x):
    return jnp.sin(x) + 0.1 * x


@with_custom_jvp.defjvp
def _(primals, tangents):
    return with_custom_jvp(primals[0]), tangents[0] * jnp.cos(primals[0])


@jax.custom_vjp
def with_custom_vjp(x):
    return jnp.tanh(x) * 2


with_custom_vjp.defvjp(lambda x: (with_custom_vjp(x), x), lambda x, g: (g * (1 + x**2),))


def cycled(array, shape):
    """As many elements as the shape has, from the start again after the last."""
    return jnp.ravel(array)[np.arange(prod(shape)) % array.size].reshape(shape)


SCOPE = {
    "np": np,
    "jnp": jnp,
    "jax": jax,
    "lax": lax,
    "cycled": cycled,
    "with_custom_jvp": with_custom_jvp,
    "with_custom_vjp": with_custom_vjp,
}


class Draft:
    """A program that is being written: its variables, their shapes and kinds (``"f"``, ``"i"``, ``"b"``)."""

    def __init__(self, rng: np.random.Generator, num_inputs: int):
        self.rng = rng
        self.num_inputs = num_inputs
        self.structs = {"x": jax.ShapeDtypeStruct((num_inputs,), jnp.float32)}
        self.lines: list[tuple[str, str, str]] = []

    def emit(self, expression: str, kind: str) -> str | None:
        """Append an assignment; None if it is no valid expression, or too large."""
        names = list(self.structs)

        def run(*values):
            return eval(expression, {**SCOPE, **dict(zip(names, values, strict=True))})

        try:
            struct = jax.eval_shape(run, *self.structs.values())
        except (TypeError, ValueError):  # the shapes that were drawn do not fit
            return None
        if struct.size > LARGEST or struct.size == 0:
            return None
        name = f"v{len(self.lines)}"
        self.structs[name] = struct
        self.lines.append((name, expression, kind))
        return name

    def integer(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def choose(self, options: Any) -> Any:
        options = list(options)
        return options[self.integer(0, len(options) - 1)]

    def axis(self, name: str) -> int:
        return self.integer(0, len(self.structs[name].shape) - 1)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.structs[name].shape

    def array(self, shape: tuple[int, ...], zeros: float = 0.5) -> str:
        """A known array with zeros in it."""
        numbers = np.round(self.rng.uniform(-1.5, 1.5, shape), 1) * (self.rng.uniform(size=shape) > zeros)
        return f"{self.choose(['np', 'jnp'])}.array({numbers.tolist()}, np.float32)"

    def mask(self, shape: tuple[int, ...]) -> str:
        return f"np.array({(self.rng.uniform(size=shape) > 0.5).tolist()})"

    def indices(self, count: int, size: int, outside: bool = False) -> str:
        low, high = (-size - 1, size + 2) if outside else (0, size - 1)
        return f"{self.choose(['np', 'jnp'])}.array({[self.integer(low, high) for _ in range(count)]})"

    def pick(self, accepts: Callable[[Any], bool]) -> str | None:
        """One of the variables, the later ones more often."""
        names = [name for name, struct in self.structs.items() if accepts(struct)]
        if not names:
            return None
        return names[max(self.integer(0, len(names) - 1), self.integer(0, len(names) - 1))]

    def floats(self, ndim: int | None = None) -> str:
        """A float variable, not a scalar unless asked for."""

        def accepts(struct):
            fits = struct.ndim > 0 if ndim is None else struct.ndim == ndim
            return fits and jnp.issubdtype(struct.dtype, jnp.floating) and struct.size <= LARGEST // 2

        name = self.pick(accepts)
        if name is None or self.rng.uniform() < 0.1:
            size = {0: (), 1: (self.integer(2, 6),)}.get(ndim, (self.integer(2, 4), self.integer(2, 4)))
            if ndim == 3:
                size = (2, *size)
            name = self.emit(f"cycled({self.floats(1)}, {size})", "resize")
        return name

    def vector(self, size: int) -> str:
        """A float vector of a given length."""
        name = self.pick(lambda s: s.shape == (size,) and jnp.issubdtype(s.dtype, jnp.floating))
        return name or self.emit(f"cycled({self.floats(1)}, {(size,)})", "resize")

    def like(self, name: str) -> str:
        """A float variable that broadcasts with another."""
        shape = self.shape(name)

        def accepts(struct):
            fits = struct.ndim <= len(shape) and all(
                a in (1, b) for a, b in zip(struct.shape[::-1], shape[::-1], strict=False)
            )
            return fits and jnp.issubdtype(struct.dtype, jnp.floating)

        return self.pick(accepts) or f"jnp.sum({self.floats()})"

    def unknown(self, count: int, low: int, high: int) -> str:
        """Indices computed from values, some of them out of bounds."""
        return self.emit(f"jnp.clip(jnp.floor({self.vector(count)} * 2), {low}, {high}).astype(int)", "as index")

    def unknown_scalar(self, low: int, high: int) -> str:
        source = self.floats(1)
        at = self.integer(0, self.shape(source)[0] - 1)
        return self.emit(f"jnp.clip(jnp.floor({source}[{at}] * 2), {low}, {high}).astype(int)", "as index")

    def square(self, n: int) -> str:
        """A square matrix, with structural zeros or without."""
        rows = f"cycled({self.floats(1)}, ({n}, {n}))"
        return self.choose([f"jnp.tanh({rows})", f"jnp.where({self.mask((n, n))}, jnp.tanh({rows}), 0.0)"])

    def lower(self, n: int) -> str:
        """A lower-triangular matrix that is well conditioned."""
        diagonal = self.choose([f"jnp.diag(1.5 + jnp.tanh({self.vector(n)}))", f"1.2 * jnp.eye({n})"])
        return self.emit(f"jnp.tril({self.square(n)}, -1) + {diagonal}", "lower triangle")

    def positive(self, n: int) -> str:
        """A positive-definite matrix."""
        matrix, vector = self.emit(self.square(n), "square"), self.vector(n)
        return self.emit(
            self.choose(
                [
                    f"{matrix} @ {matrix}.T + jnp.eye({n})",
                    f"0.2 * ({matrix} + {matrix}.T) + {n} * jnp.eye({n})",
                    f"jnp.diag(1.5 + jnp.tanh({vector}))",
                    f"jnp.diag(2.5 + jnp.tanh({vector})) + 0.5 * (jnp.eye({n}, k=1) + jnp.eye({n}, k=-1))",
                    f"jax.scipy.linalg.block_diag({matrix}[:2, :2] @ {matrix}[:2, :2].T + jnp.eye(2), "
                    f"jnp.diag(1.5 + jnp.sin({vector}[2:])))",
                ]
            ),
            "positive definite",
        )

    def body(self, c: str, size: int, counter: str | None = None) -> str:
        """An expression of a vector ``c`` that keeps its length; it may close over other variables."""
        code = c
        for _ in range(self.integer(1, 3)):
            code = self._step(code, size, counter)
        return code

    def _step(self, c: str, n: int, counter: str | None) -> str:
        i, j = self.integer(0, n - 1), self.integer(0, n - 1)
        options = [
            f"jnp.tanh({c})",
            f"jnp.roll({c}, {i})",
            f"jnp.flip({c})",
            f"jnp.sort({c})",
            f"({c}).at[{i}].set(0.3)",
            f"({c}).at[{i}].add(0.5)",
            f"({c}).at[{i}].set(({c})[{j}])",
            f"({c}).at[{self.indices(2, n)}].multiply(0.0)",
            f"0.5 * ({c}) + {self.vector(n)}",
            f"({c}) * {self.array((n,))}",
            f"jnp.tanh({self.array((n, n))} @ ({c}))",
            f"({c})[{self.indices(n, n)}]",
            f"jnp.where({self.mask((n,))}, {c}, 0.1)",
            f"jnp.where({self.vector(n)} > 0, {c}, 0.1)",
            f"0.3 * jnp.cumsum({c})",
            f"lax.dynamic_update_slice({c}, ({c})[:1] * 0.5, ({i},))",
            f"jnp.concatenate([({c})[1:], jnp.ones(1)])",
        ]
        if counter:
            options += [
                f"({c}).at[{counter}].set(0.2)",
                f"({c}).at[{counter}].add({self.vector(n)}[{counter}])",
                f"({c}).at[{counter} + 1].set(({c})[{counter}])",
                f"({c}).at[0].set({self.vector(n)}[{counter}])",
                f"jnp.roll({c}, 1) * ({counter} > {i})",
                f"jnp.where({counter} == {i}, {self.vector(n)}, {c})",
                f"lax.dynamic_slice(jnp.concatenate([{c}, {self.vector(n)}]), ({counter},), ({n},))",
            ]
        return self.choose(options)
