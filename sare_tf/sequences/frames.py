"""The frames of a folder of photographs, or of a video, in order."""

import math
import re
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from absl import logging
from PIL import ExifTags, Image

from sare_tf.dataset import manifest
from sare_tf.dataset.readers import gps_position
from sare_tf.local_features import opencv
from sare_tf.search import photo_files

# A frame of a video is taken this part of a frame early. Ours, for rounding.
_EARLY = 1e-3


class Frame(NamedTuple):
    """A frame.

    Attributes:
        name: its path, or the video and its time.
        encoded: its bytes; empty if they cannot be read.
        error: why they cannot.
    """

    name: str
    encoded: bytes
    error: str


def read(source: Path, *, frames_per_second: float) -> Iterator[Frame]:
    """Yields the frames of a folder or a video.

    Args:
        source: the folder, or the file of the video.
        frames_per_second: of a video.

    Raises:
        FileNotFoundError: there is no such folder or file.
        ImportError: OpenCV is absent, which reads videos.
        ValueError: a folder without photographs, or a file that is no video.
    """
    if source.is_dir():
        paths = photo_files.expand(str(source))
        if paths == [source]:
            raise ValueError(
                "Expected a folder with JPEG or PNG files. Received: sequence="
                f"{str(source)!r} without any. Name another folder, or a video."
            )
        yield from map(_of_file, sorted(paths, key=_natural))
    elif source.exists():
        yield from _of_video(source, frames_per_second)
    else:
        raise FileNotFoundError(
            "Expected a folder of photographs or a video. Received: sequence="
            f"{str(source)!r}, which does not exist. Check the path."
        )


def table(source: Path, names: Sequence[str]) -> pd.DataFrame:
    """Returns what orders the frames of a source, as a manifest.

    Args:
        source: of `read`.
        names: of the frames.
    """
    if source.is_dir():
        times = [_time_of(Path(name)) for name in names]
        return manifest.make(image_id=names, timestamp=times)
    numbers = [int(name.rpartition("#")[2]) for name in names]
    return manifest.make(image_id=names, sequence_id=str(source), frame=numbers)


def _natural(path: Path) -> list[tuple[int, str]]:
    """Orders 9.jpg before 10.jpg."""
    parts = re.split(r"([0-9]+)", str(path))
    return [
        (int(part) if number % 2 else 0, part)
        for number, part in enumerate(parts)
    ]


def _of_file(path: Path) -> Frame:
    try:
        return Frame(str(path), photo_files.read(path), "")
    except ValueError as error:
        return Frame(str(path), b"", str(error))


def _time_of(path: Path) -> str:
    """The time in the header of a photograph; empty if there is none."""
    try:
        with Image.open(path) as image:
            details = image.getexif().get_ifd(ExifTags.IFD.Exif)
        value = details.get(ExifTags.Base.DateTimeOriginal)
        return gps_position.text(value)
    except Exception:  # Pillow raises whatever its parsers raise.
        return ""


def _of_video(source: Path, frames_per_second: float) -> Iterator[Frame]:
    """Frames by their time in the video, named `video#number`."""
    cv2 = opencv.load()
    video = cv2.VideoCapture(str(source))
    try:
        rate = video.get(cv2.CAP_PROP_FPS)
        if not video.isOpened() or not (math.isfinite(rate) and rate > 0):
            raise ValueError(
                "Expected a folder of photographs, or a video that OpenCV can "
                f"read. Received: sequence={str(source)!r}. Convert it, such "
                "as by ffmpeg -i VIDEO frames/%06d.jpg, and name the folder."
            )
        announced = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        count, wanted = 0, 0
        while video.grab():
            seconds = video.get(cv2.CAP_PROP_POS_MSEC) / 1000
            # Containers without times count frames.
            seconds = max(seconds, 0) or count / rate
            count += 1
            if seconds * frames_per_second < wanted - _EARLY:
                continue
            wanted = math.floor(seconds * frames_per_second + _EARLY) + 1
            yield _encoded(cv2, video, f"{source}#{wanted - 1}")
    finally:
        video.release()
    if not count:
        raise ValueError(
            "Expected a video with frames. Received: sequence="
            f"{str(source)!r}, of which OpenCV reads none. Convert it."
        )
    if count < announced:
        logging.warning(
            "%s ends early: %d of %d frames can be read.",
            source,
            count,
            announced,
        )


def _encoded(cv2: types.ModuleType, video: Any, name: str) -> Frame:
    is_read, pixels = video.retrieve()
    if not is_read or not isinstance(pixels, np.ndarray):
        return Frame(name, b"", "a frame that cannot be decoded")
    # Lossless, and quick to write.
    settings = [cv2.IMWRITE_PNG_COMPRESSION, 1]
    return Frame(name, cv2.imencode(".png", pixels, settings)[1].tobytes(), "")
