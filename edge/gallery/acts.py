"""Rows of the audit log: who did what to whom, by ids alone. Every function takes a connection.

An id is 17 bytes: a letter for what it names, and the UUID. So an erased person's id, as text, stands nowhere in the
gallery's file any more, and that is what an erasure looks for.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from edge.types import Act, Actor, ActOutcome, Ids

CREATE_AUDIT = (
    "CREATE TABLE audit ("
    " number INTEGER PRIMARY KEY,"
    " time_ms INTEGER NOT NULL,"
    " action TEXT NOT NULL,"
    " outcome TEXT NOT NULL,"
    " caller_id BLOB,"
    " caller TEXT NOT NULL,"
    " address TEXT NOT NULL,"
    " ids BLOB NOT NULL,"
    " detail TEXT NOT NULL"
    ") STRICT"
)
"""No index: each would be a page more to write with every enrolment, and it is read by hand."""

INSERT_ACT = (
    "INSERT INTO audit (time_ms, action, outcome, caller_id, caller, address, ids, detail)"
    " VALUES (:time_ms, :action, :outcome, :caller_id, :caller, :address, :ids, :detail)"
)
SELECT_IDS = "SELECT ids FROM audit WHERE number = :number"
UPDATE_OUTCOME = "UPDATE audit SET outcome = :outcome, ids = :ids WHERE number = :number"
SELECT_BEFORE = (
    "SELECT number, time_ms, action, outcome, caller_id, caller, address, ids, detail FROM audit"
    " WHERE number < :before AND time_ms BETWEEN :first_ms AND :last_ms"
    " AND (:action IS NULL OR action = :action) AND (:caller_id IS NULL OR caller_id = :caller_id)"
    " AND (:id IS NULL OR instr(ids, :id) > 0)"
    " ORDER BY number DESC LIMIT :limit"
)
SELECT_ERASURES = (
    "SELECT action, ids FROM audit WHERE action IN ('/person/delete', '/person/list/delete')"
    " AND outcome IN ('begun', 'done')"
)
"""Of persons and of lists with everybody in them; one that was cut short was asked for, too."""
SELECT_LAST_NUMBER = "SELECT coalesce(max(number), 0) FROM audit"
SELECT_FIRST_YOUNG = "SELECT number FROM audit WHERE time_ms >= :oldest_ms ORDER BY number LIMIT 1"
SELECT_LAST_TOO_MANY = (
    "SELECT max(number) FROM (SELECT number, sum(length(ids) + length(detail) + length(caller) + 80)"
    " OVER (ORDER BY number DESC) AS bytes FROM audit) WHERE bytes > :most"
)
DELETE_UP_TO = "DELETE FROM audit WHERE number <= :number"

LETTERS: Mapping[str, bytes] = {
    "person_id": b"p",
    "replace_person_id": b"r",
    "list_id": b"l",
    "new_list_id": b"n",
    "source_id": b"s",
    "group_id": b"g",
    "sighting_id": b"i",
    "token_id": b"t",
    "user_id": b"u",
}
_NAMES = {letter: name for name, letter in LETTERS.items()}
_SIZE = 17

LATEST = (1 << 63) - 1


def insert(transaction: sqlite3.Connection, actor: Actor, outcome: ActOutcome, ids: Ids, detail: str = "") -> int:
    """Write an act; return its number."""
    columns = {
        "time_ms": actor.time_ms,
        "action": actor.action,
        "outcome": outcome.value,
        "caller_id": None if actor.caller_id is None else uuid.UUID(actor.caller_id).bytes,
        "caller": actor.caller,
        "address": actor.address,
        "ids": packed(ids),
        "detail": detail,
    }
    number = transaction.execute(INSERT_ACT, columns).lastrowid
    assert number is not None
    return number


def finish(transaction: sqlite3.Connection, number: int, outcome: ActOutcome, ids: Ids) -> None:
    """Write how it ended, and what it made."""
    known = transaction.execute(SELECT_IDS, {"number": number}).fetchone()
    if known is not None:  # not pruned meanwhile
        columns = {"number": number, "outcome": outcome.value, "ids": known[0] + packed(ids)}
        transaction.execute(UPDATE_OUTCOME, columns)


def before(connection: sqlite3.Connection, conditions: Mapping[str, Any]) -> list[Act]:
    """Return acts before a number, the latest first; `conditions`: as in SELECT_BEFORE."""
    return [_act(row) for row in connection.execute(SELECT_BEFORE, conditions)]


def doomed(connection: sqlite3.Connection, *, oldest_ms: int, most_bytes: int) -> int:
    """Return up to which number acts are older, or beyond so many bytes of younger ones; 0: none is."""
    young = connection.execute(SELECT_FIRST_YOUNG, {"oldest_ms": oldest_ms}).fetchone()
    last = int(connection.execute(SELECT_LAST_NUMBER).fetchone()[0]) if young is None else int(young[0]) - 1
    (too_many,) = connection.execute(SELECT_LAST_TOO_MANY, {"most": most_bytes}).fetchone()
    return max(last, too_many or 0)


def delete(transaction: sqlite3.Connection, number: int) -> int:
    """Delete acts up to that number; return how many went."""
    return transaction.execute(DELETE_UP_TO, {"number": number}).rowcount


def erased(connection: sqlite3.Connection) -> tuple[frozenset[str], frozenset[str]]:
    """Return the ids of persons, and of lists, that were to be erased."""
    found: dict[str, set[str]] = {"person_id": set(), "list_id": set()}
    for action, ids in connection.execute(SELECT_ERASURES):
        erased_name = "person_id" if action == "/person/delete" else "list_id"  # there the list only says where
        found[erased_name].update(one for name, one in _unpacked(ids) if name == erased_name)
    return frozenset(found["person_id"]), frozenset(found["list_id"])


def packed(ids: Ids) -> bytes:
    """Return the ids as a row has them."""
    return b"".join(LETTERS[name] + uuid.UUID(one).bytes for name, one in ids)


def needle(id_: str) -> bytes:
    """Return what is looked for in the rows, whatever the id names."""
    return uuid.UUID(id_).bytes


def _act(row: tuple[Any, ...]) -> Act:
    number, time_ms, action, outcome, caller_id, caller, address, ids, detail = row
    who = None if caller_id is None else str(uuid.UUID(bytes=caller_id))
    actor = Actor(action=action, caller_id=who, caller=caller, address=address, time_ms=time_ms)
    return Act(number, actor, ActOutcome(outcome), tuple(_unpacked(ids)), detail)


def _unpacked(ids: bytes) -> Iterable[tuple[str, str]]:
    for start in range(0, len(ids), _SIZE):
        yield _NAMES[ids[start : start + 1]], str(uuid.UUID(bytes=ids[start + 1 : start + _SIZE]))
