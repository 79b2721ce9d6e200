"""What a cache holds of one folder of photographs, for one network.

    <cache>/photos/<name>-<digest>/   of the folder and of the network
        records/        the photographs, made smaller
        export/         the network
        index/          their descriptors
        state.json      what all this was made of; written last

A run that was killed leaves no state.json, or the one of before. The next run
resumes.
"""

import hashlib
import re
from pathlib import Path
from typing import Any

from sare_tf.runtime import sealed_json, user_cache

_COMMAND = "python -m sare_tf.locate --photos=..."
_EXPORT_FILES = ("sare_tf.json", "saved_model.pb")
_TYPES = {"network": dict, "listing": str}


class CacheEntry:
    """The folder of a cache entry, which need not exist.

    Attributes:
        path: the folder.
        records: folder of the records.
        export: folder of the export.
        index: folder of the index.

    Args:
        cache: folder of the cache; None: that of the user.
        photo_folder: the photographs.
        network: text that tells networks apart.
    """

    def __init__(
        self, cache: str | Path | None, photo_folder: Path, network: str
    ):
        resolved = photo_folder.resolve()
        key = f"{resolved}\0{network}"
        digest = hashlib.sha256(key.encode("utf-8", "surrogateescape"))
        name = re.sub(r"[^A-Za-z0-9_]+", "_", resolved.name)[:40] or "photos"
        root = user_cache.folder() if cache is None else Path(cache)
        self.path = root / "photos" / f"{name}-{digest.hexdigest()[:12]}"
        self.records = self.path / "records"
        self.export = self.path / "export"
        self.index = self.path / "index"

    def is_whole(self, *, with_export: bool) -> bool:
        """Returns whether the files that are read first are there."""
        needed = [self.index / "index.json"]
        if with_export:
            needed += [self.export / "1" / name for name in _EXPORT_FILES]
        return all(path.is_file() for path in needed)

    def read_state(self) -> dict[str, Any] | None:
        """Returns what the entry was made of; None if it is not whole."""
        try:
            return sealed_json.read(
                self.path / "state.json", made_by=_COMMAND, types=_TYPES
            )
        except (OSError, ValueError):
            return None

    def write_state(self, state: dict[str, Any]) -> None:
        """Writes what the entry was made of."""
        sealed_json.write(self.path / "state.json", state)
