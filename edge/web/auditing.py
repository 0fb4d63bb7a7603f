"""What the audit log keeps of requests, and POST /audit, which reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge.errors import Refusal, Unusable
from edge.gallery.acts import LETTERS
from edge.gallery.protocol import PAGE
from edge.types import Act, ActOutcome, Ids, Scope
from edge.web import schemas, views
from edge.web.parameters import Form, One
from edge.web.persons import CURSOR, LIMIT
from edge.web.site import Call, Route, Told, ok
from edge.web.values import moment_ms, text, uuid_text
from edge.web.views import Answer

ACTION_CHARACTERS = 100


def handled(route: Route, call: Call) -> Answer:
    """Return the route's answer; what it does is in the audit log before it is done, and how it ended after.

    A request that anybody may make is kept by its handler, once it knows who asks.
    """
    if call.caller is None or not route.audited(call.values):
        return route.handler(call)
    audit, actor = call.site.audit, call.actor
    number = audit.begin(actor, sent_ids(call) if route.about is None else route.about(call))
    outcome = ActOutcome.FAILED
    made: Ids = ()
    try:
        answer = route.handler(call)
        outcome, made = ActOutcome.DONE, _made_ids(answer)
        return answer
    except Unusable:
        raise
    except Refusal:
        outcome = ActOutcome.REFUSED
        raise
    finally:
        audit.end(number, actor, outcome, made)


def sent_ids(call: Call) -> Ids:
    """Return the ids that the request names."""
    found = []
    for parameter in call.values.form.parameters:
        if parameter.name in LETTERS:
            value = call.values[parameter]
            found += [(parameter.name, str(one)) for one in ((value,) if isinstance(value, str) else value or ())]
    return tuple(found)


def _made_ids(answer: Answer) -> Ids:
    """Return the ids of what was made: never a token, which is a UUID too."""
    told: Mapping[str, Any] = answer.json or {}
    person = told.get("person")
    if isinstance(person, Mapping):
        told = {"person_id": person.get("person_id"), **told}
    token = told.get("token")
    if isinstance(token, Mapping):
        told = {"token_id": token.get("token_id")}
    return tuple((name, told[name]) for name in LETTERS if isinstance(told.get(name), str))


# --- POST /audit ---

ACTION = One("action", text(ACTION_CHARACTERS, 1), "Only this route (`/person/delete`) or verb (`edge token create`).")
BY = One("caller_id", uuid_text, "Only by this token or user.")
ABOUT = One("id", uuid_text, "Only about this: a person, a list, a source, a token, whatever has this id.")
FIRST = One("from", moment_ms, "The earliest time, this one included.")
LAST = One("to", moment_ms, "The latest time, this one included.")

AUDIT = Form(parameters=(ACTION, BY, ABOUT, FIRST, LAST, LIMIT, CURSOR))


def audit(call: Call) -> Answer:
    """POST /audit: who changed, erased, exported, or changed who may; the latest first."""
    values = call.values
    page = call.site.audit.page(
        action=values[ACTION],
        caller_id=values[BY],
        id_=values[ABOUT],
        first_ms=values[FIRST],
        last_ms=values[LAST],
        cursor=values[CURSOR] or None,
        limit=values[LIMIT] or PAGE,
    )
    return ok(acts=[_act(one) for one in page.acts], cursor=page.cursor, lost=call.site.audit.lost)


def _act(act: Act) -> dict[str, Any]:
    return {
        "time": views.timestamp(act.actor.time_ms),
        "action": act.actor.action,
        "outcome": act.outcome.value,
        "caller_id": act.actor.caller_id,
        "caller": act.actor.caller,
        "address": act.actor.address or None,
        "ids": [{"names": name, "id": one} for name, one in act.ids],
        "detail": act.detail or None,
    }


NAMED_ID = schemas.obj({"names": schemas.one_of(*LETTERS), "id": schemas.UUID})
ACT = schemas.obj(
    {
        "time": schemas.TIME,
        "action": schemas.TEXT,
        "outcome": schemas.one_of(*(one.value for one in ActOutcome)),
        "caller_id": schemas.maybe(schemas.UUID),
        "caller": schemas.TEXT,
        "address": schemas.maybe(schemas.TEXT),
        "ids": schemas.array(NAMED_ID),
        "detail": schemas.maybe(schemas.TEXT),
    }
)

ROUTES = (
    Route(
        "/audit",
        audit,
        "Page through the audit log, the latest first: who changed, erased or exported what",
        {
            200: Told(
                "A page; `lost`: entries since the start that could not be written, and stand in the service's log",
                schemas.obj(
                    {
                        **schemas.STATUS,
                        "acts": schemas.array(ACT),
                        "cursor": schemas.maybe(schemas.TEXT),
                        "lost": schemas.WHOLE,
                    }
                ),
            )
        },
        "service",
        scopes=frozenset({Scope.ADMIN}),
        form=AUDIT,
        administers=True,
    ),
)
