"""Changes an index every day: recall, speed and disk after many changes.

    python -m benchmarks.daily_changes

An index of clustered vectors (`benchmarks.search`, which has the other flags)
gets --images new ones and loses as many at random, --days times, as
`index --add_records` and `--remove_ids` do it. After every tenth of the days
the table says: segments; images on disk that were removed, as a share; MiB on
disk; recall@10 of `Index.search` against exact search; queries per second of a
batch, the faster of two passes; and the seconds of an addition with what it
merged, and of a removal: medians and the longest.
"""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from absl import app, flags, logging

from benchmarks import measure
from benchmarks.search import descriptors
from sare_tf.search import (
    exact_search,
    index_changes,
    vector_index,
)
from sare_tf.search.opened_index import Index

FLAGS = flags.FLAGS
flags.DEFINE_string("size", "100000x128", "Rows x dimension.")
flags.DEFINE_integer("days", 1000, "Days.", 10)
flags.DEFINE_integer("images", 100, "Images that come and go in a day.", 1)
flags.DEFINE_float("stale", 0.25, "As --compact_when_stale of index.", 0)

_K = 10


def change(folder, name, rows, rng):
    """Makes the changes of a day; returns seconds of both."""
    begin = time.perf_counter()
    names = [f"{name}-{number}" for number in range(len(rows))]
    index_changes.add_vectors(
        index=folder,
        descriptors=rows,
        rows=vector_index.rows_of(
            names, positions=None, utm_zone="", place_ids=None
        ),
        stale=FLAGS.stale,
    )
    added = time.perf_counter()
    held = Index.open(folder, exact=True, check=False).manifest["image_id"]
    ids = folder.parent / "ids.txt"
    ids.write_text("\n".join(rng.choice(held, len(rows), replace=False)))
    began = time.perf_counter()
    index_changes.remove(index=folder, ids=ids, stale=FLAGS.stale)
    return added - begin, time.perf_counter() - began


def row_of_table(folder, day, queries, seconds):
    """Returns a row of the table."""
    index = Index.open(folder, check=False)
    _, exact = exact_search.nearest(queries, np.asarray(index.descriptors), _K)
    passes = []
    for _ in range(2):
        begin = time.perf_counter()
        _, found = index.search(queries, _K)
        passes.append(time.perf_counter() - begin)
    stored = sum(len(segment.descriptors) for segment in index.segments)
    size = sum(
        path.stat().st_size for path in folder.rglob("*") if path.is_file()
    )
    cells = [
        f"{day}",
        f"{len(index.segments)}",
        f"{1 - len(index.manifest) / stored:.3f}",
        f"{size / measure.MEBIBYTE:,.0f}",
        f"{exact_search.recall_of_search(found, exact):.4f}",
        f"{len(queries) / min(passes):,.0f}",
    ]
    for of_kind in zip(*seconds, strict=True):
        cells.append(f"{statistics.median(of_kind):.2f} ({max(of_kind):.1f})")
    return "| " + " | ".join(cells) + " |"


def main(argv):
    del argv
    logging.set_verbosity(logging.WARNING)
    count, dimension = map(int, FLAGS.size.split("x"))
    new = FLAGS.days * FLAGS.images
    rows = descriptors(count + new + FLAGS.queries, dimension, FLAGS.spread)
    queries = rows[count + new :]
    rng = np.random.default_rng(0)
    print(
        f"{count:,} x {dimension} clustered, {FLAGS.images} images come and go "
        f"on {FLAGS.days} days.\n\n"
        "| day | segments | removed, on disk | MiB | recall | queries/s "
        "| addition, s (longest) | removal, s (longest) |\n"
        "|---:|---:|---:|---:|---:|---:|---:|---:|"
    )
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root, "index")
        Index.build(
            rows[:count],
            image_ids=[f"first-{number}" for number in range(count)],
            out=folder,
        )
        print(row_of_table(folder, 0, queries, [(0, 0)]), flush=True)
        seconds = []
        for day in range(FLAGS.days):
            start = count + day * FLAGS.images
            of_day = rows[start : start + FLAGS.images]
            seconds.append(change(folder, f"day-{day}", of_day, rng))
            if (day + 1) % (FLAGS.days // 10) == 0:
                print(row_of_table(folder, day + 1, queries, seconds))
                seconds = []


if __name__ == "__main__":
    app.run(main)
