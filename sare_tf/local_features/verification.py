"""Whether the matches of two images agree on one geometry.

OpenCV's USAC_MAGSAC estimates it: a homography, which holds for a plane or a
turned camera, or a fundamental matrix, which holds for any rigid scene but
constrains a match to a line only. Matches that agree are inliers.

All candidates of a query are verified in one pass, on all cores. A pair's
result depends on nothing but the pair: each estimation starts from the same
seed, and each product of matrices runs on one thread.

Source: Barath et al., "MAGSAC++, a fast, reliable and accurate robust
estimator", CVPR 2020; Raguram et al., "USAC: a universal framework for random
sample consensus", PAMI 35, 2013.
"""

import dataclasses
import functools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import threadpoolctl

from sare_tf.local_features import matching, opencv
from sare_tf.local_features.features import LocalFeatures
from sare_tf.local_features.matching import MatchingRule

# Least number of matches from which each is estimated: one more than define it.
_FEWEST = {"homography": 5, "fundamental": 8}
# As in common use (hloc, CosPlace's re-ranking): stop when a better geometry
# has a chance of 1 %, or after 1,000 samples.
_CONFIDENCE, _MOST_SAMPLES = 0.99, 1000
# As OpenCV sets them for the flag USAC_MAGSAC.
_LOCAL_SAMPLE, _LOCAL_ROUNDS = 50, 10
# Any number, and always the same.
_SEED = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Geometry:
    """How matches are verified.

    Args:
        matching: which features match.
        geometry: one of `registry.GEOMETRIES`.
        tolerance: largest error of an inlier, as a share of the longer side of
            its image.
    """

    matching: MatchingRule
    geometry: str
    tolerance: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verified:
    """The verified matches of two images.

    Args:
        matches: int64 [M, 2], rows of the features of query and candidate.
        is_inlier: bool [M], whether a match agrees with the geometry.
        inliers: their number; several at one point of an image count once,
            as SIFT gives a corner a feature for each of its directions.
    """

    matches: np.ndarray
    is_inlier: np.ndarray
    inliers: int


def verify(
    query: LocalFeatures,
    candidates: Sequence[LocalFeatures],
    geometry: Geometry,
    *,
    num_threads: int | None = None,
) -> list[Verified]:
    """Verifies all candidates of a query.

    Args:
        query: features of the query.
        candidates: features of the images that may show the same place.
        geometry: how they are verified.
        num_threads: pairs at a time; None: one for each core. The result does
            not depend on it.

    Raises:
        ImportError: OpenCV is not installed.
    """
    opencv.load()
    threads = min(num_threads or os.cpu_count() or 1, len(candidates))
    with _controller().limit(limits=1, user_api="blas"):
        if threads <= 1:
            return [_verify_pair(query, one, geometry) for one in candidates]
        with ThreadPoolExecutor(threads) as pool:
            return list(
                pool.map(
                    lambda one: _verify_pair(query, one, geometry), candidates
                )
            )


def inlier_lines(
    left: LocalFeatures, right: LocalFeatures, verified: Verified, *, most: int
) -> np.ndarray:
    """Returns some inliers as lines from one image to the other.

    Args:
        left: features of the query.
        right: features of the candidate.
        verified: their matches.
        most: lines, at most.

    Returns:
        float32 [n, 4], x and y in one and x and y in the other, as shares of
        width and height.
    """
    rows = verified.matches[verified.is_inlier]
    count = min(most, len(rows))
    rows = rows[np.linspace(0, len(rows) - 1, count).round().astype(int)]
    return np.concatenate(
        [
            # Pixel 0 has its middle at half a pixel.
            (one.keypoints[of_image] + 0.5) / (one.width, one.height)
            for one, of_image in ((left, rows[:, 0]), (right, rows[:, 1]))
        ],
        axis=1,
        dtype=np.float32,
    )


@functools.cache
def _controller() -> threadpoolctl.ThreadpoolController:
    """Looks for the libraries of matrix products once: it takes a while."""
    return threadpoolctl.ThreadpoolController()


def _verify_pair(
    query: LocalFeatures, candidate: LocalFeatures, geometry: Geometry
) -> Verified:
    matches = matching.match(query, candidate, geometry.matching)
    is_inlier = np.zeros(len(matches), bool)
    if len(matches) >= _FEWEST[geometry.geometry]:
        points = [
            _relative(one, rows)
            for one, rows in zip((query, candidate), matches.T, strict=True)
        ]
        is_inlier = _estimate(*points, geometry)
    kept = matches[is_inlier]
    distinct = [
        len(np.unique(one.keypoints[rows], axis=0))
        for one, rows in zip((query, candidate), kept.T, strict=True)
    ]
    return Verified(matches=matches, is_inlier=is_inlier, inliers=min(distinct))


def _relative(features: LocalFeatures, rows: np.ndarray) -> np.ndarray:
    """Keypoints in thousandths of the longer side, float64 [n, 2]."""
    longest = max(features.width, features.height)
    return features.keypoints[rows].astype(np.float64) * (1000 / longest)


def _estimate(
    points: np.ndarray, others: np.ndarray, geometry: Geometry
) -> np.ndarray:
    """Estimates one geometry; returns which points agree with it, bool [M]."""
    cv2 = opencv.load()
    estimate = {
        "homography": cv2.findHomography,
        "fundamental": cv2.findFundamentalMat,
    }[geometry.geometry]
    try:
        _, mask = estimate(points, others, _parameters(cv2, geometry))
    except cv2.error:
        # Points from which it cannot be estimated, such as all on one line.
        mask = None
    if mask is None:
        return np.zeros(len(points), bool)
    return mask.ravel().astype(bool)


def _parameters(cv2: Any, geometry: Geometry) -> Any:
    """Returns USAC_MAGSAC's parameters, with a seed, which a flag lacks."""
    parameters = cv2.UsacParams()
    parameters.score = cv2.SCORE_METHOD_MAGSAC
    parameters.loMethod = cv2.LOCAL_OPTIM_SIGMA
    parameters.loSampleSize = _LOCAL_SAMPLE
    parameters.loIterations = _LOCAL_ROUNDS
    parameters.sampler = cv2.SAMPLING_UNIFORM
    parameters.confidence = _CONFIDENCE
    parameters.maxIterations = _MOST_SAMPLES
    parameters.threshold = 1000 * geometry.tolerance
    parameters.randomGeneratorState = _SEED
    parameters.isParallel = False
    return parameters
