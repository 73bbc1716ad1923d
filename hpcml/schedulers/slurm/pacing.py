"""How often a queue is called: a controller serves thousands of people."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Bucket:
    """Calls take a token each; tokens come back at a steady rate, up to a number.

    So a few calls go at once, and many are spread out.

    Parameters
    ----------
    size : float
        Tokens that it holds, and has at first.
    rate : float
        Tokens that come back in a second.
    clock, sleep : callable
        Of the monotonic clock, in s.
    """

    def __init__(
        self,
        size: float,
        rate: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.size, self.rate = size, rate
        self._clock, self._sleep = clock, sleep
        self._tokens, self._filled = size, clock()
        self._lock = threading.Lock()

    def take(self) -> None:
        """Take a token; wait for it if there is none."""
        with self._lock:
            now = self._clock()
            self._tokens = min(self.size, self._tokens + (now - self._filled) * self.rate)
            self._filled = now
            self._tokens -= 1  # below zero: promised to who waits
            missing = -self._tokens / self.rate
        if missing > 0:
            self._sleep(missing)


class BackOff:
    """When to ask again what nobody could say: soon at first, then ever later.

    Parameters
    ----------
    first, longest : float
        Pauses in s.
    """

    def __init__(
        self, first: float, longest: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.first, self.longest, self._clock = first, longest, clock
        self._due: dict[object, tuple[float, float]] = {}

    def is_due(self, what: object) -> bool:
        """Whether to ask now."""
        return what not in self._due or self._clock() >= self._due[what][0]

    def failed(self, what: object) -> None:
        """There was no answer."""
        pause = self._due[what][1] * 2 if what in self._due else self.first
        pause = min(pause, self.longest)
        self._due[what] = self._clock() + pause, pause

    def answered(self, what: object) -> None:
        """There was one."""
        self._due.pop(what, None)
