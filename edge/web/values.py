"""Single values of a body, and the reader that takes them out by name and gathers every mistake.

A value is read by a function that returns it with its type and range, or raises Unfit with the reason. Values of a
form are texts; of JSON, whatever JSON can say; each function takes both. A Kind is such a function with the JSON schema
of what it takes, so that what is read and what is documented are one declaration.
"""

from __future__ import annotations

import base64
import binascii
import calendar
import datetime
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from edge.errors import InvalidSchema, Mistake, NoImage, UnexpectedField
from edge.web.body import Body, shown

T = TypeVar("T")
Read = Callable[[Any], T]
"""From a raw value to one of the right type and range; Unfit says why not."""

MOST_MISTAKES = 50  # told at once: nobody mends more in one go, and an answer must not grow with the request
LONGEST_NUMBER = 64  # characters; a double needs 25
DECIMAL = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
WHOLE = re.compile(r"[+-]?[0-9]+")
UUID_ANY_CASE = "[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
UUID = re.compile(UUID_ANY_CASE)
TRUTH = "^([Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee])$"  # of a schema, which has no flags
MOMENT = re.compile(
    r"(?P<day>[0-9]{4}-[0-9]{2}-[0-9]{2})([Tt ](?P<time>[0-9]{2}:[0-9]{2}(:[0-9]{2})?)(\.(?P<fraction>[0-9]{1,9}))?"
    r"(?P<offset>[Zz]|[+-][0-9]{2}:[0-9]{2})?)?"
)
DATA_URL = re.compile(r"data:[^,]{0,200};base64,")


class Unfit(ValueError):
    """A value outside its type or range; its text is the reason, for whoever sent it."""


@dataclass(frozen=True, eq=False)
class Kind(Generic[T]):
    """A reader of single values and the JSON schema of what it takes."""

    read: Read[T]
    schema: Mapping[str, Any]
    form_schema: Mapping[str, Any] | None = None
    """In a form, where all values are texts; None: the same."""

    def __call__(self, value: Any) -> T:
        """Return the value with its type and range; Unfit says why not."""
        return self.read(value)

    def schema_in(self, *, form: bool) -> dict[str, Any]:
        """Return the schema of the value in a form, or in JSON."""
        return dict(self.form_schema if form and self.form_schema is not None else self.schema)


def described(schema: Mapping[str, Any]) -> Callable[[Read[T]], Kind[T]]:
    """Return a decorator that makes a reader a Kind."""
    return lambda read: Kind(read, schema)


def decimal_schema(kind: str, least: float, most: float) -> dict[str, Any]:
    """Return the schema of a number (`number` or `integer`) in a range, of JSON or as a text."""
    pattern = DECIMAL.pattern if kind == "number" else WHOLE.pattern
    in_words = {"type": "string", "pattern": f"^{pattern}$", "maxLength": LONGEST_NUMBER}
    return {
        "anyOf": [
            {"type": kind, "minimum": least, "maximum": most},
            {**in_words, "format": f"{kind}:{least:.15g}:{most:.15g}"},
        ]
    }


# --- values ---


def number(least: float, most: float) -> Kind[float]:
    """Return the reader of a number from `least` to `most`: of JSON, or as a decimal text; never NaN or infinite."""
    expected = f"must be a number from {least:g} to {most:g}"

    def read(value: Any) -> float:
        found = finite(value)
        if found is None or not least <= found <= most:
            raise Unfit(expected)
        return found

    return Kind(read, decimal_schema("number", least, most))


def whole(least: int, most: int) -> Kind[int]:
    """Return the reader of a whole number from `least` to `most`: of JSON (5.0 is one), or as digits."""
    expected = f"must be a whole number from {least} to {most}"

    def read(value: Any) -> int:
        if isinstance(value, str) and not WHOLE.fullmatch(value):
            raise Unfit(expected)
        found = finite(value)
        if found is None or not found.is_integer() or not least <= found <= most:
            raise Unfit(expected)
        return int(found)

    return Kind(read, decimal_schema("integer", least, most))


def finite(value: Any) -> float | None:
    """Return the number, or None for what is none: a truth value, a text that is not decimal, NaN, an infinity."""
    if isinstance(value, bool):  # to Python a kind of int
        return None
    if isinstance(value, str) and not (len(value) <= LONGEST_NUMBER and DECIMAL.fullmatch(value)):
        # float() alone would take "nan", "1_000", spaces and the digits of every script
        return None
    if not isinstance(value, (int, float, str)):
        return None
    try:
        found = float(value)
    except OverflowError:  # an int beyond any double
        return None
    return found if math.isfinite(found) else None


@described(decimal_schema("number", 0, 100))
def share(value: Any) -> float:
    """Read a threshold, 0..1; above 1 and up to 100 it is a percentage."""
    found = finite(value)
    if found is None or not 0 <= found <= 100:  # a hundred per cent
        raise Unfit("must be a number from 0 to 1, or a percentage above 1 and up to 100")
    return found if found <= 1 else found / 100


@described({"anyOf": [{"type": "boolean"}, {"type": "string", "pattern": TRUTH}]})
def boolean(value: Any) -> bool:
    """Read true or false: of JSON, or the words in any case; nothing else (0, 1, yes) is either."""
    if isinstance(value, bool):
        return value
    word = value.lower() if isinstance(value, str) else ""
    if word not in ("true", "false"):
        raise Unfit("must be true or false")
    return word == "true"


@described({"type": "string", "format": "uuid", "pattern": f"^{UUID_ANY_CASE}$"})
def uuid_text(value: Any) -> str:
    """Read a UUID of any version in its usual form (8-4-4-4-12), returned in lower case."""
    if not (isinstance(value, str) and UUID.fullmatch(value)):
        raise Unfit("must be a UUID, like 123e4567-e89b-12d3-a456-426614174000")
    return value.lower()


@described({"anyOf": [*boolean.schema["anyOf"], uuid_text.schema]})
def boolean_or_uuid(value: Any) -> bool | str:
    """Read a truth value or a UUID."""
    try:
        return boolean(value)
    except Unfit:
        pass
    try:
        return uuid_text(value)
    except Unfit:
        raise Unfit("must be true, false or a UUID") from None


def text(longest: int, shortest: int = 0) -> Kind[str]:
    """Return the reader of a text of so many characters."""

    def read(value: Any) -> str:
        if not isinstance(value, str):
            raise Unfit("must be a text")
        if len(value) > longest:
            raise Unfit(f"{len(value)} characters; the limit is {longest}")
        if len(value) < shortest:
            raise Unfit(f"must have at least {shortest} character(s)")
        return value

    return Kind(read, {"type": "string", "minLength": shortest, "maxLength": longest})


def word(*words: str) -> Kind[str]:
    """Return the reader of one of these words."""

    def read(value: Any) -> str:
        if value not in words:
            raise Unfit(f"must be one of {', '.join(words)}")
        return str(value)

    return Kind(read, {"type": "string", "enum": list(words)})


@described({"anyOf": [{"type": "string", "format": "date-time"}, {"type": "string", "format": "date"}]})
def moment_ms(value: Any) -> int:
    """Read a time, or a day (its beginning), of ISO 8601; without an offset, UTC. In milliseconds since 1970."""
    found = MOMENT.fullmatch(value) if isinstance(value, str) else None
    try:
        if found is None:
            raise ValueError
        day, hours, fraction, offset = found["day"], found["time"] or "00:00", found["fraction"] or "", found["offset"]
        offset = "+00:00" if offset in (None, "Z", "z") else offset
        text = f"{day}T{hours}{offset}"
        at = datetime.datetime.fromisoformat(text).astimezone(datetime.timezone.utc)
        return calendar.timegm(at.timetuple()) * 1000 + int(f"{fraction:0<3.3}" or "0")
    except (ValueError, OverflowError):
        raise Unfit("must be a time, like 2027-01-31T09:30:00Z, or a day, like 2027-01-31") from None


@described({"type": "string", "format": "base64", "contentEncoding": "base64", "minLength": 1})
def base64_bytes(value: Any) -> bytes:
    """Read base64 of the usual alphabet, padded; line breaks and a `data:` prefix are allowed. Empty is unfit."""
    if not isinstance(value, str):
        raise Unfit("must be a text in base64")
    prefix = DATA_URL.match(value)
    try:
        encoded = value[prefix.end() if prefix else 0 :].encode("ascii").translate(None, b"\r\n\t ")
        content = base64.b64decode(encoded, validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise Unfit("must be base64") from None
    if not content:
        raise Unfit("must not be empty")
    return content


# --- the reader ---


class Reader:
    """Takes values out of a body by name; what is wrong is gathered, and told at once by `finish`."""

    def __init__(self, body: Body) -> None:
        self.body = body
        self._mistakes: list[Mistake] = []

    def sent(self, name: str) -> bool:
        """Whether anything but an empty text or array was sent under the name."""
        return any(value not in ("", []) for value in self.body.values(name))

    def one(self, name: str, read: Read[T]) -> T | None:
        """Return the value of that name, None where it is absent or unfit; sent twice, it is a mistake."""
        values = self.body.values(name)
        if len(values) > 1:
            self.mistake(name, f"given {len(values)} times; once is allowed")
            return None
        return self.fit(name, values[0], read) if values else None

    def flag(self, name: str) -> bool:
        """Return the truth value of that name, false where it is absent or unfit."""
        return self.one(name, boolean) or False

    def many(self, name: str, read: Read[T], most: int) -> tuple[T, ...]:
        """Return the values of that name, repeated in a form or an array of JSON, without the unfit ones."""
        values = self.body.values(name)
        if len(values) == 1 and isinstance(values[0], list):
            values = tuple(values[0])
        return self.each(name, values, read, most)

    def each(self, name: str, values: tuple[Any, ...], read: Read[T], most: int) -> tuple[T, ...]:
        """Return the values, each read, without the unfit ones; more than `most` are one mistake."""
        if len(values) > most:
            self.mistake(name, f"{len(values)} values; the limit is {most}")
            return ()
        found = [self.fit(f"{name}[{index}]", value, read) for index, value in enumerate(values)]
        return tuple(value for value in found if value is not None)

    def mistake(self, name: str, reason: str) -> None:
        """Note that the value of that name is unfit."""
        if len(self._mistakes) < MOST_MISTAKES:
            self._mistakes.append(Mistake(name, reason))

    def finish(self) -> None:
        """Raise InvalidSchema with every mistake that was made, if any was."""
        if self._mistakes:
            raise InvalidSchema(*self._mistakes)

    def fit(self, name: str, value: Any, read: Read[T]) -> T | None:
        """Return the value, read; None where it is unfit, which is noted."""
        try:
            return read(value)
        except Unfit as error:
            self.mistake(name, str(error))
            return None

    # --- files ---

    def file_sent(self, name: str) -> bool:
        """Whether a file that is not empty was sent under the name; in JSON, a value."""
        return any(self.body.files.get(name, ())) or (self.body.json is not None and self.sent(name))

    def file(self, name: str) -> bytes | None:
        """Return the one file of that name, from base64 in JSON; None where it is absent, empty or unfit."""
        if self.body.json is not None:
            return self.one(name, base64_bytes) if self.sent(name) else None
        files = self.body.files.get(name, ())
        return (files[0] or None) if files else None

    def files(self, name: str, most: int) -> tuple[bytes, ...]:
        """Return the files of that name in their order, empty ones too; of JSON, from an array of base64."""
        if self.body.json is not None:
            return self.many(name, base64_bytes, most) if self.sent(name) else ()
        return self.body.files.get(name, ())

    def only_files(self, most: Mapping[str, int]) -> None:
        """Raise UnexpectedField for a file under a name that `most` does not hold, or more than it allows of one."""
        expected = ", ".join(most) or "none"
        mistakes = [
            Mistake(shown(name), f"{len(files)} files; the limit is {most[name]}")
            if name in most
            else Mistake(shown(name), f"no file is taken under this name; expected is {expected}")
            for name, files in self.body.files.items()
            if len(files) > most.get(name, 0)
        ]
        if mistakes:
            raise UnexpectedField(*mistakes[:MOST_MISTAKES])


def no_image(body: Body, name: str, *others: str) -> NoImage:
    """Return the refusal of a request without a picture (nor what may stand for one), with the likeliest cause."""
    if body.texts.get(name):
        return NoImage(Mistake(name, "sent as a text; a picture is sent as a file, with a filename"))
    if name in body.files:
        return NoImage(Mistake(name, "the file is empty"))
    return NoImage(Mistake(name, f"neither {' nor '.join((name, *others))} was sent" if others else "was not sent"))
