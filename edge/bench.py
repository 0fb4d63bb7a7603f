"""`edge bench`: what the stages of a frame cost on this machine, in under a minute.

In this process, without HTTP. What it writes lies in a hidden folder on the data folder's disk, which goes at the end;
of what the data folder holds only the choice of a pack is read, and nothing is changed.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import platform
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge import __version__, assembly
from edge.config import Config
from edge.errors import invalid
from edge.events import Listeners
from edge.face import image, pose, quality
from edge.face.analysis import Analyser, Face
from edge.face.passes import Pass
from edge.face.tflite import installed
from edge.gallery.history import History
from edge.gallery.index import ListIndex
from edge.gallery.protocol import Probe
from edge.gallery.store import EmbeddedGallery
from edge.matching import Calibration
from edge.recognition import Recognizer
from edge.types import (
    Box,
    Decision,
    Detection,
    Embedding,
    NewPerson,
    Pack,
    PersonCreate,
    Picture,
    Template,
    Verdict,
    unit,
)

SIZES = ((640, 480), (1920, 1080), (3840, 2160))
"""Columns, rows: what cameras send."""

TEMPLATES = 10_000
"""Of the list that is searched."""

LEAST_RUNS = 3
"""Of a stage, however slow: the first warms up and is not counted."""

RATE_SHARE = 3.0
"""Frames a second are counted for so many times longer than a stage is measured: many small costs are in them."""

FACE_SHARE = 2 / 15
"""A face's longer side to the frame's width: 85 pixels of 640, just enough for somebody new."""

HEAD_GROWTH = 1.8
"""The part of a photo that is put into a frame, to its face: hair, chin and some of what is behind."""

PLACES = ((0.5, 0.27), (0.18, 0.27), (0.82, 0.27), (0.32, 0.75), (0.68, 0.75))
"""Middles of the heads in a frame, as shares of its width and height."""

JPEG_QUALITY = 85
"""As cameras write: 640 x 480 takes about 40 KB, 1920 x 1080 about 200."""

PERSON = NewPerson(fields=(), features=(), pose=None, score=None, group_id=None, source_id=None)


# --- frames ---


def head(picture: Picture, face: Box) -> Picture:
    """Return the head of a photo, to be put into a frame."""
    return image.cut(picture, face.grown(HEAD_GROWTH), longest=max(picture.shape))


def frame(heads: Sequence[Picture], columns: int, rows: int) -> bytes:
    """Return a JPEG of a room with these heads in it, five at most; the same for the same heads and size."""
    canvas = _room(columns, rows)
    side = round(columns * FACE_SHARE * HEAD_GROWTH)
    for one, (x, y) in zip(heads, PLACES, strict=False):
        _put(canvas, _scaled(one, side), round(x * columns), round(y * rows))
    return image.encode_jpeg(canvas, quality=JPEG_QUALITY)


def _room(columns: int, rows: int) -> Picture:
    """Return a wall lit from one side, things before it, and a camera's noise: a decoder has something to do."""
    rng = np.random.default_rng(7)
    light = np.linspace(90, 160, columns)[None, :] + np.linspace(20, 0, rows)[:, None]
    canvas = np.stack([light, light - 6, light - 14], axis=-1).astype(np.int16)
    for _ in range(24):
        left, top = int(rng.integers(0, columns)), int(rng.integers(0, rows))
        width, height = int(rng.integers(columns // 40, columns // 6)), int(rng.integers(rows // 40, rows // 4))
        canvas[top : top + height, left : left + width] += rng.integers(-50, 50, 3).astype(np.int16)
    # Coarser than a pixel, as what a camera makes of its sensor's noise.
    noise = np.round(rng.normal(0, 2, (rows // 2 + 1, columns // 2 + 1))).astype(np.int16)
    canvas += noise.repeat(2, axis=0).repeat(2, axis=1)[:rows, :columns, None]
    return np.clip(canvas, 0, 255).astype(np.uint8)


def _scaled(picture: Picture, longest: int) -> Picture:
    """Return the picture with its longer side `longest` pixels; enlarged roughly, for frames larger than any photo."""
    times = math.ceil(longest / max(picture.shape[:2]))
    return image.shrunk(picture.repeat(times, axis=0).repeat(times, axis=1), longest=longest)


def _put(canvas: Picture, part: Picture, x: int, y: int) -> None:
    """Blend the part into the canvas about (x, y), its border softly: no detector should find the seam."""
    rows, columns = part.shape[:2]
    place = canvas[y - rows // 2 :, x - columns // 2 :][:rows, :columns]
    across, down = (np.minimum(np.arange(n) + 1, np.arange(n)[::-1] + 1) / (0.1 * n) for n in (columns, rows))
    weight = np.clip(np.minimum(down[:, None], across[None, :]), 0, 1)[:, :, None]
    place[:] = np.round(part * weight + place * (1 - weight)).astype(np.uint8)


def strangers(count: int, length: int, seed: int = 1) -> NDArray[np.float32]:
    """Return so many unit vectors in clusters, as faces of many people lie: count x length."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(1, count // 50), length), np.float32)
    vectors = centres[rng.integers(0, len(centres), count)] + rng.standard_normal((count, length), np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


# --- measuring ---


def milliseconds(work: Callable[[], object], seconds: float) -> float:
    """Return the median over as many calls as fit into that time, after one that does not count."""
    work()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < LEAST_RUNS or time.perf_counter() < end:
        started = time.perf_counter()
        work()
        times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times)


def rate(work: Callable[[], object], threads: int, seconds: float) -> float:
    """Return the calls a second that so many threads get done together."""
    started = time.perf_counter()

    def count(_: int) -> int:
        done = 0
        while done < LEAST_RUNS or time.perf_counter() < started + seconds:
            work()
            done += 1
        return done

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(count, range(threads))) / (time.perf_counter() - started)


# --- the parts, as `edge serve` puts them together ---


@dataclass(frozen=True, eq=False)
class Bench:
    """The parts that are measured, on temporary data."""

    config: Config
    pack: Pack
    analysers: Sequence[Analyser]
    gallery: EmbeddedGallery
    recognizer: Recognizer
    seconds: float
    """For one measurement."""

    @property
    def analyser(self) -> Analyser:
        """The first worker's networks."""
        return self.analysers[0]

    def decoded(self, data: bytes) -> Picture:
        """Return the picture as the service decodes it."""
        most = int(self.config.image.max_megapixels * 1e6)
        return image.decode(data, max_pixels=most, min_side=self.config.image.min_side_pixels)

    def detections(self, picture: Picture) -> list[Detection]:
        """Return what the detector finds, all its passes together."""
        detector = self.analyser.detector
        return detector.merged([detector.look(picture, one) for one in self._passes(picture)])

    def face(self, picture: Picture) -> Face | None:
        """Return the largest face, None if there is none that can be compared."""
        floor = self.config.faces.presence_floor
        faces = self.analyser.faces(picture, self._passes(picture), presence_floor=floor)
        return faces[0] if faces and faces[0].size >= self.config.faces.min_face_pixels else None

    def _passes(self, picture: Picture) -> tuple[Pass, ...]:
        return self.analyser.passes(picture.shape, self.config.faces.min_face_pixels, self.config.detection.input_size)


@contextlib.contextmanager
def bench(config: Config, seconds: float) -> Iterator[Bench]:
    """Yield the parts, as many workers as the settings say, on data that is gone afterwards."""
    pack = assembly.wanted_pack(config)
    analysers = [assembly.build_analyser(pack, config) for _ in range(assembly.workers_of(config))]
    with contextlib.ExitStack() as running:
        name = running.enter_context(tempfile.TemporaryDirectory(prefix=".bench-", dir=_existing(config.data.folder)))
        gallery = assembly.open_gallery(Path(name), config, pack)
        running.callback(gallery.close)
        history = History(gallery.database, gallery.pictures, clock=assembly.now_ms)
        running.callback(history.close)
        listeners = Listeners(*([assembly.history_listener(history)] if config.history.keep_days else []))
        scores = Calibration(pack.embedder.operating_points)
        recognizer = assembly.build_recognizer(config, pack, analysers, gallery, listeners, scores)
        yield Bench(config, pack, analysers, gallery, recognizer, seconds)


def end_tidily() -> None:
    """Let SIGTERM end this program as Ctrl-C does: what is temporary goes all the same."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def _existing(folder: Path) -> Path:
    """Return the folder, or what there is of the way to it: the same disk, unless one is mounted there later."""
    folder = folder.resolve()
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def picture_file(given: Path | None) -> Path:
    """Return the photo to make frames of. Refused where none is given and none came with the program."""
    if given is not None:
        return given
    photo = Path(__file__).resolve().parent.parent / "tests" / "photos" / "collins-1.jpg"
    if not photo.is_file():
        raise invalid("--picture", "no photo came with this installation: name a file with a face")
    return photo


# --- the table ---

Row = tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A frame of one size, and its face."""

    data: bytes
    picture: Picture
    face: Face


def run(config: Config, photo: Path | None, seconds: float) -> Iterator[Row]:
    """Measure, and yield the table's rows as they come, the heading first. Refused for a photo without a face."""
    with bench(config, seconds) as parts:
        frames = _prepared(parts, picture_file(photo).read_bytes())
        yield ("milliseconds, median", *(f"{columns}x{rows}" for columns, rows in SIZES))
        for name in STAGES:
            yield (name, *(_number(milliseconds(_stage(parts, name, one), seconds)) for one in frames))
        yield (f"search among {TEMPLATES:,} templates", _number(_search(parts)))
        yield ("durable commit", _number(_commit(parts)))
        workers = len(parts.analysers)
        rates = (_number(_rate(parts, one)) for one in frames)
        yield (f"frames a second, {workers} worker{'s' if workers > 1 else ''}", *rates)


def _prepared(parts: Bench, data: bytes) -> list[Prepared]:
    photo = parts.decoded(data)
    seen = parts.face(photo)
    if seen is None:
        least = f"{parts.config.faces.min_face_pixels:g} pixels"
        raise invalid("--picture", f"shows no face of at least {least} on its longer side")
    frames = []
    for columns, rows in SIZES:
        made = frame([head(photo, seen.landmarks.box)], columns, rows)
        picture = parts.decoded(made)
        face = parts.face(picture)
        if face is None:
            reason = f"its face is not found again in a frame of {columns}x{rows}: take one that is sharp and frontal"
            raise invalid("--picture", reason)
        frames.append(Prepared(made, picture, face))
    return frames


STAGES = ("decode", "detect", "landmarks", "pose and quality", "one probe", "one template")
"""Of every frame with a face, but for the template, which is made when somebody is added."""


def _stage(parts: Bench, name: str, one: Prepared) -> Callable[[], object]:
    """Return what runs that stage alone."""
    analyser, points = parts.analyser, one.face.landmarks.points
    stages: dict[str, Callable[[], object]] = {
        "decode": lambda: parts.decoded(one.data),
        "detect": lambda: parts.detections(one.picture),
        "landmarks": lambda: analyser.mesh.locate(one.picture, one.face.detection),
        "pose and quality": lambda: quality.measure(one.picture, one.face.landmarks, pose.estimate(points)),
        "one probe": lambda: analyser.embedder.probe(one.picture, points),
        "one template": lambda: analyser.embedder.template(one.picture, points),
    }
    return stages[name]


def machine(config: Config) -> str:
    """Return what is measured on: processor, cores, interpreter, pack."""
    interpreter, _ = installed(config.models.interpreter)
    pack = assembly.wanted_pack(config)
    cores, threads = len(os.sched_getaffinity(0)), config.models.threads_per_face
    networks = f"{interpreter} with {threads} thread{'s' if threads > 1 else ''} a network, pack {pack.id}"
    system = f"edge {__version__}, Python {platform.python_version()}, {platform.machine()}"
    return f"{_processor()}, {cores} core{'s' if cores > 1 else ''}\n{system}, {networks}"


def _processor() -> str:
    """Return the processor's name as Linux tells it: x86 in cpuinfo, boards in the device tree."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    with contextlib.suppress(OSError):
        return Path("/proc/device-tree/model").read_text(encoding="utf-8").strip("\0\n")
    return platform.machine()


def _number(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _search(parts: Bench) -> float:
    length = parts.pack.embedder.vector_length
    index = ListIndex(
        length, cohort_weight=parts.pack.embedder.cohort_weight, exact_limit=parts.config.gallery.exact_limit
    )
    numbers = range(1, TEMPLATES + 1)
    index.add_many(numbers, numbers, strangers(TEMPLATES, length), np.zeros(TEMPLATES))
    index.wait_until_built(60)
    probes = itertools.cycle(strangers(100, length, seed=2))
    try:
        return milliseconds(lambda: index.search(next(probes), 0.0, 3), parts.seconds)
    finally:
        index.close()


def _commit(parts: Bench) -> float:
    """Return what it takes until a change of a person's fields is on disk."""
    gallery = parts.gallery
    vector = unit(strangers(1, parts.pack.embedder.vector_length)[0])
    person_id = _known(parts, gallery.main_list_id, Embedding(vector, 0.0))
    texts = (f"{number}" for number in itertools.count())
    return milliseconds(
        lambda: gallery.update_person(gallery.main_list_id, person_id, fields=[next(texts)]), parts.seconds
    )


def _known(parts: Bench, list_id: str, embedding: Embedding) -> str:
    """Add a person to the list; return their id."""
    template = Template(embedding, parts.pack.id, quality=1.0, picture=None)
    outcomes = parts.gallery.identify_or_enrol(
        list_id, [Probe(embedding, PERSON, template)], lambda *_: Decision(Verdict.ADD)
    )
    assert isinstance(outcomes, list) and outcomes[0].person is not None, "the template is given"
    return outcomes[0].person.person_id


def _rate(parts: Bench, one: Prepared) -> float:
    """Return the frames a second of all workers, the frame's face being known to a list of its own."""
    rows, columns = one.picture.shape[:2]
    list_id = parts.gallery.create_list(f"bench {columns}x{rows}").list_id
    _known(parts, list_id, parts.analyser.embedder.template(one.picture, one.face.landmarks.points))
    request = PersonCreate(image=one.data, list_id=list_id)
    workers = len(parts.analysers)
    for _ in range(workers):
        parts.recognizer.create(request)
    return rate(lambda: parts.recognizer.create(request), workers, RATE_SHARE * parts.seconds)
