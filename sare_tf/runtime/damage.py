"""The error of a file or folder of ours that is not as it was written."""

from pathlib import Path


class Damaged(ValueError):
    """A folder that this package wrote is damaged, or of another version.

    It can be made anew. What a user names wrongly is another error.

    Attributes:
        path: the folder, or a file in it.

    Args:
        message: says what was expected, what came and what to do.
        path: the folder, or a file in it.
    """

    def __init__(self, message: str, path: str | Path):
        super().__init__(message)
        self.path = Path(path)

    def is_within(self, folder: str | Path) -> bool:
        """Returns whether the damage is in a folder."""
        return self.path.resolve().is_relative_to(Path(folder).resolve())

    def __reduce__(self):
        return Damaged, (str(self), self.path)
