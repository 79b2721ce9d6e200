"""Clusters of local descriptors: the weights that NetVLAD starts from.

Axis letters: M sampled descriptors, C channels, K clusters. Arrays are numpy,
float32.

Source: addLayers.m (variant `vlad_preL2_intra`) and getClusters.m of the code
of NetVLAD, github.com/Relja/netvlad.
"""

import math
import warnings
from collections.abc import Iterable
from pathlib import Path

import keras
import numpy as np
from absl import logging
from keras import ops

from sare_tf.model.aggregation import EPSILON
from sare_tf.model.heads.hard_vlad import HardVLAD
from sare_tf.model.netvlad import NetVLAD
from sare_tf.runtime import matlab_files

# Ratio of the second largest assignment to the largest: addLayers.m.
_ASSIGNMENT_RATIO = 0.01
# Largest number of iterations of k-means: getClusters.m.
_KMEANS_ITERATIONS = 100
# Variable of the centres in the cluster files of NetVLAD, [C, K].
_MAT_VARIABLE = "clsts"
# Images of an array that are embedded at a time.
_BATCH_SIZE = 32


def netvlad_initial_weights(descriptors, num_clusters, *, centres=None, seed=0):
    """Weights from sampled local descriptors.

    Assignment k is alpha times the direction of centre k, where alpha is the
    `assignment_sharpness`.

    Args:
        descriptors: local descriptors of training images, [M, C]; normalised
            here.
        num_clusters: K, at least 2.
        centres: [K, C], such as `read_centres` reads; None for those of
            k-means over the normalised descriptors.
        seed: of k-means.

    Returns:
        `assignment`, float32 [C, K], and `centres`, float32 [K, C].

    Raises:
        ValueError: another rank, fewer than 2 clusters, fewer distinct
            descriptors than clusters, centres that do not fit, or values that
            are not finite.
    """
    if num_clusters < 2:
        raise ValueError(
            "Expected at least 2 clusters: the initial sharpness comes from "
            f"the two nearest. Received: num_clusters={num_clusters}."
        )
    descriptors = _finite_rows(
        descriptors,
        "local descriptors, [M, C]",
        "Check the weights of the backbone.",
    )
    if centres is None:
        centres = _kmeans(_unit_rows(descriptors), num_clusters, seed)
    else:
        centres = check_centres(
            centres, num_clusters=num_clusters, channels=descriptors.shape[1]
        )
    alpha = assignment_sharpness(descriptors, centres)
    assignment = (alpha * _unit_rows(centres)).T
    return assignment.astype(np.float32), centres


def assignment_sharpness(descriptors, centres):
    """The sharpness alpha of the soft assignment at initialisation.

    It is such that, for a typical descriptor, the second largest assignment is
    a hundredth of the largest: alpha = -ln(0.01) / mean(s1 - s2), where s1 and
    s2 are the two largest dot products of a normalised descriptor with the
    directions of the centres.

    Args:
        descriptors: local descriptors, [M, C]; normalised here.
        centres: [K, C], K at least 2; their directions are taken here.

    Returns:
        alpha, a positive number.

    Raises:
        ValueError: every descriptor is as near to a second centre as to its
            nearest.
    """
    directions = _unit_rows(np.asarray(centres, np.float32))
    descriptors = _unit_rows(np.asarray(descriptors, np.float32))
    similarities = descriptors @ directions.T  # [M, K]
    second, first = np.partition(similarities, -2, axis=1)[:, -2:].T
    gap = float(np.mean(first - second))
    if not gap > 0:
        raise ValueError(
            "Expected centres of distinct directions. Received: centres whose "
            f"two nearest to a descriptor differ by {gap} on average."
        )
    return -math.log(_ASSIGNMENT_RATIO) / gap


def initialise_netvlad(
    embedder: keras.Model,
    images: Iterable,
    *,
    centres: np.ndarray | None = None,
    seed: int = 0,
    locations_per_image: int = 100,
) -> None:
    """Sets NetVLAD's weights from local descriptors of training images.

    The original code takes 100 random locations of each of 500 images. Given
    centres replace those of k-means; the descriptors then say only how sharp
    the assignment to them is.

    Args:
        embedder: a model of `build_embedder` with NetVLAD, also that of
            `netvlad_linear` or `hard_vlad`.
        images: an array, [N, H, W, 3]; or batches of images, [B, H, W, 3]: a
            tf.data.Dataset, or any other iterable.
        centres: [K, C], such as `read_centres` reads; None for k-means.
        seed: of the locations and of k-means.
        locations_per_image: local descriptors taken from an image, or all
            that it has if those are fewer.

    Raises:
        ValueError: no NetVLAD in the embedder, or centres or descriptors that
            `netvlad_initial_weights` refuses.
    """
    netvlads = [
        layer
        for layer in embedder.layers
        if isinstance(layer, (NetVLAD, HardVLAD))
    ]
    if len(netvlads) != 1:
        raise ValueError(
            "Expected an embedder with one NetVLAD layer. Received: "
            f"layers {[layer.name for layer in embedder.layers]}."
        )
    layer = netvlads[0]
    if centres is not None:  # before the images are embedded
        centres = check_centres(
            centres,
            num_clusters=layer.num_clusters,
            channels=layer.centres.shape[1],
        )
    below = keras.Model(embedder.input, layer.input)
    rng = np.random.default_rng(seed)
    descriptors = []
    for batch in _batches(images):
        # Not by `predict`, which would repeat a batch on every replica.
        maps = ops.convert_to_numpy(below(batch, training=False))
        locations = maps.reshape(len(maps), -1, maps.shape[-1])
        count = min(locations_per_image, locations.shape[1])
        for image in locations:
            sample = rng.choice(len(image), count, replace=False)
            descriptors.append(image[sample].astype(np.float32))
    if not descriptors:
        raise ValueError(
            "Expected images to initialise NetVLAD from. Received: none."
        )
    assignment, centres = netvlad_initial_weights(
        np.concatenate(descriptors),
        layer.num_clusters,
        centres=centres,
        seed=seed,
    )
    if isinstance(layer, NetVLAD):
        layer.assignment.assign(assignment)
    layer.centres.assign(centres)
    logging.info(
        "Initialised %d NetVLAD clusters from %d images.",
        layer.num_clusters,
        len(descriptors),
    )


def read_centres(path):
    """Reads cluster centres from a file.

    Args:
        path: a .npy file, [K, C]; or a .mat file as the authors of NetVLAD
            published them, with `clsts`, [C, K].

    Returns:
        float32 [K, C].

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, no such variable, or values that are
            not finite numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            "Expected a .mat or .npy file of cluster centres. Received: "
            f"{str(path)!r}, which does not exist."
        )
    if path.suffix not in _READERS:
        raise ValueError(
            "Expected a .mat or .npy file of cluster centres. Received: "
            f"{str(path)!r}."
        )
    return _finite_rows(
        _READERS[path.suffix](path),
        f"{str(path)!r} to hold centres, [K, C]",
        "Make the file again.",
    )


def check_centres(centres, *, num_clusters, channels):
    """Refuses centres that NetVLAD cannot start from.

    Args:
        centres: [K, C].
        num_clusters: K.
        channels: C.

    Returns:
        float32 [K, C].

    Raises:
        ValueError: another shape, or values that are not finite.
    """
    centres = _finite_rows(centres, "centres, [K, C]", "Make them again.")
    if centres.shape != (num_clusters, channels):
        raise ValueError(
            f"Expected centres of {num_clusters} clusters and {channels} "
            f"channels, [K, C]. Received: centres.shape={centres.shape}. "
            "num_clusters and the backbone, with its cut, must be those that "
            "the centres were made for."
        )
    return centres


def _batches(images):
    """Yields batches of an array of images, or what is in batches already."""
    if getattr(images, "ndim", None) != 4:
        yield from images
        return
    for start in range(0, len(images), _BATCH_SIZE):
        yield images[start : start + _BATCH_SIZE]


def _kmeans(descriptors, num_clusters, seed):
    # Slow to import, and only needed here.
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    too_few = (
        f"Expected at least {num_clusters} distinct descriptors, one per "
        f"cluster. Received: descriptors.shape={descriptors.shape}. Sample "
        "more images or locations, or lower num_clusters."
    )
    if len(descriptors) < num_clusters:
        raise ValueError(too_few)
    kmeans = KMeans(
        num_clusters,
        n_init=1,
        max_iter=_KMEANS_ITERATIONS,
        tol=0.0,
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            return kmeans.fit(descriptors).cluster_centers_
        except ConvergenceWarning as warning:
            raise ValueError(too_few) from warning


def _read_npy(path):
    try:
        with open(path, "rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except ValueError as error:
        raise ValueError(
            "Expected a .npy file of cluster centres, [K, C]. Received: "
            f"{str(path)!r}, which cannot be read: {error}"
        ) from error


def _read_mat(path):
    # Slow to import, and only needed here.
    from scipy.io import whosmat

    try:
        variables = matlab_files.load(path, names=[_MAT_VARIABLE])
    except NotImplementedError as error:
        raise ValueError(
            "Expected a .mat file up to version 7. Received: "
            f"{str(path)!r}, of version 7.3. Save it again with "
            "save(..., '-v7'), or as .npy, [K, C]."
        ) from error
    except (OSError, ValueError) as error:
        raise ValueError(
            f"Expected a .mat file of cluster centres. Received: "
            f"{str(path)!r}, which cannot be read: {error}"
        ) from error
    if _MAT_VARIABLE not in variables:
        found = sorted(name for name, *_ in whosmat(path))
        raise ValueError(
            f"Expected a .mat file with the variable {_MAT_VARIABLE!r}, the "
            f"centres, [C, K]. Received: {str(path)!r} with {found}."
        )
    return np.transpose(variables[_MAT_VARIABLE])


_READERS = {".mat": _read_mat, ".npy": _read_npy}


def _finite_rows(x, what, remedy):
    """A matrix of finite numbers, float32."""
    x = np.asarray(x)
    if x.ndim != 2 or x.dtype.kind not in "fiu":
        raise ValueError(
            f"Expected {what}, numbers. Received: shape={x.shape}, "
            f"dtype={x.dtype}. {remedy}"
        )
    x = x.astype(np.float32)
    unusable = (~np.isfinite(x)).any(axis=1).sum()
    if unusable:
        raise ValueError(
            f"Expected {what}, finite. Received: NaN or infinity in "
            f"{unusable} of {len(x)} rows. {remedy}"
        )
    return x


def _unit_rows(x):
    squares = np.sum(np.square(x), axis=-1, keepdims=True)
    return x / np.sqrt(squares + EPSILON)
