"""Numbered things that come in any order, and are wanted in theirs."""

import collections
from typing import Any

# Seconds of waiting after which a thing is lost if later ones have come. Ours.
PATIENCE_S = 5.0


class Arrivals:
    """Things that came before they were wanted, and what is known of the rest.

    Time counts only while somebody waits, so a slow consumer loses nothing.

    Args:
        count: number of things.
        waiting: most things that wait for earlier ones.
        in_flight: things that are asked for and have not come, at most.

    Attributes:
        silent_s: seconds of waiting since the last thing came.
    """

    def __init__(self, count: int, *, waiting: int, in_flight: int):
        self._count = count
        self._most = waiting
        self._in_flight = in_flight
        self._things: dict[int, Any] = {}
        self._taken = 0
        self._clock = 0.0
        # Times at which a later thing came than ever before, and its number.
        self._latest = collections.deque()
        self.silent_s = 0.0

    def waited(self, seconds: float) -> None:
        """Counts seconds of waiting."""
        self._clock += seconds
        self.silent_s += seconds

    def add(self, number: int, thing: Any) -> None:
        """Keeps a thing, unless it came before."""
        self.silent_s = 0.0
        if number >= self._taken:
            self._things.setdefault(number, thing)
        if not self._latest or number > self._latest[-1][1]:
            self._latest.append((self._clock, number))

    def fill(self, number: int, thing: Any) -> None:
        """Keeps a thing that was made here, in place of one that is lost."""
        self._things[number] = thing

    def has(self, number: int) -> bool:
        """Returns whether a thing is there."""
        return number in self._things

    def take(self, number: int) -> Any:
        """Returns a thing that is there, the next in order."""
        self._taken = number + 1
        while len(self._latest) > 1 and self._latest[0][1] < self._taken:
            self._latest.popleft()
        return self._things.pop(number)

    def is_lost(self, number: int) -> bool:
        """Returns whether to wait for the next thing no longer.

        It is lost if a later one came `PATIENCE_S` before, or as many later
        ones as may wait. The last ones, which no later ones follow, are lost if
        nothing came for so long.
        """
        if len(self._things) >= self._most:
            return True
        for time, latest in self._latest:
            if latest > number:
                return self._clock - time > PATIENCE_S
        is_end = self._count - number <= self._in_flight
        return bool(self._latest) and is_end and self.silent_s > PATIENCE_S
