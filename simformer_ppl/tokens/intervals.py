"""Intervals that a user gives in place of values."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import ArrayLike

from simformer_ppl.structure import Site
from simformer_ppl.tokens.descriptions import describe_support
from simformer_ppl.tokens.transforms import scalar_support


@dataclass(frozen=True)
class Interval:
    """A scalar known to lie between two bounds, either of which may be infinite."""

    lower: Any
    upper: Any

    def __repr__(self) -> str:
        return f"between({self.lower}, {self.upper})"


def between(low: ArrayLike, high: ArrayLike) -> Interval:
    """Give a site as an interval.

    Parameters
    ----------
    low, high
        Bounds, scalars or arrays that broadcast to the site's shape.

    Returns
    -------
    A value for :meth:`simformer_ppl.Simformer.condition`.

    Raises
    ------
    ValueError
        If a lower bound is not below its upper bound.

    Examples
    --------
    >>> between(0.0, 10.0)
    between(0.0, 10.0)
    """
    if not np.all(np.asarray(low) < np.asarray(high)):
        raise ValueError(f"An interval needs low < high everywhere, got between({low}, {high}).")
    return Interval(low, high)


def above(low: ArrayLike) -> Interval:
    """Give a site as larger than a bound; see :func:`between`."""
    return between(low, np.inf)


def below(high: ArrayLike) -> Interval:
    """Give a site as smaller than a bound; see :func:`between`."""
    return between(-np.inf, high)


def read_interval(site: Site, interval: Interval) -> tuple[np.ndarray, np.ndarray]:
    """Check the interval given for a site.

    Raises
    ------
    ValueError
        If the bounds do not broadcast to the site, the support is not elementwise or is categorical, or no value of
        the support lies inside.
    """
    if not site.is_elementwise or site.num_categories:
        raise ValueError(
            f"Site '{site.name}': expected values; intervals need ordered scalars, the support is {site.support}."
        )
    try:
        lower, upper = (
            np.broadcast_to(np.asarray(b, np.float32), site.shape) for b in (interval.lower, interval.upper)
        )
    except ValueError as error:
        raise ValueError(
            f"Site '{site.name}': expected interval bounds that broadcast to {site.shape}, got {interval}."
        ) from error
    support = scalar_support(site)
    lowest = np.asarray(getattr(support, "lower_bound", -np.inf))
    highest = np.asarray(getattr(support, "upper_bound", np.inf))
    if (upper < lowest).any() or (lower > highest).any():
        raise ValueError(f"Site '{site.name}': no value of {describe_support(site)} lies in {interval}.")
    return lower, upper
