"""Who is nobody yet: strangers grouped by likeness, and what a group is known by once it has a name."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from edge import matching
from edge.errors import Conflict, Mistake, TooBusy
from edge.gallery.diversity import most_different
from edge.gallery.sightings import StoredSighting
from edge.recognition import visits
from edge.recognition.passages import SAME_VISIT_SCORE
from edge.recognition.room import Room
from edge.types import Embedding, NewPersonLimits, Person, Sighting, Template

STRANGERS = 2000
"""The newest of them that are grouped: a square of so many similarities is 16 MB."""

SHOWN = 12
"""Sightings of a group that are shown, the best first."""

TEMPLATES_OF_STRANGER = 8
"""Of a frame's vectors, made of one crop each, a few different ones say as much as many; photos that come later find
room beside them."""

CHOSEN_AMONG = 40
"""The best of a group, among which the most different are templates: the worst are different for their faults."""

FULL_SIDE_PIXELS = 150.0
"""From this size on a face has all the detail that embedders take."""

GROUPED_AT_ONCE = 2
"""Requests that group, at the same time: more are told to come back."""

_grouping = threading.BoundedSemaphore(GROUPED_AT_ONCE)


@dataclass(frozen=True)
class StrangersRequest:
    """POST /unknowns: which strangers, and how many groups of them."""

    list_id: str | None
    source_id: str | None
    first_ms: int | None
    last_ms: int | None
    groups: int


@dataclass(frozen=True)
class NamingRequest:
    """POST /unknowns/name: whose sightings these are."""

    list_id: str
    sighting_ids: tuple[str, ...]
    fields: tuple[str, ...] | None
    person_id: str | None
    """None: a new person's."""


@dataclass(frozen=True)
class Group:
    """Sightings that are one stranger's as far as can be told, newest first, and those to look at, best first."""

    sightings: tuple[StoredSighting, ...]
    best: tuple[StoredSighting, ...]

    @property
    def first(self) -> Sighting:
        """The oldest: the group is named after it, as long as it is among those that are grouped."""
        return self.sightings[-1].sighting


def group(room: Room, request: StrangersRequest) -> tuple[Group, ...]:
    """Group the newest strangers by likeness; who was seen last comes first. Raises ListNotFound, TooBusy."""
    if not _grouping.acquire(blocking=False):
        raise TooBusy
    try:
        found = room.gallery.strangers(
            list_id=request.list_id,
            source_id=request.source_id,
            first_ms=request.first_ms,
            last_ms=request.last_ms,
            limit=STRANGERS,
        )
        threshold = room.policy(NewPersonLimits()).at(1).match  # two faces, as /compare decides on them
        least = room.calibration.similarity(threshold)
        faces = [_embedding(one) for one in found]
        places = _of_one_visit(room, found, faces, matching.groups(faces, least, room.cohort_weight))
    finally:
        _grouping.release()
    grouped = [tuple(found[place] for place in group) for group in places]
    return tuple(Group(one, tuple(sorted(one, key=_worth, reverse=True)[:SHOWN])) for one in grouped[: request.groups])


def _of_one_visit(
    room: Room, found: Sequence[StoredSighting], faces: Sequence[Embedding], places: Sequence[Sequence[int]]
) -> list[list[int]]:
    least = room.calibration.similarity(SAME_VISIT_SCORE)

    def is_alike(a: int, b: int) -> bool:
        return matching.similarity(faces[a], faces[b], room.cohort_weight) >= least

    return visits.joined([one.sighting for one in found], places, is_alike)


def name(room: Room, request: NamingRequest) -> Person:
    """Make a person of these sightings, or let them be of one who is there: the operator's word, so no limit counts.

    Raises ListNotFound, ItemNotFound (a sighting, the person), Conflict (none of them has a vector of this pack, one is
    somebody else's), StorageFull.
    """
    faces = room.gallery.faces(tuple(dict.fromkeys(request.sighting_ids)))
    usable = [one for one in faces if one.sighting.embedding is not None and one.sighting.pack_id == room.pack_id]
    if not usable and request.person_id is None:
        reason = "none of them was kept with a vector of the active pack: nothing would recognise the person"
        raise Conflict(Mistake("sighting_ids", reason))
    templates = [_template(room, one) for one in _telling(usable)]
    return room.gallery.name_strangers(
        request.list_id,
        [one.sighting.sighting_id for one in faces],
        templates,
        fields=request.fields,
        person_id=request.person_id,
    )


def _telling(faces: Sequence[StoredSighting]) -> list[StoredSighting]:
    """Return the few that differ most among the best."""
    best = sorted(faces, key=_worth, reverse=True)[:CHOSEN_AMONG]
    vectors = [_embedding(one).vector for one in best]
    chosen = most_different(vectors, [_quality(one.sighting) for one in best], TEMPLATES_OF_STRANGER)
    return [best[place] for place in chosen]


def _template(room: Room, face: StoredSighting) -> Template:
    picture = None if face.picture is None else room.gallery.picture(face.picture)
    return Template(_embedding(face), room.pack_id, _quality(face.sighting), picture)


def _embedding(face: StoredSighting) -> Embedding:
    assert face.sighting.embedding is not None, "read with its vector"
    return face.sighting.embedding


def _worth(face: StoredSighting) -> tuple[bool, float, str]:
    """Sort by how well a face can be seen: one with a picture, then a good one; of equals, always the same."""
    return face.picture is not None, _quality(face.sighting), face.sighting.sighting_id


def _quality(sighting: Sighting) -> float:
    """Return how good the face is, 0..0.5: a sighting keeps no measures but what it missed.

    By its size, and half for each limit that it missed. Never above half, so that a photo that comes later and is any
    good is what the person is shown with.
    """
    size = 0.0 if sighting.box is None else min(1.0, sighting.box.longer_side / FULL_SIDE_PIXELS)
    missed = sum(reason.check != "uncertain_match" for reason in sighting.reasons)
    return 0.5 * size * 0.5**missed
