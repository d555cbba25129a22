"""A two-sample test of the answer to one observation."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class LocalC2ST(NamedTuple):
    """Whether draws given one observation can be told from what they should be.

    Attributes
    ----------
    statistic
        Mean squared distance of a classifier's probability from one half, at the draws.
    null
        The same for classifiers that were trained on shuffled labels.
    p_value
        Share of these that are at least as large, the statistic itself counted among them.
    """

    statistic: float
    null: Float[np.ndarray, " repeats"]
    p_value: float

    def __repr__(self) -> str:
        verdict = "told apart" if self.p_value < 0.05 else "not told apart"
        return (
            f"Local C2ST: draws are {verdict} from the true conditional distribution "
            f"(statistic {self.statistic:.4f}, {self.null.mean():.4f} by chance, p-value {self.p_value:.2f})"
        )


def local_c2st(
    rng: np.random.Generator,
    truths: Float[np.ndarray, "simulations latent"],
    draws: Float[np.ndarray, "simulations latent"],
    given: Float[np.ndarray, "simulations given"],
    asked_draws: Float[np.ndarray, "draws latent"],
    asked_given: Float[np.ndarray, " given"],
    num_null: int,
) -> LocalC2ST:
    """Train a classifier on all simulations, and read it at one observation.

    Linhart et al. 2023 (arXiv 2306.03580), algorithms 1 and 2. Needs scikit-learn.

    Parameters
    ----------
    rng
        Source of seeds and shuffles.
    truths, draws, given
        Simulated latent values, a draw of them given the others, and the others.
    asked_draws, asked_given
        Draws given the observation, and the observation.
    num_null
        Classifiers trained on shuffled labels.
    """
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features = np.concatenate([np.concatenate([truths, given], 1), np.concatenate([draws, given], 1)])
    labels = np.repeat([0, 1], len(truths))
    at = np.concatenate([asked_draws, np.broadcast_to(asked_given, (len(asked_draws), len(asked_given)))], 1)

    def statistic(labels: np.ndarray) -> float:
        width = 10 * features.shape[1]
        # patient: a classifier that stops before it has seen anything finds nothing
        network = MLPClassifier(
            (width, width), learning_rate_init=3e-3, max_iter=1_000, early_stopping=True, n_iter_no_change=40,
            random_state=int(rng.integers(1 << 31)),
        )  # fmt: skip
        classifier = make_pipeline(StandardScaler(), network).fit(features, labels)
        return float(((classifier.predict_proba(at)[:, 0] - 0.5) ** 2).mean())

    found = statistic(labels)
    null = np.array([statistic(rng.permutation(labels)) for _ in range(num_null)])
    return LocalC2ST(found, null, float((1 + (null >= found).sum()) / (1 + num_null)))
