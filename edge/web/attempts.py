"""How often an address has tried a password: ten failures in a minute are enough."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable

from edge.errors import Mistake, TooManyAttempts

MOST_FAILURES = 10
WINDOW_SECONDS = 60.0
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
