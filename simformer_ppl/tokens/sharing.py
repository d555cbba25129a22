"""What the elements of a plate share: tokens that the model cannot tell apart, or by known constants only."""

from collections.abc import Collection, Mapping
from types import MappingProxyType

import numpy as np
from jaxtyping import Bool, Float, Int

from simformer_ppl.structure import ModelStructure

MOST_CONSTANTS = 32
"""Combinations of known constants that are kept of a token."""


def group_of_token(
    structure: ModelStructure, plates: Collection[str], functions: Mapping[str, int] = MappingProxyType({})
) -> Int[np.ndarray, " tokens"]:
    """Group the tokens of each site along some plates, and those of functions along their continuous axis.

    Parameters
    ----------
    structure
        The model's structure.
    plates
        Those whose elements are alike.
    functions
        The continuous axis of sites that have one.

    Returns
    -------
    The group of every token, numbered from 0.
    """
    canonical = np.arange(structure.num_tokens)
    for site in structure.sites.values():
        grid = canonical[site.token_slice].reshape(site.token_shape)
        along = {site.dims.index(plate) for plate in site.plates if plate in plates}
        for axis in along | ({functions[site.name]} if site.name in functions else set()):
            grid = np.broadcast_to(np.take(grid, [0], axis), grid.shape)
        canonical[site.token_slice] = grid.ravel()
    return np.unique(canonical, return_inverse=True)[1]


def same_element(structure: ModelStructure, plates: Collection[str]) -> Bool[np.ndarray, "tokens tokens"]:
    """Pairs of tokens in the same element of every one of these plates that holds both, and of one at least.

    Tokens of a group carry no identity: this relation tells a token which others belong to its own element.
    """
    together = np.zeros((structure.num_tokens, structure.num_tokens), bool)
    apart = np.zeros_like(together)
    for plate in plates:
        index = np.full(structure.num_tokens, -1)
        for site in structure.sites.values():
            if plate in site.plates:
                axis = site.dims.index(plate)
                index[site.token_slice] = np.indices(site.token_shape)[axis].ravel()
        both = (index[:, None] >= 0) & (index[None, :] >= 0)
        together |= both & (index[:, None] == index[None, :])
        apart |= both & (index[:, None] != index[None, :])
    return together & ~apart & ~np.eye(structure.num_tokens, dtype=bool)


def own_vector_of_token(
    structure: ModelStructure, exchangeable_of_token: Int[np.ndarray, " tokens"]
) -> Int[np.ndarray, " tokens"]:
    """Tokens inside plates that differ by constants, numbered from 0, those alike that are exchangeable; -1 outside."""
    inside = np.zeros(structure.num_tokens, bool)
    for site in structure.sites.values():
        inside[site.token_slice] = bool(set(site.plates) & set(structure.constant_plates))
    numbers = np.full(structure.num_tokens, -1)
    numbers[inside] = np.unique(exchangeable_of_token[inside], return_inverse=True)[1]
    return numbers


def principal_constants(structure: ModelStructure) -> Float[np.ndarray, "tokens components"]:
    """The constants by which tokens differ, as uncorrelated components of unit size; 0 where none apply."""
    constants = structure.token_constants.astype(np.float64)
    applies, infinite = ~np.isnan(constants), np.isinf(constants)
    # a limit that is not there: its place is taken by 0, and by a column that says so
    constants = np.concatenate([np.where(infinite, 0.0, constants), np.sign(np.where(infinite, constants, 0.0))], 1)
    applies = np.concatenate([applies, applies], 1)
    count = np.maximum(applies.sum(0), 1)
    centred = np.where(applies, constants - np.nansum(constants, 0) / count, 0.0)
    deviation = np.sqrt((centred**2).sum(0) / count)
    varied = deviation > 1e-6 * (1e-30 + np.abs(np.nan_to_num(constants)).max(0, initial=0.0))
    if not varied.any():
        return np.zeros((structure.num_tokens, 0), np.float32)
    left, sizes, _ = np.linalg.svd(centred[:, varied] / deviation[varied], full_matrices=False)
    kept = min(MOST_CONSTANTS, int((sizes > 1e-3 * sizes[0]).sum()))
    return (left[:, :kept] * np.sqrt(applies.any(1).sum())).astype(np.float32)
