"""A conditioned distribution as a NumPyro distribution over its latent scalars."""

import math

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions import constraints

from simformer_ppl.query import Query
from simformer_ppl.tokens.transforms import scalar_support


class LatentDistribution(dist.Distribution):
    """Over the latent site, where there is one; else over the vector of all latent scalars.

    The vector holds the latent sites in trace order, the scalars of each in C order; of a partly given site, those
    that are missing.

    Parameters
    ----------
    conditioned
        What is drawn from. Continuous sites only.
    missing
        Positions of the latent scalars in each flattened latent site.
    """

    pytree_aux_fields = ("_conditioned", "_places", "_whole")

    def __init__(self, conditioned: Query, missing: dict[str, np.ndarray]):
        self._conditioned = conditioned
        self._places = tuple((name, tuple(places.tolist())) for name, places in missing.items())
        sites = [conditioned.sites[name] for name in missing]
        self._whole = len(sites) == 1 and missing[sites[0].name].size == math.prod(sites[0].shape)
        event_shape = sites[0].shape if self._whole else (sum(len(places) for places in missing.values()),)
        super().__init__(conditioned.batch_shape, event_shape, validate_args=False)

    @property
    def _missing(self) -> dict[str, np.ndarray]:
        return {name: np.array(places, int) for name, places in self._places}

    @property
    def support(self) -> constraints.Constraint:
        """Support of the latent scalars.

        Raises
        ------
        ValueError
            If an event whose support is not elementwise lies in the vector beside other sites.
        """
        sites = [self._conditioned.sites[name] for name in self._missing]
        if self._whole:
            own = sites[0].support
            return constraints.independent(own, len(sites[0].shape) - own.event_dim)
        parts = []
        for site in sites:
            if not site.is_elementwise:
                raise ValueError(
                    f"Site '{site.name}': expected an elementwise support beside other latent sites, got "
                    f"{site.support}. Give the other sites, or leave this one out of `sites`."
                )
            parts.append(_at_places(scalar_support(site), site.shape, self._missing[site.name]))
        lengths = [len(places) for places in self._missing.values()]
        return constraints.independent(constraints.cat(parts, -1, lengths), 1)

    def sample(self, key: PRNGKeyArray, sample_shape: tuple[int, ...] = ()) -> Float[Array, "*shape"]:
        """Draw; see :meth:`~simformer_ppl.ConditionedDistribution.draw`."""
        return self.pack(self._conditioned.draw(key, sample_shape))

    def log_prob(self, value: Float[Array, "*shape"]) -> Float[Array, "*batch"]:
        """Normalised log density, differentiable; see :meth:`~simformer_ppl.ConditionedDistribution.log_prob`."""
        return self._conditioned.log_prob(self.unpack(value))

    def unpack(self, vector: Float[Array, "*batch_and_event"]) -> dict[str, Float[Array, "*batch_and_site"]]:
        """Vector to a dict of site arrays; given entries of partly given sites are zero."""
        vector = jnp.asarray(vector)
        if self._whole:
            return {next(iter(self._missing)): vector}
        values, start = {}, 0
        for name, places in self._missing.items():
            shape = self._conditioned.sites[name].shape
            flat = jnp.zeros((*vector.shape[:-1], math.prod(shape)), vector.dtype)
            flat = flat.at[..., places].set(vector[..., start : start + len(places)])
            values[name] = flat.reshape(*vector.shape[:-1], *shape)
            start += len(places)
        return values

    def pack(self, values: dict[str, Array]) -> Float[Array, "*batch_and_event"]:
        """Dict of site arrays to the vector; undoes :meth:`unpack`."""
        if self._whole:
            return values[next(iter(self._missing))]
        parts = []
        for name, places in self._missing.items():
            dims = len(self._conditioned.sites[name].shape)
            value = jnp.asarray(values[name])
            parts.append(value.reshape(*value.shape[: value.ndim - dims], -1)[..., places])
        return jnp.concatenate(parts, -1)


def _at_places(support: constraints.Constraint, shape: tuple[int, ...], places: np.ndarray) -> constraints.Constraint:
    """The support of some scalars of a site: bounds that differ between scalars are picked out."""
    pick = lambda bound: np.broadcast_to(bound, shape).ravel()[places]  # noqa: E731
    bounds = {name: getattr(support, name) for name in ("lower_bound", "upper_bound") if hasattr(support, name)}
    if not any(np.ndim(bound) for bound in bounds.values()):
        return support
    return type(support)(**{name: pick(bound) for name, bound in bounds.items()})
