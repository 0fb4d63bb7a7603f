"""Events to a real Mosquitto and to a real receiver of webhooks, from the real process, while each of them dies."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion
from real_process import ROOT_OF_PHOTOS, Service

MOSQUITTO = os.environ.get("EDGE_TEST_MOSQUITTO") or shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="no mosquitto here: apt-get install mosquitto")

KEY = bytes(range(32))
BOX = "edge/hall"

REQUIRED = {
    "sensor": {"state_topic"},
    "binary_sensor": {"state_topic"},
    "event": {"state_topic", "event_types"},
    "image": {"image_topic"},
}
"""Home Assistant's DISCOVERY_SCHEMA of homeassistant/components/mqtt/{sensor,binary_sensor,event,image}.py."""


def until(condition: Callable[[], Any], seconds: float = 30) -> Any:
    """Wait for it; a bound for a busy machine, not a promise."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)
    return found


class Broker:
    """Mosquitto with persistence off: what it has acknowledged it has passed on."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.file = folder / "mosquitto.conf"
        self.file.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
        self.start()

    def start(self) -> None:
        command = [str(MOSQUITTO), "-c", str(self.file)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Subscriber:
    """Hears everything."""

    def __init__(self, port: int) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self.client = paho.Client(CallbackAPIVersion.VERSION2)
        self.client.reconnect_delay_set(1, 1)
        self.client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self.client.on_message = lambda _client, _data, message: self.heard.append((message.topic, message.payload))
        self.client.connect_async("127.0.0.1", port)
        self.client.loop_start()

    def of(self, end: str) -> list[bytes]:
        return [payload for topic, payload in list(self.heard) if topic.endswith(end)]

    def ids(self) -> list[str]:
        return [json.loads(payload)["id"] for payload in self.of("/event")]


class Receiver:
    """Answers with what `codes` says next, then with 204."""

    def __init__(self) -> None:
        self.codes: list[int] = []
        self.got: list[tuple[int, dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                code = receiver.codes.pop(0) if receiver.codes else 204
                receiver.got.append((code, {k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(code)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def arrived(self) -> list[str]:
        return [headers["webhook-id"] for code, headers, _ in list(self.got) if code == 204]


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.server.shutdown()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    made = Broker(tmp_path_factory.mktemp("broker"))
    yield made
    made.kill()


@pytest.fixture(scope="module")
def hears(broker: Broker) -> Iterator[Subscriber]:
    made = Subscriber(broker.port)
    until(made.client.is_connected)
    yield made
    made.client.loop_stop()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, broker: Broker, receiver: Receiver) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("outbound")
    secret = folder / "secret"
    secret.write_text("whsec_" + base64.b64encode(KEY).decode() + "\n")
    secret.chmod(0o600)
    running = Service(
        folder / "data",
        "mqtt.host=127.0.0.1",
        f"mqtt.port={broker.port}",
        "mqtt.name=hall",
        "mqtt.snapshots=true",
        f"webhooks.secret_file={secret}",
        f"webhooks.unknown_url={receiver.url}",
    ).start()
    yield running
    running.end()


@pytest.fixture(scope="module")
def source(service: Service) -> str:
    return str(ask(service, "/source/create", name="door")["source_id"])


def ask(service: Service, path: str, **fields: str) -> Any:
    if not hasattr(service, "admin"):
        service.admin = service.token("admin")  # type: ignore[attr-defined]
    headers = {"token": service.admin}  # type: ignore[attr-defined]
    answer = service.session.post(f"{service.url}/v1{path}", data=fields, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def show(service: Service, source: str, name: str = "obama-1") -> Any:
    answer = service.create((ROOT_OF_PHOTOS / f"{name}.jpg").read_bytes(), source_id=source)
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


def test_a_sighting_is_published_and_home_assistant_told_of_it(
    service: Service, hears: Subscriber, source: str
) -> None:
    person = show(service, source)["persons"][0]["person_id"]
    event = json.loads(until(lambda: hears.of(f"{source}/event"))[0])
    assert (event["event_type"], event["person_id"], event["source_id"]) == ("add", person, source)
    assert until(lambda: hears.of(f"{source}/person"))[-1] == person.encode()
    assert until(lambda: hears.of(f"{source}/snapshot"))[0][:3] == b"\xff\xd8\xff"
    assert until(lambda: hears.of("hall/availability"))[-1] == b"online"
    until(lambda: len({topic for topic, _ in list(hears.heard) if topic.startswith("homeassistant/")}) == 4)
    for topic, payload in list(hears.heard):
        if topic.startswith("homeassistant/"):
            component, config = topic.split("/")[1], json.loads(payload)
            assert REQUIRED[component] <= config.keys() and config["unique_id"]
            assert config["device"]["identifiers"] and config["origin"]["name"]
            assert component == "binary_sensor" or config["availability_topic"] == f"{BOX}/availability"
            for name in ("state_topic", "image_topic"):
                assert config.get(name, BOX).startswith(BOX)


def test_nothing_is_lost_and_little_repeated_when_the_broker_is_killed(
    service: Service, broker: Broker, hears: Subscriber, source: str
) -> None:
    before = len(hears.ids())
    show(service, source)
    broker.kill()
    for _ in range(4):
        show(service, source)
    broker.start()
    until(lambda: len(set(hears.ids()[before:])) == 5)
    assert len(hears.ids()[before:]) <= 6, "only what was not acknowledged"


def test_what_was_committed_arrives_after_a_kill_of_the_service_and_the_last_will_is_heard(
    service: Service, broker: Broker, hears: Subscriber, source: str
) -> None:
    told = len(hears.of("hall/availability"))
    assert service.process is not None
    service.process.kill()
    service.process.wait()
    until(lambda: b"offline" in hears.of("hall/availability")[told:])
    broker.kill()
    service.process = None
    service.start()
    before = set(hears.ids())
    for _ in range(3):
        show(service, source)
    time.sleep(1.5)  # past the window in which a crash takes them
    assert service.process is not None
    service.process.kill()
    service.process.wait()
    service.process = None
    broker.start()
    service.start()
    until(lambda: len(set(hears.ids()) - before) == 3)


def test_webhooks_are_signed_repeated_and_in_order(service: Service, receiver: Receiver, source: str) -> None:
    until(lambda: len(receiver.arrived()) == 1)  # the first sighting of all, when nobody was known
    receiver.codes += [500, 429]
    show(service, source, "biden-1")
    show(service, source, "collins-1")
    until(lambda: len(receiver.arrived()) == 3)
    ids = [headers["webhook-id"] for _, headers, _ in receiver.got[1:]]
    assert ids[0] == ids[1] == ids[2] != ids[3]
    for _, headers, body in receiver.got:
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        expected = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == f"v1,{expected}"


def test_who_is_erased_is_gone_from_the_queue_and_from_the_retained_topic(
    service: Service, broker: Broker, hears: Subscriber, source: str
) -> None:
    shown = json.loads(hears.of(f"{source}/event")[0])
    show(service, source)
    until(lambda: hears.of(f"{source}/person")[-1] == shown["person_id"].encode())
    broker.kill()
    show(service, source)
    outbox = service.folder / "outgoing.sqlite3"
    until(lambda: shown["person_id"].encode() in outbox.read_bytes())
    ask(service, "/person/delete", person_id=shown["person_id"], list_id=shown["list_id"])
    assert shown["person_id"].encode() not in outbox.read_bytes()
    broker.start()
    until(lambda: hears.of(f"{source}/person")[-1] == b"")


def test_a_source_that_is_deleted_is_taken_back(service: Service, hears: Subscriber, source: str) -> None:
    ask(service, "/source/delete", source_id=source)
    until(lambda: [payload for topic, payload in list(hears.heard) if f"{source}_person/" in topic][-1] == b"")


def test_it_is_counted_and_ends(service: Service, hears: Subscriber) -> None:
    answer = service.session.get(f"{service.url}/metrics", headers={"token": service.token("read")}, timeout=30)
    assert "edge_mqtt_connected 1.0" in answer.text and "edge_messages_dropped 0.0" in answer.text
    assert float(answer.text.split("edge_mqtt_sent ")[-1].split()[0]) > 0
    assert service.end(signal.SIGTERM) == 0
    until(lambda: hears.of("hall/availability")[-1] == b"offline")
    service.start()
