"""Frames through the real process, beside the floor: the same stages as raw calls, in the same run.

    .venv/bin/python scripts/bench_frame.py [--count 200] [--callers 1 2 4 8] [--sizes 640x480 1920x1080 3840x2160]
        [--faces 0 1 5] [--set SECTION.NAME=VALUE ...]

For each size, number of faces, and known or unknown, it prints what a client waits (p50, p95, p99), frames a second and
the service's CPU milliseconds a frame, for so many callers at once. Beside it the floor: OpenCV's decode and resize and
the bare invocations of those networks that the product runs for this very frame, on one core, and the same on all cores
at once; measured before and after every number of callers, because machines drift. Figures are this machine's: compare
the ratios. On a busy machine only those of processor time (CPU / floor) mean much. The frames are made of the photos in
tests/photos.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edge import assembly, bench, config
from edge.face.tflite import Model, installed
from edge.gallery.access import Access
from edge.gallery.store import EmbeddedGallery
from edge.types import InputSpec, Pack, PersonCreate, Picture, Scope

ROOT = Path(__file__).resolve().parent.parent
PHOTOS = ("collins-1", "biden-1", "obama-1", "obama-2", "obama-3")
"""Five faces of three people: a list that knows nobody gains three persons, and recognises one of them twice."""

WARM_UP = 10
BOUNDARY = "edge-bench-frame"
START_SECONDS = 120
FLOOR_RUNS = 5
"""At least, each time that the floor is measured."""


@dataclass(frozen=True)
class Case:
    """One kind of frame."""

    columns: int
    rows: int
    faces: int
    known: bool

    @property
    def multi(self) -> bool:
        """Whether all faces are asked for: where one is shown, the frame is posted as plainly as can be."""
        return self.faces > 1

    @property
    def name(self) -> str:
        """As the table shows it."""
        kind = "" if not self.faces else (" known" if self.known else " unknown")
        return f"{self.columns}x{self.rows}, {self.faces} face{'' if self.faces == 1 else 's'}{kind}"


def heads(parts: bench.Bench, names: Sequence[str] = PHOTOS) -> list[Picture]:
    """Return the heads of these photos of tests/photos."""
    found = []
    for name in names:
        photo = parts.decoded((ROOT / "tests" / "photos" / f"{name}.jpg").read_bytes())
        face = parts.face(photo)
        assert face is not None, f"{name} shows a face"
        found.append(bench.head(photo, face.landmarks.box))
    return found


# --- the service ---


@contextlib.contextmanager
def opened(folder: Path, settings: config.Config, pack: Pack) -> Iterator[EmbeddedGallery]:
    """Open the gallery of a data folder that no service has."""
    gallery = assembly.open_gallery(folder, settings, pack)
    try:
        yield gallery
    finally:
        gallery.close()


class Service:
    """`edge serve` on that data folder and a free port; ready when this returns."""

    def __init__(self, folder: Path, *settings: str, cores: set[int] | None = None) -> None:
        """`cores`: those that it may use; None: all."""
        folder.mkdir(mode=0o700, exist_ok=True)
        access = Access(folder / "access.sqlite3")
        _, self.token = access.create_token("bench", frozenset({Scope.ENROL}), now_ms=assembly.now_ms())
        flags = [f"data.folder={folder}", "server.port=0", "log.level=warning", *settings]
        command = [sys.executable, "-m", "edge", "serve", *(part for flag in flags for part in ("--set", flag))]
        self.log = folder.parent / f"{folder.name}.log"
        started = time.perf_counter()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={key: text for key, text in os.environ.items() if not key.startswith("EDGE_")},
                preexec_fn=None if cores is None else lambda: os.sched_setaffinity(0, cores),
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.start_seconds = time.perf_counter() - started
        """From the program's start until the first frame could be answered."""
        if " is ready on " not in line:
            raise RuntimeError(f"the service did not start: {self.log.read_text()}")
        self.port = int(line.rsplit(":", 1)[1])

    def cpu_seconds(self) -> float:
        """Return the processor time that the service has used so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def body(self, picture: bytes, list_id: str | None = None, *, multi: bool = True) -> bytes:
        """Return the multipart form that a camera posts."""
        texts = {"multi": str(multi).lower()} | ({} if list_id is None else {"list_id": list_id})
        head = "".join(
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'
            for name, text in texts.items()
        )
        head += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="frame.jpg"\r\n\r\n'
        return head.encode() + picture + f"\r\n--{BOUNDARY}--\r\n".encode()

    def connection(self) -> http.client.HTTPConnection:
        """Return a connection, which is kept open from frame to frame."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)

    def post(self, connection: http.client.HTTPConnection, body: bytes) -> tuple[int, bytes]:
        """Post one frame; return the status and the answer."""
        headers = {"token": self.token, "Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        connection.request("POST", "/v1/person/create", body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()

    def stop(self) -> None:
        """End the process in the orderly way."""
        self.process.terminate()
        self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextlib.contextmanager
def serving(folder: Path, *settings: str, cores: set[int] | None = None) -> Iterator[Service]:
    """Yield the service, and stop it."""
    service = Service(folder, *settings, cores=cores)
    try:
        yield service
    finally:
        service.stop()


@dataclass(frozen=True)
class Load:
    """What callers saw."""

    milliseconds: list[float]
    seconds: float
    cpu_seconds: float

    @property
    def rate(self) -> float:
        """Frames a second."""
        return len(self.milliseconds) / self.seconds

    @property
    def cpu_milliseconds(self) -> float:
        """Of the service, a frame."""
        return self.cpu_seconds / len(self.milliseconds) * 1000

    def row(self) -> str:
        """One line of the table."""
        cuts = statistics.quantiles(self.milliseconds, n=100, method="inclusive")
        return (
            f"p50 {cuts[49]:7.1f}  p95 {cuts[94]:7.1f}  p99 {cuts[98]:7.1f} ms"
            f"  {self.rate:6.1f} frames/s  {self.cpu_milliseconds:6.1f} CPU ms a frame"
        )


def load(service: Service, bodies: Sequence[bytes], callers: int, expected: int) -> Load:
    """Post every body once, by so many callers, each with its own connection."""
    taken, lock, times = iter(bodies), threading.Lock(), []

    def caller() -> None:
        connection = service.connection()
        while True:
            with lock:
                body = next(taken, None)
            if body is None:
                return
            started = time.perf_counter()
            status, answer = service.post(connection, body)
            times.append((time.perf_counter() - started) * 1000)
            if status != expected:
                raise RuntimeError(f"the service answered {status}: {answer[:500].decode()}")

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


@contextlib.contextmanager
def invocations() -> Iterator[Counter[InputSpec]]:
    """Yield a count of the networks that run meanwhile, by their input."""
    seen: Counter[InputSpec] = Counter()
    invoke = Model.invoke

    def counted(model: Model) -> None:
        seen[model.spec] += 1
        invoke(model)

    Model.invoke = counted  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        Model.invoke = invoke  # type: ignore[method-assign]


def needed(parts: bench.Bench, case: Case, data: bytes) -> Counter[InputSpec]:
    """Return which networks the product runs for the frame, and how often."""
    list_id = parts.gallery.create_list(f"{case.name} {time.monotonic_ns()}").list_id
    request = PersonCreate(image=data, list_id=list_id, multi=case.multi)
    if case.known:
        parts.recognizer.create(request)
    with invocations() as seen:
        parts.recognizer.create(request)
    return seen


class Floor:
    """The raw calls that a frame needs, for one thread: its own interpreters, no code of the product's."""

    def __init__(self, settings: config.Config, pack: Pack, data: bytes, networks: Mapping[InputSpec, int]) -> None:
        _, make = installed(settings.models.interpreter)
        roles = {spec: ("detect", file) for file, spec in pack.detector.inputs}
        roles[pack.landmarks.input] = ("mesh", pack.landmarks.file)
        roles[pack.embedder.input] = ("embed", pack.embedder.file)
        self._data = np.frombuffer(data, np.uint8)
        self._networks: list[tuple[str, Callable[[], None], int]] = []
        self._sizes: list[tuple[int, int]] = []
        rows, columns = self._decoded().shape[:2]
        for spec, times in networks.items():
            role, file = roles[spec]
            network = make(model_path=str(file.path), num_threads=settings.models.threads_per_face)
            network.allocate_tensors()
            noise = np.random.default_rng(0).uniform(-1, 1, (1, spec.rows, spec.columns, 3)).astype(np.float32)
            network.set_tensor(network.get_input_details()[0]["index"], noise)
            self._networks.append((role, network.invoke, times))
            if role == "detect":
                scale = min(spec.rows / rows, spec.columns / columns)
                self._sizes.append((round(columns * scale), round(rows * scale)))

    def _decoded(self) -> Picture:
        return np.asarray(cv2.imdecode(self._data, cv2.IMREAD_COLOR_RGB), np.uint8)

    def once(self) -> dict[str, float]:
        """Make all the calls that the frame needs; return milliseconds by stage."""
        costs: defaultdict[str, float] = defaultdict(float)

        def timed(stage: str, work: Callable[[], object]) -> object:
            started = time.perf_counter()
            result = work()
            costs[stage] += (time.perf_counter() - started) * 1000
            return result

        picture = np.asarray(timed("decode", self._decoded), np.uint8)
        for size in self._sizes:
            timed("shrink", lambda size=size: cv2.resize(picture, size, interpolation=cv2.INTER_AREA))
        for role, invoke, times in self._networks:
            for _ in range(times):
                timed(role, invoke)
        return dict(costs)


@dataclass(frozen=True)
class FloorSeen:
    """The floor as it was measured once."""

    stages: list[dict[str, float]]
    cpu_milliseconds: float
    """Processor time of a frame on one core: what else the machine does is not in it."""
    rate: float
    """Of all cores at once, frames a second."""


def measured(floors: Sequence[Floor], seconds: float) -> FloorSeen:
    """Measure on one core, then on all at once, each for so long."""
    floors[0].once()  # the first does not count
    stages: list[dict[str, float]] = []
    cpu, end = time.process_time(), time.perf_counter() + seconds
    while len(stages) < FLOOR_RUNS or time.perf_counter() < end:
        stages.append(floors[0].once())
    cpu = (time.process_time() - cpu) / len(stages) * 1000
    free = list(floors)
    lent = threading.local()

    def once() -> None:
        if not hasattr(lent, "floor"):
            lent.floor = free.pop()
        lent.floor.once()

    return FloorSeen(stages, cpu, bench.rate(once, len(floors), seconds))


def medians(seen: Sequence[FloorSeen]) -> dict[str, float]:
    """Return the median of each stage over all of it."""
    runs = [run for one in seen for run in one.stages]
    return {stage: statistics.median(run[stage] for run in runs) for stage in runs[0]}


# --- the run ---


def run(case: Case, options: argparse.Namespace, parts: bench.Bench, shown: Sequence[Picture]) -> None:
    """Measure one kind of frame and print its rows."""
    data = bench.frame(shown[: case.faces], case.columns, case.rows)
    count = options.count if case.known or not case.faces else max(20, options.count // 4)
    networks = needed(parts, case, data)
    cores = len(os.sched_getaffinity(0))
    floors = [Floor(parts.config, parts.pack, data, networks) for _ in range(cores)]
    with tempfile.TemporaryDirectory(prefix="edge-bench-") as name:
        folder = Path(name) / "data"
        with opened(folder, parts.config, parts.pack) as gallery:
            frames = range(WARM_UP + count * len(options.callers))
            lists = [gallery.main_list_id] * len(frames)
            if not case.known:  # who is unknown must not be known the second time: every frame has a list of its own
                lists = [gallery.create_list(f"list {number}").list_id for number in frames]
        prepared = iter(lists)
        with serving(folder, *options.set) as service:
            connection = service.connection()
            for _ in range(WARM_UP):
                service.post(connection, service.body(data, next(prepared), multi=case.multi))
            loads, floor = {}, [measured(floors, options.floor_seconds)]
            for callers in options.callers:
                progress(f"{case.name}: {callers} callers")
                bodies = [service.body(data, next(prepared), multi=case.multi) for _ in range(count)]
                loads[callers] = load(service, bodies, callers, 200 if case.faces and not case.known else 201)
                floor.append(measured(floors, options.floor_seconds))
    report(case, len(data), loads, floor, cores)


def report(case: Case, size: int, loads: Mapping[int, Load], floor: Sequence[FloorSeen], cores: int) -> None:
    """Print the rows of one kind of frame; each number of callers is held against the floor before and after it."""
    stages = medians(floor)
    together = statistics.median(one.rate for one in floor)
    progress("")
    print(f"{case.name} ({size / 1000:.0f} KB)")
    print(f"  floor, one core  {sum(stages.values()):7.1f} ms = ", end="")
    print(" + ".join(f"{name} {ms:.1f}" for name, ms in stages.items()), end="")
    print(f"; all {cores} cores at once {together:.1f} frames/s")
    for number, (callers, seen) in enumerate(loads.items()):
        around = floor[number : number + 2]
        alone = sum(medians(around).values())
        verdict = f"p50 / floor {statistics.median(seen.milliseconds) / alone:.2f}"
        if callers > 1:
            verdict = f"rate / (cores / floor) {seen.rate / (cores * 1000 / alone):.2f}"
            verdict += f", / raw calls on all cores {seen.rate / statistics.mean(one.rate for one in around):.2f}"
        verdict += (
            f", CPU / floor {seen.cpu_milliseconds / statistics.mean(one.cpu_milliseconds for one in around):.2f}"
        )
        print(f"  {callers} caller{'s' if callers > 1 else ' '} {seen.row()}   {verdict}", flush=True)
    print(flush=True)


def progress(text: str) -> None:
    """Show what is being measured, where somebody looks on."""
    if sys.stderr.isatty():
        print(f"\r{text}\033[K", end="", file=sys.stderr, flush=True)


def size_of(text: str) -> tuple[int, int]:
    """Parse COLUMNSxROWS."""
    columns, _, rows = text.partition("x")
    return int(columns), int(rows)


def main() -> int:
    """Run every case that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="frames per number of callers; a quarter if unknown")
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--sizes", type=size_of, nargs="+", default=list(bench.SIZES), metavar="COLUMNSxROWS")
    parser.add_argument("--faces", type=int, nargs="+", default=[0, 1, 5], choices=range(len(PHOTOS) + 1))
    parser.add_argument("--floor-seconds", type=float, default=1.0, help="for the floor, each time")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.NAME=VALUE", help="a setting")
    options = parser.parse_args()
    bench.end_tidily()
    with tempfile.TemporaryDirectory(prefix="edge-bench-") as folder:
        settings = config.load(environment={}, flags=[*options.set, f"data.folder={folder}"])
        with bench.bench(settings, 1.0) as parts:
            print(f"{bench.machine(settings)}\nload average {os.getloadavg()[0]:.2f}\n")
            shown = heads(parts)
            for columns, rows in options.sizes:
                for faces in options.faces:
                    for known in (True, False) if faces else (True,):
                        run(Case(columns, rows, faces, known), options, parts, shown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
