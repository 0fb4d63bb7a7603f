"""Which pack the gallery's templates are of, which of them want to be made anew for another, and the switch.

Everything but the switch only reads, by a connection of its own, and never long: the service goes on writing.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edge.gallery import persons, records, spool
from edge.gallery.database import BUSY_SECONDS, DATABASE_NAME, Database
from edge.gallery.spool import Entry
from edge.types import StoredTemplate

SELECT_PACK = "SELECT value FROM meta WHERE key = 'pack'"
SELECT_TEMPLATE_COUNT = "SELECT value FROM meta WHERE key = 'templates'"
INSERT_PACK = (
    "INSERT INTO meta (key, value) VALUES ('pack', :pack) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
)
SELECT_PICTURES_AFTER = "SELECT picture, pack FROM templates WHERE picture > :after ORDER BY picture LIMIT :limit"
SELECT_TEMPLATE_OF_PICTURE = "SELECT id, person, quality, created_ms FROM templates WHERE picture = :picture"
UPDATE_PICTURE_GIVEN = "UPDATE templates SET picture = NULL WHERE id = :id"
SELECT_REACH_AFTER = (
    "SELECT persons.number, persons.person_id, lists.name,"
    " EXISTS (SELECT 1 FROM templates WHERE person = persons.number AND +pack = :pack),"
    " EXISTS (SELECT 1 FROM templates WHERE person = persons.number AND +picture IS NOT NULL)"
    " FROM persons CROSS JOIN lists ON lists.number = persons.list"
    " WHERE persons.number > :after ORDER BY persons.number LIMIT :limit"
)

ROWS_A_PAGE = 500
"""Read at once: a reader that takes long would hold up the checkpoints of the service."""


@dataclass(frozen=True)
class Unreached:
    """A person whom the pack cannot recognise: none of their templates is of it."""

    person_id: str
    list_name: str
    has_picture: bool
    """False: no picture was kept, so nothing can be embedded. True: not embedded (yet), or no face was found in it."""


def answering(data_folder: Path) -> str | None:
    """Return the id of the pack that answers, as last noted; None where there are no templates, so that any may."""
    try:
        with reading(data_folder) as connection:
            pack = connection.execute(SELECT_PACK).fetchone()
            (count,) = connection.execute(SELECT_TEMPLATE_COUNT).fetchone()
    except (FileNotFoundError, sqlite3.Error, TypeError):  # what is wrong with the file is said by who opens it
        return None
    return str(pack[0]) if pack is not None and count else None


def note(database: Database, pack_id: str) -> None:
    """Remember which pack answers from now on."""
    found = database.read().execute(SELECT_PACK).fetchone()
    if found is None or found[0] != pack_id:
        with database.write(essential=True) as transaction:
            transaction.execute(INSERT_PACK, {"pack": pack_id})


@contextlib.contextmanager
def reading(data_folder: Path) -> Iterator[sqlite3.Connection]:
    """Yield a connection that only reads, whoever else has the database open. FileNotFoundError if there is none."""
    path = data_folder / DATABASE_NAME
    if not path.exists():
        raise FileNotFoundError(path)
    uri = f"{path.resolve().as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
        yield connection


def pending(connection: sqlite3.Connection, pack_id: str) -> Iterator[str]:
    """Yield the names of the pictures whose templates are of another pack."""
    after = ""
    while True:
        page = connection.execute(SELECT_PICTURES_AFTER, {"after": after, "limit": ROWS_A_PAGE}).fetchall()
        yield from (picture for picture, pack in page if pack != pack_id)
        if len(page) < ROWS_A_PAGE:
            return
        after = page[-1][0]


def named(connection: sqlite3.Connection, pictures: Iterable[str]) -> set[str]:
    """Return those of the pictures that a template still has."""
    return {
        picture
        for picture in pictures
        if connection.execute(SELECT_TEMPLATE_OF_PICTURE, {"picture": picture}).fetchone() is not None
    }


def unreached(connection: sqlite3.Connection, pack_id: str) -> Iterator[Unreached]:
    """Yield the persons without a template of the pack."""
    after = 0
    while True:
        columns = {"after": after, "limit": ROWS_A_PAGE, "pack": pack_id}
        page = connection.execute(SELECT_REACH_AFTER, columns).fetchall()
        for _, person_id, list_name, is_known, has_picture in page:
            if not is_known:
                yield Unreached(person_id, list_name, bool(has_picture))
        if len(page) < ROWS_A_PAGE:
            return
        after = page[-1][0]


def is_ready(data_folder: Path, pack_id: str) -> bool:
    """Whether everything has been embedded for that pack and waits to be taken in."""
    return spool.ready_for(data_folder) == pack_id


def take_in(database: Database, entries: Iterable[Entry], pack_id: str) -> int:
    """Put the new embeddings in the place of the old ones and note the pack, in one transaction; return how many.

    This is the switch. Templates whose picture was not kept, or shows no face, stay as they are, of their pack.
    """
    count = 0
    with database.write(essential=True) as transaction:
        for entry in entries:
            count += _replaced(transaction, entry, pack_id)
        transaction.execute(INSERT_PACK, {"pack": pack_id})
    return count


def _replaced(transaction: sqlite3.Connection, entry: Entry, pack_id: str) -> bool:
    row = transaction.execute(SELECT_TEMPLATE_OF_PICTURE, {"picture": entry.picture}).fetchone()
    if row is None or entry.embedding is None:  # erased meanwhile, or no face was found
        return False
    id_, person, quality, created_ms = row
    if records.has_position(transaction):  # another box of the fleet may still recognise by the old one
        transaction.execute(UPDATE_PICTURE_GIVEN, {"id": id_})
    else:
        transaction.execute(persons.DELETE_TEMPLATE, {"id": id_})
    persons.insert_template(
        transaction, person, StoredTemplate(entry.embedding, pack_id, quality, created_ms, entry.picture)
    )
    return True
