"""The gallery as somebody reads it who writes it out, while another process changes it: read-only, page by page."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge.errors import GalleryBroken, GalleryUnusable, ItemNotFound, Mistake
from edge.gallery import lists, persons, rejections, sightings, sources
from edge.gallery.core import PICTURES_NAME, SELECT_META
from edge.gallery.database import BUSY_SECONDS, DATABASE_NAME
from edge.gallery.pictures import Pictures
from edge.gallery.schema import MIGRATIONS
from edge.gallery.sightings import MAX_INTEGER, StoredSighting
from edge.types import Person, PersonList, Source, SourceGroup, StoredTemplate

ROWS = 200
"""Of a page: none is held longer than it takes to write them."""


@dataclass(frozen=True)
class Kept:
    """A person and everything that hangs on them, but for the sightings."""

    person: Person
    templates: tuple[StoredTemplate, ...]
    rejections: tuple[tuple[str, int], ...]
    """Ids of sightings that were said not to be this person, and when, in milliseconds."""


class Reading:
    """A data folder's gallery. What is erased meanwhile is missing from what is read after it."""

    def __init__(self, connection: sqlite3.Connection, pictures: Pictures) -> None:
        self._connection = connection
        self._pictures = pictures

    def lists(self) -> Iterator[PersonList]:
        """Yield every list, the main one first."""
        after = 0
        while rows := lists.lists_after(self._connection, after, ROWS):
            yield from (one for _, one in rows)
            after = rows[-1][0]

    def groups(self) -> Iterator[SourceGroup]:
        """Yield every source group."""
        after = 0
        while rows := sources.groups_after(self._connection, after, ROWS):
            yield from (one for _, one in rows)
            after = rows[-1][0]

    def sources(self) -> Iterator[Source]:
        """Yield every source."""
        after = 0
        while rows := sources.sources_after(self._connection, after, ROWS):
            yield from (one for _, one in rows)
            after = rows[-1][0]

    def persons(self) -> Iterator[Kept]:
        """Yield everybody, list by list."""
        for one in self.lists():
            found = lists.find_list(self._connection, one.list_id)
            after = 0
            while found and (rows := persons.persons_after(self._connection, found[0], after, ROWS)):
                yield from (self._kept(number, person) for number, person in rows)
                after = rows[-1][0]

    def person(self, person_id: str) -> Kept:
        """Return one person, of whatever list. ItemNotFound: there is none."""
        found = persons.find_anywhere(self._connection, person_id)
        if found is None:
            raise ItemNotFound(Mistake("--person", f"no person {person_id}"))
        return self._kept(*found)

    def _kept(self, number: int, person: Person) -> Kept:
        known = persons.known_templates(self._connection, person.person_id)
        said = rejections.after(self._connection, number, person.person_id, 0, rejections.REJECTIONS_PER_PERSON)
        return Kept(
            person,
            tuple(one.template for one in sorted(known, key=lambda one: -one.template.quality)),
            tuple((one.sighting_id, one.created_ms) for _, one in said),
        )

    def sightings(self, person_id: str | None = None) -> Iterator[StoredSighting]:
        """Yield the history, of one person or everybody's, the newest first."""
        before = (MAX_INTEGER, MAX_INTEGER)
        while rows := sightings.select(
            self._connection,
            person_id=person_id,
            list_number=None,
            source_id=None,
            first_ms=-MAX_INTEGER,
            last_ms=MAX_INTEGER,
            before=before,
            limit=ROWS,
        ):
            yield from rows
            before = (rows[-1].sighting.time_ms, rows[-1].number)

    def picture(self, name: str) -> bytes | None:
        """Return a stored picture; None: it is gone."""
        return self._pictures.read(name)

    def count(self) -> int:
        """Return how many persons there are."""
        return int(self._connection.execute(SELECT_META, {"key": "persons"}).fetchone()[0])

    def vector_of(self, sighting_id: str) -> tuple[str, list[float]] | None:
        """Return the pack and the vector of a sighting; None: it was not kept."""
        found = sightings.sighted(self._connection, sighting_id)
        if found is None or found.embedding is None or found.pack_id is None:
            return None
        return found.pack_id, [float(number) for number in found.embedding.vector]


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Reading]:
    """Yield the gallery of a data folder. GalleryUnusable: there is none, or of another release; GalleryBroken."""
    path = folder / DATABASE_NAME
    if not path.exists():
        raise GalleryUnusable(message=f"{path} is not there")
    uri = f"{path.resolve().as_uri()}?mode=ro"
    try:
        with contextlib.closing(
            sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)
        ) as connection:
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            if version != len(MIGRATIONS):
                raise GalleryUnusable(message=f"{path} is of another release; start the service of this one once")
            yield Reading(connection, Pictures(folder / PICTURES_NAME))
    except sqlite3.DatabaseError as error:
        raise GalleryBroken(message=f"{path} cannot be read: {error}") from error
