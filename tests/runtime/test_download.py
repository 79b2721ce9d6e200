"""Downloads from a server on this machine, whole and broken ones."""

import os
import subprocess
import sys

import pytest
from paths import ROOT
from toy_downloads import CONTENT, SHA256, running

from sare_tf.runtime import download


@pytest.fixture(scope="module")
def server():
    with running() as server:
        yield server


@pytest.fixture
def fetch(server, tmp_path):
    def fetch(name, *, sha256=SHA256, **options):
        port = server.server_address[1]
        return download.fetch(
            f"http://127.0.0.1:{port}/{name}",
            tmp_path / "new/weights.pth",
            sha256=sha256,
            **options,
        )

    return fetch


def _left(tmp_path):
    return [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", ["whole", "moved"])
@pytest.mark.parametrize("digits", [8, 64])
def test_downloads_once(fetch, server, name, digits):
    path = fetch(name, sha256=SHA256[:digits])
    assert path.read_bytes() == CONTENT
    assert os.listdir(path.parent) == ["weights.pth"]
    server.requests.clear()
    assert fetch(name) == path
    assert server.requests == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("broken", "broke off after 70,000 of 2,304,000 bytes"),
        ("chunked", "broke off"),
        ("absent", "the answer 404 Not Found"),
        ("silent", "no connection|broke off"),
    ],
)
def test_a_server_that_does_not_send_the_file(fetch, tmp_path, name, reason):
    with pytest.raises(ConnectionError, match=reason) as error:
        fetch(name, timeout_s=0.5)
    # Where it comes from, and where it belongs.
    for words in ("http://127.0.0.1", f"/{name}", "new/weights.pth"):
        assert words in str(error.value)
    assert _left(tmp_path) == []
    assert fetch("whole").read_bytes() == CONTENT


def test_no_server(tmp_path):
    with running() as server:
        port = server.server_address[1]
    path = tmp_path / "weights.pth"
    with pytest.raises(ConnectionError, match="no connection.*put it at"):
        download.fetch(f"http://127.0.0.1:{port}/a", path, sha256="0")
    assert _left(tmp_path) == []


@pytest.mark.parametrize("url", ["nonsense", "http://[", "ftp://x.invalid/a"])
def test_no_address(tmp_path, url):
    with pytest.raises(ConnectionError, match="no connection"):
        download.fetch(url, tmp_path / "a", sha256="0", timeout_s=0.5)


def test_another_file(fetch, tmp_path):
    with pytest.raises(ValueError, match="13 bytes.*damaged or another file"):
        fetch("portal")
    assert _left(tmp_path) == []


def test_a_file_that_was_put_there_is_checked(fetch, server, tmp_path):
    path = tmp_path / "new/weights.pth"
    path.parent.mkdir()
    path.write_bytes(CONTENT[:-1])
    server.requests.clear()
    with pytest.raises(ValueError, match="2,303,999 bytes.*Delete it"):
        fetch("whole")
    assert server.requests == []
    assert path.read_bytes() == CONTENT[:-1]


def test_what_a_kill_left_is_replaced(fetch, tmp_path):
    (tmp_path / "new").mkdir()
    left = tmp_path / "new/.weights.pth.unfinished"
    left.write_bytes(b"half of it")
    assert fetch("whole").read_bytes() == CONTENT
    assert not left.exists()


def test_a_disk_that_fills_up(server, tmp_path):
    """The system refuses files of more than a megabyte, as a full disk does."""
    code = (
        "import resource, sys; from sare_tf.runtime import download;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20));"
        "download.fetch(*sys.argv[1:3], sha256=sys.argv[3])"
    )
    port = server.server_address[1]
    result = subprocess.run(
        [sys.executable, "-c", code, f"http://127.0.0.1:{port}/whole"]
        + [str(tmp_path / "weights.pth"), SHA256],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )
    last = result.stderr.splitlines()[-1]
    assert "Expected to write a download" in last
    assert "Make room" in last
    assert _left(tmp_path) == []
