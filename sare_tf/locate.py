"""index/ + photographs -> the most similar places.

    python -m sare_tf.locate --flagfile=configs/demo.flags PHOTO.jpg ...

Photographs are files, folders, or patterns such as 'trip/*.jpg'. What cannot be
read is named, the others are answered, and the exit code is 1. `--json` prints
one object per photograph, `--picture` draws the matches, and `--serve` opens a
page that answers what is dropped on it. `sare_tf.confidence` says what
a confidence is.
"""

import glob
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import logging
from tqdm import tqdm

from sare_tf import flags, serving
from sare_tf.dataset.readers import files_on_disk
from sare_tf.pages import locate_picture
from sare_tf.pages.options import LocateOptions
from sare_tf.search.locator import Answer, Gallery, Locator

# A file with more is no photograph that can be decoded.
_MOST_BYTES = 1 << 28


def run(options: LocateOptions) -> Iterator[tuple[str, Answer]]:
    """Looks up photographs in an index.

    Args:
        options: the photographs, the index, and the export or the server of
            it; for a picture of the matches, also the records.

    Returns:
        Each photograph's name and answer, in their order, as soon as there is
        one. The picture is written at the end.

    Raises:
        FileNotFoundError: index, export or records are not there.
        ValueError: another export or other records than the index's, k larger
            than the database, or more photographs than a picture holds.
    """
    picture = options.picture
    paths = [path for photo in options.photos for path in _expand(photo)]
    if picture is not None:
        locate_picture.check(picture, len(paths))
    locate = _locator(options)
    locate.check_k(options.k)
    gallery = None
    if picture is not None:
        gallery = Gallery(options.records, locate.index)
    return _answers(
        locate,
        paths,
        k=options.k,
        batch_size=options.batch_size,
        picture=picture,
        gallery=gallery,
    )


def _locator(options: LocateOptions) -> Locator:
    return Locator(
        index=options.index_paths,
        export=serving.named(options),
        exact=options.exact_search,
        positive_radius_m=options.positive_radius_m,
    )


def describe(answer: Answer) -> str:
    """What was found for one photograph, one line for each match."""
    if answer.error:
        return f"not looked up: {answer.error}\n"
    if answer.confidence is None:
        lines = ["no other place to compare with"]
    else:
        lines = [f"confidence {answer.confidence:.3f}"]
    for rank, match in enumerate(answer.matches, 1):
        words = [f"{rank:>4}", f"{match.squared_distance:.4f}", match.image_id]
        if match.place_id:
            words.append(f"place {match.place_id}")
        if match.utm_east_m is not None:
            zone = f" zone {match.utm_zone}" if match.utm_zone else ""
            words.append(
                f"{match.utm_east_m:.1f} m east, {match.utm_north_m:.1f} m "
                f"north{zone}"
            )
        if match.latitude is not None:
            words.append(f"{match.latitude:.6f}, {match.longitude:.6f}")
        lines.append("  ".join(words))
    if answer.matches and answer.matches[0].map_url:
        lines.append(f"      {answer.matches[0].map_url}")
    return "\n".join(lines) + "\n"


def _expand(photo: str) -> list[Path]:
    """The files that a name stands for; itself where there are none."""
    path = Path(photo)
    if path.is_dir():
        found = [
            child
            for child in path.rglob("*")
            if files_on_disk.is_image(child) and child.is_file()
        ]
    elif path.exists():
        found = [path]
    else:
        found = [Path(name) for name in glob.glob(photo, recursive=True)]
    return sorted(found) or [path]


def _read(path: Path) -> bytes | Answer:
    """A photograph, or why there is none."""
    try:
        if path.is_dir():
            return Answer(error="a folder without JPEG or PNG files")
        if not path.is_file():
            return Answer(error="no file of this name")
        if path.stat().st_size > _MOST_BYTES:
            return Answer(error=f"more than {_MOST_BYTES >> 20} MiB")
        return path.read_bytes()
    except OSError as error:
        return Answer(error=error.strerror or str(error))


def _answers(
    locate: Locator,
    paths: Sequence[Path],
    *,
    k: int,
    batch_size: int,
    picture: str | Path | None,
    gallery: Gallery | None,
) -> Iterator[tuple[str, Answer]]:
    drawn = []
    with tqdm(
        total=len(paths), unit="photo", desc="locate", leave=False
    ) as progress:
        for start in range(0, len(paths), batch_size):
            batch = paths[start : start + batch_size]
            results = [_read(path) for path in batch]
            encoded = [some for some in results if isinstance(some, bytes)]
            answers = iter(locate(encoded, k=k))
            for path, some in zip(batch, results, strict=True):
                answer = next(answers) if isinstance(some, bytes) else some
                if picture is not None and not answer.error:
                    drawn.append((path.name, some, answer))
                progress.update()
                yield str(path), answer
    if picture is not None and drawn:
        locate_picture.write(picture, drawn, gallery)
        logging.info("Photographs and their matches in %s.", picture)


def main(argv) -> None:
    options = LocateOptions.from_flags(photos=argv[1:])
    if options.serve:
        _serve(options)
        return
    failed = []
    for photo, answer in run(options):
        if options.json:
            line = json.dumps({"photo": photo, **answer.as_json()})
        else:
            line = f"{photo}: {describe(answer)}".rstrip("\n")
        # One line at a time, as soon as it is known: also through a pipe.
        with tqdm.external_write_mode(file=sys.stdout):
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
        if answer.error:
            failed.append(f"{photo} ({answer.error})")
    if failed:
        raise ValueError(
            "Expected JPEG or PNG photographs that can be read. Received: "
            + ", ".join(failed[:5])
            + (f" and {len(failed) - 5} more" if len(failed) > 5 else "")
            + ". The others were looked up; repair or leave out these."
        )
    logging.info(
        "A confidence is 1 - d / e, for the distances d of the first match and "
        "e of the nearest image elsewhere: it is no probability."
    )


def _serve(options: LocateOptions) -> None:
    # Flask and waitress are an extra.
    from sare_tf.pages import locate_server

    locate = _locator(options)
    application = locate_server.application(
        locate,
        Gallery(options.records, locate.index),
        k=min(options.k, len(locate.index.manifest)),
        upload_bytes=options.upload_mebibytes << 20,
        host=options.host,
    )
    locate_server.serve(application, host=options.host, port=options.port)


if __name__ == "__main__":
    flags.start(main, takes_files=True)
