"""Where the rules for JAX primitives are kept.

A rule maps (interpreter, equation, input values) to the list of output values. It may assume that at least one input
reads something, and may fail: the interpreter then takes the equation to be dense.
"""

from collections.abc import Callable
from typing import Any

from simformer_ppl.structure.abstract_value import Value

Rule = Callable[[Any, Any, list[Value]], list[Value]]

RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a function as the rule of the primitives of these names; a string may hold several, with spaces."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(" ".join(names).split(), function))
        return function

    return register
