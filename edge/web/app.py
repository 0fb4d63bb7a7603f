"""From the table of routes to a WSGI application, and the one boundary that every request passes on its way."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import bottle

from edge.errors import (
    AccessDenied,
    InvalidSchema,
    ItemNotFound,
    ListNotFound,
    Mistake,
    Refusal,
    ScopeMissing,
    Unusable,
)
from edge.web import auditing, frames, views
from edge.web.auth import Caller
from edge.web.body import Body, read_body
from edge.web.parameters import Names, Values
from edge.web.request_log import Trail
from edge.web.routes import ROUTES
from edge.web.site import Call, Route, Site
from edge.web.users import check_user
from edge.web.views import Answer

log = logging.getLogger(__name__)

PREFIXES = ("", "/v1")
"""Every route answers under both."""


def application(site: Site) -> bottle.Bottle:
    """Return the WSGI application."""
    app = bottle.Bottle()
    app.default_error_handler = partial(_unrouted, site)
    for route in ROUTES:
        for prefix in PREFIXES:
            app.route(prefix + route.path, method=list(route.methods), callback=_endpoint(site, route))
    return app


def _endpoint(site: Site, route: Route) -> Callable[..., bottle.HTTPResponse]:
    def respond(**parameters: str) -> bottle.HTTPResponse:
        started = time.monotonic()
        environ = bottle.request.environ
        if not _is_text(environ["bottle.raw_path"]):
            return bottle.HTTPError(404)
        trail = Trail(route.path, parameters)
        try:
            caller, body = _admitted(site, route, environ)
            trail.caller = caller
            values = trail.values = route.form.read(body, site.facts)
            if caller is not None:
                _check_binding(caller, values)
            call = Call(
                site,
                environ,
                parameters,
                caller,
                values,
                started,
                still_admitted=lambda: _is_admitted(site, route, environ),
                action=route.path,
            )
            answer = auditing.handled(route, call)
        except ListNotFound as error:
            answer = views.refusal(ItemNotFound(*error.mistakes) if route.lists_are_items else error)
        except Unusable as error:  # the box is broken, not the request; where its files lie is nobody's business
            log.error("%s failed: %s", route.path, error)
            answer = views.fault()
        except Refusal as error:
            answer = views.refusal(error)
            if route.is_for_cameras:
                answer = frames.challenged(answer)
        except Exception:  # the last boundary: the log gets the traceback, the client nothing
            log.exception("%s failed", route.path)
            answer = views.fault()
        seconds = time.monotonic() - started
        site.answered(route.path, answer.status, seconds)
        if site.logs_requests:
            trail.write(answer, seconds)
        response = _response(answer)
        response.set_header("X-Request-Id", trail.request_id)
        return response

    return respond


def _admitted(site: Site, route: Route, environ: Mapping[str, Any]) -> tuple[Caller | None, Body]:
    """Return who calls and what was sent; the token is judged before anything that the body says.

    A token in a header is judged before the body is read. One in the body needs the body taken apart; where that
    fails nobody has shown a token, and nothing more is told.
    """
    if route.is_for_cameras:
        return _admitted_camera(site, route, environ)
    if not route.scopes:
        return None, read_body(environ, site.body_limits)
    caller = site.authenticator.from_headers(environ)
    if caller is None:
        try:
            body = read_body(environ, site.body_limits)
        except InvalidSchema:
            raise AccessDenied from None
        caller = site.authenticator.from_body(body, environ)
        _check_caller(site, route, caller)
    else:
        _check_caller(site, route, caller)
        body = read_body(environ, site.body_limits)
    return caller, body


def _is_admitted(site: Site, route: Route, environ: Mapping[str, Any]) -> bool:
    """Whether the token in the headers is still good for the route: for an answer that goes on and on."""
    try:
        caller = site.authenticator.from_headers(environ)
        if caller is None:
            return False
        check_user(site, caller)
    except Refusal:
        return False
    return any(caller.has(scope) for scope in route.scopes)


def _admitted_camera(site: Site, route: Route, environ: Mapping[str, Any]) -> tuple[Caller, Body]:
    """As `_admitted`. Who shows no token at all is told to, and not counted: so cameras begin that have a password."""
    caller = site.authenticator.from_camera(environ, frames.query(environ))
    if caller is not None:
        _check_caller(site, route, caller)
        return caller, frames.read(environ, site.body_limits)
    try:
        body = frames.read(environ, site.body_limits)
    except InvalidSchema:
        raise AccessDenied from None
    if not body.values("token"):
        raise AccessDenied
    caller = site.authenticator.from_body(body, environ)
    _check_caller(site, route, caller)
    return caller, body


def _is_text(raw_path: str) -> bool:
    """Whether a path, its bytes as Latin-1, is UTF-8: Bottle leaves out what is not, and takes it for another path."""
    try:
        raw_path.encode("latin-1").decode()
    except UnicodeError:
        return False
    return True


def _check_caller(site: Site, route: Route, caller: Caller) -> None:
    check_user(site, caller)
    site.pace.admit(caller.token_id or caller.subject)  # a user's logins count together
    caller.require(*route.scopes)
    if route.administers and (caller.list_id is not None or caller.source_id is not None):
        raise ScopeMissing(Mistake("token", "is bound to a list or a source, so it changes nothing beyond them"))


def _check_binding(caller: Caller, values: Values) -> None:
    """Raise ScopeMissing where a list or a source is named that the token is not bound to."""
    for names, bound in ((Names.LIST, caller.list_id), (Names.SOURCE, caller.source_id)):
        if bound is not None:
            for name, asked in values.ids(names):
                if asked != bound:
                    raise ScopeMissing(Mistake(name, f"the token is bound to {bound}"))


def _response(answer: Answer) -> bottle.HTTPResponse:
    content = answer.content
    if answer.json is not None:
        content = json.dumps(answer.json, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    headers = {"Content-Type": answer.content_type, "Cache-Control": "no-store", **answer.headers}
    return bottle.HTTPResponse(answer.stream or content, answer.status, headers)


def _unrouted(site: Site, error: bottle.HTTPError) -> bytes:
    """Answer what no route takes (404, 405), or what failed before one was found, in the contract's shape."""
    site.refused(error.status_code)
    messages = {404: "not found", 405: "method not allowed"}
    if error.status_code >= 500:
        log.error("failed outside a route", exc_info=error.exception)
    bottle.response.content_type = "application/json; charset=utf-8"
    message = messages.get(error.status_code, "internal error" if error.status_code >= 500 else "bad request")
    body: dict[str, Any] = {"message": message, "status": "error"}
    if error.status_code < 500:
        body["errors"] = [{"field": "path", "reason": f"{bottle.request.method} {bottle.request.path[:100]}"}]
    return json.dumps(body).encode()
