"""Labels of tokens along an axis: as many as fit, none over another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from simformer_ppl.structure.model_structure import ModelStructure

__all__ = ["MAX_TOKEN_LABELS", "spread", "token_labels"]

MAX_TOKEN_LABELS = 25


def token_labels(structure: ModelStructure, capacity: int) -> list[tuple[str, int, int]]:
    """Labels with the first token and the one past the last: of tokens where they fit, else of the largest sites."""
    if structure.num_tokens <= min(MAX_TOKEN_LABELS, capacity):
        return [(str(token), index, index + 1) for index, token in enumerate(structure.tokens)]
    labels = [(name, site.token_slice.start, site.token_slice.stop) for name, site in structure.sites.items()]
    if len(labels) <= max(capacity, 1):
        return labels
    # sites of one size, such as those of a loop, thin out evenly
    cutoff = sorted((stop - start for _, start, stop in labels), reverse=True)[max(capacity, 1) - 1]
    larger = [label for label in labels if label[2] - label[1] > cutoff]
    tied = [label for label in labels if label[2] - label[1] == cutoff]
    every = -(-len(tied) // (max(capacity, 1) - len(larger)))
    return sorted(larger + tied[::every], key=lambda label: label[1])


def spread(wanted: np.ndarray, pitch: float, count: int) -> np.ndarray:
    """Positions near those wanted, in order, at least `pitch` apart and within the axis."""
    if not len(wanted):
        return wanted
    steps = pitch * np.arange(len(wanted))
    shifted = wanted - steps
    # both bounds keep the order, and so does their mean
    placed = (np.maximum.accumulate(shifted) + np.minimum.accumulate(shifted[::-1])[::-1]) / 2
    low = (pitch - 1) / 2
    high = max(count - 0.5 - pitch / 2 - steps[-1], low)
    return np.clip(placed, min(low, wanted[0]), max(high, wanted[-1] - steps[-1])) + steps
