"""A box's snapshot, page by page: asked for, and given."""

from __future__ import annotations

import json
import logging
import secrets
import struct
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO

from edge.gallery.replica import Incomplete, Replica

log = logging.getLogger(__name__)

PAGE_BYTES = 500_000
"""From which a page is sent; one more line keeps it under a NATS server's 1 MiB, unless the line itself is longer."""

MOST_PAGE_BYTES = 1_000_000

IDLE_SECONDS = 30.0
"""After which a snapshot that nobody asks on for is given up: while it is open, the write-ahead log grows."""

WAIT_SECONDS = 60.0
"""For the first page, which may wait for another box's snapshot to end."""

MORE, LAST, BUSY, GONE = b"+", b".", b"B", b"G"

Ask = Callable[[bytes], Awaitable[bytes]]


class Giving:
    """The one snapshot that is being given. In a thread of its own: its connection sees one moment meanwhile."""

    def __init__(self, gallery: Replica) -> None:
        self._gallery = gallery
        self._session = ""
        self._opened: AbstractContextManager[Iterator[bytes]] | None = None
        self._lines: Iterator[bytes] = iter(())
        self._page = 0
        self._answer = b""
        self._over: bytes | None = None
        self._asked = time.monotonic()

    def answer(self, request: bytes) -> bytes:
        """Return the page that is asked for."""
        try:
            asked = json.loads(request)
            session, page = str(asked["session"]), int(asked["page"])
        except (ValueError, KeyError, TypeError):
            return GONE
        if session != self._session:
            self.end_if_idle()
            if self._opened is not None:
                return BUSY
            if page:
                return GONE
            self._begin(session)
        self._asked = time.monotonic()
        if page == self._page - 1:  # the answer was lost on the way
            return self._answer
        if page != self._page:
            return GONE
        self._answer = self._next_page()
        self._page += 1
        return self._answer

    def _begin(self, session: str) -> None:
        self._opened = self._gallery.snapshot()
        self._lines = self._opened.__enter__()
        self._session, self._page, self._over = session, 0, None
        self._asked = time.monotonic()

    def _next_page(self) -> bytes:
        page = b""
        while len(page) < PAGE_BYTES:
            line = self._over if self._over is not None else next(self._lines, None)
            self._over = None
            if line is None:
                self.end()
                return LAST + page
            framed = struct.pack("<I", len(line)) + line
            if page and len(page) + len(framed) > MOST_PAGE_BYTES:
                self._over = line
                break
            page += framed
        return MORE + page

    def end_if_idle(self) -> None:
        """Give up a snapshot that nobody asks on for."""
        if time.monotonic() - self._asked > IDLE_SECONDS:
            self.end()

    def end(self) -> None:
        """Give up the snapshot."""
        if self._opened is not None:
            opened, self._opened, self._lines = self._opened, None, iter(())
            opened.__exit__(None, None, None)


async def fetched(ask: Ask, file: IO[bytes]) -> None:
    """Ask for a snapshot until it is whole, and write it to the file. Raises Incomplete, and what `ask` raises."""
    session, page = secrets.token_hex(8), 0
    while True:
        answer = await ask(json.dumps({"session": session, "page": page}).encode())
        if answer[:1] not in (MORE, LAST):
            reason = "it is giving one to another box" if answer[:1] == BUSY else "it has given it up"
            raise Incomplete(message=f"no snapshot: {reason}")
        file.write(answer[1:])
        if answer[:1] == LAST:
            return
        page += 1


def lines_in(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the lines of a snapshot that was fetched."""
    file.seek(0)
    while size := file.read(4):
        yield file.read(struct.unpack("<I", size)[0])


def spool(folder: Path) -> IO[bytes]:
    """Return a file without a name: what is in it goes with the process."""
    return tempfile.TemporaryFile(dir=folder)
