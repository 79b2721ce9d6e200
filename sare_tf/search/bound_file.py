"""A file beside an index that says what was measured, and on what.

It is bound to what the figures depend on, such as the model and the content of
the index: figures of something else are not used.

This module needs neither numpy nor TensorFlow.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sare_tf.runtime import atomic_files, sealed_json

# All such files: of answers as retrieved, of answers that were re-ranked, and
# of how these are.
CALIBRATION = "calibration.json"
RERANKED_CALIBRATION = "calibration_rerank.json"
RERANKING = "rerank.json"
NAMES = (CALIBRATION, RERANKED_CALIBRATION, RERANKING)
# Why there is none, where nobody made one.
ABSENT = "the index has none"

Found = TypeVar("Found")


def read(
    folders: Sequence[Path],
    name: str,
    *,
    made_by: str,
    types: Mapping[str, Any],
    bound_to: Mapping[str, Any],
    words: Mapping[str, str],
    make: Callable[[dict[str, Any]], Found],
) -> tuple[Found | None, str]:
    """Reads the file that fits.

    Args:
        folders: of the index; one of several holds the file of all.
        name: of the file.
        made_by: the command that makes it, for messages.
        types: types of its values by name.
        bound_to: values that it must have, by name.
        words: what these are, in words.
        make: makes the result of its values.

    Returns:
        The result, and an empty text. Or None, and why there is none that fits,
        in words that follow "because".
    """
    why = ABSENT
    for folder in folders:
        path = folder / name
        if not path.is_file():
            continue
        try:
            written = sealed_json.opened(
                atomic_files.read_json(path, made_by=made_by), types=types
            )
            found = make(written)
        except (OSError, ValueError, KeyError, TypeError) as error:
            why = f"{path} is damaged ({error})"
            continue
        other = [
            key for key, value in bound_to.items() if written[key] != value
        ]
        if not other:
            return found, ""
        why = f"{path} was made for another {words[other[0]]}"
    return None, why
