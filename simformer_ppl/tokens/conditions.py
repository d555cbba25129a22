"""Values that a user gives, with missing entries, read into the state of every token."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import xarray as xr
from jaxtyping import Array, ArrayLike, Bool, Float
from numpyro.distributions import constraints

from simformer_ppl.structure import Site
from simformer_ppl.tokens.descriptions import describe_support, first_few
from simformer_ppl.tokens.layout import TokenLayout
from simformer_ppl.tokens.transforms import box_bounds, scalar_support

type Values = Array | np.ndarray
"""Traced by JAX, or known now and then checked."""


@dataclass(frozen=True)
class Given:
    """What is known, by site.

    Attributes
    ----------
    values
        Arrays of ``batch_shape + site.shape``, or without the batch axes where shared; NaN where missing.
    intervals
        Bounds of ``site.shape``.
    batch_shape
        Shape of the batch of conditions.
    batch_dims
        A name for each batch axis, where the user's DataArray carries one.
    batch_coords
        Coordinates of those axes.
    constraints
        Log weights of the values.
    priors
        New distributions in place of the model's.
    coordinates
        Of the points of functions, whose values are given there.
    """

    values: dict[str, Values] = field(default_factory=dict)
    intervals: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    batch_shape: tuple[int, ...] = ()
    batch_dims: tuple[str, ...] | None = None
    batch_coords: dict[str, Any] = field(default_factory=dict)
    constraints: tuple[Any, ...] = ()
    priors: dict[str, dist.Distribution] = field(default_factory=dict)
    coordinates: dict[str, Float[np.ndarray, " points"]] = field(default_factory=dict)


def read_values(site: Site, value: Any) -> Values:
    """Check the values given for a site.

    Parameters
    ----------
    site
        The site.
    value
        Array-like that broadcasts to the site's shape, possibly after batch axes; NaN marks a missing scalar.

    Returns
    -------
    Array of ``(*batch, *site.shape)``: float64, or the traced value as it is.

    Raises
    ------
    ValueError
        If the shape is wrong, a value lies outside the support, or an event is partly missing whose support is not
        elementwise.
    """
    value = _broadcast(site, value)
    if isinstance(value, jax.core.Tracer):
        return value
    value = np.asarray(value, np.float64)
    missing = np.isnan(value)
    if site.is_elementwise:
        # a bound may differ from its float32 value: what equals it in either precision is inside
        support, filled = scalar_support(site), np.where(missing, 0.0, value)
        inside = _holds(support, filled) | _holds(support, filled.astype(np.float32)) | missing
    else:
        event = tuple(range(-site.event_dim, 0))
        inside = np.asarray(site.support(value.astype(np.float32))) | missing.all(event)
        if (missing.any(event) & ~missing.all(event)).any():
            why = "it is embedded" if site.is_embedded else f"its support is not elementwise ({site.support})"
            raise ValueError(
                f"Site '{site.name}': part of an event is missing, but {why}. Expected the whole event, or NaN in all "
                "of it."
            )
    if not inside.all():
        wrong = value[np.broadcast_to(~inside.reshape(inside.shape + (1,) * (value.ndim - inside.ndim)), value.shape)]
        raise ValueError(f"Site '{site.name}': expected values in {describe_support(site)}, got {first_few(wrong)}.")
    return value


def join_batches(values: Mapping[str, tuple[Site, Values]]) -> tuple[int, ...]:
    """Common batch shape of the values of several sites.

    Raises
    ------
    ValueError
        If the leading axes do not broadcast.
    """
    shapes = {name: value.shape[: value.ndim - len(site.shape)] for name, (site, value) in values.items()}
    try:
        return np.broadcast_shapes(*shapes.values())
    except ValueError as error:
        listed = ", ".join(f"'{name}' {shape}" for name, shape in shapes.items() if shape)
        raise ValueError(f"Batch axes must be equal or broadcast between sites, got {listed}.") from error


def complete_values(
    sites: Mapping[str, Site], given: Given, latent: Sequence[str], values: Mapping[str, ArrayLike]
) -> tuple[dict[str, Array], tuple[int, ...]]:
    """Values of every site: those passed for latent scalars, those given for the others.

    Parameters
    ----------
    sites
        All token sites.
    given
        What is known.
    latent
        Sites with a latent scalar that is not left out.
    values
        Arrays of ``(*leading, *site.shape)`` by site; other sites are ignored.

    Returns
    -------
    Arrays of ``(*leading, *site.shape)`` for every site, zero where it is neither given nor latent, and the common
    leading shape.

    Raises
    ------
    ValueError
        If a latent site has the wrong shape, or leading axes that do not broadcast.
    """
    leading = given.batch_shape
    arrays = {}
    for name in latent:
        shape = sites[name].shape
        arrays[name] = jnp.asarray(values[name])
        split = arrays[name].ndim - len(shape)
        if split < 0 or arrays[name].shape[split:] != shape:
            raise ValueError(
                f"Site '{name}': expected shape (*sample_shape, *batch_shape, *{shape}), got {arrays[name].shape}."
            )
        try:
            leading = np.broadcast_shapes(leading, arrays[name].shape[:split])
        except ValueError as error:
            raise ValueError(
                f"Site '{name}': leading axes {arrays[name].shape[:split]} do not broadcast with {leading}."
            ) from error
    for name, known in given.values.items():
        arrays[name] = jnp.where(jnp.isnan(known), arrays.get(name, 0.0), known)
    zero = jnp.zeros(())
    return {
        name: jnp.broadcast_to(arrays.get(name, zero), leading + site.shape) for name, site in sites.items()
    }, leading


def encode_given(
    layout: TokenLayout, given: Given
) -> tuple[Float[Array, "*batch channels"], Bool[np.ndarray, "*batch tokens"]]:
    """Channels of what is given, and which tokens that is.

    Returns
    -------
    Unstandardised channels of ``batch_shape`` (0 where nothing is given), and the given tokens: of ``batch_shape``, or
    without batch axes where the pattern is the same everywhere.
    """
    channels, tokens = [], []
    for name in layout.sites:
        part = layout.channel_slices[name]
        width = part.stop - part.start
        count = layout.sites[name].num_tokens
        if name not in given.values:
            channels.append(jnp.zeros((*given.batch_shape, width)))
            tokens.append(np.zeros((*given.batch_shape, count), bool))
            continue
        encoded, present = encode_values(layout, name, given.values[name])
        channels.append(jnp.broadcast_to(encoded, (*given.batch_shape, width)))
        tokens.append(np.broadcast_to(present, (*given.batch_shape, count)))
    pattern = np.concatenate(tokens, -1)
    flat = pattern.reshape(-1, pattern.shape[-1])
    return jnp.concatenate(channels, -1), flat[0] if (flat == flat[:1]).all() else pattern


def encode_values(
    layout: TokenLayout, name: str, value: Values
) -> tuple[Float[Array, "*batch channels"], Bool[np.ndarray, "*batch tokens"]]:
    """Channels of the values given for a site (0 where missing), and which of its tokens are given.

    Raises
    ------
    ValueError
        If a value lies on the edge of its support, which the map to channels sends to infinity.
    """
    site, transform = layout.sites[name], layout.transforms[name]
    present = _present_tokens(site, value)
    with jax.ensure_compile_time_eval() if isinstance(value, np.ndarray) else nullcontext():
        encoded = transform.forward(jnp.asarray(value))
        encoded = jnp.where(present[..., layout.tokens_of_channels(name)], encoded, 0.0)
    if isinstance(value, np.ndarray) and not np.isfinite(encoded).all():
        raise ValueError(
            f"Site '{name}': expected values inside {describe_support(site)}, got one on its edge, where the density "
            "of a conditional is not defined."
        )
    return encoded, present


def merge_values(site: Site, old: Values, new: Values) -> Values:
    """Add to the values given for a site.

    Raises
    ------
    ValueError
        If a scalar is given twice.
    """
    if isinstance(old, np.ndarray) and isinstance(new, np.ndarray) and (np.isnan(old) | np.isnan(new)).all():
        return np.where(np.isnan(old), new, old)
    raise ValueError(f"Site '{site.name}' is given twice. Expected every scalar of it once.")


def name_batch(given: Given, site: str, dims: tuple[str, ...], coords: Mapping[str, Any]) -> Given:
    """Name the batch axes after those of a DataArray.

    Raises
    ------
    ValueError
        If another site has named them otherwise, or has other labels there.
    """
    if not dims:
        return given
    if given.batch_dims not in (None, dims):
        raise ValueError(f"Site '{site}': expected the batch dims {given.batch_dims} of the other sites, got {dims}.")
    for dim, labels in coords.items():
        if dim in given.batch_coords and not np.array_equal(given.batch_coords[dim], labels):
            raise ValueError(
                f"Site '{site}': expected the labels {list(np.asarray(given.batch_coords[dim]))} along '{dim}', as the "
                f"other sites have, got {list(np.asarray(labels))}."
            )
    return replace(given, batch_dims=dims, batch_coords={**given.batch_coords, **coords})


def _present_tokens(site: Site, value: Values) -> Bool[np.ndarray, "*batch tokens"]:
    """Tokens of a site that are not missing; traced values hold no NaN."""
    batch = value.shape[: value.ndim - len(site.shape)]
    tokens = site.token_slice.stop - site.token_slice.start
    if isinstance(value, jax.core.Tracer):
        return np.ones((*batch, tokens), bool)
    present = ~np.isnan(value)
    if not site.is_elementwise:
        present = present.all(tuple(range(-site.event_dim, 0)))
    present = present.reshape(*batch, -1)
    return np.repeat(present, tokens // present.shape[-1], -1)


def _holds(support: constraints.Constraint, value: np.ndarray) -> np.ndarray:
    bounds = box_bounds(support)
    if bounds is None:
        return np.asarray(support(value))
    return (value >= bounds[0]) & (value <= bounds[1])


def _broadcast(site: Site, value: Any) -> Values:
    try:
        array = value if isinstance(value, jax.core.Tracer) else np.asarray(_plain(value))
    except ValueError as error:  # nested lists of unequal lengths
        raise ValueError(f"Site '{site.name}': expected an array of shape {site.shape}, got {value!r}.") from error
    if array.dtype.kind not in "fiub" and not isinstance(array, jax.core.Tracer):
        raise ValueError(f"Site '{site.name}': expected numbers, got an array of dtype {array.dtype}.")
    dims = len(site.shape)
    batch = array.shape[: max(array.ndim - dims, 0)]
    broadcast = jnp.broadcast_to if isinstance(array, jax.core.Tracer) else np.broadcast_to
    try:
        return broadcast(array, batch + site.shape)
    except ValueError as error:
        raise ValueError(
            f"Site '{site.name}': expected shape {site.shape}, with batch axes before it if any, got {array.shape}."
        ) from error


def _plain(value: Any) -> Any:
    if isinstance(value, np.ma.MaskedArray):
        return np.where(np.ma.getmaskarray(value), np.nan, value.data)
    return value.values if isinstance(value, xr.DataArray) else value
