"""How often an address has failed with a password or a token: so many in a minute are enough."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable

from edge.errors import Mistake, TooManyAttempts

MOST_FAILURES = 10
"""With a password: people mistype one."""

WINDOW_SECONDS = 60.0
MOST_ADDRESSES = 10_000
"""Addresses remembered, some 5 MB; whoever fails from more than these within a minute makes the oldest forgotten."""


class Attempts:
    """Failures by address. Safe to use from several threads at once.

    An attempt counts from its beginning, so that many at once cannot slip through together.
    """

    def __init__(
        self,
        field: str = "email",
        most_failures: int = MOST_FAILURES,
        *,
        clock: Callable[[], float] = time.monotonic,
        most_addresses: int = MOST_ADDRESSES,
    ) -> None:
        """`field`: what is to blame in the refusal; `most_failures`: of one address within a minute."""
        self._field = field
        self._most_failures = most_failures
        self._clock = clock
        self._most_addresses = most_addresses
        self._lock = threading.Lock()
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def begin(self, address: str) -> None:
        """Count an attempt. TooManyAttempts: there were as many failures as may be within the last minute."""
        now = self._clock()
        with self._lock:
            failures = self._failures.setdefault(address, deque(maxlen=self._most_failures))
            self._failures.move_to_end(address)
            while failures and failures[0] <= now - WINDOW_SECONDS:
                failures.popleft()
            if len(failures) == self._most_failures:
                reason = f"{self._most_failures} failures within a minute; wait a minute"
                raise TooManyAttempts(Mistake(self._field, reason))
            failures.append(now)
            while len(self._failures) > self._most_addresses:
                self._failures.popitem(last=False)

    def succeeded(self, address: str) -> None:
        """Take the latest attempt of the address back: it was none that failed."""
        with self._lock:
            failures = self._failures.get(address)
            if failures:
                failures.pop()
