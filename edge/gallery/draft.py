"""What requests are about to write, as their later faces see it before anything is written.

Deciding touches neither rows nor index, so there is nothing to undo when it turns out that a template is wanted first;
and the index only ever holds what is on disk.
"""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from edge.errors import ItemNotFound, Mistake
from edge.gallery import acts, persons
from edge.gallery.index import ListIndex
from edge.gallery.persons import Removed
from edge.gallery.protocol import Outcome
from edge.gallery.rejections import Negatives
from edge.types import Actor, ActOutcome, Candidate, Embedding, Ids, NewPerson, Person, Template

FIRST_DRAFT_RANK = 1 << 62
"""Persons that are not written yet come behind those that are, where similarities tie."""


@dataclass(eq=False)
class DraftedList:
    """A list that a request searches or adds to; `size` counts its persons, those that are drafted included."""

    number: int
    list_id: str
    size: int
    index: ListIndex


@dataclass
class DraftedPerson:
    """A person to be added (`number` None) or replaced, as they will be; `rank` breaks ties."""

    list: DraftedList
    number: int | None
    rank: int
    person: Person
    template: Template
    same_from: float | None = None
    """See Decision."""


@dataclass(frozen=True)
class Change:
    """What an index has to follow once it is committed."""

    list_number: int
    person: int
    template_id: int
    embedding: Embedding
    removed: Removed


@dataclass(frozen=True)
class Saved:
    """A draft as it was."""

    persons: dict[str, DraftedPerson]
    size: int
    acts: int


class Draft:
    """Lists as they will be once what was decided so far is written. In one thread, for requests of the same lists."""

    def __init__(
        self,
        *,
        searched: Sequence[DraftedList],
        adding: DraftedList | None,
        cohort_weight: float,
        connection: sqlite3.Connection,
        negatives: Negatives,
    ) -> None:
        """`adding`: the list that newcomers go to, the same object as in `searched` if it is searched.

        `connection` reads.
        """
        self.persons: dict[str, DraftedPerson] = {}
        self._acts: list[tuple[Actor, ActOutcome, Ids]] = []
        self._searched = {one.list_id: one for one in searched}
        self._adding = adding
        self._cohort_weight = cohort_weight
        self._connection = connection
        self._negatives = negatives

    @property
    def pictures(self) -> set[str]:
        """The names of the pictures that the rows will name."""
        return {one.person.picture for one in self.persons.values() if one.person.picture is not None}

    @property
    def list_size(self) -> int:
        """The persons of all the lists that are searched."""
        return sum(one.size for one in self._searched.values())

    def saved(self) -> Saved:
        """Return how it is now, for `go_back`."""
        drafted = {person_id: dataclasses.replace(one) for person_id, one in self.persons.items()}
        return Saved(drafted, 0 if self._adding is None else self._adding.size, len(self._acts))

    def go_back(self, saved: Saved) -> None:
        """Be as it was then."""
        self.persons = saved.persons
        del self._acts[saved.acts :]
        if self._adding is not None:
            self._adding.size = saved.size

    # --- reading ---

    def candidates(self, embedding: Embedding, count: int) -> tuple[Candidate, ...]:
        """Return up to `count` persons most like the probe, best first.

        Whoever may turn out not to be (`is_disputed`) is not counted, so that others can take their place.
        """
        disputed = 0
        while True:
            found = self._most_similar(embedding, count + disputed)
            still_disputed = sum(one.is_disputed for one in found)
            if len(found) < count + disputed or still_disputed <= disputed:
                return found
            disputed = still_disputed

    def _most_similar(self, embedding: Embedding, count: int) -> tuple[Candidate, ...]:
        replaced = {one.number for one in self.persons.values() if one.number is not None}
        wanted = count + len(replaced)
        ranked: list[tuple[float, int, Person | None]] = [
            (-similarity, number, None)
            for one in self._searched.values()
            for number, similarity in one.index.search(embedding.vector, embedding.cohort_similarity, wanted)
            if number not in replaced
        ]
        ranked += [
            (-self._similarity(embedding, one.template.embedding), one.rank, one.person)
            for one in self.persons.values()
        ]
        ranked.sort(key=lambda entry: entry[:2])
        candidates: dict[int, Candidate] = {}
        for negated, number, drafted in ranked:
            if len(candidates) == count:
                break
            person = drafted or persons.by_number(self._connection, number)
            if number in candidates:  # on the way to another list one is in both
                continue
            if person is not None and person.list_id in self._searched:  # else erased, moved, or not searched for
                negative = self._negatives.nearest(self._connection, number, embedding)
                candidates[number] = Candidate(person, -negated, negative)
        return tuple(candidates.values())

    def _similarity(self, probe: Embedding, template: Embedding) -> float:
        cosine = float(probe.vector.astype("f8") @ template.vector.astype("f8"))
        return cosine - self._cohort_weight * (probe.cohort_similarity + template.cohort_similarity)

    def find(self, person_id: str) -> Person | None:
        """Return a person of the lists that are searched, as they will be."""
        if person_id in self.persons:
            return self.persons[person_id].person
        found = self._found(person_id)
        return found and found[1]

    def _found(self, person_id: str) -> tuple[int, Person] | None:
        found = persons.find_anywhere(self._connection, person_id)
        return found if found and found[1].list_id in self._searched else None

    def settled(self, outcome: Outcome) -> Outcome:
        """Return the outcome with its person as they are at the end: a later face may have replaced them."""
        if outcome.person is None or outcome.person.person_id not in self.persons:
            return outcome
        return dataclasses.replace(outcome, person=self.persons[outcome.person.person_id].person)

    # --- drafting ---

    def add(
        self,
        person_id: str,
        newcomer: NewPerson,
        template: Template,
        picture: str | None,
        now_ms: int,
        same_from: float | None = None,
    ) -> Person:
        """Draft a new person; `same_from`: see Decision. ValueError where there is no list to add to."""
        if self._adding is None:
            raise ValueError("the decision was to add somebody, but there is no list to add to")
        person = Person(
            person_id=person_id,
            list_id=self._adding.list_id,
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
        rank = FIRST_DRAFT_RANK + len(self.persons)
        self.persons[person_id] = DraftedPerson(self._adding, None, rank, person, template, same_from)
        self._adding.size += 1
        self._note(newcomer, ActOutcome.ADDED, person)
        return person

    def replace(
        self, person_id: str, newcomer: NewPerson, template: Template, picture: str | None, now_ms: int
    ) -> Person:
        """Draft a replacement: fields, source and group stay where the newcomer says nothing of them.

        Raises ItemNotFound if the lists have no such person.
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
        self._note(newcomer, ActOutcome.REPLACED, drafted.person)
        return drafted.person

    def _note(self, newcomer: NewPerson, outcome: ActOutcome, person: Person) -> None:
        if newcomer.actor is not None:
            source = [] if newcomer.source_id is None else [("source_id", newcomer.source_id)]
            ids = (("person_id", person.person_id), ("list_id", person.list_id), *source)
            self._acts.append((newcomer.actor, outcome, ids))

    def _drafted(self, person_id: str, template: Template) -> DraftedPerson:
        found = self._found(person_id)
        if found is None:
            raise ItemNotFound(Mistake("replace_on_found", f"no person {person_id} in what is searched"))
        number, person = found
        return DraftedPerson(self._searched[person.list_id], number, number, person, template)

    # --- writing ---

    def write(self, transaction: sqlite3.Connection, now_ms: int) -> list[Change]:
        """Write everything that was drafted, and who asked for it."""
        for actor, outcome, ids in self._acts:
            acts.insert(transaction, actor, outcome, ids)
        return [self._written(transaction, one, now_ms) for one in self.persons.values()]

    def _written(self, transaction: sqlite3.Connection, drafted: DraftedPerson, now_ms: int) -> Change:
        removed = Removed()
        if drafted.number is None:
            number = persons.insert(transaction, drafted.list.number, drafted.person)
        else:
            number = drafted.number
            removed = persons.delete_templates(transaction, number)
            persons.update(transaction, number, drafted.person)
        template = persons.stored(drafted.template, drafted.person.picture, now_ms)
        id_ = persons.insert_template(transaction, number, template)
        return Change(drafted.list.number, number, id_, template.embedding, removed)
