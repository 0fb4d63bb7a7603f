"""A client that makes and revokes permanent tokens without a pause: what it was told is held against the disk."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from real_process import Service

FEW = 6
"""Tokens that it keeps; above, the oldest goes for each that comes."""

PAUSE_SECONDS = 0.02


class Tokens:
    """Which tokens are good, which are revoked, and which are being revoked."""

    def __init__(self) -> None:
        self.good: dict[str, None] = {}
        self.revoked: set[str] = set()
        self.open: set[str] = set()
        self._lock = threading.Lock()

    @contextmanager
    def at_work(self, service: Service, seed: int) -> Iterator[None]:
        """Make and revoke until the `with` ends."""
        stopped = threading.Event()
        thread = threading.Thread(target=self._work, args=(service, stopped, random.Random(seed)), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join()

    def _work(self, service: Service, stopped: threading.Event, dice: random.Random) -> None:
        with requests.Session() as session, contextlib.suppress(requests.RequestException):
            session.headers["token"] = service.token("admin")
            while not stopped.wait(dice.uniform(0, PAUSE_SECONDS)):
                body = {"valid_days": 9, "scope": ["read"], "name": "torture"}
                made = session.post(f"{service.url}/v1/token/create", json=body, timeout=60)
                with self._lock:
                    self.good[made.json()["token"]["token_id"]] = None
                    oldest = next(iter(self.good))
                    if len(self.good) <= FEW:
                        continue
                    self.open.add(oldest)
                answer = session.post(f"{service.url}/v1/token/delete", json={"token_id": oldest}, timeout=60)
                with self._lock:
                    self.open.discard(oldest)
                    if answer.status_code == 200:
                        del self.good[oldest]
                        self.revoked.add(oldest)

    def copy(self) -> Tokens:
        """Return what was told by this moment."""
        with self._lock:
            copied = Tokens()
            copied.good, copied.revoked, copied.open = dict(self.good), set(self.revoked), set(self.open)
            return copied

    def settle(self, folder: Path) -> list[str]:
        """Compare with the file; return what is not as told."""
        with contextlib.closing(sqlite3.connect(folder / "access.sqlite3")) as database:
            rows = {token_id for (token_id,) in database.execute("SELECT token_id FROM tokens")}
        return [
            *(f"lost: the token {one}" for one in self.good.keys() - self.open - rows),
            *(f"resurrected: the revoked token {one}" for one in self.revoked & rows),
        ]
