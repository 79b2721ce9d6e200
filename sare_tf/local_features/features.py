"""The local features of an image, and what finds them.

Axis letters: K features of an image, a fixed number; D numbers of a vector.
Keypoints are x (to the right) and y (down) in pixels of the upright image, and
(0, 0) is the centre of its first pixel.
"""

import dataclasses
from collections.abc import Sequence
from typing import Protocol, Self

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class LocalFeatures:
    """The local features of one image, best first.

    Args:
        keypoints: float32 [K, 2], x and y in pixels.
        vectors: float32 [K, D], rows of unit length.
        scores: float32 [K], from the best to the worst.
        valid: bool [K]; the valid ones come first, the others are zeros.
        width: columns of the image in pixels; 0 if it cannot be decoded.
        height: rows of the image in pixels; 0 if it cannot be decoded.
    """

    keypoints: np.ndarray
    vectors: np.ndarray
    scores: np.ndarray
    valid: np.ndarray
    width: int
    height: int

    @classmethod
    def of_found(
        cls,
        keypoints: np.ndarray,
        vectors: np.ndarray,
        scores: np.ndarray,
        *,
        count: int,
        width: int,
        height: int,
    ) -> Self:
        """Sorts features by score, and fills them up to a fixed number.

        Args:
            keypoints: float [n, 2].
            vectors: float [n, D].
            scores: float [n]; equal ones stay in their order.
            count: K. The best K are kept.
            width: columns of the image.
            height: rows of the image.
        """
        best = np.argsort(-np.asarray(scores), kind="stable")[:count]

        def filled(values: np.ndarray) -> np.ndarray:
            all_values = np.zeros((count, *values.shape[1:]), np.float32)
            all_values[: len(best)] = values[best]
            return all_values

        return cls(
            keypoints=filled(np.asarray(keypoints)),
            vectors=filled(np.asarray(vectors)),
            scores=filled(np.asarray(scores)),
            valid=np.arange(count) < len(best),
            width=width,
            height=height,
        )

    @classmethod
    def of_no_image(cls, *, count: int, dimension: int) -> Self:
        """Returns the features of an image that is absent or damaged.

        Args:
            count: K.
            dimension: D.
        """
        return cls.of_found(
            np.zeros((0, 2)),
            np.zeros((0, dimension)),
            np.zeros(0),
            count=count,
            width=0,
            height=0,
        )

    @property
    def num_valid(self) -> int:
        """The number of valid features."""
        return int(self.valid.sum())


class Extractor(Protocol):
    """Finds the local features of images.

    Attributes:
        name: in messages and files.
        fingerprint: names everything that the features depend on.
        count: K, features of an image.
        dimension: D, length of a vector.
    """

    name: str
    fingerprint: str
    count: int
    dimension: int

    def __call__(self, encoded: Sequence[bytes]) -> list[LocalFeatures]:
        """Finds the features of encoded images, JPEG or PNG.

        An image that cannot be decoded has no valid features, and a width and
        height of 0.
        """
        ...
