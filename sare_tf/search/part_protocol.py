"""What a part of an index and the process that asks it agree on.

A part is an index that `locate --serve` holds in another process, often on
another machine. Whoever searches several of them asks each

    GET  /part            what it holds, JSON, see `describe`
    GET  /part/manifest   its manifest from the row `first` on, a parquet file
    GET  /part/image      the image `image_id`, as its records hold it
    POST /part/search     a `Question`, JSON -> its `Neighbours`, JSON

All but the first name the index that is meant by the digest of `digest_of`, as
`index`, and are refused with 409 by a process that holds another. Descriptors
are sent as they are, and distances as decimals that stand for the same float32,
so distances of several parts can be compared as if one process had found them.
Axis letters: Q queries, N images of the part, D descriptor length.
"""

import base64
import binascii
import dataclasses
import hashlib
import json
import types
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from sare_tf.runtime import atomic_files, sealed_json
from sare_tf.search import bound_file, index_files
from sare_tf.search.opened_index import Index

# Of this protocol. A part of another version is refused.
VERSION = 1
# Rows of an answer with a manifest. Ours.
MANIFEST_ROWS = 1 << 16
_DESCRIPTORS = np.dtype("<f4")
_QUESTION_TYPES = {"index": str, "k": int, "descriptors": str}
_ANSWER_TYPES = {
    **{"rows": list, "squared_distances": list},
    "recall": (int, float, types.NoneType),
}


class PartFailed(ConnectionError):
    """A part did not answer, or not as it must.

    Attributes:
        may_pass: whether the part may be there a moment later.
    """

    def __init__(self, message: str, *, may_pass: bool = False):
        super().__init__(message)
        self.may_pass = may_pass


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
    """A search of a part.

    Args:
        index: digest of the index that is meant, of `digest_of`.
        k: neighbours per query, at most the number of images to search.
        descriptors: float32 [Q, D]; without queries, the part only says its
            recall.
        where: bool [N], the images to search; None: all.
    """

    index: str
    k: int
    descriptors: np.ndarray
    where: np.ndarray | None = None

    def as_json(self) -> bytes:
        """Returns the body of the request."""
        where = self.where
        return json.dumps(
            {
                "index": self.index,
                "k": self.k,
                "descriptors": _text_of(self.descriptors.astype(_DESCRIPTORS)),
                "where": None
                if where is None
                else _text_of(np.packbits(where)),
            }
        ).encode()

    @classmethod
    def from_json(cls, encoded: bytes, *, count: int, dimension: int) -> Self:
        """Reads the body of a request.

        Args:
            encoded: the body.
            count: N, images of the part.
            dimension: D.

        Raises:
            ValueError: it is something else.
        """
        given = _read(encoded, _QUESTION_TYPES)
        descriptors = np.frombuffer(
            _bytes_of(given["descriptors"], dimension * _DESCRIPTORS.itemsize),
            _DESCRIPTORS,
        )
        where = given.get("where")
        if where is not None:
            bits = np.frombuffer(_bytes_of(where, 1), np.uint8)
            if len(bits) != -(-count // 8):
                raise ValueError(f"where has {len(bits)} bytes of {count} bits")
            where = np.unpackbits(bits, count=count).astype(bool)
        return cls(
            index=given["index"],
            k=given["k"],
            descriptors=descriptors.reshape(-1, dimension),
            where=where,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Neighbours:
    """The answer to a question.

    Args:
        rows: int64 [Q, k], rows of the part's manifest, nearest first.
        squared_distances: float32 [Q, k].
        recall: see `Index.recall_at`.
    """

    rows: np.ndarray
    squared_distances: np.ndarray
    recall: float | None

    def as_json(self) -> dict[str, Any]:
        """Returns the JSON object of the answer."""
        return {
            "rows": self.rows.tolist(),
            "squared_distances": self.squared_distances.tolist(),
            "recall": self.recall,
        }

    @classmethod
    def from_json(
        cls, encoded: bytes, question: Question, *, count: int
    ) -> Self:
        """Reads an answer, and refuses what no search of the part returns.

        Args:
            encoded: the body of the answer.
            question: what was asked.
            count: N, images of the part.

        Raises:
            ValueError: says what is wrong.
        """
        given = _read(encoded, _ANSWER_TYPES)
        shape = (len(question.descriptors), question.k)
        rows = _array(given["rows"], "iu", shape)
        distances = _array(given["squared_distances"], "fiu", shape)
        if rows.min(initial=0) < 0 or rows.max(initial=0) >= count:
            raise ValueError(f"rows that are not among its {count} images")
        if question.where is not None and not question.where[rows].all():
            raise ValueError("images that were not to be searched")
        ordered = np.sort(rows, axis=1)
        if (ordered[:, 1:] == ordered[:, :-1]).any():
            raise ValueError("an image twice among neighbours")
        is_sorted = (distances[:, 1:] >= distances[:, :-1]).all()
        if not (np.isfinite(distances).all() and is_sorted):
            raise ValueError("distances that are not in ascending order")
        return cls(
            rows=rows.astype(np.int64),
            squared_distances=distances.astype(np.float32),
            recall=given["recall"],
        )


def digest_of(all_metadata: Sequence[dict[str, Any]]) -> str:
    """Returns a digest of the content of an index and of the order of its rows.

    Args:
        all_metadata: index.json of each of its folders.
    """
    digests = [index_files.digest_of([metadata]) for metadata in all_metadata]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def describe(index: Index) -> dict[str, Any]:
    """Returns what a part holds, as JSON.

    Its folders are described by their index.json, and by what was measured of
    the index; none of their paths are named.

    Args:
        index: the opened index.
    """
    folders = []
    for folder, metadata in zip(index.folders, index.all_metadata, strict=True):
        files = {"index.json": sealed_json.sealed(metadata)}
        for name in bound_file.NAMES:
            if (folder / name).is_file():
                files[name] = atomic_files.read_json(
                    folder / name, made_by="python -m sare_tf.evaluate"
                )
        folders.append(files)
    return {
        "sare_tf_part": VERSION,
        "index": digest_of(index.all_metadata),
        "images": len(index.manifest),
        "search": index.searches_with,
        "folders": folders,
    }


def _read(encoded: bytes, expected: Mapping[str, Any]) -> dict[str, Any]:
    try:
        given = json.loads(encoded)
    except (RecursionError, ValueError) as error:
        raise ValueError("no JSON") from error
    sealed_json.check_types(given, expected)
    return given


def _array(values: list, kinds: str, shape: tuple[int, int]) -> np.ndarray:
    try:
        array = np.array(values)
    except (OverflowError, ValueError) as error:
        raise ValueError(f"no numbers {list(shape)}") from error
    if not array.size and not shape[0]:
        return np.zeros(shape, kinds[0] + "8")
    if array.shape != shape or array.dtype.kind not in kinds:
        raise ValueError(
            f"{array.dtype} {list(array.shape)}, not numbers {list(shape)}"
        )
    return array


def _bits_of(where: np.ndarray) -> str:
    return _text_of(np.packbits(where))


def _text_of(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).data).decode("ascii")


def _bytes_of(text: Any, multiple: int) -> bytes:
    """Returns the bytes of a text, whole rows of so many."""
    try:
        decoded = base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise ValueError("no base64") from error
    if len(decoded) % multiple:
        raise ValueError(f"{len(decoded)} bytes, not rows of {multiple}")
    return decoded
