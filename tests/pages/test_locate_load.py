"""The page that locates what is dropped on it, under load and at its end."""

import json
import threading
import time

import pytest
import toy_search

from sare_tf import index
from sare_tf.pages import locate_server
from sare_tf.pages.options import ServeOptions
from sare_tf.search import locator
from sare_tf.search.options import IndexOptions


class _NoPictures:
    """Records whose images are gone."""

    def read(self, names):
        return [None] * len(names)

    def queries(self, count):
        return []


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    root = tmp_path_factory.mktemp("toy")
    records = toy_search.records(root)
    export = toy_search.export(root / "export")
    index.run(
        IndexOptions(records=records, export=export, index=root / "index")
    )
    return locator.Locator(index=root / "index", export=export)


def _check_error(answer, code):
    assert answer.status_code == code
    assert answer.mimetype == "application/json"
    return answer.get_json()["error"]


class _Held:
    """The locator, when it is let."""

    def __init__(self, search):
        self._search = search
        self.index, self.servable = search.index, search.servable
        self.may_answer = threading.Event()
        self.is_called = False
        self.batches = []

    def __call__(self, photographs, **options):
        self.is_called = True
        assert self.may_answer.wait(20)
        self.batches.append(len(photographs))
        return self._search(photographs, **options)


def test_photographs_of_several_clients_are_answered_together(search):
    held = _Held(search)
    server = locate_server.LocateServer(
        held, _NoPictures(), limits=ServeOptions(serve_waiting=3)
    )
    photographs = [toy_search.jpeg(place, 99) for place in range(4)]
    answers = {}

    def ask(number):
        client = server.app.test_client()
        answers[number] = client.post("/locate", data=photographs[number])

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
    threads[0].start()
    # The first is in its batch, so that the others wait.
    _wait_for(lambda: held.is_called)
    for number, thread in enumerate(threads[1:], start=1):
        thread.start()
        _wait_for(
            lambda number=number: _metric(server, "sare_tf_waiting") == number
        )
    refused = server.app.test_client().post("/locate", data=photographs[0])
    assert "Too many photographs wait" in _check_error(refused, 503)
    assert int(refused.headers["Retry-After"]) >= 1
    held.may_answer.set()
    for thread in threads:
        thread.join(20)
    assert held.batches == [1, 3]
    # The first one alone, because the sizes of batches change the last bits.
    expected = [*search(photographs[:1], k=5), *search(photographs[1:], k=5)]
    for number in range(4):
        found = answers[number].get_json()
        for match in found["matches"]:
            assert match.pop("thumbnail") is None
            assert match.pop("lines") == []
        del found["map"]
        assert found == json.loads(json.dumps(expected[number].as_json()))
    assert _metric(server, "sare_tf_batch_photographs_sum") == 4
    counted = 'sare_tf_requests_total{code="%d",path="/locate"}'
    assert _metric(server, counted % 200) == 4
    assert _metric(server, counted % 503) == 1
    assert _metric(server, "sare_tf_locate_seconds_count") == 4


def test_a_photograph_that_waits_for_too_long_is_refused(search):
    held = _Held(search)
    server = locate_server.LocateServer(
        held, _NoPictures(), limits=ServeOptions(serve_within_s=0.1)
    )
    answer = server.app.test_client().post(
        "/locate", data=toy_search.jpeg(1, 99)
    )
    held.may_answer.set()
    assert "Try again in" in _check_error(answer, 503)


def test_health_until_the_end(search):
    server = locate_server.LocateServer(search, _NoPictures())
    client = server.app.test_client()
    answer = client.get("/health")
    assert (answer.status_code, answer.get_json()) == (
        200,
        {"status": "ok", "images": 18},
    )
    server._load.is_ending = True
    assert client.get("/health").status_code == 503
    answer = client.post("/locate", data=toy_search.jpeg(1, 99))
    _check_error(answer, 503)
    assert answer.headers["Connection"] == "close"
    assert answer.headers["Retry-After"] == "10"


def test_metrics_name_no_path_of_a_client(search):
    server = locate_server.LocateServer(search, _NoPictures())
    client = server.app.test_client()
    client.get("/../etc/passwd")
    text = client.get("/metrics").get_data(as_text=True)
    assert "passwd" not in text
    assert 'sare_tf_requests_total{code="404",path="other"} 1.0' in text
    assert "process_resident_memory_bytes" in text


def _metric(server, name):
    for line in server._metrics.text().decode().splitlines():
        found, _, value = line.rpartition(" ")
        if found == name:
            return float(value)
    return None


def _wait_for(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)
