"""export/ + records/ -> index/: the database of a split, ready to search.

    python -m sare_tf.index --flagfile=configs/demo.flags

    descriptors.npy   float32 [N, D], rows of unit length
    manifest.parquet  row i describes row i of the descriptors
    scann/            ScaNN's searcher, movable; absent where ScaNN is
    index.json        dimension, count, and what all this was made from

Below 20,000 images ScaNN searches by brute force. Above, it searches a tree
with asymmetric hashing and exact reordering, so results are approximate:
`evaluate` measures by how much. Distances are squared Euclidean.
"""

import importlib
import importlib.metadata
import itertools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from absl import flags, logging
from tqdm import tqdm

import sare_tf
from sare_tf import files, manifest, retrieval, serving
from sare_tf import flags as stage_flags
from sare_tf.records import Records

FLAGS = flags.FLAGS
_COMMAND = "python -m sare_tf.index --flagfile=..."
_FILES = {"descriptors.npy", "manifest.parquet", "scann", "index.json"}
# Smaller databases are searched by brute force: ScaNN's docs/algorithms.md.
_TREE_FROM = 20_000
# Share of leaves searched: recall@10 of 0.93 to 0.998 on clustered data of 256
# and 16 dimensions, 20,500 rows.
_LEAVES_SEARCHED = 0.2
# Points that train the tree and the codebook. Fewer than all cost recall.
_TRAINING_SAMPLE = 250_000
_UNIT_TOLERANCE = 1e-4


def run(
    *,
    records: str | Path,
    export: str | Path | serving.Server,
    out: str | Path,
    split: str = "test",
    batch_size: int = 32,
) -> Path:
    """Embeds the database images of a split and builds the index.

    An index of the same export, records and split is kept as it is.

    Args:
        records: folder of `build_records`.
        export: folder of `export`, or of one of its versions; or a server of
            it (`serving.load`).
        out: folder of the index; replaced if it holds one.
        split: whose database images are indexed.
        batch_size: images embedded at a time.

    Returns:
        `out`.

    Raises:
        FileNotFoundError: records or export are absent or unfinished.
        ValueError: no such images, a descriptor that is not a finite unit
            vector, or an `out` that holds something else.
    """
    out = Path(out)
    files.check_replaceable(out, names=_FILES)
    opened = Records(records)
    rows = opened.rows(split, "database")
    servable = serving.load(export)
    scann = _import_scann()
    made_from = {
        "export_fingerprint": servable.fingerprint,
        "records_fingerprint": opened.fingerprint,
        "split": split,
        "scann": scann
        and scann_parameters(count=len(rows), dimension=servable.dimension),
    }
    if _is_up_to_date(out, made_from):
        logging.info("%s is up to date: nothing to do.", out)
        return out
    logging.info("Embedding %d database images of %s.", len(rows), split)
    with files.folder_in_one_piece(out) as folder:
        descriptors = np.lib.format.open_memmap(
            folder / "descriptors.npy",
            mode="w+",
            dtype=np.float32,
            shape=(len(rows), servable.dimension),
        )
        embed(
            servable,
            opened.read_images(rows),
            rows["image_id"].tolist(),
            batch_size=batch_size,
            into=descriptors,
        )
        descriptors.flush()
        manifest.write(rows.reset_index(drop=True), folder / "manifest.parquet")
        if scann:
            logging.info("Building the ScaNN searcher.")
            searcher = _build(scann, descriptors, made_from["scann"])
            (folder / "scann").mkdir()
            searcher.serialize(str(folder / "scann"), relative_path=True)
        files.write_json(
            folder / "index.json",
            {
                "count": len(rows),
                "dimension": servable.dimension,
                "distance": "squared Euclidean between unit vectors",
                **made_from,
                "versions": versions(),
            },
        )
    logging.info(
        "Index of %d images in %s. Next: python -m sare_tf.evaluate "
        "--flagfile=...",
        len(rows),
        out,
    )
    return out


class Index:
    """A finished index.

    Attributes:
        path: its folder.
        metadata: index.json.
        manifest: DataFrame; row i describes row i of the descriptors.
        descriptors: float32 [N, D], a read-only memory map.
        searches_with: "scann" or "exact".
    """

    def __init__(self, path: Path, *, exact: bool):
        self.path = path
        self.metadata = files.read_json(path / "index.json", made_by=_COMMAND)
        try:
            self.descriptors = np.load(path / "descriptors.npy", mmap_mode="r")
            self.manifest = manifest.read(path / "manifest.parquet")
            shape = (self.metadata["count"], self.metadata["dimension"])
            if self.descriptors.shape != shape:
                raise ValueError(f"descriptors of shape {shape} are missing")
            if len(self.manifest) != len(self.descriptors):
                raise ValueError("the manifest has another number of rows")
            self._searcher = None if exact else self._load_scann()
        except (KeyError, OSError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"Expected a whole index. Received: index={str(path)!r} "
                f"({error}). Delete it and run {_COMMAND} again."
            ) from error
        self.searches_with = "scann" if self._searcher else "exact"

    @classmethod
    def open(cls, path: str | Path, *, exact: bool = False) -> "Index":
        """Opens the folder of an index.

        Args:
            path: the folder.
            exact: search exactly, without ScaNN. Search is exact, too, where
                ScaNN cannot be imported; a warning says so.

        Raises:
            FileNotFoundError: no finished index is there.
            ValueError: it is damaged.
        """
        return cls(Path(path), exact=exact)

    def search(
        self, descriptors: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Finds the nearest database images.

        Args:
            descriptors: [Q, D], rows of unit length.
            k: neighbours per query.

        Returns:
            int64 [Q, k] rows of `manifest`, nearest first, and float32 [Q, k]
            squared distances. Where approximate search came upon fewer than k
            images, the rest are -1 and infinity.

        Raises:
            ValueError: another descriptor length, rows that are not unit
                vectors, or k larger than the database.
        """
        count, dimension = self.descriptors.shape
        if np.ndim(descriptors) != 2 or np.shape(descriptors)[1] != dimension:
            raise ValueError(
                f"Expected descriptors [Q, {dimension}]. Received: "
                f"descriptors.shape={np.shape(descriptors)}. Embed with the "
                "export that the index was built with."
            )
        if not 1 <= k <= count:
            raise ValueError(
                f"Expected k from 1 to the {count} images of the index. "
                f"Received: k={k}. Ask for fewer neighbours."
            )
        descriptors = np.ascontiguousarray(descriptors, np.float32)
        check_unit(
            descriptors, [f"query {row}" for row in range(len(descriptors))]
        )
        if self._searcher is None or not len(descriptors):
            return retrieval.nearest(descriptors, self.descriptors, k)
        reordered = self.metadata["scann"].get("reordering_num_neighbors", k)
        rows, products = self._searcher.search_batched_parallel(
            descriptors,
            final_num_neighbors=k,
            pre_reorder_num_neighbors=max(reordered, 2 * k),
        )
        # ScaNN pads with row 0 and NaN.
        padded = np.isnan(products)
        rows = np.where(padded, -1, rows.astype(np.int64))
        distances = np.maximum(np.float32(2) - 2 * products, 0)
        return rows, np.where(padded, np.float32(np.inf), distances)

    def check_export(
        self, servable: serving.Servable | serving.RemoteServable
    ) -> None:
        """Refuses a model other than the one that built the index.

        Raises:
            ValueError: the fingerprints differ.
        """
        expected = self.metadata["export_fingerprint"]
        if servable.fingerprint != expected:
            raise ValueError(
                f"Expected the export that built the index {str(self.path)!r}, "
                f"with fingerprint {expected[:12]}. Received: export="
                f"{str(servable.path)!r} with {servable.fingerprint[:12]}. "
                f"Run {_COMMAND} with this export, or name the other one."
            )

    def _load_scann(self):
        if not self.metadata["scann"]:
            logging.warning("The index was built without ScaNN: exact search.")
            return None
        scann = _import_scann()
        return scann and scann.scann_ops_pybind.load_searcher(
            str(self.path / "scann")
        )


def embed(
    servable: serving.Servable | serving.RemoteServable,
    encoded_images: Iterable[bytes],
    image_ids: Sequence[str],
    *,
    batch_size: int = 32,
    into: np.ndarray | None = None,
) -> np.ndarray:
    """Embeds encoded images as a stream.

    Args:
        servable: the exported model.
        encoded_images: bytes of N images, read one batch at a time.
        image_ids: their N names, for messages.
        batch_size: images of a batch.
        into: float32 [N, D] to fill, such as a memory map.

    Returns:
        float32 [N, D], rows of unit length: `into` if given.

    Raises:
        ValueError: an image that cannot be decoded, or whose descriptor is
            not a finite unit vector; the message names it. Or fewer images
            than names.
    """
    count = len(image_ids)
    if into is None:
        into = np.empty((count, servable.dimension), np.float32)
    stream = iter(encoded_images)
    with tqdm(total=count, unit="image", desc="embed", leave=False) as progress:
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
            into[start : start + len(names)] = descriptors
            progress.update(len(names))
    return into


def check_unit(descriptors: np.ndarray, names: Sequence[str]) -> None:
    """Refuses descriptors [B, D] that are not finite unit vectors.

    Raises:
        ValueError: names the first one.
    """
    norms = np.linalg.norm(descriptors, axis=1)
    # Written so that NaN is refused, too.
    bad = np.flatnonzero(~(np.abs(norms - 1) <= _UNIT_TOLERANCE))
    if len(bad):
        raise ValueError(
            "Expected descriptors that are finite and of length 1. Received: "
            f"length {norms[bad[0]]:.6g} for {names[bad[0]]}. The model "
            "diverged or does not normalise: train or export again."
        )


def scann_parameters(*, count: int, dimension: int) -> dict[str, Any]:
    """Chooses ScaNN's parameters for a database.

    The tree has about sqrt(count) leaves. Its k-means is seeded by kmeans++,
    not at random, so that the same descriptors give the same index; with SOAR
    a row near the border of two leaves is kept in both.

    Args:
        count: images.
        dimension: descriptor length.
    """
    if count < _TREE_FROM:
        return {"searcher": "brute_force"}
    num_leaves = round(math.sqrt(count))
    return {
        "searcher": "tree",
        "num_leaves": num_leaves,
        "num_leaves_to_search": math.ceil(_LEAVES_SEARCHED * num_leaves),
        "training_sample_size": min(count, _TRAINING_SAMPLE),
        "soar_lambda": 1.5,
        "dimensions_per_block": 2,
        "anisotropic_quantization_threshold": 0.2,
        # AlloyDB's tuning pages: more from 500 dimensions on.
        "reordering_num_neighbors": 200 if dimension < 500 else 400,
    }


def versions() -> dict[str, str | None]:
    """Versions of what made a result."""
    try:
        scann = importlib.metadata.version("scann")
    except importlib.metadata.PackageNotFoundError:
        scann = None
    return {
        "sare_tf": sare_tf.__version__,
        "tensorflow": tf.__version__,
        "scann": scann,
        "numpy": np.__version__,
    }


def _build(scann, descriptors: np.ndarray, parameters: dict[str, Any]):
    # Unit vectors: the largest product is the smallest distance, and SOAR and
    # residual quantisation exist for products only.
    builder = scann.scann_ops_pybind.builder(descriptors, 10, "dot_product")
    if parameters["searcher"] == "brute_force":
        return builder.score_brute_force().build()
    return (
        builder.tree(
            num_leaves=parameters["num_leaves"],
            num_leaves_to_search=parameters["num_leaves_to_search"],
            training_sample_size=parameters["training_sample_size"],
            spherical=True,
            quantize_centroids=True,
            random_init=False,
            soar_lambda=parameters["soar_lambda"],
        )
        .score_ah(
            parameters["dimensions_per_block"],
            anisotropic_quantization_threshold=parameters[
                "anisotropic_quantization_threshold"
            ],
            training_sample_size=parameters["training_sample_size"],
        )
        .reorder(parameters["reordering_num_neighbors"])
        .build()
    )


def _import_scann():
    """The scann module, or None where it cannot be imported."""
    try:
        return importlib.import_module("scann")
    except (ImportError, tf.errors.NotFoundError) as error:
        # NotFoundError: its library was built for another TensorFlow.
        reason = str(error).splitlines()[0]
        logging.warning("ScaNN is not usable (%s): exact search.", reason)
        return None


def _is_up_to_date(out: Path, made_from: dict[str, Any]) -> bool:
    if not (out / "index.json").is_file():
        return False
    try:
        found = Index.open(out).metadata
    except ValueError as error:
        logging.warning("Building again: %s", error)
        return False
    differing = [
        name for name in made_from if found.get(name) != made_from[name]
    ]
    if differing:
        logging.info("Replacing an index of another %s.", ", ".join(differing))
    return not differing


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


def main(argv) -> None:
    del argv
    stage_flags.required("records", "index")
    run(
        records=FLAGS.records,
        export=serving.named_by_flags(),
        out=FLAGS.index,
        split=FLAGS.split,
        batch_size=FLAGS.batch_size,
    )


if __name__ == "__main__":
    stage_flags.start(main)
