"""GSV-Cities: places of 23 cities by year, for training.

    <dataset>/Dataframes/<city>.csv
        place_id,year,month,northdeg,city_id,lat,lon,panoid
    <dataset>/Images/<city_id or city>/<city_id>_<place_id>_<year>_<month>_
        <northdeg>_<lat>_<lon>_<panoid>.jpg

in one name. Latitude and longitude are rounded in the name, so an image is
found by the other fields. A place has 4 to 20 images, and its number counts
within its city. The layout has neither splits nor roles: both are chosen at
random, by place.
"""

from collections.abc import Sequence
from pathlib import Path

from sare_tf.dataset.readers import files_on_disk, splitting
from sare_tf.dataset.readers.collector import ABSENT, Collector, Reading
from sare_tf.dataset.sqlite_manifest import Group

_LAYOUT = "Images/<city>/ for every Dataframes/<city>.csv"
_COLUMNS = (
    *("place_id", "year", "month", "northdeg", "city_id"),
    *("lat", "lon", "panoid"),
)


def read(
    dataset: Path,
    *,
    split_fractions: Sequence[float],
    query_fraction: float,
    seed: int,
) -> Reading:
    """Reads the layout.

    Args:
        dataset: the folder.
        split_fractions: shares of places for train, val and test.
        query_fraction: share of each place's images that become queries.
        seed: of splits and queries.

    Raises:
        ValueError: no image, or a table that lacks columns.
    """
    collector = Collector(dataset, dataset / "Images", layout=_LAYOUT)
    for table in sorted((dataset / "Dataframes").glob("*.csv")):
        _read_city(collector, table)
    splitting.choose_splits(
        collector.images, Group.PLACE, fractions=split_fractions, seed=seed
    )
    collector.set_coordinates()
    splitting.choose_roles(
        collector.images, Group.PLACE, fraction=query_fraction, seed=seed
    )
    return collector.finish()


def _read_city(collector: Collector, table: Path) -> None:
    rows = files_on_disk.read_table(table, *_COLUMNS)
    folders = {}
    for row in rows.to_dict("records"):
        city = row["city_id"]
        if city not in folders:
            folders[city] = _images(collector, city, table.stem)
        key = _key([row[name] for name in (*_COLUMNS[:4], "panoid")])
        if key is None:
            collector.refuse(
                f"{city}/{row['panoid']}", f"no numbers in {table.name}"
            )
            continue
        degrees = (
            files_on_disk.number(row["lat"]),
            files_on_disk.number(row["lon"]),
        )
        image_id = folders[city].get(key)
        if image_id is None:
            collector.refuse(
                f"{city}/" + "_".join(map(str, key)),
                f"named in {table.name}, {ABSENT}",
            )
            continue
        place, year, month, north, panorama = key
        collector.add(
            image_id,
            split="",
            role="",
            degrees=degrees,
            place_id=f"{city}_{place:07d}",
            heading_deg=float(north % 360),
            timestamp=f"{year:04d}-{month:02d}",
            panorama_id=panorama,
        )


def _images(collector: Collector, city_id: str, city: str) -> dict[tuple, str]:
    """Maps what identifies an image in its city to its image_id."""
    images = {}
    # A table can name a folder beside the others, and none elsewhere.
    is_name = city_id not in ("", "..") and not set(city_id) & set("/\\")
    for name in (city_id, city) if is_name else (city,):
        for image_id in collector.image_files(collector.root / name):
            # The panorama's id may hold underscores itself.
            fields = Path(image_id).stem.split("_", 7)
            key = _key([*fields[1:5], fields[-1]]) if len(fields) == 8 else None
            if key is None:
                collector.refuse(image_id, "not a name of GSV-Cities")
            else:
                images[key] = image_id
        if images:
            break
    return images


def _key(fields: Sequence[str]) -> tuple[int, int, int, int, str] | None:
    """Returns place, year, month, direction and panorama; None if invalid."""
    try:
        return (*(int(float(field)) for field in fields[:4]), fields[4])
    except ValueError:
        return None
