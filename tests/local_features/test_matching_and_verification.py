"""RootSIFT, matches and verified matches, against their definitions."""

import io

import numpy as np
import pytest
from PIL import Image

from sare_tf.local_features import matching, registry
from sare_tf.local_features.features import LocalFeatures
from sare_tf.local_features.matching import MatchingRule
from sare_tf.local_features.root_sift import RootSIFT, root_sift
from sare_tf.local_features.verification import Geometry, verify

WIDTH, HEIGHT = 640, 480


def _unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _features(keypoints, vectors, count=None):
    keypoints = np.asarray(keypoints, float)
    return LocalFeatures.of_found(
        keypoints,
        vectors,
        np.ones(len(keypoints)),
        count=count or len(keypoints) + 3,
        width=WIDTH,
        height=HEIGHT,
    )


def _loop(left, right, rule):
    """The definition of both rules, with distances and one pair at a time."""
    distances = [[np.linalg.norm(a - b) for b in right] for a in left]
    matches = []
    for i, row in enumerate(distances):
        order = sorted(range(len(row)), key=row.__getitem__)
        column = [line[order[0]] for line in distances]
        if column.index(min(column)) != i:
            continue
        if rule.rule == "mutual":
            if 1 - row[order[0]] ** 2 / 2 < rule.limit:
                continue
        elif row[order[0]] >= rule.limit * row[order[1]]:
            continue
        matches.append((i, order[0]))
    return matches


@pytest.mark.parametrize(
    "rule",
    [
        MatchingRule(rule="mutual", limit=-1.0),
        MatchingRule(rule="mutual", limit=0.6),
        MatchingRule(rule="ratio", limit=0.8),
    ],
    ids=str,
)
def test_matches_are_those_of_a_loop(rule):
    rng = np.random.default_rng(1)
    left = _unit(rng.normal(size=(40, 16)))
    right = _unit(left[rng.permutation(40)][:30] + rng.normal(size=16) * 0.3)
    found = matching.match(
        _features(np.zeros((40, 2)), left),
        _features(np.zeros((30, 2)), right),
        rule,
    )
    expected = _loop(left, right, rule)
    assert 3 < len(expected) < 40
    assert found.tolist() == [list(pair) for pair in expected]


def test_one_feature_has_no_second_nearest():
    one = _features([[1, 2]], np.eye(1, 8))
    rule = matching.RULE_OF_ROOT_SIFT
    assert matching.match(one, one, rule).shape == (0, 2)
    rule = matching.RULE_OF_XFEAT
    assert matching.match(one, one, rule).tolist() == [[0, 0]]


def test_equal_vectors_match_once():
    """Both rows of the query are nearest to the one row, and tie."""
    query = _features([[0, 0], [5, 5]], np.ones((2, 4)) / 2)
    other = _features([[0, 0]], np.ones((1, 4)) / 2)
    rule = matching.RULE_OF_XFEAT
    assert matching.match(query, other, rule).tolist() == [[0, 0]]


def test_root_sift_is_the_hellinger_kernel():
    """Inner product = sum over bins of sqrt(a b), of histograms of sum 1."""
    histograms = np.random.default_rng(0).integers(0, 256, (5, 128))
    made = root_sift(histograms.astype(np.float32))
    for i, a in enumerate(histograms):
        for j, b in enumerate(histograms):
            kernel = sum(
                np.sqrt((x / a.sum()) * (y / b.sum()))
                for x, y in zip(a, b, strict=True)
            )
            assert made[i] @ made[j] == pytest.approx(kernel, abs=1e-6)
    assert not root_sift(np.zeros((1, 128), np.float32)).any()


def _scene(rng, count, share, noise=0.5):
    """Points seen twice through a known homography, some of them elsewhere."""
    points = rng.uniform([40, 40], [WIDTH - 40, HEIGHT - 40], (count, 2))
    true = np.array([[0.9, 0.1, 20], [-0.05, 1.05, -8], [1e-4, -5e-5, 1]])
    moved = np.c_[points, np.ones(count)] @ true.T
    moved = moved[:, :2] / moved[:, 2:] + rng.normal(size=(count, 2)) * noise
    is_true = np.arange(count) < round(share * count)
    moved[~is_true] = rng.uniform([0, 0], [WIDTH, HEIGHT], (sum(~is_true), 2))
    vectors = _unit(rng.normal(size=(count, 64)))
    return _features(points, vectors), _features(moved, vectors), is_true


@pytest.mark.parametrize("geometry", registry.GEOMETRIES)
def test_inliers_are_the_points_that_moved_together(geometry):
    rng = np.random.default_rng(3)
    query, other, is_true = _scene(rng, 200, 0.6)
    rule = Geometry(
        matching=matching.RULE_OF_XFEAT, geometry=geometry, tolerance=0.005
    )
    (verified,) = verify(query, [other], rule)
    assert verified.matches.tolist() == [[i, i] for i in range(200)]
    # Of 3 pixels in 640; noise of half a pixel stays below nearly always. One
    # random line in many passes near a point, one random point in few.
    assert verified.is_inlier[is_true].mean() > 0.97
    wrong = verified.is_inlier[~is_true].mean()
    assert wrong < {"homography": 0.02, "fundamental": 0.2}[geometry]
    assert verified.inliers == verified.is_inlier.sum()


def test_results_do_not_depend_on_threads_or_on_other_candidates():
    rng = np.random.default_rng(4)
    query, *_ = scenes = [_scene(rng, 120, 0.2, noise=2.0) for _ in range(5)]
    query = query[0]
    candidates = [scene[1] for scene in scenes]
    rule = Geometry(
        matching=MatchingRule(rule="mutual", limit=-1.0),
        geometry="homography",
        tolerance=0.01,
    )
    one = verify(query, candidates, rule, num_threads=1)
    for others in (
        verify(query, candidates, rule, num_threads=3),
        [verify(query, [single], rule)[0] for single in candidates],
    ):
        for left, right in zip(one, others, strict=True):
            np.testing.assert_array_equal(left.matches, right.matches)
            np.testing.assert_array_equal(left.is_inlier, right.is_inlier)


def test_features_at_one_point_count_once():
    rng = np.random.default_rng(5)
    query, other, _ = _scene(rng, 30, 1.0, noise=0.0)
    twice = []
    for one in (query, other):
        keypoints = np.repeat(one.keypoints[one.valid], 2, axis=0)
        twice.append(_features(keypoints, np.eye(60, 64)))
    rule = Geometry(
        matching=matching.RULE_OF_XFEAT, geometry="homography", tolerance=0.01
    )
    (verified,) = verify(twice[0], [twice[1]], rule)
    assert verified.is_inlier.sum() == 60
    assert verified.inliers == 30


def test_too_few_points_and_points_on_a_line_are_no_evidence():
    rule = Geometry(
        matching=matching.RULE_OF_XFEAT, geometry="homography", tolerance=0.01
    )
    four = _features(np.eye(4, 2) * 50, np.eye(4, 8))
    nothing = LocalFeatures.of_no_image(count=7, dimension=8)
    for other in (four, nothing):
        (verified,) = verify(four, [other], rule)
        assert verified.inliers == 0
    assert verify(four, [], rule) == []
    same_point = _features(np.ones((20, 2)), np.eye(20, 32))
    (verified,) = verify(same_point, [same_point], rule)
    assert verified.inliers <= 1


def _encoded(pixels, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", **options)
    return file.getvalue()


def _picture():
    """Random blocks: corners at known places."""
    rng = np.random.default_rng(7)
    pixels = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    for _ in range(60):
        y, x = rng.integers(0, HEIGHT - 40), rng.integers(0, WIDTH - 40)
        size = rng.integers(10, 40, 2)
        pixels[y : y + size[0], x : x + size[1]] = rng.integers(0, 256, 3)
    return pixels


def test_keypoints_are_in_pixels_of_the_given_image():
    """Of a picture and of its enlargement, which is reduced again."""
    pixels = _picture()
    enlarged = np.asarray(Image.fromarray(pixels).resize((1280, 960)))
    extract = RootSIFT(count=300, longest_side=640)
    small, large = extract([_encoded(pixels), _encoded(enlarged)])
    assert (large.width, large.height) == (1280, 960)
    assert small.num_valid > 100
    rule = Geometry(
        matching=matching.RULE_OF_ROOT_SIFT,
        geometry="homography",
        tolerance=0.01,
    )
    (verified,) = verify(small, [large], rule)
    rows = verified.matches[verified.is_inlier]
    assert len(rows) > 50
    # A pixel's centre x lies at x + 0.5 from the border.
    there = (small.keypoints[rows[:, 0]] + 0.5) * 2 - 0.5
    offsets = large.keypoints[rows[:, 1]] - there
    assert np.abs(np.median(offsets, axis=0)).max() < 0.1


def test_images_without_keypoints_have_no_valid_features():
    extract = RootSIFT(count=10, longest_side=640)
    wall = np.full((50, 60, 3), 200, np.uint8)
    blank, damaged, thin = extract(
        [_encoded(wall), b"no image", _encoded(wall[:1, :1])]
    )
    assert (blank.num_valid, blank.width, blank.height) == (0, 60, 50)
    assert (damaged.num_valid, damaged.width, damaged.height) == (0, 0, 0)
    assert thin.num_valid == 0
    assert blank.vectors.shape == (10, 128)


def test_the_best_features_are_kept():
    pixels = _encoded(_picture())
    few, many = (
        RootSIFT(count=count, longest_side=640)([pixels])[0]
        for count in (20, 200)
    )
    assert few.valid.all()
    assert (np.diff(few.scores) <= 0).all()
    assert set(few.scores) == set(many.scores[:20])
    names = {
        RootSIFT(count=count, longest_side=side).fingerprint
        for count, side in ((20, 640), (20, 320), (10, 640))
    }
    assert len(names) == 3
