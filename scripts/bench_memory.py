"""Resident memory of the real process over many requests, and memory and start with many persons.

    .venv/bin/python scripts/bench_memory.py [--requests 10000] [--persons 10000 100000] [--callers 2]
        [--sizes 640x480 1920x1080] [--set SECTION.NAME=VALUE ...]

First with an empty gallery: VmRSS, its anonymous part, and PSS (what is the process's own share) after the start, after
1,000 requests, and after all of them; and the growth a thousand requests by least squares over what was measured after
the first 1,000, with its standard error. A request posts a frame in turn without a face, with a known one, and with an
unknown one that is not good enough to be added, in each of the sizes. Then, for each number of persons, a gallery that
has them (a template and a kept picture each, written by the product's own code while no service runs): how long the
service takes until it is ready, and its memory then and after some requests.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from bench_frame import Service, heads, opened, progress, serving, size_of

from edge import assembly, bench, config
from edge.face import image
from edge.gallery import persons
from edge.gallery.identifiers import Identifiers
from edge.gallery.lists import the_list
from edge.types import Person, Template

SAMPLES = 60
"""Of memory over a run."""

SETTLING = 1000
"""Requests after which growth is growth: until then buffers, caches and threads find their size."""

AFTER_START = 200
"""Requests to a service with many persons."""

BATCH = 500
"""Persons a transaction, and pictures a folder."""

STARTS = 3
KILOBYTE, MEGABYTE = 1024, 1e6


# --- persons ---


def seed(folder: Path, parts: bench.Bench, count: int) -> None:
    """Put so many strangers into the main list of a data folder that no service has, each with a kept picture."""
    identifiers = Identifiers(assembly.now_ms)
    portrait = image.encode_jpeg(np.full((160, 160, 3), 128, np.uint8), quality=85)
    vectors = bench.strangers(count, parts.pack.embedder.vector_length)
    with opened(folder, parts.config, parts.pack) as gallery:
        for start in range(0, count, BATCH):
            progress(f"{start:,} of {count:,} persons")
            batch = [parts.analyser.embedder.given(vector) for vector in vectors[start : start + BATCH]]
            names = gallery.pictures.save([portrait] * len(batch))
            with gallery.database.write() as transaction:
                number, found = the_list(transaction, gallery.main_list_id)
                for embedding, name in zip(batch, names, strict=True):
                    now = assembly.now_ms()
                    person = Person(
                        person_id=identifiers.new(),
                        list_id=found.list_id,
                        group_id=None,
                        source_id=None,
                        created_ms=now,
                        updated_ms=now,
                        fields=(),
                        features=(),
                        pose=None,
                        score=None,
                        picture=name,
                    )
                    template = Template(embedding, parts.pack.id, quality=0.8, picture=None)
                    row = persons.insert(transaction, number, person)
                    persons.insert_template(transaction, row, persons.stored(template, name, now))
    progress("")


# --- memory ---


@dataclass(frozen=True)
class Memory:
    """Of a process, in megabytes; PSS None where the system does not tell."""

    resident: float
    anonymous: float
    pss: float | None

    def __str__(self) -> str:
        """As the table shows it."""
        pss = "" if self.pss is None else f"  PSS {self.pss:6.1f}"
        return f"VmRSS {self.resident:6.1f}  anonymous {self.anonymous:6.1f}{pss} MB"


def memory(pid: int) -> Memory:
    """Return what the process has in memory now."""
    status = _kilobytes(Path(f"/proc/{pid}/status").read_text())
    try:
        rollup = _kilobytes(Path(f"/proc/{pid}/smaps_rollup").read_text())
    except OSError:
        rollup = {}
    in_megabytes = {name: kilobytes * KILOBYTE / MEGABYTE for name, kilobytes in {**status, **rollup}.items()}
    return Memory(in_megabytes["VmRSS"], in_megabytes["RssAnon"], in_megabytes.get("Pss"))


def _kilobytes(text: str) -> dict[str, int]:
    lines = (line.split() for line in text.splitlines())
    return {words[0].rstrip(":"): int(words[1]) for words in lines if words[-1:] == ["kB"]}


def growth(at: Sequence[int], megabytes: Sequence[float]) -> tuple[float, float]:
    """Return the slope in megabytes a thousand requests by least squares, and its standard error."""
    x, y = np.asarray(at, float) / 1000, np.asarray(megabytes)
    (slope, offset), spread = np.polyfit(x, y, 1), ((x - x.mean()) ** 2).sum()
    rest = y - slope * x - offset
    return float(slope), float(np.sqrt((rest**2).sum() / (len(x) - 2) / spread))


# --- requests ---


def frames(parts: bench.Bench, sizes: Sequence[tuple[int, int]]) -> list[bytes]:
    """Return what is posted in turn: nobody, somebody, somebody too blurred to be added; in every size."""
    known, other = heads(parts, ["collins-1", "biden-1"])
    blurred = image.shrunk(other, longest=24)  # enlarged again when it is put into the frame
    made = []
    for columns, rows in sizes:
        made += [bench.frame(shown, columns, rows) for shown in ([], [known], [blurred])]
    return made


def post(service: Service, bodies: Iterator[bytes], count: int, callers: int) -> None:
    """Post so many, by so many callers."""
    lock, left = threading.Lock(), count
    failed: list[str] = []

    def caller() -> None:
        nonlocal left
        connection = service.connection()
        while not failed:
            with lock:
                if left <= 0:
                    return
                left -= 1
                body = next(bodies)
            status, answer = service.post(connection, body)
            if status not in (200, 201):
                failed.append(f"the service answered {status}: {answer[:500].decode()}")

    threads = [threading.Thread(target=caller) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise RuntimeError(failed[0])


# --- the run ---


def empty_gallery(folder: Path, options: argparse.Namespace, pictures: Sequence[bytes]) -> None:
    """Measure over many requests and print."""
    with serving(folder, *options.set) as service:
        pid = service.process.pid
        print(f"empty gallery, {options.requests:,} requests by {options.callers} callers")
        print(f"  after the start ({service.start_seconds:.1f} s)   {memory(pid)}", flush=True)
        bodies = itertools.cycle([service.body(picture) for picture in pictures])
        settling = min(SETTLING, options.requests // 4)
        post(service, bodies, settling, options.callers)
        print(f"  after {settling:9,} requests  {memory(pid)}", flush=True)
        at, seen, started = [], [], time.perf_counter()
        step = max(1, (options.requests - settling) // SAMPLES)
        for done in range(settling + step, options.requests + 1, step):
            post(service, bodies, step, options.callers)
            at.append(done)
            seen.append(memory(pid))
            progress(f"  {done:,} of {options.requests:,} requests: {seen[-1]}")
        progress("")
        rate = (at[-1] - settling) / (time.perf_counter() - started)
        print(f"  after {at[-1]:9,} requests  {seen[-1]}  ({rate:.0f} a second)")
        print(f"  most                     {max(one.resident for one in seen):6.1f} MB resident")
        for name in ("resident", "anonymous"):
            slope, error = growth(at, [getattr(one, name) for one in seen])
            print(f"  {name:9} grew {slope:+.3f} +- {error:.3f} MB a thousand requests", flush=True)
    print()


def with_persons(folder: Path, options: argparse.Namespace, pictures: Sequence[bytes], count: int) -> None:
    """Measure starts and memory of a gallery with persons, and print."""
    seconds = []
    for number in range(STARTS):
        with serving(folder, *options.set) as service:
            seconds.append(service.start_seconds)
            if number == STARTS - 1:
                started = memory(service.process.pid)
                bodies = itertools.cycle([service.body(picture) for picture in pictures])
                post(service, bodies, AFTER_START, options.callers)
                worked = memory(service.process.pid)
    times = ", ".join(f"{one:.2f}" for one in seconds)
    print(f"{count:,} persons: ready after {statistics.median(seconds):.2f} s (of {times})")
    print(f"  after the start           {started}")
    print(f"  after {AFTER_START:9,} requests  {worked}\n", flush=True)


def main() -> int:
    """Measure the empty gallery, then those with persons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000, help="to the empty gallery (0: leave it out)")
    parser.add_argument("--persons", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--callers", type=int, default=2)
    parser.add_argument("--sizes", type=size_of, nargs="+", default=list(bench.SIZES[:2]), metavar="COLUMNSxROWS")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.NAME=VALUE", help="a setting")
    options = parser.parse_args()
    bench.end_tidily()
    with tempfile.TemporaryDirectory(prefix="edge-bench-") as name:
        folder = Path(name)
        settings = config.load(environment={}, flags=[*options.set, f"data.folder={folder}"])
        with bench.bench(settings, 1.0) as parts:
            workers = len(parts.analysers)
            print(f"{bench.machine(settings)}, {workers} workers\nload average {os.getloadavg()[0]:.2f}\n")
            pictures = frames(parts, options.sizes)
            for count in options.persons:
                started = time.perf_counter()
                seed(folder / f"{count}", parts, count)
                print(f"{count:,} persons written in {time.perf_counter() - started:.1f} s", flush=True)
        print()
        if options.requests:
            empty_gallery(folder / "empty", options, pictures)
        for count in options.persons:
            with_persons(folder / f"{count}", options, pictures, count)
    return 0


if __name__ == "__main__":
    sys.exit(main())
