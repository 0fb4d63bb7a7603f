"""Clients that send or read a byte a second, and idle ones: a camera beside them is served, and all of them are cut.

From one address, from many, and from this machine's own, which has no cap (a proxy's clients come from there). Whoever
is cut comes back at once while a trial lasts. The camera posts a frame after the other, in turn on a kept connection
and on a new one, from an address of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import resource
import socket
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from bench_memory import memory

from torture_door.common import FORM_TYPE, PHOTOS, form, pid_of, port_of, progress, report, serving

if TYPE_CHECKING:
    from real_process import Service

KINDS = ("headers", "body", "reads")
MOST_GROWTH = 2.0
"""Of the camera's p95."""

CAMERA = "127.9.9.9"
SLICES = 50
"""Of a second: a client has its turn once in each, a fiftieth of them at a time, so that they come in no bursts."""

COMING_SECONDS = 30.0
"""For everybody to connect, at most."""

AFTER_SECONDS = 10.0
"""From a limit to the last connection's end, at most: sweeps come once a second, and a refused one may linger for 5."""


def sources(origin: str) -> Iterator[str]:
    """Yield addresses of this machine: one, many, or its own."""
    if origin == "many":
        return (f"127.1.{number // 250 % 250}.{1 + number % 250}" for number in itertools.count())
    return itertools.repeat({"one": "127.0.0.2", "own": "127.0.0.1"}[origin])


@dataclass
class Client:
    """One that takes its time."""

    kind: str
    source: str
    sock: socket.socket | None = None
    told: int = 0
    """Bytes sent."""


@dataclass
class Attack:
    """All of them, in a thread."""

    port: int
    token: str
    clients: list[Client]
    cut: int = 0
    holding: bool = True
    """Whether who is cut comes back."""
    turns: int = 0
    _over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Give each its turn once a second, until the end."""
        while not self._over.is_set():
            self.turns += 1
            for start in range(SLICES):
                for client in self.clients[start::SLICES]:
                    self._turn(client)
                if self._over.wait(1 / SLICES):
                    break
        for client in self.clients:
            self._close(client)

    def end(self) -> None:
        """Leave."""
        self._over.set()

    @property
    def open(self) -> int:
        """How many are connected, as far as they know."""
        return sum(client.sock is not None for client in self.clients)

    def _turn(self, client: Client) -> None:
        if client.sock is None:
            if self.holding:
                self._connect(client)
            return
        try:
            if client.kind == "reads":
                answered = client.sock.recv(1)
                if not answered:
                    self._close(client)
                return
            with contextlib.suppress(BlockingIOError):
                client.sock.recv(4096)  # an end, or a refusal: either way it is over
                self._close(client)
                return
            if client.kind != "idle":
                client.sock.send(b"x")
        except BlockingIOError:
            pass
        except OSError:
            self._close(client)

    def _connect(self, client: Client) -> None:
        client.sock = socket.socket()
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        try:
            client.sock.settimeout(0.05)
            client.sock.bind((client.source, 0))
            client.sock.connect(("127.0.0.1", self.port))
            client.sock.setblocking(False)
            beginning = {
                "headers": b"POST /v1/person/create HTTP/1.1\r\nHost: edge\r\nX-Slow: ",
                "body": b"POST /v1/person/create HTTP/1.1\r\nHost: edge\r\nContent-Length: 100000\r\n\r\n",
                "reads": f"GET /openapi.json HTTP/1.1\r\nHost: edge\r\ntoken: {self.token}\r\n\r\n".encode(),
                "idle": b"",
            }[client.kind]
            client.sock.send(beginning)
        except OSError:
            self._close(client)

    def _close(self, client: Client) -> None:
        if client.sock is not None:
            client.sock.close()
            client.sock = None
            self.cut += 1


class Camera:
    """Posts a frame after the other; `idle_seconds` is the service's."""

    def __init__(self, service: Service, idle_seconds: float) -> None:
        picture = cv2.imread(str(PHOTOS / "obama-1.jpg"))
        assert picture is not None
        frame = np.asarray(cv2.resize(picture, (480, 480 * picture.shape[0] // picture.shape[1])))
        self._body = form(cv2.imencode(".jpg", frame)[1].tobytes())
        self._headers = {"token": service.camera, "Content-Type": FORM_TYPE}
        self._port = port_of(service)
        self._kept = self._connection()
        self._answered = 0.0
        self._patience = idle_seconds / 2
        self.failures: list[str] = []

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=60, source_address=(CAMERA, 0))

    def post(self, *, kept: bool) -> float:
        """Return the milliseconds of one frame."""
        if kept and time.monotonic() - self._answered > self._patience:
            self._kept.close()  # after so long a pause of ours the service may close it by right
        connection = self._kept if kept else self._connection()
        started = time.perf_counter()
        try:
            connection.request("POST", "/v1/person/create", self._body, self._headers)
            answer = connection.getresponse()
            answer.read()
            self._answered = time.monotonic() if kept else self._answered
            if answer.status not in (200, 201):
                self.failures.append(f"the camera got {answer.status}")
        except OSError as error:
            self.failures.append(f"the camera got {error!r} on a {'kept' if kept else 'new'} connection")
            connection.close()
        milliseconds = (time.perf_counter() - started) * 1000
        if not kept:
            connection.close()
        return milliseconds

    def post_for(self, seconds: float) -> list[float]:
        """Post for so long."""
        until = time.monotonic() + seconds
        times = []
        while time.monotonic() < until:
            times += [self.post(kept=True), self.post(kept=False)]
        return times


def p95(times: Sequence[float]) -> float:
    """Return the 95th percentile."""
    return statistics.quantiles(times, n=20, method="inclusive")[18]


def sockets(pid: int) -> int:
    """Return how many sockets the process has open."""
    found = 0
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found += str(descriptor.readlink()).startswith("socket:")
    return found


def trial(
    service: Service, camera: Camera, origin: str, options: argparse.Namespace
) -> tuple[list[float], str, list[str]]:
    """Let them all in for so long; return the camera's times, what to tell, and what went wrong."""
    addresses = sources(origin)
    kinds = itertools.cycle(KINDS)
    clients = [Client(next(kinds), next(addresses)) for _ in range(options.count)]
    clients += [Client("idle", next(addresses)) for _ in range(options.idle)]
    before, pid = sockets(pid_of(service)), pid_of(service)
    attack = Attack(port_of(service), service.camera, clients)
    thread = threading.Thread(target=attack.run)
    thread.start()
    try:
        until = time.monotonic() + COMING_SECONDS
        while attack.turns < 2 and time.monotonic() < until:
            time.sleep(0.1)
        most = sockets(pid) - before
        times = camera.post_for(options.seconds)
        most = max(most, sockets(pid) - before)
        attack.holding = False
        limit = max(options.deadline, options.idle_seconds) + AFTER_SECONDS
        started = time.monotonic()
        while (left := sockets(pid) - before) > 0 and time.monotonic() - started < limit:
            camera.post(kept=True)
            time.sleep(0.1)
        gone = time.monotonic() - started
    finally:
        attack.end()
        thread.join()
    wrong = [f"{left} of {origin} were not cut {limit:.0f} s after the last came"] if left > 0 else []
    told = f"{most} held, {attack.cut:,} cut, the last after {gone:.0f} s, {memory(pid).anonymous:.0f} MB anonymous"
    return times, told, wrong


def main(arguments: list[str]) -> int:
    """Measure the camera alone, beside each kind of crowd, and alone again."""
    parser = argparse.ArgumentParser(prog="slow", description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="clients of a byte a second (default: 1,000)")
    parser.add_argument("--idle", type=int, default=200, help="idle clients (default: 200)")
    parser.add_argument("--seconds", type=float, default=45.0, help="of each trial (default: 45)")
    parser.add_argument("--origin", choices=("one", "many", "own"), action="append", help="only from there")
    parser.add_argument("--deadline", type=int, default=15, help="request_deadline_seconds")
    parser.add_argument("--idle-seconds", type=int, default=20, help="idle_seconds")
    parser.add_argument("--growth", type=float, default=MOST_GROWTH, help="of the camera's p95, at most (default: 2)")
    options = parser.parse_args(arguments)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    settings = (f"server.request_deadline_seconds={options.deadline}", f"server.idle_seconds={options.idle_seconds}")
    figures: dict[str, object] = {"slow": options.count, "idle": options.idle}
    violations: list[str] = []
    with serving("models.workers=1", *settings) as service:
        camera = Camera(service, options.idle_seconds)
        camera.post_for(options.seconds / 10)
        alone = camera.post_for(options.seconds / 3)
        crowded = {}
        for origin in options.origin or ("one", "many", "own"):
            times, told, wrong = trial(service, camera, origin, options)
            progress(f"slow: from {origin}: {told}; camera p50 {statistics.median(times):.0f} p95 {p95(times):.0f} ms")
            crowded[origin] = times
            figures[f"from {origin}"] = told
            violations += wrong
            alone += camera.post_for(options.seconds / 3)
        violations += camera.failures
    figures["camera alone"] = f"p50 {statistics.median(alone):.0f} p95 {p95(alone):.0f} ms of {len(alone)}"
    for origin, times in crowded.items():
        growth = p95(times) / p95(alone)
        figures[f"beside {origin}"] = (
            f"p50 {statistics.median(times):.0f} p95 {p95(times):.0f} ms (x{growth:.2f}) of {len(times)}"
        )
        if growth > options.growth:
            violations.append(f"beside {origin} the camera's p95 is {growth:.1f} times what it is alone")
    return report("slow", figures, violations)
