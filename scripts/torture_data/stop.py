"""SIGTERM under load: whoever was heard is answered, and the process ends with 0 within ten seconds.

A request that gets no answer was either not accepted any more, and then nothing of it is on the disk, or it is a
violation; so is one that was sent long enough before the signal.
"""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

from real_process import Service

from torture_data import report
from torture_data.callers import SETTINGS, Callers, looked_after
from torture_data.ledger import Ledger
from torture_data.report import Report

LOAD_SECONDS = (0.2, 1.5)
END_SECONDS = 10.0

HEARD_SECONDS = 1.0
"""A request that was sent so long before the signal has been accepted, however busy the machine is."""


def main(arguments: list[str]) -> int:
    """Run the verb."""
    parser = report.options(__doc__, "stop")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument(
        "--end-seconds", type=float, default=END_SECONDS, help="an end that takes longer is a violation"
    )
    options = parser.parse_args(arguments)
    with report.working_folder(options.folder) as folder:
        return run(folder, options.rounds, options.end_seconds, options.seed)


def run(folder: Path, rounds: int, end_seconds: float, seed: int) -> int:
    """Stop it so many times."""
    told, dice, ledger = Report("stop"), random.Random(seed), Ledger()
    service = Service(folder / "data", *SETTINGS)
    ends: list[float] = []
    turned_away = 0
    with looked_after(service, told):
        for number in range(rounds):
            where = f"round {number}"
            service.start()
            callers = Callers(service, ledger, f"{seed} {number}")
            with callers.at_work():
                time.sleep(dice.uniform(*LOAD_SECONDS))
                asked = time.monotonic()
                code = service.end(signal.SIGTERM)
                ends.append(time.monotonic() - asked)
            told.check(where, code == 0, f"exit code {code}")
            told.check(where, ends[-1] <= end_seconds, f"ended after {ends[-1]:.2f} s")
            turned_away += len(callers.unanswered)
            told.add(where, [*callers.unexpected, *_unheard(callers, asked, service.folder)])
            told.add(where, ledger.settle(service.folder))
            told.progress(f"{number + 1} rounds, {ledger.answered} changes answered, ended in {ends[-1]:.2f} s")
    return told.end(
        {"rounds": rounds, "changes answered": ledger.answered, "turned away at the end": turned_away}
        | {"s until the end": report.middle_and_most(ends)}
    )


def _unheard(callers: Callers, asked: float, folder: Path) -> list[str]:
    """Return the requests that were accepted and not answered: what is done of them is on the disk."""
    on_disk = callers.ledger.marks(folder)
    return [
        f"accepted and not answered: {one.mark}, begun {asked - one.begun:.3f} s before the signal"
        for one in callers.unanswered
        if one.mark in on_disk or one.begun < asked - HEARD_SECONDS
    ]
