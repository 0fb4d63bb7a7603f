"""What a box says to the stream."""

from __future__ import annotations

from nats.aio.client import Client

from edge.fleet.box import Box, woken
from edge.fleet.stream import Stream

AT_ONCE = 64
"""Operations that are looked up together."""

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
