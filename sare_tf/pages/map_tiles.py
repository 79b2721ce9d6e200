"""Tiles of other servers that `locate --serve` may draw below its maps."""

import dataclasses
import re
import urllib.parse

OPENSTREETMAP = "openstreetmap"
# Source: the tile usage policy of the OpenStreetMap Foundation.
_OPENSTREETMAP_ADDRESS = "https://tile.openstreetmap.org/{z}/{x}/{y}.png"
# Characters of an address; others could end a line of a security policy.
_ADDRESS = re.compile(r"https?://[\w.:\[\]-]+/[\w.~/@{}?&=%+-]*", re.ASCII)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MapTiles:
    """A server of Web Mercator tiles of 256 pixels.

    Args:
        address: address of a tile, with {z}, {x} and {y}.
        attribution: whose map it is, which the page must state.
        attribution_url: where that is explained; empty: nowhere.
    """

    address: str
    attribution: str
    attribution_url: str = ""

    @property
    def server(self) -> str:
        """The server, as a security policy names it."""
        parts = urllib.parse.urlsplit(self.address)
        return f"{parts.scheme}://{parts.netloc}"


def named(name: str) -> MapTiles:
    """Returns tiles by their name or their address.

    Args:
        name: "openstreetmap", or an address with {z}, {x} and {y}.

    Raises:
        ValueError: neither of them.
    """
    if name == OPENSTREETMAP:
        return MapTiles(
            address=_OPENSTREETMAP_ADDRESS,
            attribution="© OpenStreetMap contributors",
            attribution_url="https://www.openstreetmap.org/copyright",
        )
    if not _ADDRESS.fullmatch(name) or any(
        name.count(part) != 1 for part in ("{z}", "{x}", "{y}")
    ):
        raise ValueError(
            f"Expected {OPENSTREETMAP!r} or an address with {{z}}, {{x}} and "
            "{y}, such as http://tiles.example/{z}/{x}/{y}.png. Received: "
            f"map_tiles={name!r}."
        )
    host = urllib.parse.urlsplit(name).netloc
    return MapTiles(address=name, attribution=f"Map of {host}")
