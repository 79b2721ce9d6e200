"""index/ + the queries of records/ -> metrics.json, queries.csv, report.html.

    python -m sare_tf.evaluate --flagfile=configs/demo.flags

Recall is measured by exact search, so that it speaks of the model alone; what
the index's ScaNN search loses against it is measured beside.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from absl import flags, logging

from sare_tf import files, manifest, report, retrieval, serving
from sare_tf import flags as stage_flags
from sare_tf import index as index_stage
from sare_tf.records import Records

FLAGS = flags.FLAGS
_FILES = {"metrics.json", "queries.csv", "report.html"}
# Neighbours by which approximate search is compared with exact search.
_COMPARED = 10
# Retrieved images of a query, and queries of a section, on the page.
_SHOWN = 5
_CASES = 8


def run(
    *,
    index: str | Path,
    records: str | Path,
    export: str | Path,
    out: str | Path,
    split: str = "test",
    recall_at: Sequence[int] = (1, 5, 10, 20),
    positives: str = "auto",
    positive_radius_m: float = 25.0,
    batch_size: int = 32,
    exact: bool = False,
) -> Path:
    """Evaluates an export on the queries of a split.

    Args:
        index: folder of the index of that split, records and export.
        records: folder of `build_records`.
        export: folder of `export`, or of one of its versions.
        out: folder of the results; replaced if it holds some.
        split: whose queries are looked up.
        recall_at: the N of recall@N. Those above the number of database images
            are left out with a warning and listed in the metrics.
        positives: rule of `manifest.positives`: auto, radius or place.
        positive_radius_m: for the radius rule, inclusive.
        batch_size: images embedded at a time.
        exact: do not measure ScaNN.

    Returns:
        The path of metrics.json.

    Raises:
        FileNotFoundError: an input is absent or unfinished.
        ValueError: inputs that do not belong together, no query with a
            positive, or an `out` that holds something else.
    """
    out = Path(out)
    index_stage.check_replaceable(out, names=_FILES)
    opened = Records(records)
    search = index_stage.Index.open(index, exact=exact)
    _check_records(search, opened, split)
    servable = serving.load(export)
    search.check_export(servable)
    queries = opened.rows(split, "query")
    database = search.manifest
    ks, left_out = _choose_ks(recall_at, len(database))
    rule = _rule(queries, database, positives)
    truth = manifest.positives(
        queries, database, rule=rule, radius_m=positive_radius_m
    )
    without = _check_positives(queries, truth)

    logging.info("Embedding %d queries of %s.", len(queries), split)
    descriptors = index_stage.embed(
        servable,
        opened.read_images(queries),
        queries["image_id"].tolist(),
        batch_size=batch_size,
    )
    depth = min(len(database), max(*ks, _COMPARED, _SHOWN))
    found, distances = retrieval.nearest(descriptors, search.descriptors, depth)
    recall = retrieval.recall_at(found, truth, range(1, depth + 1))
    metrics = {
        "recall_at": {str(k): recall[k] for k in ks},
        "recall_at_left_out": left_out,
        "split": split,
        "counts": {
            "queries": len(queries),
            "queries_without_positive": without,
            "database": len(database),
        },
        "protocol": _protocol(rule, positive_radius_m),
        "positives": rule,
        "positive_radius_m": positive_radius_m if rule == "radius" else None,
        "dimension": servable.dimension,
        "search": _compare_search(search, descriptors, distances),
        "export_fingerprint": servable.fingerprint,
        "records_fingerprint": opened.fingerprint,
        "versions": index_stage.versions(),
    }
    results = _Results(
        queries,
        database,
        descriptors,
        search.descriptors,
        truth,
        found,
        distances,
    )
    with files.folder_in_one_piece(out) as folder:
        files.write_json(folder / "metrics.json", metrics)
        results.table().to_csv(folder / "queries.csv", index=False)
        best, worst = results.best_and_worst(opened, split)
        report.write(
            folder / "report.html",
            metrics=metrics,
            recall_curve=list(recall.values()),
            best=best,
            worst=worst,
        )
    logging.info(
        "%s. Metrics in %s; look at %s",
        ", ".join(f"recall@{k} {recall[k]:.3f}" for k in ks),
        out / "metrics.json",
        out / "report.html",
    )
    return out / "metrics.json"


class _Results:
    """What was found for each query, and what should have been.

    The margin of a query is the squared distance of the nearest wrong image
    less that of the nearest positive: above 0 where the first neighbour is
    right. Where all neighbours are positives the last one stands for the
    nearest wrong image, which is at least as far.
    """

    def __init__(
        self,
        queries,
        database,
        descriptors,
        database_descriptors,
        truth,
        found,
        distances,
    ):
        self._queries = queries
        self._database = database
        self._found = found
        self._distances = distances
        self._hits = retrieval.hits(found, truth)
        self._counts = np.array([len(rows) for rows in truth])
        # The nearest positive of each query, -1 where there is none.
        self._positive = np.full(len(queries), -1, np.int64)
        self._positive_distance = np.full(len(queries), np.nan, np.float32)
        for query, rows in enumerate(truth):
            if len(rows):
                near, distance = retrieval.nearest(
                    descriptors[query : query + 1],
                    database_descriptors[rows],
                    1,
                )
                self._positive[query] = rows[near[0, 0]]
                self._positive_distance[query] = distance[0, 0]

    def table(self) -> pd.DataFrame:
        """One row per query, as queries.csv has it."""
        first = self._hits.argmax(axis=1) + 1
        rank = pd.array(np.where(self._hits.any(axis=1), first, 0), "Int64")
        rank[rank == 0] = pd.NA
        nearest = self._found[:, 0]
        image_ids = self._database["image_id"].to_numpy()
        return pd.DataFrame(
            {
                "image_id": self._queries["image_id"].to_numpy(),
                "place_id": self._queries["place_id"].to_numpy(),
                "utm_east_m": self._queries["utm_east_m"].to_numpy(),
                "utm_north_m": self._queries["utm_north_m"].to_numpy(),
                "positives": self._counts,
                # Empty where no positive is among the neighbours searched.
                "first_correct_rank": rank,
                "nearest_image_id": image_ids[nearest],
                "nearest_squared_distance": self._distances[:, 0],
                "nearest_metres": [
                    self._metres(query, row)
                    for query, row in enumerate(nearest)
                ],
                "positive_image_id": np.where(
                    self._positive >= 0, image_ids[self._positive], ""
                ),
                "positive_squared_distance": self._positive_distance,
            }
        )

    def best_and_worst(
        self, records: Records, split: str
    ) -> tuple[list[report.Case], list[report.Case]]:
        """The queries with the largest and the smallest margins."""
        wrong = np.where(self._hits, np.inf, self._distances).min(axis=1)
        wrong = np.where(np.isinf(wrong), self._distances[:, -1], wrong)
        margins = wrong - self._positive_distance
        order = np.argsort(-margins, kind="stable")
        order = order[self._counts[order] > 0]
        # No query is in both lists.
        best = order[: min(_CASES, (len(order) + 1) // 2)]
        worst = order[::-1][: min(_CASES, len(order) // 2)]
        chosen = np.concatenate([best, worst])
        shown = np.unique(
            np.append(self._found[chosen, :_SHOWN], self._positive[chosen])
        )
        query_images = _read(records, self._queries, chosen)
        images = _read(records, records.rows(split, "database"), shown)

        def picture(query: int, row: int, correct: bool, distance: float):
            return report.Picture(
                encoded=images[row],
                name=self._database["image_id"].iloc[row],
                correct=correct,
                squared_distance=float(distance),
                metres=self._metres(query, row),
            )

        def case(query: int) -> report.Case:
            missed = None
            if not self._hits[query, :_SHOWN].any():
                missed = picture(
                    query,
                    self._positive[query],
                    True,
                    self._positive_distance[query],
                )
            return report.Case(
                query=report.Picture(
                    encoded=query_images[query],
                    name=self._queries["image_id"].iloc[query],
                ),
                retrieved=[
                    picture(query, *values)
                    for values in zip(
                        self._found[query, :_SHOWN],
                        self._hits[query, :_SHOWN],
                        self._distances[query, :_SHOWN],
                        strict=True,
                    )
                ],
                missed=missed,
            )

        return [case(query) for query in best], [case(q) for q in worst]

    def _metres(self, query: int, row: int) -> float | None:
        """Between where the two were taken; None if unknown."""
        columns = ["utm_east_m", "utm_north_m"]
        here = self._queries[columns].iloc[query].to_numpy(np.float64)
        there = self._database[columns].iloc[row].to_numpy(np.float64)
        metres = float(np.linalg.norm(here - there))
        return metres if np.isfinite(metres) else None


def _read(
    records: Records, rows: pd.DataFrame, positions: np.ndarray
) -> dict[int, bytes]:
    """Position -> encoded image."""
    images: Iterator[bytes] = records.read_images(rows.iloc[positions])
    return dict(zip(positions.tolist(), images, strict=True))


def _check_records(
    index: index_stage.Index, records: Records, split: str
) -> None:
    made = index.metadata
    if made["records_fingerprint"] != records.fingerprint:
        raise ValueError(
            f"Expected the records that the index {str(index.path)!r} was "
            f"built from, with fingerprint {made['records_fingerprint'][:12]}. "
            f"Received: records with {records.fingerprint[:12]}. Run "
            "python -m sare_tf.index --flagfile=... with these records."
        )
    if made["split"] != split:
        raise ValueError(
            f"Expected split={made['split']!r}, which the index "
            f"{str(index.path)!r} holds. Received: split={split!r}. Build an "
            "index of that split in another folder."
        )


def _choose_ks(
    recall_at: Sequence[int], database_size: int
) -> tuple[list[int], list[int]]:
    ks = sorted(set(recall_at))
    if not ks or ks[0] < 1:
        raise ValueError(
            "Expected at least one N of recall@N, each 1 or more. Received: "
            f"recall_at={list(recall_at)}."
        )
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


def _rule(queries: pd.DataFrame, database: pd.DataFrame, rule: str) -> str:
    """What `auto` stands for here."""
    if rule != "auto":
        return rule
    located = all(map(manifest.has_coordinates, (queries, database)))
    return "radius" if located else "place"


def _check_positives(queries: pd.DataFrame, truth: list[np.ndarray]) -> int:
    """Counts queries without a positive, and tells of them."""
    without = [row for row, rows in enumerate(truth) if not len(rows)]
    if len(without) == len(truth):
        raise ValueError(
            "Expected queries with positives in the database. Received: none "
            f"of {len(truth)} queries has one. Check --positives, "
            "--positive_radius_m and the places or coordinates of the images."
        )
    if without:
        logging.warning(
            "%d of %d queries have no positive in the database and count as "
            "misses (positives is 0 in queries.csv): %s%s",
            len(without),
            len(truth),
            ", ".join(queries["image_id"].iloc[without[:3]]),
            " ..." if len(without) > 3 else "",
        )
    return len(without)


def _protocol(rule: str, radius_m: float) -> str:
    positive = (
        f"at most {radius_m:g} m away"
        if rule == "radius"
        else "of the same place_id"
    )
    return (
        "Recall@N is the share of all queries with at least one positive "
        "among their N nearest database images, by exact search over squared "
        f"Euclidean distances; a positive is a database image {positive}; a "
        "query without any positive counts as a miss."
    )


def _compare_search(
    index: index_stage.Index, descriptors: np.ndarray, exact: np.ndarray
) -> dict[str, Any]:
    """How much of exact search the index's own search finds."""
    k = min(_COMPARED, exact.shape[1])
    compared = {
        "metrics": "exact",
        "index": index.searches_with,
        "k": k,
        "recall_of_exact": None,
    }
    if index.searches_with == "scann":
        _, distances = index.search(descriptors, k)
        compared["recall_of_exact"] = retrieval.recall_of_search(
            distances, exact[:, :k]
        )
    return compared


def main(argv) -> None:
    del argv
    stage_flags.required("index", "records", "export", "evaluation")
    try:
        recall_at = [int(k) for k in FLAGS.recall_at]
    except ValueError as error:
        raise ValueError(
            "Expected whole numbers. Received: "
            f"--recall_at={','.join(FLAGS.recall_at)}."
        ) from error
    run(
        index=FLAGS.index,
        records=FLAGS.records,
        export=FLAGS.export,
        out=FLAGS.evaluation,
        split=FLAGS.split,
        recall_at=recall_at,
        positives=FLAGS.positives,
        positive_radius_m=FLAGS.positive_radius_m,
        batch_size=FLAGS.batch_size,
        exact=FLAGS.exact_search,
    )


if __name__ == "__main__":
    stage_flags.start(main)
