"""kill -9 under load: what the next start finds is compared with what clients were told.

Eight callers enrol, replace, change and delete; the process dies at a random moment, in one round of ten while it
starts too. Nobody who was answered as added, replaced or changed may be lost, nobody who was answered as deleted may be
back, and no picture may be without its row or the other way round.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from real_process import Service

from torture_data import report
from torture_data.callers import SETTINGS, Callers, looked_after
from torture_data.ledger import Ledger
from torture_data.report import Report

LOAD_SECONDS = (0.05, 0.9)
START_SECONDS = (0.0, 2.0)
"""When it dies under load and, one round in TORN_STARTS, while it starts."""

TORN_STARTS = 10
READY_SECONDS = 5.0


def main(arguments: list[str]) -> int:
    """Run the verb."""
    parser = report.options(__doc__, "kill")
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument(
        "--ready-seconds",
        type=float,
        default=READY_SECONDS,
        help="a start that takes longer, its waits for a processor left out, is a violation; 0: none is",
    )
    options = parser.parse_args(arguments)
    with report.working_folder(options.folder) as folder:
        return run(folder, options.rounds, options.ready_seconds, options.seed)


def run(folder: Path, rounds: int, ready_seconds: float, seed: int) -> int:
    """Kill it so many times."""
    told, dice, ledger = Report("kill"), random.Random(seed), Ledger()
    service = Service(folder / "data", *SETTINGS)
    starts: list[float] = []
    torn = 0
    with looked_after(service, told):
        for number in range(rounds + 1):
            if number % TORN_STARTS == TORN_STARTS - 1:
                torn += 1
                _killed_while_starting(service, dice.uniform(*START_SECONDS))
            seconds, waited = _started(service)
            starts.append(seconds)
            told.add(f"round {number}", ledger.settle(service.folder))
            slow = f"ready after {seconds:.2f} s, of which it waited {waited:.2f} s for a processor"
            told.check(f"round {number}", not ready_seconds or seconds - waited <= ready_seconds, slow)
            if number < rounds:
                callers = Callers(service, ledger, f"{seed} {number}")
                with callers.at_work():
                    time.sleep(dice.uniform(*LOAD_SECONDS))
                    service.end(signal.SIGKILL)
                told.add(f"round {number}", callers.unexpected)
            told.progress(f"{number} rounds, {ledger.answered} changes answered, ready in {starts[-1]:.2f} s")
        service.end()
    kinds = {kind: sum(f": {kind}" in one for one in told.violations) for kind in ("lost", "resurrected", "orphan")}
    return told.end(
        {"rounds": rounds, "of them with a start killed too": torn, "changes answered": ledger.answered, **kinds}
        | {"s until ready": report.middle_and_most(starts)}
    )


def _started(service: Service) -> tuple[float, float]:
    """Start it; return how many seconds that took, and how many of them it waited for a processor (schedstat)."""
    begun = time.monotonic()
    service.start()
    seconds = time.monotonic() - begun
    assert service.process is not None
    return seconds, int(Path(f"/proc/{service.process.pid}/schedstat").read_text().split()[1]) / 1e9


def _killed_while_starting(service: Service, seconds: float) -> None:
    flags = [flag for setting in ("server.port=0", *service.settings) for flag in ("--set", setting)]
    with subprocess.Popen(
        [sys.executable, *service.program, "serve", *flags],
        env=service.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        time.sleep(seconds)
        process.kill()
