"""How much room is left on the data folder's disk, and what may still be written: decided here and nowhere else.

    ok      everything goes on
    low     the pictures of the oldest sightings make room (see upkeep), so that persons can still be added
    full    nothing is added or changed, and if that helps, the oldest sightings make room; recognising goes on, its
            sightings are not kept; erasing goes on

Erasing writes before it frees: rows go through the write-ahead log, and are overwritten there. So that it works with
not one byte left, <data>/ballast holds room that is given back then.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge.errors import Mistake, StorageFull

log = logging.getLogger(__name__)

MEGABYTE = 1 << 20

BALLAST_NAME = "ballast"

BALLAST_BYTES = 32 * MEGABYTE
"""Erasing a person takes under 1 MB, a checkpoint as much as the log holds (database.LOG_BYTES)."""

RESERVE_BYTES = 64 * MEGABYTE
"""Free bytes under which nothing is added, where the settings say nothing else: the log, a vacuum, other services."""

LOW_FACTOR = 1.5
"""Times the reserve: where the history begins to make room, so that enrolments are refused only when it has none."""

LITTLE_BYTES = MEGABYTE // 2
"""A row of the audit log or of the tokens takes a tenth of it, with its journal."""

SPARE_BYTES = MEGABYTE
"""What the ballast leaves free as it grows again, for whoever is about to write."""

LOOK_SECONDS = 1.0
"""How old an answer of the file system may be: in a second not even a fast camera fills a megabyte."""


class State(enum.Enum):
    """What may be written."""

    OK = "ok"
    LOW = "low"
    FULL = "full"


@dataclass(frozen=True)
class Room:
    """What is free beside the ballast, and what follows from it."""

    free_bytes: int
    state: State


def free_bytes(folder: Path) -> int:
    """Return what a process without privileges may still write to the folder's file system. Raises OSError."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


class Space:
    """The room of one data folder. Safe to use from several threads."""

    def __init__(
        self,
        folder: Path,
        *,
        reserve_bytes: int = RESERVE_BYTES,
        free: Callable[[Path], int] = free_bytes,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`reserve_bytes`: what stays free; `free`: asks the file system."""
        self._folder = folder
        self._reserve_bytes = reserve_bytes
        self._free = free
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._is_given = False
        self._looked_at = -LOOK_SECONDS
        self._seen = Room(0, State.OK)

    def room(self, *, fresh: bool = False) -> Room:
        """Return what is free, as it was within the last second or (`fresh`) as it is."""
        with self._lock:
            now = self._monotonic()
            if fresh or now - self._looked_at >= LOOK_SECONDS:
                self._seen, self._looked_at = self._look(), now
            return self._seen

    def check(self) -> None:
        """Raise StorageFull, saying how much is free, where nothing may be added."""
        room = self.room()
        if room.state is State.FULL:
            free, kept = room.free_bytes // MEGABYTE, self._reserve_bytes // MEGABYTE
            reason = f"{free} MB are free, {kept} are kept for recognising and erasing; delete something or make room"
            raise StorageFull(Mistake("data.folder", reason), free_megabytes=free, least_megabytes=kept)

    def _look(self) -> Room:
        try:
            free = self._free(self._folder)
        except OSError:
            free = 0  # of a disk that does not even say this, nothing is asked
        state = State.OK
        if free < self._reserve_bytes:
            state = State.FULL
        elif free < self._reserve_bytes * LOW_FACTOR:
            state = State.LOW
        if state is not self._seen.state:
            log.log(
                logging.INFO if state is State.OK else logging.WARNING,
                "the disk of %s is %s: %d MB free",
                self._folder,
                state.value,
                free // MEGABYTE,
            )
        return Room(free, state)

    # --- the ballast ---

    def make_way(self, least_bytes: int = BALLAST_BYTES) -> None:
        """Give the ballast back if there is less than that free: somebody is to be erased, and that must not fail."""
        with self._lock, contextlib.suppress(OSError):
            if self._free(self._folder) < least_bytes and self._ballast_bytes():
                self._ballast.unlink()
                self._is_given = True
                log.warning("the ballast was given back for erasing")

    def take_back(self) -> None:
        """Make the ballast again if it was given back: whoever fills the disk has that long, to the end of an erasure.

        Without it somebody would have two seconds, until the folder's upkeep looks, and then the next erasure no room.
        """
        if self._is_given:
            self.keep_ballast()

    def keep_ballast(self) -> None:
        """Make the ballast, or as much of it as fits; what is there of it stays. A disk that refuses is asked again."""
        with self._lock, contextlib.suppress(OSError):
            self._is_given = False
            present = self._ballast_bytes()
            wanted = min(BALLAST_BYTES, present + self._free(self._folder) - SPARE_BYTES)
            if wanted < min(BALLAST_BYTES, present + SPARE_BYTES) or present >= BALLAST_BYTES:
                return
            descriptor = os.open(self._ballast, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, wanted)
            except OSError:
                os.ftruncate(descriptor, present)  # whatever part of it was allocated
            finally:
                os.close(descriptor)

    @property
    def _ballast(self) -> Path:
        return self._folder / BALLAST_NAME

    def _ballast_bytes(self) -> int:
        """Return what is really allocated: a copy of the folder may have brought a file of holes."""
        try:
            return self._ballast.stat().st_blocks * 512
        except FileNotFoundError:
            return 0
