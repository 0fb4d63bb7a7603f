"""What one request is about to write, as its own later faces see it before anything is written.

Deciding touches neither rows nor index, so there is nothing to undo when it turns out that a template is wanted first;
and the index only ever holds what is on disk.
"""

from __future__ import annotations

import dataclasses
import sqlite3
from dataclasses import dataclass

from edge.errors import ItemNotFound, Mistake
from edge.gallery import persons
from edge.gallery.index import ListIndex
from edge.gallery.persons import Removed
from edge.gallery.protocol import Outcome
from edge.types import Candidate, Embedding, NewPerson, Person, Template

FIRST_DRAFT_RANK = 1 << 62
"""Persons that are not written yet come behind those that are, where similarities tie."""


@dataclass
class DraftedPerson:
    """A person to be added (`number` None) or replaced, as they will be; `rank` breaks ties."""

    number: int | None
    rank: int
    person: Person
    template: Template


@dataclass(frozen=True)
class Change:
    """What an index has to follow once it is committed."""

    person: int
    template_id: int
    embedding: Embedding
    removed: Removed


class Draft:
    """A list as it will be once what was decided so far is written. For one request, in one thread."""

    def __init__(
        self,
        *,
        list_number: int,
        list_id: str,
        list_size: int,
        index: ListIndex,
        cohort_weight: float,
        connection: sqlite3.Connection,
    ) -> None:
        """`connection` reads; `list_size` counts the persons of the list."""
        self.list_number = list_number
        self.list_id = list_id
        self.list_size = list_size
        self.index = index
        self.persons: dict[str, DraftedPerson] = {}
        self._cohort_weight = cohort_weight
        self._connection = connection

    @property
    def pictures(self) -> set[str]:
        """The names of the pictures that the rows will name."""
        return {one.person.picture for one in self.persons.values() if one.person.picture is not None}

    # --- reading ---

    def candidates(self, embedding: Embedding, count: int) -> tuple[Candidate, ...]:
        """Return up to `count` persons most like the probe, best first."""
        replaced = {one.number for one in self.persons.values() if one.number is not None}
        found = self.index.search(embedding.vector, embedding.cohort_similarity, count + len(replaced))
        ranked: list[tuple[float, int, Person | None]] = [
            (-similarity, number, None) for number, similarity in found if number not in replaced
        ]
        ranked += [
            (-self._similarity(embedding, one.template.embedding), one.rank, one.person)
            for one in self.persons.values()
        ]
        ranked.sort(key=lambda entry: entry[:2])
        candidates: list[Candidate] = []
        for negated, number, drafted in ranked[:count]:
            person = drafted or persons.by_number(self._connection, number)
            if person is not None:  # erased between the search and this line, where no lock is held
                candidates.append(Candidate(person, -negated))
        return tuple(candidates)

    def _similarity(self, probe: Embedding, template: Embedding) -> float:
        cosine = float(probe.vector.astype("f8") @ template.vector.astype("f8"))
        return cosine - self._cohort_weight * (probe.cohort_similarity + template.cohort_similarity)

    def find(self, person_id: str) -> Person | None:
        """Return a person of the list as they will be."""
        if person_id in self.persons:
            return self.persons[person_id].person
        found = persons.find(self._connection, self.list_number, person_id)
        return found and found[1]

    def settled(self, outcome: Outcome) -> Outcome:
        """Return the outcome with its person as they are at the end: a later face may have replaced them."""
        if outcome.person is None or outcome.person.person_id not in self.persons:
            return outcome
        return dataclasses.replace(outcome, person=self.persons[outcome.person.person_id].person)

    # --- drafting ---

    def add(self, person_id: str, newcomer: NewPerson, template: Template, picture: str | None, now_ms: int) -> Person:
        """Draft a new person."""
        person = Person(
            person_id=person_id,
            list_id=self.list_id,
            group_id=newcomer.group_id,
            source_id=newcomer.source_id,
            created_ms=now_ms,
            updated_ms=now_ms,
            fields=newcomer.fields,
            features=newcomer.features,
            pose=newcomer.pose,
            score=newcomer.score,
            picture=picture,
        )
        self.persons[person_id] = DraftedPerson(None, FIRST_DRAFT_RANK + len(self.persons), person, template)
        self.list_size += 1
        return person

    def replace(
        self, person_id: str, newcomer: NewPerson, template: Template, picture: str | None, now_ms: int
    ) -> Person:
        """Draft a replacement: fields, source and group stay where the newcomer says nothing of them.

        Raises ItemNotFound if the list has no such person.
        """
        drafted = self.persons.get(person_id) or self._drafted(person_id, template)
        drafted.template = template
        drafted.person = dataclasses.replace(
            drafted.person,
            group_id=newcomer.group_id or drafted.person.group_id,
            source_id=newcomer.source_id or drafted.person.source_id,
            updated_ms=max(now_ms, drafted.person.created_ms + 1),  # later, even where the clock was set back
            fields=newcomer.fields or drafted.person.fields,
            features=newcomer.features,
            pose=newcomer.pose,
            score=newcomer.score,
            picture=picture,
        )
        self.persons[person_id] = drafted
        return drafted.person

    def _drafted(self, person_id: str, template: Template) -> DraftedPerson:
        found = persons.find(self._connection, self.list_number, person_id)
        if found is None:
            raise ItemNotFound(Mistake("replace_on_found", f"no person {person_id} in the list {self.list_id}"))
        number, person = found
        return DraftedPerson(number, number, person, template)

    # --- writing ---

    def write(self, transaction: sqlite3.Connection, now_ms: int) -> list[Change]:
        """Write everything that was drafted."""
        return [self._written(transaction, one, now_ms) for one in self.persons.values()]

    def _written(self, transaction: sqlite3.Connection, drafted: DraftedPerson, now_ms: int) -> Change:
        removed = Removed()
        if drafted.number is None:
            number = persons.insert(transaction, self.list_number, drafted.person)
        else:
            number = drafted.number
            removed = persons.delete_templates(transaction, number)
            persons.update(transaction, number, drafted.person)
        template = drafted.template
        id_ = persons.insert_template(transaction, number, template, drafted.person.picture, now_ms)
        return Change(number, id_, template.embedding, removed)
