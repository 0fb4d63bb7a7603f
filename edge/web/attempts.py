"""How often an address may fail, with passwords and with tokens, and how often a token may ask."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable

from edge.errors import Mistake, TooManyAttempts, TooManyRequests

MOST_FAILURES = 10
WINDOW_SECONDS = 60.0
SLOW_SECONDS = 0.25
SLOWED_AT_ONCE = 2
"""Answers being held back, each in a thread that does nothing else; others go out at once, so that whoever guesses
never takes every thread."""
MOST_ADDRESSES = 10_000
"""Addresses remembered, some 5 MB; whoever fails from more than these within a minute makes the oldest forgotten."""


class Attempts:
    """Failures by address. Safe to use from several threads at once.

    An attempt counts from its beginning, so that many at once cannot slip through together.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, most_addresses: int = MOST_ADDRESSES) -> None:
        self._clock = clock
        self._most_addresses = most_addresses
        self._lock = threading.Lock()
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def begin(self, address: str) -> None:
        """Count an attempt. TooManyAttempts: there were ten failures within the last minute."""
        now = self._clock()
        with self._lock:
            failures = self._failures.setdefault(address, deque(maxlen=MOST_FAILURES))
            self._failures.move_to_end(address)
            while failures and failures[0] <= now - WINDOW_SECONDS:
                failures.popleft()
            if len(failures) == MOST_FAILURES:
                raise TooManyAttempts(Mistake("email", f"{MOST_FAILURES} failures within a minute; wait a minute"))
            failures.append(now)
            while len(self._failures) > self._most_addresses:
                self._failures.popitem(last=False)

    def succeeded(self, address: str) -> None:
        """Take the latest attempt of the address back: it was none that failed."""
        with self._lock:
            failures = self._failures.get(address)
            if failures:
                failures.pop()


class WrongTokens:
    """Refused tokens by address: some are told so, more slowly, and the rest are not answered any more.

    It is told of tokens that were found wrong alone, so a right one is never its business. Safe to use from several
    threads at once. Memory: two numbers an address, of MOST_ADDRESSES at most.
    """

    def __init__(
        self,
        most: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
        most_addresses: int = MOST_ADDRESSES,
    ) -> None:
        """`most`: wrong ones of an address within a minute; from half of them on they are slowed."""
        self._most = most
        self._clock = clock
        self._pause = pause
        self._most_addresses = most_addresses
        self._lock = threading.Lock()
        self._slowed = threading.BoundedSemaphore(SLOWED_AT_ONCE)
        self._counts: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def denied(self, address: str) -> None:
        """Count one. TooManyAttempts: there were `most` within the minute that began with the first of them."""
        now = self._clock()
        with self._lock:
            began, count = self._counts.pop(address, (now, 0))
            if now - began >= WINDOW_SECONDS:
                began, count = now, 0
            self._counts[address] = (began, min(count, self._most) + 1)
            while len(self._counts) > self._most_addresses:
                self._counts.popitem(last=False)
        if count >= self._most:
            raise TooManyAttempts(Mistake("token", f"{self._most} wrong ones within a minute; wait a minute"))
        if count >= self._most // 2 and self._slowed.acquire(blocking=False):
            try:
                self._pause(SLOW_SECONDS)
            finally:
                self._slowed.release()


class Pace:
    """Requests by token: so many a second, saved up for a second at most. Safe to use from several threads at once."""

    def __init__(
        self, per_second: int, *, clock: Callable[[], float] = time.monotonic, most_tokens: int = MOST_ADDRESSES
    ) -> None:
        """`per_second`: 0 for as many as it likes."""
        self._per_second = per_second
        self._clock = clock
        self._most_tokens = most_tokens
        self._lock = threading.Lock()
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def admit(self, token: str) -> None:
        """Count a request of the token that has this id. TooManyRequests: it has made its share."""
        if not self._per_second:
            return
        now = self._clock()
        with self._lock:
            at, left = self._left.pop(token, (now, float(self._per_second)))
            left = min(self._per_second, left + (now - at) * self._per_second)
            self._left[token] = (now, left - 1 if left >= 1 else left)
            while len(self._left) > self._most_tokens:
                self._left.popitem(last=False)
        if left < 1:
            raise TooManyRequests(Mistake("token", f"may make {self._per_second} requests a second"))
