"""What is told of an event, to whom, and how often: events become messages here, and nowhere else."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from edge.events import Event, FaceSighted, ListAlertRaised
from edge.gallery.outgoing import Draft, Message, Outgoing
from edge.outbound.mqtt_topics import Topics
from edge.types import Sighting, Verdict

log = logging.getLogger(__name__)

UNKNOWN = "unknown"
"""Stands for whoever is nobody of the list."""

KEYS = 10_000
"""Pairs of person and source that are remembered for the quiet time."""


SHOWN_LIMIT = 255
"""Characters of a state in Home Assistant (MAX_LENGTH_STATE_STATE of its const.py); a longer one it does not show."""


class Quiet:
    """Whether somebody is told of again: once in so many seconds for each person and source. Begins anew at a start."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._told: dict[tuple[str, ...], float] = {}
        self._turn = threading.Lock()

    def may(self, *key: str) -> bool:
        """Whether it is time; if so it is noted."""
        if not self._seconds:
            return True
        now = time.monotonic()
        with self._turn:
            told = self._told.get(key)
            if told is not None and now - told < self._seconds:
                return False
            self._told.pop(key, None)
            self._told[key] = now  # the newest stands last
            if len(self._told) > KEYS:
                del self._told[next(iter(self._told))]
            return True


@dataclass(frozen=True)
class Wishes:
    """What the settings ask for; None: not that way."""

    topics: Topics | None
    snapshots: bool
    mqtt_quiet_seconds: float
    webhooks: bool
    unknown_url: str | None
    webhook_quiet_seconds: float


Names = Callable[[str | None, str | None], Mapping[str, Any]]
"""What a list and a person are called (their ids are given), as it is added to what is told of them."""


class Teller:
    """The listener that makes messages."""

    def __init__(self, outgoing: Outgoing, wishes: Wishes, names: Names | None = None) -> None:
        """`names` None: nobody is named. It is asked in the queue's thread."""
        self._outgoing = outgoing
        self._wishes = wishes
        self._names = names
        self._mqtt_quiet = Quiet(wishes.mqtt_quiet_seconds)
        self._webhook_quiet = Quiet(wishes.webhook_quiet_seconds)

    def listen(self, event: Event) -> None:
        """Put what is to be told into the queue."""
        if isinstance(event, FaceSighted):
            self._outgoing.put([*self._published(event.sighting), *self._unknown(event.sighting)])
        elif isinstance(event, ListAlertRaised):
            self._outgoing.put(list(self._alert(event)))

    def _named(
        self, make: Callable[[Mapping[str, Any]], Message], list_id: str | None, person_id: str | None
    ) -> Message | Draft:
        names = self._names
        return make({}) if names is None else lambda: make(names(list_id, person_id))

    def _published(self, sighting: Sighting) -> Iterable[Message | Draft]:
        topics, person, source = self._wishes.topics, sighting.person_id or UNKNOWN, sighting.source_id or ""
        if topics is None or not self._mqtt_quiet.may("sighting", person, source):
            return
        ids = (sighting.list_id, sighting.person_id)
        topic = topics.event(source)
        if self._wishes.snapshots and sighting.picture:  # first: whoever hears of the event finds its picture there
            yield _message("mqtt", topics.snapshot(source), sighting, sighting.picture)
        yield self._named(lambda names: _message("mqtt", topic, sighting, {**_of(sighting), **names}), *ids)
        if source:
            last = topics.person(source)
            yield self._named(lambda names: _retained(last, sighting, names), *ids)

    def _unknown(self, sighting: Sighting) -> Iterable[Message | Draft]:
        url = self._wishes.unknown_url
        if url is None or sighting.verdict not in (Verdict.ADD, Verdict.REJECT):
            return
        if self._webhook_quiet.may(UNKNOWN, UNKNOWN, sighting.source_id or ""):
            told = {"type": "person.unknown", **_of(sighting)}
            yield self._named(
                lambda names: _message(url, UNKNOWN, sighting, {**told, **names}),
                sighting.list_id,
                sighting.person_id,
            )

    def _alert(self, event: ListAlertRaised) -> Iterable[Message | Draft]:
        sighting, is_found = event.sighting, event.person_id is not None
        told = {
            "type": "list.found" if is_found else "list.failed",
            "id": sighting.sighting_id,
            "time": _time(sighting),
            "source_id": sighting.source_id,
            "group_id": event.group_id,
            "list_id": event.list_id,
            "person_id": event.person_id,
            "score": event.score,
            "wanted": event.wanted,
        }
        key = (event.person_id or UNKNOWN, sighting.source_id or "", event.list_id)
        url, topics = address(event.wanted), self._wishes.topics
        topic = f"{event.list_id}/{'found' if is_found else 'failed'}"
        who = {"list_id": event.list_id, "person_id": event.person_id}
        if url is not None:
            if not self._wishes.webhooks or not self._webhook_quiet.may("alert", *key):
                return
            del told["wanted"]  # an address may hold what only its receiver should know
            destination = url
        elif topics is not None and self._mqtt_quiet.may("alert", *key):
            destination, topic = "mqtt", topics.alert(event.group_id)
        else:
            return
        yield self._named(
            lambda names: _message(destination, topic, sighting, {**told, **names}, **who),
            event.list_id,
            event.person_id,
        )


class Unsigned:
    """The listener of a box that signs no webhooks: says once that somebody wants one."""

    def __init__(self) -> None:
        self._has_said = False

    def listen(self, event: Event) -> None:
        """Say it, of the first alert that goes nowhere."""
        if isinstance(event, ListAlertRaised) and not self._has_said and address(event.wanted) is not None:
            self._has_said = True
            log.warning(
                "an alert of the source group %s has an http address, and webhooks.secret_file is not set: such alerts"
                " are not sent",
                event.group_id,
            )


def address(wanted: Any) -> str | None:
    """Return the webhook's address that an `on_found` or `on_failed` is or has, None where it is something else."""
    url = wanted.get("url") if isinstance(wanted, Mapping) else wanted
    return url if isinstance(url, str) and url.startswith(("http://", "https://")) else None


def _of(sighting: Sighting) -> dict[str, Any]:
    return {
        "event_type": sighting.verdict.value,
        "id": sighting.sighting_id,
        "time": _time(sighting),
        "source_id": sighting.source_id,
        "list_id": sighting.list_id,
        "person_id": sighting.person_id,
        "score": sighting.score,
    }


def _time(sighting: Sighting) -> str:
    moment = datetime.fromtimestamp(sighting.time_ms / 1000, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _message(
    destination: str, topic: str, sighting: Sighting, payload: bytes | Mapping[str, Any], **who: str | None
) -> Message:
    """Return the message; `who`: another list and person than the sighting's."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload, ensure_ascii=False).encode()
    # A receiver of webhooks drops repeats by the id alone, and one sighting may have several messages for it.
    message_id = sighting.sighting_id if destination == "mqtt" else f"{sighting.sighting_id}/{topic}"
    ids = {"list_id": sighting.list_id, "person_id": sighting.person_id, **who}
    return Message(
        destination,
        message_id,
        topic,
        body,
        sighting.time_ms,
        list_id=ids["list_id"],
        person_id=ids["person_id"],
        source_id=sighting.source_id,
    )


def _retained(topic: str, sighting: Sighting, names: Mapping[str, Any]) -> Message:
    """Return who was seen last: `person` is what there is to show, the rest is about them."""
    shown = next((text for text in names.get("fields", ()) if text.strip()), sighting.person_id or UNKNOWN)
    return Message(
        "mqtt",
        sighting.sighting_id,
        topic,
        json.dumps({"person": shown[:SHOWN_LIMIT], **_of(sighting), **names}, ensure_ascii=False).encode(),
        sighting.time_ms,
        is_retained=True,
        list_id=sighting.list_id,
        person_id=sighting.person_id,
        source_id=sighting.source_id,
    )
