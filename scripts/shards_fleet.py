"""The people of scripts/shards.py in files, a shard each, and a nats-server with the shards as processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from bench_gallery import ALWAYS_EXACT, BLOCK, People
from sharding import Shard, owner

from edge.types import Embedding, Pack

ALL = "all"
"""The name of the one shard that has everybody."""

STARTING_SECONDS = 30.0


# --- the gallery ---


@dataclass(frozen=True)
class Made:
    """Files of every shard, and whom to ask for."""

    folder: Path
    probes: list[Embedding]
    """Other pictures of persons of the gallery."""
    nearest: list[bytes]
    """Of each, the id of the person found by an exact search among all."""
    enrolled: list[tuple[bytes, Embedding]]
    """As many other persons, each with the very picture that the gallery has: whoever has it knows them for certain."""
    strangers: list[Embedding]


def make(folder: Path, pack: Pack, persons: int, probes: int, shards: Sequence[str]) -> Made:
    """Draw the people, and write the files of the shards and of ALL."""
    people, asked, pictures = People(pack, 1), [], list[Embedding]()
    for start in range(0, persons, BLOCK):
        middles = people.persons(min(BLOCK, persons - start))
        pictures += people.pictures(middles)
        asked += people.pictures(middles[: max(1, -(-probes * BLOCK // persons))])
    ids = [bytes.fromhex(f"0000000000001000{0x8000:04x}{number:012x}") for number in range(persons)]
    owners = np.array([owner(one, shards) for one in ids])
    matrix, names = np.stack([_row(one) for one in pictures]), np.frombuffer(b"".join(ids), np.uint8).reshape(-1, 16)
    for shard in (ALL, *shards):
        chosen = np.full(persons, True) if shard == ALL else owners == shard
        np.save(folder / f"{shard}.rows.npy", matrix[chosen])
        np.save(folder / f"{shard}.ids.npy", names[chosen])
    dice = np.random.default_rng(2)
    asked = [asked[place] for place in dice.permutation(len(asked))[:probes]]
    exact = Shard(ALL, folder, exact_limit=ALWAYS_EXACT, cohort_weight=pack.embedder.cohort_weight).index
    nearest = [ids[exact.search(one.vector, one.cohort_similarity, 1)[0][0]] for one in asked]
    others = People(pack, 100)
    enrolled = [(ids[place], pictures[place]) for place in dice.integers(0, persons, probes).tolist()]
    return Made(folder, asked, nearest, enrolled, others.pictures(others.persons(probes)))


def _row(embedding: Embedding) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.append(embedding.vector, np.float32(embedding.cohort_similarity))


# --- the server and the shards ---


class Fleet:
    """A nats-server and shard processes. Everything ends with the `with`."""

    def __init__(self, folder: Path, pack: Pack, exact_limit: int) -> None:
        """`folder`: with the shards' files."""
        self._folder = folder
        self._flags = [str(exact_limit), str(pack.embedder.cohort_weight)]
        self._server: subprocess.Popen[bytes] | None = None
        self._shards: dict[str, list[subprocess.Popen[str]]] = {}
        self.url = ""

    def __enter__(self) -> Fleet:
        beside = Path(sys.executable).parent / "nats-server"
        command = [beside if beside.exists() else "nats-server", "-a", "127.0.0.1", "-p", "-1"]
        with (self._folder / "nats.log").open("ab") as log:
            self._server = subprocess.Popen([*command, "--ports_file_dir", self._folder], stdout=log, stderr=log)
        ports = self._folder / f"nats-server_{self._server.pid}.ports"
        until = time.monotonic() + STARTING_SECONDS
        while not self.url:
            if time.monotonic() > until or self._server.poll() is not None:
                self._end()
                raise RuntimeError((self._folder / "nats.log").read_text())
            time.sleep(0.02)
            if ports.exists() and (text := ports.read_text()).endswith("}"):
                self.url = json.loads(text)["nats"][0]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()

    def _end(self) -> None:
        for process in [*(one for shard in self._shards.values() for one in shard), self._server]:
            if process is not None:
                process.kill()
                process.wait()

    def start(self, shard: str) -> dict[str, float]:
        """Start a box of the shard; return what it tells once its rows are loaded and it answers."""
        command = [sys.executable, str(Path(__file__).with_name("sharding.py")), shard, str(self._folder), self.url]
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [*command, *self._flags], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        )
        self._shards.setdefault(shard, []).append(process)
        return _line(process)

    def built(self, shard: str) -> dict[str, float]:
        """Wait for the graph of the box of the shard that was started last; return what it tells of that."""
        return _line(self._shards[shard][-1])

    def signal(self, shard: str, number: signal.Signals, boxes: int | None = None) -> None:
        """Send every box of the shard, or the first so many, a signal."""
        for process in self._shards[shard][:boxes]:
            process.send_signal(number)


def _line(process: subprocess.Popen[str]) -> dict[str, float]:
    assert process.stdout is not None, "it was made so"
    line = process.stdout.readline()
    if not line:
        raise RuntimeError("a shard has ended")
    told: dict[str, float] = json.loads(line)
    return told
