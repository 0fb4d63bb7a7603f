"""Search in one list: exact up to a limit, above it a graph proposes and exact products decide.

The index is a cache of the rows of one list and one pack; whoever is in doubt throws it away and loads the rows again.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import threading
import time
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from edge.gallery.exact import GROWTH, ExactRows
from edge.gallery.graph import LEAST_EF, Graph
from edge.gallery.label_rows import Labels
from edge.gallery.saved import SavedGraph, Snapshot
from edge.types import Embedding, Vector

log = logging.getLogger(__name__)

TEMPLATES_PER_PERSON = 20
"""A person has at most so many: as many times more templates must be proposed than persons are wanted."""

REMOVED_SHARE_LIMIT = 0.3
"""Above it the graph is rebuilt: removed rows slow it down."""

BUILD_CHUNK = 1000
"""Rows copied under the lock at a time while a graph is built: 0.2 ms each."""

COPIED_AT_ONCE = 10_000
"""Rows copied under the lock to hold a loaded graph against them: 2 ms."""

COMPARED_AT_ONCE = 100
"""Of them those that hnswlib is asked for at a time: 0.8 ms, in which nobody else runs."""

LAST_ROUND = 64
"""So few missing rows are added under the lock (0.5 ms each), after which the new graph is complete."""

CHECK_EVERY = 100
"""One search by the graph in so many is repeated exactly, to know its recall."""

LEAST_RANKED = 256
"""Proposals, the best first, that are ranked exactly; all of them where those are of too few persons."""

SAVE_SECONDS = 3600.0
"""Between two savings while serving: a graph of a million templates is 0.7 GB, and cards wear."""

SAVE_SHARE = 0.05
"""A saved graph is replaced when more than this share of the templates has changed; what is missing in it after a crash
is added at the start, 0.5 ms each."""

DOUBT_SHARE = 0.3
"""A saved graph that differs from the rows by more is not worth mending."""

WIPED_AT_ONCE = 4
"""Vectors of removed rows overwritten under the lock before a graph is saved: 2 ms each."""


class ListIndex(ExactRows):
    """The templates of one list. Every method may be called from any thread: one lock per index serialises them."""

    def __init__(
        self,
        vector_length: int,
        *,
        cohort_weight: float,
        exact_limit: int,
        ef: int = LEAST_EF,
        check_every: int = CHECK_EVERY,
        saved: SavedGraph | None = None,
    ) -> None:
        """`exact_limit`: templates up to which every search is exact; `saved`: where the graph is kept."""
        super().__init__(vector_length, cohort_weight=cohort_weight)
        self._exact_limit = exact_limit
        self._ef = ef
        self._check_every = check_every
        self._lock = threading.Lock()
        self._saved = saved
        self._saved_at = time.monotonic()
        self._unsaved = 0
        self._graph: Graph | None = None
        self._builder: threading.Thread | None = None
        self._closed = threading.Event()
        self.graph_searches = 0
        self.checked = 0
        """Searches by the graph that were repeated exactly."""
        self.agreed = 0
        """Those of them whose first person was the same."""

    # --- changes ---

    def add(self, label: int, person: int, embedding: Embedding, *, instead_of: Collection[int] = ()) -> None:
        """Add a template under a label that is not there; see `add_many`."""
        cohort = np.array([embedding.cohort_similarity])
        self.add_many([label], [person], embedding.vector[np.newaxis], cohort, instead_of=instead_of)

    def add_many(
        self,
        labels: Sequence[int],
        persons: Sequence[int],
        vectors: NDArray[np.float32],
        cohort_similarities: NDArray[np.float64],
        *,
        instead_of: Collection[int] = (),
    ) -> None:
        """Add templates (a row of `vectors` each) under labels that are not there.

        A label that was removed may come back, with the vector that it had. In the same step every template of the
        persons `instead_of` is removed: no search finds them missing.
        """
        with self._lock:
            if instead_of:
                self._remove_persons(instead_of)
            self._append(labels, persons, vectors, cohort_similarities)
            first = self._count - len(labels)
            self._unsaved += len(labels)
            if self._graph is not None:
                self._graph.add(self._labels[first : self._count], self._matrix[first : self._count])
            self._work_if_due()

    def fill(
        self,
        labels: Sequence[int],
        persons: Sequence[int],
        vectors: NDArray[np.float32],
        cohort_similarities: NDArray[np.float64],
        *,
        of: int = 0,
    ) -> None:
        """Add as `add_many` does, one part of many, at a start; `filled` comes after the last. `of`: rows in all."""
        with self._lock:
            self._reserve(of)
            self._append(labels, persons, vectors, cohort_similarities)

    def filled(self) -> None:
        """Begin to load or build the graph, if the list is to have one."""
        with self._lock:
            self._work_if_due()

    def remove_persons(self, persons: Collection[int]) -> int:
        """Remove every template of these persons; return how many there were."""
        with self._lock:
            count = self._remove_persons(persons)
            self._work_if_due()
            return count

    def _remove_persons(self, persons: Collection[int]) -> int:
        rows = np.flatnonzero(np.isin(self._persons[: self._count], list(persons)))
        if len(rows) and self._saved is not None:
            self._saved.discard()  # before anybody is told that they are gone
        for row in rows[::-1].tolist():  # from the end, so that what moves into a gap has been looked at
            label = self._remove_row(row)
            self._unsaved += 1
            if self._graph is not None:
                self._graph.remove(label)
        return len(rows)

    # --- search ---

    def search(self, vector: Vector, cohort_similarity: float, persons: int) -> list[tuple[int, float]]:
        """Return up to `persons` (person number, similarity by their best template), best first, ties by number."""
        query = np.append(vector, np.float32(1)).astype(np.float32)
        with self._lock:
            found = self._found_by_graph(query, persons)
            if found is None:
                found = self._found_exactly(query, persons)
        offset = self._cohort_weight * cohort_similarity
        return [(person, product - offset) for person, product in found]

    def _found_by_graph(self, query: Vector, persons: int) -> list[tuple[int, float]] | None:
        if self._graph is None or self._count <= self._exact_limit:
            return None
        labels = self._graph.propose(query, persons * TEMPLATES_PER_PERSON)
        if labels is None:
            return None
        ranked = max(LEAST_RANKED, persons * TEMPLATES_PER_PERSON)
        found = self._best_persons(self._rows.of(labels[:ranked]), query, persons)
        if len(found) < persons and len(labels) > ranked:
            found = self._best_persons(self._rows.of(labels), query, persons)
        if len(found) < persons and len(labels) < self._count:
            return None  # the proposals were of too few persons
        self.graph_searches += 1
        if self.graph_searches % self._check_every == 0:
            self.checked += 1
            self.agreed += found[:1] == self._found_exactly(query, 1)
            self._work_if_due()
        return found

    # --- the graph ---

    def _work_if_due(self) -> None:
        """Begin to load, build or save the graph in the background if that is to be done (under the lock)."""
        if self._count <= self._exact_limit:
            if self._count <= self._exact_limit // 2:
                self._graph = None  # not at once: a list that hovers about the limit would build again and again
            return
        if self._builder is None and not self._closed.is_set() and (self._build_is_due() or self._save_is_due()):
            self._builder = threading.Thread(target=self._work, name="index-builder", daemon=True)
            self._builder.start()

    def _build_is_due(self) -> bool:
        return self._graph is None or self._graph.removed_share > REMOVED_SHARE_LIMIT

    def _save_is_due(self) -> bool:
        if self._saved is None or time.monotonic() < self._saved_at + SAVE_SECONDS:
            return False
        return self._unsaved > SAVE_SHARE * self._count or not self._saved.is_there

    def _work(self) -> None:
        try:
            was_loaded = self._graph is None and self._loaded()
            with contextlib.suppress(OSError, AttributeError):  # where Linux lets a thread be nicer than its process
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
            if self._build_is_due():
                self._build()
            if not was_loaded or self._save_is_due():
                self._save()
            _give_back_memory()
        except Exception:  # the boundary of a thread: exact search goes on, only slower
            log.exception("the search graph could not be built or saved; searches go on")
        finally:
            with self._lock:
                self._builder = None

    def _loaded(self) -> bool:
        """Put in the graph that was saved, brought up to date; False if there is none that is worth it."""
        graph = None if self._saved is None else self._saved.load(self._matrix.shape[1], ef=self._ef)
        if graph is None or self._saved is None:
            return False
        labels = graph.labels()
        with self._lock:
            present = self._labels[: self._count].copy()
        stale, missing = np.setdiff1d(labels, present), np.setdiff1d(present, labels)
        if len(stale) + len(missing) > DOUBT_SHARE * len(present):
            self._saved.give_up("too much has changed since it was written")
            return False
        if not self._agrees(graph, np.intersect1d(labels, present)):
            self._saved.give_up("its vectors are not those of the database")
            return False
        if len(stale):
            self._saved.discard()  # they may be of somebody who was being erased when the power went
        self._unsaved = len(stale) + len(missing)
        return self._caught_up(graph)

    def _agrees(self, graph: Graph, labels: Labels) -> bool:
        """Whether the graph has the vectors that the rows have under these labels, unless they are gone meanwhile."""
        for start in range(0, len(labels), COPIED_AT_ONCE):
            with self._lock:
                rows = self._rows.of(labels[start : start + COPIED_AT_ONCE])
                rows = rows[rows >= 0]
                chunk, ours = self._labels[rows], self._matrix[rows]
            for first in range(0, len(chunk), COMPARED_AT_ONCE):
                part = slice(first, first + COMPARED_AT_ONCE)
                try:
                    theirs = graph.rows(chunk[part])
                except RuntimeError:  # how hnswlib says that it has no such label
                    return False
                if not np.array_equal(theirs, ours[part]):
                    return False
        return True

    def _build(self) -> None:
        """Build beside the searches, catch up with what changed meanwhile, and put the new graph in."""
        with self._lock:
            capacity = self._count + self._count // GROWTH + BUILD_CHUNK
        self._caught_up(Graph(self._matrix.shape[1], capacity, ef=self._ef))

    def _caught_up(self, graph: Graph) -> bool:
        """Give the graph what it lacks, take from it what is gone, and put it in; False if closed meanwhile."""
        while not self._closed.is_set():
            labels = graph.labels()
            with self._lock:
                present = self._labels[: self._count].copy()
                missing = np.setdiff1d(present, labels)
                if len(missing) <= LAST_ROUND:
                    self._add_rows(graph, missing)
                    for label in np.setdiff1d(labels, present).tolist():
                        graph.remove(label)
                    self._graph = graph
                    return True
            for start in range(0, len(missing), BUILD_CHUNK):
                if self._closed.is_set():
                    return False
                with self._lock:
                    rows = self._rows.of(missing[start : start + BUILD_CHUNK])
                    rows = rows[rows >= 0]
                    chunk, block = self._labels[rows], self._matrix[rows]
                if len(chunk):
                    graph.add(chunk, block)  # off the lock: nobody else has this graph yet
        return False

    def _add_rows(self, graph: Graph, labels: Labels) -> None:
        if len(labels):
            graph.add(labels, self._matrix[self._rows.of(labels)])

    def _save(self) -> None:
        """Save the graph, without the vectors that were removed from it. A full disk is logged: it is a cache."""
        self._saved_at = time.monotonic()  # a failure is not repeated at once
        try:
            snapshot = self._snapshot()
            if snapshot is not None and self._saved is not None and not self._saved.finish(snapshot):
                log.info("somebody was removed while the index was being saved; it is saved later")
        except OSError as error:
            log.warning("the index could not be saved: %s", error)

    def _snapshot(self) -> Snapshot | None:
        while True:
            with self._lock:
                graph = self._graph
                if graph is None or self._saved is None or graph.removed_share > REMOVED_SHARE_LIMIT:
                    return None
                if graph.wipe(WIPED_AT_ONCE):
                    snapshot = self._saved.begin(graph, self._matrix.shape[1])
                    self._unsaved = 0
                    return snapshot

    @property
    def has_graph(self) -> bool:
        """Whether searches are answered by a graph at present."""
        return self._graph is not None and len(self) > self._exact_limit

    def wait_until_built(self, seconds: float) -> None:
        """Wait for what is being loaded, built or saved, if anything is."""
        builder = self._builder
        if builder is not None:
            builder.join(seconds)

    def close(self) -> None:
        """Give up what is being built, save what has changed; searches go on. Twice does no harm."""
        if self._closed.is_set():
            return
        self._closed.set()
        self.wait_until_built(60)
        if self._saved is not None and self.has_graph and (self._unsaved or not self._saved.is_there):
            self._save()

    def throw_away(self) -> None:
        """Give up the index and whatever is saved of it."""
        self._closed.set()
        if self._saved is not None:
            self._saved.discard()  # ends what is being written
        self.wait_until_built(60)
        if self._saved is not None:
            self._saved.discard()


def _give_back_memory() -> None:
    """Give freed memory back to the system: after a million templates were loaded the C library keeps 80 MB of it."""
    with contextlib.suppress(OSError, AttributeError):  # another C library than GNU's has no such call
        ctypes.CDLL(None).malloc_trim(0)
