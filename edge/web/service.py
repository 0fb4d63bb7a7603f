"""The routes of the appliance's own operation: health, stored pictures, the history."""

from __future__ import annotations

from typing import Any

from edge import __version__, errors
from edge.errors import AccessDenied, ItemNotFound
from edge.gallery.protocol import PAGE
from edge.gallery.space import MEGABYTE, State
from edge.types import Scope, Sighting
from edge.web import schemas, views
from edge.web.forms import LIST_ID, SOURCE_ID
from edge.web.parameters import Form, Names, One
from edge.web.persons import CURSOR, LIMIT
from edge.web.site import GET, Call, Route, Told, ok
from edge.web.values import moment_ms, uuid_text
from edge.web.views import Answer

# --- GET /health, /images/... ---

HEALTH_LISTS = 100
"""Whose thresholds are told: whoever has more reads POST /person/lists, page by page."""


def health(call: Call) -> Answer:
    """GET /health: whether it works, and what with. Nothing personal, so no token: lists by their ids alone.

    `thresholds`: of the first lists, the main one before all, the threshold in force where neither request nor source
    says otherwise. `disk`: see gallery.space. `restored_from`: the time of the backup that stands in for a database
    that was found broken, until `edge restore --acknowledge`. `clock`: whether this box's clock has leapt, and so is
    not believed (yet); see gallery.trusted_time. `fleet`: see docs/fleet.md; null for a box that is in none.
    """
    site = call.site
    counts = site.gallery.counts()
    leap_ms = site.access.leap_ms(site.clock_ms())
    room = site.space.room()
    shown = site.gallery.lists(None, HEALTH_LISTS).items
    return ok(
        version=__version__,
        pack=site.pack.id,
        lists=counts.lists,
        persons=counts.persons,
        templates=counts.templates,
        templates_set_aside=counts.set_aside,
        templates_other_packs=counts.other_packs,
        pictures_missing=counts.pictures_missing,
        restored_from=site.restored_from(),
        thresholds=[
            {"list_id": one.list_id, "persons": one.count, "threshold": site.recognizer.threshold(one.count)}
            for one in shown
        ],
        lists_not_shown=max(0, counts.lists - len(shown)),
        frames_superseded=site.recognizer.superseded,
        disk={"free_megabytes": room.free_bytes // MEGABYTE, "state": room.state.value},
        clock="ok" if not leap_ms else "ahead" if leap_ms > 0 else "behind",
        fleet=None if site.fleet is None else site.fleet(),
    )


def metrics(call: Call) -> Answer:
    """GET /metrics: numbers for Prometheus."""
    return Answer(200, content=call.site.metrics(), content_type="text/plain; version=0.0.4; charset=utf-8")


def stored_picture(call: Call) -> Answer:
    """GET /images/...: a stored picture, for whoever has its signed address."""
    person_id, name, token = (call.parameters[key] for key in ("person_id", "name", "token"))
    if not call.site.signer.allows(person_id, name, token, now_seconds=call.site.now_seconds):
        raise AccessDenied
    content = call.site.gallery.picture(name)
    if content is None:
        raise ItemNotFound
    headers = {"Cache-Control": "private, max-age=3600", "X-Content-Type-Options": "nosniff"}
    return Answer(200, content=content, content_type="image/jpeg", headers=headers)


# --- POST /history ---

OF_PERSON = One("person_id", uuid_text, "Sightings of this person.")
OF_LIST = One(LIST_ID.name, uuid_text, "Sightings compared with this list.", Names.LIST)
OF_SOURCE = One(SOURCE_ID.name, uuid_text, "Sightings by this source.", Names.SOURCE)
FIRST = One("from", moment_ms, "The earliest time, this one included.")
LAST = One("to", moment_ms, "The latest time, this one included.")

HISTORY = Form(parameters=(OF_PERSON, OF_LIST, OF_SOURCE, FIRST, LAST, LIMIT, CURSOR))


def history(call: Call) -> Answer:
    """POST /history: who was seen, the latest first."""
    values = call.values
    list_id, source_id = call.asker.may_use(values[OF_LIST], values[OF_SOURCE])
    page = call.site.history.page(
        person_id=values[OF_PERSON],
        list_id=list_id,
        source_id=source_id,
        first_ms=values[FIRST],
        last_ms=values[LAST],
        cursor=values[CURSOR] or None,
        limit=values[LIMIT] or PAGE,
    )
    return ok(
        sightings=[sighting_record(call, one.sighting, one.picture) for one in page.sightings], cursor=page.cursor
    )


def sighting_record(call: Call, one: Sighting, picture: str | None) -> dict[str, Any]:
    """Return a sighting as every route shows one; `picture` is its stored name."""
    answer: dict[str, Any] = {
        "id": one.sighting_id,
        "time": views.timestamp(one.time_ms),
        "list_id": one.list_id,
        "source_id": one.source_id,
        "group_id": one.group_id,
        "verdict": one.verdict.value,
        "person_id": one.person_id,
        "score": None if one.score is None else round(one.score, 4),
        "threshold": one.threshold,
        "bbox": None if one.box is None else views.bbox(one.box),
        "reasons": [views.reason(why) for why in one.reasons],
    }
    if picture is not None:
        answer["image_url"] = call.picture_url(one.sighting_id, picture)
    return answer


# --- the table ---

HEALTH = schemas.obj(
    {
        **schemas.STATUS,
        "version": schemas.TEXT,
        "pack": schemas.TEXT,
        "lists": schemas.WHOLE,
        "persons": schemas.WHOLE,
        "templates": schemas.WHOLE,
        "templates_set_aside": schemas.WHOLE,
        "templates_other_packs": schemas.WHOLE,
        "pictures_missing": schemas.WHOLE,
        "restored_from": schemas.maybe(schemas.TIME),
        "thresholds": schemas.array(
            schemas.obj({"list_id": schemas.UUID, "persons": schemas.WHOLE, "threshold": schemas.SCORE})
        ),
        "lists_not_shown": schemas.WHOLE,
        "frames_superseded": schemas.WHOLE,
        "disk": schemas.obj(
            {
                "free_megabytes": schemas.WHOLE,
                "state": {"type": "string", "enum": [state.value for state in State]},
            }
        ),
        "clock": schemas.one_of("ok", "ahead", "behind"),
        "fleet": schemas.maybe(
            schemas.obj(
                {
                    "box": schemas.TEXT,
                    "connected": schemas.TRUTH,
                    "position": schemas.maybe(schemas.WHOLE),
                    "outbox": schemas.WHOLE,
                    "peers": schemas.array(
                        schemas.obj(
                            {
                                "box": schemas.TEXT,
                                "heard_seconds_ago": schemas.NUMBER,
                                "behind": schemas.maybe(schemas.WHOLE),
                                "outbox": schemas.WHOLE,
                                "pack": schemas.TEXT,
                                "same_pack": schemas.TRUTH,
                                "silent": schemas.TRUTH,
                            }
                        )
                    ),
                    "digest": schemas.maybe(schemas.TEXT),
                    "agrees": schemas.maybe(schemas.TRUTH),
                    "seeded": schemas.WHOLE,
                }
            )
        ),
    }
)

ROUTES = (
    Route(
        "/metrics",
        metrics,
        "Tell numbers, in Prometheus' text format: what took how long, what became of the faces, what there is",
        {200: Told("The numbers", {"type": "string"}, "text/plain")},
        "service",
        methods=GET,
        scopes=frozenset({Scope.READ}),
    ),
    Route(
        "/history",
        history,
        "Page through the sightings, the latest first",
        {200: Told("A page", schemas.listing("sightings", "Sighting"))},
        "service",
        scopes=frozenset({Scope.READ}),
        form=HISTORY,
        refusals=(errors.ItemNotFound,),
    ),
    Route(
        "/images/<person_id>/<name>/<token>",
        stored_picture,
        "Fetch a stored picture by its signed address (`image_url`)",
        {200: Told("The picture", {"type": "string", "contentMediaType": "image/jpeg"}, "image/jpeg")},
        "service",
        methods=GET,
        refusals=(errors.AccessDenied, errors.ItemNotFound),
    ),
    Route(
        "/health",
        health,
        "Say whether the appliance works",
        {200: Told("It works", HEALTH)},
        "service",
        methods=GET,
    ),
)
