"""The pages in a real browser: `make test-pages`.

Needs Chromium, Playwright and the pages of tests/browser/pages.flags in the
folder SARE_TF_PAGES. Screenshots go to its folder `shots`, to be looked at. The
tests do not import sare_tf: they see what a person sees.
"""

import contextlib
import http.server
import math
import os
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="Playwright is not installed"
)

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FOLDER = Path(os.environ.get("SARE_TF_PAGES", "runs/pages")).absolute()
PAGES = {
    "report": FOLDER / "evaluation/report.html",
    "check": FOLDER / "findings/check.html",
    "compare": FOLDER / "comparison/compare.html",
}
pytestmark = [
    pytest.mark.skipif(
        CHROMIUM is None,
        reason="no Chromium is installed: apt-get install chromium",
    ),
    pytest.mark.skipif(
        not all(path.is_file() for path in PAGES.values()),
        reason="the pages are not made: make test-pages",
    ),
]
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 320, "height": 640}


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"]
        )
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser):
    """Opens an address; the page must log no error, and load nothing else."""
    contexts, errors, outside = [], [], []
    allowed = ["file://", "data:", "blob:"]

    def open_it(address, *, viewport=DESKTOP, also=(), **options):
        allowed.extend(also)
        context = browser.new_context(viewport=viewport, **options)
        contexts.append(context)
        # Machines that do other work, too.
        context.set_default_timeout(120_000)
        page = context.new_page()
        page.on(
            "console",
            lambda message: (
                errors.append(message.text)
                if message.type in ("error", "warning")
                else None
            ),
        )
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith(tuple(allowed))
                else outside.append(request.url)
            ),
        )
        page.goto(str(address))
        return page

    open_it.errors, open_it.outside = errors, outside
    yield open_it
    for context in contexts:
        context.close()
    assert errors == []
    assert outside == []


def _shot(page, name, *, full_page=True):
    folder = FOLDER / "shots"
    folder.mkdir(exist_ok=True)
    page.screenshot(path=folder / f"{name}.png", full_page=full_page)


_READABLE = (Path(__file__).parent / "readable.js").read_text("utf-8")


def _check_readable(page):
    """Nothing to scroll sideways, texts with contrast, and names."""
    found = page.evaluate(_READABLE)
    assert found["width"] <= found["screen"]
    assert found["pale"] == []
    assert found["nameless"] == []
    assert page.title()
    assert page.locator("h1").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("device", "viewport"), [("desktop", DESKTOP), ("phone", PHONE)]
)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_readable(open_page, name, device, viewport, scheme):
    page = open_page(
        PAGES[name].as_uri(), viewport=viewport, color_scheme=scheme
    )
    _check_readable(page)
    is_dark = (
        page.evaluate("getComputedStyle(document.body).backgroundColor")
        == "rgb(18, 23, 29)"
    )
    assert is_dark == (scheme == "dark")
    undecoded = page.evaluate(
        "Promise.all([...document.images].map((image) => image.decode()"
        ".then(() => 0, () => 1))).then((all) => all.filter(Boolean).length)"
    )
    assert undecoded == 0
    _shot(page, f"{name}_{device}_{scheme}")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_prints_whole(open_page, name):
    page = open_page(PAGES[name].as_uri(), color_scheme="dark")
    shown = page.locator(".case").count()
    page.emulate_media(media="print")
    # Paper is white, and every query is on it.
    colour = page.evaluate("getComputedStyle(document.body).color")
    assert colour == "rgb(29, 39, 51)"
    assert page.locator(".case:visible").count() == shown
    # Paper does not scroll: A4, of which 182 mm are between the margins.
    page.set_viewport_size({"width": 794, "height": 1123})
    page.locator("main").evaluate("main => { main.style.width = '182mm'; }")
    clipped = page.locator(".wide").evaluate_all(
        "all => all.filter((one) => one.scrollWidth > one.clientWidth).length"
    )
    assert clipped == 0
    page.locator("main").evaluate("main => main.removeAttribute('style')")
    page.emulate_media(media=None)
    folder = FOLDER / "shots"
    folder.mkdir(exist_ok=True)
    content = page.pdf(path=folder / f"{name}.pdf", format="A4")
    assert content.startswith(b"%PDF-")
    # Opened by the event before printing.
    assert page.locator("details:not([open])").count() == 0
    if shutil.which("pdftotext"):
        text = subprocess.run(
            ["pdftotext", "-layout", folder / f"{name}.pdf", "-"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for heading in page.locator("h2").all_inner_texts():
            assert heading.split()[0] in text, heading


@pytest.mark.parametrize("name", PAGES)
def test_the_contents_lead_to_every_section(open_page, name):
    page = open_page(PAGES[name].as_uri())
    links = page.locator(".contents a")
    targets = [link.get_attribute("href") for link in links.all()]
    sections = page.locator("main > h2").evaluate_all(
        "all => all.map((one) => '#' + one.id)"
    )
    assert targets == sections
    for target in targets:
        # By keyboard: Enter on the focused link.
        page.locator(f'.contents a[href="{target}"]').focus()
        page.keyboard.press("Enter")
        assert page.locator(target).is_visible()
        assert page.evaluate("location.hash") == target


def _view(frame):
    """What a map shows: x, y, width, height."""
    return [
        float(value)
        for value in frame.locator(".view").get_attribute("viewBox").split()
    ]


def _check_scale(frame):
    """The bar is as long as it says, and at most a third of the map."""
    text = frame.locator(".scale text").text_content()
    number, unit = text.split()
    metres = float(number) * {"m": 1, "km": 1000}[unit]
    path = frame.locator(".scale path").get_attribute("d")
    units = float(re.search(r"H([\d.]+)", path)[1])
    whole = float(frame.locator("svg.map").get_attribute("viewBox").split()[2])
    unit_m = float(frame.locator("svg.map").get_attribute("data-unit-m"))
    shown_m = unit_m * _view(frame)[2]
    assert metres == pytest.approx(shown_m * units / whole, rel=0.01)
    steps = [n * 10**power for power in range(-1, 6) for n in (1, 2, 5)]
    # A third of the map without its margin, 1000 units.
    most = shown_m * 1000 / whole / 3
    assert metres == max(step for step in steps if step <= most)


@pytest.mark.parametrize("name", ["report", "check"])
def test_a_map_moves_and_zooms(open_page, name):
    page = open_page(PAGES[name].as_uri())
    frame = page.locator(".map-frame").first
    first = _view(frame)
    _check_scale(frame)
    frame.focus()
    page.keyboard.press("+")
    x, y, width, height = _view(frame)
    assert width == pytest.approx(first[2] / 2)
    # About the middle.
    assert x + width / 2 == pytest.approx(first[0] + first[2] / 2)
    assert y + height / 2 == pytest.approx(first[1] + first[3] / 2)
    _check_scale(frame)
    page.keyboard.press("ArrowRight")
    assert _view(frame)[0] == pytest.approx(x + width / 5)
    for _ in range(9):
        page.keyboard.press("ArrowLeft")
    # Not past the edge.
    assert _view(frame)[0] == pytest.approx(first[0])
    page.keyboard.press("0")
    assert _view(frame) == pytest.approx(first)
    frame.get_by_role("button", name="Zoom in").click()
    frame.get_by_role("button", name="Zoom in").click()
    assert _view(frame)[2] == pytest.approx(first[2] / 4)
    before = _view(frame)
    box = frame.locator("svg.map").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 50, middle[1] + 20, steps=4)
    page.mouse.up()
    per_pixel = before[2] / box["width"]
    after = _view(frame)
    assert after[0] == pytest.approx(before[0] - 50 * per_pixel, rel=0.02)
    assert after[1] == pytest.approx(before[1] - 20 * per_pixel, rel=0.02)
    # What lies under the pointer stays there.
    shares = (
        (middle[0] + 50 - box["x"]) / box["width"],
        (middle[1] + 20 - box["y"]) / _map_height(frame, box),
    )
    page.mouse.wheel(0, -100)
    zoomed = _view(frame)
    assert zoomed[2] == pytest.approx(after[2] / 2)
    _check_scale(frame)
    for axis, share in enumerate(shares):
        under = after[axis] + share * after[2 + axis]
        assert zoomed[axis] + share * zoomed[2 + axis] == pytest.approx(
            under, abs=1
        )
    for _ in range(10):
        page.mouse.wheel(0, 100)
    assert _view(frame) == pytest.approx(first)


def _map_height(frame, box):
    """Pixels of the map without the scale below it."""
    outer = frame.locator("svg.map").get_attribute("viewBox").split()
    inner = frame.locator(".view").get_attribute("height")
    return box["height"] * float(inner) / float(outer[3])


def test_the_wheel_scrolls_the_page_over_a_map_that_was_not_clicked(open_page):
    page = open_page(PAGES["report"].as_uri())
    frame = page.locator(".map-frame").first
    frame.scroll_into_view_if_needed()
    first = _view(frame)
    frame.locator("svg.map").hover()
    before = page.evaluate("scrollY")
    page.mouse.wheel(0, 100)
    page.wait_for_function(f"scrollY > {before}")
    assert _view(frame) == first


def test_queries_are_filtered_by_keyboard(open_page):
    page = open_page(PAGES["report"].as_uri())
    total = page.locator(".case").count()
    wrong = page.locator('.case[data-kind="wrong"]').count()
    assert 0 < wrong < total
    page.get_by_role("button", name="Wrong").focus()
    page.keyboard.press("Space")
    assert page.locator(".case:visible").count() == wrong
    assert page.locator(".filter output").inner_text() == f"{wrong} shown"


def test_the_report_names_its_model_and_baselines(open_page):
    page = open_page(PAGES["report"].as_uri())
    text = page.locator("main").inner_text()
    for words in ("pages/export/1", "small + netvlad", "before training"):
        assert words in text, words
    assert re.search(r"epoch-000\d of 2", text)
    assert re.search(r"pixels: \d+\.\d %", text)


def test_compare_shows_the_queries_that_differ(open_page):
    page = open_page(PAGES["compare"].as_uri())
    cases = page.locator(".case")
    assert cases.count() > 0
    # A query, the first image of both runs, and a positive.
    assert cases.first.locator("img").count() == 4
    assert page.locator("svg.chart .curve").count() == 2
    assert page.locator("svg.interval").count() >= 4


class _TileServer(http.server.BaseHTTPRequestHandler):
    """Answers every tile with the same picture, and keeps what was asked."""

    tile = (
        b'<svg xmlns="http://www.w3.org/2000/svg" width="256" height="256">'
        b'<rect width="256" height="256" fill="#eef3e8"/>'
        b'<path d="M0 0H256V256H0Z" fill="none" stroke="#9bb08a"/></svg>'
    )

    def do_GET(self):
        self.server.asked.append((self.path, dict(self.headers)))
        self.send_response(200)
        self.send_header("Content-Type", "image/svg+xml")
        self.send_header("Content-Length", str(len(self.tile)))
        self.end_headers()
        self.wfile.write(self.tile)

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def tile_server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _TileServer)
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@contextlib.contextmanager
def _serving(folder, *options):
    """The address of the page of `locate --serve`; its log goes to a folder."""
    command = os.environ.get("SARE_TF_PYTHON", ".venv/bin/python")
    log = folder / "locate.log"
    with log.open("w") as written:
        process = subprocess.Popen(
            [
                *(command, "-m", "sare_tf.locate", "--serve", "--port=0"),
                "--flagfile=tests/browser/pages.flags",
                *options,
            ],
            stderr=written,
        )
    try:
        while not (
            found := re.search(r"Open (http://\S+) in", log.read_text())
        ):
            assert process.poll() is None, log.read_text()
            time.sleep(0.2)
        yield found[1]
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def address(tile_server, tmp_path_factory):
    port = tile_server.server_address[1]
    tiles = f"http://127.0.0.1:{port}/{{z}}/{{x}}/{{y}}.png"
    folder = tmp_path_factory.mktemp("served")
    with _serving(folder, f"--map_tiles={tiles}") as address:
        yield address


@pytest.fixture(scope="module")
def photographs():
    found = sorted((FOLDER / "city/images/test/queries").iterdir())
    return [found[0], found[7], found[20]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("device", "viewport"), [("desktop", DESKTOP), ("phone", PHONE)]
)
def test_the_locate_page_is_readable(
    open_page, address, photographs, device, viewport, scheme
):
    page = open_page(
        address, viewport=viewport, color_scheme=scheme, also=[address]
    )
    _check_readable(page)
    _shot(page, f"locate_empty_{device}_{scheme}")
    page.set_input_files("#photo", photographs)
    _until_answered(page, 3)
    _check_readable(page)
    _shot(page, f"locate_{device}_{scheme}")
    page.locator("#matches button").first.click()
    page.locator("#large-match").evaluate("image => image.decode()")
    _check_readable(page)
    _shot(page, f"locate_large_{device}_{scheme}", full_page=False)


def _until_answered(page, count):
    word = "photograph" if count == 1 else "photographs"
    page.get_by_text(f"Looked up {count} of {count} {word}.").wait_for(
        timeout=60_000
    )


def test_names_and_places_are_shown(open_page, address, photographs):
    page = open_page(address, also=[address])
    about = page.locator(".about").inner_text()
    assert "pages/export/1" in about
    assert "runs/pages/index" in about
    assert "images" in about
    page.set_input_files("#photo", photographs[0])
    _until_answered(page, 1)
    matches = page.locator("#matches li")
    assert matches.count() == 5
    for text in matches.all_inner_texts():
        assert re.search(r"-?\d+\.\d{6}, -?\d+\.\d{6}", text) or "m E" in text
        assert re.search("first match|same place|another place", text)
    # One photograph needs no list.
    assert not page.locator("#list").is_visible()
    # A word, or what was measured, but no bar without a measurement.
    sure = page.locator("#sure").inner_text()
    assert re.search("margin to the nearest other place|right in", sure)
    assert (page.locator("#sure meter").count() == 1) == ("right in" in sure)


def test_several_photographs_at_once(open_page, address, photographs, tmp_path):
    broken = tmp_path / "<b>broken.jpg"
    broken.write_bytes(b"no photograph")
    page = open_page(address, also=[address])
    page.set_input_files("#photo", [*photographs, broken])
    page.get_by_text("Looked up 3 of 4 photographs.").wait_for(timeout=60_000)
    buttons = page.locator("#photos button")
    assert buttons.count() == 4
    # A name is text, not HTML.
    assert "<b>broken.jpg" in buttons.nth(3).inner_text()
    assert "Expected a JPEG, PNG or HEIC" in buttons.nth(3).inner_text()
    shown = page.locator("#query-name").inner_text()
    assert shown == photographs[0].name
    buttons.nth(0).focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#query-name").inner_text() == photographs[1].name
    assert buttons.nth(1).get_attribute("aria-current") == "true"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert not page.locator("#answer").is_visible()
    page.get_by_role("button", name="Remove all").click()
    assert not page.locator("#list").is_visible()
    # Refused by the server: 415, which the browser logs.
    assert len(open_page.errors) == 1
    open_page.errors.clear()


def test_matches_open_large_by_keyboard(open_page, address, photographs):
    page = open_page(address, also=[address])
    page.set_input_files("#photo", photographs[0])
    _until_answered(page, 1)
    page.locator("#matches button").nth(1).focus()
    page.keyboard.press("Enter")
    title = page.locator("#large-title")
    assert title.inner_text().startswith("Match 2 of 5")
    image = page.locator("#large-match")
    image.evaluate("image => image.decode()")
    # The stored picture, not its thumbnail.
    assert image.evaluate("image => image.naturalWidth") == 96
    page.keyboard.press("ArrowRight")
    assert title.inner_text().startswith("Match 3 of 5")
    for _ in range(5):
        page.keyboard.press("ArrowLeft")
    assert title.inner_text().startswith("Match 1 of 5")
    page.keyboard.press("Escape")
    assert not page.locator("#large").is_visible()
    # Back where it was opened.
    focused = page.evaluate("document.activeElement.closest('li') !== null")
    assert focused


def test_an_example_needs_no_file(open_page, address):
    page = open_page(address, also=[address])
    page.locator("#examples button").first.focus()
    page.keyboard.press("Enter")
    _until_answered(page, 1)
    assert page.locator("#matches li").count() == 5


def test_a_dropped_photograph(open_page, address, photographs):
    page = open_page(address, also=[address])
    moved = page.evaluate_handle(
        """bytes => {
          const moved = new DataTransfer();
          moved.items.add(new File([new Uint8Array(bytes)], "drop.jpg"));
          return moved;
        }""",
        list(photographs[0].read_bytes()),
    )
    page.dispatch_event("body", "drop", {"dataTransfer": moved})
    _until_answered(page, 1)
    assert page.locator("#query-name").inner_text() == "drop.jpg"


def test_the_map_of_an_answer_zooms_out_to_the_whole_database(
    open_page, address, photographs
):
    page = open_page(address, also=[address])
    page.set_input_files("#photo", photographs[0])
    _until_answered(page, 1)
    frame = page.locator("#map")
    first = _view(frame)
    frame.get_by_role("button", name="Show the whole map").click()
    x, y, width, height = _view(frame)
    left, top, across, down = map(
        float, frame.locator("svg.map").get_attribute("data-whole").split()
    )
    assert width > first[2]
    assert x <= left + 0.1
    assert y <= top + 0.1
    assert x + width >= left + across - 0.1
    assert y + height >= top + down - 0.1
    # A match that is pointed at is marked on the map.
    page.locator("#matches li").first.hover()
    assert frame.locator(".mark.pointed").count() == 1
    assert "1" in frame.locator(".mark.pointed").get_attribute("data-marks")
    frame.get_by_role("button", name="Back to the first view").click()
    assert _view(frame) == pytest.approx(first)


def _tile_of(latitude, longitude, zoom):
    """Column and row of the tile with a position, by the definition."""
    across = (longitude + 180) / 360
    angle = math.radians(latitude)
    down = (1 - math.log(math.tan(angle) + 1 / math.cos(angle)) / math.pi) / 2
    return int(across * 2**zoom), int(down * 2**zoom)


def test_tiles_are_asked_for_only_when_a_person_wants_them(
    open_page, address, tile_server, photographs
):
    port = tile_server.server_address[1]
    tile_server.asked.clear()
    page = open_page(address, also=[address, f"http://127.0.0.1:{port}/"])
    page.set_input_files("#photo", photographs[0])
    _until_answered(page, 1)
    page.wait_for_timeout(500)
    assert tile_server.asked == []
    button = page.get_by_role("button", name="Streets")
    assert not page.locator("#attribution").is_visible()
    button.focus()
    page.keyboard.press("Space")
    page.wait_for_function("document.querySelectorAll('#map image').length > 0")
    page.wait_for_timeout(500)
    assert page.locator("#attribution").is_visible()
    asked = {
        tuple(map(int, re.findall(r"\d+", path)[:3]))
        for path, _ in tile_server.asked
    }
    # The tile of the first match is among them, and is drawn below its mark.
    latitude, longitude = map(
        float, page.locator("#headline").inner_text().split(",")
    )
    (zoom,) = {tile[0] for tile in asked}
    own = (zoom, *_tile_of(latitude, longitude, zoom))
    assert own in asked
    assert 14 <= zoom <= 19
    mark = page.locator('#map .mark[data-marks^="1"]').bounding_box()
    middle = [mark["x"] + mark["width"] / 2, mark["y"] + mark["height"] / 2]
    tile = page.locator(
        f'#map image[href$="/{own[0]}/{own[1]}/{own[2]}.png"]'
    ).bounding_box()
    share = [
        (middle[0] - tile["x"]) / tile["width"],
        (middle[1] - tile["y"]) / tile["height"],
    ]
    across = (longitude + 180) / 360 * 2**zoom
    assert share[0] == pytest.approx(across - own[1], abs=0.02)
    angle = math.radians(latitude)
    down = (1 - math.asinh(math.tan(angle)) / math.pi) / 2 * 2**zoom
    assert share[1] == pytest.approx(down - own[2], abs=0.02)
    # The server of the tiles learns the address of this one, no page of it.
    for _, headers in tile_server.asked:
        assert headers.get("Referer") == f"{address}/"
    _shot(page, "locate_tiles")
    button.click()
    assert page.locator("#map image").count() == 0
    assert not page.locator("#attribution").is_visible()


def test_without_the_flag_there_are_no_tiles(open_page, photographs, tmp_path):
    with _serving(tmp_path) as address:
        page = open_page(address, also=[address])
        page.set_input_files("#photo", photographs[0])
        _until_answered(page, 1)
        assert page.locator("#tiles").count() == 0
        # The policy forbids them, too.
        blocked = page.evaluate(
            """() => new Promise((done) => {
              document.addEventListener("securitypolicyviolation",
                (event) => done(event.blockedURI));
              new Image().src = "https://tile.openstreetmap.org/0/0/0.png";
            })"""
        )
        assert blocked.startswith("https://tile.openstreetmap.org/")
        open_page.errors.clear()
        open_page.outside.clear()


def test_two_fingers_zoom_a_map_that_was_touched(open_page, address):
    page = open_page(
        address, also=[address], viewport=PHONE, has_touch=True, is_mobile=True
    )
    page.locator("#examples button").first.tap()
    _until_answered(page, 1)
    frame = page.locator("#map")
    frame.scroll_into_view_if_needed()
    frame.locator("svg.map").tap()
    first = _view(frame)
    box = frame.locator("svg.map").bounding_box()
    session = page.context.new_cdp_session(page)
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 3

    def touch(kind, apart):
        points = [{"x": x - apart, "y": y}, {"x": x + apart, "y": y}]
        session.send(
            "Input.dispatchTouchEvent",
            {
                "type": kind,
                "touchPoints": [] if kind == "touchEnd" else points,
            },
        )

    touch("touchStart", 20)
    for apart in range(22, 62, 2):
        touch("touchMove", apart)
    touch("touchEnd", 60)
    assert _view(frame)[2] == pytest.approx(first[2] / 3, rel=0.1)
