"""Sightings: written behind the answer, in batches, and kept for so long and so many bytes.

A sighting that waits to be written is lost in a crash; a person never is. That is the bargain by which no camera waits
for the card.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from edge.errors import Refusal, StorageFull, invalid
from edge.events import Listeners, SightingRecorded
from edge.gallery import sightings
from edge.gallery.database import Database
from edge.gallery.lists import the_list
from edge.gallery.pictures import Pictures
from edge.gallery.protocol import PAGE, PAGE_LIMIT
from edge.gallery.sightings import MAX_INTEGER, StoredSighting
from edge.gallery.space import State
from edge.gallery.trusted_time import LEAP_MS, TrustedTime
from edge.types import Sighting

log = logging.getLogger(__name__)

QUEUE_LIMIT = 1000
"""Sightings that may wait, some 20 MB with their pictures: a minute of a slow card at sixteen faces a second."""

BATCH = 64
BATCH_SECONDS = 1.0
"""A batch is written when it is full or its first sighting so old: one fsync of the database for all of them."""

PRUNE_BATCH = 500
"""Sightings removed per transaction: the writer is free again after milliseconds."""

ROWS_A_ROUND = 20_000
"""Sightings removed at once to make room, some 20 MB: then the database is written anew, and the disk is looked at."""

FULL_LOG_SECONDS = 60.0
"""Between two lines of the log that sightings are not kept: the disk is full for all of them alike."""

RESUMED, RESUMED_OF = 500, 10_000
"""Sightings that a stream is resumed with, at most, and the newest of the history that they are looked for among."""

DAY_MS = 86_400_000


@dataclass(frozen=True)
class HistoryPage:
    """Sightings, newest first; `cursor` leads to the next page, None where there is none."""

    sightings: tuple[StoredSighting, ...]
    cursor: str | None


class History:
    """What was seen. Shares the gallery's database and pictures; close it before the gallery."""

    def __init__(
        self,
        database: Database,
        pictures: Pictures,
        *,
        clock: Callable[[], int],
        listeners: Listeners | None = None,
        queue_limit: int = QUEUE_LIMIT,
        batch_seconds: float = BATCH_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the thread that writes. `clock` gives milliseconds since 1970; ages are by a time that is trusted.

        `listeners` are told of every sighting once it is on disk.
        """
        self._database = database
        self._pictures = pictures
        self._clock = clock
        self._listeners = listeners or Listeners()
        self._trusted = TrustedTime(sightings.kept_time(database.read()), follows_back=True, monotonic=monotonic)
        self._queue_limit = queue_limit
        self._batch_seconds = batch_seconds
        self._changed = threading.Condition()
        self._queue: deque[tuple[float, Sighting]] = deque()
        self._recorded = 0
        self._done = 0
        self._flush_to = 0
        self._closing = False
        self.dropped = 0
        """Sightings lost since the start: the queue or the disk was full, or they could not be written."""
        self._full_logged_at = -FULL_LOG_SECONDS
        self._thread = threading.Thread(target=self._run, name="history", daemon=True)
        self._thread.start()

    # --- writing ---

    def record(self, sighting: Sighting) -> None:
        """Take note; returns at once. Where too many wait, the oldest of them is dropped and counted."""
        with self._changed:
            if self._closing:
                self.dropped += 1
                return
            if len(self._queue) >= self._queue_limit:
                self._queue.popleft()
                self._done += 1
                self.dropped += 1
            self._queue.append((time.monotonic(), sighting))
            self._recorded += 1
            if len(self._queue) in (1, BATCH):
                self._changed.notify_all()

    def flush(self, seconds: float = 10.0) -> bool:
        """Wait until all that was recorded so far is on disk (or dropped); False if it took too long."""
        with self._changed:
            target = self._flush_to = self._recorded
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._done >= target, seconds)

    def close(self) -> None:
        """Write what waits and stop."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next_batch():
            lost = 0
            try:
                self._write(batch)
            except StorageFull as full:
                lost = len(batch)
                self._log_full(full)
            except Exception as error:  # the boundary of a thread: one bad batch must not end the history
                lost = len(batch)
                log.warning(
                    "%d sightings could not be written: %s", lost, error, exc_info=not isinstance(error, Refusal)
                )
            with self._changed:
                self.dropped += lost
                self._done += len(batch)
                self._changed.notify_all()

    def _log_full(self, full: StorageFull) -> None:
        if time.monotonic() - self._full_logged_at >= FULL_LOG_SECONDS:
            self._full_logged_at = time.monotonic()
            log.warning("sightings are not kept (%d lost before): %s", self.dropped, full)

    def _next_batch(self) -> list[Sighting]:
        """Wait for a batch that is full, old enough or asked for; an empty one says that it is over."""
        with self._changed:
            while not self._is_due():
                age = time.monotonic() - self._queue[0][0] if self._queue else None
                self._changed.wait(None if age is None else max(0.0, self._batch_seconds - age))
            return [self._queue.popleft()[1] for _ in range(min(BATCH, len(self._queue)))]

    def _is_due(self) -> bool:
        if not self._queue:
            return self._closing
        is_old = time.monotonic() - self._queue[0][0] >= self._batch_seconds
        return is_old or len(self._queue) >= BATCH or self._closing or self._flush_to > self._done

    def _write(self, batch: Sequence[Sighting]) -> None:
        """Write pictures, then rows; a sighting whose person or list has been erased meanwhile is not written."""
        self._database.space.check()
        batch = [self._stamped(one) for one in batch]
        pictures = {number: one.picture for number, one in enumerate(batch) if one.picture is not None}
        names = dict(zip(pictures, self._pictures.save(list(pictures.values())), strict=True))
        unused = set(names.values())
        try:
            with self._database.write() as transaction:
                written = [sightings.insert(transaction, one, names.get(n)) for n, one in enumerate(batch)]
            unused -= {names[number] for number in names if written[number]}
        finally:
            self._pictures.delete(unused)
        for number, one in enumerate(batch):
            if written[number]:
                recorded = replace(one, picture=None, embedding=None, pack_id=None)
                self._listeners.tell(SightingRecorded(recorded, names.get(number)))

    def _stamped(self, sighting: Sighting) -> Sighting:
        """Return the sighting with a time from which it can age: a clock in 1970 would have it removed at once."""
        clock_ms = self._clock()
        trusted_ms = self._trusted.now(clock_ms)
        return sighting if clock_ms >= trusted_ms - LEAP_MS else replace(sighting, time_ms=trusted_ms)

    # --- reading ---

    def page(
        self,
        *,
        person_id: str | None = None,
        list_id: str | None = None,
        source_id: str | None = None,
        first_ms: int | None = None,
        last_ms: int | None = None,
        cursor: str | None = None,
        limit: int = PAGE,
    ) -> HistoryPage:
        """Return sightings, newest first, that meet every condition given (times inclusive, limit 1 to 1000).

        A cursor is of the page before, with the same conditions: pages neither skip nor repeat while sightings come
        and go. Raises ListNotFound, InvalidSchema for a cursor that no page had.
        """
        connection = self._database.read()
        before = (MAX_INTEGER, MAX_INTEGER) if cursor is None else _parsed(cursor)
        limit = min(max(1, limit), PAGE_LIMIT)
        found = sightings.select(
            connection,
            person_id=person_id,
            list_number=None if list_id is None else the_list(connection, list_id)[0],
            source_id=source_id,
            first_ms=-MAX_INTEGER if first_ms is None else first_ms,
            last_ms=MAX_INTEGER if last_ms is None else last_ms,
            before=before,
            limit=limit + 1,
        )
        shown = found[:limit]
        is_last = len(found) <= limit
        last = None if is_last else f"{shown[-1].sighting.time_ms}.{shown[-1].number}"
        return HistoryPage(tuple(shown), last)

    def sighting(self, sighting_id: str) -> StoredSighting | None:
        """Return the sighting, None if there is none of that id (or it waits to be written, for a second at most)."""
        return sightings.find(self._database.read(), sighting_id)

    def after(
        self, sighting_id: str, *, list_id: str | None = None, source_id: str | None = None
    ) -> tuple[StoredSighting, ...] | None:
        """Return what was written after that sighting, oldest first, 500 at most; None if there is none of that id.

        Of the newest 10,000 sightings: who has missed more reads the pages. Raises ListNotFound.
        """
        connection = self._database.read()
        known = sightings.find(connection, sighting_id)
        if known is None:
            return None
        return tuple(
            sightings.written_after(
                connection,
                known.number,
                list_number=None if list_id is None else the_list(connection, list_id)[0],
                source_id=source_id,
                window=RESUMED_OF,
                limit=RESUMED,
            )
        )

    # --- forgetting ---

    def prune(self, *, days: float, picture_bytes: int) -> int:
        """Remove sightings older than `days`, then the oldest until their pictures take at most `picture_bytes`.

        By a trusted time: a clock that has leapt ahead removes nothing until it is believed, one set back does not
        keep things for ever. Returns how many went, their files with them. Raises StorageFull.
        """
        clock_ms = self._clock()
        now_ms = self._trusted.now(clock_ms)
        with self._database.write(essential=True) as transaction:
            sightings.keep_time(transaction, now_ms)
            if abs(clock_ms - now_ms) <= LEAP_MS:  # else the clock may yet turn out to be right
                sightings.bring_back(transaction, now_ms, now_ms + LEAP_MS)
        oldest_ms = now_ms - int(days * DAY_MS)
        removed = 0
        while gone := self._pruned(oldest_ms, picture_bytes):
            removed += gone
        if removed:
            self._database.truncate_log()
        return removed

    def _pruned(self, oldest_ms: int, picture_bytes: int) -> int:
        with self._database.write(essential=True) as transaction:
            excess = sightings.picture_bytes(transaction) - picture_bytes
            doomed: list[sightings.OldSighting] = []
            for old in sightings.oldest(transaction, PRUNE_BATCH):
                if old.time_ms >= oldest_ms and excess <= 0:
                    break
                excess -= old.picture_bytes
                doomed.append(old)
            sightings.delete(transaction, doomed)
        self._pictures.delete(old.picture for old in doomed if old.picture is not None)
        return len(doomed)

    # --- making room ---

    def make_room(self) -> None:
        """Remove pictures, the oldest first, until the disk has room; if none are left and it is full, sightings.

        Those only where the database can then be written anew: otherwise the disk would gain nothing. Raises
        StorageFull.
        """
        gone = self._shed_pictures()
        if gone:
            self._database.truncate_log()
            log.warning("%d pictures of old sightings were removed, to make room on the disk", gone)
        if self._state() is State.FULL and self._database.can_shrink():
            gone = self._shed_sightings()
            if gone:
                self._database.shrink()
                log.warning("%d old sightings were removed, to make room on the disk", gone)

    def _state(self) -> State:
        return self._database.space.room(fresh=True).state

    def _shed_pictures(self) -> int:
        removed, last = 0, None
        while self._state() is not State.OK and sightings.picture_bytes(self._database.read()):
            old = sightings.oldest_pictures(self._database.read(), last, PRUNE_BATCH)
            if not old:
                break
            names = [one.picture for one in old if one.picture is not None]
            with self._database.write(essential=True) as transaction:
                sightings.forget_pictures(transaction, names)
            self._pictures.delete(names)
            removed, last = removed + len(old), old[-1]
        return removed

    def _shed_sightings(self) -> int:
        removed = 0
        while removed < ROWS_A_ROUND and sightings.oldest(self._database.read(), 1):
            with self._database.write(essential=True) as transaction:
                old = sightings.oldest(transaction, PRUNE_BATCH)
                sightings.delete(transaction, old)
            self._pictures.delete(one.picture for one in old if one.picture is not None)
            removed += len(old)
        return removed


def _parsed(cursor: str) -> tuple[int, int]:
    parts = cursor.split(".")
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() and len(part) < 19 for part in parts):
        raise invalid("cursor", "not one that a page of the history gave")
    return int(parts[0]), int(parts[1])
