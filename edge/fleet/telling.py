"""What boxes tell each other beside the stream: how each is, what it holds, and what news the stream has."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from nats.aio.client import Client
from nats.aio.msg import Msg

from edge.fleet import peers
from edge.fleet.box import Box
from edge.fleet.peers import Beat

log = logging.getLogger(__name__)

GATHER_SECONDS = 1.0
"""After a change, before a box tells of itself: others may come."""


class Telling:
    """By one connection."""

    def __init__(self, box: Box, client: Client) -> None:
        """Boxes hear each other by the client's server."""
        self._box = box
        self._client = client

    async def listen(self) -> None:
        """Begin to hear the others."""
        prefix = self._box.terms.prefix
        await self._client.subscribe(f"{prefix}.beat", cb=self._hear)
        await self._client.subscribe(f"{prefix}.news", cb=self._hear_of_news)

    async def tell(self) -> None:
        """Tell the others of this box, now and then, for ever."""
        box = self._box
        while True:
            beat = await box.in_worker(self._beat)
            await self._client.publish(f"{box.terms.prefix}.beat", beat.encoded())
            box.told.others = box.peers.known()
            self._compare(beat.position)
            box.hurry.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(box.hurry.wait(), box.terms.digest_seconds)
                await asyncio.sleep(GATHER_SECONDS)

    async def _hear_of_news(self, message: Msg) -> None:
        with contextlib.suppress(ValueError):
            self._box.hear_of(int(message.data))

    async def _hear(self, message: Msg) -> None:
        box = self._box
        try:
            beat = peers.decoded(message.data)
        except ValueError:
            log.debug("garbage on %s", message.subject)
            return
        if beat.origin == box.gallery.origin:
            return
        if beat.box == box.terms.box:
            log.error("another box of the fleet has this one's name, %s: set fleet.box_name", beat.box)
            return
        is_new = beat.box not in {one.beat.box for one in box.peers.known()}
        box.peers.hear(beat)
        box.told.others = box.peers.known()
        self._compare(beat.position)
        if is_new:
            box.hurry.set()

    def _beat(self) -> Beat:
        box, gallery = self._box, self._box.gallery
        held = gallery.digest(box.held)
        if held is not None:
            box.held = held
            box.peers.note_own(held)
            box.told.digest = held.digest
        position = held.position if held is not None else gallery.position
        return Beat(
            box.terms.box,
            gallery.origin,
            -1 if position is None else position,
            None if held is None else held.digest,
            0 if held is None else held.persons,
            gallery.outbox_length(),
            box.terms.pack,
        )

    def _compare(self, position: int) -> None:
        """See whether this box differs from most of the others, and have it mended then."""
        box = self._box
        agrees = box.peers.agrees(position)
        if agrees is None:
            return
        if not agrees and box.told.agrees is not False:
            log.error("boxes of the fleet differ at position %d: those that most differ from are mended", position)
        box.told.agrees = agrees
        right = box.peers.right_one(position)
        if right is not None and box.mend_from is None:
            box.mend_from = right
            box.heard.set()
