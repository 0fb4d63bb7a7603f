"""Rows of persons and templates. Every function takes a connection; those that write take a transaction's."""

from __future__ import annotations

import json
import sqlite3
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from edge.errors import ItemNotFound, Mistake
from edge.gallery import traces
from edge.types import Embedding, Person, Pose, StoredTemplate, Template

# A person's picture is that of their best template that has one.
_SELECT = (
    "SELECT persons.number, persons.person_id, lists.list_id, persons.group_id, persons.source_id,"
    " persons.created_ms, persons.updated_ms, persons.fields, persons.features,"
    " persons.yaw_degrees, persons.pitch_degrees, persons.roll_degrees, persons.score,"
    " (SELECT picture FROM templates WHERE person = persons.number AND picture IS NOT NULL"
    "  ORDER BY +quality DESC, +id LIMIT 1)"
    " FROM persons JOIN lists ON lists.number = persons.list"
)
SELECT_BY_ID = f"{_SELECT} WHERE persons.person_id = :person_id AND persons.list = :list"
SELECT_BY_NUMBER = f"{_SELECT} WHERE persons.number = :number"
SELECT_BY_ID_ALONE = f"{_SELECT} WHERE persons.person_id = :person_id"
_ALIASED = "(SELECT person FROM aliases WHERE alias = :person_id)"
SELECT_BY_ALIAS_ALONE = f"{_SELECT} WHERE persons.number = {_ALIASED}"
SELECT_BY_ALIAS = f"{_SELECT} WHERE persons.number = {_ALIASED} AND persons.list = :list"
SELECT_PERSONS_AFTER = (
    f"{_SELECT} WHERE persons.list = :list AND persons.number > :after ORDER BY persons.number LIMIT :limit"
)

SELECT_FIELDS_AFTER = "SELECT number, fields FROM persons WHERE number > :after ORDER BY number LIMIT :limit"
SELECT_FIELDS_OF_LIST_AFTER = (
    "SELECT number, fields FROM persons WHERE list = :list AND number > :after ORDER BY number LIMIT :limit"
)

INSERT_PERSON = (
    "INSERT INTO persons (person_id, list, group_id, source_id, created_ms, updated_ms, fields, features,"
    " yaw_degrees, pitch_degrees, roll_degrees, score)"
    " VALUES (:person_id, :list, :group_id, :source_id, :created_ms, :updated_ms, :fields, :features,"
    " :yaw_degrees, :pitch_degrees, :roll_degrees, :score)"
)
UPDATE_PERSON = (
    "UPDATE persons SET group_id = :group_id, source_id = :source_id, updated_ms = :updated_ms, fields = :fields,"
    " features = :features, yaw_degrees = :yaw_degrees, pitch_degrees = :pitch_degrees,"
    " roll_degrees = :roll_degrees, score = :score WHERE number = :number"
)
UPDATE_PERSON_LIST = "UPDATE persons SET list = :list WHERE number = :number"
DELETE_PERSON = "DELETE FROM persons WHERE number = :number"

INSERT_TEMPLATE = (
    "INSERT INTO templates (person, pack, vector, cohort_similarity, quality, created_ms, picture, crc32)"
    " VALUES (:person, :pack, :vector, :cohort_similarity, :quality, :created_ms, :picture, 0)"
)
UPDATE_TEMPLATE_CRC = "UPDATE templates SET crc32 = :crc32 WHERE id = :id"
SELECT_TEMPLATES_OF_PERSON = "SELECT id, vector, picture FROM templates WHERE person = :person"
SELECT_KNOWN_TEMPLATES = (
    "SELECT templates.id, templates.person, templates.pack, templates.vector, templates.cohort_similarity,"
    " templates.crc32, templates.quality, templates.created_ms, templates.picture"
    " FROM templates WHERE templates.person = coalesce("
    "(SELECT number FROM persons WHERE person_id = :person_id), (SELECT person FROM aliases WHERE alias = :person_id))"
)
SELECT_SIGHTINGS_OF_PERSON = (
    "SELECT picture, vector FROM sightings WHERE person = :person AND (picture IS NOT NULL OR vector IS NOT NULL)"
)
SELECT_REJECTED_VECTORS = "SELECT vector FROM rejections WHERE person = :person OR sighted = :person"
SELECT_HAS_SHED = "SELECT has_shed FROM persons WHERE number = :person"
UPDATE_HAS_SHED = "UPDATE persons SET has_shed = 1 WHERE number = :person"
DELETE_TEMPLATES_OF_PERSON = "DELETE FROM templates WHERE person = :person"
DELETE_TEMPLATE = "DELETE FROM templates WHERE id = :id"
UPDATE_PICTURES_DROPPED = "UPDATE templates SET picture = NULL WHERE person = :person AND picture IS NOT NULL"
UPDATE_SIGHTINGS_PERSON = "UPDATE sightings SET person = :person WHERE person = :former"

_SELECT_TEMPLATES = (
    "SELECT persons.list, templates.id, templates.person, templates.pack, templates.vector,"
    " templates.cohort_similarity, templates.crc32"
)
SELECT_EVERY_TEMPLATE = f"{_SELECT_TEMPLATES} FROM templates CROSS JOIN persons ON persons.number = templates.person"
"""A scan: at a start only."""
SELECT_TEMPLATES_OF_LIST = (
    f"{_SELECT_TEMPLATES} FROM persons CROSS JOIN templates ON templates.person = persons.number"
    " WHERE persons.list = :list"
)

SELECT_ROWS_OF_PERSON = (
    f"{_SELECT_TEMPLATES} FROM persons CROSS JOIN templates ON templates.person = persons.number"
    " WHERE persons.number = :person"
)

SELECT_PICTURES = "SELECT picture FROM templates WHERE picture >= :first AND picture < :end"
UPDATE_PICTURE_MISSING = "UPDATE templates SET picture = NULL WHERE picture = :picture"


class TemplateRow(NamedTuple):
    """A template as its row has it; `is_intact`: what is written is what was meant. A tuple: a start makes 100,000."""

    list_number: int
    id: int
    person: int
    pack_id: str
    vector: bytes
    """Little-endian float32."""
    cohort_similarity: float
    is_intact: bool


@dataclass(frozen=True)
class KnownTemplate:
    """A template with its id."""

    id: int
    template: StoredTemplate


@dataclass(frozen=True)
class Removed:
    """What went with a person or a replacement: template ids, names of pictures to unlink, and what to look for."""

    templates: tuple[int, ...] = ()
    pictures: tuple[str, ...] = ()
    traces: tuple[bytes, ...] = ()
    """Bytes that must not be found in the database any more."""
    are_all: bool = True
    """False: rows of which nobody knows the bytes have gone before."""

    def __add__(self, other: Removed) -> Removed:
        """Return both together."""
        return Removed(
            self.templates + other.templates,
            self.pictures + other.pictures,
            self.traces + other.traces,
            self.are_all and other.are_all,
        )


def find(connection: sqlite3.Connection, list_number: int, person_id: str) -> tuple[int, Person] | None:
    """Return the person's number and record, None if the list has no such person."""
    columns = {"person_id": person_id, "list": list_number}
    row = (
        connection.execute(SELECT_BY_ID, columns).fetchone() or connection.execute(SELECT_BY_ALIAS, columns).fetchone()
    )
    return None if row is None else (row[0], _person(row))


def the_person(
    connection: sqlite3.Connection, list_number: int, list_id: str, person_id: str, field: str = "person_id"
) -> tuple[int, Person]:
    """Return the person's number and record. Raises ItemNotFound, of that field of the request."""
    found = find(connection, list_number, person_id)
    if found is None:
        raise ItemNotFound(Mistake(field, f"no person {person_id} in the list {list_id}"))
    return found


def by_number(connection: sqlite3.Connection, number: int) -> Person | None:
    """Return the record of that number, None if there is none (any more)."""
    row = connection.execute(SELECT_BY_NUMBER, {"number": number}).fetchone()
    return None if row is None else _person(row)


def find_anywhere(connection: sqlite3.Connection, person_id: str) -> tuple[int, Person] | None:
    """Return the person's number and record, whichever list they are in, None if there is none of that id."""
    columns = {"person_id": person_id}
    row = connection.execute(SELECT_BY_ID_ALONE, columns).fetchone()
    row = row or connection.execute(SELECT_BY_ALIAS_ALONE, columns).fetchone()
    return None if row is None else (row[0], _person(row))


def persons_after(
    connection: sqlite3.Connection, list_number: int, number: int, limit: int
) -> list[tuple[int, Person]]:
    """Return up to `limit` persons of the list with greater numbers, with their numbers, in that order."""
    columns = {"list": list_number, "after": number, "limit": limit}
    return [(row[0], _person(row)) for row in connection.execute(SELECT_PERSONS_AFTER, columns)]


def fields_after(
    connection: sqlite3.Connection, list_number: int | None, number: int, limit: int
) -> list[tuple[int, str]]:
    """Return number and fields (as they are stored: JSON in ASCII) of up to `limit` persons of greater numbers.

    Of a list, or of all where it is None; in the order of their numbers.
    """
    columns = {"list": list_number, "after": number, "limit": limit}
    statement = SELECT_FIELDS_AFTER if list_number is None else SELECT_FIELDS_OF_LIST_AFTER
    return connection.execute(statement, columns).fetchall()


def insert(transaction: sqlite3.Connection, list_number: int, person: Person) -> int:
    """Write a new person; return the number."""
    columns = {"person_id": person.person_id, "list": list_number, "created_ms": person.created_ms}
    return _inserted(transaction, INSERT_PERSON, columns | _columns(person))


def update(transaction: sqlite3.Connection, number: int, person: Person) -> None:
    """Write what can change of a person; the id, the list and the time of creation stay."""
    transaction.execute(UPDATE_PERSON, {"number": number} | _columns(person))


def move(transaction: sqlite3.Connection, number: int, list_number: int) -> None:
    """Put the person into another list."""
    transaction.execute(UPDATE_PERSON_LIST, {"number": number, "list": list_number})


def drop_pictures(transaction: sqlite3.Connection, number: int) -> Removed:
    """Let go of the person's pictures; their templates stay."""
    names = _templates_of(transaction, number).pictures
    transaction.execute(UPDATE_PICTURES_DROPPED, {"person": number})
    return Removed(pictures=names, traces=tuple(name.encode() for name in names))


def delete(transaction: sqlite3.Connection, number: int) -> Removed:
    """Delete the person with their templates, sightings and rejections, and those made of their sightings."""
    removed = _templates_of(transaction, number)
    sightings = transaction.execute(SELECT_SIGHTINGS_OF_PERSON, {"person": number}).fetchall()
    rejected = transaction.execute(SELECT_REJECTED_VECTORS, {"person": number}).fetchall()
    is_shed = has_shed(transaction, number)
    transaction.execute(DELETE_PERSON, {"number": number})
    names = [name for name, _ in sightings if name is not None]
    vectors = {vector for _, vector in sightings if vector is not None} | {vector for (vector,) in rejected}
    needles = [part for vector in vectors for part in traces.slices(vector)]
    return removed + Removed((), tuple(names), (*needles, *(name.encode() for name in names)), not is_shed)


def note_shed(transaction: sqlite3.Connection, number: int) -> None:
    """Remember that a row with a vector has gone whose bytes nobody looks for now."""
    transaction.execute(UPDATE_HAS_SHED, {"person": number})


def has_shed(connection: sqlite3.Connection, number: int) -> bool:
    """Whether rows with vectors of the person's have gone of which nobody knows the bytes."""
    return bool(connection.execute(SELECT_HAS_SHED, {"person": number}).fetchone()[0])


def insert_template(transaction: sqlite3.Connection, person: int, template: StoredTemplate) -> int:
    """Write a template of the person; return its id."""
    vector = template.embedding.vector.astype("<f4").tobytes()
    cohort_similarity = float(template.embedding.cohort_similarity)
    columns = {
        "person": person,
        "pack": template.pack_id,
        "vector": vector,
        "cohort_similarity": cohort_similarity,
        "quality": float(template.quality),
        "created_ms": template.created_ms,
        "picture": template.picture,
    }
    id_ = _inserted(transaction, INSERT_TEMPLATE, columns)
    crc32 = checksum(id_, person, template.pack_id, cohort_similarity, vector)
    transaction.execute(UPDATE_TEMPLATE_CRC, {"id": id_, "crc32": crc32})  # the id is part of what is summed
    return id_


def stored(template: Template, picture: str | None, created_ms: int) -> StoredTemplate:
    """Return the template as it is kept: its picture's name for the picture."""
    return StoredTemplate(template.embedding, template.pack_id, template.quality, created_ms, picture)


def delete_templates(transaction: sqlite3.Connection, person: int) -> Removed:
    """Delete the person's templates, the person stays."""
    removed = _templates_of(transaction, person)
    transaction.execute(DELETE_TEMPLATES_OF_PERSON, {"person": person})
    return removed


def known_templates(connection: sqlite3.Connection, person_id: str) -> list[KnownTemplate]:
    """Return the person's intact templates, of whatever pack, in the order in which they were written."""
    known: list[KnownTemplate] = []
    for id_, person, pack_id, blob, cohort_similarity, crc32, quality, created_ms, picture in connection.execute(
        SELECT_KNOWN_TEMPLATES, {"person_id": person_id}
    ):
        if crc32 == checksum(id_, person, pack_id, cohort_similarity, blob) and len(blob) % 4 == 0:
            embedding = Embedding(np.frombuffer(blob, "<f4"), cohort_similarity)
            known.append(KnownTemplate(id_, StoredTemplate(embedding, pack_id, quality, created_ms, picture)))
    return sorted(known, key=lambda one: one.id)


def delete_template(transaction: sqlite3.Connection, known: KnownTemplate) -> Removed:
    """Delete one template."""
    transaction.execute(DELETE_TEMPLATE, {"id": known.id})
    names = () if known.template.picture is None else (known.template.picture,)
    vector = traces.slices(known.template.embedding.vector.astype("<f4").tobytes())
    return Removed((known.id,), names, (*vector, *(name.encode() for name in names)))


def take_over_sightings(transaction: sqlite3.Connection, person: int, former: int) -> None:
    """Let the sightings of the person numbered `former` be those of `person`."""
    transaction.execute(UPDATE_SIGHTINGS_PERSON, {"person": person, "former": former})


def templates(
    connection: sqlite3.Connection, *, list_number: int | None = None, person: int | None = None
) -> Iterator[TemplateRow]:
    """Yield the templates of a list, or of the person of that number, or (a scan) of all lists."""
    if person is not None:
        rows = connection.execute(SELECT_ROWS_OF_PERSON, {"person": person})
    elif list_number is not None:
        rows = connection.execute(SELECT_TEMPLATES_OF_LIST, {"list": list_number})
    else:
        rows = connection.execute(SELECT_EVERY_TEMPLATE)
    for list_, id_, person, pack_id, blob, cohort_similarity, crc32 in rows:
        is_intact = crc32 == checksum(id_, person, pack_id, cohort_similarity, blob)
        yield TemplateRow(list_, id_, person, pack_id, blob, cohort_similarity, is_intact)


def pictures(connection: sqlite3.Connection, prefix: str) -> list[str]:
    """Return the names of the templates' pictures that begin with the prefix."""
    return [name for (name,) in connection.execute(SELECT_PICTURES, {"first": prefix, "end": prefix + "g"})]


def forget_pictures(transaction: sqlite3.Connection, names: Iterable[str]) -> None:
    """Note that these files are missing."""
    transaction.executemany(UPDATE_PICTURE_MISSING, [{"picture": name} for name in names])


def _templates_of(connection: sqlite3.Connection, person: int) -> Removed:
    rows = connection.execute(SELECT_TEMPLATES_OF_PERSON, {"person": person}).fetchall()
    pictures = tuple(name for _, _, name in rows if name is not None)
    vectors = [part for _, vector, _ in rows for part in traces.slices(vector)]
    return Removed(tuple(id_ for id_, _, _ in rows), pictures, (*vectors, *(name.encode() for name in pictures)))


def _inserted(transaction: sqlite3.Connection, statement: str, columns: Mapping[str, object]) -> int:
    number = transaction.execute(statement, columns).lastrowid
    assert number is not None, "an INSERT of one row has a rowid"
    return number


def _columns(person: Person) -> dict[str, object]:
    pose = person.pose
    return {
        "group_id": person.group_id,
        "source_id": person.source_id,
        "updated_ms": person.updated_ms,
        "fields": json.dumps(person.fields),
        "features": json.dumps([dict(feature) for feature in person.features]),
        "yaw_degrees": pose and pose.yaw_degrees,
        "pitch_degrees": pose and pose.pitch_degrees,
        "roll_degrees": pose and pose.roll_degrees,
        "score": person.score,
    }


def _person(row: tuple[Any, ...]) -> Person:
    _, person_id, list_id, group_id, source_id, created, updated, fields, features, yaw, pitch, roll, score, picture = (
        row
    )
    return Person(
        person_id=person_id,
        list_id=list_id,
        group_id=group_id,
        source_id=source_id,
        created_ms=created,
        updated_ms=updated,
        fields=tuple(json.loads(fields)),
        features=tuple(json.loads(features)),
        pose=None if yaw is None else Pose(yaw, pitch, roll),
        score=score,
        picture=picture,
    )


def checksum(id_: int, person: int, pack_id: str, cohort_similarity: float, vector: bytes) -> int:
    """Return the CRC32 of all that decides whom a vector speaks of: SQLite does not notice a flipped bit in a row."""
    head = struct.pack("<qqd", id_, person, cohort_similarity)
    return zlib.crc32(vector, zlib.crc32(head + pack_id.encode()))
