"""What waits is bounded, what is refused is given up, and nobody is told of too often."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from edge.announcing import signing_secret
from edge.credentials import secret
from edge.errors import Unusable
from edge.events import FaceSighted, ListAlertRaised
from edge.gallery.outgoing import Message, Outgoing, forget
from edge.outbound.mqtt_topics import Topics
from edge.outbound.telling import Teller, Unsigned, Wishes
from edge.outbound.webhook import Webhooks
from edge.types import Sighting, Verdict


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def message(number: int, destination: str = "mqtt", **more: Any) -> Message:
    return Message(destination, f"id-{number}", "topic", b"x" * 20_000, more.pop("time_ms", now_ms()), **more)


def opened(folder: Path) -> Outgoing:
    return Outgoing(folder, most_bytes=1 << 20, most_seconds=3600, clock=now_ms)


def kept(folder: Path, destination: str = "mqtt") -> list[str]:
    with closing(opened(folder)) as again:
        return [one.message.message_id for one in again.waiting(destination, limit=1000)]


def test_over_its_bounds_the_oldest_go(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as outgoing:
        outgoing.put([message(number) for number in range(100)])
        outgoing.put([message(1000, time_ms=now_ms() - 3_700_000)])
    ids = kept(tmp_path)
    assert 30 <= len(ids) <= 52, "a megabyte of them"
    assert ids == [f"id-{number}" for number in range(100 - len(ids), 100)], "the newest, in order, and none too old"
    assert outgoing.dropped == 101 - len(ids)


def test_what_is_counted_follows_what_is_erased_delivered_and_put_in_anothers_place(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as outgoing:
        outgoing.put([message(number, person_id=f"person {number % 2}") for number in range(10)])
        outgoing.put([message(1), message(1)])
        outgoing.flush(10)
        assert outgoing.count() == 10, "the same message stands once"
        forget(tmp_path, ["person 0"])
        outgoing.done([one.number for one in outgoing.waiting("mqtt", limit=2)])
        assert outgoing.count() == 3 == len(outgoing.waiting("mqtt", limit=100))
        assert outgoing._connection.execute("SELECT bytes FROM totals").fetchone() == (60_000,)
        outgoing.done([one.number for one in outgoing.waiting("mqtt", limit=100)])
        assert outgoing.count() == 0
    with closing(opened(tmp_path)) as outgoing:
        assert outgoing._connection.execute("SELECT messages, bytes FROM totals").fetchall() == [(0, 0)]


def test_a_copy_that_a_page_keeps_is_found_and_overwritten(tmp_path: Path) -> None:
    """SQLite keeps such copies in pages that it has rearranged; here one is put where they stand."""
    with closing(opened(tmp_path)) as outgoing:
        outgoing.put([message(number, person_id="anna") for number in range(3)])
    file = tmp_path / "outgoing.sqlite3"
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("PRAGMA secure_delete = OFF")
    connection.execute("CREATE TABLE freed AS SELECT 'copy of anna' AS text")
    connection.execute("DROP TABLE freed")  # the page is free, and as it was
    connection.close()
    assert b"copy of anna" in file.read_bytes()
    forget(tmp_path, ["anna"])
    assert b"anna" not in file.read_bytes()


def test_what_is_looked_up_is_looked_up_by_the_queue_and_a_fault_there_stops_nothing(tmp_path: Path) -> None:
    threads = []

    def draft() -> Message:
        threads.append(threading.current_thread().name)
        return message(1)

    with closing(opened(tmp_path)) as outgoing:
        outgoing.put([draft])
        outgoing.flush(10)
        outgoing.put([lambda: 1 / 0])  # type: ignore[list-item,return-value]
        outgoing.flush(10)
        outgoing.put([message(2)])
    assert threads == ["outbox"]
    assert outgoing.dropped == 1
    assert kept(tmp_path) == ["id-1", "id-2"]


def test_what_is_of_an_erased_person_or_list_goes_and_does_not_come_back(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as outgoing:
        outgoing.put([message(1, person_id="anna"), message(2, person_id="bert"), message(3, list_id="staff")])
    forget(tmp_path, ["anna", "staff"])
    with closing(opened(tmp_path)) as outgoing:
        outgoing.put([message(4, person_id="anna")])
    assert kept(tmp_path) == ["id-2"]
    assert b"anna" not in (tmp_path / "outgoing.sqlite3").read_bytes()


class Door(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/slow":
            self.server.let_go.wait(30)  # type: ignore[attr-defined]
        self.send_response({"/gone": 410, "/moved": 302}.get(self.path, 200))
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def door() -> Iterator[Any]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    server.asked, server.let_go = [], threading.Event()  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.let_go.set()  # type: ignore[attr-defined]
    server.shutdown()
    server.server_close()


def test_a_refusal_is_given_up_a_redirect_not_followed_and_a_slow_one_holds_up_nobody(
    tmp_path: Path, door: Any
) -> None:
    base = f"http://127.0.0.1:{door.server_port}"
    with closing(opened(tmp_path)) as outgoing:
        outgoing.put([message(n, base + path) for n, path in enumerate(("/slow", "/gone", "/moved", "/good"))])
        sender = Webhooks(
            outgoing,
            secret=b"k" * 32,
            timeout_seconds=60,
            keep_seconds=3600,
            ca_file=None,
            most_threads=4,
            clock=now_ms,
        )
        end = time.monotonic() + 30
        while not (sender.given_up and sender.sent and "/moved" in door.asked and "/slow" in door.asked):
            assert time.monotonic() < end
            time.sleep(0.05)
        assert (sender.given_up, sender.sent) == (1, 1), "the slow one is still on its way"
        door.let_go.set()
        while sender.sent < 2:
            assert time.monotonic() < end
            time.sleep(0.05)
        sender.stop()
        assert outgoing.destinations() == [base + "/moved"]
    assert "/elsewhere" not in door.asked


def sighting(person: str | None, source: str, number: int = 0) -> Sighting:
    verdict = Verdict.MATCH if person else Verdict.REJECT
    return Sighting(f"s-{number}", now_ms(), "list", source, "group", verdict, person, 0.9, 0.7, None)


def test_a_box_that_tells_nobody_has_no_file_and_no_client(tmp_path: Path) -> None:
    code = (
        "import sys, threading\nfrom edge import announcing, config\nfrom edge.events import Listeners\n"
        f"settings = config.load(environment={{'EDGE_DATA_FOLDER': {str(tmp_path)!r}}})\n"
        "with announcing.announced(settings, None, Listeners(), None) as readings:\n"
        "    print(dict(readings()), threading.active_count(), {'paho', 'urllib3'} & {*sys.modules})"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "{} 1 set()\n"
    assert not list(tmp_path.iterdir())


def test_quiet_time_and_alerts_by_their_kind(tmp_path: Path) -> None:
    wishes = Wishes(None, False, 0, webhooks=True, unknown_url="http://u", webhook_quiet_seconds=600)
    with closing(opened(tmp_path)) as outgoing:
        teller = Teller(outgoing, wishes)
        seen = [(None, "a"), (None, "a"), (None, "b"), ("anna", "a")]
        for number, (person, source) in enumerate(seen):
            teller.listen(FaceSighted(sighting(person, source, number)))
        for wanted in ("http://alert", "http://alert", {"url": "http://other"}, "siren"):
            shown = sighting("anna", "a" if wanted != {"url": "http://other"} else "b", 9)
            teller.listen(ListAlertRaised(shown, "group", "list", wanted, "anna", 0.9))
    assert kept(tmp_path, "http://u") == ["s-0/unknown", "s-2/unknown"]
    assert kept(tmp_path, "http://alert") == kept(tmp_path, "http://other") == ["s-9/list/found"]
    assert kept(tmp_path) == [], "no broker is set"


def test_a_box_that_signs_nothing_says_once_what_it_does_not_send(caplog: pytest.LogCaptureFixture) -> None:
    listener = Unsigned()
    for wanted in ("siren", "http://secret.lan/path", "http://secret.lan/path"):
        listener.listen(ListAlertRaised(sighting("anna", "a"), "group", "list", wanted, "anna", 0.9))
    (record,) = caplog.records
    assert "group group" in record.getMessage() and "secret_file" in record.getMessage()
    assert "secret.lan" not in record.getMessage(), "an address may hold what only its receiver should know"


def test_a_name_is_cut_to_what_home_assistant_shows_and_an_empty_one_is_none(tmp_path: Path) -> None:
    wishes = Wishes(Topics("edge", "hall", None), False, 0, webhooks=False, unknown_url=None, webhook_quiet_seconds=0)
    called = {"anna": ["", "x" * 300], "bert": [""], None: []}
    shown = []
    for person in called:
        folder = tmp_path / str(person)
        folder.mkdir()
        with closing(opened(folder)) as outgoing:
            names = Teller(outgoing, wishes, lambda _list, person: {"list_name": "staff", "fields": called[person]})
            names.listen(FaceSighted(sighting(person, "door")))
            outgoing.flush(10)
            (last,) = [one.message for one in outgoing.waiting("mqtt", limit=9) if one.message.is_retained]
            told = json.loads(last.payload)
            assert (told["list_name"], told["fields"]) == ("staff", called[person])
            shown.append(told["person"])
    assert shown == ["x" * 255, "bert", "unknown"]


def test_a_secret_is_for_nobody_else_to_read_and_long_enough(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("whsec_c2hvcnQ=\n")
    file.chmod(0o644)
    with pytest.raises(Unusable, match=r"mqtt\.password_file.*chmod 600"):
        secret(file, "mqtt.password_file")
    file.chmod(0o600)
    with pytest.raises(Unusable, match=r"webhooks\.secret_file.*24 bytes"):
        signing_secret(file)
