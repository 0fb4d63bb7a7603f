"""Who watches the sightings: each with a short queue of their own, which whoever records fills without ever waiting."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, replace

from edge.errors import Mistake, TooManyStreams
from edge.events import Event, FaceSighted, SightingRecorded

WAITING = 200
"""Sightings that wait for one watcher, half a kilobyte each; of more the oldest are dropped, and it is told so."""


@dataclass(frozen=True)
class News:
    """What a watcher takes at a time: sightings, and how many it has missed before them."""

    sightings: tuple[SightingRecorded, ...]
    missed: int


class Watcher:
    """One stream's own queue: sightings of its list and source, filled by whoever records, emptied by its thread."""

    def __init__(self, list_id: str | None, source_id: str | None) -> None:
        """None: of any list, of any source."""
        self._list_id = list_id
        self._source_id = source_id
        self._changed = threading.Condition()
        self._queue: deque[SightingRecorded] = deque()
        self._missed = 0
        self._is_over = False

    def offer(self, recorded: SightingRecorded) -> None:
        """Put a sighting into the queue, if it is for this watcher; returns at once."""
        sighting = recorded.sighting
        if self._list_id not in (None, sighting.list_id) or self._source_id not in (None, sighting.source_id):
            return
        with self._changed:
            if len(self._queue) >= WAITING:
                self._queue.popleft()
                self._missed += 1
            self._queue.append(recorded)
            self._changed.notify()

    def end(self) -> None:
        """End the stream: it is woken, and finds nothing more."""
        with self._changed:
            self._is_over = True
            self._changed.notify()

    def take(self, seconds: float) -> News | None:
        """Wait so long for news, and return them (there may be none); None: the stream is to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._is_over, seconds)
            if self._is_over:
                return None
            news = News(tuple(self._queue), self._missed)
            self._queue.clear()
            self._missed = 0
            return news


class Live:
    """Everybody who watches. A listener of events."""

    def __init__(self, most: int, *, has_history: bool) -> None:
        """`most`: streams open at once. `has_history`: sightings are told once they are recorded; else at once."""
        self._most = most
        self._has_history = has_history
        self._lock = threading.Lock()
        self._watchers: tuple[Watcher, ...] = ()

    def listen(self, event: Event) -> None:
        """Tell the watchers of a sighting."""
        if isinstance(event, FaceSighted) and not self._has_history:
            bare = replace(event.sighting, picture=None, embedding=None, pack_id=None)
            event = SightingRecorded(bare, None)
        if isinstance(event, SightingRecorded):
            for watcher in self._watchers:
                watcher.offer(event)

    def open(self, list_id: str | None, source_id: str | None) -> Watcher:
        """Add a watcher. Raises TooManyStreams."""
        watcher = Watcher(list_id, source_id)
        with self._lock:
            if len(self._watchers) >= self._most:
                raise TooManyStreams(Mistake("events", f"{self._most} are open, as many as may be"))
            self._watchers += (watcher,)
        return watcher

    def close(self, watcher: Watcher) -> None:
        """Let go of a watcher; twice does no harm."""
        with self._lock:
            self._watchers = tuple(one for one in self._watchers if one is not watcher)
