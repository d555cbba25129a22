"""Supports and numbers in the words of messages."""

from typing import Any

import numpy as np

from simformer_ppl.structure import Site
from simformer_ppl.tokens.transforms import scalar_support


def describe_support(site: Site) -> str:
    """The support in words."""
    support = scalar_support(site)
    lower, upper = getattr(support, "lower_bound", None), getattr(support, "upper_bound", None)
    name = type(support).__name__.strip("_").lower()
    bounds = [f"{label} {first_few(bound)}" for label, bound in (("from", lower), ("to", upper)) if bound is not None]
    return " ".join([f"the support ({name}", *bounds]) + ")"


def first_few(values: Any) -> str:
    """The first few of the numbers."""
    flat = np.unique(np.asarray(values, float).ravel())
    shown = ", ".join(f"{v:g}" for v in flat[:3])
    return shown + (", ..." if flat.size > 3 else "")
