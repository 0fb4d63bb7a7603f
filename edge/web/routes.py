"""The one table of routes: what is not here is not answered, and what is here is documented."""

from __future__ import annotations

from edge.web import (
    auditing,
    console,
    frames,
    lists,
    live,
    openapi,
    operation,
    persons,
    photos,
    recognise,
    service,
    sources,
    unknowns,
    users,
)
from edge.web.site import ANY_SCOPE, GET, Call, Route, Told
from edge.web.views import Answer


def described(call: Call) -> Answer:
    """GET /openapi.json: this table, for programs."""
    return Answer(200, openapi.document(ROUTES, call.site.facts))


ROUTES: tuple[Route, ...] = (
    *recognise.ROUTES,
    *frames.ROUTES,
    *persons.ROUTES,
    *photos.ROUTES,
    *unknowns.ROUTES,
    *lists.ROUTES,
    *sources.ROUTES,
    *users.ROUTES,
    *service.ROUTES,
    *live.ROUTES,
    *auditing.ROUTES,
    *operation.ROUTES,
    *console.ROUTES,
    Route(
        "/openapi.json",
        described,
        "Describe every route, in OpenAPI 3.1",
        {200: Told("The description", {"type": "object"})},
        "service",
        methods=GET,
        scopes=ANY_SCOPE,
    ),
)
