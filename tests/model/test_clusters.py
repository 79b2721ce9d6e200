"""Clusters: k-means, sharpness and files of centres, against plain loops."""

import functools
import math

import numpy as np
import pytest
import scipy.io
from paths import SHARED
from sklearn.cluster import kmeans_plusplus

from sare_tf.model import (
    assignment_sharpness,
    netvlad_initial_weights,
    read_centres,
)
from sare_tf.model.clusters import check_centres

OFFICIAL = SHARED / "data" / "netvlad_centres"


def clouds(*, seed=0, centres=6, each=40, channels=8, spread=0.05):
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(centres, channels))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    noise = spread * rng.normal(size=(each, centres, channels))
    lengths = rng.uniform(1, 9, (each, centres, 1))
    descriptors = (directions + noise) * lengths
    return descriptors.reshape(-1, channels).astype(np.float32), directions


def test_initial_centres_are_the_means_of_normalised_clouds():
    descriptors, directions = clouds()
    _, centres = netvlad_initial_weights(descriptors, 6)
    assert centres.shape == (6, 8)
    assert centres.dtype == np.float32
    normalised = descriptors / np.linalg.norm(descriptors, axis=1)[:, None]
    nearest = np.argmax(normalised @ directions.T, axis=1)
    means = [normalised[nearest == k].mean(axis=0) for k in range(6)]
    order = np.argmin(np.linalg.norm(centres[:, None] - means, axis=-1), axis=0)
    np.testing.assert_allclose(centres[order], means, atol=1e-5)


def lloyd(descriptors, num_clusters, seed):
    """K-means in plain loops, float64, 100 iterations, as getClusters.m."""
    x = np.array([d / math.sqrt(d @ d) for d in np.float64(descriptors)])
    # Only the starting points are those of scikit-learn.
    start, _ = kmeans_plusplus(
        x.astype(np.float32), num_clusters, random_state=seed
    )
    centres = np.float64(start)
    for _ in range(100):
        nearest = [np.argmin([(v - c) @ (v - c) for c in centres]) for v in x]
        centres = np.array(
            [
                np.mean(
                    [v for v, n in zip(x, nearest, strict=True) if n == k], 0
                )
                for k in range(num_clusters)
            ]
        )
    return centres


def sharpness(descriptors, centres):
    """alpha, descriptor by descriptor, from addLayers.m."""
    gaps = []
    for x in np.float64(descriptors):
        products = sorted(
            (x / np.linalg.norm(x)) @ (c / np.linalg.norm(c)) for c in centres
        )
        gaps.append(products[-1] - products[-2])
    return -math.log(0.01) / np.mean(gaps)


@pytest.mark.parametrize("seed", [0, 43])
def test_initial_weights_are_those_of_the_original_code(seed):
    # One blob, whose k-means takes tens of iterations.
    rng = np.random.default_rng(5)
    descriptors = rng.uniform(1, 9, (300, 1)) * rng.normal(size=(300, 4))
    expected = lloyd(descriptors, 7, seed)
    assignment, centres = netvlad_initial_weights(descriptors, 7, seed=seed)
    np.testing.assert_allclose(centres, expected, atol=1e-5, rtol=0)
    alpha = sharpness(descriptors, expected)
    directions = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(assignment, alpha * directions.T, rtol=1e-3)


def test_initial_assignment_has_the_wanted_sharpness():
    descriptors, _ = clouds(spread=0.2)
    assignment, centres = netvlad_initial_weights(descriptors, 5)
    assert assignment.shape == (8, 5)
    assert assignment.dtype == np.float32
    lengths = np.linalg.norm(assignment, axis=0)
    np.testing.assert_allclose(lengths, lengths[0], rtol=1e-5)
    directions = centres / np.linalg.norm(centres, axis=1, keepdims=True)
    np.testing.assert_allclose(assignment.T / lengths[0], directions, atol=1e-5)
    # log of the two largest shares of a softmax: they differ as its scores.
    normalised = descriptors / np.linalg.norm(descriptors, axis=1)[:, None]
    scores = np.sort(normalised @ assignment, axis=1)
    ratio = np.exp(np.mean(scores[:, -2] - scores[:, -1]))
    np.testing.assert_allclose(ratio, 0.01, rtol=1e-4)


def test_initial_weights_depend_on_the_seed_alone():
    descriptors, _ = clouds(spread=0.5)
    first = netvlad_initial_weights(descriptors, 4, seed=1)
    again = netvlad_initial_weights(descriptors, 4, seed=1)
    other = netvlad_initial_weights(descriptors, 4, seed=2)
    np.testing.assert_array_equal(first[1], again[1])
    np.testing.assert_array_equal(first[0], again[0])
    assert np.abs(first[1] - other[1]).max() > 1e-3


@pytest.mark.parametrize(
    ("descriptors", "clusters", "message"),
    [
        (np.ones((3, 2, 2)), 2, r"\[M, C\], numbers.*shape=\(3, 2, 2\)"),
        (np.full((3, 2), "a"), 2, "numbers.*dtype=<U1.*weights of the backb"),
        (np.eye(4), 1, "at least 2 clusters.*num_clusters=1"),
        (np.eye(4), 5, r"at least 5 distinct.*shape=\(4, 4\)"),
        (np.ones((9, 4)), 2, "at least 2 distinct"),
        ([[1, np.nan], [1, 2], [2, 1]], 2, "finite.* 1 of 3"),
        ([[1, np.inf], [np.inf, 2], [2, 1]], 2, "finite.* 2 of 3"),
    ],
)
def test_descriptors_that_cannot_be_clustered(descriptors, clusters, message):
    with pytest.raises(ValueError, match=message):
        netvlad_initial_weights(np.asarray(descriptors), clusters)


def test_sharpness_by_hand():
    centres = np.float32([[2, 0], [0, 3]])
    # Directions (1, 0) and (0, 1); (.8, .6) and (0, 1): gaps .2 and 1.
    descriptors = np.float32([[4, 3], [0, 5]])
    expected = math.log(100) / 0.6
    np.testing.assert_allclose(
        assignment_sharpness(descriptors, centres), expected, rtol=1e-6
    )


def test_centres_of_one_direction_are_refused():
    centres = np.float32([[2, 0], [3, 0]])
    with pytest.raises(ValueError, match="distinct directions.*differ by 0.0"):
        assignment_sharpness(np.float32([[4, 3], [0, 5]]), centres)


def test_given_centres_replace_those_of_k_means():
    descriptors, _ = clouds()
    given = np.random.default_rng(2).normal(size=(6, 8))
    assignment, centres = netvlad_initial_weights(descriptors, 6, centres=given)
    np.testing.assert_array_equal(centres, given.astype(np.float32))
    assert centres.dtype == assignment.dtype == np.float32
    directions = given / np.linalg.norm(given, axis=1, keepdims=True)
    np.testing.assert_allclose(
        assignment, sharpness(descriptors, given) * directions.T, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("centres", "message"),
    [
        (np.ones((5, 8)), r"6 clusters and 8 channels.*shape=\(5, 8\)"),
        (np.ones((8, 6)), r"6 clusters and 8 channels.*shape=\(8, 6\)"),
        (np.full((6, 8), np.nan), "centres.* finite.*6 of 6 rows"),
        (np.ones(8), r"centres, \[K, C\], numbers.*shape=\(8,\)"),
    ],
)
def test_centres_that_do_not_fit(centres, message):
    descriptors, _ = clouds()
    with pytest.raises(ValueError, match=message):
        netvlad_initial_weights(descriptors, 6, centres=centres)
    with pytest.raises(ValueError, match=message):
        check_centres(centres, num_clusters=6, channels=8)


def save_mat(path, **variables):
    """Columns of float32, as the files of the authors of NetVLAD have them."""
    scipy.io.savemat(path, variables, do_compression=True)


def test_centres_from_files(tmp_path):
    expected = np.random.default_rng(1).normal(size=(6, 8)).astype(np.float32)
    np.save(tmp_path / "centres.npy", expected.astype(np.float64))
    save_mat(tmp_path / "centres.mat", clsts=np.asfortranarray(expected.T))
    for name in ("centres.npy", "centres.mat"):
        found = read_centres(tmp_path / name)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)


def _write_as(data, path):
    path.write_bytes(data)


# The first bytes of a file that MATLAB wrote with -v7.3, which is HDF5.
VERSION_7_3 = (
    b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        (
            "a.mat",
            functools.partial(save_mat, other=1),
            r"'clsts'.*\['other'\]",
        ),
        (
            "a.mat",
            functools.partial(save_mat, clsts=[[1, np.nan]]),
            "NaN.* 1 of",
        ),
        (
            "a.mat",
            functools.partial(save_mat, clsts=np.ones((2, 3, 4))),
            "4, 3, 2",
        ),
        (
            "a.mat",
            functools.partial(save_mat, clsts="text"),
            "numbers.*dtype=<U",
        ),
        ("a.mat", functools.partial(_write_as, VERSION_7_3), "of version 7.3"),
        ("a.mat", functools.partial(_write_as, b"nothing"), "cannot be read"),
        ("a.npy", functools.partial(_write_as, b"nothing"), "cannot be read"),
        ("a.npy", functools.partial(_write_as, b""), "cannot be read"),
        ("a.txt", functools.partial(_write_as, b"1 2 3"), ".mat or .npy file"),
    ],
)
def test_files_that_hold_no_centres(name, write, message, tmp_path):
    write(path=tmp_path / name)
    with pytest.raises(ValueError, match=message) as error:
        read_centres(tmp_path / name)
    assert name in str(error.value)


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no.mat.*does not exist"):
        read_centres(tmp_path / "no.mat")


@pytest.mark.skipif(
    not OFFICIAL.is_dir(), reason="needs the official files of centres"
)
@pytest.mark.parametrize(
    ("dataset", "mean_norm"), [("pitts30k", 0.931), ("tokyoTM", 0.925)]
)
def test_official_centres(dataset, mean_norm):
    name = f"{dataset}_train_vd16_conv5_3_preL2_k064_clst.mat"
    centres = read_centres(OFFICIAL / name)
    assert centres.shape == (64, 512)
    norms = np.linalg.norm(centres, axis=1)
    np.testing.assert_allclose(norms.mean(), mean_norm, atol=5e-4)
    descriptors = np.random.default_rng(0).normal(size=(200, 512))
    assignment, found = netvlad_initial_weights(
        descriptors, 64, centres=centres
    )
    np.testing.assert_array_equal(found, centres)
    alpha = sharpness(descriptors, centres)
    np.testing.assert_allclose(
        np.linalg.norm(assignment, axis=0), alpha, rtol=1e-5
    )
