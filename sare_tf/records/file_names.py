"""Names of files that images of records are written to."""

from pathlib import PurePosixPath

import pandas as pd


def safe_names(table: pd.DataFrame) -> list[str]:
    """Returns a path for each image; a part of an image has one of its own.

    Args:
        table: rows of a manifest.
    """
    return [
        image_id
        if PurePosixPath(image_id).suffix.lower() in (".jpg", ".jpeg", ".png")
        else image_id.replace("#", "_") + extension(image_id)
        for image_id in table["image_id"]
    ]


def extension(image_id: str) -> str:
    """Returns the suffix of an image's file; parts are stored as PNG."""
    if "#xywh=" in image_id:
        return ".png"
    return PurePosixPath(image_id.partition("#")[0]).suffix.lower()
