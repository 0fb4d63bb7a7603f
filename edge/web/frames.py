"""POST /source/<id>/frame: what cameras send by themselves, a picture, in whatever their firmware wraps it.

A body that is the picture itself (image/jpeg); a form or any other multipart body with the picture among its parts; or
a notice without a picture (XML, text), which is answered as one. What other routes take from the body comes from the
query here, `?multi=true`.
"""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs

import multipart

from edge import errors
from edge.errors import ItemNotFound, MalformedBody, Mistake, NoImage
from edge.recognition import ActionRequest, ActionResult
from edge.types import Scope
from edge.web import schemas, views
from edge.web.body import Body, BodyLimits, malformed, read_body, read_bytes, too_large
from edge.web.forms import (
    DROP_IMAGE,
    IMAGE,
    MULTI,
    NEW_PERSON,
    WANTED,
    new_person_limits,
    uncertain_is_below,
    wanted_parts,
)
from edge.web.parameters import Form
from edge.web.recognise import LIST_TO_ADD_TO, LISTS_TO_SEARCH, RESULTS_OF_ACTION
from edge.web.site import Call, Route, Told
from edge.web.values import uuid_text
from edge.web.views import Answer

FORMS = ("multipart/form-data", "application/x-www-form-urlencoded", "application/json")
"""Content types that the other routes read too."""

PICTURES = ("image/", "application/octet-stream", "")
"""How the type of a body begins that is a picture; none is sent by clients that know no better."""

MAGIC = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n|RIFF....WEBP|BM", re.DOTALL)
"""How a picture begins: cameras call theirs image/pjpeg, image/jpg, or nothing."""

QUERY_CHARACTERS = 8192
"""No header line may be longer, but the limit is not to be somebody else's."""

FRAME = Form(
    parameters=(IMAGE, LISTS_TO_SEARCH, LIST_TO_ADD_TO, RESULTS_OF_ACTION, *NEW_PERSON, MULTI, DROP_IMAGE, *WANTED),
    rules=(uncertain_is_below,),
)


# --- the body ---


def query(environ: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the values of the query by their names; what cannot be read is as if it were not there."""
    text = str(environ.get("QUERY_STRING", ""))
    if len(text) > QUERY_CHARACTERS:
        return {}
    try:
        return parse_qs(text, keep_blank_values=True, errors="strict", max_num_fields=100)
    except ValueError:
        return {}


def read(environ: Mapping[str, Any], limits: BodyLimits) -> Body:
    """Return the body, with the picture that is in it under the name `image`, and the query's values beneath its own.

    Of several pictures the largest: beside the whole frame some cameras send the faces that they cut out of it.
    Raises as `read_body`.
    """
    content_type, options = multipart.parse_options_header(str(environ.get("CONTENT_TYPE", "")))
    asked = {name: tuple(values) for name, values in query(environ).items() if name != "token"}
    content = read_bytes(environ, limits)
    if content_type in FORMS:
        try:
            body = read_body({**environ, "wsgi.input": io.BytesIO(content)}, limits)
        except MalformedBody:  # a camera that counts wrong is no reason to see nothing
            is_multipart = content_type == FORMS[0] and options.get("boundary")
            loose = _as_image([*_parts(content, options["boundary"], limits)]) if is_multipart else {}
            if not loose:
                raise
            return Body(asked, loose)
        if body.json is not None:
            single = {name: values[0] if len(values) == 1 else [*values] for name, values in asked.items()}
            return dataclasses.replace(body, json={**single, **body.json})
        sent = [content for contents in body.files.values() for content in contents]
        named = body.files.get(IMAGE.name, ())[:1]
        return Body({**asked, **body.texts}, _as_image(sent) or ({IMAGE.name: named} if named else {}))
    if content_type.startswith("multipart/"):
        return Body(asked, _as_image([*_parts(content, options.get("boundary", ""), limits)]))
    if any(content_type.startswith(one) if one else not content_type for one in PICTURES):
        return Body(asked, {IMAGE.name: (content,)} if content else {})
    return Body(asked)


def _as_image(sent: list[bytes]) -> dict[str, tuple[bytes]]:
    """Return the largest of those that begin as a picture does, under the name of the picture."""
    pictures = [content for content in sent if MAGIC.match(content)]
    return {IMAGE.name: (max(pictures, key=len),)} if pictures else {}


def _parts(content: bytes, boundary: str, limits: BodyLimits) -> Iterator[bytes]:
    """Yield what the parts of a multipart body hold that is no form: their headers need not be what a form's are."""
    if not boundary:
        raise malformed("body", "multipart without a boundary")
    # before the first boundary no line need end
    pieces = (b"\r\n" + content).split(b"\r\n--" + boundary.encode("latin-1", "replace"), limits.parts + 1)
    if len(pieces) > limits.parts + 1:
        raise too_large("body", f"more than {limits.parts} parts")
    for piece in pieces[1:]:
        if not piece.startswith(b"--"):
            yield piece.partition(b"\r\n\r\n")[2]


def challenged(answer: Answer) -> Answer:
    """Return a 401 with what makes a camera that has a password send it."""
    if answer.status != 401:
        return answer
    return dataclasses.replace(answer, headers={**answer.headers, "WWW-Authenticate": 'Basic realm="edge"'})


# --- the route ---


def frame(call: Call) -> Answer:
    """POST /source/<id>/frame: /action for a source, by whose settings it goes.

    Where several frames of one source wait, the newest is worked on; the others are answered at once.
    """
    values, asker = call.values, call.asker
    try:
        source_id = uuid_text(call.parameters["source_id"])
    except ValueError as error:
        raise ItemNotFound(Mistake("source_id", str(error))) from None
    asker.may_use(None, source_id)
    wanted = wanted_parts(values)
    image = values[IMAGE]
    if image is None:  # a heartbeat, or the end of an event: to say that it was wrong would make the camera try again
        result = ActionResult(0, undecodable=NoImage())
    else:
        result = call.site.recognizer.act(
            ActionRequest(
                image=image,
                search_lists=tuple(dict.fromkeys(values[LISTS_TO_SEARCH])),
                add_list=next(iter(values[LIST_TO_ADD_TO]), None),
                results=values[RESULTS_OF_ACTION] or 1,
                source_id=source_id,
                multi=values[MULTI],
                drop_image=values[DROP_IMAGE],
                limits=new_person_limits(values),
                wanted=wanted,
                may_add=asker.has(Scope.ENROL),
                only_list=asker.list_id,
                newest_only=True,
            )
        )
    return views.acted(result, wanted, spent_ms=call.spent_ms, image_url=call.image_url)


ROUTES = (
    Route(
        "/source/<source_id>/frame",
        frame,
        "Take a frame as a camera sends it by itself: the picture as the body, or among the parts of one",
        {200: Told("As /action; without faces where a newer frame came first, or no picture was sent", schemas.ACTED)},
        "recognition",
        scopes=frozenset({Scope.ENROL, Scope.RECOGNIZE}),
        form=FRAME,
        refusals=(errors.ItemNotFound, errors.StorageFull),
        is_for_cameras=True,
    ),
)
