"""A file of weights that others trained -> checkpoints/.

    python -m sare_tf.import_weights --source=vgg16_netvlad.pth --out=runs/sfrs

In Python, the network itself:

    network = sare_tf.import_weights("vgg16_netvlad.pth")

The checkpoint is like that of a training before its first epoch; `export`
takes it. The network equals that of the source to the last constant: its mean
of images, its channel order, how it divides short vectors, and its whitening,
which is the last layer. Sources, see `sare_tf.weights`:

    openibl           hub model with PCA; checkpoints, with --pca beside them
    pytorch_netvlad   checkpoints of one GPU or several, also vladv2
    patch_netvlad     with its PCA; 16 or 64 clusters
    benchmark         deep-visual-geo-localization-benchmark: VGG16 and ResNet,
                      with NetVLAD or GeM
    dinov2            DINOv2's backbones, in its names or Hugging Face's; give
                      --aggregation
    netvlad_mat       NetVLAD's and deepIBL's networks as MATLAB structs
    netvlad_tf        the checkpoint of netvlad_tf_open, TensorFlow 1
    torchvision       its published backbones; give --aggregation
    keras             VGG16 of keras.applications, .h5 or .keras; give
                      --aggregation

Files of PyTorch may also be safetensors or .npz, with the same names of arrays.
Finally the network describes two images, and reports the length of the
descriptors; with a labelled folder, --dataset and --reader, also its recall.
"""

import hashlib
import tempfile
from pathlib import Path

import keras
import numpy as np
from absl import logging

from sare_tf import flags, model
from sare_tf.dataset.positives import find_positives
from sare_tf.evaluation import metrics
from sare_tf.records import building
from sare_tf.records.options import RecordOptions
from sare_tf.records.records import Records
from sare_tf.runtime import (
    atomic_files,
    callable_module,
    progress,
    run_lock,
    stage_results,
)
from sare_tf.search import exact_search
from sare_tf.training import datasets, run_folder
from sare_tf.weights import network_building, weight_files
from sare_tf.weights.imported_network import ImportedNetwork
from sare_tf.weights.options import ImportOptions

_FILES = {"config.json", "state.json", "epoch-0000"}
_RECALL_AT = (1, 5, 10)
_UNIT_TOLERANCE = 1e-3
# Height and width of the images that check a network in Python.
_CHECKED_SIZE = (224, 224)


def import_weights(
    source: str | Path,
    *,
    format: str = "auto",
    pca: str | Path | None = None,
    aggregation: str | None = None,
    whitening_dimension: int | None = None,
) -> keras.Model:
    """Makes a network of a file of weights that others trained.

    Args:
        source: the file; for netvlad_tf its prefix or folder.
        format: a name in `weights.formats.FORMATS`; auto: detected from the
            content.
        pca: the PCA beside a training of OpenIBL.
        aggregation: for a file that holds only a backbone: "gem", "mac",
            "rmac" or "spoc".
        whitening_dimension: None: whitened as the source is; 0: not whitened;
            else the first dimensions of its whitening.

    Returns:
        A model named "embedder": images, [B, H, W, 3], RGB, 0..255, to
        descriptors of unit length, [B, D]. Preprocessing and whitening are
        layers of it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is not understood as a whole, or a network
            whose descriptors are not of unit length.
    """
    network = weight_files.read(source, format_name=format, pca=pca)
    return _build(
        network,
        aggregation=aggregation,
        whitening_dimension=whitening_dimension,
        image_size=_CHECKED_SIZE,
    )


@run_lock.one_at_a_time("out")
def run(options: ImportOptions) -> Path:
    """Writes a checkpoint of trained weights.

    Args:
        options: the file (a folder or a prefix for netvlad_tf), its format, and
            the folder of the checkpoint, which is replaced if it holds an
            import. `aggregation` is for a file that holds only a backbone.
            With a `dataset`, a small labelled folder, the recall is reported.

    Returns:
        The folder of the checkpoint.

    Raises:
        FileNotFoundError: no such source or dataset.
        ValueError: a source that is not understood as a whole, a network whose
            descriptors are not of unit length, or a folder that holds something
            else.
    """
    out = Path(options.out)
    atomic_files.check_replaceable(out, names=_FILES)
    _check_imported(out)
    network = weight_files.read(
        options.source, format_name=options.format, pca=options.pca
    )
    embedder = _build(
        network,
        aggregation=options.aggregation,
        whitening_dimension=options.whitening_dimension,
        image_size=(options.image_height, options.image_width),
    )
    run_folder.write_untrained(
        out,
        _config(network, embedder, options),
        network=model.over_tuples(embedder),
    )
    lines, recall = describe(network, embedder), None
    if options.dataset is not None:
        line, recall = _measure_recall(embedder, options)
        lines.append(line)
    stage_results.report(
        "import_weights",
        "\n".join([*lines, f"Imported into {out}."]),
        path=out,
        format=network.source,
        backbone=network.backbone,
        dimension=embedder.output_shape[-1],
        recall_at=recall,
        next_command=f"python -m sare_tf.export --checkpoints={out} "
        "--export=...",
    )
    return out


def _build(
    network: ImportedNetwork,
    *,
    aggregation: str | None,
    whitening_dimension: int | None,
    image_size: tuple[int, int],
) -> keras.Model:
    """Builds the embedder, describes it, and checks its descriptors."""
    embedder = network_building.build(
        network,
        aggregation=aggregation,
        whitening_dimension=whitening_dimension,
    )
    height, width = image_size
    check_norms(embedder, height=height, width=width)
    return embedder


def _config(
    network: ImportedNetwork, embedder: keras.Model, options: ImportOptions
) -> dict:
    """Returns the settings that a checkpoint keeps."""
    whitening = embedder.layers[-1]
    whitened = isinstance(whitening, model.Whitening)
    aggregating = embedder.layers[-2 if whitened else -1]
    source = Path(options.source)
    return {
        "image_height": options.image_height,
        "image_width": options.image_width,
        "backbone": network.backbone,
        "aggregation": aggregating.name,
        "num_clusters": getattr(aggregating, "num_clusters", None),
        "records_fingerprint": None,
        "imported": {
            "source": source.name,
            "sha256": _digest(source),
            "format": network.source,
            "notes": list(network.notes),
        },
        "whitening": {
            "dimension": whitening.dimension,
            "fitted_to": "given by the source",
        }
        if whitened
        else None,
    }


def describe(network: ImportedNetwork, embedder: keras.Model) -> list[str]:
    """Describes an imported network in sentences.

    Args:
        network: the network, from `weight_files.read`.
        embedder: the embedder built of it.
    """
    settings = network.preprocessing
    order = "BGR" if settings.get("blue_first") else "RGB"
    lines = [
        f"Network: {network.source}, {network.backbone} to "
        f"{embedder.get_layer('backbone').layers[-1].name}; "
        f"{embedder.count_params():,} weights.",
        f"Images: {order}, 0..255, minus "
        f"{_numbers(settings['mean'])}, divided by "
        f"{_numbers(settings['deviation'])}.",
    ]
    for layer in embedder.layers:
        if isinstance(layer, model.NetVLAD):
            lines.append(
                f"NetVLAD: {layer.num_clusters} clusters, "
                f"{layer.output.shape[1]} dimensions, the assignment "
                f"{'with' if layer.use_bias else 'without'} a bias."
            )
        elif isinstance(layer, model.Whitening):
            lines.append(f"Whitening: to {layer.dimension} dimensions.")
        elif layer is embedder.layers[-1]:
            lines.append(
                f"Aggregation: {layer.name}, {layer.output.shape[1]} "
                "dimensions."
            )
    if not isinstance(embedder.layers[-1], model.Whitening):
        lines.append("Whitening: none; export can fit it to records.")
    return [*lines, *network.notes]


def check_norms(embedder: keras.Model, *, height: int, width: int) -> None:
    """Refuses a network whose descriptors are not of unit length.

    Args:
        embedder: the network.
        height: rows of the images that it describes.
        width: columns of the images.

    Raises:
        ValueError: names the length.
    """
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (2, height // 16 + 1, width // 16 + 1, 3))
    pictures = coarse.repeat(16, axis=1).repeat(16, axis=2)
    descriptors = _embed(
        embedder, pictures[:, :height, :width].astype(np.uint8)
    )
    norms = np.linalg.norm(descriptors, axis=1)
    if not (np.abs(norms - 1) <= _UNIT_TOLERANCE).all():
        raise ValueError(
            "Expected descriptors of length 1 from the imported network. "
            f"Received: {norms.tolist()}. The file is damaged."
        )
    logging.info(
        "Descriptors of two patterns have lengths %s and are %.3f apart.",
        _numbers(norms),
        np.linalg.norm(descriptors[0] - descriptors[1]),
    )


def _measure_recall(
    embedder: keras.Model, options: ImportOptions
) -> tuple[str, dict[int, float]]:
    """Returns the recall on a folder, all splits together, also in words."""
    with tempfile.TemporaryDirectory() as folder:
        built = building.build(
            options.part(RecordOptions, records=Path(folder) / "records")
        )
        records = Records(built)
        rows, descriptors = {}, {}
        for role in ("query", "database"):
            rows[role] = records.manifest[records.manifest["role"] == role]
            batches = datasets.image_dataset(
                records,
                rows[role],
                height=options.image_height,
                width=options.image_width,
                batch_size=options.batch_size,
            )
            with progress.over_images(role, total=len(rows[role])) as images:
                embedded = []
                for batch in batches:
                    embedded.append(_embed(embedder, batch))
                    images.advance(len(embedded[-1]))
            descriptors[role] = np.concatenate(embedded)
        positives = find_positives(
            rows["query"],
            rows["database"],
            rule=options.positives,
            radius_m=options.positive_radius_m,
            relations=records.relations,
        )
    ks = [k for k in _RECALL_AT if k <= len(rows["database"])]
    neighbours, _ = exact_search.nearest(
        descriptors["query"], descriptors["database"], max(ks)
    )
    recall = metrics.recall_at(neighbours, positives, ks)
    words = ", ".join(f"recall@{k} {value:.3f}" for k, value in recall.items())
    line = (
        f"{words} on {len(rows['query'])} queries and "
        f"{len(rows['database'])} database images of {options.dataset}. On "
        "Pitts30k-val expect recall@1 of about 0.8 or more; 0.01 means wrong "
        "preprocessing or weights."
    )
    return line, recall


def _embed(embedder: keras.Model, images) -> np.ndarray:
    """Embeds a batch without compiling, which takes longer than embedding."""
    return keras.ops.convert_to_numpy(embedder(images, training=False))


def _numbers(values) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in values) + ")"


def _digest(source: Path) -> str | None:
    """Returns the sha256 of a file; None for the files of TensorFlow 1."""
    if not source.is_file():
        return None
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_imported(out: Path) -> None:
    """Refuses to replace a training that has not gone beyond epoch 0."""
    if (out / "config.json").is_file():
        config = atomic_files.read_json(
            out / "config.json", made_by="import_weights"
        )
        if "imported" not in config:
            raise ValueError(
                "Expected a new folder, or an earlier import. Received: "
                f"out={str(out)!r}, which holds a training. Choose another "
                "--out."
            )


def main(argv) -> None:
    del argv
    run(ImportOptions.from_flags())


callable_module.make_callable(__name__, import_weights)

if __name__ == "__main__":
    flags.start(main)
