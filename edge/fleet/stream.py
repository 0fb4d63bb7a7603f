"""The stream of operations on the NATS server: made, published to, and read in order."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass

from nats.aio.client import Client
from nats.errors import Error
from nats.errors import TimeoutError as NatsTimeout
from nats.js import JetStreamContext, api
from nats.js.errors import APIError, BadRequestError, NotFoundError

from edge.gallery.outbox import Outgoing

log = logging.getLogger(__name__)

DUPLICATE_WINDOW_SECONDS = 3600.0
"""For which the server knows a message again that is published twice; afterwards boxes skip it by its serial."""

TIMEOUT_SECONDS = 5.0
"""Of one call: a cluster elects another leader in 1 to 4 s."""

REPLICAS = 3
"""Of every message: two of three servers are enough to go on."""

MESSAGE_ID = "Nats-Msg-Id"

AT_ONCE = 64
"""Messages that are fetched together, and applied in one transaction."""

IDLE_SECONDS = 300.0
"""After which the server forgets a reader that went away."""

WAIT_SECONDS = 2.0
"""For new messages, in one call."""


@dataclass(frozen=True)
class Bounds:
    """Where a stream begins and ends: sequence numbers of its first and last message."""

    first: int
    last: int


class Gap(Exception):
    """A message was sent and did not arrive: reading begins anew, from the position."""


class Stream:
    """The fleet's stream, by one connection."""

    def __init__(self, client: Client, prefix: str, *, days: float, most_bytes: int) -> None:
        """`prefix` of its subjects; messages are kept for so many days and bytes, the newest."""
        self._js = client.jetstream(timeout=TIMEOUT_SECONDS)
        self._name = f"{prefix}-operations"
        self._prefix = prefix
        self._days = days
        self._most_bytes = most_bytes
        self._reader: JetStreamContext.PullSubscription | None = None
        self._read = 0
        """Messages that the reader has taken: the server counts them as well."""

    async def make(self) -> Bounds:
        """Make the stream where there is none, with three replicas as soon as there are three servers."""
        wanted = api.StreamConfig(
            name=self._name,
            subjects=[f"{self._prefix}.person.*", f"{self._prefix}.list.*"],
            storage=api.StorageType.FILE,
            retention=api.RetentionPolicy.LIMITS,
            discard=api.DiscardPolicy.OLD,
            max_age=self._days * 86_400,
            max_bytes=self._most_bytes,
            duplicate_window=min(DUPLICATE_WINDOW_SECONDS, self._days * 86_400),
            num_replicas=REPLICAS,
        )
        try:
            info = await self._js.stream_info(self._name)
        except NotFoundError:
            info = await self._made(wanted)
        if (info.config.num_replicas or 1) < REPLICAS and info.cluster is not None:
            await self._grown(info.config)
        return Bounds(info.state.first_seq, info.state.last_seq)

    async def _made(self, wanted: api.StreamConfig) -> api.StreamInfo:
        try:
            return await self._js.add_stream(wanted)
        except APIError as error:  # fewer servers than replicas, or none but one
            log.info("the stream is made without replicas: %s", error.description)
            wanted.num_replicas = 1
            return await self._js.add_stream(wanted)

    async def _grown(self, config: api.StreamConfig) -> None:
        config.num_replicas = REPLICAS
        try:
            await self._js.update_stream(config)
            log.info("the stream has %d replicas now", REPLICAS)
        except (APIError, NatsTimeout):  # not three servers yet
            log.debug("the stream stays without replicas", exc_info=True)

    async def bounds(self) -> Bounds:
        """Return where it begins and ends now."""
        info = await self._js.stream_info(self._name)
        return Bounds(info.state.first_seq, info.state.last_seq)

    async def publish(self, operation: Outgoing) -> int:
        """Publish and return the place in the stream, which the server has on its disks then."""
        headers = {MESSAGE_ID: operation.message_id}
        subject = f"{self._prefix}.{operation.subject}"
        answer = await self._js.publish(subject, operation.body, stream=self._name, headers=headers)
        return answer.seq

    async def clear(self, subject: str, before: int) -> None:
        """Overwrite what the stream has under an operation's subject before that place.

        One by one: a rollup takes messages out of the stream and leaves their bytes in the server's files.
        """
        sequence = 0
        while True:
            try:
                message = await self._js.get_msg(
                    self._name, seq=sequence + 1, subject=f"{self._prefix}.{subject}", next=True
                )
            except NotFoundError:
                return
            sequence = message.seq or before
            if sequence >= before:
                return
            with contextlib.suppress(NotFoundError, BadRequestError):  # another box was quicker
                await self._js.delete_msg(self._name, sequence)

    async def read_from(self, sequence: int) -> None:
        """Read from that place on."""
        await self.stop_reading()
        self._read = 0
        self._reader = await self._js.pull_subscribe(
            f"{self._prefix}.>",
            stream=self._name,
            config=api.ConsumerConfig(
                deliver_policy=api.DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=sequence,
                ack_policy=api.AckPolicy.NONE,
                inactive_threshold=IDLE_SECONDS,
                mem_storage=True,
                num_replicas=1,
            ),
        )

    async def read(self) -> list[tuple[int, bytes]]:
        """Return what is next (place, body), in order; nothing after some seconds without anything new.

        Raises Gap where the client has let go of a message that the server sent, as it may when a call times out.
        """
        assert self._reader is not None, "read_from comes first"
        try:
            messages = await self._reader.fetch(AT_ONCE, timeout=WAIT_SECONDS)
        except NatsTimeout:
            return []
        found: list[tuple[int, bytes]] = []
        for message in messages:
            sequence = message.metadata.sequence
            if sequence.consumer != self._read + 1:
                raise Gap(f"message {self._read + 1} of the reader is missing, {sequence.consumer} came")
            self._read = sequence.consumer
            found.append((sequence.stream, message.data))
        return found

    async def sent(self) -> int:
        """Return the place of the last message that the server sent. Raises NotFoundError where it forgot us."""
        assert self._reader is not None, "read_from comes first"
        info = await self._reader.consumer_info()
        return info.delivered.stream_seq if info.delivered else 0

    async def stop_reading(self) -> None:
        """Let the server forget the reader."""
        if self._reader is not None:
            reader, self._reader = self._reader, None
            try:
                await reader.unsubscribe()
            except (Error, BadRequestError):
                log.debug("the reader could not be ended", exc_info=True)
