"""Rows of persons and templates. Every function takes a connection; those that write take a transaction's."""

from __future__ import annotations

import json
import sqlite3
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edge.gallery import traces
from edge.types import Person, Pose, Template, Vector

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
DELETE_PERSON = "DELETE FROM persons WHERE number = :number"

INSERT_TEMPLATE = (
    "INSERT INTO templates (person, pack, vector, cohort_similarity, quality, created_ms, picture, crc32)"
    " VALUES (:person, :pack, :vector, :cohort_similarity, :quality, :created_ms, :picture, 0)"
)
UPDATE_TEMPLATE_CRC = "UPDATE templates SET crc32 = :crc32 WHERE id = :id"
SELECT_TEMPLATES_OF_PERSON = "SELECT id, vector, picture FROM templates WHERE person = :person"
SELECT_SIGHTING_PICTURES_OF_PERSON = "SELECT picture FROM sightings WHERE person = :person AND picture IS NOT NULL"
DELETE_TEMPLATES_OF_PERSON = "DELETE FROM templates WHERE person = :person"

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

SELECT_PICTURES = "SELECT picture FROM templates WHERE picture >= :first AND picture < :end"
UPDATE_PICTURE_MISSING = "UPDATE templates SET picture = NULL WHERE picture = :picture"


@dataclass(frozen=True)
class TemplateRow:
    """A template as its row has it; `is_intact`: what is written is what was meant."""

    list_number: int
    id: int
    person: int
    pack_id: str
    vector: Vector
    cohort_similarity: float
    is_intact: bool


@dataclass(frozen=True)
class Removed:
    """What went with a person or a replacement: template ids, names of pictures to unlink, and what to look for."""

    templates: tuple[int, ...] = ()
    pictures: tuple[str, ...] = ()
    traces: tuple[bytes, ...] = ()
    """Bytes that must not be found in the database any more."""


def find(connection: sqlite3.Connection, list_number: int, person_id: str) -> tuple[int, Person] | None:
    """Return the person's number and record, None if the list has no such person."""
    row = connection.execute(SELECT_BY_ID, {"person_id": person_id, "list": list_number}).fetchone()
    return None if row is None else (row[0], _person(row))


def by_number(connection: sqlite3.Connection, number: int) -> Person | None:
    """Return the record of that number, None if there is none (any more)."""
    row = connection.execute(SELECT_BY_NUMBER, {"number": number}).fetchone()
    return None if row is None else _person(row)


def insert(transaction: sqlite3.Connection, list_number: int, person: Person) -> int:
    """Write a new person; return the number."""
    columns = {"person_id": person.person_id, "list": list_number, "created_ms": person.created_ms}
    return _inserted(transaction, INSERT_PERSON, columns | _columns(person))


def update(transaction: sqlite3.Connection, number: int, person: Person) -> None:
    """Write what a replacement changes; the id, the list and the time of creation stay."""
    transaction.execute(UPDATE_PERSON, {"number": number} | _columns(person))


def delete(transaction: sqlite3.Connection, number: int) -> Removed:
    """Delete the person with their templates and sightings."""
    removed = _templates_of(transaction, number)
    sightings = transaction.execute(SELECT_SIGHTING_PICTURES_OF_PERSON, {"person": number}).fetchall()
    transaction.execute(DELETE_PERSON, {"number": number})
    return replace(removed, pictures=(*removed.pictures, *(name for (name,) in sightings)))


def insert_template(
    transaction: sqlite3.Connection, person: int, template: Template, picture: str | None, now_ms: int
) -> int:
    """Write a template of the person; return its id."""
    vector = template.embedding.vector.astype("<f4").tobytes()
    cohort_similarity = float(template.embedding.cohort_similarity)
    columns = {
        "person": person,
        "pack": template.pack_id,
        "vector": vector,
        "cohort_similarity": cohort_similarity,
        "quality": float(template.quality),
        "created_ms": now_ms,
        "picture": picture,
    }
    id_ = _inserted(transaction, INSERT_TEMPLATE, columns)
    checksum = _checksum(id_, person, template.pack_id, cohort_similarity, vector)
    transaction.execute(UPDATE_TEMPLATE_CRC, {"id": id_, "crc32": checksum})  # the id is part of what is summed
    return id_


def delete_templates(transaction: sqlite3.Connection, person: int) -> Removed:
    """Delete the person's templates, the person stays."""
    removed = _templates_of(transaction, person)
    transaction.execute(DELETE_TEMPLATES_OF_PERSON, {"person": person})
    return removed


def templates(connection: sqlite3.Connection, list_number: int | None = None) -> Iterator[TemplateRow]:
    """Yield the templates of a list, or (a scan) of all lists."""
    if list_number is None:
        rows = connection.execute(SELECT_EVERY_TEMPLATE)
    else:
        rows = connection.execute(SELECT_TEMPLATES_OF_LIST, {"list": list_number})
    for list_, id_, person, pack_id, blob, cohort_similarity, crc32 in rows:
        is_intact = len(blob) % 4 == 0 and crc32 == _checksum(id_, person, pack_id, cohort_similarity, blob)
        vector = np.frombuffer(blob, "<f4") if is_intact else np.zeros(0, np.float32)
        yield TemplateRow(list_, id_, person, pack_id, vector, cohort_similarity, is_intact)


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


def _checksum(id_: int, person: int, pack_id: str, cohort_similarity: float, vector: bytes) -> int:
    """CRC32 of all that decides whom a template stands for: SQLite does not notice a flipped bit in a row."""
    head = struct.pack("<qqd", id_, person, cohort_similarity)
    return zlib.crc32(vector, zlib.crc32(pack_id.encode(), zlib.crc32(head)))
