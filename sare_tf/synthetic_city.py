"""A rendered city with coordinates, for the demo and the tests.

    python -m sare_tf.synthetic_city --out=DIR --places=300 --seed=0

The city has the layout that `readers.at_names` reads. Places stand along the
streets of a district for each split, at least 60 m from each other. Database
and query pictures of a place are taken at different times. The names of the
pictures hold what a GPS receiver would report, not where the camera was. The
same options give the same bytes.
"""

import functools
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from absl import logging

from sare_tf import flags
from sare_tf.city.districts import SPLITS, place_positions
from sare_tf.city.options import CityOptions
from sare_tf.city.place_pictures import place_pictures
from sare_tf.runtime import atomic_files, progress, run_lock, stage_results


@run_lock.one_at_a_time("out")
def run(options: CityOptions) -> Path:
    """Renders a city.

    A city of the same options is kept. A city of other options is replaced.

    Args:
        options: where the city goes, and its size.

    Returns:
        The folder.

    Raises:
        ValueError: the folder holds something other than a city.
    """
    out = Path(options.out)
    if _is_up_to_date(out, options):
        _report(f"{out} is up to date: nothing to do.", options, action="kept")
        return out
    per_place = options.database_per_place + options.queries_per_place
    total = options.places * per_place
    logging.info("Rendering %d pictures of %d places.", total, options.places)
    with (
        atomic_files.folder_in_one_piece(out) as folder,
        progress.bar("render", total=total, unit="picture") as bar,
    ):
        for split in SPLITS:
            for role in ("database", "queries"):
                (folder / "images" / split / role).mkdir(parents=True)
        for pictures in _render_places(options):
            for name, encoded in pictures:
                (folder / "images" / name).write_bytes(encoded)
            bar.update(len(pictures))
        atomic_files.write_json(folder / "city.json", _made_from(options))
    _report(f"City in {out}.", options, action="made")
    return out


def _report(text: str, options: CityOptions, *, action: str) -> None:
    stage_results.report(
        "synthetic_city",
        text,
        path=options.out,
        action=action,
        places=options.places,
        next_command=f"python -m sare_tf.build_records --dataset={options.out} "
        "--records=...",
    )


def _render_places(options: CityOptions) -> Iterator[list[tuple[str, bytes]]]:
    """Yields the pictures of one place after the other."""
    positions = place_positions(options.places, seed=options.seed)
    places = [
        (split, number, position)
        for split in SPLITS
        for number, position in enumerate(positions[split])
    ]
    render = functools.partial(place_pictures, options)
    if options.num_workers == 1:
        yield from map(render, *zip(*places, strict=True))
        return
    with ProcessPoolExecutor(
        options.num_workers or None, mp_context=get_context("spawn")
    ) as pool:
        yield from pool.map(render, *zip(*places, strict=True), chunksize=4)


def _is_up_to_date(out: Path, options: CityOptions) -> bool:
    """Whether `out` is the same city; refuses a folder that is no city."""
    if (out / "city.json").is_file():
        made_from = atomic_files.read_json(
            out / "city.json", made_by="python -m sare_tf.synthetic_city"
        )
        if made_from == _made_from(options):
            return True
        logging.info("Replacing a city of other options in %s.", out)
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(
            "Expected a new or empty folder, or an earlier city. Received: "
            f"out={str(out)!r}, which holds something else. Choose another "
            "folder."
        )
    return False


def _made_from(options: CityOptions) -> dict[str, Any]:
    """The options that decide the bytes, as `city.json` holds them."""
    return {
        "num_places": options.places,
        "seed": options.seed,
        "image_width": options.image_width,
        "image_height": options.image_height,
        "database_per_place": options.database_per_place,
        "queries_per_place": options.queries_per_place,
    }


def main(argv) -> None:
    del argv
    run(CityOptions.from_flags())


if __name__ == "__main__":
    flags.start(main)
