"""Logistic regression of the scores of answers, by Newton's method.

Axis letters: Q answers, S scores.
"""

from collections.abc import Mapping

import numpy as np

from sare_tf.search.score_model import ScoreModel

# Ours: the penalty is half of this times the squared weights of standardised
# scores, against a sum over answers. It keeps weights finite where answers can
# be separated, and matters little for hundreds of them.
_PENALTY = 1.0
_STEPS, _TOLERANCE = 100, 1e-10


def fit(scores: Mapping[str, np.ndarray], right: np.ndarray) -> ScoreModel:
    """Fits a model of scores.

    Scores that are the same for all answers, or unknown for all, are left out.
    An unknown score counts as the mean of the others.

    Args:
        scores: float64 [Q] by name, NaN where unknown.
        right: bool [Q], whether each answer is right.
    """
    names, means, deviations, columns = [], [], [], []
    for name, values in scores.items():
        known = np.isfinite(values)
        if not known.any() or not (deviation := values[known].std()) > 0:
            continue
        mean = values[known].mean()
        names.append(name)
        means.append(float(mean))
        deviations.append(float(deviation))
        columns.append(np.where(known, (values - mean) / deviation, 0))
    features = np.stack([*columns, np.ones(len(right))], axis=1)
    weights = newton(features, np.asarray(right, np.float64))
    return ScoreModel(
        names=names,
        means=means,
        deviations=deviations,
        weights=weights[:-1].tolist(),
        bias=float(weights[-1]),
    )


def newton(features: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Minimises the penalised negative logarithm of the likelihood.

    The penalty counts the bias, too, by a hundredth, so that it stays finite
    where all answers are right.

    Args:
        features: float64 [Q, S + 1], the last column for the bias.
        right: float64 [Q], 0 or 1.

    Returns:
        float64 [S + 1], the weights.
    """
    penalty = np.full(features.shape[1], _PENALTY)
    penalty[-1] /= 100
    weights = np.zeros(features.shape[1])

    def loss(at: np.ndarray) -> float:
        signs = np.where(right > 0, 1, -1)
        errors = np.logaddexp(0, -signs * (features @ at))
        return errors.sum() + (penalty * at**2).sum() / 2

    for _ in range(_STEPS):
        shares = 1 / (1 + np.exp(-np.clip(features @ weights, -500, 500)))
        gradient = features.T @ (shares - right) + penalty * weights
        curvature = (features.T * (shares * (1 - shares))) @ features
        step = np.linalg.solve(curvature + np.diag(penalty), gradient)
        length, before = 1.0, loss(weights)
        # A full step may be too far where the curvature is small.
        while loss(weights - length * step) > before and length > 1e-6:
            length /= 2
        weights = weights - length * step
        if np.abs(length * step).max() < _TOLERANCE:
            break
    return weights


def out_of_fold(
    scores: Mapping[str, np.ndarray], right: np.ndarray, folds: np.ndarray
) -> np.ndarray:
    """Returns the score of each answer by a model that has not seen it.

    Args:
        scores: float64 [Q] by name.
        right: bool [Q].
        folds: int [Q], the fold of each answer. Answers that are alike, such
            as those of one place, are in one fold.

    Returns:
        float64 [Q], from 0 to 1.
    """
    values = np.zeros(len(right))
    for fold in np.unique(folds):
        own = folds == fold
        model = fit(
            {name: one[~own] for name, one in scores.items()}, right[~own]
        )
        values[own] = apply(
            model, {name: one[own] for name, one in scores.items()}
        )
    return values


def apply(model: ScoreModel, scores: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns the scores of answers, float64 [Q].

    Args:
        model: the model.
        scores: float64 [Q] by name.
    """
    answers = zip(*scores.values(), strict=True)
    return np.array(
        [model(dict(zip(scores, one, strict=True))) for one in answers]
    )
