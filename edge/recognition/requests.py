"""What callers ask for besides a new person: each request checked, every value of its type and range."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TypeVar

from edge.types import Actor, NewPersonLimits, PersonCreate, Source, Vector, WantedParts


@dataclass(frozen=True)
class ActionRequest:
    """POST /action: who the faces are, of several lists; nobody's may be added to one."""

    image: bytes
    search_lists: tuple[str, ...] = ()
    """None: the source's, else the main list."""
    add_list: str | None = None
    """None: the source's, else nobody is added."""
    results: int = 1
    """Matches of each face, at most."""
    group_id: str | None = None
    source_id: str | None = None
    multi: bool = False
    drop_image: bool = False
    limits: NewPersonLimits = field(default_factory=NewPersonLimits)
    wanted: WantedParts = field(default_factory=WantedParts)
    may_add: bool = True
    """Whether the caller may add persons at all."""
    only_list: str | None = None
    """The one list that the caller may use; None: any."""
    actor: Actor | None = None
    newest_only: bool = False
    """Whether a newer frame of the source that comes while this one waits takes its place."""


@dataclass(frozen=True, eq=False)
class VectorSearch:
    """POST /vector/search: whom vectors resemble, of several lists."""

    embeddings: tuple[Vector, ...]
    list_ids: tuple[str, ...]
    """None: the main list."""
    threshold: float | None
    persons: int
    """Matches of each vector, at most."""


@dataclass(frozen=True)
class DetectRequest:
    """POST /detect: where the faces of pictures are, and what else is wanted of them."""

    images: tuple[bytes, ...]
    multi: bool
    wanted: WantedParts


@dataclass(frozen=True)
class CompareRequest:
    """POST /compare: whether two pictures show the same person."""

    images: tuple[bytes, bytes]
    threshold: float | None
    multi: bool
    wanted: WantedParts


@dataclass(frozen=True, eq=False)
class FusionRequest:
    """POST /person/fusion: more to recognise a person by."""

    list_id: str
    person_id: str
    images: tuple[bytes, ...] = ()
    embeddings: tuple[Vector, ...] = ()
    replace_person_id: str | None = None
    """Somebody of the same list who turned out to be the same person."""
    fields: tuple[str, ...] | None = None
    drop_image: bool = False
    limits: NewPersonLimits = field(default_factory=NewPersonLimits)


FromSource = TypeVar("FromSource", PersonCreate, ActionRequest)


def with_source_defaults(request: FromSource, source: Source | None) -> FromSource:
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
