"""Rows of source groups and sources. Every function takes a connection; those that write, a transaction's."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

from edge.errors import ItemNotFound, Mistake
from edge.gallery.lists import the_list
from edge.types import FeatureBound, ListAlert, Source, SourceDefaults, SourceGroup

_SELECT_GROUP = "SELECT number, group_id, name, created_ms FROM groups"
SELECT_GROUP = f"{_SELECT_GROUP} WHERE group_id = :group_id"
SELECT_GROUPS_AFTER = f"{_SELECT_GROUP} WHERE number > :after ORDER BY number LIMIT :limit"
INSERT_GROUP = "INSERT INTO groups (group_id, name, created_ms) VALUES (:group_id, :name, :created_ms)"
UPDATE_GROUP_NAME = "UPDATE groups SET name = :name WHERE number = :number"
DELETE_GROUP = "DELETE FROM groups WHERE number = :number"
SELECT_ALERTS = (
    "SELECT lists.list_id, alerts.on_found, alerts.on_failed"
    " FROM alerts CROSS JOIN lists ON lists.number = alerts.list"
    " WHERE alerts.group_number = :group ORDER BY alerts.position"
)
INSERT_ALERT = (
    "INSERT INTO alerts (group_number, position, list, on_found, on_failed)"
    " VALUES (:group, :position, :list, :on_found, :on_failed)"
)
DELETE_ALERTS = "DELETE FROM alerts WHERE group_number = :group"

_SELECT_SOURCE = (
    "SELECT sources.number, sources.source_id, groups.group_id, sources.name, sources.created_ms, sources.defaults"
    " FROM sources LEFT JOIN groups ON groups.number = sources.group_number"
)
SELECT_SOURCE = f"{_SELECT_SOURCE} WHERE sources.source_id = :source_id"
SELECT_SOURCES_AFTER = f"{_SELECT_SOURCE} WHERE sources.number > :after ORDER BY sources.number LIMIT :limit"
SELECT_SOURCES_OF_GROUP_AFTER = (
    f"{_SELECT_SOURCE} WHERE sources.group_number = :group AND sources.number > :after"
    " ORDER BY sources.number LIMIT :limit"
)
INSERT_SOURCE = (
    "INSERT INTO sources (source_id, group_number, name, created_ms, defaults)"
    " VALUES (:source_id, :group, :name, :created_ms, :defaults)"
)
UPDATE_SOURCE = "UPDATE sources SET group_number = :group, name = :name, defaults = :defaults WHERE number = :number"
DELETE_SOURCE = "DELETE FROM sources WHERE number = :number"
SELECT_LISTS_OF_SOURCE = (
    "SELECT lists.list_id FROM source_lists CROSS JOIN lists ON lists.number = source_lists.list"
    " WHERE source_lists.source = :source AND source_lists.purpose = :purpose ORDER BY source_lists.position"
)
INSERT_LIST_OF_SOURCE = (
    "INSERT INTO source_lists (source, purpose, position, list) VALUES (:source, :purpose, :position, :list)"
)
DELETE_LISTS_OF_SOURCE = "DELETE FROM source_lists WHERE source = :source"


# --- groups ---


def find_group(connection: sqlite3.Connection, group_id: str) -> tuple[int, SourceGroup] | None:
    """Return the source group's number and record with its alerts, None if there is none of that id."""
    row = connection.execute(SELECT_GROUP, {"group_id": group_id}).fetchone()
    return None if row is None else _group(connection, row)


def the_group(connection: sqlite3.Connection, group_id: str) -> tuple[int, SourceGroup]:
    """Return the source group's number and record. Raises ItemNotFound."""
    found = find_group(connection, group_id)
    if found is None:
        raise ItemNotFound(Mistake("group_id", f"no source group {group_id}"))
    return found


def groups_after(connection: sqlite3.Connection, number: int, limit: int) -> list[tuple[int, SourceGroup]]:
    """Return up to `limit` groups of greater numbers, with their numbers, in that order."""
    rows = connection.execute(SELECT_GROUPS_AFTER, {"after": number, "limit": limit}).fetchall()
    return [_group(connection, row) for row in rows]


def insert_group(transaction: sqlite3.Connection, group: SourceGroup) -> None:
    """Write a new source group. Raises ListNotFound if an alert names no list."""
    columns = {"group_id": group.group_id, "name": group.name, "created_ms": group.created_ms}
    number = transaction.execute(INSERT_GROUP, columns).lastrowid
    assert number is not None, "an INSERT of one row has a rowid"
    _insert_alerts(transaction, number, group.alerts)


def update_group(
    transaction: sqlite3.Connection, group_id: str, name: str | None, alerts: Sequence[ListAlert] | None
) -> SourceGroup:
    """Write what is given, return the group as it is then. Raises ItemNotFound, ListNotFound."""
    number, group = the_group(transaction, group_id)
    if name is not None:
        transaction.execute(UPDATE_GROUP_NAME, {"number": number, "name": name})
        group = replace(group, name=name)
    if alerts is not None:
        transaction.execute(DELETE_ALERTS, {"group": number})
        _insert_alerts(transaction, number, alerts)
        group = replace(group, alerts=tuple(alerts))
    return group


def delete_group(transaction: sqlite3.Connection, group_id: str) -> None:
    """Delete the group and its alerts; its sources stay without one. Raises ItemNotFound."""
    number, _ = the_group(transaction, group_id)
    transaction.execute(DELETE_GROUP, {"number": number})


def _insert_alerts(transaction: sqlite3.Connection, group: int, alerts: Sequence[ListAlert]) -> None:
    for position, alert in enumerate(alerts):
        list_number, _ = the_list(transaction, alert.list_id, "person_list_search")
        columns = {
            "group": group,
            "position": position,
            "list": list_number,
            "on_found": json.dumps(alert.on_found),
            "on_failed": json.dumps(alert.on_failed),
        }
        transaction.execute(INSERT_ALERT, columns)


def _group(connection: sqlite3.Connection, row: tuple[Any, ...]) -> tuple[int, SourceGroup]:
    number, group_id, name, created_ms = row
    alerts = tuple(
        ListAlert(list_id, json.loads(on_found), json.loads(on_failed))
        for list_id, on_found, on_failed in connection.execute(SELECT_ALERTS, {"group": number})
    )
    return number, SourceGroup(group_id, name, created_ms, alerts)


# --- sources ---


def find_source(connection: sqlite3.Connection, source_id: str) -> tuple[int, Source] | None:
    """Return the source's number and record, None if there is none of that id."""
    row = connection.execute(SELECT_SOURCE, {"source_id": source_id}).fetchone()
    return None if row is None else _source(connection, row)


def the_source(connection: sqlite3.Connection, source_id: str) -> tuple[int, Source]:
    """Return the source's number and record. Raises ItemNotFound."""
    found = find_source(connection, source_id)
    if found is None:
        raise ItemNotFound(Mistake("source_id", f"no source {source_id}"))
    return found


def sources_after(
    connection: sqlite3.Connection, number: int, limit: int, group: int | None = None
) -> list[tuple[int, Source]]:
    """Return up to `limit` sources (of that group's number) of greater numbers, with their numbers, in that order."""
    statement = SELECT_SOURCES_AFTER if group is None else SELECT_SOURCES_OF_GROUP_AFTER
    rows = connection.execute(statement, {"after": number, "limit": limit, "group": group}).fetchall()
    return [_source(connection, row) for row in rows]


def insert_source(transaction: sqlite3.Connection, source: Source) -> None:
    """Write a new source. Raises ItemNotFound for an unknown group, ListNotFound for an unknown list."""
    columns = {"source_id": source.source_id, "created_ms": source.created_ms} | _columns(transaction, source)
    number = transaction.execute(INSERT_SOURCE, columns).lastrowid
    assert number is not None, "an INSERT of one row has a rowid"
    _insert_lists(transaction, number, source)


def update_source(transaction: sqlite3.Connection, source_id: str, changes: Callable[[Source], Source]) -> Source:
    """Write what `changes` makes of the source; id and time of creation stay. Raises ItemNotFound, ListNotFound."""
    number, before = the_source(transaction, source_id)
    source = replace(changes(before), source_id=before.source_id, created_ms=before.created_ms)
    transaction.execute(UPDATE_SOURCE, {"number": number} | _columns(transaction, source))
    transaction.execute(DELETE_LISTS_OF_SOURCE, {"source": number})
    _insert_lists(transaction, number, source)
    return source


def delete_source(transaction: sqlite3.Connection, source_id: str) -> None:
    """Delete the source. Raises ItemNotFound."""
    number, _ = the_source(transaction, source_id)
    transaction.execute(DELETE_SOURCE, {"number": number})


def _columns(connection: sqlite3.Connection, source: Source) -> dict[str, Any]:
    group = None if source.group_id is None else the_group(connection, source.group_id)[0]
    return {"group": group, "name": source.name, "defaults": json.dumps(asdict(source.defaults))}


def _insert_lists(transaction: sqlite3.Connection, number: int, source: Source) -> None:
    for purpose, list_ids in (("add", source.person_list_add), ("search", source.person_list_search)):
        for position, list_id in enumerate(list_ids):
            list_number, _ = the_list(transaction, list_id, f"person_list_{purpose}")
            columns = {"source": number, "purpose": purpose, "position": position, "list": list_number}
            transaction.execute(INSERT_LIST_OF_SOURCE, columns)


def _source(connection: sqlite3.Connection, row: tuple[Any, ...]) -> tuple[int, Source]:
    number, source_id, group_id, name, created_ms, defaults = row
    add, search = (
        tuple(
            list_id for (list_id,) in connection.execute(SELECT_LISTS_OF_SOURCE, {"source": number, "purpose": purpose})
        )
        for purpose in ("add", "search")
    )
    return number, Source(source_id, group_id, name, created_ms, _defaults(json.loads(defaults)), add, search)


def _defaults(columns: dict[str, Any]) -> SourceDefaults:
    features: Sequence[dict[str, Any]] | None = columns.pop("feature_check", None)
    bounds = None if features is None else tuple(FeatureBound(**bound) for bound in features)
    return SourceDefaults(**columns, feature_check=bounds)
