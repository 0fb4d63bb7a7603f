"""What an operation of the stream does to the rows here, the same on every box.

The stream's order decides. What a box has changed itself and what has not come back to it yet will come later in the
stream than anything that does come, so it stands: an operation changes no record that is ahead of it. Being erased is
for ever: nothing that is said of somebody erased, before or after, brings them back.

Two boxes that add one face in the same moment, neither knowing of the other, add two persons. The one that is earlier
in the stream stays; the later one's templates join it, and its id becomes another id of it. Whether the faces are one
is judged by the threshold that the later box decided by, in whole numbers, so that no processor's rounding tells it
otherwise.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping, Sequence

import numpy as np

from edge.gallery import lists, outbox, persons, records, rejections
from edge.gallery.capture import Capture
from edge.gallery.index import TEMPLATES_PER_PERSON
from edge.gallery.operations import MAIN_LIST, Kind, Operation, SharedRejection, SharedTemplate, subject_of
from edge.gallery.persons import Removed
from edge.gallery.records import Newcomer
from edge.gallery.rejections import Negative

log = logging.getLogger(__name__)

NEWCOMERS_KEPT = 10_000
"""Operations for which it is remembered who was added: a box that was away for longer may add somebody a second time,
whom people then merge."""

STEPS = 1 << 15
"""A component of a unit vector is taken in so many steps: the product of two is wrong by less than 0.001."""


class Applying:
    """Operations applied in one transaction, and what indexes, pictures and files have to follow once it is done."""

    def __init__(
        self, transaction: sqlite3.Connection, capture: Capture, pictures: Mapping[tuple[str, str], str]
    ) -> None:
        """`capture`: for what this box has to say to it; `pictures`: saved crops, by person id and template key."""
        self._transaction = transaction
        self._capture = capture
        self._pictures = pictures
        self.touched: dict[int, None] = {}
        """Numbers of persons whose templates or rejections changed, or who are new."""
        self.moved: dict[int, int] = {}
        """Numbers of persons who changed lists, and the number of the list that they were in before all this."""
        self.gone: dict[int, int] = {}
        """Numbers of persons who are gone, and of the list that they were in."""
        self.lists_gone: list[int] = []
        self.gone_ids: list[str] = []
        self.was_changed = False
        """Whether somebody who is gone was changed before: what they were is unknown."""
        self.removed = Removed()
        self.renumbered: list[int] = []
        """Ids of templates whose rows were written anew under other ids."""
        self.erases = False
        """Whether somebody or something was erased, so that no trace of it may be left in the file."""
        self.spoke = False
        """Whether there is something new in the outbox."""

    def apply(self, sequence: int, operation: Operation) -> None:
        """Apply the operation that is at that place of the stream, once."""
        is_own = outbox.came_back(self._transaction, operation.origin, operation.serial)
        if records.serial_of(self._transaction, operation.origin) >= operation.serial:
            return
        records.note_serial(self._transaction, operation.origin, operation.serial)
        if operation.is_last:
            records.note_leftover(self._transaction, sequence)
        if operation.kind is Kind.PUT:
            self._put(sequence, operation, is_own=is_own)
        elif operation.kind is Kind.ERASE:
            self.erase(operation.about, operation.aliases)
        elif operation.kind is Kind.LIST:
            self.put_list(operation)
        else:
            self.erase_list(operation.about)

    # --- a person is so ---

    def _put(self, sequence: int, operation: Operation, *, is_own: bool) -> None:
        number = records.number_of(self._transaction, operation.about)
        list_number = self._list_of(operation, number)
        if records.is_buried(self._transaction, operation.about):
            self._put_of_the_dead(operation, list_number, is_own=is_own)
            return
        if list_number is None:  # the list was erased with everybody in it, and they are on their way into it
            self.erase(operation.about)
            return
        other = None if operation.newness is None else self._same(sequence, operation, list_number, number)
        if other is not None:
            self._join(operation, other, number)
            number = other
        else:
            number = self._put_record(operation, number, list_number)
            if number is not None and not is_own:
                is_more_known = self._fuse(number, operation)
                self.put_content(number, operation)
                self.put_aliases(number, operation.aliases)
                if is_more_known:
                    self.say_whole(number)
        if number is not None and operation.newness is not None and operation.templates:
            first = operation.templates[0]
            newcomer = Newcomer(
                sequence, number, operation.origin, first.pack_id, first.vector, first.cohort_similarity
            )
            records.note_newcomer(self._transaction, newcomer)

    def _put_of_the_dead(self, operation: Operation, list_number: int | None, *, is_own: bool) -> None:
        """Somebody was erased by one box while another changed them, or by this one before it heard of the other."""
        if operation.newness is not None and list_number is not None:
            other = self._same(1 << 62, operation, list_number, None)
            if other is not None:  # erased here, and known to others as another id of this person: erased as that then
                records.add_aliases(self._transaction, [operation.about], other)
        if is_own:  # what it carried is in the stream, behind the erasure
            self.say_erased(operation.about)

    def _list_of(self, operation: Operation, number: int | None) -> int | None:
        """Return the number of the list that the person is to be in; None: it was erased."""
        if operation.record is None:
            return records.list_of(self._transaction, number) if number is not None else self._main()
        list_id = str(operation.record.get("list", MAIN_LIST))
        found = records.list_number(self._transaction, list_id)
        if found is None and not records.is_buried(self._transaction, list_id):
            return self._main()
        return found

    def _main(self) -> int:
        return records.main_number(self._transaction)

    def _put_record(self, operation: Operation, number: int | None, list_number: int) -> int | None:
        """Write the record; return the person's number, None where there is no record and nobody of that id."""
        if operation.record is None:
            return number
        if number is None:
            number = records.insert_person(self._transaction, operation.about, list_number, operation.record)
            self.touched[number] = None
            return number
        if not self._is_ahead(number):
            records.update_person(self._transaction, number, operation.record)
            self.move(number, list_number)
        return number

    def put_person(self, operation: Operation) -> int:
        """Write the record that another box has; return the person's number."""
        number = records.number_of(self._transaction, operation.about)
        list_number = self._list_of(operation, number)
        number = self._put_record(operation, number, self._main() if list_number is None else list_number)
        assert number is not None, "a snapshot has everybody's record"
        return number

    def _is_ahead(self, number: int) -> bool:
        """Whether this box has said what the person's record is, and the stream has not come to that yet."""
        person_id = records.person_id_of(self._transaction, number)
        return person_id is not None and outbox.has_record(self._transaction, subject_of(person_id))

    def move(self, number: int, list_number: int) -> None:
        """Let the person be in that list."""
        before = records.list_of(self._transaction, number)
        if before is not None and before != list_number:
            persons.move(self._transaction, number, list_number)
            self.moved.setdefault(number, before)

    def put_content(self, number: int, operation: Operation) -> None:
        """Write what is added to and taken from the person."""
        known = {records.shared(one).key: one for one in records.known_templates(self._transaction, number)}
        for key in operation.removed:
            if key in known:
                self.removed += persons.delete_template(self._transaction, known.pop(key))
                self.erases = self.erases or not operation.templates
        for template in operation.templates:
            if template.key not in known:
                self._insert(number, operation.about, template)
        for sighting_id in operation.undone:
            rejections.delete(self._transaction, number, sighting_id)
        for rejection in operation.rejections:
            records.insert_rejection(self._transaction, number, rejection)
        self._trim(number)
        self.touched[number] = None

    def _insert(self, number: int, person_id: str, template: SharedTemplate) -> None:
        picture = self._pictures.get((person_id, template.key))
        persons.insert_template(self._transaction, number, records.stored(template, picture))

    def _trim(self, number: int) -> None:
        """Keep as many templates of a pack as a person may have: boxes that add at once may have added more."""
        known = records.known_templates(self._transaction, number)
        for pack_id in sorted({one.template.pack_id for one in known}):
            ranked = sorted(
                (one for one in known if one.template.pack_id == pack_id),
                key=lambda one: (-one.template.quality, records.shared(one).key),
            )
            for one in ranked[TEMPLATES_PER_PERSON:]:
                self.removed += persons.delete_template(self._transaction, one)

    # --- two who are one ---

    def _same(self, sequence: int, operation: Operation, list_number: int, number: int | None) -> int | None:
        """Return who was added as the same face by a box that the operation's did not know of yet."""
        newness = operation.newness
        if newness is None or not operation.templates:
            return None
        face = operation.templates[0]
        best: tuple[float, int] | None = None
        for one in records.newcomers_after(self._transaction, operation.seen):
            if one.sequence >= sequence or one.person == number or one.origin == operation.origin:
                continue
            if one.pack_id != face.pack_id or len(one.vector) != len(face.vector):
                continue
            if records.list_of(self._transaction, one.person) != list_number:
                continue
            common = newness.cohort_weight * (face.cohort_similarity + one.cohort_similarity)
            similarity = cosine(face.vector, one.vector) - common
            if similarity >= newness.same_from and (best is None or similarity > best[0]):
                best = (similarity, one.person)
        return None if best is None else best[1]

    def _join(self, operation: Operation, other: int, number: int | None) -> None:
        """Let what the operation adds be the other person's, and whoever is here for it be that person."""
        if number is not None:
            self.fuse_into(other, number)
        records.add_aliases(self._transaction, [operation.about], other)
        self.put_content(other, operation)

    def put_aliases(self, number: int, aliases: Sequence[str]) -> None:
        """Let these be other ids of the person; who is here under one of them is that person."""
        for alias in aliases:
            other = records.number_of(self._transaction, alias)
            if other is not None and other != number:
                self.fuse_into(number, other)
        records.add_aliases(self._transaction, aliases, number)

    def fuse_into(self, number: int, former: int) -> None:
        """Give the person all that another has, and let that one be gone."""
        known = records.known_templates(self._transaction, former)
        mine = {records.shared(one).key for one in records.known_templates(self._transaction, number)}
        for one in known:  # a template's checksum is over its person: it is written anew
            removed = persons.delete_template(self._transaction, one)
            if records.shared(one).key in mine:
                self.removed += removed
            else:
                self.renumbered += removed.templates
                persons.insert_template(self._transaction, number, one.template)
        self._take_over(number, former)

    def _fuse(self, number: int, operation: Operation) -> bool:
        """Let persons be gone who turned out to be this one.

        Return whether more was known of them here than where that was said: photos and ids that came there too late.
        """
        told, is_more_known = {one.key for one in operation.templates}, False
        for former_id in operation.former:
            former = records.number_of(self._transaction, former_id)
            if former is not None and former != number:
                keys = {records.shared(one).key for one in records.known_templates(self._transaction, former)}
                is_more_known |= not keys <= told or bool(self._aliases(former))
                self.fuse_into(number, former)
        records.bury(self._transaction, [one for one in operation.former if one not in self._aliases(number)])
        return is_more_known

    def _aliases(self, number: int) -> list[str]:
        return records.aliases_of(self._transaction, number)

    def _take_over(self, number: int, former: int) -> None:
        own, theirs = (rejections.negatives(self._transaction, one) for one in (number, former))
        kept: dict[str, Negative] = {}
        for negative in (*own, *theirs):
            kept.setdefault(negative.sighting_id, negative)
        persons.take_over_sightings(self._transaction, number, former)
        rejections.take_over(self._transaction, number, former, list(kept.values()))
        records.take_over(self._transaction, number, former)
        self._delete(former)
        self.touched[number] = None

    # --- gone ---

    def _delete(self, number: int) -> None:
        record, list_number = records.record(self._transaction, number), records.list_of(self._transaction, number)
        assert record is not None and list_number is not None, "whoever is deleted is there"
        self.was_changed |= record.columns["created_ms"] != record.columns["updated_ms"]
        self.removed += persons.delete(self._transaction, number)
        self.gone[number] = self.moved.pop(number, list_number)
        self.gone_ids.append(record.person_id)
        self.touched.pop(number, None)

    def erase(self, person_id: str, known_ids: Sequence[str] = ()) -> None:
        """Let the person be gone for ever, and say so of ids of theirs that whoever erased them did not know of.

        Where those were added a moment before, they may still be somebody else to that box.
        """
        number = records.number_of(self._transaction, person_id)
        records.bury(self._transaction, [person_id])
        if number is None:
            return
        name = records.person_id_of(self._transaction, number)
        ids = [one for one in (name, *self._aliases(number)) if one is not None]
        news = [one for one in ids if one not in known_ids and not records.is_buried(self._transaction, one)]
        records.bury(self._transaction, ids)
        self._delete(number)
        self.erases = True
        for one in news:
            self.say_erased(one)

    def say_erased(self, person_id: str) -> None:
        """Say once more that the person is erased: the stream has something of them that is later, or lacks it."""
        self._capture.outbox.write(self._transaction, Kind.ERASE, person_id)
        self.spoke = True

    def say_whole(self, number: int) -> None:
        """Say all that is known of the person here: others may lack some of it."""
        record = records.record(self._transaction, number)
        assert record is not None, "whoever is spoken of is there"
        known = records.known_templates(self._transaction, number)
        rejected = records.shared_rejections(self._transaction, number)
        aliases = tuple(self._aliases(number))
        self._capture.write_whole(self._transaction, record, known, rejected, aliases=aliases)
        self.spoke = True

    # --- lists ---

    def put_list(self, operation: Operation) -> None:
        """Make or rename a list. A name that another list has already gets the list's id behind it."""
        list_id = operation.about
        if records.is_buried(self._transaction, list_id) or outbox.has(self._transaction, operation.subject):
            return
        content = operation.record or {}
        number = records.list_number(self._transaction, list_id)
        name = self._free_name(str(content.get("name", list_id)), list_id)
        if number is None:
            columns = {"list_id": list_id, "name": name, "created_ms": int(content.get("created_ms", 0))}
            self._transaction.execute(records.INSERT_SHARED_LIST, columns)
        else:
            self._transaction.execute(records.UPDATE_NAME_OF_LIST, {"number": number, "name": name})

    def _free_name(self, name: str, list_id: str) -> str:
        """Return the name, or what becomes of it; a list of this box that the stream comes to later makes way."""
        row = self._transaction.execute(records.SELECT_LIST_OF_NAME, {"name": name}).fetchone()
        if row is None or row[1] == list_id:
            return name
        number, holder, is_main = row
        if not is_main and outbox.has(self._transaction, subject_of(holder, is_list=True)):
            columns = {"number": number, "name": _with_id(name, holder)}
            self._transaction.execute(records.UPDATE_NAME_OF_LIST, columns)
            return name
        return _with_id(name, list_id)

    def erase_list(self, list_id: str) -> None:
        """Let the list be gone with everybody in it, for ever."""
        records.bury(self._transaction, [list_id])
        number = records.list_number(self._transaction, list_id)
        if number is None:
            return
        for person, person_id in self._transaction.execute(records.SELECT_PERSONS_OF_LIST, {"list": number}).fetchall():
            records.bury(self._transaction, [person_id, *self._aliases(person)])
            self.gone_ids.append(person_id)
            self.touched.pop(person, None)
            before = self.moved.pop(person, None)
            if before is not None:
                self.gone[person] = before
        _, _, removed = lists.delete_list(self._transaction, list_id)
        self.removed += removed
        self.lists_gone.append(number)
        self.erases = True

    def put_rejections(self, number: int, negatives: Sequence[SharedRejection]) -> None:
        """Let exactly these be what is not the person."""
        wanted = {one.sighting_id for one in negatives}
        for one in rejections.negatives(self._transaction, number):
            if one.sighting_id not in wanted:
                rejections.delete(self._transaction, number, one.sighting_id)
        for rejection in negatives:
            records.insert_rejection(self._transaction, number, rejection)
        self.touched[number] = None


def cosine(first: bytes, second: bytes) -> float:
    """Return the cosine of two unit vectors (little-endian float32), the same on every processor."""
    a, b = (np.rint(np.frombuffer(one, "<f4").astype(np.float64) * STEPS).astype(np.int64) for one in (first, second))
    return int((a * b).sum()) / (STEPS * STEPS)


def _with_id(name: str, list_id: str) -> str:
    return f"{name} ({list_id[:8]})"
