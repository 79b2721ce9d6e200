"""Contents of images, as a check remembers them: a few bytes of each."""

import dataclasses

import numpy as np
import pandas as pd

from sare_tf.dataset import image_decoding

DIGEST_BYTES = 16


@dataclasses.dataclass(frozen=True)
class ImageContents:
    """Digests, sizes and problems of the images of a manifest of B rows.

    Attributes:
        problems: row -> why its image cannot be used.
        complaints: row -> libjpeg's complaint of an image that decodes.
        digests: uint8 [B, 16], of the bytes of each image.
        sizes: int32 [B, 2], height and width, upright; zeros if unknown.
        traits: name of `image_decoding.TRAITS` -> rows that have it.
    """

    problems: dict[int, str]
    complaints: dict[int, str]
    digests: np.ndarray
    sizes: np.ndarray
    traits: dict[str, list[int]]

    @property
    def is_readable(self) -> np.ndarray:
        """Marks the rows whose image has no problem, bool [B]."""
        readable = np.ones(len(self.digests), bool)
        readable[list(self.problems)] = False
        return readable


def undecoded(table: pd.DataFrame) -> ImageContents:
    """Returns the contents of images that nobody has decoded.

    Digests differ, so that no two images are copies; sizes are those of the
    manifest.

    Args:
        table: the manifest, B rows.
    """
    digests = np.zeros((len(table), DIGEST_BYTES), np.uint8)
    digests[:, :8] = np.arange(len(table))[:, None].view(np.uint8)
    return ImageContents(
        problems={},
        complaints={},
        digests=digests,
        sizes=table[["height", "width"]].to_numpy(np.int32).clip(0),
        traits={name: [] for name in image_decoding.TRAITS},
    )
