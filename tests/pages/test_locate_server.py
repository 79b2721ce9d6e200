"""The page that locates what is dropped on it: answers and refusals."""

import base64
import http.client
import io
import json
import re
import socket
import struct
import sys
import threading
import urllib.request
import zlib

import numpy as np
import pytest
import toy_images
import toy_search
from absl import flags
from absl.testing import flagsaver
from PIL import Image

from sare_tf import index, locate
from sare_tf.dataset import heif
from sare_tf.pages import locate_server, map_tiles, web_server
from sare_tf.pages.options import LocateOptions, ServeOptions
from sare_tf.search import locator
from sare_tf.search.gallery import Gallery
from sare_tf.search.options import IndexOptions


class _NoPictures:
    """Records whose images are gone."""

    def read(self, names):
        return [None] * len(names)

    def queries(self, count):
        return []


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    root = tmp_path_factory.mktemp("toy")
    records = toy_search.records(root)
    export = toy_search.export(root / "export")
    index.run(
        IndexOptions(records=records, export=export, index=root / "index")
    )
    return {"index": root / "index", "export": export, "records": records}


@pytest.fixture(scope="module")
def search(inputs):
    return locator.Locator(index=inputs["index"], export=inputs["export"])


@pytest.fixture(scope="module")
def server(inputs, search):
    gallery = Gallery(inputs["records"], search.index)
    return locate_server.LocateServer(
        search,
        gallery,
        k=4,
        limits=ServeOptions(upload_mebibytes=1),
    )


@pytest.fixture
def client(server):
    return server.app.test_client()


def _error(answer, code):
    assert answer.status_code == code
    assert answer.mimetype == "application/json"
    return answer.get_json()["error"]


def test_an_answer_is_the_locators(client, search):
    encoded = toy_search.jpeg(2, 99)
    answer = client.post("/locate?k=5", data=encoded)
    assert answer.status_code == 200
    found = answer.get_json()
    (expected,) = search([encoded], k=5)
    drawn = found.pop("map")
    thumbnails = [match.pop("thumbnail") for match in found["matches"]]
    # None without re-ranking.
    assert [match.pop("lines") for match in found["matches"]] == 5 * [[]]
    assert found == json.loads(json.dumps(expected.as_json()))
    assert all(some.startswith("data:image/jpeg;") for some in thumbnails)
    assert len(set(thumbnails)) == 5
    # 4 matches unless asked for others.
    found = client.post("/locate", data=encoded).get_json()
    assert len(found["matches"]) == 4
    assert drawn.startswith("<svg ")


def test_a_photograph_that_is_too_large(client):
    """By its length only: nothing of the body is read."""
    photograph = toy_search.jpeg(1, 99)
    answer = client.post("/locate", data=photograph.ljust(1 << 20, b"\0"))
    assert answer.status_code == 200
    answer = client.post(
        "/locate",
        data=photograph,
        environ_overrides={"CONTENT_LENGTH": str(3 << 20)},
    )
    assert "larger than 1 MiB: make it smaller" in _error(answer, 413)


def _png_header(width, height):
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + head
        + struct.pack(">I", zlib.crc32(head))
    )


@pytest.mark.parametrize(
    ("sent", "code", "words"),
    [
        (b"", 415, "empty file"),
        (b"GIF89a and more", 415, "not a JPEG or PNG image: a GIF file"),
        (b"<svg onload=alert(1)>", 415, "an HTML or XML file"),
        (b"\xff\xd8\xff and nonsense", 415, "damaged or truncated header"),
        # 16 GB in 33 bytes.
        (_png_header(65535, 65535), 415, "more than 67,108,864 pixels"),
        (_png_header(100, 100), 422, "a damaged or truncated PNG"),
        (toy_search.jpeg(2, 1)[:700], 422, "a damaged or truncated JPEG"),
        (toy_images.with_scans(32), 415, "more than 32 scans"),
        (bytes(1 << 20) + b"0", 413, "larger than 1 MiB"),
    ],
)
def test_hostile_uploads_are_refused_and_the_next_answered(
    client, sent, code, words
):
    assert words in _error(client.post("/locate", data=sent), code)
    answer = client.post("/locate", data=toy_search.jpeg(1, 99))
    assert answer.status_code == 200


def _pixels(encoded):
    with Image.open(io.BytesIO(encoded)) as image:
        return np.asarray(image.convert("RGB"))


def test_a_heic_is_answered_as_its_jpeg(client, search):
    sent = toy_images.heic(_pixels(toy_search.jpeg(1, 99)))
    answer = client.post("/locate", data=sent).json
    (expected,) = search([heif.as_jpeg(sent)], k=4)
    preview = answer.pop("preview")
    assert preview.startswith("data:image/jpeg;base64,")
    shown = _pixels(base64.b64decode(preview.partition(",")[2]))
    assert shown.shape == _pixels(toy_search.jpeg(1, 99)).shape
    assert [match["image_id"] for match in answer["matches"]] == [
        match["image_id"] for match in expected.as_json()["matches"]
    ]


def test_a_heic_that_cannot_be_read(client, monkeypatch):
    sent = toy_images.heic(_pixels(toy_search.jpeg(1, 99)))
    error = _error(client.post("/locate", data=sent[: len(sent) // 2]), 422)
    assert "damaged or truncated HEIC" in error
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    error = _error(client.post("/locate", data=sent), 415)
    assert 'pip install "sare_tf[heif]"' in error


@pytest.mark.parametrize("k", ["0", "51", "-1", "x", "9" * 5000, "²", "1e1"])
def test_k_out_of_range(client, k):
    answer = client.post(
        "/locate", query_string={"k": k}, data=toy_search.jpeg(1, 99)
    )
    assert "Expected k from 1 to 50" in _error(answer, 400)


def test_more_matches_than_images_are_all_images(client):
    answer = client.post("/locate?k=19", data=toy_search.jpeg(1, 99))
    assert len(answer.json["matches"]) == 18
    assert answer.json["searched"] == {
        "images": 18,
        "indexed": 18,
        "places": None,
        "split": "test",
        "search": "scann",
        "recall": 1.0,
        "prior": "",
    }


# Place 2 of the toy stands at 500,200 to 500,204 m of zone 17T, 4,500,000 m
# north; the next place is 100 m away.
NEAR_2 = {"near": "40.65063,-80.99761", "within_m": "30"}


def _square(west, east):
    ring = [[west, 40], [east, 40], [east, 41], [west, 41], [west, 40]]
    return json.dumps({"type": "Polygon", "coordinates": [ring]})


@pytest.mark.parametrize(
    ("known", "words"),
    [
        (NEAR_2, "within 30 m of 40.6506, -80.9976"),
        ({"region": _square(-80.99764, -80.9975)}, "inside the region"),
    ],
)
def test_a_prior_of_a_request(client, search, known, words):
    encoded = toy_search.jpeg(4, 99)
    answer = client.post("/locate", query_string=known, data=encoded).json
    assert answer["searched"]["images"] == 3
    assert answer["searched"]["indexed"] == 18
    assert answer["searched"]["prior"] == words
    east = [match["utm_east_m"] for match in answer["matches"]]
    assert sorted(east) == [500_200, 500_202, 500_204]
    # Empty fields of the page are no prior.
    fields = {"near": "", "within_m": "", "condition": ""}
    answer = client.post("/locate", query_string=fields, data=encoded).json
    assert answer["searched"]["images"] == 18


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({"near": "here", "within_m": "5"}, "Expected near as 41.8902,12.4922"),
        ({"near": "40,-81"}, "within_m=None. Give both or none"),
        ({**NEAR_2, "within_m": "far"}, "Expected within_m as 2000"),
        ({**NEAR_2, "near": "10,10"}, "none of the 18 images"),
        ({"region": "x"}, "no JSON"),
        ({"region": '{"type": "Point"}'}, "Received: type='Point'"),
        ({"taken_from": "2016"}, "images with a time that can be read"),
        ({"condition": "night"}, "images with a condition"),
        ({"place_id": ["a", "b"]}, "of place a or b. Received: an index of 18"),
    ],
)
def test_a_prior_that_cannot_be_searched(client, known, message):
    answer = client.post(
        "/locate", query_string=known, data=toy_search.jpeg(1, 99)
    )
    assert message in _error(answer, 400)


def test_the_page_has_fields_for_what_the_index_knows(client):
    page = client.get("/").text
    assert 'name="near"' in page
    assert 'name="region"' in page
    assert 'name="place_id"' not in page
    assert 'name="taken_from"' not in page
    assert 'name="condition"' not in page


def test_forms_and_their_file_names_are_not_taken(client):
    name = "../../etc/<script>.jpg"
    form = {"photo": (io.BytesIO(toy_search.jpeg(1, 99)), name)}
    answer = client.post("/locate", data=form)
    error = _error(answer, 415)
    assert "curl --data-binary @PHOTO.jpg" in error
    assert "script" not in error


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("127.0.0.1:8008", 200),
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("[::1]:8008", 200),
        ("192.168.7.7", 200),
        ("evil.example:8008", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example", 403),
        ("[::1", 403),
        ("a b", 403),
    ],
)
def test_names_that_lead_here_by_their_owners_will(client, host, code):
    assert client.get("/", headers={"Host": host}).status_code == code


def test_a_name_that_is_listened_at(search):
    server = locate_server.LocateServer(
        search, _NoPictures(), host="Photos.example"
    )
    client = server.app.test_client()
    found = client.get("/", headers={"Host": "photos.example:80"})
    assert found.status_code == 200


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Origin": "http://localhost"}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://localhost:9999"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
)
def test_other_pages_may_not_ask(client, headers, code):
    answer = client.post(
        "/locate", data=toy_search.jpeg(1, 99), headers=headers
    )
    assert answer.status_code == code
    if code == 403:
        assert "Only this server's own page" in _error(answer, 403)


def test_everything_has_the_security_headers(client):
    answers = [
        client.get("/"),
        client.get("/locate.css"),
        client.get("/locate.js"),
        client.get("/map.js"),
        client.get("/image?id=none"),
        client.get("/nothing"),
        client.post("/locate", data=b"x"),
        client.post("/locate", data=toy_search.jpeg(1, 99)),
    ]
    assert [answer.status_code for answer in answers] == [
        200, 200, 200, 200, 404, 404, 415, 200,
    ]  # fmt: skip
    for answer in answers:
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"


def test_the_page_needs_no_other_server(client):
    page = client.get("/").get_data(as_text=True)
    sources = re.findall(r'(?:src|href)="([^"]{0,11})', page)
    # Three thumbnails, of queries to try.
    assert sources == [
        *("data:,", "/locate.css", "/map.js"),
        *("/lines.js", "/near.js", "/locate.js"),
        *["data:image/"] * 3,
    ]
    # The policy forbids both.
    assert "<style" not in page
    assert not re.search(r"\son\w+=|style=", page)
    scripts = ("locate", "map", "tiles", "lines", "near")
    for path in ("/locate.css", *(f"/{name}.js" for name in scripts)):
        text = client.get(path).get_data(as_text=True)
        assert "url(" not in text
        assert "http" not in text
    assert "18 images" in page
    assert "at most 1 MiB" in page


def test_pages_that_are_not_there(client):
    answer = client.get("/<script>alert(1)</script>")
    assert answer.status_code == 404
    assert answer.mimetype == "text/html"
    page = answer.get_data(as_text=True)
    assert "Not Found" in page
    assert "<script" not in page
    assert "method" in _error(client.get("/locate"), 405)


@pytest.mark.parametrize(
    ("failure", "code", "words"),
    [
        (TimeoutError("secret"), 503, "model's server does not answer"),
        (ConnectionError("secret"), 503, "model's server does not answer"),
        (RuntimeError("secret"), 500, "could not be answered"),
    ],
)
def test_failures_are_logged_and_survived(search, caplog, failure, code, words):
    class Failing:
        index, servable = search.index, search.servable

        def __call__(self, encoded, *, k, prior):
            raise failure

    server = locate_server.LocateServer(Failing(), _NoPictures())
    client = server.app.test_client()
    for _ in range(2):
        error = _error(
            client.post("/locate", data=toy_search.jpeg(1, 99)), code
        )
        assert words in error
        assert "secret" not in error
    assert "secret" in caplog.text


def test_an_image_that_left_the_records(search):
    server = locate_server.LocateServer(search, _NoPictures())
    client = server.app.test_client()
    found = client.post("/locate", data=toy_search.jpeg(1, 99)).get_json()
    assert [match["thumbnail"] for match in found["matches"]] == [None] * 5


@pytest.fixture
def served(server):
    """The address of the page on a real socket."""
    started = {}
    create = web_server.waitress.create_server

    def remember(*arguments, **options):
        started["server"] = create(*arguments, **options)
        ready.set()
        return started["server"]

    ready = threading.Event()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(web_server.waitress, "create_server", remember)
        thread = threading.Thread(target=server.serve, args=(0,), daemon=True)
        thread.start()
        assert ready.wait(30)
        yield f"http://127.0.0.1:{started['server'].effective_port}"
        waiting = started["server"]
        waiting.task_dispatcher.shutdown()
        # By the thread that waits at the sockets: closed by another while it
        # waits, they would end it with an error.
        waiting.trigger.pull_trigger(
            lambda: waiting.asyncore.close_all(waiting._map)
        )
        thread.join(30)
        assert not thread.is_alive()


def test_a_real_socket(served):
    request = urllib.request.Request(
        f"{served}/locate?k=1", data=toy_search.jpeg(2, 99)
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert "Server" not in answer.headers
        assert len(json.load(answer)["matches"]) == 1
    # Three times what is allowed never reaches the page: waitress answers with
    # 413, and may close the connection while it is still sent.
    connection = http.client.HTTPConnection(served.partition("://")[2])
    try:
        connection.request("POST", "/locate", body=bytes(3 << 20))
        with connection.getresponse() as answer:
            assert answer.status == 413
    except ConnectionError:
        pass
    finally:
        connection.close()
    with urllib.request.urlopen(served, timeout=60) as answer:
        assert b"Where was this photograph taken?" in answer.read()


def test_an_address_that_is_taken(server):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"--port={port}.*Choose another"):
            server.serve(port)


def test_a_warning_beyond_this_machine(search, caplog, monkeypatch):
    class Waiting:
        def run(self):
            raise KeyboardInterrupt

        def close(self):
            self.closed = True

    waiting = Waiting()
    monkeypatch.setattr(
        web_server.waitress,
        "create_server",
        lambda *some, **options: waiting,
    )
    for host, warned in (("0.0.0.0", True), ("127.0.0.1", False)):
        caplog.clear()
        with pytest.raises(KeyboardInterrupt):
            locate_server.LocateServer(search, _NoPictures(), host=host).serve(
                0
            )
        assert waiting.closed
        assert ("Everyone who reaches" in caplog.text) == warned


def test_main_serves_what_the_flags_name(inputs, monkeypatch):
    served = {}
    monkeypatch.setattr(
        locate_server.LocateServer,
        "serve",
        lambda self, port: served.update(app=self.app, port=port),
    )
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver(
        **{name: str(path) for name, path in inputs.items()},
        serve=True,
        port=8123,
        k=50,
        upload_mebibytes=3,
    ):
        locate.main(["locate"])
        assert served["port"] == 8123
        page = served["app"].test_client().get("/").get_data(as_text=True)
        # No more matches than the index has images.
        assert 'data-k="18"' in page
        assert 'data-upload-bytes="3145728"' in page


def test_the_page_names_model_and_database(client, inputs):
    page = client.get("/").get_data(as_text=True)
    assert f"<b>{'/'.join((inputs['export'] / '1').parts[-3:])}</b>" in page
    assert f"<b>{inputs['index']}</b>, 18 images, split test<" in page


def test_an_image_of_the_database_is_shown_large(client, search):
    names = search.index.manifest["image_id"]
    answer = client.get("/image", query_string={"id": names[3]})
    assert answer.status_code == 200
    assert answer.mimetype == "image/jpeg"
    with Image.open(io.BytesIO(answer.data)) as image:
        assert image.size == (32, 32)
    # As the page asks, and not as another page would.
    for site, code in (("same-origin", 200), ("cross-site", 403)):
        answer = client.get(
            "/image",
            query_string={"id": names[3]},
            headers={"Sec-Fetch-Site": site},
        )
        assert answer.status_code == code


@pytest.mark.parametrize(
    "name", ["", "../../etc/passwd", "<script>", "a" * 999]
)
def test_only_images_of_the_database_are_shown(client, name):
    answer = client.get("/image", query_string={"id": name})
    assert answer.status_code == 404
    assert "<script" not in answer.get_data(as_text=True)


def test_an_example_is_a_query_of_the_records(client):
    page = client.get("/").get_data(as_text=True)
    names = re.findall(r'data-image-id="([^"]*)"', page)
    # Of 12 queries: the first, one in the middle and the last.
    assert len(names) == 3
    assert all("/queries/" in name for name in names)
    photograph = client.get("/image", query_string={"id": names[0]}).data
    answer = client.post("/locate", data=photograph).get_json()
    assert len(answer["matches"]) == 4


def test_large_images_that_left_the_records(search):
    server = locate_server.LocateServer(search, _NoPictures())
    name = search.index.manifest["image_id"].iloc[0]
    answer = server.app.test_client().get("/image", query_string={"id": name})
    assert answer.status_code == 404
    assert "records have no such image" in answer.get_data(as_text=True)


def test_tiles_are_allowed_by_name_only(search):
    """Without the option, the policy names no other server."""
    address = "https://tiles.example:8443/a/{z}/{x}/{y}.png?key=1"
    server = locate_server.LocateServer(
        search, _NoPictures(), tiles=map_tiles.named(address)
    )
    answer = server.app.test_client().get("/")
    policy = answer.headers["Content-Security-Policy"]
    assert "img-src 'self' data: blob: https://tiles.example:8443;" in policy
    assert policy.count("http") == 1
    assert answer.headers["Referrer-Policy"] == "strict-origin"
    page = answer.get_data(as_text=True)
    assert f'data-tiles="{address}"' in page
    assert 'id="tiles" aria-pressed="false"' in page
    assert '<small id="attribution" hidden>Map of tiles.example:8443<' in page
    server = locate_server.LocateServer(
        search, _NoPictures(), tiles=map_tiles.named("openstreetmap")
    )
    page = server.app.test_client().get("/").get_data(as_text=True)
    assert "© OpenStreetMap contributors" in page
    assert 'href="https://www.openstreetmap.org/copyright"' in page


@pytest.mark.parametrize(
    "name",
    [
        *("", "osm", "https://a.example/{z}/{x}.png", "/{z}/{x}/{y}.png"),
        "https://a.example/{z}/{x}/{y}.png; script-src *",
        "https://a.example{z}/{x}/{y}",
        "https://a'example/{z}/{x}/{y}",
        "javascript://a.example/{z}/{x}/{y}",
        "https://a.example/{z}/{x}/{y}/{y}",
    ],
)
def test_tiles_that_are_none(name):
    with pytest.raises(ValueError, match="'openstreetmap' or an address"):
        LocateOptions(
            index="i", export="e", records="r", serve=True, map_tiles=name
        )
