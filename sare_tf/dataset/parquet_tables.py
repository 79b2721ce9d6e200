"""Tables in parquet files, with the columns and types that they must have."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pyarrow as pa

# What Arrow raises for a damaged file.
ERRORS = (OSError, ValueError, pa.ArrowException)


def read(path: Path, dtypes: Mapping[str, str]) -> pd.DataFrame:
    """Reads a parquet file.

    Args:
        path: the file.
        dtypes: "str", "float64" or "int64" of each column that it must have.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, or lacks a column.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected a {path.stem}. Received: path={str(path)!r}, which does "
            "not exist."
        )
    try:
        table = pd.read_parquet(path)
    except (*ERRORS, LookupError, TypeError) as error:
        raise ValueError(
            f"Expected a {path.stem}. Received: path={str(path)!r}, which "
            f"cannot be read ({error})."
        ) from error
    missing = [name for name in dtypes if name not in table]
    if missing:
        raise ValueError(
            f"Expected a {path.stem}. Received: path={str(path)!r} without the "
            f"columns {missing}."
        )
    for name, dtype in dtypes.items():
        if not _holds(table[name], dtype):
            raise ValueError(
                f"Expected {dtype} in the column {name}. Received: path="
                f"{str(path)!r} with other values."
            )
    return table


def _holds(column: pd.Series, dtype: str) -> bool:
    """Returns whether all values of a column are of a type."""
    if dtype == "str":
        inferred = pd.api.types.infer_dtype(column, skipna=False)
        return inferred == "string" or not len(column)
    return column.dtype == dtype
