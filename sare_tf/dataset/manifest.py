"""The manifest: a table with one row per image, stored as parquet.

Readers make a manifest of a dataset. Records keep it beside their images, and
an index beside its descriptors. `COLUMNS` says what each column holds, and
`make` builds a manifest from arrays. Which images show the same place is the
business of `positives`.
"""

import contextlib
import re
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sare_tf.dataset import parquet_tables
from sare_tf.dataset.names import ROLES, SPLITS
from sare_tf.dataset.readers import zone_notation
from sare_tf.runtime import atomic_files


class Column(NamedTuple):
    """What a column of the manifest holds.

    Attributes:
        dtype: "str", "float64" or "int64".
        unknown: the value where the dataset says nothing; None: every image
            has a value.
        meaning: in words.
        unit: of a number.
    """

    dtype: str
    unknown: str | float | int | None
    meaning: str
    unit: str = ""


# Coordinates count within a UTM zone, on WGS84, or on any plane where the zone
# is unknown. They are float64: float32 has steps of half a metre there.
COLUMNS = {
    "image_id": Column(
        "str",
        None,
        "Unique. Path of the file below the root of the dataset, with slashes. "
        "`#` and more follow where the image is a part of the file, or uses "
        "the file a second time.",
    ),
    "split": Column("str", None, "One of `names.SPLITS`."),
    "role": Column("str", None, "One of `names.ROLES`."),
    "place_id": Column("str", "", "Equal for images of the same place."),
    "utm_east_m": Column("float64", np.nan, "UTM easting.", "metre"),
    "utm_north_m": Column(
        "float64",
        np.nan,
        "UTM northing, with 10,000 km added south of the equator.",
        "metre",
    ),
    "utm_zone": Column("str", "", "UTM zone and latitude band, such as 17T."),
    "heading_deg": Column(
        "float64", np.nan, "View direction, clockwise from north.", "degree"
    ),
    "timestamp": Column(
        "str", "", "Time in the form of the dataset, to compare for equality."
    ),
    "panorama_id": Column("str", "", "Equal for images cut from a panorama."),
    "sequence_id": Column("str", "", "Equal for images of one drive or walk."),
    "frame": Column("int64", -1, "Number in the sequence or the dataset."),
    "condition": Column("str", "", "Such as night, in words of the dataset."),
    "subtasks": Column(
        "str",
        "",
        "Those of `names.SUBTASKS` that use the image, separated by spaces.",
    ),
    "width": Column("int64", -1, "Columns of the stored image.", "pixel"),
    "height": Column("int64", -1, "Rows of the stored image.", "pixel"),
}
# Rows that are written or read at a time.
BLOCK_ROWS = 1 << 12


_POSITION = ("utm_east_m", "utm_north_m")
_ALLOWED = {"split": SPLITS, "role": ROLES}


def make(
    *,
    image_id: Sequence[str],
    split: str | Sequence[str] = "test",
    role: str | Sequence[str] = "database",
    place_id: str | Sequence[str] | None = None,
    positions: np.ndarray | None = None,
    utm_zone: str | Sequence[str] = "",
    **columns: object,
) -> pd.DataFrame:
    """Makes a manifest from arrays.

    Each argument but `image_id` and `positions` is one value for all images,
    or a sequence with a value for each.

    Args:
        image_id: N names, each once.
        split: of `names.SPLITS`.
        role: of `names.ROLES`.
        place_id: names of places; "" or None where unknown.
        positions: float [N, 2], metres east and north; NaN where unknown.
        utm_zone: UTM zone of the positions, such as 17T, or as
            `zone_notation` has it; "" where unknown.
        **columns: other columns of `COLUMNS`. Columns that are not given are
            unknown.

    Returns:
        A table with all columns of `COLUMNS`, in their order, and N rows.

    Raises:
        ValueError: an unknown column, split or role, a number of values other
            than N, values of another type, an image_id that is empty or not
            unique, a UTM zone whose hemisphere is not certain, or several UTM
            zones beside positions without a zone.
    """
    values = {
        "image_id": list(image_id),
        "split": split,
        "role": role,
        "place_id": place_id,
        "utm_zone": utm_zone,
    }
    others = COLUMNS.keys() - values.keys() - set(_POSITION)
    unknown = sorted(columns.keys() - others)
    if unknown:
        raise ValueError(
            f"Expected columns of a manifest: {', '.join(sorted(others))}. "
            f"Received: {unknown}."
        )
    values |= columns
    count = len(values["image_id"])
    if positions is not None:
        positions = np.asarray(positions, np.float64)
        if positions.shape != (count, 2):
            raise ValueError(
                f"Expected positions [{count}, 2] of {count} images. Received: "
                f"positions {list(positions.shape)}."
            )
        values |= dict(zip(_POSITION, positions.T, strict=True))
    table = pd.DataFrame(
        {name: _column(name, values.get(name), count) for name in COLUMNS}
    )
    _check_ids(table["image_id"])
    for name in _ALLOWED:
        check_values(name, table[name].unique())
    zone_notation.resolve_manifest(table)
    without_zone = table["utm_zone"].eq("") & table["utm_east_m"].notna()
    zones = sorted(set(table["utm_zone"]) - {""})
    check_zones(zones, table["image_id"][without_zone].tolist())
    return table


def _column(name: str, value: object, count: int) -> pd.Series:
    """Returns one column of N values; one value is repeated."""
    dtype, unknown, *_ = COLUMNS[name]
    if value is None:
        value = unknown
    if isinstance(value, str) or np.ndim(value) == 0:
        value = [value] * count
    values = np.asarray(value, object if dtype == "str" else None)
    if values.shape != (count,):
        raise ValueError(
            f"Expected one {name} for each of {count} images. Received: {name} "
            f"of shape {list(values.shape)}."
        )
    if dtype == "str":
        is_valid = all(isinstance(text, str) for text in values)
    else:
        kinds = "iu" if dtype == "int64" else "iuf"
        is_valid = values.dtype.kind in kinds or not count
    if not is_valid:
        raise ValueError(
            f"Expected {name} as {dtype}. Received: {name}={value!r:.80}."
        )
    return pd.Series(values).astype(dtype)


def _check_ids(image_ids: pd.Series) -> None:
    repeated = image_ids[image_ids.duplicated()]
    if image_ids.eq("").any() or len(repeated):
        raise ValueError(
            "Expected a unique image_id of every image. Received: "
            f"{int(image_ids.eq('').sum())} empty ones, and {len(repeated)} "
            f"more than once, such as {repeated.head(3).tolist()}."
        )


def check_values(column: str, values: Iterable[str]) -> None:
    """Raises ValueError for an unknown split or role.

    Args:
        column: "split" or "role".
        values: all that occur.
    """
    allowed = _ALLOWED[column]
    other = [value for value in values if value not in allowed]
    if other:
        raise ValueError(
            f"Expected {column} to be one of {', '.join(allowed)}. "
            f"Received: {other[:3]}."
        )


def check_zones(zones: Sequence[str], without_zone: Sequence[str]) -> None:
    """Raises ValueError for several zones beside coordinates without a zone.

    Args:
        zones: all UTM zones that occur, but "".
        without_zone: image ids with coordinates and no zone.
    """
    if without_zone and len(set(map(grid, zones))) > 1:
        raise ValueError(
            "Expected the UTM zone of every image with coordinates "
            f"where there are several zones. Received: {zones}, and "
            f"{len(without_zone)} images without, such as "
            f"{without_zone[0]!r}."
        )


def grid(zone: str) -> str:
    """Returns the grid of a UTM zone, whose coordinates can be compared.

    The bands of a zone north of the equator share one grid ("17 north" for 17S
    and 17T), as do those south of it. A name that is no zone with its band is a
    grid of its own.
    """
    match = re.fullmatch(r"(\d{1,2})([C-HJ-NP-X])", zone)
    if not match:
        return zone
    return f"{int(match[1])} {'north' if match[2] >= 'N' else 'south'}"


def grids(manifest: pd.DataFrame) -> np.ndarray:
    """Returns the grid of each image, object [N]."""
    return manifest["utm_zone"].map(grid).to_numpy(object)


def coordinates(manifest: pd.DataFrame) -> np.ndarray:
    """Returns metres east and north, float64 [N, 2]; NaN where unknown."""
    return manifest[list(_POSITION)].to_numpy(np.float64)


def has_coordinates(manifest: pd.DataFrame) -> bool:
    """Returns whether every image has finite coordinates."""
    return bool(np.isfinite(coordinates(manifest)).all())


def has_places(manifest: pd.DataFrame) -> bool:
    """Returns whether every image has a place_id."""
    return bool((manifest["place_id"] != "").all())


def in_blocks(tables: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """Yields the rows of tables in blocks of `BLOCK_ROWS`."""
    waiting, count = [], 0
    for table in tables:
        while len(table):
            head = table.iloc[: BLOCK_ROWS - count]
            table = table.iloc[len(head) :]
            waiting.append(head)
            count += len(head)
            if count == BLOCK_ROWS:
                yield pd.concat(waiting, ignore_index=True)
                waiting, count = [], 0
    if waiting:
        yield pd.concat(waiting, ignore_index=True)


def write(manifest: pd.DataFrame, path: str | Path) -> None:
    """Writes a manifest as parquet, in one piece."""
    with atomic_files.file_in_one_piece(path) as temporary:
        manifest.to_parquet(temporary, index=False)


def write_parts(tables: Iterable[pd.DataFrame], path: str | Path) -> None:
    """Writes a manifest that comes in several tables, at least one with rows.

    The file is the same however the rows are divided.
    """
    with (
        atomic_files.file_in_one_piece(path) as temporary,
        contextlib.ExitStack() as stack,
    ):
        writer = None
        for block in in_blocks(tables):
            block = pa.Table.from_pandas(block, preserve_index=False)
            writer = writer or stack.enter_context(
                pq.ParquetWriter(temporary, block.schema)
            )
            writer.write_table(block)


def read(
    path: str | Path, *, others: Mapping[str, str] = types.MappingProxyType({})
) -> pd.DataFrame:
    """Reads a manifest.

    Args:
        path: the file.
        others: dtypes of columns that it must have beside `COLUMNS`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, or is no manifest.
    """
    dtypes = {name: column.dtype for name, column in COLUMNS.items()}
    return parquet_tables.read(Path(path), {**dtypes, **others})


def read_parts(
    path: str | Path, sizes: Iterable[int]
) -> Iterator[pd.DataFrame]:
    """Reads a manifest in tables of given numbers of rows.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, or has fewer rows.
    """
    path = Path(path)
    try:
        with pq.ParquetFile(path) as file:
            batches = file.iter_batches(BLOCK_ROWS)
            waiting = file.schema_arrow.empty_table()
            for size in sizes:
                while len(waiting) < size:
                    batch = pa.Table.from_batches([next(batches)])
                    waiting = pa.concat_tables([waiting, batch])
                yield waiting[:size].to_pandas()
                waiting = waiting[size:]
    except FileNotFoundError:
        raise
    except (*parquet_tables.ERRORS, StopIteration) as error:
        raise ValueError(
            f"Expected a manifest. Received: path={str(path)!r}, which cannot "
            f"be read ({str(error) or 'too few rows'})."
        ) from error
