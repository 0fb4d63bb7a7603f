"""Rows of lists. Every function takes a connection; those that write, a transaction's."""

from __future__ import annotations

import dataclasses
import sqlite3
from typing import Any

from edge.errors import Conflict, ListNotFound, Mistake
from edge.gallery.persons import Removed
from edge.types import PersonList

_SELECT = "SELECT number, list_id, name, created_ms, is_main, persons FROM lists"
SELECT_LIST_BY_ID = f"{_SELECT} WHERE list_id = :list_id"
SELECT_LIST_BY_NAME = f"{_SELECT} WHERE name = :name"
SELECT_MAIN_LIST = f"{_SELECT} WHERE is_main = 1"
SELECT_LISTS_AFTER = f"{_SELECT} WHERE number > :after ORDER BY number LIMIT :limit"
INSERT_LIST = "INSERT INTO lists (list_id, name, created_ms, is_main) VALUES (:list_id, :name, :created_ms, :is_main)"
UPDATE_LIST_NAME = "UPDATE lists SET name = :name WHERE number = :number"

# What goes with a list: its persons' templates, and every sighting that was made in it or is of one of its persons.
SELECT_TEMPLATES_OF_LIST = (
    "SELECT templates.id, templates.picture FROM persons CROSS JOIN templates ON templates.person = persons.number"
    " WHERE persons.list = :list"
)
SELECT_SIGHTING_PICTURES_IN_LIST = "SELECT picture FROM sightings WHERE list = :list AND picture IS NOT NULL"
SELECT_SIGHTING_PICTURES_OF_LISTED = (
    "SELECT sightings.picture FROM persons CROSS JOIN sightings ON sightings.person = persons.number"
    " WHERE persons.list = :list AND sightings.picture IS NOT NULL"
)
SELECT_SIGHTED_VECTOR_IN_LIST = "SELECT 1 FROM sightings WHERE list = :list AND vector IS NOT NULL LIMIT 1"
DELETE_LIST = "DELETE FROM lists WHERE number = :number"


def find_list(connection: sqlite3.Connection, list_id: str) -> tuple[int, PersonList] | None:
    """Return the list's number and record, None if there is none of that id."""
    row = connection.execute(SELECT_LIST_BY_ID, {"list_id": list_id}).fetchone()
    return None if row is None else (row[0], _list(row))


def the_list(connection: sqlite3.Connection, list_id: str, field: str = "list_id") -> tuple[int, PersonList]:
    """Return the list's number and record. Raises ListNotFound, of that field of the request."""
    found = find_list(connection, list_id)
    if found is None:
        raise ListNotFound(Mistake(field, f"no list {list_id}"))
    return found


def main_list(connection: sqlite3.Connection) -> PersonList | None:
    """Return the main list, None in a database that was made a moment ago."""
    row = connection.execute(SELECT_MAIN_LIST).fetchone()
    return None if row is None else _list(row)


def lists_after(connection: sqlite3.Connection, number: int, limit: int) -> list[tuple[int, PersonList]]:
    """Return up to `limit` lists of greater numbers, with their numbers, in that order."""
    rows = connection.execute(SELECT_LISTS_AFTER, {"after": number, "limit": limit})
    return [(row[0], _list(row)) for row in rows]


def insert_list(transaction: sqlite3.Connection, person_list: PersonList) -> None:
    """Write a new, empty list. Raises Conflict if the name is taken."""
    _check_free(transaction, person_list.name)
    transaction.execute(
        INSERT_LIST,
        {
            "list_id": person_list.list_id,
            "name": person_list.name,
            "created_ms": person_list.created_ms,
            "is_main": int(person_list.is_main),
        },
    )


def rename_list(transaction: sqlite3.Connection, list_id: str, name: str) -> PersonList:
    """Give the list another name, return it. Raises ListNotFound, Conflict (the main list, a taken name)."""
    number, found = _changeable(transaction, list_id)
    if name != found.name:
        _check_free(transaction, name)
        transaction.execute(UPDATE_LIST_NAME, {"number": number, "name": name})
    return dataclasses.replace(found, name=name)


def delete_list(transaction: sqlite3.Connection, list_id: str) -> tuple[int, PersonList, Removed]:
    """Delete the list with everything in it; return its number, what it was, and what has to follow.

    No traces are named: they are too many to look for. Raises ListNotFound, Conflict (the main list).
    """
    number, found = _changeable(transaction, list_id)
    templates = transaction.execute(SELECT_TEMPLATES_OF_LIST, {"list": number}).fetchall()
    pictures = {picture for _, picture in templates if picture is not None}
    for statement in (SELECT_SIGHTING_PICTURES_IN_LIST, SELECT_SIGHTING_PICTURES_OF_LISTED):
        pictures.update(picture for (picture,) in transaction.execute(statement, {"list": number}))
    has_vectors = transaction.execute(SELECT_SIGHTED_VECTOR_IN_LIST, {"list": number}).fetchone() is not None
    transaction.execute(DELETE_LIST, {"number": number})
    are_all = not (found.count or pictures or has_vectors)
    return number, found, Removed(tuple(id_ for id_, _ in templates), tuple(pictures), are_all=are_all)


def _changeable(connection: sqlite3.Connection, list_id: str) -> tuple[int, PersonList]:
    number, found = the_list(connection, list_id)
    if found.is_main:
        raise Conflict(Mistake("list_id", "the main list can be neither renamed nor deleted"))
    return number, found


def _check_free(connection: sqlite3.Connection, name: str) -> None:
    if connection.execute(SELECT_LIST_BY_NAME, {"name": name}).fetchone() is not None:
        raise Conflict(Mistake("name", f"there is a list called {name!r} already"))


def _list(row: tuple[Any, ...]) -> PersonList:
    _, list_id, name, created_ms, is_main, persons = row
    return PersonList(list_id, name, created_ms, bool(is_main), persons)
