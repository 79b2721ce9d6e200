"""Measures indexes of numbers and of codes: size, memory, recall, speed.

    python -m benchmarks.compressed_index
    python -m benchmarks.compressed_index --size=1000000x512 --kinds=int8:0.995

Each index is built by `Index.build` in a process of its own, tuned to a recall
if its kind has one (`index --compact --target_recall`), and searched in another
one. The clustered vectors of `benchmarks.search`, which has the other flags,
are written to a file first. Columns of the table:

- file: what search reads: descriptors or codes, and ScaNN's files, in MiB.
- codes keep: recall@10 of exact search over the codes, as index.json has it,
  for rows of the database.
- recall: recall@10 of `Index.search` against exact search over float32.
- build, tune: seconds by the clock.
- build MiB: the most resident memory of the process that builds, and, after the
  sign +, of the one that tunes; beside it, what `index` says before it begins.
- search MiB: the most resident memory while the queries are searched twice, and
  the part of it that pages of files have, which the system takes back when
  others need memory. It includes about 500 MiB of Python, TensorFlow and ScaNN.
- queries per second of a batch, and milliseconds of one query by itself: the
  faster of two passes, and medians.
"""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from absl import app, flags

from benchmarks import measure
from benchmarks.search import descriptors

FLAGS = flags.FLAGS
flags.DEFINE_string("size", "250000x512", "Rows x dimension.")
flags.DEFINE_list(
    "kinds",
    [
        "float32:0:memory",
        "float16:0.99:disk",
        "int8:0.99",
        "product:0.99",
        "binary:0.99",
    ],
    "dtype:target_recall:reorder_from of each index; codes need no third.",
)
flags.DEFINE_integer("one_by_one", 100, "Queries that are timed alone.", 1)

_K = 10


def make(folder, count, dimension, queries, spread):
    """Writes the vectors of the database and of the queries."""
    from sare_tf.search import exact_search

    rows = descriptors(count + queries, dimension, spread)
    np.save(f"{folder}/rows.npy", rows[:count])
    np.save(f"{folder}/queries.npy", rows[count:])
    _, distances = exact_search.nearest(rows[count:], rows[:count], _K)
    np.save(f"{folder}/distances.npy", distances)


def build(folder, dtype):
    """Builds the index; returns seconds, and MiB at most."""
    from sare_tf.search.opened_index import Index

    rows = np.load(f"{folder}/rows.npy", mmap_mode="r")
    begin = time.perf_counter()
    Index.build(
        rows,
        image_ids=np.arange(len(rows)).astype(str),
        out=f"{folder}/index",
        dtype=dtype,
    )
    seconds = time.perf_counter() - begin
    return seconds, measure.peak_bytes() / measure.MEBIBYTE


def tune(folder, target_recall, reorder_from):
    """Builds the searcher again; returns seconds, and MiB at most."""
    from sare_tf.search import index_changes
    from sare_tf.search.options import TuningOptions

    tuning = TuningOptions(
        target_recall=target_recall, reorder_from=reorder_from
    )
    begin = time.perf_counter()
    index_changes.compact(index=f"{folder}/index", tuning=tuning)
    seconds = time.perf_counter() - begin
    return seconds, measure.peak_bytes() / measure.MEBIBYTE


def search(folder, one_by_one):
    """Searches the queries; returns the figures of a row of the table."""
    from sare_tf.search import exact_search
    from sare_tf.search.opened_index import Index

    queries = np.load(f"{folder}/queries.npy")
    rows = np.load(f"{folder}/rows.npy", mmap_mode="r")
    index = Index.open(f"{folder}/index", check=False)
    seconds = []
    for _ in range(2):
        begin = time.perf_counter()
        found, _ = index.search(queries, _K)
        seconds.append(time.perf_counter() - begin)
    alone = []
    for query in queries[:one_by_one]:
        begin = time.perf_counter()
        index.search(query[None], _K)
        alone.append(time.perf_counter() - begin)
    peak = measure.peak_bytes() / measure.MEBIBYTE
    of_files = measure.resident_file_bytes() / measure.MEBIBYTE
    # By distances of the numbers, whatever the codes say.
    distances = np.stack(exact_search.distances_to(queries, rows, list(found)))
    recall = exact_search.recall_of_search(
        distances, np.load(f"{folder}/distances.npy")
    )
    kept = index.metadata["segments"][0].get("code_recall")
    return {
        "recall": recall,
        "kept": kept,
        "peak": peak,
        "of_files": of_files,
        "per_second": len(queries) / min(seconds),
        "alone": 1000 * statistics.median(alone),
    }


def stated(count, dimension, dtype, reorder_from):
    """Returns the MiB that `index` says building takes."""
    from sare_tf.search import index_size
    from sare_tf.search.options import CODES

    if dtype in CODES:
        reorder_from = "disk"
    memory = index_size.memory_bytes(
        count, dimension, reorder_from=reorder_from
    )
    return memory / measure.MEBIBYTE


def size_of(folder):
    """Returns the MiB of the files that are searched."""
    files = Path(folder, "index").rglob("*")
    return sum(
        path.stat().st_size
        for path in files
        if path.is_file() and path.suffix not in (".parquet", ".json")
    ) / (measure.MEBIBYTE)


def measure_kind(folder, kind, count, dimension):
    """Prints the row of an index."""
    dtype, target, reorder_from = (*kind.split(":"), "0", "memory")[:3]
    if kind.count(":") == 1:
        reorder_from = "memory"
    build_s, build_mib = measure.in_a_process(build, folder, dtype)
    tune_s, tune_mib = "-", "-"
    if float(target) or reorder_from == "disk":
        seconds, mib = measure.in_a_process(
            tune, folder, float(target), reorder_from
        )
        tune_s, tune_mib = f"{seconds:.0f}", f"{mib:,.0f}"
    found = measure.in_a_process(search, folder, FLAGS.one_by_one)
    told = measure.in_a_process(stated, count, dimension, dtype, reorder_from)
    kept = "-" if found["kept"] is None else f"{found['kept']:.4f}"
    print(
        f"| {kind} | {size_of(folder):,.0f} | {kept} | {found['recall']:.4f} "
        f"| {build_s:.0f} | {tune_s} | {build_mib:,.0f} + {tune_mib} "
        f"| {told:,.0f} | {found['peak']:,.0f} ({found['of_files']:,.0f}) "
        f"| {found['per_second']:,.0f} | {found['alone']:.2f} |",
        flush=True,
    )


def main(argv):
    del argv
    count, dimension = map(int, FLAGS.size.split("x"))
    print(
        f"{count:,} x {dimension} clustered, {FLAGS.queries} queries.\n\n"
        "| index | file MiB | codes keep | recall | build s | tune s | build "
        "MiB | said MiB | search MiB (of files) | queries/s | ms alone |\n"
        "|---|" + "---:|" * 10,
        flush=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        measure.in_a_process(
            make, folder, count, dimension, FLAGS.queries, FLAGS.spread
        )
        for kind in FLAGS.kinds:
            measure_kind(folder, kind, count, dimension)


if __name__ == "__main__":
    app.run(main)
