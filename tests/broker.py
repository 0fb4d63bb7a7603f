"""A real Mosquitto, whoever hears it, and a network between that can stall."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

_PATH = f"{os.environ['PATH']}:/usr/sbin"
MOSQUITTO = os.environ.get("EDGE_TEST_MOSQUITTO") or shutil.which("mosquitto", path=_PATH)
PASSWD = shutil.which("mosquitto_passwd", path=_PATH)


def until(condition: Callable[[], Any], seconds: float = 30) -> Any:
    """Wait for it; a bound for a busy machine, not a promise."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)
    return found


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Broker:
    """Mosquitto with persistence off: what it has acknowledged it has passed on."""

    def __init__(self, folder: Path, *lines: str, anonymous: bool = True) -> None:
        self.port = free_port()
        self.file = folder / "mosquitto.conf"
        own = (f"listener {self.port} 127.0.0.1", f"allow_anonymous {str(anonymous).lower()}", "persistence false")
        self.file.write_text("\n".join((*own, *lines, "")))
        self.start()

    def start(self) -> None:
        command = [str(MOSQUITTO), "-c", str(self.file)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def is_up(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True


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


class Relay:
    """The network between: while `stalls`, what the broker answers goes nowhere, and nobody is told."""

    def __init__(self, port: int) -> None:
        self.stalls = threading.Event()
        self._to = port
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port = self._door.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._door.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._to))
            threading.Thread(target=self._pass_on, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self._pass_on, args=(far, near, True), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, can_stall: bool) -> None:
        try:
            while data := source.recv(65536):
                if not (can_stall and self.stalls.is_set()):
                    target.sendall(data)
        except OSError:
            pass
        for one in (source, target):
            one.close()

    def close(self) -> None:
        self._door.close()
