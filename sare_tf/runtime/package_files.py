"""Files that come with the package: flagfiles and the cards of datasets.

In a clone they lie in `configs/` and `data/`, beside the package. A wheel holds
them inside of it.
"""

import re
from pathlib import Path

# Before the name of a flagfile of the package: sare_tf:demo.
PREFIX = "sare_tf:"
_PACKAGE = Path(__file__).parents[1]


def flagfile(name: str) -> Path:
    """Returns a flagfile of the package.

    Args:
        name: its name, such as "sare_tf:demo" or "demo".

    Raises:
        FileNotFoundError: there is no such flagfile.
    """
    stem = name.removeprefix(PREFIX).removesuffix(".flags")
    known = {path.stem: path for path in _folder("configs").glob("*.flags")}
    if stem not in known:
        raise FileNotFoundError(
            f"Expected a flagfile of the package: {', '.join(sorted(known))}. "
            f"Received: {name!r}."
        )
    return known[stem]


def card_of_reader(reader: str) -> Path:
    """Returns the card that describes the layout of a reader.

    Args:
        reader: its name.
    """
    table = _folder("data") / "README.md"
    for line in table.read_text(encoding="utf-8").splitlines():
        found = re.search(rf"\]\((\w+\.md)\) \| `{reader}` \|", line)
        if found:
            return table.with_name(found[1])
    return table


def _folder(name: str) -> Path:
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name
