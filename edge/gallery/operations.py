"""What a box tells its fleet of a change: an operation, and the bytes that it travels as.

A body is a line `edge1 <CRC32> <length of the head>`, the head (JSON), and behind it the vectors and pictures that the
head gives the lengths of, as they are: a vector that is erased can be looked for in a file by its bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
import uuid
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

VERSION = "edge1"
MOST_BYTES = 950_000
"""Of a body: a NATS server takes messages up to 1 MiB, headers included."""

MAIN_LIST = ""
"""What stands for the main list, which every box has its own of."""

KEY_BYTES = 16
PACKED_CHARACTERS = 32


class Kind(str, Enum):
    """What an operation does."""

    PUT = "put"
    """A person is as the operation says."""
    ERASE = "erase"
    """A person is gone, for ever."""
    LIST = "list"
    """A list is there, of that name."""
    ERASE_LIST = "erase_list"
    """A list is gone with everybody in it, for ever."""


@dataclass(frozen=True)
class SharedTemplate:
    """A template as it travels."""

    pack_id: str
    vector: bytes
    """Little-endian float32."""
    cohort_similarity: float
    quality: float
    created_ms: int
    picture: bytes | None = None
    """The crop, a JPEG; None where it is not shared or was not kept."""

    @property
    def key(self) -> str:
        """What it is known by among the templates of its person."""
        return template_key(self.pack_id, self.vector)


@dataclass(frozen=True)
class SharedRejection:
    """A face that is not the person, as it travels."""

    sighting_id: str
    sighted: str | None
    """The id of the person whom the sighting was taken for."""
    pack_id: str
    vector: bytes
    cohort_similarity: float
    created_ms: int


@dataclass(frozen=True)
class Newness:
    """That a person was added because nobody was like them: what decides whether two boxes added the same face."""

    same_from: float
    """The normalised similarity from which the face would have been somebody who is known."""
    cohort_weight: float


@dataclass(frozen=True)
class Operation:
    """A change of one person or one list. What a kind does not need is empty."""

    kind: Kind
    about: str
    """The id of the person or of the list."""
    origin: str
    serial: int
    """Rises with every operation of the origin; gaps are none."""
    time_ms: int
    seen: int
    """The stream's position of the box when it made the change."""
    record: Mapping[str, Any] | None = None
    """The person's columns as records.py reads them; for a list, its name."""
    newness: Newness | None = None
    former: tuple[str, ...] = ()
    """Persons who turned out to be this one, and are gone."""
    templates: tuple[SharedTemplate, ...] = ()
    """That are the person's now."""
    removed: tuple[str, ...] = ()
    """Keys of templates that are not any more."""
    rejections: tuple[SharedRejection, ...] = ()
    undone: tuple[str, ...] = ()
    """Sightings whose rejections are not any more."""
    aliases: tuple[str, ...] = ()
    """Other ids under which the person was added."""

    def with_removed(self, keys: tuple[str, ...]) -> Operation:
        """Return the operation that takes these templates away besides."""
        return dataclasses.replace(self, removed=keys)

    @property
    def subject(self) -> str:
        """What it is published under."""
        return subject_of(self.about, is_list=self.kind in (Kind.LIST, Kind.ERASE_LIST))

    @property
    def is_last(self) -> bool:
        """Whether nothing that was published of the subject before is needed, and none of it may be kept."""
        return self.kind in (Kind.ERASE, Kind.ERASE_LIST) or bool(self.removed or self.undone)


def subject_of(id_: str, *, is_list: bool = False) -> str:
    """Return what is published of a person or a list goes under: `person.<id>` or `list.<id>`."""
    return f"{'list' if is_list else 'person'}.{packed(id_)}"


def packed(id_: str) -> str:
    """Return an id as it travels and waits: without hyphens.

    So whoever looks in a file for what may be left of somebody erased, by their id as the rows have it, does not find
    the word that they are erased, which waits there to be told.
    """
    return id_.replace("-", "").upper() if _is_uuid(id_) else id_


def unpacked(text: str) -> str:
    """Return the id."""
    return str(uuid.UUID(text)) if len(text) == PACKED_CHARACTERS and text.isalnum() else text


def _is_uuid(text: str) -> bool:
    return len(text) == PACKED_CHARACTERS + 4 and text == text.lower() and text.count("-") == 4


def template_key(pack_id: str, vector: bytes) -> str:
    """Return what a template is known by among those of its person."""
    return hashlib.sha256(pack_id.encode() + b"\0" + vector).hexdigest()[: 2 * KEY_BYTES]


def digest_of(id_: str) -> bytes:
    """Return what is kept of the id of somebody erased: enough to know it again, and not the id."""
    return hashlib.sha256(id_.encode()).digest()[:KEY_BYTES]


def encoded(operation: Operation) -> bytes:
    """Return the operation as bytes."""
    blobs: list[bytes] = []

    def blob(data: bytes | None) -> int | None:
        if data is None:
            return None
        blobs.append(data)
        return len(data)

    head: dict[str, Any] = {
        "kind": operation.kind.value,
        "about": packed(operation.about),
        "origin": operation.origin,
        "serial": operation.serial,
        "time_ms": operation.time_ms,
        "seen": operation.seen,
        "record": operation.record and {**operation.record, **_list_of(operation.record, packed)},
        "newness": operation.newness and [operation.newness.same_from, operation.newness.cohort_weight],
        "former": [packed(one) for one in operation.former],
        "templates": [
            [one.pack_id, blob(one.vector), one.cohort_similarity, one.quality, one.created_ms, blob(one.picture)]
            for one in operation.templates
        ],
        "removed": operation.removed,
        "rejections": [
            [
                one.sighting_id,
                one.sighted and packed(one.sighted),
                one.pack_id,
                blob(one.vector),
                one.cohort_similarity,
                one.created_ms,
            ]
            for one in operation.rejections
        ],
        "undone": operation.undone,
        "aliases": [packed(one) for one in operation.aliases],
    }
    text = json.dumps({name: value for name, value in head.items() if value not in (None, (), [])}).encode()
    rest = b"".join([text, *blobs])
    return b"%s %08x %d\n" % (VERSION.encode(), zlib.crc32(rest), len(text)) + rest


def decoded(body: bytes) -> Operation:
    """Return the operation of these bytes. Raises ValueError where they are none."""
    try:
        return _decoded(body)
    except (KeyError, TypeError, IndexError, AttributeError, struct.error) as error:
        raise ValueError(f"not an operation: {error!r}") from error


def _decoded(body: bytes) -> Operation:
    line, _, rest = body.partition(b"\n")
    version, crc32, length = line.decode("ascii").split(" ")
    if version != VERSION:
        raise ValueError(f"not an operation of this version: {version[:20]}")
    if int(crc32, 16) != zlib.crc32(rest):
        raise ValueError("an operation whose checksum is wrong")
    head = json.loads(rest[: int(length)])
    at = int(length)

    def blob(size: int | None) -> bytes | None:
        nonlocal at
        if size is None:
            return None
        at += size
        if size < 0 or at > len(rest):
            raise ValueError("an operation that is cut off")
        return rest[at - size : at]

    templates = tuple(
        SharedTemplate(str(pack_id), _vector(blob(vector)), float(cohort), float(quality), int(created), blob(picture))
        for pack_id, vector, cohort, quality, created, picture in head.get("templates", ())
    )
    rejections = tuple(
        SharedRejection(
            str(sighting),
            sighted and unpacked(sighted),
            str(pack_id),
            _vector(blob(vector)),
            float(cohort),
            int(created),
        )
        for sighting, sighted, pack_id, vector, cohort, created in head.get("rejections", ())
    )
    newness = head.get("newness")
    return Operation(
        kind=Kind(head["kind"]),
        about=unpacked(str(head["about"])),
        origin=str(head["origin"]),
        serial=int(head["serial"]),
        time_ms=int(head["time_ms"]),
        seen=int(head["seen"]),
        record=head.get("record") and {**head["record"], **_list_of(head["record"], unpacked)},
        newness=None if newness is None else Newness(float(newness[0]), float(newness[1])),
        former=tuple(unpacked(one) for one in head.get("former", ())),
        templates=templates,
        removed=tuple(head.get("removed", ())),
        rejections=rejections,
        undone=tuple(head.get("undone", ())),
        aliases=tuple(unpacked(one) for one in head.get("aliases", ())),
    )


def _list_of(record: Mapping[str, Any], way: Callable[[str], str]) -> dict[str, str]:
    return {"list": way(record["list"])} if "list" in record else {}


def _vector(data: bytes | None) -> bytes:
    if not data or len(data) % 4:
        raise ValueError("a vector that is not of float32")
    return data
