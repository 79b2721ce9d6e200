"""The page of `locate --serve`: photographs, answers and matches."""

import re

import browser_pages
import pytest

pytestmark = browser_pages.NEEDED


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("device", "viewport"),
    [("desktop", browser_pages.DESKTOP), ("phone", browser_pages.PHONE)],
)
def test_the_locate_page_is_readable(
    open_page, address, photographs, device, viewport, scheme
):
    page = open_page(
        address, viewport=viewport, color_scheme=scheme, also=[address]
    )
    browser_pages.check_readable(page)
    browser_pages.shot(page, f"locate_empty_{device}_{scheme}")
    page.set_input_files("#photo", photographs)
    browser_pages.until_answered(page, 3)
    browser_pages.check_readable(page)
    browser_pages.shot(page, f"locate_{device}_{scheme}")
    page.locator("#matches button").first.click()
    page.locator("#large-match").evaluate("image => image.decode()")
    browser_pages.check_readable(page)
    browser_pages.shot(page, f"locate_large_{device}_{scheme}", full_page=False)


def test_names_and_places_are_shown(open_page, address, photographs):
    page = open_page(address, also=[address])
    about = page.locator(".about").inner_text()
    assert "pages/export/1" in about
    assert "runs/pages/index" in about
    assert "images" in about
    page.set_input_files("#photo", photographs[0])
    browser_pages.until_answered(page, 1)
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
    browser_pages.until_answered(page, 1)
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
    browser_pages.until_answered(page, 1)
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
    browser_pages.until_answered(page, 1)
    assert page.locator("#query-name").inner_text() == "drop.jpg"
