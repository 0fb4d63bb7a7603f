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
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any, TypeVar

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError

from edge.errors import Refusal, StorageFull
from edge.fleet import peers, snapshots
from edge.fleet.peers import BEATS_MISSED, Beat, Peers
from edge.fleet.state import State, Terms, Told, peers_of
from edge.fleet.stream import Gap, Stream
from edge.gallery.replica import Digest, Incomplete, Replica

log = logging.getLogger(__name__)

CONNECT_SECONDS = 4.0
"""Of one attempt."""

LEAST_PAUSE_SECONDS, MOST_PAUSE_SECONDS = 0.5, 5.0
"""Between two attempts, twice as long each time: a box that comes back is known within seconds."""

END_SECONDS = 5.0
"""For what was going on with a connection to end, before the next one is made."""

PENDING_AT_ONCE = 64

FIRST_BEAT_SECONDS = 1.0
"""After the start and after a change, before a box tells of itself."""

Result = TypeVar("Result")


class Link:
    """The link of one box; `start` and `stop` once each."""

    def __init__(self, gallery: Replica, terms: Terms) -> None:
        self._gallery = gallery
        self._terms = terms
        self._told = Told()
        self._peers = Peers(terms.box, time.monotonic)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="fleet-gallery")
        self._giver = ThreadPoolExecutor(1, thread_name_prefix="fleet-snapshot")
        self._giving = snapshots.Giving(gallery)
        self._loop = asyncio.new_event_loop()
        self._changed = asyncio.Event()
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._held: Digest | None = None
        self._mend_from: str | None = None
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
        while self._told.connected and self._gallery.outbox_length() and time.monotonic() < until:
            time.sleep(0.05)
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(CONNECT_SECONDS + seconds)
        for pool in (self._worker, self._giver):
            pool.shutdown(wait=False, cancel_futures=True)

    def state(self) -> State:
        """Return how the fleet is."""
        told = self._told
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
            "fleet_behind": max(0, self._told.last - (state.position or 0)),
            "fleet_peers": sum(not one["silent"] for one in state.peers),
            "fleet_differs": float(state.agrees is False),
            "fleet_seeded": state.seeded,
        }

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._changed.set)

    # --- the thread ---

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._connected_for_ever())
        except Exception:  # the boundary of a thread: the box goes on alone
            log.exception("the link to the fleet has ended; a restart of the service begins it again")
        finally:
            self._told.connected = False
            left = asyncio.all_tasks(self._loop)  # of the client, which ends some of its own only when it is asked to
            for task in left:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self._loop.close()

    async def _in_worker(self, call: Callable[..., Result], *arguments: Any) -> Result:
        return await self._loop.run_in_executor(self._worker, call, *arguments)

    async def _connected_for_ever(self) -> None:
        while not self._stopping.is_set():
            try:
                await self._connected_once()
            except (NatsError, OSError, asyncio.TimeoutError, Refusal) as error:
                self._tell_away(error)
            except Exception:  # whatever it is, the box goes on, and so does the link
                log.exception("the link to the fleet begins anew")
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), self._pause)
            self._pause = min(2 * self._pause, MOST_PAUSE_SECONDS)

    def _tell_away(self, error: BaseException) -> None:
        """Say it once, until it works again."""
        if not self._is_told_away:
            reason = str(error) or type(error).__name__
            log.warning("the fleet cannot be reached, this box goes on alone: %s", reason)
        self._is_told_away = True

    async def _connected_once(self) -> None:
        """Connect, and work until something fails."""
        lost = asyncio.Event()

        async def on_lost() -> None:
            lost.set()

        async def on_error(error: Exception) -> None:
            log.debug("the link to the fleet: %s", error)

        terms = self._terms
        client = await nats.connect(
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
        try:
            stream = Stream(client, terms.prefix, days=terms.stream_days, most_bytes=terms.stream_bytes)
            await self._check_stream(stream)
            if self._is_told_away:
                log.info("the fleet is there again")
            self._told.connected, self._is_told_away, self._pause = True, False, LEAST_PAUSE_SECONDS
            await self._listen(client)
            await self._first_of(
                self._publish(stream),
                self._follow(client, stream),
                self._clear(stream),
                self._tell(client),
                lost.wait(),
                self._stopping.wait(),
            )
        finally:
            self._told.connected = False
            # a connection whose other end is dead may never be closed in order, and must not hold up the next
            for ending in (self._loop.run_in_executor(self._giver, self._giving.end), client.close()):
                with contextlib.suppress(NatsError, asyncio.TimeoutError, OSError):
                    await asyncio.wait_for(ending, END_SECONDS)

    async def _first_of(self, *work: Coroutine[Any, Any, Any]) -> None:
        """Do all of it until one ends or fails; raise what that raised."""
        tasks = [self._loop.create_task(one) for one in work]
        try:
            first, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ended, _ = await asyncio.wait(tasks, timeout=END_SECONDS)
        failures = {task: task.exception() for task in ended if not task.cancelled()}  # of all, or asyncio complains
        for task in first:
            failure = failures[task]
            if failure is not None:
                raise failure

    async def _check_stream(self, stream: Stream) -> None:
        """Make the stream if need be; see whether it is the one that was followed."""
        bounds = await stream.make()
        self._told.last = bounds.last
        position = await self._in_worker(lambda: self._gallery.position)
        if position is not None and bounds.last < position:
            log.warning("the fleet's stream is a new one: it is followed from its beginning")
            await self._in_worker(self._gallery.begin_anew)

    # --- publishing ---

    async def _publish(self, stream: Stream) -> None:
        """Publish operations, one after the other: an origin's order is what others skip repeats by."""
        sent: dict[int, int] = {}
        after = 0
        while True:
            self._changed.clear()
            waiting = await self._in_worker(self._gallery.pending, PENDING_AT_ONCE, after)
            for operation in waiting:
                sequence = await stream.publish(operation)
                sent[operation.number] = sequence
                after = operation.number
                self._told.last = max(self._told.last, sequence)
            sent = await self._in_worker(self._without_the_passed, sent)
            if not waiting:
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), CONNECT_SECONDS)

    def _without_the_passed(self, sent: dict[int, int]) -> dict[int, int]:
        """Return what has not come back yet; what was passed over in the stream is told to the outbox."""
        position = self._gallery.position
        if not sent or position is None:
            return sent
        passed = {number: sequence for number, sequence in sent.items() if sequence <= position}
        if passed:
            there = {one.number for one in self._gallery.pending(len(passed) + PENDING_AT_ONCE)}
            left_over = {number: sequence for number, sequence in passed.items() if number in there}
            if left_over:
                self._gallery.acknowledge(left_over)
        return {number: sequence for number, sequence in sent.items() if number not in passed}

    # --- following ---

    async def _follow(self, client: Client, stream: Stream) -> None:
        """Apply what comes, in order, for ever."""
        while True:
            await self._seed_if_due(client, stream)
            position = await self._in_worker(lambda: self._gallery.position)
            if position is None:  # nobody there to be seeded by
                await asyncio.sleep(LEAST_PAUSE_SECONDS)
                continue
            try:
                await stream.read_from(position + 1)
                await self._read_on(stream)
            except (NotFoundError, Gap):  # the server that kept our place was restarted, or a message got lost
                log.debug("reading the stream begins anew", exc_info=True)

    async def _read_on(self, stream: Stream) -> None:
        """Read and apply until there is a reason to begin anew."""
        while self._mend_from is None:
            messages = await stream.read()
            if messages:
                await self._apply(messages)
                self._told.last = max(self._told.last, messages[-1][0])
            elif await self._is_past(stream):
                return

    async def _is_past(self, stream: Stream) -> bool:
        """Look, where nothing came, whether something should have.

        Where the stream goes on and nothing comes, it is waited for: the server that reads for this box may be behind
        the others, and says then that nothing waits. What has been cleared is passed over with what comes behind it,
        as an erasure is.
        """
        bounds = await stream.bounds()
        sent = await stream.sent()
        self._told.last = bounds.last
        position = await self._in_worker(lambda: self._gallery.position) or 0
        # sent between two calls: it is in nobody's hands
        return sent > position or bounds.last < position or bounds.first > position + 1

    async def _apply(self, messages: list[tuple[int, bytes]]) -> None:
        while True:
            try:
                await self._in_worker(self._gallery.apply, messages)
                return
            except StorageFull:
                log.warning("the disk is full: what the fleet tells waits")
                await asyncio.sleep(MOST_PAUSE_SECONDS)

    async def _seed_if_due(self, client: Client, stream: Stream) -> None:
        """Take another box's snapshot where the stream alone does not lead on."""
        position = await self._in_worker(lambda: self._gallery.position)
        bounds = await stream.bounds()
        is_left_behind = position is not None and bounds.last > position and bounds.first > position + 1
        if position is not None and not is_left_behind and self._mend_from is None:
            return
        wanted, self._mend_from = self._mend_from, None
        beats = self._peers.heard_within(BEATS_MISSED * self._terms.digest_seconds)
        sources = [beat for beat in beats if beat.position >= (position or 0)]
        sources.sort(key=lambda beat: (beat.box != wanted, beat.outbox, -beat.position, beat.box))
        for beat in sources:
            if await self._seed_from(client, beat):
                return
        if is_left_behind and not sources:
            log.error("what the fleet told meanwhile is gone from its stream, and no other box is there to ask")
            await asyncio.sleep(MOST_PAUSE_SECONDS)

    async def _seed_from(self, client: Client, beat: Beat) -> bool:
        log.info("taking over what %s holds", beat.box)

        async def ask(request: bytes) -> bytes:
            subject = f"{self._terms.prefix}.snapshot.{beat.origin}"
            answer = await client.request(subject, request, timeout=snapshots.WAIT_SECONDS)
            return answer.data

        with snapshots.spool(self._terms.spool) as file:
            try:
                await snapshots.fetched(ask, file)
                position = await self._in_worker(self._gallery.seed, snapshots.lines_in(file))
            except (NatsError, Incomplete, StorageFull) as error:
                log.warning("%s could not be taken over from %s: %s", "what is held", beat.box, error)
                return False
        self._told.seeded += 1
        self._held = None
        self._peers.forget_own()
        self._changed.set()
        self._hurry.set()
        log.info("this box is as %s was at position %d", beat.box, position)
        return True

    # --- clearing ---

    async def _clear(self, stream: Stream) -> None:
        """Have overwritten what the stream still holds of the erased, for ever; every box does it, whoever comes first.

        Not before each box that is not silent has read on: one that missed what was erased differs from the others
        until it comes to the erasure.
        """
        pause = self._terms.digest_seconds
        positions: deque[int] = deque(maxlen=BEATS_MISSED + 1)
        while True:
            position = await self._in_worker(lambda: self._gallery.position)
            positions.append(position or 0)
            with contextlib.suppress(StorageFull):  # it is done once more, then
                while len(positions) > BEATS_MISSED and await self._clear_some(stream, positions[0]):
                    pass
            await asyncio.sleep(pause)

    async def _clear_some(self, stream: Stream, position: int) -> bool:
        """Clear the stream of some that were erased up to there; whether there were any."""
        leftovers = await self._in_worker(self._gallery.leftovers, position, PENDING_AT_ONCE)
        for sequence, subject in leftovers:
            await stream.clear(subject, sequence)
        if leftovers:
            await self._in_worker(self._gallery.cleared, [sequence for sequence, _ in leftovers])
        return bool(leftovers)

    # --- telling and comparing ---

    async def _listen(self, client: Client) -> None:
        prefix = self._terms.prefix

        async def hear(message: Msg) -> None:
            try:
                beat = peers.decoded(message.data)
            except ValueError:
                log.debug("garbage on %s", message.subject)
                return
            if beat.origin == self._gallery.origin:
                return
            if beat.box == self._terms.box:
                log.error("another box of the fleet has this one's name, %s: set fleet.box_name", beat.box)
                return
            is_new = beat.box not in {one.beat.box for one in self._peers.known()}
            self._peers.hear(beat)
            self._told.others = self._peers.known()
            self._compare(beat.position)
            if is_new:
                self._hurry.set()

        async def give(message: Msg) -> None:
            answer = await self._loop.run_in_executor(self._giver, self._giving.answer, message.data)
            await message.respond(answer)

        await client.subscribe(f"{prefix}.beat", cb=hear)
        await client.subscribe(f"{prefix}.snapshot.{self._gallery.origin}", cb=give)

    async def _tell(self, client: Client) -> None:
        """Tell the others of this box, now and then."""
        while True:
            beat = await self._in_worker(self._beat)
            await client.publish(f"{self._terms.prefix}.beat", beat.encoded())
            self._told.others = self._peers.known()
            self._compare(beat.position)
            await self._loop.run_in_executor(self._giver, self._giving.end_if_idle)
            self._hurry.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), self._terms.digest_seconds)
                await asyncio.sleep(FIRST_BEAT_SECONDS)

    def _beat(self) -> Beat:
        held = self._gallery.digest(self._held)
        if held is not None:
            self._held = held
            self._peers.note_own(held)
            self._told.digest = held.digest
        position = held.position if held is not None else self._gallery.position
        return Beat(
            self._terms.box,
            self._gallery.origin,
            -1 if position is None else position,
            None if held is None else held.digest,
            0 if held is None else held.persons,
            self._gallery.outbox_length(),
            self._terms.pack,
        )

    def _compare(self, position: int) -> None:
        """See whether this box differs from most of the others, and mend it then."""
        agrees = self._peers.agrees(position)
        if agrees is None:
            return
        if not agrees and self._told.agrees is not False:
            log.error("boxes of the fleet differ at position %d: those that most differ from are mended", position)
        self._told.agrees = agrees
        right = self._peers.right_one(position)
        if right is not None and self._mend_from is None:
            self._mend_from = right
