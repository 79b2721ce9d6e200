"""Which local features of two images look the same.

A match is a row of the query's features and a row of the other image's. Both
rules compare unit vectors by their cosine.

    mutual  each is the nearest of the other, and their cosine is high enough
    ratio   the nearest is much nearer than the second nearest, and mutual
"""

import dataclasses

import numpy as np

from sare_tf.local_features.features import LocalFeatures

RULES = ("mutual", "ratio")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MatchingRule:
    """The rule by which local features match.

    Args:
        rule: one of `RULES`.
        limit: "mutual": least cosine. "ratio": largest ratio of the distance
            to the nearest and to the second nearest feature.
    """

    rule: str
    limit: float


# Lowe's ratio (IJCV 2004, section 7.1), and the least cosine of XFeat's
# authors (github.com/verlab/accelerated_features, `match`).
RULE_OF_ROOT_SIFT = MatchingRule(rule="ratio", limit=0.8)
RULE_OF_XFEAT = MatchingRule(rule="mutual", limit=0.82)


def match(
    query: LocalFeatures, other: LocalFeatures, rule: MatchingRule
) -> np.ndarray:
    """Finds the features of two images that match.

    Args:
        query: of one image.
        other: of another image.
        rule: the rule.

    Returns:
        int64 [M, 2], rows of `query` and of `other`; rows of `query` ascend.
    """
    left, right = query.vectors[query.valid], other.vectors[other.valid]
    if not len(left) or not len(right):
        return np.zeros((0, 2), np.int64)
    cosines = left @ right.T
    nearest = cosines.argmax(axis=1)
    lines = np.arange(len(left))
    best = cosines[lines, nearest]
    # The maximum of each column is found faster than its position.
    passes = best >= cosines.max(axis=0)[nearest]
    if rule.rule == "mutual":
        passes &= best >= rule.limit
    else:
        passes &= _is_distinct(cosines, nearest, best, rule.limit)
    matches = np.stack([lines, nearest], axis=1)[passes]
    # Two rows of the query can tie for one of the other.
    _, first = np.unique(matches[:, 1], return_index=True)
    return matches[np.sort(first)]


def _is_distinct(
    cosines: np.ndarray, nearest: np.ndarray, best: np.ndarray, ratio: float
) -> np.ndarray:
    """Returns whether the second nearest feature is far enough, bool [n].

    Changes `cosines`.
    """
    if cosines.shape[1] < 2:
        return np.zeros(len(cosines), bool)
    cosines[np.arange(len(cosines)), nearest] = -np.inf
    second = cosines.max(axis=1)
    # Squared distances of unit vectors are 2 - 2 cosines.
    return 1 - best < ratio**2 * (1 - second)
