"""Dicts of site arrays to and from one vector of unconstrained channels."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

from simformer_ppl.structure import ModelStructure, Site
from simformer_ppl.tokens.functions import Functions
from simformer_ppl.tokens.sharing import group_of_token, own_vector_of_token, principal_constants
from simformer_ppl.tokens.standardisation import join_alike
from simformer_ppl.tokens.transforms import Box, Count, MultinomialCounts, SiteTransform, site_transform


@dataclass(frozen=True, eq=False)
class TokenLayout:
    """Where every site lives among the tokens and channels.

    Attributes
    ----------
    sites
        The token sites, in trace order.
    transforms
        The constant map of each site.
    channel_slices
        The channels of each site.
    group_of_token
        Tokens of a group share weights.
    exchangeable_of_token
        Tokens of a group cannot be told apart: they share their standardisation too.
    own_vector_of_token
        Tokens of a group that differ by constants have corrections of their own, numbered; -1 where none.
    constants
        By which they differ.
    """

    sites: dict[str, Site]
    transforms: dict[str, SiteTransform]
    channel_slices: dict[str, slice]
    group_of_token: Int[np.ndarray, " tokens"]
    exchangeable_of_token: Int[np.ndarray, " tokens"]
    own_vector_of_token: Int[np.ndarray, " tokens"]
    constants: Float[np.ndarray, "tokens constants"]

    @classmethod
    def of(
        cls, structure: ModelStructure, *, share_exchangeable: bool = True, functions: Functions | None = None
    ) -> "TokenLayout":
        """Lay out the sites of a structure; group the tokens of plates whose elements are alike, or none.

        All points of a function are of one group.
        """
        sites, axes = dict(structure.sites), {}
        if functions is not None:
            axes = {name: axis for name, (axis, _) in functions.axes.items()}
        transforms, slices = _channels_of_sites(sites)
        if not share_exchangeable:
            apart, none = group_of_token(structure, (), axes), np.full(structure.num_tokens, -1)
            return cls(sites, transforms, slices, apart, apart, none, np.zeros((len(none), 0)))
        exchangeable = group_of_token(structure, structure.exchangeable)
        groups = group_of_token(structure, (*structure.exchangeable, *structure.constant_plates))
        own, constants = own_vector_of_token(structure, exchangeable), principal_constants(structure)
        if functions is not None:
            # what sets elements apart may differ along a function: of those that have some, only likes share
            along = group_of_token(structure, structure.exchangeable, axes)
            for name in axes:
                part = sites[name].token_slice
                groups[part], own[part], constants[part] = along[part] + structure.num_tokens, -1, 0.0
            groups, own[own >= 0] = _renumbered(groups), _renumbered(own[own >= 0])
        return cls(sites, transforms, slices, groups, exchangeable, own, constants)

    def at(self, sites: Mapping[str, Site], places: Int[np.ndarray, " some_tokens"]) -> "TokenLayout":
        """Laid out for other sites, each token in place of one of these."""
        transforms, slices = _channels_of_sites(sites)
        groups = (self.group_of_token, self.exchangeable_of_token, self.own_vector_of_token, self.constants)
        return TokenLayout(dict(sites), transforms, slices, *(group[places] for group in groups))

    @property
    def num_channels(self) -> int:
        """Length of the channel vector."""
        return max((part.stop for part in self.channel_slices.values()), default=0)

    @cached_property
    def token_of_channel(self) -> Int[np.ndarray, " channels"]:
        """The token that each channel belongs to."""
        parts = [site.token_slice.start + _own_tokens(site, self.transforms[name]) for name, site in self.sites.items()]
        return np.concatenate(parts) if parts else np.zeros(0, int)

    def tokens_of_channels(self, name: str) -> Int[np.ndarray, " channels"]:
        """The token, among those of its site, that each channel of the site belongs to."""
        return _own_tokens(self.sites[name], self.transforms[name])

    @cached_property
    def is_embedded(self) -> Bool[np.ndarray, " channels"]:
        """Channels that a network of the user reads as a whole."""
        return self._by_site(lambda name: self.sites[name].is_embedded)

    @cached_property
    def network_channels(self) -> Int[np.ndarray, " some_channels"]:
        """Channels that the transformer has: of a site that is embedded, the first of each token stands for it."""
        first = np.r_[True, np.diff(self.token_of_channel) > 0][: self.num_channels]
        return np.flatnonzero(~self.is_embedded | first)

    def for_network(self, channels: Shaped[Array, "*batch channels"]) -> Shaped[Array, "*batch some_channels"]:
        """What is said of channels, for those of the transformer."""
        return channels[..., self.network_channels] if self.is_embedded.any() else channels

    def embedded(self, channels: Float[Array, "*batch channels"]) -> dict[str, Array]:
        """Channels of the sites that are embedded, in their shapes."""
        return {
            name: channels[..., self.channel_slices[name]].reshape(*channels.shape[:-1], *site.shape)
            for name, site in self.sites.items()
            if site.is_embedded
        }

    @cached_property
    def group_of_channel(self) -> Int[np.ndarray, " channels"]:
        """Channels of the same place in tokens of the same group."""
        return self._channel_groups(self.group_of_token)

    def standardised_alike(self, channels: Float[np.ndarray, "simulations channels"]) -> Int[np.ndarray, " channels"]:
        """Group the channels that share their standardisation: that cannot be told apart, or have the same law."""
        exchangeable, own = self._channel_groups(self.exchangeable_of_token), ~self.is_embedded
        alike = exchangeable + self.num_channels
        alike[own] = join_alike(channels[:, own], exchangeable[own], self.group_of_channel[own])
        for name, site in self.sites.items():
            if site.is_embedded:
                alike[self.channel_slices[name]] = alike[self.channel_slices[name].start]
        return _renumbered(alike)

    def _channel_groups(self, group_of_token: Int[np.ndarray, " tokens"]) -> Int[np.ndarray, " channels"]:
        first = np.searchsorted(self.token_of_channel, self.token_of_channel)
        within = np.where(self.is_embedded, 0, np.arange(self.num_channels) - first)
        places = np.stack([group_of_token[self.token_of_channel], within])
        return np.unique(places, axis=1, return_inverse=True)[1].ravel()

    @cached_property
    def is_dequantised(self) -> Bool[np.ndarray, " channels"]:
        """Channels of ordered discrete values: uniform noise is added to them where they are diffused."""
        return self._by_site(lambda name: isinstance(self.transforms[name], Count | MultinomialCounts))

    @cached_property
    def is_one_hot(self) -> Bool[np.ndarray, " channels"]:
        """Channels of unordered categories."""
        return self._by_site(lambda name: self.sites[name].num_categories > 0)

    @cached_property
    def is_bounded(self) -> Bool[np.ndarray, " channels"]:
        """Channels between 0 and 1 whose density may end there at any height."""
        return self._by_site(lambda name: isinstance(self.transforms[name], Box))

    @cached_property
    def is_data(self) -> Bool[np.ndarray, " tokens"]:
        """Tokens of data sites."""
        flags = [np.full(s.token_slice.stop - s.token_slice.start, s.is_data) for s in self.sites.values()]
        return np.concatenate(flags) if flags else np.zeros(0, bool)

    @cached_property
    def is_covariate(self) -> Bool[np.ndarray, " tokens"]:
        """Tokens that are given in every question."""
        flags = [np.full(site.num_tokens, site.is_covariate) for site in self.sites.values()]
        return np.concatenate(flags) if flags else np.zeros(0, bool)

    @cached_property
    def is_embedded_token(self) -> Bool[np.ndarray, " tokens"]:
        """Tokens of sites that are embedded."""
        flags = [np.full(site.num_tokens, site.is_embedded) for site in self.sites.values()]
        return np.concatenate(flags) if flags else np.zeros(0, bool)

    @cached_property
    def site_of_token(self) -> Int[np.ndarray, " tokens"]:
        """The site of every token, numbered from 0."""
        return np.repeat(np.arange(len(self.sites)), [site.num_tokens for site in self.sites.values()])

    @cached_property
    def unit_of_token(self) -> Int[np.ndarray, " tokens"]:
        """Tokens that can only be given together share a unit: the events whose support is not elementwise."""
        units: list[np.ndarray] = []
        start = 0
        for site in self.sites.values():
            units.append(start + np.repeat(np.arange(site.num_units), site.tokens_per_unit))
            start += site.num_units
        return np.concatenate(units) if units else np.zeros(0, int)

    def encode(self, values: Mapping[str, Array]) -> Float[Array, "*batch channels"]:
        """Unconstrained channels of site values; leading axes are batch axes, the same for every site."""
        return jnp.concatenate([self.transforms[name].forward(jnp.asarray(values[name])) for name in self.sites], -1)

    def decode(self, channels: Float[Array, "*batch channels"]) -> dict[str, Array]:
        """Site values of channels, inside every static support."""
        return {name: self.transforms[name].inverse(channels[..., part]) for name, part in self.channel_slices.items()}

    def log_abs_det_jacobian(self, values: Mapping[str, Array]) -> Float[Array, "*batch channels"]:
        """Log derivative of the channels by the values, channel by channel."""
        parts = [self.transforms[name].log_abs_det_jacobian(jnp.asarray(values[name])) for name in self.sites]
        return jnp.concatenate(parts, -1)

    def dequantise(
        self, rng_key: PRNGKeyArray, channels: Float[Array, "*batch channels"]
    ) -> Float[Array, "*batch channels"]:
        """Add U(-1/2, 1/2) to the channels of ordered discrete values."""
        if not self.is_dequantised.any():
            return channels
        noise = jax.random.uniform(rng_key, channels.shape, minval=-0.5, maxval=0.5)
        return channels + jnp.where(self.is_dequantised, noise, 0.0)

    def _by_site(self, flag) -> Bool[np.ndarray, " channels"]:
        flags = [np.full(part.stop - part.start, flag(name)) for name, part in self.channel_slices.items()]
        return np.concatenate(flags) if flags else np.zeros(0, bool)


def _channels_of_sites(sites: Mapping[str, Site]) -> tuple[dict[str, SiteTransform], dict[str, slice]]:
    """The map of every site, and where its channels stand."""
    transforms, slices, start = {}, {}, 0
    for name, site in sites.items():
        transforms[name] = site_transform(site)
        stop = start + len(_own_tokens(site, transforms[name]))
        slices[name] = slice(start, stop)
        start = stop
    return transforms, slices


def _own_tokens(site: Site, transform: SiteTransform) -> Int[np.ndarray, " channels"]:
    """The token of every channel of a site; those of a site that is embedded share its channels out."""
    if site.is_embedded:
        return np.arange(site.size) * site.num_tokens // site.size
    return np.repeat(np.arange(site.num_tokens), transform.channels_per_token)


def _renumbered(numbers: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    return np.unique(numbers, return_inverse=True)[1].ravel()
