"""Records: sharded TFRecord files of encoded images, and their manifest.

    <split>-<role>-00000-of-00016.tfrecord   one tf.train.Example per image
    manifest.parquet                         one row per image, in that order
    records.json                             what made it, and what is whole
    rejected.csv                             files refused, with the reason
    warnings.csv                             what is odd, but kept
    relations.parquet                        which database images answer which
                                             query, where the dataset lists it

The manifest has four columns more than `manifest.COLUMNS`: `shard`, the file's
name; `byte_offset` and `byte_length` of the whole record in it; `sha256` of the
encoded image. So an image is read in sequence, or by itself. An Example's
features: `image/encoded`, the bytes of the file, untouched unless images were
resized or cut; `image/id` and `image/place`.
"""

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import tensorflow as tf

from sare_tf.dataset import manifest
from sare_tf.runtime import atomic_files, tfdata_threads

COMMAND = "python -m sare_tf.build_records --flagfile=..."
# A record is its length (8 bytes), a checksum of it (4), data, a checksum (4).
FRAME_BYTES = 16
# The names of columns come before each so many rows of a fingerprint: a
# multiple of manifest.BLOCK_ROWS.
_HEADER_ROWS = 1 << 16
_FEATURES = {"image/encoded": tf.io.FixedLenFeature([], tf.string)}


def serialise(encoded: bytes, *, image_id: str, place: str) -> bytes:
    """Makes one Example, the same bytes for the same arguments."""

    def feature(value: bytes) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    features = tf.train.Features(
        feature={
            "image/encoded": feature(encoded),
            "image/id": feature(image_id.encode()),
            "image/place": feature(place.encode()),
        }
    )
    return tf.train.Example(features=features).SerializeToString(
        deterministic=True
    )


def parse(serialised: tf.Tensor) -> tf.Tensor:
    """Encoded image of an Example, string [] -> string []."""
    return tf.io.parse_single_example(serialised, _FEATURES)["image/encoded"]


def write_relations(relations: pd.DataFrame, folder: Path) -> None:
    """Writes what `Records.relations` reads."""
    relations.to_parquet(folder / "relations.parquet", index=False)


def fingerprint(
    parts: Iterable[pd.DataFrame], relations: pd.DataFrame | None
) -> str:
    """Digest of images, their rows and relations; not of shards and offsets.

    Args:
        parts: of the manifest, with `sha256`, in order.
        relations: or None.
    """
    digest = hashlib.sha256()
    columns = [*manifest.COLUMNS, "sha256"]
    count = 0
    for block in manifest.in_blocks(parts):
        text = block.to_csv(
            columns=columns, index=False, header=count % _HEADER_ROWS == 0
        )
        digest.update(text.encode())
        count += len(block)
    if relations is not None:
        digest.update(relations.to_csv(index=False).encode())
    return digest.hexdigest()


def read_metadata(path: Path) -> dict[str, Any]:
    """records.json, once the files beside it are found to be as it says.

    Raises:
        FileNotFoundError: no finished records are there.
        ValueError: a size or a number of rows differs.
    """
    metadata = atomic_files.read_json(path / "records.json", made_by=COMMAND)
    with _explained(path):
        for name, shard in metadata["shards"].items():
            size = (path / name).stat().st_size
            if size != shard["bytes"]:
                raise ValueError(
                    f"{name} has {size} bytes, not {shard['bytes']}"
                )
        tables = {"manifest": metadata["count"]}
        if metadata["relations"] is not None:
            tables["relations"] = metadata["relations"]
        for name, count in tables.items():
            if _count_rows(path / f"{name}.parquet") != count:
                raise ValueError(f"{name}.parquet has another number of rows")
    return metadata


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Says what to do about records that are damaged."""
    try:
        yield
    except (KeyError, OSError, TypeError, ValueError) as error:
        raise ValueError(
            f"Expected whole records. Received: records={str(path)!r} "
            f"({error}). Delete the folder and run {COMMAND} again."
        ) from error


def _count_rows(path: Path) -> int:
    try:
        return pq.read_metadata(path).num_rows
    except (OSError, ValueError) as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from error


class Records:
    """A finished folder of records.

    Attributes:
        path: the folder.
        metadata: records.json.
        manifest: DataFrame, one row per image, in the order of the shards.
        relations: DataFrame as of `positives.make_relations`, or None.
        fingerprint: hex digest of the images, the manifest and the relations.

    Args:
        path: the folder.

    Raises:
        FileNotFoundError: no finished records are there.
        ValueError: they are damaged.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.metadata = read_metadata(self.path)
        with _explained(self.path):
            self.fingerprint = self.metadata["fingerprint"]
            self.manifest = manifest.read(self.path / "manifest.parquet")
            self.relations = None
            if self.metadata["relations"] is not None:
                self.relations = pd.read_parquet(
                    self.path / "relations.parquet"
                )

    def rows(self, split: str, role: str) -> pd.DataFrame:
        """Rows of one split and role; their index is that of `manifest`.

        Raises:
            ValueError: there are none; says what there is.
        """
        chosen = self.manifest[
            (self.manifest["split"] == split) & (self.manifest["role"] == role)
        ]
        if not len(chosen):
            counts = self.manifest.groupby(["split", "role"]).size()
            raise ValueError(
                f"Expected {role} images in the split {split!r}. Received: "
                f"records={str(self.path)!r} with "
                + ", ".join(f"{n} {s}/{r}" for (s, r), n in counts.items())
                + ". Check --split and the folders that were read."
            )
        return chosen

    def encoded_dataset(self, rows: pd.DataFrame) -> tf.data.Dataset:
        """Encoded bytes of rows, in their order, read at their byte offsets.

        Args:
            rows: B rows of `manifest`, in any order, repeated or not.

        Returns:
            Dataset of B strings.
        """
        # Distinct names once, so that a long list of rows stays small.
        names, which = np.unique(
            rows["shard"].to_numpy(str), return_inverse=True
        )
        paths = tf.constant([str(self.path / name) for name in names])
        offsets = rows["byte_offset"].to_numpy(np.int64)

        def read(shard: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
            variant = tf.raw_ops.TFRecordDatasetV2(
                filenames=paths[shard][None],
                compression_type="",
                # Unbuffered: the rest of a buffer would be read for nothing.
                buffer_size=0,
                byte_offsets=offset[None],
            )
            element = tf.TensorSpec([], tf.string)
            record = tf.data.experimental.from_variant(variant, element)
            return parse(record.take(1).get_single_element())

        # By the map, not flat_map: that reads one record after the other.
        at = tf.data.Dataset.from_tensor_slices(
            (which.astype(np.int64), offsets)
        )
        return tfdata_threads.fixed(
            at.map(read, num_parallel_calls=tfdata_threads.THREADS)
        )

    def read_images(self, rows: pd.DataFrame) -> Iterator[bytes]:
        """Encoded bytes of rows, in their order.

        Raises:
            ValueError: a record is damaged.
        """
        try:
            yield from self.encoded_dataset(rows).as_numpy_iterator()
        except (
            tf.errors.DataLossError,
            tf.errors.InvalidArgumentError,
        ) as error:
            raise damaged(self.path, error) from error

    def read_named(self, image_ids: Sequence[str]) -> list[bytes | None]:
        """Encoded bytes of images by their names; None where unknown.

        Raises:
            ValueError: a record is damaged.
        """
        names = pd.Index(self.manifest["image_id"])
        at = names.get_indexer(list(image_ids))
        found = self.read_images(self.manifest.iloc[at[at >= 0]])
        return [next(found) if row >= 0 else None for row in at]


def damaged(path: Path, error: Exception) -> ValueError:
    """The message for records whose checksums do not hold."""
    reason = str(error).splitlines()[0]
    return ValueError(
        f"Expected records with valid checksums. Received: records="
        f"{str(path)!r} ({reason}). Delete the folder and run {COMMAND} again."
    )
