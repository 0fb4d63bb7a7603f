"""Persons, one by one: look up, page, change, move, give more templates, erase."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Mapping, Sequence

from edge.errors import Conflict, Mistake
from edge.gallery import lists, outgoing, persons, records, rejections
from edge.gallery.core import Core
from edge.gallery.fusion import Fusion, fused
from edge.gallery.paging import page
from edge.gallery.persons import KnownTemplate, Removed
from edge.gallery.protocol import PAGE, PersonPage
from edge.gallery.rejections import Negative
from edge.types import Person, StoredTemplate, Template

Numbered = tuple[int, Person]


class Roster(Core):
    """The gallery's part that knows persons."""

    # --- reading ---

    def person(self, list_id: str, person_id: str) -> Person:
        """Return the record. Raises ListNotFound, ItemNotFound."""
        connection = self.database.read()
        return persons.the_person(connection, lists.the_list(connection, list_id)[0], list_id, person_id)[1]

    def persons(self, list_id: str, cursor: str | None = None, limit: int = PAGE) -> PersonPage:
        """Return a page of the list's persons. Raises ListNotFound, InvalidSchema."""
        connection = self.database.read()
        list_number, _ = lists.the_list(connection, list_id)
        return page(lambda number, count: persons.persons_after(connection, list_number, number, count), cursor, limit)

    def templates_of(self, person_id: str) -> tuple[StoredTemplate, ...]:
        """Return the person's templates, of whatever pack, the best first; damaged ones are left out."""
        known = persons.known_templates(self.database.read(), person_id)
        return tuple(one.template for one in sorted(known, key=lambda one: -one.template.quality))

    def picture(self, name: str) -> bytes | None:
        """Return a stored picture of a person or a sighting, None if there is none of that name."""
        return self.pictures.read(name)

    # --- changing ---

    def update_person(
        self,
        list_id: str,
        person_id: str,
        *,
        fields: Sequence[str] | None = None,
        drop_picture: bool = False,
        new_list_id: str | None = None,
    ) -> Person:
        """Change what is given, in one step, and return the record as it is then.

        `fields` take the place of all there were. `drop_picture` erases the person's pictures (those of their
        sightings stay). `new_list_id` moves the person, but not their sightings. Raises ListNotFound (of `list_id` or
        `new_list_id`, as the mistake says), ItemNotFound, StorageFull.
        """
        with self._lock:
            connection = self.database.read()
            list_number, _ = lists.the_list(connection, list_id)
            number, person = persons.the_person(connection, list_number, list_id, person_id)
            new_list = list_number if new_list_id is None else lists.the_list(connection, new_list_id, "new_list_id")[0]
            removed = Removed()
            erases = drop_picture and fields is None and new_list == list_number
            with self.database.write(essential=erases) as transaction:
                persons.update(transaction, number, self._changed(person, fields))
                if drop_picture:
                    removed = persons.drop_pictures(transaction, number)
                if new_list != list_number:
                    persons.move(transaction, number, new_list)
            if new_list != list_number:
                self._indexes.move(number, list_number, new_list)
            record = _by_number(connection, number)
            self._clean_up(removed)
        if drop_picture:
            self.database.erase_traces(removed.traces, are_all=True)
        return record

    def add_templates(
        self,
        list_id: str,
        person_id: str,
        templates: Sequence[Template],
        *,
        replace_person_id: str | None = None,
        fields: Sequence[str] | None = None,
    ) -> Person:
        """Add to what a person is recognised by, and return their record as it is then.

        At most 20 templates are kept, those that differ most (see diversity.py), none of them twice.
        `replace_person_id` is a person of the same list who turned out to be this one: their templates come into the
        same choice, their sightings and rejections become this person's (see rejections.fused), and they are deleted,
        fields and all. `fields`, where given, take the place of this person's.

        Raises ListNotFound, ItemNotFound (either person), PackMismatch, Conflict (a person fused with themselves),
        StorageFull.
        """
        self._check_fusion(list_id, person_id, templates, replace_person_id)
        new = self._saved(templates)
        unused = {one.picture for one in new if one.picture is not None}
        try:
            with self._lock:
                connection = self.database.read()
                list_number, _ = lists.the_list(connection, list_id)
                number, person = persons.the_person(connection, list_number, list_id, person_id)
                former = _the_former(connection, list_number, list_id, replace_person_id)
                others = [known for _, one in former for known in persons.known_templates(connection, one.person_id)]
                own = persons.known_templates(connection, person_id)
                former_numbers = [one for one, _ in former]
                if number in former_numbers:
                    raise Conflict(Mistake("replace_person_id", "another id of the same person"))
                negatives = {one: self._fused_negatives((number, own), (one, others)) for one in former_numbers}
                if any(negatives.values()):
                    self._negatives.add(number)
                choice = fused(own, others, new)
                removed = self._write_fusion(number, self._changed(person, fields), negatives, choice)
                self._negatives.discard(former_numbers)
                unused -= {template.picture for template in choice.added if template.picture is not None}
                self._indexes.reload(list_number, number, instead_of=former_numbers)
                record = _by_number(connection, number)
                self._clean_up(removed)
        finally:
            self.pictures.delete(unused)
        self._erase(removed, [one for _, one in former])
        return record

    def _check_fusion(
        self, list_id: str, person_id: str, templates: Sequence[Template], replace_person_id: str | None
    ) -> None:
        """Refuse what can be refused before anything is put on disk."""
        self.database.space.check()
        for template in templates:
            self._check_template(template)
        if replace_person_id == person_id:
            raise Conflict(Mistake("replace_person_id", "a person cannot be fused with themselves"))
        self.person(list_id, person_id)

    def _saved(self, templates: Sequence[Template]) -> list[StoredTemplate]:
        """Put the templates' pictures on disk, off the lock; return the templates in order, to be written as rows."""
        names = iter(self.pictures.save([one.picture for one in templates if one.picture is not None]))
        now_ms = self._clock()
        return [persons.stored(one, None if one.picture is None else next(names), now_ms) for one in templates]

    def _write_fusion(
        self, number: int, person: Person, former: Mapping[int, Sequence[Negative]], choice: Fusion
    ) -> Removed:
        """Write the choice and the record in one transaction; return what is gone for good.

        `former`: who goes, and what is not the person then.
        """
        removed, renumbered = Removed(), Removed()
        with self.database.write() as transaction:
            for known in choice.dropped:
                removed += persons.delete_template(transaction, known)
            for known in choice.moved:  # a template's checksum is over its person: it is written anew
                renumbered += persons.delete_template(transaction, known)
            for one, negatives in former.items():
                persons.take_over_sightings(transaction, number, one)
                records.take_over(transaction, number, one)
                if self.database.capture is not None:
                    self.database.capture.note_fusion(number, one)
                rejections.take_over(transaction, number, one, negatives)
                removed += persons.delete(transaction, one)
            for template in (*(known.template for known in choice.moved), *choice.added):
                persons.insert_template(transaction, number, template)
            persons.update(transaction, number, person)
        self._indexes.forget(renumbered.templates)
        return removed

    def _fused_negatives(
        self, own: tuple[int, Sequence[KnownTemplate]], other: tuple[int, Sequence[KnownTemplate]]
    ) -> list[Negative]:
        """Return what is not the one person that these two (numbers and templates) are."""
        connection = self.database.read()
        mine, theirs = (rejections.negatives(connection, number) for number, _ in (own, other))
        if not mine and not theirs:
            return []
        return rejections.fused((mine, own[1]), (theirs, other[1]), self._cohort_weight)

    def _changed(self, person: Person, fields: Sequence[str] | None) -> Person:
        return dataclasses.replace(
            person,
            fields=person.fields if fields is None else tuple(fields),
            updated_ms=max(self._clock(), person.created_ms + 1),  # later, even where the clock was set back
        )

    def _new_person(self, list_id: str, fields: Sequence[str], *, group_id: str | None) -> Person:
        """Return the record of somebody who was not added by a frame: no pose, no features, no detector's score."""
        now_ms = self._clock()
        return Person(
            person_id=self._identifiers.new(),
            list_id=list_id,
            group_id=group_id,
            source_id=None,
            created_ms=now_ms,
            updated_ms=now_ms,
            fields=tuple(fields),
            features=(),
            pose=None,
            score=None,
            picture=None,
        )

    def _record(self, number: int) -> Person:
        """Return the record of that number, which was written a moment ago, under the lock."""
        return _by_number(self.database.read(), number)

    # --- erasing ---

    def delete_persons(self, list_id: str, person_ids: Sequence[str]) -> int:
        """Erase persons with their templates, pictures and sightings; return how many of the ids were persons.

        When this returns, their bytes are in no file of the data folder. Sightings that are still waiting to be
        written are dropped by the history, which looks the person up. Raises ListNotFound, StorageFull.
        """
        with self._lock:
            connection = self.database.read()
            list_number, _ = lists.the_list(connection, list_id)
            wanted = (persons.find(connection, list_number, person_id) for person_id in dict.fromkeys(person_ids))
            found = list({one[0]: one for one in wanted if one is not None}.values())
            if not found:
                return 0
            removed = Removed()
            with self.database.write(essential=True) as transaction:
                for number, _ in found:
                    removed += persons.delete(transaction, number)
            with self._indexes.following(list_number) as index:
                index.remove_persons([number for number, _ in found])
            self._clean_up(removed)
        self._erase(removed, [person for _, person in found])
        return len(found)

    def _erase(self, removed: Removed, gone: Sequence[Person]) -> None:
        """Make sure that nothing of what was removed is left in the file."""
        if not gone and not removed.traces:
            return
        outgoing.forget(self.database.path.parent, [person.person_id for person in gone])
        needles = [*(person.person_id.encode() for person in gone), *removed.traces]
        were_changed = any(person.updated_ms != person.created_ms for person in gone)  # what they were is unknown
        self.database.erase_traces(needles, are_all=removed.are_all and not were_changed)


def _the_former(
    connection: sqlite3.Connection, list_number: int, list_id: str, person_id: str | None
) -> list[Numbered]:
    """Return who is fused into another, if anybody is. Raises ItemNotFound."""
    if person_id is None:
        return []
    return [persons.the_person(connection, list_number, list_id, person_id, "replace_person_id")]


def _by_number(connection: sqlite3.Connection, number: int) -> Person:
    person = persons.by_number(connection, number)
    assert person is not None, "written a moment ago, under the lock"
    return person
