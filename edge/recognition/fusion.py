"""POST /person/fusion: more pictures or vectors to recognise a person by."""

from __future__ import annotations

from dataclasses import dataclass

from edge.errors import NothingToChange, PictureTooSmall, Refusal, UnknownPicture
from edge.face.quality import gate
from edge.recognition.faces import look, template_of
from edge.recognition.requests import FusionRequest
from edge.recognition.room import Room
from edge.types import Person, Reason, Template, WantedParts


@dataclass(frozen=True)
class RejectedPicture:
    """A picture that gave no template: it could not be read, shows no face, or one that misses limits."""

    number: int
    undecodable: Refusal | None = None
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True)
class FusionResult:
    """The person as they are then, how many templates were offered, and the pictures that gave none."""

    person: Person
    added: int
    rejected: tuple[RejectedPicture, ...]


def fuse(room: Room, request: FusionRequest) -> FusionResult:
    """Add what the pictures' largest faces and the vectors give; the gallery keeps the most different ones.

    Where pictures or vectors were sent and none of them gives a template, nothing at all is changed.
    Raises ListNotFound, ItemNotFound, NothingToChange, Conflict, TooBusy, StorageFull.
    """
    person = room.gallery.person(request.list_id, request.person_id)
    sent = len(request.images) + len(request.embeddings)
    if not sent and request.fields is None and request.replace_person_id is None:
        raise NothingToChange
    templates: list[Template] = []
    rejected: list[RejectedPicture] = []
    with room.workers.admitted():
        for number, data in enumerate(request.images):
            made = _template(room, request, number, data)
            if isinstance(made, Template):
                templates.append(made)
            else:
                rejected.append(made)
        for vector in request.embeddings:
            with room.workers.one() as worker:
                embedding = worker.embedder.given(vector)
            templates.append(Template(embedding, room.pack_id, quality=1.0, picture=None))
        if templates or not sent:
            person = room.gallery.add_templates(
                request.list_id,
                request.person_id,
                templates,
                replace_person_id=request.replace_person_id,
                fields=request.fields,
            )
    return FusionResult(person, len(templates), tuple(rejected))


def _template(room: Room, request: FusionRequest, number: int, data: bytes) -> Template | RejectedPicture:
    with room.workers.one() as worker:
        try:
            found = look(room, worker, room.frame(data), WantedParts(), multi=False)
        except (UnknownPicture, PictureTooSmall) as refusal:
            return RejectedPicture(number, undecodable=refusal)
        if not found.seen:
            return RejectedPicture(number)
        (seen,) = found.seen
        reasons = gate(seen.face.measures, room.limits(request.limits, ()))
        if reasons:
            return RejectedPicture(number, reasons=reasons)
        return template_of(room, worker, found.picture, seen, drop_image=request.drop_image)
