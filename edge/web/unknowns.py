"""The routes of strangers: grouped by likeness, and given a name."""

from __future__ import annotations

from typing import Any

from edge import errors
from edge.errors import ItemNotFound, Mistake, ScopeMissing
from edge.recognition import Group, NamingRequest, StrangersRequest
from edge.types import Scope
from edge.web import schemas, views
from edge.web.forms import LIST_ID
from edge.web.parameters import Form, Many, One
from edge.web.persons import NEW_FIELDS
from edge.web.service import FIRST, LAST, OF_LIST, OF_SOURCE, sighting_record
from edge.web.site import Call, Route, Told, always, ok
from edge.web.values import uuid_text, whole
from edge.web.views import Answer

GROUPS, MOST_GROUPS = 100, 2000
NAMED_AT_ONCE = 2000  # sightings: as many as are grouped

# --- POST /unknowns ---

LIMIT_OF_GROUPS = One("limit", whole(1, MOST_GROUPS), f"Groups, at most. {GROUPS} if absent.")

UNKNOWNS = Form(parameters=(OF_LIST, OF_SOURCE, FIRST, LAST, LIMIT_OF_GROUPS))


def unknowns(call: Call) -> Answer:
    """POST /unknowns: who was seen and is nobody, those who look like one person together."""
    values = call.values
    list_id, source_id = call.asker.may_use(values[OF_LIST], values[OF_SOURCE])
    found = call.site.recognizer.strangers(
        StrangersRequest(list_id, source_id, values[FIRST], values[LAST], values[LIMIT_OF_GROUPS] or GROUPS)
    )
    return ok(groups=[_group(call, one) for one in found])


def _group(call: Call, group: Group) -> dict[str, Any]:
    sightings = [one.sighting for one in group.sightings]
    return {
        "group_key": group.first.sighting_id,
        "count": len(sightings),
        "first": views.timestamp(group.first.time_ms),
        "last": views.timestamp(sightings[0].time_ms),
        "source_ids": sorted({one.source_id for one in sightings if one.source_id is not None}),
        "sighting_ids": [one.sighting_id for one in sightings],
        "sightings": [sighting_record(call, one.sighting, one.picture) for one in group.best],
    }


# --- POST /unknowns/name ---

SIGHTING_IDS = Many(
    "sighting_ids",
    uuid_text,
    "The sightings, that are nobody's: of a group, its `sighting_ids`.",
    NAMED_AT_ONCE,
    least=1,
    spread=True,
    required=True,
)
TO_PERSON_ID = One("person_id", uuid_text, "Whose they are. If absent, a new person's.")

NAME = Form(parameters=(SIGHTING_IDS, LIST_ID, NEW_FIELDS, TO_PERSON_ID))


def name(call: Call) -> Answer:
    """POST /unknowns/name: these sightings are somebody's."""
    values, gallery = call.values, call.site.gallery
    call.site.history.flush()  # what was answered a moment ago may still wait to be written
    for number, one in enumerate(gallery.faces(values[SIGHTING_IDS])):
        _check_bound(call, f"{SIGHTING_IDS.name}[{number}]", one.sighting.list_id, one.sighting.source_id)
    person_id = values[TO_PERSON_ID]
    person = call.site.recognizer.name_strangers(
        NamingRequest(
            list_id=call.list_id if person_id is None else call.list_of(person_id),
            sighting_ids=values[SIGHTING_IDS],
            fields=values[NEW_FIELDS],
            person_id=person_id,
        )
    )
    return ok(person=views.person(person, call.image_url))


def _check_bound(call: Call, field: str, list_id: str, source_id: str | None) -> None:
    """Raise ScopeMissing for a sighting of another list or source than the token is bound to."""
    asker = call.asker
    if asker.list_id not in (None, list_id) or asker.source_id not in (None, source_id):
        raise ScopeMissing(Mistake(field, "is of another list or source than the token is bound to"))


# --- the table ---

NAMED = schemas.obj({**schemas.STATUS, "person": schemas.named("Person")})
GROUPED = schemas.obj(
    {
        **schemas.STATUS,
        "groups": schemas.array(
            schemas.obj(
                {
                    "group_key": schemas.UUID,
                    "count": schemas.WHOLE,
                    "first": schemas.TIME,
                    "last": schemas.TIME,
                    "source_ids": schemas.array(schemas.UUID),
                    "sighting_ids": schemas.array(schemas.UUID),
                    "sightings": schemas.array(schemas.named("Sighting")),
                }
            )
        ),
    }
)

ROUTES = (
    Route(
        "/unknowns",
        unknowns,
        "Group the newest 2,000 sightings that are nobody's by likeness",
        {200: Told("The groups, who was seen last first; 12 sightings of each, the best first", GROUPED)},
        "strangers",
        scopes=frozenset({Scope.READ}),
        form=UNKNOWNS,
        refusals=(errors.ItemNotFound,),
    ),
    Route(
        "/unknowns/name",
        name,
        "Make a person of sightings that are nobody's, or add them to one",
        {200: Told("The person; the sightings are theirs", NAMED)},
        "strangers",
        scopes=frozenset({Scope.ENROL}),
        form=NAME,
        audited=always,
        refusals=(ItemNotFound, errors.Conflict, errors.StorageFull),
    ),
)
