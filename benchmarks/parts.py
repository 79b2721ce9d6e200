"""Times search in one process, in parts behind one address, and in engines.

    python -m benchmarks.parts --size=100000x512

The rows are those of `benchmarks.search`, divided into --parts shards. A part
is a process that serves its shard as `locate --serve` does; the front opens
all of them by their addresses. Columns of the table:

- start s: opening the index, or inserting all rows into an engine.
- MiB here: memory of the process that asks, beyond that before it opened.
- MiB of parts: memory of the processes of the parts, all of it, which includes
  about 500 MiB of Python, TensorFlow and ScaNN each.
- ms alone: the median of searches for one query.
- ms in batches: for each query of batches of eight, as of `--serve_batch`.
- recall: the share of the ten exact neighbours that are found.

All processes share the cores of this machine, so parts on machines of their
own are faster. FAISS and Milvus Lite are measured if they are installed. The
two kinds of index, exact and by ScaNN, are opened one after the other.
"""

import contextlib
import importlib.util
import multiprocessing
import socket
import tempfile
import time
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from absl import app, flags, logging

from benchmarks import measure
from benchmarks.search import descriptors
from sare_tf.search import exact_search
from sare_tf.search.opened_index import Index

FLAGS = flags.FLAGS
flags.DEFINE_string("size", "100000x512", "Rows x dimension.")
flags.DEFINE_integer("parts", 2, "Processes that share the rows.", 1)

_K, _BATCH = 10, 8
# As long as names of the photographs of Pitts250k.
_NAME = "@0583{:06d}.00@4477{:06d}.00@17@T@@@@@@@@@@@.jpg"


class _NoPictures:
    def read(self, names):
        return [None] * len(names)

    def queries(self, count):
        return []


def serve_part(folder: Path, port: int, exact: bool) -> None:
    """Serves an index, as `locate --serve` does."""
    from sare_tf.pages.locate_server import LocateServer

    index = Index.open(folder, exact=exact)
    locator = types.SimpleNamespace(index=index, servable=None)
    LocateServer(locator, _NoPictures()).serve(port)


def free_port() -> int:
    """Returns a port of this machine that nobody listens at."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextlib.contextmanager
def parts_of(
    folders: Sequence[Path], exact: bool
) -> Iterator[tuple[list[str], list[int]]]:
    """Yields addresses and process numbers of parts."""
    context = multiprocessing.get_context("spawn")
    ports = [free_port() for _ in folders]
    processes = [
        context.Process(target=serve_part, args=(folder, port, exact))
        for folder, port in zip(folders, ports, strict=True)
    ]
    for process in processes:
        process.start()
    try:
        yield (
            [f"http://127.0.0.1:{port}" for port in ports],
            [process.pid for process in processes],
        )
    finally:
        for process in processes:
            process.kill()
            process.join()


def row_of(
    name: str,
    opened: Callable[[], Callable],
    truth: np.ndarray,
    queries: np.ndarray,
    processes: Sequence[int] = (),
) -> str:
    """Returns a row of the table.

    Args:
        name: of the method.
        opened: opens it; returns a function of queries and k that returns
            rows.
        truth: the exact neighbours.
        queries: float32 [Q, D].
        processes: of the parts.
    """
    before, began = measure.resident_bytes(), time.perf_counter()
    search = opened()
    start_s = time.perf_counter() - began
    found = np.concatenate(
        [
            search(queries[start : start + _BATCH], _K)
            for start in range(0, len(queries), _BATCH)
        ]
    )
    recall = np.mean(
        [
            len(set(rows) & set(right)) / _K
            for rows, right in zip(found, truth, strict=True)
        ]
    )
    alone = measure.median_seconds(lambda: search(queries[:1], _K), repeats=20)
    together = measure.median_seconds(
        lambda: search(queries[:_BATCH], _K), repeats=20
    )
    here = (measure.resident_bytes() - before) / measure.MEBIBYTE
    there = sum(map(measure.resident_bytes_of, processes)) / measure.MEBIBYTE
    return (
        f"| {name} | {start_s:.1f} | {here:,.0f} | {there:,.0f} | "
        f"{1e3 * alone:.2f} | {1e3 * together / _BATCH:.2f} | {recall:.4f} |"
    )


def of_index(paths: Sequence[Path | str], exact: bool) -> Callable:
    """Returns a function that opens an index."""

    def opened() -> Callable:
        index = Index.open(paths, exact=exact)
        return lambda queries, k: index.search(queries, k)[0]

    return opened


def faiss_flat(rows: np.ndarray) -> Callable:
    """Inserts rows into FAISS, which searches them exactly."""
    import faiss

    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    return lambda queries, k: index.search(queries, k)[1]


def milvus_flat(rows: np.ndarray, folder: Path) -> Callable:
    """Inserts rows into Milvus Lite, which searches them exactly."""
    from pymilvus import DataType, MilvusClient

    client = MilvusClient(str(folder / "milvus.db"))
    schema = client.create_schema()
    schema.add_field("row", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=rows.shape[1])
    index = client.prepare_index_params()
    index.add_index("vector", index_type="FLAT", metric_type="IP")
    client.create_collection("rows", schema=schema, index_params=index)
    for start in range(0, len(rows), 1000):
        block = rows[start : start + 1000]
        client.insert(
            "rows",
            [
                {"row": start + number, "vector": row.tolist()}
                for number, row in enumerate(block)
            ],
        )

    def search(queries, k):
        found = client.search("rows", data=queries.tolist(), limit=k)
        return np.array([[hit["row"] for hit in hits] for hits in found])

    return search


def main(argv):
    del argv
    logging.set_verbosity(logging.WARNING)
    count, dimension = map(int, FLAGS.size.split("x"))
    drawn = descriptors(count + FLAGS.queries, dimension, FLAGS.spread)
    rows, queries = drawn[:count], drawn[count:]
    truth, _ = exact_search.nearest(queries, rows, _K)
    ends = np.linspace(0, count, FLAGS.parts + 1).astype(int)
    print(
        f"{count:,} x {dimension:,}, {FLAGS.parts} parts, k={_K}.\n\n"
        "| | start s | MiB here | MiB of parts | ms alone | ms in batches "
        "| recall |\n|---|" + "---:|" * 6
    )
    with tempfile.TemporaryDirectory() as root:
        folders = []
        for number, (start, stop) in enumerate(
            zip(ends[:-1], ends[1:], strict=True)
        ):
            folders.append(Path(root) / str(number))
            Index.build(
                rows[start:stop],
                image_ids=[
                    _NAME.format(row, row) for row in range(start, stop)
                ],
                out=folders[-1],
            )
        for exact in (True, False):
            word = "exact" if exact else "ScaNN"
            line = row_of(
                f"{word}, shards in one process",
                of_index(folders, exact),
                truth,
                queries,
            )
            print(line, flush=True)
            with parts_of(folders, exact) as (urls, processes):
                line = row_of(
                    f"{word}, {FLAGS.parts} parts",
                    of_index(urls, exact),
                    truth,
                    queries,
                    processes,
                )
                print(line, flush=True)
        engines = {
            "faiss": ("FAISS Flat", lambda: faiss_flat(rows)),
            "milvus_lite": (
                "Milvus Lite FLAT",
                lambda: milvus_flat(rows, Path(root)),
            ),
        }
        for module, (name, opened) in engines.items():
            if importlib.util.find_spec(module):
                print(row_of(name, opened, truth, queries), flush=True)


if __name__ == "__main__":
    app.run(main)
