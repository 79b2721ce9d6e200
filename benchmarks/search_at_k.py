"""Measures what an index finds of the k nearest images, and how fast.

    python -m benchmarks.search_at_k

Indexes of random vectors, which are the hardest case, and of vectors in
clusters of 20, with ScaNN by rules or tuned to a recall. Queries are no images
of the index. Rows of the table:

- exact: numpy, as `--exact_search`.
- rules: the setting for 10 neighbours, as version 0.1 searched for every k.
- measured: the setting for this k, as `Index.search` takes it, with the recall
  that the index says (`Index.recall_at`).

Seconds are of one batch of all queries.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
from absl import app, flags, logging

from sare_tf.search import exact_search, index_changes
from sare_tf.search.opened_index import Index
from sare_tf.search.options import TuningOptions

FLAGS = flags.FLAGS
flags.DEFINE_list(
    "indexes",
    ["random:21000x32", "clustered:40000x128"],
    "Kind, rows and dimensions of indexes.",
)
flags.DEFINE_list("ks", ["10", "100", "1000", "2000"], "Neighbours.")
flags.DEFINE_list("targets", ["0", "0.95"], "Recalls to tune to; 0: rules.")
flags.DEFINE_integer("queries", 200, "Number of queries.", 1)


def unit(rows: np.ndarray) -> np.ndarray:
    """Returns rows of unit length, float32."""
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32)


def descriptors_and_queries(
    kind: str, count: int, dimension: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows of an index, and queries near some of them."""
    rng = np.random.default_rng(0)
    if kind == "random":
        rows = unit(rng.normal(size=(count, dimension)))
    else:
        centres = unit(rng.normal(size=(count // 20, dimension)))
        noise = unit(rng.normal(size=(len(centres) * 20, dimension)))
        rows = unit(np.repeat(centres, 20, axis=0) + 0.8 * noise)
    near = rows[rng.choice(len(rows), FLAGS.queries, replace=False)]
    noise = unit(rng.normal(size=near.shape))
    return rows, unit(near + 0.3 * noise)


def measure(index: Index, queries: np.ndarray, name: str) -> None:
    """Prints the rows of the table of one index."""
    [segment] = index.segments
    searcher = segment.searcher
    for k in map(int, FLAGS.ks):
        begin = time.perf_counter()
        _, exact = exact_search.nearest(queries, index.descriptors, k)
        lines = [("exact", 1.0, "", time.perf_counter() - begin)]
        rules = {
            "leaves": searcher.parameters["num_leaves_to_search"],
            "reordered": max(
                searcher.parameters["reordering_num_neighbors"], 2 * k
            ),
        }
        for how, search in (
            (
                "rules",
                lambda k=k, r=rules: searcher.search(queries, k, setting=r),
            ),
            ("measured", lambda k=k: index.search(queries, k)),
        ):
            search()
            begin = time.perf_counter()
            _, distances = search()
            seconds = time.perf_counter() - begin
            recall = exact_search.recall_of_search(distances, exact)
            says = f"{index.recall_at(k):.3f}" if how == "measured" else ""
            lines.append((how, recall, says, seconds))
        for how, recall, says, seconds in lines:
            print(
                f"| {name} | {k} | {how} | {recall:.3f} | {says} | "
                f"{seconds:.3f} |",
                flush=True,
            )


def main(argv):
    del argv
    logging.set_verbosity(logging.WARNING)
    print(
        f"{FLAGS.queries} queries.\n\n"
        "| index | k | search | recall | recall_at | s |\n"
        "|---|---:|---|---:|---:|---:|"
    )
    for named in FLAGS.indexes:
        kind, _, size = named.partition(":")
        rows, queries = descriptors_and_queries(
            kind, *map(int, size.split("x"))
        )
        names = [str(row) for row in range(len(rows))]
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "index"
            Index.build(rows, image_ids=names, out=out)
            for target in map(float, FLAGS.targets):
                if target:
                    tuning = TuningOptions(target_recall=target)
                    index_changes.compact(index=out, tuning=tuning)
                words = f"tuned to {target:g}" if target else "rules"
                measure(Index.open(out), queries, f"{named}, {words}")


if __name__ == "__main__":
    app.run(main)
