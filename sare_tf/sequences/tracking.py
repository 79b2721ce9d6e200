"""Frames that follow each other -> a track: the place of each, or a gap."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import logging

from sare_tf.runtime import progress
from sare_tf.search import exact_search, photo_files
from sare_tf.search.answers import Answer, Tracked
from sare_tf.search.locator import Locator, searched_in
from sare_tf.search.prior import Prior
from sare_tf.sequences import clips as clips_of_images
from sare_tf.sequences import frames
from sare_tf.sequences.clips import Clips
from sare_tf.sequences.options import TrackOptions
from sare_tf.sequences.sequence_search import SequenceSearch


@dataclasses.dataclass(frozen=True)
class Track:
    """The answers of a sequence.

    Attributes:
        answers: name and answer of each frame, clip by clip, in order. One that
            cannot be read stands behind the frame that was read before it.
        clips: for each of them, the number of its clip; -1 if it has none.
    """

    answers: Sequence[tuple[str, Answer]]
    clips: Sequence[int]

    @property
    def segments(self) -> list[list[int]]:
        """The frames between two gaps, by their numbers in `answers`."""
        segments, last = [], None
        for number, ((_, answer), clip) in enumerate(
            zip(self.answers, self.clips, strict=True)
        ):
            if answer.error or answer.rejected:
                last = None
                continue
            if clip != last:
                segments.append([])
            segments[-1].append(number)
            last = clip
        return segments

    def describe(self) -> str:
        """Returns the track in words."""
        pieces = self.segments
        gaps = len(self.answers) - sum(map(len, pieces))
        return (
            f"A track of {len(self.answers) - gaps} frames in {len(pieces)} "
            f"piece{'s' * (len(pieces) != 1)}; {gaps} frames are gaps."
        )


def follow(
    locator: Locator,
    options: TrackOptions,
    *,
    k: int,
    batch_size: int,
    radius_m: float,
    prior: Prior | None = None,
    own_folder: str | None = None,
) -> Track:
    """Looks up the frames of a folder or video together.

    Args:
        locator: the index and its model.
        options: the sequence and its method.
        k: matches of each frame.
        batch_size: frames to embed at a time.
        radius_m: images at most this far apart show the same place.
        prior: searches only the images that agree with it.
        own_folder: folder of the photographs that are searched; frames of the
            sequence that lie in it are not searched.

    Raises:
        FileNotFoundError, ImportError, ValueError: the sequence cannot be read,
            or no image is left to search.
    """
    source = Path(options.sequence)
    read = _embed(locator, source, options, batch_size)
    vectors, names = read.vectors, [read.names[n] for n in read.good]
    if not names:
        return _track(read, [], [])
    clips = Clips.of(frames.table(source, names))
    _log(source, clips, len(names))
    index = locator.index
    allowed = None if prior is None else index.prior_rows.allowed(prior)
    if own_folder is not None:
        others = _others(index.manifest["image_id"], names, own_folder)
        allowed = others if allowed is None else allowed & others
        _check_any(allowed, own_folder)
    search = SequenceSearch(
        index.descriptors,
        index.manifest,
        options,
        radius_m=radius_m,
        allowed=allowed,
    )
    found = search(vectors, clips, min(k, search.count))
    distances = exact_search.distances_to(
        vectors, index.descriptors, list(found.rows)
    )
    same = locator.places.same_as_first(found.rows)
    searched = dataclasses.replace(
        searched_in(index, k, prior=prior, where=allowed),
        search="exact",
        recall=1.0,
    )

    def answer_of(place: int, frame: int) -> Answer:
        probability = float(min(found.probability[frame], 1))
        matches = zip(
            found.rows[frame], distances[frame], same[frame], strict=True
        )
        return Answer(
            matches=[locator.match(*match) for match in matches],
            searched=searched,
            rejected=probability < options.least_probability,
            tracked=Tracked(
                probability=probability,
                frames=search.frames_of(clips, place),
                method=options.sequence_method,
            ),
        )

    tracked = [
        (read.good[frame], answer_of(place, frame))
        for place, frame in enumerate(clips.order)
    ]
    return _track(read, tracked, clips.of_place.tolist())


@dataclasses.dataclass(frozen=True)
class _Read:
    """Frames in the order in which they were read.

    Attributes:
        names: of all frames.
        good: numbers of those that can be used.
        vectors: float32 [good, D].
        errors: why the others cannot, by their numbers.
    """

    names: list[str]
    good: list[int]
    vectors: np.ndarray
    errors: dict[int, str]


def _embed(
    locator: Locator, source: Path, options: TrackOptions, batch_size: int
) -> _Read:
    names, good, vectors, errors = [], [], [], {}
    read = frames.read(source, frames_per_second=options.frames_per_second)
    with progress.bar("embed", total=None, unit="frame") as bar:
        while batch := list(itertools.islice(read, batch_size)):
            numbers = range(len(names), len(names) + len(batch))
            names += [frame.name for frame in batch]
            errors |= {
                number: frame.error
                for number, frame in zip(numbers, batch, strict=True)
                if frame.error
            }
            whole = [number for number in numbers if number not in errors]
            if whole:
                encoded = [batch[n - numbers.start].encoded for n in whole]
                descriptors, why = locator.embed(encoded)
                errors |= {
                    n: text for n, text in zip(whole, why, strict=True) if text
                }
                kept = [not text for text in why]
                good += [n for n in whole if n not in errors]
                vectors.append(descriptors[kept])
            bar.update(len(batch))
    empty = np.zeros((0, 0), np.float32)
    return _Read(
        names, good, np.concatenate(vectors) if good else empty, errors
    )


def _track(
    read: _Read, tracked: Sequence[tuple[int, Answer]], clips: Sequence[int]
) -> Track:
    """Puts the frames that cannot be read behind those before them."""
    entries = [
        ((place, 0), number, answer, clip)
        for place, ((number, answer), clip) in enumerate(
            zip(tracked, clips, strict=True)
        )
    ]
    place_of = {number: place for (place, _), number, *_ in entries}
    for number, error in read.errors.items():
        before = max((n for n in place_of if n < number), default=None)
        place = -1 if before is None else place_of[before]
        entries.append(((place, 1 + number), number, Answer(error=error), -1))
    entries.sort(key=lambda entry: entry[0])
    return Track(
        [(read.names[number], answer) for _, number, answer, _ in entries],
        [clip for *_, clip in entries],
    )


def _log(source: Path, clips: Clips, count: int) -> None:
    logging.info("%s: %s.", source, clips_of_images.describe(clips))
    if count == 1:
        logging.warning(
            "%s has one frame, which is looked up on its own.", source
        )
    elif clips.unordered:
        logging.warning(
            "%d of %d frames have no order, and are looked up on their own: "
            "they need a time to the second in their headers, or different "
            "numbers at the end of their names.",
            clips.unordered,
            count,
        )


def _others(
    image_ids: Sequence[str], names: Sequence[str], folder: str
) -> np.ndarray:
    """Marks the images that are no frames of the sequence."""
    own = {photo_files.name_in(folder, Path(name)) for name in names} - {""}
    return np.array([image_id not in own for image_id in image_ids])


def _check_any(allowed: np.ndarray, folder: str) -> None:
    if not allowed.any():
        raise ValueError(
            "Expected photographs to search in beside those of the sequence. "
            f"Received: photos={folder!r} with no others. Name another folder."
        )
