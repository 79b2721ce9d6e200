"""Times search restricted to a share of the images: `Index.search(where=...)`.

    python -m benchmarks.filtered_search

An index of clustered vectors as in `benchmarks.search`, of images on a plane:
districts lie apart, and the images of a district near each other. A filter
keeps the images nearest to a point, as a radius does, so it keeps and leaves
out whole districts: neighbours are kept together or not at all. Queries are
further images of the districts that are kept. Columns of the table:

- where: milliseconds for a query of a batch, by `Index.search(where=...)`.
- filtered after: the same result by search for more neighbours without
  `where`, which are filtered; four times as many, until there are k, and exact
  distances to all images where ScaNN has no setting for so many.
- exact, filtered after: exact distances to all images, then the filter.
- unfiltered: search for k among all images.
- recall: the share of the k exact neighbours among those kept that `where`
  finds, and the promise of `Index.recall_at`.

`benchmarks.search` has the other flags. The fastest of --repeats passes counts,
because other work disturbs the others.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from absl import app, flags, logging

from benchmarks.search import descriptors
from sare_tf.search import exact_search
from sare_tf.search.opened_index import Index

FLAGS = flags.FLAGS
flags.DEFINE_string("size", "100000x128", "Rows x dimension.")
flags.DEFINE_list("kept", ["0.01", "0.1", "0.5", "0.99"], "Shares kept.")
flags.DEFINE_integer("k", 10, "Neighbours.", 1)

_MORE = 4


def districts_of(rows: np.ndarray) -> np.ndarray:
    """Returns the nearest of count / 1000 rows, a district for each image."""
    rng = np.random.default_rng(1)
    centres = rows[rng.choice(len(rows), len(rows) // 1000, replace=False)]
    return np.concatenate(
        [
            np.argmax(rows[start : start + 4096] @ centres.T, axis=1)
            for start in range(0, len(rows), 4096)
        ]
    )


def distances_from_point(districts: np.ndarray) -> np.ndarray:
    """Returns how far each image is from one point of the plane."""
    rng = np.random.default_rng(2)
    centres = rng.uniform(-10, 10, (districts.max() + 1, 2))
    places = centres[districts] + rng.normal(size=(len(districts), 2))
    return np.linalg.norm(places, axis=1)


def filtered_after(
    search: Callable, count: int, where: np.ndarray, k: int
) -> np.ndarray:
    """Searches for more neighbours, until k of them are kept; returns rows."""
    asked = k
    while True:
        asked = min(asked, count)
        rows = search(asked)
        kept = where[rows]
        if asked == count or (kept.sum(axis=1) >= k).all():
            order = np.argsort(~kept, axis=1, kind="stable")[:, :k]
            return np.take_along_axis(rows, order, axis=1)
        asked *= _MORE


def exact_after(
    queries: np.ndarray, rows: np.ndarray, where: np.ndarray, k: int
) -> np.ndarray:
    """Orders all images exactly, and filters; returns rows."""
    products = queries @ rows.T
    products[:, ~where] = -np.inf
    nearest = np.argpartition(-products, k, axis=1)[:, :k]
    order = np.argsort(-np.take_along_axis(products, nearest, axis=1), axis=1)
    return np.take_along_axis(nearest, order, axis=1)


def best_of(call: Callable[[], object]) -> tuple[object, float]:
    """Returns the result and the milliseconds of the fastest pass."""
    call()
    seconds = []
    for _ in range(FLAGS.repeats):
        began = time.perf_counter()
        result = call()
        seconds.append(time.perf_counter() - began)
    return result, 1000 * min(seconds)


def measure(
    index: Index, rows: np.ndarray, queries: np.ndarray, where: np.ndarray
) -> str:
    """Returns a row of the table."""
    k = FLAGS.k
    (_, distances), by_where = best_of(
        lambda: index.search(queries, k, where=where)
    )
    _, after = best_of(
        lambda: filtered_after(
            lambda asked: index.search(queries, asked)[0], len(rows), where, k
        )
    )
    _, exactly = best_of(lambda: exact_after(queries, rows, where, k))
    _, unfiltered = best_of(lambda: index.search(queries, k))
    kept = np.flatnonzero(where)
    _, truth = exact_search.nearest(queries, rows[kept], k)
    recall = exact_search.recall_of_search(distances, truth)
    times = " | ".join(
        f"{milliseconds / len(queries):.3f}"
        for milliseconds in (by_where, after, exactly, unfiltered)
    )
    return (
        f"| {where.mean():.0%} | {len(queries)} | {times} | {recall:.4f} "
        f"| {index.recall_at(k, where=where):.4f} |"
    )


def main(argv):
    del argv
    logging.set_verbosity(logging.WARNING)
    count, dimension = map(int, FLAGS.size.split("x"))
    # Half as many again: queries are taken from those that are not indexed.
    drawn = descriptors(count + count // 2, dimension, FLAGS.spread)
    far = distances_from_point(districts_of(drawn))
    rows, others = drawn[:count], drawn[count:]
    with tempfile.TemporaryDirectory() as folder:
        index = Index.build(
            rows, image_ids=list(map(str, range(count))), out=Path(folder) / "i"
        )
        print(
            f"{count:,} x {dimension:,}, k={FLAGS.k}. Milliseconds per query."
            "\n\n| kept | queries | where | filtered after "
            "| exact, filtered after | unfiltered | recall | promised |\n|---:|"
            + "---:|"
            * 7
        )
        for share in map(float, FLAGS.kept):
            radius = np.quantile(far[:count], share)
            inside = np.flatnonzero(far[count:] <= radius)[: FLAGS.queries]
            line = measure(index, rows, others[inside], far[:count] <= radius)
            print(line, flush=True)


if __name__ == "__main__":
    app.run(main)
