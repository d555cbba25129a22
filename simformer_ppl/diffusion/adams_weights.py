"""Weights of linear multistep methods on a grid of any spacing."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def adams_weights(
    times: Float[np.ndarray, " levels"], decay: float = 0.0
) -> tuple[Float[Array, "steps 3"], Float[Array, "steps 3"]]:
    """How much the known right-hand sides move the state in every step of an Adams predictor and corrector.

    For ``dx/dt = f(t) - decay x``, the linear part solved exactly (Hochbruck & Ostermann 2010, section 2.5): integrals
    of ``exp(decay (t - t_end))`` times Lagrange polynomials over the step.

    Parameters
    ----------
    times
        Rising.
    decay
        Of the state.

    Returns
    -------
    Weights of the last three values of f to predict, and of the next and the last two to correct, the newest first. The
    first steps know fewer.
    """
    places, weights = np.polynomial.legendre.leggauss(8)

    def integrals(nodes: list[float], start: float, end: float) -> np.ndarray:
        points = (start + end) / 2 + (end - start) / 2 * places
        measure = (end - start) / 2 * weights * np.exp(decay * (points - end))
        others = [[other for other in nodes if other != node] for node in nodes]
        basis = [np.prod([(points - o) / (n - o) for o in rest], 0) for n, rest in zip(nodes, others, strict=True)]
        return np.array([(polynomial * measure).sum() for polynomial in basis])

    predict, correct = np.zeros((len(times) - 1, 3)), np.zeros((len(times) - 1, 3))
    for i in range(len(times) - 1):
        known = [times[k] for k in range(i, max(i - 3, -1), -1)]
        predict[i, : len(known)] = integrals(known, times[i], times[i + 1])
        past = known[:2]
        correct[i, : len(past) + 1] = integrals([times[i + 1], *past], times[i], times[i + 1])
    return jnp.asarray(predict, jnp.float32), jnp.asarray(correct, jnp.float32)
