"""What says how sure an answer is, and one score made of it.

    margin    1 - d / e of the first match, see `search.confidence`
    distance  of the descriptors, negative
    spread    of the positions of the first ten matches: SUE, the weighted
              standard deviation in metres, negative logarithm (Zaffar et al.,
              "On the estimation of image-matching uncertainty in visual place
              recognition", CVPR 2024)
    inliers   of the first match, logarithm; where matches were re-ranked

The higher, the surer. `answer_scores` computes them. A `ScoreModel` is a
logistic regression, fitted by `evaluation.score_fitting` on the split val. It
orders answers; how often those of a score are right is counted, see
`search.calibration`. This module needs neither numpy nor TensorFlow.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

# The name of the score that is made of the others.
COMBINED = "combined"
# Names on pages.
WORDS = {
    "margin": "margin",
    "distance": "distance",
    "spread": "spread (SUE)",
    "inliers": "inliers",
    COMBINED: "all in one",
}
SCORES = tuple(name for name in WORDS if name != COMBINED)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoreModel:
    """A logistic regression of scores.

    Args:
        names: scores, some of `SCORES`.
        means: of each, on the queries that it was fitted to.
        deviations: standard deviations of each, above 0.
        weights: of each score, less its mean, divided by its deviation.
        bias: what is added.
    """

    names: Sequence[str]
    means: Sequence[float]
    deviations: Sequence[float]
    weights: Sequence[float]
    bias: float

    def __call__(self, scores: Mapping[str, float]) -> float:
        """Returns the score of an answer, from 0 to 1.

        Args:
            scores: by name. An unknown one, NaN or absent, counts as the mean.
        """
        total = self.bias
        for name, mean, deviation, weight in zip(
            *(self.names, self.means, self.deviations, self.weights),
            strict=True,
        ):
            value = scores.get(name, math.nan)
            if math.isfinite(value):
                total += weight * (value - mean) / deviation
        # Without overflow for either sign.
        small = math.exp(-abs(total))
        return (1 if total >= 0 else small) / (1 + small)

    @classmethod
    def from_json(cls, written: Mapping[str, Any] | None) -> Self | None:
        """Returns what `dataclasses.asdict` wrote; None of None.

        Raises:
            ValueError, TypeError: it was written by something else.
        """
        if written is None:
            return None
        model = cls(**written)
        lengths = {
            len(model.names),
            len(model.means),
            len(model.deviations),
            len(model.weights),
        }
        if len(lengths) > 1 or not set(model.names) <= set(SCORES):
            raise ValueError(f"it holds no model of scores: {written!r:.60}")
        return model
