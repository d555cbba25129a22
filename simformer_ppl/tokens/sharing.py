"""What exchangeable plates share: tokens that the model cannot tell apart form a group."""

import numpy as np
from jaxtyping import Bool, Int

from simformer_ppl.structure import ModelStructure


def group_of_token(structure: ModelStructure) -> Int[np.ndarray, " tokens"]:
    """Group the tokens of each site along its exchangeable plates.

    Parameters
    ----------
    structure
        The model's structure.

    Returns
    -------
    The group of every token, numbered from 0. Tokens of a group share embeddings, head and standardisation, so that
    draws and densities follow a permutation of the plate.
    """
    canonical = np.arange(structure.num_tokens)
    for site in structure.sites.values():
        grid = canonical[site.token_slice].reshape(site.token_shape)
        for axis in _shared_axes(structure, site.name):
            grid = np.broadcast_to(np.take(grid, [0], axis), grid.shape)
        canonical[site.token_slice] = grid.ravel()
    return np.unique(canonical, return_inverse=True)[1]


def same_element(structure: ModelStructure) -> Bool[np.ndarray, "tokens tokens"]:
    """Pairs of tokens in the same element of every exchangeable plate that holds both, and of one at least.

    Tokens of a group carry no identity: this relation tells a token which others belong to its own element.
    """
    together = np.zeros((structure.num_tokens, structure.num_tokens), bool)
    apart = np.zeros_like(together)
    for plate in structure.exchangeable:
        index = np.full(structure.num_tokens, -1)
        for site in structure.sites.values():
            if plate in site.plates:
                axis = site.dims.index(plate)
                index[site.token_slice] = np.indices(site.token_shape)[axis].ravel()
        both = (index[:, None] >= 0) & (index[None, :] >= 0)
        together |= both & (index[:, None] == index[None, :])
        apart |= both & (index[:, None] != index[None, :])
    return together & ~apart & ~np.eye(structure.num_tokens, dtype=bool)


def _shared_axes(structure: ModelStructure, name: str) -> list[int]:
    site = structure.sites[name]
    return [site.dims.index(plate) for plate in site.plates if plate in structure.exchangeable]
