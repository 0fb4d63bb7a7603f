"""Picture files: <data>/pictures/ab/<random name>.jpg, each whole or not there at all."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from edge import durable
from edge.errors import GalleryUnusable
from edge.gallery import spool
from edge.gallery.database import refusing_when_full

log = logging.getLogger(__name__)

SUFFIX = ".jpg"
TEMPORARY_SUFFIX = ".new"

_NAME = re.compile(r"[0-9a-f]{32}", re.ASCII)
_PREFIXES = tuple(f"{number:02x}" for number in range(256))


class Pictures:
    """The folder of pictures. Names are 32 random hexadecimal digits, so they tell nothing and cannot be guessed."""

    def __init__(self, folder: Path) -> None:
        """`folder` is made if it is missing. Raises GalleryUnusable where that cannot be, StorageFull."""
        self._folder = folder
        with refusing_when_full():
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError, PermissionError) as error:
                raise GalleryUnusable(
                    message=f"the picture folder {folder} cannot be made: {error.strerror}"
                ) from error

    def save(self, pictures: Sequence[bytes]) -> list[str]:
        """Put the pictures on disk, durably, and return their names in order; all of them or none.

        Those of one call share a folder, so that it is fsynced once for all, and all of them are on their way to the
        disk before the first is waited for: a journal's commit then takes many at once. Raises StorageFull.
        """
        if not pictures:
            return []
        prefix = _PREFIXES[secrets.randbelow(len(_PREFIXES))]
        names: list[str] = []
        try:
            with refusing_when_full():
                folder = self._made(prefix)
                names = [prefix + secrets.token_hex(15) for _ in pictures]
                _write(folder, dict(zip(names, pictures, strict=True)))
                durable.sync(folder)
        except BaseException:
            self.delete(names)
            raise
        return names

    def _made(self, prefix: str) -> Path:
        folder = self._folder / prefix
        if not folder.is_dir():
            folder.mkdir(mode=0o700, exist_ok=True)
            durable.sync(self._folder)
        return folder

    def read(self, name: str) -> bytes | None:
        """Return the picture's bytes, None if there is none of that name."""
        if not _NAME.fullmatch(name):
            return None
        try:
            return self._path(name).read_bytes()
        except FileNotFoundError:
            return None

    def delete(self, names: Iterable[str]) -> None:
        """Remove the files, and what another pack has made of them so far.

        Those that are not there are passed over, those that cannot go are left to the sweep.
        """
        names = list(names)
        for name in names:
            try:
                self._path(name).unlink(missing_ok=True)
            except OSError:
                log.warning("the picture %s could not be removed; the next start tries again", name, exc_info=True)
        spool.forget(self._folder.parent, names)

    def _path(self, name: str) -> Path:
        return self._folder / name[:2] / (name + SUFFIX)

    def sweep(self, named: Callable[[str], Collection[str]]) -> list[str]:
        """Remove what no row names and what was left half written; return the names whose file is missing.

        `named(prefix)` gives the names in use that begin with the two digits. Only at a start, before anything is
        saved: a file is on disk a moment before its row.
        """
        missing: list[str] = []
        removed = 0
        for prefix in _PREFIXES:
            folder = self._folder / prefix
            wanted = {name + SUFFIX for name in named(prefix)}
            try:
                present = _listed(folder)
            except OSError:
                log.warning("the pictures in %s could not be checked", folder, exc_info=True)
                continue
            for stray in present - wanted:
                removed += 1
                with contextlib.suppress(OSError):
                    (folder / stray).unlink()
            missing.extend(file.removesuffix(SUFFIX) for file in sorted(wanted - present))
        if removed:
            log.info("%d picture files that no row names were removed", removed)
        return missing


def _listed(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))  # noqa: PTH208 (names alone: a Path for each of 100,000 files takes a second)
    except FileNotFoundError:
        return set()


def _write(folder: Path, pictures: Mapping[str, bytes]) -> None:
    """Write to temporary names, fsync, rename: a final name never stands for half a picture."""
    temporaries = {name: folder / (name + TEMPORARY_SUFFIX) for name in pictures}
    try:
        for name, picture in pictures.items():
            with _opened(temporaries[name], os.O_WRONLY | os.O_CREAT | os.O_EXCL) as descriptor:
                _write_all(descriptor, picture)
                with contextlib.suppress(OSError):  # a hint
                    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)  # starts the writing, does not wait
        for temporary in temporaries.values():
            durable.sync(temporary)
        for name, temporary in temporaries.items():
            temporary.rename(folder / (name + SUFFIX))
    except BaseException:
        for temporary in temporaries.values():
            temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:  # a disk that is nearly full takes a part before it refuses
        rest = rest[os.write(descriptor, rest) :]
