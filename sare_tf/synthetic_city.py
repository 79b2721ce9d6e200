"""A rendered city with coordinates, for the demo and the tests.

    python -m sare_tf.synthetic_city --out=DIR --places=300 --seed=0

It is written in the layout of `readers.at_names`. Train, val and test are
districts of their own, kilometres apart. A district is a grid of streets with
blocks of uneven size; places stand along them, at least 60 m from each other.
Database and query pictures of a place are taken at different times. The names
hold what a receiver of GPS would say, not where the camera was. The same
arguments give the same bytes.
"""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from absl import logging
from tqdm import tqdm

from sare_tf import flags
from sare_tf.city import painting
from sare_tf.city.options import CityOptions
from sare_tf.runtime import atomic_files

# Shares of places, and where the district begins, in metres east.
_DISTRICTS = {
    "train": (0.84, 500_000.0),
    "val": (0.06, 510_000.0),
    "test": (0.10, 520_000.0),
}
_NORTH_M = 4_500_000.0
_ZONE = "32@T"
_APART_M = 60.0
# Standard deviation and largest error of the coordinates in the names.
_GPS_M = 1.6
_GPS_MOST_M = 4.0
_FEWEST_PLACES = 10


def run(options: CityOptions) -> Path:
    """Renders a city.

    A city of the same options is kept as it is.

    Args:
        options: its folder, which is replaced if it holds another city, and
            what it looks like.

    Returns:
        The folder.

    Raises:
        ValueError: too few places, pictures or pixels, or a folder that holds
            something else.
    """
    out = Path(options.out)
    num_places = options.places
    made_from = {
        "num_places": num_places,
        "seed": options.seed,
        "image_width": options.image_width,
        "image_height": options.image_height,
        "database_per_place": options.database_per_place,
        "queries_per_place": options.queries_per_place,
    }
    _check(options)
    if _is_up_to_date(out, made_from):
        logging.info("%s is up to date: nothing to do.", out)
        return out
    jobs = []
    for split, positions in place_positions(
        num_places, seed=options.seed
    ).items():
        jobs += [
            (split, number, *position, made_from)
            for number, position in enumerate(positions)
        ]
    pictures = num_places * (
        options.database_per_place + options.queries_per_place
    )
    logging.info("Rendering %d pictures of %d places.", pictures, num_places)
    with atomic_files.folder_in_one_piece(out) as folder:
        for split in _DISTRICTS:
            for role in ("database", "queries"):
                (folder / "images" / split / role).mkdir(parents=True)
        with tqdm(
            total=pictures, unit="picture", desc="render", leave=False
        ) as progress:
            for place in _in_processes(jobs, options.num_workers):
                for name, encoded in place:
                    (folder / "images" / name).write_bytes(encoded)
                    progress.update()
        atomic_files.write_json(folder / "city.json", made_from)
    logging.info(
        "City in %s. Next: python -m sare_tf.build_records --dataset=%s "
        "--records=...",
        out,
        out,
    )
    return out


def place_positions(
    num_places: int, *, seed: int
) -> dict[str, list[tuple[float, float, float]]]:
    """Lays out the streets of each district, and places along them.

    Args:
        num_places: of all districts.
        seed: of the layout.

    Returns:
        split -> (metres east, metres north, heading of the camera in degrees
        from north) of each place.
    """
    counts = {
        split: max(2, math.floor(share * num_places))
        for split, (share, _) in _DISTRICTS.items()
    }
    counts["train"] += num_places - sum(counts.values())
    return {
        split: _district(count, _DISTRICTS[split][1], (seed, number))
        for number, (split, count) in enumerate(counts.items())
    }


def _district(
    count: int, east_m: float, seed: Sequence[int]
) -> list[tuple[float, float, float]]:
    """Places on the sides of the blocks of a grid, the grid as large as needed.

    They keep off the crossings, where streets would be within 60 m.
    """
    rng = np.random.default_rng((*seed, 1))
    lines = 2 + math.ceil(math.sqrt(count))
    candidates = []
    for along_north in (False, True):
        across = np.cumsum(rng.uniform(150, 240, lines))
        crossings = np.cumsum(rng.uniform(150, 240, lines))
        for street in across:
            for start, end in zip(crossings[:-1], crossings[1:], strict=True):
                for at in np.arange(start + 45, end - 45, rng.uniform(62, 75)):
                    bend = rng.uniform(-3, 3)
                    side = int(rng.integers(2))
                    if along_north:
                        place = (street + bend, at, 90.0 + 180 * side)
                    else:
                        place = (at, street + bend, 180.0 * side)
                    candidates.append(place)
    chosen = []
    for index in rng.permutation(len(candidates)):
        east, north, heading = candidates[index]
        if all(
            math.hypot(east - e, north - n) >= _APART_M for e, n, _ in chosen
        ):
            chosen.append((east, north, heading))
        if len(chosen) == count:
            break
    return [(east_m + e, _NORTH_M + n, heading) for e, n, heading in chosen]


def _in_processes(
    jobs: list[tuple], num_workers: int
) -> Iterator[list[tuple[str, bytes]]]:
    """Pictures of one place after the other, in the order of the jobs."""
    if num_workers == 1:
        yield from map(_pictures, jobs)
        return
    with ProcessPoolExecutor(
        num_workers or None, mp_context=get_context("spawn")
    ) as pool:
        yield from pool.map(_pictures, jobs, chunksize=4)


def _pictures(job: tuple) -> list[tuple[str, bytes]]:
    """All pictures of one place: names below `images`, and JPEGs."""
    split, number, east_m, north_m, heading_deg, made_from = job
    seed = (made_from["seed"], list(_DISTRICTS).index(split), number)
    place = painting.paint_place(seed)
    rng = np.random.default_rng((*seed, 1))
    pictures = []
    for role, count in (
        ("database", made_from["database_per_place"]),
        ("queries", made_from["queries_per_place"]),
    ):
        for view in range(count):
            moment = painting.draw_moment(rng)
            encoded = painting.render(
                place,
                moment,
                rng,
                width=made_from["image_width"],
                height=made_from["image_height"],
            )
            name = _name(
                moment,
                east_m,
                north_m,
                heading_deg,
                f"{split}{number:04d}{role[0]}{view}",
                rng,
            )
            pictures.append((f"{split}/{role}/{name}", encoded))
    return pictures


def _name(moment, east_m, north_m, heading_deg, picture_id, rng) -> str:
    """The name of a picture, see `readers.at_names`."""
    right = math.radians(heading_deg + 90)
    error = np.clip(rng.normal(0, _GPS_M, 2), -_GPS_MOST_M, _GPS_MOST_M)
    east = east_m + moment.x_m * math.sin(right) + error[0]
    north = north_m + moment.x_m * math.cos(right) + error[1]
    heading = round(heading_deg + moment.yaw_deg) % 360
    day = int(rng.integers(1, 29))
    hour = 21 if moment.night else int(rng.integers(8, 18))
    year = int(rng.integers(2019, 2025))
    timestamp = f"{year}{moment.month:02d}{day:02d}_{hour:02d}0000"
    note = "night" if moment.night else moment.weather
    return (
        f"@{east:010.2f}@{north:010.2f}@{_ZONE}@@@{picture_id}@@{heading:03d}"
        f"@{round(moment.pitch_deg):03d}@@@{timestamp}@{note}@.jpg"
    )


def _check(options: CityOptions) -> None:
    least = {
        "places": _FEWEST_PLACES,
        "image_width": 32,
        "image_height": 32,
        "database_per_place": 1,
        "queries_per_place": 1,
    }
    for name, value in least.items():
        if getattr(options, name) < value:
            raise ValueError(
                f"Expected {name} to be at least {value}. Received: "
                f"{name}={getattr(options, name)}."
            )


def _is_up_to_date(out: Path, made_from: dict[str, int]) -> bool:
    """True for the same city; refuses a folder that is no city."""
    if (out / "city.json").is_file():
        found = atomic_files.read_json(
            out / "city.json", made_by="python -m sare_tf.synthetic_city"
        )
        if found == made_from:
            return True
        logging.info("Replacing a city of other arguments in %s.", out)
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(
            "Expected a new or empty folder, or an earlier city. Received: "
            f"out={str(out)!r}, which holds something else. Choose another "
            "folder."
        )
    return False


def main(argv) -> None:
    del argv
    run(CityOptions.from_flags())


if __name__ == "__main__":
    flags.start(main)
