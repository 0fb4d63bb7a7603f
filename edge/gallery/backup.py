"""Copies of the databases while others write to them, and what a copy of the gallery says."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from edge.errors import GalleryBroken
from edge.gallery import acts, persons, sightings
from edge.gallery.core import SELECT_META
from edge.gallery.database import BUSY_SECONDS, refusing_when_full

SELECT_PICTURES = (
    "SELECT picture FROM templates WHERE picture IS NOT NULL"
    " UNION SELECT picture FROM sightings WHERE picture IS NOT NULL ORDER BY picture"
)
SELECT_NUMBERS = "SELECT number FROM persons"
SELECT_IDS = "SELECT person_id FROM persons"
SELECT_NUMBERS_AND_IDS = (
    "SELECT persons.number, person_id, list_id FROM persons JOIN lists ON lists.number = persons.list"
)
SELECT_TEMPLATE_PICTURES = "SELECT picture FROM templates WHERE picture IS NOT NULL"
SELECT_PICTURES_OF_PERSON = "SELECT picture FROM templates WHERE person = :person AND picture IS NOT NULL"
COUNTS = ("persons", "templates")
DELETE_PERSON = "DELETE FROM persons WHERE number = :person"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Contents:
    """What a copy of the gallery holds."""

    version: int
    persons: int
    templates: int
    pack_id: str | None
    """Of the templates, as last noted."""


def copy(source: Path, destination: Path, *, mode: str = "ro") -> None:
    """Copy a database in one read transaction: as it is at one moment, all that was committed by then.

    The copy is one file without a log, for its owner alone. `source` may be open elsewhere. `mode`: `ro` for the
    gallery, whose log the service alone moves; `rw` for one with a rollback journal, which a crash may have left to
    be rolled back first. Raises GalleryBroken, StorageFull, FileNotFoundError.
    """
    if not source.exists():
        raise FileNotFoundError(source)
    destination.touch(mode=0o600)
    uri = f"{source.resolve().as_uri()}?mode={mode}"
    with refusing_when_full():
        try:
            with (
                contextlib.closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS)) as reader,
                contextlib.closing(sqlite3.connect(destination, isolation_level=None)) as writer,
            ):
                reader.backup(writer, pages=-1)
                writer.execute("PRAGMA journal_mode = DELETE")
        except sqlite3.DatabaseError as error:
            if type(error) is not sqlite3.DatabaseError:
                raise
            raise GalleryBroken(message=f"{source} cannot be copied: {error}") from error


def contents(copied: Path) -> Contents:
    """Return what a copy holds."""
    with contextlib.closing(sqlite3.connect(copied)) as connection:
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        count, templates = (connection.execute(SELECT_META, {"key": key}).fetchone()[0] for key in COUNTS)
        pack = connection.execute(SELECT_META, {"key": "pack"}).fetchone()
    return Contents(version, count, templates, None if pack is None else str(pack[0]))


def pictures(copied: Path) -> list[str]:
    """Return the names of all pictures that the copy's rows name, in order."""
    with contextlib.closing(sqlite3.connect(copied)) as connection:
        return [name for (name,) in connection.execute(SELECT_PICTURES)]


def follow_erasures(copied: Path, live: Path, missing: Collection[str]) -> int:
    """Take out of the copy who was erased since it was made, and the names of missing pictures; return how many went.

    Erased is whose row is gone, unless a picture of theirs is still named: then they were merged into somebody.
    """
    uri = f"{live.resolve().as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS)) as connection:
        there = {number for (number,) in connection.execute(SELECT_NUMBERS)}
        named = {name for (name,) in connection.execute(SELECT_TEMPLATE_PICTURES)}
    with _to_erase(copied) as connection:
        gone = [
            number
            for (number,) in connection.execute(SELECT_NUMBERS).fetchall()
            if number not in there
            and not any(name in named for (name,) in connection.execute(SELECT_PICTURES_OF_PERSON, {"person": number}))
        ]
        if not gone and not missing:
            return 0
        connection.execute("BEGIN")
        connection.executemany(DELETE_PERSON, [{"person": number} for number in gone])
        persons.forget_pictures(connection, missing)
        sightings.forget_pictures(connection, missing)
        connection.execute("COMMIT")
        connection.execute("VACUUM")  # and the copies of rows that secure_delete does not reach (traces.py)
    return len(gone)


def erase_again(copied: Path, audit: Path, replaced: Path) -> int:
    """Take out of an older copy who has been erased since, as the audit log says; return how many went.

    Not who is still in the gallery that the copy is to replace, where that can be read: they were asked for in a list
    that they were not in, or had been brought back. An audit log that is missing or broken says nothing.
    """
    try:
        with _reading(audit, "rw") as connection:  # a crash may have left something to be rolled back first
            person_ids, list_ids = acts.erased(connection)
    except sqlite3.Error as error:
        log.warning("who was erased since is not known: %s: %s", audit, error)
        return 0
    kept: set[str] = set()
    with contextlib.suppress(sqlite3.Error), _reading(replaced, "ro") as connection:
        kept = {person_id for (person_id,) in connection.execute(SELECT_IDS)}
    with _to_erase(copied) as connection:
        gone = [
            {"person": number}
            for number, person_id, list_id in connection.execute(SELECT_NUMBERS_AND_IDS).fetchall()
            if (person_id in person_ids or list_id in list_ids) and person_id not in kept
        ]
        if gone:
            connection.execute("BEGIN")
            connection.executemany(DELETE_PERSON, gone)
            connection.execute("COMMIT")
            connection.execute("VACUUM")
    return len(gone)


@contextlib.contextmanager
def _reading(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
    uri = f"{path.resolve().as_uri()}?mode={mode}"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS)) as connection:
        yield connection


@contextlib.contextmanager
def _to_erase(copied: Path) -> Iterator[sqlite3.Connection]:
    """Open a copy so that what is deleted goes with all that hangs on it, and is in the file no more."""
    with refusing_when_full(), contextlib.closing(sqlite3.connect(copied, isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("PRAGMA temp_store = MEMORY")
        yield connection
