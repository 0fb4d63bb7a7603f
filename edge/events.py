"""What happened, told to whoever listens. A listener cannot hurt or delay the core."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edge.types import Sighting

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FaceSighted:
    """A face was compared with a list."""

    sighting: Sighting


@dataclass(frozen=True)
class SightingRecorded:
    """A sighting is in the history now, its picture under that name (None: none was kept)."""

    sighting: Sighting
    picture: str | None


@dataclass(frozen=True)
class PersonAdded:
    """A person is on disk now."""

    person_id: str
    list_id: str


@dataclass(frozen=True)
class PersonReplaced:
    """What was known of a person has been replaced."""

    person_id: str
    list_id: str


@dataclass(frozen=True)
class ListAlertRaised:
    """A source group wants to hear that a face was, or was not, somebody of a list."""

    sighting: Sighting
    """Of the request that showed the face; its `list_id` need not be the alert's."""
    group_id: str
    list_id: str
    wanted: Any
    """What the group asked for: its `on_found` or `on_failed`, as the caller wrote it."""
    person_id: str | None
    """Whom the list had it for before the request wrote anything; None: nobody."""
    score: float | None


@dataclass(frozen=True)
class StageDone:
    """A stage of a frame's way is behind it."""

    stage: str
    """`decode`, `decode_again` (whole, after it was made smaller), `detect` (with the points), `embed`, `decide`."""
    seconds: float


@dataclass(frozen=True)
class FrameSeen:
    """A picture was looked at for faces."""

    faces: int
    """Of any size."""


Event = FaceSighted | SightingRecorded | PersonAdded | PersonReplaced | ListAlertRaised | StageDone | FrameSeen
Listener = Callable[[Event], None]
"""Must return at once: whoever has work to do puts it in a queue of their own."""


class Listeners:
    """The list of listeners, told in the order in which they joined."""

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = list(listeners)

    def join(self, listener: Listener) -> None:
        """Add a listener."""
        self._listeners.append(listener)

    def tell(self, event: Event) -> None:
        """Tell every listener; a fault of one is logged and hurts nobody else."""
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:  # the boundary: what a listener does wrong is not the request's fault
                log.exception("a listener failed on %s", type(event).__name__)
