"""The export of a pretrained network for a folder of photographs."""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from sare_tf.model import exported_graph
from sare_tf.photo_database import network
from sare_tf.records.records import Records
from sare_tf.runtime import atomic_files, sealed_json
from sare_tf.training import datasets, export_folder

# Photographs in which clusters are found, of 100 locations each, and how many
# are described at a time. Ours.
_MOST_SAMPLES = 250
_BATCH_SIZE = 8
# Clusters are found anew once there are so many times as many photographs.
_GROWTH = 4


def is_current(export: Path, made_of: dict[str, Any], *, count: int) -> bool:
    """Returns whether an export is of a network, and its clusters serve.

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
    return card["made_of"] == made_of and serves(card["samples"], count=count)


def serves(samples: int, *, count: int) -> bool:
    """Returns whether the clusters of so many photographs serve `count`."""
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
    card = {"made_of": made_of, "network": about, "samples": len(rows)}
    with atomic_files.explained_writing("the network", export):
        shutil.rmtree(export, ignore_errors=True)
        try:
            export_folder.write_version(graph, export, card)
        except tf.errors.OpError as error:
            raise OSError(error.message) from error
