"""What each point of a function adds to the gradient of the model's log density by all that is no point."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from simformer_ppl.replay import Replay
from simformer_ppl.structure import ModelStructure
from simformer_ppl.tokens.layout import TokenLayout

_MOST_NUMBERS = 100_000_000
"""Simulations times channels times channels that are no points: 400 MB."""

_CHUNK = 1_000


def gradients_by_point(
    replay: Replay,
    structure: ModelStructure,
    layout: TokenLayout,
    constrained: Callable[[Float[Array, " channels"]], dict[str, Array]],
    is_point: Bool[np.ndarray, " channels"],
    channels: Float[np.ndarray, "simulations channels"],
) -> Float[np.ndarray, "simulations channels others"] | None:
    """Differentiate the log density of every point by the channels that are no points, in forward mode.

    Parameters
    ----------
    replay
        The model.
    structure
        Its structure.
    layout
        Where sites live.
    constrained
        From channels to values of the sites.
    is_point
        Channels that are points.
    channels
        Simulations, in the coordinates by which to differentiate.

    Returns
    -------
    Derivatives, zero for channels that are no points. None where a point depends on another or is read by a site, so
    that its part is not its own; where its density is not one of each scalar; where JAX cannot differentiate it
    forward; or where they would take too much memory.
    """
    tokens = np.unique(layout.token_of_channel[is_point])
    others = np.flatnonzero(~is_point)
    if structure.adjacency[:, tokens].any() or len(channels) * len(is_point) * len(others) > _MOST_NUMBERS:
        return None
    names = tuple(name for name, part in layout.channel_slices.items() if is_point[part].any())

    def densities(moved: Float[Array, " others"], point: Float[Array, " channels"]) -> Float[Array, " channels"]:
        values = constrained(point.at[others].set(moved))
        found = replay.log_probs({name: value[None] for name, value in values.items()}, names)
        each = jnp.zeros(len(is_point))
        for name in names:
            part, density = layout.channel_slices[name], found[name][0]
            if density.shape != structure.sites[name].shape or density.size != part.stop - part.start:
                raise ValueError(f"Site '{name}': expected a density of each scalar, got {density.shape}.")
            each = each.at[part].set(density.ravel())
        return each

    try:
        differentiate = jax.jit(jax.vmap(lambda point: jax.jacfwd(densities)(point[others], point)))
        starts = range(0, len(channels), _CHUNK)
        found = np.concatenate([np.asarray(differentiate(channels[start : start + _CHUNK])) for start in starts])
    except Exception:  # a density of a whole event, or one that JAX cannot differentiate forward
        return None
    return found if np.isfinite(found).all() else None
