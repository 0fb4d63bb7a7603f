"""What a person is recognised by, photo by photo: shown, taken away, or split off into a person of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge.errors import Conflict, ItemNotFound, Mistake
from edge.gallery import lists, persons, rejections, sightings
from edge.gallery.persons import KnownTemplate, Removed
from edge.gallery.roster import Roster
from edge.types import Embedding, Person, Photo


class Photos(Roster):
    """The gallery's part that knows a person's templates one by one."""

    def photos(self, list_id: str, person_id: str) -> tuple[Photo, ...]:
        """Return the person's intact templates, of whatever pack, oldest first. Raises ListNotFound, ItemNotFound."""
        portrait = self.person(list_id, person_id).picture
        known = persons.known_templates(self.database.read(), person_id)
        return tuple(
            Photo(str(one.id), one.template, is_portrait=portrait is not None and one.template.picture == portrait)
            for one in known
        )

    def delete_photo(self, list_id: str, person_id: str, photo_id: str) -> Person:
        """Take a template and its picture away, for good; return the person as they are then.

        Raises ListNotFound, ItemNotFound (the person, the photo), Conflict (nothing would be left that recognises the
        person), StorageFull.
        """
        with self._lock:
            connection = self.database.read()
            list_number, _ = lists.the_list(connection, list_id)
            number, person = persons.the_person(connection, list_number, list_id, person_id)
            (gone,), left = _parted(persons.known_templates(connection, person_id), [photo_id], "photo_id")
            self._check_left([gone], left, "photo_id", "it is the last one: erase the person instead")
            vector = gone.template.embedding.vector.astype("<f4").tobytes()
            is_sighted = sightings.has_vector(connection, number, vector)
            with self.database.write(essential=True) as transaction:
                removed = persons.delete_template(transaction, gone)
                persons.update(transaction, number, self._changed(person, None))
                if is_sighted:  # the same bytes are a sighting's, so there is nothing to look for until that goes
                    persons.note_shed(transaction, number)
            self._indexes.reload(list_number, number)
            record = self._record(number)
            self._clean_up(removed)
        picture = [name.encode() for name in removed.pictures]
        self.database.erase_traces(picture if is_sighted else removed.traces, are_all=True)
        return record

    def split_person(self, list_id: str, person_id: str, photo_ids: Sequence[str], fields: Sequence[str]) -> Person:
        """Make a new person of the same list of these templates, and return their record.

        Sightings that are more like what goes than like what stays go along: they are of the same face. Raises
        ListNotFound, ItemNotFound (the person, a photo), Conflict (nothing would be left, or nothing of the active pack
        goes), StorageFull.
        """
        before = persons.known_templates(self.database.read(), person_id)
        sighted = self._sightings_of(list_id, person_id, *_parted(before, photo_ids, "photo_ids"))  # off the lock
        with self._lock:
            connection = self.database.read()
            list_number, _ = lists.the_list(connection, list_id)
            number, person = persons.the_person(connection, list_number, list_id, person_id)
            moved, left = _parted(persons.known_templates(connection, person_id), photo_ids, "photo_ids")
            self._check_left(moved, left, "photo_ids", "one photo must stay: nothing would recognise the person")
            self._check_left(left, moved, "photo_ids", "none of them is of the active pack")
            newcomer = self._new_person(list_id, fields, group_id=person.group_id)
            renumbered = Removed()
            with self.database.write() as transaction:
                new_number = persons.insert(transaction, list_number, newcomer)
                for known in moved:  # a template's checksum is over its person: it is written anew
                    renumbered += persons.delete_template(transaction, known)
                    persons.insert_template(transaction, new_number, known.template)
                sightings.give(transaction, sighted, new_number, number)
                rejections.follow(transaction, sighted, new_number, number)
                persons.update(transaction, number, self._changed(person, None))
                if persons.has_shed(transaction, number):
                    persons.note_shed(transaction, new_number)
            self._indexes.forget(renumbered.templates)
            self._indexes.reload(list_number, number)
            self._indexes.reload(list_number, new_number)
            return self._record(new_number)

    def _sightings_of(
        self, list_id: str, person_id: str, moved: Sequence[KnownTemplate], left: Sequence[KnownTemplate]
    ) -> list[str]:
        """Return the ids of the person's sightings that are more like a template that moves than like any other."""
        connection = self.database.read()
        number, _ = persons.the_person(connection, lists.the_list(connection, list_id)[0], list_id, person_id)
        mine, theirs = self._comparable_templates(moved), self._comparable_templates(left)
        if not mine or not theirs:
            return []
        return [
            sighting_id
            for sighting_id, pack_id, embedding in sightings.vectors_of_person(connection, number)
            if pack_id == self._pack_id
            and embedding.vector.size == self._vector_length
            and self._nearest(embedding, mine) > self._nearest(embedding, theirs)
        ]

    def _comparable_templates(self, known: Sequence[KnownTemplate]) -> list[Embedding]:
        return [one.template.embedding for one in known if one.template.pack_id == self._pack_id]

    def _nearest(self, probe: Embedding, templates: Sequence[Embedding]) -> float:
        """Return the greatest normalised similarity, but for what is the probe's own."""
        cosines = np.stack([one.vector for one in templates]) @ probe.vector
        return float((cosines - self._cohort_weight * np.array([one.cohort_similarity for one in templates])).max())

    def _check_left(
        self, going: Sequence[KnownTemplate], left: Sequence[KnownTemplate], field: str, reason: str
    ) -> None:
        """Raise Conflict if nothing is left, or nothing that the active pack compares though it did before."""
        is_comparable = any(one.template.pack_id == self._pack_id for one in left)
        was_comparable = any(one.template.pack_id == self._pack_id for one in going)
        if not left or (was_comparable and not is_comparable):
            raise Conflict(Mistake(field, reason))


def _parted(
    known: Sequence[KnownTemplate], photo_ids: Sequence[str], field: str
) -> tuple[list[KnownTemplate], list[KnownTemplate]]:
    """Return the templates of these ids, and the others. Raises ItemNotFound."""
    by_id = {str(one.id): one for one in known}
    for photo_id in photo_ids:
        if photo_id not in by_id:
            raise ItemNotFound(Mistake(field, f"the person has no photo {photo_id}"))
    chosen = set(photo_ids)
    return (
        [one for id_, one in by_id.items() if id_ in chosen],
        [one for id_, one in by_id.items() if id_ not in chosen],
    )
