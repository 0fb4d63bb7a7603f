"""Persons, lists and what a box remembers of its fleet, row by row. What writes takes a transaction's connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from edge.gallery import persons, rejections
from edge.gallery.operations import KEY_BYTES, MAIN_LIST, SharedRejection, SharedTemplate, digest_of
from edge.gallery.persons import KnownTemplate
from edge.gallery.rejections import Negative
from edge.types import Embedding, StoredTemplate

COLUMNS = (
    "group_id",
    "source_id",
    "created_ms",
    "updated_ms",
    "fields",
    "features",
    "yaw_degrees",
    "pitch_degrees",
    "roll_degrees",
    "score",
)
"""Of a person's row, as they are: every box has the same bytes."""

_RECORD = (
    "SELECT persons.number, persons.person_id, CASE lists.is_main WHEN 1 THEN '' ELSE lists.list_id END,"
    " persons.group_id, persons.source_id, persons.created_ms, persons.updated_ms, persons.fields, persons.features,"
    " persons.yaw_degrees, persons.pitch_degrees, persons.roll_degrees, persons.score"
    " FROM persons JOIN lists ON lists.number = persons.list"
)
SELECT_RECORD = f"{_RECORD} WHERE persons.number = :number"
SELECT_RECORDS_AFTER = f"{_RECORD} WHERE persons.number > :after ORDER BY persons.number LIMIT :limit"
SELECT_IDS_AFTER = "SELECT number, person_id FROM persons WHERE number > :after ORDER BY number LIMIT :limit"
INSERT_RECORD = (
    "INSERT INTO persons (person_id, list, group_id, source_id, created_ms, updated_ms, fields, features,"
    " yaw_degrees, pitch_degrees, roll_degrees, score)"
    " VALUES (:person_id, :list_number, :group_id, :source_id, :created_ms, :updated_ms, :fields, :features,"
    " :yaw_degrees, :pitch_degrees, :roll_degrees, :score)"
)
UPDATE_RECORD = (
    "UPDATE persons SET group_id = :group_id, source_id = :source_id, created_ms = :created_ms,"
    " updated_ms = :updated_ms, fields = :fields, features = :features, yaw_degrees = :yaw_degrees,"
    " pitch_degrees = :pitch_degrees, roll_degrees = :roll_degrees, score = :score WHERE number = :number"
)
SELECT_NUMBER = "SELECT number, list FROM persons WHERE person_id = :person_id"
SELECT_LIST_OF_PERSON = "SELECT list FROM persons WHERE number = :number"
SELECT_PERSON_ID = "SELECT person_id FROM persons WHERE number = :number"
SELECT_PERSONS_OF_LIST = "SELECT number, person_id FROM persons WHERE list = :list"
SELECT_MAIN_NUMBER = "SELECT number FROM lists WHERE is_main = 1"
SELECT_LIST_NUMBER = "SELECT number, name FROM lists WHERE list_id = :list_id AND is_main = 0"
SELECT_LIST_OF_NAME = "SELECT number, list_id, is_main FROM lists WHERE name = :name"
SELECT_LISTS_AFTER = (
    "SELECT number, list_id, name, created_ms FROM lists WHERE is_main = 0 AND number > :after"
    " ORDER BY number LIMIT :limit"
)
UPDATE_MAIN_LIST = "UPDATE lists SET list_id = :list_id WHERE is_main = 1"
UPDATE_NAME_OF_LIST = "UPDATE lists SET name = :name WHERE number = :number"
INSERT_SHARED_LIST = "INSERT INTO lists (list_id, name, created_ms, is_main) VALUES (:list_id, :name, :created_ms, 0)"

SELECT_SERIAL = "SELECT serial FROM origins WHERE origin = :origin"
SELECT_ORIGINS_AFTER = "SELECT origin, serial FROM origins WHERE origin > :after ORDER BY origin LIMIT :limit"
INSERT_SERIAL = (
    "INSERT INTO origins (origin, serial) VALUES (:origin, :serial)"
    " ON CONFLICT (origin) DO UPDATE SET serial = max(serial, excluded.serial)"
)
SELECT_TOMBSTONE = "SELECT 1 FROM tombstones WHERE digest = :digest"
SELECT_TOMBSTONES_AFTER = "SELECT digest FROM tombstones WHERE digest > :after ORDER BY digest LIMIT :limit"
INSERT_TOMBSTONE = "INSERT OR IGNORE INTO tombstones (digest) VALUES (:digest)"
SELECT_ALIASED = "SELECT person FROM aliases WHERE alias = :alias"
SELECT_ALIASES_OF = "SELECT alias FROM aliases WHERE person = :person ORDER BY alias"
INSERT_ALIAS = "INSERT OR REPLACE INTO aliases (alias, person) VALUES (:alias, :person)"
UPDATE_ALIASES = "UPDATE aliases SET person = :person WHERE person = :former"
SELECT_NEWCOMERS_AFTER = (
    "SELECT sequence, person, origin, pack, vector, cohort_similarity FROM newcomers WHERE sequence > :after"
    " ORDER BY sequence LIMIT :limit"
)
INSERT_NEWCOMER = (
    "INSERT OR REPLACE INTO newcomers (sequence, person, origin, pack, vector, cohort_similarity)"
    " VALUES (:sequence, :person, :origin, :pack, :vector, :cohort_similarity)"
)
UPDATE_NEWCOMERS = "UPDATE newcomers SET person = :person WHERE person = :former"
DELETE_NEWCOMERS = "DELETE FROM newcomers WHERE sequence <= :last"
SELECT_POSITION = "SELECT value FROM meta WHERE key = 'fleet_position'"
INSERT_POSITION = (
    "INSERT INTO meta (key, value) VALUES ('fleet_position', :position)"
    " ON CONFLICT (key) DO UPDATE SET value = excluded.value"
)
DELETE_POSITION = "DELETE FROM meta WHERE key = 'fleet_position'"

INSERT_LEFTOVER = "INSERT OR IGNORE INTO leftovers (sequence) VALUES (:sequence)"
SELECT_LEFTOVER = "SELECT 1 FROM leftovers WHERE sequence <= :last LIMIT 1"
DELETE_LEFTOVERS = "DELETE FROM leftovers WHERE sequence <= :last"
DELETE_ALL_LEFTOVERS = "DELETE FROM leftovers"

SELECT_PICTURE = "SELECT 1 FROM templates WHERE picture = :picture"

DELETE_ORIGINS = "DELETE FROM origins"
DELETE_ALL_NEWCOMERS = "DELETE FROM newcomers"

UNSEEDED = -1
"""The position of a box that has joined and knows nothing of the others yet."""

ROWS_AT_ONCE = 500


class Record(NamedTuple):
    """A person's row."""

    number: int
    person_id: str
    columns: dict[str, Any]
    """COLUMNS, and `list`: the list's id, or MAIN_LIST."""


class Newcomer(NamedTuple):
    """Somebody who was added because nobody was like them, and by which face."""

    sequence: int
    person: int
    origin: str
    pack_id: str
    vector: bytes
    cohort_similarity: float


def _record(row: tuple[Any, ...]) -> Record:
    return Record(row[0], row[1], {"list": row[2], **dict(zip(COLUMNS, row[3:], strict=True))})


# --- persons ---


def record(connection: sqlite3.Connection, number: int) -> Record | None:
    """Return the row of that number."""
    row = connection.execute(SELECT_RECORD, {"number": number}).fetchone()
    return None if row is None else _record(row)


def every_record(connection: sqlite3.Connection) -> Iterator[Record]:
    """Yield everybody, in the order of their numbers."""
    after = 0
    while rows := connection.execute(SELECT_RECORDS_AFTER, {"after": after, "limit": ROWS_AT_ONCE}).fetchall():
        yield from (_record(row) for row in rows)
        after = rows[-1][0]


def every_id(connection: sqlite3.Connection) -> Iterator[tuple[int, str]]:
    """Yield everybody's number and id, in the order of the numbers."""
    after = 0
    while rows := connection.execute(SELECT_IDS_AFTER, {"after": after, "limit": ROWS_AT_ONCE}).fetchall():
        yield from rows
        after = rows[-1][0]


def number_of(connection: sqlite3.Connection, person_id: str) -> int | None:
    """Return the number of the person of that id, or of whom that id is an alias."""
    row = connection.execute(SELECT_NUMBER, {"person_id": person_id}).fetchone()
    if row is None:
        row = connection.execute(SELECT_ALIASED, {"alias": person_id}).fetchone()
    return None if row is None else int(row[0])


def list_of(connection: sqlite3.Connection, number: int) -> int | None:
    """Return the number of the list that the person of that number is in."""
    row = connection.execute(SELECT_LIST_OF_PERSON, {"number": number}).fetchone()
    return None if row is None else int(row[0])


def person_id_of(connection: sqlite3.Connection, number: int | None) -> str | None:
    """Return the id of the person of that number."""
    row = None if number is None else connection.execute(SELECT_PERSON_ID, {"number": number}).fetchone()
    return None if row is None else str(row[0])


def insert_person(transaction: sqlite3.Connection, person_id: str, list_number: int, columns: Mapping[str, Any]) -> int:
    """Write a person as another box has them; return the number."""
    values = {name: columns.get(name) for name in COLUMNS} | {"person_id": person_id, "list_number": list_number}
    number = transaction.execute(INSERT_RECORD, values).lastrowid
    assert number is not None, "an INSERT of one row has a rowid"
    return number


def update_person(transaction: sqlite3.Connection, number: int, columns: Mapping[str, Any]) -> None:
    """Write what another box has of the person; their list is not touched."""
    transaction.execute(UPDATE_RECORD, {name: columns.get(name) for name in COLUMNS} | {"number": number})


def shared(known: KnownTemplate, picture: bytes | None = None) -> SharedTemplate:
    """Return the template as it travels."""
    template = known.template
    vector = template.embedding.vector.astype("<f4").tobytes()
    cohort_similarity = float(template.embedding.cohort_similarity)
    return SharedTemplate(
        template.pack_id, vector, cohort_similarity, float(template.quality), template.created_ms, picture
    )


def stored(template: SharedTemplate, picture: str | None) -> StoredTemplate:
    """Return the template as it is kept, with its picture's name."""
    embedding = Embedding(np.frombuffer(template.vector, "<f4"), template.cohort_similarity)
    return StoredTemplate(embedding, template.pack_id, template.quality, template.created_ms, picture)


def shared_rejections(connection: sqlite3.Connection, number: int) -> list[SharedRejection]:
    """Return what is not the person of that number, as it travels."""
    return [
        SharedRejection(
            one.sighting_id,
            person_id_of(connection, one.sighted),
            one.pack_id,
            one.embedding.vector.astype("<f4").tobytes(),
            float(one.embedding.cohort_similarity),
            one.created_ms,
        )
        for one in rejections.negatives(connection, number)
    ]


def insert_rejection(transaction: sqlite3.Connection, number: int, rejection: SharedRejection) -> None:
    """Write a rejection of the person, if it is not there."""
    if rejections.find(transaction, number, rejection.sighting_id) is None:
        sighted = None if rejection.sighted is None else number_of(transaction, rejection.sighted)
        embedding = Embedding(np.frombuffer(rejection.vector, "<f4"), rejection.cohort_similarity)
        negative = Negative(rejection.sighting_id, sighted, rejection.pack_id, embedding, rejection.created_ms)
        rejections.insert(transaction, number, negative)


def known_templates(connection: sqlite3.Connection, number: int) -> list[KnownTemplate]:
    """Return the intact templates of the person of that number."""
    person_id = person_id_of(connection, number)
    return [] if person_id is None else persons.known_templates(connection, person_id)


def is_picture(connection: sqlite3.Connection, name: str) -> bool:
    """Whether a template has the picture of that name."""
    return connection.execute(SELECT_PICTURE, {"picture": name}).fetchone() is not None


# --- lists ---


def main_number(connection: sqlite3.Connection) -> int:
    """Return the number of the main list."""
    return int(connection.execute(SELECT_MAIN_NUMBER).fetchone()[0])


def list_number(connection: sqlite3.Connection, list_id: str) -> int | None:
    """Return the number of that list; None if there is none."""
    if list_id == MAIN_LIST:
        return main_number(connection)
    row = connection.execute(SELECT_LIST_NUMBER, {"list_id": list_id}).fetchone()
    return None if row is None else int(row[0])


def every_list(connection: sqlite3.Connection) -> Iterator[tuple[str, str, int]]:
    """Yield id, name and time of every list but the main one."""
    after = 0
    while rows := connection.execute(SELECT_LISTS_AFTER, {"after": after, "limit": ROWS_AT_ONCE}).fetchall():
        yield from ((list_id, name, created_ms) for _, list_id, name, created_ms in rows)
        after = rows[-1][0]


# --- what is remembered of the fleet ---


def position(connection: sqlite3.Connection) -> int | None:
    """Return the stream's position; UNSEEDED: there is none yet; None: not in a fleet."""
    row = connection.execute(SELECT_POSITION).fetchone()
    return None if row is None else int(row[0])


def has_position(connection: sqlite3.Connection) -> bool:
    """Whether the box is in a fleet."""
    return position(connection) is not None


def set_position(transaction: sqlite3.Connection, value: int) -> None:
    """Note the position."""
    transaction.execute(INSERT_POSITION, {"position": value})


def serial_of(connection: sqlite3.Connection, origin: str) -> int:
    """Return the serial of the origin's last operation that was applied, 0 if there is none."""
    row = connection.execute(SELECT_SERIAL, {"origin": origin}).fetchone()
    return 0 if row is None else int(row[0])


def note_serial(transaction: sqlite3.Connection, origin: str, serial: int) -> None:
    """Note that this operation of the origin, and all before it, have been applied."""
    transaction.execute(INSERT_SERIAL, {"origin": origin, "serial": serial})


def every_origin(connection: sqlite3.Connection) -> Iterator[tuple[str, int]]:
    """Yield the origins and how far they have been applied."""
    after = ""
    while rows := connection.execute(SELECT_ORIGINS_AFTER, {"after": after, "limit": ROWS_AT_ONCE}).fetchall():
        yield from rows
        after = rows[-1][0]


def is_buried(connection: sqlite3.Connection, id_: str) -> bool:
    """Whether the person or list of that id was erased."""
    return connection.execute(SELECT_TOMBSTONE, {"digest": digest_of(id_)}).fetchone() is not None


def bury(transaction: sqlite3.Connection, ids: Iterable[str]) -> None:
    """Remember for ever that these persons or lists were erased."""
    transaction.executemany(INSERT_TOMBSTONE, [{"digest": digest_of(id_)} for id_ in ids])


def bury_digests(transaction: sqlite3.Connection, digests: Iterable[bytes]) -> None:
    """Take over what another box remembers of those who were erased."""
    transaction.executemany(INSERT_TOMBSTONE, [{"digest": digest} for digest in digests])


def every_tombstone(connection: sqlite3.Connection) -> Iterator[list[bytes]]:
    """Yield what is remembered of those who were erased, some at a time."""
    after = b""
    while rows := connection.execute(SELECT_TOMBSTONES_AFTER, {"after": after, "limit": ROWS_AT_ONCE}).fetchall():
        yield [digest for (digest,) in rows]
        after = rows[-1][0]


def parted(digests: bytes) -> Iterator[bytes]:
    """Yield the digests that were put one behind the other."""
    yield from (digests[start : start + KEY_BYTES] for start in range(0, len(digests), KEY_BYTES))


def aliases_of(connection: sqlite3.Connection, number: int) -> list[str]:
    """Return the other ids of the person of that number."""
    return [alias for (alias,) in connection.execute(SELECT_ALIASES_OF, {"person": number})]


def is_alias(connection: sqlite3.Connection, id_: str) -> bool:
    """Whether that is another id of somebody."""
    return connection.execute(SELECT_ALIASED, {"alias": id_}).fetchone() is not None


def add_aliases(transaction: sqlite3.Connection, aliases: Sequence[str], number: int) -> None:
    """Let these ids be others of the person's."""
    transaction.executemany(INSERT_ALIAS, [{"alias": one, "person": number} for one in aliases])


def newcomers_after(connection: sqlite3.Connection, sequence: int) -> Iterator[Newcomer]:
    """Yield who was added behind that position, in the stream's order."""
    after = sequence
    while rows := connection.execute(SELECT_NEWCOMERS_AFTER, {"after": after, "limit": ROWS_AT_ONCE}).fetchall():
        yield from (Newcomer(*row) for row in rows)
        after = rows[-1][0]


def note_newcomer(transaction: sqlite3.Connection, newcomer: Newcomer) -> None:
    """Remember who was added at that position."""
    columns = {
        "sequence": newcomer.sequence,
        "person": newcomer.person,
        "origin": newcomer.origin,
        "pack": newcomer.pack_id,
        "vector": newcomer.vector,
        "cohort_similarity": newcomer.cohort_similarity,
    }
    transaction.execute(INSERT_NEWCOMER, columns)


def forget_newcomers(transaction: sqlite3.Connection, last: int) -> None:
    """Let go of those who were added at that position and before."""
    transaction.execute(DELETE_NEWCOMERS, {"last": last})


def note_leftover(transaction: sqlite3.Connection, sequence: int) -> None:
    """Remember that the stream may hold, before that place, more of what was erased at it."""
    transaction.execute(INSERT_LEFTOVER, {"sequence": sequence})


def has_leftovers(connection: sqlite3.Connection, last: int) -> bool:
    """Whether there are any up to that place."""
    return connection.execute(SELECT_LEFTOVER, {"last": last}).fetchone() is not None


def forget_leftovers(transaction: sqlite3.Connection, last: int) -> None:
    """Let go of those up to that place."""
    transaction.execute(DELETE_LEFTOVERS, {"last": last})


def take_over(transaction: sqlite3.Connection, number: int, former: int) -> None:
    """Let what the fleet knows of the person numbered `former` be the other's."""
    columns = {"person": number, "former": former}
    transaction.execute(UPDATE_ALIASES, columns)
    transaction.execute(UPDATE_NEWCOMERS, columns)
