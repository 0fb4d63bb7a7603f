"""The gallery of this box: SQLite is the truth, picture files lie beside it, an index per list is a cache of the rows.

Locks, outermost first: the gallery's (whoever changes persons: search, decision, commit and index are one step), the
database's writer (the history's too), an index's own (one search or one change). Readers of rows and pictures take
none of them, `identify` only the index's.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from edge.errors import ItemNotFound, Mistake, PackMismatch
from edge.gallery import persons, sightings, sources
from edge.gallery.database import Database
from edge.gallery.draft import Change, Draft
from edge.gallery.identifiers import Identifiers
from edge.gallery.indexes import Indexes
from edge.gallery.persons import Removed
from edge.gallery.pictures import Pictures
from edge.gallery.protocol import CANDIDATES, NO_DEFAULTS, Counts, Decide, Gallery, Outcome, Probe, TemplatesWanted
from edge.types import (
    Candidate,
    Decision,
    Embedding,
    ListAlert,
    Person,
    PersonList,
    Source,
    SourceDefaults,
    SourceGroup,
    Verdict,
)

__all__ = ["Counts", "Decide", "EmbeddedGallery", "Gallery", "Outcome", "Probe", "TemplatesWanted"]

log = logging.getLogger(__name__)

PICTURES_NAME = "pictures"

SELECT_META = "SELECT value FROM meta WHERE key = :key"
UPDATE_CLOCK = "UPDATE meta SET value = max(value, :clock_ms) WHERE key = 'clock_ms'"


class EmbeddedGallery:
    """The gallery in a data folder. `database` and `pictures` are there for the history, which shares them."""

    def __init__(
        self,
        database: Database,
        pictures: Pictures,
        *,
        pack_id: str,
        vector_length: int,
        cohort_weight: float,
        exact_limit: int,
        main_list_name: str,
        clock: Callable[[], int],
    ) -> None:
        """See `open`, which makes the first two as well."""
        self.database = database
        self.pictures = pictures
        self._pack_id = pack_id
        self._vector_length = vector_length
        self._cohort_weight = cohort_weight
        self._clock = clock
        self._identifiers = Identifiers(clock, not_before_ms=self._meta("clock_ms"))
        self._lock = threading.RLock()
        self._main_list_id = self._made_main_list(main_list_name)
        self._sweep()
        self._indexes = Indexes(
            database,
            self._lock,
            pack_id=pack_id,
            vector_length=vector_length,
            cohort_weight=cohort_weight,
            exact_limit=exact_limit,
        )

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        pack_id: str,
        vector_length: int,
        cohort_weight: float,
        exact_limit: int,
        main_list_name: str,
        clock: Callable[[], int],
    ) -> EmbeddedGallery:
        """Open the gallery of a data folder, making what is missing.

        `pack_id`, `vector_length`, `cohort_weight`: of the pack whose vectors are compared; `exact_limit`: templates
        of a list up to which every search is exact; `main_list_name` counts when the main list is made; `clock` gives
        milliseconds since 1970. Raises GalleryUnusable, StorageFull.
        """
        database = Database(folder)
        try:
            return cls(
                database,
                Pictures(folder / PICTURES_NAME),
                pack_id=pack_id,
                vector_length=vector_length,
                cohort_weight=cohort_weight,
                exact_limit=exact_limit,
                main_list_name=main_list_name,
                clock=clock,
            )
        except BaseException:
            database.close()
            raise

    def close(self) -> None:
        """Stop what runs in the background, empty the write-ahead log, give the folder back. Twice does no harm."""
        with self._lock:
            self._indexes.close()
            self.database.close()

    def flush(self) -> None:
        """Move the write-ahead log into the database file and empty it."""
        self.database.truncate_log()

    def _meta(self, key: str) -> int:
        return int(self.database.read().execute(SELECT_META, {"key": key}).fetchone()[0])

    def _made_main_list(self, name: str) -> str:
        found = sources.main_list(self.database.read())
        if found is None:
            found = PersonList(self._identifiers.new(), name, self._clock(), is_main=True, count=0)
            with self.database.write() as transaction:
                sources.insert_list(transaction, found)
        return found.list_id

    def _sweep(self) -> None:
        """Make files and rows agree: a crash leaves a file without a row, a damaged disk a row without a file."""
        connection = self.database.read()
        missing = self.pictures.sweep(
            lambda prefix: {*persons.pictures(connection, prefix), *sightings.pictures(connection, prefix)}
        )
        if missing:
            log.warning("%d pictures are missing, among them %s", len(missing), ", ".join(missing[:10]))
            with self.database.write() as transaction:
                persons.forget_pictures(transaction, missing)
                sightings.forget_pictures(transaction, missing)

    # --- recognising ---

    def identify(self, list_id: str, embedding: Embedding, persons: int = CANDIDATES) -> list[Candidate]:
        """Return up to `persons` candidates, best first. Raises ListNotFound, PackMismatch."""
        self._check_embedding(embedding)
        draft = self._draft(list_id)  # nothing is drafted: a plain search
        return list(draft.candidates(embedding, persons))

    def identify_or_enrol(
        self, list_id: str, probes: Sequence[Probe], decide: Decide
    ) -> list[Outcome] | TemplatesWanted:
        """Search, decide and write for each probe in turn, in one step under one lock.

        A later probe sees what an earlier one of the same call adds or replaces. If `decide` says ADD or REPLACE of a
        probe without a template, nothing at all is written and TemplatesWanted says which probes need one: make them
        and call again, everything is decided anew. What an answer reports as written is on disk, all of it or, if
        this raises, none of it.

        Raises ListNotFound, PackMismatch (an embedding of another pack or length), ItemNotFound (the person to be
        replaced is not in the list), StorageFull.
        """
        for probe in probes:
            self._check_probe(probe)
        sources.the_list(self.database.read(), list_id)  # refused before anything is put on disk
        saved = self._save_pictures(probes)
        kept: set[str] = set()
        try:
            with self._lock:
                draft = self._draft(list_id)
                outcomes = self._decided(draft, probes, decide, saved)
                if isinstance(outcomes, list):
                    changes = self._written(draft)
                    kept = draft.pictures  # from here on rows name them, whatever else goes wrong
                    self._follow(draft.list_number, changes)
            return outcomes
        finally:
            self.pictures.delete(set(saved.values()) - kept)

    def _check_probe(self, probe: Probe) -> None:
        self._check_embedding(probe.embedding)
        if probe.template is not None:
            self._check_embedding(probe.template.embedding)
            if probe.template.pack_id != self._pack_id:
                raise PackMismatch(Mistake("embedding", f"made by {probe.template.pack_id}, not by {self._pack_id}"))

    def _check_embedding(self, embedding: Embedding) -> None:
        vector = embedding.vector
        if vector.shape != (self._vector_length,):
            raise PackMismatch(
                Mistake("embedding", f"has {vector.size} numbers, the active model's have {self._vector_length}")
            )
        if not (np.isfinite(vector).all() and np.isfinite(embedding.cohort_similarity)):
            raise ValueError("an embedding with numbers that are not finite compares with nothing")

    def _save_pictures(self, probes: Sequence[Probe]) -> dict[int, str]:
        """Put the templates' pictures on disk, off the lock: a picture is there before the row that names it."""
        pictures = {
            number: probe.template.picture
            for number, probe in enumerate(probes)
            if probe.template is not None and probe.template.picture is not None
        }
        return dict(zip(pictures, self.pictures.save(list(pictures.values())), strict=True))

    def _draft(self, list_id: str) -> Draft:
        connection = self.database.read()
        number, person_list = sources.the_list(connection, list_id)
        return Draft(
            list_number=number,
            list_id=list_id,
            list_size=person_list.count,
            index=self._indexes.of(number),
            cohort_weight=self._cohort_weight,
            connection=connection,
        )

    def _decided(
        self, draft: Draft, probes: Sequence[Probe], decide: Decide, pictures: dict[int, str]
    ) -> list[Outcome] | TemplatesWanted:
        """Decide on every probe, writing nothing but the draft."""
        outcomes: list[Outcome] = []
        wanted: list[int] = []
        for number, probe in enumerate(probes):
            candidates, list_size = draft.candidates(probe.embedding, CANDIDATES), draft.list_size
            decision = decide(number, list_size, candidates)
            person = self._person_meant(draft, decision)
            if decision.verdict in (Verdict.ADD, Verdict.REPLACE):
                template, picture = probe.template, pictures.get(number)
                if template is None:
                    wanted.append(number)
                elif person is None:
                    id_ = self._identifiers.new()
                    person = draft.add(id_, probe.newcomer, template, picture, self._clock())
                else:
                    person = draft.replace(person.person_id, probe.newcomer, template, picture, self._clock())
            outcomes.append(Outcome(decision, person, candidates, list_size))
        return TemplatesWanted(tuple(wanted)) if wanted else [draft.settled(outcome) for outcome in outcomes]

    def _person_meant(self, draft: Draft, decision: Decision) -> Person | None:
        """Return who is matched or replaced. Raises ItemNotFound."""
        if decision.verdict not in (Verdict.MATCH, Verdict.REPLACE):
            return None
        person = draft.find(decision.person_id) if decision.person_id else None
        if person is None:
            field = "replace_on_found" if decision.verdict is Verdict.REPLACE else "person_id"
            raise ItemNotFound(Mistake(field, f"no person {decision.person_id} in the list {draft.list_id}"))
        return person

    def _written(self, draft: Draft) -> list[Change]:
        """Write what was drafted in one transaction, which is on disk when this returns."""
        if not draft.persons:
            return []
        with self.database.write() as transaction:
            changes = draft.write(transaction, self._clock())
            transaction.execute(UPDATE_CLOCK, {"clock_ms": self._identifiers.latest_ms})
        return changes

    def _follow(self, list_number: int, changes: Sequence[Change]) -> None:
        """Bring index and pictures up to date with the rows."""
        with self._indexes.following(list_number) as index:
            for change in changes:
                if change.removed.templates:
                    index.remove_persons([change.person])
                index.add(change.template_id, change.person, change.embedding)
        for change in changes:
            self._clean_up(change.removed)

    def _clean_up(self, removed: Removed) -> None:
        self._indexes.forget(removed.templates)
        self.pictures.delete(removed.pictures)

    # --- persons ---

    def person(self, list_id: str, person_id: str) -> Person:
        """Return the record. Raises ListNotFound, ItemNotFound."""
        connection = self.database.read()
        number, _ = sources.the_list(connection, list_id)
        found = persons.find(connection, number, person_id)
        if found is None:
            raise ItemNotFound(Mistake("person_id", f"no person {person_id} in the list {list_id}"))
        return found[1]

    def delete_persons(self, list_id: str, person_ids: Sequence[str]) -> int:
        """Erase persons with their templates, pictures and sightings; return how many of the ids were persons.

        When this returns, their bytes are in no file of the data folder. Sightings that are still waiting to be
        written are dropped by the history, which looks the person up. Raises ListNotFound, StorageFull.
        """
        with self._lock:
            connection = self.database.read()
            list_number, _ = sources.the_list(connection, list_id)
            wanted = (persons.find(connection, list_number, person_id) for person_id in dict.fromkeys(person_ids))
            found = [one for one in wanted if one is not None]
            if not found:
                return 0
            numbers = [number for number, _ in found]
            with self.database.write() as transaction:
                removed = [persons.delete(transaction, number) for number in numbers]
            with self._indexes.following(list_number) as index:
                index.remove_persons(numbers)
            for one in removed:
                self._clean_up(one)
        needles = [*(person.person_id.encode() for _, person in found), *(t for one in removed for t in one.traces)]
        were_changed = any(person.updated_ms != person.created_ms for _, person in found)  # what they were is unknown
        self.database.erase_traces(needles, are_all=not were_changed)
        return len(found)

    def picture(self, name: str) -> bytes | None:
        """Return a stored picture of a person or a sighting, None if there is none of that name."""
        return self.pictures.read(name)

    # --- lists, groups, sources ---

    @property
    def main_list_id(self) -> str:
        """The list that is meant where none is named."""
        return self._main_list_id

    def find_list(self, list_id: str) -> PersonList | None:
        """Return the list, None if there is none of that id."""
        found = sources.find_list(self.database.read(), list_id)
        return None if found is None else found[1]

    def list_size(self, list_id: str) -> int:
        """Return the number of persons. Raises ListNotFound."""
        return sources.the_list(self.database.read(), list_id)[1].count

    def create_list(self, name: str) -> PersonList:
        """Make an empty list. Raises Conflict for a taken name."""
        made = PersonList(self._identifiers.new(), name, self._clock(), is_main=False, count=0)
        with self.database.write() as transaction:
            sources.insert_list(transaction, made)
        return made

    def group(self, group_id: str) -> SourceGroup | None:
        """Return the source group, None if there is none of that id."""
        return sources.find_group(self.database.read(), group_id)

    def create_group(self, name: str, alerts: tuple[ListAlert, ...] = ()) -> SourceGroup:
        """Make a source group. Raises ListNotFound for an alert on an unknown list."""
        made = SourceGroup(self._identifiers.new(), name, self._clock(), alerts)
        with self.database.write() as transaction:
            sources.insert_group(transaction, made)
        return made

    def source(self, source_id: str | None) -> Source | None:
        """Return the source, None if there is none of that id."""
        return None if source_id is None else sources.find_source(self.database.read(), source_id)

    def create_source(
        self,
        name: str,
        group_id: str | None = None,
        defaults: SourceDefaults = NO_DEFAULTS,
        person_list_add: tuple[str, ...] = (),
        person_list_search: tuple[str, ...] = (),
    ) -> Source:
        """Make a source. Raises ItemNotFound for an unknown group, ListNotFound for an unknown list."""
        made = Source(
            source_id=self._identifiers.new(),
            group_id=group_id,
            name=name,
            created_ms=self._clock(),
            defaults=defaults,
            person_list_add=person_list_add,
            person_list_search=person_list_search,
        )
        with self.database.write() as transaction:
            sources.insert_source(transaction, made)
        return made

    def counts(self) -> Counts:
        """Return what the gallery holds, without counting it anew."""
        checked, agreed = self._indexes.recall
        return Counts(
            lists=self._meta("lists"),
            persons=self._meta("persons"),
            templates=self._meta("templates"),
            set_aside=self._indexes.damaged,
            other_packs=self._indexes.other_packs,
            recall_checked=checked,
            recall_agreed=agreed,
        )
