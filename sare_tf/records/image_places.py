"""Where images lie in the files of records, and what they are read by."""

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class ImagePlaces:
    """Where images lie, by rows in the order in which they are wanted.

    Attributes:
        paths: files of records, or their addresses.
        file: positions in `paths`, int64 [B].
        offset: byte offsets of whole records, int64 [B].
        length: their bytes, int64 [B].
        digest: `frames.short_digest` of the images, int64 [B].
    """

    paths: Sequence[str]
    file: np.ndarray
    offset: np.ndarray
    length: np.ndarray
    digest: np.ndarray

    def __len__(self):
        return len(self.file)

    def __getitem__(self, rows: np.ndarray | slice) -> "ImagePlaces":
        """Returns the places of some rows."""
        columns = self.file, self.offset, self.length, self.digest
        return ImagePlaces(self.paths, *(column[rows] for column in columns))
