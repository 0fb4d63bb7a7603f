"""What is done to the data folder while nobody asks: the history within its limits, the ballast in its place."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator

from edge.errors import Refusal
from edge.gallery.history import History
from edge.gallery.space import Space, State

log = logging.getLogger(__name__)

PRUNE_SECONDS = 3600
"""The history's limits are days and megabytes: an hour over is nothing, and the card is left alone between."""

ROOM_SECONDS = 2.0
"""Between two looks at the disk: each costs microseconds, and at 20 MB/s only half of the reserve is gone by then."""


@contextlib.contextmanager
def kept_up(
    history: History, space: Space, *, days: float, picture_bytes: int, hourly: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Keep the history within its days and bytes every hour, and room on the disk every two seconds.

    `hourly`: what else is to be done so often.
    """
    done = threading.Event()

    def run() -> None:
        prune_at = time.monotonic()
        while True:
            try:
                space.keep_ballast()
                if space.room(fresh=True).state is not State.OK:
                    history.make_room()
                    space.take_back()
                if time.monotonic() >= prune_at:
                    try:
                        _prune(history, days, picture_bytes)
                        hourly()
                    finally:
                        prune_at = time.monotonic() + PRUNE_SECONDS
            except (Refusal, OSError) as error:  # the disk fails: later it may not, and frames go on being answered
                log.warning("the data folder could not be kept up: %s", error)
            except Exception:  # the boundary of a thread: a damaged row must not be the end of the ballast
                log.exception("the data folder could not be kept up")
            if done.wait(ROOM_SECONDS):
                return

    thread = threading.Thread(target=run, name="upkeep", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _prune(history: History, days: float, picture_bytes: int) -> None:
    gone = history.prune(days=days, picture_bytes=picture_bytes)
    if gone:
        log.info("%d old sightings removed", gone)
