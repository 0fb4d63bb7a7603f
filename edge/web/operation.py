"""The routes that the page's operator needs beside the service's own: the box, its users, its backups."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from edge import __version__, errors
from edge.errors import Conflict, ItemNotFound, Mistake, TooBusy
from edge.gallery.access import EMAIL as EMAIL_PATTERN
from edge.gallery.access import EMAIL_LIMIT, EVERY_SCOPE
from edge.gallery.space import MEGABYTE
from edge.matching import SCORE_AT_FMR_1, SCORE_PER_DECADE
from edge.types import Scope, User
from edge.web import schemas, views
from edge.web.parameters import Form, Needed
from edge.web.site import DELETE, UPDATE, Call, Route, Told, always, ok
from edge.web.users import EMAIL, PASSWORD, SCOPE
from edge.web.values import Kind, Unfit, text
from edge.web.views import Answer

# --- POST /box ---


def box(call: Call) -> Answer:
    """POST /box: what decides here, and whose work it is.

    `threshold`: null where it follows the list's size, so that a stranger is taken for somebody at
    `false_positive_rate`. A score of `score_at_fmr_1` is reached by any two faces, and by a tenth of them with every
    `score_per_decade` more.
    """
    settings = call.site.recognizer.settings
    return ok(
        version=__version__,
        pack={"id": call.site.pack.id, "name": call.site.pack.name, "description": call.site.pack.description},
        threshold=settings.threshold,
        false_positive_rate=settings.false_positive_rate,
        score_at_fmr_1=SCORE_AT_FMR_1,
        score_per_decade=SCORE_PER_DECADE,
        limits={
            "square_min": settings.square_min,
            "yaw_max": settings.yaw_max,
            "pitch_max": settings.pitch_max,
        },
        licences=[{"name": name, "text": text} for name, text in _licences(call)],
    )


def _licences(call: Call) -> list[tuple[str, str]]:
    """Return the notices of the pack in force and of the packs that it takes something from."""
    pack = call.site.pack
    files = [pack.embedder.file, pack.landmarks.file, *(file for file, _ in pack.detector.inputs)]
    notices = dict.fromkeys(folder / "NOTICE" for folder in (pack.folder, *(file.path.parent for file in files)))
    return [(path.parent.name, path.read_text(encoding="utf-8")) for path in notices if path.is_file()]


# --- POST /users, /user/create, /user/update, /user/delete ---

_line = text(EMAIL_LIMIT, 1)


def _address(value: Any) -> str:
    if not EMAIL_PATTERN.fullmatch(_line(value)):
        raise Unfit("must be an address with one @ and no spaces")
    return _line(value)


NEW_EMAIL = Needed(
    EMAIL.name,
    Kind(_address, {"type": "string", "pattern": rf"^{EMAIL_PATTERN.pattern}$", "maxLength": EMAIL_LIMIT}),
    "The address to log in with; no two users have the same, in whatever case.",
)
NEW_PASSWORD = Needed("password", PASSWORD.kind, "The user's new password. It ends every login made with the old one.")
USER_CREATE = Form(parameters=(NEW_EMAIL, PASSWORD, SCOPE))
USER_UPDATE = Form(parameters=(EMAIL, NEW_PASSWORD))
USER_DELETE = Form(parameters=(EMAIL,))


def users(call: Call) -> Answer:
    """POST /users: who may log in."""
    return ok(users=[_user(one) for one in call.site.access.users()])


def _user(user: User) -> dict[str, Any]:
    return {
        "email": user.email,
        "scope": sorted(scope.value for scope in user.scopes),
        "created": views.timestamp(user.created_ms),
        "password_set": views.timestamp(user.password_ms),
    }


def user_create(call: Call) -> Answer:
    """POST /user/create: somebody who may log in."""
    values, site = call.values, call.site
    scopes = frozenset(values[SCOPE]) or EVERY_SCOPE
    made = site.access.add_user(values[NEW_EMAIL], values[PASSWORD], scopes, now_ms=site.clock_ms())
    return ok(message="user created", user=_user(made))


def user_update(call: Call) -> Answer:
    """POST /user/update: another password."""
    values, site = call.values, call.site
    if not site.access.set_password(values[EMAIL], values[NEW_PASSWORD], now_ms=site.clock_ms()):
        raise ItemNotFound(Mistake(EMAIL.name, "no user of that address"))
    return ok(message="password changed")


def user_delete(call: Call) -> Answer:
    """POST /user/delete: they are logged out, and may not log in again."""
    if not call.site.access.remove_user(call.values[EMAIL]):
        raise ItemNotFound(Mistake(EMAIL.name, "no user of that address"))
    return ok(message="1 user(s) deleted")


# --- POST /backups, /backup/create ---

_backing_up = threading.Lock()


def backups(call: Call) -> Answer:
    """POST /backups: what lies in <data>/backups, the newest first."""
    found = []
    for path in call.site.backups():
        try:
            found.append(_backup(path))
        except FileNotFoundError:  # removed since it was listed
            continue
    return ok(backups=found)


def _backup(path: Path) -> dict[str, Any]:
    status = path.stat()
    return {
        "name": path.name,
        "made": views.timestamp(int(status.st_mtime * 1000)),
        "megabytes": round(status.st_size / MEGABYTE, 1),
    }


def backup_create(call: Call) -> Answer:
    """POST /backup/create: what `edge backup --auto` makes; answers when it has been read back."""
    if not _backing_up.acquire(blocking=False):
        raise TooBusy(Mistake("backup", "one is being made"))
    try:
        return ok(message="backup made", backup=_backup(call.site.back_up()))
    finally:
        _backing_up.release()


# --- the table ---

ADMIN = frozenset({Scope.ADMIN})
USER = schemas.obj(
    {
        "email": schemas.TEXT,
        "scope": schemas.array(schemas.TEXT),
        "created": schemas.TIME,
        "password_set": schemas.TIME,
    }
)
BACKUP = schemas.obj({"name": schemas.TEXT, "made": schemas.TIME, "megabytes": schemas.NUMBER})
BOX = schemas.obj(
    {
        **schemas.STATUS,
        "version": schemas.TEXT,
        "pack": schemas.obj({"id": schemas.TEXT, "name": schemas.TEXT, "description": schemas.TEXT}),
        "threshold": schemas.maybe(schemas.SCORE),
        "false_positive_rate": schemas.SCORE,
        "score_at_fmr_1": schemas.NUMBER,
        "score_per_decade": schemas.NUMBER,
        "limits": schemas.obj({"square_min": schemas.NUMBER, "yaw_max": schemas.NUMBER, "pitch_max": schemas.NUMBER}),
        "licences": schemas.array(schemas.obj({"name": schemas.TEXT, "text": schemas.TEXT})),
    }
)

ROUTES = (
    Route(
        "/box",
        box,
        "Say what decides here, and whose work the models are",
        {200: Told("Thresholds, limits, licences", BOX)},
        "service",
        scopes=frozenset({Scope.READ}),
    ),
    Route(
        "/users",
        users,
        "List who may log in",
        {200: Told("The users", schemas.obj({**schemas.STATUS, "users": schemas.array(USER)}))},
        "users",
        scopes=ADMIN,
        administers=True,
    ),
    Route(
        "/user/create",
        user_create,
        "Let somebody log in",
        {200: Told("Made", schemas.done(user=USER))},
        "users",
        scopes=ADMIN,
        form=USER_CREATE,
        refusals=(Conflict, errors.StorageFull),
        administers=True,
        audited=always,
    ),
    Route(
        "/user/update",
        user_update,
        "Give a user another password",
        {200: Told("Changed; logins made with the old one are worth nothing any more", schemas.done())},
        "users",
        methods=UPDATE,
        scopes=ADMIN,
        form=USER_UPDATE,
        refusals=(ItemNotFound, errors.StorageFull),
        administers=True,
        audited=always,
    ),
    Route(
        "/user/delete",
        user_delete,
        "Delete a user",
        {200: Told("Deleted", schemas.done())},
        "users",
        methods=DELETE,
        scopes=ADMIN,
        form=USER_DELETE,
        refusals=(ItemNotFound, errors.StorageFull),
        administers=True,
        audited=always,
    ),
    Route(
        "/backups",
        backups,
        "List the automatic backups, the newest first",
        {200: Told("The backups", schemas.obj({**schemas.STATUS, "backups": schemas.array(BACKUP)}))},
        "service",
        scopes=ADMIN,
        administers=True,
    ),
    Route(
        "/backup/create",
        backup_create,
        "Make a backup in <data>/backups and remove the oldest there",
        {200: Told("Made, and read back whole", schemas.done(backup=BACKUP))},
        "service",
        scopes=ADMIN,
        refusals=(errors.StorageFull,),
        administers=True,
        audited=always,
    ),
)
