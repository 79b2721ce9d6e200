"""Local features on disk, beside the index whose images they are of.

    local_features/features.json    extractor, images and parts; written last
    local_features/<name>.npy       a part: the features of some 256 images
    local_features/<name>.json      its receipt, see `resumable_parts`

Numbers take 16 bits. Vectors and scores are float16. Coordinates are in units
of a 65,535th of the image's longer side, which is finer than float16: its steps
are a pixel at 2,048 and more.

A part is named by the digest of its extractor and its images, so a build that
was stopped resumes, and an index that was changed keeps the parts whose images
are the same. features.json names the digest of all images in order: features of
other images are never taken for those of an index.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from absl import logging

from sare_tf.local_features.features import Extractor, LocalFeatures
from sare_tf.runtime import progress, sealed_json
from sare_tf.runtime.resumable_parts import ResumableParts

FOLDER = "local_features"
COMMAND = "python -m sare_tf.index --flagfile=... --local_features=..."
_NAME = "features.json"
# Images of a part: some tens of MB. Ours.
_PART_IMAGES = 256
_UNITS = 65_535
_TYPES = {
    **{"name": str, "fingerprint": str, "images_digest": str, "parts": list},
    **{"images": int, "count": int, "dimension": int},
}


def _dtype(count: int, dimension: int) -> np.dtype:
    """The features of an image: K = count, D = dimension."""
    return np.dtype(
        [
            ("size", "<i4", 2),  # width, height
            ("valid", "<i4"),
            ("keypoints", "<u2", (count, 2)),
            ("scores", "<f2", count),
            ("vectors", "<f2", (count, dimension)),
        ]
    )


def bytes_per_image(extractor: Extractor) -> int:
    """Returns how much an image takes on disk."""
    return _dtype(extractor.count, extractor.dimension).itemsize


def images_digest(image_ids: Sequence[str], sha256s: Sequence[str]) -> str:
    """Returns a digest of images in their order.

    Args:
        image_ids: their names.
        sha256s: hex digests of their encoded bytes.
    """
    digest = hashlib.sha256()
    for pair in zip(image_ids, sha256s, strict=True):
        digest.update(json.dumps(pair).encode())
    return digest.hexdigest()


def store(
    folder: Path,
    extractor: Extractor,
    *,
    image_ids: Sequence[str],
    sha256s: Sequence[str],
    read: Callable[[Sequence[int]], Iterator[bytes]],
) -> int:
    """Writes the features of all images of an index, beside it.

    Parts that are there already are kept.

    Args:
        folder: of the index.
        extractor: what finds the features.
        image_ids: of the N images of the index.
        sha256s: hex digests of their encoded bytes.
        read: yields the encoded images of rows.

    Returns:
        The number of images whose features were computed.

    Raises:
        OSError: the folder cannot be written to.
    """
    target = folder / FOLDER
    target.mkdir(exist_ok=True)
    parts = ResumableParts(target)
    starts = range(0, len(image_ids), _PART_IMAGES)
    ranges = [
        range(start, min(start + _PART_IMAGES, len(image_ids)))
        for start in starts
    ]
    names = [
        _part_name(
            extractor,
            images_digest(
                image_ids[rows.start : rows.stop],
                sha256s[rows.start : rows.stop],
            ),
        )
        for rows in ranges
    ]
    computed = 0
    with progress.bar("index", total=len(image_ids), unit="image") as bar:
        for rows, name in zip(ranges, names, strict=True):
            if parts.find(name) is None:
                with parts.write(name, what="local features") as part:
                    _write_part(part.path(".npy"), extractor, list(read(rows)))
                computed += len(rows)
            bar.update(len(rows))
    parts.gather(names)
    sealed_json.write(
        target / _NAME,
        {
            "name": extractor.name,
            "fingerprint": extractor.fingerprint,
            "count": extractor.count,
            "dimension": extractor.dimension,
            "images": len(image_ids),
            "images_digest": images_digest(image_ids, sha256s),
            "parts": names,
            "bytes_per_image": bytes_per_image(extractor),
        },
    )
    parts.discard_others({*names, Path(_NAME).stem})
    return computed


def _part_name(extractor: Extractor, digest: str) -> str:
    text = f"{extractor.fingerprint} {digest}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _write_part(
    path: Path, extractor: Extractor, encoded: Sequence[bytes]
) -> None:
    rows = np.zeros(len(encoded), _dtype(extractor.count, extractor.dimension))
    for row, features in zip(rows, extractor(encoded), strict=True):
        longest = max(features.width, features.height, 1)
        scaled = np.rint(features.keypoints * (_UNITS / longest))
        row["size"] = features.width, features.height
        row["valid"] = features.num_valid
        row["keypoints"] = np.clip(scaled, 0, _UNITS)
        row["scores"] = features.scores
        row["vectors"] = features.vectors
    np.save(path, rows)


class StoredFeatures:
    """The features of the images of an index, made by `open_of`.

    Args:
        parts: arrays of `_dtype`, in the order of the rows.
    """

    def __init__(self, parts: Sequence[np.ndarray]):
        self._parts = parts
        self._starts = np.cumsum([0, *map(len, parts)])

    def __getitem__(self, row: int) -> LocalFeatures:
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        stored = self._parts[number][row - self._starts[number]]
        width, height = stored["size"].tolist()
        vectors = stored["vectors"].astype(np.float32)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return LocalFeatures(
            keypoints=stored["keypoints"].astype(np.float32)
            * np.float32(max(width, height) / _UNITS),
            # Rounded to 16 bits, they are not quite of unit length.
            vectors=vectors / np.maximum(lengths, 1e-12),
            scores=stored["scores"].astype(np.float32),
            valid=np.arange(len(vectors)) < stored["valid"],
            width=width,
            height=height,
        )

    def __len__(self) -> int:
        return int(self._starts[-1])


def open_of(
    folders: Sequence[Path],
    extractor: Extractor,
    *,
    image_ids: Sequence[str],
    sha256s: Sequence[str],
) -> StoredFeatures | None:
    """Opens the features that are stored beside an index.

    Args:
        folders: of the index.
        extractor: what finds the features of queries.
        image_ids: of its images, through all folders.
        sha256s: hex digests of their encoded bytes.

    Returns:
        None if there are none, or, with a warning, if they are of images that
        the index does not hold any more, or held before it was changed.

    Raises:
        ValueError: they are damaged, or of another extractor.
    """
    parts, first = [], 0
    for folder in folders:
        path = folder / FOLDER / _NAME
        if not path.is_file():
            return None
        card = sealed_json.read(path, made_by=COMMAND, types=_TYPES)
        if card["fingerprint"] != extractor.fingerprint:
            raise ValueError(
                f"Expected the local features beside {str(folder)!r}: "
                f"{card['name']}, {card['count']} of an image, with "
                f"fingerprint {card['fingerprint'][:12]}. Received: "
                f"{extractor.name}, {extractor.count} of an image, with "
                f"{extractor.fingerprint[:12]}. Name what they were made "
                f"with, or store others: {COMMAND}"
            )
        stop = first + card["images"]
        own = images_digest(image_ids[first:stop], sha256s[first:stop])
        if own != card["images_digest"]:
            logging.warning(
                "The local features beside %s are not used, because the index "
                "was changed since. %s makes them anew.",
                *(folder, COMMAND),
            )
            return None
        parts += [
            _opened(folder / FOLDER, name, card) for name in card["parts"]
        ]
        first = stop
    return StoredFeatures(parts) if first == len(image_ids) else None


def _opened(folder: Path, name: str, card: dict) -> np.ndarray:
    """Opens a part as a memory map, once it is compared with its digest."""
    part = ResumableParts(folder).find(name)
    if part is None:
        raise ValueError(
            f"Expected whole local features. Received: {str(folder)!r} with a "
            f"damaged part {name}. Run {COMMAND} again."
        )
    rows = np.load(part.path(".npy"), mmap_mode="r")
    expected = _dtype(card["count"], card["dimension"])
    if rows.dtype != expected or rows.ndim != 1:
        raise ValueError(
            f"Expected local features of the type {expected}. Received: "
            f"{part.path('.npy')} of {rows.dtype}. Run {COMMAND} again."
        )
    return rows
