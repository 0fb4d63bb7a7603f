"""The graphs of large lists on disk, so that a start need not build them: <data>/indexes/<list's number>.graph.

A saved graph is a cache of vectors. It is thrown away when anything about it is in doubt, and as soon as a template
that is in it has been removed: who is erased is in no file (index.py sees to that, for every way to remove somebody).
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import logging
import os
import signal
import threading
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from edge import durable
from edge.gallery.database import Database
from edge.gallery.graph import EF_CONSTRUCTION, NEIGHBOURS, Graph

log = logging.getLogger(__name__)

FOLDER_NAME = "indexes"

GRAPH_SUFFIX = ".graph"
SIDECAR_SUFFIX = ".json"
MARKER_SUFFIX = ".loading"
TEMPORARY_SUFFIX = ".tmp"

FORMAT = 1

CHUNK = 1 << 20
"""Bytes hashed at a time."""

BYTES_PER_ELEMENT = 160
"""Beside its vector: the links, of which one in fifteen has more, and the label (measured)."""

SPARE = 256 << 20
"""Bytes of disk that must stay free: enrolments come before a cache."""

DESCRIPTORS = 1 << 16
"""The child closes what it inherited up to here: the folder's lock must end with the service."""

SELECT_LIST_ID = "SELECT list_id FROM lists WHERE number = :number"
SELECT_GENERATION = "SELECT value FROM meta WHERE key = 'generation'"


class InDoubtError(Exception):
    """Why a saved graph is not to be used."""


@dataclass(frozen=True)
class Origin:
    """What must be the same for a saved graph to be of use."""

    format: int
    pack_id: str
    columns: int
    neighbours: int
    ef_construction: int
    list_number: int
    list_id: str


@dataclass(frozen=True)
class Sidecar:
    """What is known of a graph's file. `generation`: the rows' when it was written; `removed`: labels."""

    origin: Origin
    sha256: str
    bytes: int
    count: int
    removed: tuple[int, ...]
    generation: int


@dataclass(frozen=True)
class Snapshot:
    """A graph that is being written to the open file; the sidecar still lacks its size and checksum."""

    descriptor: int
    sidecar: Sidecar


class Shelf:
    """The folder of the saved graphs."""

    def __init__(self, database: Database, pack_id: str) -> None:
        """Take the data folder and the lists' ids from the database; `pack_id`: of the vectors."""
        self.folder = database.path.parent / FOLDER_NAME
        self.pack_id = pack_id
        self._database = database

    def of(self, list_number: int) -> SavedGraph:
        """Return the place of the list's graph."""
        return SavedGraph(self, list_number)

    def list_id(self, list_number: int) -> str:
        """Return the list's id: unlike its number it is never anybody else's, whatever backup was restored."""
        row = self._database.read().execute(SELECT_LIST_ID, {"number": list_number}).fetchone()
        if row is None:
            raise InDoubtError("there is no such list")
        return str(row[0])

    def generation(self) -> int:
        """Return the number that grows with every change of a template."""
        return int(self._database.read().execute(SELECT_GENERATION).fetchone()[0])

    def sweep(self, wanted: Collection[int]) -> None:
        """Remove everything but the files of these lists: what was left half written, lists that became small."""
        names = {f"{number}{suffix}" for number in wanted for suffix in (GRAPH_SUFFIX, SIDECAR_SUFFIX, MARKER_SUFFIX)}
        try:
            strays = [path for path in self.folder.iterdir() if path.name not in names]
        except FileNotFoundError:
            return
        for stray in strays:
            stray.unlink(missing_ok=True)
            log.info("%s was left over in the folder of saved indexes and is removed", stray.name)


class SavedGraph:
    """The place of one list's graph. `write` and `load` are for one thread; `discard` may be called from any."""

    def __init__(self, shelf: Shelf, list_number: int) -> None:
        """See Shelf.of."""
        self._shelf = shelf
        self._number = list_number
        self._lock = threading.Lock()
        self._child = 0
        self._is_void = False

    @property
    def is_there(self) -> bool:
        """Whether there is a file."""
        return self._path(SIDECAR_SUFFIX).exists()

    def _path(self, suffix: str) -> Path:
        return self._shelf.folder / f"{self._number}{suffix}"

    def discard(self) -> None:
        """Remove the files, and what is being written at this moment. When this returns, no vector is left."""
        with self._lock:
            self._is_void = True
            if self._child:
                os.kill(self._child, signal.SIGKILL)
            for path in (
                self._path(GRAPH_SUFFIX + TEMPORARY_SUFFIX),
                self._path(GRAPH_SUFFIX),
                self._path(SIDECAR_SUFFIX),
            ):
                path.unlink(missing_ok=True)

    # --- loading ---

    def load(self, columns: int, *, ef: int) -> Graph | None:
        """Return the graph as it was saved; None, and nothing left of it, if there is none or it is in doubt."""
        if not (self.is_there or self._path(GRAPH_SUFFIX).exists()):
            self._path(MARKER_SUFFIX).unlink(missing_ok=True)
            return None
        try:
            return self._loaded(columns, ef)
        except (InDoubtError, OSError, RuntimeError, MemoryError) as doubt:
            self.give_up(str(doubt))
            return None

    def give_up(self, why: str) -> None:
        """Remove the files, and say why."""
        log.warning("the saved index of list %d is thrown away and built anew: %s", self._number, why)
        self.discard()
        self._path(MARKER_SUFFIX).unlink(missing_ok=True)

    def _loaded(self, columns: int, ef: int) -> Graph:
        if self._path(MARKER_SUFFIX).exists():
            raise InDoubtError("a start ended while it was being loaded")
        sidecar = self._read_sidecar()
        if sidecar.origin != self._origin(columns):
            raise InDoubtError("it is of another pack, list or release")
        if sidecar.generation > self._shelf.generation():
            raise InDoubtError("it is newer than the database")
        with self._path(GRAPH_SUFFIX).open("rb") as file:  # by its descriptor: what is loaded is what was checked
            if os.fstat(file.fileno()).st_size != sidecar.bytes:
                raise InDoubtError("it has another size than it should")
            if _sha256(file.fileno()) != sidecar.sha256:
                raise InDoubtError("its checksum is wrong")
            self._path(MARKER_SUFFIX).touch(mode=0o600)
            graph = Graph.load(_path_of(file.fileno()), columns, frozenset(sidecar.removed), ef=ef)
        self._path(MARKER_SUFFIX).unlink()
        if graph.used != sidecar.count:
            raise InDoubtError("it has another number of templates than it should")
        return graph

    def _read_sidecar(self) -> Sidecar:
        try:
            written = json.loads(self._path(SIDECAR_SUFFIX).read_bytes())
            content = written["graph"]
            if written["sha256"] != hashlib.sha256(_text(content)).hexdigest():
                raise ValueError
            content["origin"] = Origin(**content["origin"])
            content["removed"] = tuple(content["removed"])
            return Sidecar(**content)
        except (ValueError, TypeError, KeyError, RecursionError):
            raise InDoubtError("its description cannot be read") from None

    def _origin(self, columns: int) -> Origin:
        return Origin(
            format=FORMAT,
            pack_id=self._shelf.pack_id,
            columns=columns,
            neighbours=NEIGHBOURS,
            ef_construction=EF_CONSTRUCTION,
            list_number=self._number,
            list_id=self._shelf.list_id(self._number),
        )

    # --- saving ---

    def begin(self, graph: Graph, columns: int) -> Snapshot:
        """Have the graph written as it is at this moment: call it while nobody uses the graph, and `finish` after.

        hnswlib holds the interpreter's lock while it writes, for tens of seconds on a slow card, so a child process
        writes: forked, it has the memory as it was, copied only where the service goes on to change it.
        """
        self._shelf.folder.mkdir(mode=0o700, exist_ok=True)
        self._check_room(graph.used * (4 * columns + BYTES_PER_ELEMENT))
        generation, origin = self._shelf.generation(), self._origin(columns)
        self._path(GRAPH_SUFFIX + TEMPORARY_SUFFIX).unlink(missing_ok=True)
        descriptor = os.open(
            self._path(GRAPH_SUFFIX + TEMPORARY_SUFFIX), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
        )
        try:
            with self._lock:
                self._is_void = False
                self._child = _forked(graph, descriptor)
        except BaseException:
            os.close(descriptor)
            self._path(GRAPH_SUFFIX + TEMPORARY_SUFFIX).unlink(missing_ok=True)
            raise
        return Snapshot(descriptor, Sidecar(origin, "", 0, graph.used, graph.removed_labels, generation))

    def _check_room(self, size: int) -> None:
        free = os.statvfs(self._shelf.folder)
        if free.f_bavail * free.f_frsize < size + SPARE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def finish(self, snapshot: Snapshot) -> bool:
        """Wait until it is written, and put it in the place of the last; False if it was discarded meanwhile.

        Raises OSError.
        """
        try:
            is_whole = self._reap()
            if not is_whole and not self._is_void:
                raise OSError("the process that wrote it failed")
            os.fsync(snapshot.descriptor)
            size = os.fstat(snapshot.descriptor).st_size
            known = dataclasses.replace(snapshot.sidecar, sha256=_sha256(snapshot.descriptor), bytes=size)
            with self._lock:
                if self._is_void:
                    return False
                self._path(GRAPH_SUFFIX + TEMPORARY_SUFFIX).rename(self._path(GRAPH_SUFFIX))
                _write(self._path(SIDECAR_SUFFIX), _described(known))
            return True
        finally:
            os.close(snapshot.descriptor)
            self._path(GRAPH_SUFFIX + TEMPORARY_SUFFIX).unlink(missing_ok=True)

    def _reap(self) -> bool:
        """Wait for the child; return whether it did what it should."""
        child = self._child
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # not reaped yet: its number cannot be anybody else's
        with self._lock:
            self._child = 0
            return os.waitpid(child, 0)[1] == 0


def _forked(graph: Graph, descriptor: int) -> int:
    """Return the process that writes the graph to the open file and ends."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.closerange(3, descriptor)
        os.closerange(descriptor + 1, DESCRIPTORS)
        graph.save(_path_of(descriptor))
        code = 0
    finally:
        os._exit(code)


def _path_of(descriptor: int) -> str:
    return f"/proc/self/fd/{descriptor}"


def _described(sidecar: Sidecar) -> bytes:
    """Return the sidecar as its file has it: JSON, with a checksum of its own."""
    content = dataclasses.asdict(sidecar)
    return _text({"graph": content, "sha256": hashlib.sha256(_text(content)).hexdigest()})


def _text(content: object) -> bytes:
    return json.dumps(content, sort_keys=True).encode()


def _sha256(descriptor: int) -> str:
    summed = hashlib.sha256()
    offset = 0
    while chunk := os.pread(descriptor, CHUNK, offset):
        summed.update(chunk)
        offset += len(chunk)
    return summed.hexdigest()


def _write(path: Path, content: bytes) -> None:
    """Write to a temporary name, fsync, rename, and see that the folder is on disk too."""
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    temporary.touch(mode=0o600)
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    durable.sync(path.parent)
