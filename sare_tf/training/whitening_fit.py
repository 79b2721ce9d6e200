"""Fits whitening to the descriptors of training images."""

import itertools
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf
from absl import logging

from sare_tf.dataset.positives import find_positives
from sare_tf.model import learned_whitening, whitening
from sare_tf.model.exported_graph import ExportedGraph
from sare_tf.records.records import Records
from sare_tf.runtime import progress
from sare_tf.training.options import ExportOptions


def check(
    options: ExportOptions,
    config: dict[str, Any],
    *,
    records: Records | None,
    imported: whitening.Whitening | None,
) -> None:
    """Refuses to whiten twice, or to fit to other images than were trained on.

    Args:
        options: of the export.
        config: of the training.
        records: to fit to.
        imported: the whitening that the network has already.

    Raises:
        ValueError: a network that is whitened, or no records or other ones.
    """
    if imported is not None:
        raise ValueError(
            "Expected whitening_dimension=0 for an imported network that is "
            "whitened already. Received: whitening_dimension="
            f"{options.whitening_dimension}. Leave --whitening_dimension out, "
            "or import with "
            f"--whitening_dimension={options.whitening_dimension} or 0."
        )
    if records is None:
        raise ValueError(
            "Expected the records that were trained on, to fit whitening to. "
            "Received: records=None. Give --records, or "
            "--whitening_dimension=0."
        )
    several = config.get("train_fingerprints")
    expected = several or [config["records_fingerprint"]]
    if records.fingerprint not in expected and not options.allow_other_records:
        known = " or ".join(
            each[:12] if each else "unknown" for each in expected
        )
        raise ValueError(
            "Expected the records that were trained on, with fingerprint "
            f"{known}. Received: records={str(records.path)!r} with "
            f"{records.fingerprint[:12]}. Name the other ones, or give "
            "--allow_other_records to fit whitening to these."
        )


def fit(
    graph: ExportedGraph,
    records: Records,
    options: ExportOptions,
    config: dict[str, Any],
) -> tuple[whitening.Whitening, dict[str, Any]]:
    """Fits whitening to database images or to pairs, as the options say.

    Args:
        graph: without whitening; computes the descriptors.
        records: of the images that the network was trained on.
        options: of the export.
        config: of the training.

    Returns:
        The layer, and its entry in `sare_tf.json`.

    Raises:
        ValueError: as of `to_records` and `to_pairs`.
    """
    if options.whitening_pairs:
        return to_pairs(graph, records, options, config)
    return to_records(
        graph,
        records,
        dimension=options.whitening_dimension,
        samples=options.whitening_samples,
        batch_size=options.batch_size,
        seed=options.seed,
    )


def to_records(
    graph: ExportedGraph,
    records: Records,
    *,
    dimension: int,
    samples: int,
    batch_size: int,
    seed: int,
) -> tuple[whitening.Whitening, dict[str, Any]]:
    """Fits whitening to the database images of the train split.

    Args:
        graph: without whitening; computes the descriptors.
        records: of the images that the network was trained on.
        dimension: length of the whitened descriptors.
        samples: how many images to take at random, if there are more.
        batch_size: images to embed at a time.
        seed: of the choice of images.

    Returns:
        The layer, and its entry in `sare_tf.json`.

    Raises:
        ValueError: too few images for the dimension, or an image that cannot be
            decoded.
    """
    database = records.rows("train", "database")
    count = min(samples, len(database))
    whitening.check(count, graph.dimension, dimension)
    rng = np.random.default_rng(seed)
    sample = np.sort(rng.choice(len(database), count, replace=False))
    logging.info(
        "Whitening to %d dimensions, fitted to %d of the %d database images "
        "of train.",
        dimension,
        count,
        len(database),
    )
    rows = database.iloc[sample]
    descriptors = embed(
        graph, records, rows, batch_size=batch_size, name="whitening"
    )
    fitted = whitening.fit(descriptors, dimension)
    layer = whitening.Whitening(dimension, name="whitening")
    layer.assign(fitted)
    return layer, {
        "dimension": dimension,
        "samples": count,
        "explained_variance": round(fitted.explained_variance, 6),
        "fitted_to": "database images of the train split",
        "records_fingerprint": records.fingerprint,
        "seed": seed,
    }


def to_pairs(
    graph: ExportedGraph,
    records: Records,
    options: ExportOptions,
    config: dict[str, Any],
) -> tuple[whitening.Whitening, dict[str, Any]]:
    """Learns whitening from pairs of a query and a positive of the train split.

    Of each query that is drawn, one positive is drawn.

    Args:
        graph: without whitening; computes the descriptors.
        records: of the images that the network was trained on.
        options: of the export, which say how many images are drawn.
        config: of the training, which names the rule of positives.

    Returns:
        The layer, and its entry in `sare_tf.json`.

    Raises:
        ValueError: no pairs, too few images for the dimension, or an image that
            cannot be decoded.
    """
    queries = records.rows("train", "query")
    database = records.rows("train", "database")
    positives = find_positives(
        queries,
        database,
        rule=config.get("positives", "auto"),
        radius_m=config.get("train_positive_radius_m", 10.0),
        relations=records.relations,
    )
    rng = np.random.default_rng(options.seed)
    asked = np.flatnonzero([len(rows) > 0 for rows in positives])
    count = min(options.whitening_samples // 2, len(asked))
    asked = np.sort(rng.choice(asked, count, replace=False))
    drawn = np.array([rng.choice(positives[query]) for query in asked], int)
    rows, places = np.unique(drawn, return_inverse=True)
    dimension = options.whitening_dimension
    whitening.check(count + len(rows), graph.dimension, dimension)
    logging.info(
        "Whitening to %d dimensions, learned from %d pairs of train.",
        dimension,
        count,
    )
    descriptors = embed(
        graph,
        records,
        pd.concat([queries.iloc[asked], database.iloc[rows]]),
        batch_size=options.batch_size,
        name="whitening",
    )
    pairs = np.stack([np.arange(count), count + places], axis=1)
    fitted = learned_whitening.fit_pairs(descriptors, pairs, dimension)
    layer = whitening.Whitening(dimension, name="whitening")
    layer.assign(fitted)
    return layer, {
        "dimension": dimension,
        "samples": len(descriptors),
        "explained_variance": round(fitted.explained_variance, 6),
        "fitted_to": f"{count} pairs of a query and a positive of the train "
        "split",
        "records_fingerprint": records.fingerprint,
        "seed": options.seed,
    }


def embed(
    graph: ExportedGraph,
    records: Records,
    rows: pd.DataFrame,
    *,
    batch_size: int,
    name: str,
) -> np.ndarray:
    """Computes descriptors by the exported graph.

    Args:
        graph: the graph.
        records: with the images.
        rows: N rows of their manifest.
        batch_size: images to embed at a time.
        name: of the pass, for its progress.

    Returns:
        float32 [N, D].

    Raises:
        ValueError: an image cannot be decoded; names it.
    """
    descriptors = np.empty((len(rows), graph.dimension), np.float32)
    serve = graph.function()
    images = records.read_images(rows)
    with progress.over_images(name, total=len(rows)) as embedded:
        for start in range(0, len(rows), batch_size):
            batch = list(itertools.islice(images, batch_size))
            outputs = serve(tf.constant(batch))
            valid = outputs["valid"].numpy()
            if not valid.all():
                image_id = rows["image_id"].iloc[start + int(valid.argmin())]
                raise ValueError(
                    "Expected images that can be decoded. Received: "
                    f"{image_id}. The records are damaged: build them again."
                )
            descriptors[start : start + len(batch)] = outputs["descriptor"]
            embedded.advance(len(batch))
    return descriptors
