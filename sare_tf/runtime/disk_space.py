"""The room on a disk, for what is refused before it is begun."""

import shutil
from pathlib import Path


def free_bytes(path: str | Path) -> int:
    """Returns the bytes that are free where a file or folder is, or will be."""
    path = Path(path).absolute()
    there = next(one for one in (path, *path.parents) if one.exists())
    return shutil.disk_usage(there).free
