"""Plates of varying size: fewer elements in training, and a network for the model with more or fewer."""

from collections.abc import Collection

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from simformer_ppl.structure import ModelStructure

_IN_FULL = 0.5
"""Share of the examples in which a plate has all of its elements; in the others, any number of them."""


def read_plates(structure: ModelStructure, plates: Collection[str]) -> Int[np.ndarray, "plates tokens"]:
    """The element of each plate that every token lies in, or -1.

    Parameters
    ----------
    structure
        The model.
    plates
        Names of plates that are to vary in size.

    Raises
    ------
    ValueError
        If a plate is unknown, its elements are not exchangeable, or something outside an element reads it: the model
        with fewer elements would then be another one than what is left of the larger.
    """
    names = [plates] if isinstance(plates, str) else list(plates)
    elements = np.full((len(names), structure.num_tokens), -1)
    for row, plate in zip(elements, names, strict=True):
        if plate not in structure.plates:
            raise ValueError(
                f"varying_plates: '{plate}' is no plate of the model. Expected some of: {', '.join(structure.plates)}."
            )
        if plate not in structure.exchangeable:
            raise ValueError(
                f"varying_plates: the elements of '{plate}' {_why_not(structure, plate)}. Expected exchangeable ones."
            )
        across = structure.reads_across(plate)
        if across is not None:
            child, parent = across
            raise ValueError(
                f"varying_plates: '{child}' reads '{parent}' in elements of '{plate}' that are not its own, so that "
                "fewer elements are another model. Expected elements that nothing outside reads."
            )
        for site in structure.sites.values():
            if plate in site.plates:
                row[site.token_slice] = np.indices(site.token_shape)[site.dims.index(plate)].ravel()
        if (row < 0).all():
            raise ValueError(f"varying_plates: no site in '{plate}' is a token. Expected a plate of sites that are.")
    return elements


def _why_not(structure: ModelStructure, plate: str) -> str:
    """What keeps the elements of a plate from being exchangeable."""
    embedded = [name for name, site in structure.sites.items() if site.is_embedded and plate in site.plates]
    if structure.plates[plate] == 1:
        return "are one alone, by which more of them cannot be learned"
    if embedded:
        return f"are read together by the embedding of '{embedded[0]}'"
    if plate in structure.constant_plates:
        return "differ by known constants, which `covariates` would make part of the data"
    loose = [name for name, site in structure.sites.items() if site.is_covariate and plate not in site.dims]
    if loose:
        return (
            f"differ; if the covariate '{loose[0]}' lies in it, its axes need names: dims={{'{loose[0]}': ['{plate}']}}"
        )
    return "differ, or are read together by a deterministic site"


def draw_present(
    rng_key: PRNGKeyArray, batch: int, elements: Int[np.ndarray, "plates tokens"]
) -> Bool[Array, "batch tokens"]:
    """Which tokens there are in examples with any number of elements, chosen at random.

    Parameters
    ----------
    rng_key
        Source of all randomness.
    batch
        Number of examples.
    elements
        From :func:`read_plates`.
    """
    present = jnp.ones((batch, elements.shape[1]), bool)
    for key, row in zip(jax.random.split(rng_key, len(elements)), elements, strict=True):
        order_key, count_key, full_key = jax.random.split(key, 3)
        size = int(row.max()) + 1
        rank = jnp.argsort(jax.random.uniform(order_key, (batch, size)), -1)
        count = jax.random.randint(count_key, (batch, 1), 1, size + 1)
        kept = (rank < count) | jax.random.bernoulli(full_key, _IN_FULL, (batch, 1))
        present &= (row < 0) | kept[:, row]
    return present


def same_tokens(old: ModelStructure, new: ModelStructure, varying: Collection[str]) -> Int[np.ndarray, " new_tokens"]:
    """For every token of a model with plates of other sizes, one of the old model that cannot be told from it.

    Raises
    ------
    ValueError
        If the models differ in more than the sizes of these plates.
    """
    if old.sites.keys() != new.sites.keys():
        raise ValueError(f"Expected the sites {list(old.sites)}, got {list(new.sites)}.")
    parts = []
    for name, site in new.sites.items():
        before = old.sites[name]
        axes = {site.dims.index(plate) for plate in varying if plate in site.plates}
        fixed = [
            [size for axis, size in enumerate(shape) if axis not in axes]
            for shape in (site.token_shape, before.token_shape)
        ]
        if fixed[0] != fixed[1] or site.plates != before.plates or site.distribution != before.distribution:
            raise ValueError(
                f"Site '{name}': expected {before.distribution} of shape {before.shape} up to the sizes of "
                f"{', '.join(varying)}, got {site.distribution} of shape {site.shape}."
            )
        index = [0 * along if axis in axes else along for axis, along in enumerate(np.indices(site.token_shape))]
        numbers = np.arange(before.num_tokens).reshape(before.token_shape)
        parts.append(before.token_slice.start + numbers[tuple(index)].ravel())
    return np.concatenate(parts)
