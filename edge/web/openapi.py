"""/openapi.json, made from the table of routes: OpenAPI 3.1, nothing in it written by hand twice."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from edge import __version__, errors
from edge.errors import Refusal
from edge.types import Scope
from edge.web import schemas
from edge.web.parameters import Facts, Form
from edge.web.site import GET, Route, Told
from edge.web.views import status_of

DESCRIPTION = """\
Face recognition that never leaves the building. Every route answers with and without the prefix `/v1`.

A token comes as `Authorization: Bearer <token>`, as a header `token`, or as a field `token` of the body; where several
are sent, the first in that order counts. Bodies may be JSON or forms. Every refusal has the same shape.\
"""

SCOPES = {
    Scope.RECOGNIZE: "compare faces, change nothing",
    Scope.ENROL: "add, change and delete persons",
    Scope.READ: "read persons, lists, sources and the history",
    Scope.ADMIN: "everything, tokens, lists and sources too",
}

CAMERAS = """

The body may also be the picture itself (`image/jpeg`), or any other multipart body with the picture among its parts;
what else the route takes then comes from the query. The token may also be the password of `Authorization: Basic`, or
`token` in the query.\
"""
"""What no schema of ours says of a route for cameras."""

EVERYWHERE: tuple[type[Refusal], ...] = (errors.InvalidSchema, errors.BodyTooLarge, errors.TooBusy)
"""What any route may answer: a request that cannot be read, one that is too large, a box that has its hands full."""

BY_THE_SERVER = {
    408: "The request took too long to arrive",
    429: "Too many connections, wrong tokens or passwords from one address, or too many requests of one token",
    431: "The headers are too large",
    500: "A fault of the appliance; its log says why",
}

EXAMPLE_UUID = "0f8fad5b-d9cb-469f-a165-70867728950e"

FORM_TYPES = ("multipart/form-data", "application/x-www-form-urlencoded")


def document(routes: Iterable[Route], facts: Facts) -> dict[str, Any]:
    """Return the document; `facts` are those of the active pack."""
    paths: dict[str, dict[str, Any]] = {}
    bodies: dict[str, dict[str, Any]] = {}
    for route in routes:
        operations = paths.setdefault(openapi_path(route.path), {})
        for is_form in (False, True) if route.methods != GET else ():
            bodies[_body_name(route, is_form=is_form)] = _with_token(route.form, facts, is_form=is_form)
        for method in route.methods:
            operations[method.lower()] = _operation(route, method)
    return {
        "openapi": "3.1.0",
        "info": {"title": "edge", "version": __version__, "description": DESCRIPTION},
        "servers": [{"url": "/v1"}, {"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": {**schemas.COMPONENTS, **bodies},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "token": {"type": "apiKey", "in": "header", "name": "token"},
            },
        },
    }


def openapi_path(path: str) -> str:
    """Return Bottle's path as OpenAPI has it: `<name>` becomes `{name}`."""
    return re.sub(r"<(\w+)>", r"{\1}", path)


def statuses(route: Route) -> dict[int, str]:
    """Return every status that the route may refuse with, and why."""
    refusals = [*EVERYWHERE, *route.refusals]
    if route.scopes:
        refusals += [errors.AccessDenied, errors.ScopeMissing]
    if route.form.needs:
        refusals += [errors.NoImage, errors.UnexpectedField]
    told: dict[int, list[str]] = {status: [text] for status, text in BY_THE_SERVER.items()}
    for refusal in dict.fromkeys(refusals):
        told.setdefault(status_of(refusal), []).append(f"`{refusal.message}`")
    return {status: "; ".join(texts) for status, texts in sorted(told.items())}


def _operation(route: Route, method: str) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{method.lower()}{route.path}").strip("_"),
        "summary": route.summary,
        "tags": [route.tag],
        "responses": {
            **{str(status): _answer(told) for status, told in route.answers.items()},
            **{str(status): _refusal(status, text) for status, text in statuses(route).items()},
        },
        "security": [{"bearer": []}, {"token": []}] if route.scopes else [],
    }
    if route.scopes:
        wanted = [scope for scope in SCOPES if scope in route.scopes]
        listed = ", ".join(f"`{scope.value}` ({SCOPES[scope]})" for scope in wanted)
        operation["description"] = f"A token with any of these scopes: {listed}; one with `admin` has every scope."
        if route.is_for_cameras:
            operation["description"] += CAMERAS
        operation["x-scopes"] = [scope.value for scope in wanted]
    names = re.findall(r"<(\w+)>", route.path)
    if names:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
            for name in names
        ]
    if method != "GET":
        operation["requestBody"] = _body(route)
    return operation


def _body_name(route: Route, *, is_form: bool) -> str:
    words = re.findall(r"\w+", route.path)
    return "".join(word.capitalize() for word in words) + ("Form" if is_form else "Body")


def _body(route: Route) -> dict[str, Any]:
    content = {"application/json": {"schema": schemas.named(_body_name(route, is_form=False))}}
    for form_type in FORM_TYPES:
        # a picture needs parts; where none is sent, pairs do as well
        if form_type == FORM_TYPES[0] or not route.form.takes_pictures:
            content[form_type] = {"schema": schemas.named(_body_name(route, is_form=True))}
    required = bool(route.form.needs) or any(one.required for one in route.form.parameters)
    return {"content": content, "required": required}


def _with_token(form: Form, facts: Facts, *, is_form: bool) -> dict[str, Any]:
    schema = form.schema(facts, form=is_form)
    # of no type: beside a token in a header it is not even looked at
    token = {"description": "The token, a text, where it comes in no header.", "examples": [EXAMPLE_UUID]}
    return {**schema, "properties": {**schema["properties"], "token": token}}


def _answer(told: Told) -> dict[str, Any]:
    return {"description": told.description, "content": {told.content_type: {"schema": dict(told.schema)}}}


def _refusal(status: int, text: str) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "description": text,
        "content": {"application/json": {"schema": schemas.named("Refusal")}},
    }
    if status in (429, 503):
        answer["headers"] = {"Retry-After": {"description": "Seconds to wait", "schema": {"type": "integer"}}}
    return answer
