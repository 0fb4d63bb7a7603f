"""A box of a fleet as its user has it: `edge serve` and, where it keeps the stream, a nats-server, both processes."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import requests

from tests.fleet.servers import binary
from tests.real_process import Service

SETTINGS = ("fleet.digest_seconds=1", "models.workers=1", "history.keep_days=0")
VECTOR_LENGTH = 128


class FleetBox:
    """One box, in a folder of its own; `server` is its NATS server's address."""

    def __init__(self, folder: Path, name: str, server: str, *settings: str, within: Sequence[str] = ()) -> None:
        self.folder, self.name, self.server, self.within = folder, name, server, within
        self.service = Service(folder, *SETTINGS, f"fleet.box_name={name}", *settings)
        self.service.within = within
        self._nats: subprocess.Popen[bytes] | None = None

    def init(self, servers: Sequence[str]) -> str:
        """Begin a fleet; return its code."""
        self.service.edge("fleet", "init", "--own", self.server, "--servers", *servers)
        return self.service.edge("fleet", "code").strip()

    def join(self, code: str) -> None:
        self.service.edge("fleet", "join", code, "--own", self.server)

    def start_nats(self) -> None:
        log = (self.folder.parent / f"{self.name}-nats.log").open("ab")
        command = [*self.within, binary(), "-c", str(self.folder / "fleet" / "nats.conf")]
        self._nats = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        log.close()

    def kill_nats(self) -> None:
        if self._nats is not None:
            self._nats.kill()
            self._nats.wait()
            self._nats = None

    def start(self) -> None:
        self.service.start()

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self.service.process is not None:
            self.service.end(number)

    def end(self) -> None:
        self.kill(signal.SIGTERM)
        self.kill_nats()

    def state(self) -> dict[str, Any]:
        told: dict[str, Any] = self.service.session.get(f"{self.service.url}/health", timeout=20).json()["fleet"]
        return told

    def add(self, vector: Sequence[float], name: str = "") -> requests.Response:
        return self.service.create(embedding=json.dumps(list(vector)), fields=[("fields", name)] if name else ())

    def erase(self, person_id: str, session: requests.Session | None = None) -> requests.Response:
        return (session or self.service.session).post(
            f"{self.service.url}/v1/person/delete",
            json={"person_id": person_id},
            headers={"Authorization": f"Bearer {self.service.camera}"},
            timeout=20,
        )

    def count(self) -> int:
        return int(self.service.session.get(f"{self.service.url}/health", timeout=20).json()["persons"])


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 with room for the servers' own above each, none of which the system hands out by itself."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(12_000, 28_000)
        with socket.socket() as probe, socket.socket() as above, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            above.bind(("127.0.0.1", port + 2000))
            if all(abs(port - one) not in (0, 2000) for one in found):
                found.append(port)
    return found


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)
