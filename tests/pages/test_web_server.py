"""A server that ends gracefully, with an application that waits."""

import contextlib
import http.client
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

# Answers /slow after a line on its standard input, and anything else at once.
_PROGRAM = """
import sys
from absl import logging
from sare_tf.pages import web_server
from sare_tf.pages.options import ServeOptions

logging.set_verbosity(logging.INFO)
load = web_server.Load()


def app(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        print("waiting", flush=True)
        sys.stdin.readline()
    start_response("200 OK", [("Content-Length", "1000000")])
    return [b"x" * 1000000]


web_server.serve(
    app,
    host="127.0.0.1",
    port=0,
    limits=ServeOptions(serve_within_s=float(sys.argv[1])),
    load=load,
)
print("ended", flush=True)
"""


@pytest.fixture
def start():
    started = []

    def start(within_s=20.0):
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(within_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        lines = iter(process.stderr.readline, "")
        found = (re.search(r"http://127.0.0.1:(\d+)", line) for line in lines)
        port = int(next(filter(None, found))[1])
        return process, port

    yield start
    for process in started:
        process.kill()
        process.communicate()


def _get(port, path, timeout=20):
    with contextlib.closing(
        http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    ) as connection:
        connection.request("GET", path)
        return connection.getresponse().read()


def test_what_was_sent_is_answered_before_the_end(start):
    process, port = start()
    answers = []
    thread = threading.Thread(
        target=lambda: answers.append(_get(port, "/slow"))
    )
    thread.start()
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGTERM)
    assert "answering 1 requests" in process.stderr.readline()
    # Nobody else is served.
    with pytest.raises(TimeoutError):
        _get(port, "/", timeout=0.3)
    assert process.poll() is None
    process.stdin.write("\n")
    process.stdin.flush()
    thread.join(20)
    assert [len(answer) for answer in answers] == [1000000]
    assert process.stdout.readline() == "ended\n"
    assert process.wait(20) == 0


def test_an_idle_server_ends_at_once(start):
    process, port = start()
    assert len(_get(port, "/")) == 1000000
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "ended\n"
    assert process.wait(20) == 0


def test_a_second_signal_does_not_wait(start):
    process, port = start()
    thread = threading.Thread(target=_refused, args=(port,))
    thread.start()
    assert process.stdout.readline() == "waiting\n"
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
    assert process.stdout.readline() == "ended\n"
    process.kill()
    thread.join(20)


def _refused(port):
    with pytest.raises((OSError, http.client.HTTPException)):
        _get(port, "/slow")
