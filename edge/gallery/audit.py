"""The audit log: who changed, erased, exported, or changed who may; in a small SQLite file of its own.

Of its own, so that the command line can write to it while the service runs, and a restore of the gallery does not take
it back. An act is written before it is done, as begun, and again when it has ended: one that stays `begun` was cut
short, and may have been done. Enrolments alone, of which a camera makes many, stand in the gallery's own file, in the
transaction that adds the person: a page more, and no sync of its own. A reader sees both as one.

A rollback journal that is emptied and synced with each commit; see access for why not a write-ahead log.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from edge.errors import GalleryUnusable, Mistake, Refusal, StorageFull, TooBusy, invalid
from edge.gallery import acts, soundness
from edge.gallery.acts import LATEST
from edge.gallery.database import DATABASE_NAME, Database
from edge.gallery.protocol import PAGE, PAGE_LIMIT
from edge.gallery.space import BALLAST_BYTES, LITTLE_BYTES, Space
from edge.types import Act, Actor, ActOutcome, Ids

log = logging.getLogger(__name__)

AUDIT_NAME = "audit.sqlite3"

BUSY_SECONDS = 5.0
"""To wait for another process's write."""

DIGEST_CHARACTERS = 16
"""Of what a setting was, so that a change is noticed and no value kept."""

SETTINGS_SHOWN = 20
"""Names of changed settings in one entry."""

DAY_MS = 86_400_000

_TABLES = (acts.CREATE_AUDIT, "CREATE TABLE settings (name TEXT PRIMARY KEY, digest TEXT NOT NULL) STRICT")

VERSIONS = 1


@dataclass(frozen=True)
class AuditPage:
    """Acts, the latest first; `cursor` leads to the next page, None where there is none."""

    acts: tuple[Act, ...]
    cursor: str | None


class Audit:
    """The audit log of a data folder. Safe to use from several threads and processes at once."""

    def __init__(self, folder: Path, *, now_ms: int) -> None:
        """Open it, made if it is missing; a broken one is set aside, and the new one says so.

        Raises GalleryUnusable (it cannot be made, or is of a newer release), StorageFull, TooBusy.
        """
        self._path = folder / AUDIT_NAME
        self._gallery = folder / DATABASE_NAME
        self._space = Space(folder)
        self._turn = threading.Lock()
        self.lost = 0
        """Entries since the start that could not be written, and stand in the service's log instead."""
        fault = self._fault()
        if fault is not None:
            aside = f"{AUDIT_NAME}.broken-{now_ms}"
            log.error("%s is damaged (%s); it is set aside as %s, and a new one begun", self._path, fault, aside)
            self._path.rename(folder / aside)
            self._path.with_name(f"{AUDIT_NAME}-journal").unlink(missing_ok=True)
        self._prepare()
        if fault is not None:
            actor = Actor(action="audit", caller_id=None, caller="the service", address="", time_ms=now_ms)
            self.note(actor, ActOutcome.FAILED, detail=f"the log was damaged and is set aside as {aside}")

    # --- writing ---

    def begin(self, actor: Actor, ids: Ids = (), detail: str = "") -> int | None:
        """Write that this is about to be done; return its number for `end`, None where that failed.

        An entry that cannot be written goes to the service's log and stops nobody: erasing must work on a disk that
        refuses everything else.
        """
        return self._inserted(actor, ActOutcome.BEGUN, ids, detail)

    def end(self, number: int | None, actor: Actor, outcome: ActOutcome, ids: Ids = ()) -> None:
        """Write how it ended, and the ids of what it made."""
        if number is None:
            self._lose(actor, outcome, ids, "not begun in the log either")
            return
        try:
            with self._writing() as db:
                acts.finish(db, number, outcome, ids)
        except Refusal as error:
            self._lose(actor, outcome, ids, str(error))

    def note(self, actor: Actor, outcome: ActOutcome, ids: Ids = (), detail: str = "") -> None:
        """Write what has been done."""
        self._inserted(actor, outcome, ids, detail)

    def note_settings(self, actor: Actor, texts: Mapping[str, str]) -> None:
        """Write which settings are others than at the last start; the first start says nothing."""
        digests = {name: _digest(text) for name, text in texts.items()}
        try:
            with self._reading() as db:
                known = dict(db.execute("SELECT name, digest FROM settings").fetchall())
            changed = sorted(name for name in {*digests, *known} if digests.get(name) != known.get(name))
            if not changed:
                return
            with self._writing() as db:
                db.execute("DELETE FROM settings")
                db.executemany("INSERT INTO settings VALUES (?, ?)", digests.items())
                if known:
                    more = f" and {len(changed) - SETTINGS_SHOWN} more" if len(changed) > SETTINGS_SHOWN else ""
                    acts.insert(db, actor, ActOutcome.DONE, (), ", ".join(changed[:SETTINGS_SHOWN]) + more)
        except Refusal as error:
            self._lose(actor, ActOutcome.DONE, (), str(error))

    def _inserted(self, actor: Actor, outcome: ActOutcome, ids: Ids, detail: str) -> int | None:
        try:
            with self._writing() as db:
                return acts.insert(db, actor, outcome, ids, detail)
        except Refusal as error:
            self._lose(actor, outcome, ids, str(error))
            return None

    def _lose(self, actor: Actor, outcome: ActOutcome, ids: Ids, reason: str) -> None:
        self.lost += 1
        log.error("not in the audit log (%s): %s %s, %s", reason, actor, outcome.value, list(ids))

    # --- reading ---

    def page(
        self,
        *,
        action: str | None = None,
        caller_id: str | None = None,
        id_: str | None = None,
        first_ms: int | None = None,
        last_ms: int | None = None,
        cursor: str | None = None,
        limit: int = PAGE,
    ) -> AuditPage:
        """Return acts that meet every condition given, the latest first (times inclusive, limit 1 to 1000).

        `id_`: of whatever the act was about. Raises InvalidSchema for a cursor that no page had.
        """
        limit = min(max(1, limit), PAGE_LIMIT)
        befores = (LATEST, LATEST) if cursor is None else _parsed(cursor)
        conditions = {
            "action": action,
            "caller_id": None if caller_id is None else acts.needle(caller_id),
            "id": None if id_ is None else acts.needle(id_),
            "first_ms": -LATEST if first_ms is None else first_ms,
            "last_ms": LATEST if last_ms is None else last_ms,
            "limit": limit + 1,
        }
        with self._reading() as db:
            own = acts.before(db, {**conditions, "before": befores[0]})
        enrolled = self._enrolments({**conditions, "before": befores[1]})
        shown: list[Act] = []
        taken = [0, 0]
        while len(shown) < limit and (taken[0] < len(own) or taken[1] < len(enrolled)):
            heads = [
                lot[taken[n]].actor.time_ms if taken[n] < len(lot) else -LATEST for n, lot in ((0, own), (1, enrolled))
            ]
            lot = 0 if heads[0] >= heads[1] else 1
            shown.append((own, enrolled)[lot][taken[lot]])
            taken[lot] += 1
        if taken == [len(own), len(enrolled)]:
            return AuditPage(tuple(shown), None)
        ends = [lot[taken[n] - 1].number if taken[n] else befores[n] for n, lot in ((0, own), (1, enrolled))]
        return AuditPage(tuple(shown), f"{ends[0]}.{ends[1]}")

    def _enrolments(self, conditions: Mapping[str, object]) -> list[Act]:
        """Return the acts that the gallery keeps; none where there is no gallery, or one of an older release."""
        if not self._gallery.exists():
            return []
        uri = f"{self._gallery.resolve().as_uri()}?mode=ro"
        with contextlib.suppress(sqlite3.Error), closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS)) as db:
            return acts.before(db, conditions)
        return []

    # --- forgetting ---

    def prune(self, database: Database, *, now_ms: int, days: float, most_bytes: int) -> int:
        """Delete acts older than `days`, then the oldest beyond so many bytes; return how many went.

        Enrolments, which `database` holds, have a half of the bytes of their own: no camera pushes out what people did.
        """
        bounds = {"oldest_ms": now_ms - int(days * DAY_MS), "most_bytes": most_bytes // 2}
        gone = 0
        with self._reading() as db:
            number = acts.doomed(db, **bounds)
        if number:
            with self._writing(BALLAST_BYTES) as db:
                gone += acts.delete(db, number)
        number = acts.doomed(database.read(), **bounds)
        if number:
            with database.write(essential=True) as transaction:
                gone += acts.delete(transaction, number)
        return gone

    # --- the file ---

    def _fault(self) -> str | None:
        if not self._path.exists() or not self._path.stat().st_size:
            return None
        found = soundness.file_fault(self._path, VERSIONS, mode="rw")
        if found is not None and "newer release" in found:
            raise GalleryUnusable(message=f"{self._path} {found}: install that release, or move the file away")
        return None if found is None or "locked" in found else found

    def _prepare(self) -> None:
        """Make the file, for its owner alone: the folder's owner, where an administrator makes it."""
        try:
            self._path.touch(mode=0o600)
            self._path.chmod(0o600)
            if os.geteuid() == 0:
                owner = self._path.parent.stat()
                os.chown(self._path, owner.st_uid, owner.st_gid)
        except OSError as error:
            raise GalleryUnusable(message=f"{self._path} cannot be opened: {error.strerror}") from error
        with self._writing() as db:
            if not db.execute("PRAGMA user_version").fetchone()[0]:
                for statement in _TABLES:
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {VERSIONS:d}")

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        uri = f"{self._path.resolve().as_uri()}?mode=rw"
        if not self._turn.acquire(timeout=BUSY_SECONDS):
            raise TooBusy(Mistake(AUDIT_NAME, "others have kept it busy"))
        try:
            with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)) as db:
                yield db
        except sqlite3.Error as error:
            raise _translated(error) from error
        finally:
            self._turn.release()

    @contextmanager
    def _writing(self, least_bytes: int = LITTLE_BYTES) -> Iterator[sqlite3.Connection]:
        """Give a transaction: on disk when the `with` ends, undone if it ends by an exception."""
        self._space.make_way(least_bytes)
        with self._reading() as db:
            db.execute("PRAGMA journal_mode = TRUNCATE")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA secure_delete = ON")
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")


def _translated(error: sqlite3.Error) -> Refusal:
    text = str(error)
    if "locked" in text:
        return TooBusy(Mistake(AUDIT_NAME, text))
    if text in ("database or disk is full", "disk I/O error"):
        return StorageFull(Mistake(AUDIT_NAME, text))
    return GalleryUnusable(message=f"{AUDIT_NAME} cannot be used: {text}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_CHARACTERS]


def _parsed(cursor: str) -> tuple[int, int]:
    parts = cursor.split(".")
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() and len(part) <= 19 for part in parts):
        raise invalid("cursor", "not one that a page of the audit log gave")
    return min(int(parts[0]), LATEST), min(int(parts[1]), LATEST)


def pruner(
    audit: Audit, database: Database, now_ms: Callable[[], int], *, days: float, most_bytes: int
) -> Callable[[], None]:
    """Return what keeps the log within its days and bytes, to be called every hour."""

    def prune() -> None:
        gone = audit.prune(database, now_ms=now_ms(), days=days, most_bytes=most_bytes)
        if gone:
            log.info("%d old entries of the audit log removed", gone)

    return prune
