"""A real file system of a few megabytes, to be filled to the last page."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.gallery.space import free_bytes

PAGE = 4096


class SmallDisk:
    """A tmpfs; `filler` is the file of somebody else that takes the room."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.filler = folder / "filler"

    def fill(self, *, leaving: int) -> None:
        """Let so many bytes be free, whole pages; room is taken or given back."""
        if self.filler.exists():
            size = max(0, self.filler.stat().st_size + min(0, free_bytes(self.folder) - leaving))
            os.truncate(self.filler, size)
        taken = free_bytes(self.folder) - leaving
        if taken <= 0:
            return
        with self.filler.open("ab", buffering=0) as file:
            block = bytes(min(taken, 1 << 20))
            while taken > 0:
                try:
                    taken -= file.write(block[:taken])
                except OSError:
                    if leaving:
                        raise
                    return  # whoever else writes was quicker: nothing is free

    def empty(self) -> None:
        """Give all of it back."""
        self.filler.unlink(missing_ok=True)


@contextlib.contextmanager
def mounted(folder: Path, megabytes: int) -> Iterator[SmallDisk]:
    """Mount one, and take it away again. Raises OSError, CalledProcessError where that is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[SmallDisk]:
    """Mount one for a test; where that is not allowed, the test is skipped."""
    with contextlib.ExitStack() as stack:
        try:
            disk = stack.enter_context(mounted(folder, megabytes))
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("a file system may not be mounted here; tests/gallery/test_space.py says as much without one")
        yield disk
