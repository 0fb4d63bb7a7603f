"""Identifiers: version 1 UUIDs that rise with time, never come twice and tell no hardware address (RFC 9562)."""

from __future__ import annotations

import secrets
import threading
import uuid
from collections.abc import Callable

_EPOCH_TICKS = 0x01B21DD213814000
"""100 ns between 1582-10-15, where version 1 begins to count, and 1970-01-01."""

_TICKS_PER_MS = 10_000
_MULTICAST = 1 << 40
"""The bit that no network card has in its address: this node is random (RFC 9562, 6.10)."""


class Identifiers:
    """Makes identifiers; may be called from any thread."""

    def __init__(self, clock: Callable[[], int], *, not_before_ms: int = 0) -> None:
        """`clock` gives milliseconds; `not_before_ms` is the latest time ever used, for a clock that was set back."""
        self._clock = clock
        self._node = secrets.randbits(48) | _MULTICAST
        self._sequence = secrets.randbits(14)
        self._lock = threading.Lock()
        self._last = not_before_ms * _TICKS_PER_MS

    @property
    def latest_ms(self) -> int:
        """The time in the latest identifier, rounded up: what to pass as `not_before_ms` next time."""
        return -(-self._last // _TICKS_PER_MS)

    def new(self) -> str:
        """Return an identifier whose time is later than that of any before it."""
        with self._lock:
            self._last = max(self._clock() * _TICKS_PER_MS, self._last + 1)
            ticks = self._last + _EPOCH_TICKS
        fields = (
            ticks & 0xFFFFFFFF,
            (ticks >> 32) & 0xFFFF,
            (ticks >> 48) & 0x0FFF | 0x1000,
            (self._sequence >> 8) & 0x3F | 0x80,
            self._sequence & 0xFF,
            self._node,
        )
        return str(uuid.UUID(fields=fields))
