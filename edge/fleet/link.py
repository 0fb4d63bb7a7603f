"""A box's link to its fleet: a thread of its own that publishes, follows, compares and mends.

No request waits for it. What is changed here is on disk with its operation before the link hears of it, and waits
there for as long as it takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from edge.errors import Refusal
from edge.fleet import snapshots
from edge.fleet.box import Box, woken
from edge.fleet.clearing import Clearing
from edge.fleet.following import Following
from edge.fleet.publishing import Publishing
from edge.fleet.state import State, Terms, peers_of
from edge.fleet.stream import Stream
from edge.fleet.telling import Telling
from edge.gallery.replica import Replica

log = logging.getLogger(__name__)

CONNECT_SECONDS = 4.0
"""Of one attempt."""

LEAST_PAUSE_SECONDS, MOST_PAUSE_SECONDS = 0.5, 5.0
"""Between two attempts, twice as long each time: a box that comes back is known within seconds."""

END_SECONDS = 2.0
"""For what was going on with a connection to end, before the next one is made."""

FLUSH_SECONDS = 0.05
"""Between two looks whether everything is published."""


class Link:
    """The link of one box; `start` and `stop` once each."""

    def __init__(self, gallery: Replica, terms: Terms) -> None:
        self._gallery = gallery
        self._terms = terms
        self._box = Box(gallery, terms)
        self._giver = ThreadPoolExecutor(1, thread_name_prefix="fleet-snapshot")
        self._giving = snapshots.Giving(gallery)
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._is_told_away = False
        self._pause = LEAST_PAUSE_SECONDS
        self._thread = threading.Thread(target=self._run, name="fleet", daemon=True)

    def start(self) -> None:
        """Begin; returns at once, whether the fleet can be reached or not."""
        logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of nats-py's way to end TLS, each time
        self._gallery.when_pending(self._wake)
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Publish what waits, for so many seconds at most, and end."""
        until = time.monotonic() + seconds
        while self._box.told.connected and self._gallery.outbox_length() and time.monotonic() < until:
            time.sleep(FLUSH_SECONDS)
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(CONNECT_SECONDS + seconds)
        self._box.close()
        self._giver.shutdown(wait=False, cancel_futures=True)

    def state(self) -> State:
        """Return how the fleet is."""
        told = self._box.told
        return State(
            self._terms.box,
            told.connected,
            self._gallery.position,
            self._gallery.outbox_length(),
            peers_of(told, self._terms),
            told.digest,
            told.agrees,
            told.seeded,
        )

    def told(self) -> dict[str, object]:
        """Return the state as /health tells it."""
        return asdict(self.state())

    def readings(self) -> dict[str, float]:
        """Return what /metrics tells of the fleet."""
        state = self.state()
        return {
            "fleet_connected": float(state.connected),
            "fleet_outbox": state.outbox,
            "fleet_behind": max(0, self._box.told.last - (state.position or 0)),
            "fleet_peers": sum(not one["silent"] for one in state.peers),
            "fleet_differs": float(state.agrees is False),
            "fleet_seeded": state.seeded,
        }

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._box.changed.set)

    # --- the thread ---

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._connected_for_ever())
        except Exception:  # the boundary of a thread: the box goes on alone
            log.exception("the link to the fleet has ended; a restart of the service begins it again")
        finally:
            self._box.told.connected = False
            left = asyncio.all_tasks(self._loop)  # of the client, which ends some of its own only when it is asked to
            for task in left:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self._loop.close()

    async def _connected_for_ever(self) -> None:
        while not self._stopping.is_set():
            try:
                await self._connected_once()
            except (NatsError, OSError, asyncio.TimeoutError, Refusal) as error:
                self._tell_away(error)
            except Exception:  # whatever it is, the box goes on, and so does the link
                log.exception("the link to the fleet begins anew")
            await woken(self._stopping, self._pause)
            self._pause = min(2 * self._pause, MOST_PAUSE_SECONDS)

    def _tell_away(self, error: BaseException) -> None:
        """Say it once, until it works again."""
        if not self._is_told_away:
            reason = str(error) or type(error).__name__
            log.warning("the fleet cannot be reached, this box goes on alone: %s", reason)
        self._is_told_away = True

    async def _connected_once(self) -> None:
        """Connect, and work until something fails."""
        lost, told, terms = asyncio.Event(), self._box.told, self._terms
        client = await self._connected(lost)
        try:
            stream = Stream(client, terms.prefix, days=terms.stream_days, most_bytes=terms.stream_bytes)
            publishing = Publishing(self._box, client, stream)
            following = Following(self._box, client, stream)
            telling = Telling(self._box, client)
            clearing = Clearing(self._box, client, stream)
            await self._first_of(following.begin(), lost.wait(), self._stopping.wait())
            if lost.is_set() or self._stopping.is_set():
                return
            if self._is_told_away:
                log.info("the fleet is there again")
            told.connected, self._is_told_away, self._pause = True, False, LEAST_PAUSE_SECONDS
            await telling.listen()
            await clearing.listen()
            await client.subscribe(f"{terms.prefix}.snapshot.{self._gallery.origin}", cb=self._give)
            await self._first_of(
                publishing.publish(),
                following.follow(),
                telling.tell(),
                clearing.clear(),
                self._let_go_of_snapshots(),
                lost.wait(),
                self._stopping.wait(),
            )
        finally:
            told.connected = False
            # a connection whose other end is dead may never be closed in order, and must not hold up the next
            for ending in (self._loop.run_in_executor(self._giver, self._giving.end), client.close()):
                with contextlib.suppress(NatsError, asyncio.TimeoutError, OSError):
                    await asyncio.wait_for(ending, END_SECONDS)

    async def _connected(self, lost: asyncio.Event) -> Client:
        """Return a connection, which sets the event when it ends. Raises NatsError, OSError, asyncio.TimeoutError."""
        terms = self._terms

        async def on_lost() -> None:
            lost.set()

        async def on_error(error: Exception) -> None:
            log.debug("the link to the fleet: %s", error)

        return await nats.connect(
            servers=list(terms.servers),
            user=terms.user or None,
            password=terms.password or None,
            tls=terms.tls,
            name=terms.box,
            connect_timeout=CONNECT_SECONDS,
            allow_reconnect=False,  # whatever was going on is begun anew, from the position
            max_reconnect_attempts=1,
            disconnected_cb=on_lost,
            closed_cb=on_lost,
            error_cb=on_error,
            ping_interval=5,
            max_outstanding_pings=2,
        )

    async def _first_of(self, *work: Coroutine[Any, Any, Any]) -> None:
        """Do all of it until one ends or fails; raise what that raised."""
        tasks = [self._loop.create_task(one) for one in work]
        for task in tasks:
            task.add_done_callback(_looked_at)
        try:
            first, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=END_SECONDS)
        for task in first:
            task.result()

    # --- snapshots for others ---

    async def _give(self, message: Msg) -> None:
        answer = await self._loop.run_in_executor(self._giver, self._giving.answer, message.data)
        await message.respond(answer)

    async def _let_go_of_snapshots(self) -> None:
        while True:
            await asyncio.sleep(snapshots.IDLE_SECONDS)
            await self._loop.run_in_executor(self._giver, self._giving.end_if_idle)


def _looked_at(task: asyncio.Task[Any]) -> None:
    """Look at a task's failure: asyncio complains in the log of those that nobody looked at."""
    if not task.cancelled():
        task.exception()
