"""Rows of rejections: the faces that were said not to be a person. Those that write take a transaction's connection."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge.gallery.persons import KnownTemplate, checksum
from edge.types import Embedding, Rejection

log = logging.getLogger(__name__)

REJECTIONS_PER_PERSON = 64
"""Of each pack. A person is recognised by 20 templates; who needs more than three times as many exceptions is better
deleted and added anew, and whoever is matched costs 64 products at most."""

_SELECT = "SELECT id, person, sighting_id, sighted, pack, vector, cohort_similarity, created_ms, crc32 FROM rejections"
SELECT_EVERY_REJECTION = _SELECT
"""A scan: at a start only."""
SELECT_REJECTIONS_OF_PERSON = f"{_SELECT} WHERE person = :person"
SELECT_REJECTION = f"{_SELECT} WHERE sighting_id = :sighting_id AND person = :person"
SELECT_REJECTIONS_AFTER = (
    "SELECT id, sighting_id, created_ms FROM rejections WHERE person = :person AND id > :after ORDER BY id LIMIT :limit"
)
SELECT_REJECTION_COUNT = "SELECT count(*) FROM rejections WHERE person = :person AND +pack = :pack"
SELECT_OTHER_PACKS_COUNT = (
    "SELECT (SELECT count(*) FROM rejections WHERE pack < :pack) + (SELECT count(*) FROM rejections WHERE pack > :pack)"
)
INSERT_REJECTION = (
    "INSERT INTO rejections (person, sighting_id, sighted, pack, vector, cohort_similarity, created_ms, crc32)"
    " VALUES (:person, :sighting_id, :sighted, :pack, :vector, :cohort_similarity, :created_ms, 0)"
)
UPDATE_REJECTION_CRC = "UPDATE rejections SET crc32 = :crc32 WHERE id = :id"
UPDATE_REJECTIONS_SIGHTED = "UPDATE rejections SET sighted = :person WHERE sighted = :former"
UPDATE_REJECTION_SIGHTED = (
    "UPDATE rejections SET sighted = :person WHERE sighting_id = :sighting_id AND sighted IS :former"
)
DELETE_REJECTION = "DELETE FROM rejections WHERE sighting_id = :sighting_id AND person = :person"
DELETE_REJECTIONS_OF_PERSON = "DELETE FROM rejections WHERE person = :person"


@dataclass(frozen=True)
class Negative:
    """A face that is not a person, as its row has it."""

    sighting_id: str
    sighted: int | None
    """The number of the person whom the sighting was taken for."""
    pack_id: str
    embedding: Embedding
    created_ms: int


def insert(transaction: sqlite3.Connection, person: int, negative: Negative) -> None:
    """Write that this is not the person of that number."""
    vector = negative.embedding.vector.astype("<f4").tobytes()
    cohort_similarity = float(negative.embedding.cohort_similarity)
    columns = {
        "person": person,
        "sighting_id": negative.sighting_id,
        "sighted": negative.sighted,
        "pack": negative.pack_id,
        "vector": vector,
        "cohort_similarity": cohort_similarity,
        "created_ms": negative.created_ms,
    }
    id_ = transaction.execute(INSERT_REJECTION, columns).lastrowid
    assert id_ is not None, "an INSERT of one row has a rowid"
    crc32 = checksum(id_, person, negative.pack_id, cohort_similarity, vector)
    transaction.execute(UPDATE_REJECTION_CRC, {"id": id_, "crc32": crc32})


def find(connection: sqlite3.Connection, person: int, sighting_id: str) -> tuple[bytes, int] | None:
    """Return the vector's bytes and the time of the rejection, damaged or not; None if there is none."""
    row = connection.execute(SELECT_REJECTION, {"person": person, "sighting_id": sighting_id}).fetchone()
    return None if row is None else (row[5], row[7])


def delete(transaction: sqlite3.Connection, person: int, sighting_id: str) -> None:
    """Delete the row."""
    transaction.execute(DELETE_REJECTION, {"person": person, "sighting_id": sighting_id})


def count(connection: sqlite3.Connection, person: int, pack_id: str) -> int:
    """Return how many faces of the pack are said not to be the person."""
    return int(connection.execute(SELECT_REJECTION_COUNT, {"person": person, "pack": pack_id}).fetchone()[0])


def after(
    connection: sqlite3.Connection, person: int, person_id: str, number: int, limit: int
) -> list[tuple[int, Rejection]]:
    """Return up to `limit` rejections of greater numbers, with their numbers, in that order."""
    rows = connection.execute(SELECT_REJECTIONS_AFTER, {"person": person, "after": number, "limit": limit})
    return [(id_, Rejection(person_id, sighting_id, created_ms)) for id_, sighting_id, created_ms in rows]


def of_other_packs(connection: sqlite3.Connection, pack_id: str) -> int:
    """Return how many rejections are of other packs than this one."""
    return int(connection.execute(SELECT_OTHER_PACKS_COUNT, {"pack": pack_id}).fetchone()[0])


def negatives(connection: sqlite3.Connection, person: int) -> list[Negative]:
    """Return the person's intact ones, of whatever pack."""
    rows = connection.execute(SELECT_REJECTIONS_OF_PERSON, {"person": person})
    return [negative for row in rows if (negative := _intact(row)) is not None]


def take_over(transaction: sqlite3.Connection, person: int, former: int, kept: Sequence[Negative]) -> None:
    """Let `kept`, of those of both, be the person's, and let go of all others of either."""
    for one in (person, former):
        transaction.execute(DELETE_REJECTIONS_OF_PERSON, {"person": one})
    for negative in kept:
        insert(transaction, person, negative)
    transaction.execute(UPDATE_REJECTIONS_SIGHTED, {"person": person, "former": former})


def follow(transaction: sqlite3.Connection, sighting_ids: Sequence[str], person: int, former: int | None) -> None:
    """Note that the faces of these sightings are the person's, no longer those of `former` (None: nobody's)."""
    columns = [{"person": person, "sighting_id": one, "former": former} for one in sighting_ids]
    transaction.executemany(UPDATE_REJECTION_SIGHTED, columns)


def persons_with_negatives(connection: sqlite3.Connection) -> set[int]:
    """Return the numbers of all persons who have an intact one; damaged ones are logged."""
    found: set[int] = set()
    for row in connection.execute(SELECT_EVERY_REJECTION):
        if _intact(row) is None:
            log.error("rejection %d of person %d is damaged and set aside", row[0], row[1])
        else:
            found.add(row[1])
    return found


def _intact(row: tuple[Any, ...]) -> Negative | None:
    id_, person, sighting_id, sighted, pack_id, vector, cohort_similarity, created_ms, crc32 = row
    if crc32 != checksum(id_, person, pack_id, cohort_similarity, vector) or len(vector) % 4:
        return None
    return Negative(
        sighting_id, sighted, pack_id, Embedding(np.frombuffer(vector, "<f4"), cohort_similarity), created_ms
    )


# --- two persons who turn out to be one ---


def fused(
    own: tuple[Sequence[Negative], Sequence[KnownTemplate]],
    other: tuple[Sequence[Negative], Sequence[KnownTemplate]],
    cohort_weight: float,
) -> list[Negative]:
    """Choose what of the rejections of two persons (each with their templates) holds for both as one.

    All but those that the fusion contradicts: what was said not to be the one, but is more like the other, is the
    other's face, who is this person after all. A sighting once; of a pack the latest that a person may have.
    """
    kept: dict[str, Negative] = {}
    for (mine, my_templates), (_, their_templates) in ((own, other), (other, own)):
        for negative in mine:
            me = _nearest(negative, my_templates, cohort_weight)
            them = _nearest(negative, their_templates, cohort_weight)
            if me is None or them is None or me >= them:
                kept.setdefault(negative.sighting_id, negative)
    latest = sorted(kept.values(), key=lambda one: one.created_ms)
    return [
        negative
        for pack_id in sorted({one.pack_id for one in latest})
        for negative in [one for one in latest if one.pack_id == pack_id][-REJECTIONS_PER_PERSON:]
    ]


def _nearest(negative: Negative, templates: Iterable[KnownTemplate], cohort_weight: float) -> float | None:
    """Return how similar the most similar template of its pack is, but for a constant; None where there is none."""
    comparable = [one.template.embedding for one in templates if one.template.pack_id == negative.pack_id]
    cosines = [float(negative.embedding.vector.astype("f8") @ one.vector.astype("f8")) for one in comparable]
    weighed = [cosine - cohort_weight * one.cohort_similarity for cosine, one in zip(cosines, comparable, strict=True)]
    return max(weighed, default=None)


# --- in a search ---


class Negatives:
    """Who has rejections, in memory, so that a search reads rows of nobody else's.

    Changed under the gallery's lock after the rows are committed. May name somebody who has none left; never misses one
    who has.
    """

    def __init__(
        self, connection: sqlite3.Connection, *, pack_id: str, vector_length: int, cohort_weight: float
    ) -> None:
        """Read who has any. Those of other packs are not consulted, so that vectors of two packs never meet."""
        self._pack_id = pack_id
        self._vector_length = vector_length
        self._cohort_weight = cohort_weight
        self._persons = persons_with_negatives(connection)

    def add(self, person: int) -> None:
        """Note that the person has a rejection."""
        self._persons.add(person)

    def discard(self, persons: Iterable[int]) -> None:
        """Note that these persons have none any more."""
        self._persons.difference_update(persons)

    def nearest(self, connection: sqlite3.Connection, person: int, probe: Embedding) -> float | None:
        """Return the greatest normalised similarity of the probe to what is not the person; None without any."""
        if person not in self._persons:
            return None
        rows = [
            one.embedding
            for one in negatives(connection, person)
            if one.pack_id == self._pack_id and one.embedding.vector.size == self._vector_length
        ]
        if not rows:
            return None
        # as an index computes it, to the last bit: a template that is this very face is as near as the negative
        weights = [np.float32(-self._cohort_weight * one.cohort_similarity) for one in rows]
        matrix = np.array(
            [np.append(one.vector, weight) for one, weight in zip(rows, weights, strict=True)], np.float32
        )
        query = np.append(probe.vector, np.float32(1)).astype(np.float32)
        products = (matrix.astype(np.float64) * query.astype(np.float64)).sum(axis=1)
        return float(products.max()) - self._cohort_weight * probe.cohort_similarity
