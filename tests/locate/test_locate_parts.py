"""A database in two processes behind the address of a third."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
import tensorflow as tf
import toy_search
from paths import ROOT

from sare_tf import index
from sare_tf.search import locator
from sare_tf.search.options import IndexOptions


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Records, export, and two shards."""
    root = tmp_path_factory.mktemp("toy")
    records = toy_search.records(root)
    export = toy_search.export(root / "export")
    shards = [str(root / "index" / str(number)) for number in range(2)]
    for shard, part in zip(shards, ("0/2", "1/2"), strict=True):
        index.run(
            IndexOptions(
                records=records, export=export, index=shard, index_shard=part
            )
        )
    return {"records": records, "export": export, "shards": shards}


class _Server:
    """A process of `locate --serve`."""

    def __init__(self, built, path, *flags, port=0):
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "sare_tf.locate", "--serve"),
                *(f"--index={path}", f"--export={built['export']}"),
                *(f"--port={port}", *flags),
            ],
            # As many threads as here: they change the last bits of products.
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "TF_NUM_INTRAOP_THREADS": str(
                    tf.config.threading.get_intra_op_parallelism_threads()
                ),
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log, self._reading = [], None
        self.port = port

    def wait(self):
        """Reads its log until it serves, and then goes on reading it."""
        for line in self.process.stderr:
            self.log.append(line)
            if found := re.search(r"http://127\.0\.0\.1:(\d+) in", line):
                self.port = int(found[1])
                break
        else:
            raise AssertionError("".join(self.log))
        self._reading = threading.Thread(
            target=lambda: self.log.extend(self.process.stderr)
        )
        self._reading.start()
        return self

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method, path, body=None):
        with contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        ) as connection:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def end(self, kind=signal.SIGKILL):
        self.process.send_signal(kind)
        code = self.process.wait(20)
        if self._reading is not None:
            self._reading.join(20)
        self.process.stderr.close()
        return code


@pytest.fixture
def start(built):
    started = []

    def start(*arguments, **options):
        started.append(_Server(built, *arguments, **options))
        return started[-1]

    yield start
    for server in started:
        server.end()


def _free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def _wait_for(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_parts_behind_one_address(built, start):
    shards = built["shards"]
    flags = f"--records={built['records']}", "--exact_search"
    parts = [start(path, *flags, port=_free_port()) for path in shards]
    urls = ",".join(part.url for part in parts)
    # At the same time: it waits for the parts.
    front = start(urls, "--part_timeout_s=3").wait()
    whole = locator.Locator(index=shards, export=built["export"], exact=True)
    photographs = [toy_search.jpeg(place, 99) for place in range(6)]

    def check():
        for photograph in photographs:
            status, found = front.ask("POST", "/locate?k=18", photograph)
            assert status == 200
            # One at a time, as here: the sizes of batches change the last bits.
            (expected,) = whole([photograph], k=18)
            del found["map"]
            for match in found["matches"]:
                assert match.pop("thumbnail").startswith("data:image/jpeg;")
                assert match.pop("lines") == []
            assert found == json.loads(json.dumps(expected.as_json()))

    check()
    assert front.ask("GET", "/health") == (200, {"status": "ok", "images": 18})
    # A part is killed while photographs are answered.
    answers = []
    stop = threading.Event()

    def keep_asking():
        while not stop.is_set():
            answers.append(front.ask("POST", "/locate?k=18", photographs[3]))

    thread = threading.Thread(target=keep_asking)
    thread.start()
    _wait_for(lambda: len(answers) > 2)
    parts[1].end()
    _wait_for(lambda: any(status == 503 for status, _ in answers))
    stop.set()
    thread.join(30)
    assert {status for status, _ in answers} == {200, 503}
    # Whole answers only.
    assert {
        len(found["matches"]) for status, found in answers if status == 200
    } == {18}
    assert front.ask("GET", "/health")[0] == 503
    _wait_for(lambda: any(parts[1].url in line for line in front.log))
    start(shards[1], *flags, port=parts[1].port).wait()
    check()
    assert front.end(signal.SIGTERM) == 0
