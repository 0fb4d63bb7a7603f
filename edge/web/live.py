"""GET /events: sightings as they are recorded, to whoever watches, as server-sent events (WHATWG HTML, 9.2).

A stream keeps a thread of the server's for itself, so there are few of them, and threads for all of those.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from edge import errors
from edge.errors import Refusal
from edge.events import SightingRecorded
from edge.types import Scope
from edge.web.service import sighting_record
from edge.web.site import GET, Call, Route, Told
from edge.web.values import UUID
from edge.web.views import Answer
from edge.web.watching import News, Watcher

HEARTBEAT_SECONDS = 10.0
"""Half of what proxies and `idle_seconds` give a silent connection."""

RECHECK_SECONDS = 2.0
"""How soon a token that was revoked, or has expired, ends its stream."""

RETRY_MS = 3000
"""What a browser waits before it connects again."""


class Stream:
    """The body of the answer, piece by piece; `close` lets go of its place."""

    def __init__(self, call: Call, watcher: Watcher) -> None:
        self._call = call
        self._watcher = watcher
        self._pieces = self._told()

    def __iter__(self) -> Iterator[bytes]:
        """Return the pieces."""
        return self._pieces

    def close(self) -> None:
        """Let go; the server calls this however the answer ends."""
        self._call.site.live.close(self._watcher)

    def _told(self) -> Iterator[bytes]:
        yield f"retry: {RETRY_MS}\n\n".encode()
        told: set[str] = set()
        yield from self._resumed(told)
        silent_since = checked = time.monotonic()
        while (news := self._watcher.take(RECHECK_SECONDS)) is not None:
            now = time.monotonic()
            if now - checked >= RECHECK_SECONDS:
                checked = now
                if not self._call.still_admitted():
                    return
            pieces = self._pieces_of(news, told)
            if not pieces and now - silent_since >= HEARTBEAT_SECONDS:
                pieces = [b":\n\n"]
            if pieces:
                silent_since = now
            yield from pieces

    def _pieces_of(self, news: News, told: set[str]) -> list[bytes]:
        """Return what is to be sent; what was told already was on disk when the stream was resumed."""
        missed = [_event("missed", {"count": news.missed})] if news.missed else []
        return missed + [self._sighting(one) for one in news.sightings if one.sighting.sighting_id not in told]

    def _resumed(self, told: set[str]) -> Iterator[bytes]:
        """Yield what was recorded since the last event that the client has; `told` takes their ids."""
        last = str(self._call.environ.get("HTTP_LAST_EVENT_ID", "")).strip().lower()
        if not last:
            return
        asker = self._call.asker
        found = None
        if UUID.fullmatch(last):
            try:
                found = self._call.site.history.after(last, list_id=asker.list_id, source_id=asker.source_id)
            except Refusal:  # its list is gone
                return
        if found is None:  # of another time or box: nobody can say how many there were
            yield _event("missed", {"count": None})
            return
        for stored in found:
            told.add(stored.sighting.sighting_id)
            yield self._sighting(SightingRecorded(stored.sighting, stored.picture))

    def _sighting(self, recorded: SightingRecorded) -> bytes:
        sighting = recorded.sighting
        record = sighting_record(self._call, sighting, recorded.picture)
        person = sighting.person_id and self._call.site.gallery.find_person(sighting.person_id)
        may_be_told = person and self._call.asker.list_id in (None, person.list_id)
        record["fields"] = [*person.fields] if person and may_be_told else []
        return f"id: {sighting.sighting_id}\n".encode() + _event("sighting", record)


def _event(name: str, content: dict[str, Any]) -> bytes:
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return f"event: {name}\ndata: {text}\n\n".encode()


GoLive = Callable[[Callable[[], None]], None]
"""The server's: says that the answer goes on for ever, and what to call when it has to end."""


def events(call: Call) -> Answer:
    """GET /events: who is seen, as it is recorded."""
    watcher = call.site.live.open(call.asker.list_id, call.asker.source_id)
    go_live: GoLive | None = call.environ.get("edge.live")
    if go_live is not None:
        go_live(watcher.end)
    return Answer(200, stream=Stream(call, watcher), content_type="text/event-stream; charset=utf-8")


EVENTS = (
    "Server-sent events, for ever: `sighting` (`id` is the sighting's; `data` is as in /history, and `fields` of the"
    " person), `missed` (`count` of sightings that were dropped; null: nobody knows). With Last-Event-ID, first what"
    " was recorded since, 500 at most."
)

ROUTES = (
    Route(
        "/events",
        events,
        "Watch the sightings as they are recorded",
        {200: Told(EVENTS, {"type": "string"}, "text/event-stream")},
        "service",
        methods=GET,
        scopes=frozenset({Scope.READ}),
        refusals=(errors.TooManyStreams,),
    ),
)
