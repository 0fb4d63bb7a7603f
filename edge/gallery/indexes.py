"""The indexes of all lists, loaded from the rows, and which rows cannot be served."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from edge.gallery import persons
from edge.gallery.database import Database
from edge.gallery.index import ListIndex
from edge.gallery.persons import TemplateRow
from edge.gallery.saved import Shelf

log = logging.getLogger(__name__)

ROWS_AT_ONCE = 1000
"""Rows of a list that are held as rows at a start, where a million of them would be 0.8 GB."""

SELECT_LIST_SIZE = "SELECT persons FROM lists WHERE number = :number"


class Indexes:
    """An index per list. Rows that are damaged or of another pack are not in it; their persons stay on record."""

    def __init__(
        self,
        database: Database,
        lock: threading.RLock,
        *,
        pack_id: str,
        vector_length: int,
        cohort_weight: float,
        exact_limit: int,
    ) -> None:
        """Load every list: 0.6 s of a desktop core for 100,000 templates in 10,000 lists.

        `lock`: held by whoever changes templates.
        """
        self._database = database
        self._lock = lock
        self._pack_id = pack_id
        self._vector_length = vector_length
        self._cohort_weight = cohort_weight
        self._exact_limit = exact_limit
        self._shelf = Shelf(database, pack_id)
        self._of_list: dict[int, ListIndex] = {}
        self._damaged: set[int] = set()
        self._other_packs: set[int] = set()
        self.moves = 0
        """Persons who have changed lists. Whoever searches several lists and sees it change has to search again."""
        self._of_list.update(self._loaded(persons.templates(database.read())))
        self._shelf.sweep([number for number, index in self._of_list.items() if len(index) > exact_limit])
        for index in self._of_list.values():
            index.filled()

    @property
    def damaged(self) -> int:
        """Templates whose checksum or length is wrong."""
        return len(self._damaged)

    @property
    def other_packs(self) -> int:
        """Templates of packs other than the active one."""
        return len(self._other_packs)

    @property
    def recall(self) -> tuple[int, int]:
        """Graph searches that were repeated exactly, and those of them that agreed."""
        indexes = list(self._of_list.values())
        return sum(index.checked for index in indexes), sum(index.agreed for index in indexes)

    def of(self, list_number: int) -> ListIndex:
        """Return the list's index, loaded from the rows if it was never used or was thrown away."""
        index = self._of_list.get(list_number)
        if index is not None:
            return index
        with self._lock:  # so that no change falls between the rows that are read and the index that is put in
            if list_number not in self._of_list:
                rows = persons.templates(self._database.read(), list_number=list_number)
                index = self._loaded(rows).get(list_number) or self._empty(list_number)
                index.filled()
                self._of_list[list_number] = index
            return self._of_list[list_number]

    @contextlib.contextmanager
    def following(self, list_number: int) -> Iterator[ListIndex]:
        """Yield the list's index, to be changed as its rows were, which are committed.

        What goes wrong is not the request's fault, whose change is on disk: the index is thrown away, and the next use
        loads it from the rows. Under the lock.
        """
        index = self.of(list_number)
        try:
            yield index
        except Exception:
            log.exception("an index could not follow its rows and is loaded anew")
            del self._of_list[list_number]
            index.throw_away()

    def reload(self, list_number: int, person: int, *, instead_of: Sequence[int] = ()) -> None:
        """Take in what the rows say of a person of the list, as it is now, and let go of the persons `instead_of`."""
        with self.following(list_number) as index:
            templates = self._served(persons.templates(self._database.read(), person=person))
            rows = [row for row in templates if row.list_number == list_number]
            _add(index, rows, instead_of=[person, *instead_of])

    def move(self, person: int, former_list: int, list_number: int) -> None:
        """Follow a person from list to list. Between the two steps they are in both, never in neither."""
        self.reload(list_number, person)
        self.moves += 1
        with self.following(former_list) as index:
            index.remove_persons([person])

    def drop(self, list_number: int) -> None:
        """Let go of the index of a list that has been deleted."""
        index = self._of_list.pop(list_number, None) or self._empty(list_number)
        index.throw_away()

    def load_anew(self) -> None:
        """Have every index loaded from the rows at its next use: more has changed than it is worth following."""
        for number in list(self._of_list):
            self._of_list.pop(number).throw_away()
        self._damaged.clear()
        self._other_packs.clear()

    def forget(self, templates: Iterable[int]) -> None:
        """Note that these templates have been deleted."""
        self._damaged.difference_update(templates)
        self._other_packs.difference_update(templates)

    def close(self) -> None:
        """Stop building in the background; save what took long to build."""
        for index in self._of_list.values():
            index.close()

    def _served(self, rows: Iterable[TemplateRow]) -> Iterator[TemplateRow]:
        for row in rows:
            is_ours = row.pack_id == self._pack_id
            if not row.is_intact or (is_ours and len(row.vector) != 4 * self._vector_length):
                log.error("template %d of person %d is damaged and set aside", row.id, row.person)
                self._damaged.add(row.id)
            elif not is_ours:
                self._other_packs.add(row.id)
            else:
                yield row

    def _loaded(self, rows: Iterable[TemplateRow]) -> dict[int, ListIndex]:
        """Return the indexes of these rows; large ones are filled in parts, and may not begin a graph before."""
        loaded: dict[int, ListIndex] = {}
        waiting: defaultdict[int, list[TemplateRow]] = defaultdict(list)

        def fill(number: int) -> None:
            part, size = waiting.pop(number), 0
            if number not in loaded:
                loaded[number] = self._empty(number)
                size = self._size(number) if len(part) == ROWS_AT_ONCE else 0
            loaded[number].fill(*_columns(part), of=size)

        for row in self._served(rows):
            waiting[row.list_number].append(row)
            if len(waiting[row.list_number]) == ROWS_AT_ONCE:
                fill(row.list_number)
        for number in list(waiting):
            fill(number)
        return loaded

    def _size(self, list_number: int) -> int:
        row = self._database.read().execute(SELECT_LIST_SIZE, {"number": list_number}).fetchone()
        return 0 if row is None else int(row[0])

    def _empty(self, list_number: int) -> ListIndex:
        return ListIndex(
            self._vector_length,
            cohort_weight=self._cohort_weight,
            exact_limit=self._exact_limit,
            saved=self._shelf.of(list_number),
        )


def _add(index: ListIndex, rows: Sequence[TemplateRow], *, instead_of: Sequence[int] = ()) -> None:
    if rows:
        index.add_many(*_columns(rows), instead_of=instead_of)
    else:
        index.remove_persons(instead_of)


def _columns(
    rows: Sequence[TemplateRow],
) -> tuple[list[int], list[int], NDArray[np.float32], NDArray[np.float64]]:
    """Return labels, persons, vectors and cohort similarities."""
    return (
        [row.id for row in rows],
        [row.person for row in rows],
        np.frombuffer(b"".join([row.vector for row in rows]), "<f4").reshape(len(rows), -1),
        np.array([row.cohort_similarity for row in rows]),
    )
