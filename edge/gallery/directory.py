"""Lists, source groups and sources: what persons are sorted into, and where faces come from."""

from __future__ import annotations

from collections.abc import Callable

from edge.gallery import lists, outgoing, sources
from edge.gallery.core import Core
from edge.gallery.paging import page
from edge.gallery.protocol import NO_DEFAULTS, PAGE, Page
from edge.types import ListAlert, PersonList, Source, SourceDefaults, SourceGroup


class Directory(Core):
    """The gallery's part that knows no faces."""

    # --- lists ---

    def lists(self, cursor: str | None = None, limit: int = PAGE) -> Page[PersonList]:
        """Return a page of the lists, the main list first. Raises InvalidSchema."""
        connection = self.database.read()
        return page(lambda number, count: lists.lists_after(connection, number, count), cursor, limit)

    def find_list(self, list_id: str) -> PersonList | None:
        """Return the list, None if there is none of that id."""
        found = lists.find_list(self.database.read(), list_id)
        return None if found is None else found[1]

    def list_size(self, list_id: str) -> int:
        """Return the number of persons. Raises ListNotFound."""
        return lists.the_list(self.database.read(), list_id)[1].count

    def create_list(self, name: str) -> PersonList:
        """Make an empty list. Raises Conflict for a taken name."""
        made = PersonList(self._identifiers.new(), name, self._clock(), is_main=False, count=0)
        with self.database.write() as transaction:
            lists.insert_list(transaction, made)
        return made

    def rename_list(self, list_id: str, name: str) -> PersonList:
        """Give the list another name. Raises ListNotFound, Conflict (a taken name, the main list)."""
        with self.database.write() as transaction:
            return lists.rename_list(transaction, list_id, name)

    def delete_list(self, list_id: str) -> int:
        """Erase the list with everybody in it; return how many persons that were.

        When this returns, nothing of them is in any file of the data folder: the database is written anew. Sightings
        that wait to be written are dropped by the history, which looks the list up. Raises ListNotFound, Conflict (the
        main list), StorageFull.
        """
        with self._lock:
            with self.database.write(essential=True) as transaction:
                number, deleted, removed = lists.delete_list(transaction, list_id)
            self._indexes.drop(number)
            self._indexes.forget(removed.templates)
        outgoing.forget(self.database.path.parent, [list_id])
        self.pictures.delete(removed.pictures)  # off the lock: there may be 100,000 of them
        self.database.erase_traces((), are_all=removed.are_all)
        return deleted.count

    # --- source groups ---

    def groups(self, cursor: str | None = None, limit: int = PAGE) -> Page[SourceGroup]:
        """Return a page of the source groups. Raises InvalidSchema."""
        connection = self.database.read()
        return page(lambda number, count: sources.groups_after(connection, number, count), cursor, limit)

    def group(self, group_id: str) -> SourceGroup | None:
        """Return the source group, None if there is none of that id."""
        found = sources.find_group(self.database.read(), group_id)
        return None if found is None else found[1]

    def create_group(self, name: str, alerts: tuple[ListAlert, ...] = ()) -> SourceGroup:
        """Make a source group. Raises ListNotFound for an alert on an unknown list."""
        made = SourceGroup(self._identifiers.new(), name, self._clock(), alerts)
        with self.database.write() as transaction:
            sources.insert_group(transaction, made)
        return made

    def update_group(
        self, group_id: str, name: str | None = None, alerts: tuple[ListAlert, ...] | None = None
    ) -> SourceGroup:
        """Change what is given (`alerts`: all of them) and return the group. Raises ItemNotFound, ListNotFound."""
        with self.database.write() as transaction:
            return sources.update_group(transaction, group_id, name, alerts)

    def delete_group(self, group_id: str) -> None:
        """Delete the group. Its sources stay, without a group. Raises ItemNotFound."""
        with self.database.write(essential=True) as transaction:
            sources.delete_group(transaction, group_id)

    # --- sources ---

    def sources(self, cursor: str | None = None, limit: int = PAGE, group_id: str | None = None) -> Page[Source]:
        """Return a page of the sources, or of those of a group. Raises ItemNotFound, InvalidSchema."""
        connection = self.database.read()
        group = None if group_id is None else sources.the_group(connection, group_id)[0]
        return page(lambda number, count: sources.sources_after(connection, number, count, group), cursor, limit)

    def source(self, source_id: str | None) -> Source | None:
        """Return the source, None if there is none of that id."""
        found = None if source_id is None else sources.find_source(self.database.read(), source_id)
        return None if found is None else found[1]

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

    def update_source(self, source_id: str, changes: Callable[[Source], Source]) -> Source:
        """Write what `changes` makes of the source as it is, and return that; its id and time of creation stay.

        `changes` is called in the transaction, so it only computes. Raises ItemNotFound (the source or its new
        group), ListNotFound.
        """
        with self.database.write() as transaction:
            return sources.update_source(transaction, source_id, changes)

    def delete_source(self, source_id: str) -> None:
        """Delete the source; its id stays in the records of persons and sightings. Raises ItemNotFound."""
        with self.database.write(essential=True) as transaction:
            sources.delete_source(transaction, source_id)
