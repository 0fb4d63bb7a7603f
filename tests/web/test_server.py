"""The door, over real sockets: what it refuses, what it cuts, and how it ends."""

from __future__ import annotations

import errno
import http.client
import json
import logging
import os
import queue
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from waitress import wasyncore

from edge.web.server import CannotListenError, Server, ServerLimits

PATIENCE = 10.0  # seconds until a test gives up; no test waits that long when all is well
GET = b"GET / HTTP/1.1\r\nHost: edge\r\n\r\n"
MIB = 1024 * 1024


class Application:
    """Answers by path; `/wait` stays in hand until it is released."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.release = threading.Event()
        self.finished: list[str] = []
        self.over = threading.Event()
        self.pieces: queue.Queue[bytes] = queue.Queue()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        body = environ["wsgi.input"].read()
        if path == "/fault":
            raise ValueError("a secret of the house")
        if path == "/disk":
            raise OSError(errno.ENOSPC, "a secret of the house")
        if path.startswith("/exit"):
            raise SystemExit(3)
        if path.startswith("/wait"):
            self.entered.release()
            self.release.wait(PATIENCE)
        if path.startswith("/live"):
            environ["edge.live"](self.over.set)
            start_response("200 OK", [("Content-Type", "text/event-stream")])
            return self.live(bytes(64 * 1024) if path == "/live/flood" else b"")
        answer = {"path": path, "bytes": len(body)}
        if path == "/environ":
            answer |= {k: v for k, v in environ.items() if isinstance(v, str)}
        if path == "/big":
            start_response("200 OK", [("Content-Length", str(40 * MIB))])
            self.finished.append(path)
            return (bytes(MIB) for _ in range(40))
        content = json.dumps(answer).encode()
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(content)))])
        if path == "/half":
            return self.half(content)
        self.finished.append(path)
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else content]

    def live(self, flood: bytes) -> Iterator[bytes]:
        """Go on until it is over: say `first`, then what a test puts into `pieces`, or a flood."""
        yield b"first"
        try:
            while not self.over.is_set():
                if flood:
                    yield flood
                with suppress(queue.Empty):
                    yield self.pieces.get(timeout=0.02)
            yield b"last"
        finally:
            self.finished.append("/live")

    def half(self, content: bytes) -> Iterator[bytes]:
        yield content[:5]
        raise ValueError("a secret of the house")


@dataclass
class Running:
    server: Server
    application: Application
    thread: threading.Thread
    outcome: list[bool] = field(default_factory=list)

    def stopped(self) -> bool:
        self.server.stop()
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()
        return self.outcome[0]


@contextmanager
def running(**limits: Any) -> Iterator[Running]:
    application = Application()
    server = Server(application, ServerLimits(**{"host": "127.0.0.1", "port": 0, "threads": 2, **limits}))
    run = Running(server, application, threading.Thread())
    run.thread = threading.Thread(target=lambda: run.outcome.append(server.serve()))
    run.thread.start()
    try:
        yield run
    finally:
        application.release.set()
        run.stopped()


def connect(run: Running, source: str = "127.0.0.1", receive_buffer: int = 0) -> socket.socket:
    client = socket.socket()
    client.settimeout(PATIENCE)
    if receive_buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.bind((source, 0))
    client.connect(("127.0.0.1", run.server.port))
    return client


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)


def read_answer(client: socket.socket, bodyless: bool = False) -> Answer:
    """One answer, and not a byte of the next."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = client.recv(1)
        assert byte, f"closed after {head!r}"
        head += byte
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    content = bytearray()
    length = 0 if bodyless else int(headers.get("content-length", 0))
    while len(content) < length:
        more = client.recv(min(65536, length - len(content)))
        assert more, "closed inside the body"
        content += more
    return Answer(int(first.split()[1]), headers, bytes(content))


def ask(run: Running, request: bytes, source: str = "127.0.0.1") -> Answer:
    with connect(run, source) as client:
        client.sendall(request)
        return read_answer(client)


def is_closed(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionError:
        return True


def eventually(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def assert_refusal(answer: Answer, status: int) -> None:
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert set(answer.json) == {"message", "status", "errors"}
    assert answer.json["status"] == "error"
    assert len(answer.json["message"]) < 60
    assert [set(error) for error in answer.json["errors"]] == [{"field", "reason"}]
    assert b"waitress" not in answer.content.lower()
    assert "server" not in answer.headers


# --- what works as in any server ---


def test_keep_alive_serves_many_requests_on_one_connection() -> None:
    with running() as run, connect(run) as client:
        for _ in range(3):
            client.sendall(GET)
            answer = read_answer(client)
            assert (answer.status, answer.json["path"]) == (200, "/")
            assert "server" not in answer.headers


def test_pipelined_requests_are_answered_in_order() -> None:
    with running() as run, connect(run) as client:
        client.sendall(b"".join(b"GET /%d HTTP/1.1\r\nHost: edge\r\n\r\n" % n for n in range(20)))
        assert [read_answer(client).json["path"] for _ in range(20)] == [f"/{n}" for n in range(20)]


def test_http_1_0_needs_no_host_and_is_closed_unless_it_asks() -> None:
    with running() as run, connect(run) as client:
        client.sendall(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert read_answer(client).status == 200
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert read_answer(client).status == 200
        assert is_closed(client)


def test_head_has_a_length_and_no_body() -> None:
    with running() as run, connect(run) as client:
        client.sendall(GET.replace(b"GET", b"HEAD") + GET)
        assert int(read_answer(client, bodyless=True).headers["content-length"]) > 0
        assert read_answer(client).status == 200


def test_expect_continue_is_honoured_before_the_body() -> None:
    with running() as run, connect(run) as client:
        client.sendall(b"POST /e HTTP/1.1\r\nHost: edge\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        assert read_answer(client).status == 100
        client.sendall(b"12345")
        assert read_answer(client).json["bytes"] == 5


def test_expect_continue_without_a_body_is_simply_answered() -> None:
    with running() as run:
        assert ask(run, b"GET / HTTP/1.1\r\nHost: edge\r\nExpect: 100-continue\r\n\r\n").status == 200


def test_ipv6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 on this machine")
    with running(host="::1") as run:
        assert run.server.address == f"[::1]:{run.server.port}"
        with socket.create_connection(("::1", run.server.port), PATIENCE) as client:
            client.sendall(GET)
            assert read_answer(client).status == 200


def test_the_address_tells_the_port_that_was_really_bound() -> None:
    with running() as run:
        assert run.server.port > 0
        assert run.server.address == f"127.0.0.1:{run.server.port}"


def test_nothing_is_left_in_the_global_socket_map() -> None:
    with running() as run:
        assert ask(run, GET).status == 200
        assert wasyncore.socket_map == {}


# --- the deadline ---


def dribble(client: socket.socket, start: bytes, byte: bytes) -> Answer:
    """Send start, then one byte every 20 ms for as long as there is no answer."""
    client.sendall(start)
    client.settimeout(0.02)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with suppress(TimeoutError):
            client.recv(1, socket.MSG_PEEK)
            client.settimeout(PATIENCE)
            return read_answer(client)
        with suppress(ConnectionError):
            client.send(byte)
    return Answer(0, {}, b"never cut")


SLOW = {
    "headers": (b"GET / HTTP/1.1\r\nHost: edge\r\nX: ", b"a"),
    "body": (b"POST / HTTP/1.1\r\nHost: edge\r\nContent-Length: 100000\r\n\r\n", b"a"),
    "chunks": (b"POST / HTTP/1.1\r\nHost: edge\r\nTransfer-Encoding: chunked\r\n\r\n10000\r\n", b"a"),
}


@pytest.mark.parametrize("kind", SLOW)
def test_a_slow_sender_is_cut_at_the_deadline_and_others_are_served_meanwhile(kind: str) -> None:
    with running(request_deadline_seconds=0.5, idle_seconds=60) as run, connect(run) as client:
        slow: list[Answer] = []
        thread = threading.Thread(target=lambda: slow.append(dribble(client, *SLOW[kind])))
        thread.start()
        served = 0
        while thread.is_alive():
            assert ask(run, GET).status == 200
            served += 1
        assert served > 5
        assert_refusal(slow[0], 408)
        assert is_closed(client)
        assert run.application.finished == ["/"] * served


def test_200_slow_clients_do_not_starve_a_normal_one() -> None:
    with running(request_deadline_seconds=60) as run:
        slow = [connect(run) for _ in range(200)]
        for client in slow:
            client.sendall(SLOW["headers"][0])
        assert [ask(run, GET).status for _ in range(20)] == [200] * 20
        for client in slow:
            client.close()


def test_the_clock_stands_while_an_earlier_request_is_in_hand() -> None:
    """The server reads nothing behind a request in hand: that time is not the client's."""
    with running(request_deadline_seconds=1.0) as run, connect(run) as client:
        client.sendall(b"GET /wait HTTP/1.1\r\nHost: edge\r\n\r\n" + GET[:20])
        assert run.application.entered.acquire(timeout=PATIENCE)
        time.sleep(1.2)  # longer than the deadline
        run.application.release.set()
        assert read_answer(client).json["path"] == "/wait"
        time.sleep(0.3)  # longer than a sweep, much shorter than the deadline
        client.sendall(GET[20:])
        assert read_answer(client).json["path"] == "/"


def test_a_reader_that_takes_nothing_is_cut_and_its_worker_freed() -> None:
    with running(threads=1, idle_seconds=0.5) as run, connect(run, receive_buffer=4096) as client:
        client.sendall(GET.replace(b" / ", b" /big "))
        assert eventually(lambda: run.application.finished == ["/big"])
        assert ask(run, GET).status == 200  # with one worker: only after the other was cut
        received = 0
        with suppress(ConnectionError):
            while more := client.recv(65536):
                received += len(more)
        assert received < 40 * MIB


def test_a_slow_but_honest_reader_gets_everything() -> None:
    with running(idle_seconds=0.3) as run, connect(run, receive_buffer=262_144) as client:
        client.sendall(GET.replace(b" / ", b" /big "))
        received = 0
        while received < 40 * MIB and (more := client.recv(524_288)):
            received += len(more)
            time.sleep(0.01)
        assert received > 40 * MIB


# --- an answer that goes on for ever ---

LIVE = GET.replace(b" / ", b" /live ")


def read_piece(client: socket.socket) -> bytes:
    """The next chunk of a chunked answer."""
    line = b""
    while not line.endswith(b"\r\n"):
        line += client.recv(1)
    size = int(line, 16)
    content = b""
    while len(content) < size + 2:
        content += client.recv(size + 2 - len(content))
    return content[:-2]


def opened(run: Running, client: socket.socket, request: bytes = LIVE) -> None:
    client.sendall(request)
    head = b""
    while b"\r\n\r\n" not in head:
        head += client.recv(1)
    assert b"200 OK" in head.split(b"\r\n")[0]
    assert b"Transfer-Encoding: chunked" in head
    assert read_piece(client) == b"first"


def test_what_goes_on_is_sent_piece_by_piece_and_silence_does_not_end_it() -> None:
    with running(idle_seconds=0.3, request_deadline_seconds=0.3) as run, connect(run) as client:
        opened(run, client)
        for piece in (b"a", b"b" * 100_000, b"c"):
            time.sleep(0.5)  # longer than an idle connection may be
            run.application.pieces.put(piece)
            assert read_piece(client) == piece
        assert not run.application.over.is_set()


def test_it_ends_when_its_reader_leaves_though_nothing_is_written() -> None:
    with running(threads=1) as run:
        with connect(run) as client:
            opened(run, client)
        assert run.application.over.wait(PATIENCE)
        assert eventually(lambda: run.application.finished == ["/live"])
        assert ask(run, GET).status == 200  # its worker is free


def test_it_ends_when_its_reader_takes_nothing_and_a_worker_is_held_up_meanwhile_no_longer() -> None:
    with running(threads=1, idle_seconds=0.5) as run, connect(run, receive_buffer=4096) as client:
        opened(run, client, LIVE.replace(b"/live", b"/live/flood"))
        assert run.application.over.wait(PATIENCE)
        assert eventually(lambda: run.application.finished == ["/live"])
        assert ask(run, GET).status == 200


def test_what_is_sent_behind_it_is_thrown_away() -> None:
    with running() as run, connect(run) as client:
        opened(run, client)
        (channel,) = run.server._door.active_channels.values()
        before = channel.touched
        client.sendall(GET)
        assert eventually(lambda: channel.touched > before)
        run.application.pieces.put(b"more")
        assert read_piece(client) == b"more"
        assert len(channel.requests) == 1, "nothing piles up"
        run.application.over.set()
        assert read_piece(client) == b"last"
        assert read_piece(client) == b""
        assert is_closed(client)
        assert run.application.finished == ["/live"]


@pytest.mark.parametrize("seconds", [0, 60])
def test_a_stop_ends_it_in_order_and_does_not_wait_for_it(seconds: float) -> None:
    with running(stop_seconds=seconds) as run, connect(run) as client, connect(run) as other:
        opened(run, client)
        opened(run, other)
        assert run.stopped() is True
        for one in (client, other):
            assert (read_piece(one), read_piece(one)) == (b"last", b"")


def test_a_stop_cuts_one_whose_reader_takes_nothing() -> None:
    with running(stop_seconds=60) as run, connect(run, receive_buffer=4096) as client:
        opened(run, client, LIVE.replace(b"/live", b"/live/flood"))
        assert run.stopped() is True
        assert run.application.finished == ["/live"]


def test_an_idle_connection_is_closed_without_a_word() -> None:
    with running(idle_seconds=0.3) as run, connect(run) as fresh, connect(run) as used:
        used.sendall(GET)
        assert read_answer(used).status == 200
        assert is_closed(fresh)
        assert is_closed(used)


def test_the_wall_clock_may_jump(monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as run, connect(run) as client:
        client.sendall(GET)
        assert read_answer(client).status == 200
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + 86400)
        time.sleep(1.5)  # longer than a sweep
        client.sendall(GET)
        assert read_answer(client).status == 200


# --- each address its share ---


def test_connections_above_the_cap_are_refused_and_other_addresses_served() -> None:
    with running(max_connections_per_address=3, uncapped_addresses=frozenset()) as run:
        held = [connect(run) for _ in range(3)]
        for client in held:
            client.sendall(GET)
            assert read_answer(client).status == 200
        with connect(run) as fourth:
            answer = read_answer(fourth)
            assert_refusal(answer, 429)
            assert answer.headers["retry-after"] == "1"
            assert is_closed(fourth)
        assert ask(run, GET, source="127.0.0.2").status == 200
        held.pop().close()

        def served_again() -> bool:
            with suppress(ConnectionError, AssertionError):
                return ask(run, GET).status == 200
            return False

        assert eventually(served_again)
        for client in held:
            client.close()


def test_uncapped_addresses_have_no_cap() -> None:
    with running(max_connections_per_address=3) as run:
        held = [connect(run) for _ in range(10)]
        for client in held:
            client.sendall(GET)
            assert read_answer(client).status == 200
            client.close()


def test_above_max_connections_new_ones_wait_for_their_turn() -> None:
    with running(max_connections=2) as run:
        first, second, third = (connect(run) for _ in range(3))
        for client in (first, second):
            client.sendall(GET)
            assert read_answer(client).status == 200
        third.sendall(GET)
        third.settimeout(0.3)
        with pytest.raises(TimeoutError):
            third.recv(1)
        third.settimeout(PATIENCE)
        first.close()
        assert read_answer(third).status == 200
        second.close()
        third.close()


def test_above_max_connections_a_slow_sender_gives_way_to_a_new_one_and_whoever_is_served_does_not() -> None:
    with running(max_connections=2) as run, connect(run) as busy, connect(run) as slow:
        busy.sendall(b"GET /wait HTTP/1.1\r\nHost: edge\r\n\r\n")
        assert run.application.entered.acquire(timeout=PATIENCE)
        slow.sendall(b"POST / HTTP/1.1\r\nX: ")
        with connect(run, "127.0.0.2") as new:
            new.sendall(GET)
            assert read_answer(new).status == 200
            assert is_closed(slow)
            run.application.release.set()
            assert read_answer(busy).status == 200


def test_an_address_with_half_its_share_gives_way_before_others() -> None:
    with (
        running(max_connections=3, max_connections_per_address=4) as run,
        connect(run, "127.0.0.2") as lone,
        connect(run) as first,
        connect(run) as second,
    ):
        for client in (lone, first, second):
            client.sendall(GET)
            assert read_answer(client).status == 200
        with connect(run, "127.0.0.3") as new:
            new.sendall(GET)
            assert read_answer(new).status == 200
            assert is_closed(first)
            lone.sendall(GET)
            assert read_answer(lone).status == 200


# --- bodies ---


def post(headers: bytes, body: bytes = b"") -> bytes:
    return b"POST /p HTTP/1.1\r\nHost: edge\r\n" + headers + b"\r\n\r\n" + body


def chunked(*chunks: bytes) -> bytes:
    frames = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return post(b"Transfer-Encoding: chunked", frames + b"0\r\n\r\n")


@pytest.mark.parametrize("expect", [b"", b"\r\nExpect: 100-continue"])
def test_a_declared_length_above_the_limit_is_refused_before_the_body(expect: bytes) -> None:
    with running(max_body_bytes=1000) as run:
        assert_refusal(ask(run, post(b"Content-Length: 1001" + expect)), 413)
        assert run.application.finished == []


def test_a_chunked_body_is_refused_once_it_outgrows_the_limit() -> None:
    with running(max_body_bytes=1000) as run:
        unfinished = chunked(b"a" * 600, b"a" * 600)[:-5]
        assert_refusal(ask(run, unfinished), 413)


def test_bodies_of_exactly_the_limit_are_taken() -> None:
    with running(max_body_bytes=1000) as run:
        assert ask(run, post(b"Content-Length: 1000", b"a" * 1000)).json["bytes"] == 1000
        assert ask(run, chunked(b"a" * 400, b"a" * 600)).json["bytes"] == 1000


def test_a_client_that_sends_everything_before_it_reads_still_learns_why() -> None:
    """Closing at once would reset the connection under it."""
    with running(max_body_bytes=1000) as run, connect(run) as client:
        client.sendall(post(b"Content-Length: 20000000"))
        for _ in range(20):
            client.sendall(bytes(1_000_000))
        assert_refusal(read_answer(client), 413)


def test_a_body_in_tiny_chunks_is_refused() -> None:
    with running() as run, connect(run) as client:
        client.sendall(post(b"Transfer-Encoding: chunked"))
        with suppress(ConnectionError):
            client.sendall(b"1\r\na\r\n" * 100_000)
        assert_refusal(read_answer(client), 400)


def test_an_endless_chunk_size_is_refused() -> None:
    with running() as run, connect(run) as client:
        client.sendall(post(b"Transfer-Encoding: chunked"))
        with suppress(ConnectionError):
            client.sendall(b"1;" + b"a" * 200_000)
        assert_refusal(read_answer(client), 400)


def test_bodies_stay_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_file(*_arguments: object, **_options: object) -> None:
        raise AssertionError("spilled to disk")

    monkeypatch.setattr(tempfile, "TemporaryFile", no_file)
    with running() as run:
        assert ask(run, post(b"Content-Length: 20971520", bytes(20 * MIB))).json["bytes"] == 20 * MIB
        assert len(ask(run, GET.replace(b" / ", b" /big ")).content) == 40 * MIB


def test_all_bodies_together_have_a_bound_and_the_largest_upload_gives_way() -> None:
    with running(max_bodies_bytes=2 * MIB) as run, connect(run) as small, connect(run) as large:
        small.sendall(post(b"Content-Length: 1000001", bytes(1_000_000)))
        large.sendall(post(b"Content-Length: 2000001", bytes(2_000_000)))
        answer = read_answer(large)
        assert_refusal(answer, 503)
        assert answer.headers["retry-after"] == "1"
        small.sendall(b"a")
        assert read_answer(small).json["bytes"] == 1_000_001


# --- what is not plain HTTP ---

MALFORMED = {
    "Content-Length and Transfer-Encoding": post(b"Content-Length: 5\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"),
    "Transfer-Encoding and Content-Length": post(b"Transfer-Encoding: chunked\r\nContent-Length: 5", b"0\r\n\r\n"),
    "chunked twice": post(b"Transfer-Encoding: chunked, chunked", b"0\r\n\r\n"),
    "two Transfer-Encodings": post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"),
    "empty Transfer-Encoding": post(b"Transfer-Encoding:", b"0\r\n\r\n"),
    "Transfer-Encoding in 1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "folded header": b"GET / HTTP/1.1\r\nHost: edge\r\nX: a\r\n b\r\n\r\n",
    "folded with a tab": b"GET / HTTP/1.1\r\nHost: edge\r\nX: a\r\n\tb\r\n\r\n",
    "no Host": b"GET / HTTP/1.1\r\nX: a\r\n\r\n",
    "two Hosts": b"GET / HTTP/1.1\r\nHost: edge\r\nhost: edge\r\n\r\n",
    "two Hosts in 1.0": b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
    "two Content-Lengths": post(b"Content-Length: 1\r\nContent-Length: 1", b"a"),
    "negative Content-Length": post(b"Content-Length: -1"),
    "a Content-Length of 5,000 digits": post(b"Content-Length: " + b"1" * 5000),
    "space before the colon": b"GET / HTTP/1.1\r\nHost : edge\r\n\r\n",
    "NUL": b"GET / HTTP/1.1\r\nHost: ed\0ge\r\n\r\n",
    "bare LF": b"GET / HTTP/1.1\nHost: edge\n\r\n\r\n",
    "URI that urlsplit cannot take": b"GET http://[ HTTP/1.1\r\nHost: edge\r\n\r\n",
    "NUL in the target": b"GET /\0 HTTP/1.1\r\nHost: edge\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "not HTTP at all": b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
    "bad chunk size": post(b"Transfer-Encoding: chunked", b"zz\r\n"),
    "chunk without its end": post(b"Transfer-Encoding: chunked", b"1\r\nabc\r\n0\r\n\r\n"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_requests_are_refused_and_the_connection_closed(name: str) -> None:
    with running() as run, connect(run) as client:
        client.sendall(MALFORMED[name])
        assert_refusal(read_answer(client), 400)
        assert is_closed(client)
        assert run.application.finished == []


def test_nothing_behind_a_refused_request_is_served() -> None:
    with running() as run, connect(run) as client:
        client.sendall(GET + MALFORMED["no Host"] + GET)
        assert read_answer(client).status == 200
        assert_refusal(read_answer(client), 400)
        assert is_closed(client)
        assert run.application.finished == ["/"]


def test_headers_above_the_limit() -> None:
    with running() as run:
        assert_refusal(ask(run, b"GET / HTTP/1.1\r\nHost: edge\r\nX: " + b"a" * 17_000), 431)
        assert ask(run, b"GET / HTTP/1.1\r\nHost: edge\r\nX: " + b"a" * 16_000 + b"\r\n\r\n").status == 200


def test_a_chunk_that_declares_more_than_the_limit_is_refused_before_it_comes() -> None:
    with running(max_body_bytes=1000) as run:
        assert_refusal(ask(run, post(b"Transfer-Encoding: chunked", b"3e9\r\n")), 413)


def test_unknown_transfer_coding() -> None:
    with running() as run:
        assert_refusal(ask(run, post(b"Transfer-Encoding: gzip, chunked")), 501)


def test_unknown_version() -> None:
    with running() as run:
        assert_refusal(ask(run, b"GET / HTTP/2.0\r\nHost: edge\r\n\r\n"), 505)


def test_a_refused_head_has_no_body() -> None:
    with running() as run, connect(run) as client:
        client.sendall(b"HEAD / HTTP/1.1\r\n\r\n")
        assert read_answer(client, bodyless=True).status == 400
        assert is_closed(client)


# --- faults of the application ---


@pytest.mark.parametrize("path", ["/fault", "/disk", "/exit"])
def test_a_fault_is_told_without_its_traceback_and_logged_once(path: str, caplog: pytest.LogCaptureFixture) -> None:
    with running() as run:
        answer = ask(run, GET.replace(b" / ", b" " + path.encode() + b" "))
        assert_refusal(answer, 500)
        assert b"secret" not in answer.content
        assert b"Traceback" not in answer.content
        assert ask(run, GET).status == 200
    assert [record.exc_info is not None for record in caplog.records if record.levelno >= logging.ERROR] == [True]


def test_a_path_cannot_forge_lines_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with running() as run:
        ask(run, GET.replace(b" / ", b" /exit%0Aforged "))
    assert caplog.records
    assert not [record for record in caplog.records if "\nforged" in record.getMessage()]


def test_a_fault_within_an_answer_leaves_it_visibly_incomplete() -> None:
    with running() as run, connect(run) as client:
        client.sendall(GET.replace(b" / ", b" /half "))
        with pytest.raises(AssertionError, match="closed inside the body"):
            read_answer(client)


# --- who is asking ---


def test_forwarding_headers_reach_nobody_unless_a_proxy_is_trusted() -> None:
    with running() as run:
        request = GET[:-2] + b"X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\nForwarded: for=a\r\n\r\n"
        seen = ask(run, request.replace(b" / ", b" /environ ")).json
        assert (seen["REMOTE_ADDR"], seen["wsgi.url_scheme"]) == ("127.0.0.1", "http")
        assert not [key for key in seen if "FORWARDED" in key]


@pytest.mark.parametrize(
    ("forwarded", "believed"),
    [
        (b"192.0.2.1", "192.0.2.1"),
        (b"6.6.6.6, 192.0.2.1", "192.0.2.1"),
        (b"2001:db8::1", "2001:db8::1"),
        (b"rubbish", "127.0.0.1"),
    ],
)
def test_the_trusted_proxy_tells_who_asks(forwarded: bytes, believed: str) -> None:
    with running(trusted_proxy="127.0.0.1") as run:
        request = GET[:-2] + b"X-Forwarded-For: " + forwarded + b"\r\nX-Forwarded-Proto: https\r\n\r\n"
        seen = ask(run, request.replace(b" / ", b" /environ ")).json
        assert (seen["REMOTE_ADDR"], seen["wsgi.url_scheme"]) == (believed, "https")


# --- the end ---


def test_stop_finishes_the_request_in_hand() -> None:
    with running() as run, connect(run) as client:
        client.sendall(GET.replace(b" / ", b" /wait "))
        assert run.application.entered.acquire(timeout=PATIENCE)
        run.server.stop()
        threading.Timer(0.3, run.application.release.set).start()
        answer = read_answer(client)
        assert (answer.status, answer.json["path"]) == (200, "/wait")
        assert answer.headers["connection"] == "close"
        assert is_closed(client)
        assert run.stopped() is True


def test_stop_finishes_what_was_queued_and_pipelined() -> None:
    with running(threads=1) as run, connect(run) as first, connect(run) as second:
        first.sendall(b"".join(GET.replace(b" / ", b" /wait%d " % n) for n in range(3)))
        assert run.application.entered.acquire(timeout=PATIENCE)
        second.sendall(GET.replace(b" / ", b" /queued "))
        run.server.stop()
        threading.Timer(0.3, run.application.release.set).start()
        assert [read_answer(first).json["path"] for _ in range(3)] == ["/wait0", "/wait1", "/wait2"]
        assert read_answer(second).json["path"] == "/queued"
        assert is_closed(first)
        assert is_closed(second)
        assert run.stopped() is True


def test_stop_waits_for_a_request_whose_client_has_left() -> None:
    with running() as run:
        with connect(run) as client:
            client.sendall(GET.replace(b" / ", b" /wait "))
            assert run.application.entered.acquire(timeout=PATIENCE)
        run.server.stop()
        threading.Timer(0.3, run.application.release.set).start()
        assert run.stopped() is True
        assert run.application.finished == ["/wait"]


def test_stop_closes_idle_connections_and_takes_no_new_ones() -> None:
    with running() as run, connect(run) as idle, connect(run) as busy:
        idle.sendall(GET)
        assert read_answer(idle).status == 200
        busy.sendall(GET.replace(b" / ", b" /wait "))
        assert run.application.entered.acquire(timeout=PATIENCE)
        run.server.stop()
        assert is_closed(idle)
        with pytest.raises(ConnectionError):
            connect(run)
        run.application.release.set()
        assert read_answer(busy).status == 200
        assert run.stopped() is True


def test_stop_tells_an_unfinished_request_that_it_was_not_done() -> None:
    with running() as run, connect(run) as client:
        client.sendall(GET)
        assert read_answer(client).status == 200
        client.sendall(post(b"Content-Length: 10", b"12345"))
        time.sleep(0.2)  # until it is received
        run.server.stop()
        answer = read_answer(client)
        assert_refusal(answer, 503)
        assert answer.headers["retry-after"] == "1"
        assert run.stopped() is True
        assert run.application.finished == ["/"]


def test_a_stuck_application_is_cut_after_stop_seconds() -> None:
    with running(stop_seconds=0.5) as run, connect(run) as client:
        client.sendall(GET.replace(b" / ", b" /wait "))
        assert run.application.entered.acquire(timeout=PATIENCE)
        assert run.stopped() is False
        assert is_closed(client)
        assert run.application.finished == []


def test_stop_may_be_repeated_and_touches_no_file_after_the_end(tmp_path: Path) -> None:
    with running() as run:
        run.server.stop()
        run.server.stop()
        assert run.stopped() is True
        files = [os.open(tmp_path / str(n), os.O_CREAT | os.O_WRONLY) for n in range(20)]  # take the freed numbers
        run.server.stop()
        assert [os.fstat(file).st_size for file in files] == [0] * 20
        for file in files:
            os.close(file)


def test_the_end_gives_back_every_descriptor() -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc")
    before = descriptors()
    with running() as run:
        assert ask(run, GET).status == 200
    assert descriptors() == before


def test_stop_before_serve_ends_at_once() -> None:
    server = Server(Application(), ServerLimits("127.0.0.1", 0, threads=1))
    server.stop()
    assert server.serve() is True


def test_a_taken_port_is_told_in_a_sentence() -> None:
    with running() as run:
        with pytest.raises(CannotListenError, match="another program has this port") as caught:
            Server(Application(), ServerLimits("127.0.0.1", run.server.port, threads=1))
        assert caught.value.errno == errno.EADDRINUSE
        assert str(run.server.port) in str(caught.value)


@pytest.mark.parametrize(("host", "port"), [("192.0.2.1", 0), ("127.0.0.1", 99_999), ("no-such-host.invalid", 0)])
def test_an_impossible_address_is_told_in_a_sentence(host: str, port: int) -> None:
    with pytest.raises(CannotListenError, match=f"cannot listen on {host} port {port}: "):
        Server(Application(), ServerLimits(host, port, threads=1))


def test_the_standard_client_is_served() -> None:
    with running() as run:
        client = http.client.HTTPConnection("127.0.0.1", run.server.port, timeout=PATIENCE)
        for _ in range(2):
            client.request("POST", "/p", body=iter([b"abc", b"def"]), encode_chunked=True)
            assert json.load(client.getresponse())["bytes"] == 6
        client.close()
