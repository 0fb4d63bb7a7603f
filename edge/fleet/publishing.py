"""What a box says to the stream, and takes out of it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque

from nats.aio.client import Client
from nats.errors import Error as NatsError

from edge.errors import StorageFull
from edge.fleet.box import Box, woken
from edge.fleet.peers import BEATS_MISSED
from edge.fleet.stream import Stream

log = logging.getLogger(__name__)

AT_ONCE = 64

LOOK_SECONDS = 4.0
"""For something to publish, where nobody has said that there is."""


class Publishing:
    """By one connection."""

    def __init__(self, box: Box, client: Client, stream: Stream) -> None:
        """`client`: of the stream."""
        self._box = box
        self._client = client
        self._stream = stream

    async def publish(self) -> None:
        """Publish operations, one after the other, for ever: an origin's order is what others skip repeats by."""
        box = self._box
        sent: dict[int, int] = {}
        after = 0
        while True:
            box.changed.clear()
            waiting = await box.in_worker(box.gallery.pending, AT_ONCE, after)
            for operation in waiting:
                sequence = await self._stream.publish(operation)
                sent[operation.number] = sequence
                after = operation.number
                box.hear_of(sequence)
                await self._client.publish(f"{box.terms.prefix}.news", b"%d" % sequence)
            sent = await box.in_worker(self._without_the_passed, sent)
            if not waiting:
                await woken(box.changed, LOOK_SECONDS)

    def _without_the_passed(self, sent: dict[int, int]) -> dict[int, int]:
        """Return what has not come back yet; what was passed over in the stream is told to the outbox."""
        gallery = self._box.gallery
        position = gallery.position
        if not sent or position is None:
            return sent
        passed = {number: sequence for number, sequence in sent.items() if sequence <= position}
        if passed:
            there = {one.number for one in gallery.pending(len(passed) + AT_ONCE)}
            left_over = {number: sequence for number, sequence in passed.items() if number in there}
            if left_over:
                gallery.acknowledge(left_over)
        return {number: sequence for number, sequence in sent.items() if number not in passed}

    async def clear(self) -> None:
        """Have overwritten what the stream still holds of the erased, for ever; every box does it, whoever comes first.

        Not before each box that is not silent has read on: one that missed what was erased differs from the others
        until it comes to the erasure.
        """
        positions: deque[int] = deque(maxlen=BEATS_MISSED + 1)
        while True:
            positions.append(await self._box.position() or 0)
            try:
                while len(positions) > BEATS_MISSED and await self._clear_some(positions[0]):
                    pass
            except (NatsError, StorageFull):  # it is done once more, then
                log.debug("the stream is cleared later", exc_info=True)
            await asyncio.sleep(self._box.terms.digest_seconds)

    async def _clear_some(self, position: int) -> bool:
        """Clear the stream of some that were erased up to there; whether there were any."""
        gallery = self._box.gallery
        leftovers = await self._box.in_worker(gallery.leftovers, position, AT_ONCE)
        for sequence, subject in leftovers:
            await self._stream.clear(subject, sequence)
        if leftovers:
            await self._box.in_worker(gallery.cleared, [sequence for sequence, _ in leftovers])
        return bool(leftovers)
