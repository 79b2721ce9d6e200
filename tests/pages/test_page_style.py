"""Style and markup of the pages, without a browser (`make test-pages` has one).

The contrast of two colours is that of WCAG 2: 4.5 for texts, 3 for shapes.
"""

import re
from html.parser import HTMLParser

import pytest

from sare_tf.pages import html, map_tiles

TEMPLATES = html.TEMPLATES


def _colours():
    """The variables of page.css for a light and a dark screen."""
    style = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]+);", block))
        for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)[:2]
    )
    return {"light": light, "dark": light | dark}


def _luminance(colour):
    digits = colour.removeprefix("#")
    if len(digits) == 3:
        digits = "".join(2 * digit for digit in digits)
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(first, second):
    low, high = sorted(map(_luminance, (first, second)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_by_hand():
    assert _contrast("#000", "#ffffff") == pytest.approx(21)
    # The grey that WCAG's own examples give as the least on white.
    assert _contrast("#767676", "#fff") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_have_contrast(scheme):
    colours = _colours()[scheme]
    texts = ("ink", "soft", "right", "wrong", "accent", "warn")
    shapes = ("border", "edge", "train", "val", "test", "point") + (
        *("line-d", "line-e", "line-f"),
    )
    pairs = [
        *((name, back, 4.5) for name in texts for back in ("paper", "panel")),
        *((name, "panel", 3) for name in shapes),
        *(("on-mark", back, 4.5) for back in ("right", "edge")),
        ("on-accent", "accent", 4.5),
    ]
    low = [
        (first, second, round(contrast, 2))
        for first, second, least in pairs
        if (contrast := _contrast(colours[first], colours[second])) < least
    ]
    assert low == []


def test_a_dark_page_changes_every_colour():
    colours = _colours()
    same = [
        name
        for name, colour in colours["light"].items()
        if colours["dark"][name] == colour
    ]
    assert same == []


class _Reader(HTMLParser):
    """Tags with their attributes."""

    def __init__(self, page):
        super().__init__()
        self.tags = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))


@pytest.fixture(scope="module")
def locate_page():
    model = dict.fromkeys(("backbone", "aggregation", "checkpoint"))
    return (
        html.environment()
        .get_template("locate.html")
        .render(
            model=model | {"name": "<model>"},
            database={
                "name": "<index>",
                "images": 1234,
                "split": None,
                "places": None,
            },
            examples=[{"image_id": '"><script>', "thumbnail": None}],
            known={
                **{"position": True, "time": True, "places": True},
                "conditions": ["<dusk>"],
            },
            k=5,
            upload_bytes=3 << 20,
            tiles=map_tiles.named("openstreetmap"),
        )
    )


def test_names_are_escaped_on_the_locate_page(locate_page):
    assert "<b>&lt;model&gt;</b></dd>" in locate_page
    assert "<b>&lt;index&gt;</b>, 1,234 images</dd>" in locate_page
    assert "<option>&lt;dusk&gt;</option>" in locate_page
    assert '"><script>' not in locate_page


def test_the_scripts_find_what_they_look_for(locate_page):
    ids = [
        attributes["id"]
        for _, attributes in _Reader(locate_page).tags
        if "id" in attributes
    ]
    assert len(ids) == len(set(ids))
    script = (TEMPLATES / "locate.js").read_text(encoding="utf-8")
    wanted = set(re.findall(r'byId\("([\w-]+)"\)', script))
    assert len(wanted) > 20
    assert wanted <= set(ids)


def test_pictures_and_buttons_of_the_locate_page_have_names(locate_page):
    for tag, attributes in _Reader(locate_page).tags:
        if tag == "img":
            assert "alt" in attributes
        if tag == "button":
            assert attributes["type"] == "button"


@pytest.mark.parametrize(
    "name", [path.name for path in sorted(TEMPLATES.glob("*.js"))]
)
def test_scripts_make_no_html_of_texts(name):
    """Names of files and places are texts, whatever they contain."""
    script = (TEMPLATES / name).read_text(encoding="utf-8")
    for risky in ("innerHTML", "outerHTML", "insertAdjacent", "document.write"):
        assert risky not in script
    assert not re.search(r"\beval\(|new Function", script)
