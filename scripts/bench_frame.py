"""Frames through the real process, beside the floor: the same stages as raw calls, in the same run.

    .venv/bin/python scripts/bench_frame.py [--count 200] [--callers 1 2 4 8] [--sizes 640x480 1920x1080 3840x2160]

For each size and number of faces, known and unknown, it prints what a client waits (p50, p95, p99), frames a second and
the service's CPU seconds a frame; then the floor on one core, and the ratios. Figures are this machine's: compare the
ratios. The frames are made of the portraits in tests/photos.
"""

from __future__ import annotations

import argparse
import http.client
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edge import config, daemon
from edge.face import image
from edge.face.analysis import Analyser
from edge.face.detection import letterbox
from edge.gallery.access import Access
from edge.gallery.store import EmbeddedGallery
from edge.types import Picture, Scope

ROOT = Path(__file__).resolve().parent.parent
FACES = ("obama-1", "biden-1", "collins-1", "obama-2", "obama-3")
WARM_UP = 10
BOUNDARY = "edge-bench-frame"


@dataclass(frozen=True)
class Case:
    """One kind of frame."""

    columns: int
    rows: int
    faces: int
    known: bool

    @property
    def name(self) -> str:
        """As the table shows it."""
        kind = "" if not self.faces else (" known" if self.known else " unknown")
        return f"{self.columns}x{self.rows}, {self.faces} face{'' if self.faces == 1 else 's'}{kind}"


def frame(case: Case) -> bytes:
    """Return a JPEG of the size with so many portraits side by side, each face about a ninth of the width."""
    y, x = np.mgrid[0 : case.rows, 0 : case.columns]
    ground = np.stack([90 + 60 * np.sin(x / 97 + y / 61), 110 + 40 * np.cos(y / 83), 120 + 30 * np.sin(x / 131)], -1)
    noise = np.random.default_rng(1).normal(0, 4, ground.shape)
    canvas = np.clip(ground + noise, 0, 255).astype(np.uint8)
    for number in range(case.faces):
        data = (ROOT / "tests" / "photos" / f"{FACES[number]}.jpg").read_bytes()
        portrait = image.decode(data, max_pixels=40_000_000, min_side=64)
        scale = min(case.columns / 5 / portrait.shape[1], case.rows * 0.9 / portrait.shape[0])
        portrait = cv2.resize(portrait, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        left = number * case.columns // 5
        canvas[: portrait.shape[0], left : left + portrait.shape[1]] = portrait
    return image.encode_jpeg(canvas, quality=90)


# --- the service ---


class Service:
    """The real process on a data folder with so many empty lists."""

    def __init__(self, folder: Path, lists: int) -> None:
        folder.mkdir(mode=0o700)
        settings = config.load(environment={}, flags=[f"data.folder={folder}"])
        pack = daemon.pack_in_force(settings)
        gallery = EmbeddedGallery.open(
            folder,
            pack_id=pack.id,
            vector_length=pack.embedder.vector_length,
            cohort_weight=pack.embedder.cohort_weight,
            exact_limit=settings.gallery.exact_limit,
            main_list_name="main",
            clock=daemon.now_ms,
        )
        self.lists = [gallery.create_list(f"list {number}").list_id for number in range(lists)]
        gallery.close()
        _, self.token = Access(folder / "access.sqlite3").create_token(
            "bench", frozenset({Scope.ENROL}), now_ms=daemon.now_ms()
        )
        command = [sys.executable, "-m", "edge", "serve", "--set", "server.port=0", "--set", f"data.folder={folder}"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline().rsplit(":", 1)[1])

    def cpu_seconds(self) -> float:
        """Return the processor time that the service has used so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def body(self, picture: bytes, list_id: str) -> bytes:
        """Return the multipart form that a camera posts."""
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="list_id"\r\n\r\n{list_id}\r\n'
        head += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="multi"\r\n\r\ntrue\r\n'
        head += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="frame.jpg"\r\n\r\n'
        return head.encode() + picture + f"\r\n--{BOUNDARY}--\r\n".encode()

    def post(self, connection: http.client.HTTPConnection, body: bytes) -> int:
        """Post one frame; return the status."""
        headers = {"token": self.token, "Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        connection.request("POST", "/v1/person/create", body, headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status

    def stop(self) -> None:
        """End the process in the orderly way."""
        self.process.terminate()
        self.process.wait(30)


@dataclass(frozen=True)
class Load:
    """What callers saw."""

    milliseconds: list[float]
    seconds: float
    cpu_seconds: float

    def row(self) -> str:
        """One line of the table."""
        cuts = statistics.quantiles(self.milliseconds, n=100)
        count = len(self.milliseconds)
        return (
            f"p50 {cuts[49]:7.1f}  p95 {cuts[94]:7.1f}  p99 {cuts[98]:7.1f} ms"
            f"  {count / self.seconds:7.1f} frames/s  {self.cpu_seconds / count * 1000:7.1f} CPU ms a frame"
        )


def load(service: Service, bodies: Sequence[bytes], callers: int, expected: set[int]) -> Load:
    """Post every body once, by so many callers, each with its own connection."""
    taken, lock, times = iter(bodies), threading.Lock(), []

    def caller() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=120)
        while True:
            with lock:
                body = next(taken, None)
            if body is None:
                return
            started = time.perf_counter()
            status = service.post(connection, body)
            times.append((time.perf_counter() - started) * 1000)
            if status not in expected:
                raise RuntimeError(f"the service answered {status}")

    threads = [threading.Thread(target=caller) for _ in range(callers)]
    cpu, started = service.cpu_seconds(), time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(times) != len(bodies):
        raise RuntimeError("a caller failed")
    return Load(times, time.perf_counter() - started, service.cpu_seconds() - cpu)


# --- the floor ---


def milliseconds(work: Callable[[], object], count: int) -> float:
    """Return the median of so many calls."""
    times = []
    for _ in range(count):
        started = time.perf_counter()
        work()
        times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times)


def floor(analyser: Analyser, settings: config.Config, case: Case, data: bytes, count: int) -> dict[str, float]:
    """Return what the stages cost as bare calls: OpenCV's decode and resize, and invoking the networks."""
    size = settings.detection.input_size or (192, 320)
    picture: Picture = image.decode(data, max_pixels=40_000_000, min_side=64)
    detector = analyser.detector.load(size)
    crops = 1 if case.known else 11  # the probe's, and the template's ten
    costs = {
        "decode": milliseconds(lambda: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB), count),
        "shrink": milliseconds(lambda: letterbox(picture, size), count),
        "detect": milliseconds(detector.invoke, count),
    }
    if case.faces:
        costs["mesh"] = case.faces * milliseconds(analyser.mesh.model.invoke, count)
        costs["embed"] = case.faces * crops * milliseconds(analyser.embedder.model.invoke, count)
    return costs


# --- the run ---


def run(case: Case, options: argparse.Namespace, settings: config.Config, analyser: Analyser) -> None:
    """Measure one kind of frame and print its rows."""
    data = frame(case)
    count = options.count if case.known or not case.faces else max(20, options.count // 4)
    with tempfile.TemporaryDirectory(prefix="edge-bench-") as folder:
        service = Service(Path(folder) / "data", 1 + WARM_UP + count * len(options.callers))
        try:
            lists = iter(service.lists)
            fixed = next(lists)
            connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=120)
            for _ in range(WARM_UP):
                service.post(connection, service.body(data, fixed if case.known else next(lists)))
            loads = {}
            for callers in options.callers:
                bodies = [service.body(data, fixed if case.known else next(lists)) for _ in range(count)]
                loads[callers] = load(service, bodies, callers, {201} if case.known or not case.faces else {200})
        finally:
            service.stop()
    costs = floor(analyser, settings, case, data, 50)
    total = sum(costs.values())
    print(f"\n{case.name} ({len(data) / 1000:.0f} KB)")
    print(f"  floor, one core: {total:.1f} ms = " + " + ".join(f"{name} {ms:.1f}" for name, ms in costs.items()))
    cores = len(os.sched_getaffinity(0))
    for callers, seen in loads.items():
        ratio = statistics.median(seen.milliseconds) / total
        rate = len(seen.milliseconds) / seen.seconds / (cores * 1000 / total)
        verdict = f"p50 / floor {ratio:.2f}" if callers == 1 else f"rate / (cores / floor) {rate:.2f}"
        print(f"  {callers} caller{'s' if callers > 1 else ' '} {seen.row()}   {verdict}", flush=True)


def main() -> int:
    """Run every case that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="frames per number of callers")
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--sizes", nargs="+", default=["640x480", "1920x1080", "3840x2160"])
    parser.add_argument("--faces", type=int, nargs="+", default=[0, 1, 5])
    options = parser.parse_args()
    settings = config.load(environment={}, flags=[])
    analyser = daemon.build_analyser(daemon.pack_in_force(settings), settings)
    daemon.warm_up(analyser, settings)
    print(f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}")
    for size in options.sizes:
        columns, rows = (int(part) for part in size.split("x"))
        for faces in options.faces:
            for known in (True, False) if faces else (True,):
                run(Case(columns, rows, faces, known), options, settings, analyser)
    return 0


if __name__ == "__main__":
    sys.exit(main())
