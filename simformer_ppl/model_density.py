"""The density of the model, which importance weights aim at."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from simformer_ppl.query import Query
from simformer_ppl.replicates import log_probs


@dataclass(frozen=True)
class ModelDensity:
    """What the model says of a question: the joint density of all its sites.

    Attributes
    ----------
    asked
        The question.
    """

    asked: Query

    @property
    def proposal(self) -> Query | None:
        """The distribution whose draws are weighted; None, where the model itself draws all that is asked."""
        return self.asked

    def refuse_if_unknown(self) -> None:
        """Tell why the density of the model, or of the draws, is not known.

        Raises
        ------
        ValueError
            If it is not.
        """
        structure = self.asked.structure
        unknown = {
            "a nuisance site is left out": structure.nuisances,
            "a deterministic site is a token": [n for n, site in structure.sites.items() if site.is_deterministic],
            "the model draws noise that is no site": ["numpyro.prng_key"] if structure.has_hidden_noise else [],
            "a site with an embedding is not given": [
                name
                for name, site in structure.sites.items()
                if site.is_embedded and name not in self.asked.given.values
            ],
        }
        for why, names in unknown.items():
            if names:
                raise ValueError(
                    f"{self.asked!r}: the model's density is not known, since {why} ({', '.join(names)}). "
                    "Expected every random choice to be a sample site and a token."
                )
        if self.proposal is not None:
            self.proposal._refuse_density()

    def log_probs(self, values: Mapping[str, Array], leading: tuple[int, ...]) -> dict[str, Float[Array, "..."]]:
        """Log densities of every site, element by element: their sum is what the draws are weighted by.

        Parameters
        ----------
        values
            Draws of the proposal, given scalars as given.
        leading
            Axes of draws and conditions.
        """
        sites = self.asked.structure.sites
        rows = {name: value.reshape(-1, *sites[name].shape) for name, value in values.items()}
        densities: dict[str, Any] = dict(log_probs(self.asked.replay, rows, tuple(sites)))
        return {name: density.reshape(leading + density.shape[1:]) for name, density in densities.items()}

    def of_given(self, name: str, density: Float[Array, "..."], leading: tuple[int, ...]) -> Float[Array, "..."]:
        """The density of a site without the elements of data that have a missing scalar, which are NaN.

        Parameters
        ----------
        name
            Of the site.
        density
            As :meth:`log_probs` has it.
        leading
            Axes of draws and conditions.
        """
        site = self.asked.structure.sites[name]
        given = self.asked.given.values.get(name)
        if given is None or not site.is_data:
            return density
        event_axes = len(site.shape) - (density.ndim - len(leading))
        missing = np.isnan(given)
        return jnp.where(missing.any(tuple(range(missing.ndim - event_axes, missing.ndim))), jnp.nan, density)

    def completed(
        self, rng_key: PRNGKeyArray, values: Mapping[str, Array], leading: tuple[int, ...]
    ) -> dict[str, Array]:
        """Corrected draws, with what the proposal did not draw.

        Parameters
        ----------
        rng_key
            Source of the rest.
        values
            Draws of sites.
        leading
            Axes of draws and conditions.
        """
        return dict(values)
