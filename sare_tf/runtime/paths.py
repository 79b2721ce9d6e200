"""Paths as people write them in flags, flagfiles and notebooks.

A shell expands `~` and `$HOME` at the start of a word only, so that not even
`--records=~/records` is expanded, and a flagfile never is. `expand` follows the
rules of the shell, and refuses what it would take for an empty text.
"""

import os
import re
from pathlib import Path

# `$NAME` or `${NAME}`. Other uses of `$` belong to names of files.
_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})", re.ASCII)


def expand(path: str | Path, *, name: str = "path") -> str:
    """Returns a path with `~`, `~user` and `$NAME` expanded.

    A path with a `$` or `~` in its own name can be written as `./~name`, and is
    found if it exists.

    Args:
        path: the path.
        name: of the option, for messages.

    Raises:
        ValueError: no such user or variable, and no such path.
    """
    text = str(path)
    expanded = os.path.expanduser(text)
    if expanded.startswith("~") and not _exists(text, 1):
        raise ValueError(
            f"Expected the name of a user after ~. Received: {name}={text!r}. "
            "Write ./~ for a folder or file whose name begins so."
        )

    def value(match: re.Match) -> str:
        variable = match[1] or match[2]
        if os.environ.get(variable):
            return os.environ[variable]
        if not _exists(expanded, match.end()):
            raise ValueError(
                "Expected a path whose variables are set in the environment. "
                f"Received: {name}={text!r} without {variable}. Set it, or "
                "write the whole path."
            )
        return match[0]

    return _VARIABLE.sub(value, expanded)


def split(text: str) -> list[str]:
    """Splits paths at commas, which may also be part of a path that exists.

    Each path is the longest that exists, or else ends at the next comma.
    """
    parts, paths = text.split(","), []
    while parts:
        ends = range(len(parts), 1, -1)
        end = next((n for n in ends if os.path.lexists(",".join(parts[:n]))), 1)
        path = ",".join(parts[:end])
        if not os.path.lexists(path):
            path = path.strip()
        if path:
            paths.append(path)
        del parts[:end]
    return paths


def expand_all(text: str, *, name: str = "path") -> str:
    """Expands each of several paths with commas between them."""
    return ",".join(
        expand(
            part.strip() if part.strip()[:1] in ("~", "$") else part, name=name
        )
        for part in text.split(",")
    )


def _exists(path: str, end: int) -> bool:
    """Returns whether the file or folder is there whose name a text is in."""
    slash = path.find("/", end)
    return os.path.lexists(path if slash < 0 else path[:slash])
