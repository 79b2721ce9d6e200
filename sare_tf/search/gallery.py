"""The images that an index was built from."""

import bisect
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from sare_tf.records.records import Records
from sare_tf.search.opened_index import Index


class Gallery:
    """The images that an index was built from, by image_id.

    Images of a part come from the process that searches it, all others from
    records. If the index was built from several records, only images of one of
    them are known.

    Args:
        records: folder of `build_records`; None if other processes search all
            parts of the index.
        index: the opened index.

    Raises:
        FileNotFoundError: the folder has no finished records.
        ValueError: they are damaged, or the index was built from others.
    """

    def __init__(self, records: str | Path | None, index: Index):
        self._records = None if records is None else Records(records)
        self._segments = index.segments
        counts = [len(segment.live) for segment in index.segments]
        self._ends = list(itertools.accumulate(counts))
        self._parts = index.parts
        # Looked up only where an image may be elsewhere.
        self._names = pd.Index(
            index.manifest["image_id"] if index.parts else ()
        )
        if self._records is None:
            return
        if self._records.fingerprint not in index.records_fingerprints:
            expected = sorted(name[:12] for name in index.records_fingerprints)
            raise ValueError(
                "Expected records that the index was built from, with "
                f"fingerprint {' or '.join(expected)}. Received: records="
                f"{str(records)!r} with {self._records.fingerprint[:12]}. "
                "Name the other ones with --records."
            )

    def read(self, image_ids: Sequence[str]) -> list[bytes | None]:
        """Returns encoded images in the order of their names.

        An image that the records lack is None.

        Raises:
            ConnectionError: a part does not answer.
        """
        found = {}
        for image_id, row in zip(
            image_ids, self._names.get_indexer(image_ids), strict=True
        ):
            if row >= 0:
                segment = self._segments[bisect.bisect(self._ends, row)]
                if segment in self._parts:
                    found[image_id] = segment.read_image(image_id)
        others = [name for name in image_ids if name not in found]
        if others and self._records is not None:
            read = self._records.read_named(others)
            found |= zip(others, read, strict=True)
        return [found.get(name) for name in image_ids]

    def queries(self, count: int) -> list[str]:
        """Returns names of a few queries of the records, of several places."""
        if self._records is None:
            return []
        manifest = self._records.manifest
        queries = manifest["image_id"][manifest["role"] == "query"]
        rows = np.linspace(0, len(queries) - 1, min(count, len(queries)))
        return queries.iloc[rows.round().astype(int)].tolist()
