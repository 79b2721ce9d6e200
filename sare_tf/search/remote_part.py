"""An index that another process serves, searched as a segment of this one.

`part_protocol` says what is asked. Whatever goes wrong is an error of the whole
search: an answer from the other parts would look like that of all. A part that
was started again with the same index is used again; one that holds another
index by now is refused, because its rows are those of other images.
"""

import functools
import json
import shutil
import tempfile
import time
import urllib.parse
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from absl import logging

from sare_tf.dataset import manifest
from sare_tf.runtime import sealed_json
from sare_tf.search import bound_file, index_files, part_protocol
from sare_tf.search.index_folders import PartAddress
from sare_tf.search.part_protocol import Neighbours, PartFailed, Question
from sare_tf.serving import http_client
from sare_tf.serving.http_client import HttpClient, Unavailable

# Ours: connections that are kept open, pauses between attempts at the start,
# and bytes of descriptors that are sent together.
_CONNECTIONS, _PAUSE_S, _SENT_BYTES = 8, 0.2, 1 << 22
_TYPES = {
    **{"index": str, "images": int, "search": str, "folders": list},
    "sare_tf_part": int,
}
_COMMAND = "python -m sare_tf.locate --serve --index=... --port=..."


class RemotePart:
    """A part of an index, which another process serves.

    Args:
        address: where it is, and how long it may take.

    Raises:
        PartFailed: nothing answers there within the time, or no such part.

    Attributes:
        url: its address.
        folders: local folders with what was measured of the part, such as its
            calibration; they are removed with this object.
        all_metadata: index.json of each folder of the part.
        manifest: DataFrame of its N images.
        live: int64, their rows: all of them.
        descriptors: float32 [N, D], which cannot be read: they stay there.
        is_approximate: whether it searches by ScaNN.
    """

    def __init__(self, address: PartAddress):
        self.url = address.url.rstrip("/")
        self._timeout_s = address.timeout_s
        self._client = HttpClient(connections=_CONNECTIONS)
        described = self._wait(address.start_s)
        self._index = described["index"]
        self._count = described["images"]
        self.is_approximate = described["search"] != "exact"
        host = urllib.parse.urlsplit(self.url).hostname or "part"
        folder = Path(tempfile.mkdtemp(prefix=f"sare_tf_{host}_"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        try:
            self.folders = [
                _written(folder / str(number), files)
                for number, files in enumerate(described["folders"])
            ]
            self.all_metadata = list(map(index_files.read, self.folders))
            if part_protocol.digest_of(self.all_metadata) != self._index:
                raise ValueError("index.json of other folders")
            self.manifest = self._manifest(folder)
        except (OSError, ValueError) as error:
            if isinstance(error, PartFailed):
                raise
            raise self._nonsense(error) from error
        self.live = np.arange(self._count)
        self.descriptors = _Unread(
            (self._count, self.all_metadata[0]["dimension"]), self.url
        )

    def search(
        self, queries: np.ndarray, k: int, *, where: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Finds the k nearest images, see `Segment.search`.

        Raises:
            PartFailed: the part is down, slow, or answers something else.
        """
        rows = np.empty((len(queries), k), np.int64)
        distances = np.empty((len(queries), k), np.float32)
        step = max(1, _SENT_BYTES // (4 * queries.shape[1]))
        for start in range(0, len(queries), step):
            some = slice(start, start + step)
            found = self._neighbours(queries[some], k, where)
            rows[some], distances[some] = found.rows, found.squared_distances
        return rows, distances

    def recall_at(
        self, k: int, *, where: np.ndarray | None = None
    ) -> float | None:
        """Returns the measured recall of search, see `Segment.recall_at`.

        Raises:
            PartFailed: as of `search`.
        """
        if not self.is_approximate:
            return 1.0
        return self._neighbours(self._no_queries(), k, where).recall

    def read_image(self, image_id: str) -> bytes | None:
        """Returns an encoded image; None if the part's records lack it.

        Raises:
            PartFailed: as of `search`.
        """
        query = {"index": self._index, "image_id": image_id}
        status, answer = self._request("GET", "/part/image", query)
        if status == 404:
            return None
        return self._of_success(status, answer)

    def check(self) -> None:
        """Refuses a part that would not answer a search now.

        Raises:
            PartFailed: as of `search`.
        """
        self._neighbours(self._no_queries(), 1, None)

    def _no_queries(self) -> np.ndarray:
        return np.zeros((0, self.descriptors.shape[1]), np.float32)

    def _neighbours(
        self, queries: np.ndarray, k: int, where: np.ndarray | None
    ) -> Neighbours:
        question = Question(
            index=self._index, k=int(k), descriptors=queries, where=where
        )
        answer = self._of_success(
            *self._request("POST", "/part/search", body=question.as_json())
        )
        try:
            return Neighbours.from_json(answer, question, count=self._count)
        except ValueError as error:
            raise self._nonsense(error) from error

    def _wait(self, start_s: float) -> dict[str, Any]:
        """Returns what the part holds, once it is there."""
        deadline = time.monotonic() + start_s
        is_first = True
        while True:
            try:
                return self._described()
            except PartFailed as error:
                if not error.may_pass or time.monotonic() >= deadline:
                    raise
            if is_first:
                logging.info("Waiting for the part at %s.", self.url)
            is_first = False
            time.sleep(_PAUSE_S)

    def _described(self) -> dict[str, Any]:
        answer = self._of_success(*self._request("GET", "/part"))
        try:
            described = json.loads(answer)
            sealed_json.check_types(described, _TYPES)
        except (RecursionError, ValueError) as error:
            raise self._nonsense(error) from error
        version = described["sare_tf_part"]
        if version != part_protocol.VERSION:
            raise self._failed(
                f"a part of version {version}, not {part_protocol.VERSION}",
                "Run the same version of sare_tf there and here.",
            )
        return described

    def _manifest(self, folder: Path) -> pd.DataFrame:
        """Reads its manifest, block by block."""
        blocks, count = [], 0
        path = folder / "manifest.parquet"
        while count < self._count:
            query = {"index": self._index, "first": count}
            path.write_bytes(
                self._of_success(*self._request("GET", "/part/manifest", query))
            )
            blocks.append(manifest.read(path))
            count += len(blocks[-1])
            path.unlink()
            if not len(blocks[-1]):
                break
        if count != self._count or not count:
            raise ValueError(f"{count} rows of {self._count} images")
        return pd.concat(blocks, ignore_index=True)

    def _request(
        self,
        method: str,
        path: str,
        query: dict[str, Any] | None = None,
        *,
        body: bytes | None = None,
    ) -> tuple[int, bytes]:
        url = self.url + path
        if query:
            url += f"?{urllib.parse.urlencode(query)}"
        timeout_s = self._timeout_s
        sent = functools.partial(
            self._client.request, method, url, timeout_s=timeout_s, body=body
        )
        try:
            try:
                return sent()
            except Unavailable:
                # An open connection may be that of a process which is gone.
                return sent()
        except Unavailable as error:
            raise self._failed(
                error, f"Check that it runs there: {_COMMAND}", may_pass=True
            ) from error
        except TimeoutError as error:
            raise self._failed(
                f"none within {timeout_s:g} s ({error})",
                "Give it more (--part_timeout_s), or smaller shards.",
                may_pass=True,
            ) from error
        except (ConnectionError, ValueError) as error:
            raise self._nonsense(error) from error

    def _of_success(self, status: int, answer: bytes) -> bytes:
        if status == 200:
            return answer
        said = f"HTTP {status}: {http_client.readable(answer)}"
        if status == 409:
            raise self._failed(
                said,
                "It was started with another index, or its index was changed: "
                "start this process again, too.",
            )
        if status == 503:
            raise self._failed(
                said, "It is overloaded, or ends.", may_pass=True
            )
        raise self._nonsense(said)

    def _nonsense(self, what: object) -> PartFailed:
        return self._failed(
            what,
            f"Check that the address is that of {_COMMAND} of this version of "
            "sare_tf.",
        )

    def _failed(
        self, what: object, advice: str, *, may_pass: bool = False
    ) -> PartFailed:
        return PartFailed(
            f"Expected an answer of the part of the index at {self.url}. "
            f"Received: {str(what).rstrip('.')}. {advice}",
            may_pass=may_pass,
        )


class _Unread:
    """Descriptors of a part, of which only the shape is known here."""

    dtype = np.dtype(np.float32)

    def __init__(self, shape: tuple[int, int], url: str):
        self.shape = shape
        self._url = url

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        raise ValueError(
            "Expected an index in folders, to read its descriptors. Received: "
            f"the part at {self._url}, which only answers searches. Name "
            "its folder instead."
        )


def _written(folder: Path, files: Any) -> Path:
    """Writes the files that a part describes one of its folders by."""
    sealed_json.check_types(files, {"index.json": dict})
    folder.mkdir()
    for name in ("index.json", *bound_file.NAMES):
        if name in files:
            text = json.dumps(files[name])
            (folder / name).write_text(text, encoding="utf-8")
    return folder
