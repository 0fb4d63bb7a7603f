"""What `edge doctor` finds of the machine: cores, heat, memory, and the file system under the data folder.

All of it from files of the kernel's, under a root that a test may give.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

KILOBYTE = 1024
MEGABYTE = 1 << 20

START_BYTES = 320 * MEGABYTE
"""What a service of two workers takes after 10,000 frames (see daemon.bound_memory)."""

RUNNING_BYTES = 64 * MEGABYTE
"""What should be left beside a service that runs: less than that and the kernel ends a process sooner or later."""

HOT_DEGREES = 80.0
"""Where a Raspberry Pi begins to slow down (its documentation, "Frequency management and thermal control")."""

OWN_SCALING = ("intel_pstate", "amd-pstate-epp", "amd_pstate_epp")
"""Drivers whose `powersave` is a governor that follows the load; everybody else's is the lowest frequency."""

NETWORK_SYSTEMS = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "9p", "ceph", "glusterfs", "fuse.glusterfs")
"""SQLite's write-ahead log needs memory that all its processes share: sqlite.org/wal.html, "Overview"."""

BARE_SYSTEMS = ("vfat", "msdos", "exfat")
"""Without owners, permissions and hard links."""


class Level(enum.Enum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what it is like and, unless all is well, what to do."""

    check: str
    level: Level
    message: str
    advice: str = ""


def ok(check: str, message: str) -> Finding:
    """Return that all is well."""
    return Finding(check, Level.OK, message)


def warn(check: str, message: str, advice: str) -> Finding:
    """Return that something should be mended."""
    return Finding(check, Level.WARN, message, advice)


def fail(check: str, message: str, advice: str) -> Finding:
    """Return that something must be mended."""
    return Finding(check, Level.FAIL, message, advice)


def cores(count: int, workers: int, threads: int) -> Finding:
    """Return whether there are cores for the networks."""
    told = f"{count} cores, {workers} workers of {threads} threads"
    if workers * threads > count:
        advice = "they take each other's turn: lower models.workers or models.threads_per_face"
        return warn("cores", told, advice)
    return ok("cores", told)


def governor(root: Path = Path("/")) -> Finding:
    """Return whether the cores may be as fast as they can."""
    found = set()
    for folder in root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq"):
        if (name := _text(folder / "scaling_governor")) is not None:
            slow = name == "powersave" and _text(folder / "scaling_driver") not in OWN_SCALING
            found.add((name, slow))
    told = ", ".join(sorted({name for name, _ in found})) or "not told (a virtual machine has none)"
    if any(slow for _, slow in found):
        advice = "the cores stay at their lowest frequency: cpupower frequency-set -g ondemand (or schedutil)"
        return warn("governor", told, advice)
    return ok("governor", told)


def temperature(root: Path = Path("/")) -> Finding:
    """Return whether the processor is near to where it slows down."""
    read = (_text(path) for path in root.glob("sys/class/thermal/thermal_zone*/temp"))
    degrees = [int(text) / 1000 for text in read if text is not None and text.lstrip("-").isdecimal()]
    if not degrees:
        return ok("temperature", "not told")
    told = f"{max(degrees):.0f} °C"
    if max(degrees) >= HOT_DEGREES:
        return warn("temperature", told, "the processor slows down: give it a heat sink or a fan")
    return ok("temperature", told)


def memory(*, is_running: bool, root: Path = Path("/")) -> Finding:
    """Return whether the memory that is free is enough to start, or to go on."""
    lines = (line.split() for line in (_text(root / "proc/meminfo") or "").splitlines())
    free = next((int(line[1]) * KILOBYTE for line in lines if line[0] == "MemAvailable:"), None)
    if free is None:
        return ok("memory", "not told")
    least = RUNNING_BYTES if is_running else START_BYTES
    told = f"{free // MEGABYTE} MB free"
    if free < least:
        advice = f"{least // MEGABYTE} MB are wanted: end what else runs, or lower models.workers"
        return warn("memory", told, advice)
    return ok("memory", told)


def file_system(folder: Path, root: Path = Path("/")) -> Finding:
    """Return whether the folder, which need not be there yet, lies on what a database may lie on."""
    kind = _kind_of(folder.absolute(), root)
    if kind in NETWORK_SYSTEMS:
        return fail("file system", f"{kind}, of a network", "move data.folder to a disk of this machine")
    if kind in BARE_SYSTEMS:
        return fail("file system", f"{kind}, without permissions", "move data.folder to ext4, XFS, Btrfs or F2FS")
    if kind in ("tmpfs", "ramfs"):
        return warn("file system", f"{kind}, in memory", "nothing outlives a restart there: move data.folder to a disk")
    return ok("file system", kind or "not told")


def _kind_of(folder: Path, root: Path) -> str | None:
    """Return the type of the mount that the folder lies in (proc_pid_mountinfo(5))."""
    mounts = []
    for number, line in enumerate((_text(root / "proc/self/mountinfo") or "").splitlines()):
        before, _, after = line.partition(" - ")
        at = Path(before.split()[4].replace("\\040", " "))
        if after and folder.resolve().is_relative_to(at):
            mounts.append((len(at.parts), number, after.split()[0]))  # of two at one place the later counts
    return max(mounts)[2] if mounts else None


def worst(findings: Iterable[Finding]) -> Level:
    """Return the worst of them."""
    return max((one.level for one in findings), key=list(Level).index, default=Level.OK)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
