"""Photographs from elsewhere, which no image of the database shows."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from absl import logging

from sare_tf import serving
from sare_tf.runtime import progress
from sare_tf.search import exact_search, photo_files
from sare_tf.search.answer_scores import Found
from sare_tf.search.descriptor_arrays import GatheredRows


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distractors:
    """Photographs from elsewhere.

    Args:
        paths: D files.
        vectors: float32 [D, dimension], their descriptors.
    """

    paths: Sequence[Path]
    vectors: np.ndarray

    def encoded(self) -> Iterator[bytes]:
        """Yields the photographs."""
        return map(photo_files.read, self.paths)

    def search(
        self,
        database_vectors: np.ndarray | GatheredRows,
        k: int,
        *,
        allowed: np.ndarray | None,
    ) -> Found:
        """Returns the images that are nearest to each photograph.

        Args:
            database_vectors: [N, dimension].
            k: images of each.
            allowed: bool [N], the images that are searched; None: all.
        """
        return Found.retrieved(
            *exact_search.nearest(
                self.vectors, database_vectors, k, allowed=allowed
            )
        )


def load(
    folder: str | None,
    servable: serving.Servable | serving.RemoteServable,
    *,
    batch_size: int,
) -> Distractors | None:
    """Embeds the photographs of a folder.

    Files that cannot be read or decoded are left out, with a warning.

    Args:
        folder: folder, file or pattern; None or empty: no distractors.
        servable: the model.
        batch_size: photographs at a time.

    Returns:
        None without a folder.

    Raises:
        ValueError: the folder holds no photograph that can be read.
    """
    if not folder:
        return None
    paths = photo_files.expand(folder)
    kept, vectors, reasons = [], [], {}
    with progress.bar("distractors", total=len(paths), unit="photo") as bar:
        for start in range(0, len(paths), batch_size):
            batch = paths[start : start + batch_size]
            encoded = {}
            for path in batch:
                try:
                    encoded[path] = photo_files.read(path)
                except ValueError as error:
                    reasons[path] = str(error)
            if encoded:
                descriptors, valid = servable(list(encoded.values()))
                for path, vector, is_valid in zip(
                    encoded, descriptors, valid, strict=True
                ):
                    if is_valid and np.isfinite(vector).all():
                        kept.append(path)
                        vectors.append(vector)
                    else:
                        reasons[path] = "no JPEG or PNG that can be decoded"
            bar.update(len(batch))
    named = ", ".join(
        f"{path} ({why})" for path, why in list(reasons.items())[:3]
    )
    if not kept:
        raise ValueError(
            "Expected a folder of photographs from elsewhere. Received: "
            f"distractors={folder!r}, of which none can be read: {named}."
        )
    if reasons:
        logging.warning(
            "%d of %d distractors are left out, because they cannot be read: "
            "%s%s.",
            len(reasons),
            len(paths),
            named,
            " and more" * (len(reasons) > 3),
        )
    return Distractors(paths=kept, vectors=np.stack(vectors))
