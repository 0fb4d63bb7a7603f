"""Operations that wait to be published, in the transaction of the change that they tell of.

A row stays, acknowledged or not, until the operation has come back in its place in the stream: till then what is here
is ahead of the stream, and what others say of the same person is judged by that.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edge.errors import BodyTooLarge, Mistake
from edge.gallery import records
from edge.gallery.operations import MOST_BYTES, Kind, Operation, encoded

INSERT_OUTGOING = (
    "INSERT INTO outbox (origin, serial, subject, is_last, has_record, body)"
    " VALUES (:origin, :serial, :subject, :is_last, :has_record, :body)"
)
SELECT_UNACKNOWLEDGED = (
    "SELECT number, origin, serial, subject, body FROM outbox"
    " WHERE sequence IS NULL AND number > :after ORDER BY number LIMIT :limit"
)
SELECT_UNACKNOWLEDGED_COUNT = "SELECT count(*) FROM outbox WHERE sequence IS NULL"
SELECT_ANY = "SELECT 1 FROM outbox LIMIT 1"
SELECT_OWN_RECORD = "SELECT 1 FROM outbox WHERE subject = :subject AND has_record = 1"
SELECT_OWN = "SELECT 1 FROM outbox WHERE subject = :subject"
SELECT_BODIES = "SELECT body FROM outbox WHERE subject = :subject"
UPDATE_UNACKNOWLEDGED = "UPDATE outbox SET sequence = NULL WHERE sequence IS NOT NULL"
UPDATE_SEQUENCE = "UPDATE outbox SET sequence = :sequence WHERE number = :number"
DELETE_BY_NUMBER = "DELETE FROM outbox WHERE number = :number"
DELETE_BY_SERIAL = "DELETE FROM outbox WHERE origin = :origin AND serial = :serial"
DELETE_UP_TO_SERIAL = "DELETE FROM outbox WHERE origin = :origin AND serial <= :serial"
DELETE_PASSED = "DELETE FROM outbox WHERE sequence <= :position"
DELETE_UNPUBLISHED = "DELETE FROM outbox WHERE subject = :subject AND sequence IS NULL AND is_last = 0"

DELETE_ALL = "DELETE FROM outbox"

ORIGIN_BYTES = 12


@dataclass(frozen=True)
class Outgoing:
    """An operation that waits to be published, in the order of `number`."""

    number: int
    message_id: str
    """The same whenever it is published again."""
    subject: str
    body: bytes


class Outbox:
    """Writes operations. Its origin is new with every start, so that no serial is ever given twice.

    Whatever a restored backup or a copied card says was given before, it was given by another origin.
    """

    def __init__(self, clock: Callable[[], int]) -> None:
        """`clock` gives milliseconds since 1970."""
        self.origin = secrets.token_hex(ORIGIN_BYTES)
        self._clock = clock
        self._serial = 0

    def operation(self, transaction: sqlite3.Connection, kind: Kind, about: str, **content: Any) -> Operation:
        """Return the next operation of this origin."""
        self._serial += 1
        seen = max(records.position(transaction) or 0, 0)
        return Operation(kind, about, self.origin, self._serial, self._clock(), seen, **content)

    def write(self, transaction: sqlite3.Connection, kind: Kind, about: str, **content: Any) -> None:
        """Put the next operation at the end. What it makes needless and nobody has yet is dropped.

        Raises BodyTooLarge.
        """
        operation = self.operation(transaction, kind, about, **content)
        if kind in (Kind.ERASE, Kind.ERASE_LIST):
            transaction.execute(DELETE_UNPUBLISHED, {"subject": operation.subject})
        body = encoded(operation)
        if len(body) > MOST_BYTES:
            reason = f"a person's record of {len(body)} bytes; a fleet shares {MOST_BYTES} at most"
            raise BodyTooLarge(Mistake("fields", reason))
        columns = {
            "origin": operation.origin,
            "serial": operation.serial,
            "subject": operation.subject,
            "is_last": int(operation.is_last),
            "has_record": int(operation.record is not None),
            "body": body,
        }
        transaction.execute(INSERT_OUTGOING, columns)


def unacknowledged(connection: sqlite3.Connection, limit: int, after: int) -> list[Outgoing]:
    """Return the oldest operations of greater numbers that the stream does not have yet as far as is known."""
    rows = connection.execute(SELECT_UNACKNOWLEDGED, {"limit": limit, "after": after})
    return [Outgoing(number, f"{origin}:{serial}", subject, body) for number, origin, serial, subject, body in rows]


def unacknowledged_count(connection: sqlite3.Connection) -> int:
    """Return how many there are."""
    return int(connection.execute(SELECT_UNACKNOWLEDGED_COUNT).fetchone()[0])


def is_empty(connection: sqlite3.Connection) -> bool:
    """Whether everything that was changed here has come back in the stream."""
    return connection.execute(SELECT_ANY).fetchone() is None


def acknowledge(transaction: sqlite3.Connection, number: int, sequence: int) -> None:
    """Note that the stream has it. One that the stream had already, before its position here, is done with."""
    if sequence <= (records.position(transaction) or 0):
        transaction.execute(DELETE_BY_NUMBER, {"number": number})
    else:
        transaction.execute(UPDATE_SEQUENCE, {"number": number, "sequence": sequence})


def came_back(transaction: sqlite3.Connection, origin: str, serial: int) -> bool:
    """Let go of an operation that is in its place in the stream; return whether it was one of this box."""
    return transaction.execute(DELETE_BY_SERIAL, {"origin": origin, "serial": serial}).rowcount > 0


def passed(transaction: sqlite3.Connection, position: int) -> None:
    """Let go of what the stream had up to that place: what has not come back from there has been rolled up."""
    transaction.execute(DELETE_PASSED, {"position": position})


def all_came_back(transaction: sqlite3.Connection, origin: str, serial: int) -> None:
    """Let go of the origin's operations up to that one."""
    transaction.execute(DELETE_UP_TO_SERIAL, {"origin": origin, "serial": serial})


def has_record(connection: sqlite3.Connection, subject: str) -> bool:
    """Whether this box has said what the record is, and the stream has not come to it yet."""
    return connection.execute(SELECT_OWN_RECORD, {"subject": subject}).fetchone() is not None


def has(connection: sqlite3.Connection, subject: str) -> bool:
    """Whether anything this box has said of the subject has not come back yet."""
    return connection.execute(SELECT_OWN, {"subject": subject}).fetchone() is not None


def bodies(connection: sqlite3.Connection, subject: str) -> list[bytes]:
    """Return what this box has said of the subject and has not come back yet."""
    return [body for (body,) in connection.execute(SELECT_BODIES, {"subject": subject})]
