"""The backup file: an uncompressed tar that `tar tf` lists, read by a reader of our own that takes nothing on trust.

Every entry is named in manifest.json with its length and SHA-256, and manifest.sha256 holds that of the manifest: of a
file that was cut short, altered or added to, not a byte passes for whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from edge import calibration
from edge.errors import BackupUnusable, Mistake
from edge.gallery import access_schema, audit, schema, soundness
from edge.gallery.audit import AUDIT_NAME
from edge.gallery.core import PICTURES_NAME
from edge.gallery.database import DATABASE_NAME, refusing_when_full
from edge.packs import CHOICE_NAME

FORMAT = 1
"""The version of the file that this program reads and writes."""

ACCESS_NAME = "access.sqlite3"
KEYS_NAME = "keys.json"
SETTINGS_NAME = "edge.conf"
MANIFEST_NAME = "manifest.json"
SEAL_NAME = "manifest.sha256"

VERSIONS: Mapping[str, int] = {
    DATABASE_NAME: len(schema.MIGRATIONS),
    ACCESS_NAME: len(access_schema.MIGRATIONS),
    AUDIT_NAME: audit.VERSIONS,
}
"""The databases, and the newest version of each that this program knows."""

SMALL_BYTES = 1 << 20
"""Of keys, settings, the choice of a pack and a calibration: each has a few kilobytes."""

PICTURE_BYTES = 16 << 20
"""The largest kept picture, 2000 pixels of noise at quality 100, has 8 MB."""

MANIFEST_BYTES = 256 << 20
"""160 bytes for each picture: a million and a half of them."""

BLOCK = tarfile.BLOCKSIZE
TAIL_BYTES = 1 << 20
"""Zeros that may follow the last entry: tar fills up to 10 KB."""

_CHUNK = 1 << 20
_PICTURE = re.compile(rf"{PICTURES_NAME}/([0-9a-f]{{2}})/\1[0-9a-f]{{30}}\.jpg", re.ASCII)
_CALIBRATION = re.compile(rf"{calibration.FOLDER_NAME}/[A-Za-z0-9_-][A-Za-z0-9._-]{{0,80}}\.json", re.ASCII)


@dataclass(frozen=True)
class Manifest:
    """What a backup says of itself."""

    made: str
    """When its databases were copied: ISO 8601, UTC."""
    edge_version: str
    persons: int
    templates: int
    pictures: int
    pack_id: str | None
    """Of the templates."""
    packs: tuple[tuple[str, str], ...]
    """Names and ids of the packs that were there; the packs themselves are not in the backup."""
    entries: Mapping[str, tuple[int, str]] = field(repr=False)
    """Length in bytes and SHA-256 of each entry."""


def is_picture(name: str) -> bool:
    """Whether an entry is a picture."""
    return _PICTURE.fullmatch(name) is not None


def limit_of(name: str) -> int | None:
    """Return how many bytes the entry may have (a database: as many as the file), None for one that has no place."""
    if name in VERSIONS:
        return 1 << 62
    if is_picture(name):
        return PICTURE_BYTES
    if name == MANIFEST_NAME:
        return MANIFEST_BYTES
    if name in (KEYS_NAME, SETTINGS_NAME, CHOICE_NAME, SEAL_NAME) or _CALIBRATION.fullmatch(name):
        return SMALL_BYTES
    return None


# --- writing ---


class Writer:
    """Writes entries one after the other, and at the end what they were."""

    def __init__(self, file: IO[bytes], seconds: int) -> None:
        """`seconds` since 1970: the time that every entry gets."""
        self._tar = tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT)  # noqa: SIM115 (closed by `finish`)
        self._seconds = seconds
        self._entries: dict[str, tuple[int, str]] = {}

    def add(self, name: str, file: IO[bytes], size: int) -> None:
        """Copy `size` bytes of the file. OSError: it has fewer."""
        hashed = _Hashed(file)
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = size, 0o600, self._seconds
        self._tar.addfile(info, hashed)
        self._entries[name] = (size, hashed.sha256.hexdigest())

    def add_bytes(self, name: str, content: bytes) -> None:
        """Write one entry."""
        self.add(name, io.BytesIO(content), len(content))

    def finish(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest, with every entry so far, and its seal."""
        entries = {name: {"bytes": size, "sha256": digest} for name, (size, digest) in self._entries.items()}
        content = json.dumps({"format": FORMAT, **manifest, "entries": entries}, indent=1).encode()
        self.add_bytes(MANIFEST_NAME, content)
        self.add_bytes(SEAL_NAME, _seal(content))
        self._tar.close()


def _seal(manifest: bytes) -> bytes:
    """Return what `sha256sum` writes of the manifest."""
    return f"{hashlib.sha256(manifest).hexdigest()}  {MANIFEST_NAME}\n".encode()


class _Hashed:
    """A file that is hashed as it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.sha256.update(data)
        return data


# --- reading ---


def unpack(path: Path, folder: Path, *, names: frozenset[str] | None = None, reuse: Path | None = None) -> Manifest:
    """Check the whole backup and write entries into the folder, which must be empty; return what it says of itself.

    `names`: the entries wanted besides the databases, which are always checked and so always written, and
    PICTURES_NAME for all pictures (None: everything). A picture that lies in the folder `reuse` already, whole, is
    linked instead of written. Raises BackupUnusable, StorageFull, OSError; the folder is then to be thrown away.
    """
    seen: dict[str, tuple[int, str]] = {}
    manifest: bytes = b""
    seal: bytes = b""
    with refusing_when_full(), _opened(path) as file:
        for entry in _entries(file, path.name):
            if entry.name in seen:
                raise _unusable(path.name, f"holds {entry.name} twice")
            if entry.name == MANIFEST_NAME:
                manifest = b"".join(entry.chunks())
            elif entry.name == SEAL_NAME:
                seal = b"".join(entry.chunks())
            else:
                wanted = names is None or entry.name in names or entry.name in VERSIONS
                wanted = wanted or (is_picture(entry.name) and PICTURES_NAME in (names or ()))
                _take(entry, folder / entry.name if wanted else None, reuse)
            seen[entry.name] = (entry.size, entry.sha256.hexdigest())
    found = _manifest(path.name, manifest, seal, seen)
    for name, versions in VERSIONS.items():
        fault = soundness.file_fault(folder / name, versions) if name in seen else None
        if fault is not None:
            raise _unusable(path.name, f"its {name} {fault}")
    return found


def _unusable(field_name: str, reason: str) -> BackupUnusable:
    return BackupUnusable(Mistake(field_name, reason))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        file = path.open("rb")
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise _unusable(str(path), f"cannot be read: {error.strerror}") from error
    with file:
        yield file


@dataclass(eq=False)
class _Entry:
    """An entry, to be read once before the next one."""

    name: str
    size: int
    file: IO[bytes]
    backup: str
    sha256: Any = field(default_factory=hashlib.sha256)

    def chunks(self) -> Iterator[bytes]:
        left = self.size
        while left:
            data = self.file.read(min(left, _CHUNK))
            if not data:
                raise _unusable(self.backup, f"ends within {self.name}: it was cut short")
            left -= len(data)
            self.sha256.update(data)
            yield data


def _entries(file: IO[bytes], backup: str) -> Iterator[_Entry]:
    """Yield what is in the tar; every block is accounted for. Raises BackupUnusable."""
    whole = os.fstat(file.fileno()).st_size
    while True:
        block = file.read(BLOCK)
        if len(block) < BLOCK:
            raise _unusable(backup, "ends without an end: it was cut short, or is no backup")
        if not any(block):
            break
        entry = _header(block, file, backup)
        if entry.size > whole - file.tell():
            raise _unusable(backup, f"ends within {entry.name}: it was cut short")
        yield entry
        if any(file.read(-entry.size % BLOCK)):
            raise _unusable(backup, f"holds something between {entry.name} and the next entry")
    if any(file.read(TAIL_BYTES)) or file.read(1):
        raise _unusable(backup, "holds something after its end")


def _header(block: bytes, file: IO[bytes], backup: str) -> _Entry:
    try:
        info = tarfile.TarInfo.frombuf(block, "ascii", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError, ValueError):
        raise _unusable(backup, "is no backup, or is damaged: where an entry should begin, none does") from None
    if info.type != tarfile.REGTYPE:
        raise _unusable(backup, f"holds {info.name!r}, which is no plain file")
    limit = limit_of(info.name)
    if limit is None:
        raise _unusable(backup, f"holds {info.name!r}, which has no place in a backup")
    if not 0 <= info.size <= limit:
        raise _unusable(backup, f"its {info.name} says that it has {info.size:,} bytes; {limit:,} are the most")
    return _Entry(info.name, info.size, file, backup)


def _take(entry: _Entry, path: Path | None, reuse: Path | None) -> None:
    """Hash the entry and write it, durably; nothing is written where no path is given."""
    if path is None:
        for _ in entry.chunks():
            pass
        return
    for parent in (path.parent.parent, path.parent):
        parent.mkdir(mode=0o700, exist_ok=True)
    if is_picture(entry.name):
        data = b"".join(entry.chunks())
        there = reuse / entry.name if reuse else None
        if there is not None and _is_same(there, data):
            with contextlib.suppress(OSError):  # not every file system can
                path.hardlink_to(there)
                return
        chunks: Iterator[bytes] = iter([data])
    else:
        chunks = entry.chunks()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        for chunk in chunks:
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())


def _is_same(path: Path, data: bytes) -> bool:
    try:
        return not path.is_symlink() and path.read_bytes() == data
    except OSError:
        return False


def _manifest(backup: str, content: bytes, seal: bytes, seen: Mapping[str, tuple[int, str]]) -> Manifest:
    """Return the manifest, after everything that it says of the entries was found to be so."""
    if not content or not seal:
        raise _unusable(backup, "has no manifest: it was cut short, or is no backup")
    if seal != _seal(content):
        raise _unusable(backup, f"its {MANIFEST_NAME} or {SEAL_NAME} is damaged: the one is not the other's")
    try:
        told = json.loads(content)
        if told["format"] != FORMAT:
            raise _unusable(backup, f"is of format {told['format']}; this program reads {FORMAT}")
        entries = {str(name): (int(one["bytes"]), str(one["sha256"])) for name, one in told["entries"].items()}
        found = Manifest(
            str(told["made"]),
            str(told["edge_version"]),
            int(told["persons"]),
            int(told["templates"]),
            int(told["pictures"]),
            None if told["pack_id"] is None else str(told["pack_id"]),
            tuple((str(name), str(id_)) for name, id_ in told["packs"]),
            entries,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unusable(backup, f"its {MANIFEST_NAME} cannot be read: {error!r}") from None
    there = {name: one for name, one in seen.items() if name not in (MANIFEST_NAME, SEAL_NAME)}
    for name in sorted(entries.keys() | there.keys()):
        if name not in there:
            raise _unusable(backup, f"{name} is missing")
        if name not in entries:
            raise _unusable(backup, f"holds {name}, which its manifest does not name")
        if entries[name] != there[name]:
            raise _unusable(backup, f"{name} is damaged: length or SHA-256 is not that of the manifest")
    if DATABASE_NAME not in there:
        raise _unusable(backup, f"{DATABASE_NAME} is missing")
    return found
