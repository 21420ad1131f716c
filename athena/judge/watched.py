"""A thread whose end is noticed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

log = logging.getLogger("athena.validator")


class Watched(threading.Thread):
    """Runs `work` once. What ended it too early stands in `failure`, for the main loop to look at."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        super().__init__(name=name, daemon=True)
        self._work = work
        self.failure: Exception | None = None

    def run(self) -> None:
        try:
            self._work()
        except Exception as error:  # the outermost loop of this thread: the main loop ends the process with it
            log.exception("%s stopped", self.name)
            self.failure = error
