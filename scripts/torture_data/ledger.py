"""What clients were told, held against what is on the disk.

Every write carries a mark of its own in the person's first field. An answer makes it told; without one it is open, and
may have happened or not, but not by half. So a disk has either what was told last of a person or an open change of it.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import random
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge.gallery import persons

DATABASE = "gallery.sqlite3"
PICTURES = "pictures"


@dataclass(frozen=True)
class Known:
    """A person as the last answer had them."""

    mark: str
    picture: str | None
    """The picture's name, None where none was kept."""


@dataclass(frozen=True)
class Change:
    """A change without an answer yet; `person_id` None: somebody new."""

    mark: str
    person_id: str | None
    deletes: bool = False


@dataclass(frozen=True)
class Row:
    """A person as the disk has them."""

    mark: str
    pictures: tuple[str, ...]
    templates: int


class Ledger:
    """Who is there, who is gone, and what is open. Safe to use from several threads."""

    def __init__(self) -> None:
        self.known: dict[str, Known] = {}
        self.gone: set[str] = set()
        self.open: dict[str, Change] = {}
        self.answered = 0
        self._busy: set[str] = set()
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    # --- by the callers ---

    def begin(self, person_id: str | None = None, *, deletes: bool = False) -> Change:
        """Note that a change is about to be asked for."""
        with self._lock:
            change = Change(f"mark {next(self._numbers)}", person_id, deletes)
            self.open[change.mark] = change
            return change

    def taken(self, dice: random.Random) -> str | None:
        """Return somebody whom nobody else changes now, None if there is none; give them back with `done`."""
        with self._lock:
            free = [one for one in self.known if one not in self._busy]
            if not free:
                return None
            one = dice.choice(free)
            self._busy.add(one)
            return one

    def done(self, change: Change, person_id: str | None, picture: str | None = None) -> None:
        """Note the answer: that person has the mark now; with None, nothing was changed. A deletion is of them."""
        with self._lock:
            self.answered += 1
            del self.open[change.mark]
            if change.person_id is not None:
                self._busy.discard(change.person_id)
            if person_id is None:
                return
            if change.deletes:
                del self.known[person_id]
                self.gone.add(person_id)
            else:
                self.known[person_id] = Known(change.mark, picture)

    def picture_of(self, person_id: str) -> str | None:
        """Return the name of the picture that was told last."""
        with self._lock:
            return self.known[person_id].picture

    def copy(self) -> Ledger:
        """Return the ledger as it is at this moment."""
        with self._lock:
            copied = Ledger()
            copied.known, copied.gone, copied.open = dict(self.known), set(self.gone), copy.copy(self.open)
            copied.answered = self.answered
            return copied

    # --- against the disk ---

    def marks(self, folder: Path) -> set[str]:
        """Return the marks of all changes of which the folder holds anything, deletions too."""
        with contextlib.closing(_opened(folder)) as database:
            rows = _rows(database)
        deleted = {mark for mark, one in self.open.items() if one.deletes and one.person_id not in rows}
        return deleted | {row.mark for row in rows.values()}

    def settle(self, folder: Path) -> list[str]:
        """Compare with a data folder that has just been opened; return what is not as told, and begin from there."""
        with contextlib.closing(_opened(folder)) as database:
            rows = _rows(database)
            found = [*self._of_the_told(rows), *self._of_the_rows(rows), *_unsound(database, folder, rows)]
        with self._lock:
            self.known = {id_: Known(row.mark, next(iter(row.pictures), None)) for id_, row in rows.items()}
            self.open.clear()
            self._busy.clear()
        return found

    def settle_between(self, later: Ledger, folder: Path) -> list[str]:
        """Compare with a copy that was made between this moment and a later one; return what is not as told at either.

        Who was changed in between may be as before or as after; nobody may be missing who was there all the time.
        """
        with contextlib.closing(_opened(folder)) as database:
            rows = _rows(database)
            found = list(_unsound(database, folder, rows))
        changing = {one.person_id for ledger in (self, later) for one in ledger.open.values()}
        for person_id, known in self.known.items():
            if later.known.get(person_id) != known or person_id in changing:
                continue
            row = rows.get(person_id)
            if (
                row is None
                or row.mark != known.mark
                or (known.picture is not None and known.picture not in row.pictures)
            ):
                found.append(f"lost: {person_id} as {known}: {row}")
        met = self.known.keys() | later.known.keys() | later.gone
        for person_id, row in rows.items():
            if person_id in self.gone:
                found.append(f"resurrected: {person_id}")
            elif person_id not in met and row.mark not in self.open.keys() | later.open.keys():
                found.append(f"from nowhere: {person_id} with {row.mark}")
        return found

    def _of_the_told(self, rows: dict[str, Row]) -> Iterator[str]:
        open_of: dict[str, list[Change]] = {}
        for change in self.open.values():
            if change.person_id is not None:
                open_of.setdefault(change.person_id, []).append(change)
        for person_id, known in self.known.items():
            changes, row = open_of.get(person_id, []), rows.get(person_id)
            if row is None:
                if not any(change.deletes for change in changes):
                    yield f"lost: {person_id}, {known.mark}"
            elif row.mark == known.mark:
                if known.picture is not None and known.picture not in row.pictures:
                    yield f"lost: the picture of {person_id}, {known.mark}"
            elif row.mark not in {change.mark for change in changes if not change.deletes}:
                yield f"lost: {person_id} has {row.mark} instead of {known.mark}"

    def _of_the_rows(self, rows: dict[str, Row]) -> Iterator[str]:
        new = {mark for mark, change in self.open.items() if change.person_id is None}
        for person_id, row in rows.items():
            if person_id in self.gone:
                yield f"resurrected: {person_id}"
            elif person_id not in self.known and row.mark not in new:
                yield f"from nowhere: {person_id} with {row.mark}"


def _opened(folder: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{folder / DATABASE}?mode=ro", uri=True, timeout=30)


def _rows(database: sqlite3.Connection) -> dict[str, Row]:
    pictures: dict[str, list[str | None]] = {}
    for person_id, picture in database.execute(
        "SELECT person_id, picture FROM templates JOIN persons ON persons.number = templates.person"
        " ORDER BY templates.quality DESC, templates.id DESC"
    ):
        pictures.setdefault(person_id, []).append(picture)
    return {
        person_id: Row(
            (json.loads(fields) or [""])[0],
            tuple(name for name in pictures.get(person_id, ()) if name is not None),
            len(pictures.get(person_id, ())),
        )
        for person_id, fields in database.execute("SELECT person_id, fields FROM persons")
    }


def _unsound(database: sqlite3.Connection, folder: Path, rows: dict[str, Row]) -> Iterator[str]:
    """Yield what does not fit together, whatever anybody was told."""
    complaints = [str(one) for (one,) in database.execute("PRAGMA integrity_check")]
    if complaints != ["ok"]:
        yield f"integrity_check: {complaints[:3]}"
    if database.execute("PRAGMA foreign_key_check").fetchall():
        yield "foreign_key_check"
    yield from (f"half done: {person_id} without a template" for person_id, row in rows.items() if not row.templates)
    for row in persons.templates(database):
        if not row.is_intact:
            yield f"damaged: template {row.id}"
    counted = dict(database.execute("SELECT key, value FROM meta").fetchall())
    for key, table in (("persons", "persons"), ("templates", "templates"), ("lists", "lists")):
        (number,) = database.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608 (three names above)
        if counted[key] != number:
            yield f"meta counts {counted[key]} {table}, there are {number}"
    yield from orphans(database, folder)


def orphans(database: sqlite3.Connection, folder: Path) -> Iterator[str]:
    """Yield pictures without rows and rows without pictures."""
    named = {
        f"{name}.jpg"
        for table in ("templates", "sightings")
        for (name,) in database.execute(f"SELECT picture FROM {table} WHERE picture IS NOT NULL")  # noqa: S608
    }
    stored = {path.name for path in (folder / PICTURES).rglob("*") if path.is_file()}
    yield from (f"orphan: the file {name} is no row's" for name in sorted(stored - named))
    yield from (f"orphan: the row's picture {name} is no file" for name in sorted(named - stored))
