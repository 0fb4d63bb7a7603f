"""Not this person: what is remembered of a face that was taken for somebody else, and taken back."""

from __future__ import annotations

from edge.errors import Conflict, ItemNotFound, Mistake, PackMismatch
from edge.gallery import lists, persons, rejections, sightings, traces
from edge.gallery.core import Core
from edge.gallery.paging import page
from edge.gallery.protocol import PAGE, Page
from edge.gallery.rejections import REJECTIONS_PER_PERSON, Negative
from edge.gallery.sightings import Sighted
from edge.types import Embedding, Rejection


class Rejecting(Core):
    """The gallery's part that knows who somebody is not."""

    def reject(self, list_id: str, person_id: str, sighting_id: str) -> Rejection:
        """Remember that the face of the sighting is not this person; a second time is the same as once.

        Raises ListNotFound, ItemNotFound (the person, the sighting), Conflict (the sighting was kept without its
        vector, the person has as many rejections as are kept), PackMismatch (it is of another pack), StorageFull.
        """
        with self._lock:
            connection = self.database.read()
            number = self._number(list_id, person_id)
            known = rejections.find(connection, number, sighting_id)
            if known is not None:
                return Rejection(person_id, sighting_id, known[1])
            sighted = sightings.sighted(connection, sighting_id)
            if sighted is None:
                raise ItemNotFound(Mistake("sighting_id", f"no sighting {sighting_id}"))
            embedding = self._comparable(sighted)
            if rejections.count(connection, number, self._pack_id) >= REJECTIONS_PER_PERSON:
                reason = (
                    f"{REJECTIONS_PER_PERSON} faces are rejected for this person, as many as are kept; undo one first"
                )
                raise Conflict(Mistake("sighting_id", reason))
            negative = Negative(sighting_id, sighted.person, self._pack_id, embedding, self._clock())
            with self.database.write() as transaction:
                rejections.insert(transaction, number, negative)
            self._negatives.add(number)
            return Rejection(person_id, sighting_id, negative.created_ms)

    def undo_rejection(self, list_id: str, person_id: str, sighting_id: str) -> None:
        """Forget that the face of the sighting is not this person: its vector is in no file then but as the sighting's.

        Raises ListNotFound, ItemNotFound (the person, or the sighting is not rejected for them), StorageFull.
        """
        with self._lock:
            connection = self.database.read()
            number = self._number(list_id, person_id)
            known = rejections.find(connection, number, sighting_id)
            if known is None:
                raise ItemNotFound(Mistake("sighting_id", f"{sighting_id} is not rejected for this person"))
            is_kept = sightings.sighted(connection, sighting_id) is not None
            with self.database.write(essential=True) as transaction:
                rejections.delete(transaction, number, sighting_id)
                if is_kept:  # the same bytes are the sighting's, so there is nothing to look for until that goes
                    persons.note_shed(transaction, number)
            if not rejections.negatives(self.database.read(), number):
                self._negatives.discard([number])
        self.database.erase_traces(() if is_kept else traces.slices(known[0]), are_all=True)

    def rejections(self, list_id: str, person_id: str, cursor: str | None = None, limit: int = PAGE) -> Page[Rejection]:
        """Return a page of what was said not to be this person, of whatever pack.

        Raises ListNotFound, ItemNotFound, InvalidSchema.
        """
        connection = self.database.read()
        number = self._number(list_id, person_id)
        return page(lambda last, count: rejections.after(connection, number, person_id, last, count), cursor, limit)

    def _number(self, list_id: str, person_id: str) -> int:
        connection = self.database.read()
        list_number, _ = lists.the_list(connection, list_id)
        return persons.the_person(connection, list_number, list_id, person_id)[0]

    def _comparable(self, sighted: Sighted) -> Embedding:
        """Return the sighting's vector. Raises Conflict (it has none), PackMismatch."""
        if sighted.embedding is None:
            reason = "recorded by a release that kept no vectors; post the picture again and reject that sighting"
            raise Conflict(Mistake("sighting_id", reason))
        if sighted.pack_id != self._pack_id:
            reason = f"seen with {sighted.pack_id}, not with {self._pack_id}; post the picture again and reject that"
            raise PackMismatch(Mistake("sighting_id", reason))
        self._check_embedding(sighted.embedding)
        return sighted.embedding
