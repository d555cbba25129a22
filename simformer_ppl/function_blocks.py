"""Many points of a function, a few at a time: which are drawn together, and which of the known ones they are told."""

import numpy as np
from jaxtyping import Float, Int

FEWEST_SLOTS = 8


def blocks_of(count: int, most: int) -> list[Int[np.ndarray, " block"]]:
    """Divide points into blocks that are drawn one after another.

    The first is spread over all; the others, half as long, are neighbours, which know the points around them (Vecchia
    1988; Katzfuss & Guinness 2021 on the order).

    Parameters
    ----------
    count
        Number of points.
    most
        Points of a block.

    Examples
    --------
    >>> [block.tolist() for block in blocks_of(9, 4)]
    [[0, 3, 5, 8], [1, 2], [4, 6], [7]]
    """
    if count <= most:
        return [np.arange(count)]
    spread = np.unique(np.linspace(0, count - 1, most).round().astype(int))
    rest = np.setdiff1d(np.arange(count), spread)
    length = max(most // 2, 1)
    return [spread, *(rest[start : start + length] for start in range(0, len(rest), length))]


def nearest(
    known: Float[np.ndarray, " known"], new: Float[np.ndarray, " new"], most: int
) -> Int[np.ndarray, " nearest"]:
    """The known points nearest to any of the new ones, or spread over all where there are none."""
    if len(known) <= most:
        return np.arange(len(known))
    if not len(new):
        return np.unique(np.linspace(0, len(known) - 1, most).round().astype(int))
    distance = np.abs(known[:, None] - new[None]).min(1)
    return np.sort(np.argsort(distance, kind="stable")[:most])


def slots(points: int) -> int:
    """Room for so many points, so that what is compiled serves more questions: 8, 16, 24, 32, 48, 64, ..., or none."""
    size = FEWEST_SLOTS
    while size < points:
        half = 1 << (size.bit_length() - 1)
        size = 2 * size if size == FEWEST_SLOTS else half + half // 2 if size == half else 2 * half
    return size if points else 0
