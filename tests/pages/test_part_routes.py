"""What a part of an index answers and refuses, and what comes through it."""

import base64
import json

import numpy as np
import pytest
import toy_parts
import toy_search

from sare_tf import index, locate
from sare_tf.pages import locate_server
from sare_tf.pages.options import LocateOptions
from sare_tf.search import calibration, locator, part_protocol
from sare_tf.search.gallery import Gallery
from sare_tf.search.opened_index import Index
from sare_tf.search.options import IndexOptions


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Records, export, and two shards of 9 images."""
    root = tmp_path_factory.mktemp("toy")
    records = toy_search.records(root)
    export = toy_search.export(root / "export")
    shards = [root / "index" / str(number) for number in range(2)]
    for number, shard in enumerate(shards):
        index.run(
            IndexOptions(
                records=records,
                export=export,
                index=shard,
                index_shard=f"{number}/2",
            )
        )
    return {"records": records, "export": export, "shards": shards}


@pytest.fixture
def part(built):
    opened = Index.open(built["shards"][1])
    with toy_parts.serve(opened, Gallery(built["records"], opened)) as part:
        yield part


@pytest.fixture
def client(part):
    return part.server.app.test_client()


@pytest.fixture
def front(built, part):
    """A server that searches the first shard, and asks the part."""
    search = locator.Locator(
        index=[built["shards"][0], part.url], export=built["export"]
    )
    gallery = Gallery(built["records"], search.index)
    return locate_server.LocateServer(search, gallery)


def _digest(part):
    return part_protocol.describe(part.server._locator.index)["index"]


def _question(part, **changes):
    row = base64.b64encode(toy_search.unit(1, 48)).decode()
    digest = _digest(part)
    return {"index": digest, "k": 2, "descriptors": row, "where": None} | (
        changes
    )


def test_an_answer_of_numbers(part, client):
    answer = client.post("/part/search", json=_question(part))
    found = answer.get_json()
    rows, distances = part.server._locator.index.search(
        toy_search.unit(1, 1, 48), 2
    )
    assert found == {
        "rows": rows.tolist(),
        "squared_distances": distances.tolist(),
        "recall": 1.0,
    }
    where = base64.b64encode(np.packbits(np.arange(9) == 4)).decode()
    answer = client.post("/part/search", json=_question(part, where=where))
    assert answer.get_json()["rows"] == [[4]]
    answer = client.post("/part/search", json=_question(part, descriptors=""))
    assert answer.get_json()["rows"] == []


def _text(values):
    return base64.b64encode(np.float32(values)).decode()


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"index": "abc"}, 409, "which is served here. Received: one for 'abc"),
        ({"k": 0}, 400, "Expected k of at least 1"),
        ({"k": "2"}, 400, "it holds k='2'"),
        ({"descriptors": "%"}, 400, "no base64"),
        ({"descriptors": _text([1.0])}, 400, "4 bytes, not rows of 192"),
        ({"descriptors": _text(48 * [1.0])}, 400, "length 6.9282"),
        ({"descriptors": _text(48 * [np.nan])}, 400, "length nan"),
        ({"descriptors": None}, 400, "it holds descriptors=None"),
        ({"where": "AA=="}, 400, "where has 1 bytes of 9 bits"),
        ({"where": "AAA="}, 400, "at least one image to search"),
        ({"where": 3}, 400, "no base64"),
    ],
)
def test_searches_that_are_refused(part, client, changes, code, words):
    answer = client.post("/part/search", json=_question(part, **changes))
    assert answer.status_code == code
    assert words in answer.get_json()["error"]


def test_what_is_no_search(part, client):
    for body in (b"", b"{", b"[" * 100_000, b"3", b'{"index": 1}'):
        answer = client.post("/part/search", data=body)
        assert answer.status_code == 400
        assert "Expected a search" in answer.get_json()["error"]
    digest = _digest(part)
    for query, code in (
        ("", 409),
        (f"?index={digest}", 400),
        (f"?index={digest}&first=-1", 400),
        (f"?index={digest}&first=9", 200),
    ):
        assert client.get(f"/part/manifest{query}").status_code == code
    answer = client.get(f"/part/image?index={digest}&image_id=../etc/passwd")
    assert answer.status_code == 404
    assert client.get("/part/image").status_code == 409


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "other.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://other.example"},
    ],
)
def test_other_sites_are_refused(part, client, headers):
    for answer in (
        client.get("/part", headers=headers),
        client.post("/part/search", json=_question(part), headers=headers),
    ):
        assert answer.status_code == 403
        assert "error" in answer.get_json()


def test_no_path_of_a_part_is_told(built, client):
    text = client.get("/part").get_data(as_text=True)
    assert str(built["shards"][1].parent) not in text
    assert json.loads(text)["images"] == 9


def test_images_of_a_part_come_through_the_front(built, part, front):
    client = front.app.test_client()
    photograph = toy_search.jpeg(5, 99)
    found = client.post("/locate?k=18", data=photograph).get_json()
    whole = locator.Locator(index=built["shards"], export=built["export"])
    (expected,) = whole([photograph], k=18)
    del found["map"]
    thumbnails = [match.pop("thumbnail") for match in found["matches"]]
    assert not any(match.pop("lines") for match in found["matches"])
    assert found == json.loads(json.dumps(expected.as_json()))
    assert all(one.startswith("data:image/jpeg;") for one in thumbnails)
    assert part.paths.count("/part/image") == 9
    # Without records, those of the part only.
    gallery = Gallery(None, front._locator.index)
    names = front._locator.index.manifest["image_id"].tolist()
    photos = built["records"].parent / "photos" / "images"
    read = gallery.read([names[12], names[0], "nothing", names[12]])
    assert read[0] == read[3] == (photos / names[12]).read_bytes()
    assert read[1:3] == [None, None]
    assert gallery.queries(3) == []


def test_photographs_of_a_command(built, part, tmp_path):
    """With a picture, which shows images of the part, and without records."""
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(toy_search.jpeg(5, 99))
    given = {"export": built["export"], "photos": (str(photo),)}
    picture = tmp_path / "picture.png"
    (found,) = locate.run(
        LocateOptions(index=part.url, picture=str(picture), **given)
    )
    (expected,) = locate.run(
        LocateOptions(index=str(built["shards"][1]), **given)
    )
    assert found == expected
    assert part.paths.count("/part/image") == 5
    assert picture.stat().st_size > 1000


def test_a_prior_holds_in_all_parts(front):
    """Places are 100 m apart, and 9 images of each shard are of three."""
    client = front.app.test_client()
    where = "near=40.6506,-80.9988&within_m=150"  # places 0 to 2
    found = client.post(
        f"/locate?k=18&{where}", data=toy_search.jpeg(5, 99)
    ).get_json()
    places = {
        round((match["utm_east_m"] - 500_000) / 100)
        for match in found["matches"]
    }
    assert places
    assert max(places) <= 2


def test_a_calibration_that_lies_with_a_part(built, part):
    """It was measured on all shards, and rejects as in one process."""
    whole = Index.open(built["shards"])
    measured = calibration.Calibration(
        export_fingerprint=whole.metadata["export_fingerprint"],
        index_digest=whole.digest,
        positive_radius_m=25.0,
        split="val",
        queries=20,
        database=18,
        same_database=True,
        protocol="within 25 m",
        groups=[
            calibration.Group(start=0.0, queries=10, right=1, absent=9),
            calibration.Group(start=0.4, queries=10, right=9, absent=1),
        ],
    )
    measured.write(built["shards"][1])
    photographs = [toy_search.jpeg(5, 99), toy_search.jpeg(77, 1)]
    try:
        found, expected = (
            [
                locator.Locator(
                    index=paths, export=built["export"], reject_below=0.5
                )([photograph], k=18)
                for photograph in photographs
            ]
            for paths in ([built["shards"][0], part.url], built["shards"])
        )
    finally:
        (built["shards"][1] / measured.name).unlink()
    assert found == expected
    assert [answer.rejected for (answer,) in found] == [False, True]
    assert found[0][0].reliability.right == 0.9


def test_a_part_that_fails(part, front, caplog):
    client = front.app.test_client()
    assert client.get("/health").get_json() == {"status": "ok", "images": 18}
    photograph = toy_search.jpeg(2, 99)
    part.alter = lambda path: (200, b"nonsense")
    answer = client.post("/locate", data=photograph)
    assert answer.status_code == 503
    assert "part of the index does not answer" in answer.get_json()["error"]
    assert part.url not in answer.get_json()["error"]
    assert part.url in caplog.text
    answer = client.get("/health")
    assert answer.status_code == 503
    assert answer.get_json() == {"status": "parts fail", "parts": [part.url]}
    part.alter = lambda path: None
    assert client.post("/locate", data=photograph).status_code == 200
    assert client.get("/health").status_code == 200


def test_a_part_that_ends_says_so(part, front):
    part.server._load.is_ending = True
    answer = front.app.test_client().post(
        "/locate", data=toy_search.jpeg(2, 99)
    )
    assert answer.status_code == 503


def test_reranking_needs_records_where_parts_are(built, part):
    from sare_tf.search.options import RerankOptions

    pytest.importorskip("cv2", reason="needs pip install 'sare_tf[rerank]'")
    given = {
        "index": [built["shards"][0], part.url],
        "export": built["export"],
    }
    with pytest.raises(
        ValueError, match="records with all images: features beside"
    ):
        locator.Locator(**given, rerank=RerankOptions(rerank="rootsift"))
    options = RerankOptions(rerank="rootsift", records=built["records"])
    photograph = toy_search.jpeg(5, 99)
    (found,) = locator.Locator(**given, rerank=options)([photograph], k=5)
    whole = {**given, "index": built["shards"]}
    (expected,) = locator.Locator(**whole, rerank=options)([photograph], k=5)
    assert found == expected
