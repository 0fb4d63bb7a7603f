"""Webhooks: one POST a message, signed as Standard Webhooks 1.0 says, repeated until it has arrived or is too old."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import logging
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import urllib3

from edge.gallery.outgoing import Outgoing, Waiting

log = logging.getLogger(__name__)

FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 1.0, 600.0
"""Before the first repeat, and between any two after that: twice as long each time, give or take a quarter."""

LOOK_SECONDS = 0.5
"""Between two looks for what waits."""

ANSWER_BYTES = 4096
"""Of an answer are read at most; none of them is used."""

RETRIED = (408, 429)
"""Refusals that are about the moment; any other 4xx is about the message."""


def signature(secret: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the header `webhook-signature`: https://www.standardwebhooks.com, symmetric."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()


class Webhooks:
    """Sends what waits for addresses: a thread for each, so that a slow one holds up nobody else, in order."""

    def __init__(
        self,
        outgoing: Outgoing,
        *,
        secret: bytes,
        timeout_seconds: float,
        keep_seconds: float,
        ca_file: Path | None,
        most_threads: int,
        clock: Callable[[], int],
    ) -> None:
        """Start. `clock` gives milliseconds since 1970; what is older than `keep_seconds` is given up."""
        self._outgoing = outgoing
        self._secret = secret
        self._keep_ms = keep_seconds * 1000
        self._clock = clock
        self._pool = urllib3.PoolManager(
            ca_certs=None if ca_file is None else str(ca_file),
            timeout=urllib3.Timeout(total=timeout_seconds),
            retries=False,
        )
        self._most_threads = most_threads
        self._busy: dict[str, threading.Thread] = {}
        self._stopping = threading.Event()
        self.sent = 0
        self.given_up = 0
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)
        self._thread.start()

    @property
    def is_busy(self) -> bool:
        """Whether something is on its way, or due."""
        return any(self._is_due(url) for url in self._outgoing.destinations())

    def stop(self) -> None:
        """Begin no further try. What waits goes on after the next start, what is on its way may arrive twice."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            self._busy = {url: thread for url, thread in self._busy.items() if thread.is_alive()}
            for url in self._outgoing.destinations():
                if url not in self._busy and len(self._busy) < self._most_threads and self._is_due(url):
                    thread = threading.Thread(target=self._drain, args=(url,), name="webhook", daemon=True)
                    self._busy[url] = thread
                    thread.start()

    def _is_due(self, url: str) -> bool:
        first = self._outgoing.waiting(url) if url.startswith("http") else []
        return bool(first) and first[0].due_ms <= self._clock()

    def _drain(self, url: str) -> None:
        """Send what waits for the address, in order, until a try fails."""
        try:
            while not self._stopping.is_set():
                waiting = self._outgoing.waiting(url)
                if not waiting or not self._deliver(waiting[0]):
                    return
        except Exception:  # the boundary of a thread: the next look begins another
            if not self._stopping.is_set():  # then the queue is closed under it
                log.exception("a webhook could not be sent")

    def _deliver(self, waiting: Waiting) -> bool:
        """Try once; return whether the next message may go."""
        status = self._post(waiting)
        if status is not None and 200 <= status < 300:
            self._outgoing.done([waiting.number])
            self.sent += 1
            return True
        is_final = status is not None and 400 <= status < 500 and status not in RETRIED
        if is_final or self._clock() - waiting.message.time_ms > self._keep_ms:
            self._outgoing.done([waiting.number])
            self.given_up += 1
            log.warning("a message to a webhook is given up: %s", "no answer" if status is None else status)
            return True
        seconds = min(LAST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(waiting.tries, 20))
        seconds *= random.uniform(0.75, 1.25)  # noqa: S311 - nothing secret about a pause
        self._outgoing.later(waiting.number, self._clock() + int(seconds * 1000))
        return False

    def _post(self, waiting: Waiting) -> int | None:
        """Return the status, None where there was no answer."""
        message, timestamp = waiting.message, int(time.time())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "edge",
            "webhook-id": message.message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(self._secret, message.message_id, timestamp, message.payload),
        }
        try:
            answer = self._pool.request(
                "POST",
                message.destination,
                body=message.payload,
                headers=headers,
                redirect=False,
                preload_content=False,
            )
        except (urllib3.exceptions.HTTPError, ValueError):
            return None
        with contextlib.suppress(urllib3.exceptions.HTTPError):
            answer.read(ANSWER_BYTES)
        answer.close()
        return answer.status
