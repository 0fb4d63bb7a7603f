"""What a route takes, declared once: read from a body by `Form.read`, described by `Form.schema`.

A handler gets its values by the parameters themselves (`values[NAME]`), so that it cannot read what its route does not
declare, and what is declared is what is documented.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from edge.errors import Refusal
from edge.web.body import Body, BodyLimits, parse_json
from edge.web.values import Kind, Reader, Unfit, boolean, no_image

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

NESTED = BodyLimits(json_values=10_000)  # JSON inside a field holds a list of features or one vector


@dataclass(frozen=True)
class Facts:
    """What of the active pack decides which values fit."""

    features: frozenset[str]
    vector_length: int


class Names(enum.Enum):
    """What the ids of a parameter name, so that a token that is bound to one is held to it."""

    LIST = "list"
    SOURCE = "source"


OfPack = Callable[[Facts], Kind[T]]


def kind_of(value: Kind[T] | OfPack[T], facts: Facts) -> Kind[T]:
    """Return the kind, made for the active pack where it depends on it."""
    return value if isinstance(value, Kind) else value(facts)


class Parameter(Protocol[T_co]):
    """One name of a body: how its value is taken out, and what stands in /openapi.json."""

    @property
    def name(self) -> str:
        """As clients send it."""

    @property
    def doc(self) -> str:
        """A sentence for whoever calls."""

    @property
    def required(self) -> bool:
        """Whether a body without it is refused."""

    @property
    def files(self) -> int:
        """Files that may be sent under the name; 0: it is no picture."""

    @property
    def names(self) -> Names | None:
        """What its values are ids of, if a token can be bound to it."""

    def take(self, reader: Reader, facts: Facts) -> T_co:
        """Return the value; what is wrong is noted with the reader."""

    def schema(self, facts: Facts, *, form: bool) -> dict[str, Any]:
        """Return the JSON schema of the value, in a form or in JSON."""


@dataclass(frozen=True, eq=False)
class One(Generic[T]):
    """A value that may be absent."""

    name: str
    kind: Kind[T] | OfPack[T]
    doc: str
    names: Names | None = None
    required = False
    files = 0

    def take(self, reader: Reader, facts: Facts) -> T | None:
        """Return the value, None where it is absent."""
        return reader.one(self.name, kind_of(self.kind, facts))

    def schema(self, facts: Facts, *, form: bool) -> dict[str, Any]:
        """Return the schema; in JSON, null is as good as absent."""
        schema = kind_of(self.kind, facts).schema_in(form=form)
        return schema if form else or_null(schema)


@dataclass(frozen=True, eq=False)
class Needed(Generic[T]):
    """A value that must be sent."""

    name: str
    kind: Kind[T] | OfPack[T]
    doc: str
    names: Names | None = None
    required = True
    files = 0

    def take(self, reader: Reader, facts: Facts) -> T:
        """Return the value; where there is none, that is noted, and nobody sees what is returned."""
        if not reader.body.values(self.name):
            reader.mistake(self.name, "must be given")
        return reader.one(self.name, kind_of(self.kind, facts))  # type: ignore[return-value]

    def schema(self, facts: Facts, *, form: bool) -> dict[str, Any]:
        """Return the schema."""
        return kind_of(self.kind, facts).schema_in(form=form)


@dataclass(frozen=True, eq=False)
class Flag:
    """A truth value, false where it is absent."""

    name: str
    doc: str
    required = False
    files = 0
    names = None

    def take(self, reader: Reader, facts: Facts) -> bool:
        """Return the truth value."""
        return reader.flag(self.name)

    def schema(self, facts: Facts, *, form: bool) -> dict[str, Any]:
        """Return the schema."""
        schema = {**boolean.schema, "default": False}
        return schema if form else or_null(schema)


@dataclass(frozen=True, eq=False)
class Many(Generic[T]):
    """Values: the name repeated in a form; in JSON an array, or one value; where `spread`, also an array as a text."""

    name: str
    kind: Kind[T] | OfPack[T]
    doc: str
    most: int
    least: int = 0
    spread: bool = False
    required: bool = False
    empty: str = "must not be empty"
    """Told where fewer than `least` were sent."""
    names: Names | None = None
    files = 0

    def take(self, reader: Reader, facts: Facts) -> tuple[T, ...]:
        """Return the values in their order, none where the name is absent."""
        values = reader.body.values(self.name)
        if not values:
            if self.required:
                reader.mistake(self.name, "must be given")
            return ()
        try:
            values = self._elements(values)
        except Unfit as error:
            reader.mistake(self.name, str(error))
            return ()
        if len(values) < self.least:
            reader.mistake(self.name, self.empty)
            return ()
        return reader.each(self.name, values, kind_of(self.kind, facts), self.most)

    def _elements(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(values) != 1:
            return values
        only = values[0]
        if self.spread and isinstance(only, str) and only.startswith("["):
            only = nested(only)
        return tuple(only) if isinstance(only, list) else (only,)

    def schema(self, facts: Facts, *, form: bool) -> dict[str, Any]:
        """Return the schema of an array, and of one value where that is taken."""
        item = kind_of(self.kind, facts).schema_in(form=form)
        # in a form nothing repeated is nothing sent
        least = self.least if self.required or not form else 0
        array: dict[str, Any] = {"type": "array", "items": item, "minItems": least, "maxItems": self.most}
        if form:
            return array
        in_a_text = [json_text(array, self.name)] if self.spread else []
        schema = {"anyOf": [array, dict(item), *in_a_text]}
        return schema if self.required else or_null(schema)


@dataclass(frozen=True, eq=False)
class Maybe(Generic[T_co]):
    """Another parameter whose absence means something else than its emptiness: None."""

    inner: Parameter[T_co]
    required = False
    files = 0

    @property
    def names(self) -> Names | None:
        """What its values are ids of."""
        return self.inner.names

    @property
    def name(self) -> str:
        """As clients send it."""
        return self.inner.name

    @property
    def doc(self) -> str:
        """A sentence for whoever calls."""
        return self.inner.doc

    def take(self, reader: Reader, facts: Facts) -> T_co | None:
        """Return the value, None where the name is absent."""
        return self.inner.take(reader, facts) if reader.body.values(self.name) else None

    def schema(self, facts: Facts, *, form: bool) -> dict[str, Any]:
        """Return the schema."""
        return self.inner.schema(facts, form=form)


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture: a file of a form, base64 in JSON."""

    name: str
    doc: str
    required: bool = False
    files = 1
    names = None

    def take(self, reader: Reader, facts: Facts) -> bytes | None:
        """Return the bytes, None where there are none."""
        return reader.file(self.name)

    def schema(self, facts: Facts, *, form: bool) -> dict[str, Any]:
        """Return the schema."""
        return dict(FILE if form else ENCODED_FILE)


@dataclass(frozen=True, eq=False)
class Pictures:
    """Several pictures under one name: files of a form, an array of base64 in JSON."""

    name: str
    doc: str
    most: int
    least: int = 1
    required: bool = False
    names = None

    @property
    def files(self) -> int:
        """Files that may be sent under the name."""
        return self.most

    def take(self, reader: Reader, facts: Facts) -> tuple[bytes, ...]:
        """Return the pictures in their order."""
        found = reader.files(self.name, self.most)
        if found and len(found) < self.least:
            reader.mistake(self.name, f"{len(found)} sent; at least {self.least} are needed")
        return found

    def schema(self, facts: Facts, *, form: bool) -> dict[str, Any]:
        """Return the schema."""
        # an empty file among others is a picture that cannot be read
        item = {**FILE, "minLength": 0} if form else ENCODED_FILE
        return {"type": "array", "items": item, "minItems": self.least, "maxItems": self.most}


FILE = {"type": "string", "format": "binary", "contentMediaType": "image/*", "minLength": 1}
ENCODED_FILE = {
    "type": "string",
    "format": "base64",
    "contentEncoding": "base64",
    "contentMediaType": "image/*",
    "minLength": 1,
}


# --- what was sent ---


class Values:
    """The values of a body, by the parameters that took them out."""

    def __init__(self, form: Form, taken: Mapping[str, Any]) -> None:
        self.form = form
        self._taken = taken

    def __getitem__(self, parameter: Parameter[T]) -> T:
        """Return the parameter's value. KeyError: the route does not take it."""
        found: T = self._taken[parameter.name]
        return found

    def ids(self, names: Names) -> Iterator[tuple[str, str]]:
        """Yield every id of that sort that was sent, with the name it was sent under."""
        for parameter in self.form.parameters:
            if parameter.names is names:
                value = self._taken[parameter.name]
                for one in (value,) if isinstance(value, str) else value or ():
                    yield parameter.name, str(one)


Rule = Callable[[Values, Reader], None]
"""Looks at several values together, and notes what does not fit."""


@dataclass(frozen=True, eq=False)
class Form:
    """Everything that a route takes.

    `needs`: at least one of these names must be sent, the first being the picture that is missing otherwise. `rules`
    see the values once each is read for itself.
    """

    parameters: tuple[Parameter[Any], ...] = ()
    needs: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()

    def read(self, body: Body, facts: Facts) -> Values:
        """Return the values.

        NoImage: nothing of what is needed was sent. UnexpectedField: a file that is not taken. InvalidSchema: every
        value that is out of its type or range.
        """
        reader = Reader(body)
        pictures = {parameter.name for parameter in self.parameters if parameter.files}
        if self.needs and not any(
            reader.file_sent(name) if name in pictures else reader.sent(name) for name in self.needs
        ):
            raise no_image(body, *self.needs)
        reader.only_files({parameter.name: parameter.files for parameter in self.parameters if parameter.files})
        values = Values(self, {one.name: one.take(reader, facts) for one in self.parameters})
        for rule in self.rules:
            rule(values, reader)
        reader.finish()
        return values

    @property
    def takes_pictures(self) -> bool:
        """Whether files are sent to this route."""
        return any(parameter.files for parameter in self.parameters)

    def schema(self, facts: Facts, *, form: bool) -> dict[str, Any]:
        """Return the JSON schema of the whole body."""
        properties = {one.name: {**one.schema(facts, form=form), "description": one.doc} for one in self.parameters}
        schema: dict[str, Any] = {"type": "object", "properties": properties}
        if form:
            schema["propertyNames"] = {"minLength": 1}
        required = [one.name for one in self.parameters if one.required]
        if required:
            schema["required"] = required
        if len(self.needs) == 1:
            schema["required"] = [*required, *self.needs]
        elif self.needs:
            schema["anyOf"] = [{"required": [name]} for name in self.needs]
        return schema


# --- shared by kinds ---


def or_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema that also takes null: in JSON it is as if the name were absent."""
    return {"anyOf": [dict(schema), {"type": "null"}]}


def json_text(schema: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the schema of a text that holds such a value as JSON; the name makes its format one of its own."""
    return {
        "type": "string",
        "pattern": r"^\[" if schema.get("type") == "array" else r"^\{",
        "format": f"json:{name}",
        "contentMediaType": "application/json",
        "contentSchema": dict(schema),
    }


def nested(value: str) -> Any:
    """Return the JSON inside a text; its mistakes are the text's."""
    try:
        return parse_json(value, NESTED)
    except Refusal as refusal:
        raise Unfit("; ".join(mistake.reason for mistake in refusal.mistakes)) from None
