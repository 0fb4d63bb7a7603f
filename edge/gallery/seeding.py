"""All that a box shares, line by line, and how another becomes like it without losing anything of its own.

Nobody is taken away here but those who were erased: who is missing elsewhere and was never erased is news, and is
published. So two boxes that seed each other end with the same persons, whoever begins.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import sqlite3
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import IO, NamedTuple

from edge.errors import Mistake, Unusable
from edge.gallery import outbox, records
from edge.gallery.applying import Applying
from edge.gallery.capture import Capture
from edge.gallery.operations import MOST_BYTES, Kind, Operation, SharedTemplate, decoded, encoded, subject_of
from edge.gallery.records import Newcomer, Record

VERSION = 1
ITEMS_A_LINE = 2000
"""Of origins and tombstones: a line stays under 200 KB."""

HEAD, ORIGINS, TOMBSTONES, LIST, PERSON, NEWCOMER, END = (b"H", b"O", b"T", b"L", b"P", b"N", b"E")

Picture = Callable[[str], "bytes | None"]


class Incomplete(Unusable, ValueError):
    """A snapshot that was cut off or is garbage."""


# --- what is told ---


def content_lines(connection: sqlite3.Connection, picture: Picture | None = None) -> Iterator[bytes]:
    """Yield lists and persons, the same bytes on every box that holds the same (but for the order)."""
    for list_id, name, created_ms in records.every_list(connection):
        yield LIST + json.dumps([list_id, name, created_ms]).encode()
    for record in records.every_record(connection):
        yield PERSON + encoded(_whole(connection, record, picture))


def snapshot_lines(connection: sqlite3.Connection, picture: Picture | None) -> Iterator[bytes]:
    """Yield all that another box needs to go on from here. The connection sees one moment meanwhile."""
    total, count = hashlib.sha256(), 0
    for line in itertools.chain(
        [HEAD + json.dumps([VERSION, max(records.position(connection) or 0, 0)]).encode()],
        _lots(ORIGINS, records.every_origin(connection)),
        (TOMBSTONES + b"".join(lot) for lot in records.every_tombstone(connection)),
        content_lines(connection, picture),
        _newcomer_lines(connection),
    ):
        total.update(line)
        count += 1
        yield line
    yield END + json.dumps([count, total.hexdigest()]).encode()


def _lots(kind: bytes, items: Iterable[object]) -> Iterator[bytes]:
    iterator = iter(items)
    while lot := list(itertools.islice(iterator, ITEMS_A_LINE)):
        yield kind + json.dumps(lot).encode()


def _newcomer_lines(connection: sqlite3.Connection) -> Iterator[bytes]:
    for one in records.newcomers_after(connection, 0):
        person_id = records.person_id_of(connection, one.person)
        head = json.dumps([one.sequence, person_id, one.origin, one.pack_id, one.cohort_similarity]).encode()
        yield NEWCOMER + struct.pack("<I", len(head)) + head + one.vector


def _whole(connection: sqlite3.Connection, record: Record, picture: Picture | None) -> Operation:
    room = MOST_BYTES // 2
    templates: list[SharedTemplate] = []
    for known in records.known_templates(connection, record.number):
        name = known.template.picture
        crop = None if name is None or picture is None else picture(name)
        room -= len(crop or b"")
        templates.append(records.shared(known, crop if room >= 0 else None))
    rejected = records.shared_rejections(connection, record.number)
    return Operation(
        Kind.PUT,
        record.person_id,
        origin="",
        serial=0,
        time_ms=0,
        seen=0,
        record=record.columns,
        templates=tuple(sorted(templates, key=lambda one: one.key)),
        rejections=tuple(sorted(rejected, key=lambda one: one.sighting_id)),
        aliases=tuple(records.aliases_of(connection, record.number)),
    )


# --- what is heard ---


class Heard(NamedTuple):
    """A snapshot that is whole, in a file."""

    file: IO[bytes]
    position: int

    def lines(self) -> Iterator[bytes]:
        """Yield its lines."""
        self.file.seek(0)
        while size := self.file.read(4):
            yield self.file.read(struct.unpack("<I", size)[0])

    def persons(self) -> Iterator[Operation]:
        """Yield its persons."""
        for line in self.lines():
            if line[:1] == PERSON:
                yield decoded(line[1:])


def heard(lines: Iterable[bytes], file: IO[bytes]) -> Heard:
    """Put the lines into the file and look whether they are whole. Raises Incomplete."""
    total, count, position, is_whole = hashlib.sha256(), 0, -1, False
    try:
        for line in lines:
            if is_whole:
                raise ValueError("lines behind the end")
            if line[:1] == HEAD:
                version, position = json.loads(line[1:])
                if version != VERSION or count:
                    raise ValueError(f"of version {version}, this program knows {VERSION}")
            if line[:1] == END:
                is_whole = json.loads(line[1:]) == [count, total.hexdigest()]
            else:
                total.update(line)
                count += 1
                file.write(struct.pack("<I", len(line)) + line)
    except (ValueError, TypeError) as error:
        raise _incomplete(str(error)) from error
    if not is_whole or position < 0:
        raise _incomplete("it is cut off, or was changed on the way")
    return Heard(file, position)


def _incomplete(reason: str) -> Incomplete:
    return Incomplete(Mistake("snapshot", reason), message="what another box sent of itself cannot be used")


Alike = Mapping[int, tuple[str, ...]]
"""The places of a snapshot's lines whose persons are so here already, and their ids."""


def alike(connection: sqlite3.Connection, snapshot: Heard) -> Alike:
    """Compare with what the connection sees, which is of one moment: in peace, before a transaction.

    Who is changed here after that is ahead of the snapshot, which then has nothing to say of them either.
    """
    persons: dict[int, tuple[str, ...]] = {}
    for place, line in enumerate(snapshot.lines()):
        if line[:1] == PERSON:
            operation = decoded(line[1:])
            ids = (operation.about, *operation.aliases)
            if _is_so(connection, operation, line[1:]) and not any(records.is_buried(connection, one) for one in ids):
                persons[place] = ids
    return persons


def _is_so(connection: sqlite3.Connection, operation: Operation, rest: bytes) -> bool:
    """Whether nothing is to be written of the person."""
    number = records.number_of(connection, operation.about)
    record = None if number is None else records.record(connection, number)
    return record is not None and encoded(_whole(connection, record, None)) == rest


class Seeding:
    """A snapshot taken in, in one transaction."""

    def __init__(self, transaction: sqlite3.Connection, applying: Applying, capture: Capture, alike: Alike) -> None:
        """`applying`: of the same transaction."""
        self._transaction = transaction
        self._applying = applying
        self._capture = capture
        self._alike = alike
        self._lists: set[str] = set()
        self._persons: set[str] = set()
        self._joined: list[Operation] = []
        """Persons of whom more is known here: that two boxes added one face, and under which ids."""
        self.published = 0
        """What is news to the others."""

    def take_in(self, snapshot: Heard) -> None:
        """Be as the snapshot says, but for what is ahead of it here, and say what it does not know."""
        kinds: dict[bytes, Callable[[bytes], None]] = {
            ORIGINS: self._origins,
            TOMBSTONES: self._tombstones,
            LIST: self._list,
            PERSON: self._person,
        }
        for place, line in enumerate(snapshot.lines()):
            if place in self._alike:
                self._persons.update(self._alike[place])
            elif line[:1] in kinds:
                kinds[line[:1]](line[1:])
        self._transaction.execute(records.DELETE_NEWCOMERS, {"last": 1 << 62})
        for line in snapshot.lines():
            if line[:1] == NEWCOMER:
                self._newcomer(line[1:])
        for operation in self._joined:
            self._join(operation)
        self._erase_the_dead()
        self._say_what_is_only_here()
        outbox.passed(self._transaction, snapshot.position)
        records.set_position(self._transaction, snapshot.position)

    def _origins(self, rest: bytes) -> None:
        for origin, serial in json.loads(rest):
            records.note_serial(self._transaction, str(origin), int(serial))
            outbox.all_came_back(self._transaction, str(origin), int(serial))

    def _tombstones(self, rest: bytes) -> None:
        records.bury_digests(self._transaction, records.parted(rest))

    def _list(self, rest: bytes) -> None:
        list_id, name, created_ms = json.loads(rest)
        record = {"name": name, "created_ms": created_ms}
        self._applying.put_list(Operation(Kind.LIST, str(list_id), "", 0, 0, 0, record=record))
        self._lists.add(str(list_id))

    def _person(self, rest: bytes) -> None:
        operation = decoded(rest)
        self._persons.add(operation.about)
        self._persons.update(operation.aliases)
        if any(records.is_buried(self._transaction, one) for one in (operation.about, *operation.aliases)):
            for one in (operation.about, *operation.aliases):  # erased here, and they have not heard of it
                self._applying.say_erased(one)
            return
        if _is_so(self._transaction, operation, rest):
            return
        if records.is_alias(self._transaction, operation.about):
            self._joined.append(operation)  # once what the snapshot says of the other is in
            return
        number = self._applying.put_person(operation)
        self._applying.put_aliases(number, operation.aliases)
        self._applying.put_content(number, self._exact(number, operation))
        if not outbox.has(self._transaction, operation.subject):
            self._applying.put_rejections(number, operation.rejections)
            if set(records.aliases_of(self._transaction, number)) - set(operation.aliases):
                self._joined.append(operation)

    def _join(self, operation: Operation) -> None:
        """Say that two who are told apart elsewhere are one: whoever is one here stays one."""
        number = records.number_of(self._transaction, operation.about)
        record = None if number is None else records.record(self._transaction, number)
        if number is not None and record is not None:
            self._applying.put_content(number, operation)
            self._say(number)

    def _say(self, number: int) -> None:
        self._applying.say_whole(number)
        self.published += 1

    def _exact(self, number: int, operation: Operation) -> Operation:
        """Return the operation with what is to go, so that the templates are those of the snapshot.

        Of one picture that was sent to two boxes both have the vector, and times of their own.
        """
        if outbox.has(self._transaction, operation.subject):
            return operation
        wanted = {dataclasses.replace(one, picture=None) for one in operation.templates}
        known = {records.shared(one) for one in records.known_templates(self._transaction, number)}
        return operation.with_removed(tuple(sorted(one.key for one in known - wanted)))

    def _newcomer(self, rest: bytes) -> None:
        (size,) = struct.unpack("<I", rest[:4])
        sequence, person_id, origin, pack_id, cohort_similarity = json.loads(rest[4 : 4 + size])
        number = None if person_id is None else records.number_of(self._transaction, person_id)
        if number is not None:
            newcomer = Newcomer(sequence, number, origin, pack_id, rest[4 + size :], cohort_similarity)
            records.note_newcomer(self._transaction, newcomer)

    def _erase_the_dead(self) -> None:
        for list_id, _, _ in list(records.every_list(self._transaction)):
            if records.is_buried(self._transaction, list_id):
                self._applying.erase_list(list_id)
        for _, person_id in list(records.every_id(self._transaction)):
            if records.is_buried(self._transaction, person_id):
                self._applying.erase(person_id)

    def _say_what_is_only_here(self) -> None:
        box = self._capture.outbox
        for list_id, name, created_ms in list(records.every_list(self._transaction)):
            if list_id not in self._lists and not outbox.has(self._transaction, subject_of(list_id, is_list=True)):
                box.write(self._transaction, Kind.LIST, list_id, record={"name": name, "created_ms": created_ms})
                self.published += 1
        for number, person_id in list(records.every_id(self._transaction)):
            record = None if person_id in self._persons else records.record(self._transaction, number)
            if record is not None and not self._is_said(record):
                self._say(number)

    def _is_said(self, record: Record) -> bool:
        """Whether the outbox says all of the person already."""
        said = [decoded(body) for body in outbox.bodies(self._transaction, subject_of(record.person_id))]
        told = {one.key for operation in said for one in operation.templates}
        known = {records.shared(one).key for one in records.known_templates(self._transaction, record.number)}
        return any(operation.record for operation in said) and known <= told
