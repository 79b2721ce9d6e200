"""Files -> descriptors, for models in this process and on a server."""

from collections.abc import Iterable
from os import PathLike
from pathlib import Path

import numpy as np

from sare_tf.runtime import progress


class EmbedsFiles:
    """A model that embeds encoded images, and therefore files.

    A subclass is called with the bytes of B images, and returns float32
    [B, dimension] and bool [B], whether each image could be decoded.
    """

    dimension: int

    def embed_files(
        self, paths: Iterable[str | PathLike], *, batch_size: int = 32
    ) -> tuple[np.ndarray, dict[str | PathLike, str]]:
        """Embeds image files.

        Memory holds the images of one batch, and all descriptors.

            descriptors, errors = servable.embed_files(Path("photos").iterdir())

        Args:
            paths: N files.
            batch_size: files that are read and embedded at a time.

        Returns:
            Descriptors, float32 [N, dimension], rows of unit length, zeros for
            a file that cannot be read or decoded. And the errors: each such
            path, as it was given, with the reason.

        Raises:
            ValueError: batch_size is below 1.
        """
        if batch_size < 1:
            raise ValueError(
                "Expected batch_size of at least 1. Received: batch_size="
                f"{batch_size}."
            )
        paths = list(paths)
        descriptors = np.zeros((len(paths), self.dimension), np.float32)
        errors = {}
        with progress.bar("embed", total=len(paths)) as bar:
            for start in range(0, len(paths), batch_size):
                batch = paths[start : start + batch_size]
                rows, encoded = [], []
                for row, path in enumerate(batch, start):
                    try:
                        encoded.append(Path(path).read_bytes())
                        rows.append(row)
                    except OSError as error:
                        errors[path] = f"cannot be read: {error}"
                if rows:
                    descriptors[rows], valid = self(encoded)
                    for row in np.asarray(rows)[~valid]:
                        errors[paths[row]] = "cannot be decoded as JPEG or PNG"
                bar.update(len(batch))
        return descriptors, errors
