"""Reports in a browser: readable, printed, and by keyboard."""

import re
import shutil
import subprocess

import browser_pages
import pytest

pytestmark = browser_pages.NEEDED


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("device", "viewport"),
    [("desktop", browser_pages.DESKTOP), ("phone", browser_pages.PHONE)],
)
@pytest.mark.parametrize("name", browser_pages.PAGES)
def test_a_page_is_readable(open_page, name, device, viewport, scheme):
    page = open_page(
        browser_pages.PAGES[name].as_uri(),
        viewport=viewport,
        color_scheme=scheme,
    )
    browser_pages.check_readable(page)
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
    browser_pages.shot(page, f"{name}_{device}_{scheme}")


@pytest.mark.parametrize("name", browser_pages.PAGES)
def test_a_page_prints_whole(open_page, name):
    page = open_page(browser_pages.PAGES[name].as_uri(), color_scheme="dark")
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
    folder = browser_pages.FOLDER / "shots"
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


@pytest.mark.parametrize("name", browser_pages.PAGES)
def test_the_contents_lead_to_every_section(open_page, name):
    page = open_page(browser_pages.PAGES[name].as_uri())
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


def test_queries_are_filtered_by_keyboard(open_page):
    page = open_page(browser_pages.PAGES["report"].as_uri())
    total = page.locator(".case").count()
    wrong = page.locator('.case[data-kind="wrong"]').count()
    assert 0 < wrong < total
    page.get_by_role("button", name="Wrong").focus()
    page.keyboard.press("Space")
    assert page.locator(".case:visible").count() == wrong
    assert page.locator(".filter output").inner_text() == f"{wrong} shown"


def test_the_report_names_its_model_and_baselines(open_page):
    page = open_page(browser_pages.PAGES["report"].as_uri())
    text = page.locator("main").inner_text()
    for words in ("pages/export/1", "small + netvlad", "before training"):
        assert words in text, words
    assert re.search(r"epoch-000\d of 2", text)
    assert re.search(r"pixels: \d+\.\d %", text)


def test_compare_shows_the_queries_that_differ(open_page):
    page = open_page(browser_pages.PAGES["compare"].as_uri())
    cases = page.locator(".case")
    assert cases.count() > 0
    # A query, the first image of both runs, and a positive.
    assert cases.first.locator("img").count() == 4
    assert page.locator("svg.chart .curve").count() == 2
    assert page.locator("svg.interval").count() >= 4
