"""The request's body: what is read, what is refused, and that a hostile one costs little."""

from __future__ import annotations

import gzip
import io
import json
import os
import time
import tracemalloc
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import BodyTooLarge, MalformedBody, Refusal, UnsupportedBody
from edge.web.body import READ_BYTES, Body, BodyLimits, parse_json, read_body

LIMITS = BodyLimits()
MULTIPART = "multipart/form-data; boundary=b"
FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
DATA = Path(os.environ.get("EDGE_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
BAD_MULTIPART = sorted((DATA / "bad-multipart").glob("*")) if DATA.is_dir() else []


def environ(content: bytes, content_type: str | None, **more: Any) -> dict[str, Any]:
    types = {} if content_type is None else {"CONTENT_TYPE": content_type}
    return {"CONTENT_LENGTH": str(len(content)), "wsgi.input": io.BytesIO(content), **types, **more}


def read(content: bytes, content_type: str | None = MULTIPART, limits: BodyLimits = LIMITS) -> Body:
    return read_body(environ(content, content_type), limits)


def part(name: str, content: bytes, more: str = "", headers: str = "") -> bytes:
    return f'--b\r\nContent-Disposition: form-data; name="{name}"{more}\r\n{headers}\r\n'.encode() + content + b"\r\n"


def file(name: str, content: bytes) -> bytes:
    return part(name, content, '; filename="a.jpg"', "Content-Type: image/jpeg\r\n")


END = b"--b--\r\n"


def refused(
    kind: type[Refusal], content: bytes, content_type: str | None = MULTIPART, limits: BodyLimits = LIMITS
) -> str:
    with pytest.raises(kind) as caught:
        read(content, content_type, limits)
    assert type(caught.value) is kind
    assert caught.value.mistakes
    return "; ".join(f"{mistake.field}: {mistake.reason}" for mistake in caught.value.mistakes)


# --- what is read ---


def test_multipart_texts_and_files_keep_names_order_and_bytes() -> None:
    content = (
        part("fields", b"one") + file("image", b"\x00\r\n--\xff") + part("multi", b"true") + part("fields", b"two")
    )
    body = read(content + END)
    assert body.texts == {"fields": ("one", "two"), "multi": ("true",)}
    assert body.files == {"image": (b"\x00\r\n--\xff",)}
    assert body.json is None


def test_brackets_after_a_texts_name_mark_repetition_only() -> None:
    body = read(part("fields[]", b"one") + part("fields", b"two") + part("fields[]", b"three") + END)
    assert body.texts == {"fields": ("one", "two", "three")}
    assert read(b"fields%5B%5D=a&fields=b", FORM).texts == {"fields": ("a", "b")}


@pytest.mark.parametrize(
    ("more", "headers", "is_file"),
    [
        ('; filename="a.jpg"', "", True),
        ('; filename=""', "", True),
        ("", "Content-Type: image/jpeg\r\n", True),
        ("", "Content-Type: application/octet-stream\r\n", True),
        ("", "Content-Type: text/plain; charset=utf-8\r\n", False),
        ("", "Content-Type: application/json\r\n", False),
        ("", "Content-Transfer-Encoding: binary\r\n", False),
        ("", "", False),
    ],
)
def test_a_part_with_a_filename_or_a_picture_type_is_a_file(more: str, headers: str, is_file: bool) -> None:
    body = read(part("image", b"x", more, headers) + END)
    assert ("image" in body.files, "image" in body.texts) == (is_file, not is_file)


def test_urlencoded_texts() -> None:
    body = read("a=1&b=%C3%A9+%2B&a=2&c&d==&&e=п".encode(), FORM + "; charset=utf-8")
    assert body.texts == {"a": ("1", "2"), "b": ("é +",), "c": ("",), "d": ("=",), "e": ("п",)}


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda n: not n.endswith("[]")),
            st.text(st.characters(exclude_categories=["Cs"])),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_whatever_the_standard_library_encodes_is_read_back(pairs: list[tuple[str, str]]) -> None:
    body = read(urllib.parse.urlencode(pairs).encode(), FORM)
    assert [(name, value) for name, values in body.texts.items() for value in values] == sorted(
        pairs, key=lambda pair: [name for name, _ in pairs].index(pair[0])
    )


def test_json_object() -> None:
    body = read('\ufeff{"a": [1, "é\\ud83d\\ude00", null], "n": 123456789012345678901234567890}'.encode(), JSON)
    assert body.json == {"a": [1, "é😀", None], "n": 123456789012345678901234567890}
    assert body.values("a") == ([1, "é😀", None],)


def test_values_of_json_null_are_absent() -> None:
    assert read(b'{"a": null, "b": false}', JSON).values("a") == ()
    assert read(b'{"a": null, "b": false}', JSON).values("b") == (False,)


@pytest.mark.parametrize("content_type", [None, "", MULTIPART, FORM, JSON, "text/plain"])
def test_an_empty_body_is_an_empty_body_whatever_its_type(content_type: str | None) -> None:
    assert read(b"", content_type) == Body()


def test_a_missing_content_length_is_an_empty_body() -> None:
    assert read_body({"wsgi.input": io.BytesIO(b"x"), "CONTENT_TYPE": FORM}, LIMITS) == Body()


def test_the_input_is_read_no_further_than_content_length() -> None:
    stream = io.BytesIO(b"a=1&b=2 of the next request")
    read_body({"CONTENT_LENGTH": "7", "CONTENT_TYPE": FORM, "wsgi.input": stream}, LIMITS)
    assert stream.tell() == 7


def test_input_in_single_bytes_is_the_same_body() -> None:
    class Dribble(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(1)

    content = part("fields", b"one") + file("image", b"\r\n--\r\n") + END
    for kind, data in ((MULTIPART, content), (FORM, b"a=1&b=%41"), (JSON, b'{"a": "b"}')):
        env = {"CONTENT_LENGTH": str(len(data)), "CONTENT_TYPE": kind, "wsgi.input": Dribble(data)}
        assert read_body(env, LIMITS) == read(data, kind)


def test_a_body_is_read_wherever_the_pieces_end() -> None:
    around = len(file("image", b"") + END)
    for pieces in (1, 2, 3):
        for shift in range(-around - 2, 3):
            picture = b"x" * (pieces * READ_BYTES + shift)
            assert read(file("image", picture) + END).files == {"image": (picture,)}


# --- what is refused ---


@pytest.mark.parametrize(
    "content_type", [None, "", "text/plain", "application/xml", "multipart/mixed; boundary=b", "a;b;c"]
)
def test_other_content_types_are_named(content_type: str | None) -> None:
    with pytest.raises(UnsupportedBody) as caught:
        read(b"x", content_type)
    assert caught.value.message == "invalid schema"
    assert caught.value.mistakes[0].field == "Content-Type"
    assert "multipart/form-data" in caught.value.mistakes[0].reason


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "identity, gzip", "aes128gcm"])
def test_nothing_is_unpacked(encoding: str) -> None:
    with pytest.raises(UnsupportedBody, match="Content-Encoding"):
        read_body(environ(gzip.compress(b"{}"), JSON, HTTP_CONTENT_ENCODING=encoding), LIMITS)
    assert read_body(environ(b"{}", JSON, HTTP_CONTENT_ENCODING="identity"), LIMITS).json == {}


@pytest.mark.parametrize("length", ["-1", "+3", " 3", "1e3", "²", "0x10", "3, 3"])
def test_odd_content_lengths_are_refused(length: str) -> None:
    with pytest.raises(MalformedBody, match="Content-Length"):
        read_body({"CONTENT_LENGTH": length, "CONTENT_TYPE": FORM, "wsgi.input": io.BytesIO(b"a=1")}, LIMITS)


@pytest.mark.parametrize("length", [str(LIMITS.body_bytes + 1), "9" * 30, "9" * 5000])
def test_a_body_above_the_limit_is_refused_unread(length: str) -> None:
    stream = io.BytesIO(b"a=1")
    with pytest.raises(BodyTooLarge, match=str(LIMITS.body_bytes)):
        read_body({"CONTENT_LENGTH": length, "CONTENT_TYPE": FORM, "wsgi.input": stream}, LIMITS)
    assert stream.tell() == 0


@pytest.mark.parametrize("content_type", [MULTIPART, FORM, JSON])
def test_a_body_that_ends_early_says_where(content_type: str) -> None:
    content = part("a", b"x" * 1000)
    env = {"CONTENT_LENGTH": "5000", "CONTENT_TYPE": content_type, "wsgi.input": io.BytesIO(content)}
    with pytest.raises(MalformedBody, match=f"ended after {len(content)} of 5000 bytes"):
        read_body(env, LIMITS)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (file("image", b"x"), "end of multipart"),
        (file("image", b"x")[:-5], "end of multipart"),
        (b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n" + END, "name"),
        (part("", b"x") + END, "without a name"),
        (part("", b"x", '; filename="a"') + END, "without a name"),
        (b"--b\r\n\r\nx\r\n" + END, "Content-Disposition"),
        (b"--b\r\nContent-Disposition: attachment; name=a\r\n\r\nx\r\n" + END, "Wrong type"),
        (b'--b\r\nContent-Disposition: form-data; name="\xff"\r\n\r\nx\r\n' + END, "decode"),
        (part("a", b"\xff\xd8") + END, "not UTF-8 at byte 0"),
        (part("a", b"x", headers="Content-Type: text/plain; charset=utf-16\r\n") + END, "utf-16"),
        (part("a", b"eA==", headers="Content-Transfer-Encoding: base64\r\n") + END, "base64"),
        (b"nothing of the kind", "Boundary not found"),
    ],
)
def test_malformed_multipart_says_what_is_wrong(content: bytes, reason: str) -> None:
    assert reason in refused(MalformedBody, content)


@pytest.mark.parametrize(
    "boundary", ["", "; boundary=", '; boundary=""', "; boundary=" + "b" * 2000, '; boundary="\u00ff"']
)
def test_odd_boundaries_are_refused(boundary: str) -> None:
    refused(MalformedBody, part("a", b"x") + END, "multipart/form-data" + boundary)


@pytest.mark.parametrize(
    "content", [b"a=%", b"a=%4", b"a=%zz", b"%=1", b"a=%FF", b"%FF=a", b"a=\xff", b"=x", b"a=1&=2"]
)
def test_malformed_urlencoding(content: bytes) -> None:
    refused(MalformedBody, content, FORM)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "not JSON"),
        (b"   ", "not JSON"),
        (b'{"a": 1} x', "not JSON"),
        (b'{"a": 1, "b": {"c": 1, "c": 1}}', "c: the key is given twice"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "Infinity"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"\\udc00": 1}', "surrogate"),
        (b'{"a": ' + b"1" * 5000 + b"}", "number longer"),
        (b'{"a": 1.' + b"1" * 5000 + b"}", "number longer"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b"[]", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
    ],
)
def test_malformed_json_says_what_is_wrong(content: bytes, reason: str) -> None:
    assert reason in refused(MalformedBody, content, JSON)


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_json_is_bounded_in_depth(opening: str) -> None:
    def nested(levels: int) -> str:
        return opening * levels + "1" + opening.replace('{"a":', "}").replace("[", "]") * levels

    parse_json(nested(LIMITS.json_depth), LIMITS)
    for levels in (LIMITS.json_depth + 1, 900, 100_000):
        with pytest.raises(BodyTooLarge, match="16 levels"):
            parse_json(nested(levels), LIMITS)


def test_limits_of_a_form() -> None:
    few = BodyLimits(parts=3, field_bytes=10, text_bytes=15)
    assert len(read(part("a", b"") * 3 + END, limits=few).texts["a"]) == 3
    assert "3 parts" in refused(BodyTooLarge, part("a", b"") * 4 + END, limits=few)
    assert "3 pairs" in refused(BodyTooLarge, b"a=&a=&a=&a=", FORM, few)
    read(part("a", b"x" * 10) + END, limits=few)
    assert "a: longer than 10" in refused(BodyTooLarge, part("a", b"x" * 11) + END, limits=few)
    assert "longer than 10" in refused(BodyTooLarge, b"a=" + b"x" * 11, FORM, few)
    assert "15 bytes of text" in refused(BodyTooLarge, part("a", b"x" * 8) * 2 + END, limits=few)
    assert "15 bytes of text" in refused(BodyTooLarge, b"a=xxxxxxxx&a=xxxxxxxx", FORM, few)
    assert len(read(file("image", b"x" * 1000) + END, limits=few).files["image"][0]) == 1000


def test_what_is_just_within_the_limits_is_read() -> None:
    few = BodyLimits(body_bytes=50, parts=3, field_bytes=10, text_bytes=20, json_values=4, wide_json_bytes=30)
    assert read(b"a=" + b"x" * 10 + b"&b=" + b"%41" * 10 + b"&c=", FORM, few).texts["b"] == ("A" * 10,)
    assert "20 bytes of text" in refused(BodyTooLarge, b"a=" + b"x" * 10 + b"&b=" + b"%41" * 10 + b"&c=x", FORM, few)
    assert "50" in refused(BodyTooLarge, b"a=" + b"x" * 49, FORM, few)
    assert read(b'{"a":[1,2,3]}'.ljust(50), JSON, few).json == {"a": [1, 2, 3]}
    assert "4 JSON values" in refused(BodyTooLarge, b'{"a":[1,2,3,4]}', JSON, few)


def test_values_of_json_are_counted_from_its_beginning_to_its_end() -> None:
    few = BodyLimits(json_values=100_000)
    assert read(b'{"a":[' + b"1," * 99_997 + b"1]}", JSON, few).json
    assert "100000 JSON values" in refused(BodyTooLarge, b'{"a":[' + b"1," * 99_999 + b"1]}", JSON, few)


class Told(io.BytesIO):
    """A body that knows how much of it was asked for."""

    taken = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.taken += len(data)
        return data


def test_of_json_with_too_many_values_nothing_is_read_beyond_them() -> None:
    content = b'{"fields": [' + b"[]," * 5_000_000 + b"1]}"
    body = Told(content)
    with pytest.raises(BodyTooLarge, match="200000 JSON values"):
        read_body(environ(content, JSON) | {"wsgi.input": body}, LIMITS)
    assert LIMITS.json_values < body.taken < LIMITS.json_values * 3 // 2 + READ_BYTES


def test_names_are_bounded() -> None:
    assert list(read(b"a" * 4096 + b"=1", FORM).texts) == ["a" * 4096]
    assert "a name longer" in refused(BodyTooLarge, b"a" * 4097 + b"=1", FORM)
    assert read(b"[]=1", FORM).texts == {"[]": ("1",)}


def test_numbers_of_json_are_bounded() -> None:
    assert read(b'{"a": ' + b"1" * 400 + b"}", JSON).json == {"a": int("1" * 400)}
    assert read(b'{"a": 0.' + b"1" * 398 + b"}", JSON).json == {"a": pytest.approx(1 / 9)}
    assert "400" in refused(MalformedBody, b'{"a": ' + b"1" * 401 + b"}", JSON)
    assert "400" in refused(MalformedBody, b'{"a": 0.' + b"1" * 399 + b"}", JSON)


@pytest.mark.parametrize(
    ("text", "wide"),
    [("😀", True), ("\\ud83d\\ude00", True), ("й", False), ("\\u0439", False), ("\\ud7ff", False), ("x", False)],
)
def test_only_characters_of_four_bytes_bound_json_more_narrowly(text: str, wide: bool) -> None:
    content = f'{{"a": "{text}"}}'.encode()
    assert read(content, JSON, BodyLimits(wide_json_bytes=len(content))).json
    if wide:
        assert "U+FFFF" in refused(BodyTooLarge, content, JSON, BodyLimits(wide_json_bytes=len(content) - 1))
    else:
        assert read(content, JSON, BodyLimits(wide_json_bytes=len(content) - 1)).json


def test_the_most_that_the_contract_allows_fits_in_a_form() -> None:
    texts = part("fields", b"x" * 65_535) * 256
    assert len(read(texts + file("image", b"x" * (4 << 20)) + END).texts["fields"]) == 256
    assert read(part("fields", "😀".encode() * 65_535) + END).texts["fields"] == ("😀" * 65_535,)


def test_a_reason_never_repeats_a_long_name() -> None:
    assert len(refused(MalformedBody, b'{"' + b"a" * 100_000 + b'":1,"' + b"a" * 100_000 + b'":1}', JSON)) < 200
    assert len(refused(UnsupportedBody, b"x", "a" * 10_000)) < 300


# --- hostile bodies ---

MEGABYTES = 20 << 20
HOSTILE = {
    "a part of line ends": (file("image", b"\r\n" * (MEGABYTES // 2)) + END, MULTIPART),
    "a part of almost boundaries": (file("image", b"\r\n--" * (MEGABYTES // 4)) + END, MULTIPART),
    "327,000 parts of a byte": (part("a", b"x") * 327_000 + END, MULTIPART),
    "10,000 fields": (part("fields", b"x") * 10_000 + END, MULTIPART),
    "a header without end": (b"--b\r\nContent-Disposition: " + b"x" * MEGABYTES, MULTIPART),
    "a preamble without end": (b"x" * MEGABYTES, MULTIPART),
    "one text of 20 MB": (part("a", b"x" * MEGABYTES) + END, MULTIPART),
    "20 MB of ampersands": (b"&" * MEGABYTES, FORM),
    "one escape after another": (b"&".join([b"fields=" + b"%41" * 65_535] * 106), FORM),
    "brackets": (b"[" * MEGABYTES, JSON),
    "empty lists": (b'{"a":[' + b"[]," * (MEGABYTES // 3) + b"1]}", JSON),
    "as many values as may be": (b'{"a":[' + b"{}," * 99_000 + b"1]}", JSON),
    "as many keys as may be": (b"{" + b",".join(b'"%d":[]' % number for number in range(99_000)) + b"}", JSON),
    "digits": (b'{"a":' + b"1" * MEGABYTES + b"}", JSON),
    "a wide character": (b'{"a":"' + b"x" * MEGABYTES + "😀".encode() + b'"}', JSON),
    "a wide character as an escape": (b'{"a":"' + b"x" * MEGABYTES + b'\\ud83d\\ude00"}', JSON),
    "backslashes": (b'{"a":"' + b"\\\\" * (MEGABYTES // 2) + b'"}', JSON),
    "an open text": (b'{"a":"' + b'\\"' * (MEGABYTES // 2), JSON),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bodies_cost_little_time_and_memory(name: str) -> None:
    content, content_type = HOSTILE[name]
    started = time.process_time()
    outcomes = [type(outcome) for outcome in outcome_of(content, content_type)]
    seconds = time.process_time() - started
    tracemalloc.start()
    try:
        outcomes += [type(outcome) for outcome in outcome_of(content, content_type)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert set(outcomes) <= {Body, MalformedBody, BodyTooLarge}
    assert seconds < 2.0, "some 0.2 s here; Bottle's own parser takes 10"
    assert peak < 3 * MEGABYTES, "the body, what came out of it, and little else"


def outcome_of(content: bytes, content_type: str) -> Iterator[Body | Refusal]:
    try:
        yield read(content, content_type)
    except Refusal as refusal:
        yield refusal


@pytest.mark.skipif(not BAD_MULTIPART, reason="the folder of broken bodies is not here")
def test_broken_multipart_bodies_are_read_or_refused() -> None:
    boundary = "dfhjksd23f43242f43fv4b4g2g2g23vf2"
    outcomes = [
        type(outcome)
        for path in BAD_MULTIPART
        for content_type in (f"multipart/form-data; boundary={boundary}", FORM, JSON)
        for outcome in outcome_of(path.read_bytes(), content_type)
    ]
    assert len(outcomes) == 3 * len(BAD_MULTIPART)
    assert set(outcomes) <= {Body, MalformedBody, BodyTooLarge}


@given(
    st.binary(max_size=300)
    | st.lists(
        st.sampled_from(
            [b"--b", b"\r\n", b"Content-Disposition: form-data; name=a", b":", b"--", b"x", b"\xff", b'; filename="']
        )
    ).map(b"".join),
    st.sampled_from([MULTIPART, FORM, JSON]) | st.text(max_size=40),
)
def test_any_bytes_are_read_or_refused(content: bytes, content_type: str) -> None:
    for outcome in outcome_of(content, content_type):
        assert isinstance(outcome, (Body, MalformedBody, BodyTooLarge, UnsupportedBody))
        json.dumps([(mistake.field, mistake.reason) for mistake in getattr(outcome, "mistakes", ())]).encode()
