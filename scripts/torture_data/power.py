"""Power cuts: the service writes to a file system of its own, in an image whose blocks are copied at random moments.

It is frozen meanwhile. What only the page cache holds is not among the blocks. The copy is mounted, opened and compared
with what clients had been told by then. Blocks that the file system has handed to the device count as written, whether
or not it flushed them.

Half of the cuts are made while pictures and sightings are written, people erased, and tokens made and revoked, half
while vectors alone are added and replaced: then nothing but the commit itself brings the log to the disk. The control
run is like the latter, with synchronous=NORMAL: it must lose what was told, or the cuts show nothing. Needs root, loop
devices and ext4.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from real_process import Service

from edge import assembly, catalogue, restoring
from edge.gallery.store import EmbeddedGallery
from torture_data import report
from torture_data.callers import SETTINGS, Callers
from torture_data.ledger import Ledger
from torture_data.report import Report
from torture_data.tokens import Tokens

IMAGE_MEGABYTES = 160
BETWEEN_CHANGES = (5, 60)
"""Answers between two cuts; counted, so that a busy machine has something to lose as well."""

WAIT_SECONDS = 60.0
REAL_STARTS = 20
"""Every so many cuts the copy is opened by the real process instead of by its gallery alone."""

PACK = Path(__file__).resolve().parent.parent.parent / "models" / "default"

WITHOUT_SYNC = """
import sys
from edge.gallery import database
database._PRAGMAS = tuple(one.replace("= FULL", "= NORMAL") for one in database._PRAGMAS)
from edge.cli import main
sys.exit(main())
"""
"""The control: the same program, but that a commit does not wait for the disk."""


def main(arguments: list[str]) -> int:
    """Run the verb."""
    parser = report.options(__doc__, "power")
    parser.add_argument("--rounds", type=int, default=200, help="cuts")
    parser.add_argument("--control-rounds", type=int, default=40, help="cuts of the control run")
    options = parser.parse_args(arguments)
    told = Report("power")
    with report.working_folder(options.folder) as folder:
        try:
            with _image(folder / "probe", megabytes=8):
                pass
        except (OSError, subprocess.CalledProcessError) as error:
            return told.not_possible(f"no loop image may be mounted here ({error})")
        bare = options.rounds - options.rounds // 2
        answered = _cut(folder / "pictures", told, options.rounds - bare, options.seed, pictures=True)
        answered += _cut(folder / "vectors", told, bare, options.seed)
        control = Report("power, control")
        control.add = lambda where, violations: control.violations.extend(violations)  # type: ignore[method-assign]
        _cut(folder / "normal", control, options.control_rounds, options.seed, without_sync=True)
        lost = sum(one.startswith("lost") for one in control.violations)
        told.check("the control run", lost > 0, "synchronous=NORMAL lost nothing: the cuts prove nothing")
    kinds = {kind: sum(f": {kind}" in one for one in told.violations) for kind in ("lost", "resurrected", "unopened")}
    return told.end(
        {"cuts": options.rounds, "changes answered": answered, **kinds}
        | {f"lost by the control run in {options.control_rounds} cuts": lost}
    )


def _cut(
    folder: Path, told: Report, rounds: int, seed: int, *, pictures: bool = False, without_sync: bool = False
) -> int:
    """Cut so many times; return how many changes were answered."""
    if not rounds:
        return 0
    dice, ledger, tokens = random.Random(seed), Ledger(), Tokens()
    settings = (*SETTINGS, "data.reserve_megabytes=16", *(() if pictures else ("history.keep_days=0",)))
    with _image(folder) as mounted:
        service = Service(mounted / "data", *settings)
        if without_sync:
            service.program = ("-c", WITHOUT_SYNC)
        service.start()
        try:
            callers = Callers(service, ledger, str(seed), pictures=pictures, deletes=pictures)
            with callers.at_work(), tokens.at_work(service, seed) if pictures else contextlib.nullcontext():
                for number in range(rounds):
                    _wait(ledger, ledger.answered + dice.randint(*BETWEEN_CHANGES))
                    time.sleep(dice.uniform(0, 0.02))
                    known = _frozen_copy(service, ledger, tokens, folder)
                    really = number % REAL_STARTS == REAL_STARTS - 1
                    told.add(f"cut {number}", _opened_after(folder, *known, really=really))
                    told.progress(f"{number + 1} cuts, {ledger.answered} changes answered")
                callers.stopped.set()
            told.add("the answers", [*callers.unexpected, *(f"unanswered: {one}" for one in callers.unanswered)])
        finally:
            service.end()
    return ledger.answered


def _wait(ledger: Ledger, answered: int) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while ledger.answered < answered and time.monotonic() < deadline:
        time.sleep(0.005)


# --- the disk ---


@contextlib.contextmanager
def _image(folder: Path, megabytes: int = IMAGE_MEGABYTES) -> Iterator[Path]:
    """Mount a file system of its own; its blocks are in the file `image` beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    image, mounted = folder / "image", folder / "mounted"
    with image.open("wb") as file:
        file.truncate(megabytes << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True, capture_output=True)
    with _mounted(image, mounted):
        yield mounted
    image.unlink()


@contextlib.contextmanager
def _mounted(image: Path, at: Path) -> Iterator[None]:
    at.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(at)], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(at)], check=True)


def _frozen_copy(service: Service, ledger: Ledger, tokens: Tokens, folder: Path) -> tuple[Ledger, Tokens]:
    """Copy the image's blocks while the service stands still; return what had been told by then."""
    assert service.process is not None
    service.process.send_signal(signal.SIGSTOP)
    try:
        os.waitid(os.P_PID, service.process.pid, os.WSTOPPED | os.WNOWAIT)
        known = ledger.copy(), tokens.copy()
        while True:  # the kernel's own timers may write meanwhile: then it is no copy of one moment
            command = ["cp", "--sparse=always", str(folder / "image"), str(folder / "copy")]
            subprocess.run(command, check=True)
            same = subprocess.run(["cmp", "--quiet", str(folder / "image"), str(folder / "copy")], check=False)
            if same.returncode == 0:
                return known
    finally:
        service.process.send_signal(signal.SIGCONT)


def _opened_after(folder: Path, known: Ledger, tokens: Tokens, *, really: bool) -> list[str]:
    """Open what the copy holds as a start does; return what is not as it was told."""
    try:
        with _mounted(folder / "copy", folder / "after"):
            data = folder / "after" / "data"
            try:
                if really:
                    Service(data, *SETTINGS, "data.reserve_megabytes=16").start().end()
                else:
                    opened_as_a_start_does(data)
            except Exception as error:  # whatever it is, it is what the owner would see
                return [f"unopened: {error!r}"]
            return [*known.settle(data), *tokens.settle(data)]
    except subprocess.CalledProcessError as error:
        return [f"unopened: the file system: {error.stderr!r}"]
    finally:
        (folder / "copy").unlink(missing_ok=True)


def opened_as_a_start_does(data: Path) -> None:
    """Do what a start does with the data, models and sockets left out."""
    fault = restoring.fault(data)
    if fault is not None:
        raise RuntimeError(fault)
    pack = catalogue.load(PACK)
    gallery = EmbeddedGallery.open(
        data,
        pack_id=pack.id,
        vector_length=pack.embedder.vector_length,
        cohort_weight=pack.embedder.cohort_weight,
        exact_limit=1000,
        main_list_name="main",
        clock=assembly.now_ms,
        is_checked=True,
    )
    try:
        if gallery.counts().pictures_missing or gallery.counts().set_aside:
            raise RuntimeError(f"{gallery.counts()}")
    finally:
        gallery.close()
