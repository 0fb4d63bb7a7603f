"""Everything that is kept of persons, written out: JSON Lines and pictures, as a folder or a tar."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Protocol

from edge import __version__, durable
from edge.errors import invalid
from edge.gallery.exporting import Kept, Reading
from edge.gallery.sightings import StoredSighting
from edge.types import Person

FORMAT = 1
"""The version of the form that this program writes and reads."""

ABOUT, PERSONS, HISTORY = "export.json", "persons.jsonl", "history.jsonl"
LISTS, GROUPS, SOURCES = "lists.jsonl", "groups.jsonl", "sources.jsonl"
PICTURES, SIGHTINGS = "pictures", "sightings"
TAR = ".tar"

Draw = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class Exported:
    """How much was written."""

    persons: int
    pictures: int
    sightings: int


class Target(Protocol):
    """Where an export is written to."""

    def add(self, name: str, content: bytes) -> None:
        """Write one file."""

    def add_lines(self, name: str, lines: Iterable[Any]) -> None:
        """Write a file of JSON Lines, each as it comes."""


class _Folder:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, name: str, content: bytes) -> None:
        path = self._folder / name
        path.parent.mkdir(mode=0o700, exist_ok=True)
        with os.fdopen(_private(path), "wb") as file:
            file.write(content)

    def add_lines(self, name: str, lines: Iterable[Any]) -> None:
        with os.fdopen(_private(self._folder / name), "w", encoding="utf-8") as file:
            for line in lines:
                file.write(_line(line))


class _Tar:
    def __init__(self, tar: tarfile.TarFile, beside: Path, seconds: int) -> None:
        self._tar = tar
        self._beside = beside
        self._seconds = seconds

    def add(self, name: str, content: bytes) -> None:
        self._add(name, io.BytesIO(content), len(content))

    def add_lines(self, name: str, lines: Iterable[Any]) -> None:
        # a tar says how long a file is before what is in it; pictures come between the lines
        with tempfile.TemporaryFile("w+b", dir=self._beside) as file:
            for line in lines:
                file.write(_line(line).encode())
            size = file.tell()
            file.seek(0)
            self._add(name, file, size)

    def _add(self, name: str, file: IO[bytes], size: int) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = size, 0o600, self._seconds
        self._tar.addfile(info, file)


def export(reading: Reading, path: Path, *, person_id: str | None, history: bool, now_ms: int, draw: Draw) -> Exported:
    """Write everybody, or one person with everything that is kept of them, to a folder or a file that ends in .tar.

    It has its name once it is whole. InvalidSchema: there is something of that name. ItemNotFound: no such person.
    """
    only = None if person_id is None else reading.person(person_id)
    with _target(path, now_ms // 1000) as target:
        return _Writing(reading, target, draw).run(only, history=history or only is not None, now_ms=now_ms)


class _Writing:
    def __init__(self, reading: Reading, target: Target, draw: Draw) -> None:
        self._reading = reading
        self._target = target
        self._draw = draw
        self._persons = self._pictures = self._sightings = 0
        self._lists = {one.list_id: one.name for one in reading.lists()}
        self._sources = {one.source_id: one.name for one in reading.sources()}

    def run(self, only: Kept | None, *, history: bool, now_ms: int) -> Exported:
        self._target.add_lines(PERSONS, self._persons_of(only))
        if history:
            person_id = None if only is None else only.person.person_id
            found = self._reading.sightings(person_id)
            self._target.add_lines(HISTORY, map(self._sighting, found))
        if only is None:
            for name, rows in (
                (LISTS, self._reading.lists()),
                (GROUPS, self._reading.groups()),
                (SOURCES, self._reading.sources()),
            ):
                self._target.add_lines(name, map(dataclasses.asdict, rows))
        done = Exported(self._persons, self._pictures, self._sightings)
        about = {"format": FORMAT, "edge": __version__, "made": _time(now_ms), **dataclasses.asdict(done)}
        self._target.add(ABOUT, json.dumps(about, indent=1).encode())
        return done

    def _persons_of(self, only: Kept | None) -> Iterator[dict[str, Any]]:
        total = 1 if only is not None else self._reading.count()
        for kept in self._reading.persons() if only is None else (only,):
            self._draw(min(self._persons, total), total)
            yield self._person(kept)
            self._persons += 1
        self._draw(total, total)

    def _person(self, kept: Kept) -> dict[str, Any]:
        templates = []
        for number, one in enumerate(kept.templates):
            name = f"{PICTURES}/{kept.person.person_id}-{number}.jpg"
            templates.append(
                {
                    "pack": one.pack_id,
                    "vector": [float(value) for value in one.embedding.vector],
                    "cohort_similarity": float(one.embedding.cohort_similarity),
                    "quality": one.quality,
                    "created": _time(one.created_ms),
                    "picture": self._kept_picture(one.picture, name),
                }
            )
        said = [{"sighting_id": id_, "created": _time(created_ms)} for id_, created_ms in kept.rejections]
        return {**self._record(kept.person), "templates": templates, "rejections": said}

    def _record(self, person: Person) -> dict[str, Any]:
        pose = person.pose
        return {
            "person_id": person.person_id,
            "list_id": person.list_id,
            "list": self._lists.get(person.list_id),
            "group_id": person.group_id,
            "source_id": person.source_id,
            "source": self._sources.get(person.source_id or ""),
            "created": _time(person.created_ms),
            "updated": _time(person.updated_ms),
            "fields": [*person.fields],
            "features": [*person.features],
            "pose": None if pose is None else dataclasses.asdict(pose),
            "score": person.score,
        }

    def _sighting(self, stored: StoredSighting) -> dict[str, Any]:
        one = stored.sighting
        self._sightings += 1
        vector = self._reading.vector_of(one.sighting_id)
        return {
            "sighting_id": one.sighting_id,
            "time": _time(one.time_ms),
            "list_id": one.list_id,
            "source_id": one.source_id,
            "group_id": one.group_id,
            "verdict": one.verdict.value,
            "person_id": one.person_id,
            "score": one.score,
            "threshold": one.threshold,
            "box": None if one.box is None else dataclasses.asdict(one.box),
            "reasons": [dataclasses.asdict(reason) for reason in one.reasons],
            "pack": None if vector is None else vector[0],
            "vector": None if vector is None else vector[1],
            "picture": self._kept_picture(stored.picture, f"{SIGHTINGS}/{one.sighting_id}.jpg"),
        }

    def _kept_picture(self, stored: str | None, name: str) -> str | None:
        """Write a picture; return its name in the export, None where there is none."""
        content = None if stored is None else self._reading.picture(stored)
        if content is None:
            return None
        self._target.add(name, content)
        self._pictures += 1
        return name


@contextlib.contextmanager
def _target(path: Path, seconds: int) -> Iterator[Target]:
    """Yield where to write to; it takes its name, on the disk, once nothing has gone wrong."""
    if path.exists():
        raise invalid("FOLDER", f"{path} is there already; an export is made anew, under a name of its own")
    beside = path.absolute().parent
    if path.suffix == TAR:
        with tempfile.NamedTemporaryFile(dir=beside, prefix=f".{path.name}.", delete=False) as file:  # mode 0600
            try:
                with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
                    yield _Tar(tar, beside, seconds)
                file.flush()
                os.fsync(file.fileno())
                Path(file.name).rename(path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
    else:
        temporary = Path(tempfile.mkdtemp(dir=beside, prefix=f".{path.name}."))  # mode 0700
        try:
            yield _Folder(temporary)
            for one in temporary.rglob("*"):
                durable.sync(one)
            durable.sync(temporary)
            temporary.rename(path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    durable.sync(beside)


def _private(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n"


def _time(milliseconds: int) -> str:
    moment = datetime.datetime.fromtimestamp(milliseconds // 1000, datetime.timezone.utc)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03d}Z"
