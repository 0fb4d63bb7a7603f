"""What every verb does around its rounds: options, progress, a folder, the line of figures and the exit code."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

NOT_POSSIBLE = 77
"""The exit code where this machine does not let it be tried, as automake's `make check` has it."""

SHOWN = 20
"""Violations that are printed at once."""

PROGRESS_SECONDS = 10.0


def options(doc: str | None, verb: str) -> argparse.ArgumentParser:
    """Return a parser with what all verbs take."""
    parser = argparse.ArgumentParser(
        prog=f"torture.py {verb}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder if absent")
    parser.add_argument("--seed", type=int, default=1, help="of the dice; what happens depends on timing as well")
    return parser


@contextlib.contextmanager
def working_folder(given: Path | None) -> Iterator[Path]:
    """Yield the folder to work in; a temporary one is removed at the end."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given
        return
    made = Path(tempfile.mkdtemp(prefix="torture-"))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


class Report:
    """The violations so far, and progress for whoever watches."""

    def __init__(self, verb: str) -> None:
        """`verb` begins every line."""
        self.verb = verb
        self.violations: list[str] = []
        self._told_at = time.monotonic()

    def add(self, where: str, violations: Sequence[str]) -> None:
        """Take note, and print them as they come."""
        for one in violations[:SHOWN]:
            print(f"{self.verb}: VIOLATION in {where}: {one}", file=sys.stderr, flush=True)
        self.violations.extend(f"{where}: {one}" for one in violations)

    def check(self, where: str, is_so: bool, otherwise: str) -> bool:
        """Note a violation unless it is so; return whether it is."""
        if not is_so:
            self.add(where, [otherwise])
        return is_so

    def progress(self, text: str) -> None:
        """Print it, now and then."""
        if time.monotonic() - self._told_at >= PROGRESS_SECONDS:
            self._told_at = time.monotonic()
            print(f"{self.verb}: {text}", flush=True)

    def end(self, figures: Mapping[str, object]) -> int:
        """Print the line of figures; return the exit code."""
        said = ", ".join(f"{value} {name}" for name, value in figures.items())
        print(f"{self.verb}: {said}, {len(self.violations)} violations", flush=True)
        return 1 if self.violations else 0

    def not_possible(self, why: str) -> int:
        """Say why it could not be tried; return the exit code."""
        print(f"{self.verb}: not tried: {why}", flush=True)
        return NOT_POSSIBLE


def middle_and_most(values: Sequence[float]) -> str:
    """Return the median and the greatest, in seconds."""
    ordered = sorted(values)
    return f"{ordered[len(ordered) // 2]:.2f} (most {ordered[-1]:.2f})" if ordered else "-"
