"""index/ + photographs -> the most similar places.

    python -m sare_tf.locate --photos=FOLDER PHOTO.jpg ...
    python -m sare_tf.locate --flagfile=sare_tf:demo PHOTO.jpg ...

With --photos, the photographs of a folder are searched, with a pretrained
network: what this needs is made in a cache, see `photo_database`, and brought
up to date when the folder changes. Without it, an index that was built before.

Photographs are files, folders, or patterns such as 'trip/*.jpg'. If one cannot
be read, it is named, the others are answered, and the exit code is 1. `--json`
prints one object per photograph, `--picture` draws the matches,
`--write_positions` writes files for maps, and `--serve` opens a page that
answers the photographs dropped on it. `--near=LAT,LON --within_m=2000`,
`--region`, `--taken_from`, `--taken_until`, `--conditions` and `--place_ids`
search only the images that agree with what is known. `--rerank` orders the
matches anew by local features. `--sequence=FOLDER` or a video looks up frames
that follow each other together, and `--write_positions` then writes a track.
`--keep_warm` leaves a process running that answers the next calls at once.
`--index=http://HOST:PORT,...` searches parts that other processes of `--serve`
hold, see docs/many_machines.md.
`search.confidence` defines the confidence of an answer.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import logging

from sare_tf import flags, serving
from sare_tf.pages import map_tiles
from sare_tf.pages.options import LocateOptions, ServeOptions
from sare_tf.runtime import progress, run_lock, stage_results, tensorflow_import
from sare_tf.runtime.damage import Damaged
from sare_tf.search import (
    calibration,
    photo_files,
    position_files,
    warm_client,
)
from sare_tf.search.answers import Answer
from sare_tf.search.index_folders import PartAddress
from sare_tf.search.options import PhotoFolderOptions
from sare_tf.serving.options import ServableOptions

# TensorFlow and matplotlib take seconds to import: only where they are needed.
if TYPE_CHECKING:
    from sare_tf.search.gallery import Gallery
    from sare_tf.search.locator import Locator


def run(options: LocateOptions) -> Iterator[tuple[str, Answer]]:
    """Looks up photographs in an index.

    Args:
        options: the photographs, the index, and the export that it was built
            with, or its server; for a picture of the matches, also the records.

    Returns:
        Name and answer of each photograph, in their order, as soon as it is
        answered. The picture and the files of positions are written at the
        end.

    Raises:
        FileNotFoundError: index, export or records do not exist.
        ValueError: the index was built with another export or from other
            records, no image agrees with what is known, or a picture cannot
            hold so many photographs.
    """
    if options.sequence:
        return _follow(options)
    paths = [
        path for photo in options.photos for path in photo_files.expand(photo)
    ]
    if options.picture is not None:
        from sare_tf.pages import locate_picture

        locate_picture.check(options.picture, len(paths))
    # A photograph of the folder is no match of itself.
    own = {
        path: photo_files.name_in(options.photo_folder, path)
        if options.photo_folder
        else ""
        for path in paths
    }
    options, locator = _locator(options)
    gallery = None
    if options.picture is not None:
        gallery = _gallery(options, locator)
    return _answers(options, paths, own, locator, gallery)


def _locator(
    options: LocateOptions,
) -> "tuple[LocateOptions, Locator | warm_client.WarmLocator]":
    """Returns the locator, and options that name what it searches."""
    if not options.photo_folder:
        return options, _open(options)
    prepared = _prepared(options, repair=False)
    try:
        locator = _open(prepared)
        if isinstance(locator, warm_client.WarmLocator):
            locator([], k=1)  # It loads nothing before it is asked.
        return prepared, locator
    except Damaged as error:
        # An export that was named is not ours to make.
        if not error.is_within(Path(prepared.records).parent):
            raise
        logging.warning(
            "The cache is damaged, or of another version, and made anew: %s",
            error,
        )
        prepared = _prepared(options, repair=True)
        return prepared, _open(prepared)


def _prepared(options: LocateOptions, *, repair: bool) -> LocateOptions:
    """Makes what a folder of photographs needs, and names it in options."""
    # Not needed where an index is searched.
    from sare_tf.photo_database import preparing

    database = preparing.prepare(
        options.part(PhotoFolderOptions),
        options.part(ServableOptions),
        batch_size=options.batch_size,
        repair=repair,
    )
    return dataclasses.replace(
        options,
        photo_folder=None,
        records=database.records,
        index=database.index,
        export=database.export,
    )


def _open(options: LocateOptions) -> "Locator | warm_client.WarmLocator":
    if options.keep_warm and options.picture is None and not options.serve:
        return _warm_locator(options)
    tensorflow_import.without_keras()
    from sare_tf.search.locator import Locator

    return Locator(
        index=_sources(options),
        export=serving.named(options),
        exact=options.exact_search,
        check=options.check_index,
        positive_radius_m=options.positive_radius_m,
        reject_below=options.reject_below,
        rerank=options.rerank_settings,
    )


def _sources(options: LocateOptions) -> list[str | PartAddress]:
    """Returns the folders and parts to search, for `Index.open`."""
    return [
        PartAddress(
            url=path,
            timeout_s=options.part_timeout_s,
            start_s=options.part_start_s,
        )
        if path in options.index_parts
        else path
        for path in options.index_paths
    ]


def _follow(options: LocateOptions) -> Iterator[tuple[str, Answer]]:
    """Looks up a sequence, and writes its track."""
    own_folder = options.photo_folder
    options, locator = _locator(options)
    # SciPy and Pillow, which photographs do without.
    from sare_tf.sequences import track_files, tracking

    track = tracking.follow(
        locator,
        options,
        k=options.k,
        batch_size=options.batch_size,
        radius_m=options.positive_radius_m,
        prior=options.prior,
        own_folder=own_folder,
    )
    track_files.write(
        position_files.paths_of(options.write_positions),
        track,
        name=Path(options.sequence).name,
    )
    logging.info("%s", track.describe())
    yield from track.answers


def _gallery(options: LocateOptions, locator: "Locator") -> "Gallery":
    from sare_tf.search.gallery import Gallery

    return Gallery(options.records, locator.index)


def _warm_locator(options: LocateOptions) -> warm_client.WarmLocator:
    return warm_client.WarmLocator(
        options.warm_settings, idle_s=60 * options.keep_warm_minutes
    )


def _answers(
    options: LocateOptions,
    paths: Sequence[Path],
    own: Mapping[Path, str],
    locator: "Locator | warm_client.WarmLocator",
    gallery: "Gallery | None",
) -> Iterator[tuple[str, Answer]]:
    drawn, positions = [], []
    with (
        run_lock.only_run(options.picture),
        progress.bar("locate", total=len(paths), unit="photo") as bar,
    ):
        for start in range(0, len(paths), options.batch_size):
            batch = paths[start : start + options.batch_size]
            for path, encoded, answer in _answer_batch(
                batch, own, locator, options
            ):
                if gallery is not None and not answer.error:
                    drawn.append((path.name, encoded, answer))
                positions.append(position_files.of_answer(str(path), answer))
                bar.update()
                yield str(path), answer
        position_files.write(
            position_files.paths_of(options.write_positions), positions
        )
        if gallery is not None and drawn:
            from sare_tf.pages import locate_picture

            locate_picture.write(options.picture, drawn, gallery)
            logging.info(
                "Photographs and their matches in %s.", options.picture
            )


def _answer_batch(
    paths: Sequence[Path],
    own: Mapping[Path, str],
    locator: "Locator | warm_client.WarmLocator",
    options: LocateOptions,
) -> Iterator[tuple[Path, bytes, Answer]]:
    photographs, errors = {}, {}
    for path in paths:
        try:
            photographs[path] = photo_files.read(path)
        except ValueError as error:
            errors[path] = Answer(error=str(error))
    answers = locator(
        list(photographs.values()),
        k=options.k,
        leave_out=[own[path] for path in photographs],
        prior=options.prior,
    )
    answers = errors | dict(zip(photographs, answers, strict=True))
    for path in paths:
        yield path, photographs.get(path, b""), answers[path]


def main(argv) -> None:
    options = LocateOptions.from_flags(photos=argv[1:])
    if options.serve:
        _serve(options)
        return
    failed = []
    for photo, answer in run(options):
        text = f"{photo}: {answer.as_text()}".rstrip("\n")
        stage_results.report("locate", text, photo=photo, **answer.as_json())
        if answer.error:
            failed.append(f"{photo} ({answer.error})")
    if failed:
        raise ValueError(
            "Expected JPEG or PNG photographs that can be read. Received: "
            + ", ".join(failed[:5])
            + (f" and {len(failed) - 5} more" if len(failed) > 5 else "")
            + ". The others were looked up; repair or leave out these."
        )
    if answer.reliability is None and answer.tracked is None:
        logging.info(
            "The confidence is 1 - d / e, where d is the distance of the first "
            "match and e that of the nearest image of another place. It is not "
            "a probability: %s measures how often such answers are right.",
            calibration.COMMAND,
        )


def _serve(options: LocateOptions) -> None:
    # Flask and waitress are an extra.
    from sare_tf.pages.locate_server import LocateServer

    options, locator = _locator(options)
    tiles = options.map_tiles
    server = LocateServer(
        locator,
        _gallery(options, locator),
        k=options.k,
        limits=options.part(ServeOptions),
        host=options.host,
        tiles=None if tiles is None else map_tiles.named(tiles),
    )
    server.serve(options.port)


if __name__ == "__main__":
    flags.start(main, takes_files=True)
