"""Records: sharded TFRecord files of encoded images, and their manifest.

    <split>-<role>-00000-of-00016.tfrecord   one tf.train.Example per image
    manifest.parquet                         one row per image, in that order
    records.json                             what made the records, and the
                                             sizes of the shards
    rejected.csv                             files refused: path, reason
    warnings.csv                             images and places that are odd, but
                                             kept: what, warning
    relations.parquet                        which database images answer which
                                             query, where the dataset lists it:
                                             query, database, relation

The manifest has four columns more than `manifest.COLUMNS`: `shard` (str), the
name of the file; `byte_offset` and `byte_length` (int64) of the whole record in
it; `sha256` (str), the hex digest of the encoded image. So images are read in
sequence, or one by itself.

Whatever opens records compares manifest.parquet and relations.parquet with
their digests in records.json, records.json with its own, and shards with their
sizes. Shards have checksums of their own, and an image that is read by itself
is compared with `sha256`. Records of version 0.1 have no digests but `sha256`.

The folder may be copied to object storage, and is then named by its address,
see `remote_files`: `Records("https://host/records")`. The tables are read when
it is opened, the images by ranges (`range_reading`).

An Example has three features, each with one value of bytes: `image/encoded`,
the file, unchanged unless images are resized or cut; `image/id`, its image_id;
and `image/place`, its place_id or the cell of 10 m that it stands in. Texts are
UTF-8.
"""

import contextlib
import hashlib
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from sare_tf.dataset import manifest, names, parquet_tables
from sare_tf.records import encoded_images, frames, remote_records
from sare_tf.records.image_places import ImagePlaces
from sare_tf.runtime import (
    dataset_errors,
    file_digests,
    remote_files,
    sealed_json,
)
from sare_tf.runtime.remote_files import RemotePath

COMMAND = "python -m sare_tf.build_records --flagfile=..."
# A fingerprint has the names of columns before each block of so many rows: a
# multiple of manifest.BLOCK_ROWS.
_HEADER_ROWS = 1 << 16
# Types of values in records.json, and of those of each shard.
_TYPES = {
    **{"count": int, "counts": dict, "rejected": int, "fingerprint": str},
    **{"relations": (int, types.NoneType), "shards": dict, "made_from": dict},
}
_SHARD_TYPES = {"count": int, "bytes": int, "source": str, "rejected": list}
# Of a manifest of records, beside `manifest.COLUMNS`.
COLUMNS = {
    **{"shard": "str", "sha256": "str"},
    **{"byte_offset": "int64", "byte_length": "int64"},
}


def serialise(encoded: bytes, *, image_id: str, place: str) -> bytes:
    """Makes the Example of an image, see the module."""
    return serialise_features(
        {
            "image/encoded": [encoded],
            "image/id": [image_id.encode()],
            "image/place": [place.encode()],
        }
    )


def serialise_features(values: Mapping[str, Sequence[bytes]]) -> bytes:
    """Makes an Example, the same bytes for the same values.

    Args:
        values: name of a feature -> its values.
    """
    features = {
        name: tf.train.Feature(bytes_list=tf.train.BytesList(value=of_feature))
        for name, of_feature in values.items()
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString(deterministic=True)


def write_relations(relations: pd.DataFrame, folder: Path) -> None:
    """Writes the relations of records."""
    relations.to_parquet(folder / "relations.parquet", index=False)


def read_relations(folder: Path) -> pd.DataFrame:
    """Reads the relations of records.

    Raises:
        FileNotFoundError: they have none.
        ValueError: they cannot be read.
    """
    return parquet_tables.read(
        folder / "relations.parquet",
        dict.fromkeys(("query", "database", "relation"), "str"),
    )


def fingerprint(
    tables: Iterable[pd.DataFrame], relations: pd.DataFrame | None
) -> str:
    """Digests images, their rows and relations, but no shards and offsets.

    Args:
        tables: the manifest, with `sha256`, in one table or in several.
        relations: the relations, or None.
    """
    digest = hashlib.sha256()
    columns = [*manifest.COLUMNS, "sha256"]
    count = 0
    for block in manifest.in_blocks(tables):
        text = block.to_csv(
            columns=columns, index=False, header=count % _HEADER_ROWS == 0
        )
        digest.update(text.encode())
        count += len(block)
    if relations is not None:
        digest.update(relations.to_csv(index=False).encode())
    return digest.hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """Reads records.json, and compares it with its own digest.

    Raises:
        FileNotFoundError: no finished records are there.
        ValueError: it is damaged.
    """
    metadata = sealed_json.read(
        path / "records.json", made_by=COMMAND, types=_TYPES
    )
    with _explained(path):
        for shard in metadata["shards"].values():
            sealed_json.check_types(shard, _SHARD_TYPES)
    return metadata


def digests_of(folder: Path) -> dict[str, str]:
    """Returns the digests of the tables of records, for records.json."""
    tables = ("manifest.parquet", "relations.parquet")
    return file_digests.of(
        folder, [name for name in tables if (folder / name).exists()]
    )


def check_tables(path: Path, metadata: dict[str, Any]) -> None:
    """Compares the tables of records with their digests, if they have any.

    Raises:
        OSError, ValueError: names the table that differs.
    """
    file_digests.check(path, metadata.get("digests", {}))


def read_metadata(
    path: Path, *, size_of: Callable[[str], int] | None = None
) -> dict[str, Any]:
    """Reads records.json, and checks the other files against it.

    Args:
        path: the folder.
        size_of: returns the bytes of a shard; None: those beside records.json.

    Raises:
        FileNotFoundError: no finished records are there.
        ValueError: a file is not what was written.
    """
    metadata = read_json(path)
    with _explained(path):
        for name, shard in metadata["shards"].items():
            size = size_of(name) if size_of else (path / name).stat().st_size
            if size != shard["bytes"]:
                raise ValueError(
                    f"{name} has {size} bytes, not {shard['bytes']}"
                )
        check_tables(path, metadata)
        tables = {"manifest": metadata["count"]}
        if metadata["relations"] is not None:
            tables["relations"] = metadata["relations"]
        for name, count in tables.items():
            if _count_rows(path / f"{name}.parquet") != count:
                raise ValueError(f"{name}.parquet has another number of rows")
    return metadata


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Raises a ValueError that says what to do about damaged records."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise ValueError(
            f"Expected whole records. Received: records={str(path)!r} "
            f"({error}). Delete the folder and run {COMMAND} again."
        ) from error


def _count_rows(path: Path) -> int:
    try:
        return pq.read_metadata(path).num_rows
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from error


class Records:
    """A finished folder of records.

    Attributes:
        path: the folder, a `RemotePath` where it is in object storage.
        metadata: content of records.json.
        manifest: DataFrame, one row per image, in the order of the shards.
        relations: table of `positives.make_relations`, or None.
        fingerprint: hex digest of images, their rows and relations.

    Args:
        path: the folder, or its address.

    Raises:
        ConnectionError: a server does not give them.
        FileNotFoundError: no finished records are there.
        ValueError: they are damaged.
    """

    def __init__(self, path: str | Path):
        if remote_files.is_remote(path):
            self.path = RemotePath(str(path))
            with remote_records.tables(self.path) as (tables, size_of):
                self._open(tables, size_of=size_of)
        else:
            self.path = Path(path)
            self._open(self.path)

    def _open(
        self, tables: Path, *, size_of: Callable[[str], int] | None = None
    ) -> None:
        self.metadata = read_metadata(tables, size_of=size_of)
        with _explained(self.path):
            self.fingerprint = self.metadata["fingerprint"]
            self.manifest = manifest.read(
                tables / "manifest.parquet", others=COLUMNS
            )
            self.relations = None
            if self.metadata["relations"] is not None:
                self.relations = read_relations(tables)

    def rows(self, split: str, role: str) -> pd.DataFrame:
        """Returns the rows of splits and a role, with the index of `manifest`.

        Args:
            split: a split, several with commas between, or "all".
            role: of `names.ROLES`.

        Raises:
            ValueError: there are none; says which there are.
        """
        rows = self.manifest[
            self.manifest["split"].isin(names.splits_of(split))
            & (self.manifest["role"] == role)
        ]
        if not len(rows):
            counts = self.manifest.groupby(["split", "role"]).size()
            raise ValueError(
                f"Expected {role} images in the split {split!r}. Received: "
                f"records={str(self.path)!r} with "
                + ", ".join(f"{n} {s}/{r}" for (s, r), n in counts.items())
                + ". Check --split and the folders that were read."
            )
        return rows

    def encoded_dataset(self, rows: pd.DataFrame) -> tf.data.Dataset:
        """Reads encoded images of rows, in their order, by byte offset.

        Each is compared with its digest: an iterator raises
        tf.errors.InvalidArgumentError for another image, and
        tf.errors.DataLossError where the checksums of the record do not hold.

        Args:
            rows: B rows of `manifest`, in any order, repeated or not.

        Returns:
            Dataset of B strings.
        """
        return encoded_images.dataset(self.places(rows))

    def places(self, rows: pd.DataFrame) -> ImagePlaces:
        """Returns where the images of rows lie, in their order."""
        # Each name once, so that a long list of rows stays small.
        shards, number = np.unique(
            rows["shard"].to_numpy(str), return_inverse=True
        )
        with _explained(self.path):
            digests = frames.short_digests(rows["sha256"])
        return ImagePlaces(
            [str(remote_records.joined(self.path, name)) for name in shards],
            number.astype(np.int64),
            rows["byte_offset"].to_numpy(np.int64),
            rows["byte_length"].to_numpy(np.int64),
            digests,
        )

    def read_images(self, rows: pd.DataFrame) -> Iterator[bytes]:
        """Yields the encoded images of rows, in their order.

        Raises:
            ValueError: a record is damaged.
        """
        try:
            with dataset_errors.as_raised():
                yield from self.encoded_dataset(rows).as_numpy_iterator()
        except (
            tf.errors.DataLossError,
            tf.errors.InvalidArgumentError,
            tf.errors.NotFoundError,
        ) as error:
            raise damaged(self.path, error) from error

    def read_named(self, image_ids: Sequence[str]) -> list[bytes | None]:
        """Reads encoded images by their names; None for an unknown name.

        Raises:
            ValueError: a record is damaged.
        """
        known = pd.Index(self.manifest["image_id"])
        rows = known.get_indexer(list(image_ids))
        images = self.read_images(self.manifest.iloc[rows[rows >= 0]])
        return [next(images) if row >= 0 else None for row in rows]


def damaged(path: Path, error: Exception) -> ValueError:
    """Makes the error for records whose checksums do not hold."""
    reason = str(error).splitlines()[0]
    return ValueError(
        f"Expected records with valid checksums. Received: records="
        f"{str(path)!r} ({reason}). Delete the folder and run {COMMAND} again."
    )
