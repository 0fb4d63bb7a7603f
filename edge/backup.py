"""Making a backup while the service runs: one file with everything that a new box needs to be this one.

The databases are copied first, each in one read transaction, then the pictures that the copy names. Who is erased
meanwhile is taken out of the copy again. The file gets its name only when it is whole, on disk, and has been read back.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge import __version__, archive, calibration, durable
from edge.archive import Manifest, Writer
from edge.errors import BackupUnusable, GalleryUnusable, Mistake, StorageFull
from edge.gallery import backup as rows
from edge.gallery.audit import AUDIT_NAME
from edge.gallery.core import PICTURES_NAME
from edge.gallery.database import DATABASE_NAME, refusing_when_full
from edge.packs import CHOICE_NAME

FOLDER_NAME = "backups"
"""In the data folder: what `edge backup --auto` makes, and what a broken database is restored from."""

SPARE_BYTES = 64 << 20
"""What must be left free on the disk after a backup: under it the service adds nobody."""

Draw = Callable[[int, int], None]
"""Is told how far it is: pictures dealt with, of how many."""

_AUTO = re.compile(r"edge-\d{8}T\d{6}\.\d{3}Z\.tar", re.ASCII)
_WORKING = ".edge-backup-"


@dataclass(frozen=True)
class Made:
    """A backup that was made, and read back."""

    path: Path
    size: int
    manifest: Manifest
    erased_meanwhile: int


def make(
    data_folder: Path, target: Path, *, settings: str, packs: Sequence[tuple[str, str]], now_ms: int, draw: Draw
) -> Made:
    """Write the backup file and read it back, checked to the last byte.

    `settings`: the text of a settings file; `packs`: names and ids of what is there. Raises BackupUnusable (`target` is
    there already, is no file in a folder, or could not be read back), GalleryUnusable (no gallery, or a broken one),
    StorageFull. Whatever happens, the target's name stands for a whole backup or is not there.
    """
    if target.exists() or not target.parent.is_dir():
        reason = "is there already" if target.exists() else f"there is no folder {target.parent}"
        raise BackupUnusable(Mistake(str(target), reason), message="the backup cannot be written")
    with refusing_when_full(), _working(target.parent) as working:
        written = working / target.name
        erased = _write(data_folder, working, written, settings=settings, packs=packs, now_ms=now_ms, draw=draw)
        (working / "read-back").mkdir(mode=0o700)
        manifest = archive.unpack(written, working / "read-back", names=frozenset())
        written.rename(target)
        durable.sync(target.parent)
    return Made(target, target.stat().st_size, manifest, erased)


def automatic(
    data_folder: Path, keep: int, *, settings: str, packs: Sequence[tuple[str, str]], now_ms: int, draw: Draw
) -> Made:
    """Make a backup in <data>/backups and, once it has been read back, remove the oldest beyond `keep`."""
    folder = data_folder / FOLDER_NAME
    folder.mkdir(mode=0o700, exist_ok=True)
    moment = datetime.datetime.fromtimestamp(now_ms // 1000, datetime.timezone.utc)
    target = folder / f"edge-{moment:%Y%m%dT%H%M%S}.{now_ms % 1000:03d}Z.tar"
    made = make(data_folder, target, settings=settings, packs=packs, now_ms=now_ms, draw=draw)
    others = [path for path in kept(data_folder) if path != made.path]  # a clock set back does not make it the oldest
    for path in others[keep - 1 :]:
        path.unlink()
    return made


def kept(data_folder: Path) -> list[Path]:
    """Return the automatic backups, the newest first."""
    with contextlib.suppress(FileNotFoundError):
        return sorted((p for p in (data_folder / FOLDER_NAME).iterdir() if _AUTO.fullmatch(p.name)), reverse=True)
    return []


@contextlib.contextmanager
def _working(folder: Path) -> Iterator[Path]:
    """Yield a folder beside the target for what is not whole yet; those of killed runs go."""
    for left in folder.glob(f"{_WORKING}*"):
        with contextlib.suppress(OSError), _locked(left):  # not one that is at work, or somebody else's
            shutil.rmtree(left)
    working = Path(tempfile.mkdtemp(prefix=_WORKING, dir=folder))  # for its owner alone
    with _locked(working):
        try:
            yield working
        finally:
            shutil.rmtree(working, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _write(
    data_folder: Path,
    working: Path,
    target: Path,
    *,
    settings: str,
    packs: Sequence[tuple[str, str]],
    now_ms: int,
    draw: Draw,
) -> int:
    """Write the file, durably; return how many persons were erased meanwhile."""
    copy = working / DATABASE_NAME
    try:
        rows.copy(data_folder / DATABASE_NAME, copy)
    except FileNotFoundError:
        raise GalleryUnusable(message=f"there is no gallery in {data_folder}: nothing to back up") from None
    access = working / archive.ACCESS_NAME
    audit = working / AUDIT_NAME
    for beside in (access, audit):
        with contextlib.suppress(FileNotFoundError):
            rows.copy(data_folder / beside.name, beside, mode="rw")
    names = [f"{PICTURES_NAME}/{name[:2]}/{name}.jpg" for name in rows.pictures(copy)]
    _check_room(data_folder, working, [copy, access, audit], names)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        writer = Writer(file, now_ms // 1000)
        missing = _add_pictures(writer, data_folder, names, draw)
        erased = rows.follow_erasures(copy, data_folder / DATABASE_NAME, missing)
        for path in (copy, access, audit):
            if path.exists():
                _add_file(writer, path.name, path)
        measured = (data_folder / calibration.FOLDER_NAME).glob("*.json")
        small = [archive.KEYS_NAME, CHOICE_NAME, *(f"{calibration.FOLDER_NAME}/{path.name}" for path in measured)]
        for name in small:
            if archive.limit_of(name) is not None and (data_folder / name).exists():
                _add_file(writer, name, data_folder / name)
        writer.add_bytes(archive.SETTINGS_NAME, settings.encode())
        held = rows.contents(copy)
        moment = datetime.datetime.fromtimestamp(now_ms // 1000, datetime.timezone.utc)
        writer.finish(
            {
                "made": f"{moment:%Y-%m-%dT%H:%M:%S}.{now_ms % 1000:03d}Z",
                "edge_version": __version__,
                "schema_version": held.version,
                "persons": held.persons,
                "templates": held.templates,
                "pictures": len(names) - len(missing),
                "pack_id": held.pack_id,
                "packs": [list(pack) for pack in packs],
            }
        )
        file.flush()
        os.fsync(file.fileno())
    return erased


def _check_room(data_folder: Path, working: Path, databases: Sequence[Path], pictures: Sequence[str]) -> None:
    """Raise StorageFull where the backup would not fit, before anything large is written."""
    needed = 0
    for path in (*databases, *(data_folder / name for name in pictures)):
        with contextlib.suppress(FileNotFoundError):
            needed += path.stat().st_size + archive.BLOCK
    needed += sum(path.stat().st_size for path in databases if path.exists())  # read back beside the file
    free = shutil.disk_usage(working).free
    if free < needed + SPARE_BYTES:
        reason = f"the backup needs {needed >> 20} MB beside {SPARE_BYTES >> 20} MB to spare, {free >> 20} MB are free"
        raise StorageFull(Mistake(str(working.parent), reason))


def _add_pictures(writer: Writer, data_folder: Path, names: Sequence[str], draw: Draw) -> set[str]:
    """Copy the pictures; return the names (without folder) of those that are not there (any more)."""
    missing = set()
    draw(0, len(names))
    for done, name in enumerate(names, 1):
        try:
            content = (data_folder / name).read_bytes()
        except OSError:  # erased meanwhile, or on a page of the disk that cannot be read: the rest is worth having
            content = None
        if content is None or len(content) > archive.PICTURE_BYTES:
            missing.add(Path(name).stem)
        else:
            writer.add_bytes(name, content)
        draw(done, len(names))
    return missing


def _add_file(writer: Writer, name: str, path: Path) -> None:
    with path.open("rb") as file:
        writer.add(name, file, os.fstat(file.fileno()).st_size)
