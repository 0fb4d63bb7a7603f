"""What the stream holds of the erased is taken out of it, once every box that is not silent has read past it."""

from __future__ import annotations

import asyncio
import logging

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeout

from edge.errors import StorageFull
from edge.fleet.box import Box
from edge.fleet.stream import Stream

log = logging.getLogger(__name__)

ANSWER_SECONDS = 1.0
"""For the others to say how far they have read."""


class Clearing:
    """By one connection."""

    def __init__(self, box: Box, client: Client, stream: Stream) -> None:
        """`client`: of the stream, by which the others are asked."""
        self._box = box
        self._client = client
        self._stream = stream

    async def listen(self) -> None:
        """Begin to say how far this box has read, when it is asked."""
        await self._client.subscribe(f"{self._box.terms.prefix}.where", cb=self._answer)

    async def clear(self) -> None:
        """Empty the stream whenever it holds something of the erased, for ever; every box does it, whoever comes first.

        It is emptied as a whole, in a moment in which everybody has read all of it: a box that is silent is seeded by
        another when it comes back.
        """
        await asyncio.sleep(self._box.terms.silent_seconds)  # by then every box has been heard
        while True:
            try:
                await self._clear_once()
            except (NatsError, StorageFull):  # it is done another time
                log.debug("the stream is cleared later", exc_info=True)
            await asyncio.sleep(self._box.terms.digest_seconds)

    async def _clear_once(self) -> None:
        box = self._box
        last = await box.position()
        if not last or not await box.in_worker(box.gallery.has_leftovers, last):
            return
        is_quiet = (await self._stream.bounds()).last == last and await self._have_all_read(last)
        if is_quiet and await self._stream.empty(last):
            await box.in_worker(box.gallery.cleared, last)

    async def _have_all_read(self, last: int) -> bool:
        """Whether every other box that is not silent has read up to there."""
        box = self._box
        waited_for = {beat.box for beat in box.peers.heard_within(box.terms.silent_seconds)}
        inbox = self._client.new_inbox()
        answers = await self._client.subscribe(inbox)
        try:
            await self._client.publish(f"{box.terms.prefix}.where", str(last).encode(), reply=inbox)
            while waited_for:
                name = (await answers.next_msg(ANSWER_SECONDS)).data.decode("utf-8", "replace")
                waited_for.discard(name)
            return True
        except NatsTimeout:
            return False
        finally:
            await answers.unsubscribe()

    async def _answer(self, message: Msg) -> None:
        """Say this box's name if it has read up to the place that is asked for."""
        try:
            asked = int(message.data)
        except ValueError:
            log.debug("garbage on %s", message.subject)
            return
        if (await self._box.position() or 0) >= asked:
            await message.respond(self._box.terms.box.encode())
