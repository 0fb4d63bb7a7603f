"""Outcomes to the contract's JSON, refusals to their status codes. No decision is made here."""

from __future__ import annotations

import base64
import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edge import errors
from edge.errors import AccessDenied, Refusal
from edge.matching import Ranked
from edge.recognition import ActionResult, Comparison, CreateResult, FaceResult, Inspected, Seen
from edge.types import Box, Embedding, FeatureBound, Person, PersonCreate, Pose, Reason, Rejection, Verdict, WantedParts

ImageUrl = Callable[[Person], str | None]
"""The address of a person's picture; None where none was kept."""


class InvalidCredentials(AccessDenied):
    """No user of that address, or not their password: told alike."""

    message = "invalid user credentials"


STATUS_OF_REFUSAL: Mapping[type[Refusal], int] = {
    errors.AccessDenied: 401,
    errors.ScopeMissing: 403,
    InvalidCredentials: 403,
    errors.TooManyAttempts: 429,
    errors.TooManyRequests: 429,
    errors.BodyTooLarge: 413,
    errors.ItemNotFound: 404,
    errors.TooBusy: 503,
    errors.StorageFull: 507,
}
"""Every other refusal is the caller's to mend: 400."""

RETRY_AFTER_SECONDS: Mapping[type[Refusal], int] = {
    errors.TooManyAttempts: 60,
    errors.TooManyRequests: 1,
    errors.TooBusy: 1,
    errors.TooManyStreams: 10,
}
"""Attempts are counted over a minute, a token's requests over a second; waiting pictures take about a second; a
page that watches is not closed every minute."""


@dataclass(frozen=True)
class Answer:
    """What is sent: a status code, JSON (or bytes with their type), and headers."""

    status: int
    json: Mapping[str, Any] | None = None
    content: bytes = b""
    content_type: str = "application/json; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)
    stream: Iterable[bytes] | None = None
    """Instead of content: what goes on for as long as the client listens; closed at the end if it can be."""


def refusal(error: Refusal) -> Answer:
    """Return the answer to a declined request. All kinds of wrong tokens look alike: no reasons are given.

    Of a token that is right and may not, a header says why (RFC 6750, section 3): the body is the contract's.
    """
    status = status_of(type(error))
    body: dict[str, Any] = {"message": error.message, "status": "error"}
    if isinstance(error, AccessDenied):
        body["status"] = "failed"
    elif error.mistakes:
        body["errors"] = [{"field": mistake.field, "reason": mistake.reason} for mistake in error.mistakes]
    seconds = RETRY_AFTER_SECONDS.get(type(error))
    headers = {} if seconds is None else {"Retry-After": str(seconds)}
    if isinstance(error, errors.ScopeMissing):
        reasons = "; ".join(f"{mistake.field} {mistake.reason}" for mistake in error.mistakes)
        headers["WWW-Authenticate"] = f'Bearer error="insufficient_scope", error_description="{reasons}"'
    return Answer(status, body, headers=headers)


def status_of(refusal: type[Refusal]) -> int:
    """Return the status code of a kind of refusal."""
    return next((STATUS_OF_REFUSAL[kind] for kind in refusal.__mro__ if kind in STATUS_OF_REFUSAL), 400)


def fault() -> Answer:
    """Return the answer to a fault of ours: nothing about it but that it is logged."""
    return Answer(500, {"message": "internal error", "status": "error"})


def person_created(
    result: CreateResult, request: PersonCreate, *, spent_ms: int, cloud_codes: bool, pack_id: str, image_url: ImageUrl
) -> Answer:
    """Return the answer of /person/create, in either reading of the status codes."""
    short: dict[str, Any] = {
        "faces_total": result.faces_total,
        "message": _message(result.faces_total, result.processed, result.undecodable),
        "spent": spent_ms,
        "status": "ok",
    }
    if result.undecodable is not None:
        short["errors"] = _mistakes(result.undecodable)
    wanted = request.wanted
    if request.embedding_only:
        if result.embeddings:
            short["faces"] = [_embedded(one, wanted, pack_id) for one in result.embeddings]
        return Answer(200, short)
    by_verdict: dict[Verdict, list[FaceResult]] = {verdict: [] for verdict in Verdict}
    for one in result.results:
        by_verdict[one.verdict].append(one)
    added, replaced = by_verdict[Verdict.ADD], by_verdict[Verdict.REPLACE]
    full = {
        **short,
        "persons": [
            *(_kept(one, "init", wanted, image_url) for one in added),
            *(_kept(one, "replaced", wanted, image_url) for one in replaced),
        ],
        "matches": [_matched(one, wanted, image_url) for one in by_verdict[Verdict.MATCH]],
        "rejected": [_rejected(one, wanted) for one in by_verdict[Verdict.REJECT]],
        "persons_new": len(added),
        "persons_updated": len(replaced),
        "persons_total": len({one.person.person_id for one in result.results if one.person}),
    }
    recorded = bool(added or replaced)
    if cloud_codes:
        return Answer(201 if added else 200, full)
    return Answer(200 if recorded else 201, full)


def _message(faces_total: int, processed: int, undecodable: Refusal | None) -> str:
    if undecodable is not None:
        return undecodable.message
    if faces_total == 0:
        return "no faces found"
    if processed == 0:
        return f"{faces_total} faces detected, but they are too small"
    return f"{processed} face(s) successfully processed"


def _mistakes(refusal: Refusal, name: str | None = None) -> list[dict[str, str]]:
    return [{"field": name or mistake.field, "reason": mistake.reason} for mistake in refusal.mistakes]


def _kept(one: FaceResult, status: str, wanted: WantedParts, image_url: ImageUrl) -> dict[str, Any]:
    assert one.person is not None
    record = person_record(one.person, image_url)
    return {**record, "status": status, **_decided_by(one), **_sighted(one), **_parts(one.seen, wanted)}


def _matched(one: FaceResult, wanted: WantedParts, image_url: ImageUrl) -> dict[str, Any]:
    assert one.person is not None and one.score is not None
    record = person_record(one.person, image_url)
    parts = _parts(one.seen, wanted)
    if one.seen and wanted.features:
        parts["features"] = [*one.seen.features]
    return {**record, "score": _rounded(one.score), **_decided_by(one), **_sighted(one), **parts}


def _rejected(one: FaceResult, wanted: WantedParts) -> dict[str, Any]:
    answer: dict[str, Any] = {"reasons": [reason(why) for why in one.reasons], **_decided_by(one)}
    if one.seen:
        answer["bbox"] = bbox(one.seen.box)
    return {**answer, **_candidate(one), **_sighted(one), **_parts(one.seen, wanted)}


def _sighted(one: FaceResult) -> dict[str, Any]:
    """Return what to say in /person/reject; nothing where no history is kept."""
    return {} if one.sighting_id is None else {"sighting_id": one.sighting_id}


def _decided_by(one: FaceResult) -> dict[str, Any]:
    """Return what the decision rests on: the threshold, and, where frames were taken together, how many."""
    together = {} if one.passage_frames is None else {"passage_frames": one.passage_frames}
    return {"threshold": one.threshold, **together}


def _candidate(one: FaceResult) -> dict[str, Any]:
    """Return whom an uncertain face may be; nothing of any other."""
    if one.candidate is None or one.score is None:
        return {}
    answer = {"candidate": _suspect(one.candidate, one.score)}
    if one.rival is not None:
        answer["rival"] = _suspect(one.rival.candidate.person, one.rival.score)
    return answer


def _suspect(person: Person, score: float) -> dict[str, Any]:
    return {
        "person_id": person.person_id,
        "list_id": person.list_id,
        "fields": [*person.fields],
        "score": _rounded(score),
    }


def _embedded(one: Seen | Embedding, wanted: WantedParts, pack_id: str) -> dict[str, Any]:
    embedding = one.embedding if isinstance(one, Seen) else one
    assert embedding is not None
    answer: dict[str, Any] = {"embedding": [float(number) for number in embedding.vector], "model": pack_id}
    if isinstance(one, Seen):
        answer.update(_parts(one, wanted))
        if wanted.features:
            answer["features"] = [*one.features]
    return answer


def acted(result: ActionResult, wanted: WantedParts, *, spent_ms: int, image_url: ImageUrl) -> Answer:
    """Return the answer of /action."""
    body: dict[str, Any] = {
        "faces_total": result.faces_total,
        "message": _message(result.faces_total, len(result.results), result.undecodable),
        "spent": spent_ms,
        "status": "ok",
        "results": [_acted(one, wanted, image_url) for one in result.results],
        "persons_new": sum(one.verdict is Verdict.ADD for one in result.results),
    }
    if result.undecodable is not None:
        body["errors"] = _mistakes(result.undecodable)
    return Answer(200, body)


def _acted(one: FaceResult, wanted: WantedParts, image_url: ImageUrl) -> dict[str, Any]:
    assert one.seen is not None, "an action is taken on a picture"
    answer: dict[str, Any] = {
        "matches": [found_person(match, image_url) for match in one.matches],
        **_decided_by(one),
        "reasons": [reason(why) for why in one.reasons],
        "bbox": bbox(one.seen.box),
        **_candidate(one),
        **_sighted(one),
        **_parts(one.seen, wanted),
    }
    if wanted.features:
        answer["features"] = [*one.seen.features]
    if one.person and one.verdict is Verdict.ADD:
        answer["added"] = person(one.person, image_url)
    return answer


def found_person(match: Ranked, image_url: ImageUrl) -> dict[str, Any]:
    """Return somebody who was found: their record, with the score of the match."""
    return {**person_record(match.candidate.person, image_url), "score": _rounded(match.score)}


def detected(pictures: Sequence[Inspected], wanted: WantedParts, *, spent_ms: int) -> Answer:
    """Return the answer of /detect: a list of faces for each picture."""
    return Answer(200, _inspected(pictures, wanted, spent_ms))


def compared(comparison: Comparison, wanted: WantedParts, *, spent_ms: int) -> Answer:
    """Return the answer of /compare."""
    body = _inspected((comparison.first, comparison.second), wanted, spent_ms)
    score = None if comparison.score is None else _rounded(comparison.score)
    return Answer(200, {**body, "score": score, "match": comparison.match, "threshold": comparison.threshold})


def _inspected(pictures: Sequence[Inspected], wanted: WantedParts, spent_ms: int) -> dict[str, Any]:
    faces_total = sum(one.faces_total for one in pictures)
    processed = sum(len(one.seen) for one in pictures)
    refused = [(number, one.undecodable) for number, one in enumerate(pictures) if one.undecodable is not None]
    body: dict[str, Any] = {
        "faces_total": faces_total,
        "message": _message(faces_total, processed, refused[0][1] if refused and not faces_total else None),
        "spent": spent_ms,
        "status": "ok",
        "results": [[_face(seen, wanted) for seen in one.seen] for one in pictures],
    }
    if refused:
        body["errors"] = [error for number, one in refused for error in _mistakes(one, f"images[{number}]")]
    return body


def _face(seen: Seen, wanted: WantedParts) -> dict[str, Any]:
    face = {"score": _rounded(seen.face.detection.score), **_pose(seen.face.pose), **_parts(seen, wanted)}
    return {**face, "features": [*seen.features]} if wanted.features else face


def person(person: Person, image_url: ImageUrl) -> dict[str, Any]:
    """Return a person's record as it stands for itself."""
    return {**person_record(person, image_url), "status": "init"}


def person_record(person: Person, image_url: ImageUrl) -> dict[str, Any]:
    """Return a person as every route shows one."""
    record: dict[str, Any] = {
        "person_id": person.person_id,
        "list_id": person.list_id,
        "group_id": person.group_id,
        "source_id": person.source_id,
        "created": timestamp(person.created_ms),
        "updated": timestamp(person.updated_ms),
        "fields": [*person.fields],
        "features": [*person.features],
        **_pose(person.pose),
        "score": None if person.score is None else _rounded(person.score),
    }
    url = image_url(person)
    if url is not None:
        record["image_url"] = url
    return record


def _pose(pose: Pose | None) -> dict[str, float | None]:
    if pose is None:
        return {"yaw": None, "pitch": None, "roll": None}
    return {
        "yaw": round(pose.yaw_degrees, 1),
        "pitch": round(pose.pitch_degrees, 1),
        "roll": round(pose.roll_degrees, 1),
    }


def _parts(seen: Seen | None, wanted: WantedParts) -> dict[str, Any]:
    """Return what was asked for of the posted face; nothing where there was only a vector."""
    parts: dict[str, Any] = {}
    if seen is None:
        return parts
    if wanted.bbox:
        parts["bbox"] = bbox(seen.box)
    if wanted.bbox_pro:
        parts["bbox_pro"] = [[round(float(x)), round(float(y))] for x, y in seen.face.corners]
    if seen.thumb is not None:
        parts["thumb"] = base64.b64encode(seen.thumb).decode("ascii")
    if seen.normalized is not None:
        parts["normalized"] = base64.b64encode(seen.normalized).decode("ascii")
    return parts


def bbox(box: Box) -> dict[str, int]:
    """Return a box in whole pixels."""
    return {"x": round(box.x), "y": round(box.y), "w": round(box.width), "h": round(box.height)}


def bound(feature: FeatureBound) -> dict[str, Any]:
    """Return a feature and its bounds, as a request may have them."""
    bounds = {"min": feature.least, "max": feature.most}
    return {"name": feature.name, **{name: value for name, value in bounds.items() if value is not None}}


def rejection(one: Rejection) -> dict[str, Any]:
    """Return that the face of a sighting is not a person."""
    return {"person_id": one.person_id, "sighting_id": one.sighting_id, "created": timestamp(one.created_ms)}


def reason(reason: Reason) -> dict[str, Any]:
    """Return why a face was not added."""
    return {"check": reason.check, "value": _rounded(reason.value), "limit": _rounded(reason.limit)}


def _rounded(number: float) -> float:
    return round(number, 4)


def timestamp(milliseconds: int) -> str:
    """Return a time as the contract writes it: 2026-01-31T09:30:47.120Z."""
    moment = datetime.datetime.fromtimestamp(milliseconds // 1000, datetime.timezone.utc)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03d}Z"
