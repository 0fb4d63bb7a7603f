"""The gallery as one of a fleet's: what it says, what it takes from the stream, and how it becomes like the others.

A box commits to its own database first. What it changed waits in the outbox until the stream has it, and comes back
from there like everybody's; operations.py says what travels, applying.py what it does, seeding.py what a new box takes.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edge.errors import Mistake
from edge.gallery import lists, outbox, outgoing, records, rejections
from edge.gallery.applying import NEWCOMERS_KEPT, Applying
from edge.gallery.capture import Capture
from edge.gallery.core import Core
from edge.gallery.database import Database
from edge.gallery.operations import Operation, decoded
from edge.gallery.outbox import Outgoing
from edge.gallery.reembedding import reading
from edge.gallery.seeding import PERSON, Heard, Incomplete, Seeding, alike, content_lines, heard, snapshot_lines
from edge.types import PersonList

log = logging.getLogger(__name__)

__all__ = ["Digest", "Incomplete", "Outgoing", "Replica", "join", "leave"]

DIGEST_BITS = 256

FOLLOWED = (records.DELETE_ALL_NEWCOMERS, records.DELETE_ALL_LEFTOVERS)
"""What goes by places in a stream, and is of no meaning in another."""

FEW_PERSONS = 200
"""Followed by an index one by one, 0.1 ms each; for more the index is loaded anew."""


@dataclass(frozen=True)
class Digest:
    """What a box holds at a position of the stream."""

    position: int
    persons: int
    digest: str
    """64 hex characters; equal on two boxes at the same position exactly if both hold the same."""


class Replica(Core):
    """The gallery's part that is in a fleet. Of a box that is in none, only `is_in_fleet` may be asked."""

    @property
    def is_in_fleet(self) -> bool:
        """Whether this box has joined one."""
        return self.database.capture is not None

    @property
    def _capture(self) -> Capture:
        assert self.database.capture is not None, "a box in a fleet"
        return self.database.capture

    # --- what is said ---

    @property
    def origin(self) -> str:
        """Who writes here since the start: a random name, new with every start."""
        return self._capture.outbox.origin

    def share_pictures(self) -> None:
        """Let the crops of templates travel too."""
        self._capture.picture = self.pictures.read

    def when_pending(self, tell: Callable[[], None]) -> None:
        """Have `tell` called (in the thread that committed: it returns at once) when there is something to publish."""
        self.database.when_captured = tell

    def pending(self, limit: int, after: int = 0) -> list[Outgoing]:
        """Return the oldest operations of greater numbers that the stream is not known to have, in order."""
        return outbox.unacknowledged(self.database.read(), limit, after)

    def acknowledge(self, sequences: Mapping[int, int]) -> None:
        """Note where the stream has these operations, by their numbers. Raises StorageFull.

        Not needed of an operation that comes back from the stream, as nearly all do.
        """
        with self.database.write(essential=True, replicates=False) as transaction:
            for number, sequence in sequences.items():
                outbox.acknowledge(transaction, number, sequence)

    def outbox_length(self) -> int:
        """Return how many operations are not acknowledged."""
        return outbox.unacknowledged_count(self.database.read())

    @property
    def position(self) -> int | None:
        """The place in the stream of what was last applied; None: joined, and not seeded yet."""
        found = records.position(self.database.read())
        return None if found == records.UNSEEDED else found

    # --- what is taken ---

    def apply(self, messages: Sequence[tuple[int, bytes]]) -> None:
        """Apply messages (place in the stream, body) in rising order, in one transaction with the position.

        Those at or before the position are skipped, and so is a body that is no operation, which is logged. Raises
        StorageFull, ValueError before the box is seeded.
        """
        read = [(sequence, operation) for sequence, body in messages if (operation := _read(sequence, body))]
        with self._saved_pictures(operation for _, operation in read) as names:
            with self._lock:
                position = self._position()
                last = max((sequence for sequence, _ in messages), default=0)
                if last <= position:
                    return
                with self.database.write(essential=True, replicates=False) as transaction:
                    applying = Applying(transaction, self._capture, names)
                    for sequence, operation in read:
                        if sequence > position:
                            applying.apply(sequence, operation)
                    outbox.passed(transaction, last)
                    records.set_position(transaction, last)
                    records.forget_newcomers(transaction, last - NEWCOMERS_KEPT)
                self._follow_rows(applying)
            self._finish(applying)

    def begin_anew(self) -> None:
        """Follow a new stream from its beginning: the one that was followed is no more."""
        with self._lock, self.database.write(essential=True, replicates=False) as transaction:
            for statement in (outbox.UPDATE_UNACKNOWLEDGED, *FOLLOWED):
                transaction.execute(statement)
            if records.position(transaction) != records.UNSEEDED:
                records.set_position(transaction, 0)

    def has_leftovers(self, position: int) -> bool:
        """Whether something was erased up to there of which the stream may hold more."""
        return records.has_leftovers(self.database.read(), position)

    def cleared(self, position: int) -> None:
        """Note that the stream holds nothing more of what it held up to there. Raises StorageFull."""
        with self.database.write(essential=True, replicates=False) as transaction:
            records.forget_leftovers(transaction, position)

    def _position(self) -> int:
        position = self.position
        if position is None:
            raise ValueError("a box that has joined is seeded before it follows the stream")
        return position

    @contextmanager
    def _saved_pictures(self, operations: Iterable[Operation]) -> Iterator[dict[tuple[str, str], str]]:
        """Put the crops that came along on disk; those that no row names in the end go again."""
        names: dict[tuple[str, str], str] = {}
        try:
            for operation in operations:
                crops = {one.key: one.picture for one in operation.templates if one.picture is not None}
                saved = self.pictures.save(list(crops.values()))
                names.update({(operation.about, key): name for key, name in zip(crops, saved, strict=True)})
            yield names
        finally:
            connection = self.database.read()
            self.pictures.delete([name for name in names.values() if not records.is_picture(connection, name)])

    def _follow_rows(self, applying: Applying) -> None:
        """Bring the indexes up to date with the rows; under the lock."""
        connection = self.database.read()
        for list_number in applying.lists_gone:
            self._indexes.drop(list_number)
        if len(applying.touched) + len(applying.gone) + len(applying.moved) > FEW_PERSONS:
            self._indexes.load_anew()
        else:
            for number, list_number in applying.gone.items():
                if list_number not in applying.lists_gone:
                    with self._indexes.following(list_number) as index:
                        index.remove_persons([number])
            for number, before in applying.moved.items():
                self._indexes.move(number, before, records.list_of(connection, number) or before)
            for number in applying.touched:
                self._indexes.reload(records.list_of(connection, number) or 0, number)
        self._indexes.forget([*applying.renumbered, *applying.removed.templates])
        for number in applying.touched:
            if rejections.negatives(connection, number):
                self._negatives.add(number)
        self._negatives.discard(applying.gone)

    def _finish(self, applying: Applying) -> None:
        """Remove what is not needed any more, off the lock; tell what there is to say."""
        self.pictures.delete(applying.removed.pictures)
        if applying.gone_ids:
            outgoing.forget(self.database.path.parent, applying.gone_ids)
        if applying.erases:
            needles = [*(one.encode() for one in applying.gone_ids), *applying.removed.traces]
            self.database.erase_traces(needles, are_all=applying.removed.are_all and not applying.was_changed)
        if applying.spoke:
            self.database.when_captured()

    # --- whether all are alike, and what is done where they are not ---

    def digest(self, known: Digest | None = None) -> Digest | None:
        """Return what is held; None while own operations are on their way: it compares with nothing then.

        `known`: what was returned before, and nothing else than operations has changed since.
        """
        with self._moment() as connection:
            position = records.position(connection)
            if position is None or position == records.UNSEEDED or not outbox.is_empty(connection):
                return None
            if known is not None and known.position == position:
                return known
            total, count = 0, 0
            for line in content_lines(connection):
                total += int.from_bytes(hashlib.sha256(line).digest(), "big")
                count += line[:1] == PERSON
            return Digest(position, count, f"{total % (1 << DIGEST_BITS):064x}")

    @contextmanager
    def _moment(self) -> Iterator[sqlite3.Connection]:
        """Yield this thread's connection, which sees the database as it is now until the `with` ends."""
        connection = self.database.read()
        connection.execute("BEGIN")
        try:
            yield connection
        finally:
            connection.execute("ROLLBACK")

    @contextmanager
    def snapshot(self) -> Iterator[Iterator[bytes]]:
        """Give lines (each under 1,000,000 bytes) that `seed` understands, all of one moment. In one thread."""
        with self._moment() as connection:
            yield snapshot_lines(connection, self._capture.picture)

    def seed(self, lines: Iterable[bytes]) -> int:
        """Be as another box's snapshot says, but for own operations on their way; return the position.

        For a box that joined, one that was away for longer than the stream keeps, and one whose digest differs. Who is
        only here stays, and is published. All of it or, if this raises, nothing: Incomplete (lines that are cut off,
        garbage, or older than what is here), StorageFull.
        """
        with tempfile.TemporaryFile(dir=self.database.path.parent) as file:  # has no name: it goes with the process
            snapshot = heard(lines, file)
            with self._moment() as connection:
                known = alike(connection, snapshot)
            with self._saved_pictures(snapshot.persons()) as names:
                with self._lock:
                    self._check_not_older(snapshot)
                    with self.database.write(essential=True, replicates=False) as transaction:
                        applying = Applying(transaction, self._capture, names)
                        seeding = Seeding(transaction, applying, self._capture, known)
                        seeding.take_in(snapshot)
                    self._follow_rows(applying)
                self._finish(applying)
        if seeding.published:
            log.info("%d persons and lists that only this box knew are published", seeding.published)
            self.database.when_captured()
        return snapshot.position

    def _check_not_older(self, snapshot: Heard) -> None:
        position = self.position
        if position is not None and snapshot.position < position:
            reason = f"it is of position {snapshot.position} of the stream, this box is at {position}"
            raise Incomplete(Mistake("snapshot", reason), message="what another box sent of itself is too old")


def _read(sequence: int, body: bytes) -> Operation | None:
    try:
        return decoded(body)
    except ValueError as error:
        log.error("operation %d of the fleet is left out: %s", sequence, error)
        return None


# --- joining and leaving, while the service does not run ---


def join(folder: Path, main_list_id: str | None, main_list_name: str) -> str:
    """Let the gallery of that folder be in a fleet; return the id of its main list.

    `main_list_id`: that of the fleet's main list, which becomes this box's; None: this box is the first, and the fleet
    begins with what it holds. `main_list_name` counts where the folder has no gallery yet. Raises GalleryUnusable,
    while the service runs for one.
    """
    database = Database(folder)
    try:
        with database.write(essential=True, replicates=False) as transaction:
            for statement in (outbox.DELETE_ALL, records.DELETE_ORIGINS, *FOLLOWED):
                transaction.execute(statement)
            if lists.main_list(transaction) is None:
                created_ms = time.time_ns() // 1_000_000
                made = PersonList(main_list_id or str(uuid.uuid1()), main_list_name, created_ms, is_main=True, count=0)
                lists.insert_list(transaction, made)
            elif main_list_id is not None:
                transaction.execute(records.UPDATE_MAIN_LIST, {"list_id": main_list_id})
            records.set_position(transaction, 0 if main_list_id is None else records.UNSEEDED)
            found = lists.main_list(transaction)
        assert found is not None, "made a moment ago"
        return found.list_id
    finally:
        database.close()


def main_list_id(folder: Path) -> str | None:
    """Return the id of the main list of that folder's gallery; None where there is none."""
    try:
        with reading(folder) as connection:
            found = lists.main_list(connection)
    except (FileNotFoundError, sqlite3.Error):  # what is wrong with the file is said by who opens it
        return None
    return None if found is None else found.list_id


def leave(folder: Path) -> int:
    """Let the gallery of that folder be in no fleet; return how many operations nobody else will ever hear of.

    Raises GalleryUnusable, while the service runs for one.
    """
    database = Database(folder)
    try:
        unheard = outbox.unacknowledged_count(database.read())
        with database.write(essential=True, replicates=False) as transaction:
            for statement in (outbox.DELETE_ALL, records.DELETE_POSITION, *FOLLOWED):
                transaction.execute(statement)
        return unheard
    finally:
        database.close()
