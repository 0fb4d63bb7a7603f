"""The story: what becomes of a picture. Readable aloud, from the bytes to who it was."""

from __future__ import annotations

import contextlib
import queue
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edge import matching
from edge.errors import ItemNotFound, ListNotFound, Mistake, PictureTooSmall, Refusal, TooBusy, UnknownPicture
from edge.events import FaceSighted, Listeners, PersonAdded, PersonReplaced
from edge.face import image
from edge.face.analysis import Analyser, Face
from edge.face.detection import Size
from edge.face.quality import gate
from edge.gallery.store import Gallery, Outcome, Probe, TemplatesWanted
from edge.matching import Calibration, Identification, ThresholdPolicy
from edge.types import (
    Box,
    Candidate,
    Decision,
    Embedding,
    FeatureBound,
    Limit,
    NewPerson,
    NewPersonLimits,
    Person,
    PersonCreate,
    Picture,
    Pose,
    Reason,
    Sighting,
    Source,
    Template,
    Verdict,
)

THUMB_GROWTH, THUMB_PIXELS, THUMB_QUALITY = 1.3, 256, 85
"""The contract's thumb: the box grown by 30 %, at most 256 pixels."""

NORMALIZED_QUALITY = 95
"""The aligned crop is for looking at and for embedding elsewhere: nearly without loss."""

PORTRAIT_GROWTH = 2.0
"""The picture kept of a person: the tight box doubled holds the whole head, and all that any pack's crop shows."""

SIGHTING_PIXELS, SIGHTING_QUALITY = 160, 80
"""A sighting's picture is for a person to recognise at a glance; about 6 KB."""


@dataclass(frozen=True)
class Settings:
    """The plain numbers of the story; default.conf says what each is."""

    max_pixels: int
    min_side_pixels: int
    detector_size: Size
    min_face_pixels: float
    presence_floor: float
    threshold: float | None
    threshold_score: float | None
    false_positive_rate: float
    square_min: float
    yaw_max: float
    pitch_max: float
    limits: tuple[Limit, ...]
    """The appliance's own, beside those that a request can name."""
    portrait_pixels: int
    portrait_quality: int
    sighting_pictures: bool


class Workers:
    """As many analysers as pictures may be worked on at once, and a bounded line of those who wait for one."""

    def __init__(self, analysers: Sequence[Analyser], *, max_waiting: int) -> None:
        self._free: queue.SimpleQueue[Analyser] = queue.SimpleQueue()
        for analyser in analysers:
            self._free.put(analyser)
        self._places = threading.Semaphore(len(analysers) + max_waiting)

    @contextlib.contextmanager
    def admitted(self) -> Iterator[None]:
        """Hold a place in the line for the length of a request; TooBusy at once if there is none."""
        if not self._places.acquire(blocking=False):
            raise TooBusy
        try:
            yield
        finally:
            self._places.release()

    @contextlib.contextmanager
    def one(self) -> Iterator[Analyser]:
        """Lend an analyser; only for who has been admitted, so the wait is as long as the line at most."""
        analyser = self._free.get()
        try:
            yield analyser
        finally:
            self._free.put(analyser)


@dataclass(frozen=True, eq=False)
class Seen:
    """A face as the caller wants it reported: JPEGs and numbers, nothing that refers to the picture."""

    face: Face
    box: Box
    """Within the picture."""
    thumb: bytes | None
    normalized: bytes | None
    features: tuple[Mapping[str, Any], ...]
    embedding: Embedding | None
    """The template's, where only embeddings were asked for."""


@dataclass(frozen=True, eq=False)
class FaceResult:
    """What became of one face that was compared with the list."""

    verdict: Verdict
    threshold: float
    person: Person | None
    score: float | None
    """Of the match, or of the candidate of an uncertain one."""
    candidate: Person | None
    """Whom an uncertain face may be."""
    reasons: tuple[Reason, ...]
    seen: Seen | None
    """None where a vector came instead of a picture."""


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
class _Subject:
    """One face on its way through a request."""

    seen: Seen | None
    embedding: Embedding
    newcomer: NewPerson
    reasons: tuple[Reason, ...]
    sighting_picture: bytes | None


class Recognizer:
    """Finds, judges and compares faces, and keeps those that nobody knew."""

    def __init__(
        self,
        *,
        workers: Workers,
        gallery: Gallery,
        listeners: Listeners,
        calibration: Calibration,
        pack_id: str,
        settings: Settings,
        clock_ms: Callable[[], int],
    ) -> None:
        self._workers = workers
        self._gallery = gallery
        self._listeners = listeners
        self._calibration = calibration
        self._pack_id = pack_id
        self._settings = settings
        self._clock_ms = clock_ms

    def create(self, request: PersonCreate) -> CreateResult:
        """Compare the request's faces with a list and add those that are nobody of it.

        Raises ListNotFound and ItemNotFound (replace_on_found) before anything is decoded or written, TooBusy when
        the line is full. A picture that cannot be decoded is an outcome, not a refusal.
        """
        list_id = request.list_id or self._gallery.main_list_id
        self._check_targets(list_id, request)
        if request.source_id is not None:
            request = with_source_defaults(request, self._gallery.source(request.source_id))
        with self._workers.admitted():
            try:
                picture = self._decoded(request.image)
            except (UnknownPicture, PictureTooSmall) as refusal:
                return CreateResult(faces_total=0, processed=0, undecodable=refusal)
            if request.embedding is not None:
                return self._create_from_vector(request, list_id, picture)
            assert picture is not None, "forms lets no request through without a picture or an embedding"
            return self._create_from_picture(request, list_id, picture)

    def self_check(self) -> None:
        """Send a blank picture through a worker and ask the gallery for its main list; hangs or raises if they do."""
        with self._workers.one() as worker:
            worker.warm_up(self._settings.detector_size)
        self._gallery.find_list(self._gallery.main_list_id)

    def _check_targets(self, list_id: str, request: PersonCreate) -> None:
        if self._gallery.find_list(list_id) is None:
            raise ListNotFound(Mistake("list_id", f"no list {list_id}"))
        if request.replace_person_id is not None:
            try:
                self._gallery.person(list_id, request.replace_person_id)
            except ItemNotFound as unknown:
                reason = unknown.mistakes[0].reason
                raise ItemNotFound(Mistake("replace_on_found", reason)) from None

    def _decoded(self, data: bytes | None) -> Picture | None:
        if data is None:
            return None
        with self._workers.one():  # decoding keeps a core busy like any other stage
            return image.decode(data, max_pixels=self._settings.max_pixels, min_side=self._settings.min_side_pixels)

    def _create_from_picture(self, request: PersonCreate, list_id: str, picture: Picture) -> CreateResult:
        with self._workers.one() as worker:
            faces = worker.faces(
                picture, size=self._settings.detector_size, presence_floor=self._settings.presence_floor
            )
            chosen = [face for face in faces if face.measures.size >= self._settings.min_face_pixels]
            if not request.multi:
                chosen = [face.with_pose(request.yaw_degrees, request.pitch_degrees) for face in chosen[:1]]
            seen = [self._seen(worker, picture, face, request) for face in chosen]
            if request.embedding_only:
                return CreateResult(len(faces), len(seen), embeddings=tuple(seen))
            limits = self._limits(request.limits, request.wanted.features)
            subjects = [
                _Subject(
                    seen=one,
                    embedding=worker.embedder.probe(picture, one.face.landmarks.points),
                    newcomer=self._newcomer(request, one),
                    reasons=gate(one.face.measures, limits),
                    sighting_picture=self._sighting_picture(picture, one.box, request),
                )
                for one in seen
            ]
        return CreateResult(
            len(faces),
            len(subjects),
            results=self._resolved(
                request, list_id, subjects, lambda number: self._template(picture, seen[number], request)
            ),
        )

    def _create_from_vector(self, request: PersonCreate, list_id: str, picture: Picture | None) -> CreateResult:
        """Go the same way with the vector that was sent; a picture beside it is only kept."""
        assert request.embedding is not None
        with self._workers.one() as worker:
            embedding = worker.embedder.given(request.embedding)
            kept = None if picture is None or request.drop_image else self._whole_jpeg(picture)
        if request.embedding_only:
            return CreateResult(1, 1, embeddings=(embedding,))
        subject = _Subject(
            seen=None,
            embedding=embedding,
            newcomer=self._newcomer(request, None),
            reasons=self._given_pose_reasons(request),
            sighting_picture=None,
        )
        template = Template(embedding, self._pack_id, quality=1.0, picture=kept)
        return CreateResult(1, 1, results=self._resolved(request, list_id, [subject], lambda _: template))

    # --- judging ---

    def _resolved(
        self,
        request: PersonCreate,
        list_id: str,
        subjects: Sequence[_Subject],
        template: Callable[[int], Template],
    ) -> tuple[FaceResult, ...]:
        """Search, decide and write in one step, and tell the listeners once it is on disk.

        Templates are dear and made off the gallery's lock, so only for the faces that turn out to be written:
        the gallery says which, has written nothing then, and decides anew.
        """
        policy = self._policy(request.limits)
        judged: dict[int, Identification] = {}

        def decide(number: int, list_size: int, candidates: Sequence[Candidate]) -> Decision:
            judged[number] = matching.identify(candidates, policy.at(list_size), self._calibration)
            return verdict(judged[number], subjects[number].reasons, request, is_first=number == 0)

        probes = [Probe(one.embedding, one.newcomer, None) for one in subjects]
        outcomes = self._gallery.identify_or_enrol(list_id, probes, decide)
        while isinstance(outcomes, TemplatesWanted):
            for number in outcomes.numbers:
                probes[number] = replace(probes[number], template=template(number))
            outcomes = self._gallery.identify_or_enrol(list_id, probes, decide)
        results = tuple(_result(outcome, judged[number], subjects[number]) for number, outcome in enumerate(outcomes))
        for subject, result in zip(subjects, results, strict=True):
            self._tell(request, list_id, subject, result)
        return results

    def _policy(self, asked: NewPersonLimits) -> ThresholdPolicy:
        settings = self._settings
        return ThresholdPolicy(
            match=settings.threshold if asked.threshold is None else asked.threshold,
            uncertain=settings.threshold_score if asked.threshold_score is None else asked.threshold_score,
            false_positive_rate=settings.false_positive_rate,
        )

    def _limits(self, asked: NewPersonLimits, features: Sequence[FeatureBound]) -> tuple[Limit, ...]:
        settings = self._settings
        square_min = settings.square_min if asked.square_min is None else asked.square_min
        bounds = tuple(
            Limit(bound.name, bound.name, least=bound.least, most=bound.most)
            for bound in features
            if bound.least is not None or bound.most is not None
        )
        return (Limit("size", "size", least=square_min), *self._pose_limits(asked), *settings.limits, *bounds)

    def _pose_limits(self, asked: NewPersonLimits) -> tuple[Limit, Limit]:
        yaw_max = self._settings.yaw_max if asked.yaw_max is None else asked.yaw_max
        pitch_max = self._settings.pitch_max if asked.pitch_max is None else asked.pitch_max
        return Limit("yaw", "yaw", most=yaw_max, absolute=True), Limit("pitch", "pitch", most=pitch_max, absolute=True)

    def _given_pose_reasons(self, request: PersonCreate) -> tuple[Reason, ...]:
        """Judge the pose that came with a vector, all that is known of its face."""
        given = {"yaw": request.yaw_degrees, "pitch": request.pitch_degrees}
        return tuple(
            Reason(limit.check, value, limit.most)
            for limit in self._pose_limits(request.limits)
            if (value := given[limit.measure]) is not None and limit.most is not None and abs(value) > limit.most
        )

    # --- what is kept and reported ---

    def _seen(self, worker: Analyser, picture: Picture, face: Face, request: PersonCreate) -> Seen:
        wanted = request.wanted
        rows, columns = picture.shape[:2]
        box, points = face.landmarks.box, face.landmarks.points
        thumb = normalized = None
        if wanted.thumb:
            thumb = _jpeg_of(picture, box.grown(THUMB_GROWTH), THUMB_PIXELS, THUMB_QUALITY)
        if wanted.normalized:
            normalized = image.encode_jpeg(worker.embedder.crop(picture, points), quality=NORMALIZED_QUALITY)
        return Seen(
            face=face,
            box=box.within(columns, rows),
            thumb=thumb,
            normalized=normalized,
            features=_features(face, wanted.features),
            embedding=worker.embedder.template(picture, points) if request.embedding_only else None,
        )

    def _newcomer(self, request: PersonCreate, seen: Seen | None) -> NewPerson:
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
        )

    def _template(self, picture: Picture, seen: Seen, request: PersonCreate) -> Template:
        with self._workers.one() as worker:
            embedding = worker.embedder.template(picture, seen.face.landmarks.points)
            kept = None
            if not request.drop_image:
                box = seen.face.landmarks.box.grown(PORTRAIT_GROWTH)
                kept = _jpeg_of(picture, box, self._settings.portrait_pixels, self._settings.portrait_quality)
        return Template(embedding, self._pack_id, seen.face.measures.sharpness, kept)

    def _whole_jpeg(self, picture: Picture) -> bytes:
        small = image.shrunk(picture, longest=self._settings.portrait_pixels)
        return image.encode_jpeg(small, quality=self._settings.portrait_quality)

    def _sighting_picture(self, picture: Picture, box: Box, request: PersonCreate) -> bytes | None:
        if request.drop_image or not self._settings.sighting_pictures:
            return None
        return _jpeg_of(picture, box.grown(THUMB_GROWTH), SIGHTING_PIXELS, SIGHTING_QUALITY)

    def _tell(self, request: PersonCreate, list_id: str, subject: _Subject, result: FaceResult) -> None:
        person_id = result.person.person_id if result.person else None
        if person_id and result.verdict is Verdict.ADD:
            self._listeners.tell(PersonAdded(person_id, list_id))
        if person_id and result.verdict is Verdict.REPLACE:
            self._listeners.tell(PersonReplaced(person_id, list_id))
        sighting = Sighting(
            sighting_id=str(uuid.uuid4()),
            time_ms=self._clock_ms(),
            list_id=list_id,
            source_id=request.source_id,
            group_id=request.group_id,
            verdict=result.verdict,
            person_id=person_id,
            score=result.score,
            threshold=result.threshold,
            box=subject.seen.box if subject.seen else None,
            reasons=result.reasons,
            picture=subject.sighting_picture,
        )
        self._listeners.tell(FaceSighted(sighting))


def with_source_defaults(request: PersonCreate, source: Source | None) -> PersonCreate:
    """Return the request with what its source brings for what it does not say itself."""
    if source is None:
        return request
    own, asked = source.defaults, request.limits

    def first(value: float | None, default: float | None) -> float | None:
        return default if value is None else value

    limits = NewPersonLimits(
        threshold=first(asked.threshold, own.new_person_threshold),
        threshold_score=first(asked.threshold_score, own.new_person_threshold_score),
        square_min=first(asked.square_min, own.new_person_square_min),
        yaw_max=first(asked.yaw_max, own.new_person_yaw_max),
        pitch_max=first(asked.pitch_max, own.new_person_pitch_max),
    )
    features = request.wanted.features or own.feature_check or ()
    return replace(
        request,
        limits=limits,
        wanted=replace(request.wanted, features=features),
        group_id=request.group_id or source.group_id,
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


def _result(outcome: Outcome, identification: Identification, subject: _Subject) -> FaceResult:
    decision, reasons = outcome.decision, subject.reasons
    score, candidate = None, None
    if decision.verdict in (Verdict.MATCH, Verdict.REPLACE) and identification.matched:
        score = identification.matched.score
    if decision.verdict is Verdict.REJECT and identification.uncertain:
        score, candidate = identification.uncertain.score, identification.uncertain.candidate.person
        reasons = (*reasons, Reason("uncertain_match", score, identification.thresholds.match))
    return FaceResult(
        verdict=decision.verdict,
        threshold=identification.thresholds.match,
        person=outcome.person,
        score=score,
        candidate=candidate,
        reasons=reasons if decision.verdict is Verdict.REJECT else (),
        seen=subject.seen,
    )


def _jpeg_of(picture: Picture, box: Box, longest: int, quality: int) -> bytes:
    """Return the part of the picture in the box; a face always meets its picture, so there is one."""
    part = image.cut(picture, box, longest=longest)
    return image.encode_jpeg(np.ascontiguousarray(part), quality=quality)


def _features(face: Face, bounds: Sequence[FeatureBound]) -> tuple[Mapping[str, Any], ...]:
    """Return the features that were asked for, as they are kept with the record."""
    return tuple(
        {
            "name": bound.name,
            "version": FEATURE_VERSION,
            "result": round(face.measures.value(bound.name), 4),
            "confidence": f"{face.landmarks.presence:.4f}",
            "spent": face.measured_ms,
        }
        for bound in bounds
    )


FEATURE_VERSION = "1"
"""Rises when a measure's scale changes, so that a client can tell old numbers from new ones."""
