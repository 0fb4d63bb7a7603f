"""A network that stalls, a broker that wants a password and TLS, and topics that are not right any more."""

from __future__ import annotations

import datetime
import json
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from broker import MOSQUITTO, PASSWD, Broker, Relay, Subscriber, until

from edge.gallery.outgoing import Message, Outgoing
from edge.outbound import mqtt
from edge.outbound.mqtt import Mqtt, Refused, try_out
from edge.outbound.mqtt_topics import Topics
from edge.tls import Tls
from edge.types import Source

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="no mosquitto here: apt-get install mosquitto")

PROMISED = 20
"""Messages of MQTT that may come twice: docs/events.md."""

TOPICS = Topics("edge", "hall", "homeassistant")
DOOR = Source("door", None, "door", 0)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def settings(port: int, **more: object) -> mqtt.Broker:
    known = {"username": None, "password": None, "is_tls": False, "ca_file": None}
    return mqtt.Broker("127.0.0.1", port, "edge-hall", **(known | more))  # type: ignore[arg-type]


@contextmanager
def connected(
    outgoing: Outgoing, to: mqtt.Broker, *, topics: Topics = TOPICS, snapshots: bool = False
) -> Iterator[Mqtt]:
    client = Mqtt(
        outgoing,
        to,
        availability_topic=topics.availability,
        status_topic=topics.status,
        announcement=lambda: topics.announcement([DOOR], snapshots=snapshots),
        clock=now_ms,
    )
    try:
        until(lambda: client.is_connected)
        yield client
    finally:
        client.stop()


def opened(folder: Path) -> closing[Outgoing]:
    return closing(Outgoing(folder, most_bytes=1 << 26, most_seconds=3600, clock=now_ms))


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    made = Broker(tmp_path_factory.mktemp("broker"), "max_queued_messages 0")
    until(made.is_up)
    yield made
    made.kill()


def test_of_what_a_stalled_network_swallowed_nothing_is_lost_and_no_more_repeated_than_promised(
    tmp_path: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt, "KEEP_ALIVE_SECONDS", 1)
    hears, relay = Subscriber(broker.port), Relay(broker.port)
    until(hears.client.is_connected)
    with opened(tmp_path) as outgoing, connected(outgoing, settings(relay.port)) as client:
        until(lambda: client.sent == 3)
        relay.stalls.set()  # what is published arrives, and nobody hears that it has
        outgoing.put([Message("mqtt", str(n), "edge/hall/event", str(n).encode(), now_ms()) for n in range(100)])
        until(lambda: len(hears.of("/event")) == PROMISED)
        until(lambda: hears.of("/availability")[-1] == b"offline")
        relay.stalls.clear()
        until(lambda: not outgoing.count())
    heard = Counter(hears.of("/event"))
    assert set(heard) == {str(n).encode() for n in range(100)}
    assert sum(heard.values()) == 100 + PROMISED, "the promise is not wider than need be"
    assert hears.of("/availability")[-2:] == [b"online", b"offline"]
    hears.client.loop_stop()
    relay.close()


def test_a_password_and_a_certificate(tmp_path: Path) -> None:
    pem = tmp_path / "edge.pem"
    tls = Tls(tmp_path / "tls", pem)
    tls.init(["localhost", "127.0.0.1"], datetime.datetime.now(datetime.timezone.utc))
    passwords = tmp_path / "passwords"
    subprocess.run([str(PASSWD), "-b", "-c", str(passwords), "edge", "right"], check=True, capture_output=True)
    passwords.chmod(0o644)
    lines = (f"password_file {passwords}", f"certfile {pem}", f"keyfile {pem}", "user root")
    strict = Broker(tmp_path, *lines, anonymous=False)
    until(strict.is_up)
    try:
        known = {"username": "edge", "password": "right", "is_tls": True, "ca_file": tls.ca}
        with opened(tmp_path) as outgoing, connected(outgoing, settings(strict.port, **known)) as client:
            until(lambda: client.sent == 3)
            try_out(settings(strict.port, **known), 5)
            assert client.is_connected, "a try beside it takes nothing from it"
        with pytest.raises(Refused, match=r"Not authorized|Bad user"):
            try_out(settings(strict.port, **known | {"password": "wrong"}), 5)
        with pytest.raises(OSError, match=r"self.signed|unable to get"):
            try_out(settings(strict.port, **known | {"ca_file": None}), 5)
        with pytest.raises(OSError, match=r"broker|reset"):
            try_out(settings(strict.port), 5)
    finally:
        strict.kill()


def test_topics_that_are_not_right_any_more_are_cleared(tmp_path: Path, broker: Broker) -> None:
    """Snapshots switched off, a box renamed: what was retained under the old names is taken back."""
    with opened(tmp_path) as outgoing:
        with connected(outgoing, settings(broker.port), snapshots=True) as client:
            person = Message("mqtt", "1", TOPICS.person("door"), b"{}", now_ms(), is_retained=True, source_id="door")
            outgoing.put([person])
            until(lambda: client.sent == 5)
        with connected(outgoing, settings(broker.port)) as client:
            until(lambda: client.sent == 4)
            assert len([topic for topic in outgoing.retained("mqtt") if "image" in topic]) == 0
            assert TOPICS.person("door") in outgoing.retained("mqtt")
        renamed = Topics("edge", "cellar", "homeassistant")
        with connected(outgoing, settings(broker.port), topics=renamed) as client:
            until(lambda: client.sent == 7)
    hears = Subscriber(broker.port)
    until(lambda: len(hears.of("/config")) == 3)
    assert all("cellar" in json.loads(payload)["unique_id"] for payload in hears.of("/config"))
    assert not hears.of("/person")
    hears.client.loop_stop()
