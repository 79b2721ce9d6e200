"""Fixtures: a browser, the page of `locate` and a server of tiles."""

import http.server
import threading

import browser_pages
import pytest


@pytest.fixture(autouse=True, scope="session")
def _results_are_as_documented():
    """In place of the fixture of all tests."""


@pytest.fixture(scope="session")
def browser():
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="Playwright is not installed"
    )
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=browser_pages.CHROMIUM, args=["--no-sandbox"]
        )
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser):
    """Opens an address; the page must log no error, and load nothing else."""
    contexts, errors, outside = [], [], []
    allowed = ["file://", "data:", "blob:"]

    def open_it(address, *, viewport=browser_pages.DESKTOP, also=(), **options):
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


@pytest.fixture(scope="session")
def tile_server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _TileServer)
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def address(tile_server, tmp_path_factory):
    port = tile_server.server_address[1]
    tiles = f"http://127.0.0.1:{port}/{{z}}/{{x}}/{{y}}.png"
    folder = tmp_path_factory.mktemp("served")
    with browser_pages.serving(folder, f"--map_tiles={tiles}") as address:
        yield address


@pytest.fixture(scope="session")
def reranking(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reranked")
    with browser_pages.serving(folder, "--rerank=rootsift") as address:
        yield address


@pytest.fixture(scope="session")
def photographs():
    found = sorted(
        (browser_pages.FOLDER / "city/images/test/queries").iterdir()
    )
    return [found[0], found[7], found[20]]
