"""MQTT 3.1.1 at QoS 1: what waits is published in order, and removed once the broker has acknowledged it."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from edge.gallery.outgoing import Message, Outgoing
from edge.outbound.mqtt_topics import Announcement

log = logging.getLogger(__name__)

DESTINATION = "mqtt"

IN_FLIGHT = 20
"""Published and not acknowledged, at most: the queue on disk is the one that waits (and Mosquitto's own default)."""

LOOK_SECONDS = 0.1
"""Between two looks for what waits and what has been acknowledged."""

SOURCES_SECONDS = 2.0
"""Between two looks whether sources have come or gone."""

LONGEST_PAUSE_SECONDS = 60
"""Between two tries to connect; the first is one second."""

KEEP_ALIVE_SECONDS = 30
"""After one and a half times that without a word the broker publishes the last will."""

GOODBYE_SECONDS = 2.0


@dataclass(frozen=True)
class Broker:
    """How to reach it."""

    host: str
    port: int
    client_id: str
    username: str | None
    password: str | None
    is_tls: bool
    ca_file: Path | None


class Refused(Exception):
    """A broker answers, and takes no connection: the reason in its own words."""


def try_out(broker: Broker, seconds: float) -> None:
    """Connect and go again, beside a service that is connected. Raises OSError (ssl.SSLError is one) or Refused."""
    client = _made(replace(broker, client_id=f"{broker.client_id}-doctor"))
    client.connect_timeout = seconds
    answers: list[str] = []
    client.on_connect = lambda _client, _data, _flags, reason, _properties: answers.append(
        str(reason) if reason.is_failure else ""
    )
    end = time.monotonic() + seconds
    client.connect(broker.host, broker.port)
    while not answers and time.monotonic() < end and client.loop(LOOK_SECONDS) == paho.MQTT_ERR_SUCCESS:
        pass
    client.disconnect()
    if not answers:
        raise ConnectionResetError("no answer of a broker")
    if answers[0]:
        raise Refused(answers[0])


def _made(broker: Broker) -> paho.Client:
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=broker.client_id, clean_session=True)
    if broker.username is not None:
        client.username_pw_set(broker.username, broker.password)
    if broker.is_tls:
        client.tls_set(ca_certs=None if broker.ca_file is None else str(broker.ca_file))
    return client


class Mqtt:
    """The connection to one broker, kept up, with a thread that publishes."""

    def __init__(
        self,
        outgoing: Outgoing,
        broker: Broker,
        *,
        availability_topic: str,
        status_topic: str | None,
        announcement: Callable[[], Announcement],
        clock: Callable[[], int],
    ) -> None:
        """Start.

        `announcement`: retained messages for each connection, each birth of Home Assistant (which says `online` on
        `status_topic`), and whenever they are others. Retained topics that it does not name are cleared.
        """
        self._outgoing = outgoing
        self._availability = availability_topic
        self._status_topic = status_topic
        self._announcement = announcement
        self._clock = clock
        self._announced: tuple[Message, ...] = ()
        self._acknowledged: deque[int] = deque()
        self._is_due = threading.Event()
        self._stopping = threading.Event()
        self.sent = 0
        self._client = self._listening(_made(broker))
        self._client.connect_async(broker.host, broker.port, keepalive=KEEP_ALIVE_SECONDS)
        self._client.loop_start()
        self._thread = threading.Thread(target=self._run, name="mqtt-out", daemon=True)
        self._thread.start()

    @property
    def is_connected(self) -> bool:
        """Whether the broker has taken the connection."""
        return self._client.is_connected()

    @property
    def is_busy(self) -> bool:
        """Whether something is on its way, or could be."""
        return self.is_connected and bool(self._outgoing.waiting(DESTINATION))

    def stop(self) -> None:
        """Say goodbye. What waits goes on after the next start; what is not acknowledged may arrive twice."""
        self._stopping.set()
        self._thread.join()
        if self.is_connected:
            self._client.publish(self._availability, b"offline", qos=1, retain=True).wait_for_publish(GOODBYE_SECONDS)
        self._client.disconnect()
        self._client.loop_stop()

    def _listening(self, client: paho.Client) -> paho.Client:
        client.max_inflight_messages_set(IN_FLIGHT)
        client.reconnect_delay_set(1, LONGEST_PAUSE_SECONDS)
        client.will_set(self._availability, b"offline", qos=1, retain=True)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        return client

    # --- told by paho, in its thread, under its locks: nothing here may wait ---

    def _on_connect(self, client: paho.Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            log.warning("the MQTT broker refuses the connection: %s", reason)
            return
        log.info("connected with the MQTT broker")
        client.publish(self._availability, b"online", qos=1, retain=True)
        if self._status_topic is not None:
            client.subscribe(self._status_topic, qos=1)
        self._is_due.set()

    def _on_disconnect(self, _client: paho.Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if not self._stopping.is_set():
            log.warning("the MQTT broker is gone: %s", reason)

    def _on_publish(self, _client: paho.Client, _data: Any, mid: int, _reason: Any, _properties: Any) -> None:
        self._acknowledged.append(mid)

    def _on_message(self, _client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        if message.payload == b"online":
            self._is_due.set()

    # --- the thread that publishes ---

    def _run(self) -> None:
        in_flight: dict[int, int] = {}
        last = 0
        looked = time.monotonic()
        while not self._stopping.wait(LOOK_SECONDS):
            try:
                self._forget(in_flight)
                if not self.is_connected:
                    continue
                is_due = self._is_due.is_set()
                self._is_due.clear()
                if is_due or time.monotonic() - looked >= SOURCES_SECONDS:
                    looked = time.monotonic()
                    self._announce(is_due)
                last = self._publish(in_flight, last)
            except Exception:  # the boundary of a thread: a disk that fails for once must not end it
                log.exception("messages could not be published")
        self._forget(in_flight)

    def _forget(self, in_flight: dict[int, int]) -> None:
        """Remove what has been acknowledged."""
        arrived = []
        while self._acknowledged:
            number = in_flight.pop(self._acknowledged.popleft(), None)
            if number is not None:
                arrived.append(number)
        self._outgoing.done(arrived)
        self.sent += len(arrived)

    def _publish(self, in_flight: dict[int, int], last: int) -> int:
        """Publish what comes next, return its number. What a lost connection cut off, paho itself repeats."""
        room = IN_FLIGHT - len(in_flight)
        for one in self._outgoing.waiting(DESTINATION, after=last, limit=room) if room > 0 else ():
            message = one.message
            told = self._client.publish(message.topic, message.payload, qos=1, retain=message.is_retained)
            in_flight[told.mid] = one.number
            last = one.number
        return last

    def _announce(self, is_due: bool) -> None:
        """Put the announcement into the queue if it is due or another one, and take back what is gone or renamed."""
        retained = self._outgoing.retained(DESTINATION)  # before the sources are read: a new one may be in both
        wanted = self._announcement()
        now_ms = self._clock()
        if is_due or wanted.messages != self._announced:
            self._announced = wanted.messages
            self._outgoing.put([replace(message, time_ms=now_ms) for message in wanted.messages])
        gone = [topic for topic in retained if topic not in wanted.topics]
        self._outgoing.put([Message(DESTINATION, "gone", topic, b"", now_ms, is_retained=True) for topic in gone])
