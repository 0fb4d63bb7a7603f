"""Messages on their way to others, until those have said that they have them: <data>/outgoing.sqlite3.

Its own file, since it is of others than the gallery's and is written at another pace. It is bounded: over it the oldest
go. What is in here is of persons, so it goes with them (`forget`); who has been erased is remembered for a moment, so
that what was about to be written or is on its way does not come back.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.errors import GalleryUnusable, Mistake
from edge.gallery import traces

log = logging.getLogger(__name__)

OUTGOING_NAME = "outgoing.sqlite3"

BUSY_SECONDS = 10.0
"""The two who write here, the thread that keeps messages and whoever erases, take milliseconds each."""

BATCH_SECONDS = 0.25
"""Messages of so long are written with one sync: what a power cut takes of what was answered before it."""

BUFFER_LIMIT = 1000
"""Messages that may wait to be written; one has 20 KB with a snapshot."""

ERASED_SECONDS = 600
"""How long an erased id is remembered: longer than any message stays unwritten."""

NEEDLES_LIMIT = 30
"""Looking for so many ids takes as long as writing the whole file anew."""

FEWER = 100
"""Messages that go at once where there are too many, the oldest."""

ROW_BYTES = 300
"""Of a message beside its payload."""

CREATE = (
    "CREATE TABLE IF NOT EXISTS messages (number INTEGER PRIMARY KEY AUTOINCREMENT, destination TEXT NOT NULL,"
    " message_id TEXT NOT NULL, topic TEXT NOT NULL, list_id TEXT, person_id TEXT, payload BLOB NOT NULL,"
    " is_retained INTEGER NOT NULL, time_ms INTEGER NOT NULL, source_id TEXT, due_ms INTEGER NOT NULL DEFAULT 0,"
    " tries INTEGER NOT NULL DEFAULT 0, UNIQUE (destination, message_id, topic)) STRICT",
    "CREATE TABLE IF NOT EXISTS totals (one INTEGER PRIMARY KEY, messages INTEGER NOT NULL, bytes INTEGER NOT NULL)"
    " STRICT",
    "INSERT OR IGNORE INTO totals SELECT 1, count(*), coalesce(sum(length(payload)), 0) FROM messages",
    "CREATE TRIGGER IF NOT EXISTS one_more AFTER INSERT ON messages BEGIN"
    " UPDATE totals SET messages = messages + 1, bytes = bytes + length(new.payload); END",
    "CREATE TRIGGER IF NOT EXISTS one_less AFTER DELETE ON messages BEGIN"
    " UPDATE totals SET messages = messages - 1, bytes = bytes - length(old.payload); END",
    "CREATE INDEX IF NOT EXISTS by_destination ON messages (destination, number)",
    "CREATE TABLE IF NOT EXISTS retained (destination TEXT NOT NULL, topic TEXT NOT NULL, list_id TEXT,"
    " person_id TEXT, source_id TEXT, PRIMARY KEY (destination, topic)) STRICT, WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS erased (digest BLOB PRIMARY KEY, time_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID",
)
"""Whom a message is of stands before what it says: where a page keeps a copy of a payload's beginning, it keeps the ids
too, which are what `forget` looks for."""
INSERT_ERASED = "INSERT OR REPLACE INTO erased (digest, time_ms) VALUES (:digest, :time_ms)"
SELECT_ERASED = "SELECT digest FROM erased"
DELETE_OLD_ERASED = "DELETE FROM erased WHERE time_ms < :before_ms"
DELETE_OF_ERASED = "DELETE FROM messages WHERE :id IN (person_id, list_id)"
CLEAR_OF_ERASED = (
    "INSERT OR REPLACE INTO messages (destination, message_id, topic, payload, is_retained, time_ms)"
    " SELECT destination, 'cleared', topic, x'', 1, :time_ms FROM retained WHERE :id IN (person_id, list_id)"
)
FORGET_RETAINED_OF_ERASED = "DELETE FROM retained WHERE :id IN (person_id, list_id)"
INSERT_MESSAGE = (
    "INSERT OR REPLACE INTO messages (destination, message_id, topic, payload, is_retained, time_ms, list_id,"
    " person_id, source_id) VALUES (:destination, :message_id, :topic, :payload, :is_retained, :time_ms, :list_id,"
    " :person_id, :source_id)"
)
INSERT_RETAINED = (
    "INSERT OR REPLACE INTO retained (destination, topic, list_id, person_id, source_id)"
    " VALUES (:destination, :topic, :list_id, :person_id, :source_id)"
)
DELETE_RETAINED = "DELETE FROM retained WHERE destination = :destination AND topic = :topic"
SELECT_WAITING = (
    "SELECT number, destination, message_id, topic, payload, is_retained, time_ms, list_id, person_id, source_id,"
    " due_ms, tries FROM messages WHERE destination = :destination AND number > :after ORDER BY number LIMIT :limit"
)
SELECT_DESTINATIONS = "SELECT DISTINCT destination FROM messages"
SELECT_RETAINED = "SELECT topic FROM retained WHERE destination = :destination"
UPDATE_LATER = "UPDATE messages SET due_ms = :due_ms, tries = tries + 1 WHERE number = :number"
DELETE_MESSAGE = "DELETE FROM messages WHERE number = :number"
DELETE_OLD = "DELETE FROM messages WHERE time_ms < :before_ms"
SELECT_SIZE = "SELECT messages, bytes FROM totals"
DELETE_OLDEST = "DELETE FROM messages WHERE number IN (SELECT number FROM messages ORDER BY number LIMIT :limit)"


@dataclass(frozen=True)
class Message:
    """What one receiver is to be told."""

    destination: str
    """`mqtt`, or a webhook's address."""
    message_id: str
    """The same at every try, so that a receiver knows a repeat."""
    topic: str
    payload: bytes
    time_ms: int
    is_retained: bool = False
    list_id: str | None = None
    person_id: str | None = None
    source_id: str | None = None


Draft = Callable[[], Message]
"""Makes a message in the queue's own thread, where it may take its time to look something up."""


@dataclass(frozen=True)
class Waiting:
    """A message that is on disk, and how often it has been tried."""

    number: int
    message: Message
    due_ms: int
    tries: int


class Outgoing:
    """The file, open, with a thread that writes. Safe to use from several threads at once."""

    def __init__(self, folder: Path, *, most_bytes: int, most_seconds: int, clock: Callable[[], int]) -> None:
        """Open it, made if it is missing. `clock` gives milliseconds since 1970. Raises GalleryUnusable."""
        path = folder / OUTGOING_NAME
        path.touch(mode=0o600)
        try:
            self._connection = _connected(path)
            for statement in CREATE:
                self._connection.execute(statement)
        except sqlite3.Error as error:
            reason = f"cannot be used ({error}); move it away, and what waited in it is lost"
            raise GalleryUnusable(Mistake(str(path), reason)) from error
        self._most_bytes = most_bytes
        self._most_ms = most_seconds * 1000
        self._clock = clock
        self._turn = threading.Lock()
        self._changed = threading.Condition()
        self._buffer: deque[Message | Draft] = deque()
        self._writing = False
        self._is_pressed = False
        self._closing = False
        self.dropped = 0
        """Messages that went for the bound, or could not be written, since the start."""
        self._is_over = False
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self._thread.start()

    # --- writing ---

    def put(self, messages: Sequence[Message | Draft]) -> None:
        """Take messages; returns at once."""
        with self._changed:
            for message in messages:
                if self._closing or len(self._buffer) >= BUFFER_LIMIT:
                    self.dropped += 1
                else:
                    self._buffer.append(message)
            self._changed.notify_all()

    def flush(self, seconds: float) -> None:
        """Wait until what was put before is on disk, at most so long."""
        with self._changed:
            self._is_pressed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._buffer and not self._writing, seconds)
            self._is_pressed = False

    def close(self) -> None:
        """Write what waits, and let go of the file."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()
        with self._turn:
            self._connection.close()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._buffer or self._closing)
                if not self._buffer:
                    return
                self._changed.wait_for(lambda: self._closing or self._is_pressed, BATCH_SECONDS)
                batch = list(self._buffer)
                self._buffer.clear()
                self._writing = True
            try:
                self._write([one if isinstance(one, Message) else one() for one in batch])
            except Exception as error:  # the boundary of a thread: a full disk stops no later message
                self.dropped += len(batch)
                log.warning("%d messages could not be kept: %s", len(batch), error)
            with self._changed:
                self._writing = False
                self._changed.notify_all()

    def _write(self, batch: Sequence[Message]) -> None:
        with self._transaction() as db:
            db.execute(DELETE_OLD_ERASED, {"before_ms": _now_ms() - ERASED_SECONDS * 1000})
            erased = {digest for (digest,) in db.execute(SELECT_ERASED)}
            rows = [
                vars(message) | {"is_retained": int(message.is_retained)}
                for message in batch
                if not erased or erased.isdisjoint((_digest(message.person_id), _digest(message.list_id)))
            ]
            db.executemany(INSERT_MESSAGE, rows)
            db.executemany(INSERT_RETAINED, [r for r in rows if r["is_retained"] and r["payload"]])
            db.executemany(DELETE_RETAINED, [r for r in rows if r["is_retained"] and not r["payload"]])
            self._bound(db)

    def _bound(self, db: sqlite3.Connection) -> None:
        gone: int = db.execute(DELETE_OLD, {"before_ms": self._clock() - self._most_ms}).rowcount
        while True:
            count, size = db.execute(SELECT_SIZE).fetchone()
            if size + count * ROW_BYTES <= self._most_bytes or not count:
                break
            gone += db.execute(DELETE_OLDEST, {"limit": max(1, min(FEWER, count // 10))}).rowcount
        if gone and not self._is_over:
            log.warning("messages are too many or too old: the oldest go, from now on uncounted here (see /metrics)")
        self._is_over = gone > 0
        self.dropped += gone

    # --- sending ---

    def waiting(self, destination: str, *, after: int = 0, limit: int = 1) -> list[Waiting]:
        """Return messages of the destination, the oldest first, with numbers above `after`."""
        known = {"destination": destination, "after": after, "limit": limit}
        with self._turn:
            rows = self._connection.execute(SELECT_WAITING, known).fetchall()
        return [
            Waiting(
                row[0],
                Message(row[1], row[2], row[3], row[4], row[6], bool(row[5]), row[7], row[8], row[9]),
                row[10],
                row[11],
            )
            for row in rows
        ]

    def destinations(self) -> list[str]:
        """Return whom something waits for."""
        with self._turn:
            return [name for (name,) in self._connection.execute(SELECT_DESTINATIONS)]

    def retained(self, destination: str) -> list[str]:
        """Return the topics that hold something retained."""
        with self._turn:
            return [topic for (topic,) in self._connection.execute(SELECT_RETAINED, {"destination": destination})]

    def done(self, numbers: Sequence[int]) -> None:
        """Remove messages that have arrived, or never will."""
        if numbers:
            with self._transaction() as db:
                db.executemany(DELETE_MESSAGE, [{"number": number} for number in numbers])

    def later(self, number: int, due_ms: int) -> None:
        """Note a try that failed, and when the next one is due."""
        with self._transaction() as db:
            db.execute(UPDATE_LATER, {"number": number, "due_ms": due_ms})

    def count(self) -> int:
        """Return how many messages wait on disk."""
        with self._turn:
            return int(self._connection.execute(SELECT_SIZE).fetchone()[0])

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._turn, _transaction(self._connection):
            yield self._connection


def forget(data_folder: Path, ids: Sequence[str]) -> None:
    """Erase the messages of these persons, or of everybody of these lists, and clear what names them at the broker.

    Never raises: what must be erased is the person. SQLite overwrites the rows; the file is then looked through, and
    written anew if a copy of one is left in a page's free space. Of 64 MB the first takes 0.07 s, the second 1 s.
    """
    path = data_folder / OUTGOING_NAME
    if not ids or not path.exists():
        return
    try:
        with contextlib.closing(_connected(path)) as connection:
            now_ms = _now_ms()
            known = [{"id": one, "digest": _digest(one), "time_ms": now_ms} for one in ids]
            with _transaction(connection):
                connection.executemany(INSERT_ERASED, known)
                gone = connection.executemany(DELETE_OF_ERASED, known).rowcount
                connection.executemany(CLEAR_OF_ERASED, known)
                gone += connection.executemany(FORGET_RETAINED_OF_ERASED, known).rowcount
            if gone and (len(ids) > NEEDLES_LIMIT or _are_in(path, [one.encode() for one in ids])):
                connection.execute("VACUUM")
    except sqlite3.Error:
        log.warning("%s could not be cleared of what was erased", path, exc_info=True)


def _are_in(path: Path, needles: Sequence[bytes]) -> bool:
    with path.open("rb") as file:
        return traces.are_in(file.fileno(), needles)


def _digest(id_: str | None) -> bytes:
    return hashlib.sha256((id_ or "").encode()).digest()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _connected(path: Path) -> sqlite3.Connection:
    address = f"{path.resolve().as_uri()}?mode=rw"
    connection = sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS, check_same_thread=False)
    connection.isolation_level = None
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA secure_delete = ON")  # erased means overwritten
    connection.execute("PRAGMA recursive_triggers = ON")  # the totals follow what REPLACE deletes, too
    return connection
