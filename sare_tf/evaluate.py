"""index/ + the queries of records/ -> metrics.json, queries.csv, report.html.

    python -m sare_tf.evaluate --flagfile=configs/demo.flags

What is measured is a protocol, `--protocol`; metrics and page say in words
which. Recall is measured by exact search, so that it speaks of the model alone;
what the index's ScaNN search loses against it is measured beside. Descriptors
of the database are read in blocks, so that memory does not grow with it.
"""

import dataclasses
import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from absl import logging

from sare_tf import flags, serving
from sare_tf.dataset.positives import choose_rule
from sare_tf.evaluation import ground_truth, metrics, protocols, query_results
from sare_tf.evaluation.options import EvaluationOptions
from sare_tf.pages import evaluation_page
from sare_tf.records.records import Records
from sare_tf.runtime import atomic_files, versions
from sare_tf.search import embedding, exact_search
from sare_tf.search.opened_index import Index

_FILES = {"metrics.json", "queries.csv", "report.html"}
# Neighbours by which approximate search is compared with exact search.
_COMPARED = 10
# Recall@N is measured for every N up to this, or up to the database.
_CURVE = 100


def run(options: EvaluationOptions) -> Path:
    """Evaluates an export on the queries of a split.

    Args:
        options: the index of that split, the records and the export that it
            was built from, and what is evaluated. The N of recall@N above the
            number of database images are left out with a warning, and listed
            in the metrics.

    Returns:
        The path of metrics.json.

    Raises:
        FileNotFoundError: an input is absent or unfinished.
        ValueError: inputs that do not belong together or lack what the
            protocol needs, no query with a positive, or a folder of results
            that holds something else.
    """
    out = Path(options.evaluation)
    split = options.split
    atomic_files.check_replaceable(out, names=_FILES)
    opened = Records(options.records)
    search = Index.open(options.index_paths, exact=options.exact_search)
    search.check_records(opened, split=split)
    servable = serving.load(serving.named(options))
    search.check_export(servable)
    queries = opened.rows(split, "query")
    database = search.manifest
    relations = opened.relations
    protocol = options.protocol
    if protocol == "auto":
        protocol = choose_rule(
            queries, database, rule=options.positives, relations=relations
        )
    chosen = protocols.choose(
        protocol,
        radius_m=options.positive_radius_m,
        frames=options.positive_frames,
        heading_deg=options.positive_heading_deg,
        subtask=options.msls_subtask,
    )
    logging.info("Protocol %s. %s", chosen.name, protocols.describe(chosen))
    queries = queries[ground_truth.asked(chosen, queries)]
    judged = ground_truth.judge(chosen, queries, database, relations=relations)
    searched = len(database)
    if judged.allowed is not None:
        searched = int(judged.allowed.sum())
    ks, left_out = _choose_ks(options.recall_at, searched)
    without = _check_positives(chosen, queries, judged)

    logging.info("Embedding %d queries of %s.", len(queries), split)
    began = time.perf_counter()
    descriptors = embedding.embed(
        servable,
        opened.read_images(queries),
        queries["image_id"].tolist(),
        batch_size=options.batch_size,
    )
    speed = {"embed_seconds": time.perf_counter() - began}
    depth = min(searched, max(*ks, _CURVE, *chosen.mean_average_precision_at))
    began = time.perf_counter()
    found, distances = exact_search.nearest(
        descriptors,
        search.descriptors,
        min(searched, ground_truth.depth(chosen, judged, depth)),
        allowed=judged.allowed,
    )
    speed["exact_search_seconds"] = time.perf_counter() - began
    compared = _compare_search(
        search, descriptors, distances, speed, judged, depth
    )
    results = query_results.Outcomes(
        queries=queries,
        database=database,
        descriptors=descriptors,
        database_descriptors=search.descriptors,
        judged=judged,
        ranking=ground_truth.rank(judged, found, distances, depth),
        full_ranking=chosen.full_ranking,
        average_precision_at=chosen.mean_average_precision_at,
        place_radius_m=options.positive_radius_m,
    )
    figures = results.figures(ks)
    metrics = {
        "recall_at": figures.pop("recall_at"),
        "recall_at_left_out": left_out,
        "split": split,
        "protocol": {
            "name": chosen.name,
            "definition": protocols.describe(chosen),
            "used_by": chosen.used_by,
            "parameters": dataclasses.asdict(chosen),
        },
        "counts": {
            "queries": len(queries),
            "queries_without_positive": without,
            "queries_counted": int(judged.counted.sum()),
            "database": searched,
        },
        **figures,
        "dimension": servable.dimension,
        "search": compared,
        "speed": speed,
        "database_digest": _digest(database["image_id"]),
        "export_fingerprint": servable.fingerprint,
        "records_fingerprint": opened.fingerprint,
        "versions": versions.of("tensorflow", "scann", "numpy"),
    }
    with atomic_files.folder_in_one_piece(out) as folder:
        atomic_files.write_json(folder / "metrics.json", metrics)
        results.table().to_csv(folder / "queries.csv", index=False)
        evaluation_page.write(
            folder / "report.html",
            metrics=metrics,
            places=results.places(),
            cases=results.cases(opened),
        )
    logging.info(
        "%s. Metrics in %s; look at %s. To compare with another evaluation: "
        "python -m sare_tf.compare ANOTHER %s",
        ", ".join(
            f"recall@{k} {v:.3f}" for k, v in metrics["recall_at"].items()
        ),
        out / "metrics.json",
        out / "report.html",
        out,
    )
    return out / "metrics.json"


def _choose_ks(
    recall_at: Sequence[int], database_size: int
) -> tuple[list[int], list[int]]:
    ks = sorted(set(recall_at))
    left_out = [k for k in ks if k > database_size]
    ks = [k for k in ks if k <= database_size]
    if not ks:
        raise ValueError(
            f"Expected an N of recall@N of at most {database_size}, the "
            f"images of the database. Received: recall_at={left_out}."
        )
    if left_out:
        logging.warning(
            "Left out recall@N for N=%s: the database has %d images.",
            left_out,
            database_size,
        )
    return ks, left_out


def _check_positives(
    protocol: protocols.Protocol,
    queries: pd.DataFrame,
    judged: ground_truth.Truth,
) -> int:
    """Counts queries without a positive, and tells of them."""
    without = [
        row for row, rows in enumerate(judged.positives) if not len(rows)
    ]
    if len(without) == len(queries) or not judged.counted.any():
        raise ValueError(
            "Expected queries with positives in the database. Received: none "
            f"of {len(queries)} queries has one. Check --protocol, "
            "--positives, --positive_radius_m and the places or coordinates "
            "of the images."
        )
    if without:
        logging.warning(
            "%d of %d queries have no positive in the database and %s "
            "(positives is 0 in queries.csv): %s%s",
            len(without),
            len(queries),
            "are left out" if protocol.leaves_out else "count as misses",
            ", ".join(queries["image_id"].iloc[without[:3]]),
            " ..." if len(without) > 3 else "",
        )
    return len(without)


def _compare_search(
    index: Index,
    descriptors: np.ndarray,
    exact: np.ndarray,
    speed: dict[str, float],
    judged: ground_truth.Truth,
    depth: int,
) -> dict[str, Any]:
    """How much of exact search the index's own search finds, and how fast.

    Adds the seconds of search and queries per second to `speed`.

    Args:
        index: the index.
        descriptors: float32 [Q, D].
        exact: float32 [Q, k], squared distances of exact search.
        speed: seconds of embedding and of exact search.
        judged: which rows are right.
        depth: N up to which the protocol's recall is measured.
    """
    k = min(_COMPARED, exact.shape[1])
    compared = {
        "metrics": "exact",
        "index": index.searches_with,
        "k": k,
        "recall_of_exact": None,
        "recall_curve": None,
    }
    speed["search_seconds"] = speed["exact_search_seconds"]
    if index.searches_with == "scann":
        began = time.perf_counter()
        _, distances = index.search(descriptors, k)
        speed["search_seconds"] = time.perf_counter() - began
        # The index knows nothing of a database that is searched in part.
        if judged.allowed is None or judged.allowed.all():
            compared["recall_of_exact"] = exact_search.recall_of_search(
                distances, exact[:, :k]
            )
            # The protocol's recall, of what this search finds.
            found = index.search(descriptors, exact.shape[1])
            rows, _ = ground_truth.rank(judged, *found, depth)
            ranks = metrics.first_rank(
                exact_search.hits(rows, judged.positives)
            )
            every = range(1, rows.shape[1] + 1)
            within = metrics.within(ranks[judged.counted], every)
            compared["recall_curve"] = within.mean(axis=0).tolist()
    seconds = speed["embed_seconds"] + speed["search_seconds"]
    speed["queries_per_second"] = len(descriptors) / seconds
    return compared


def _digest(image_ids: pd.Series) -> str:
    """Names the set of database images, for comparisons."""
    digest = hashlib.sha256()
    for name in sorted(image_ids):
        digest.update(name.encode() + b"\0")
    return digest.hexdigest()


def main(argv) -> None:
    del argv
    run(EvaluationOptions.from_flags())


if __name__ == "__main__":
    flags.start(main)
