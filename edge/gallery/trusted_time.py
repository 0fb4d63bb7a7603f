"""A time that is not led astray by a clock that jumps: boards without a battery start in 1970, or years ahead.

Sums are done with the latest time that was believed, kept across restarts, going on by the monotonic clock. A clock
within two days of that is right, and the later of the two counts. One further off has leapt, and is believed once it
has gone on from there for an hour of running: a clock that is put right within the hour has cost nothing, and one that
was rightly set (the box was in a drawer for a month) is followed an hour late.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

LEAP_MS = 2 * 86_400_000
"""Beyond this a clock has leapt: none drifts so far, and a time zone set wrongly is half a day."""

BELIEVED_SECONDS = 3600
"""Of running, until a leap is believed: time to mend a wrong setting, and shorter than any day's use of a box."""

EARLIEST_MS = 1_767_225_600_000
"""2026-01-01, when this was written: a clock that says less was not set, and is never believed against another time."""


class TrustedTime:
    """The latest time that is believed, and where it is by now. Safe to use from several threads."""

    def __init__(self, latest_ms: int, *, follows_back: bool, monotonic: Callable[[], float] = time.monotonic) -> None:
        """`latest_ms`: as kept by the run before, 0 for none. `follows_back`: whether leaps back are believed."""
        self._latest_ms = latest_ms
        self._follows_back = follows_back
        self._monotonic = monotonic
        self._at = monotonic()
        self._leapt: tuple[int, float] | None = None
        """Where the clock leapt to, and when on the monotonic clock."""
        self._lock = threading.Lock()

    def now(self, clock_ms: int) -> int:
        """Return the time that is believed, given what the clock says; both in milliseconds since 1970."""
        with self._lock:
            at = self._monotonic()
            expected = self._latest_ms + int((at - self._at) * 1000)
            if not self._latest_ms or abs(clock_ms - expected) <= LEAP_MS:
                self._leapt = None
                now = max(clock_ms, expected)
            elif self._is_believed(clock_ms, at):
                self._leapt = None
                now = clock_ms
            else:
                now = expected
            self._latest_ms, self._at = now, at
            return now

    @property
    def latest_ms(self) -> int:
        """The time that is believed, by the monotonic clock alone; 0 where none was ever seen."""
        with self._lock:
            return self._latest_ms + int((self._monotonic() - self._at) * 1000) if self._latest_ms else 0

    def _is_believed(self, clock_ms: int, at: float) -> bool:
        if clock_ms < self._latest_ms and not (self._follows_back and clock_ms >= EARLIEST_MS):
            return False
        if self._leapt is not None:
            to_ms, since = self._leapt
            gone = at - since
            if abs(clock_ms - to_ms - gone * 1000) <= LEAP_MS:
                return gone >= BELIEVED_SECONDS
        self._leapt = clock_ms, at
        return False
