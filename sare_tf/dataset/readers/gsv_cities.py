"""GSV-Cities: places of 23 cities by year, for training.

    <dataset>/Dataframes/<city>.csv
        place_id,year,month,northdeg,city_id,lat,lon,panoid
    <dataset>/Images/<city_id or city>/<city_id>_<place_id>_<year>_<month>_
        <northdeg>_<lat>_<lon>_<panoid>.jpg

in one name. Latitude and longitude stand in the name as some program printed
them, so an image is found by the other fields. A place has 4 to 20 images, and
its number counts within its city. The layout has neither splits nor roles: both
are chosen at random, by place.
"""

from collections.abc import Sequence
from pathlib import Path

from sare_tf.dataset.readers import reading, splitting

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
) -> reading.Reading:
    """Reads the layout.

    Args:
        dataset: the folder.
        split_fractions: shares of places for train, val and test.
        query_fraction: share of each place's images that become queries.
        seed: of splits and queries.

    Raises:
        ValueError: no image, or a table that lacks columns.
    """
    found = reading.Collector(dataset, dataset / "Images", layout=_LAYOUT)
    for table in sorted((dataset / "Dataframes").glob("*.csv")):
        _read_city(found, table)
    splitting.split_by(
        found.listing, "place_id", fractions=split_fractions, seed=seed
    )
    found.set_coordinates()
    splitting.choose_roles(
        found.listing, "place_id", fraction=query_fraction, seed=seed
    )
    return found.finish()


def _read_city(found: reading.Collector, table: Path) -> None:
    rows = reading.read_table(table, *_COLUMNS)
    folders = {}
    for row in rows.to_dict("records"):
        city = row["city_id"]
        if city not in folders:
            folders[city] = _images(found, city, table.stem)
        key = _key([row[name] for name in (*_COLUMNS[:4], "panoid")])
        if key is None:
            found.refuse(
                f"{city}/{row['panoid']}", f"no numbers in {table.name}"
            )
            continue
        degrees = reading.number(row["lat"]), reading.number(row["lon"])
        image_id = folders[city].get(key)
        if image_id is None:
            found.refuse(
                f"{city}/" + "_".join(map(str, key)),
                f"named in {table.name}, {reading.ABSENT}",
            )
            continue
        place, year, month, north, panorama = key
        found.add(
            image_id,
            split="",
            role="",
            degrees=degrees,
            place_id=f"{city}_{place:07d}",
            heading_deg=float(north % 360),
            timestamp=f"{year:04d}-{month:02d}",
            panorama_id=panorama,
        )


def _images(
    found: reading.Collector, city_id: str, city: str
) -> dict[tuple, str]:
    """What identifies an image in its city -> its image id."""
    images = {}
    # A table names a folder beside the others, and none elsewhere.
    is_name = city_id not in ("", "..") and not set(city_id) & set("/\\")
    for name in (city_id, city) if is_name else (city,):
        for image_id in found.images(found.root / name):
            # The panorama's id may hold underscores itself.
            fields = Path(image_id).stem.split("_", 7)
            key = _key([*fields[1:5], fields[-1]]) if len(fields) == 8 else None
            if key is None:
                found.refuse(image_id, "not a name of GSV-Cities")
            else:
                images[key] = image_id
        if images:
            break
    return images


def _key(fields: Sequence[str]) -> tuple[int, int, int, int, str] | None:
    """Place, year, month, direction and panorama; None if they are none."""
    try:
        return (*(int(float(field)) for field in fields[:4]), fields[4])
    except ValueError:
        return None
