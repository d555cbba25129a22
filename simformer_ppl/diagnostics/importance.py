"""Importance weights from the model's own density: answers corrected, and told whether they can be trusted."""

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from arviz_stats.base import array_stats
from jaxtyping import Float

from simformer_ppl.diffusion.tempering import effective
from simformer_ppl.exceptions import WeightsWarning

UNRELIABLE = 0.7
"""Pareto k-hat above which importance weights alone would not do (Vehtari et al. 2024)."""

_PACKAGE = str(Path(__file__).parents[1])

_EQUAL = 1e-3
"""Range of log weights that count as equal."""


class Smoothed(NamedTuple):
    """Pareto-smoothed importance weights (Vehtari et al. 2024, arXiv 1507.02646).

    Attributes
    ----------
    log_weight
        Logarithms, of weights that sum to one.
    pareto_k
        Shape of their tail: above .7 it is too heavy to be smoothed; minus infinity where they are equal.
    effective_sample_size
        How many equally weighted draws they are worth.
    """

    log_weight: Float[np.ndarray, " draws"]
    pareto_k: float
    effective_sample_size: float


def pareto_smooth(log_weight: Float[np.ndarray, " draws"]) -> Smoothed:
    """Smooth the tail of importance weights; cut it, where it is too heavy.

    With a k-hat above .7 the weights may have no variance, and a handful of draws all the weight. Where n weights are
    worth fewer draws than the root of n, so many of the largest are made equal (Koblents & Míguez 2015, *Statistics and
    Computing* 25): the bulk is weighted right, and the tail too little.

    Parameters
    ----------
    log_weight
        Logarithms up to a constant, minus infinity for none.

    Examples
    --------
    Draws from N(0, 1), weighted for N(0, .5): the narrower law is well covered.

    >>> import numpy as np
    >>> from scipy.stats import norm
    >>> draws = np.random.default_rng(0).normal(size=4_000)
    >>> smoothed = pareto_smooth(norm.logpdf(draws, scale=0.5) - norm.logpdf(draws))
    >>> bool(smoothed.pareto_k < 0.5), round(float(np.exp(smoothed.log_weight).sum()), 6)
    (True, 1.0)
    """
    log_weight = np.asarray(log_weight, np.float64)
    weighted = np.isfinite(log_weight)
    smoothed, pareto_k = np.full(log_weight.shape, -np.inf), -np.inf
    smoothed[weighted] = log_weight[weighted] - np.logaddexp.reduce(log_weight[weighted])
    if np.ptp(log_weight[weighted]) >= _EQUAL:
        # the library takes what LOO has: the negative of log weights
        tail, k = array_stats.psislw(-log_weight[weighted])
        # where a few draws have all the weight, there is no tail to fit
        pareto_k = np.inf if np.isnan(k) else float(k)
        largest = int(weighted.sum() ** 0.5)
        if pareto_k > UNRELIABLE and effective(tail) < largest:
            tail = np.minimum(log_weight[weighted], np.partition(log_weight[weighted], -largest)[-largest])
        smoothed[weighted] = tail - np.logaddexp.reduce(tail)
    return Smoothed(smoothed, pareto_k, effective(smoothed))


def warn_if_unreliable(label: str, pareto_k: float, meaning: str) -> None:
    """Warn of a heavy tail.

    Parameters
    ----------
    label
        Names the distribution.
    pareto_k
        The worst of its weights.
    meaning
        What follows from it.
    """
    if pareto_k > UNRELIABLE:
        warnings.warn(
            f"{label}: Pareto k-hat of the weights is {pareto_k:.2f}, above {UNRELIABLE}: {meaning}",
            WeightsWarning,
            skip_file_prefixes=(_PACKAGE,),  # told where the package is called
        )
