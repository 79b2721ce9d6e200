"""The graph of XFeat that is exported: encoded images in, local features out.

    serving_default   image_bytes, JPEG or PNG, string [B]
                      -> keypoints, float32 [B, K, 2], vectors, float32
                      [B, K, 64], scores, float32 [B, K], valid, bool [B, K],
                      size, int32 [B, 2], and fingerprint, string [B]

K is fixed when the graph is made. Keypoints are x and y in pixels of the image
as it was given, upright; (0, 0) is the centre of its first pixel. The best come
first. Where there are fewer, the rest are zeros and not valid. `size` is height
and width of the image, zeros if it cannot be decoded.

Each image is computed for itself, at its own size: the others of its batch
change nothing. What becomes of the network's outputs follows the code of its
authors (`detectAndCompute`), also where that is peculiar: its coordinates of
samples treat the corners of an image in two ways, so that a keypoint in the
last row or column is lost, and so is one at (0, 0).
"""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from sare_tf import __version__
from sare_tf.dataset import image_decoding
from sare_tf.model import xfeat

# Least probability of a keypoint, and pixels to each side among which it is
# the most probable. As the authors set them.
_LEAST_PROBABILITY = 0.05
_NEIGHBOURHOOD = 2
# Of the bicubic kernel, as in PyTorch.
_CUBIC = -0.75
_ENCODED = tf.TensorSpec([None], tf.string, "image_bytes")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LocalFeatureGraph:
    """What an export of XFeat computes.

    Attributes:
        network: of `xfeat.build`.
        count: K, features of an image.
        longest_side: larger images are reduced to this many pixels.
    """

    network: keras.Model
    count: int
    longest_side: int

    @property
    def height(self) -> int:
        """Rows of the photographs to warm up with."""
        return max(self.longest_side * 3 // 4, 1)

    @property
    def width(self) -> int:
        """Columns of the photographs to warm up with."""
        return self.longest_side

    @property
    def fingerprint(self) -> str:
        """The sha256 of everything that the features depend on."""
        settings = [
            __version__,
            self.count,
            self.longest_side,
            xfeat.BLOCKS,
            xfeat.PLAIN,
        ]
        digest = hashlib.sha256(json.dumps(settings).encode())
        for weight in self.network.weights:
            digest.update(np.ascontiguousarray(weight.numpy()).view(np.uint8))
        return digest.hexdigest()

    def serve(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Computes the signature, without the fingerprint."""
        images, sizes, originals = image_decoding.load_within(
            image_bytes, longest_side=self.longest_side
        )
        count = tf.shape(sizes)[0]
        # A loop of no rounds has no outputs: give it an image, then drop it.
        missing = tf.cast(count == 0, tf.int32)
        spec = {
            "keypoints": tf.TensorSpec((self.count, 2), tf.float32),
            "vectors": tf.TensorSpec((self.count, xfeat.DIMENSION), tf.float32),
            "scores": tf.TensorSpec((self.count,), tf.float32),
            "valid": tf.TensorSpec((self.count,), tf.bool),
        }
        below = [[0, missing]]
        features = tf.map_fn(
            lambda one: self._of_image(*one),
            (
                tf.pad(images, below * 3 + [[0, 0]]),
                tf.pad(sizes, [*below, [0, 0]]),
                tf.pad(originals, [*below, [0, 0]]),
            ),
            fn_output_signature=spec,
        )
        return {
            **{name: values[:count] for name, values in features.items()},
            "size": originals,
        }

    def _of_image(
        self, image: tf.Tensor, size: tf.Tensor, original: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Returns the features of one image, filled up with zeros.

        Args:
            image: uint8 [H, W, 3].
            size: int32 [2], its rows and columns that are not filled up.
            original: int32 [2], its size as it was given.
        """
        decoded = tf.reduce_all(size > 0)
        size = tf.maximum(size, 1)
        image = tf.cast(image[: size[0], : size[1]], tf.float32)
        step = xfeat.SIZE_STEP
        cut = tf.maximum(size // step, 1) * step
        # Without antialiasing, as the authors do it: by less than a step.
        outputs = self.network(
            tf.image.resize(image[None], cut), training=False
        )
        points, scores, vectors = features_of(
            {name: values[0] for name, values in outputs.items()}, self.count
        )
        found = decoded & (scores > 0)
        # Their cut scales from the first pixel's centre, ours from its corner.
        points *= tf.cast(size[::-1] / cut[::-1], tf.float32)
        reduced = tf.cast(original[::-1] / size[::-1], tf.float32)
        points = (points + 0.5) * reduced - 0.5
        missing = self.count - tf.shape(scores)[0]

        def filled(values: tf.Tensor) -> tf.Tensor:
            kept = tf.where(
                tf.reshape(found, [-1] + [1] * (values.shape.rank - 1)),
                values,
                tf.zeros_like(values),
            )
            width = [[0, missing], *[[0, 0]] * (values.shape.rank - 1)]
            return tf.ensure_shape(
                tf.pad(kept, width), (self.count, *values.shape[1:])
            )

        return {
            "keypoints": filled(points),
            "vectors": filled(vectors),
            "scores": filled(scores),
            "valid": filled(found),
        }

    def write(self, folder: Path) -> str:
        """Writes the SavedModel into a folder, and returns its fingerprint."""
        fingerprint = self.fingerprint

        def serve(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
            named = tf.fill(tf.shape(image_bytes), fingerprint)
            return {**self.serve(image_bytes), "fingerprint": named}

        archive = keras.export.ExportArchive()
        archive.add_endpoint("serving_default", serve, [_ENCODED])
        archive.write_out(str(folder), verbose=False)
        return fingerprint

    def card(self) -> dict[str, Any]:
        """Returns the properties of the graph that `sare_tf.json` states."""
        return {
            "local_features": "xfeat",
            "count": self.count,
            "dimension": xfeat.DIMENSION,
            "longest_side": self.longest_side,
            "preprocessing": "decode; turn upright by the EXIF header of a "
            "JPEG; reduce to the longest side above, bilinear; cut to "
            f"multiples of {xfeat.SIZE_STEP}; mean of RGB",
            "versions": {
                "sare_tf": __version__,
                "tensorflow": tf.__version__,
                "keras": keras.__version__,
            },
        }


def features_of(
    outputs: dict[str, tf.Tensor], count: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Finds the keypoints of one image in the outputs of the network.

    Args:
        outputs: of `xfeat.build`, for one image, without the axis B.
        count: K.

    Returns:
        The best n <= K: x and y, float32 [n, 2], in pixels of the network's
        image; scores, float32 [n], which are 0 for those that are lost; and
        vectors, float32 [n, 64].
    """
    heat = _probabilities(outputs["logits"])
    rows = tf.where(_is_peak(heat))
    size = tf.cast(tf.shape(heat), tf.float32)
    # In the last row or column, and at (0, 0), none is kept: see above.
    kept = (
        (rows[:, 0] < tf.shape(heat, tf.int64)[0] - 1)
        & (rows[:, 1] < tf.shape(heat, tf.int64)[1] - 1)
        & (tf.reduce_sum(rows, 1) > 0)
    )
    rows = tf.boolean_mask(rows, kept)
    places = _in_cells(rows, size)
    reliability = _sampled(outputs["reliability"], places, _linear_taps)
    scores = tf.gather_nd(heat, rows) * reliability[:, 0]
    scores, best = tf.math.top_k(scores, tf.minimum(count, tf.size(scores)))
    vectors = _sampled(outputs["vectors"], tf.gather(places, best), _cubic_taps)
    points = tf.cast(tf.gather(rows, best)[:, ::-1], tf.float32)
    return points, scores, tf.math.l2_normalize(vectors, -1, epsilon=1e-24)


def _probabilities(logits: tf.Tensor) -> tf.Tensor:
    """Probabilities of pixels, [h, w, 65] -> [8 h, 8 w]."""
    cell = xfeat.CELL
    cells = tf.nn.softmax(logits)[..., : cell**2]
    height, width = tf.unstack(tf.shape(cells)[:2])
    pixels = tf.reshape(cells, (height, width, cell, cell))
    pixels = tf.transpose(pixels, (0, 2, 1, 3))
    return tf.reshape(pixels, (height * cell, width * cell))


def _is_peak(heat: tf.Tensor) -> tf.Tensor:
    """Whether a pixel is the most probable of its neighbourhood, [H, W]."""
    side = 2 * _NEIGHBOURHOOD + 1
    most = tf.nn.max_pool2d(heat[None, ..., None], side, 1, "SAME")
    return (heat == most[0, ..., 0]) & (heat > _LEAST_PROBABILITY)


def _in_cells(rows: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Coordinates in the map of cells, float32 [n, 2], of pixels int64 [n, 2].

    The authors bring pixels to -1..1 by the centres of the corner pixels, and
    PyTorch takes that for the corners.
    """
    relative = 2 * (tf.cast(rows, tf.float32) / (size - 1)) - 1
    return ((relative + 1) * (size / xfeat.CELL) - 1) / 2


def _sampled(values: tf.Tensor, places: tf.Tensor, taps: Any) -> tf.Tensor:
    """Interpolates a map, with zeros around it.

    Args:
        values: [h, w, C].
        places: row and column, float32 [n, 2].
        taps: the weights of neighbours, [n] -> offsets and list of [n].

    Returns:
        [n, C].
    """
    first = tf.floor(places)
    offsets, weights = taps(places - first)
    margin = 2
    padded = tf.pad(values, [[margin, margin], [margin, margin], [0, 0]])
    corner = tf.cast(first, tf.int32) + margin
    total = 0.0
    for down, row_weight in zip(offsets, weights, strict=True):
        for right, column_weight in zip(offsets, weights, strict=True):
            weight = row_weight[:, 0] * column_weight[:, 1]
            taken = tf.gather_nd(padded, corner + [down, right])
            total += weight[:, None] * taken
    return total


def _linear_taps(t: tf.Tensor) -> tuple[range, list[tf.Tensor]]:
    return range(2), [1 - t, t]


def _cubic_taps(t: tf.Tensor) -> tuple[range, list[tf.Tensor]]:
    """Keys' kernel (IEEE ASSP 29, 1981) with PyTorch's constant."""
    a = _CUBIC

    def near(x: tf.Tensor) -> tf.Tensor:
        return ((a + 2) * x - (a + 3)) * x * x + 1

    def far(x: tf.Tensor) -> tf.Tensor:
        return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a

    return range(-1, 3), [far(t + 1), near(t), near(1 - t), far(2 - t)]
