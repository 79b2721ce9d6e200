"""Requests of many clients, answered together and in bounded numbers.

A model answers eight photographs in less time than eight times one. Requests
that wait are answered in batches, first come, first served; when too many wait,
the next one is refused at once, because it would only wait, too.
"""

import dataclasses
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any


class Overloaded(Exception):
    """Too many requests wait, or one waited for too long.

    Attributes:
        retry_after_s: whole seconds after which it is worth another try.
    """

    def __init__(self, retry_after_s: int):
        super().__init__(f"Try again after {retry_after_s} s.")
        self.retry_after_s = retry_after_s


@dataclasses.dataclass(eq=False)
class _Request:
    key: Any
    item: Any
    deadline: float
    is_done: threading.Event = dataclasses.field(
        default_factory=threading.Event
    )
    answer: Any = None
    error: Exception | None = None


class Batcher:
    """Answers requests in batches, in a thread that lives while some wait.

    Args:
        answer: takes a key and the items of a batch, and returns an answer for
            each. An error is that of all requests of the batch.
        most: items of a batch at most.
        waiting: requests that may wait; more are refused.
        watch: is told the number of items and the seconds of every batch.
    """

    def __init__(
        self,
        answer: Callable[[Any, list[Any]], Sequence[Any]],
        *,
        most: int,
        waiting: int,
        watch: Callable[[int, float], None] = lambda count, seconds: None,
    ):
        self._answer = answer
        self._most = most
        self._limit = waiting
        self._watch = watch
        self._requests: list[_Request] = []
        self._lock = threading.Lock()
        self._is_running = False
        self._batch_s = 1.0  # of the last batch

    def __len__(self) -> int:
        """The number of requests that wait."""
        return len(self._requests)

    def check_room(self) -> None:
        """Refuses a request as `__call__` does, before its item is there.

        Raises:
            Overloaded: too many requests wait.
        """
        if len(self._requests) >= self._limit:
            raise Overloaded(self._retry_after_s())

    def __call__(self, item: Any, *, key: Any, within_s: float) -> Any:
        """Waits for the answer to an item.

        Args:
            item: what is answered.
            key: items of equal keys may share a batch.
            within_s: seconds after which nobody waits for the answer.

        Raises:
            Overloaded: too many requests wait, or the time is over; a request
                that was not begun then is not answered.
            Exception: what `answer` raised.
        """
        request = _Request(key, item, time.monotonic() + within_s)
        with self._lock:
            self.check_room()
            self._requests.append(request)
            if not self._is_running:
                self._is_running = True
                threading.Thread(target=self._run, daemon=True).start()
        if not request.is_done.wait(within_s):
            raise Overloaded(self._retry_after_s())
        if request.error is not None:
            raise request.error
        return request.answer

    def _retry_after_s(self) -> int:
        batches = 1 + len(self._requests) / self._most
        return max(1, math.ceil(batches * self._batch_s))

    def _run(self) -> None:
        while batch := self._next_batch():
            begin = time.monotonic()
            try:
                answers = self._answer(
                    batch[0].key, [request.item for request in batch]
                )
                for request, answer in zip(batch, answers, strict=True):
                    request.answer = answer
            except Exception as error:  # Each request raises it.
                for request in batch:
                    request.error = error
            self._batch_s = time.monotonic() - begin
            self._watch(len(batch), self._batch_s)
            for request in batch:
                request.is_done.set()

    def _next_batch(self) -> list[_Request]:
        """Takes requests of one key; none are left if it returns none."""
        with self._lock:
            now = time.monotonic()
            waiting = [one for one in self._requests if one.deadline > now]
            batch = [one for one in waiting if one.key == waiting[0].key]
            batch = batch[: self._most]
            self._requests = [one for one in waiting if one not in batch]
            self._is_running = bool(batch)
            return batch
