"""Events to a real Mosquitto and to a real receiver of webhooks, from the real process, while each of them dies."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import signal
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import home_assistant
import pytest
from broker import MOSQUITTO, Broker, Subscriber, until
from real_process import ROOT_OF_PHOTOS, Service

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="no mosquitto here: apt-get install mosquitto")

KEY = bytes(range(32))
BOX = "edge/hall"

PROMISED = 20
"""Messages of MQTT that may come twice: docs/events.md."""


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

        self._handler = Handler
        self.port = 0
        self.open()
        self.url = f"http://127.0.0.1:{self.port}/hook"

    def open(self) -> None:
        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), self._handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Refuse connections."""
        self.server.shutdown()
        self.server.server_close()

    def arrived(self) -> list[str]:
        return [headers["webhook-id"] for code, headers, _ in list(self.got) if code == 204]


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


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


def ids(hears: Subscriber) -> list[str]:
    return [json.loads(payload)["id"] for payload in hears.of("/event")]


def last(hears: Subscriber, source: str) -> Any:
    """Who was seen last, as the retained topic says; None where it is cleared."""
    payload = (hears.of(f"{source}/person") or [b""])[-1]
    return json.loads(payload)["person"] if payload else None


def ask(service: Service, path: str, **fields: str) -> Any:
    if not hasattr(service, "admin"):
        service.admin = service.token("admin")  # type: ignore[attr-defined]
    headers = {"token": service.admin}  # type: ignore[attr-defined]
    answer = service.session.post(f"{service.url}/v1{path}", data=fields, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def stranger(service: Service, source: str, name: str) -> None:
    """Show somebody whom nobody knows, any more."""
    for one in show(service, source, name)["matches"]:
        ask(service, "/person/delete", person_id=one["person_id"], list_id=one["list_id"])
    assert show(service, source, name)["persons"]


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
    retained = json.loads(until(lambda: hears.of(f"{source}/person"))[-1])
    assert retained == event | {"person": person}, "without events.names an id is all"
    assert not home_assistant.BLOCKED & retained.keys()
    assert until(lambda: hears.of(f"{source}/snapshot"))[0][:3] == b"\xff\xd8\xff"
    order = [topic.rpartition("/")[2] for topic, _ in list(hears.heard) if f"source/{source}/" in topic]
    assert order.index("snapshot") < order.index("event"), "whoever hears of the event finds its picture there"
    assert until(lambda: hears.of("hall/availability"))[-1] == b"online"
    until(lambda: len({topic for topic, _ in list(hears.heard) if topic.startswith("homeassistant/")}) == 4)
    told = [home_assistant.check(*one) for one in list(hears.heard) if one[0].startswith("homeassistant/")]
    assert {component for component, _ in told} == {"sensor", "binary_sensor", "event", "image"}
    heard = {topic for topic, _ in list(hears.heard)}
    for component, config in told:
        assert {value for key, value in config.items() if key.endswith("_topic")} <= heard, "of topics that are there"
        assert (config.get("availability_topic") == f"{BOX}/availability") == (component != "binary_sensor")


def test_home_assistant_is_told_again_when_it_has_come_up(hears: Subscriber) -> None:
    before = len(hears.of("/config"))
    hears.client.publish("homeassistant/status", b"online", qos=1)
    until(lambda: len(hears.of("/config")) == before + 4)


def test_nothing_is_lost_and_little_repeated_when_the_broker_is_killed(
    service: Service, broker: Broker, hears: Subscriber, source: str
) -> None:
    before = len(ids(hears))
    show(service, source)
    broker.kill()
    for _ in range(4):
        show(service, source)
    broker.start()
    until(lambda: len(set(ids(hears)[before:])) == 5)
    assert len(ids(hears)[before:]) <= 5 + PROMISED


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
    before = set(ids(hears))
    for _ in range(3):
        show(service, source)
    time.sleep(1.5)  # past the window in which a crash takes them
    assert service.process is not None
    service.process.kill()
    service.process.wait()
    service.process = None
    broker.start()
    service.start()
    until(lambda: len(set(ids(hears)) - before) == 3)


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


def test_a_webhook_outlives_a_receiver_that_is_not_there_a_kill_and_a_restart(
    service: Service, receiver: Receiver, source: str
) -> None:
    before = len(receiver.arrived())
    receiver.close()
    stranger(service, source, "collins-1")
    time.sleep(1.5)  # past the window in which a crash takes it
    assert service.process is not None
    service.process.kill()
    service.process.wait()
    service.process = None
    service.start()
    stranger(service, source, "biden-1")
    assert service.end(signal.SIGTERM) == 0
    service.start()
    receiver.open()
    until(lambda: len(receiver.arrived()) >= before + 2)
    told = [json.loads(body)["person_id"] for code, _, body in receiver.got if code == 204][before:]
    assert len(set(told)) == 2 and len(told) <= 3, "one for each address may come twice"


def test_who_is_erased_is_gone_from_the_queue_and_from_the_retained_topic(
    service: Service, broker: Broker, hears: Subscriber, source: str
) -> None:
    shown = json.loads(hears.of(f"{source}/event")[0])
    show(service, source)
    until(lambda: last(hears, source) == shown["person_id"])
    broker.kill()
    show(service, source)
    outbox = service.folder / "outgoing.sqlite3"
    until(lambda: shown["person_id"].encode() in outbox.read_bytes())
    ask(service, "/person/delete", person_id=shown["person_id"], list_id=shown["list_id"])
    assert shown["person_id"].encode() not in outbox.read_bytes()
    broker.start()
    until(lambda: last(hears, source) is None)


def test_a_source_that_is_deleted_is_taken_back(service: Service, hears: Subscriber, source: str) -> None:
    ask(service, "/source/delete", source_id=source)
    until(lambda: configs(hears)["sensor"] == b"")
    assert configs(hears)["binary_sensor"]


def configs(hears: Subscriber) -> dict[str, bytes]:
    """What stands at Home Assistant's topics, by platform."""
    return {topic.split("/")[1]: payload for topic, payload in list(hears.heard) if topic.endswith("/config")}


def test_it_is_counted_delivers_what_is_left_and_ends(service: Service, hears: Subscriber, receiver: Receiver) -> None:
    answer = service.session.get(f"{service.url}/metrics", headers={"token": service.token("read")}, timeout=30)
    assert "edge_mqtt_connected 1.0" in answer.text and "edge_messages_dropped 0.0" in answer.text
    assert float(answer.text.split("edge_mqtt_sent ")[-1].split()[0]) > 0
    source = ask(service, "/source/create", name="gate")["source_id"]
    show(service, source, "biden-1")
    assert service.end(signal.SIGTERM) == 0, "a moment after the request"
    assert len(hears.of(f"{source}/event")) == 1
    until(lambda: hears.of("hall/availability")[-1] == b"offline")


def test_names_go_out_where_they_may_and_a_snapshot_that_is_switched_off_is_taken_back(
    service: Service, hears: Subscriber, receiver: Receiver
) -> None:
    off = service.settings
    service.settings = (*off, "events.names=true", "mqtt.snapshots=false")
    service.start()
    until(lambda: configs(hears)["image"] == b"")
    source = ask(service, "/source/create", name="yard")["source_id"]
    person = next(one for one in show(service, source, "biden-1")["matches"])
    known = {"person_id": person["person_id"], "list_id": person["list_id"]}
    ask(service, "/person/update", **known, fields="Ada Lovelace")
    show(service, source, "biden-1")
    assert until(lambda: last(hears, source) == "Ada Lovelace")
    told = json.loads(hears.of(f"{source}/event")[-1])
    assert (told["fields"], told["list_name"], told["person_id"]) == (["Ada Lovelace"], "main", known["person_id"])
    before = len(receiver.arrived())
    stranger(service, source, "collins-1")
    until(lambda: len(receiver.arrived()) == before + 1)
    assert json.loads(receiver.got[-1][2])["list_name"] == "main"
