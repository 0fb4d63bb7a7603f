"""Builds what tells others of events: the queue on disk, MQTT and webhooks; nothing at all where neither is set up."""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import platform
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from edge.config import Config
from edge.errors import Mistake, Unusable
from edge.events import Listeners
from edge.gallery.outgoing import Outgoing
from edge.gallery.store import EmbeddedGallery
from edge.outbound.mqtt_topics import Topics
from edge.types import Source

MEGABYTE = 1 << 20
HOUR_SECONDS = 3600

SECRET_BYTES = 24
"""A webhook's secret has at least so many: Standard Webhooks 1.0."""

KEY_PREFIX = "whsec_"

Clock = Callable[[], int]
Readings = Callable[[], Mapping[str, float]]


@contextlib.contextmanager
def announced(config: Config, gallery: EmbeddedGallery, listeners: Listeners, clock_ms: Clock) -> Iterator[Readings]:
    """Tell others of what happens, as the settings ask for, until the end; yields what /metrics looks up.

    Raises Unusable where a file that the settings name is missing, or for others to read.
    """
    if not config.mqtt.host and not config.webhooks.secret_file:
        yield dict
        return
    from edge.outbound.telling import Teller, Wishes

    mqtt, webhooks, events = config.mqtt, config.webhooks, config.events
    topics = Topics(mqtt.topic_prefix, box_name(config), mqtt.discovery_prefix or None) if mqtt.host else None
    readings: dict[str, Callable[[], float]] = {}
    with contextlib.ExitStack() as parts:
        most = events.keep_megabytes * MEGABYTE
        seconds = events.keep_hours * HOUR_SECONDS
        outgoing = Outgoing(config.data.folder, most_bytes=most, most_seconds=seconds, clock=clock_ms)
        parts.callback(outgoing.close)
        readings["messages_waiting"] = outgoing.count
        readings["messages_dropped"] = lambda: outgoing.dropped
        if topics is not None:
            readings |= _mqtt(config, topics, outgoing, gallery, clock_ms, parts)
        if webhooks.secret_file:
            readings |= _webhooks(config, outgoing, clock_ms, parts)
        wishes = Wishes(
            topics=topics,
            snapshots=mqtt.snapshots,
            mqtt_quiet_seconds=mqtt.quiet_seconds,
            webhooks=webhooks.secret_file is not None,
            unknown_url=(webhooks.unknown_url or None) if webhooks.secret_file else None,
            webhook_quiet_seconds=webhooks.quiet_seconds,
        )
        listeners.join(Teller(outgoing, wishes).listen)
        yield lambda: {name: read() for name, read in readings.items()}


def box_name(config: Config) -> str:
    """Return what the box is called in topics: letters, digits, - and _."""
    return config.mqtt.name or re.sub(r"[^a-zA-Z0-9_-]", "-", platform.node()) or "box"


def _mqtt(
    config: Config,
    topics: Topics,
    outgoing: Outgoing,
    gallery: EmbeddedGallery,
    clock_ms: Clock,
    parts: contextlib.ExitStack,
) -> dict[str, Callable[[], float]]:
    from edge.outbound.mqtt import Broker, Mqtt  # paho is loaded only where it is used

    mqtt = config.mqtt
    password = secret(mqtt.password_file, "mqtt.password_file") if mqtt.password_file else None
    client = Mqtt(
        outgoing,
        Broker(
            mqtt.host,
            mqtt.port,
            f"edge-{topics.box}",
            mqtt.username or None,
            None if password is None else password.decode(),
            mqtt.tls,
            mqtt.ca_file,
        ),
        availability_topic=topics.availability,
        status_topic=topics.status,
        announcement=lambda: topics.discovery(all_sources(gallery), snapshots=mqtt.snapshots),
        clock=clock_ms,
    )
    parts.callback(client.stop)
    return {"mqtt_connected": lambda: float(client.is_connected), "mqtt_sent": lambda: client.sent}


def _webhooks(
    config: Config, outgoing: Outgoing, clock_ms: Clock, parts: contextlib.ExitStack
) -> dict[str, Callable[[], float]]:
    from edge.outbound.webhook import Webhooks

    webhooks = config.webhooks
    assert webhooks.secret_file is not None
    sender = Webhooks(
        outgoing,
        secret=signing_secret(webhooks.secret_file),
        timeout_seconds=webhooks.timeout_seconds,
        keep_seconds=config.events.keep_hours * HOUR_SECONDS,
        ca_file=webhooks.ca_file,
        most_threads=webhooks.most_at_once,
        clock=clock_ms,
    )
    parts.callback(sender.stop)
    return {"webhooks_sent": lambda: sender.sent, "webhooks_given_up": lambda: sender.given_up}


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


def secret(path: Path, setting: str) -> bytes:
    """Return what the file holds, without the line's end. A name alone is a credential that systemd hands over.

    Raises Unusable where it cannot be read, or where others can.
    """
    folder = os.environ.get("CREDENTIALS_DIRECTORY", "")
    is_credential = bool(folder) and len(path.parts) == 1
    path = Path(folder) / path if is_credential else path
    try:
        if not is_credential and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise Unusable(Mistake(setting, f"{path} is for others to read: chmod 600"))
        return path.read_bytes().strip()
    except OSError as error:
        raise Unusable(Mistake(setting, f"{path} cannot be read: {error.strerror}")) from None
