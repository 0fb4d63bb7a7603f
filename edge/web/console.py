"""The page: its files, and its session."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge import errors
from edge.errors import AccessDenied, ItemNotFound, Refusal, invalid
from edge.gallery.access import EMAIL_LIMIT, PASSWORD_LEAST, PASSWORD_LIMIT
from edge.types import ActOutcome, Token, User
from edge.web import schemas, sessions, views
from edge.web.auth import Caller
from edge.web.parameters import Form, One, Values
from edge.web.site import GET, Call, Route, Told, ok
from edge.web.users import authenticated, check_user, subject_of_token, subject_of_user
from edge.web.values import Reader, text
from edge.web.views import Answer, InvalidCredentials

FOLDER = Path(__file__).parent / "console"

CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "media-src 'self' blob:",  # the device's camera
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",  # the page makes elements, never HTML out of text
    )
)

HEADERS = {
    "Cache-Control": "no-cache",  # kept, but asked about each time: an upgrade must not leave half a page behind
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True)
class StaticFile:
    """A file of the page, as it is sent."""

    content: bytes
    content_type: str
    etag: str


@functools.cache
def files() -> dict[str, StaticFile]:
    """Return the page's files by name."""
    found = {}
    for path in sorted(FOLDER.iterdir()):
        if path.suffix in CONTENT_TYPES:
            content = path.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            found[path.name] = StaticFile(content, CONTENT_TYPES[path.suffix], etag)
    return found


def page(call: Call) -> Answer:
    """GET /: the page."""
    return _sent(call, "index.html")


def file_of_page(call: Call) -> Answer:
    """GET /console/NAME: what the page is made of."""
    return _sent(call, call.parameters["name"])


def _sent(call: Call, name: str) -> Answer:
    file = files().get(name)
    if file is None:
        raise ItemNotFound
    headers = {**HEADERS, "ETag": file.etag}
    if file.etag in str(call.environ.get("HTTP_IF_NONE_MATCH", "")):
        return Answer(304, content_type=file.content_type, headers=headers)
    return Answer(200, content=file.content, content_type=file.content_type, headers=headers)


# --- GET and POST /session ---

EMAIL = One("email", text(EMAIL_LIMIT, 1), "The user's address; with the password, or neither and a token in a header.")
PASSWORD = One("password", text(PASSWORD_LIMIT, PASSWORD_LEAST), "The user's password.")


def both_or_neither(values: Values, reader: Reader) -> None:
    """Note that an address came without a password, or the other way round."""
    if (values[EMAIL] is None) != (values[PASSWORD] is None):
        missing = EMAIL if values[EMAIL] is None else PASSWORD
        reader.mistake(missing.name, "must be given too")


SIGN_IN = Form(parameters=(EMAIL, PASSWORD), rules=(both_or_neither,))


def sign_in(call: Call) -> Answer:
    """POST /session: sign in to the page, by address and password or by a token in a header."""
    sessions.check_origin(call.environ)
    site, email, password = call.site, call.values[EMAIL], call.values[PASSWORD]
    if email is not None and password is not None:
        user = authenticated(call, email, password)
        token = site.authenticator.issue(subject_of_user(user), user.scopes, sessions.SESSION_SECONDS)
    elif "HTTP_AUTHORIZATION" in call.environ or "HTTP_TOKEN" in call.environ:
        token = _for_token(call)
    else:
        raise invalid(EMAIL.name, "must be given with the password, or a token in the header Authorization")
    caller = site.authenticator.from_token(token, call.environ)
    return Answer(200, _told(call, caller), headers=sessions.cookie(token, call.environ))


def _for_token(call: Call) -> str:
    """Return a session's own token, good for no more and no longer than the one in the header."""
    site = call.site
    try:
        caller = site.authenticator.from_headers(call.environ)
        assert caller is not None, "a header was sent"
        check_user(site, caller)
    except AccessDenied:
        raise InvalidCredentials from None
    site.audit.note(call.actor_by(*caller.identity), ActOutcome.DONE)
    seconds = sessions.SESSION_SECONDS
    if caller.expires_ms is not None:
        seconds = max(1, min(seconds, caller.expires_ms // 1000 - site.now_seconds))
    subject = caller.subject if caller.token_id is None else subject_of_token(caller.token_id)
    return site.authenticator.issue(subject, caller.scopes, seconds, list_id=caller.list_id, source_id=caller.source_id)


def session(call: Call) -> Answer:
    """GET /session: who is signed in, and the CSRF token; for the page, which cannot read its own cookie."""
    token = sessions.token_of(call.environ)
    if token is None:
        return ok(signed_in=False)
    try:
        caller = call.site.authenticator.from_token(token, call.environ)
        check_user(call.site, caller)
    except Refusal:
        return Answer(200, {"status": "ok", "signed_in": False}, headers=sessions.cookie("", call.environ))
    return Answer(200, _told(call, caller))


def _told(call: Call, caller: Caller) -> dict[str, Any]:
    assert caller.jti is not None and caller.expires_ms is not None, "a session is a temporary token"
    return {
        "status": "ok",
        "signed_in": True,
        "name": _name(call, caller),
        "scope": sorted(scope.value for scope in caller.scopes),
        "list_id": caller.list_id,
        "source_id": caller.source_id,
        "expires": views.timestamp(caller.expires_ms),
        "csrf_token": sessions.csrf_token(caller.jti),
    }


def _name(call: Call, caller: Caller) -> str:
    who: User | Token | None = check_user(call.site, caller)
    if isinstance(who, User):
        return who.email
    return caller.subject if who is None else who.name


# --- the table ---

UNCHANGED = Told("As the ETag that was sent", {"type": "string"}, "text/html")
SESSION = schemas.obj(
    {**schemas.STATUS, "signed_in": schemas.TRUTH},
    {
        "name": schemas.TEXT,
        "scope": schemas.array(schemas.TEXT),
        "list_id": schemas.maybe(schemas.UUID),
        "source_id": schemas.maybe(schemas.UUID),
        "expires": schemas.TIME,
        "csrf_token": schemas.TEXT,
    },
)

ROUTES = (
    Route(
        "/",
        page,
        "The page",
        {200: Told("HTML", {"type": "string"}, "text/html"), 304: UNCHANGED},
        "page",
        methods=GET,
    ),
    Route(
        "/console/<name>",
        file_of_page,
        "A file of the page",
        {200: Told("The file", {"type": "string"}, "text/javascript"), 304: UNCHANGED},
        "page",
        methods=GET,
        refusals=(errors.ItemNotFound,),
    ),
    Route(
        "/session",
        session,
        "Say who is signed in to the page, and its CSRF token",
        {200: Told("Who is signed in", SESSION)},
        "page",
        methods=GET,
    ),
    Route(
        "/session/begin",
        sign_in,
        "Sign in to the page: the answer sets its cookie. POST /user/logout ends it",
        {200: Told("Signed in", SESSION)},
        "page",
        form=SIGN_IN,
        refusals=(InvalidCredentials, errors.TooManyAttempts),
    ),
)
