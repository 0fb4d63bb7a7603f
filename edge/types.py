"""The field's nouns, as ISO/IEC 2382-37 (biometric vocabulary) and 19795 (testing) use them.

Pixels are those of the upright picture, x to the right and y down. Times are whole milliseconds since 1970, UTC.
`left` and `right` of a face are the subject's own.
"""

from __future__ import annotations

import enum
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
"""Rows x columns x 3, RGB, upright."""

Vector = NDArray[np.float32]
"""One embedding, unit length."""

Points = NDArray[np.float32]
"""n x 2 or n x 3 coordinates in pixels."""

FieldValue = str


# --- geometry ---


@dataclass(frozen=True)
class Box:
    """An upright rectangle in pixels; may reach over the picture's edge."""

    x: float
    y: float
    width: float
    height: float

    @property
    def longer_side(self) -> float:
        """The side that size limits are about."""
        return max(self.width, self.height)

    @property
    def area(self) -> float:
        """Square pixels."""
        return self.width * self.height

    @property
    def centre(self) -> tuple[float, float]:
        """The middle, (x, y)."""
        return self.x + self.width / 2, self.y + self.height / 2

    def shared_area(self, other: Box) -> float:
        """Square pixels that lie in both."""
        width = min(self.x + self.width, other.x + other.width) - max(self.x, other.x)
        height = min(self.y + self.height, other.y + other.height) - max(self.y, other.y)
        return max(0.0, width) * max(0.0, height)

    def scaled(self, factor: float) -> Box:
        """Return the same box in a picture `factor` times as large."""
        return Box(self.x * factor, self.y * factor, self.width * factor, self.height * factor)

    def grown(self, factor: float) -> Box:
        """Return the box `factor` times as wide and high, about the same centre."""
        x, y = self.centre
        return Box(x - self.width * factor / 2, y - self.height * factor / 2, self.width * factor, self.height * factor)

    def within(self, columns: int, rows: int) -> Box:
        """Return the part of the box that lies in a picture of that size (of no area if none does)."""
        left, top = min(max(self.x, 0.0), columns), min(max(self.y, 0.0), rows)
        right, bottom = min(max(self.x + self.width, 0.0), columns), min(max(self.y + self.height, 0.0), rows)
        return Box(left, top, right - left, bottom - top)


@dataclass(frozen=True)
class Detection:
    """What the detector says is a face: its box, 0..1, and points, n x 2: right eye, left eye, nose, and what more.

    BlazeFace goes on with mouth, right ear and left ear; YuNet with the right and the left corner of the mouth.
    """

    box: Box
    score: float
    points: Points


@dataclass(frozen=True)
class Landmarks:
    """The face mesh (468 x 3 pixels; depth in the same scale) and how sure the model is that there is a face (0..1)."""

    points: Points
    presence: float

    @functools.cached_property
    def box(self) -> Box:
        """The tight box of the mesh: what users call the bounding box."""
        left, top = self.points[:, :2].min(axis=0)
        right, bottom = self.points[:, :2].max(axis=0)
        return Box(float(left), float(top), float(right - left), float(bottom - top))


@dataclass(frozen=True)
class Pose:
    """How the head is turned, in degrees.

    Yaw is positive toward the picture's right, pitch positive upward, roll positive clockwise as seen.
    """

    yaw_degrees: float
    pitch_degrees: float
    roll_degrees: float


# --- quality ---


@dataclass(frozen=True)
class Measures:
    """What is measured of a face; each name is also a feature name of the contract, but for `size`."""

    size: float
    """Longer side of the tight box, pixels."""
    yaw: float
    """Degrees, signed."""
    pitch: float
    """Degrees, signed."""
    roll: float
    """Degrees, signed."""
    eye_distance: float
    """Pixels between the eye centres."""
    eyes_open: float
    """0 shut .. 1 open, the less open eye."""
    mouth_open: float
    """0 shut .. 1 wide open."""
    sharpness: float
    """0 blurred .. 1 sharp, at the embedder's scale."""
    brightness: float
    """0 black .. 1 white, mean over the face."""
    face_presence: float
    """0..1, the mesh's own word for whether this is a face."""
    inside: float
    """0..1, the share of the tight box that lies within the picture."""

    def value(self, name: str) -> float:
        """Return the measure of that name (KeyError for one that is not measured)."""
        if name not in MEASURE_NAMES:
            raise KeyError(name)
        return float(getattr(self, name))


MEASURE_NAMES = tuple(f.name for f in fields(Measures))


@dataclass(frozen=True)
class Limit:
    """What a measure must keep to: `absolute` limits bound the value without its sign."""

    check: str
    measure: str
    least: float | None = None
    most: float | None = None
    absolute: bool = False


@dataclass(frozen=True)
class Reason:
    """Why a face was not added: the check, its value and the limit that it missed."""

    check: str
    value: float
    limit: float


# --- embeddings and templates ---


@dataclass(frozen=True)
class Embedding:
    """A probe: one unit-length vector and its mean cosine to its nearest cohort vectors (0 without a cohort)."""

    vector: Vector
    cohort_similarity: float


@dataclass(frozen=True)
class Template:
    """What is kept of a face to recognise it: an embedding, the pack that made it, and how good the face was."""

    embedding: Embedding
    pack_id: str
    quality: float
    """0..1: the sharpness of the face that it was made from; 1 where only a vector was given."""
    picture: bytes | None
    """The JPEG that a later pack can embed again; None where no picture may be kept."""


# --- model packs ---


@dataclass(frozen=True)
class InputSpec:
    """How pixels become a model's input: (pixel - mean) / scale, in that colour order."""

    rows: int
    columns: int
    colour: str
    mean: tuple[float, float, float]
    scale: float


@dataclass(frozen=True)
class ModelFile:
    """A file of a pack whose content has been checked against pack.json."""

    path: Path
    sha256: str


@dataclass(frozen=True)
class DetectorSpec:
    """The detector: one file per input size, how its output is read, its thresholds, and which faces it finds."""

    decoding: str
    inputs: tuple[tuple[ModelFile, InputSpec], ...]
    score_threshold: float
    iou_threshold: float
    least_face_pixels: float
    most_face_pixels: float
    """Longer side, brow to chin or cheek to cheek, in pixels of the input: nine of ten or more are found in between."""


@dataclass(frozen=True)
class LandmarksSpec:
    """The face mesh: its file, input, and how far the detector's box is grown for it."""

    file: ModelFile
    input: InputSpec
    box_scale: float


@dataclass(frozen=True)
class AlignmentPoint:
    """Where the mean of some mesh points belongs in the crop, as fractions of its width and height."""

    name: str
    mesh: tuple[int, ...]
    x: float
    y: float


@dataclass(frozen=True)
class CropVariant:
    """One way to cut the crop: scale about its centre, then a shift in crop pixels, then mirrored or not."""

    scale: float
    shift_x: float
    shift_y: float
    mirrored: bool


@dataclass(frozen=True, eq=False)
class Cohort:
    """Averages of strangers (n x length, unit vectors): a face near to them is near to everybody."""

    vectors: NDArray[np.float32]
    nearest: int
    weight: float


@dataclass(frozen=True)
class OperatingPoint:
    """At or above this normalised similarity, this share of non-mated comparisons is accepted."""

    fmr: float
    similarity: float


@dataclass(frozen=True, eq=False)
class EmbedderSpec:
    """The embedder: file, input, alignment, which crops make a probe and a template, and what its numbers mean."""

    file: ModelFile
    input: InputSpec
    vector_length: int
    alignment: tuple[AlignmentPoint, ...]
    probe_crops: tuple[CropVariant, ...]
    template_crops: tuple[CropVariant, ...]
    cohort: Cohort | None
    operating_points: tuple[OperatingPoint, ...]

    @property
    def cohort_weight(self) -> float:
        """How much of what a face has in common with everybody is taken off; 0 without a cohort."""
        return self.cohort.weight if self.cohort else 0.0


@dataclass(frozen=True, eq=False)
class Pack:
    """A set of models that belong together. Vectors of different packs (ids) never meet."""

    id: str
    name: str
    description: str
    folder: Path
    detector: DetectorSpec
    landmarks: LandmarksSpec
    embedder: EmbedderSpec


# --- the gallery's records ---


@dataclass(frozen=True)
class PersonList:
    """A named set of persons; a person is in exactly one."""

    list_id: str
    name: str
    created_ms: int
    is_main: bool
    count: int


@dataclass(frozen=True)
class ListAlert:
    """What a source group wants to hear about a list: `on_found` and `on_failed` as the caller wrote them."""

    list_id: str
    on_found: Any = None
    on_failed: Any = None


@dataclass(frozen=True)
class SourceGroup:
    """Sources that belong together (a building, a floor), and the alerts that they raise."""

    group_id: str
    name: str
    created_ms: int
    alerts: tuple[ListAlert, ...] = ()


@dataclass(frozen=True)
class FeatureBound:
    """A feature to determine, and the bounds outside which a face is not added."""

    name: str
    least: float | None = None
    most: float | None = None


@dataclass(frozen=True)
class SourceDefaults:
    """What a source brings to every request that names it; None: nothing of its own."""

    new_person_threshold: float | None = None
    new_person_threshold_score: float | None = None
    new_person_square_min: float | None = None
    new_person_yaw_max: float | None = None
    new_person_pitch_max: float | None = None
    feature_check: tuple[FeatureBound, ...] | None = None


@dataclass(frozen=True)
class Source:
    """A camera: its group, its defaults, and the lists that it adds to and searches."""

    source_id: str
    group_id: str | None
    name: str
    created_ms: int
    defaults: SourceDefaults = SourceDefaults()
    person_list_add: tuple[str, ...] = ()
    person_list_search: tuple[str, ...] = ()


class ActOutcome(enum.Enum):
    """How an act that the audit log keeps has ended."""

    BEGUN = "begun"
    """Not yet, or nobody knows: it was cut short."""
    DONE = "done"
    ADDED = "added"
    REPLACED = "replaced"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True)
class Actor:
    """Who does something, and what: an entry of the audit log before it has ended."""

    action: str
    """The route, or the command's verb."""
    caller_id: str | None
    """Of the token, or of the user whom it was issued to; None: the command line, or the service itself."""
    caller: str
    """The token's name, or what else says who it is: never a person's."""
    address: str
    """Where the request came from; empty where nothing came over the network."""
    time_ms: int
    """By the time that is believed (see gallery.trusted_time)."""


Ids = Sequence[tuple[str, str]]
"""What an act was about: what an id names (`person_id`), and the id."""


@dataclass(frozen=True)
class Act:
    """An entry of the audit log."""

    number: int
    actor: Actor
    outcome: ActOutcome
    ids: Ids
    detail: str


@dataclass(frozen=True)
class NewPerson:
    """What is written when a face becomes a person, or replaces what was known of one."""

    fields: tuple[FieldValue, ...]
    features: tuple[Mapping[str, Any], ...]
    pose: Pose | None
    score: float | None
    """The detector's."""
    group_id: str | None
    source_id: str | None
    actor: Actor | None = None
    """Who adds them, for the audit log; None: nobody asks."""


@dataclass(frozen=True)
class Person:
    """A person's record as the gallery keeps it."""

    person_id: str
    list_id: str
    group_id: str | None
    source_id: str | None
    created_ms: int
    updated_ms: int
    fields: tuple[FieldValue, ...]
    features: tuple[Mapping[str, Any], ...]
    pose: Pose | None
    score: float | None
    picture: str | None
    """The stored picture's random name, without a folder."""


@dataclass(frozen=True)
class StoredTemplate:
    """A template as the gallery keeps it: with its picture's name instead of the picture."""

    embedding: Embedding
    pack_id: str
    quality: float
    created_ms: int
    picture: str | None


@dataclass(frozen=True)
class Photo:
    """A template as somebody looks at it who mends what a person is recognised by."""

    photo_id: str
    """Good until the person is merged into another, or embedded anew for another pack."""
    template: StoredTemplate
    is_portrait: bool
    """Whether its picture is the one that the person is shown with."""


@dataclass(frozen=True)
class Candidate:
    """A person that resembles the probe, by the best of their templates: the normalised similarity."""

    person: Person
    similarity: float
    nearest_negative: float | None = None
    """The greatest normalised similarity to a face that was said not to be this person; None: there is none."""

    @property
    def is_disputed(self) -> bool:
        """Whether the probe is more like a face that is not this person than like any of their templates."""
        return self.nearest_negative is not None and self.nearest_negative > self.similarity


@dataclass(frozen=True)
class Rejection:
    """Somebody said that the face of a sighting is not this person."""

    person_id: str
    sighting_id: str
    created_ms: int


class Verdict(enum.Enum):
    """What a decision makes of a face."""

    MATCH = "match"
    ADD = "add"
    REPLACE = "replace"
    REJECT = "reject"


@dataclass(frozen=True)
class Decision:
    """The verdict on one face; `person_id` says who is matched or replaced."""

    verdict: Verdict
    person_id: str | None = None
    same_from: float | None = None
    """Of somebody who is added because nobody was like them: the normalised similarity from which somebody would have
    been. None: they are added for another reason."""


@dataclass(frozen=True)
class Sighting:
    """A face that was seen: where, when, and what it resolved to."""

    sighting_id: str
    time_ms: int
    list_id: str
    source_id: str | None
    group_id: str | None
    verdict: Verdict
    person_id: str | None
    score: float | None
    threshold: float
    box: Box | None
    """None where a vector came instead of a picture."""
    reasons: tuple[Reason, ...] = ()
    picture: bytes | None = None
    """A small JPEG of the face; None where none may be kept."""
    embedding: Embedding | None = field(default=None, compare=False)
    """The probe's, and the pack that made it: what a rejection needs. None in what is read back, as the picture is."""
    pack_id: str | None = field(default=None, compare=False)


class Scope(enum.Enum):
    """What a token is good for."""

    RECOGNIZE = "recognize"
    ENROL = "enrol"
    READ = "read"
    ADMIN = "admin"


@dataclass(frozen=True)
class Token:
    """A permanent token's record. The secret itself is never kept, only its SHA-256."""

    token_id: str
    name: str
    scopes: frozenset[Scope]
    list_id: str | None
    source_id: str | None
    created_ms: int
    expires_ms: int | None
    last_used_ms: int | None


@dataclass(frozen=True)
class User:
    """A person who may log in, and what their tokens are good for. The password is kept only as an scrypt hash."""

    user_id: str
    email: str
    """As it was written; compared without regard to case."""
    scopes: frozenset[Scope]
    created_ms: int
    password_ms: int
    """When the password was set: a temporary token issued before it is worth nothing any more."""


# --- requests ---


@dataclass(frozen=True)
class WantedParts:
    """What a caller wants returned of each face besides the record."""

    bbox: bool = False
    bbox_pro: bool = False
    thumb: bool = False
    normalized: bool = False
    features: tuple[FeatureBound, ...] = ()


@dataclass(frozen=True)
class NewPersonLimits:
    """The request's own numbers; None: the source's, else the setting's."""

    threshold: float | None = None
    threshold_score: float | None = None
    square_min: float | None = None
    yaw_max: float | None = None
    pitch_max: float | None = None


@dataclass(frozen=True)
class PersonCreate:
    """POST /person/create, checked: every value has its type and range."""

    image: bytes | None = None
    embedding: Vector | None = None
    list_id: str | None = None
    group_id: str | None = None
    source_id: str | None = None
    yaw_degrees: float | None = None
    pitch_degrees: float | None = None
    limits: NewPersonLimits = NewPersonLimits()
    fields: tuple[FieldValue, ...] = ()
    multi: bool = False
    replace_on_found: bool = False
    replace_person_id: str | None = None
    drop_image: bool = False
    embedding_only: bool = False
    wanted: WantedParts = field(default_factory=WantedParts)
    actor: Actor | None = None


def unit(vector: NDArray[Any]) -> Vector:
    """Return the vector at unit length (ValueError for one that has no direction)."""
    length = float(np.linalg.norm(vector.astype(np.float64)))
    if not math.isfinite(length) or length < 1e-12:
        raise ValueError("a vector of zeros or of numbers that are not finite has no direction")
    return (vector / length).astype(np.float32)
