"""Classifier two-sample test."""

from typing import Any, Literal

import numpy as np
from jaxtyping import Float


def c2st(
    draws: Float[np.ndarray, "samples dims"],
    reference: Float[np.ndarray, "samples dims"],
    *,
    classifier: Literal["forest", "mlp"] = "forest",
    seed: int = 1,
) -> float:
    """Accuracy of a classifier that tells two samples apart, by 5-fold cross-validation.

    Lopez-Paz & Oquab 2017. Needs scikit-learn.

    Parameters
    ----------
    draws, reference
        Two samples of the same size; both are standardised by the reference.
    classifier
        ``"forest"``: a random forest (Gloeckler et al. 2024); ``"mlp"``: two hidden layers of ten units a dimension
        (sbibm; Lueckmann et al. 2021).
    seed
        Of the folds and the classifier.

    Returns
    -------
    0.5 where the samples cannot be told apart, 1 where they are disjoint.

    Raises
    ------
    ValueError
        If the samples differ in shape.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> c2st(rng.normal(size=(200, 2)), rng.normal(size=(200, 2)) + 9.0)
    1.0
    """
    if draws.shape != reference.shape or draws.ndim != 2:
        raise ValueError(f"Expected two samples of one shape (samples, dims), got {draws.shape} and {reference.shape}.")
    from sklearn.model_selection import KFold, cross_val_score  # only who tests needs scikit-learn

    both = (np.concatenate([draws, reference]) - reference.mean(0)) / reference.std(0)
    labels = np.repeat([0, 1], len(draws))
    folds = KFold(5, shuffle=True, random_state=seed)
    return float(cross_val_score(_classifier(classifier, draws.shape[1], seed), both, labels, cv=folds).mean())


def _classifier(kind: str, dims: int, seed: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.neural_network import MLPClassifier

    if kind == "forest":
        return RandomForestClassifier(random_state=seed)
    return MLPClassifier((10 * dims, 10 * dims), max_iter=10_000, solver="adam", random_state=seed)
