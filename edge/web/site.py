"""What the routes reach, what one request brings, and what a route is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.errors import Refusal
from edge.gallery.access import Access
from edge.gallery.audit import Audit
from edge.gallery.history import History
from edge.gallery.protocol import Gallery
from edge.gallery.space import Space
from edge.recognition import Recognizer
from edge.types import MEASURE_NAMES, Actor, Ids, Pack, Person, Scope
from edge.web import addresses
from edge.web.addresses import Signer
from edge.web.attempts import Attempts, Pace
from edge.web.auth import Authenticator, Caller
from edge.web.body import BodyLimits
from edge.web.forms import LIST_ID
from edge.web.parameters import Facts, Form, Values
from edge.web.views import Answer
from edge.web.watching import Live

KNOWN_FEATURES = frozenset(MEASURE_NAMES) - {"size", "inside"}
"""The features that the default pack serves honestly; size and inside have parameters and checks of their own."""


@dataclass(frozen=True, eq=False)
class Site:
    """What the routes reach: the parts that daemon built."""

    recognizer: Recognizer
    gallery: Gallery
    history: History
    access: Access
    audit: Audit
    space: Space
    authenticator: Authenticator
    signer: Signer
    body_limits: BodyLimits
    cloud_codes: bool
    pack: Pack
    clock_ms: Callable[[], int]
    pace: Pace
    backups: Callable[[], Sequence[Path]]
    """The automatic backups, the newest first."""
    back_up: Callable[[], Path]
    """Makes another; see backup.automatic."""
    live: Live
    restored_from: Callable[[], str | None] = lambda: None
    """The time of the backup that the gallery was restored from by itself; None: it was not, or that is known."""
    fleet: Callable[[], Mapping[str, object]] | None = None
    """How the fleet is; None: this box is in none."""
    answered: Callable[[str, int, float], None] = lambda route, code, seconds: None
    """Told the template, the status code and the seconds of every request that found its route."""
    refused: Callable[[int], None] = lambda code: None
    """Told the status code of every request that came to no route."""
    metrics: Callable[[], bytes] = lambda: b""
    attempts: Attempts = field(default_factory=Attempts)
    logs_requests: bool = False
    """Whether every request has its line in the log."""

    @property
    def now_seconds(self) -> int:
        """The time that what expires is stamped with and judged by: a clock set back revives nothing."""
        return self.access.judged_now(self.clock_ms()) // 1000

    @property
    def facts(self) -> Facts:
        """What of the active pack decides which values fit."""
        return Facts(KNOWN_FEATURES, self.pack.embedder.vector_length)


@dataclass(frozen=True, eq=False)
class Call:
    """One request on its way to a route's handler."""

    site: Site
    environ: Mapping[str, Any]
    parameters: Mapping[str, str]
    """From the path."""
    caller: Caller | None
    """None where the route needs no token."""
    values: Values
    """What the route takes, checked."""
    started: float
    """On the monotonic clock."""
    still_admitted: Callable[[], bool] = lambda: True
    """Whether the token is still good: asked again and again by an answer that goes on."""
    action: str = ""
    """The route's path, as the audit log names what is done."""

    @property
    def asker(self) -> Caller:
        """Who asks, on a route that needs a token."""
        assert self.caller is not None, "a route with scopes is reached with a token alone"
        return self.caller

    @property
    def actor(self) -> Actor:
        """Who asks for what, as the audit log keeps it."""
        return self.actor_by(*self.asker.identity)

    def actor_by(self, caller_id: str | None, caller: str) -> Actor:
        """Return the same for a route that needs no token."""
        return Actor(
            action=self.action,
            caller_id=caller_id,
            caller=caller,
            address=str(self.environ.get("REMOTE_ADDR", "")),
            time_ms=self.site.access.trusted_now(self.site.clock_ms()),
        )

    @property
    def list_id(self) -> str:
        """The list that is meant: the request's, else the token's, else the main list."""
        return self.values[LIST_ID] or self.asker.list_id or self.site.gallery.main_list_id

    def list_of(self, person_id: str) -> str:
        """Return the list that is meant where a person is named: the token's, else the one that the person is in."""
        if self.asker.list_id is not None:
            return self.asker.list_id
        person = self.site.gallery.find_person(person_id)
        return self.site.gallery.main_list_id if person is None else person.list_id

    @property
    def spent_ms(self) -> int:
        """Whole milliseconds since the request was taken up."""
        return int((time.monotonic() - self.started) * 1000)

    def image_url(self, person: Person) -> str | None:
        """Return the signed address of a person's picture."""
        return None if person.picture is None else self.picture_url(person.person_id, person.picture)

    def picture_url(self, subject_id: str, name: str) -> str:
        """Return the signed address of a stored picture: of a person, or of a sighting."""
        path = self.site.signer.path(subject_id, name, now_seconds=self.site.now_seconds)
        return addresses.origin(self.environ) + path


Handler = Callable[[Call], Answer]

ANY_SCOPE = frozenset(Scope)

POST = ("POST",)
UPDATE = ("POST", "PUT")
DELETE = ("POST", "DELETE")
GET = ("GET",)
"""Older clients update with PUT and delete with DELETE; the body is read in every case."""


Audited = Callable[[Values], bool]
About = Callable[[Call], Ids]


def never(_: Values) -> bool:
    """Nothing is changed and nothing handed out in bulk."""
    return False


def always(_: Values) -> bool:
    """It changes something."""
    return True


@dataclass(frozen=True)
class Told:
    """An answer as /openapi.json tells it."""

    description: str
    schema: Mapping[str, Any]
    content_type: str = "application/json"


@dataclass(frozen=True, eq=False)
class Route:
    """A line of the table: what routes, checks, reads, documents and tests are all made from."""

    path: str
    """As Bottle has it: `<name>` stands for a part of it."""
    handler: Handler
    summary: str
    answers: Mapping[int, Told]
    tag: str
    methods: tuple[str, ...] = POST
    scopes: frozenset[Scope] = frozenset()
    """Any of them will do; none: everybody may call."""
    form: Form = field(default_factory=Form)
    refusals: tuple[type[Refusal], ...] = ()
    """Beyond those that every route has."""
    administers: bool = False
    """Changes what is beyond one list and one source, so no token that is bound to one may."""
    is_for_cameras: bool = False
    """The token may also be a password or stand in the query, and the body be the picture itself: see frames.py."""
    lists_are_items: bool = True
    """An unknown list is an unknown item, 404; otherwise as POST /person/create has it."""
    audited: Audited = never
    """Which of its requests the audit log keeps; enrolments are kept by the gallery, with the person."""
    about: About | None = None
    """The ids that a request is about, where its own parameters do not say, or may hold a secret."""


def ok(status: int = 200, **content: Any) -> Answer:
    """Return the answer to what has succeeded."""
    return Answer(status, {"status": "ok", **content})
