"""RootSIFT: OpenCV's SIFT, compared by the Hellinger kernel.

Source: Lowe, "Distinctive image features from scale-invariant keypoints", IJCV
60, 2004; Arandjelovic and Zisserman, "Three things everyone should know to
improve object retrieval", CVPR 2012, section 2.
"""

import hashlib
import json
from collections.abc import Sequence

import numpy as np

from sare_tf.dataset import image_decoding
from sare_tf.local_features import opencv
from sare_tf.local_features.features import LocalFeatures

# Length of a SIFT vector: 4 x 4 histograms of 8 directions.
_DIMENSION = 128


def root_sift(vectors: np.ndarray) -> np.ndarray:
    """Returns the square roots of vectors that are divided by their sums.

    The inner product of two such vectors is the Hellinger kernel of the
    histograms, and each is of unit length.

    Args:
        vectors: float [n, 128], not negative. A vector of zeros stays so.

    Returns:
        float32 [n, 128].
    """
    sums = vectors.sum(axis=1, keepdims=True, dtype=np.float64)
    return np.sqrt(vectors / np.maximum(sums, 1e-12)).astype(np.float32)


class RootSIFT:
    """Finds RootSIFT features of images. An `Extractor`.

    Args:
        count: features of an image; the ones of the strongest response.
        longest_side: larger images are reduced to this many pixels.

    Raises:
        ImportError: OpenCV is not installed.
    """

    name = "rootsift"
    dimension = _DIMENSION

    def __init__(self, *, count: int, longest_side: int):
        self.count = count
        self._longest_side = longest_side
        self._cv2 = opencv.load()
        settings = [self.name, count, longest_side, self._cv2.__version__]
        self.fingerprint = hashlib.sha256(
            json.dumps(settings).encode()
        ).hexdigest()

    def __call__(self, encoded: Sequence[bytes]) -> list[LocalFeatures]:
        """Finds the features of encoded images."""
        return [self._of_image(one) for one in encoded]

    def _of_image(self, encoded: bytes) -> LocalFeatures:
        try:
            pixels = image_decoding.pixels(encoded)
        except ValueError:
            return LocalFeatures.of_no_image(
                count=self.count, dimension=self.dimension
            )
        return self.of_pixels(pixels)

    def of_pixels(self, pixels: np.ndarray) -> LocalFeatures:
        """Finds the features of one decoded image.

        Args:
            pixels: RGB, uint8 [H, W, 3].
        """
        cv2 = self._cv2
        height, width, _ = pixels.shape
        grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
        reduction = self._longest_side / max(height, width)
        if reduction < 1:
            size = [max(round(side * reduction), 1) for side in (width, height)]
            grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
        # Not thread-safe, and made in microseconds.
        sift = cv2.SIFT_create(nfeatures=self.count)
        keypoints, vectors = sift.detectAndCompute(grey, None)
        if vectors is None:
            vectors = np.zeros((0, _DIMENSION), np.float32)
        points = np.array([one.pt for one in keypoints]).reshape(-1, 2)
        scale = np.array([width / grey.shape[1], height / grey.shape[0]])
        return LocalFeatures.of_found(
            (points + 0.5) * scale - 0.5,
            root_sift(vectors),
            np.array([one.response for one in keypoints]),
            count=self.count,
            width=width,
            height=height,
        )
