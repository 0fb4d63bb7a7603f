"""Outcomes to the contract's JSON, refusals to their status codes. No decision is made here."""

from __future__ import annotations

import base64
import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edge import errors
from edge.errors import AccessDenied, Refusal
from edge.recognition import CreateResult, FaceResult, Seen
from edge.types import Box, Embedding, Person, PersonCreate, Pose, Reason, Verdict, WantedParts

ImageUrl = Callable[[Person], str | None]
"""The address of a person's picture; None where none was kept."""

STATUS_OF_REFUSAL: Mapping[type[Refusal], int] = {
    errors.AccessDenied: 401,
    errors.ScopeMissing: 403,
    errors.TooManyAttempts: 429,
    errors.BodyTooLarge: 413,
    errors.ItemNotFound: 404,
    errors.TooBusy: 503,
    errors.StorageFull: 507,
}
"""Every other refusal is the caller's to mend: 400."""

RETRY_AFTER_SECONDS = 1
"""For 503: the line of waiting pictures is worked off in about a second."""


@dataclass(frozen=True)
class Answer:
    """What is sent: a status code, JSON (or bytes with their type), and headers."""

    status: int
    json: Mapping[str, Any] | None = None
    content: bytes = b""
    content_type: str = "application/json; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)


def refusal(error: Refusal) -> Answer:
    """Return the answer to a declined request. All kinds of wrong tokens look alike: no reasons are given."""
    status = next((STATUS_OF_REFUSAL[kind] for kind in type(error).__mro__ if kind in STATUS_OF_REFUSAL), 400)
    body: dict[str, Any] = {"message": error.message, "status": "error"}
    if isinstance(error, AccessDenied):
        body["status"] = "failed"
    elif error.mistakes:
        body["errors"] = [{"field": mistake.field, "reason": mistake.reason} for mistake in error.mistakes]
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)} if status == 503 else {}
    return Answer(status, body, headers=headers)


def fault() -> Answer:
    """Return the answer to a fault of ours: nothing about it but that it is logged."""
    return Answer(500, {"message": "internal error", "status": "error"})


def person_created(
    result: CreateResult, request: PersonCreate, *, spent_ms: int, cloud_codes: bool, pack_id: str, image_url: ImageUrl
) -> Answer:
    """Return the answer of /person/create, in either reading of the status codes."""
    short: dict[str, Any] = {
        "faces_total": result.faces_total,
        "message": _message(result),
        "spent": spent_ms,
        "status": "ok",
    }
    if result.undecodable is not None:
        short["errors"] = [{"field": m.field, "reason": m.reason} for m in result.undecodable.mistakes]
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


def _message(result: CreateResult) -> str:
    if result.undecodable is not None:
        return result.undecodable.message
    if result.faces_total == 0:
        return "no faces found"
    if result.processed == 0:
        return f"{result.faces_total} faces detected, but they are too small"
    return f"{result.processed} face(s) successfully processed"


def _kept(one: FaceResult, status: str, wanted: WantedParts, image_url: ImageUrl) -> dict[str, Any]:
    assert one.person is not None
    record = person_record(one.person, image_url)
    return {**record, "status": status, "threshold": one.threshold, **_parts(one.seen, wanted)}


def _matched(one: FaceResult, wanted: WantedParts, image_url: ImageUrl) -> dict[str, Any]:
    assert one.person is not None and one.score is not None
    record = person_record(one.person, image_url)
    parts = _parts(one.seen, wanted)
    if one.seen and wanted.features:
        parts["features"] = [*one.seen.features]
    return {**record, "score": _rounded(one.score), "threshold": one.threshold, **parts}


def _rejected(one: FaceResult, wanted: WantedParts) -> dict[str, Any]:
    answer: dict[str, Any] = {"reasons": [_reason(reason) for reason in one.reasons], "threshold": one.threshold}
    if one.seen:
        answer["bbox"] = bbox(one.seen.box)
    if one.candidate and one.score is not None:
        answer["candidate"] = {
            "person_id": one.candidate.person_id,
            "list_id": one.candidate.list_id,
            "fields": [*one.candidate.fields],
            "score": _rounded(one.score),
        }
    return {**answer, **_parts(one.seen, wanted)}


def _embedded(one: Seen | Embedding, wanted: WantedParts, pack_id: str) -> dict[str, Any]:
    embedding = one.embedding if isinstance(one, Seen) else one
    assert embedding is not None
    answer: dict[str, Any] = {"embedding": [float(number) for number in embedding.vector], "model": pack_id}
    if isinstance(one, Seen):
        answer.update(_parts(one, wanted))
        if wanted.features:
            answer["features"] = [*one.features]
    return answer


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


def _reason(reason: Reason) -> dict[str, Any]:
    return {"check": reason.check, "value": _rounded(reason.value), "limit": _rounded(reason.limit)}


def _rounded(number: float) -> float:
    return round(number, 4)


def timestamp(milliseconds: int) -> str:
    """Return a time as the contract writes it: 2026-01-31T09:30:47.120Z."""
    moment = datetime.datetime.fromtimestamp(milliseconds // 1000, datetime.timezone.utc)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03d}Z"
