"""Lines between a photograph and a match, on the page of `locate`."""

import re

import browser_pages
import pytest

pytestmark = browser_pages.NEEDED


def _ends(page):
    """Where the lines of the large pictures end, in pixels of the window."""
    return page.locator("#match-lines").evaluate(
        """svg => {
          const edge = svg.getBoundingClientRect();
          return [...svg.querySelectorAll("path")].map((path) => path
            .getAttribute("d").slice(1).split("L").map((end) => {
              const [x, y] = end.split(" ").map(Number);
              return [x + edge.x, y + edge.y];
            }));
        }"""
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("device", "viewport"),
    [("desktop", browser_pages.DESKTOP), ("phone", browser_pages.PHONE)],
)
def test_lines_join_the_large_pictures(
    open_page, reranking, device, viewport, scheme
):
    # An image of the database: features of a photograph so small seldom agree.
    images = browser_pages.FOLDER / "city/images/test/database"
    page = open_page(
        reranking, viewport=viewport, color_scheme=scheme, also=[reranking]
    )
    page.set_input_files("#photo", sorted(images.iterdir())[0])
    browser_pages.until_answered(page, 1)
    assert "inlier" in page.locator("#matches li").first.inner_text()
    # The one with the most lines.
    counts = [
        int(re.search(r"(\d+) inlier", text)[1])
        for text in page.locator("#matches li").all_inner_texts()
    ]
    best = counts.index(max(counts))
    page.locator("#matches button").nth(best).click()
    page.locator("#large-match").evaluate("image => image.decode()")
    page.locator("#match-lines path").first.wait_for(state="attached")
    ends = _ends(page)
    # Inliers at one point count once, and 40 are drawn at most.
    assert min(counts[best], 40) <= len(ends) <= 40
    # Every line begins in the photograph and ends in the match.
    for number, picture in enumerate(("#large-query", "#large-match")):
        box = page.locator(picture).bounding_box()
        for line in ends:
            assert box["x"] <= line[number][0] <= box["x"] + box["width"]
            assert box["y"] <= line[number][1] <= box["y"] + box["height"]
    text = page.locator("#lines-choice").inner_text()
    assert f"{counts[best]} inlier" in text
    browser_pages.check_readable(page)
    browser_pages.shot(page, f"locate_lines_{device}_{scheme}", full_page=False)
    # They follow the pictures, and can be taken away.
    page.set_viewport_size({**viewport, "width": viewport["width"] + 60})
    page.wait_for_timeout(200)
    assert _ends(page) != ends
    page.locator("#lines").focus()
    page.keyboard.press("Space")
    assert page.locator("#match-lines path").count() == 0
    page.keyboard.press("Space")
    assert page.locator("#match-lines path").count() == len(ends)


def test_without_reranking_there_are_no_lines(open_page, address, photographs):
    page = open_page(address, also=[address])
    page.set_input_files("#photo", photographs[0])
    browser_pages.until_answered(page, 1)
    page.locator("#matches button").first.click()
    page.locator("#large-match").evaluate("image => image.decode()")
    assert page.locator("#match-lines path").count() == 0
    assert not page.locator("#lines-choice").is_visible()
