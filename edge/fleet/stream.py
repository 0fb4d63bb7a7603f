"""The stream of operations on the NATS servers: made, published to, read in order, and emptied.

It is read by direct gets, which every server that is up to date answers from its own copy: nothing is kept of a reader
anywhere, and no leader has to be elected for one. A server that is behind answers with less, never with a gap.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.errors import TimeoutError as NatsTimeout
from nats.js import api
from nats.js.errors import APIError, NoStreamResponseError, NotFoundError, ServiceUnavailableError

from edge.gallery.outbox import Outgoing

log = logging.getLogger(__name__)

DUPLICATE_WINDOW_SECONDS = 3600.0
"""For which the server knows a message again that is published twice; afterwards boxes skip it by its serial."""

ATTEMPT_SECONDS = 1.0
"""Of one attempt of a call. What is asked while a leader is elected (4 to 9 s) is never answered: it is asked again."""

TIMEOUT_SECONDS = 10.0
"""Of all attempts of a call, before another server is tried."""

PAUSE_SECONDS = 0.1
"""Between an answer that nobody is there to answer, and the next attempt."""

REPLICAS = 3
"""Of every message: two of three servers are enough to go on."""

MESSAGE_ID = "Nats-Msg-Id"
SEQUENCE, BEFORE, PENDING, STATUS = "Nats-Sequence", "Nats-Last-Sequence", "Nats-Num-Pending", "Status"
"""Headers of a direct get's answer (ADR-31 of NATS): a message's place, that of the message before it in the answer,
and how many are left; the last two from release 2.11 on."""

NOT_FOUND, END_OF_BATCH = "404", "204"
IN_PROCESS = "duplicate message id is in process"
"""What the server says of a message that is published again before it is on the disks of most."""

AT_ONCE = 64
"""Messages that are read together, and applied in one transaction."""

MOST_BYTES_AT_ONCE = 8_000_000
"""After which no further message is sent: pictures make them large."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Bounds:
    """Where a stream begins and ends: sequence numbers of its first and last message."""

    first: int
    last: int


class Unanswered(NatsTimeout):
    """Nobody answers for the stream."""

    def __str__(self) -> str:
        return "the stream does not answer: most of its servers must be on, and reach each other"


async def insisted(attempt: Callable[[], Awaitable[Result]]) -> Result:
    """Return what the call returns in the end: it is one that may be made twice.

    Raises Unanswered where nobody answers for TIMEOUT_SECONDS, and whatever else the call raises.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + TIMEOUT_SECONDS
    while True:
        try:
            return await attempt()
        except (NatsTimeout, ServiceUnavailableError, NoStreamResponseError) as error:
            if loop.time() > until:
                raise Unanswered from error
            if not isinstance(error, NatsTimeout):
                await asyncio.sleep(PAUSE_SECONDS)


class Stream:
    """The fleet's stream, by one connection."""

    def __init__(self, client: Client, prefix: str, *, days: float, most_bytes: int) -> None:
        """`prefix` of its subjects; messages are kept for so many days and bytes, the newest."""
        self._client = client
        self._js = client.jetstream(timeout=ATTEMPT_SECONDS)
        self._name = f"{prefix}-operations"
        self._prefix = prefix
        self._days = days
        self._most_bytes = most_bytes
        self._inbox = client.new_inbox()
        self._answers: Subscription | None = None
        self._asked = 0

    async def make(self) -> Bounds:
        """Make the stream where there is none, with three replicas as soon as there are three servers."""
        return await insisted(self._make)

    async def _make(self) -> Bounds:
        try:
            info = await self._info()
        except NotFoundError:
            info = await self._made()
        config = info.config
        is_small = (config.num_replicas or 1) < REPLICAS and info.cluster is not None
        if is_small or not config.allow_direct:
            config.allow_direct = True
            if is_small:
                config.num_replicas = REPLICAS
            await self._changed(config)
        return Bounds(info.state.first_seq, info.state.last_seq)

    async def _made(self) -> api.StreamInfo:
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
            allow_direct=True,
        )
        try:
            return await self._js.add_stream(wanted)
        except ServiceUnavailableError:
            raise
        except APIError as error:  # fewer servers than replicas, or none but one
            log.info("the stream is made without replicas: %s", error.description)
            wanted.num_replicas = 1
            return await self._js.add_stream(wanted)

    async def _changed(self, config: api.StreamConfig) -> None:
        try:
            await self._js.update_stream(config)
            log.info("the stream is as this release wants it, with %d replicas", config.num_replicas or 1)
        except (APIError, NatsTimeout):  # not three servers yet
            log.debug("the stream stays as it is", exc_info=True)

    async def bounds(self) -> Bounds:
        """Return where it begins and ends now."""
        info = await insisted(self._info)
        return Bounds(info.state.first_seq, info.state.last_seq)

    async def _info(self) -> api.StreamInfo:
        """Raises ServiceUnavailableError where the stream has no leader: what is said of its end is not true then."""
        info = await self._js.stream_info(self._name)
        if info.cluster is not None and not info.cluster.leader:
            raise ServiceUnavailableError(description="the stream has no leader")
        return info

    async def publish(self, operation: Outgoing) -> int:
        """Publish and return the place in the stream, which the server has on its disks then."""
        subject = f"{self._prefix}.{operation.subject}"

        async def attempt() -> int:
            headers = {MESSAGE_ID: operation.message_id}
            try:
                answer = await self._js.publish(subject, operation.body, stream=self._name, headers=headers)
            except APIError as error:
                if error.description == IN_PROCESS:  # the attempt before this one is on its way yet
                    raise ServiceUnavailableError from error
                raise
            return answer.seq

        return await insisted(attempt)

    async def empty(self, last: int) -> bool:
        """Take everything out of it up to that place; return whether nothing is left: no file holds any of it then.

        The server removes files that hold nothing else at once. To overwrite single messages costs it a whole file of
        up to 8 MB for each, and again for each when it is restarted.
        """
        await insisted(partial(self._js.purge_stream, self._name, seq=last + 1))
        return (await insisted(self._info)).state.messages == 0

    async def read(self, sequence: int) -> list[tuple[int, bytes]]:
        """Return messages from that place on (place, body), in order and without a gap; none where none is there yet.

        Raises Unanswered.
        """
        return await insisted(partial(self._read, sequence))

    async def _read(self, sequence: int) -> list[tuple[int, bytes]]:
        if self._answers is None:
            self._answers = await self._client.subscribe(f"{self._inbox}.*")
        self._asked += 1
        inbox = f"{self._inbox}.{self._asked}"
        asked = {"seq": sequence, "next_by_subj": ">", "batch": AT_ONCE, "max_bytes": MOST_BYTES_AT_ONCE}
        subject = f"$JS.API.DIRECT.GET.{self._name}"
        await self._client.publish(subject, json.dumps(asked).encode(), reply=inbox)
        found: list[tuple[int, bytes]] = []
        while True:
            try:
                message = await self._answers.next_msg(ATTEMPT_SECONDS)
            except NatsTimeout:
                if found:  # what came is in order
                    return found
                raise
            if message.subject != inbox:  # of an attempt that was given up
                continue
            headers = message.headers or {}
            status = headers.get(STATUS)
            if status in (NOT_FOUND, END_OF_BATCH):
                return found
            if status is not None:
                raise ServiceUnavailableError(code=int(status))
            if PENDING not in headers:  # a server before 2.11 sends one
                return [(int(headers[SEQUENCE]), message.data)]
            if int(headers[BEFORE]) != (found[-1][0] if found else 0):  # one was lost on the way: it is asked for again
                return found
            found.append((int(headers[SEQUENCE]), message.data))
