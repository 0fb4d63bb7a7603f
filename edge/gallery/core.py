"""What the parts of the embedded gallery share: the open data folder, its indexes, its locks.

Locks, outermost first: the gallery's (whoever changes persons: search, decision, commit and index are one step), the
database's writer (the history's too), an index's own (one search or one change). Readers of rows and pictures take
none of them, `identify` only the index's.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edge.errors import Mistake, PackMismatch
from edge.gallery import lists, persons, sightings
from edge.gallery.calls import Waiting
from edge.gallery.database import Database
from edge.gallery.identifiers import Identifiers
from edge.gallery.indexes import Indexes
from edge.gallery.persons import Removed
from edge.gallery.pictures import Pictures
from edge.gallery.protocol import Counts
from edge.gallery.rejections import Negatives
from edge.gallery.space import Space
from edge.types import Embedding, PersonList, Template

if TYPE_CHECKING:
    from typing_extensions import Self

log = logging.getLogger(__name__)

PICTURES_NAME = "pictures"

SELECT_META = "SELECT value FROM meta WHERE key = :key"
UPDATE_CLOCK = "UPDATE meta SET value = max(value, :clock_ms) WHERE key = 'clock_ms'"


class Core:
    """An open data folder. `database` and `pictures` are there for the history, which shares them."""

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
        self._waiting = Waiting()
        self._main_list_id = self._made_main_list(main_list_name)
        self._pictures_missing = self._sweep()
        self._negatives = Negatives(
            database.read(), pack_id=pack_id, vector_length=vector_length, cohort_weight=cohort_weight
        )
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
        space: Space | None = None,
        is_checked: bool = False,
    ) -> Self:
        """Open the gallery of a data folder, making what is missing.

        `pack_id`, `vector_length`, `cohort_weight`: of the pack whose vectors are compared; `exact_limit`: templates
        of a list up to which every search is exact; `main_list_name` counts when the main list is made; `clock` gives
        milliseconds since 1970; `space` is the room on the folder's disk; `is_checked`: see Database. Raises
        GalleryUnusable, StorageFull.
        """
        database = Database(folder, space=space, is_checked=is_checked)
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
        found = lists.main_list(self.database.read())
        if found is None:
            found = PersonList(self._identifiers.new(), name, self._clock(), is_main=True, count=0)
            with self.database.write(essential=True) as transaction:
                lists.insert_list(transaction, found)
        return found.list_id

    def _sweep(self) -> int:
        """Make files and rows agree: a crash leaves a file without a row, a damaged disk a row without a file.

        Return how many files were missing.
        """
        connection = self.database.read()
        missing = self.pictures.sweep(
            lambda prefix: {*persons.pictures(connection, prefix), *sightings.pictures(connection, prefix)}
        )
        if missing:
            log.warning("%d pictures are missing, among them %s", len(missing), ", ".join(missing[:10]))
            try:
                self._forget(missing)
            except sqlite3.DatabaseError:  # an index of the sightings was damaged and has been made anew
                self._forget(missing)
        return len(missing)

    def _forget(self, missing: Sequence[str]) -> None:
        with self.database.write(essential=True) as transaction:
            persons.forget_pictures(transaction, missing)
            sightings.forget_pictures(transaction, missing)

    def counts(self) -> Counts:
        """Return what the gallery holds, without counting it anew."""
        checked, agreed = self._indexes.recall
        return Counts(
            lists=self._meta("lists"),
            persons=self._meta("persons"),
            templates=self._meta("templates"),
            set_aside=self._indexes.damaged,
            other_packs=self._indexes.other_packs,
            pictures_missing=self._pictures_missing,
            recall_checked=checked,
            recall_agreed=agreed,
        )

    # --- for the other parts ---

    @property
    def main_list_id(self) -> str:
        """The list that is meant where none is named."""
        return self._main_list_id

    def _check_template(self, template: Template) -> None:
        self._check_embedding(template.embedding)
        if template.pack_id != self._pack_id:
            raise PackMismatch(Mistake("embedding", f"made by {template.pack_id}, not by {self._pack_id}"))

    def _check_embedding(self, embedding: Embedding) -> None:
        vector = embedding.vector
        if vector.shape != (self._vector_length,):
            raise PackMismatch(
                Mistake("embedding", f"has {vector.size} numbers, the active model's have {self._vector_length}")
            )
        if not (np.isfinite(vector).all() and np.isfinite(embedding.cohort_similarity)):
            raise ValueError("an embedding with numbers that are not finite compares with nothing")

    def _clean_up(self, removed: Removed) -> None:
        self._indexes.forget(removed.templates)
        self.pictures.delete(removed.pictures)
