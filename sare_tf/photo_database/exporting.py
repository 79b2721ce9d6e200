"""The export of a pretrained network for a folder of photographs."""

import dataclasses
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from sare_tf.model import exported_graph, whitening
from sare_tf.model.exported_graph import ExportedGraph
from sare_tf.model.whitening import Whitening
from sare_tf.photo_database import network
from sare_tf.records.records import Records
from sare_tf.runtime import atomic_files, sealed_json
from sare_tf.training import datasets, export_folder

# Photographs that clusters and whitening are fitted to. Ours.
_MOST_SAMPLES = 500
_BATCH_SIZE = 8
# Both are fitted anew once there are so many times as many photographs.
_GROWTH = 2
# Numbers of a whitened descriptor, at most and at least. Directions in which
# the photographs vary less than this share of the largest are noise. Ours.
_DIMENSION = 256
_LEAST_DIMENSION = 16
_LEAST_VARIANCE = 1e-3


def is_current(export: Path, made_of: dict[str, Any], *, count: int) -> bool:
    """Returns whether an export is of a network, and fitted to enough.

    Args:
        export: folder of the versions, which may be absent.
        made_of: of `write`.
        count: photographs that there are.
    """
    try:
        card = sealed_json.read(
            export / "1" / "sare_tf.json",
            made_by="",
            types={"made_of": dict, "samples": int},
        )
    except (OSError, ValueError):
        return False
    if not (export / "1" / "saved_model.pb").is_file():
        return False
    return card["made_of"] == made_of and serves(card["samples"], count=count)


def serves(samples: int, *, count: int) -> bool:
    """Returns whether what was fitted to so many photographs serves `count`."""
    return min(count, _MOST_SAMPLES) < _GROWTH * samples


def write(
    export: Path, source: Path, records: Records, made_of: dict[str, Any]
) -> None:
    """Writes the export of a network, in place of an earlier one.

    Args:
        export: folder of the versions.
        source: the file of weights.
        records: the photographs.
        made_of: what tells this network from others, as JSON holds it.

    Raises:
        OSError: the export cannot be written.
        ValueError: the file is not understood.
    """
    rows = records.manifest
    if len(rows) > _MOST_SAMPLES:
        rows = rows.sample(_MOST_SAMPLES, random_state=0).sort_index()

    def images(height: int, width: int) -> Iterable:
        return datasets.image_dataset(
            records, rows, height=height, width=width, batch_size=_BATCH_SIZE
        )

    aspect = float(np.median(rows["width"] / rows["height"]))
    logging.info("Making the network of %s.", source.name)
    embedder, (height, width), about = network.build(
        source, images, aspect=aspect
    )
    graph = exported_graph.of_embedder(
        embedder,
        height=height,
        width=width,
        scales=(1.0,),
        whitening=None,
        truncate_dimension=0,
    )
    if "aggregation" in about:
        fitted = fit_whitening(graph, images(height, width))
        if fitted is not None:
            graph = dataclasses.replace(graph, whitening=fitted)
    card = {
        "made_of": made_of,
        "network": {**about, "dimension": graph.dimension},
        "samples": len(rows),
    }
    with atomic_files.explained_writing("the network", export):
        shutil.rmtree(export, ignore_errors=True)
        try:
            export_folder.write_version(graph, export, card)
        except tf.errors.OpError as error:
            raise OSError(error.message) from error


def fit_whitening(graph: ExportedGraph, images: Iterable) -> Whitening | None:
    """Fits whitening to photographs, to half as many numbers or fewer.

    Args:
        graph: without whitening.
        images: batches of photographs.

    Returns:
        None if too few of the photographs differ.
    """
    descriptors = np.concatenate(
        [
            graph.embed_function(tf.cast(batch, tf.float32))["descriptor"]
            for batch in images
        ]
    )
    # Copies of photographs say nothing of how photographs differ.
    _, distinct = np.unique(descriptors.round(3), axis=0, return_index=True)
    descriptors = descriptors[np.sort(distinct)]
    samples, length = descriptors.shape
    dimension = min(_DIMENSION, samples // 2, length)
    if dimension < _LEAST_DIMENSION:
        return None
    fitted = whitening.fit(descriptors, dimension)
    variances = fitted.eigenvalues
    kept = int((variances > _LEAST_VARIANCE * variances[0]).sum())
    if kept < _LEAST_DIMENSION:
        return None
    layer = Whitening(kept, trainable=False, name="whitening")
    layer.assign(
        dataclasses.replace(
            fitted,
            projection=fitted.projection[:, :kept],
            eigenvalues=variances[:kept],
        )
    )
    logging.info(
        "Whitened descriptors to %d numbers, by %d photographs.", kept, samples
    )
    return layer
