"""Limits of time of the client."""

import contextlib
import dataclasses
import threading

import pytest
from toy_client import BOTH, connect, photographs

from sare_tf.serving import remote as remote_servable


@contextlib.contextmanager
def no_answers(toy):
    """The server gets requests, and answers none of them meanwhile."""
    released = threading.Event()
    toy.before = released.wait
    try:
        yield
    finally:
        released.set()


def limit(remote, **limits):
    """Limits that connecting should not have, on a machine that is busy."""
    remote.source = dataclasses.replace(remote.source, **limits)


@BOTH
def test_a_server_that_is_slow(toy, protocol):
    remote = connect(toy, protocol)
    limit(remote, request_timeout_s=0.1)
    with (
        no_answers(toy),
        pytest.raises(TimeoutError, match="none within 0.1 s"),
    ):
        remote(photographs())


@BOTH
def test_a_server_that_finds_itself_slow(toy, protocol):
    toy.refusals.append("DEADLINE_EXCEEDED")
    with pytest.raises(TimeoutError, match="none within .*the test wants it"):
        connect(toy, protocol)
    assert len(toy.requests) == 1


@BOTH
def test_a_call_has_a_limit_beside_its_requests(toy, protocol):
    remote = connect(toy, protocol, images_per_request=1, requests_in_flight=1)
    limit(remote, timeout_s=0.1)
    toy.requests.clear()
    with no_answers(toy), pytest.raises(TimeoutError, match="within"):
        remote(photographs(20))
    # Of 21: after one that is late no other is sent.
    assert len(toy.requests) <= 1


class Clock:
    """Stands for the module `time`: only pauses take time."""

    def __init__(self):
        self._now = 0.0

    def monotonic(self):
        return self._now

    def sleep(self, seconds):
        self._now += seconds


def test_pauses_count_for_the_limit_of_a_call(toy, monkeypatch):
    remote = connect(toy, "grpc", timeout_s=60.0, backoff_s=1000.0)
    monkeypatch.setattr(remote_servable, "time", Clock())
    toy.refusals.append("UNAVAILABLE")
    with pytest.raises(TimeoutError, match="60 s for all requests"):
        remote(photographs())
