"""The request's body, from bytes to texts, files and JSON: strict, in linear time, and never on disk.

Three content types are read: multipart/form-data, application/x-www-form-urlencoded and application/json. What
the values mean is for `forms` to say; here a body is only taken apart, or refused with the reason.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

import multipart

from edge.errors import BodyTooLarge, MalformedBody, Mistake, UnsupportedBody

EMPTY: Mapping[str, Any] = MappingProxyType({})
READ_BYTES = 1 << 16  # one read of the input; small beside any body, large beside a system call
SIGNS_OF_VALUES = ",[{"  # one before each value of JSON, or nearly
PART_HEADERS = 8  # a part of a form has two or three
PART_HEADER_BYTES = 4096  # one line; the longest in practice holds a file's name
LONGEST_NUMBER = 400  # characters; a double needs 25, and turning digits into an int costs their square
SHOWN_CHARACTERS = 64  # of a caller's own text in a reason: enough to find it, too little to echo a body
FILE_TYPES = ("image/", "application/octet-stream")  # parts of these types are files even where they have no filename
WIDE = re.compile(rb"[\xf0-\xf4]")  # begins a character beyond U+FFFF in UTF-8
WIDE_ESCAPE = re.compile(rb"\\u[dD][89abAB]")  # and as an escape of JSON
HALF_AN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True)
class BodyLimits:
    """What a body may cost."""

    body_bytes: int = 24 << 20
    """Bytes. A picture of 40 megapixels is about 16 MB of JPEG, a third more in base64."""
    parts: int = 600
    """Parts or pairs. 256 fields, as many images and features as any route takes, and what clients add unasked."""
    field_bytes: int = 4 * 65_535
    """Bytes of one text. The longest field, 65,535 characters, each of the four bytes that UTF-8 may need."""
    text_bytes: int = 17 << 20
    """Bytes of all texts of a form. 256 fields of 65,535 letters, and a margin."""
    json_depth: int = 16
    """Levels. The deepest body of any route has five; each level costs a stack frame."""
    json_values: int = 200_000
    """Commas and opening brackets, ten times what any route needs, for texts have commas too. Three bytes of JSON,
    `[],`, become seventy in memory: bytes alone bound nothing."""
    wide_json_bytes: int = 4 << 20
    """Bytes of JSON that holds a character beyond U+FFFF: one is enough for Python to keep each in four bytes."""


@dataclass(frozen=True)
class Body:
    """What was sent, under the names it was sent by, each name's values in their order.

    A trailing `[]` of a text's name (how many form libraries mark a repeated one) is not part of the name.
    """

    texts: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: EMPTY)
    files: Mapping[str, tuple[bytes, ...]] = field(default_factory=lambda: EMPTY)
    json: Any | None = None
    """The object of a JSON body; None where the body is a form, or empty."""

    def values(self, name: str) -> tuple[Any, ...]:
        """Return what was sent under the name: all texts of a form, or the one value of JSON (null: as if absent)."""
        if self.json is None:
            return self.texts.get(name, ())
        value = self.json.get(name)
        return () if value is None else (value,)


class Readable(Protocol):
    """The part of wsgi.input that is used."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; none at the end."""


def read_body(environ: Mapping[str, Any], limits: BodyLimits) -> Body:
    """Return the body of a WSGI request, read to its end; an empty body is an empty Body whatever its type.

    BodyTooLarge: more bytes, parts or text than the limits say. UnsupportedBody: a content type or encoding that
    is not read here. MalformedBody: it is not what its type says (cut short, a part without a name, not UTF-8).
    """
    length = _checked_length(environ, limits)
    if length == 0:
        return Body()
    content_type, options = multipart.parse_options_header(str(environ.get("CONTENT_TYPE", "")))
    read = _READERS.get(content_type)
    if read is None:
        known = ", ".join(_READERS)
        raise _unsupported("Content-Type", f"{shown(content_type) or 'none'} is not read; known are {known}")
    return read(_chunks(environ["wsgi.input"], length), options, limits)


def read_bytes(environ: Mapping[str, Any], limits: BodyLimits) -> bytes:
    """Return the body of a WSGI request as it is. BodyTooLarge, UnsupportedBody (its encoding), MalformedBody."""
    return b"".join(_chunks(environ["wsgi.input"], _checked_length(environ, limits)))


def parse_json(text: str, limits: BodyLimits) -> Any:
    """Return the value of a JSON text.

    Stricter than Python's own reader: no key twice, no NaN or Infinity, no half surrogates, and bounded in depth and
    number of values. MalformedBody says what is wrong, BodyTooLarge which limit is passed.
    """
    counted = sum(map(text.count, SIGNS_OF_VALUES))
    if counted > limits.json_values:
        raise too_many_values(limits)
    return _value(text, limits)


def _value(text: str, limits: BodyLimits) -> Any:
    try:
        value = json.loads(
            text,
            object_pairs_hook=_without_repetition,
            parse_constant=_no_constant,
            parse_int=_integer,
            parse_float=_fraction,
        )
    except json.JSONDecodeError as error:
        raise malformed("body", f"not JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise too_large("body", f"JSON deeper than {limits.json_depth} levels") from None
    _check_tree(value, limits.json_depth)
    return value


# --- refusals ---


def too_large(name: str, reason: str) -> BodyTooLarge:
    """Return the refusal of something above its limit."""
    return BodyTooLarge(Mistake(shown(name), reason))


def too_many_values(limits: BodyLimits) -> BodyTooLarge:
    """Return the refusal of JSON that would unfold to too much."""
    return too_large("body", f"more than {limits.json_values} JSON values")


def malformed(name: str, reason: str) -> MalformedBody:
    """Return the refusal of something that is not what its type says."""
    return MalformedBody(Mistake(shown(name), reason))


def shown(text: str) -> str:
    """Return a caller's own text as it may stand in an answer: short, and always encodable."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"


def _unsupported(header: str, reason: str) -> UnsupportedBody:
    return UnsupportedBody(Mistake(header, reason))


# --- bytes ---


def _checked_length(environ: Mapping[str, Any], limits: BodyLimits) -> int:
    """Return the body's length. BodyTooLarge; UnsupportedBody: it is packed."""
    length = _content_length(environ)
    if length > limits.body_bytes:
        raise too_large("body", f"{length} bytes; the limit is {limits.body_bytes}")
    encoding = str(environ.get("HTTP_CONTENT_ENCODING", "")).strip().lower()
    if length and encoding not in ("", "identity"):
        # nothing is unpacked: a kilobyte of gzip can hold a gigabyte
        raise _unsupported("Content-Encoding", f"{shown(encoding)} is not read; send the body as it is")
    return length


def _content_length(environ: Mapping[str, Any]) -> int:
    text = str(environ.get("CONTENT_LENGTH") or "0")
    if not (text.isascii() and text.isdigit()):
        raise malformed("Content-Length", "must be a whole number of bytes")
    return int(text) if len(text) < LONGEST_NUMBER else 10**LONGEST_NUMBER  # past any limit, so its value is idle


def _chunks(stream: Readable, length: int) -> Iterator[bytes]:
    """Yield the body in pieces, so that one whose parts are taken out of it is not held twice.

    The last piece is never a short one: the strict parser refuses the line end after the last boundary, which nearly
    every client sends, where it comes in a piece of its own.
    """
    missing = length
    while missing:
        size = missing if missing < 2 * READ_BYTES else READ_BYTES
        chunk = _exactly(stream, size)
        missing -= len(chunk)
        if len(chunk) < size:
            raise malformed("body", f"ended after {length - missing} of {length} bytes")
        yield chunk


def _exactly(stream: Readable, size: int) -> bytes:
    """Return so many bytes, or fewer at the end; a single read may give less than it could."""
    pieces = []
    while size and (piece := stream.read(size)):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


class _Collected:
    """The texts and files of a form while it is read, within the limits."""

    def __init__(self, limits: BodyLimits) -> None:
        self._limits = limits
        self._text_bytes = 0
        self._texts: dict[str, list[str]] = {}
        self._files: dict[str, list[bytes]] = {}

    def room(self, name: str, length: int) -> None:
        """Refuse a text of so many bytes before it is gathered, if it is more than there is room for."""
        if length > self._limits.field_bytes:
            raise too_large(name, f"longer than {self._limits.field_bytes} bytes")
        if self._text_bytes + length > self._limits.text_bytes:
            raise too_large("body", f"more than {self._limits.text_bytes} bytes of text")

    def text(self, name: str, value: bytes) -> None:
        """Add a text."""
        if not name:
            raise malformed("body", "a part without a name")
        self.room(name, len(value))
        self._text_bytes += len(value)
        try:
            decoded = value.decode()
        except UnicodeDecodeError as error:
            raise malformed(name, f"not UTF-8 at byte {error.start}; a picture is sent as a file") from None
        self._texts.setdefault(name.removesuffix("[]") or name, []).append(decoded)

    def file(self, name: str, content: bytes) -> None:
        """Add a file."""
        if not name:
            raise malformed("body", "a part without a name")
        self._files.setdefault(name, []).append(content)

    def body(self) -> Body:
        """Return what was gathered."""
        return Body(
            {name: tuple(values) for name, values in self._texts.items()},
            {name: tuple(values) for name, values in self._files.items()},
        )


# --- multipart/form-data ---


def _multipart(chunks: Iterator[bytes], options: Mapping[str, str], limits: BodyLimits) -> Body:
    try:
        parser = multipart.PushMultipartParser(
            options.get("boundary", ""),
            max_header_count=PART_HEADERS,
            max_header_size=PART_HEADER_BYTES,
            max_segment_count=limits.parts,
            strict=True,
        )
        return _parts(parser, chunks, limits)
    except multipart.ParserLimitReached as error:
        raise too_large("body", f"{error}; the limit is {limits.parts} parts, {PART_HEADERS} headers each") from None
    except (multipart.MultipartError, UnicodeError) as error:
        raise malformed("body", f"not multipart/form-data: {error}") from None


def _parts(parser: multipart.PushMultipartParser, chunks: Iterator[bytes], limits: BodyLimits) -> Body:
    collected = _Collected(limits)
    part: multipart.MultipartSegment | None = None
    content: list[bytes] = []
    with parser:
        for chunk in chunks:
            for event in parser.parse(chunk):
                if isinstance(event, multipart.MultipartSegment):
                    part, content = event, []
                    _check_part(part)
                elif part is not None and event:
                    content.append(bytes(event))
                    if not _is_file(part):
                        collected.room(part.name or "", part.bytes_received)
                elif part is not None:
                    add = collected.file if _is_file(part) else collected.text
                    add(part.name or "", b"".join(content))
    return collected.body()


def _is_file(part: multipart.MultipartSegment) -> bool:
    return part.filename is not None or (part.content_type or "").startswith(FILE_TYPES)


def _check_part(part: multipart.MultipartSegment) -> None:
    name = part.name or ""
    if (part.charset or "utf-8").lower() not in ("utf-8", "utf8", "us-ascii", "ascii"):
        raise malformed(name, f"charset {shown(part.charset or '')} is not read; send UTF-8")
    encoding = (part.header("Content-Transfer-Encoding") or "binary").lower()
    if encoding not in ("binary", "8bit", "7bit"):
        raise malformed(name, f"transfer encoding {shown(encoding)} is not read; send the bytes as they are")


# --- application/x-www-form-urlencoded ---


def _urlencoded(chunks: Iterator[bytes], _: Mapping[str, str], limits: BodyLimits) -> Body:
    pairs = b"".join(chunks).split(b"&", limits.parts)
    if len(pairs) > limits.parts:
        raise too_large("body", f"more than {limits.parts} pairs")
    collected = _Collected(limits)
    for pair in pairs:
        if not pair:
            continue
        name, _equals, value = pair.partition(b"=")
        if len(name) > PART_HEADER_BYTES:
            raise too_large("body", f"a name longer than {PART_HEADER_BYTES} bytes")
        decoded = _unescaped(name, limits)
        try:
            collected.text(decoded.decode(), _unescaped(value, limits))
        except UnicodeDecodeError:
            raise malformed("body", "a name that is not UTF-8") from None
    return collected.body()


def _unescaped(text: bytes, limits: BodyLimits) -> bytes:
    if len(text) > 3 * limits.field_bytes:  # each byte as %XX
        raise too_large("body", f"a value longer than {limits.field_bytes} bytes")
    if HALF_AN_ESCAPE.search(text):
        raise malformed("body", "a % that is not followed by two hexadecimal digits")
    # quoted-printable is the same code with = for %, and the library has its decoder in C: 20 MB of escapes take
    # 0.2 s in all, with urllib.parse 1.4 s
    return binascii.a2b_qp(text.replace(b"+", b" ").replace(b"=", b"=3D").replace(b"%", b"="))


# --- application/json ---


def _json(chunks: Iterator[bytes], _: Mapping[str, str], limits: BodyLimits) -> Body:
    data = b"".join(_within_values(chunks, limits))
    if len(data) > limits.wide_json_bytes and (WIDE_ESCAPE.search(data) or (not data.isascii() and WIDE.search(data))):
        reason = f"JSON with characters beyond U+FFFF is limited to {limits.wide_json_bytes} bytes; send a form"
        raise too_large("body", reason)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise malformed("body", f"not UTF-8 at byte {error.start}") from None
    del data
    value = _value(text, limits)
    if not isinstance(value, dict):
        raise malformed("body", "must be a JSON object")
    return Body(json=value)


def _within_values(chunks: Iterator[bytes], limits: BodyLimits) -> Iterator[bytes]:
    """Yield the chunks until there are more values in them than may be made: the rest is neither read nor counted."""
    counted = 0
    for chunk in chunks:
        counted += sum(map(chunk.count, SIGNS_OF_VALUES.encode()))  # of UTF-8 these bytes are these characters alone
        if counted > limits.json_values:
            raise too_many_values(limits)
        yield chunk


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise malformed(key, "the key is given twice")
        found[key] = value
    return found


def _no_constant(name: str) -> Any:
    raise malformed("body", f"{name} is no number of JSON")


def _integer(text: str) -> int:
    if len(text) > LONGEST_NUMBER:
        raise malformed("body", f"a number longer than {LONGEST_NUMBER} characters")
    return int(text)


def _fraction(text: str) -> float:
    if len(text) > LONGEST_NUMBER:
        raise malformed("body", f"a number longer than {LONGEST_NUMBER} characters")
    return float(text)


def _check_tree(value: Any, depth: int) -> None:
    """Refuse what is nested deeper, and texts with half a surrogate pair: no database and no answer can hold them."""
    level: list[Any] = [value]
    for _ in range(depth + 1):
        below: list[Any] = []
        for node in level:
            if isinstance(node, dict):
                below.extend(node)
                below.extend(node.values())
            elif isinstance(node, list):
                below.extend(node)
            elif isinstance(node, str) and not _encodable(node):
                raise malformed("body", "a text with half a surrogate pair")
        if not below:
            return
        level = below
    raise too_large("body", f"JSON deeper than {depth} levels")


def _encodable(text: str) -> bool:
    if text.isascii():  # known of every string without a look at it: the picture's base64 costs nothing
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_READERS: Mapping[str, Callable[[Iterator[bytes], Mapping[str, str], BodyLimits], Body]] = {
    "multipart/form-data": _multipart,
    "application/x-www-form-urlencoded": _urlencoded,
    "application/json": _json,
}
