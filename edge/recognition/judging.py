"""Search, decide and write: what becomes of the faces of one request, and who is told of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from edge import matching
from edge.errors import ListNotFound, Refusal, StorageFull
from edge.events import FaceSighted, ListAlertRaised, PersonAdded, PersonReplaced
from edge.face.analysis import Analyser, Face
from edge.face.quality import gate
from edge.gallery.protocol import CANDIDATES, Outcome, Probe, TemplatesWanted
from edge.matching import Identification, Ranked, ThresholdPolicy
from edge.recognition.faces import Seen, sighting_picture, template_of
from edge.recognition.passages import Passed
from edge.recognition.room import Room
from edge.types import (
    Candidate,
    Decision,
    Embedding,
    Limit,
    ListAlert,
    NewPerson,
    Person,
    Picture,
    Reason,
    Sighting,
    Template,
    Verdict,
)


@dataclass(frozen=True, eq=False)
class FaceResult:
    """What became of one face that was compared with lists."""

    verdict: Verdict
    threshold: float
    person: Person | None
    score: float | None
    """Of the match, or of the candidate of an uncertain one."""
    candidate: Person | None
    """Whom an uncertain face may be."""
    rival: Ranked | None
    """The second person whom it fits nearly as well, where that is why it is uncertain."""
    reasons: tuple[Reason, ...]
    seen: Seen | None
    """None where a vector came instead of a picture."""
    passage_frames: int | None
    """Frames of the visit that were decided on together; None where each is decided for itself."""
    matches: tuple[Ranked, ...] = ()
    """Everybody of the lists that it matches, best first, as many as were asked for."""
    sighting_id: str | None = None
    """Under which the history keeps it; None where none is kept."""


@dataclass(frozen=True, eq=False)
class CreateResult:
    """The outcome of /person/create."""

    faces_total: int
    processed: int
    results: tuple[FaceResult, ...] = ()
    embeddings: tuple[Seen | Embedding, ...] = ()
    """Where only embeddings were asked for: a face each, or the vector that was sent."""
    undecodable: Refusal | None = None


@dataclass(frozen=True, eq=False)
class Subject:
    """One face on its way through a request."""

    seen: Seen | None
    embedding: Embedding
    newcomer: NewPerson
    reasons: Callable[[], tuple[Reason, ...]]
    """What it misses, to be added. Asked of whom nobody knows: for the others nobody looks."""
    is_judged: bool
    """Whether that costs nothing to ask. Otherwise the gallery is asked first, and twice of whom it does not know."""
    sighting_picture: bytes | None
    passage_frames: int | None = None
    """Frames of the visit of whose vectors the embedding is the mean; None: it is this frame's own."""
    template: Template | None = None
    """Where it costs nothing: a vector that came without a picture. Then the gallery need not be asked twice."""


@dataclass(frozen=True, eq=False)
class Judgement:
    """How the faces of a request are judged: against which lists, by which thresholds, and what may be written."""

    search_lists: tuple[str, ...]
    add_list: str | None
    policy: ThresholdPolicy
    verdict: Callable[[Identification, Sequence[Reason], int], Decision]
    """From what the lists say, what the face misses, and its number in the request."""
    source_id: str | None
    group_id: str | None
    persons: int = CANDIDATES
    """That the answer names for each face, at most."""


TemplateOf = Callable[[int], Template]
"""Makes the template of the face of that number."""


def subjects_of(
    room: Room,
    worker: Analyser,
    picture: Picture,
    faces: Sequence[Seen],
    *,
    source_id: str | None,
    newcomer: Callable[[Seen], NewPerson],
    limits: Sequence[Limit],
    drop_image: bool,
) -> list[Subject]:
    """Return the faces of a picture, ready to be judged: each by itself, or with the frames of its visit."""
    with room.timed("embed"):
        probes = [worker.embedder.probe(picture, one.face.landmarks.points) for one in faces]
    passed: Sequence[Passed | None] = [None] * len(probes)
    if room.passages is not None and source_id is not None:
        passed = room.passages.joined(source_id, probes, worker.embedder.given)
    return [
        Subject(
            seen=one,
            embedding=visit.embedding if visit else probe,
            newcomer=newcomer(one),
            reasons=partial(_reasons, one.face, limits),
            is_judged=one.face.misses_at_once(limits),
            sighting_picture=sighting_picture(room, picture, one, drop_image=drop_image),
            passage_frames=visit.frames if visit else None,
        )
        for one, probe, visit in zip(faces, probes, passed, strict=True)
    ]


def _reasons(face: Face, limits: Sequence[Limit]) -> tuple[Reason, ...]:
    return gate(face.measures, limits)


def templates_from(room: Room, picture: Picture, faces: Sequence[Seen], *, drop_image: bool) -> TemplateOf:
    """Return what makes a face's template once it is known that one is needed."""

    def make(number: int) -> Template:
        with room.workers.one() as worker:
            return template_of(room, worker, picture, faces[number], drop_image=drop_image)

    return make


def judge(
    room: Room, judgement: Judgement, subjects: Sequence[Subject], template: TemplateOf
) -> tuple[FaceResult, ...]:
    """Search, decide and write in one step, and tell the listeners once it is on disk.

    On a full disk whoever is known is still answered, and of the others is said that there is no room. Raises
    StorageFull where nobody is known.
    """
    alerts = [_alerts(room, judgement, subject) for subject in subjects]
    hearing = _Hearing(room, judgement, subjects, template)
    try:
        with room.timed("decide"):
            results = hearing.results()
    except StorageFull as full:
        if len(subjects) == 1:
            raise
        hearing.no_room = Reason("no_room", full.free_megabytes or 0, full.least_megabytes or 0)
        results = hearing.results()
        if not any(result.verdict is Verdict.MATCH for result in results):
            raise
    return tuple(
        replace(result, sighting_id=_tell(room, judgement, subject, result, raised))
        for subject, result, raised in zip(subjects, results, alerts, strict=True)
    )


class _Hearing:
    """The faces of one request before the gallery.

    What a face misses and what its template is are dear and found off the gallery's lock, so only for the faces that
    nobody knows: the gallery says which, has written nothing then, and decides anew.
    """

    def __init__(self, room: Room, judgement: Judgement, subjects: Sequence[Subject], template: TemplateOf) -> None:
        self._room = room
        self._judgement = judgement
        self._subjects = subjects
        self._template = template
        self._judged: dict[int, Identification] = {}
        self._missed = {number: one.reasons() for number, one in enumerate(subjects) if one.is_judged}
        self._hindered: dict[int, tuple[Reason, ...]] = {}
        self.no_room: Reason | None = None
        """Why nobody can be added: the disk is full."""

    def results(self) -> list[FaceResult]:
        """Ask the gallery until it has decided and written, with the templates that it wants."""
        probes = [Probe(one.embedding, one.newcomer, one.template) for one in self._subjects]
        outcomes: list[Outcome] | TemplatesWanted = TemplatesWanted(())
        while isinstance(outcomes, TemplatesWanted):
            for number in outcomes.numbers:
                probes[number] = replace(probes[number], template=self._wanted(number))
            outcomes = self._room.gallery.search_or_enrol(
                self._judgement.search_lists,
                self._judgement.add_list,
                probes,
                self._decide,
                max(
                    self._judgement.persons, CANDIDATES
                ),  # the runner-up counts, even where the best alone was asked for
            )
        return [
            _result(outcome, self._judged[number], subject, self._judgement, self._hindered.get(number, ()))
            for number, (subject, outcome) in enumerate(zip(self._subjects, outcomes, strict=True))
        ]

    def _wanted(self, number: int) -> Template | None:
        """Return the template, None where a closer look shows that the face will not be added."""
        is_new = number not in self._missed
        if is_new:
            self._missed[number] = self._subjects[number].reasons()
        return None if is_new and self._missed[number] else self._template(number)

    def _decide(self, number: int, list_size: int, candidates: Sequence[Candidate]) -> Decision:
        thresholds = self._judgement.policy.at(list_size)
        self._judged[number] = matching.identify(candidates, thresholds, self._room.calibration)
        decision = self._judgement.verdict(self._judged[number], self._missed.get(number, ()), number)
        too_short = _too_short(self._room, self._subjects[number])
        self._hindered[number] = too_short
        if decision.verdict is Verdict.ADD and self.no_room is not None:
            self._hindered[number] = (*too_short, self.no_room)
        if decision.verdict is Verdict.ADD and self._hindered[number]:
            return Decision(Verdict.REJECT)
        if decision.verdict is Verdict.ADD:
            return replace(decision, same_from=self._room.calibration.similarity(thresholds.match))
        return decision


def _too_short(room: Room, subject: Subject) -> tuple[Reason, ...]:
    """Return why the visit does not make somebody new yet: it was seen in too few frames."""
    frames, least = subject.passage_frames, room.settings.passage_frames
    return () if frames is None or frames >= least else (Reason("passage_frames", frames, least),)


def _result(
    outcome: Outcome,
    identification: Identification,
    subject: Subject,
    judgement: Judgement,
    hindrances: tuple[Reason, ...],
) -> FaceResult:
    decision = outcome.decision
    reasons = (*subject.reasons(), *hindrances) if decision.verdict is Verdict.REJECT else ()
    score, candidate = None, None
    if decision.verdict in (Verdict.MATCH, Verdict.REPLACE) and identification.matched:
        score = identification.matched.score
    if decision.verdict is Verdict.REJECT and identification.uncertain:
        score, candidate = identification.uncertain.score, identification.uncertain.candidate.person
        reasons = (*reasons, _uncertainty(identification, score))
    reached = [one for one in identification.ranked if one.score >= identification.thresholds.match]
    return FaceResult(
        verdict=decision.verdict,
        threshold=identification.thresholds.match,
        person=outcome.person,
        score=score,
        candidate=candidate,
        rival=identification.rival if decision.verdict is Verdict.REJECT else None,
        reasons=reasons,
        seen=subject.seen,
        passage_frames=subject.passage_frames,
        matches=tuple(reached[: judgement.persons]),
    )


def _uncertainty(identification: Identification, score: float) -> Reason:
    """Say what is missing: score to the threshold, or, where two people reach it, lead to the margin."""
    if identification.lead is not None:
        return Reason("uncertain_match", identification.lead, identification.thresholds.margin)
    return Reason("uncertain_match", score, identification.thresholds.match)


# --- telling ---


@dataclass(frozen=True)
class _Alert:
    """What a group wants to hear of a face, and whom the list had it for, before anything was written."""

    alert: ListAlert
    found: Ranked | None


def _alerts(room: Room, judgement: Judgement, subject: Subject) -> tuple[_Alert, ...]:
    group = None if judgement.group_id is None else room.gallery.group(judgement.group_id)
    raised = []
    for alert in group.alerts if group else ():
        try:
            size = room.gallery.list_size(alert.list_id)
            candidates = room.gallery.identify(alert.list_id, subject.embedding)
        except ListNotFound:  # deleted since the group was read, and its alert with it
            continue
        known = matching.identify(candidates, judgement.policy.at(size), room.calibration)
        raised.append(_Alert(alert, known.matched))
    return tuple(raised)


def _tell(
    room: Room, judgement: Judgement, subject: Subject, result: FaceResult, alerts: Sequence[_Alert]
) -> str | None:
    """Tell the listeners; return the sighting's id, None where the history keeps none."""
    person = result.person
    if person and result.verdict is Verdict.ADD:
        room.listeners.tell(PersonAdded(person.person_id, person.list_id))
    if person and result.verdict is Verdict.REPLACE:
        room.listeners.tell(PersonReplaced(person.person_id, person.list_id))
    searched = judgement.search_lists[0] if judgement.search_lists else judgement.add_list
    list_id = person.list_id if person else searched
    if list_id is None:
        return None  # compared with nothing, so nothing was learnt
    sighting = Sighting(
        sighting_id=room.identifiers.new(),
        time_ms=room.clock_ms(),
        list_id=list_id,
        source_id=judgement.source_id,
        group_id=judgement.group_id,
        verdict=result.verdict,
        person_id=person.person_id if person else None,
        score=result.score,
        threshold=result.threshold,
        box=subject.seen.box if subject.seen else None,
        reasons=result.reasons,
        picture=subject.sighting_picture,
        embedding=subject.embedding,
        pack_id=room.pack_id,
    )
    room.listeners.tell(FaceSighted(sighting))
    for one in alerts:
        wanted = one.alert.on_found if one.found else one.alert.on_failed
        if wanted:
            room.listeners.tell(_raised(sighting, judgement, one, wanted))
    return sighting.sighting_id if room.settings.keeps_sightings else None


def _raised(sighting: Sighting, judgement: Judgement, alert: _Alert, wanted: object) -> ListAlertRaised:
    return ListAlertRaised(
        sighting=sighting,
        group_id=judgement.group_id or "",
        list_id=alert.alert.list_id,
        wanted=wanted,
        person_id=alert.found.candidate.person.person_id if alert.found else None,
        score=alert.found.score if alert.found else None,
    )
