"""One photo more for a person, and what a photo would be, before anything is kept."""

from __future__ import annotations

from dataclasses import dataclass

from edge import matching
from edge.errors import FaceRefused, Mistake
from edge.face.quality import gate
from edge.matching import Identification, Ranked
from edge.recognition.faces import Seen, look, template_of
from edge.recognition.room import Room
from edge.types import Embedding, Limit, NewPersonLimits, Person, Reason, Template, WantedParts


@dataclass(frozen=True)
class PhotoRequest:
    """POST /person/photo/add: another photo of a person."""

    list_id: str
    person_id: str
    image: bytes
    force: bool
    """Whether it is added though it misses limits, or is more like somebody else."""


@dataclass(frozen=True, eq=False)
class Previewed:
    """A face of a picture as it would be judged if it were somebody new."""

    seen: Seen
    limits: tuple[Limit, ...]
    reasons: tuple[Reason, ...]
    identification: Identification

    @property
    def nearest(self) -> Ranked | None:
        """Who of the list is most like it."""
        return self.identification.ranked[0] if self.identification.ranked else None


@dataclass(frozen=True, eq=False)
class Preview:
    """What a picture shows; `faces_total` counts the ones too small to be compared as well."""

    faces_total: int
    faces: tuple[Previewed, ...]


def preview(room: Room, list_id: str, image: bytes) -> Preview:
    """Look at a picture as /person/create would with `multi`, and keep nothing of it: not even a sighting.

    Raises ListNotFound, UnknownPicture, PictureTooSmall, TooBusy.
    """
    policy, limits = room.policy(NewPersonLimits()), room.limits(NewPersonLimits(), ())
    size = room.gallery.list_size(list_id)
    with room.workers.admitted():
        with room.workers.one() as worker:
            found = look(room, worker, room.frame(image), WantedParts(), multi=True)
            probes = [worker.embedder.probe(found.picture, one.face.landmarks.points) for one in found.seen]
        faces = [
            Previewed(
                seen=one,
                limits=limits,
                reasons=gate(one.face.measures, limits),
                identification=matching.identify(
                    room.gallery.identify(list_id, probe), policy.at(size), room.calibration
                ),
            )
            for one, probe in zip(found.seen, probes, strict=True)
        ]
    return Preview(found.faces_total, tuple(faces))


def add_photo(room: Room, request: PhotoRequest) -> Person:
    """Add the largest face of the picture to what the person is recognised by; return their record.

    Raises ListNotFound, ItemNotFound, UnknownPicture, PictureTooSmall, FaceRefused (no face, or without `force` one
    that misses limits or is much more like somebody else), TooBusy, StorageFull.
    """
    room.gallery.person(request.list_id, request.person_id)
    with room.workers.admitted():
        with room.workers.one() as worker:
            found = look(room, worker, room.frame(request.image), WantedParts(), multi=False)
            if not found.seen:
                reason = "too small to be compared" if found.faces_total else "shows no face"
                raise FaceRefused(Mistake("image", reason), message="no faces found")
            (seen,) = found.seen
            if not request.force:
                _check_limits(room, seen)
            template = template_of(room, worker, found.picture, seen, drop_image=False)
        if not request.force:
            _check_whose(room, request, template)
        return room.gallery.add_templates(request.list_id, request.person_id, [template])


def _check_limits(room: Room, seen: Seen) -> None:
    reasons = gate(seen.face.measures, room.limits(NewPersonLimits(), ()))
    if reasons:
        raise FaceRefused(
            *(Mistake(f"image.{one.check}", f"{one.value:.4g}; the limit is {one.limit:.4g}") for one in reasons),
        )


def _check_whose(room: Room, request: PhotoRequest, template: Template) -> None:
    """Raise FaceRefused for a face that is somebody else's by all that is known."""
    others = [
        one
        for one in room.gallery.identify(request.list_id, template.embedding)
        if one.person.person_id != request.person_id and not one.is_disputed
    ]
    best = Ranked(others[0], room.calibration.score(others[0].similarity)) if others else None
    own = _own_similarity(room, request.person_id, template.embedding)
    thresholds = room.policy(NewPersonLimits()).at(room.gallery.list_size(request.list_id))
    if own is not None and matching.is_somebody_else(own, best, thresholds, room.calibration):
        assert best is not None, "there is somebody whom it is more like"
        reason = f"more like the person {best.candidate.person.person_id}, with a score of {best.score:.4g}"
        raise FaceRefused(Mistake("image", reason), message="the face is somebody else's")


def _own_similarity(room: Room, person_id: str, probe: Embedding) -> float | None:
    return max(
        (
            matching.similarity(probe, one.embedding, room.cohort_weight)
            for one in room.gallery.templates_of(person_id)
            if one.pack_id == room.pack_id
        ),
        default=None,
    )
