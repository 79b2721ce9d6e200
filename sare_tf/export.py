"""checkpoints/ -> export/<version>/: a SavedModel for TF Serving.

    python -m sare_tf.export --flagfile=sare_tf:demo

In Python, the module is also a function, which exports a network that was
trained by `fit`:

    sare_tf.export(embedder, "runs/mine/export", height=480, width=640)

`sare_tf.model.exported_graph` describes the two signatures of the SavedModel:
encoded images in, descriptors out. Beside it `sare_tf.json` describes the
export, and `assets.extra/` holds requests for TF Serving to warm up with.

`--export_precision` lets the backbone compute in half precision. The stage
measures on a split of the records what precision, whitening and truncation
change: recall, neighbours and descriptors (`--measured_images`); it logs that,
and `sare_tf.json` holds it.

The stage fits whitening to database images of the train split as the original
code's addPCA.m does it; OpenIBL samples queries, too. An imported network may
bring its own.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
from absl import logging

from sare_tf import flags, model
from sare_tf.model import exported_graph
from sare_tf.model.exported_graph import ExportedGraph
from sare_tf.model.precision import with_precision
from sare_tf.records.records import Records
from sare_tf.runtime import (
    callable_module,
    flagfiles,
    paths,
    run_lock,
    stage_results,
)
from sare_tf.training import (
    descriptor_changes,
    epoch_choice,
    export_folder,
    whitening_fit,
)
from sare_tf.training.options import ExportOptions
from sare_tf.training.run_folder import load_embedder, read_state


def export(
    embedder: keras.Model,
    path: str | Path,
    *,
    height: int | None = None,
    width: int | None = None,
    scales: Sequence[float] = (1.0,),
    whitening: model.Whitening | None = None,
    truncate_dimension: int | None = None,
) -> Path:
    """Exports an embedder as a SavedModel for TF Serving.

    This is what the stage `export` writes of a training run. The embedder is
    not changed; under a mixed dtype policy, a copy that computes in float32 is
    exported. `with_precision` makes a model that computes in half precision.

    Args:
        embedder: a model of `build_embedder` or `load_embedder`, or any other
            model of images to descriptors of unit length.
        path: folder of the versions. The new one is the highest plus 1.
        height: rows that images are resized to, in pixels; None: as many as
            the network was published with.
        width: columns that images are resized to, in pixels; None: as many as
            the network was published with.
        scales: sizes at which an image is embedded, relative to `height` and
            `width`; the descriptors are averaged.
        whitening: a layer of `fit_whitening`, which shortens the descriptors.
        truncate_dimension: how many of a descriptor's first numbers to keep,
            after whitening; None for all.

    Returns:
        The folder of the new version, such as `runs/mine/export/1`, which
        appears when it is complete. `load_export` takes `path`.

    Raises:
        ValueError: a model of other shapes or whose descriptors are not of unit
            length, whitening that was fitted to other descriptors or of an
            embedder that has a whitening, scales that are not positive, more
            numbers to keep than a descriptor has, or a size that the embedder
            does not take.
    """
    graph = exported_graph.of_embedder(
        embedder,
        height=height,
        width=width,
        scales=scales,
        whitening=whitening,
        truncate_dimension=truncate_dimension or 0,
    )
    whitened = graph.whitening and {
        "dimension": graph.whitening.dimension,
        "fitted_to": "given to export" if whitening else "in the embedder",
    }
    training = dict.fromkeys(
        (
            "checkpoint",
            "epoch_choice",
            "measured",
            "validation",
            "training",
            "training_images",
        )
    )
    path = paths.expand(path)
    with run_lock.only_run(path):
        return export_folder.write_version(
            graph,
            Path(path),
            {"whitening": whitened, "licence": None, **training},
        )


@run_lock.one_at_a_time("export")
def run(options: ExportOptions) -> Path:
    """Writes the next version of an export of a training run.

    Args:
        options: the folder of the run, and the folder of the versions; the new
            one is the highest plus 1. The records are those that were trained
            on: whitening needs them, and `sare_tf.json` counts their images.
            The descriptors that whitening is fitted to are held in memory, 4
            bytes a number; `whitening.fit` states what it adds.

    Returns:
        The folder of the new version.

    Raises:
        FileNotFoundError: no such checkpoint or records.
        ValueError: another network than the checkpoint's, records that are
            missing or that were not trained on, too few images for the
            whitening or a network that is whitened already, more numbers to
            keep than a descriptor has, or scales that are not positive.
    """
    config, state = read_state(options.checkpoints)
    _check_network(options, config)
    epoch = options.epoch or state["best"]
    reference, imported = _float32_graph(options, config, epoch)
    graph = dataclasses.replace(reference, whitening=imported)
    if options.export_precision != "float32":
        lowered = with_precision(graph.embedder, options.export_precision)
        graph = dataclasses.replace(graph, embedder=lowered)
    exported_graph.check_truncation(
        options.truncate_dimension,
        options.whitening_dimension or graph.dimension,
    )
    records = _open_records(options)
    whitened = config["whitening"] if imported else None
    if options.whitening_dimension:
        whitening_fit.check(options, config, records=records, imported=imported)
        layer, whitened = whitening_fit.fit(graph, records, options, config)
        graph = dataclasses.replace(graph, whitening=layer)
    graph = dataclasses.replace(
        graph, truncate_dimension=options.truncate_dimension
    )
    measured = descriptor_changes.measure(
        graph, reference, records=records, options=options, config=config
    )
    counts = None
    if records and records.fingerprint == config["records_fingerprint"]:
        counts = records.metadata["counts"]
    choice = epoch_choice.describe(state, epoch)
    version = export_folder.write_version(
        graph,
        Path(options.export),
        {
            "whitening": whitened,
            "measured": measured,
            "licence": options.model_licence,
            "checkpoint": epoch,
            "validation": state["history"][_number(epoch)],
            "epoch_choice": choice,
            "training": config,
            "training_images": counts,
        },
    )
    for warning in choice["warnings"]:
        logging.warning("%s", warning)
    stage_results.report(
        "export",
        f"Exported {epoch} of {options.checkpoints} to {version}.",
        path=version,
        epoch=epoch,
        dimension=options.truncate_dimension or graph.dimension,
        next_command=flagfiles.next_command("index"),
    )
    return version


def _float32_graph(
    options: ExportOptions, config: dict[str, Any], epoch: str
) -> tuple[ExportedGraph, model.Whitening | None]:
    """The graph without whitening, and the whitening of an imported network."""
    embedder, imported = exported_graph.split_whitening(
        load_embedder(options.checkpoints, epoch=epoch)
    )
    graph = ExportedGraph(
        embedder=embedder,
        height=config["image_height"],
        width=config["image_width"],
        scales=options.scales,
    )
    return graph, imported


def _open_records(options: ExportOptions) -> Records | None:
    path = options.records
    if not path or not (options.whitening_dimension or Path(path).is_dir()):
        # A checkpoint that came without its records can be exported, too.
        return None
    return Records(path)


def _number(epoch: str) -> int:
    return int(epoch.removeprefix("epoch-"))


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


callable_module.make_callable(__name__, export)

if __name__ == "__main__":
    flags.start(main)
