"""Parts of an index in other processes, beside exact search in one array."""

import contextlib
import http.server
import json
import threading
import time

import numpy as np
import pytest
import toy_index
import toy_parts
import toy_search

from sare_tf.pages.options import LocateOptions
from sare_tf.search import part_protocol, scann_searcher
from sare_tf.search.index_folders import PartAddress
from sare_tf.search.opened_index import Index
from sare_tf.search.options import SearchOptions
from sare_tf.search.part_protocol import PartFailed
from sare_tf.search.prior import Prior

DIMENSION = 16
COUNTS = (60, 90, 50)
NAMES = [f"{row:03d}.jpg" for row in range(sum(COUNTS))]


@pytest.fixture(scope="module")
def descriptors():
    rows = toy_index.clustered(1, 10, 20, DIMENSION)
    rows[190] = rows[20] = rows[70]  # equally far from all, in each shard
    return rows


@pytest.fixture(scope="module")
def folders(tmp_path_factory, descriptors):
    """Shards of 60, 90 and 50 images."""
    root = tmp_path_factory.mktemp("shards")
    starts = np.cumsum([0, *COUNTS])
    return [
        toy_index.write(
            root / str(number), descriptors[start:stop], NAMES[start:stop]
        )
        for number, (start, stop) in enumerate(
            zip(starts[:-1], starts[1:], strict=True)
        )
    ]


@pytest.fixture
def parts(folders):
    """The first and the last shard in servers of their own."""
    with (
        toy_parts.serve(Index.open(folders[0], exact=True)) as first,
        toy_parts.serve(Index.open(folders[2], exact=True)) as last,
    ):
        yield first, last


def _open(parts, folders, **limits):
    first, last = (PartAddress(url=part.url, **limits) for part in parts)
    return Index.open([first, folders[1], last], exact=True)


def _queries(descriptors, count=12):
    queries = toy_search.unit(5, count, DIMENSION)
    return np.concatenate([queries, descriptors[20:21]])


def _nearest(queries, descriptors, k, allowed=None):
    """By the definition, one distance after the other."""
    rows, distances = [], []
    for query in queries.astype(np.float64):
        found = []
        for row, other in enumerate(descriptors.astype(np.float64)):
            if allowed is None or allowed[row]:
                found.append((np.float32(((query - other) ** 2).sum()), row))
        found.sort()
        rows.append([row for _, row in found[:k]])
        distances.append([distance for distance, _ in found[:k]])
    return np.array(rows), np.array(distances)


@pytest.mark.parametrize("k", [1, 10, 70, 200])
def test_parts_and_folders_are_one_index(parts, folders, descriptors, k):
    opened = _open(parts, folders)
    assert opened.manifest["image_id"].tolist() == NAMES
    queries = _queries(descriptors)
    rows, distances = opened.search(queries, k)
    whole = Index.open(folders, exact=True).search(queries, k)
    np.testing.assert_array_equal(rows, whole[0])
    np.testing.assert_array_equal(distances, whole[1])
    expected = _nearest(queries, descriptors, k)
    np.testing.assert_array_equal(rows, expected[0])
    np.testing.assert_allclose(distances, expected[1], rtol=1e-6, atol=1e-12)
    if k > 2:
        assert rows[-1, :3].tolist() == [20, 70, 190]
    # What is measured of an index is bound to its content.
    assert opened.digest == Index.open(folders).digest
    assert (opened.searches_with, opened.recall_at(k)) == ("exact", 1.0)


def test_some_images_of_parts(parts, folders, descriptors):
    opened = _open(parts, folders)
    queries = _queries(descriptors)
    for where in (
        np.random.default_rng(1).random(200) < 0.3,
        np.arange(200) < 61,  # one of the second shard, none of the third
        np.arange(200) >= 199,
    ):
        k = min(7, where.sum())
        rows, distances = opened.search(queries, 7, where=where)
        expected = _nearest(queries, descriptors, k, where)
        np.testing.assert_array_equal(rows, expected[0])
        np.testing.assert_allclose(
            distances, expected[1], rtol=1e-6, atol=1e-12
        )
        assert opened.recall_at(7, where=where) == 1.0
    paths = len(parts[1].paths)
    opened.search(queries, 7, where=np.arange(200) < 61)
    assert len(parts[1].paths) == paths, "nothing is searched there"
    with pytest.raises(ValueError, match="none of which has one"):
        opened.search(queries, 7, where=Prior(conditions=("day",)))


def test_many_queries_are_sent_in_several_requests(
    parts, folders, descriptors, monkeypatch
):
    monkeypatch.setattr(
        "sare_tf.search.remote_part._SENT_BYTES", 5 * 4 * DIMENSION
    )
    opened = _open(parts, folders)
    before = parts[0].paths.count("/part/search")
    queries = _queries(descriptors)
    rows, _ = opened.search(queries, 4)
    assert parts[0].paths.count("/part/search") == before + 3
    np.testing.assert_array_equal(rows, _nearest(queries, descriptors, 4)[0])
    rows, distances = opened.search(queries[:0], 4)
    assert rows.shape == distances.shape == (0, 4)


def test_a_manifest_comes_in_blocks(parts, folders, monkeypatch):
    monkeypatch.setattr(part_protocol, "MANIFEST_ROWS", 25)
    opened = _open(parts, folders)
    assert opened.manifest["image_id"].tolist() == NAMES
    assert parts[0].paths.count("/part/manifest") == 3


def test_parts_of_codes(tmp_path, descriptors):
    folders = [
        toy_index.write(
            tmp_path / str(number),
            descriptors[rows],
            NAMES[rows],
            dtype="int8",
        )
        for number, rows in enumerate([slice(0, 90), slice(90, 200)])
    ]
    queries = _queries(descriptors)
    expected = Index.open(folders, exact=True).search(queries, 9)
    with toy_parts.serve(Index.open(folders[1], exact=True)) as part:
        found = Index.open([folders[0], part.url], exact=True).search(
            queries, 9
        )
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def test_a_part_that_searches_by_scann(
    tmp_path, folders, descriptors, monkeypatch
):
    monkeypatch.setattr(scann_searcher, "TREE_FROM", 0)
    others = toy_index.clustered(7, 20, 50, DIMENSION)
    names = [f"other{row}.jpg" for row in range(1000)]
    tree = toy_index.write(tmp_path / "tree", others, names)
    held = Index.open(tree)
    assert held.searches_with == "scann"
    queries = _queries(descriptors)
    where = np.arange(1200) % 3 > 0
    with toy_parts.serve(held) as part:
        opened = Index.open([*folders, part.url])
        whole = Index.open([*folders, tree])
        for chosen in (None, where):
            found = opened.search(queries, 10, where=chosen)
            expected = whole.search(queries, 10, where=chosen)
            np.testing.assert_array_equal(found[0], expected[0])
            np.testing.assert_array_equal(found[1], expected[1])
            recall = opened.recall_at(10, where=chosen)
            assert recall == whole.recall_at(10, where=chosen)
        assert opened.searches_with == "scann"
        with pytest.raises(ValueError, match="Start it with --exact_search"):
            Index.open(part.url, exact=True)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"export": "another"}, "another export_fingerprint than .*another"),
        ({"dtype": "float16"}, "another dtype than .*: float16, not float32"),
    ],
)
def test_parts_of_another_model_or_type(
    tmp_path, parts, folders, descriptors, changed, words
):
    other = toy_index.write(
        tmp_path / "other", descriptors[:9], list("abcdefghi"), **changed
    )
    with pytest.raises(ValueError, match=words) as raised:
        Index.open([parts[0].url, other])
    assert parts[0].url in str(raised.value)
    assert str(other) in str(raised.value)
    with (
        toy_parts.serve(Index.open(other)) as part,
        pytest.raises(ValueError, match=f"{part.url}' with {words}"),
    ):
        Index.open([folders[0], part.url])


def test_folders_of_another_type_rank_with_a_warning(
    tmp_path, folders, descriptors, caplog
):
    other = toy_index.write(
        tmp_path / "other", descriptors[:9], list("abcdefghi"), dtype="float16"
    )
    assert len(Index.open([folders[0], other]).manifest) == 69
    assert f"{str(other)!r} with another dtype than" in caplog.text


def test_an_image_in_two_parts(parts):
    with pytest.raises(ValueError, match="60 images twice"):
        Index.open([parts[0].url, parts[0].url])


def test_descriptors_stay_with_the_part(parts, folders):
    opened = _open(parts, folders)
    with pytest.raises(ValueError, match="only answers searches. Name its fo"):
        opened.descriptors[:3]


def _answer(**changes):
    """An answer to one query, with changes."""
    good = {
        "rows": [[3, 1]],
        "squared_distances": [[0.25, 0.5]],
        "recall": 1.0,
    }
    return json.dumps(good | changes).encode()


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (404, b"<html>nothing here", "HTTP 404: <html>nothing here"),
        (500, b'{"error": "it failed"}', "HTTP 500: it failed"),
        (503, b'{"error": "too many"}', "too many. It is overloaded, or ends"),
        (302, b"", "HTTP 302"),
        (200, b"nothing", "no JSON"),
        (200, b"[" * 100_000, "no JSON"),
        (200, b"{}", "it lacks 'rows'"),
        (200, _answer(rows=[[3]]), "not numbers"),
        (200, _answer(rows=[[3, 1], [3, 1]]), "not numbers"),
        (200, _answer(rows=[[3], [3, 1]]), "no numbers"),
        (200, _answer(rows=[[3, 1.5]]), "not numbers"),
        (200, _answer(rows=[[3, 60]]), "not among its 60 images"),
        (200, _answer(rows=[[-1, 3]]), "not among its 60 images"),
        (200, _answer(rows=[[3, 3]]), "an image twice"),
        (200, _answer(squared_distances=[["a", 1]]), "not numbers"),
        (200, _answer(squared_distances=[[1, 0.5]]), "not in ascending order"),
        (200, _answer(squared_distances=[[1, float("nan")]]), "not in ascen"),
        (200, _answer(recall="much"), "it holds recall="),
    ],
)
def test_what_no_part_answers(parts, folders, descriptors, status, body, words):
    opened = _open(parts, folders)
    parts[0].alter = lambda path: (status, body)
    with pytest.raises(PartFailed, match="Expected an answer of the") as raised:
        opened.search(descriptors[:1], 2)
    assert words in str(raised.value)
    assert parts[0].url in str(raised.value)
    parts[0].alter = lambda path: None
    rows, _ = opened.search(descriptors[:1], 2)
    assert rows[0, 0] == 0


def test_images_that_were_not_to_be_searched(parts, folders, descriptors):
    opened = _open(parts, folders)
    parts[0].alter = lambda path: (200, _answer())
    with pytest.raises(PartFailed, match="were not to be searched"):
        opened.search(descriptors[:1], 2, where=np.arange(200) > 2)


def test_a_part_that_is_slow(parts, folders, descriptors):
    opened = _open(parts, folders, timeout_s=0.2)
    until = threading.Event()
    parts[1].alter = lambda path: until.wait(20) and None
    with pytest.raises(PartFailed, match=r"none within 0.2 s .*part_timeout_s"):
        opened.search(descriptors[:1], 2)
    until.set()
    parts[1].alter = lambda path: None
    assert opened.search(descriptors[:1], 2)[0][0, 0] == 0


def test_a_part_that_is_down_and_comes_again(folders, descriptors):
    with toy_parts.serve(Index.open(folders[0], exact=True)) as part:
        port = int(part.url.rpartition(":")[2])
        opened = Index.open([part.url, folders[1]], exact=True)
        expected = opened.search(descriptors[:3], 5)
    with pytest.raises(PartFailed, match="Check that it runs there") as raised:
        opened.search(descriptors[:3], 5)
    assert raised.value.may_pass
    with toy_parts.serve(Index.open(folders[0], exact=True), port=port):
        found = opened.search(descriptors[:3], 5)
        np.testing.assert_array_equal(found[0], expected[0])
    with (
        toy_parts.serve(Index.open(folders[2]), port=port) as part,
        pytest.raises(PartFailed, match="HTTP 409.* start this process again"),
    ):
        opened.search(descriptors[:3], 5)
    assert part.paths == ["/part/search"]


def test_a_part_that_comes_again_in_another_order(folders, descriptors):
    """The same images, but other rows."""
    with toy_parts.serve(Index.open(folders)) as part:
        port = int(part.url.rpartition(":")[2])
        opened = Index.open(part.url)
    with (
        toy_parts.serve(Index.open(folders[::-1]), port=port),
        pytest.raises(PartFailed, match="HTTP 409"),
    ):
        opened.search(descriptors[:3], 5)


def test_a_part_that_is_still_loading(folders):
    with toy_parts.serve(Index.open(folders[0], exact=True)) as part:
        port = int(part.url.rpartition(":")[2])
    address = PartAddress(url=f"http://127.0.0.1:{port}", start_s=20)
    opened = []
    thread = threading.Thread(target=lambda: opened.append(Index.open(address)))
    thread.start()
    time.sleep(0.3)
    with toy_parts.serve(Index.open(folders[0], exact=True), port=port):
        thread.join(20)
    assert len(opened[0].manifest) == 60
    with pytest.raises(ConnectionError, match="Check that it runs there"):
        Index.open(PartAddress(url=address.url, start_s=0.1))


@contextlib.contextmanager
def _page(body):
    """A server of something else."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (None, "no JSON|Expecting value"),
        ({"images": 61}, "rows of 61 images"),
        ({"images": "many"}, "it holds images='many'"),
        ({"sare_tf_part": 7}, "a part of version 7, not 1. Run the same ver"),
        ({"index": "other"}, "index.json of other folders"),
        ({"folders": [{}]}, "it lacks 'index.json'"),
        ({"folders": [{"index.json": {"count": 3}}]}, "Expected index.json"),
    ],
)
def test_what_is_no_part_at_the_start(parts, change, words):
    if change is None:
        with (
            _page(b"<html>Hello") as url,
            pytest.raises(PartFailed, match=words),
        ):
            Index.open(url)
        return
    described = part_protocol.describe(parts[0].server._locator.index)
    body = json.dumps(described | change).encode()
    parts[0].alter = lambda path: (200, body) if path == "/part" else None
    with pytest.raises(PartFailed, match=words):
        Index.open(PartAddress(url=parts[0].url, start_s=5))


def test_a_damaged_manifest(parts):
    parts[0].alter = lambda path: (
        (200, b"PAR1 and nothing") if path == "/part/manifest" else None
    )
    with pytest.raises(PartFailed, match="Expected a manifest"):
        Index.open(parts[0].url)


def test_what_is_measured_of_an_index_comes_with_its_part(folders, parts):
    """Such as a calibration; without its path there."""
    (folders[0] / "rerank.json").write_text('{"one": 1.25}')
    try:
        opened = Index.open(parts[0].url)
        (folder,) = opened.folders
        found = json.loads((folder / "rerank.json").read_text())
        assert found == {"one": 1.25}
        assert folder != folders[0]
    finally:
        (folders[0] / "rerank.json").unlink()
    del opened
    assert not folder.exists()


def test_options_that_take_parts():
    url = "http://127.0.0.1:1"
    given = {"export": "export", "photos": ("a.jpg",)}
    options = LocateOptions(index=f"{url},folder", **given)
    assert options.index_parts == [url]
    assert options.index_paths == [url, "folder"]
    assert options.part_timeout_s == PartAddress(url=url).timeout_s
    assert options.part_start_s == PartAddress(url=url).start_s
    LocateOptions(index=url, export="export", serve=True)
    with pytest.raises(ValueError, match="records"):
        LocateOptions(index=f"{url},folder", export="export", serve=True)
    with pytest.raises(ValueError, match="only locate searches parts"):
        SearchOptions(index=f"folder,{url}")
    for name, value, words in (
        ("keep_warm", True, "compares index.json with"),
        ("sequence", "folder", "needs the distances of all images"),
    ):
        with pytest.raises(ValueError, match=f"with --{name}, which {words}"):
            LocateOptions(
                **{"index": url, "export": "export", name: value},
                photos=() if name == "sequence" else ("a.jpg",),
            )
