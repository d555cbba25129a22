"""Which token attends to which, from the graphs of a model and from what is given; traceable by JAX.

Rows and columns are tokens. In a directed matrix ``adjacency[i, j]`` says that token ``i`` reads token ``j`` (row =
child); in an undirected one the matrix is symmetric. Diagonals are False, except in attention masks.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int


def token_relations(
    adjacency: Bool[np.ndarray, "tokens tokens"], moral: Bool[np.ndarray, "tokens tokens"]
) -> Bool[np.ndarray, "4 tokens tokens"]:
    """How the token of a column stands to that of a row: itself, its parent, its child, another neighbour.

    Parameters
    ----------
    adjacency
        Directed graph, row = child.
    moral
        Undirected graph: adds parents of a common child, and tokens joined by eliminated ones.

    Returns
    -------
    One matrix for each relation; no two hold for the same pair.
    """
    parent = np.asarray(adjacency, bool)
    return np.stack([np.eye(len(parent), dtype=bool), parent, parent.T & ~parent, moral & ~parent & ~parent.T])


def latent_components(
    moral: Bool[Array, "tokens tokens"], conditioned: Bool[Array, " tokens"]
) -> Int[Array, " tokens"]:
    """Label the connected components of the latent tokens, the given tokens deleted.

    Parameters
    ----------
    moral
        Symmetric graph.
    conditioned
        True for given tokens.

    Returns
    -------
    The smallest token of each latent token's component; the number of tokens, for a given token.
    """
    tokens = conditioned.shape[0]
    edges = moral & ~conditioned[:, None] & ~conditioned[None, :]
    labels = jnp.where(conditioned, tokens, jnp.arange(tokens))

    def spread(state: tuple[Array, Array]) -> tuple[Array, Array]:
        labels, _ = state
        lowest = jnp.minimum(labels, jnp.where(edges, labels[None, :], tokens).min(1))
        jumped = jnp.minimum(lowest, jnp.append(lowest, tokens)[lowest])
        return jumped, (jumped != labels).any()

    return jax.lax.while_loop(lambda state: state[1], spread, (labels, jnp.asarray(True)))[0]


def attention_mask(
    moral: Bool[Array, "tokens tokens"], conditioned: Bool[Array, "*batch tokens"]
) -> Bool[Array, "*batch tokens tokens"]:
    """Which token attends to which, for a state of given and latent tokens.

    A latent token attends to its component (the latent tokens connected to it once the given ones are deleted) and to
    the given tokens adjacent to that component: the set its score depends on under noise. A given token that touches
    a single component attends to it; it attends to an adjacent given token unless that one carries another
    component. Hence no path through any number of layers leads from one component into another.

    Parameters
    ----------
    moral
        Symmetric graph over all tokens.
    conditioned
        True for given tokens. Traceable by JAX.

    Returns
    -------
    Row = query, diagonal True.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> chain = jnp.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], bool)
    >>> attention_mask(chain, jnp.array([False, True, False])).astype(int).tolist()
    [[1, 1, 0], [0, 1, 0], [0, 1, 1]]
    """
    return jnp.vectorize(_attention_mask, signature="(n,n),(n)->(n,n)")(jnp.asarray(moral), jnp.asarray(conditioned))


def _attention_mask(moral: Bool[Array, "n n"], conditioned: Bool[Array, " n"]) -> Bool[Array, "n n"]:
    tokens = conditioned.shape[0]
    labels = latent_components(moral, conditioned)
    same = ~conditioned[:, None] & (labels[:, None] == labels[None, :])
    touches = (moral & conditioned[:, None]).astype(jnp.float32) @ same.astype(jnp.float32) > 0
    # `home`: the one component that a given token touches; `tokens` when it touches none or several
    first = jnp.where(touches, labels[None, :], tokens).min(1)
    last = jnp.where(touches, labels[None, :], -1).max(1)
    home = jnp.where(first == last, first, tokens)
    carries_no_other = (home[None, :] == home[:, None]) | (home[None, :] == tokens)
    among_given = moral & conditioned[:, None] & conditioned[None, :] & carries_no_other
    from_given = touches & (labels[None, :] == home[:, None])
    return same | touches.T | from_given | among_given | jnp.eye(tokens, dtype=bool)


def directed_attention_mask(
    moral: Bool[Array, "tokens tokens"], conditioned: Bool[Array, "*batch tokens"]
) -> Bool[Array, "*batch tokens tokens"]:
    """Attention along a faithful inverse of the model, as in the published directed variant.

    The latent tokens are eliminated from the moral graph in reverse order; each attends to the neighbours it has when
    it is eliminated (Webb et al. 2018, algorithm 1, with co-parents that are given kept). Right for a factorisation,
    biased for a score: for comparison only.

    Parameters
    ----------
    moral
        Symmetric graph over all tokens.
    conditioned
        True for given tokens. Traceable by JAX.

    Returns
    -------
    Row = query, diagonal True.
    """
    return jnp.vectorize(_directed_mask, signature="(n,n),(n)->(n,n)")(jnp.asarray(moral), jnp.asarray(conditioned))


def _directed_mask(moral: Bool[Array, "n n"], conditioned: Bool[Array, " n"]) -> Bool[Array, "n n"]:
    tokens = conditioned.shape[0]
    eye = jnp.eye(tokens, dtype=bool)
    given_rows = eye | (moral & conditioned[:, None] & conditioned[None, :])

    def remove(graph: Bool[Array, "n n"], token: Int[Array, ""]) -> tuple[Bool[Array, "n n"], Bool[Array, " n"]]:
        row = graph[token] & ~eye[token]
        filled = (graph | (row[:, None] & row[None, :])) & ~eye[token][:, None] & ~eye[token][None, :]
        return jnp.where(conditioned[token], graph, filled), row

    _, rows = jax.lax.scan(remove, moral, jnp.arange(tokens)[::-1])
    return jnp.where(conditioned[:, None], given_rows, rows[::-1] | eye)
