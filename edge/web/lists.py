"""The routes of person lists."""

from __future__ import annotations

from typing import Any

from edge import errors
from edge.errors import ItemNotFound, Mistake
from edge.gallery.protocol import PAGE, PAGE_LIMIT
from edge.types import Ids, PersonList, Scope
from edge.web import schemas, views
from edge.web.forms import LIST_ID
from edge.web.parameters import Form, Names, Needed, One, Values
from edge.web.persons import CURSOR, LIMIT
from edge.web.site import DELETE, UPDATE, Call, Route, Told, always, ok
from edge.web.values import Reader, text, uuid_text
from edge.web.views import Answer

NAME_CHARACTERS = 100

NAME = Needed("name", text(NAME_CHARACTERS, 1), "The name; no two lists have the same.")
MAYBE_NAME = One("name", text(NAME_CHARACTERS, 1), "The name of the list, where its id is not given.")
THE_LIST = Needed("list_id", uuid_text, "The list.", Names.LIST)


def id_or_name(values: Values, reader: Reader) -> None:
    """Note that neither says which list is meant."""
    if values[LIST_ID] is None and values[MAYBE_NAME] is None and not reader.body.values(LIST_ID.name):
        reader.mistake(LIST_ID.name, "must be given, or the list's name")


LISTS = Form(parameters=(LIMIT, CURSOR))
CREATE = Form(parameters=(NAME,))
UPDATE_LIST = Form(parameters=(THE_LIST, NAME))
DELETE_LIST = Form(parameters=(LIST_ID, MAYBE_NAME), rules=(id_or_name,))


def lists(call: Call) -> Answer:
    """POST /person/lists: every list, the main one first; of a bound token, its own.

    `threshold`: the one in force where neither request nor source says otherwise.
    """
    gallery, bound = call.site.gallery, call.asker.list_id
    if bound is not None:
        own = gallery.find_list(bound)
        return ok(lists=[_list(call, own)] if own else [], cursor=None)
    page = gallery.lists(call.values[CURSOR] or None, call.values[LIMIT] or PAGE)
    return ok(lists=[_list(call, one) for one in page.items], cursor=page.cursor)


def list_create(call: Call) -> Answer:
    """POST /person/list/create: an empty list."""
    made = call.site.gallery.create_list(call.values[NAME])
    return ok(201 if call.site.cloud_codes else 200, message="list created", list_id=made.list_id)


def list_update(call: Call) -> Answer:
    """POST /person/list/update: another name."""
    call.site.gallery.rename_list(call.values[THE_LIST], call.values[NAME])
    return ok(message="list updated")


def list_delete(call: Call) -> Answer:
    """POST /person/list/delete: the list and everybody in it, for good."""
    list_id = _meant(call)
    deleted = call.site.gallery.delete_list(list_id)
    return ok(message=f"list {list_id} deleted", persons_deleted=deleted)


def _meant(call: Call) -> str:
    return call.values[LIST_ID] or _named(call, call.values[MAYBE_NAME] or "")


def _about_list(call: Call) -> Ids:
    return (("list_id", _meant(call)),)


def _named(call: Call, name: str) -> str:
    """Return the id of the list of that name."""
    cursor: str | None = None
    while True:
        page = call.site.gallery.lists(cursor, PAGE_LIMIT)
        for one in page.items:
            if one.name == name:
                return one.list_id
        cursor = page.cursor
        if cursor is None:
            raise ItemNotFound(Mistake(MAYBE_NAME.name, "no list of that name"))


def _list(call: Call, one: PersonList) -> dict[str, Any]:
    return {
        "id": one.list_id,
        "name": one.name,
        "count": one.count,
        "created": views.timestamp(one.created_ms),
        "main": one.is_main,
        "threshold": call.site.recognizer.threshold(one.count),
    }


ADMIN = frozenset({Scope.ADMIN})
MADE = schemas.done(list_id=schemas.UUID)

ROUTES = (
    Route(
        "/person/lists",
        lists,
        "List the lists",
        {200: Told("A page, the main list first", schemas.listing("lists", "PersonList"))},
        "lists",
        scopes=frozenset({Scope.READ}),
        form=LISTS,
    ),
    Route(
        "/person/list/create",
        list_create,
        "Make a list",
        {200: Told("Made", MADE), 201: Told("Made (cloud status codes)", MADE)},
        "lists",
        scopes=ADMIN,
        form=CREATE,
        refusals=(errors.Conflict, errors.StorageFull),
        administers=True,
        audited=always,
    ),
    Route(
        "/person/list/update",
        list_update,
        "Rename a list",
        {200: Told("Renamed", schemas.done())},
        "lists",
        methods=UPDATE,
        scopes=ADMIN,
        form=UPDATE_LIST,
        refusals=(errors.ItemNotFound, errors.Conflict, errors.StorageFull),
        administers=True,
        audited=always,
    ),
    Route(
        "/person/list/delete",
        list_delete,
        "Erase a list with everybody in it",
        {200: Told("Erased", schemas.done(persons_deleted=schemas.WHOLE))},
        "lists",
        methods=DELETE,
        scopes=ADMIN,
        form=DELETE_LIST,
        refusals=(errors.ItemNotFound, errors.Conflict, errors.StorageFull),
        administers=True,
        audited=always,
        about=_about_list,
    ),
)
