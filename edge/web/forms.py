"""What several routes take, and POST /person/create: a body in, a checked request out, or a refusal.

The order of the refusals is the contract's: nothing to work on, then a file where none belongs, then every value that
is out of its type or range, all in one answer.
"""

from __future__ import annotations

from typing import Any

from edge.types import FeatureBound, NewPersonLimits, PersonCreate, WantedParts
from edge.web.body import Body, shown
from edge.web.parameters import (
    Facts,
    Flag,
    Form,
    Many,
    Names,
    One,
    Parameter,
    Picture,
    Values,
    json_text,
    nested,
    or_null,
)
from edge.web.values import Kind, Reader, Unfit, boolean_or_uuid, number, share, text, uuid_text
from edge.web.vectors import vector

FIELDS = 256  # business fields of a person
FIELD_CHARACTERS = 65_535  # of one business field
ANGLE_DEGREES = 90.0  # beyond it a face looks away
SIDE_PIXELS = 10_000.0  # as in the settings; no picture of bearable size has a longer face
BOUND = 1e6  # least and greatest bound of a feature: wider than any measure, in pixels or degrees or 0..1


# --- features ---


def feature(facts: Facts) -> Kind[FeatureBound]:
    """Return the reader of a feature: its name, or an object that also bounds it."""
    names = {"type": "string", "enum": sorted(facts.features)}
    bound = or_null(number(-BOUND, BOUND).schema)
    bounded = {
        "type": "object",
        "properties": {"name": names, "min": bound, "max": bound},
        "required": ["name"],
        "additionalProperties": False,
    }
    in_a_text = json_text(bounded, "feature")
    return Kind(
        lambda value: _feature(value, facts.features),
        {"anyOf": [names, bounded, in_a_text]},
        {"anyOf": [names, in_a_text]},
    )


def _feature(value: Any, known: frozenset[str]) -> FeatureBound:
    if isinstance(value, str) and value.startswith("{"):
        value = nested(value)
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, dict):
        raise Unfit('must be a name, or an object like {"name": "eyes_open", "min": 0.5}')
    strange = sorted(set(value) - {"name", "min", "max"})
    if strange:
        raise Unfit(f"{shown(strange[0])} is none of name, min, max")
    name, least, most = value.get("name"), _bound(value, "min"), _bound(value, "max")
    if not isinstance(name, str) or name not in known:
        given = repr(shown(name)) if isinstance(name, str) else "an object without a name"
        raise Unfit(f"{given} is not known; known are {_listed(known)}")
    if least is not None and most is not None and least > most:
        raise Unfit(f"min, {least:g}, is above max, {most:g}")
    return FeatureBound(name, least, most)


def _bound(feature: dict[str, Any], name: str) -> float | None:
    value = feature.get(name)
    if value is None:
        return None
    try:
        return number(-BOUND, BOUND)(value)
    except Unfit as error:
        raise Unfit(f"{name} {error}") from None


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names)) or "none"


class Features:
    """Features with or without bounds: the field repeated, or one JSON array, of names and objects."""

    name = "feature_check"
    doc = (
        "The features to determine and report for each face. An object also bounds one: a face out of its bounds is"
        " never added. Which names are known depends on the active model pack."
    )
    required = False
    files = 0
    names = None

    def take(self, reader: Reader, facts: Facts) -> tuple[FeatureBound, ...]:
        """Return the features, none where the name is absent."""
        if not reader.body.values(self.name):
            return ()
        bounds = self._many(facts).take(reader, facts)
        names = [bound.name for bound in bounds]
        for repeated in sorted({one for one in names if names.count(one) > 1}):
            reader.mistake(self.name, f"{repeated} is named more than once")
        return bounds

    def schema(self, facts: Facts, *, form: bool) -> dict[str, Any]:
        """Return the schema."""
        return self._many(facts).schema(facts, form=form)

    def _many(self, facts: Facts) -> Many[FeatureBound]:
        empty = f"must not be empty; known are {_listed(facts.features)}"
        return Many(self.name, feature, self.doc, max(len(facts.features), 1), least=1, spread=True, empty=empty)


# --- parameters that several routes share ---

IMAGE = Picture("image", "The picture: JPEG, PNG, WebP or BMP. In JSON, base64 (a data: URL too).")
LIST_ID = One(
    "list_id", uuid_text, "The list; the main list (or the one that the token is bound to) if absent.", Names.LIST
)
GROUP_ID = One("group_id", uuid_text, "The source group; recorded. Of a known source it is that source's.")
SOURCE_ID = One(
    "source_id",
    uuid_text,
    "The source (camera); recorded. A known one brings defaults for what the request leaves out.",
)
FIELDS_OF_PERSON = Many(
    "fields", text(FIELD_CHARACTERS), "The business fields to record, in this order (also as `fields[]`).", FIELDS
)
MULTI = Flag("multi", "Process every face; otherwise the largest one alone.")
DROP_IMAGE = Flag("drop_image", "Keep no picture of this request; vectors are kept.")

BBOX = Flag("bbox", "Return the box of each face: x, y, w, h in pixels of the upright picture.")
BBOX_PRO = Flag(
    "bbox_pro", "Return four points for each face: the box turned with the head, from the top left clockwise."
)
THUMB = Flag("thumb", "Return each face as a JPEG of at most 256 pixels, in base64.")
NORMALIZED = Flag("normalized", "Return each face's aligned crop, as the model sees it, as a JPEG in base64.")
FEATURE_CHECK = Features()
WANTED: tuple[Parameter[Any], ...] = (BBOX, BBOX_PRO, THUMB, NORMALIZED, FEATURE_CHECK)


def wanted_parts(values: Values) -> WantedParts:
    """Return what to report of each face: the four flags and `feature_check`."""
    return WantedParts(
        bbox=values[BBOX],
        bbox_pro=values[BBOX_PRO],
        thumb=values[THUMB],
        normalized=values[NORMALIZED],
        features=values[FEATURE_CHECK],
    )


THRESHOLD = One(
    "new_person_threshold",
    share,
    "A face whose best match scores this or more is that person: 0 to 1, or a percentage above 1 and up to 100.",
)
THRESHOLD_SCORE = One(
    "new_person_threshold_score",
    share,
    "A face whose best match scores this or more, but less than new_person_threshold, is uncertain: not added.",
)
SQUARE_MIN = One("new_person_square_min", number(0, SIDE_PIXELS), "Least longer side of a new face's box, in pixels.")
YAW_MAX = One("new_person_yaw_max", number(0, ANGLE_DEGREES), "The most a new face may look to a side, in degrees.")
PITCH_MAX = One(
    "new_person_pitch_max", number(0, ANGLE_DEGREES), "The most a new face may look up or down, in degrees."
)
NEW_PERSON: tuple[Parameter[Any], ...] = (THRESHOLD, THRESHOLD_SCORE, SQUARE_MIN, YAW_MAX, PITCH_MAX)


def new_person_limits(values: Values) -> NewPersonLimits:
    """Return the five `new_person_*`: thresholds as 0..1, the side in pixels, angles in degrees."""
    return NewPersonLimits(
        threshold=values[THRESHOLD],
        threshold_score=values[THRESHOLD_SCORE],
        square_min=values[SQUARE_MIN],
        yaw_max=values[YAW_MAX],
        pitch_max=values[PITCH_MAX],
    )


def uncertain_is_below(values: Values, reader: Reader) -> None:
    """Note an uncertain threshold above the one that decides."""
    threshold, uncertain = values[THRESHOLD], values[THRESHOLD_SCORE]
    if threshold is not None and uncertain is not None and uncertain > threshold:
        reader.mistake(THRESHOLD_SCORE.name, f"must not be above new_person_threshold, {threshold:g}")


# --- POST /person/create ---

YAW = One("yaw", number(-ANGLE_DEGREES, ANGLE_DEGREES), "The caller's own measurement, in degrees, instead of ours.")
PITCH = One(
    "pitch", number(-ANGLE_DEGREES, ANGLE_DEGREES), "The caller's own measurement, in degrees, instead of ours."
)
EMBEDDING = One(
    "embedding",
    vector,
    "The vector itself, instead of a picture: an array, numbers with commas between, or base64 of float32.",
)
REPLACE_ON_FOUND = One(
    "replace_on_found",
    boolean_or_uuid,
    "true: the matched person is replaced by this face. A person's id: that person is replaced, whoever is matched.",
)
EMBEDDING_ONLY = Flag("embedding_only", "Detect and embed, return the vectors, record nothing.")

PERSON_CREATE = Form(
    parameters=(
        IMAGE,
        EMBEDDING,
        LIST_ID,
        GROUP_ID,
        SOURCE_ID,
        YAW,
        PITCH,
        *NEW_PERSON,
        FIELDS_OF_PERSON,
        MULTI,
        REPLACE_ON_FOUND,
        DROP_IMAGE,
        EMBEDDING_ONLY,
        *WANTED,
    ),
    needs=(IMAGE.name, EMBEDDING.name),
    rules=(uncertain_is_below,),
)


def person_create(body: Body, known_features: frozenset[str], vector_length: int) -> PersonCreate:
    """Return the request of POST /person/create.

    NoImage: neither a picture nor an embedding. UnexpectedField: a file under another name, or a second picture.
    InvalidSchema: every value that is out of its type or range.
    """
    return person_to_create(PERSON_CREATE.read(body, Facts(known_features, vector_length)))


def person_to_create(values: Values) -> PersonCreate:
    """Return the request that the values of PERSON_CREATE make."""
    replace = values[REPLACE_ON_FOUND]
    return PersonCreate(
        image=values[IMAGE],
        embedding=values[EMBEDDING],
        list_id=values[LIST_ID],
        group_id=values[GROUP_ID],
        source_id=values[SOURCE_ID],
        yaw_degrees=values[YAW],
        pitch_degrees=values[PITCH],
        limits=new_person_limits(values),
        fields=values[FIELDS_OF_PERSON],
        multi=values[MULTI],
        replace_on_found=replace is True,
        replace_person_id=replace if isinstance(replace, str) else None,
        drop_image=values[DROP_IMAGE],
        embedding_only=values[EMBEDDING_ONLY],
        wanted=wanted_parts(values),
    )
