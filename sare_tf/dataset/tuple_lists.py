"""Lists of training tuples: which image is whose positive and negative.

A table with one row per tuple and the columns `query`, `positive`,
`negative_1` to `negative_N`, in that order, which hold image_ids. Training
writes the tuples that it mined as such a table. Other lists come as parquet or
CSV files. Axis letters: M tuples, T = 2 + N images of a tuple.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from sare_tf.dataset import parquet_tables
from sare_tf.runtime import text_files


def columns(size: int) -> list[str]:
    """Returns the names of the columns for tuples of T images."""
    return [
        "query",
        "positive",
        *(f"negative_{n + 1}" for n in range(size - 2)),
    ]


def make(tuples: np.ndarray, rows: pd.DataFrame) -> pd.DataFrame:
    """Makes a list of tuples.

    Args:
        tuples: int [M, T], positions in `rows`.
        rows: rows of a manifest.

    Returns:
        The table, [M, T].
    """
    image_ids = rows["image_id"].to_numpy(object)
    return pd.DataFrame(
        {
            name: image_ids[column]
            for name, column in zip(
                columns(tuples.shape[1]), tuples.T, strict=True
            )
        }
    )


def write(table: pd.DataFrame, path: str | Path) -> None:
    """Writes a list of tuples as parquet."""
    table.to_parquet(path, index=False, write_page_checksum=True)


def read(path: str | Path) -> pd.DataFrame:
    """Reads a list of tuples.

    Args:
        path: a file whose name ends in .parquet or .csv.

    Returns:
        The table, [M, T].

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file cannot be read, or has other columns or empty
            cells.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            "Expected a file of tuples. Received: "
            f"tuple_list={str(path)!r}, which does not exist. Training leaves "
            "one in the folder of each epoch."
        )
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise ValueError(
            "Expected a list of tuples as .parquet or .csv. Received: "
            f"tuple_list={str(path)!r}."
        )
    try:
        if path.suffix.lower() == ".csv":
            table = pd.read_csv(
                path,
                dtype=str,
                keep_default_na=False,
                encoding=text_files.encoding_of(path),
            )
            # Tables that were written with their row numbers.
            is_named = ~table.columns.str.startswith("Unnamed: ")
            table = table.loc[:, is_named]
        else:
            table = pd.read_parquet(path, page_checksum_verification=True)
    except parquet_tables.ERRORS as error:
        raise ValueError(
            "Expected a list of tuples that can be read. Received: "
            f"tuple_list={str(path)!r} ({error})."
        ) from error
    size = len(table.columns)
    if size < 3 or list(table.columns) != columns(size) or not len(table):
        raise ValueError(
            "Expected one row per tuple and the columns query, positive, "
            "negative_1, negative_2 and so on. Received: "
            f"tuple_list={str(path)!r} with {len(table)} rows and the columns "
            f"{[str(name) for name in table.columns]}."
        )
    is_text = table.map(lambda cell: isinstance(cell, str) and cell != "")
    if not is_text.to_numpy().all():
        row, column = np.argwhere(~is_text.to_numpy())[0]
        raise ValueError(
            "Expected an image_id in every cell. Received: "
            f"tuple_list={str(path)!r} with {table.iat[row, column]!r} as "
            f"{table.columns[column]} of tuple {row}, counted from 0."
        )
    return table


def find(table: pd.DataFrame, rows: pd.DataFrame) -> np.ndarray:
    """Finds the images of tuples.

    Args:
        table: the list, [M, T].
        rows: rows of a manifest.

    Returns:
        int64 [M, T], positions in `rows`.

    Raises:
        ValueError: an image is not in `rows`, or is twice in one tuple.
    """
    index = pd.Index(rows["image_id"])
    positions = np.column_stack(
        [index.get_indexer(table[name]) for name in table.columns]
    ).astype(np.int64)
    absent = np.argwhere(positions < 0)
    if len(absent):
        row, column = absent[0]
        raise ValueError(
            "Expected tuples of images of the train split of the records. "
            f"Received: {table.iat[row, column]!r} as {table.columns[column]} "
            f"of tuple {row}, counted from 0, which is not there, and "
            f"{len(absent) - 1} others. Give the --records that the list was "
            "made for."
        )
    ordered = np.sort(positions, axis=1)
    twice = np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(axis=1))
    if len(twice):
        raise ValueError(
            "Expected different images in a tuple. Received: "
            f"{table.iloc[twice[0]].tolist()} as tuple {twice[0]}, counted "
            f"from 0, and {len(twice) - 1} others like it."
        )
    return positions
