"""What each route takes: a body in, a checked request out, or a refusal that names every field to mend.

The order of the refusals is the contract's: nothing to work on, then a file where none belongs, then every value that
is out of its type or range, all in one answer.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any

import numpy as np

from edge.errors import Refusal
from edge.types import FeatureBound, NewPersonLimits, PersonCreate, Vector, WantedParts, unit
from edge.web.body import Body, BodyLimits, parse_json, shown
from edge.web.values import Reader, Unfit, boolean_or_uuid, finite, no_image, number, share, text, uuid_text

FIELDS = 256  # business fields of a person
FIELD_CHARACTERS = 65_535  # of one business field
ANGLE_DEGREES = 90.0  # beyond it a face looks away
SIDE_PIXELS = 10_000.0  # as in the settings; no picture of bearable size has a longer face
BOUND = 1e6  # least and greatest bound of a feature: wider than any measure, in pixels or degrees or 0..1
VECTOR_CHARACTERS = 64  # of one number of an embedding with its comma; a double needs 25
NESTED = BodyLimits(json_values=10_000)  # JSON inside a field holds a list of features or one vector


def person_create(body: Body, known_features: frozenset[str], vector_length: int) -> PersonCreate:
    """Return the request of POST /person/create.

    NoImage: neither a picture nor an embedding. UnexpectedField: a file under another name, or a second picture.
    InvalidSchema: every value that is out of its type or range.
    """
    reader = Reader(body)
    if not reader.file_sent("image") and not reader.sent("embedding"):
        raise no_image(body)
    reader.only_files({"image": 1})
    replace = reader.one("replace_on_found", boolean_or_uuid)
    request = PersonCreate(
        image=reader.file("image"),
        embedding=reader.one("embedding", vector(vector_length)),
        list_id=reader.one("list_id", uuid_text),
        group_id=reader.one("group_id", uuid_text),
        source_id=reader.one("source_id", uuid_text),
        yaw_degrees=reader.one("yaw", number(-ANGLE_DEGREES, ANGLE_DEGREES)),
        pitch_degrees=reader.one("pitch", number(-ANGLE_DEGREES, ANGLE_DEGREES)),
        limits=new_person_limits(reader),
        fields=reader.many("fields", text(FIELD_CHARACTERS), most=FIELDS),
        multi=reader.flag("multi"),
        replace_on_found=replace is True,
        replace_person_id=replace if isinstance(replace, str) else None,
        drop_image=reader.flag("drop_image"),
        embedding_only=reader.flag("embedding_only"),
        wanted=wanted_parts(reader, known_features),
    )
    reader.finish()
    return request


# --- groups of parameters that several routes share ---


def new_person_limits(reader: Reader) -> NewPersonLimits:
    """Read the five `new_person_*`: thresholds as 0..1, the side in pixels, angles in degrees."""
    threshold = reader.one("new_person_threshold", share)
    uncertain = reader.one("new_person_threshold_score", share)
    if threshold is not None and uncertain is not None and uncertain > threshold:
        reader.mistake("new_person_threshold_score", f"must not be above new_person_threshold, {threshold:g}")
    return NewPersonLimits(
        threshold=threshold,
        threshold_score=uncertain,
        square_min=reader.one("new_person_square_min", number(0, SIDE_PIXELS)),
        yaw_max=reader.one("new_person_yaw_max", number(0, ANGLE_DEGREES)),
        pitch_max=reader.one("new_person_pitch_max", number(0, ANGLE_DEGREES)),
    )


def wanted_parts(reader: Reader, known_features: frozenset[str]) -> WantedParts:
    """Read what to return of each face: the four flags and `feature_check`."""
    return WantedParts(
        bbox=reader.flag("bbox"),
        bbox_pro=reader.flag("bbox_pro"),
        thumb=reader.flag("thumb"),
        normalized=reader.flag("normalized"),
        features=features(reader, "feature_check", known_features),
    )


def features(reader: Reader, name: str, known: frozenset[str]) -> tuple[FeatureBound, ...]:
    """Read features with or without bounds: the field repeated, or one JSON array, of names and objects."""
    values = reader.body.values(name)
    if not values:
        return ()
    try:
        values = _spread(values)
    except Unfit as error:
        reader.mistake(name, str(error))
        return ()
    if not values:
        reader.mistake(name, f"must not be empty; known are {_listed(known)}")
        return ()
    bounds = reader.each(name, values, _feature(known), most=max(len(known), 1))
    names = [bound.name for bound in bounds]
    for repeated in sorted({one for one in names if names.count(one) > 1}):
        reader.mistake(name, f"{repeated} is named more than once")
    return bounds


def _spread(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the elements of one array, of JSON or as a text; other values as they are."""
    if len(values) != 1:
        return values
    only = values[0]
    if isinstance(only, str) and only.startswith("["):
        only = _nested(only)
    return tuple(only) if isinstance(only, list) else (only,)


def _feature(known: frozenset[str]) -> Callable[[Any], FeatureBound]:
    def read(value: Any) -> FeatureBound:
        if isinstance(value, str) and value.startswith("{"):
            value = _nested(value)
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

    return read


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


def _nested(value: str) -> Any:
    """Return the JSON inside a text; its mistakes are the text's."""
    try:
        return parse_json(value, NESTED)
    except Refusal as refusal:
        raise Unfit("; ".join(mistake.reason for mistake in refusal.mistakes)) from None


# --- embeddings ---


def vector(length: int) -> Callable[[Any], Vector]:
    """Return the reader of an embedding of so many numbers, returned at unit length.

    An array of JSON, or a text: numbers with commas between, a JSON array, or base64 of little-endian float32.
    """

    def read(value: Any) -> Vector:
        numbers = value if isinstance(value, list) else _numbers(value, length)
        if len(numbers) != length:
            raise Unfit(f"{len(numbers)} numbers; the active model's vectors have {length}")
        found = [finite(one) for one in numbers]
        if any(one is None for one in found):
            raise Unfit("must hold finite numbers only")
        try:
            with np.errstate(over="ignore"):  # a sum of squares beyond any double: unit() refuses it
                return unit(np.array(found, np.float64))
        except ValueError:
            raise Unfit("has no direction: all zeros, or too large") from None

    return read


def _numbers(value: Any, length: int) -> list[Any]:
    if not isinstance(value, str):
        raise Unfit("must be numbers with commas between, a JSON array, or base64 of little-endian float32")
    if len(value) > length * VECTOR_CHARACTERS:
        raise Unfit(f"{len(value)} characters; {length} numbers never need more than {length * VECTOR_CHARACTERS}")
    if value.startswith("["):
        return list(_nested(value))
    if "," in value:
        return [one.strip(" ") for one in value.split(",")]
    try:
        # an unescaped + of a form arrives as a space
        content = base64.b64decode(value.replace(" ", "+").encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise Unfit("is neither numbers with commas between, nor a JSON array, nor base64") from None
    if len(content) % 4:
        raise Unfit(f"{len(content)} bytes in base64; float32 needs four for each number")
    return [float(one) for one in np.frombuffer(content, "<f4")]
