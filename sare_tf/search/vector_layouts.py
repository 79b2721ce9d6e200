"""Descriptors and matches in the layouts of other projects.

`export_vectors` lists the layouts and their sources.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from sare_tf.records.file_names import safe_names
from sare_tf.runtime import atomic_files

# Rows held in memory at a time. Ours.
_BLOCK = 4096
# Rows of one file for Vertex AI, which takes up to 5,000 files. Ours.
_VERTEX_ROWS = 100_000
_NAME = "sare_tf"


@dataclasses.dataclass(frozen=True)
class Side:
    """The queries or the database.

    Attributes:
        name: "queries" or "database".
        rows: rows of a manifest, N.
        descriptors: [N, D]; may be a memory map.
    """

    name: str
    rows: pd.DataFrame
    descriptors: np.ndarray

    @functools.cached_property
    def file_names(self) -> list[str]:
        """Paths of the images, as `export_dataset` names them."""
        return safe_names(self.rows)

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yields the first row of each block, and the block, float32 [n, D]."""
        # At least one block, so that files without rows have their columns.
        for start in range(0, len(self.rows) or 1, _BLOCK):
            block = self.descriptors[start : start + _BLOCK]
            yield start, np.asarray(block, np.float32)

    def named(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yields the file name and the descriptor [D] of each image."""
        for start, block in self.blocks():
            names = self.file_names[start : start + len(block)]
            yield from zip(names, block, strict=True)


@dataclasses.dataclass(frozen=True)
class Matches:
    """The nearest database images of each query.

    Attributes:
        queries: the Q queries.
        database: the database.
        rows: int64 [Q, k], rows of the database, nearest first.
        distances: float32 [Q, k], squared distances.
    """

    queries: Side
    database: Side
    rows: np.ndarray
    distances: np.ndarray

    @property
    def sides(self) -> tuple[Side, Side]:
        """Queries and database."""
        return self.queries, self.database

    def pairs(self) -> Iterator[tuple[str, str, float]]:
        """Yields file names of query and match, and their squared distance."""
        for query, rows, distances in zip(
            self.queries.file_names, self.rows, self.distances, strict=True
        ):
            for row, distance in zip(rows, distances, strict=True):
                yield query, self.database.file_names[row], distance


def write(layout: str, folder: Path, matches: Matches) -> None:
    """Writes descriptors and matches to a folder.

    Args:
        layout: a name in `records.options.VECTOR_LAYOUTS`.
        folder: an empty folder.
        matches: the descriptors and matches.

    Raises:
        ValueError: the layout cannot hold the name of an image.
    """
    _LAYOUTS[layout](folder, matches)


def _numpy(folder: Path, matches: Matches) -> None:
    for side in matches.sides:
        array = np.lib.format.open_memmap(
            folder / f"{side.name}.npy",
            mode="w+",
            dtype=np.float32,
            shape=side.descriptors.shape,
        )
        for start, block in side.blocks():
            array[start : start + len(block)] = block
        array.flush()
        side.rows.to_csv(folder / f"{side.name}.csv", index=False)
    count, k = matches.rows.shape
    database_ids = matches.database.rows["image_id"].to_numpy()
    table = pd.DataFrame(
        {
            "query": np.repeat(matches.queries.rows["image_id"], k),
            "rank": np.tile(np.arange(1, k + 1), count),
            "database": database_ids[matches.rows.ravel()],
            "squared_distance": matches.distances.ravel(),
        }
    )
    table.to_csv(folder / "matches.csv", index=False)


def _hloc(folder: Path, matches: Matches) -> None:
    # Slow to import, and only needed here.
    import h5py

    for side in matches.sides:
        # hloc splits its lists at white space.
        _check_names(side.file_names, str.isspace, "hloc", "white space")
    with h5py.File(folder / "global-feats.h5", "w") as file:
        for side in matches.sides:
            for name, descriptor in side.named():
                file[f"{name}/global_descriptor"] = descriptor
    pairs = [f"{query} {match}\n" for query, match, _ in matches.pairs()]
    atomic_files.write_text(folder / "pairs.txt", "".join(pairs))


def _kapture(folder: Path, matches: Matches) -> None:
    queries, database = matches.sides
    names = [*queries.file_names, *database.file_names]
    _check_names(names, lambda letter: letter == ",", "kapture", "a comma")
    features = folder / "reconstruction" / "global_features" / _NAME
    features.mkdir(parents=True)
    _kapture_table(
        features / "global_features.txt",
        "name, dtype, dsize, metric_type",
        [f"{_NAME}, float32, {queries.descriptors.shape[1]}, L2"],
    )
    for side in matches.sides:
        for name, descriptor in side.named():
            path = features / f"{name}.gfeat"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(descriptor.astype("<f4").tobytes())
    rows = pd.concat([queries.rows, database.rows])
    sizes = list(zip(rows["width"], rows["height"], strict=True))
    (folder / "sensors").mkdir()
    _kapture_table(
        folder / "sensors" / "sensors.txt",
        "sensor_device_id, name, sensor_type, [sensor_params]+",
        [
            f"{width}x{height}, , camera, UNKNOWN_CAMERA, {width}, {height}"
            for width, height in sorted(set(sizes))
        ],
    )
    _kapture_table(
        folder / "sensors" / "records_camera.txt",
        "timestamp, device_id, image_path",
        [
            # Not all datasets have times: the order stands for them.
            f"{number}, {width}x{height}, {name}"
            for number, (name, (width, height)) in enumerate(
                zip(names, sizes, strict=True)
            )
        ],
    )
    _kapture_table(
        folder / "pairs.txt",
        "query_image, map_image, score",
        [
            # Higher is better: the product of descriptors of length 1.
            f"{query}, {match}, {1 - distance / 2:.6f}"
            for query, match, distance in matches.pairs()
        ],
    )


def _kapture_table(path: Path, header: str, lines: list[str]) -> None:
    text = "\n".join(["# kapture format: 1.1", f"# {header}", *lines])
    atomic_files.write_text(path, text + "\n")


def _msls(folder: Path, matches: Matches) -> None:
    query_keys, database_keys = (
        np.array([PurePosixPath(name).stem for name in side.rows["image_id"]])
        for side in matches.sides
    )
    for keys, side in zip(
        (query_keys, database_keys), matches.sides, strict=True
    ):
        names, counts = np.unique(keys, return_counts=True)
        if (counts > 1).any():
            raise ValueError(
                "Expected names of files that differ, which are the keys of "
                f"Mapillary SLS. Received: {names[counts.argmax()]} "
                f"{counts.max()} times in the {side.name}. Use another "
                "--layout."
            )
        _check_names(keys, str.isspace, "msls", "white space")
    lines = [
        " ".join([key, *database_keys[rows]]) + "\n"
        for key, rows in zip(query_keys, matches.rows, strict=True)
    ]
    atomic_files.write_text(folder / "submission.csv", "".join(lines))


def _parquet(folder: Path, matches: Matches) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for side in matches.sides:
        writer = None
        for start, block in side.blocks():
            rows = side.rows.iloc[start : start + len(block)]
            table = pa.Table.from_pandas(rows, preserve_index=False)
            flat = pa.array(block.reshape(-1))
            # A plain list, not one of fixed size: Milvus reads only these.
            offsets = np.arange(len(block) + 1, dtype=np.int32)
            vectors = pa.ListArray.from_arrays(offsets * block.shape[1], flat)
            table = table.append_column("vector", vectors)
            path = folder / f"{side.name}.parquet"
            writer = writer or pq.ParquetWriter(path, table.schema)
            writer.write_table(table)
        writer.close()


def _vertex(folder: Path, matches: Matches) -> None:
    (folder / "database").mkdir()
    with (folder / "queries.json").open("w", encoding="utf-8") as file:
        file.writelines(_vertex_lines(matches.queries))
    file = None
    for number, line in enumerate(_vertex_lines(matches.database)):
        if number % _VERTEX_ROWS == 0:
            if file:
                file.close()
            name = f"database-{number // _VERTEX_ROWS:05d}.json"
            file = (folder / "database" / name).open("w", encoding="utf-8")
        file.write(line)
    file.close()


def _vertex_lines(side: Side) -> Iterator[str]:
    """Yields a line of JSON for each image: id, filters and embedding."""
    for start, block in side.blocks():
        rows = side.rows.iloc[start : start + len(block)].to_dict("records")
        for row, descriptor in zip(rows, block, strict=True):
            record = {
                "id": row["image_id"],
                "restricts": [
                    {"namespace": name, "allow": [row[name]]}
                    for name in ("place_id", "utm_zone", "condition")
                    if row[name]
                ],
                "numeric_restricts": [
                    {"namespace": name, "value_double": row[name]}
                    for name in ("utm_east_m", "utm_north_m", "heading_deg")
                    if np.isfinite(row[name])
                ],
            }
            # By hand: the shortest numbers that are the same float32.
            numbers = ", ".join(map(str, descriptor))
            text = json.dumps(record, ensure_ascii=False)
            yield f'{text[:-1]}, "embedding": [{numbers}]}}\n'


def _check_names(
    names: list[str] | np.ndarray,
    is_refused: Callable[[str], bool],
    layout: str,
    what: str,
) -> None:
    """Refuses names with letters that a layout cannot hold.

    Raises:
        ValueError: names the first such name.
    """
    for name in names:
        if any(map(is_refused, name)):
            raise ValueError(
                f"Expected names without {what} for the layout {layout}. "
                f"Received: {name!r}. Rename that file and build the records "
                "again, or use another --layout."
            )


_LAYOUTS: dict[str, Callable[[Path, Matches], None]] = {
    "hloc": _hloc,
    "kapture": _kapture,
    "msls": _msls,
    "numpy": _numpy,
    "parquet": _parquet,
    "vertex": _vertex,
}
