"""What is known of photographs, on the page of `locate`."""

import json
import math

import browser_pages
import pytest

pytestmark = browser_pages.NEEDED


def test_a_click_on_the_map_is_a_prior(open_page, address, photographs):
    page = open_page(address, also=[address])
    page.set_input_files("#photo", photographs[0])
    browser_pages.until_answered(page, 1)
    searched = page.locator("#where").inner_text()
    frame = page.locator("#map")
    first = browser_pages.view(frame)
    mark = frame.locator('.mark[data-marks^="1"]').bounding_box()
    middle = [mark["x"] + mark["width"] / 2, mark["y"] + mark["height"] / 2]
    page.mouse.click(*middle)
    # A click moves nothing.
    assert browser_pages.view(frame) == first
    found = page.locator("#headline").inner_text().split(",")
    near = page.locator("[name=near]").input_value().split(",")
    metres = math.hypot(
        (float(near[0]) - float(found[0])) * 111_320,
        (float(near[1]) - float(found[1]))
        * 111_320
        * math.cos(math.radians(float(found[0]))),
    )
    # Half a pixel or so of a map of some hundred metres.
    assert metres < 5
    page.locator("[name=within_m]").fill("40")
    circle = frame.locator(".near").bounding_box()
    unit_m = float(frame.locator("svg.map").get_attribute("data-unit-m"))
    whole = frame.locator("svg.map").bounding_box()["width"]
    units = float(frame.locator("svg.map").get_attribute("viewBox").split()[2])
    assert circle["width"] == pytest.approx(
        80 / unit_m * whole / units, rel=0.05, abs=4
    )
    browser_pages.check_readable(page)
    browser_pages.shot(page, "locate_near")
    page.get_by_role("button", name="Search again").click()
    browser_pages.until_answered(page, 1)
    page.locator("#where", has_text="within 40 m").wait_for()
    assert page.locator("#where").inner_text() != searched
    # A drag is no click.
    before = page.locator("[name=near]").input_value()
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 30, middle[1] + 9, steps=3)
    page.mouse.up()
    assert page.locator("[name=near]").input_value() == before
    page.get_by_role("button", name="Forget").click()
    assert frame.locator(".near").count() == 0


def test_a_region_is_pasted_or_read_from_a_file(
    open_page, address, photographs, tmp_path
):
    page = open_page(address, also=[address])
    page.set_input_files("#photo", photographs[0])
    browser_pages.until_answered(page, 1)
    latitude, longitude = map(
        float, page.locator("#headline").inner_text().split(",")
    )
    sides = [(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)]
    ring = [[longitude + x / 2000, latitude + y / 2000] for x, y in sides]
    path = tmp_path / "region.geojson"
    path.write_text(
        json.dumps({"type": "Polygon", "coordinates": [ring]}, indent=2)
    )
    page.locator(".known summary").click()
    page.set_input_files("#region-file", path)
    while "Polygon" not in page.locator("[name=region]").input_value():
        page.wait_for_timeout(20)
    drawing = page.locator("#map svg.map")
    height = drawing.locator(".inside").evaluate(
        "path => path.getBBox().height"
    )
    # A thousandth of a degree to the north, in metres.
    unit_m = float(drawing.get_attribute("data-unit-m"))
    assert height * unit_m == pytest.approx(111.3, rel=0.01)
    browser_pages.check_readable(page)
    browser_pages.shot(page, "locate_region")
    page.get_by_role("button", name="Search again").click()
    page.locator("#where", has_text="inside the region").wait_for()
    page.locator("#map .inside").wait_for(state="attached")
    page.locator("[name=region]").fill('{"type": "Point"}')
    assert page.locator("#map .inside").count() == 0
    page.get_by_role("button", name="Search again").click()
    page.get_by_text("Expected a region as GeoJSON").first.wait_for()
    # Refused by the server: 400, which the browser logs.
    assert len(open_page.errors) == 1
    open_page.errors.clear()
