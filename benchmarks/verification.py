"""The verification of two images, compared with OpenCV's own matcher.

    python -m benchmarks.verification

Each image has 1,000 features. In a pair of the same place, 400 features of one
image have a counterpart in the other: their vectors have noise, and their
points moved by a homography with noise of a pixel. All others are random. In a
pair of different places all are random.

`matcher` is what finds matches: sare_tf's rule, or `cv2.BFMatcher` with the
same rule, as in OpenCV's tutorials. Both estimate by USAC_MAGSAC, with 1,000
samples at most. Milliseconds are medians over pairs, of the processor's time of
one thread. `all of 10` divides the time by the clock of one query with 10
candidates on all cores by 10.
"""

import os
import statistics
import time

import cv2
import numpy as np
import threadpoolctl

from sare_tf.local_features import matching, registry, verification
from sare_tf.local_features.features import LocalFeatures
from sare_tf.local_features.matching import MatchingRule
from sare_tf.local_features.verification import Geometry

_COUNT, _SHARED = 1000, 400
_WIDTH, _HEIGHT = 640, 480
_PAIRS = 20
_TOLERANCE = 0.01
_RULES = {
    "128 numbers, ratio 0.8": (128, matching.RULE_OF_ROOT_SIFT),
    "64 numbers, mutual above 0.82": (64, matching.RULE_OF_XFEAT),
    "64 numbers, mutual": (64, MatchingRule(rule="mutual", limit=-1.0)),
}


def main() -> None:
    rng = np.random.default_rng(0)
    cv2.setNumThreads(1)
    print(f"{os.cpu_count()} cores, OpenCV {cv2.__version__}.\n")
    print("| features | place | geometry | matcher | matches | inliers | ms |")
    print("|---|---|---|---|---:|---:|---:|")
    for name, (dimension, rule) in _RULES.items():
        for place, shared in (("same", _SHARED), ("different", 0)):
            pairs = [_pair(rng, dimension, shared) for _ in range(_PAIRS)]
            for kind in registry.GEOMETRIES:
                geometry = Geometry(
                    matching=rule, geometry=kind, tolerance=_TOLERANCE
                )
                for matcher, found in (
                    ("sare_tf", _ours(pairs, geometry)),
                    ("sare_tf, all of 10", _many(pairs, geometry)),
                    ("OpenCV", _opencv(pairs, geometry)),
                ):
                    numbers = [statistics.median(one) for one in found]
                    print(
                        f"| {name} | {place} | {kind} | {matcher} | "
                        f"{numbers[0]:.0f} | {numbers[1]:.0f} | "
                        f"{1000 * numbers[2]:.2f} |"
                    )


def _pair(rng, dimension, shared):
    vectors = rng.normal(size=(2, _COUNT, dimension))
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    points = rng.uniform(0, [_WIDTH, _HEIGHT], (2, _COUNT, 2))
    true = np.array([[0.9, 0.1, 20], [-0.05, 1.05, -8], [1e-4, -5e-5, 1]])
    moved = np.c_[points[0, :shared], np.ones(shared)] @ true.T
    points[1, :shared] = moved[:, :2] / moved[:, 2:]
    points[1, :shared] += rng.normal(size=(shared, 2))
    noise = rng.normal(size=(shared, dimension)) * 0.4 / dimension**0.5
    vectors[1, :shared] = vectors[0, :shared] + noise
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    return [
        LocalFeatures.of_found(
            *one,
            np.ones(_COUNT),
            count=_COUNT,
            width=_WIDTH,
            height=_HEIGHT,
        )
        for one in zip(points, vectors, strict=True)
    ]


def _ours(pairs, geometry):
    found = []
    for query, other in pairs:
        began = time.thread_time()
        (one,) = verification.verify(query, [other], geometry, num_threads=1)
        seconds = time.thread_time() - began
        found.append((len(one.matches), one.inliers, seconds))
    return zip(*found, strict=True)


def _many(pairs, geometry):
    others = [other for _, other in pairs[:10]]
    found = []
    for number, (query, _) in enumerate(pairs[:10]):
        began = time.perf_counter()
        verified = verification.verify(query, others, geometry)
        seconds = (time.perf_counter() - began) / len(others)
        own = verified[number]
        found.append((len(own.matches), own.inliers, seconds))
    return zip(*found, strict=True)


def _opencv(pairs, geometry):
    rule = geometry.matching
    estimate = {
        "homography": lambda *points: cv2.findHomography(
            *points, cv2.USAC_MAGSAC, 6.4, maxIters=1000, confidence=0.99
        ),
        "fundamental": lambda *points: cv2.findFundamentalMat(
            *points, cv2.USAC_MAGSAC, 6.4, 0.99, 1000
        ),
    }[geometry.geometry]
    found = []
    with threadpoolctl.threadpool_limits(1):
        for query, other in pairs:
            began = time.thread_time()
            kept = _brute_force(query.vectors, other.vectors, rule)
            inliers = 0
            if len(kept) > 7:
                _, mask = estimate(
                    query.keypoints[[one.queryIdx for one in kept]],
                    other.keypoints[[one.trainIdx for one in kept]],
                )
                inliers = 0 if mask is None else int(mask.sum())
            found.append((len(kept), inliers, time.thread_time() - began))
    return zip(*found, strict=True)


def _brute_force(left, right, rule):
    if rule.rule == "ratio":
        nearest = cv2.BFMatcher(cv2.NORM_L2).knnMatch(left, right, 2)
        return [
            one
            for one, second in nearest
            if one.distance < rule.limit * second.distance
        ]
    farthest = max(2 - 2 * rule.limit, 0) ** 0.5
    mutual = cv2.BFMatcher(cv2.NORM_L2, crossCheck=True).match(left, right)
    return [one for one in mutual if one.distance <= farthest]


if __name__ == "__main__":
    main()
