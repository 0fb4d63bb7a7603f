"""The routes, and the one boundary that every request passes on its way in and out."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import bottle

from edge import __version__
from edge.errors import AccessDenied, InvalidSchema, ItemNotFound, Refusal, ScopeMissing
from edge.gallery.store import Gallery
from edge.recognition import Recognizer
from edge.types import MEASURE_NAMES, Pack, Person, Scope
from edge.web import addresses, forms, views
from edge.web.addresses import Signer
from edge.web.auth import Authenticator, Caller
from edge.web.body import Body, BodyLimits, read_body
from edge.web.views import Answer

log = logging.getLogger(__name__)

KNOWN_FEATURES = frozenset(MEASURE_NAMES) - {"size", "inside"}
"""The features that the default pack serves honestly; size and inside have parameters and checks of their own."""

PREFIXES = ("", "/v1")
"""Every route answers under both."""


@dataclass(frozen=True, eq=False)
class Site:
    """What the routes reach: the parts that daemon built."""

    recognizer: Recognizer
    gallery: Gallery
    authenticator: Authenticator
    signer: Signer
    body_limits: BodyLimits
    cloud_codes: bool
    pack: Pack
    clock_ms: Callable[[], int]


@dataclass(frozen=True, eq=False)
class Call:
    """One request on its way to a route's handler."""

    site: Site
    environ: Mapping[str, Any]
    parameters: Mapping[str, str]
    """From the path."""
    caller: Caller | None
    """None where the route needs no token."""
    body: Body
    started: float
    """On the monotonic clock."""

    @property
    def spent_ms(self) -> int:
        """Whole milliseconds since the request was taken up."""
        return int((time.monotonic() - self.started) * 1000)

    def image_url(self, person: Person) -> str | None:
        """Return the signed address of a person's picture."""
        if person.picture is None:
            return None
        now_seconds = self.site.clock_ms() // 1000
        path = self.site.signer.path(person.person_id, person.picture, now_seconds=now_seconds)
        return addresses.origin(self.environ) + path


Handler = Callable[[Call], Answer]


@dataclass(frozen=True)
class Route:
    """A path, its methods, who may call it (any of the scopes; none: everybody), and what answers."""

    path: str
    methods: tuple[str, ...]
    scopes: frozenset[Scope]
    handler: Handler


def person_create(call: Call) -> Answer:
    """POST /person/create: what the appliance exists for."""
    assert call.caller is not None
    request = forms.person_create(call.body, KNOWN_FEATURES, call.site.pack.embedder.vector_length)
    if not request.embedding_only:
        call.caller.require(Scope.ENROL)
    list_id, source_id = call.caller.may_use(request.list_id, request.source_id)
    request = replace(request, list_id=list_id, source_id=source_id)
    result = call.site.recognizer.create(request)
    return views.person_created(
        result,
        request,
        spent_ms=call.spent_ms,
        cloud_codes=call.site.cloud_codes,
        pack_id=call.site.pack.id,
        image_url=call.image_url,
    )


def stored_picture(call: Call) -> Answer:
    """GET /images/...: a stored picture, for whoever has its signed address."""
    person_id, name, token = (call.parameters[key] for key in ("person_id", "name", "token"))
    now_seconds = call.site.clock_ms() // 1000
    if not call.site.signer.allows(person_id, name, token, now_seconds=now_seconds):
        raise AccessDenied
    content = call.site.gallery.picture(name)
    if content is None:
        raise ItemNotFound
    headers = {"Cache-Control": "private, max-age=3600", "X-Content-Type-Options": "nosniff"}
    return Answer(200, content=content, content_type="image/jpeg", headers=headers)


def health(call: Call) -> Answer:
    """GET /health: whether it works, and what with. Nothing personal, so no token."""
    site = call.site
    counts = site.gallery.counts()
    return Answer(
        200,
        {
            "status": "ok",
            "version": __version__,
            "pack": site.pack.id,
            "lists": counts.lists,
            "persons": counts.persons,
            "templates": counts.templates,
            "templates_set_aside": counts.set_aside,
        },
    )


ROUTES = (
    Route("/person/create", ("POST",), frozenset({Scope.ENROL, Scope.RECOGNIZE}), person_create),
    Route("/images/<person_id>/<name>/<token>", ("GET",), frozenset(), stored_picture),
    Route("/health", ("GET",), frozenset(), health),
)
"""The one table: what is not here is not answered."""


def application(site: Site) -> bottle.Bottle:
    """Return the WSGI application."""
    app = bottle.Bottle()
    app.default_error_handler = _unrouted
    for route in ROUTES:
        for prefix in PREFIXES:
            app.route(prefix + route.path, method=list(route.methods), callback=_endpoint(site, route))
    return app


def _endpoint(site: Site, route: Route) -> Callable[..., bottle.HTTPResponse]:
    def respond(**parameters: str) -> bottle.HTTPResponse:
        started = time.monotonic()
        environ = bottle.request.environ
        try:
            caller, body = _admitted(site, route, environ)
            answer = route.handler(Call(site, environ, parameters, caller, body, started))
        except Refusal as error:
            answer = views.refusal(error)
        except Exception:  # the last boundary: the log gets the traceback, the client nothing
            log.exception("%s failed", route.path)
            answer = views.fault()
        return _response(answer)

    return respond


def _admitted(site: Site, route: Route, environ: Mapping[str, Any]) -> tuple[Caller | None, Body]:
    """Return who calls and what was sent; the token is judged before anything that the body says.

    A token in a header is judged before the body is read. One in the body needs the body taken apart; where that
    fails nobody has shown a token, and nothing more is told.
    """
    if not route.scopes:
        return None, Body()
    caller = site.authenticator.from_headers(environ)
    if caller is None:
        try:
            body = read_body(environ, site.body_limits)
        except InvalidSchema:
            raise AccessDenied from None
        caller = site.authenticator.from_body(body, environ)
        _require_any(caller, route.scopes)
    else:
        _require_any(caller, route.scopes)
        body = read_body(environ, site.body_limits)
    return caller, body


def _require_any(caller: Caller, scopes: frozenset[Scope]) -> None:
    if not any(caller.has(scope) for scope in scopes):
        raise ScopeMissing


def _response(answer: Answer) -> bottle.HTTPResponse:
    content = answer.content
    if answer.json is not None:
        content = json.dumps(answer.json, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    headers = {"Content-Type": answer.content_type, "Cache-Control": "no-store", **answer.headers}
    return bottle.HTTPResponse(content, answer.status, headers)


def _unrouted(error: bottle.HTTPError) -> bytes:
    """Answer what no route takes (404, 405), or what failed before one was found, in the contract's shape."""
    messages = {404: "not found", 405: "method not allowed"}
    if error.status_code >= 500:
        log.error("failed outside a route", exc_info=error.exception)
    bottle.response.content_type = "application/json; charset=utf-8"
    message = messages.get(error.status_code, "internal error" if error.status_code >= 500 else "bad request")
    body: dict[str, Any] = {"message": message, "status": "error"}
    if error.status_code < 500:
        body["errors"] = [{"field": "path", "reason": f"{bottle.request.method} {bottle.request.path[:100]}"}]
    return json.dumps(body).encode()
