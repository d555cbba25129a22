"""What is known of an array without running the program that computes it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool

from simformer_ppl.structure import bitsets
from simformer_ppl.structure.bitsets import Bitsets

_serial_numbers = itertools.count()


class Recipe:
    """How constants follow from constants; evaluated once, and only when asked for.

    Parameters
    ----------
    inputs
        Constant values that it needs.
    compute
        Maps their arrays to the list of output arrays.
    """

    __slots__ = ("compute", "inputs", "results")

    def __init__(self, inputs: Sequence[Value], compute: Callable[[list[Any]], list[Any]]):
        self.inputs = inputs
        self.compute = compute
        self.results: list[Any] | None = None

    def evaluate(self) -> list[Any]:
        """Evaluate what it needs, then itself; a loop, since a chain may be deeper than Python's stack."""
        pending = [self]
        while pending:
            recipe = pending[-1]
            if recipe.results is None:
                missing = [v.recipe for v in recipe.inputs if v.recipe is not None and v.recipe.results is None]
                if missing:
                    pending.extend(missing)
                    continue
                recipe.results = recipe.compute([v.constant for v in recipe.inputs])
                recipe.inputs = ()
            pending.pop()
        assert self.results is not None
        return self.results


class Value:
    """An array of the program: per element, the scalars it may read.

    Attributes
    ----------
    shape, dtype
        Of the array.
    reads
        Per element, the set of input scalars that may change it; None if nothing can.
    zero
        Per element, whether it is zero whatever the inputs are; None if unknown. A constant knows by its value.
    origin
        The equation and the inputs it came from, where a sum of factors can be followed through it.
    serial
        Later values have higher numbers.
    """

    __slots__ = ("_array", "dtype", "origin", "output", "reads", "recipe", "serial", "shape", "zero")

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: Any = None,
        reads: Bitsets | None = None,
        zero: Bool[np.ndarray, "*shape"] | None = None,
    ):
        self.shape = tuple(shape)
        self.dtype = dtype
        # an element taken out of an object array is a plain int, which numpy would make an array of 64 bits of
        self.reads = reads if reads is None or reads.dtype == object else reads.astype(object)
        self.zero = zero if zero is not None and zero.any() else None
        self.origin: tuple[Any, list[Value]] | None = None
        self.recipe: Recipe | None = None
        self.output = 0
        self.serial = next(_serial_numbers)
        self._array: Any = None

    @classmethod
    def of_constant(cls, array: Any, reads: Bitsets | None = None) -> Value:
        """A known array (numpy, JAX, or a PRNG key); with ``reads``, one that is known but counts as read."""
        value = cls(np.shape(array), getattr(array, "dtype", None), reads)
        value._array = array
        return value

    @classmethod
    def of_recipe(cls, shape: tuple[int, ...], dtype: Any, recipe: Recipe, output: int = 0) -> Value:
        """An array that can be known when asked for: output number ``output`` of a recipe."""
        value = cls(shape, dtype)
        value.recipe, value.output = recipe, output
        return value

    @property
    def is_constant(self) -> bool:
        """Whether the array is known."""
        return self._array is not None or self.recipe is not None

    @property
    def is_evaluated(self) -> bool:
        """Whether the array is at hand without computing anything."""
        return self._array is not None

    @property
    def constant(self) -> Any:
        """The known array."""
        if self._array is None:
            assert self.recipe is not None
            self._array = self.recipe.evaluate()[self.output]
            self.recipe = None
        return self._array

    def as_numpy(self) -> np.ndarray:
        """The known array, in numpy."""
        return np.asarray(self.constant)

    def sets(self) -> Bitsets:
        """`reads`, as an array in any case."""
        return bitsets.empty(self.shape) if self.reads is None else self.reads

    def all_reads(self) -> int:
        """Every scalar that some element may read."""
        return 0 if self.reads is None else bitsets.union_all(self.reads)

    def zeros(self) -> Bool[np.ndarray, "*shape"] | None:
        """Elements known to be zero; None if there are none."""
        if not self.is_constant:
            return self.zero
        if self.dtype is not None and jax.dtypes.issubdtype(self.dtype, jax.dtypes.extended):
            return None
        mask = self.as_numpy() == 0
        return mask if np.any(mask) else None

    def structural_zeros(self) -> Bool[np.ndarray, "*shape"] | None:
        """Elements that are zero whatever the scalars are; None if there are none.

        A known element that reads something is zero for the values that are known: what it is multiplied with no longer
        matters, but what it reads does.
        """
        mask = self.zeros()
        if mask is None or self.reads is None:
            return mask
        mask = mask & np.equal(self.reads, 0).astype(bool)
        return mask if mask.any() else None

    def share_constant(self, other: Value) -> None:
        """Take over what `other` knows of the array."""
        self._array, self.recipe, self.output = other._array, other.recipe, other.output


def all_zero(values: Sequence[Value], shape: tuple[int, ...]) -> Bool[np.ndarray, "*shape"] | None:
    """Elements that are zero in every one of the values, broadcast to ``shape``; None if there are none."""
    masks = []
    for value in values:
        mask = value.zeros() if value.is_constant or value.zero is not None else None
        if mask is None:
            return None
        masks.append(np.broadcast_to(mask, shape))
    return np.logical_and.reduce(masks)


def union_of(values: Sequence[Value], shape: tuple[int, ...]) -> Bitsets | None:
    """Elementwise union of what the values read, broadcast to ``shape``; None if they read nothing."""
    arrays = [value.reads for value in values if value.reads is not None]
    return np.broadcast_to(bitsets.union(*arrays), shape) if arrays else None
