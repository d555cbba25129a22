"""What each JAX primitive makes of the sets its operands read."""

from simformer_ppl.structure.rules import (
    batched,
    control_flow,
    elementwise,
    indexing,
    linear_algebra,
    linear_solve,
    moves,
    reductions,
)
from simformer_ppl.structure.rules.registry import RULES

__all__ = [
    "RULES",
    "batched",
    "control_flow",
    "elementwise",
    "indexing",
    "linear_algebra",
    "linear_solve",
    "moves",
    "reductions",
]
