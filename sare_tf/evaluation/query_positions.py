"""Where the queries of an evaluation were found, for `position_files`."""

from typing import Any

import numpy as np
import pandas as pd

from sare_tf.dataset import manifest
from sare_tf.evaluation.query_results import QueryResults
from sare_tf.search.geography import degrees_at
from sare_tf.search.position_files import Position


def of_results(results: QueryResults) -> list[Position]:
    """Returns the position of the first image retrieved for each query.

    Its properties say where the query was taken, how far that is, and whether
    the protocol counts the image as right.

    Args:
        results: of Q queries.
    """
    found = _Degrees(results.database)
    taken = _Degrees(results.queries)
    table = results.table()
    place_ids = results.database["place_id"].to_numpy(object)
    positions = []
    for number, row in enumerate(results.rows[:, 0]):
        latitude, longitude = found(row) if row >= 0 else (None, None)
        query_latitude, query_longitude = taken(number)
        of_query = table.iloc[number]
        positions.append(
            Position(
                name=of_query["image_id"],
                latitude=latitude,
                longitude=longitude,
                properties={
                    "image_id": of_query["nearest_image_id"],
                    "place_id": place_ids[row] if row >= 0 else "",
                    "is_right": bool(results.hits[number, 0]),
                    "is_counted": bool(results.truth.counted[number]),
                    "confidence": of_query["confidence"],
                    "squared_distance": of_query["nearest_squared_distance"],
                    "error_m": of_query["nearest_metres"],
                    "query_latitude": query_latitude,
                    "query_longitude": query_longitude,
                    "query_place_id": of_query["place_id"],
                },
            )
        )
    return positions


class _Degrees:
    """Latitude and longitude of rows of a manifest, None where unknown."""

    def __init__(self, rows: pd.DataFrame):
        self._metres = manifest.coordinates(rows)
        self._zones = rows["utm_zone"].to_numpy(object)

    def __call__(self, row: int) -> tuple[Any, Any]:
        east, north = self._metres[row].tolist()
        if not np.isfinite([east, north]).all():
            return None, None
        return degrees_at(east, north, self._zones[row])
