"""Whether a finished folder can stay, and where an unfinished one is built."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import logging


def partial_folder(out: Path) -> Path:
    """Returns the folder that holds finished shards until `out` is gathered."""
    return out.with_name(f".{out.name}.partial")


def read_if_equal(
    read: Callable[[Path], dict[str, Any]], out: Path, made_from: dict[str, Any]
) -> dict[str, Any] | None:
    """Reads the metadata of a finished folder, if it was made from the same.

    Args:
        read: reads and checks the metadata of a folder.
        out: the folder.
        made_from: what decides the result, as JSON holds it.

    Returns:
        None if the folder is to be built: it is absent or damaged, or was made
        from something else. Damages and differences are logged.
    """
    try:
        metadata = read(out)
        earlier = metadata["made_from"]
    except FileNotFoundError:
        return None
    except (KeyError, OSError, ValueError) as error:
        logging.warning("Building again: %s", error)
        return None
    differing = [
        name for name in made_from if earlier.get(name) != made_from[name]
    ]
    if differing:
        logging.info("Replacing %s, of another %s.", out, ", ".join(differing))
        return None
    return metadata
