"""A box as one of its fleet: what the parts of its link know of each other, whatever connection there is."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from edge.fleet.peers import Peers
from edge.fleet.state import Terms, Told
from edge.gallery.replica import Digest, Replica

Result = TypeVar("Result")


class Box:
    """What is known, and the events that the parts wake each other by. In the link's thread, but for `told`."""

    def __init__(self, gallery: Replica, terms: Terms) -> None:
        """The gallery is worked on in a thread of its own, one call at a time."""
        self.gallery = gallery
        self.terms = terms
        self.told = Told()
        self.peers = Peers(terms.box, time.monotonic)
        self.changed = asyncio.Event()
        """Something waits in the outbox."""
        self.heard = asyncio.Event()
        """The stream has gone on, or the box is to be mended."""
        self.hurry = asyncio.Event()
        """The others are to be told of this box soon."""
        self.mend_from: str | None = None
        """The box to become like, where this one holds something else than most."""
        self.held: Digest | None = None
        """What the gallery held when it was last computed."""
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="fleet-gallery")

    async def in_worker(self, call: Callable[..., Result], *arguments: Any) -> Result:
        """Return what the call returns, made in the gallery's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, call, *arguments)

    async def position(self) -> int | None:
        """Return the gallery's."""
        return await self.in_worker(lambda: self.gallery.position)

    def hear_of(self, sequence: int) -> None:
        """Take in that the stream goes up to there, at least."""
        if sequence > self.told.last:
            self.told.last = sequence
            self.heard.set()

    def close(self) -> None:
        """Let go of the thread."""
        self._worker.shutdown(wait=False, cancel_futures=True)


async def woken(event: asyncio.Event, seconds: float) -> None:
    """Wait for the event, for so long at most."""
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
