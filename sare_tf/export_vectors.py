"""index/ + the queries of records/ -> descriptors and matches for others.

    python -m sare_tf.export_vectors --flagfile=configs/demo.flags \
        --layout=hloc --out=runs/demo/hloc

Layouts:

    hloc      global-feats.h5, an array `global_descriptor` of each image by
              its name, and pairs.txt, `query database` a line, for hloc's
              matching; names are those of export_dataset --layout=hloc
    kapture   reconstruction/global_features/, sensors/, pairs.txt
    msls      submission.csv, a line per query of its key and those of its
              matches, as Mapillary SLS takes it; zip it for CodaLab
    numpy     {database,queries}.npy [N, D] with {database,queries}.csv, and
              matches.csv
    parquet   {database,queries}.parquet: image_id, vector and what is known;
              Milvus imports such files
    vertex    database/*.json, a directory that Vertex AI Vector Search builds
              an index from (DOT_PRODUCT_DISTANCE); queries.json beside it

docs/vectors.md shows how each is read. Descriptors have length 1, so that
products, cosines and distances rank alike. Matches are the --k nearest by exact
search; where a split has no queries, the database alone is written. Memory does
not grow with the database, but for hloc's list of names.

Sources: github.com/cvg/Hierarchical-Localization, pairs_from_retrieval.py;
github.com/naver/kapture, kapture_format.adoc 1.1; github.com/mapillary/
mapillary_sls; cloud.google.com/vertex-ai/docs/vector-search, "Input data format
and structure"; milvus.io/docs, "Prepare Source Data".
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from absl import logging

from sare_tf import export_dataset, flags, serving
from sare_tf import index as index_stage
from sare_tf.records.records import Records
from sare_tf.runtime import atomic_files
from sare_tf.search import exact_search
from sare_tf.search.opened_index import Index
from sare_tf.search.options import VectorOptions

# Rows held in memory at a time.
_BLOCK = 4096
# Rows of one file for Vertex AI, which takes up to 5,000 files.
_VERTEX_ROWS = 100_000
_NAME = "sare_tf"


def run(options: VectorOptions) -> Path:
    """Writes the descriptors of a split's database and queries, and matches.

    Args:
        options: the index of that split, or shards of it; the records and the
            export that it was built from; the new folder and its layout.

    Returns:
        The new folder.

    Raises:
        FileNotFoundError: an input is absent.
        ValueError: a folder that exists, inputs that do not belong together, or
            names that the layout cannot hold.
    """
    out, layout = Path(options.out), options.layout
    if out.exists():
        raise ValueError(
            f"Expected a new folder. Received: out={str(out)!r}, which exists. "
            "Choose another --out, or remove it."
        )
    search = Index.open(options.index, exact=True)
    servable = serving.load(serving.named(options))
    search.check_export(servable)
    opened = Records(options.records)
    rows = _queries(opened, options.split)
    descriptors = index_stage.embed(
        servable,
        opened.read_images(rows),
        rows["image_id"].tolist(),
        batch_size=options.batch_size,
    )
    found, distances = exact_search.nearest(
        descriptors, search.descriptors, min(options.k, len(search.manifest))
    )
    queries = _Side("queries", rows.reset_index(drop=True), descriptors)
    database = _Side("database", search.manifest, search.descriptors)
    with atomic_files.folder_in_one_piece(out) as folder:
        _LAYOUTS[layout](folder, queries, database, found, distances)
    logging.info(
        "%d database images and %d queries with %d matches each as %s in %s.",
        len(database.rows),
        len(rows),
        found.shape[1],
        layout,
        out,
    )
    return out


def _queries(opened: Records, split: str) -> pd.DataFrame:
    """Rows of the queries of a split, which may have none.

    Raises:
        ValueError: there is no such split.
    """
    database = opened.rows(split, "database")
    of_split = opened.manifest["split"] == split
    if not (of_split & (opened.manifest["role"] == "query")).any():
        logging.warning("No queries: the database alone is written.")
        return database[:0]
    return opened.rows(split, "query")


class _Side:
    """Queries or database: rows of a manifest, and their descriptors.

    Attributes:
        name: "queries" or "database".
        rows: the rows.
        descriptors: [N, D]; may be a memory map.
        names: of the images' files.
    """

    def __init__(self, name: str, rows: pd.DataFrame, descriptors: np.ndarray):
        self.name = name
        self.rows = rows
        self.descriptors = descriptors
        self.names = export_dataset.safe_names(rows)

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """First rows, and float32 [n, D]."""
        # At least one block, so that files of no rows have their columns.
        for start in range(0, len(self.rows) or 1, _BLOCK):
            block = self.descriptors[start : start + _BLOCK]
            yield start, np.asarray(block, np.float32)

    def named(self) -> Iterator[tuple[str, np.ndarray]]:
        """Names of files, and descriptors [D]."""
        for start, block in self.blocks():
            yield from zip(
                self.names[start : start + len(block)], block, strict=True
            )


def _numpy(folder, queries, database, found, distances) -> None:
    for side in (queries, database):
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
    matches = pd.DataFrame(
        {
            "query": np.repeat(queries.rows["image_id"], found.shape[1]),
            "rank": np.tile(np.arange(1, found.shape[1] + 1), len(found)),
            "database": database.rows["image_id"].to_numpy()[found.ravel()],
            "squared_distance": distances.ravel(),
        }
    )
    matches.to_csv(folder / "matches.csv", index=False)


def _hloc(folder, queries, database, found, distances) -> None:
    # Slow to import, and only needed here.
    import h5py

    del distances
    for name in (*queries.names, *database.names):
        # hloc splits its lists at white space.
        if any(letter.isspace() for letter in name):
            raise _unfit(name, "hloc", "white space")
    with h5py.File(folder / "global-feats.h5", "w") as file:
        for side in (queries, database):
            for name, descriptor in side.named():
                file[f"{name}/global_descriptor"] = descriptor
    pairs = [
        f"{query} {database.names[row]}\n"
        for query, neighbours in zip(queries.names, found, strict=True)
        for row in neighbours
    ]
    atomic_files.write_text(folder / "pairs.txt", "".join(pairs))


def _kapture(folder, queries, database, found, distances) -> None:
    for name in (*queries.names, *database.names):
        if "," in name:
            raise _unfit(name, "kapture", "a comma")
    features = folder / "reconstruction" / "global_features" / _NAME
    features.mkdir(parents=True)
    _kapture_table(
        features / "global_features.txt",
        "name, dtype, dsize, metric_type",
        [f"{_NAME}, float32, {queries.descriptors.shape[1]}, L2"],
    )
    for side in (queries, database):
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
    names = [*queries.names, *database.names]
    _kapture_table(
        folder / "sensors" / "records_camera.txt",
        "timestamp, device_id, image_path",
        [
            # Times are not known to all layouts: the order stands for them.
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
            f"{query}, {database.names[row]}, {1 - distance / 2:.6f}"
            for query, neighbours, how_far in zip(
                queries.names, found, distances, strict=True
            )
            for row, distance in zip(neighbours, how_far, strict=True)
        ],
    )


def _kapture_table(path: Path, header: str, lines: list[str]) -> None:
    text = "\n".join(["# kapture format: 1.1", f"# {header}", *lines])
    atomic_files.write_text(path, text + "\n")


def _msls(folder, queries, database, found, distances) -> None:
    del distances
    of_queries, of_database = (
        np.array([PurePosixPath(name).stem for name in side.rows["image_id"]])
        for side in (queries, database)
    )
    for keys, side in ((of_queries, queries), (of_database, database)):
        names, counts = np.unique(keys, return_counts=True)
        if (counts > 1).any():
            raise ValueError(
                "Expected names of files that differ, which are the keys of "
                f"Mapillary SLS. Received: {names[counts.argmax()]} "
                f"{counts.max()} times in the {side.name}. Use another "
                "--layout."
            )
    for key in (*of_queries, *of_database):
        if any(letter.isspace() for letter in key):
            raise _unfit(key, "msls", "white space")
    lines = [
        " ".join([query, *of_database[neighbours]]) + "\n"
        for query, neighbours in zip(of_queries, found, strict=True)
    ]
    atomic_files.write_text(folder / "submission.csv", "".join(lines))


def _parquet(folder, queries, database, found, distances) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    del found, distances
    for side in (queries, database):
        writer = None
        for start, block in side.blocks():
            rows = side.rows.iloc[start : start + len(block)]
            table = pa.Table.from_pandas(rows, preserve_index=False)
            flat = pa.array(block.reshape(-1))
            # A plain list, not of a fixed size: what Milvus reads.
            offsets = np.arange(len(block) + 1, dtype=np.int32)
            vectors = pa.ListArray.from_arrays(offsets * block.shape[1], flat)
            table = table.append_column("vector", vectors)
            path = folder / f"{side.name}.parquet"
            writer = writer or pq.ParquetWriter(path, table.schema)
            writer.write_table(table)
        writer.close()


def _vertex(folder, queries, database, found, distances) -> None:
    del found, distances
    (folder / "database").mkdir()
    with (folder / "queries.json").open("w", encoding="utf-8") as file:
        file.writelines(_vertex_lines(queries))
    file = None
    for number, line in enumerate(_vertex_lines(database)):
        if number % _VERTEX_ROWS == 0:
            if file:
                file.close()
            part = number // _VERTEX_ROWS
            path = folder / "database" / f"database-{part:05d}.json"
            file = path.open("w", encoding="utf-8")
        file.write(line)
    file.close()


def _vertex_lines(side: _Side) -> Iterator[str]:
    """A line of JSON for each image: id, what to filter by, embedding."""
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


def _unfit(name: str, layout: str, what: str) -> ValueError:
    return ValueError(
        f"Expected names without {what} for the layout {layout}. Received: "
        f"{name!r}. Rename that file and build the records again, or use "
        "another --layout."
    )


_LAYOUTS: dict[str, Callable[..., None]] = {
    "hloc": _hloc,
    "kapture": _kapture,
    "msls": _msls,
    "numpy": _numpy,
    "parquet": _parquet,
    "vertex": _vertex,
}


def main(argv) -> None:
    del argv
    run(VectorOptions.from_flags())


if __name__ == "__main__":
    flags.start(main)
