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
        answers: name and answer of each frame, clip by clip, in order; those of
            frames that cannot be read stand at the end.
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
    names, vectors, errors = _embed(locator, source, options, batch_size)
    answers = [(name, Answer(error=error)) for name, error in errors]
    if not names:
        return Track(answers, [-1] * len(answers))
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
    tracked, of_place = [], clips.of_place
    for place, frame in enumerate(clips.order):
        clip = of_place[place]
        probability = float(min(found.probability[frame], 1))
        answer = Answer(
            matches=[
                locator.match(row, distance, is_same)
                for row, distance, is_same in zip(
                    found.rows[frame],
                    distances[frame],
                    same[frame],
                    strict=True,
                )
            ],
            searched=searched,
            rejected=probability < options.least_probability,
            tracked=Tracked(
                probability=probability,
                frames=search.frames_of(clips, place),
                method=options.sequence_method,
            ),
        )
        tracked.append((names[frame], answer, int(clip)))
    return Track(
        [(name, answer) for name, answer, _ in tracked] + answers,
        [clip for *_, clip in tracked] + [-1] * len(answers),
    )


def _embed(
    locator: Locator, source: Path, options: TrackOptions, batch_size: int
) -> tuple[list[str], np.ndarray, list[tuple[str, str]]]:
    """Names and descriptors of the frames that can be used, and the others."""
    names, vectors, errors = [], [], []
    read = frames.read(source, frames_per_second=options.frames_per_second)
    with progress.bar("embed", total=None, unit="frame") as bar:
        while batch := list(itertools.islice(read, batch_size)):
            good = [frame for frame in batch if not frame.error]
            errors += [
                (frame.name, frame.error) for frame in batch if frame.error
            ]
            if good:
                descriptors, why = locator.embed([one.encoded for one in good])
                errors += [
                    (frame.name, reason)
                    for frame, reason in zip(good, why, strict=True)
                    if reason
                ]
                kept = [number for number, one in enumerate(why) if not one]
                names += [good[number].name for number in kept]
                vectors.append(descriptors[kept])
            bar.update(len(batch))
    if vectors:
        return names, np.concatenate(vectors), errors
    return names, np.zeros((0, 0), np.float32), errors


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
