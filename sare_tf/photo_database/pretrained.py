"""Weights by a name or as a file, before they are read."""

import dataclasses
from pathlib import Path
from typing import Any

from sare_tf.model import published_files
from sare_tf.model.published_files import PublishedFile
from sare_tf.search.options import PhotoFolderOptions

DEFAULT = "mobilenet_v2"


@dataclasses.dataclass(frozen=True)
class PretrainedWeights:
    """The weights that options name.

    Attributes:
        key: tells them from others.
        made_of: changes if the file does, as JSON holds it.
        source: the file, or the one to download.
        cache: folder of the cache; None: that of the user.
    """

    key: str
    made_of: dict[str, Any]
    source: Path | PublishedFile
    cache: str | None

    @classmethod
    def of(cls, photos: PhotoFolderOptions) -> "PretrainedWeights":
        """Finds the weights that options name.

        Raises:
            FileNotFoundError: neither a file nor a name.
        """
        name = photos.weights or DEFAULT
        path = Path(name)
        if path.exists():
            status = path.stat()
            key = str(path.resolve())
            about = {"bytes": status.st_size, "modified_ns": status.st_mtime_ns}
            return cls(key, {"weights": key, **about}, path, photos.cache)
        published = published_files.find(name)
        if published is None:
            raise FileNotFoundError(
                "Expected --weights to be a file, or a name: "
                f"{', '.join(published_files.PUBLISHED)}. Received: "
                f"weights={name!r}, which is neither."
            )
        key = f"published {published.name}"
        return cls(key, {"weights": key}, published, photos.cache)

    def file(self) -> Path:
        """Returns the file, which is downloaded if it is not there.

        Raises:
            ConnectionError, OSError, ValueError: as `download.fetch`.
        """
        if isinstance(self.source, Path):
            return self.source
        folder = self.cache and Path(self.cache) / "weights"
        return published_files.get(self.source, folder=folder)
