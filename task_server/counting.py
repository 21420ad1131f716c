"""What takes long to count is counted now and then, by one caller at a time, and not once per request."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from task_server.transaction import SECOND, Clock

FRESH_SECONDS = 3.0
MAX_SHARE = 0.05
"""Of all time that counting may take up: what took long is kept for longer."""

Value = TypeVar("Value")


@dataclass(frozen=True)
class Count(Generic[Value]):
    """What was counted at a time (UTC microseconds), and for how many seconds that is good enough."""

    value: Value
    at: int
    good_seconds: float

    def age_seconds(self, now: int) -> float:
        return max(0.0, (now - self.at) / SECOND)


class Counted(Generic[Value]):
    """The result of `count`, at most FRESH_SECONDS old, or a few times as long as counting takes.

    One thread at a time counts anew; meanwhile the others are given the old count, or wait for the first.
    """

    def __init__(self, count: Callable[[], Value], clock: Clock) -> None:
        self._count = count
        self._clock = clock
        self._counting = threading.Lock()
        self._last: Count[Value] | None = None

    def get(self) -> Count[Value]:
        """Raises what counting raises."""
        last = self._last
        if last is not None and (self._is_good(last) or not self._counting.acquire(blocking=False)):
            return last
        if last is None:
            self._counting.acquire()
        try:
            if self._last is None or not self._is_good(self._last):
                self._last = self._counted()
            return self._last
        finally:
            self._counting.release()

    def _is_good(self, count: Count[Value]) -> bool:
        return 0 <= self._clock() - count.at < count.good_seconds * SECOND

    def _counted(self) -> Count[Value]:
        at, started = self._clock(), time.monotonic()
        value = self._count()
        return Count(value, at, max(FRESH_SECONDS, (time.monotonic() - started) / MAX_SHARE))
