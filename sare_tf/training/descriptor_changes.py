"""What precision and shortening change of an export's descriptors.

A sample of one split is embedded in float32 and whole, and then as the export
does it, step by step: in its precision, whitened, truncated. Each step is
compared with the descriptors in float32.
"""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
from absl import logging
from keras import ops

from sare_tf.dataset.positives import find_positives
from sare_tf.evaluation import metrics
from sare_tf.model.exported_graph import ExportedGraph
from sare_tf.records.records import Records
from sare_tf.search import exact_search
from sare_tf.training import whitening_fit
from sare_tf.training.options import ExportOptions

RECALL_AT = (1, 5, 10)
# Share of the images that may be queries with their positives; the others are
# database images at random, among which the positives must be found.
_QUERIES_AND_POSITIVES = 0.5
# Descriptors that are whitened at a time.
_BLOCK = 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """Images to measure on.

    Attributes:
        queries: manifest rows of Q queries.
        database: manifest rows of N database images.
        positives: for each query, the rows of `database` that show its place.
    """

    queries: pd.DataFrame
    database: pd.DataFrame
    positives: list[np.ndarray]


def measure(
    graph: ExportedGraph,
    reference: ExportedGraph,
    *,
    records: Records | None,
    options: ExportOptions,
    config: dict[str, Any],
) -> dict[str, Any] | None:
    """Measures a graph that does not give whole descriptors in float32.

    Args:
        graph: what is exported.
        reference: the same network in float32, without whitening or truncation.
        records: with the split to measure on.
        options: of the export.
        config: of the training, which names the rule of positives.

    Returns:
        The entry of `sare_tf.json`; None if nothing was measured. What was
        measured is also logged.
    """
    if options.measured_images == 0 or not _is_changed(graph, reference):
        return None
    try:
        sample = _sample(records, options, config)
    except ValueError as error:
        logging.warning(
            "The change of descriptors is not measured. %s Or give "
            "--measured_images=0.",
            error,
        )
        return None
    steps = [
        _compared(name, pair, whole, sample)
        for name, pair, whole in _steps(
            graph, reference, records, sample, options.batch_size
        )
    ]
    for line in as_text(steps):
        logging.info("%s", line)
    return {
        "split": options.measured_split,
        "queries": len(sample.queries),
        "database": len(sample.database),
        "steps": steps,
    }


def as_text(steps: list[dict[str, Any]]) -> list[str]:
    """Returns one line for each step."""
    lines = []
    for step in steps:
        recall = ", ".join(
            f"recall@{k} {value:.3f}" for k, value in step["recall_at"].items()
        )
        line = f"{step['descriptor']}, {step['numbers']} numbers: {recall}"
        if step is not steps[0]:
            line += (
                f"; the same first neighbour for {step['same_first']:.1%} of "
                f"the queries, {step['shared_neighbours']:.1%} of the nearest "
                f"{step['neighbours']}"
            )
            if "cosine_min" in step:
                line += f"; cosine with float32 at least {step['cosine_min']}"
        lines.append(f"{line}.")
    return lines


def _is_changed(graph: ExportedGraph, reference: ExportedGraph) -> bool:
    return (
        graph.embedder is not reference.embedder
        or graph.dimension != reference.dimension
        or graph.whitening is not None
    )


def _sample(records, options, config) -> Sample:
    """Draws queries with their positives, and other database images.

    Raises:
        ValueError: no records, or none of such a split, or images without what
            the rule of positives needs.
    """
    if records is None:
        raise ValueError(
            "Expected records to measure on. Received: records=None."
        )
    queries = records.rows(options.measured_split, "query")
    database = records.rows(options.measured_split, "database")
    positives = find_positives(
        queries,
        database,
        rule=config.get("positives", "auto"),
        radius_m=config.get("positive_radius_m", 25.0),
        relations=records.relations,
    )
    count = options.measured_images
    if len(queries) + len(database) > count:
        rng = np.random.default_rng(options.seed)
        chosen, rows = _drawn(rng, positives, count * _QUERIES_AND_POSITIVES)
        others = np.setdiff1d(np.arange(len(database)), rows)
        more = min(max(count - len(chosen) - len(rows), 0), len(others))
        rows = np.union1d(rows, rng.choice(others, more, replace=False))
        positives = [
            np.searchsorted(rows, positives[query]) for query in chosen
        ]
        queries, database = queries.iloc[chosen], database.iloc[rows]
    return Sample(queries=queries, database=database, positives=positives)


def _drawn(rng, positives, most) -> tuple[np.ndarray, np.ndarray]:
    """Draws queries, and all their positives: ascending positions."""
    chosen, rows = [], np.empty(0, np.int64)
    for query in rng.permutation(len(positives)):
        both = np.union1d(rows, positives[query])
        if chosen and len(chosen) + 1 + len(both) > most:
            break
        chosen.append(query)
        rows = both
    return np.sort(np.asarray(chosen, np.int64)), rows


def _steps(graph, reference, records, sample, batch_size):
    """Yields name, descriptors and float32 ones, each of both roles."""

    def embed(of: ExportedGraph):
        # Both roles at once: each call traces the graph anew.
        rows = pd.concat([sample.queries, sample.database])
        descriptors = whitening_fit.embed(
            of, records, rows, batch_size=batch_size, name="measuring"
        )
        return np.split(descriptors, [len(sample.queries)])

    whole = pair = embed(reference)
    yield "float32", pair, whole
    if graph.embedder is not reference.embedder:
        plain = dataclasses.replace(reference, embedder=graph.embedder)
        pair = embed(plain)
        yield plain.precision, pair, whole
    if graph.whitening is not None:
        pair = [_whitened(graph.whitening, rows) for rows in pair]
        yield "whitened", pair, whole
    if graph.truncate_dimension:
        pair = [_truncated(rows, graph.truncate_dimension) for rows in pair]
        yield "truncated", pair, whole


def _whitened(layer, descriptors) -> np.ndarray:
    return np.concatenate(
        [
            ops.convert_to_numpy(layer(descriptors[start : start + _BLOCK]))
            for start in range(0, len(descriptors), _BLOCK)
        ]
    )


def _truncated(descriptors, dimension) -> np.ndarray:
    first = descriptors[:, :dimension]
    return first / np.sqrt(np.sum(first**2, axis=1, keepdims=True) + 1e-12)


def _compared(name, pair, whole, sample) -> dict[str, Any]:
    """Compares descriptors of queries and database with whole ones."""
    depth = min(max(RECALL_AT), len(sample.database))
    found, expected = (
        exact_search.nearest(*each, depth)[0] for each in (pair, whole)
    )
    shared = [
        len(np.intersect1d(a, b)) / depth
        for a, b in zip(found, expected, strict=True)
    ]
    ks = [k for k in RECALL_AT if k <= depth]
    recall = metrics.recall_at(found, sample.positives, ks)
    step = {
        "descriptor": name,
        "numbers": pair[0].shape[1],
        "recall_at": {str(k): round(value, 4) for k, value in recall.items()},
        "neighbours": depth,
        "same_first": round(float(np.mean(found[:, 0] == expected[:, 0])), 4),
        "shared_neighbours": round(float(np.mean(shared)), 4),
    }
    if pair[0].shape == whole[0].shape and name != "whitened":
        cosines = np.concatenate(
            [np.sum(a * b, axis=1) for a, b in zip(pair, whole, strict=True)]
        )
        step["cosine_min"] = round(float(cosines.min()), 6)
        step["cosine_mean"] = round(float(cosines.mean()), 6)
    return step
