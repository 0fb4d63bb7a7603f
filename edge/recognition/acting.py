"""POST /action and /vector/search: who somebody is, of several lists at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edge import matching
from edge.errors import ListNotFound, Mistake, PictureTooSmall, Refusal, ScopeMissing, Superseded, UnknownPicture
from edge.matching import Identification, Ranked
from edge.recognition.faces import Seen, look
from edge.recognition.judging import FaceResult, Judgement, judge, subjects_of, templates_from
from edge.recognition.requests import ActionRequest, VectorSearch, with_source_defaults
from edge.recognition.room import Room
from edge.types import Decision, NewPerson, NewPersonLimits, Reason, Source, Verdict


@dataclass(frozen=True, eq=False)
class ActionResult:
    """The outcome of /action: a result for each face that was compared, the largest first."""

    faces_total: int
    results: tuple[FaceResult, ...] = ()
    undecodable: Refusal | None = None
    """Why the picture was not looked at: it cannot be read, or it is superseded."""


@dataclass(frozen=True)
class Searched:
    """Whom one vector resembles, best first, and from which score on that counted."""

    matches: tuple[Ranked, ...]
    threshold: float


def act(room: Room, request: ActionRequest) -> ActionResult:
    """Search the lists for every face and add those that nobody is, in one step: one lock, one commit.

    The list that is added to is searched too, or whoever comes twice would be added twice. Raises ListNotFound,
    ScopeMissing (somebody may be added, but not by the caller), TooBusy, StorageFull.
    """
    if request.source_id is not None:
        source = room.gallery.source(request.source_id)
        request = with_source_lists(with_source_defaults(request, source), source)
    if request.add_list is not None and not request.may_add:
        raise ScopeMissing(Mistake("person_list_add", "given or the source's; the token may add nobody"))
    search = request.search_lists or (request.only_list or room.gallery.main_list_id,)
    if request.add_list is not None and request.add_list not in search:
        search = (*search, request.add_list)
    _check_lists(room, search)
    with room.workers.admitted():
        try:
            return _acted(room, replace(request, search_lists=search))
        except Superseded as superseded:
            return ActionResult(0, undecodable=superseded)


def with_source_lists(request: ActionRequest, source: Source | None) -> ActionRequest:
    """Return the request with its source's lists for those that it does not name, as far as the caller may use them."""
    if source is None:
        return request

    def allowed(lists: Sequence[str]) -> tuple[str, ...]:
        return tuple(one for one in lists if request.only_list in (None, one))

    search = request.search_lists or allowed(source.person_list_search)
    add = request.add_list or next(iter(allowed(source.person_list_add)), None)
    return replace(request, search_lists=search, add_list=add)


def _check_lists(room: Room, list_ids: Sequence[str]) -> None:
    for list_id in list_ids:
        if room.gallery.find_list(list_id) is None:
            raise ListNotFound(Mistake("list_id", f"no list {list_id}"))


def _acted(room: Room, request: ActionRequest) -> ActionResult:
    limits = room.limits(request.limits, request.wanted.features)
    with room.workers.one(request.source_id if request.newest_only else None) as worker:
        try:
            frame = room.frame(request.image)
            found = look(room, worker, frame, request.wanted, multi=request.multi, source_id=request.source_id)
        except (UnknownPicture, PictureTooSmall) as refusal:
            return ActionResult(0, undecodable=refusal)
        subjects = subjects_of(
            room,
            worker,
            found.picture,
            found.seen,
            source_id=request.source_id,
            newcomer=lambda one: _newcomer(request, one),
            # whoever is not to be added need not be good enough to be
            limits=limits if request.add_list is not None else (),
            drop_image=request.drop_image,
        )
    judgement = Judgement(
        search_lists=request.search_lists,
        add_list=request.add_list,
        policy=room.policy(request.limits),
        verdict=lambda identification, reasons, _: verdict(identification, reasons, adds=request.add_list is not None),
        source_id=request.source_id,
        group_id=request.group_id,
        persons=request.results,
    )
    template = templates_from(room, found.picture, found.seen, drop_image=request.drop_image)
    return ActionResult(found.faces_total, judge(room, judgement, subjects, template))


def _newcomer(request: ActionRequest, seen: Seen) -> NewPerson:
    return NewPerson(
        fields=(),
        features=seen.features,
        pose=seen.face.pose,
        score=seen.face.detection.score,
        group_id=request.group_id,
        source_id=request.source_id,
        actor=request.actor,
    )


def verdict(identification: Identification, reasons: Sequence[Reason], *, adds: bool) -> Decision:
    """Say what becomes of a face: a match, somebody new, or neither."""
    if identification.matched:
        return Decision(Verdict.MATCH, identification.matched.candidate.person.person_id)
    if identification.uncertain or reasons or not adds:
        return Decision(Verdict.REJECT)
    return Decision(Verdict.ADD)


def search(room: Room, request: VectorSearch) -> tuple[Searched, ...]:
    """Search the lists for every vector; nothing is recorded. Raises ListNotFound, TooBusy."""
    list_ids = tuple(dict.fromkeys(request.list_ids)) or (room.gallery.main_list_id,)
    size = sum(room.gallery.list_size(list_id) for list_id in list_ids)
    thresholds = room.policy(NewPersonLimits(threshold=request.threshold)).at(size)
    found = []
    with room.workers.admitted():
        for given in request.embeddings:
            with room.workers.one() as worker:
                embedding = worker.embedder.given(given)
            candidates = room.gallery.identify_in_lists(list_ids, embedding, request.persons)
            ranked = matching.identify(candidates, thresholds, room.calibration).ranked
            found.append(Searched(tuple(one for one in ranked if one.score >= thresholds.match), thresholds.match))
    return tuple(found)
