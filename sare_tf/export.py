"""checkpoints/ -> export/<version>/: a SavedModel for TF Serving.

    python -m sare_tf.export --flagfile=configs/demo.flags

Two signatures, for any number B of images, none included:

    serving_default   image_bytes, JPEG or PNG, string [B]
                      -> descriptor, float32 [B, D], valid, bool [B], and
                      fingerprint, string [B]
    embed_tensor      images, RGB 0..255, float32 [B, H, W, 3] of any one size
                      -> descriptor, float32 [B, D]

Descriptors are of unit length. An image that cannot be decoded is not valid
and has a descriptor of zeros; the others of its batch do not notice. The
fingerprint names the model, with all that its descriptors depend on: every
image is answered with it, so that a client of a server knows which model it
was. The graph holds preprocessing and whitening, no Python function and no
custom op. Beside it `sare_tf.json` says what it is, and `assets.extra/` has
requests for TF Serving to warm up with.

Whitening is fitted here, to database images of the train split as the original
code's addPCA.m does it; OpenIBL samples queries, too. An imported network may
bring its own.
"""

import datetime
import hashlib
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging
from tqdm import tqdm

import sare_tf
from sare_tf import flags, model
from sare_tf.dataset import image_decoding
from sare_tf.model import whitening
from sare_tf.records.records import Records
from sare_tf.runtime import atomic_files, file_digests, sealed_json
from sare_tf.serving import warmup_requests
from sare_tf.training.options import ExportOptions
from sare_tf.training.run_folder import load_embedder, read_state

_EPSILON = 1e-12


def _files(folder: Path) -> list[str]:
    """Returns the files that loading a model reads, by path in its folder."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    names = [path.relative_to(folder).as_posix() for path in paths]
    return sorted(
        name for name in names if not name.startswith("assets.extra/")
    )


def run(options: ExportOptions) -> Path:
    """Writes the next version of an export.

    Args:
        options: the folder of a training run, and the folder of the versions;
            the new one is the highest plus 1. The records are those that were
            trained on: whitening needs them, and `sare_tf.json` counts their
            images. The descriptors that whitening is fitted to are held in
            memory, 4 bytes a number; `whitening.fit` says what it adds.

    Returns:
        The folder of the new version.

    Raises:
        FileNotFoundError: no such checkpoint or records.
        ValueError: another network than the checkpoint's, records that are
            missing or that were not trained on, too few images for the
            whitening or a network that is whitened already, more numbers to
            keep than a descriptor has, or scales that are not positive.
    """
    checkpoints, export = Path(options.checkpoints), Path(options.export)
    whitening_dimension = options.whitening_dimension
    truncate_dimension, scales = options.truncate_dimension, options.scales
    records = options.records
    if records and not (whitening_dimension or Path(records).is_dir()):
        # A checkpoint that came without its records can be exported, too.
        records = None
    config, state = read_state(checkpoints)
    _check_network(options, config)
    epoch = options.epoch or state["best"]
    _check_scales(scales)
    embedder, given = _apart(
        load_embedder(checkpoints, epoch=epoch), whitening_dimension
    )
    opened = records and Records(records)
    trained_on = opened and opened.fingerprint == config["records_fingerprint"]
    if whitening_dimension:
        _check_records(opened, config, options.allow_other_records)
    graph = _Graph(
        embedder,
        height=config["image_height"],
        width=config["image_width"],
        scales=scales,
    )
    graph.whitening = given
    _check_truncation(truncate_dimension, whitening_dimension or graph.length)
    whitened = config["whitening"] if given else None
    if whitening_dimension:
        whitened = _whiten(
            graph,
            opened,
            dimension=whitening_dimension,
            samples=options.whitening_samples,
            batch_size=options.batch_size,
            seed=options.seed,
        )
    graph.truncation = truncate_dimension
    fingerprint = graph.fingerprint
    versions = [
        int(child.name)
        for child in (export.iterdir() if export.is_dir() else [])
        if child.name.isdigit()
    ]
    version = export / str(max(versions, default=0) + 1)
    with atomic_files.folder_in_one_piece(version) as folder:
        graph.write(folder, fingerprint)
        warmup_requests.write(folder, height=graph.height, width=graph.width)
        sealed_json.write(
            folder / "sare_tf.json",
            {
                "fingerprint": fingerprint,
                "digests": file_digests.of(folder, _files(folder)),
                "dimension": graph.dimension,
                "image_height": graph.height,
                "image_width": graph.width,
                "preprocessing": "decode; turn upright by the EXIF header of a "
                "JPEG; antialiased bilinear resize to the size above; RGB "
                "0..255",
                "scales": list(scales),
                "whitening": whitened,
                "truncated_from": graph.length if truncate_dimension else None,
                "licence": options.model_licence,
                "checkpoint": epoch,
                "validation": state["history"][_number(epoch)],
                "training": config,
                "training_images": opened.metadata["counts"]
                if trained_on
                else None,
                "versions": {
                    "sare_tf": sare_tf.__version__,
                    "tensorflow": tf.__version__,
                    "keras": keras.__version__,
                },
                "made": datetime.datetime.now(datetime.UTC).isoformat(
                    timespec="seconds"
                ),
            },
        )
    logging.info(
        "Exported %s of %s to %s. Next: python -m sare_tf.index --flagfile=...",
        epoch,
        checkpoints,
        version,
    )
    return version


class _Graph:
    """What is exported.

    Args:
        embedder: [B, H, W, 3] -> float32 [B, D].
        height: rows that encoded images are resized to.
        width: columns that encoded images are resized to.
        scales: sizes relative to that.
    """

    def __init__(
        self,
        embedder: keras.Model,
        *,
        height: int,
        width: int,
        scales: Sequence[float],
    ):
        self.height = height
        self.width = width
        self.whitening = None
        self.truncation = 0
        self._embedder = embedder
        self._scales = scales

    @property
    def length(self) -> int:
        """Of a descriptor before it is truncated."""
        if self.whitening:
            return self.whitening.dimension
        return self._embedder.output_shape[-1]

    @property
    def dimension(self) -> int:
        return self.truncation or self.length

    @property
    def fingerprint(self) -> str:
        """sha256 over all that descriptors depend on.

        A model that is exported again by the same sare_tf has the same one.
        """
        settings = [
            sare_tf.__version__,
            self.height,
            self.width,
            [float(scale) for scale in self._scales],
            self.truncation,
            self._embedder.to_json(),
        ]
        digest = hashlib.sha256(json.dumps(settings).encode())
        weights = list(self._embedder.weights)
        if self.whitening:
            weights += self.whitening.weights
        for weight in weights:
            values = keras.ops.convert_to_numpy(weight)
            digest.update(f"{values.dtype} {values.shape}\0".encode())
            digest.update(np.ascontiguousarray(values).view(np.uint8))
        return digest.hexdigest()

    def serve(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """The signature `serving_default`, but for the fingerprint."""
        batch, valid = image_decoding.load_batch(
            image_bytes, height=self.height, width=self.width
        )
        descriptors = self.embed(batch)["descriptor"]
        # Not a product, so that no image can make a NaN.
        descriptors = tf.where(valid[:, None], descriptors, 0.0)
        return {"descriptor": descriptors, "valid": valid}

    def embed(self, batch: tf.Tensor) -> dict[str, tf.Tensor]:
        """The signature `embed_tensor`."""
        count = tf.shape(batch)[0]
        # Convolutions refuse an empty batch: give them an image, then drop it.
        # After it the graph knows no sizes, so that a network which was built
        # for one takes others.
        missing = tf.cast(count == 0, tf.int32)
        batch = tf.pad(batch, [[0, missing], [0, 0], [0, 0], [0, 0]])
        descriptors = tf.add_n(
            [
                self._embedder(_scaled(batch, scale), training=False)
                for scale in self._scales
            ]
        )
        if len(self._scales) > 1:
            descriptors = _unit_length(descriptors)
        if self.whitening:
            descriptors = self.whitening(descriptors)
        if self.truncation:
            descriptors = _unit_length(descriptors[:, : self.truncation])
        return {"descriptor": descriptors[:count]}

    def function(self) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
        """`serve`, to be called here."""
        encoded = tf.TensorSpec([None], tf.string)
        return tf.function(self.serve, input_signature=[encoded])

    def write(self, folder: Path, fingerprint: str) -> None:
        """Writes the SavedModel, of which every answer has the fingerprint."""

        def serve(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
            outputs = self.serve(image_bytes)
            named = tf.fill(tf.shape(image_bytes), fingerprint)
            return {**outputs, "fingerprint": named}

        archive = keras.export.ExportArchive()
        archive.track(self._embedder)
        if self.whitening:
            archive.track(self.whitening)
        archive.add_endpoint(
            "serving_default",
            serve,
            [tf.TensorSpec([None], tf.string, "image_bytes")],
        )
        archive.add_endpoint(
            "embed_tensor",
            self.embed,
            [tf.TensorSpec([None, None, None, 3], tf.float32, "images")],
        )
        archive.write_out(str(folder), verbose=False)


def _unit_length(descriptors: tf.Tensor) -> tf.Tensor:
    squares = tf.reduce_sum(descriptors**2, axis=1, keepdims=True)
    return descriptors * tf.math.rsqrt(squares + _EPSILON)


def _scaled(batch: tf.Tensor, scale: float) -> tf.Tensor:
    if scale == 1:
        return batch
    size = tf.cast(tf.shape(batch)[1:3], tf.float32) * scale
    height, width = tf.unstack(tf.cast(tf.maximum(tf.round(size), 1), tf.int32))
    return image_decoding.resize(batch, height=height, width=width)


def _whiten(
    graph: _Graph,
    records: Records,
    *,
    dimension: int,
    samples: int,
    batch_size: int,
    seed: int,
) -> dict[str, Any]:
    """Fits whitening to the graph's descriptors, and adds it to the graph."""
    database = records.rows("train", "database")
    count = min(samples, len(database))
    whitening.check(count, graph.dimension, dimension)
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(len(database), count, replace=False))
    rows = database.iloc[chosen]
    logging.info(
        "Whitening to %d dimensions, fitted to %d of the %d database images "
        "of train.",
        dimension,
        count,
        len(database),
    )
    descriptors = np.empty((count, graph.dimension), np.float32)
    serve = graph.function()
    stream = records.read_images(rows)
    with tqdm(total=count, unit="image", desc="whitening") as progress:
        for start in range(0, count, batch_size):
            batch = list(itertools.islice(stream, batch_size))
            outputs = serve(tf.constant(batch))
            valid = outputs["valid"].numpy()
            if not valid.all():
                image_id = rows["image_id"].iloc[start + int(valid.argmin())]
                raise ValueError(
                    "Expected images that can be decoded. Received: "
                    f"{image_id}. The records are damaged: build them again."
                )
            descriptors[start : start + len(batch)] = outputs["descriptor"]
            progress.update(len(batch))
    fitted = whitening.fit(descriptors, dimension)
    graph.whitening = model.Whitening(dimension, name="whitening")
    graph.whitening.assign(fitted)
    return {
        "dimension": dimension,
        "samples": count,
        "explained_variance": round(fitted.explained_variance, 6),
        "fitted_to": "database images of the train split",
        "records_fingerprint": records.fingerprint,
        "seed": seed,
    }


def _apart(
    embedder: keras.Model, dimension: int
) -> tuple[keras.Model, model.Whitening | None]:
    """An embedder without the whitening that it was imported with, and that.

    Apart, so that several scales are averaged before it, as always.
    """
    last = embedder.layers[-1]
    if not isinstance(last, model.Whitening):
        return embedder, None
    if dimension:
        raise ValueError(
            "Expected whitening_dimension=0 for an imported network that is "
            f"whitened already. Received: whitening_dimension={dimension}. "
            "Leave --whitening_dimension out, or import with "
            f"--whitening_dimension={dimension} or 0."
        )
    return keras.Model(embedder.input, last.input), last


def _number(epoch: str) -> int:
    return int(epoch.removeprefix("epoch-"))


def _check_scales(scales: Sequence[float]) -> None:
    if not scales or not all(0 < scale < np.inf for scale in scales):
        raise ValueError(
            "Expected at least one scale, each above 0; 1 is the network's "
            f"input size. Received: scales={list(scales)}."
        )


def _check_truncation(truncate_dimension: int, length: int) -> None:
    if not 0 <= truncate_dimension <= length:
        raise ValueError(
            f"Expected to keep 1 to {length} numbers, the length of a "
            "descriptor, or 0 for all. Received: truncate_dimension="
            f"{truncate_dimension}."
        )


def _check_records(
    records: Records | None, config: dict[str, Any], allow_other: bool
) -> None:
    """Refuses to fit whitening to other images than were trained on."""
    expected = config["records_fingerprint"]
    if records is None:
        raise ValueError(
            "Expected the records that were trained on, to fit whitening to. "
            "Received: records=None. Give --records, or "
            "--whitening_dimension=0."
        )
    if records.fingerprint != expected and not allow_other:
        known = expected[:12] if expected else "unknown"
        raise ValueError(
            "Expected the records that were trained on, with fingerprint "
            f"{known}. Received: records={str(records.path)!r} with "
            f"{records.fingerprint[:12]}. Name the other ones, or give "
            "--allow_other_records to fit whitening to these."
        )


def _check_network(options: ExportOptions, config: dict[str, Any]) -> None:
    """Refuses a checkpoint of another network than the options describe."""
    differences = [
        f"--{name}={asked} but the checkpoint has {config[name]}"
        for name in options.FIXED
        if (asked := getattr(options, name)) not in (None, config[name])
    ]
    if differences:
        raise ValueError(
            "Expected a checkpoint trained with the same flags. Received: "
            + "; ".join(differences)
            + ". Use the flagfile of the training."
        )


def main(argv) -> None:
    del argv
    run(ExportOptions.from_flags())


if __name__ == "__main__":
    flags.start(main)
