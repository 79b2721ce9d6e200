"""Compares training runs over sampled places on replicas with one device.

    python -m benchmarks.sampled_replicas --replicas=4

`benchmarks.replicas` compares the steps of losses. Here, whole runs of `train`
are compared, with each sampler: what they draw, embed, remember and validate,
on three small folders of records of random patterns. A row is a case. Its
columns are the largest differences of the losses of the epochs and of the
weights at the end, and the span of the losses. The command fails if a
difference is above 1e-5, or if batches or recalls differ.

Runs on the GPUs of the machine, or on logical CPU devices if it has none.
"""

import csv
import io
import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags
from PIL import Image

from sare_tf import build_records, train
from sare_tf.records.options import RecordOptions
from sare_tf.training.options import TrainingOptions
from sare_tf.training.run_folder import read_state

FLAGS = flags.FLAGS
flags.DEFINE_integer("replicas", 2, "Number of replicas: 2, 4 or 8.", 2, 8)
flags.DEFINE_multi_string("case", [], "Cases to compare. Default: all.")

_LARGEST = 1e-5
_HEADINGS = (0, 60, 120) * 2
# Of a split: regions, and places of a region.
_TOWNS = {"train": (("ost", "west"), 12), "val": (("nord",), 5)}
_OPTIONS = {
    "image_height": 32,
    "image_width": 32,
    "backbone": "small",
    "aggregation": "gem",
    # Adam would make much of the rounding of a gradient that is nearly 0.
    "optimizer": "sgd",
    "learning_rate": 0.01,
    "inverse_bandwidth": 10.0,
    "places_per_batch": 8,
    "images_per_place": 2,
    "steps_per_epoch": 3,
    "epochs": 2,
    "augment": ("crop", "colour"),
}
_CLASSES = {
    "loss": "place_cosface",
    "similarity_scale": 8.0,
    "class_size_m": 20.0,
    "class_heading_deg": 90.0,
    "class_spacing": 2,
    "class_images": 2,
    "class_groups": 2,
}
# Case -> folders, and the options.
CASES = {
    "random": (1, {"loss": "place_sare_joint"}),
    "regions": (1, {"loss": "place_circle", "sampler": ("regions",)}),
    "similar": (1, {"loss": "place_nt_xent", "sampler": ("similar",)}),
    "cliques": (
        1,
        {
            "loss": "place_multi_similarity",
            "sampler": ("cliques",),
            "region_by": "folder",
            "descriptors_every": 2,
        },
    ),
    "cosplace": (1, {**_CLASSES, "sampler": ("cosplace",)}),
    "eigenplaces, one image of a place": (
        1,
        {
            **_CLASSES,
            "sampler": ("eigenplaces",),
            "images_per_place": 1,
        },
    ),
    "three folders with shares: cliques, similar, regions": (
        3,
        {
            "loss": "place_sare_independent",
            "learned_inverse_bandwidth": True,
            "sampler": ("cliques", "similar", "regions"),
            "shares": (2.0, 1.0, 1.0),
        },
    ),
    "two folders: cosplace, eigenplaces": (
        2,
        {**_CLASSES, "sampler": ("cosplace", "eigenplaces")},
    ),
}


def town_records(root: Path, *, number: int) -> Path:
    """Builds records of streets: places 60 m apart, of six views each."""
    photos = root / "photos"
    rng = np.random.default_rng(number)
    table = []
    for split, (regions, places) in _TOWNS.items():
        for region in regions:
            for place in range(places):
                pattern = rng.integers(40, 216, (4, 4, 3))
                for view, heading in enumerate(_HEADINGS):
                    path = f"{region}/{place}-{view}.jpg"
                    noise = rng.integers(-9, 10, pattern.shape)
                    _write(photos / path, pattern + noise)
                    table.append(
                        {
                            "path": path,
                            "utm_east": 500_000.0
                            + 20_000.0 * number
                            + 4000.0 * len(region)
                            + 60.0 * place
                            + 0.5 * view,
                            "utm_north": 4_000_000.0 + view % 2,
                            "utm_zone": "17T",
                            "place": f"{region}-{place}",
                            "heading": heading,
                            "split": split,
                            "role": "query" if view < 2 else "database",
                        }
                    )
    with (photos / "images.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)
    return build_records.run(
        RecordOptions(
            dataset=photos, records=root / "records", reader="csv_table"
        )
    )


def _write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = io.BytesIO()
    picture = pixels.astype(np.uint8).repeat(8, 0).repeat(8, 1)
    Image.fromarray(picture).save(encoded, "JPEG", quality=95)
    path.write_bytes(encoded.getvalue())


def trained(checkpoints: Path) -> tuple[list[dict], list[np.ndarray]]:
    """Returns the epochs of a run, and its weights and what it remembers."""
    _, state = read_state(checkpoints)
    last = checkpoints / state["last"]
    network = keras.models.load_model(last / "model.keras")
    weights = [keras.ops.convert_to_numpy(each) for each in network.weights]
    return state["history"], [*weights, np.load(last / "remembered.npy")]


def differences(
    one: Path, other: Path
) -> tuple[float, float, float, list[str]]:
    """Compares two runs.

    Returns:
        The largest differences of losses and of weights, the span of the
        losses, and what else differs.
    """
    (epochs, weights), (other_epochs, other_weights) = (
        trained(one),
        trained(other),
    )
    losses = [
        np.array([epoch["loss"] for epoch in of_run[1:]])
        for of_run in (epochs, other_epochs)
    ]
    different = [
        name
        for name in ("recall_at", "mean_reciprocal_rank")
        if any(
            a[name] != b[name]
            for a, b in zip(epochs, other_epochs, strict=True)
        )
    ]
    if not np.array_equal(weights.pop(), other_weights.pop()):
        different.append("batches remembered")
    return (
        np.abs(losses[0] - losses[1]).max(),
        max(
            np.abs(a - b).max()
            for a, b in zip(weights, other_weights, strict=True)
        ),
        np.ptp(losses[0]),
        different,
    )


def compare(
    root: Path, folders: list[Path], case: str
) -> tuple[float, float, float, list[str]]:
    """Trains a case on one device and on all; see `differences`."""
    count, options = CASES[case]
    given = {**_OPTIONS, **options, "records": folders[0]}
    if count > 1:
        given |= {"train_records": tuple(map(str, folders[:count]))}
    runs = []
    for strategy in ("none", "mirrored"):
        runs.append(root / case.replace(" ", "-") / strategy)
        train.run(
            TrainingOptions(
                **given,
                checkpoints=runs[-1],
                strategy=strategy,
            )
        )
    return differences(*runs)


def main(argv):
    """Prints a row per case; fails if replicas do not train as one device."""
    del argv
    if not tf.config.list_physical_devices("GPU"):
        cpu = tf.config.list_physical_devices("CPU")[0]
        one = tf.config.LogicalDeviceConfiguration()
        tf.config.set_logical_device_configuration(cpu, [one] * FLAGS.replicas)
    print(f"{FLAGS.replicas} replicas beside one device.\n")
    print("| case | losses differ by | weights differ by | losses span |")
    print("|---|---:|---:|---:|")
    failed = []
    with tempfile.TemporaryDirectory() as root:
        folders = [
            town_records(Path(root, f"town{number}"), number=number)
            for number in range(3)
        ]
        for case in FLAGS.case or CASES:
            loss, weights, moved, different = compare(Path(root), folders, case)
            print(
                f"| {case} | {loss:.0e} | {weights:.0e} | {moved:.0e} |",
                flush=True,
            )
            if max(loss, weights) > _LARGEST or moved < 1e-3 or different:
                failed.append(f"{case} {', '.join(different)}".strip())
    if failed:
        raise SystemExit(f"Not the same training: {failed}.")


if __name__ == "__main__":
    app.run(main)
