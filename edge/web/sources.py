"""The routes of source groups and sources (cameras): what they bring to the requests that name them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from edge import errors
from edge.errors import Mistake, NothingToChange
from edge.gallery.protocol import PAGE
from edge.types import ListAlert, Scope, Source, SourceDefaults, SourceGroup
from edge.web import schemas, views
from edge.web.forms import FEATURE_CHECK, GROUP_ID, NEW_PERSON, new_person_limits, uncertain_is_below
from edge.web.parameters import Form, Many, Maybe, Names, Needed, One, json_text, nested
from edge.web.persons import CURSOR, LIMIT
from edge.web.recognise import LISTS
from edge.web.site import DELETE, UPDATE, Call, Route, Told, always, ok
from edge.web.values import Kind, Unfit, text, uuid_text
from edge.web.views import Answer

NAME_CHARACTERS = 100
ALERTS = 100  # of a group
ALERT_CHARACTERS = 2048  # of a text that is wanted when an alert is raised: a URL, a topic
ALERT_JSON = 4096  # characters, where it is an object

# --- what they take ---


def _alert(value: Any) -> ListAlert:
    if isinstance(value, str) and value.startswith("{"):
        value = nested(value)
    if isinstance(value, str):
        value = {"id": value}
    if not isinstance(value, dict):
        raise Unfit('must be a list\'s id, or an object like {"id": ..., "on_found": ..., "on_failed": ...}')
    strange = sorted(set(value) - {"id", "on_found", "on_failed"})
    if strange:
        raise Unfit("is none of id, on_found, on_failed: " + repr(strange[0][:64]))
    return ListAlert(uuid_text(value.get("id")), _wanted(value, "on_found"), _wanted(value, "on_failed"))


def _wanted(alert: dict[str, Any], name: str) -> Any:
    value = alert.get(name)
    if value is None:
        return None
    if isinstance(value, str):
        size, limit = len(value), ALERT_CHARACTERS
    elif isinstance(value, dict):
        size, limit = _json_size(value, name), ALERT_JSON
    else:
        raise Unfit(f"{name} must be a text or an object")
    if size > limit:
        raise Unfit(f"{name} has {size} characters; the limit is {limit}")
    return value


def _json_size(value: dict[str, Any], name: str) -> int:
    try:
        return len(json.dumps(value, allow_nan=False, ensure_ascii=False))
    except ValueError:
        raise Unfit(f"{name} holds a number that is not finite") from None


_WANTED = {
    "anyOf": [{"type": "string", "maxLength": ALERT_CHARACTERS}, {"type": "object"}, {"type": "null"}],
    "description": f"What is wanted then; an object of at most {ALERT_JSON} characters; empty: nothing.",
}
_ALERT_OBJECT = {
    "type": "object",
    "properties": {"id": dict(uuid_text.schema), "on_found": _WANTED, "on_failed": _WANTED},
    "required": ["id"],
    "additionalProperties": False,
}
_ALERT_TEXT = json_text(_ALERT_OBJECT, "alert")
ALERT: Kind[ListAlert] = Kind(
    _alert,
    {"anyOf": [dict(uuid_text.schema), _ALERT_OBJECT, _ALERT_TEXT]},
    {"anyOf": [dict(uuid_text.schema), _ALERT_TEXT]},
)


def _list_id(value: Any) -> str:
    if isinstance(value, str) and value.startswith("{"):
        value = nested(value)
    return uuid_text(value.get("id") if isinstance(value, dict) else value)


LIST_OBJECT = {"type": "object", "properties": {"id": dict(uuid_text.schema)}, "required": ["id"]}
_LIST_TEXT = json_text(LIST_OBJECT, "list")
LIST_REFERENCE: Kind[str] = Kind(
    _list_id,
    {"anyOf": [dict(uuid_text.schema), LIST_OBJECT, _LIST_TEXT]},
    {"anyOf": [dict(uuid_text.schema), _LIST_TEXT]},
)
"""An id, or an object that holds it, as the cloud has them; alerts belong to the group, so all else in it is unused."""

NAME = Needed("name", text(NAME_CHARACTERS, 1), "The name, for people.")
NEW_NAME = One("name", text(NAME_CHARACTERS, 1), "Another name.")
THE_GROUP = Needed("group_id", uuid_text, "The source group.")
THE_SOURCE = Needed("source_id", uuid_text, "The source.", Names.SOURCE)
ALERTS_OF_GROUP = Many(
    "person_list_search",
    ALERT,
    "Lists that every face of the group's sources is looked up in, and what is wanted when it is found or is not.",
    ALERTS,
    spread=True,
)
LISTS_TO_SEARCH = Many(
    "person_list_search",
    LIST_REFERENCE,
    "The lists that /action searches for this source: ids, or objects with one. Alerts belong to the group.",
    LISTS,
    spread=True,
)
LISTS_TO_ADD = Many(
    "person_list_add",
    uuid_text,
    "The list that /action adds strangers to for this source. One at most: a person is in one list.",
    1,
    spread=True,
)

GROUPS = Form(parameters=(LIMIT, CURSOR))
GROUP_CREATE = Form(parameters=(NAME, ALERTS_OF_GROUP))
NEW_ALERTS = Maybe(ALERTS_OF_GROUP)
GROUP_UPDATE = Form(parameters=(THE_GROUP, NEW_NAME, NEW_ALERTS))
GROUP_DELETE = Form(parameters=(THE_GROUP,))

NEW_SEARCH, NEW_ADD = Maybe(LISTS_TO_SEARCH), Maybe(LISTS_TO_ADD)
DEFAULTS = (*NEW_PERSON, FEATURE_CHECK)
SOURCES = Form(parameters=(GROUP_ID, LIMIT, CURSOR))
SOURCE_CREATE = Form(parameters=(NAME, GROUP_ID, *DEFAULTS, LISTS_TO_ADD, LISTS_TO_SEARCH), rules=(uncertain_is_below,))
SOURCE_UPDATE = Form(
    parameters=(THE_SOURCE, GROUP_ID, NEW_NAME, *DEFAULTS, NEW_ADD, NEW_SEARCH), rules=(uncertain_is_below,)
)
SOURCE_DELETE = Form(parameters=(THE_SOURCE, GROUP_ID))

# --- groups ---


def groups(call: Call) -> Answer:
    """POST /source/groups: every group; of a token that is bound to a source, that source's."""
    gallery, bound = call.site.gallery, call.asker.source_id
    if bound is not None:
        source = gallery.source(bound)
        group = gallery.group(source.group_id) if source and source.group_id else None
        return ok(groups=[_group(call, group)] if group else [], cursor=None)
    page = gallery.groups(call.values[CURSOR] or None, call.values[LIMIT] or PAGE)
    return ok(groups=[_group(call, one) for one in page.items], cursor=page.cursor)


def _group(call: Call, group: SourceGroup) -> dict[str, Any]:
    own = _own(call, [alert.list_id for alert in group.alerts])
    return {
        "group_id": group.group_id,
        "name": group.name,
        "created": views.timestamp(group.created_ms),
        "person_list_search": [
            {"id": alert.list_id, "on_found": alert.on_found, "on_failed": alert.on_failed}
            for alert in group.alerts
            if alert.list_id in own
        ],
    }


def _own(call: Call, list_ids: Sequence[str]) -> list[str]:
    """Return the lists that the caller may know of."""
    return [one for one in list_ids if call.asker.list_id in (None, one)]


def group_create(call: Call) -> Answer:
    """POST /source/group/create: a group of sources."""
    made = call.site.gallery.create_group(call.values[NAME], call.values[ALERTS_OF_GROUP])
    return ok(message="source group created", group_id=made.group_id)


def group_update(call: Call) -> Answer:
    """POST /source/group/update: another name, other alerts (all of them)."""
    name, alerts = call.values[NEW_NAME], call.values[NEW_ALERTS]
    if name is None and alerts is None:
        raise NothingToChange(Mistake("name", "neither name nor person_list_search was given"))
    call.site.gallery.update_group(call.values[THE_GROUP], name, alerts)
    return ok(message="source group updated")


def group_delete(call: Call) -> Answer:
    """POST /source/group/delete: its sources stay, without a group."""
    call.site.gallery.delete_group(call.values[THE_GROUP])
    return ok(message="1 group(s) deleted")


# --- sources ---


def sources(call: Call) -> Answer:
    """POST /sources: every source, or a group's; of a token that is bound to one, that one."""
    gallery, bound, group_id = call.site.gallery, call.asker.source_id, call.values[GROUP_ID]
    if bound is not None:
        own = gallery.source(bound)
        shown = own is not None and group_id in (None, own.group_id)
        return ok(sources=[_source(call, own)] if own and shown else [], cursor=None)
    page = gallery.sources(call.values[CURSOR] or None, call.values[LIMIT] or PAGE, group_id)
    return ok(sources=[_source(call, one) for one in page.items], cursor=page.cursor)


def _source(call: Call, source: Source) -> dict[str, Any]:
    own = source.defaults
    return {
        "source_id": source.source_id,
        "group_id": source.group_id,
        "name": source.name,
        "created": views.timestamp(source.created_ms),
        "feature_check": None if own.feature_check is None else [views.bound(one) for one in own.feature_check],
        "new_person_threshold": own.new_person_threshold,
        "new_person_threshold_score": own.new_person_threshold_score,
        "new_person_square_min": own.new_person_square_min,
        "new_person_yaw_max": own.new_person_yaw_max,
        "new_person_pitch_max": own.new_person_pitch_max,
        "person_list_add": _own(call, source.person_list_add),
        "person_list_search": _own(call, source.person_list_search),
    }


def source_create(call: Call) -> Answer:
    """POST /source/create: a camera, with what it brings to the requests that name it."""
    values = call.values
    made = call.site.gallery.create_source(
        values[NAME], values[GROUP_ID], _defaults(call), values[LISTS_TO_ADD], values[LISTS_TO_SEARCH]
    )
    return ok(message="source created", source_id=made.source_id)


def _defaults(call: Call) -> SourceDefaults:
    limits = new_person_limits(call.values)
    return SourceDefaults(
        new_person_threshold=limits.threshold,
        new_person_threshold_score=limits.threshold_score,
        new_person_square_min=limits.square_min,
        new_person_yaw_max=limits.yaw_max,
        new_person_pitch_max=limits.pitch_max,
        feature_check=call.values[FEATURE_CHECK] or None,
    )


def source_update(call: Call) -> Answer:
    """POST /source/update: what is given; the rest stays."""
    values = call.values
    given = {name: value for name, value in vars(_defaults(call)).items() if value is not None}
    changes: dict[str, Any] = {
        name: value
        for name, value in (
            ("name", values[NEW_NAME]),
            ("group_id", values[GROUP_ID]),
            ("person_list_add", values[NEW_ADD]),
            ("person_list_search", values[NEW_SEARCH]),
        )
        if value is not None
    }
    if not given and not changes:
        raise NothingToChange(Mistake("name", "nothing but source_id was given"))
    call.site.gallery.update_source(
        values[THE_SOURCE], lambda source: replace(source, defaults=replace(source.defaults, **given), **changes)
    )
    return ok(message="source updated")


def source_delete(call: Call) -> Answer:
    """POST /source/delete: its id stays in the records of persons and sightings."""
    call.site.gallery.delete_source(call.values[THE_SOURCE])
    return ok(message="1 source(s) deleted")


# --- the table ---

READ = frozenset({Scope.READ})
ADMIN = frozenset({Scope.ADMIN})
CHANGES = (errors.ItemNotFound, errors.StorageFull)


def _page(key: str, item: str) -> dict[int, Told]:
    return {200: Told("A page, in the order in which they were made", schemas.listing(key, item))}


ROUTES = (
    Route(
        "/source/groups",
        groups,
        "List the source groups",
        _page("groups", "Group"),
        "sources",
        scopes=READ,
        form=GROUPS,
    ),
    Route(
        "/source/group/create",
        group_create,
        "Make a source group",
        {200: Told("Made", schemas.done(group_id=schemas.UUID))},
        "sources",
        scopes=ADMIN,
        form=GROUP_CREATE,
        refusals=CHANGES,
        administers=True,
        audited=always,
    ),
    Route(
        "/source/group/update",
        group_update,
        "Change a source group",
        {200: Told("Changed", schemas.done())},
        "sources",
        methods=UPDATE,
        scopes=ADMIN,
        form=GROUP_UPDATE,
        refusals=(*CHANGES, errors.NothingToChange),
        administers=True,
        audited=always,
    ),
    Route(
        "/source/group/delete",
        group_delete,
        "Delete a source group; its sources stay",
        {200: Told("Deleted", schemas.done())},
        "sources",
        methods=DELETE,
        scopes=ADMIN,
        form=GROUP_DELETE,
        refusals=CHANGES,
        administers=True,
        audited=always,
    ),
    Route(
        "/sources",
        sources,
        "List the sources",
        _page("sources", "Source"),
        "sources",
        scopes=READ,
        form=SOURCES,
        refusals=(errors.ItemNotFound,),
    ),
    Route(
        "/source/create",
        source_create,
        "Make a source",
        {200: Told("Made", schemas.done(source_id=schemas.UUID))},
        "sources",
        scopes=ADMIN,
        form=SOURCE_CREATE,
        refusals=CHANGES,
        administers=True,
        audited=always,
    ),
    Route(
        "/source/update",
        source_update,
        "Change a source",
        {200: Told("Changed", schemas.done())},
        "sources",
        methods=UPDATE,
        scopes=ADMIN,
        form=SOURCE_UPDATE,
        refusals=(*CHANGES, errors.NothingToChange),
        administers=True,
        audited=always,
    ),
    Route(
        "/source/delete",
        source_delete,
        "Delete a source; its id stays in records and sightings",
        {200: Told("Deleted", schemas.done())},
        "sources",
        methods=DELETE,
        scopes=ADMIN,
        form=SOURCE_DELETE,
        refusals=CHANGES,
        administers=True,
        audited=always,
    ),
)
