"""The routes of those who may call: login, logout, and permanent tokens."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from edge import errors
from edge.errors import AccessDenied, ItemNotFound, Mistake, Refusal, TooBusy, invalid
from edge.gallery.access import EMAIL_LIMIT, PASSWORD_LEAST, PASSWORD_LIMIT, Access
from edge.types import ActOutcome, Ids, Scope, Token, User
from edge.web import schemas, sessions, views
from edge.web.auth import DAY_SECONDS, Caller
from edge.web.parameters import Form, Many, Needed, One, Values
from edge.web.site import ANY_SCOPE, DELETE, UPDATE, Call, Route, Site, Told, always, ok
from edge.web.values import UUID, Kind, Reader, Unfit, moment_ms, text, uuid_text, whole
from edge.web.views import Answer, InvalidCredentials

DAY_MS = DAY_SECONDS * 1000
MOST_DAYS = 36_500  # a hundred years
PASSWORDS_AT_ONCE = 4
"""Passwords being checked, one after the other; more are told to come back, so that they never take every thread."""


# --- POST /user/login, /user/logout ---

EMAIL = Needed("email", text(EMAIL_LIMIT, 1), "The user's address.")
PASSWORD = Needed("password", text(PASSWORD_LIMIT, PASSWORD_LEAST), "The user's password.")
VALID_DAYS_OF_LOGIN = One(
    "valid_days", whole(0, MOST_DAYS), "Days that the token is good for, 1 if absent; 0: until logout (or as any may)."
)

LOGIN = Form(parameters=(EMAIL, PASSWORD, VALID_DAYS_OF_LOGIN))

_checking = threading.BoundedSemaphore(PASSWORDS_AT_ONCE)


def login(call: Call) -> Answer:
    """POST /user/login: a temporary token for a password."""
    user = authenticated(call, call.values[EMAIL], call.values[PASSWORD])
    days = call.values[VALID_DAYS_OF_LOGIN]
    seconds = None if days == 0 else (1 if days is None else days) * DAY_SECONDS
    return ok(token=call.site.authenticator.issue(subject_of_user(user), user.scopes, seconds))


def authenticated(call: Call, email: str, password: str) -> User:
    """Return whose address and password these are.

    InvalidCredentials: nobody's. TooManyAttempts: too many from the caller's address were wrong.
    """
    address = str(call.environ.get("REMOTE_ADDR", ""))
    call.site.attempts.begin(address)
    try:
        user = _checked(call.site.access, email, password)
    except Refusal:
        call.site.attempts.succeeded(address)  # nobody has been told anything about the password
        raise
    if user is None:
        raise InvalidCredentials
    call.site.attempts.succeeded(address)
    call.site.audit.note(call.actor_by(user.user_id, "user"), ActOutcome.DONE)
    return user


def _checked(access: Access, email: str, password: str) -> User | None:
    if not _checking.acquire(blocking=False):
        raise TooBusy
    try:
        return access.check_password(email, password)
    finally:
        _checking.release()


def subject_of_user(user: User) -> str:
    """Return whom a token is issued to: the user, as long as the password is this one."""
    return f"{user.user_id}@{user.password_ms}"


def subject_of_token(token_id: str) -> str:
    """Return whom a session is issued to that was begun with a permanent token."""
    return f"{sessions.OF_TOKEN}{token_id}"


def check_user(site: Site, caller: Caller) -> User | Token | None:
    """Return who is behind a temporary token, None of one that is nobody's.

    AccessDenied: the user is gone or has another password since, the permanent token was revoked or has expired.
    """
    if caller.jti is None:
        return None
    if caller.subject.startswith(sessions.OF_TOKEN):
        token = site.access.token(caller.subject.removeprefix(sessions.OF_TOKEN))
        if token is None or (token.expires_ms is not None and token.expires_ms // 1000 <= site.now_seconds):
            raise AccessDenied(Mistake("token", "the permanent one it was made from was revoked, or has expired"))
        return token
    user_id, at, password_ms = caller.subject.partition("@")
    if not at or not UUID.fullmatch(user_id):
        return None
    user = site.access.user(user_id)
    if user is None or str(user.password_ms) != password_ms:
        raise AccessDenied(Mistake("token", "its user is gone, or has another password"))
    return user


def logout(call: Call) -> Answer:
    """POST /user/logout: the temporary token is worth nothing any more."""
    call.site.authenticator.revoke(call.asker)
    headers = sessions.cookie("", call.environ) if sessions.token_of(call.environ) else {}
    return Answer(200, {"status": "ok", "message": "logged out"}, headers=headers)


# --- /tokens and POST /token/... ---


@dataclass(frozen=True)
class Expiry:
    """When a token ends: after so many days, at a time, or never."""

    days: int | None = None
    at_ms: int | None = None

    def at(self, now_ms: int) -> int | None:
        """Return the time, None for never."""
        return self.at_ms if self.days is None else now_ms + self.days * DAY_MS


_days = whole(1, MOST_DAYS)


def _expiry(value: Any) -> Expiry:
    if value == "never":
        return Expiry()
    try:
        return Expiry(days=_days(value))
    except Unfit:
        pass
    try:
        return Expiry(at_ms=moment_ms(value))
    except Unfit:
        raise Unfit(f'must be "never", a time like 2027-01-31T09:30:00Z, or days from 1 to {MOST_DAYS}') from None


def _scope(value: Any) -> Scope:
    try:
        return Scope(value)
    except ValueError:
        raise Unfit(f"must be one of {', '.join(scope.value for scope in Scope)}") from None


EXPIRES = One(
    "expires",
    Kind(_expiry, {"anyOf": [{"const": "never"}, *_days.schema["anyOf"], *moment_ms.schema["anyOf"]]}),
    'When it ends: a time in the future, days from now, or "never". This or valid_days must be given.',
)
VALID_DAYS = One("valid_days", _days, "Days from now that it is good for.")
TOKEN_NAME = One("name", text(100), "Whose it is: the camera at the door.")
SCOPE = Many(
    "scope",
    Kind(_scope, {"type": "string", "enum": sorted(scope.value for scope in Scope)}),
    "What it is good for; if absent, what the caller's own token is good for.",
    len(Scope),
    spread=True,
)
BOUND_SOURCE = One("source_id", uuid_text, "The one source that it may name.")
TOKEN_ID = Needed("token_id", uuid_text, "The token's id, as /tokens has it, or the token itself.")


def one_expiry(values: Values, reader: Reader) -> None:
    """Note that it was not said once when the token ends."""
    given = [name for name in (EXPIRES.name, VALID_DAYS.name) if reader.body.values(name)]
    if len(given) != 1:
        reader.mistake(EXPIRES.name, "either this or valid_days must be given")


BOUND_LIST = One("list_id", uuid_text, "The one list that it may use.")
TOKEN_CREATE = Form(parameters=(EXPIRES, VALID_DAYS, TOKEN_NAME, SCOPE, BOUND_LIST, BOUND_SOURCE), rules=(one_expiry,))
TOKEN_UPDATE = Form(parameters=(TOKEN_ID, EXPIRES, VALID_DAYS), rules=(one_expiry,))
TOKEN_DELETE = Form(parameters=(TOKEN_ID,))


def tokens(call: Call) -> Answer:
    """POST (or GET) /tokens: the permanent tokens, never their secrets."""
    return ok(tokens=[_token(one) for one in call.site.access.tokens()])


def token_create(call: Call) -> Answer:
    """POST /token/create: a permanent token; this is the only time that it is shown."""
    values, site = call.values, call.site
    expires_ms = _expires_ms(call)
    list_id = values[BOUND_LIST]
    if list_id is not None and site.gallery.find_list(list_id) is None:
        raise ItemNotFound(Mistake(BOUND_LIST.name, f"no list {list_id}"))
    token, secret = site.access.create_token(
        values[TOKEN_NAME] or "",
        frozenset(values[SCOPE]) or call.asker.scopes,
        list_id,
        values[BOUND_SOURCE],
        expires_ms,
        now_ms=site.clock_ms(),
    )
    told = {"id": secret, "expires": _told_expiry(expires_ms), "token_id": token.token_id}
    return ok(message="new token created", token=told)


def token_update(call: Call) -> Answer:
    """POST /token/update: another end."""
    expires_ms = _expires_ms(call)
    if call.site.access.update_expiry(_token_id(call), expires_ms) is None:
        raise _no_token(call)
    return ok(token={"id": call.values[TOKEN_ID], "expires": _told_expiry(expires_ms)})


def token_delete(call: Call) -> Answer:
    """POST /token/delete: it is refused from now on."""
    if not call.site.access.revoke(_token_id(call)):
        raise _no_token(call)
    return ok(message="1 token(s) deleted")


def _expires_ms(call: Call) -> int | None:
    expiry, now_ms = call.values[EXPIRES] or Expiry(days=call.values[VALID_DAYS]), call.site.clock_ms()
    at_ms = expiry.at(now_ms)
    if at_ms is not None and at_ms <= now_ms:
        raise invalid(EXPIRES.name, "is past")
    return at_ms


def _token_id(call: Call) -> str:
    """Return the id of the token that is meant: by its id, or (as the cloud has no other) by itself."""
    known = call.site.access.find(call.values[TOKEN_ID], call.site.clock_ms())
    return known.token_id if known else call.values[TOKEN_ID]


def _about_token(call: Call) -> Ids:
    """Return the token's id: what was sent may be the token itself, which is nobody's to read."""
    token_id = _token_id(call)
    return (("token_id", token_id),) if any(one.token_id == token_id for one in call.site.access.tokens()) else ()


def _no_token(call: Call) -> ItemNotFound:
    return ItemNotFound(Mistake(TOKEN_ID.name, "no token of that id"))


def _told_expiry(expires_ms: int | None) -> str:
    return "never" if expires_ms is None else views.timestamp(expires_ms)


def _token(token: Token) -> dict[str, Any]:
    return {
        "id": token.token_id,
        "name": token.name,
        "scope": sorted(scope.value for scope in token.scopes),
        "list_id": token.list_id,
        "source_id": token.source_id,
        "expires": _told_expiry(token.expires_ms),
        "created": views.timestamp(token.created_ms),
        "last_used": None if token.last_used_ms is None else views.timestamp(token.last_used_ms),
    }


# --- the table ---

ADMIN = frozenset({Scope.ADMIN})
ENDS = {"id": schemas.UUID, "expires": schemas.EXPIRY}

ROUTES = (
    Route(
        "/user/login",
        login,
        "Get a temporary token for a password",
        {200: Told("A token", schemas.obj({**schemas.STATUS, "token": schemas.TEXT}))},
        "users",
        form=LOGIN,
        refusals=(InvalidCredentials, errors.TooManyAttempts),
    ),
    Route(
        "/user/logout",
        logout,
        "End the temporary token that this is called with",
        {200: Told("Ended (a permanent token stays)", schemas.done())},
        "users",
        scopes=ANY_SCOPE,
        refusals=(errors.StorageFull,),
        audited=always,
    ),
    Route(
        "/tokens",
        tokens,
        "List the permanent tokens, never their secrets",
        {200: Told("The tokens", schemas.obj({**schemas.STATUS, "tokens": schemas.array(schemas.named("Token"))}))},
        "users",
        methods=("POST", "GET"),
        scopes=ADMIN,
        administers=True,
    ),
    Route(
        "/token/create",
        token_create,
        "Make a permanent token",
        {
            200: Told(
                "Made: `id` is the token, shown this once; `token_id` names it in /tokens",
                schemas.done(token=schemas.obj({**ENDS, "token_id": schemas.UUID})),
            )
        },
        "users",
        scopes=ADMIN,
        form=TOKEN_CREATE,
        refusals=(errors.ItemNotFound, errors.StorageFull),
        administers=True,
        audited=always,
    ),
    Route(
        "/token/update",
        token_update,
        "Let a permanent token end at another time",
        {200: Told("Changed", schemas.obj({**schemas.STATUS, "token": schemas.obj(ENDS)}))},
        "users",
        methods=UPDATE,
        scopes=ADMIN,
        form=TOKEN_UPDATE,
        refusals=(errors.ItemNotFound, errors.StorageFull),
        administers=True,
        audited=always,
        about=_about_token,
    ),
    Route(
        "/token/delete",
        token_delete,
        "Revoke a permanent token",
        {200: Told("Revoked", schemas.done())},
        "users",
        methods=DELETE,
        scopes=ADMIN,
        form=TOKEN_DELETE,
        refusals=(errors.ItemNotFound, errors.StorageFull),
        administers=True,
        audited=always,
        about=_about_token,
    ),
)
