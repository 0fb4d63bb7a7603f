"""How a box follows the stream: it applies what comes, in order, and is seeded where that alone does not lead on."""

from __future__ import annotations

import asyncio
import logging

from nats.aio.client import Client
from nats.errors import Error as NatsError

from edge.errors import StorageFull
from edge.fleet import snapshots
from edge.fleet.box import Box, woken
from edge.fleet.peers import Beat
from edge.fleet.stream import Bounds, Stream
from edge.gallery.replica import Incomplete

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
"""For news of the stream; then a box looks for itself."""

LEAST_PAUSE_SECONDS, MOST_PAUSE_SECONDS = 0.002, 0.2
"""Until the server that was asked has what another has acknowledged already; twice as long each time."""

SEED_PAUSE_SECONDS = 0.5
"""Until somebody may be there to be seeded by."""

FULL_PAUSE_SECONDS = 5.0
"""Until a disk that was full may have room."""

RENEWED_SECONDS = 2.0
"""Until a stream that was shorter than it should be is looked at again: a new leader may not be at its end yet."""


class Following:
    """By one connection."""

    def __init__(self, box: Box, client: Client, stream: Stream) -> None:
        """`client`: of the stream, by which snapshots are asked for too."""
        self._box = box
        self._client = client
        self._stream = stream

    async def begin(self) -> None:
        """Make the stream if need be; see whether it is the one that was followed."""
        box = self._box
        bounds = await self._stream.make()
        position = await box.position()
        if position is not None and bounds.last < position:
            await asyncio.sleep(RENEWED_SECONDS)
            bounds = await self._stream.bounds()
            if bounds.last < position:
                log.warning("the fleet's stream is a new one: it is followed from its beginning")
                await box.in_worker(box.gallery.begin_anew)
        box.told.last = bounds.last

    async def follow(self) -> None:
        """Apply what comes, in order, for ever."""
        box, now = self._box, asyncio.get_running_loop().time
        stuck_since: float | None = None
        while True:
            bounds = await self._stream.bounds()
            await self._seed_if_due(bounds)
            position = await box.position()
            is_left_behind = position is not None and _leaves_behind(bounds, position)
            stuck_since = (stuck_since or now()) if is_left_behind else None
            is_lost = stuck_since is not None and now() - stuck_since > box.terms.silent_seconds
            if position is None or (is_left_behind and not is_lost):  # nobody there yet to be seeded by
                await asyncio.sleep(SEED_PAUSE_SECONDS)
                continue
            if is_lost:
                log.error("what the fleet told meanwhile is gone from its stream, and no other box is there to ask")
            await self._read_on(position, passes_over=is_lost)
            await self.begin()

    async def _read_on(self, position: int, *, passes_over: bool) -> None:
        """Read and apply until the stream is another one, or does not lead on, or the box is to be mended.

        `passes_over`: what is gone from the stream now is lost to everybody.

        Where the stream goes on and nothing comes, it is waited for: the server that was asked may be behind the
        others.
        """
        box, now = self._box, asyncio.get_running_loop().time
        pause, looked = LEAST_PAUSE_SECONDS, now()
        while box.mend_from is None:
            box.heard.clear()
            messages = await self._stream.read(position + 1)
            is_next = bool(messages) and (messages[0][0] == position + 1 or passes_over)
            if is_next or (messages and not _leaves_behind(await self._stream.bounds(), position)):
                await self._apply(messages)
                position, passes_over = messages[-1][0], False
                box.hear_of(position)
                pause, looked = LEAST_PAUSE_SECONDS, now()
            elif messages or now() - looked > LOOK_SECONDS:
                looked = now()
                bounds = await self._stream.bounds()
                box.hear_of(bounds.last)
                if bounds.last < position or _leaves_behind(bounds, position):
                    return
            elif box.told.last > position:
                await asyncio.sleep(pause)
                pause = min(2 * pause, MOST_PAUSE_SECONDS)
            else:
                await woken(box.heard, LOOK_SECONDS)

    async def _apply(self, messages: list[tuple[int, bytes]]) -> None:
        while True:
            try:
                await self._box.in_worker(self._box.gallery.apply, messages)
                return
            except StorageFull:
                log.warning("the disk is full: what the fleet tells waits")
                await asyncio.sleep(FULL_PAUSE_SECONDS)

    async def _seed_if_due(self, bounds: Bounds) -> None:
        """Take another box's snapshot where the stream alone does not lead on, if one is there."""
        box = self._box
        position = await box.position()
        is_left_behind = position is not None and _leaves_behind(bounds, position)
        if position is not None and not is_left_behind and box.mend_from is None:
            return
        wanted, box.mend_from = box.mend_from, None
        beats = box.peers.heard_within(box.terms.silent_seconds)
        sources = [beat for beat in beats if beat.position >= (position or 0) + is_left_behind]
        sources.sort(key=lambda beat: (beat.box != wanted, beat.outbox, -beat.position, beat.box))
        for beat in sources:
            if await self._seed_from(beat):
                return

    async def _seed_from(self, beat: Beat) -> bool:
        box = self._box
        log.info("taking over what %s holds", beat.box)

        async def ask(request: bytes) -> bytes:
            subject = f"{box.terms.prefix}.snapshot.{beat.origin}"
            answer = await self._client.request(subject, request, timeout=snapshots.WAIT_SECONDS)
            return answer.data

        with snapshots.spool(box.terms.spool) as file:
            try:
                await snapshots.fetched(ask, file)
                position = await box.in_worker(box.gallery.seed, snapshots.lines_in(file))
            except (NatsError, Incomplete, StorageFull) as error:
                log.warning("%s could not be taken over from %s: %s", "what is held", beat.box, error)
                return False
        box.told.seeded += 1
        box.held = None
        box.peers.forget_own()
        box.changed.set()
        box.hurry.set()
        log.info("this box is as %s was at position %d", beat.box, position)
        return True


def _leaves_behind(bounds: Bounds, position: int) -> bool:
    """Whether the stream has gone on, and what came next is gone from it."""
    return bounds.last > position and bounds.first > position + 1
