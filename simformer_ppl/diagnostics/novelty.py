"""Whether values lie where simulations do: a test by the distance to the nearest of them."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

FAR = 2.0
"""Remoteness from which on values count as far outside."""

_MOST_WHITENED = 512
"""Channels up to which distances are told in the metric of the covariance; in that of standard deviations above."""

_MOST_PATTERNS = 32
"""Patterns of given channels whose distances are kept."""

_BLOCK = 1_000
"""Rows that are compared at a time."""

_EQUAL = 1e-5
"""Difference of distances that rounding explains."""

_LEAST_SPREAD = 0.1
"""Of distances, in standard deviations: discrete values may have none."""


class Novelty(NamedTuple):
    """How unlike the simulations some values are.

    Attributes
    ----------
    p_value
        Share of simulations that lie at least as far from the others.
    remoteness
        Distance from the simulations, on a scale where the median simulation is at 0 and the most remote one at 1.
    """

    p_value: Float[np.ndarray, " rows"]
    remoteness: Float[np.ndarray, " rows"]


class _Known(NamedTuple):
    """Of the simulations in a pattern of given channels."""

    whitening: Float[np.ndarray, "given given"] | None
    points: Float[np.ndarray, "points given"]
    distances: Float[np.ndarray, " others"]


class Simulated:
    """Simulations that values are compared with.

    The distance is that to the nearest of one half of the simulations, in the metric of their covariance, which sees
    values that are unusual together though each is usual alone. It is ranked among the distances of the other half: the
    p-value of one more simulation is uniform whatever the dimension, and larger where values are tied (split conformal;
    Vovk et al. 2005, *Algorithmic Learning in a Random World*).

    Parameters
    ----------
    channels
        Standardised simulations, in any order that does not depend on their values.

    Examples
    --------
    Two values that hardly differ in any simulation:

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> simulated = Simulated(rng.normal(size=(1_000, 1)) + 0.1 * rng.normal(size=(1_000, 2)))
    >>> novelty = simulated.novelty(np.array([[1.0, 1.0], [1.0, -1.0]]), np.array([True, True]))
    >>> (novelty.remoteness > FAR).tolist(), bool(novelty.p_value[1] < 0.01)
    ([False, True], True)
    """

    def __init__(self, channels: Float[np.ndarray, "simulations channels"]):
        self._channels = np.asarray(channels, np.float64)
        self._known: dict[bytes, _Known] = {}

    def __len__(self) -> int:
        return len(self._channels)

    def at(self, channels: Int[np.ndarray, " some"]) -> "Simulated":
        """Some channels of the same simulations."""
        return Simulated(self._channels[:, channels])

    def novelty(self, values: Float[np.ndarray, "rows channels"], given: Bool[np.ndarray, " channels"]) -> Novelty:
        """Compare rows of values with the simulations, in the given channels.

        Parameters
        ----------
        values
            Standardised; what is not given is not looked at.
        given
            At least one.
        """
        whitening, points, distances = self._in_pattern(given)
        found = _to_nearest(_whiten(np.asarray(values, np.float64)[:, given], whitening), points)
        ranked = np.sort(distances)
        at_least = len(ranked) - np.searchsorted(ranked, found - _EQUAL)
        spread = max(float(ranked[-1] - np.median(ranked)), _LEAST_SPREAD)
        return Novelty((1 + at_least) / (1 + len(ranked)), (found - np.median(ranked)) / spread)

    def _in_pattern(self, given: Bool[np.ndarray, " channels"]) -> _Known:
        key = given.tobytes()
        if key not in self._known:
            if len(self._known) >= _MOST_PATTERNS:
                del self._known[next(iter(self._known))]
            half = len(self) // 2
            first, second = self._channels[:half, given], self._channels[half:, given]
            whitening = _whitening(first) if first.shape[1] <= _MOST_WHITENED else None
            points = _whiten(first, whitening)
            self._known[key] = _Known(whitening, points, _to_nearest(_whiten(second, whitening), points))
        return self._known[key]


def _whitening(points: Float[np.ndarray, "points given"]) -> Float[np.ndarray, "given given"]:
    """To the metric of the points' covariance, shrunk as far as they are few."""
    count, width = points.shape
    covariance = np.cov(points, rowvar=False).reshape(width, width)
    values, vectors = np.linalg.eigh((count * covariance + width * np.eye(width)) / (count + width))
    return vectors / np.sqrt(values)


def _whiten(values: np.ndarray, whitening: np.ndarray | None) -> Float[np.ndarray, "rows given"]:
    return values if whitening is None else values @ whitening


def _to_nearest(
    values: Float[np.ndarray, "rows given"], points: Float[np.ndarray, "points given"]
) -> Float[np.ndarray, " rows"]:
    """Distance to the nearest point."""
    parts = []
    for start in range(0, len(values), _BLOCK):
        block = values[start : start + _BLOCK]
        nearest = ((points**2).sum(1) - 2 * block @ points.T).argmin(1)
        parts.append(np.linalg.norm(block - points[nearest], axis=1))  # squares above lose digits
    return np.concatenate(parts)
