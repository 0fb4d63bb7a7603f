"""POST /detect and /compare: what pictures show, compared with nobody or with each other. Nothing is recorded."""

from __future__ import annotations

from dataclasses import dataclass

from edge import matching
from edge.errors import PictureTooSmall, Refusal, UnknownPicture
from edge.recognition.faces import Seen, look
from edge.recognition.requests import CompareRequest, DetectRequest
from edge.recognition.room import Room
from edge.types import NewPersonLimits, WantedParts


@dataclass(frozen=True, eq=False)
class Inspected:
    """What one picture shows, or why it shows nothing."""

    faces_total: int
    seen: tuple[Seen, ...]
    undecodable: Refusal | None = None


@dataclass(frozen=True, eq=False)
class Comparison:
    """The outcome of /compare. No score: one of the pictures shows no face."""

    first: Inspected
    second: Inspected
    score: float | None
    threshold: float

    @property
    def match(self) -> bool:
        """Whether both show the same person."""
        return self.score is not None and self.score >= self.threshold


def detect(room: Room, request: DetectRequest) -> tuple[Inspected, ...]:
    """Find the faces of each picture. Raises TooBusy."""
    with room.workers.admitted():
        return tuple(
            _inspected(room, data, request.wanted, multi=request.multi, with_templates=False) for data in request.images
        )


def compare(room: Room, request: CompareRequest) -> Comparison:
    """Compare the largest faces of two pictures, or where `multi`, every face with every other: the best score counts.

    Templates are compared with templates, so that it does not matter which picture comes first. They are made of more
    crops than a probe, so a score errs no more often than the calibration (of probes against templates) says.
    Raises TooBusy.
    """
    with room.workers.admitted():
        first, second = (
            _inspected(room, data, request.wanted, multi=request.multi, with_templates=True) for data in request.images
        )
    scores = [
        room.calibration.score(matching.similarity(one.embedding, other.embedding, room.cohort_weight))
        for one in first.seen
        for other in second.seen
        if one.embedding is not None and other.embedding is not None
    ]
    threshold = room.policy(NewPersonLimits(threshold=request.threshold)).at(1).match
    return Comparison(first, second, max(scores, default=None), threshold)


def _inspected(room: Room, data: bytes, wanted: WantedParts, *, multi: bool, with_templates: bool) -> Inspected:
    with room.workers.one() as worker:
        try:
            found = look(room, worker, room.frame(data), wanted, multi=multi, with_templates=with_templates)
        except (UnknownPicture, PictureTooSmall) as refusal:
            return Inspected(0, (), refusal)
        return Inspected(found.faces_total, found.seen)
