"""The pages that are opened, and what tests of several stories do with them.

`make test-pages` makes the pages of tests/browser/pages.flags in the folder
SARE_TF_PAGES. Screenshots go to its folder `shots`, to be looked at. The tests
do not import sare_tf: they see what a person sees.
"""

import contextlib
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FOLDER = Path(os.environ.get("SARE_TF_PAGES", "runs/pages")).absolute()
PAGES = {
    "report": FOLDER / "evaluation/report.html",
    "check": FOLDER / "findings/check.html",
    "compare": FOLDER / "comparison/compare.html",
}
NEEDED = [
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
_READABLE = (Path(__file__).parent / "readable.js").read_text("utf-8")


def shot(page, name, *, full_page=True):
    """Keeps a screenshot, to be looked at."""
    folder = FOLDER / "shots"
    folder.mkdir(exist_ok=True)
    page.screenshot(path=folder / f"{name}.png", full_page=full_page)


def check_readable(page):
    """Nothing to scroll sideways, texts with contrast, and names."""
    found = page.evaluate(_READABLE)
    assert found["width"] <= found["screen"]
    assert found["pale"] == []
    assert found["nameless"] == []
    assert page.title()
    assert page.locator("h1").count() == 1


def view(frame):
    """What a map shows: x, y, width, height."""
    return [
        float(value)
        for value in frame.locator(".view").get_attribute("viewBox").split()
    ]


def until_answered(page, count):
    """Waits until so many photographs were looked up."""
    word = "photograph" if count == 1 else "photographs"
    page.get_by_text(f"Looked up {count} of {count} {word}.").wait_for(
        timeout=60_000
    )


@contextlib.contextmanager
def serving(folder, *options):
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
