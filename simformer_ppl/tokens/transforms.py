"""Constant maps from the values of one site to unconstrained channels.

A channel is one real number that the network sees. A token has one channel, but for an unordered categorical scalar,
whose token has one channel per category. The maps never read another site: a map with parents in it would change the
dependency graph.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.special import ndtr, ndtri
from jax.scipy.stats import norm
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from simformer_ppl.structure import Site


class SiteTransform(Protocol):
    """What a map between values of shape ``(*batch, *site.shape)`` and channels ``(*batch, channels)`` supplies."""

    @property
    def channels_per_token(self) -> int:
        """One, but for unordered categories."""
        ...

    def forward(self, value: Array) -> Float[Array, "*batch channels"]:
        """Channels of a value."""
        ...

    def inverse(self, channels: Float[Array, "*batch channels"]) -> Array:
        """Value of channels, inside the support; discrete values are rounded."""
        ...

    def log_abs_det_jacobian(self, value: Array) -> Float[Array, "*batch channels"]:
        """Log derivative of the channels by the value, shared out over the channels of a joint transform."""
        ...


@dataclass(frozen=True)
class Bijection:
    """A continuous site through a NumPyro transform from unconstrained to constrained space."""

    transform: dist.transforms.Transform
    shape: tuple[int, ...]
    token_shape: tuple[int, ...]
    channels_per_token: int = 1

    def forward(self, value: Array) -> Float[Array, "*batch channels"]:
        """Channels of a value."""
        return _flatten(self.transform.inv(value), len(self.token_shape))

    def inverse(self, channels: Float[Array, "*batch channels"]) -> Array:
        """Value of channels."""
        return self.transform(channels.reshape(channels.shape[:-1] + self.token_shape))

    def log_abs_det_jacobian(self, value: Array) -> Float[Array, "*batch channels"]:
        """Log derivative; that of a joint event is spread evenly over the channels of the event."""
        unconstrained = self.transform.inv(value)
        log_det = -self.transform.log_abs_det_jacobian(unconstrained, value)
        joint_dims = unconstrained.ndim - log_det.ndim
        event = unconstrained.shape[log_det.ndim :]
        spread = log_det.reshape(log_det.shape + (1,) * joint_dims) / max(1, math.prod(event))
        return _flatten(jnp.broadcast_to(spread, unconstrained.shape), len(self.token_shape))


@dataclass(frozen=True)
class Box:
    """A continuous site between two bounds at which its density may end at any height, mapped onto the unit interval.

    What learns the channels has to know where they end; what is drawn is cut there all the same.
    """

    shape: tuple[int, ...]
    low: np.ndarray
    high: np.ndarray
    channels_per_token: int = 1

    def forward(self, value: Array) -> Float[Array, "*batch channels"]:
        """Share of the interval."""
        return _flatten((jnp.asarray(value) - self.low) / (self.high - self.low), len(self.shape))

    def inverse(self, channels: Float[Array, "*batch channels"]) -> Array:
        """Value of channels."""
        return self.low + (self.high - self.low) * _off_edges(channels.reshape(channels.shape[:-1] + self.shape))

    def log_abs_det_jacobian(self, value: Array) -> Float[Array, "*batch channels"]:
        """Log derivative, the same everywhere."""
        return _flatten(jnp.broadcast_to(-jnp.log(self.high - self.low), jnp.shape(value)), len(self.shape))


@dataclass(frozen=True)
class Count:
    """Ordered discrete values, as they are: to be dequantised where they are diffused, rounded when drawn."""

    shape: tuple[int, ...]
    lower: np.ndarray
    upper: np.ndarray
    dtype: np.dtype
    channels_per_token: int = 1

    def forward(self, value: Array) -> Float[Array, "*batch channels"]:
        """Channels of a value."""
        return _flatten(jnp.asarray(value, jnp.float32), len(self.shape))

    def inverse(self, channels: Float[Array, "*batch channels"]) -> Array:
        """Nearest value inside the support."""
        values = jnp.round(channels.reshape(channels.shape[:-1] + self.shape))
        return jnp.clip(values, self.lower, self.upper).astype(self.dtype)

    def log_abs_det_jacobian(self, value: Array) -> Float[Array, "*batch channels"]:
        """Zero: the map is the identity."""
        return jnp.zeros_like(self.forward(value))


@dataclass(frozen=True)
class OneHot:
    """Unordered categories: one channel each, the largest wins when drawn."""

    shape: tuple[int, ...]
    channels_per_token: int
    dtype: np.dtype

    def forward(self, value: Array) -> Float[Array, "*batch channels"]:
        """Channels of a value; NaN stays NaN in every channel of the token."""
        value = jnp.asarray(value)
        onehot = jax.nn.one_hot(value.astype(jnp.int32), self.channels_per_token)
        onehot = jnp.where(jnp.isnan(value.astype(jnp.float32))[..., None], jnp.nan, onehot)
        return _flatten(onehot, len(self.shape) + 1)

    def inverse(self, channels: Float[Array, "*batch channels"]) -> Array:
        """Category of the largest channel."""
        grouped = channels.reshape(channels.shape[:-1] + self.shape + (self.channels_per_token,))
        return jnp.argmax(grouped, -1).astype(self.dtype)

    def log_abs_det_jacobian(self, value: Array) -> Float[Array, "*batch channels"]:
        """Zero: categories have no density."""
        return jnp.zeros_like(self.forward(value))


@dataclass(frozen=True)
class MultinomialCounts:
    """The first k - 1 counts of a multinomial; the last is what remains of the total."""

    shape: tuple[int, ...]
    total: np.ndarray
    dtype: np.dtype
    channels_per_token: int = 1

    def forward(self, value: Array) -> Float[Array, "*batch channels"]:
        """Channels of a value."""
        return _flatten(jnp.asarray(value, jnp.float32)[..., :-1], len(self.shape))

    def inverse(self, channels: Float[Array, "*batch channels"]) -> Array:
        """Nearest counts, none below zero, cut where they would pass the total."""
        batch = channels.shape[:-1]
        first = jnp.maximum(jnp.round(channels.reshape(batch + self.shape[:-1] + (self.shape[-1] - 1,))), 0.0)
        total = jnp.asarray(self.total, jnp.float32)[..., None]
        reached = jnp.minimum(jnp.cumsum(first, -1), total)
        return jnp.diff(reached, prepend=0.0, append=jnp.broadcast_to(total, reached[..., :1].shape)).astype(self.dtype)

    def log_abs_det_jacobian(self, value: Array) -> Float[Array, "*batch channels"]:
        """Zero: counts have no density."""
        return jnp.zeros_like(self.forward(value))


class NormalQuantile(dist.transforms.ParameterFreeTransform):
    """From the real line to the unit interval by the normal distribution function; its inverse is the quantile."""

    domain = constraints.real
    codomain = constraints.unit_interval

    def __call__(self, x: Array) -> Array:
        """Distribution function, kept off 0 and 1."""
        return _off_edges(ndtr(x))

    def _inverse(self, y: Array) -> Array:
        return ndtri(_off_edges(y))

    def log_abs_det_jacobian(self, x: Array, y: Array, intermediates: None = None) -> Array:
        """Log of the normal density."""
        return norm.logpdf(x)


_CUT = ("Uniform", "TwoSidedTruncatedDistribution")
"""Distributions on an interval whose density is finite, and need not fall to zero, at its ends."""


def site_transform(site: Site) -> SiteTransform:
    """The constant map of a site, chosen by its static support.

    Parameters
    ----------
    site
        A traced site.

    Returns
    -------
    Intervals at whose ends the density is finite and may jump (uniform and truncated distributions) are moved and
    scaled, others go through the normal quantile; other continuous supports go through NumPyro's ``biject_to``, ordered
    discrete supports stay as they are, categories become one-hot blocks.

    Raises
    ------
    ValueError
        If the support has no map, naming the site.
    """
    support, shape = scalar_support(site), site.shape if site.is_embedded else site.token_shape
    if site.num_categories:
        return OneHot(site.shape, site.num_categories, site.dtype)
    if type(support) is type(constraints.multinomial(1)):
        return MultinomialCounts(site.shape, np.asarray(support.upper_bound), site.dtype)
    if site.is_discrete:
        lower, upper = discrete_bounds(support)
        return Count(site.shape, lower, upper, site.dtype)
    if site.is_deterministic or support is constraints.real:
        return Bijection(dist.transforms.IdentityTransform(), site.shape, shape)
    bounds = box_bounds(support)
    if bounds is not None:
        low, high = bounds
        if site.support_is_static and site.distribution in _CUT:
            return Box(site.shape, low, high)
        box = dist.transforms.ComposeTransform(
            [NormalQuantile(), dist.transforms.AffineTransform(low, high - low, domain=constraints.unit_interval)]
        )
        return Bijection(box, site.shape, shape)
    try:
        return Bijection(dist.biject_to(site.support), site.shape, shape)
    except NotImplementedError as error:
        raise ValueError(
            f"Site '{site.name}': expected a support that NumPyro's biject_to maps, got {site.support}."
        ) from error


def box_bounds(support: constraints.Constraint) -> tuple[np.ndarray, np.ndarray] | None:
    """Bounds of a continuous interval, or None where the support is none."""
    if not isinstance(support, type(constraints.interval(0, 1))):
        return None
    return np.asarray(support.lower_bound, np.float32), np.asarray(support.upper_bound, np.float32)


def discrete_bounds(support: constraints.Constraint) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest value of an ordered discrete support, infinite where there is none."""
    if support is constraints.boolean:
        return np.asarray(0.0), np.asarray(1.0)
    lower = getattr(support, "lower_bound", -np.inf)
    upper = getattr(support, "upper_bound", np.inf)
    return np.asarray(lower, np.float32), np.asarray(upper, np.float32)


def scalar_support(site: Site) -> constraints.Constraint:
    """The support of one scalar, where it is elementwise; else the site's support."""
    support = site.support
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support


def _off_edges(share: Array) -> Array:
    """Kept off 0 and 1."""
    tiny = jnp.finfo(jnp.result_type(share, jnp.float32)).eps
    return jnp.clip(share, tiny, 1 - tiny)


def _flatten(value: Array, dims: int) -> Float[Array, "*batch channels"]:
    """Join the last `dims` axes into one (a new one of length 1, for a scalar site)."""
    return value.reshape(value.shape[: value.ndim - dims] + (-1,))
