"""Requests that wait for the gallery together: one commit for all that want the same lists.

A commit costs a sync of the card, and on a slow one that is most of what an enrolment takes. Whoever gets the gallery's
lock decides and writes for everybody who waits; each is answered once that is on disk.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edge.gallery.protocol import Decide, Outcome, Probe, TemplatesWanted

MOST_CALLS = 64
"""Taken along at once, so that the first is not kept waiting for the last; as many as the server has threads."""

Lists = tuple[tuple[str, ...], "str | None"]
"""Those that are searched, and the one that is added to."""


@dataclass(eq=False)
class Call:
    """One request that waits, and then what became of it."""

    lists: Lists
    probes: Sequence[Probe]
    decide: Decide
    persons: int
    pictures: Mapping[int, str]
    """Of the probes' templates: the names under which they are on disk."""
    kept: set[str] = field(default_factory=set)
    """The pictures that rows name now, those of the others that were taken along included."""
    _answer: list[Outcome] | TemplatesWanted | Exception | None = None

    @property
    def done(self) -> bool:
        """Whether it has been answered."""
        return self._answer is not None

    def settle(self, answer: list[Outcome] | TemplatesWanted | Exception) -> None:
        """Give the answer, or what is to be raised instead."""
        self._answer = answer

    def answer(self) -> list[Outcome] | TemplatesWanted:
        """Return the answer, or raise it."""
        assert self._answer is not None, "whoever has the lock answers its own call too"
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


class Waiting:
    """The calls that wait for the lock, in the order in which they came."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: list[Call] = []

    def add(self, call: Call) -> None:
        """Put it at the end."""
        with self._lock:
            self._calls.append(call)

    def taken(self, own: Call) -> list[Call]:
        """Take out the calls that want the same lists as this one, this one among them, in their order."""
        with self._lock:
            others = [call for call in self._calls if call.lists == own.lists and call is not own]
            chosen = {id(own), *(id(call) for call in others[: MOST_CALLS - 1])}
            taken = [call for call in self._calls if id(call) in chosen]
            self._calls = [call for call in self._calls if id(call) not in chosen]
            return taken
