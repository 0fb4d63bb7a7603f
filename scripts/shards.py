"""A gallery in shards over a real nats-server: recall, latency, memory, and what is said when a shard is silent.

    .venv/bin/python scripts/shards.py [--shards 3] [--persons 300000] [--probes 400] [--replicas 1]

The people are those of scripts/bench_gallery.py, one template each. They are searched in one process first, then in
shards (scripts/sharding.py: a process each, with its own index), each time through the server, and once exactly without
any of this, which is what recall@1 is against. Then a shard is killed (-9), started again, and stopped, while known
people and strangers are asked for. docs/fleet-shards.md has what it means for ten million persons.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nats
import numpy as np
from bench_gallery import ALWAYS_EXACT, fill, machine, opened
from sharding import Answer, Decision, Front, Verdict, decide, owner
from shards_fleet import ALL, STARTING_SECONDS, Fleet, Made, make

from edge import assembly, catalogue, config
from edge.gallery.replica import join
from edge.matching import Calibration, ThresholdPolicy
from edge.types import Embedding, Pack

WANTED = 3
"""Persons asked for: the best, and a second for the margin."""

WARM_UP = 20
IN_FLIGHT = 8
SEEDED = 20_000
"""Persons of the box that is seeded by another."""

SILENCED = 60
"""Answers looked at before a shard is silenced, and after."""


# --- what is measured ---


@dataclass
class Figures:
    """Of one number of shards."""

    shards: int
    started: list[dict[str, float]] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    recall: float = 0.0
    rate: float = 0.0
    """Answers a second, IN_FLIGHT asked for at once."""
    sent_bytes: float = 0.0
    received_bytes: float = 0.0
    """A search, without what NATS puts around each message."""


def run(fleet: Fleet, made: Made, shards: Sequence[str], replicas: int, deadline_s: float) -> Figures:
    """Start the shards one after the other, so that none disturbs another's building, and measure."""
    figures = Figures(len(shards))
    for shard in shards:
        for _ in range(replicas):
            figures.started.append({**fleet.start(shard), **fleet.built(shard)})
    asyncio.run(_measured(fleet.url, made, shards, deadline_s, figures))
    return figures


async def _measured(url: str, made: Made, shards: Sequence[str], deadline_s: float, figures: Figures) -> None:
    async with await nats.connect(url) as client:
        front = Front(client, shards, deadline_s)
        await front.open(STARTING_SECONDS)
        for probe in made.probes[:WARM_UP]:
            await front.search(probe, WANTED)
        before = dict(client.stats)
        figures.answers = [await front.search(probe, WANTED) for probe in made.probes]
        figures.sent_bytes = (client.stats["out_bytes"] - before["out_bytes"]) / len(made.probes)
        figures.received_bytes = (client.stats["in_bytes"] - before["in_bytes"]) / len(made.probes)
        figures.recall = recall(figures.answers, made.nearest)
        began = time.perf_counter()
        parts = [made.probes[first::IN_FLIGHT] for first in range(IN_FLIGHT)]
        await asyncio.gather(*(_all(front, part) for part in parts))
        figures.rate = len(made.probes) / (time.perf_counter() - began)


async def _all(front: Front, probes: Sequence[Embedding]) -> None:
    for probe in probes:
        await front.search(probe, WANTED)


def recall(answers: Sequence[Answer], nearest: Sequence[bytes]) -> float:
    """Return the share of the answers whose first person is the right one."""
    pairs = list(zip(answers, nearest, strict=True))
    return sum(bool(answer.found) and answer.found[0].person_id == best for answer, best in pairs) / len(pairs)


# --- a shard that is silent ---


@dataclass(frozen=True)
class Asked:
    """One face, what was answered and what was made of it."""

    person_id: bytes | None
    """Who it is; None: a stranger."""
    answer: Answer
    decision: Decision


class Asking:
    """Known people and strangers by turns, again and again."""

    def __init__(self, front: Front, made: Made, policy: ThresholdPolicy, calibration: Calibration) -> None:
        self._front = front
        strangers: list[tuple[bytes | None, Embedding]] = [(None, face) for face in made.strangers]
        self._faces = [one for both in zip(made.enrolled, strangers, strict=True) for one in both]
        self._policy = policy
        self._calibration = calibration
        self._count = 0

    async def once(self) -> Asked:
        """Ask for the next face."""
        person_id, face = self._faces[self._count % len(self._faces)]
        self._count += 1
        answer = await self._front.search(face, WANTED)
        return Asked(person_id, answer, decide(answer, self._policy, self._calibration))

    async def times(self, count: int) -> list[Asked]:
        """Ask for so many faces."""
        return [await self.once() for _ in range(count)]

    async def until_complete(self, seconds: float) -> float:
        """Ask until all shards answer; return the seconds that took. Raises TimeoutError."""
        began = time.perf_counter()
        while not (await self.once()).answer.is_complete:
            if time.perf_counter() - began > seconds:
                raise TimeoutError("a shard stays silent")
        return time.perf_counter() - began


@dataclass(frozen=True)
class Silence:
    """What was answered before a shard was silenced, and while it was silent."""

    how: str
    shards: tuple[str, ...]
    before: list[Asked]
    during: list[Asked]
    back_s: float
    """From its start or continuing until an answer was complete again."""

    def violations(self) -> list[str]:
        """Return what must not be: strangers made of silence, and people lost whose shard was there."""
        found = [f"{self.how}: incomplete before" for one in self.before if not one.answer.is_complete]
        for one in self.during:
            if one.answer.is_complete:
                found.append(f"{self.how}: complete without a shard")
            if one.decision.verdict is Verdict.NOBODY or one.decision.may_enrol:
                found.append(f"{self.how}: a stranger made of silence")
        for one in [*self.before, *self.during]:
            if one.person_id is None or one.decision.person_id == one.person_id:
                continue
            if owner(one.person_id, self.shards) not in one.answer.silent:
                found.append(f"{self.how}: somebody lost whose shard was there")
        return found


async def lost_boxes(fleet: Fleet, made: Made, shards: Sequence[str], deadline_s: float) -> list[Answer]:
    """Kill one box of each shard, all but the last of which go on: what is answered then."""
    async with await nats.connect(fleet.url) as client:
        front = Front(client, shards, deadline_s)
        await front.open(STARTING_SECONDS)
        for shard in shards:
            fleet.signal(shard, signal.SIGKILL, boxes=1)
        return [await front.search(probe, WANTED) for probe in made.probes]


async def silence(
    fleet: Fleet, made: Made, shards: Sequence[str], pack: Pack, deadline_s: float
) -> tuple[Silence, Silence]:
    """Kill the last shard in the middle of asking, start it again, then stop it and let it go on."""
    settings = config.load(environment={}, flags=[]).new_person
    policy = ThresholdPolicy(
        settings.threshold, settings.threshold_score, settings.false_positive_rate, settings.margin
    )
    victim = shards[-1]
    async with await nats.connect(fleet.url) as client:
        front = Front(client, shards, deadline_s)
        await front.open(STARTING_SECONDS)
        asking = Asking(front, made, policy, Calibration(pack.embedder.operating_points))
        before = await asking.times(SILENCED)
        fleet.signal(victim, signal.SIGKILL)
        during = await asking.times(SILENCED)
        began = time.perf_counter()
        await asyncio.get_running_loop().run_in_executor(None, fleet.start, victim)
        await asking.until_complete(STARTING_SECONDS)
        killed = Silence("killed (SIGKILL)", tuple(shards), before, during, time.perf_counter() - began)
        before = await asking.times(SILENCED)
        fleet.signal(victim, signal.SIGSTOP)
        during = await asking.times(SILENCED)
        fleet.signal(victim, signal.SIGCONT)
        back_s = await asking.until_complete(STARTING_SECONDS)
        return killed, Silence("stopped (SIGSTOP)", tuple(shards), before, during, back_s)


# --- what is printed ---


def table(all_figures: Sequence[Figures]) -> str:
    """Return the figures, a column for each number of shards."""
    rows: dict[str, list[str]] = {}
    for one in all_figures:
        times = np.array([answer.seconds for answer in one.answers]) * 1000
        searches = np.array([answer.search_s for answer in one.answers]) * 1000
        persons = sum(told["persons"] for told in one.started)
        memory = sum(told["rows_bytes"] + told["graph_bytes"] for told in one.started)
        values = {
            "shards": f"{one.shards}",
            "persons of the largest": f"{max(told['persons'] for told in one.started):,}",
            "recall@1": f"{one.recall:.4f}",
            "answer p50, ms": f"{np.percentile(times, 50):.2f}",
            "answer p99, ms": f"{np.percentile(times, 99):.2f}",
            "of it the slowest shard's search p50, ms": f"{np.percentile(searches, 50):.2f}",
            "of it the slowest shard's search p99, ms": f"{np.percentile(searches, 99):.2f}",
            f"answers a second, {IN_FLIGHT} at once": f"{one.rate:.0f}",
            "bytes sent a search": f"{one.sent_bytes:.0f}",
            "bytes received a search": f"{one.received_bytes:.0f}",
            "rows from its disk, s, slowest": f"{max(told['load_s'] for told in one.started):.2f}",
            "graph built, s, slowest": f"{max(told['build_s'] for told in one.started):.1f}",
            "bytes a person in memory": f"{memory / persons:.0f}",
        }
        for title, value in values.items():
            rows.setdefault(title, []).append(value)
    return "\n".join(f"{title:44}" + "".join(f"{value:>12}" for value in values) for title, values in rows.items())


def story(one: Silence, deadline_s: float) -> str:
    """Return what was answered while a shard was silent."""
    lines = [f"a shard {one.how}, of {len(one.during)} answers after it:"]
    times = [asked.answer.seconds * 1000 for asked in one.during]
    waited = sum(time > deadline_s * 1000 / 2 for time in times)
    lines.append(
        f"  longest {max(times):.0f} ms (deadline {deadline_s * 1000:.0f}), {waited} waited, then not any more"
    )
    lines.append(f"  {json.dumps(one.during[-1].answer.told())}")
    for name, part in (("before", one.before), ("during", one.during)):
        for is_stranger in (False, True):
            counts = Counter(asked.decision.verdict.value for asked in part if (asked.person_id is None) is is_stranger)
            told = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
            lines.append(f"  {name}: {'strangers' if is_stranger else 'known people'}: {told}")
    enrolled = sum(asked.decision.may_enrol for asked in one.during)
    lines.append(f"  would be enrolled meanwhile: {enrolled}; complete again after {one.back_s:.2f} s")
    return "\n".join(lines)


# --- a box that is seeded ---


def seeded(folder: Path, pack: Pack, persons: int) -> str:
    """Fill a gallery, and another from its snapshot as a new box of a fleet does; say what that took.

    Without the network between them: what has to go over it is counted.
    """
    source, target = folder / "source", folder / "target"
    fill(source, pack, persons)
    main_list_id = join(source, None, "main")
    join(target, main_list_id, "main")
    giving, taking = (opened(one, pack, ALWAYS_EXACT) for one in (source, target))
    sizes: list[int] = []
    began = time.perf_counter()
    with giving.snapshot() as lines:
        taking.seed(_counted(lines, sizes))
    seconds = time.perf_counter() - began
    count = len(taking._indexes.of(1))
    giving.close()
    taking.close()
    disk = sum(path.stat().st_size for path in target.iterdir() if path.name.startswith("gallery"))
    return (
        f"a box seeded by another: {count:,} persons in {seconds:.1f} s, {count / seconds:,.0f} a second; "
        f"{sum(sizes) / count:.0f} bytes a person travel, {disk / count:.0f} are on its disk"
    )


def _counted(lines: Iterable[bytes], sizes: list[int]) -> Iterator[bytes]:
    for line in lines:
        sizes.append(len(line))
        yield line


def main() -> int:
    """Measure and print; 1 if an answer said what it must not."""
    settings = config.load(environment={}, flags=[])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=3)
    parser.add_argument("--persons", type=int, default=300_000, help="in all")
    parser.add_argument("--probes", type=int, default=400)
    parser.add_argument("--replicas", type=int, default=1, help="boxes of each shard: the first answer counts")
    parser.add_argument("--deadline", type=float, default=0.5, help="seconds, of one search")
    parser.add_argument("--exact-limit", type=int, default=settings.gallery.exact_limit, help="as the setting")
    options = parser.parse_args()
    for name in ("shards", "persons", "probes", "replicas", "deadline"):
        if getattr(options, name) <= 0:
            parser.error(f"--{name} must be more than 0")
    pack = catalogue.find("default", assembly.pack_folders(settings))
    shards = [f"shard-{number}" for number in range(options.shards)]
    print(f"{machine()}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}")
    print(f"load average at the start {os.getloadavg()[0]:.1f}; {options.persons:,} persons")
    with tempfile.TemporaryDirectory(prefix="edge-shards-") as name:
        made = make(Path(name), pack, options.persons, options.probes, shards)
        with Fleet(made.folder, pack, options.exact_limit) as fleet:
            one = run(fleet, made, [ALL], 1, options.deadline)
        with Fleet(made.folder, pack, options.exact_limit) as fleet:
            several = run(fleet, made, shards, options.replicas, options.deadline)
            print(table([one, several]), flush=True)
            if options.replicas > 1:
                told = asyncio.run(lost_boxes(fleet, made, shards, options.deadline))
                right = sum(answer.is_complete for answer in told)
                print(f"one box of each shard killed: {right} of {len(told)} answers complete")
            silences = asyncio.run(silence(fleet, made, shards, pack, options.deadline))
        print(seeded(Path(name), pack, SEEDED), flush=True)
    for silenced in silences:
        print(story(silenced, options.deadline))
    violations = [text for silenced in silences for text in silenced.violations()]
    print("\n".join([*violations, f"{len(violations)} violations"]))
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
