"""POST /person/create: the faces of a picture (or a vector) become persons of one list, unless they are already."""

from __future__ import annotations

from collections.abc import Sequence

from edge.errors import ItemNotFound, ListNotFound, Mistake, PictureTooSmall, UnknownPicture
from edge.matching import Identification
from edge.recognition.faces import Seen, look, whole_jpeg
from edge.recognition.judging import CreateResult, Judgement, Subject, judge, subjects_of, templates_from
from edge.recognition.requests import with_source_defaults
from edge.recognition.room import Room
from edge.types import Decision, NewPerson, PersonCreate, Pose, Reason, Template, Vector, Verdict


def create(room: Room, request: PersonCreate) -> CreateResult:
    """Find, judge and compare the faces of the picture, and keep those that nobody knew.

    Raises ListNotFound, ItemNotFound (the person to be replaced), TooBusy, StorageFull.
    """
    list_id = request.list_id or room.gallery.main_list_id
    _check_targets(room, list_id, request)
    if request.source_id is not None:
        request = with_source_defaults(request, room.gallery.source(request.source_id))
    with room.workers.admitted():
        if request.embedding is not None:
            return _from_vector(room, request, list_id, request.embedding)
        assert request.image is not None, "forms lets no request through without a picture or an embedding"
        return _from_picture(room, request, list_id, request.image)


def _check_targets(room: Room, list_id: str, request: PersonCreate) -> None:
    if room.gallery.find_list(list_id) is None:
        raise ListNotFound(Mistake("list_id", f"no list {list_id}"))
    if request.replace_person_id is not None:
        try:
            room.gallery.person(list_id, request.replace_person_id)
        except ItemNotFound as unknown:
            raise ItemNotFound(Mistake("replace_on_found", unknown.mistakes[0].reason)) from None


def _from_picture(room: Room, request: PersonCreate, list_id: str, data: bytes) -> CreateResult:
    limits = room.limits(request.limits, request.wanted.features)
    with room.workers.one() as worker:
        try:
            found = look(
                room,
                worker,
                room.frame(data),
                request.wanted,
                multi=request.multi,
                pose=(request.yaw_degrees, request.pitch_degrees),
                with_templates=request.embedding_only,
                source_id=request.source_id,
            )
        except (UnknownPicture, PictureTooSmall) as refusal:
            return CreateResult(faces_total=0, processed=0, undecodable=refusal)
        if request.embedding_only:
            return CreateResult(found.faces_total, len(found.seen), embeddings=found.seen)
        subjects = subjects_of(
            room,
            worker,
            found.picture,
            found.seen,
            source_id=request.source_id,
            newcomer=lambda one: _newcomer(request, one),
            limits=limits,
            drop_image=request.drop_image,
        )
    template = templates_from(room, found.picture, found.seen, drop_image=request.drop_image)
    results = judge(room, _judgement(room, request, list_id), subjects, template)
    return CreateResult(found.faces_total, len(subjects), results)


def _from_vector(room: Room, request: PersonCreate, list_id: str, vector: Vector) -> CreateResult:
    """Go the same way with the vector that was sent; a picture beside it is only kept."""
    with room.workers.one() as worker:
        embedding = worker.embedder.given(vector)
        try:
            picture = None if request.image is None else room.frame(request.image).picture()
        except (UnknownPicture, PictureTooSmall) as refusal:
            return CreateResult(faces_total=0, processed=0, undecodable=refusal)
        kept = None if picture is None or request.drop_image else whole_jpeg(room, picture)
    if request.embedding_only:
        return CreateResult(1, 1, embeddings=(embedding,))
    reasons = _given_pose_reasons(room, request)
    template = Template(embedding, room.pack_id, quality=1.0, picture=kept)
    subject = Subject(
        seen=None,
        embedding=embedding,
        newcomer=_newcomer(request, None),
        reasons=lambda: reasons,
        is_judged=True,
        sighting_picture=None,
        template=template if kept is None else None,
    )
    results = judge(room, _judgement(room, request, list_id), [subject], lambda _: template)
    return CreateResult(1, 1, results)


def _judgement(room: Room, request: PersonCreate, list_id: str) -> Judgement:
    return Judgement(
        search_lists=(list_id,),
        add_list=list_id,
        policy=room.policy(request.limits),
        verdict=lambda identification, reasons, number: verdict(identification, reasons, request, is_first=number == 0),
        source_id=request.source_id,
        group_id=request.group_id,
    )


def _given_pose_reasons(room: Room, request: PersonCreate) -> tuple[Reason, ...]:
    """Judge the pose that came with a vector, all that is known of its face."""
    given = {"yaw": request.yaw_degrees, "pitch": request.pitch_degrees}
    return tuple(
        Reason(limit.check, value, limit.most)
        for limit in room.pose_limits(request.limits)
        if (value := given[limit.measure]) is not None and limit.most is not None and abs(value) > limit.most
    )


def _newcomer(request: PersonCreate, seen: Seen | None) -> NewPerson:
    given = None
    if request.yaw_degrees is not None or request.pitch_degrees is not None:
        given = Pose(request.yaw_degrees or 0.0, request.pitch_degrees or 0.0, 0.0)
    return NewPerson(
        fields=request.fields,
        features=seen.features if seen else (),
        pose=seen.face.pose if seen else given,
        score=seen.face.detection.score if seen else None,
        group_id=request.group_id,
        source_id=request.source_id,
        actor=request.actor,
    )


def verdict(
    identification: Identification, reasons: Sequence[Reason], request: PersonCreate, *, is_first: bool
) -> Decision:
    """Say what becomes of a face: who it is comes before whether it is good enough to be kept."""
    if request.replace_person_id is not None and is_first and not reasons:
        return Decision(Verdict.REPLACE, request.replace_person_id)
    if identification.matched:
        person_id = identification.matched.candidate.person.person_id
        replaces = request.replace_on_found and not reasons
        return Decision(Verdict.REPLACE if replaces else Verdict.MATCH, person_id)
    if identification.uncertain or reasons or (request.replace_person_id is not None and is_first):
        return Decision(Verdict.REJECT)
    return Decision(Verdict.ADD)
