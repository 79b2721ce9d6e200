"""Photographs to search in, of which nothing need be known.

    <dataset>/**/*.jpg

All are database images, of the split test. Folders only group them: they are no
places. A photograph has a position if its EXIF header has one that can be used;
the others have none.
"""

from pathlib import Path

from sare_tf.dataset.readers import exif_photos, utm
from sare_tf.dataset.readers.collector import Assumption, Collector, Reading

_LAYOUT = "**/*.jpg or **/*.png"


def read(
    dataset: Path,
    *,
    utm_zone: str,
    doubtful_positions: str,
    positive_radius_m: float,
) -> Reading:
    """Reads the layout, and the positions in the headers of its photographs.

    Args:
        dataset: the folder.
        utm_zone: zone for all; empty: see `utm_zones.project`.
        doubtful_positions: "keep" or "leave_out" the positions that
            `gps_position.doubts`. Their photographs are kept.
        positive_radius_m: largest error of a position that serves.

    Raises:
        ValueError: no photograph.
    """
    collector = Collector(dataset, dataset, layout=_LAYOUT)
    doubtful = []
    for image_id in collector.image_files(dataset):
        columns, doubt = _header(dataset / image_id, positive_radius_m)
        if doubt and doubtful_positions == "leave_out":
            columns.pop("degrees")
        if (
            collector.add(image_id, split="test", role="database", **columns)
            and doubt
        ):
            doubtful.append((image_id, doubt))
    if doubtful:
        collector.assumptions.append(_assumption(doubtful, doubtful_positions))
    collector.set_coordinates(utm_zone=utm_zone)
    return collector.finish()


def _header(path: Path, radius_m: float) -> tuple[dict[str, object], str]:
    """Returns what a header says; nothing if it has no position."""
    try:
        columns, doubt = exif_photos.parse(path, radius_m=radius_m)
    except ValueError:
        return {}, ""
    if utm.problem(*columns["degrees"]):
        return {}, ""
    return columns, doubt


def _assumption(doubtful: list[tuple[str, str]], choice: str) -> Assumption:
    image_id, doubt = doubtful[0]
    kept = choice == "keep"
    return Assumption(
        name="doubtful_position",
        message=f"{len(doubtful):,} photographs doubt their position, such as "
        f"{image_id}: {doubt}. Their positions are "
        f"{'kept' if kept else 'left out'}.",
        action="--doubtful_positions=leave_out leaves these positions out."
        if kept
        else "--doubtful_positions=keep keeps them.",
        images=doubtful,
        count=len(doubtful),
    )
