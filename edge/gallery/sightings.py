"""Rows of sightings. Every function takes a connection; those that write, a transaction's."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from edge.types import Box, Embedding, Reason, Sighting, Verdict

# The person must still be there: whoever is erased while a sighting of them waits does not enter the history again.
INSERT_SIGHTING = (
    "INSERT INTO sightings (sighting_id, time_ms, list, person, source_id, group_id, verdict, score, threshold,"
    " box, reasons, picture, picture_bytes, pack, vector, cohort_similarity)"
    " SELECT :sighting_id, :time_ms, lists.number, persons.number, :source_id, :group_id, :verdict, :score, :threshold,"
    " :box, :reasons, :picture, :picture_bytes, :pack, :vector, :cohort_similarity"
    " FROM lists LEFT JOIN persons ON persons.number = coalesce("
    "(SELECT number FROM persons WHERE person_id = :person_id), (SELECT person FROM aliases WHERE alias = :person_id))"
    " WHERE lists.list_id = :list_id AND (:person_id IS NULL OR persons.number IS NOT NULL)"
)

# One statement for each index: the condition that narrows most is the one that SQLite can see, the others filter.
_COLUMNS = (
    "SELECT sightings.id, sightings.sighting_id, sightings.time_ms, lists.list_id, sightings.source_id,"
    " sightings.group_id, sightings.verdict, persons.person_id, sightings.score, sightings.threshold, sightings.box,"
    " sightings.reasons, sightings.picture"
)
_FROM = (
    " FROM sightings CROSS JOIN lists ON lists.number = sightings.list"
    " LEFT JOIN persons ON persons.number = sightings.person WHERE "
)
_SELECT = f"{_COLUMNS}{_FROM}"
_SELECT_FACES = f"{_COLUMNS}, sightings.pack, sightings.vector, sightings.cohort_similarity{_FROM}"
_PAGE = (
    "sightings.time_ms BETWEEN :first_ms AND :last_ms"
    " AND (sightings.time_ms < :before_ms OR sightings.id < :before_id)"
    " ORDER BY sightings.time_ms DESC, sightings.id DESC LIMIT :limit"
)
_OF_LIST = "(:list IS NULL OR sightings.list = :list) AND "
_OF_SOURCE = "(:source_id IS NULL OR sightings.source_id = :source_id) AND "
SELECT_BY_PERSON = f"{_SELECT}sightings.person = :person AND {_OF_LIST}{_OF_SOURCE}{_PAGE}"
SELECT_BY_SOURCE = f"{_SELECT}sightings.source_id = :source_id AND {_OF_LIST}{_PAGE}"
SELECT_BY_LIST = f"{_SELECT}sightings.list = :list AND {_PAGE}"
SELECT_BY_TIME = f"{_SELECT}{_PAGE}"
SELECT_WRITTEN_AFTER = (
    f"{_SELECT}sightings.id > :after"
    " AND (:list IS NULL OR sightings.list = :list) AND (:source_id IS NULL OR sightings.source_id = :source_id)"
    " ORDER BY sightings.id LIMIT :limit"
)
SELECT_LAST_NUMBER = "SELECT coalesce(max(id), 0) FROM sightings"
SELECT_BY_ID = f"{_SELECT}sightings.sighting_id = :sighting_id"
SELECT_FACE_BY_ID = f"{_SELECT_FACES}sightings.sighting_id = :sighting_id"
SELECT_OF_NOBODY = (
    f"{_SELECT_FACES}sightings.person IS NULL AND sightings.vector IS NOT NULL AND +sightings.pack = :pack"
    " AND sightings.time_ms BETWEEN :first_ms AND :last_ms"
    " AND (:list IS NULL OR +sightings.list = :list) AND (:source_id IS NULL OR +sightings.source_id = :source_id)"
    " ORDER BY sightings.time_ms DESC LIMIT :limit"
)
SELECT_VECTORS_OF_PERSON = (
    "SELECT sighting_id, pack, vector, cohort_similarity FROM sightings WHERE person = :person AND vector IS NOT NULL"
)
SELECT_SAME_VECTOR = "SELECT 1 FROM sightings WHERE person = :person AND vector = :vector LIMIT 1"
UPDATE_SIGHTING_PERSON = "UPDATE sightings SET person = :person WHERE sighting_id = :sighting_id AND person IS :former"
SELECT_PERSON_NUMBER = (
    "SELECT coalesce((SELECT number FROM persons WHERE person_id = :person_id),"
    " (SELECT person FROM aliases WHERE alias = :person_id))"
)

SELECT_OLDEST = "SELECT id, time_ms, picture, picture_bytes FROM sightings ORDER BY time_ms, id LIMIT :limit"
SELECT_OLDEST_PICTURES = (
    "SELECT id, time_ms, picture, picture_bytes FROM sightings"
    " WHERE picture IS NOT NULL AND (time_ms, id) > (:time_ms, :id) ORDER BY time_ms, id LIMIT :limit"
)
UPDATE_TIMES_AHEAD = "UPDATE sightings SET time_ms = :now_ms WHERE time_ms > :latest_ms"
SELECT_KEPT_TIME = (
    "SELECT coalesce((SELECT value FROM meta WHERE key = 'history_ms'), (SELECT max(time_ms) FROM sightings), 0)"
)
INSERT_KEPT_TIME = "INSERT OR REPLACE INTO meta (key, value) VALUES ('history_ms', :now_ms)"
SELECT_PICTURE_BYTES = "SELECT value FROM meta WHERE key = 'sighting_bytes'"
UPDATE_PERSON_HAS_SHED = (
    "UPDATE persons SET has_shed = 1 WHERE has_shed = 0"
    " AND number = (SELECT person FROM sightings WHERE id = :id AND vector IS NOT NULL)"
)
SELECT_PROBE = "SELECT person, pack, vector, cohort_similarity FROM sightings WHERE sighting_id = :sighting_id"
DELETE_SIGHTING = "DELETE FROM sightings WHERE id = :id"
SELECT_PICTURES = "SELECT picture FROM sightings WHERE picture >= :first AND picture < :end"
UPDATE_PICTURE_MISSING = "UPDATE sightings SET picture = NULL, picture_bytes = 0 WHERE picture = :picture"


MAX_INTEGER = (1 << 63) - 1
"""SQLite's: larger than any time or row id."""


@dataclass(frozen=True)
class StoredSighting:
    """A sighting of the history: `sighting.picture` is left out, `picture` is its stored name."""

    number: int
    """Rises with the order of writing; part of a page's cursor."""
    sighting: Sighting
    picture: str | None


@dataclass(frozen=True)
class Sighted:
    """What a sighting says of its face: whom it was taken for (a person's number), and the vector."""

    person: int | None
    pack_id: str | None
    embedding: Embedding | None
    """None (and no pack): recorded by a release that did not keep it."""


@dataclass(frozen=True)
class OldSighting:
    """What pruning needs to know of a sighting."""

    number: int
    time_ms: int
    picture: str | None
    picture_bytes: int


def insert(transaction: sqlite3.Connection, sighting: Sighting, picture: str | None) -> bool:
    """Write the sighting; False, and nothing written, if its list or its person is gone."""
    columns = {
        "sighting_id": sighting.sighting_id,
        "time_ms": sighting.time_ms,
        "list_id": sighting.list_id,
        "person_id": sighting.person_id,
        "source_id": sighting.source_id,
        "group_id": sighting.group_id,
        "verdict": sighting.verdict.value,
        "score": sighting.score,
        "threshold": sighting.threshold,
        "box": None if sighting.box is None else json.dumps(asdict(sighting.box)),
        "reasons": json.dumps([asdict(reason) for reason in sighting.reasons]),
        "picture": picture,
        "picture_bytes": 0 if picture is None else len(sighting.picture or b""),
        "pack": sighting.pack_id,
        "vector": None if sighting.embedding is None else sighting.embedding.vector.astype("<f4").tobytes(),
        "cohort_similarity": None if sighting.embedding is None else float(sighting.embedding.cohort_similarity),
    }
    return transaction.execute(INSERT_SIGHTING, columns).rowcount > 0


def select(
    connection: sqlite3.Connection,
    *,
    person_id: str | None,
    list_number: int | None,
    source_id: str | None,
    first_ms: int,
    last_ms: int,
    before: tuple[int, int],
    limit: int,
) -> list[StoredSighting]:
    """Return sightings that meet every condition given, newest first, from before (time, number) on."""
    person = None
    if person_id is not None:
        row = connection.execute(SELECT_PERSON_NUMBER, {"person_id": person_id}).fetchone()
        if row[0] is None:
            return []  # erased, and all sightings with them
        person = row[0]
    statement = SELECT_BY_TIME
    if person is not None:
        statement = SELECT_BY_PERSON
    elif source_id is not None:
        statement = SELECT_BY_SOURCE
    elif list_number is not None:
        statement = SELECT_BY_LIST
    conditions = {
        "person": person,
        "list": list_number,
        "source_id": source_id,
        "first_ms": first_ms,
        "last_ms": min(last_ms, before[0]),
        "before_ms": before[0],
        "before_id": before[1],
        "limit": limit,
    }
    return [_stored(row) for row in connection.execute(statement, conditions)]


def written_after(
    connection: sqlite3.Connection,
    number: int,
    *,
    list_number: int | None,
    source_id: str | None,
    window: int,
    limit: int,
) -> list[StoredSighting]:
    """Return sightings that were written after the one of that number, oldest first, of the newest `window` rows."""
    (last,) = connection.execute(SELECT_LAST_NUMBER).fetchone()
    conditions = {"after": max(number, last - window), "list": list_number, "source_id": source_id, "limit": limit}
    return [_stored(row) for row in connection.execute(SELECT_WRITTEN_AFTER, conditions)]


def find(connection: sqlite3.Connection, sighting_id: str) -> StoredSighting | None:
    """Return the sighting, None if there is none of that id."""
    row = connection.execute(SELECT_BY_ID, {"sighting_id": sighting_id}).fetchone()
    return None if row is None else _stored(row)


def sighted(connection: sqlite3.Connection, sighting_id: str) -> Sighted | None:
    """Return the face of the sighting, None if there is none of that id."""
    row = connection.execute(SELECT_PROBE, {"sighting_id": sighting_id}).fetchone()
    if row is None:
        return None
    person, pack_id, vector, cohort_similarity = row
    if vector is None:
        return Sighted(person, None, None)
    return Sighted(person, pack_id, Embedding(np.frombuffer(vector, "<f4"), cohort_similarity))


def face(connection: sqlite3.Connection, sighting_id: str) -> StoredSighting | None:
    """Return the sighting with its vector (if it has one), None if there is none of that id."""
    row = connection.execute(SELECT_FACE_BY_ID, {"sighting_id": sighting_id}).fetchone()
    return None if row is None else _with_face(row)


def of_nobody(
    connection: sqlite3.Connection,
    *,
    pack_id: str,
    list_number: int | None,
    source_id: str | None,
    first_ms: int | None,
    last_ms: int | None,
    limit: int,
) -> list[StoredSighting]:
    """Return sightings of that pack that are nobody's, with their vectors, newest first."""
    conditions = {
        "pack": pack_id,
        "list": list_number,
        "source_id": source_id,
        "first_ms": -MAX_INTEGER if first_ms is None else first_ms,
        "last_ms": MAX_INTEGER if last_ms is None else last_ms,
        "limit": limit,
    }
    return [_with_face(row) for row in connection.execute(SELECT_OF_NOBODY, conditions)]


def vectors_of_person(connection: sqlite3.Connection, person: int) -> list[tuple[str, str, Embedding]]:
    """Return the id, the pack and the vector of each of the person's sightings that has one."""
    rows = connection.execute(SELECT_VECTORS_OF_PERSON, {"person": person})
    return [(id_, pack, Embedding(np.frombuffer(vector, "<f4"), cohort)) for id_, pack, vector, cohort in rows]


def has_vector(connection: sqlite3.Connection, person: int, vector: bytes) -> bool:
    """Whether a sighting of the person has that very vector."""
    return connection.execute(SELECT_SAME_VECTOR, {"person": person, "vector": vector}).fetchone() is not None


def give(transaction: sqlite3.Connection, sighting_ids: Iterable[str], person: int, former: int | None) -> None:
    """Let these sightings, of `former` (None: nobody's), be the person's."""
    columns = [{"person": person, "sighting_id": one, "former": former} for one in sighting_ids]
    transaction.executemany(UPDATE_SIGHTING_PERSON, columns)


def oldest(connection: sqlite3.Connection, limit: int) -> list[OldSighting]:
    """Return the oldest sightings, oldest first."""
    return [OldSighting(*row) for row in connection.execute(SELECT_OLDEST, {"limit": limit}).fetchall()]


def oldest_pictures(connection: sqlite3.Connection, after: OldSighting | None, limit: int) -> list[OldSighting]:
    """Return the oldest sightings that have a picture, oldest first, from after that one on."""
    last = {"time_ms": after.time_ms, "id": after.number} if after else {"time_ms": -MAX_INTEGER, "id": 0}
    return [OldSighting(*row) for row in connection.execute(SELECT_OLDEST_PICTURES, {**last, "limit": limit})]


def kept_time(connection: sqlite3.Connection) -> int:
    """Return the time that was last believed; where none was, that of the newest sighting, or 0."""
    return int(connection.execute(SELECT_KEPT_TIME).fetchone()[0])


def keep_time(transaction: sqlite3.Connection, now_ms: int) -> None:
    """Write the time that is believed."""
    transaction.execute(INSERT_KEPT_TIME, {"now_ms": now_ms})


def bring_back(transaction: sqlite3.Connection, now_ms: int, latest_ms: int) -> None:
    """Let sightings of a time after `latest_ms` be of now: the clock that stamped them was ahead, or they stay."""
    transaction.execute(UPDATE_TIMES_AHEAD, {"now_ms": now_ms, "latest_ms": latest_ms})


def picture_bytes(connection: sqlite3.Connection) -> int:
    """Return what the pictures of all sightings take."""
    return int(connection.execute(SELECT_PICTURE_BYTES).fetchone()[0])


def delete(transaction: sqlite3.Connection, old: Iterable[OldSighting]) -> None:
    """Delete these rows; of whom they were is noted that not all of their bytes are known any more."""
    old = list(old)
    transaction.executemany(UPDATE_PERSON_HAS_SHED, [{"id": one.number} for one in old])
    transaction.executemany(DELETE_SIGHTING, [{"id": one.number} for one in old])


def pictures(connection: sqlite3.Connection, prefix: str) -> list[str]:
    """Return the names of the sightings' pictures that begin with the prefix."""
    return [name for (name,) in connection.execute(SELECT_PICTURES, {"first": prefix, "end": prefix + "g"})]


def forget_pictures(transaction: sqlite3.Connection, names: Iterable[str]) -> None:
    """Note that these files are missing."""
    transaction.executemany(UPDATE_PICTURE_MISSING, [{"picture": name} for name in names])


def _stored(row: tuple[Any, ...]) -> StoredSighting:
    number, sighting_id, time_ms, list_id, source_id, group_id, verdict, person_id, score, threshold, box, reasons = (
        row[:12]
    )
    sighting = Sighting(
        sighting_id=sighting_id,
        time_ms=time_ms,
        list_id=list_id,
        source_id=source_id,
        group_id=group_id,
        verdict=Verdict(verdict),
        person_id=person_id,
        score=score,
        threshold=threshold,
        box=None if box is None else Box(**json.loads(box)),
        reasons=tuple(Reason(**reason) for reason in json.loads(reasons)),
    )
    return StoredSighting(number, sighting, row[12])


def _with_face(row: tuple[Any, ...]) -> StoredSighting:
    stored, (pack_id, vector, cohort_similarity) = _stored(row), row[13:16]
    if vector is None:
        return stored
    embedding = Embedding(np.frombuffer(vector, "<f4"), cohort_similarity)
    return replace(stored, sighting=replace(stored.sighting, embedding=embedding, pack_id=pack_id))
