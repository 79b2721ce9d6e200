"""Templates of the pages, and the pictures in them.

A page is one HTML file that needs nothing else: pictures are data URLs.
"""

import base64
import dataclasses
import io
from pathlib import Path

import jinja2
from PIL import Image, ImageOps

TEMPLATES = Path(__file__).parent / "templates"
# Ours: widths of a small and of a large picture, in pixels.
_THUMBNAIL_WIDTH, _LARGE_WIDTH = 240, 1600


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """An image of a page.

    Args:
        encoded: its JPEG or PNG bytes; None if the records lack it.
        name: the name shown below it.
        correct: whether it is a positive; None for a query.
        squared_distance: to the query's descriptor, None if unknown.
        metres: to the position of the query, None if unknown.
    """

    encoded: bytes | None
    name: str
    correct: bool | None = None
    squared_distance: float | None = None
    metres: float | None = None


def environment() -> jinja2.Environment:
    """Returns the environment that loads the templates."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["thumbnail"] = thumbnail
    environment.filters["metres"] = _metres
    environment.filters["short"] = _short
    environment.filters["percent"] = _percent
    return environment


def thumbnail(picture: Picture) -> str:
    """Makes a small JPEG of the picture, upright, as a data URL.

    Raises:
        ValueError: it cannot be decoded; names it.
    """
    return data_url("image/jpeg", _jpeg(picture, _THUMBNAIL_WIDTH, quality=80))


def enlarged(picture: Picture) -> bytes:
    """Makes a large JPEG of the picture, upright and without its headers.

    Raises:
        ValueError: it cannot be decoded; names it.
    """
    return _jpeg(picture, _LARGE_WIDTH, quality=90)


def data_url(kind: str, content: bytes) -> str:
    """Returns content of a media type as a data URL."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _jpeg(picture: Picture, width: int, *, quality: int) -> bytes:
    """The picture as a JPEG of at most that width."""
    try:
        image = Image.open(io.BytesIO(picture.encoded))
        image = ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, SyntaxError) as error:
        raise ValueError(
            f"Expected an image. Received: {picture.name} ({error}). Repair "
            "or remove it."
        ) from error
    if image.width > width:
        height = max(1, round(image.height * width / image.width))
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=quality, optimize=True)
    return encoded.getvalue()


def _metres(metres: float) -> str:
    if metres < 100:
        return f"{metres:.1f} m"
    return f"{metres:.0f} m" if metres < 10_000 else f"{metres / 1000:.0f} km"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _short(name: str) -> str:
    """The file name, with its folder if that says more than its role.

    Of an `@` name, what follows its coordinates, which the page shows elsewhere
    or on a map.
    """
    *folders, file = name.split("/")
    if file.startswith("@"):
        # @ UTM east @ north @ zone @ band @ latitude @ longitude @ others
        others = file.rpartition(".")[0].split("@")[7:]
        file = " ".join(filter(None, others)) or file
    if not folders or folders[-1] in ("database", "queries"):
        return file
    return f"{folders[-1]}/{file}"
