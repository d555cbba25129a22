"""How a scalar got into what a value reads: the equations on the way."""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from simformer_ppl.structure.abstract_value import Value

Index = tuple[int, ...]

# They move elements, or change their type.
_UNREMARKABLE = {
    *("broadcast_in_dim", "reshape", "squeeze", "expand_dims", "convert_element_type", "copy", "copy_p", "transpose"),
    *("stop_gradient", "optimization_barrier"),
}


class Step(NamedTuple):
    """One equation of a program.

    Attributes
    ----------
    operation
        Name of the primitive.
    line
        Line of the model, as ``file:line``; None where a library made the equation.
    is_dense
        Whether it was taken to be dense for want of a rule.
    """

    operation: str
    line: str | None
    is_dense: bool

    @property
    def is_remarkable(self) -> bool:
        """Whether it computes something."""
        return self.is_dense or self.operation not in _UNREMARKABLE


class Trail:
    """Where values came from."""

    def __init__(self) -> None:
        self._origins: dict[int, tuple[Step | None, Sequence[Value]]] = {}

    def add(self, outputs: Sequence[Value], inputs: Sequence[Value], step: Step | None = None) -> None:
        """Say what values were computed from; what is known of one already, from inside a loop, is kept."""
        sources = {value.serial for value in inputs}
        for output in outputs:
            if output.reads is not None and output.serial not in sources:
                self._origins.setdefault(output.serial, (step, inputs))

    def back(self, value: Value, scalars: int, element: Index | None = None) -> list[Step] | None:
        """Equations by which some scalars came into an element of a value, first to last.

        Where operands line up with the result, the element is followed; elsewhere, whole values are.

        Returns
        -------
        None if the value does not read the scalars.
        """
        if not value.all_reads() & scalars:
            return None
        steps: list[Step] = []
        found: tuple[Value, Index | None] | None = value, element
        while found is not None:
            value, element = found
            step, inputs = self._origins.get(value.serial, (None, ()))
            if step is not None:
                steps.append(step)
            options = itertools.chain(
                _elements(value, element, inputs, is_stack=step is None), ((v, None) for v in inputs)
            )
            found = next((option for option in options if _reads(*option) & scalars), None)
        return steps[::-1]


def _elements(
    value: Value, element: Index | None, inputs: Sequence[Value], is_stack: bool
) -> Iterator[tuple[Value, Index | None]]:
    """Elements of the operands that line up with one of the result."""
    if element is None:
        return
    if is_stack and len(inputs) > 1:  # one operand per row of the result
        yield inputs[element[0]], element[1:]
        return
    for source in inputs:
        if source.shape == value.shape[len(value.shape) - len(source.shape) :]:
            yield source, element[len(element) - len(source.shape) :]


def _reads(value: Value, element: Index | None) -> int:
    return value.all_reads() if element is None or value.reads is None else int(value.reads[element])


def describe(steps: Sequence[Step]) -> str:
    """The equations in the model's own code, and what was taken to be dense, each place once."""
    told = [step for step in steps if step.is_remarkable and (step.line is not None or step.is_dense)]
    operations: dict[str | None, list[str]] = {}
    for step in told:
        operations.setdefault(step.line, []).append(f"{step.operation} (dense)" if step.is_dense else step.operation)
    places = []
    for line, names in operations.items():
        listed = ", ".join(dict.fromkeys(names))
        places.append(listed if line is None else f"{listed} at {line}")
    return "; ".join(places)
