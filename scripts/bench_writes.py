"""What a request writes: bytes and syncs, by the real process, for a known face, a new person, and nobody.

    .venv/bin/python scripts/bench_writes.py [--count 200] [--folder FOLDER] [--set SECTION.NAME=VALUE ...]

One caller posts without a pause; what is written behind the answer is waited for. For each kind of frame, per request:

    process    bytes that the service gave to the disk (/proc/<pid>/io)
    device     bytes that the device really wrote, its file system's journal with them (/sys/dev/block), whoever wrote
               them: on a card of the data folder's own (--folder) that is the wear
    syncs      calls of fsync and fdatasync, counted by strace, which slows the service down: not a measure of time

Then strangers, each as a vector without a picture, sent by one caller and by eight at once: those who wait together
share a commit, and the more do the longer the disk takes; --sync-milliseconds makes every sync take as much longer,
as on a card.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from bench_frame import ROOT, Service, opened, serving

from edge import assembly, config

BEHIND_SECONDS = 3.0
"""Sightings are written within one second of the answer."""

SECTOR = 512
"""The unit of /sys/dev/block/*/stat, whatever the device's is."""


@dataclass(frozen=True)
class Kind:
    """One kind of frame; `is_new`: each is posted to a list of its own, which knows nobody."""

    name: str
    photo: str | None
    is_new: bool
    status: int


KINDS = (
    Kind("a known face", "obama-1", is_new=False, status=201),
    Kind("a new person", "obama-1", is_new=True, status=200),
    Kind("a frame without a face", None, is_new=False, status=201),
)


CALLERS = (1, 8)
"""Of strangers at once."""


@dataclass(frozen=True)
class Written:
    """Counters that only rise; None: not to be had here."""

    process: int
    device: int | None


def frame(kind: Kind) -> bytes:
    """Return a picture of that kind."""
    if kind.photo is None:
        noise = np.random.default_rng(3).normal(110, 4, (480, 640, 3))
        return cv2.imencode(".jpg", np.clip(noise, 0, 255).astype(np.uint8))[1].tobytes()
    return (ROOT / "tests" / "photos" / f"{kind.photo}.jpg").read_bytes()


def lists(kind: Kind, count: int, folder: Path) -> list[str | None]:
    """Return the list that each frame is posted to, made before the service starts; None: the main list."""
    if not kind.is_new:
        return [None] * count
    folder.mkdir(mode=0o700)
    settings = config.load(Path(os.devnull), environment={}, flags=[f"data.folder={folder}"])
    with opened(folder, settings, assembly.pack_in_force(settings)) as gallery:
        return [gallery.create_list(f"list {number}").list_id for number in range(count)]


def written(service: Service, folder: Path) -> Written:
    """Return what has been written until now, with all that was on its way."""
    os.sync()
    device = folder.stat().st_dev
    statistics = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat")
    sectors = int(statistics.read_text().split()[6]) if statistics.exists() else None
    counters = dict(line.split(": ") for line in Path(f"/proc/{service.process.pid}/io").read_text().splitlines())
    return Written(int(counters["write_bytes"]), None if sectors is None else sectors * SECTOR)


@dataclass
class Row:
    """What a number of requests have written, for each of them."""

    count: int = 0
    process: str = "-"
    device: str = "-"
    syncs: str = "-"

    def line(self, name: str) -> str:
        """Return the line of the table."""
        return f"{name:34}{self.process:>10}{self.device:>12}{self.syncs:>9}"


@contextlib.contextmanager
def counting(service: Service, folder: Path, sync_milliseconds: int = 0) -> Iterator[Row]:
    """Count what is written until the end, and divide it by the `count` that the row then has."""
    row, calls = Row(), folder.parent / f"{folder.name}.calls"
    time.sleep(BEHIND_SECONDS)
    tracer = _traced(service, calls, sync_milliseconds)
    before = written(service, folder)
    yield row
    time.sleep(BEHIND_SECONDS)
    after = written(service, folder)
    row.process = f"{(after.process - before.process) / row.count:,.0f}"
    if before.device is not None and after.device is not None:
        row.device = f"{(after.device - before.device) / row.count:,.0f}"
    if tracer is not None:
        tracer.terminate()
        tracer.wait(30)
        row.syncs = f"{calls.read_text().count('sync(') / row.count:.2f}"


def measure(kind: Kind, count: int, folder: Path, settings: Sequence[str]) -> str:
    """Return the line of the table for one kind of frame."""
    picture, targets = frame(kind), lists(kind, count, folder)
    with serving(folder, *settings) as service:
        connection = service.connection()
        service.post(connection, service.body(picture, multi=False))
        with counting(service, folder) as row:
            row.count = count
            for list_id in targets:
                status, answer = service.post(connection, service.body(picture, list_id, multi=False))
                assert status == kind.status, answer
    return row.line(kind.name)


def enrolments(callers: int, count: int, folder: Path, settings: Sequence[str], sync_milliseconds: int) -> str:
    """Return the line of the table for strangers who come as vectors, sent by so many callers at once."""
    with serving(folder, *settings, "new_person.threshold=1") as service:
        length = assembly.pack_in_force(config.load(Path(os.devnull), environment={})).embedder.vector_length
        waiting = iter(np.random.default_rng(1).standard_normal((count, length)).tolist())
        headers = {"token": service.token, "Content-Type": "application/json"}
        lock, added = threading.Lock(), []

        def caller() -> None:
            connection = service.connection()
            while True:
                with lock:
                    vector = next(waiting, None)
                if vector is None:
                    return
                connection.request("POST", "/v1/person/create", json.dumps({"embedding": vector}), headers)
                answer = connection.getresponse()
                assert answer.status in (200, 201), answer.read()
                added.extend(json.loads(answer.read())["persons"])

        with counting(service, folder, sync_milliseconds) as row:
            threads = [threading.Thread(target=caller) for _ in range(callers)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            row.count = len(added)  # now and then one is taken for another
    return row.line(f"a new person's vector, {callers} caller{'s' if callers > 1 else ''}")


def _traced(service: Service, calls: Path, sync_milliseconds: int) -> subprocess.Popen[bytes] | None:
    """Write down every sync from now on; None where there is no strace."""
    strace = shutil.which("strace")
    if strace is None:
        return None
    delay = f"fsync,fdatasync:delay_enter={sync_milliseconds * 1000}" if sync_milliseconds else ""
    command = [strace, "-f", "-e", "trace=fsync,fdatasync", *(["-e", f"inject={delay}"] if delay else [])]
    command += ["-o", str(calls), "-p", str(service.process.pid)]
    tracer = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    time.sleep(1)  # it attaches to each thread
    return tracer


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="requests of each kind (default: 200)")
    parser.add_argument("--folder", type=Path, help="where the data folders are made: on the card to be measured")
    parser.add_argument("--sync-milliseconds", type=int, default=0, help="longer, in the last two rows")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.NAME=VALUE", help="a setting")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        print(Row(0, "process", "device", "syncs").line(f"per request, of {options.count}"))
        for number, kind in enumerate(KINDS):
            print(measure(kind, options.count, Path(scratch) / str(number), options.set), flush=True)
        for callers in CALLERS:
            data = Path(scratch) / f"vectors-{callers}"
            print(enrolments(callers, options.count, data, options.set, options.sync_milliseconds), flush=True)
    if shutil.which("strace") is None:
        print("There is no strace here, so the syncs could not be counted.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
