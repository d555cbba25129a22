"""Graph algebra against what it stands for: conditional dependence in Gaussians."""

import numpy as np
import pytest

from simformer_ppl.structure import attention_masks, bitsets, graph


def random_gaussian(seed, tokens=7, density=0.25):
    """A directed graph and the precision matrix of a Gaussian with generic weights on it."""
    rng = np.random.default_rng(seed)
    adjacency = np.tril(rng.random((tokens, tokens)) < density, -1)
    weights = np.where(adjacency, rng.uniform(0.5, 1.5, (tokens, tokens)), 0.0)
    residual = np.eye(tokens) - weights
    return adjacency, residual.T @ np.diag(rng.uniform(0.5, 2.0, tokens)) @ residual


def support(matrix):
    nonzero = np.abs(matrix) > 1e-9
    np.fill_diagonal(nonzero, False)
    return nonzero


def from_matrix(matrix):
    return [bitsets.of_members(np.flatnonzero(row).tolist()) for row in matrix]


def eliminated(algorithm, matrix, keep):
    reduced = algorithm(from_matrix(matrix), np.flatnonzero(~keep).tolist())
    return graph.to_matrix(graph.relabel(reduced, np.flatnonzero(keep)))


def moral_matrix(adjacency):
    return graph.to_matrix(graph.moralise(from_matrix(adjacency)))


@pytest.mark.parametrize("seed", range(20))
def test_moral_graph_is_the_support_of_the_precision(seed):
    adjacency, precision = random_gaussian(seed)
    assert np.array_equal(moral_matrix(adjacency), support(precision))


@pytest.mark.parametrize("seed", range(20))
def test_eliminated_graph_is_the_support_of_the_marginal_precision(seed):
    adjacency, precision = random_gaussian(seed)
    keep = np.random.default_rng(seed + 100).random(7) < 0.6
    keep[0] = True
    while (barren := ~keep & ~adjacency.any(0)).any():  # a childless token says nothing about the others
        keep, adjacency = keep[~barren], adjacency[np.ix_(~barren, ~barren)]
        precision = np.linalg.inv(np.linalg.inv(precision)[np.ix_(~barren, ~barren)])
    marginal = np.linalg.inv(np.linalg.inv(precision)[np.ix_(keep, keep)])
    assert np.array_equal(eliminated(graph.eliminate, moral_matrix(adjacency), keep), support(marginal))


@pytest.mark.parametrize("seed", range(20))
def test_directed_elimination_keeps_every_ordered_dependence(seed):
    adjacency, precision = random_gaussian(seed)
    keep = np.random.default_rng(seed + 100).random(7) < 0.6
    keep[0] = True
    covariance = np.linalg.inv(precision)[np.ix_(keep, keep)]
    reduced = eliminated(graph.eliminate_directed, adjacency, keep)
    assert not np.triu(reduced).any()
    for row in range(1, len(covariance)):
        coefficients = np.linalg.solve(covariance[:row, :row], covariance[:row, row])
        assert not (np.abs(coefficients[~reduced[row, :row]]) > 1e-9).any()


@pytest.mark.parametrize("seed", range(30))
def test_latent_rows_are_what_the_denoiser_of_noised_values_reads(seed):
    adjacency, precision = random_gaussian(seed)
    given = np.random.default_rng(seed + 200).random(7) < 0.4
    given[0] = False
    latent = ~given
    noise = 0.3
    # posterior mean of the latent values given noised latent values and clean given ones, as a linear map
    gain = np.linalg.inv(precision[np.ix_(latent, latent)] + np.eye(latent.sum()) / noise)
    reads = np.zeros((latent.sum(), 7))
    reads[:, latent] = gain / noise
    reads[:, given] = -gain @ precision[np.ix_(latent, given)]
    mask = np.asarray(attention_masks.attention_mask(moral_matrix(adjacency), given))
    assert np.array_equal(
        mask[latent] & ~np.eye(7, dtype=bool)[latent], (np.abs(reads) > 1e-9) & ~np.eye(7, dtype=bool)[latent]
    )


@pytest.mark.parametrize("seed", range(30))
def test_no_path_through_layers_leaves_a_component(seed):
    adjacency, _ = random_gaussian(seed, tokens=10, density=0.2)
    given = np.random.default_rng(seed + 300).random(10) < 0.5
    moral = moral_matrix(adjacency)
    reach = np.asarray(attention_masks.attention_mask(moral, given))
    for _ in range(4):
        reach = (reach.astype(int) @ reach.astype(int)) > 0
    labels = np.asarray(attention_masks.latent_components(moral, given))
    latent = np.flatnonzero(~given)
    crossing = reach[np.ix_(latent, latent)] & (labels[latent][:, None] != labels[latent][None, :])
    assert not crossing.any()


def test_nothing_given_is_dense_in_a_connected_graph_and_all_given_is_the_graph():
    chain = np.eye(4, k=1, dtype=bool) | np.eye(4, k=-1, dtype=bool)
    assert np.asarray(attention_masks.attention_mask(chain, np.zeros(4, bool))).all()
    assert np.array_equal(
        np.asarray(attention_masks.attention_mask(chain, np.ones(4, bool))), chain | np.eye(4, dtype=bool)
    )


def test_batches_of_conditions_are_masks_of_each():
    adjacency, _ = random_gaussian(3)
    moral = moral_matrix(adjacency)
    given = np.random.default_rng(0).random((5, 7)) < 0.5
    batch = np.asarray(attention_masks.attention_mask(moral, given))
    assert all(np.array_equal(batch[i], np.asarray(attention_masks.attention_mask(moral, given[i]))) for i in range(5))


def test_directed_mask_of_a_posterior_factorises_it():
    # x1 and x2 are independent causes of x3: given x3, the inverse must join them
    collider = np.zeros((3, 3), bool)
    collider[2, :2] = True
    mask = np.asarray(attention_masks.directed_attention_mask(moral_matrix(collider), np.array([False, False, True])))
    assert mask[1, 0] and not mask[0, 1] and mask[0, 2] and mask[1, 2]


@pytest.mark.parametrize("seed", range(10))
def test_relabelling_permutes_rows_and_columns(seed):
    rng = np.random.default_rng(seed)
    matrix = rng.random((30, 30)) < 0.2
    np.fill_diagonal(matrix, False)
    order = rng.permutation(30)[: rng.integers(1, 31)]
    assert np.array_equal(graph.to_matrix(graph.relabel(from_matrix(matrix), order)), matrix[np.ix_(order, order)])
    assert np.array_equal(bitsets.to_matrix(bitsets.transpose(from_matrix(matrix), 30), 30), matrix.T)


@pytest.mark.parametrize("seed", range(10))
def test_parents_come_first_in_ancestral_order(seed):
    rng = np.random.default_rng(seed)
    adjacency, _ = random_gaussian(seed, tokens=20)
    shuffled = rng.permutation(20)
    parents = from_matrix(adjacency[np.ix_(shuffled, shuffled)])
    ordered = graph.relabel(parents, graph.ancestral_order(parents))
    assert not np.triu(graph.to_matrix(ordered)).any()
