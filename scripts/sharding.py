"""A gallery in shards by person id (docs/fleet-shards.md): who belongs where, a shard, and a front that asks them all.

A simulation of the design, with the product's own index and decisions, for scripts/shards.py. As a program it is one
shard, a process of its own, until its standard input ends:

    python scripts/sharding.py NAME FOLDER URL EXACT_LIMIT COHORT_WEIGHT
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import os
import struct
import sys
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import nats
import numpy as np
from nats.aio.client import Client
from nats.aio.msg import Msg
from numpy.typing import NDArray

from edge.gallery.index import ListIndex
from edge.matching import Calibration, ThresholdPolicy, identify
from edge.types import Candidate, Embedding, Person

SUBJECT = "edge.shards.search"
"""Every shard listens to it: one message of the front, one answer of each."""

REQUEST_HEAD = struct.Struct("<Hd")
"""Persons wanted (0: only tell how many you are), the probe's cohort similarity; the vector follows as float32."""

REPLY_HEAD = struct.Struct("<16sQI")
"""The shard's name, its persons, microseconds that its search took; the candidates follow."""

FOUND = struct.Struct("<16sd")
"""A person's id and their normalised similarity."""

LOADED_AT_ONCE = 10_000
"""Rows taken from the file at a time."""

KNOCK_SECONDS = 0.1
"""Between two questions how many persons the shards have."""

Vectors = NDArray[np.float32]


# --- who belongs where ---


def owner(person_id: bytes, shards: Sequence[str]) -> str:
    """Return the shard of the person: that whose name, hashed with the id, comes out highest (rendezvous hashing).

    Names, not numbers: any shard may be added or taken away, not only the last as with jump hashing, and only those
    persons move who move to it or from it, 1 of n. A hash for each shard: for tens of shards that is nothing.
    """
    return max(shards, key=lambda name: hashlib.blake2b(person_id, digest_size=8, key=name.encode()).digest())


# --- what is said ---


@dataclass(frozen=True)
class Found:
    """A person that resembles the probe."""

    person_id: bytes
    similarity: float


@dataclass(frozen=True)
class Reply:
    """What one shard says."""

    shard: str
    persons: int
    search_s: float
    found: tuple[Found, ...]

    def encoded(self) -> bytes:
        """Return it as bytes."""
        head = REPLY_HEAD.pack(self.shard.encode(), self.persons, int(self.search_s * 1e6))
        return head + b"".join(FOUND.pack(one.person_id, one.similarity) for one in self.found)


def decoded(body: bytes) -> Reply:
    """Return what a shard says. Raises ValueError."""
    try:
        name, persons, microseconds = REPLY_HEAD.unpack_from(body)
        found = tuple(Found(*one) for one in FOUND.iter_unpack(body[REPLY_HEAD.size :]))
        return Reply(name.rstrip(b"\0").decode(), persons, microseconds / 1e6, found)
    except struct.error as error:
        raise ValueError(f"not what a shard says: {error}") from error


def encoded_request(probe: Embedding | None, persons: int) -> bytes:
    """Return the question for the persons most like the probe; without one, for how many there are."""
    if probe is None:
        return REQUEST_HEAD.pack(0, 0.0)
    return REQUEST_HEAD.pack(persons, probe.cohort_similarity) + probe.vector.astype("<f4").tobytes()


@dataclass(frozen=True)
class Answer:
    """What the whole gallery says, as far as it was heard."""

    found: tuple[Found, ...]
    """Best first."""
    persons: int
    """Of all shards, the silent ones too, as they last told."""
    persons_searched: int
    silent: tuple[str, ...]
    seconds: float
    search_s: float
    """That the slowest shard searched."""

    @property
    def is_complete(self) -> bool:
        """Whether every shard has answered."""
        return not self.silent

    @property
    def searched(self) -> float:
        """0..1: the share of the persons that was looked through; never 1 where a shard was silent."""
        return self.persons_searched / self.persons if self.persons else float(self.is_complete)

    def told(self) -> dict[str, object]:
        """Return what an answer over HTTP says of it."""
        share = 1.0 if self.is_complete else min(round(self.searched, 4), 0.9999)
        return {"complete": self.is_complete, "searched": share, "persons": self.persons, "silent": list(self.silent)}


# --- what is made of it ---


class Verdict(Enum):
    """Who a face is."""

    MATCH = "match"
    UNCERTAIN = "uncertain"
    NOBODY = "nobody"
    """Of the whole gallery: a stranger."""
    UNKNOWN = "unknown"
    """Nobody of those who were searched, and a part of the gallery was silent."""


@dataclass(frozen=True)
class Decision:
    """The verdict, and whether the face may be enrolled as somebody new."""

    verdict: Verdict
    person_id: bytes | None
    may_enrol: bool


def decide(answer: Answer, policy: ThresholdPolicy, calibration: Calibration) -> Decision:
    """Decide as a box alone does, by the thresholds of the whole gallery; who was not looked for is not "nobody".

    Whoever is found is found, whatever was silent: fewer comparisons make no false match likelier.
    """
    candidates = [Candidate(_person(one.person_id), one.similarity) for one in answer.found]
    identified = identify(candidates, policy.at(answer.persons), calibration)
    for verdict, ranked in ((Verdict.MATCH, identified.matched), (Verdict.UNCERTAIN, identified.uncertain)):
        if ranked is not None:
            return Decision(verdict, uuid.UUID(ranked.candidate.person.person_id).bytes, may_enrol=False)
    if not answer.is_complete:
        return Decision(Verdict.UNKNOWN, None, may_enrol=False)
    return Decision(Verdict.NOBODY, None, may_enrol=True)


def _person(person_id: bytes) -> Person:
    return Person(str(uuid.UUID(bytes=person_id)), "", None, None, 1, 1, (), (), None, None, None)


# --- the front ---


class _Gathering:
    """The replies to one question."""

    def __init__(self, awaited: Iterable[str]) -> None:
        self.replies: dict[str, Reply] = {}
        self.missing = set(awaited)
        self.is_over = asyncio.Event()

    def take(self, reply: Reply) -> None:
        """Take the first reply of each shard: the boxes of one shard all answer."""
        self.replies.setdefault(reply.shard, reply)
        self.missing.discard(reply.shard)
        if not self.missing:
            self.is_over.set()


class Front:
    """Asks all shards at once and merges what they say. In one event loop."""

    def __init__(self, client: Client, shards: Sequence[str], deadline_s: float) -> None:
        """`shards`: the names of all; `deadline_s`: after it an answer is given with whatever was heard."""
        self._client = client
        self._shards = tuple(shards)
        self._deadline_s = deadline_s
        self._inbox = client.new_inbox()
        self._numbers = itertools.count()
        self._gatherings: dict[str, _Gathering] = {}
        self._persons: dict[str, int] = {}
        self._silent: set[str] = set()

    async def open(self, seconds: float) -> None:
        """Listen, and hear every shard once. Raises TimeoutError after so many seconds."""
        await self._client.subscribe(f"{self._inbox}.*", cb=self._hear)
        until = time.monotonic() + seconds
        while set(self._persons) != set(self._shards):
            if time.monotonic() > until:
                raise TimeoutError(f"never heard: {sorted(set(self._shards) - set(self._persons))}")
            await self._client.publish(SUBJECT, encoded_request(None, 0), reply=f"{self._inbox}.hello")
            await asyncio.sleep(KNOCK_SECONDS)

    async def search(self, probe: Embedding, persons: int) -> Answer:
        """Return up to so many persons of all shards, within the deadline.

        A shard that was silent once is asked like the others, and not waited for until it says anything again.
        """
        began = time.perf_counter()
        gathering, number = (
            _Gathering(name for name in self._shards if name not in self._silent),
            str(next(self._numbers)),
        )
        self._gatherings[number] = gathering
        try:
            await self._client.publish(SUBJECT, encoded_request(probe, persons), reply=f"{self._inbox}.{number}")
            if gathering.missing:
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(gathering.is_over.wait(), self._deadline_s)
        finally:
            del self._gatherings[number]
        self._silent |= gathering.missing
        return self._merged(gathering.replies, persons, time.perf_counter() - began)

    def _merged(self, replies: dict[str, Reply], persons: int, seconds: float) -> Answer:
        by_id: dict[bytes, Found] = {}  # while persons move, two shards have them
        for one in sorted((one for reply in replies.values() for one in reply.found), key=lambda one: one.similarity):
            by_id[one.person_id] = one
        best = sorted(by_id.values(), key=lambda one: (-one.similarity, one.person_id))[:persons]
        return Answer(
            found=tuple(best),
            persons=sum(self._persons.values()),
            persons_searched=sum(reply.persons for reply in replies.values()),
            silent=tuple(name for name in self._shards if name not in replies),
            seconds=seconds,
            search_s=max((reply.search_s for reply in replies.values()), default=0.0),
        )

    async def _hear(self, message: Msg) -> None:
        try:
            reply = decoded(message.data)
        except ValueError:  # the server's own "nobody listens", which has no body, for one
            return
        if reply.shard not in self._shards:
            return
        self._persons[reply.shard] = reply.persons
        self._silent.discard(reply.shard)  # late or not: it is there
        gathering = self._gatherings.get(message.subject.rpartition(".")[2])
        if gathering is not None:
            gathering.take(reply)


# --- a shard ---


class Shard:
    """One part of the gallery in memory."""

    def __init__(self, name: str, folder: Path, *, exact_limit: int, cohort_weight: float) -> None:
        """Load `<name>.rows.npy` (n x length + 1: vector, cohort similarity) and `<name>.ids.npy` (n x 16 bytes)."""
        self.name = name
        self._ids: NDArray[np.uint8] = np.load(folder / f"{name}.ids.npy")
        rows = np.load(folder / f"{name}.rows.npy", mmap_mode="r")
        self.index = ListIndex(rows.shape[1] - 1, cohort_weight=cohort_weight, exact_limit=exact_limit)
        for first in range(0, len(rows), LOADED_AT_ONCE):
            part = np.array(rows[first : first + LOADED_AT_ONCE])
            numbers = list(range(first, first + len(part)))
            self.index.fill(numbers, numbers, part[:, :-1], part[:, -1].astype(np.float64), of=len(rows))

    def answer(self, body: bytes) -> bytes:
        """Answer one question."""
        persons, cohort_similarity = REQUEST_HEAD.unpack_from(body)
        began = time.perf_counter()
        found = []
        if persons:
            found = self.index.search(np.frombuffer(body, "<f4", offset=REQUEST_HEAD.size), cohort_similarity, persons)
        candidates = tuple(Found(self._ids[number].tobytes(), similarity) for number, similarity in found)
        return Reply(self.name, len(self._ids), time.perf_counter() - began, candidates).encoded()


def resident() -> int:
    """Return the bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def serve(shard: Shard, url: str, told: dict[str, float]) -> None:
    """Answer until standard input ends; say on standard output when rows and graph are in memory."""
    client = await nats.connect(url, name=shard.name)

    async def on_question(message: Msg) -> None:
        await message.respond(shard.answer(message.data))

    await client.subscribe(SUBJECT, cb=on_question)
    await client.flush()
    print(json.dumps(told), flush=True)
    loop, before, began = asyncio.get_running_loop(), resident(), time.perf_counter()
    shard.index.filled()
    await loop.run_in_executor(None, shard.index.wait_until_built, 24 * 3600)
    print(json.dumps({"build_s": time.perf_counter() - began, "graph_bytes": resident() - before}), flush=True)
    await loop.run_in_executor(None, sys.stdin.buffer.read)
    os._exit(0)  # nothing here is worth keeping


def main() -> None:
    """Be one shard."""
    name, folder, url, exact_limit, cohort_weight = sys.argv[1:]
    before, began = resident(), time.perf_counter()
    shard = Shard(name, Path(folder), exact_limit=int(exact_limit), cohort_weight=float(cohort_weight))
    told = {"persons": len(shard.index), "load_s": time.perf_counter() - began, "rows_bytes": resident() - before}
    asyncio.run(serve(shard, url, told))


if __name__ == "__main__":
    main()
