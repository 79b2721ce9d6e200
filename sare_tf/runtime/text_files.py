"""Text files that people write: UTF-8, or UTF-16 with a byte order mark."""

import codecs
from collections.abc import Iterator
from pathlib import Path

_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def encoding_of(path: str | Path) -> str:
    """Returns the encoding that a file's byte order mark names, else UTF-8.

    Windows writes such marks: PowerShell's `>` and Excel's Unicode text are
    UTF-16, the editor's UTF-8 has one, too.
    """
    with open(path, "rb") as file:
        first = file.read(4)
    for mark, encoding in _MARKS.items():
        if first.startswith(mark):
            return encoding
    return "utf-8-sig"


def read_lines(path: str | Path) -> Iterator[str]:
    """Yields the lines of a text file, without their ends.

    Raises:
        ValueError: the file cannot be read, or is neither UTF-8 nor UTF-16.
    """
    try:
        with open(path, encoding=encoding_of(path)) as file:
            for line in file:
                yield line.rstrip("\n")
    except (OSError, UnicodeError) as error:
        raise ValueError(
            f"Expected a text file in UTF-8. Received: path={str(path)!r} "
            f"({error}). Save it as UTF-8, or get the file again."
        ) from error
