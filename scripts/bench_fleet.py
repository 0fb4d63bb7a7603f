"""Enrol at one box, post at another: how long until they know. And what a fleet costs a box's own requests.

    .venv/bin/python scripts/bench_fleet.py [--count 200]

Three boxes with three NATS servers on 127.0.0.1, all on this machine. `until known`: from the answer of the enrolment
at A to the end of B's first search by that face which finds them, asked again and again. `somebody new` and `somebody
known`: an enrolment by a vector, and a match, at a box that is alone, at one of the fleet, and at one whose brokers are
all dead, each in turn in one run.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
for folder in (ROOT,):  # `edge` and `tests` for who runs it without installing
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from tests.fleet.process import VECTOR_LENGTH, FleetBox, free_ports, until  # noqa: E402 (needs the path)
from tests.real_process import ROOT_OF_PHOTOS, Service  # noqa: E402

SETTINGS = ("new_person.threshold=1", "log.level=error")
PHOTOS = ("biden-1", "collins-1", "obama-3")
OWN_SHARE = 0.6
"""Of a face in what it has in common with all others, as in the battery's verb."""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), options.count)
    return 0


def measure(folder: Path, count: int) -> None:
    """Run the fleet and a box alone."""
    servers = [f"127.0.0.1:{port}" for port in free_ports(3)]
    boxes = [FleetBox(folder / name, name, server, *SETTINGS) for name, server in zip("abc", servers, strict=True)]
    code = boxes[0].init(servers)
    for box in boxes[1:]:
        box.join(code)
    alone = Service(folder / "alone", *SETTINGS, "models.workers=1", "history.keep_days=0")
    try:
        for box in boxes:
            box.start_nats()
        for box in boxes:
            box.start()
        alone.start()
        until(lambda: all(box.state()["connected"] and box.state()["position"] is not None for box in boxes), 60)
        print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        faces = Faces(alone)
        token = boxes[1].service.token("admin")
        known = [until_known(boxes[0].service, boxes[1].service, token, faces) for _ in range(count)]
        print(f"until known: {told(known)}")
        compare("in the fleet", alone, boxes[0].service, faces, count)
        for box in boxes:
            box.kill_nats()
        until(lambda: not boxes[0].state()["connected"], 60)
        compare("brokers down", alone, boxes[0].service, faces, count)
    finally:
        for box in boxes:
            box.end()
        if alone.process is not None:
            alone.end()


class Faces:
    """Vectors as unlike each other as strangers' faces are."""

    def __init__(self, service: Service) -> None:
        """`service` embeds some photos."""
        photos = [(ROOT_OF_PHOTOS / f"{name}.jpg").read_bytes() for name in PHOTOS]
        found = [service.create(photo, embedding_only="true").json()["faces"][0]["embedding"] for photo in photos]
        self._common = np.mean(found, axis=0)
        self._dice = np.random.default_rng(1)

    def new(self) -> str:
        """Return another, as a form has it."""
        own = self._dice.normal(size=VECTOR_LENGTH)
        face = self._common + OWN_SHARE * np.linalg.norm(self._common) * own / np.linalg.norm(own)
        return str([round(float(one), 6) for one in face])


def until_known(at: Service, there: Service, token: str, faces: Faces) -> float:
    """Return the seconds from an enrolment's answer to the other box's that has the person."""
    vector = faces.new()
    answer = at.create(embedding=vector)
    begun = time.perf_counter()
    person_id = answer.json()["persons"][0]["person_id"]
    body, headers = {"embeddings": vector, "threshold": 0.9}, {"Authorization": f"Bearer {token}"}
    while True:
        found = there.session.post(f"{there.url}/v1/vector/search", json=body, headers=headers, timeout=20)
        assert found.status_code == 200, found.text
        if person_id in found.text:
            return time.perf_counter() - begun
        assert time.perf_counter() - begun < 30, "it never knew"


def compare(name: str, alone: Service, fleet: Service, faces: Faces, count: int) -> None:
    """Print what the two take for somebody new and for somebody known, in turn."""
    known = faces.new()
    for what, vector in (("new", faces.new), ("known", lambda: known)):
        both = [(spent(alone, vector()), spent(fleet, vector())) for _ in range(count)]
        print(f"somebody {what}, box alone: {told([one for one, _ in both[1:]])}")
        print(f"somebody {what}, {name}: {told([one for _, one in both[1:]])}")


def spent(service: Service, vector: str) -> float:
    """Return the seconds of one request."""
    begun = time.perf_counter()
    answer = service.create(embedding=vector)
    assert answer.status_code in (200, 201), answer.text
    return time.perf_counter() - begun


def told(seconds: Sequence[float]) -> str:
    """Return median and 99th percentile in milliseconds."""
    ordered = sorted(seconds)
    return f"p50 {1000 * statistics.median(ordered):.1f} ms, p99 {1000 * ordered[int(0.99 * len(ordered))]:.1f} ms"


if __name__ == "__main__":
    sys.exit(main())
