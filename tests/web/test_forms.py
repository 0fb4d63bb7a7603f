"""POST /person/create, from a body to a checked request: one valid and one invalid use of every parameter."""

from __future__ import annotations

import base64
import io
import json
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import InvalidSchema, NoImage, Refusal, UnexpectedField
from edge.types import FeatureBound, NewPersonLimits, PersonCreate, WantedParts
from edge.web.body import Body, BodyLimits, read_body
from edge.web.forms import FIELD_CHARACTERS, person_create
from edge.web.values import (
    Reader,
    Unfit,
    base64_bytes,
    boolean,
    boolean_or_uuid,
    finite,
    number,
    share,
    text,
    uuid_text,
)

KNOWN = frozenset({"eyes_open", "mouth_open", "sharpness", "yaw"})
LENGTH = 4
JPEG = b"\xff\xd8\xff\xe0 and so on"
ID = "6fa459ea-ee8a-11ec-8ea0-0242ac120002"
OTHER = "00000000-0000-0000-0000-000000000000"


def form(*texts: tuple[str, str], files: dict[str, tuple[bytes, ...]] | None = None) -> Body:
    gathered: dict[str, tuple[str, ...]] = {}
    for name, value in texts:
        gathered[name] = (*gathered.get(name, ()), value)
    return Body(texts=gathered, files={"image": (JPEG,)} if files is None else files)


def from_json(**values: Any) -> Body:
    """The same by way of bytes, with a picture unless one is given."""
    picture = {"image": base64.b64encode(JPEG).decode()}
    content = json.dumps({**picture, **values}).encode()
    env = {"CONTENT_LENGTH": str(len(content)), "CONTENT_TYPE": "application/json", "wsgi.input": io.BytesIO(content)}
    return read_body(env, BodyLimits())


def create(body: Body) -> PersonCreate:
    return person_create(body, KNOWN, LENGTH)


def mistakes(body: Body, kind: type[Refusal] = InvalidSchema) -> dict[str, str]:
    with pytest.raises(kind) as caught:
        create(body)
    assert type(caught.value) is kind
    return {mistake.field: mistake.reason for mistake in caught.value.mistakes}


# --- every parameter: what it becomes ---

VALID: list[tuple[str, Any, Callable[[PersonCreate], Any], Any]] = [
    ("list_id", ID, lambda r: r.list_id, ID),
    ("list_id", ID.upper(), lambda r: r.list_id, ID),
    ("list_id", OTHER, lambda r: r.list_id, OTHER),
    ("group_id", ID, lambda r: r.group_id, ID),
    ("source_id", ID, lambda r: r.source_id, ID),
    ("yaw", "-12.5", lambda r: r.yaw_degrees, -12.5),
    ("yaw", 90, lambda r: r.yaw_degrees, 90.0),
    ("pitch", "+.5e1", lambda r: r.pitch_degrees, 5.0),
    ("pitch", -90, lambda r: r.pitch_degrees, -90.0),
    ("feature_check", "eyes_open", lambda r: r.wanted.features, (FeatureBound("eyes_open"),)),
    (
        "feature_check",
        '["eyes_open", "yaw"]',
        lambda r: r.wanted.features,
        (FeatureBound("eyes_open"), FeatureBound("yaw")),
    ),
    (
        "feature_check",
        '{"name": "eyes_open", "min": 0.5}',
        lambda r: r.wanted.features,
        (FeatureBound("eyes_open", 0.5),),
    ),
    ("feature_check", ["yaw"], lambda r: r.wanted.features, (FeatureBound("yaw"),)),
    (
        "feature_check",
        [{"name": "yaw", "min": -20, "max": "20"}, "sharpness"],
        lambda r: r.wanted.features,
        (FeatureBound("yaw", -20, 20), FeatureBound("sharpness")),
    ),
    ("feature_check", {"name": "yaw", "max": None}, lambda r: r.wanted.features, (FeatureBound("yaw"),)),
    ("new_person_threshold", "0.7", lambda r: r.limits.threshold, 0.7),
    ("new_person_threshold", 1, lambda r: r.limits.threshold, 1.0),
    ("new_person_threshold", "70", lambda r: r.limits.threshold, 0.7),
    ("new_person_threshold", 100, lambda r: r.limits.threshold, 1.0),
    ("new_person_threshold", "0", lambda r: r.limits.threshold, 0.0),
    ("new_person_threshold_score", "0.5", lambda r: r.limits.threshold_score, 0.5),
    ("new_person_threshold_score", 50, lambda r: r.limits.threshold_score, 0.5),
    ("new_person_square_min", "80", lambda r: r.limits.square_min, 80.0),
    ("new_person_square_min", 0, lambda r: r.limits.square_min, 0.0),
    ("new_person_yaw_max", "45", lambda r: r.limits.yaw_max, 45.0),
    ("new_person_pitch_max", 0, lambda r: r.limits.pitch_max, 0.0),
    ("fields", "one", lambda r: r.fields, ("one",)),
    ("fields", '["not", "taken apart"]', lambda r: r.fields, ('["not", "taken apart"]',)),
    ("fields", ["one", "", "two"], lambda r: r.fields, ("one", "", "two")),
    ("fields", [], lambda r: r.fields, ()),
    ("fields", "é" * FIELD_CHARACTERS, lambda r: r.fields, ("é" * FIELD_CHARACTERS,)),
    ("multi", "true", lambda r: r.multi, True),
    ("multi", "FALSE", lambda r: r.multi, False),
    ("multi", True, lambda r: r.multi, True),
    ("replace_on_found", "True", lambda r: (r.replace_on_found, r.replace_person_id), (True, None)),
    ("replace_on_found", False, lambda r: (r.replace_on_found, r.replace_person_id), (False, None)),
    ("replace_on_found", ID.upper(), lambda r: (r.replace_on_found, r.replace_person_id), (False, ID)),
    ("thumb", "true", lambda r: r.wanted, WantedParts(thumb=True)),
    ("normalized", "true", lambda r: r.wanted, WantedParts(normalized=True)),
    ("bbox", "true", lambda r: r.wanted, WantedParts(bbox=True)),
    ("bbox_pro", "true", lambda r: r.wanted, WantedParts(bbox_pro=True)),
    ("drop_image", "true", lambda r: r.drop_image, True),
    ("embedding_only", "true", lambda r: r.embedding_only, True),
    ("token", "anything", lambda r: r, PersonCreate(image=JPEG)),
    ("some_other_text", "anything", lambda r: r, PersonCreate(image=JPEG)),
]

INVALID: list[tuple[str, Any, str]] = [
    ("list_id", "main", "UUID"),
    ("list_id", "", "UUID"),
    ("list_id", ID.replace("-", ""), "UUID"),
    ("list_id", "{" + ID + "}", "UUID"),
    ("list_id", ID + "\n", "UUID"),
    ("list_id", "٣" * 8 + ID[8:], "UUID"),
    ("list_id", 5, "UUID"),
    ("list_id", [ID], "UUID"),
    ("group_id", "x", "UUID"),
    ("source_id", "x", "UUID"),
    ("yaw", "left", "-90 to 90"),
    ("yaw", "90.1", "-90 to 90"),
    ("pitch", -91, "-90 to 90"),
    ("pitch", True, "number"),
    ("pitch", "", "number"),
    ("feature_check", "age", "eyes_open, mouth_open, sharpness, yaw"),
    ("feature_check", "", "eyes_open, mouth_open, sharpness, yaw"),
    ("feature_check", [], "eyes_open, mouth_open, sharpness, yaw"),
    ("feature_check", "[]", "eyes_open, mouth_open, sharpness, yaw"),
    ("feature_check", "[", "not JSON"),
    ("feature_check", '{"name": "yaw", "name": "yaw"}', "twice"),
    ("feature_check", '["yaw", "yaw"]', "more than once"),
    ("feature_check", {"name": "yaw", "least": 1}, "least"),
    ("feature_check", {"min": 1}, "without a name"),
    ("feature_check", {"name": "yaw", "min": "NaN"}, "min must be a number"),
    ("feature_check", {"name": "yaw", "min": 2, "max": 1}, "above max"),
    ("feature_check", [["yaw"]], "name"),
    ("feature_check", 7, "name"),
    ("feature_check", ["yaw"] * 5, "limit is 4"),
    ("new_person_threshold", "100.5", "percentage"),
    ("new_person_threshold", -0.1, "0 to 1"),
    ("new_person_threshold", "nan", "0 to 1"),
    ("new_person_threshold", "inf", "0 to 1"),
    ("new_person_threshold", "1e999", "0 to 1"),
    ("new_person_threshold", "1_0", "0 to 1"),
    ("new_person_threshold", " 1", "0 to 1"),
    ("new_person_threshold", "٣", "0 to 1"),
    ("new_person_threshold", "0x1", "0 to 1"),
    ("new_person_threshold", "0,7", "0 to 1"),
    ("new_person_threshold", 10**400 // 7, "0 to 1"),
    ("new_person_threshold", "70%", "0 to 1"),
    ("new_person_threshold_score", "high", "0 to 1"),
    ("new_person_square_min", "-1", "0 to 10000"),
    ("new_person_yaw_max", "91", "0 to 90"),
    ("new_person_pitch_max", "-1", "0 to 90"),
    ("fields", "x" * (FIELD_CHARACTERS + 1), "65536 characters; the limit is 65535"),
    ("fields", ["x", 5], "text"),
    ("fields", {"a": "b"}, "text"),
    ("fields", ["x"] * 257, "257 values; the limit is 256"),
    ("multi", "1", "true or false"),
    ("multi", "str", "true or false"),
    ("multi", "", "true or false"),
    ("multi", 0, "true or false"),
    ("multi", [True], "true or false"),
    ("replace_on_found", "yes", "true, false or a UUID"),
    ("replace_on_found", 1, "true, false or a UUID"),
    ("thumb", "yes", "true or false"),
    ("normalized", "yes", "true or false"),
    ("bbox", "yes", "true or false"),
    ("bbox_pro", "yes", "true or false"),
    ("drop_image", "yes", "true or false"),
    ("embedding_only", "yes", "true or false"),
    ("embedding", "1,2,3", "3 numbers; the active model's vectors have 4"),
]


@pytest.mark.parametrize(("name", "value", "read", "expected"), VALID)
def test_a_valid_value_becomes(name: str, value: Any, read: Callable[[PersonCreate], Any], expected: Any) -> None:
    assert read(create(from_json(**{name: value}))) == expected
    if isinstance(value, str):
        assert read(create(form((name, value)))) == expected


@pytest.mark.parametrize(("name", "value", "reason"), INVALID)
def test_an_invalid_value_is_named_with_its_limit(name: str, value: Any, reason: str) -> None:
    bodies = [from_json(**{name: value})]
    if isinstance(value, str):
        bodies.append(form((name, value)))
    for body in bodies:
        ((field, told),) = mistakes(body).items()
        assert field.split("[")[0] == name
        assert reason in told


def test_every_parameter_has_a_valid_and_an_invalid_use() -> None:
    contract = {
        "image",
        "token",
        "list_id",
        "group_id",
        "source_id",
        "yaw",
        "pitch",
        "feature_check",
        "new_person_threshold",
        "new_person_threshold_score",
        "new_person_square_min",
        "new_person_yaw_max",
        "new_person_pitch_max",
        "fields",
        "multi",
        "replace_on_found",
        "thumb",
        "normalized",
        "bbox",
        "bbox_pro",
        "drop_image",
        "embedding_only",
        "embedding",
    }
    with_tests_of_their_own = {"image", "embedding"}
    assert {name for name, *_ in VALID} | with_tests_of_their_own == contract | {"some_other_text"}
    assert {name for name, *_ in INVALID} | {"image"} == contract - {"token"}, "a wrong token is for auth to refuse"


@pytest.mark.parametrize("name", ["list_id", "yaw", "multi", "replace_on_found", "new_person_threshold", "embedding"])
def test_a_scalar_sent_twice_is_a_mistake(name: str) -> None:
    value = {"list_id": ID, "yaw": "1", "multi": "true", "replace_on_found": "true"}.get(name, "1,0,0,0")
    assert mistakes(form((name, value), (name, value))) == {name: "given 2 times; once is allowed"}


def test_an_absent_value_is_the_default() -> None:
    assert create(form()) == PersonCreate(image=JPEG)
    assert create(form()).limits == NewPersonLimits()


def test_null_is_absent() -> None:
    nulls = dict.fromkeys(name for name, *_ in VALID)
    assert create(from_json(**nulls)) == PersonCreate(image=JPEG)


def test_fields_keep_their_order_and_repetitions() -> None:
    body = form(("fields", "b"), ("fields", "a"), ("fields", "b"), ("fields", ""))
    assert create(body).fields == ("b", "a", "b", "")
    assert len(create(form(*[("fields", "x")] * 256)).fields) == 256
    assert "limit is 256" in mistakes(form(*[("fields", "x")] * 257))["fields"]


def test_feature_check_repeated() -> None:
    body = form(("feature_check", "yaw"), ("feature_check", '{"name": "eyes_open", "max": 1}'))
    assert create(body).wanted.features == (FeatureBound("yaw"), FeatureBound("eyes_open", None, 1.0))
    assert mistakes(form(("feature_check", "yaw"), ("feature_check", "race"))).keys() == {"feature_check[1]"}


def test_an_unknown_feature_is_not_repeated_at_length() -> None:
    (reason,) = mistakes(form(("feature_check", "x" * 10_000))).values()
    assert len(reason) < 200


def test_an_uncertain_threshold_above_the_threshold_is_a_mistake() -> None:
    body = form(("new_person_threshold", "70"), ("new_person_threshold_score", "0.71"))
    assert mistakes(body) == {"new_person_threshold_score": "must not be above new_person_threshold, 0.7"}
    assert (
        create(form(("new_person_threshold", "70"), ("new_person_threshold_score", "0.7"))).limits.threshold_score
        == 0.7
    )


# --- the picture ---


def test_image_as_a_file() -> None:
    assert create(form()).image == JPEG


@pytest.mark.parametrize("prefix", ["", "data:image/jpeg;base64,", "data:;base64,"])
def test_image_as_base64_in_json(prefix: str) -> None:
    encoded = base64.encodebytes(JPEG * 50).decode()  # with line ends, as mail has them
    assert create(from_json(image=prefix + encoded)).image == JPEG * 50


@pytest.mark.parametrize(
    "value", ["no base64!", "AAA", "é", 5, ["AAAA"], {"a": 1}, "data:image/jpeg,AAAA", "data:;base64,"]
)
def test_image_that_is_no_base64(value: Any) -> None:
    assert mistakes(from_json(image=value)).keys() == {"image"}


@pytest.mark.parametrize(
    "body",
    [
        Body(),
        form(files={}),
        form(files={"image": (b"",)}),
        form(("image", "a text"), files={}),
        form(("embedding", ""), files={}),
        form(files={"photo": (JPEG,)}),
        form(("multi", "maybe"), files={}),
        from_json(image=None),
        from_json(image=""),
    ],
)
def test_neither_image_nor_embedding_is_refused_first(body: Body) -> None:
    assert mistakes(body, NoImage).keys() == {"image"}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (Body(), "neither image nor embedding"),
        (form(("image", "a text"), files={}), "sent as a file"),
        (form(files={"image": (b"",)}), "the file is empty"),
    ],
)
def test_no_image_says_the_likeliest_cause(body: Body, reason: str) -> None:
    assert reason in mistakes(body, NoImage)["image"]


def test_an_empty_file_beside_an_embedding_is_no_image() -> None:
    request = create(form(("embedding", "1,0,0,0"), files={"image": (b"",)}))
    assert request.image is None
    assert create(form(("embedding", "1,0,0,0"))).image == JPEG


@pytest.mark.parametrize(
    ("files", "field"),
    [
        ({"image": (JPEG,), "photo": (JPEG,)}, "photo"),
        ({"image": (JPEG, JPEG)}, "image"),
        ({"image": (JPEG, b"")}, "image"),
        ({"image": (JPEG,), "embedding": (b"1,2",)}, "embedding"),
    ],
)
def test_a_file_that_is_not_taken_is_refused_before_values(files: dict[str, tuple[bytes, ...]], field: str) -> None:
    body = form(("multi", "maybe"), files=files)
    assert mistakes(body, UnexpectedField).keys() == {field}


def test_every_mistake_is_told_at_once() -> None:
    body = form(("multi", "maybe"), ("list_id", "main"), ("yaw", "left"), ("fields", "fine"), ("embedding", "1"))
    assert mistakes(body).keys() == {"multi", "list_id", "yaw", "embedding"}


def test_an_answer_does_not_grow_with_the_mistakes() -> None:
    with pytest.raises(InvalidSchema) as caught:
        create(from_json(fields=[1] * 256))
    assert len(caught.value.mistakes) == 50


# --- the embedding ---

UNIT = np.array([0.5, -0.5, 0.5, -0.5], np.float32)


@pytest.mark.parametrize(
    "value",
    [
        "1,-1,1,-1",
        "1.0, -1e0, +1, -1.",
        "[2, -2, 2, -2]",
        [1, -1, 1, -1],
        ["1", -1, 1.0, "-1"],
        base64.b64encode(np.array([3, -3, 3, -3], "<f4").tobytes()).decode(),
    ],
)
def test_embedding_in_each_form_comes_at_unit_length(value: Any) -> None:
    bodies = [from_json(embedding=value, image=None), from_json(embedding=value)]
    if isinstance(value, str):
        bodies.append(form(("embedding", value), files={}))
    for body in bodies:
        found = create(body).embedding
        assert found is not None
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, UNIT, atol=1e-7)


def test_a_plus_of_base64_that_a_form_made_a_space_is_still_a_plus() -> None:
    vector = np.array([-1.9, 3.3e10, 2.2, 0.4], "<f4")
    encoded = next(
        text
        for scale in range(1, 100)
        if "+" in (text := base64.b64encode((vector * np.float32(scale)).astype("<f4").tobytes()).decode())
    )
    assert create(form(("embedding", encoded.replace("+", " ")))).embedding is not None


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("0,0,0,0", "no direction"),
        ("1,2,3,nan", "finite"),
        ("1,2,3,inf", "finite"),
        ("1,2,3,1e999", "finite"),
        ("1,,2,3", "finite"),
        ("1,2,3,4,", "5 numbers"),
        ([1, 2, 3, None], "finite"),
        ([1, 2, 3, True], "finite"),
        ([1, 2, 3], "3 numbers"),
        ([[1, 2, 3, 4]], "1 numbers"),
        ("[1, 2, 3, NaN]", "NaN"),
        ("[1, 2, 3", "not JSON"),
        ("1e300,1e300,1e300,1e300", "no direction"),
        (base64.b64encode(np.array([1, 2, 3, np.nan], "<f4").tobytes()).decode(), "finite"),
        (base64.b64encode(b"x" * 12).decode(), "3 numbers"),
        (base64.b64encode(b"x" * 15).decode(), "15 bytes"),
        ("zero", "3 bytes"),
        ("Ünit", "nor base64"),
        ("1" * 10_000, "10000 characters"),
        (5, "numbers"),
        ({"a": 1}, "numbers"),
    ],
)
def test_embedding_that_is_none(value: Any, reason: str) -> None:
    assert reason in mistakes(from_json(embedding=value))["embedding"]
    if isinstance(value, str):
        assert reason in mistakes(form(("embedding", value)))["embedding"]


# --- nothing but refusals ---

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    st.sampled_from(
        ["true", ID, "0.5", "[", "[1", '{"name":', "yaw", "1,2,3,4", "NaN", "AAAA", "data:;base64,AAAA", ""]
    ),
)
TREES = st.recursive(
    VALUES, lambda t: st.lists(t, max_size=4) | st.dictionaries(st.sampled_from(["name", "min", "max", "x"]), t)
)
NAMES = st.sampled_from(sorted({name for name, *_ in VALID} | {"image", "embedding"}))
TEXTS = st.text(max_size=20) | VALUES.filter(lambda value: isinstance(value, str))


@given(st.dictionaries(NAMES, TREES, max_size=8))
def test_any_json_is_a_request_or_a_refusal(values: dict[str, Any]) -> None:
    answer(Body(json=values))


@given(
    st.dictionaries(NAMES, st.lists(TEXTS, min_size=1, max_size=3).map(tuple), max_size=8),
    st.dictionaries(NAMES, st.lists(st.binary(max_size=3), min_size=1, max_size=2).map(tuple), max_size=2),
)
def test_any_form_is_a_request_or_a_refusal(
    texts: dict[str, tuple[str, ...]], files: dict[str, tuple[bytes, ...]]
) -> None:
    answer(Body(texts=texts, files=files))


def answer(body: Body) -> None:
    try:
        request = create(body)
    except Refusal as refusal:
        assert type(refusal) in (NoImage, UnexpectedField, InvalidSchema)
        assert refusal.mistakes
        json.dumps([(mistake.field, mistake.reason) for mistake in refusal.mistakes], ensure_ascii=False).encode()
    else:
        assert request.image or request.embedding is not None
        for value in (request.limits.threshold, request.limits.threshold_score):
            assert value is None or 0 <= value <= 1
        if request.embedding is not None:
            assert abs(float(np.linalg.norm(request.embedding)) - 1) < 1e-5


def test_costly_values_are_refused_quickly() -> None:
    long = "1" * 262_140
    started = time.process_time()
    for value in (long, "[" * 262_140, "1," * 131_070, "[" + "1," * 131_069 + "1]", '{"name":' * 30_000, "=" * 262_140):
        for name in ("embedding", "feature_check", "yaw", "list_id", "multi", "new_person_threshold"):
            assert name in {field.split("[")[0] for field in mistakes(form((name, value)))}
    assert time.process_time() - started < 2.0


# --- single values ---


@given(st.floats() | st.integers() | st.text() | st.booleans() | st.none())
def test_a_number_is_finite_and_in_its_range(value: Any) -> None:
    found = finite(value)
    assert found is None or math.isfinite(found)
    try:
        assert 0 <= number(0, 10)(value) <= 10
    except Unfit as unfit:
        assert str(unfit) == "must be a number from 0 to 10"


def test_readers_of_single_values() -> None:
    assert number(0, 10)("1e1") == 10
    assert number(0, 10)("1." + "0" * 62) == 1
    with pytest.raises(Unfit):
        number(0, 10)("1." + "0" * 63)
    assert (share(1), share("1.5"), share(0)) == (1, 0.015, 0)
    assert (boolean("tRue"), boolean(False)) == (True, False)
    assert (boolean_or_uuid("false"), boolean_or_uuid(ID)) == (False, ID)
    assert uuid_text(ID.upper()) == ID
    assert text(3)("abc") == "abc"
    assert base64_bytes("QQ==") == b"A"
    for read, value in (
        (text(3), "abcd"),
        (text(3, shortest=1), ""),
        (text(3), None),
        (base64_bytes, ""),
        (share, None),
    ):
        with pytest.raises(Unfit):
            read(value)


def test_the_reader_gathers_mistakes_and_tells_them_once() -> None:
    reader = Reader(form(("a", "x"), ("b", "y"), ("b", "z"), ("c", "1")))
    assert reader.one("a", boolean) is None
    assert reader.one("b", text(5)) is None
    assert reader.one("c", number(0, 1)) == 1
    assert reader.many("b", text(5), most=2) == ("y", "z")
    reader.mistake("d", "missing")
    with pytest.raises(InvalidSchema) as caught:
        reader.finish()
    assert [mistake.field for mistake in caught.value.mistakes] == ["a", "b", "d"]
