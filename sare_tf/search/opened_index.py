"""An opened index: finds the images nearest to a query, over all segments.

Several indexes of one export are searched as one: shards of a database.
`index_files` says what the folder of an index holds.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from sare_tf import serving
from sare_tf.dataset import names
from sare_tf.records.records import Records
from sare_tf.runtime.damage import Damaged
from sare_tf.runtime.paths import expand
from sare_tf.search import (
    exact_search,
    index_files,
    index_folders,
    index_opening,
    segment_searches,
    vector_index,
)
from sare_tf.search.descriptor_arrays import GatheredRows, check_unit
from sare_tf.search.index_folders import IndexPath, PartAddress
from sare_tf.search.prior import Prior
from sare_tf.search.prior_rows import PriorRows


class Index:
    """A finished index, made by `open` or `build`.

    Attributes:
        path: its folder; of several, the folders with commas between.
        folders: the folders that `path` stands for.
        digest: hex digest of the content: what index.json of each folder says.
        all_metadata: index.json of each folder.
        metadata: index.json; of several folders, of the first.
        manifest: DataFrame; row i describes row i of the descriptors.
        descriptors: float32 or float16 [N, D], read when it is indexed; codes
            are decoded to float32.
        segments: the opened segments, in the order of the rows.
        parts: those of them that other processes search.
        prior_rows: says which images agree with a prior.
        searches_with: "scann" or "exact".
        records_fingerprints: of all records whose images are in it.
    """

    def __init__(
        self,
        folders: Sequence[Path | PartAddress],
        *,
        path: str,
        exact: bool,
        check: bool = True,
    ):
        self.path = path
        opened = [
            index_opening.open_one(folder, exact=exact, check=check)
            for folder in folders
        ]
        index_opening.check_one_export(opened)
        self.folders = [folder for one in opened for folder in one.folders]
        self.all_metadata = [
            metadata for one in opened for metadata in one.all_metadata
        ]
        self.metadata = self.all_metadata[0]
        self.digest = index_files.digest_of(self.all_metadata)
        self.segments = [segment for one in opened for segment in one.segments]
        self.parts = [one.part for one in opened if one.part is not None]
        fingerprints = {
            fingerprint
            for metadata in self.all_metadata
            for fingerprint in (
                metadata["records_fingerprint"],
                *metadata["added_records_fingerprints"],
            )
        }
        self.records_fingerprints = fingerprints - {None}
        self.manifest = pd.concat(
            [segment.manifest.iloc[segment.live] for segment in self.segments],
            ignore_index=True,
        )
        self.prior_rows = PriorRows(self.manifest)
        twice = self.manifest["image_id"].duplicated()
        if twice.any():
            raise ValueError(
                "Expected every image once in an index and its shards. "
                f"Received: index={path!r} with {twice.sum()} images twice, "
                f"such as {self.manifest['image_id'][twice].iloc[0]!r}. Remove "
                "them from one shard (--remove_ids)."
            )
        self.descriptors = self.segments[0].descriptors
        if len(self.descriptors) != len(self.manifest) or self.segments[1:]:
            self.descriptors = GatheredRows(
                [segment.descriptors for segment in self.segments],
                [segment.live for segment in self.segments],
            )
        is_approximate = any(
            segment.is_approximate for segment in self.segments
        )
        self.searches_with = "scann" if is_approximate else "exact"

    @classmethod
    def open(
        cls,
        paths: IndexPath | Sequence[IndexPath],
        *,
        exact: bool = False,
        check: bool = True,
    ) -> "Index":
        """Opens an index, or several as one.

        All files are read once, and compared with their digests; an index of
        version 0.1 has none.

        Args:
            paths: the folder; or a folder of such folders, which are taken in
                the order of their names; or http://host:port or a
                `PartAddress`, a part that another process searches; or a
                sequence of these.
            exact: search exactly, without ScaNN. Search is exact, too, where
                ScaNN cannot be imported; a warning says so.
            check: compare the files with their digests, which takes a second
                for each GB. Without, only their sizes are compared.

        Raises:
            FileNotFoundError: no finished index is there.
            Damaged: an index is.
            ConnectionError: a part does not answer.
            ValueError: several do not belong together.
        """
        if isinstance(paths, str | Path | PartAddress):
            paths = [paths]
        return cls(
            index_folders.expand(paths),
            path=",".join(map(str, paths)),
            exact=exact,
            check=check,
        )

    @classmethod
    def build(
        cls,
        descriptors: np.ndarray,
        *,
        image_ids: Sequence[str],
        out: str | Path,
        positions: np.ndarray | None = None,
        utm_zone: str = "",
        place_ids: Sequence[str] | None = None,
        dtype: str = "float32",
    ) -> "Index":
        """Builds an index of descriptors of any source, and opens it.

        ScaNN is built by the same rules as in the stage `index`. Such an index
        knows no export and no records, so stages that embed images refuse it.

            index = Index.build(database, image_ids=names, out="runs/index")
            rows, distances = index.search(queries, 10)
            index.manifest["image_id"][rows[0, 0]]

        Args:
            descriptors: float [N, D], rows of unit length; may be a memory
                map.
            image_ids: N names of the images, all different.
            out: the folder to write; an index that is there is replaced.
            positions: metres east and north, float [N, 2]; NaN where unknown.
            utm_zone: UTM zone of the positions, such as "17T"; empty if they
                count from another origin.
            place_ids: N names of places; images of one place have the same.
            dtype: of the descriptors on disk: float32, float16, or codes:
                int8, product or binary.

        Raises:
            ValueError: shapes that do not fit, an image twice, descriptors
                that are not finite unit vectors, or a folder that holds
                something else.
        """
        out = expand(out)
        rows = vector_index.rows_of(
            image_ids,
            positions=positions,
            utm_zone=utm_zone,
            place_ids=place_ids,
        )
        vector_index.write(descriptors, rows, out, dtype=dtype)
        return cls.open(out)

    def search(
        self,
        descriptors: np.ndarray,
        k: int,
        *,
        where: Prior | np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Finds the nearest database images.

        With `where`, exact search returns what filtering its order afterwards
        would, and approximate search as much of it as `recall_at` says.

        Args:
            descriptors: [Q, D], rows of unit length.
            k: neighbours per query. If fewer images are searched, k is their
                number.
            where: searches only the images that agree with a prior, or those
                that a bool array [N] marks, by rows of `manifest`.

        Returns:
            int64 [Q, k] rows of `manifest`, nearest first, and float32 [Q, k]
            squared distances. With float16 descriptors ScaNN's distances are
            off by up to 1e-4 or so.

        Raises:
            ValueError: another descriptor length, rows that are not unit
                vectors, k that is no whole number from 1 on, or no image is
                left to search.
            ConnectionError: a part does not answer as it must. There are no
                answers from the others only.
        """
        count, dimension = self.descriptors.shape
        if np.ndim(descriptors) != 2 or np.shape(descriptors)[1] != dimension:
            raise ValueError(
                f"Expected descriptors [Q, {dimension}]. Received: "
                f"descriptors.shape={np.shape(descriptors)}. Embed with the "
                "export that the index was built with."
            )
        if not isinstance(k, int | np.integer) or k < 1:
            raise ValueError(
                f"Expected k of at least 1, a whole number. Received: k={k!r}. "
                "Ask for more neighbours."
            )
        where = self._marked(where)
        k = min(k, count if where is None else int(where.sum()))
        descriptors = np.ascontiguousarray(descriptors, np.float32)
        check_unit(
            descriptors, [f"query {row}" for row in range(len(descriptors))]
        )
        divided = segment_searches.divide(self.segments, where)
        return exact_search.merge(
            segment_searches.search(
                divided, descriptors, k, elsewhere=self.parts
            ),
            k,
        )

    def _marked(self, where: Prior | np.ndarray | None) -> np.ndarray | None:
        """Returns the images to search, bool [N]; None: all."""
        if where is None:
            return None
        if isinstance(where, Prior):
            return self.prior_rows.allowed(where)
        where = np.asarray(where)
        if where.shape != (len(self.manifest),) or where.dtype != bool:
            raise ValueError(
                f"Expected where as a Prior, or bool [{len(self.manifest)}], a "
                f"value for each row of the manifest. Received: {where.dtype} "
                f"{list(where.shape)}."
            )
        if not where.any():
            raise ValueError(
                "Expected at least one image to search. Received: where with "
                f"none of the {len(where)} of the index. Mark more of them."
            )
        return where

    def recall_at(
        self, k: int, *, where: Prior | np.ndarray | None = None
    ) -> float | None:
        """Returns which share of the k nearest images `search` finds.

        It was measured when the index was built, for images of the index as
        queries: photographs that are looked up may lie farther from them.

        Args:
            k: neighbours per query.
            where: as of `search`.

        Returns:
            From 0 to 1, 1 for exact search; None if an index of version 0.1
            searches a tree of ScaNN, whose recall it does not know.
        """
        divided = segment_searches.divide(self.segments, self._marked(where))
        counts = [share.count for share in divided]
        recalls = [
            share.segment.recall_at(min(k, share.count), where=share.where)
            for share in divided
        ]
        if None in recalls:
            return None
        return float(np.dot(counts, recalls) / sum(counts))

    def check_export(
        self, servable: serving.Servable | serving.RemoteServable
    ) -> None:
        """Refuses a model other than the one that built the index.

        Raises:
            Damaged: the fingerprints differ.
            ValueError: no export built the index.
        """
        expected = self.metadata["export_fingerprint"]
        if expected is None:
            raise self._built_from_vectors("export", servable.path)
        if servable.fingerprint != expected:
            raise Damaged(
                f"Expected the export that built the index {self.path!r}, "
                f"with fingerprint {expected[:12]}. Received: export="
                f"{str(servable.path)!r} with {servable.fingerprint[:12]}. "
                f"Run {index_files.COMMAND} with this export, or name the "
                "other one.",
                path=self.folders[0],
            )

    def check_records(self, records: Records, *, split: str) -> None:
        """Refuses records, or splits, that the index was not built from.

        Args:
            records: the opened records.
            split: a split of theirs, several with commas between, or "all".

        Raises:
            ValueError: the fingerprint differs, the index lacks a split, or it
                was not built from records.
        """
        expected = self.metadata["records_fingerprint"]
        if expected is None:
            raise self._built_from_vectors("records", records.path)
        if records.fingerprint not in self.records_fingerprints:
            raise ValueError(
                f"Expected the records that the index {self.path!r} was built "
                f"from, with fingerprint {expected[:12]}. Received: records "
                f"with {records.fingerprint[:12]}. Run {index_files.COMMAND} "
                "with these records."
            )
        held = names.splits_of(self.metadata["split"])
        if not set(names.splits_of(split)) <= set(held):
            raise ValueError(
                f"Expected split={self.metadata['split']!r}, which the index "
                f"{self.path!r} holds. Received: split={split!r}. Build an "
                "index of that split in another folder, or one of "
                f"--split={names.ALL_SPLITS}."
            )

    def _built_from_vectors(self, name: str, path: str | Path) -> ValueError:
        return ValueError(
            "Expected an index that an export built from records. Received: "
            f"{name}={str(path)!r} for the index {self.path!r}, which "
            "Index.build made from descriptors. Search it by Index.search, or "
            f"build another with {index_files.COMMAND}."
        )
