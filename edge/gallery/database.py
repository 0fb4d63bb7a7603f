"""The SQLite file: one writer connection, one read-only connection per thread, and the promise of durability.

Measured: with `synchronous=FULL` a power cut loses nothing that was answered, with NORMAL it loses acknowledged rows.
SQLite before 3.51.3 can corrupt a WAL when two connections checkpoint at once, so the one writer does all of them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from edge.errors import GalleryBroken, GalleryUnusable, StorageFull
from edge.gallery import records, soundness, traces
from edge.gallery.capture import Capture
from edge.gallery.outbox import Outbox
from edge.gallery.schema import MIGRATIONS, Migration
from edge.gallery.space import Space

log = logging.getLogger(__name__)

DATABASE_NAME = "gallery.sqlite3"
LOCK_NAME = "edge.lock"

COMMITS_PER_CHECKPOINT = 256
"""About 5 MB of WAL between two checkpoints at what an enrolment writes: bounded, and few rewrites of the same page."""

BUSY_SECONDS = 5.0
"""How long a TRUNCATE checkpoint waits for readers: they take milliseconds."""

LOG_BYTES = 16 << 20
"""Of write-ahead log from which a checkpoint waits for the readers: while one of them is always reading, a PASSIVE one
moves every page and yet never lets the log begin anew."""

NEEDLES_LIMIT = 100
"""Looking for so many traces takes as long as writing the whole database anew."""

VACUUM_IN_MEMORY = 256 << 20
"""Bytes of database that VACUUM may double in memory; a larger one goes by way of a temporary file."""

_PRAGMAS = (
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA secure_delete = ON",  # erased means overwritten, not only unlinked from the tree
    "PRAGMA wal_autocheckpoint = 0",  # ours are explicit
    "PRAGMA temp_store = MEMORY",  # nothing of a person in a temporary file
)

_FULL_MESSAGES = ("database or disk is full", "disk I/O error")
_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


@contextlib.contextmanager
def refusing_when_full() -> Iterator[None]:
    """Turn what SQLite or the file system says of a full or failing disk into StorageFull."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if str(error) in _FULL_MESSAGES:  # 3.10 has no sqlite_errorcode
            raise StorageFull from error
        raise
    except OSError as error:
        if error.errno in _FULL_ERRNOS:
            raise StorageFull from error
        raise


class Database:
    """gallery.sqlite3 in the data folder, and the folder's lock."""

    def __init__(
        self,
        folder: Path,
        *,
        migrations: Sequence[Migration] = MIGRATIONS,
        commits_per_checkpoint: int = COMMITS_PER_CHECKPOINT,
        space: Space | None = None,
        is_checked: bool = False,
    ) -> None:
        """Open, making what is missing, and migrate. `space`: the room on the folder's disk.

        `is_checked`: it has just been opened before, and need not be looked through for damage again.
        Raises GalleryUnusable: the folder is another process's, or the database is newer than this program; of these
        GalleryBroken: it is none, or damaged. Raises StorageFull where there is no room to open it.
        """
        self.path = folder / DATABASE_NAME
        self.space = space or Space(folder)
        self._commits_per_checkpoint = commits_per_checkpoint
        self._commits = 0
        self._truncation_due = False
        self._writing = threading.Lock()
        self._readers: dict[threading.Thread, sqlite3.Connection] = {}
        self._readers_lock = threading.Lock()
        self._local = threading.local()
        self.capture: Capture | None = None
        """What a fleet is told of; None where the box is in none."""
        self.when_captured: Callable[[], None] = lambda: None
        """Called after a commit that a fleet is told of, in the thread of the commit."""
        with contextlib.ExitStack() as undo, refusing_when_full():
            self._lock_file = _locked(folder)
            undo.callback(os.close, self._lock_file)
            self.space.make_way()  # opening writes a little, and nobody can be erased before it
            self._writer = self._connected(undo)
            if not is_checked:
                self._check()
            # Kept open until SQLite has closed the file: closing any descriptor of it drops SQLite's own locks (POSIX).
            self._scanned = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            undo.callback(os.close, self._scanned)
            self._migrate(migrations)
            self.capture = self._captured()
            undo.pop_all()
        self._open = True

    def _connected(self, undo: contextlib.ExitStack) -> sqlite3.Connection:
        self.path.touch(mode=0o600)  # SQLite gives the WAL the permissions of the database
        try:
            writer = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            undo.callback(writer.close)
            mode = writer.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            for pragma in _PRAGMAS:
                writer.execute(pragma)
        except sqlite3.DatabaseError as error:
            raise self._translated(error) from error
        if mode != "wal":
            raise GalleryUnusable(
                message=f"{self.path}: the file system does not support a write-ahead log (it answers {mode})"
            )
        return writer

    def _check(self) -> None:
        """Refuse a damaged file before anything is written to it; damaged indexes are made anew from their rows."""
        try:
            fault = soundness.fault(self._writer)
            stale = None if fault else soundness.stale_index(self._writer)
            if stale is not None:
                log.error("%s: an index is not as its rows and is made anew: %s", self.path, stale)
                self._writer.execute("REINDEX")
                fault = soundness.stale_index(self._writer)
        except sqlite3.DatabaseError as error:
            raise self._translated(error) from error
        if fault is not None:
            raise GalleryBroken(message=f"{self.path} is damaged: {fault}")

    def _translated(self, error: sqlite3.DatabaseError) -> Exception:
        if str(error) in _FULL_MESSAGES:
            return error
        # SQLite's corrupt and not-a-database come as the plain class, busy and denied as OperationalError
        kind = GalleryBroken if type(error) is sqlite3.DatabaseError else GalleryUnusable
        return kind(message=f"{self.path} cannot be opened as a database: {error}")

    def _migrate(self, migrations: Sequence[Migration]) -> None:
        version = int(self._writer.execute("PRAGMA user_version").fetchone()[0])
        if version > len(migrations):
            raise GalleryUnusable(
                message=f"{self.path} was written by a newer release (its version is {version}, this program knows"
                f" {len(migrations)}): install that release, or restore a backup made before it"
            )
        for number, migration in enumerate(migrations[version:], start=version + 1):
            level = logging.INFO if version else logging.DEBUG  # a new one is made, and nothing of anybody's changes
            log.log(level, "migrating the gallery to version %d: %s", number, migration.__name__)
            with self.write(essential=True) as transaction:
                migration(transaction)
                transaction.execute(f"PRAGMA user_version = {number:d}")

    def _captured(self) -> Capture | None:
        is_in_fleet = records.has_position(self._writer)
        return Capture(self._writer, Outbox(lambda: time.time_ns() // 1_000_000)) if is_in_fleet else None

    @contextlib.contextmanager
    def write(self, *, essential: bool = False, replicates: bool = True) -> Iterator[sqlite3.Connection]:
        """Yield the writer in a transaction; on disk when the `with` ends, undone if it ends by an exception.

        `essential`: what must go on while the disk has no room for anything else: erasing, and what a start needs.
        `replicates`: a fleet, where the box is in one, is told of it. Waits for other writers. Raises StorageFull if
        the disk is full or fails; nothing is written then.
        """
        if essential:
            self.space.make_way()
        else:
            self.space.check()
        is_captured = False
        with self._writing:
            with refusing_when_full():
                self._writer.execute("BEGIN IMMEDIATE")
                try:
                    yield self._writer
                    is_captured = replicates and self.capture is not None and self.capture.collect(self._writer)
                    self._writer.execute("COMMIT")
                except BaseException as error:
                    self._roll_back()
                    if type(error) is sqlite3.DatabaseError:  # corrupt, see _translated
                        self._make_indexes_anew()
                    raise
                finally:
                    if self.capture is not None:
                        self.capture.forget()
            self._committed()
        if is_captured:
            self.when_captured()

    def _roll_back(self) -> None:
        if not self._writer.in_transaction:  # SQLite has done so itself, as it does when the disk is full
            return
        try:
            self._writer.execute("ROLLBACK")
        except sqlite3.Error:
            log.exception("a transaction could not be rolled back")  # the exception that led here is the one to report

    def _make_indexes_anew(self) -> None:
        """Mend what can be mended without a backup: a row that its index does not have cannot be changed."""
        log.error("%s is damaged; its indexes are made anew from the rows", self.path, exc_info=True)
        try:
            self._writer.execute("REINDEX")
        except sqlite3.Error:
            log.exception("the indexes could not be made anew")

    def _committed(self) -> None:
        """Checkpoint now and then; a checkpoint that fails has lost nothing and must not fail the request."""
        self._commits += 1
        if self._truncation_due:
            self._checkpoint("TRUNCATE")
        elif self._commits >= self._commits_per_checkpoint:
            self._checkpoint("PASSIVE")
            if self._log_bytes() > LOG_BYTES:
                self._checkpoint("TRUNCATE")
                self._truncation_due = False  # a reader that stays: not again at every commit

    def _log_bytes(self) -> int:
        try:
            return self.path.with_name(self.path.name + "-wal").stat().st_size
        except FileNotFoundError:
            return 0

    def _checkpoint(self, mode: str) -> bool:
        """Return whether the whole WAL is in the database now (and empty, for TRUNCATE)."""
        self._commits = 0
        try:
            busy, pages, moved = self._writer.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        except sqlite3.Error:
            log.warning("the write-ahead log could not be moved into the database; it is kept", exc_info=True)
            return False
        whole = not busy and pages == moved
        if mode == "TRUNCATE":
            self._truncation_due = not whole
        return whole

    def truncate_log(self) -> bool:
        """Move the whole WAL into the database and empty it, so that what was erased is in neither.

        Returns False if a reader or the disk prevented it: it is tried again with the next commits.
        """
        with self._writing:
            self._truncation_due = True
            return self._checkpoint("TRUNCATE")

    def erase_traces(self, needles: Sequence[bytes], *, are_all: bool) -> None:
        """Make sure that what was deleted is not in the file any more.

        Empties the log, looks for the needles (bytes of what was deleted) and writes the database anew if one is left,
        or if they are not all that could be left. A full disk can prevent that: it is logged, and what was deleted
        stays deleted. It is the end of an erasure: what room that was given comes back.
        """
        self.truncate_log()
        if not are_all or len(needles) > NEEDLES_LIMIT or traces.are_in(self._scanned, needles):
            self._vacuum()
        self.space.take_back()

    def can_shrink(self) -> bool:
        """Whether the database could be written anew in what is free: if not, rows that go give the disk nothing."""
        return 2 * self.path.stat().st_size < self.space.room(fresh=True).free_bytes

    def shrink(self) -> None:
        """Write the database anew, without its free pages; a full disk can prevent that, and it is logged."""
        self._vacuum()

    def _vacuum(self) -> None:
        size = self.path.stat().st_size
        with self._writing:
            try:
                self._writer.execute(f"PRAGMA temp_store = {'MEMORY' if size <= VACUUM_IN_MEMORY else 'FILE'}")
                self._writer.execute("VACUUM")
            except sqlite3.Error:
                log.warning(
                    "free space of the database could not be overwritten; the next erasure tries", exc_info=True
                )
            self._checkpoint("TRUNCATE")
            if self.capture is not None:
                self.capture.install()

    def read(self) -> sqlite3.Connection:
        """Return this thread's read-only connection: it sees what was committed, and waits for no writer."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(
                f"{self.path.resolve().as_uri()}?mode=ro",
                uri=True,
                timeout=BUSY_SECONDS,
                isolation_level=None,
                check_same_thread=False,  # used by its thread alone, but closed by whoever closes the database
            )
            self._keep(connection)
            self._local.connection = connection
        return connection

    def _keep(self, connection: sqlite3.Connection) -> None:
        with self._readers_lock:
            for thread in [thread for thread in self._readers if not thread.is_alive()]:
                self._readers.pop(thread).close()
            self._readers[threading.current_thread()] = connection

    def close(self) -> None:
        """Empty the WAL, close every connection, give the folder back. A second call does nothing."""
        with self._writing, self._readers_lock:
            if not self._open:
                return
            self._open = False
            for reader in self._readers.values():
                reader.close()
            self._readers.clear()
            self._checkpoint("TRUNCATE")
            self._writer.close()
            os.close(self._scanned)
            os.close(self._lock_file)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, making the folder if need be. Raises GalleryUnusable where another process has it."""
    descriptor = _locked(folder)
    try:
        yield
    finally:
        os.close(descriptor)


def _locked(folder: Path) -> int:
    """Return the descriptor that holds the folder's lock; closing it gives the folder back."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno in _FULL_ERRNOS:
            raise
        raise GalleryUnusable(message=f"the data folder {folder} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise GalleryUnusable(message=f"the data folder {folder} is in use by another process") from error
    return descriptor
