"""Strangers who get a name: sightings that are nobody's become a person's, as what they are recognised by."""

from __future__ import annotations

from collections.abc import Sequence

from edge.errors import Conflict, ItemNotFound, Mistake
from edge.gallery import lists, persons, rejections, sightings
from edge.gallery.fusion import fused
from edge.gallery.persons import Removed
from edge.gallery.roster import Roster
from edge.gallery.sightings import StoredSighting
from edge.types import Person, Template


class Naming(Roster):
    """The gallery's part that knows who is nobody yet."""

    def strangers(
        self,
        *,
        list_id: str | None = None,
        source_id: str | None = None,
        first_ms: int | None = None,
        last_ms: int | None = None,
        limit: int,
    ) -> list[StoredSighting]:
        """Return the newest sightings of the active pack that are nobody's, with their vectors. Raises ListNotFound."""
        connection = self.database.read()
        found = sightings.of_nobody(
            connection,
            pack_id=self._pack_id,
            list_number=None if list_id is None else lists.the_list(connection, list_id)[0],
            source_id=source_id,
            first_ms=first_ms,
            last_ms=last_ms,
            limit=limit,
        )
        return [one for one in found if one.sighting.embedding is not None and self._is_ours(one)]

    def _is_ours(self, one: StoredSighting) -> bool:
        embedding = one.sighting.embedding
        return embedding is not None and embedding.vector.size == self._vector_length

    def faces(self, sighting_ids: Sequence[str]) -> list[StoredSighting]:
        """Return these sightings with their vectors (where they have one). Raises ItemNotFound."""
        connection = self.database.read()
        found = []
        for number, sighting_id in enumerate(sighting_ids):
            one = sightings.face(connection, sighting_id)
            if one is None:
                raise ItemNotFound(Mistake(f"sighting_ids[{number}]", f"no sighting {sighting_id}"))
            found.append(one)
        return found

    def name_strangers(
        self,
        list_id: str,
        sighting_ids: Sequence[str],
        templates: Sequence[Template],
        *,
        fields: Sequence[str] | None = None,
        person_id: str | None = None,
    ) -> Person:
        """Let these sightings be of a new person of the list, or of the one of that id, who gets these templates.

        At most 20 of them are kept, as `add_templates` chooses. What was said not to be the person among them is the
        person after all. Returns the record. Raises ListNotFound, ItemNotFound (the person), PackMismatch, Conflict (a
        sighting is somebody else's meanwhile), StorageFull.
        """
        self.database.space.check()
        for template in templates:
            self._check_template(template)
        new = self._saved(templates)
        unused = {one.picture for one in new if one.picture is not None}
        try:
            with self._lock:
                connection = self.database.read()
                list_number, _ = lists.the_list(connection, list_id)
                known = None if person_id is None else persons.the_person(connection, list_number, list_id, person_id)
                self._check_nobody(sighting_ids, person_id)
                own = [] if person_id is None else persons.known_templates(connection, person_id)
                choice = fused(own, [], new)
                removed = Removed()
                with self.database.write() as transaction:
                    if known is None:
                        person = self._new_person(list_id, fields or (), group_id=None)
                        number = persons.insert(transaction, list_number, person)
                    else:
                        number, person = known
                        persons.update(transaction, number, self._changed(person, fields))
                    for one in choice.dropped:
                        removed += persons.delete_template(transaction, one)
                    for stored in choice.added:
                        persons.insert_template(transaction, number, stored)
                    sightings.give(transaction, sighting_ids, number, None)
                    rejections.follow(transaction, sighting_ids, number, None)
                    for sighting_id in sighting_ids if known is not None else ():
                        if rejections.find(transaction, number, sighting_id) is not None:
                            rejections.delete(transaction, number, sighting_id)
                            persons.note_shed(transaction, number)  # the same bytes are the sighting's
                unused -= {one.picture for one in choice.added if one.picture is not None}
                self._indexes.reload(list_number, number)
                if not rejections.negatives(connection, number):
                    self._negatives.discard([number])
                record = self._record(number)
                self._clean_up(removed)
        finally:
            self.pictures.delete(unused)
        self._erase(removed, [])
        return record

    def _check_nobody(self, sighting_ids: Sequence[str], person_id: str | None) -> None:
        for number, one in enumerate(self.faces(sighting_ids)):
            if one.sighting.person_id not in (None, person_id):
                reason = f"{one.sighting.sighting_id} is somebody's already: merge or split persons instead"
                raise Conflict(Mistake(f"sighting_ids[{number}]", reason))
