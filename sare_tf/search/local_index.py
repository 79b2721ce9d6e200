"""The local features of an index: stored beside it, and read for re-ranking."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from absl import logging

from sare_tf.local_features import stored_features
from sare_tf.local_features.feature_source import FeatureSource
from sare_tf.local_features.features import Extractor
from sare_tf.records.records import Records
from sare_tf.search.opened_index import Index


def store(
    folder: Path, extractor: Extractor, *, records: Sequence[str]
) -> None:
    """Stores local features of all images of an index beside it.

    Args:
        folder: of the index.
        extractor: finds the features.
        records: folders of records that hold the images.

    Raises:
        FileNotFoundError: index or records are absent.
        ValueError: the index was not built from records, or they lack images
            of it.
    """
    index = Index.open(folder, exact=True, check=False)
    image_ids, sha256s = _images_of(index)
    opened = [Records(path) for path in records]
    held = [_rows_in(one, image_ids, sha256s) for one in opened]
    # The records that hold each image.
    is_held = np.reshape([rows >= 0 for rows in held], (len(held), -1))
    absent = np.count_nonzero(~is_held.any(axis=0))
    if not held or absent:
        raise ValueError(
            "Expected records with the images of the index, for their local "
            f"features. Received: records={list(records)} without "
            f"{absent or len(image_ids)} of {len(image_ids)} images of "
            f"{str(folder)!r}. Name the records they are from: --records, "
            "--add_records."
        )
    holder = is_held.argmax(axis=0)

    def read(rows: Sequence[int]) -> Iterator[bytes]:
        for number, group in itertools.groupby(rows, key=holder.__getitem__):
            positions = held[number][list(group)]
            of_records = opened[number]
            yield from of_records.read_images(
                of_records.manifest.iloc[positions]
            )

    logging.info(
        "Local features %s of %d images: %.1f kB an image, %.1f MB in %s.",
        extractor.name,
        len(image_ids),
        stored_features.bytes_per_image(extractor) / 1e3,
        len(image_ids) * stored_features.bytes_per_image(extractor) / 1e6,
        folder / stored_features.FOLDER,
    )
    computed = stored_features.store(
        folder, extractor, image_ids=image_ids, sha256s=sha256s, read=read
    )
    logging.info(
        "Computed those of %d images; the others were there.", computed
    )


def source_of(
    index: Index, extractor: Extractor, records: Records | None
) -> FeatureSource:
    """Returns the local features of the images of an index.

    Args:
        index: the opened index.
        extractor: finds those of queries.
        records: hold images whose features are not stored; None: there are
            none.

    Raises:
        ValueError: stored features are damaged or of another extractor, or
            there are neither stored features nor records.
    """
    image_ids, sha256s = _images_of(index)
    stored = stored_features.open_of(
        index.folders, extractor, image_ids=image_ids, sha256s=sha256s
    )
    if stored is None and records is None:
        advice = f", or run {stored_features.COMMAND}"
        if index.parts:
            advice = " with all images: features beside parts are not sent."
        raise ValueError(
            "Expected local features beside the index, or records with its "
            f"images. Received: index={index.path!r} without local features, "
            f"and no records. Name --records{advice}"
        )

    def read(rows: Sequence[int]) -> list[bytes | None]:
        return records.read_named([image_ids[row] for row in rows])

    return FeatureSource(extractor, stored=stored, read=read)


def _images_of(index: Index) -> tuple[list[str], list[str]]:
    """Names and digests of the images of an index."""
    if "sha256" not in index.manifest:
        raise ValueError(
            "Expected an index that was built from records, for local "
            f"features. Received: index={index.path!r}, which Index.build "
            "made from descriptors."
        )
    rows = index.manifest
    return rows["image_id"].tolist(), rows["sha256"].tolist()


def _rows_in(
    records: Records, image_ids: Sequence[str], sha256s: Sequence[str]
) -> np.ndarray:
    """Rows of records that are these images, int64 [N]; -1 for none."""
    known = {
        pair: row
        for row, pair in enumerate(
            zip(
                records.manifest["image_id"],
                records.manifest["sha256"],
                strict=True,
            )
        )
    }
    pairs = zip(image_ids, sha256s, strict=True)
    return np.array([known.get(pair, -1) for pair in pairs], np.int64)
