"""checkpoints/ -> export/<version>/: a SavedModel for TF Serving.

    python -m sare_tf.export --flagfile=configs/demo.flags

Two signatures. `serving_default`: `image_bytes`, JPEG or PNG, string [B];
`embed_tensor`: `images`, RGB 0..255, float32 [B, H, W, 3] of any one size, for
callers that resize for themselves. Both return `descriptor`, float32 [B, D],
rows of unit length. The graph holds the preprocessing, no Python function and
no custom op. Beside it `sare_tf.json` says what it is.
"""

import datetime
from pathlib import Path

import keras
import tensorflow as tf
from absl import flags, logging

import sare_tf
from sare_tf import files, images, losses, model, optimizers
from sare_tf import flags as stage_flags
from sare_tf.checkpoints import read_state

FLAGS = flags.FLAGS
# Registers the classes that a checkpoint names.
_REGISTERED = (losses, model, optimizers)


def run(
    *,
    checkpoints: str | Path,
    export: str | Path,
    epoch: str | None = None,
) -> Path:
    """Writes the next version of an export.

    Args:
        checkpoints: folder of a training run.
        export: folder of the versions; the new one is the highest plus 1.
        epoch: name of the epoch's folder; the best one by default.

    Returns:
        The folder of the new version.

    Raises:
        FileNotFoundError: no such checkpoint.
    """
    checkpoints, export = Path(checkpoints), Path(export)
    config, state = read_state(checkpoints)
    epoch = epoch or state["best"]
    path = checkpoints / epoch / "model.keras"
    if not path.is_file():
        kept = sorted(folder.name for folder in checkpoints.glob("epoch-*"))
        raise FileNotFoundError(
            f"Expected one of the epochs {kept}. Received: epoch={epoch!r}."
        )
    network = keras.models.load_model(path, compile=False)
    embedder = network.get_layer("embedder")
    height, width = config["image_height"], config["image_width"]

    def serve(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        batch = tf.map_fn(
            lambda encoded: images.load(encoded, height=height, width=width),
            image_bytes,
            fn_output_signature=tf.TensorSpec((height, width, 3), tf.uint8),
        )
        return {"descriptor": embedder(batch, training=False)}

    def embed(batch: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"descriptor": embedder(batch, training=False)}

    archive = keras.export.ExportArchive()
    archive.track(embedder)
    archive.add_endpoint(
        "serving_default",
        serve,
        [tf.TensorSpec([None], tf.string, "image_bytes")],
    )
    archive.add_endpoint(
        "embed_tensor",
        embed,
        [tf.TensorSpec([None, None, None, 3], tf.float32, "images")],
    )
    measured = state["history"][int(epoch.removeprefix("epoch-"))]
    versions = [
        int(child.name)
        for child in (export.iterdir() if export.is_dir() else [])
        if child.name.isdigit()
    ]
    version = export / str(max(versions, default=0) + 1)
    with files.folder_in_one_piece(version) as folder:
        archive.write_out(str(folder), verbose=False)
        files.write_json(
            folder / "sare_tf.json",
            {
                "dimension": embedder.output_shape[-1],
                "image_height": height,
                "image_width": width,
                "preprocessing": "decode (EXIF rotation not applied), "
                "antialiased bilinear resize to the size above, RGB 0..255",
                "checkpoint": epoch,
                "validation": measured,
                "training": config,
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


def check_flags(checkpoints: str | Path) -> None:
    """Refuses a checkpoint of another network than the flags describe.

    Raises:
        ValueError: names the flags that differ.
    """
    config, _ = read_state(checkpoints)
    shaping = (
        "backbone",
        "aggregation",
        "num_clusters",
        "image_height",
        "image_width",
    )
    differences = [
        f"--{name}={FLAGS[name].value} but the checkpoint has {config[name]}"
        for name in shaping
        if FLAGS[name].present and FLAGS[name].value != config[name]
    ]
    if differences:
        raise ValueError(
            "Expected a checkpoint trained with the same flags. Received: "
            + "; ".join(differences)
            + ". Use the flagfile of the training."
        )


def main(argv) -> None:
    del argv
    stage_flags.required("checkpoints", "export")
    check_flags(FLAGS.checkpoints)
    run(checkpoints=FLAGS.checkpoints, export=FLAGS.export)


if __name__ == "__main__":
    stage_flags.start(main)
