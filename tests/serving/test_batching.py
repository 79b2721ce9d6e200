"""Requests that are answered together."""

import threading
import time

import pytest

from sare_tf.serving.batching import Batcher, Overloaded


class _Held:
    """Answers items by their doubles, when it is let."""

    def __init__(self):
        self.may_answer = threading.Event()
        self.batches = []

    def __call__(self, key, items):
        assert self.may_answer.wait(20)
        self.batches.append((key, items))
        if key == "bad":
            raise ValueError("a bad batch")
        return [2 * item for item in items]


@pytest.fixture
def held():
    return _Held()


def _ask(batcher, item, answers, *, key="", within_s=20.0):
    def run():
        try:
            answers[item] = batcher(item, key=key, within_s=within_s)
        except Exception as error:
            answers[item] = error

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def _wait_for(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def _first_is_held(batcher, answers):
    """Sends a request whose batch holds up the others."""
    thread = _ask(batcher, 0, answers)
    _wait_for(lambda: not batcher._requests)
    return thread


def test_those_that_wait_are_answered_together(held):
    seen = []
    batcher = Batcher(
        held, most=3, waiting=9, watch=lambda *batch: seen.append(batch[0])
    )
    answers = {}
    threads = [_first_is_held(batcher, answers)]
    for item in range(1, 6):
        key = "other" if item == 2 else ""
        threads.append(_ask(batcher, item, answers, key=key))
        _wait_for(lambda item=item: len(batcher) == item)
    held.may_answer.set()
    for thread in threads:
        thread.join(20)
    assert answers == {item: 2 * item for item in range(6)}
    assert held.batches == [
        ("", [0]),
        ("", [1, 3, 4]),
        ("other", [2]),
        ("", [5]),
    ]
    _wait_for(lambda: seen == [1, 3, 1, 1])


def test_one_too_many_is_refused_at_once(held):
    batcher = Batcher(held, most=1, waiting=2)
    answers = {}
    threads = [_first_is_held(batcher, answers)]
    for item in (1, 2):
        threads.append(_ask(batcher, item, answers))
        _wait_for(lambda item=item: len(batcher) == item)
    for refused in (
        batcher.check_room,
        lambda: batcher(3, key="", within_s=20.0),
    ):
        with pytest.raises(Overloaded) as info:
            refused()
        # Three batches at a second each, as long as none was measured.
        assert info.value.retry_after_s == 3
    held.may_answer.set()
    for thread in threads:
        thread.join(20)
    assert answers == {0: 0, 1: 2, 2: 4}
    batcher.check_room()


def test_what_nobody_waits_for_is_not_answered(held):
    batcher = Batcher(held, most=1, waiting=2)
    answers = {}
    first = _first_is_held(batcher, answers)
    with pytest.raises(Overloaded):
        batcher(1, key="", within_s=0.01)
    held.may_answer.set()
    first.join(20)
    assert batcher(2, key="", within_s=20.0) == 4
    assert [items for _, items in held.batches] == [[0], [2]]


def test_a_failure_is_that_of_its_batch_only(held):
    held.may_answer.set()
    batcher = Batcher(held, most=3, waiting=9)
    with pytest.raises(ValueError, match="a bad batch"):
        batcher(1, key="bad", within_s=20.0)
    assert batcher(2, key="", within_s=20.0) == 4


def test_its_thread_lives_while_some_wait(held):
    before = threading.active_count()
    held.may_answer.set()
    batcher = Batcher(held, most=1, waiting=9)
    for item in range(3):
        assert batcher(item, key="", within_s=20.0) == 2 * item
        _wait_for(lambda: threading.active_count() == before)
