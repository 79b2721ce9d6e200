"""Maps in a browser: moved, zoomed, and above tiles."""

import math
import re

import browser_pages
import pytest

pytestmark = browser_pages.NEEDED


def _check_scale(frame):
    """The bar is as long as it says, and at most a third of the map."""
    text = frame.locator(".scale text").text_content()
    number, unit = text.split()
    metres = float(number) * {"m": 1, "km": 1000}[unit]
    path = frame.locator(".scale path").get_attribute("d")
    units = float(re.search(r"H([\d.]+)", path)[1])
    whole = float(frame.locator("svg.map").get_attribute("viewBox").split()[2])
    unit_m = float(frame.locator("svg.map").get_attribute("data-unit-m"))
    shown_m = unit_m * browser_pages.view(frame)[2]
    assert metres == pytest.approx(shown_m * units / whole, rel=0.01)
    steps = [n * 10**power for power in range(-1, 6) for n in (1, 2, 5)]
    # A third of the map without its margin, 1000 units.
    most = shown_m * 1000 / whole / 3
    assert metres == max(step for step in steps if step <= most)


@pytest.mark.parametrize("name", ["report", "check"])
def test_a_map_moves_and_zooms(open_page, name):
    page = open_page(browser_pages.PAGES[name].as_uri())
    frame = page.locator(".map-frame").first
    first = browser_pages.view(frame)
    _check_scale(frame)
    frame.focus()
    page.keyboard.press("+")
    x, y, width, height = browser_pages.view(frame)
    assert width == pytest.approx(first[2] / 2)
    # About the middle.
    assert x + width / 2 == pytest.approx(first[0] + first[2] / 2)
    assert y + height / 2 == pytest.approx(first[1] + first[3] / 2)
    _check_scale(frame)
    page.keyboard.press("ArrowRight")
    assert browser_pages.view(frame)[0] == pytest.approx(x + width / 5)
    for _ in range(9):
        page.keyboard.press("ArrowLeft")
    # Not past the edge.
    assert browser_pages.view(frame)[0] == pytest.approx(first[0])
    page.keyboard.press("0")
    assert browser_pages.view(frame) == pytest.approx(first)
    frame.get_by_role("button", name="Zoom in").click()
    frame.get_by_role("button", name="Zoom in").click()
    assert browser_pages.view(frame)[2] == pytest.approx(first[2] / 4)
    before = browser_pages.view(frame)
    box = frame.locator("svg.map").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 50, middle[1] + 20, steps=4)
    page.mouse.up()
    per_pixel = before[2] / box["width"]
    after = browser_pages.view(frame)
    assert after[0] == pytest.approx(before[0] - 50 * per_pixel, rel=0.02)
    assert after[1] == pytest.approx(before[1] - 20 * per_pixel, rel=0.02)
    # What lies under the pointer stays there.
    shares = (
        (middle[0] + 50 - box["x"]) / box["width"],
        (middle[1] + 20 - box["y"]) / _map_height(frame, box),
    )
    page.mouse.wheel(0, -100)
    zoomed = browser_pages.view(frame)
    assert zoomed[2] == pytest.approx(after[2] / 2)
    _check_scale(frame)
    for axis, share in enumerate(shares):
        under = after[axis] + share * after[2 + axis]
        assert zoomed[axis] + share * zoomed[2 + axis] == pytest.approx(
            under, abs=1
        )
    for _ in range(10):
        page.mouse.wheel(0, 100)
    assert browser_pages.view(frame) == pytest.approx(first)


def _map_height(frame, box):
    """Pixels of the map without the scale below it."""
    outer = frame.locator("svg.map").get_attribute("viewBox").split()
    inner = frame.locator(".view").get_attribute("height")
    return box["height"] * float(inner) / float(outer[3])


def test_the_wheel_scrolls_the_page_over_a_map_that_was_not_clicked(open_page):
    page = open_page(browser_pages.PAGES["report"].as_uri())
    frame = page.locator(".map-frame").first
    frame.scroll_into_view_if_needed()
    first = browser_pages.view(frame)
    frame.locator("svg.map").hover()
    before = page.evaluate("scrollY")
    page.mouse.wheel(0, 100)
    page.wait_for_function(f"scrollY > {before}")
    assert browser_pages.view(frame) == first


def test_the_map_of_an_answer_zooms_out_to_the_whole_database(
    open_page, address, photographs
):
    page = open_page(address, also=[address])
    page.set_input_files("#photo", photographs[0])
    browser_pages.until_answered(page, 1)
    frame = page.locator("#map")
    first = browser_pages.view(frame)
    frame.get_by_role("button", name="Show the whole map").click()
    x, y, width, height = browser_pages.view(frame)
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
    assert browser_pages.view(frame) == pytest.approx(first)


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
    browser_pages.until_answered(page, 1)
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
    browser_pages.shot(page, "locate_tiles")
    button.click()
    assert page.locator("#map image").count() == 0
    assert not page.locator("#attribution").is_visible()


def test_without_the_flag_there_are_no_tiles(open_page, photographs, tmp_path):
    with browser_pages.serving(tmp_path) as address:
        page = open_page(address, also=[address])
        page.set_input_files("#photo", photographs[0])
        browser_pages.until_answered(page, 1)
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
        address,
        also=[address],
        viewport=browser_pages.PHONE,
        has_touch=True,
        is_mobile=True,
    )
    page.locator("#examples button").first.tap()
    browser_pages.until_answered(page, 1)
    frame = page.locator("#map")
    frame.scroll_into_view_if_needed()
    frame.locator("svg.map").tap()
    first = browser_pages.view(frame)
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
    assert browser_pages.view(frame)[2] == pytest.approx(first[2] / 3, rel=0.1)
