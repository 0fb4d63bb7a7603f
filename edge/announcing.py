"""Builds what tells others of events: the queue on disk, MQTT and webhooks; nothing at all where neither is set up."""

from __future__ import annotations

import base64
import binascii
import contextlib
import logging
import platform
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.config import Config
from edge.credentials import secret, trusted
from edge.errors import Mistake, Unusable
from edge.events import Listeners
from edge.gallery.outgoing import Outgoing
from edge.gallery.store import EmbeddedGallery
from edge.outbound.mqtt_topics import Topics
from edge.types import Source

if TYPE_CHECKING:
    from edge.outbound.mqtt import Broker, Mqtt
    from edge.outbound.telling import Names, Wishes
    from edge.outbound.webhook import Webhooks

log = logging.getLogger(__name__)

MEGABYTE = 1 << 20
HOUR_SECONDS = 3600

SECRET_BYTES = 24
"""A webhook's secret has at least so many: Standard Webhooks 1.0."""

KEY_PREFIX = "whsec_"

LAST_SECONDS = 2.0
"""At the end, for what could still be delivered."""

LOOK_SECONDS = 0.05
"""Between two looks whether it has been."""

Clock = Callable[[], int]
Readings = Callable[[], Mapping[str, float]]


@contextlib.contextmanager
def announced(config: Config, gallery: EmbeddedGallery, listeners: Listeners, clock_ms: Clock) -> Iterator[Readings]:
    """Tell others of what happens, as the settings ask for, until the end; yields what /metrics looks up.

    Raises Unusable where a file that the settings name is missing, or for others to read.
    """
    from edge.outbound.telling import Teller, Unsigned

    if not config.webhooks.secret_file:
        listeners.join(Unsigned().listen)
        if config.webhooks.unknown_url:
            log.warning("webhooks.unknown_url is told nothing, as webhooks.secret_file is not set")
    if not config.mqtt.host and not config.webhooks.secret_file:
        yield dict
        return
    mqtt, events = config.mqtt, config.events
    topics = Topics(mqtt.topic_prefix, box_name(config), mqtt.discovery_prefix or None) if mqtt.host else None
    readings: dict[str, Callable[[], float]] = {}
    with contextlib.ExitStack() as parts:
        most = events.keep_megabytes * MEGABYTE
        seconds = events.keep_hours * HOUR_SECONDS
        outgoing = Outgoing(config.data.folder, most_bytes=most, most_seconds=seconds, clock=clock_ms)
        parts.callback(outgoing.close)
        readings["messages_waiting"] = outgoing.count
        readings["messages_dropped"] = lambda: outgoing.dropped
        senders: list[Mqtt | Webhooks] = []
        if topics is not None:
            client = _mqtt(config, topics, outgoing, gallery, clock_ms)
            parts.callback(client.stop)
            senders.append(client)
            readings |= {"mqtt_connected": lambda: float(client.is_connected), "mqtt_sent": lambda: client.sent}
        if config.webhooks.secret_file:
            sender = _webhooks(config, outgoing, clock_ms)
            parts.callback(sender.stop)
            senders.append(sender)
            readings |= {"webhooks_sent": lambda: sender.sent, "webhooks_given_up": lambda: sender.given_up}
        parts.callback(_deliver, outgoing, senders, min(LAST_SECONDS, config.server.stop_seconds / 4))
        names = named(gallery) if events.names else None
        listeners.join(Teller(outgoing, _wishes(config, topics), names).listen)
        yield lambda: {name: read() for name, read in readings.items()}


def _wishes(config: Config, topics: Topics | None) -> Wishes:
    from edge.outbound.telling import Wishes

    mqtt, webhooks = config.mqtt, config.webhooks
    return Wishes(
        topics=topics,
        snapshots=mqtt.snapshots,
        mqtt_quiet_seconds=mqtt.quiet_seconds,
        webhooks=webhooks.secret_file is not None,
        unknown_url=(webhooks.unknown_url or None) if webhooks.secret_file else None,
        webhook_quiet_seconds=webhooks.quiet_seconds,
    )


def box_name(config: Config) -> str:
    """Return what the box is called in topics: letters, digits, - and _."""
    return config.mqtt.name or re.sub(r"[^a-zA-Z0-9_-]", "-", platform.node()) or "box"


def _mqtt(
    config: Config,
    topics: Topics,
    outgoing: Outgoing,
    gallery: EmbeddedGallery,
    clock_ms: Clock,
) -> Mqtt:
    from edge.outbound.mqtt import Mqtt  # paho is loaded only where it is used

    return Mqtt(
        outgoing,
        broker(config, topics.box),
        availability_topic=topics.availability,
        status_topic=topics.status,
        announcement=lambda: topics.announcement(all_sources(gallery), snapshots=config.mqtt.snapshots),
        clock=clock_ms,
    )


def broker(config: Config, box: str) -> Broker:
    """Return how the broker is reached. Raises Unusable where a file that the settings name is missing or open."""
    from edge.outbound.mqtt import Broker

    mqtt = config.mqtt
    password = secret(mqtt.password_file, "mqtt.password_file") if mqtt.password_file else None
    return Broker(
        mqtt.host,
        mqtt.port,
        f"edge-{box}",
        mqtt.username or None,
        None if password is None else password.decode("utf-8", "replace"),
        mqtt.tls,
        trusted(mqtt.ca_file, "mqtt.ca_file"),
    )


def _webhooks(config: Config, outgoing: Outgoing, clock_ms: Clock) -> Webhooks:
    from edge.outbound.webhook import Webhooks

    webhooks = config.webhooks
    assert webhooks.secret_file is not None
    return Webhooks(
        outgoing,
        secret=signing_secret(webhooks.secret_file),
        timeout_seconds=webhooks.timeout_seconds,
        keep_seconds=config.events.keep_hours * HOUR_SECONDS,
        ca_file=trusted(webhooks.ca_file, "webhooks.ca_file"),
        most_threads=webhooks.most_at_once,
        clock=clock_ms,
    )


def _deliver(outgoing: Outgoing, senders: Sequence[Mqtt | Webhooks], seconds: float) -> None:
    """Wait for what can still be delivered, at most so long; the rest goes on after the next start."""
    end = time.monotonic() + seconds
    outgoing.flush(seconds)
    while any(sender.is_busy for sender in senders) and time.monotonic() < end:
        time.sleep(LOOK_SECONDS)


def named(gallery: EmbeddedGallery) -> Names:
    """Return what looks names up: `list_name`, and the person's `fields`."""

    def names(list_id: str | None, person_id: str | None) -> dict[str, Any]:
        found = None if list_id is None else gallery.find_list(list_id)
        person = None if person_id is None else gallery.find_person(person_id)
        return {
            "list_name": None if found is None else found.name,
            "fields": [] if person is None else list(person.fields),
        }

    return names


def all_sources(gallery: EmbeddedGallery) -> list[Source]:
    """Return every source."""
    found: list[Source] = []
    cursor: str | None = None
    while True:
        page = gallery.sources(cursor)
        found += page.items
        cursor = page.cursor
        if cursor is None:
            return found


def signing_secret(path: Path) -> bytes:
    """Return the key of the webhooks' signatures: `whsec_` and base64, as Standard Webhooks 1.0 writes it.

    Raises Unusable.
    """
    text = secret(path, "webhooks.secret_file").decode("ascii", "replace")
    try:
        key = base64.b64decode(text.removeprefix(KEY_PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not text.startswith(KEY_PREFIX) or len(key) < SECRET_BYTES:
        reason = f"{path} must hold {KEY_PREFIX} and the base64 of {SECRET_BYTES} bytes or more"
        raise Unusable(Mistake("webhooks.secret_file", reason))
    return key
