"""Rows of lists, source groups and sources. Every function takes a connection; those that write, a transaction's."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from edge.errors import Conflict, ItemNotFound, ListNotFound, Mistake
from edge.types import FeatureBound, ListAlert, PersonList, Source, SourceDefaults, SourceGroup

_SELECT_LIST = "SELECT number, list_id, name, created_ms, is_main, persons FROM lists"
SELECT_LIST_BY_ID = f"{_SELECT_LIST} WHERE list_id = :list_id"
SELECT_LIST_BY_NAME = f"{_SELECT_LIST} WHERE name = :name"
SELECT_MAIN_LIST = f"{_SELECT_LIST} WHERE is_main = 1"
INSERT_LIST = "INSERT INTO lists (list_id, name, created_ms, is_main) VALUES (:list_id, :name, :created_ms, :is_main)"

SELECT_GROUP = "SELECT number, group_id, name, created_ms FROM groups WHERE group_id = :group_id"
INSERT_GROUP = "INSERT INTO groups (group_id, name, created_ms) VALUES (:group_id, :name, :created_ms)"
SELECT_ALERTS = (
    "SELECT lists.list_id, alerts.on_found, alerts.on_failed"
    " FROM alerts CROSS JOIN lists ON lists.number = alerts.list"
    " WHERE alerts.group_number = :group ORDER BY alerts.position"
)
INSERT_ALERT = (
    "INSERT INTO alerts (group_number, position, list, on_found, on_failed)"
    " VALUES (:group, :position, :list, :on_found, :on_failed)"
)

SELECT_SOURCE = (
    "SELECT sources.source_id, groups.group_id, sources.name, sources.created_ms, sources.defaults,"
    " sources.person_list_add, sources.person_list_search"
    " FROM sources LEFT JOIN groups ON groups.number = sources.group_number WHERE sources.source_id = :source_id"
)
INSERT_SOURCE = (
    "INSERT INTO sources"
    " (source_id, group_number, name, created_ms, defaults, person_list_add, person_list_search)"
    " VALUES (:source_id, :group, :name, :created_ms, :defaults, :person_list_add, :person_list_search)"
)


# --- lists ---


def find_list(connection: sqlite3.Connection, list_id: str) -> tuple[int, PersonList] | None:
    """Return the list's number and record, None if there is none of that id."""
    row = connection.execute(SELECT_LIST_BY_ID, {"list_id": list_id}).fetchone()
    return None if row is None else (row[0], _list(row))


def the_list(connection: sqlite3.Connection, list_id: str) -> tuple[int, PersonList]:
    """Return the list's number and record. Raises ListNotFound."""
    found = find_list(connection, list_id)
    if found is None:
        raise ListNotFound(Mistake("list_id", f"no list {list_id}"))
    return found


def main_list(connection: sqlite3.Connection) -> PersonList | None:
    """Return the main list, None in a database that was made a moment ago."""
    row = connection.execute(SELECT_MAIN_LIST).fetchone()
    return None if row is None else _list(row)


def insert_list(transaction: sqlite3.Connection, person_list: PersonList) -> None:
    """Write a new, empty list. Raises Conflict if the name is taken."""
    if transaction.execute(SELECT_LIST_BY_NAME, {"name": person_list.name}).fetchone() is not None:
        raise Conflict(Mistake("name", f"there is a list called {person_list.name!r} already"))
    transaction.execute(
        INSERT_LIST,
        {
            "list_id": person_list.list_id,
            "name": person_list.name,
            "created_ms": person_list.created_ms,
            "is_main": int(person_list.is_main),
        },
    )


def _list(row: tuple[Any, ...]) -> PersonList:
    _, list_id, name, created_ms, is_main, persons = row
    return PersonList(list_id, name, created_ms, bool(is_main), persons)


# --- groups ---


def find_group(connection: sqlite3.Connection, group_id: str) -> SourceGroup | None:
    """Return the source group with its alerts, None if there is none of that id."""
    row = connection.execute(SELECT_GROUP, {"group_id": group_id}).fetchone()
    if row is None:
        return None
    number, group_id, name, created_ms = row
    alerts = tuple(
        ListAlert(list_id, json.loads(on_found), json.loads(on_failed))
        for list_id, on_found, on_failed in connection.execute(SELECT_ALERTS, {"group": number})
    )
    return SourceGroup(group_id, name, created_ms, alerts)


def insert_group(transaction: sqlite3.Connection, group: SourceGroup) -> None:
    """Write a new source group. Raises ListNotFound if an alert names no list."""
    columns = {"group_id": group.group_id, "name": group.name, "created_ms": group.created_ms}
    number = transaction.execute(INSERT_GROUP, columns).lastrowid
    for position, alert in enumerate(group.alerts):
        list_number, _ = the_list(transaction, alert.list_id)
        transaction.execute(
            INSERT_ALERT,
            {
                "group": number,
                "position": position,
                "list": list_number,
                "on_found": json.dumps(alert.on_found),
                "on_failed": json.dumps(alert.on_failed),
            },
        )


# --- sources ---


def find_source(connection: sqlite3.Connection, source_id: str) -> Source | None:
    """Return the source, None if there is none of that id."""
    row = connection.execute(SELECT_SOURCE, {"source_id": source_id}).fetchone()
    if row is None:
        return None
    source_id, group_id, name, created_ms, defaults, person_list_add, person_list_search = row
    return Source(
        source_id=source_id,
        group_id=group_id,
        name=name,
        created_ms=created_ms,
        defaults=_defaults(json.loads(defaults)),
        person_list_add=tuple(json.loads(person_list_add)),
        person_list_search=tuple(json.loads(person_list_search)),
    )


def insert_source(transaction: sqlite3.Connection, source: Source) -> None:
    """Write a new source. Raises ItemNotFound for an unknown group, ListNotFound for an unknown list."""
    group_number = None
    if source.group_id is not None:
        row = transaction.execute(SELECT_GROUP, {"group_id": source.group_id}).fetchone()
        if row is None:
            raise ItemNotFound(Mistake("group_id", f"no source group {source.group_id}"))
        group_number = row[0]
    for list_id in (*source.person_list_add, *source.person_list_search):
        the_list(transaction, list_id)
    transaction.execute(
        INSERT_SOURCE,
        {
            "source_id": source.source_id,
            "group": group_number,
            "name": source.name,
            "created_ms": source.created_ms,
            "defaults": json.dumps(asdict(source.defaults)),
            "person_list_add": json.dumps(source.person_list_add),
            "person_list_search": json.dumps(source.person_list_search),
        },
    )


def _defaults(columns: dict[str, Any]) -> SourceDefaults:
    features: Sequence[dict[str, Any]] | None = columns.pop("feature_check", None)
    bounds = None if features is None else tuple(FeatureBound(**bound) for bound in features)
    return SourceDefaults(**columns, feature_check=bounds)
