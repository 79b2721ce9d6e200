"""Photographs on the command line: files, folders and patterns."""

import glob
from pathlib import Path

from sare_tf.dataset import heif

# Ours: a larger file is not a photograph that can be decoded.
_MOST_BYTES = 1 << 28


def expand(photo: str) -> list[Path]:
    """Returns the files that a name stands for, in order.

    Args:
        photo: a file, a folder of JPEG and PNG files, or a pattern. A name that
            stands for no file is returned as it is. Of a folder, hidden files
            are left out, as `files_on_disk.walk` does for datasets.
    """
    path = Path(photo)
    if path.is_dir():
        # pandas, which a command for one photograph does without.
        from sare_tf.dataset.readers import files_on_disk

        files = [
            path / name
            for name in files_on_disk.walk(path)
            if files_on_disk.is_image(name)
        ]
    elif path.exists():
        files = [path]
    else:
        files = [Path(name) for name in glob.glob(photo, recursive=True)]
    return sorted(files) or [path]


def read(path: Path) -> bytes:
    """Reads a photograph; a HEIC becomes a JPEG.

    Raises:
        ValueError: there is none, or it cannot be read; says why in a few
            words.
    """
    try:
        if path.is_dir():
            raise ValueError("a folder without JPEG or PNG files")
        if not path.is_file():
            raise ValueError("no file of this name")
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"more than {_MOST_BYTES >> 20} MiB")
        return heif.as_jpeg(path.read_bytes())
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error
