"""A progress bar on standard error."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator

BAR_COLUMNS = 30
"""Of the progress bar: with its numbers it fits a terminal of 80."""

BAR_SECONDS = 0.2
"""Between two drawings in a terminal."""

LINE_SHARE = 0.1
"""Between two lines where the output is not a terminal but a log."""


class Bar:
    """Drawn over itself in a terminal, a line now and then in a log. No dependency for so little."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._is_terminal = sys.stderr.isatty()
        self._started = self._next = time.monotonic()
        self._next_share = 0.0
        self._first_done: int | None = None

    def __call__(self, done: int, total: int) -> None:
        """Show that so many are done of so many."""
        share = done / total if total else 1.0
        if self._first_done is None:
            self._first_done = done  # what an earlier run did says nothing of this one's speed
        if self._is_terminal and (time.monotonic() >= self._next or share == 1):
            self._next = time.monotonic() + BAR_SECONDS
            bar = "#" * round(share * BAR_COLUMNS)
            numbers = self._numbers(done, total)
            print(f"\r{self._label} [{bar:.<{BAR_COLUMNS}}] {numbers}\033[K", end="", file=sys.stderr)
        elif not self._is_terminal and share >= self._next_share:
            self._next_share = min(1.0, share + LINE_SHARE) if share < 1 else 2.0
            print(f"{self._label}: {self._numbers(done, total)}", file=sys.stderr, flush=True)

    def _numbers(self, done: int, total: int) -> str:
        done_now = done - (self._first_done or 0)
        numbers = f"{done}/{total}"
        if done_now and done < total:
            seconds = (time.monotonic() - self._started) / done_now * (total - done)
            numbers += f", {seconds / 60:.0f} min left" if seconds >= 90 else f", {seconds:.0f} s left"
        return numbers

    def finish(self) -> None:
        """Leave the bar's line."""
        if self._is_terminal:
            print(file=sys.stderr)


@contextlib.contextmanager
def drawn(label: str) -> Iterator[Bar]:
    """Yield a bar whose line is left at the end."""
    bar = Bar(label)
    try:
        yield bar
    finally:
        bar.finish()
