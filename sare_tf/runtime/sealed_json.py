"""JSON files that hold a digest of their own content, and so notice damage.

    {"count": 3, ..., "sha256": "..."}

The digest is of the content, not of its layout in the file. Files that hold
digests of others name them "digests". Files of earlier versions hold neither,
and are read as they are.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sare_tf.runtime import atomic_files
from sare_tf.runtime.damage import Damaged

_SEAL = "sha256"


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Writes an object with its digest, in one piece."""
    atomic_files.write_json(path, sealed(content))


def read(
    path: Path,
    *,
    made_by: str,
    types: Mapping[str, type | tuple[type, ...]],
) -> dict[str, Any]:
    """Reads an object, and compares it with its digest.

    Args:
        path: the file.
        made_by: the command that makes it, for messages.
        types: types of the values that it must have.

    Returns:
        The object without its own digest.

    Raises:
        FileNotFoundError: the file is absent.
        Damaged: it is not what was written, or lacks a value.
    """
    try:
        content = atomic_files.read_json(path, made_by=made_by)
    except ValueError as error:
        raise Damaged(str(error), path=path) from error
    try:
        return opened(content, types=types)
    except ValueError as error:
        raise Damaged(
            f"Expected {path.name} as it was written. Received: "
            f"path={str(path)!r} ({error}). Delete the folder and "
            f"run {made_by} again.",
            path=path,
        ) from error


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an object with its digest, which `opened` compares it with."""
    return {**content, _SEAL: _digest(content)}


def opened(
    content: Any, *, types: Mapping[str, type | tuple[type, ...]]
) -> dict[str, Any]:
    """Returns an object without its digest, once it is compared with it.

    Raises:
        ValueError: says what is wrong, without the name of the file.
    """
    if not isinstance(content, dict):
        raise ValueError("it holds no object")
    content = dict(content)
    seal = content.pop(_SEAL, None)
    if seal is None and _names_digests(content):
        raise ValueError("its own digest is missing")
    if seal is not None and seal != _digest(content):
        raise ValueError("its content has changed since it was written")
    check_types(content, types)
    return content


def check_types(
    content: Any, types: Mapping[str, type | tuple[type, ...]]
) -> None:
    """Refuses an object that lacks values, or has some of other types.

    Raises:
        ValueError: names the value.
    """
    if not isinstance(content, dict):
        raise ValueError(f"{content!r:.40} is no object")
    for name, expected in types.items():
        if name not in content:
            raise ValueError(f"it lacks {name!r}")
        value = content[name]
        if not isinstance(value, expected) or isinstance(value, bool):
            raise ValueError(f"it holds {name}={value!r:.40}")


def _digest(content: Mapping[str, Any]) -> str:
    # Keys that are numbers become texts before they are sorted, as in the file.
    text = json.dumps(json.loads(json.dumps(content)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _names_digests(content: Any) -> bool:
    """Returns whether an object, or one within it, names digests."""
    if isinstance(content, list):
        return any(map(_names_digests, content))
    if not isinstance(content, dict):
        return False
    return "digests" in content or any(map(_names_digests, content.values()))
