"""Encoded images -> descriptors, as a stream or as one array.

for batch in embedding.embed_batches(servable, images, image_ids): ...
descriptors = embedding.embed(servable, images, image_ids)      # [N, D]
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from sare_tf import serving
from sare_tf.runtime import progress
from sare_tf.search.descriptor_arrays import check_unit


def embed_batches(
    servable: serving.Servable | serving.RemoteServable,
    encoded_images: Iterable[bytes],
    image_ids: Sequence[str],
    *,
    batch_size: int = 32,
    show_progress: bool = True,
) -> Iterator[np.ndarray]:
    """Embeds encoded images as a stream.

    Args:
        servable: the exported model.
        encoded_images: bytes of N images, read one batch at a time.
        image_ids: their N names, for messages.
        batch_size: images of a batch.
        show_progress: show a bar until the last batch.

    Yields:
        The descriptors of each batch, float32 [B, D], rows of unit length.

    Raises:
        ValueError: an image cannot be decoded, or its descriptor is not a
            finite unit vector; the message names the image. Or there are fewer
            images than names.
    """
    count = len(image_ids)
    stream = iter(encoded_images)
    with progress.bar("embed", total=count, shown=show_progress) as bar:
        for start in range(0, count, batch_size):
            names = image_ids[start : start + batch_size]
            batch = list(itertools.islice(stream, len(names)))
            if len(batch) != len(names):
                raise ValueError(
                    f"Expected {count} images. Received: "
                    f"{start + len(batch)}. The records are damaged: build "
                    "them again."
                )
            descriptors, valid = servable(batch)
            _check_valid(valid, names)
            check_unit(descriptors, names)
            yield descriptors
            bar.update(len(names))


def embed(
    servable: serving.Servable | serving.RemoteServable,
    encoded_images: Iterable[bytes],
    image_ids: Sequence[str],
    *,
    batch_size: int = 32,
) -> np.ndarray:
    """Embeds encoded images into one array.

    Args:
        servable: the exported model.
        encoded_images: bytes of N images, read one batch at a time.
        image_ids: their N names, for messages.
        batch_size: images of a batch.

    Returns:
        float32 [N, D], rows of unit length.

    Raises:
        ValueError: as `embed_batches`.
    """
    descriptors = np.empty((len(image_ids), servable.dimension), np.float32)
    start = 0
    for batch in embed_batches(
        servable, encoded_images, image_ids, batch_size=batch_size
    ):
        descriptors[start : start + len(batch)] = batch
        start += len(batch)
    return descriptors


def _check_valid(valid: np.ndarray, names: Sequence[str]) -> None:
    """Refuses images that cannot be decoded, naming them."""
    if not valid.all():
        bad = [names[row] for row in np.flatnonzero(~valid)]
        raise ValueError(
            "Expected JPEG or PNG images that can be decoded. Received: "
            + ", ".join(bad[:5])
            + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
            + ", which cannot. Repair or remove them."
        )
