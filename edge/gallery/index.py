"""Search in one list: exact up to a limit, above it a graph proposes and exact products decide.

The index is a cache of the rows of one list and one pack; whoever is in doubt throws it away and loads the rows again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from edge.gallery.graph import LEAST_EF, Graph, Labels
from edge.types import Embedding, Vector

log = logging.getLogger(__name__)

FIRST_CAPACITY = 4
TEMPLATES_PER_PERSON = 20
"""A person has at most so many: as many times more templates must be proposed than persons are wanted."""

FIRST_TAKE = 64
"""Templates looked at in the first round of an exact search; eight times more if they are of too few persons."""

ROUNDING = 1e-5
"""More than single and double precision differ by in an inner product of 128 numbers (measured: 3e-7)."""

REMOVED_SHARE_LIMIT = 0.3
"""Above it the graph is rebuilt: removed rows slow it down."""

GRAPH_HEADROOM = 1.5
"""A new graph has room for half as many templates again, and its successor is begun at 90 % of it."""

GRAPH_FILL_LIMIT = 0.9

BUILD_CHUNK = 1000
"""Rows copied under the lock at a time while a graph is built: 0.2 ms each."""

LAST_ROUND = 64
"""So few missing rows are added under the lock (0.5 ms each), after which the new graph is complete."""

CHECK_EVERY = 100
"""One search by the graph in so many is repeated exactly, to know its recall."""


class ListIndex:
    """The templates of one list. Every method may be called from any thread: one lock per index serialises them.

    The similarity of a probe a and a template b is cos(a, b) - weight * (m_a + m_b), m the cohort similarity. A row is
    the template's vector with -weight * m_b behind it, a query the probe's with 1 behind it, so that one inner product
    is the similarity but for -weight * m_a, which is the same for every row.
    """

    def __init__(
        self,
        vector_length: int,
        *,
        cohort_weight: float,
        exact_limit: int,
        ef: int = LEAST_EF,
        check_every: int = CHECK_EVERY,
    ) -> None:
        """`exact_limit`: templates up to which every search is exact."""
        self._cohort_weight = cohort_weight
        self._exact_limit = exact_limit
        self._ef = ef
        self._check_every = check_every
        self._lock = threading.Lock()
        self._matrix = np.zeros((FIRST_CAPACITY, vector_length + 1), np.float32)
        self._labels: Labels = np.zeros(FIRST_CAPACITY, np.int64)
        self._persons: NDArray[np.int64] = np.zeros(FIRST_CAPACITY, np.int64)
        self._rows: dict[int, int] = {}
        self._graph: Graph | None = None
        self._builder: threading.Thread | None = None
        self._closed = threading.Event()
        self.graph_searches = 0
        self.checked = 0
        """Searches by the graph that were repeated exactly."""
        self.agreed = 0
        """Those of them whose first person was the same."""

    def __len__(self) -> int:
        """Templates."""
        return len(self._rows)

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
            first, end = len(self._rows), len(self._rows) + len(labels)
            self._reserve(end)
            self._matrix[first:end, :-1] = vectors
            self._matrix[first:end, -1] = -self._cohort_weight * cohort_similarities
            self._labels[first:end] = labels
            self._persons[first:end] = persons
            self._rows.update(zip(labels, range(first, end), strict=True))
            if self._graph is not None:
                if self._graph.used + len(labels) <= self._graph.capacity:
                    self._graph.add(self._labels[first:end], self._matrix[first:end])
                else:
                    self._graph = None  # exact search answers until its successor is built
            self._build_if_due()

    def _reserve(self, count: int) -> None:
        capacity = len(self._labels)
        if count <= capacity:
            return
        more = max(count, 2 * capacity) - capacity
        self._matrix = np.concatenate([self._matrix, np.zeros((more, self._matrix.shape[1]), np.float32)])
        self._labels = np.concatenate([self._labels, np.zeros(more, np.int64)])
        self._persons = np.concatenate([self._persons, np.zeros(more, np.int64)])

    def remove_persons(self, persons: Collection[int]) -> int:
        """Remove every template of these persons; return how many there were."""
        with self._lock:
            count = self._remove_persons(persons)
            self._build_if_due()
            return count

    def _remove_persons(self, persons: Collection[int]) -> int:
        rows = np.flatnonzero(np.isin(self._persons[: len(self._rows)], list(persons)))
        for row in rows[::-1].tolist():  # from the end, so that what moves into a gap has been looked at
            self._remove_row(row)
        return len(rows)

    def _remove_row(self, row: int) -> None:
        """Move the last row into the gap."""
        last = len(self._rows) - 1
        label = int(self._labels[row])
        if row != last:
            self._matrix[row] = self._matrix[last]
            self._labels[row] = self._labels[last]
            self._persons[row] = self._persons[last]
            self._rows[int(self._labels[last])] = row
        self._matrix[last] = 0  # an erased vector is not left in memory
        del self._rows[label]
        if self._graph is not None:
            self._graph.remove(label)

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
        if self._graph is None or len(self._rows) <= self._exact_limit:
            return None
        labels = self._graph.propose(query, persons * TEMPLATES_PER_PERSON)
        if labels is None:
            return None
        rows = np.fromiter((self._rows[label] for label in labels.tolist()), np.int64, len(labels))
        found = self._best_persons(rows, query, persons)
        if len(found) < persons and len(rows) < len(self._rows):
            return None  # the proposals were of too few persons
        self.graph_searches += 1
        if self.graph_searches % self._check_every == 0:
            self.checked += 1
            self.agreed += found[:1] == self._found_exactly(query, 1)
        return found

    def _found_exactly(self, query: Vector, persons: int) -> list[tuple[int, float]]:
        count = len(self._rows)
        products = self._matrix[:count] @ query
        take = max(FIRST_TAKE, 8 * persons)
        while take < count:
            least = float(np.partition(products, count - take)[count - take])
            rows = np.flatnonzero(products >= least - 2 * ROUNDING)
            found = self._best_persons(rows, query, persons)
            if len(found) == persons and found[-1][1] >= least - ROUNDING:  # no row left out can be as near
                return found
            take *= 8
        return self._best_persons(np.arange(count), query, persons)

    def _best_persons(self, rows: NDArray[np.int64], query: Vector, persons: int) -> list[tuple[int, float]]:
        """Decide among the rows in double precision, in which a product does not depend on where its row stands."""
        products = (self._matrix[rows].astype(np.float64) * query.astype(np.float64)).sum(axis=1)
        numbers = self._persons[rows]
        order = np.lexsort((numbers, -products))
        _, firsts = np.unique(numbers[order], return_index=True)
        best = order[np.sort(firsts)[:persons]]
        return list(zip(numbers[best].tolist(), products[best].tolist(), strict=True))

    # --- the graph ---

    def _build_if_due(self) -> None:
        """Begin to build a graph in the background if one is missing or worn (under the lock)."""
        if len(self._rows) <= self._exact_limit:
            if len(self._rows) <= self._exact_limit // 2:
                self._graph = None  # not at once: a list that hovers about the limit would build again and again
            return
        graph = self._graph
        if self._builder is not None or self._closed.is_set():
            return
        if graph is None or graph.removed_share > REMOVED_SHARE_LIMIT or graph.used > GRAPH_FILL_LIMIT * graph.capacity:
            self._builder = threading.Thread(target=self._build, name="index-builder", daemon=True)
            self._builder.start()

    def _build(self) -> None:
        """Build beside the searches, catch up with what changed meanwhile, and put the new graph in."""
        with contextlib.suppress(OSError, AttributeError):  # only where Linux lets a thread be nicer than its process
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
        try:
            while not self._closed.is_set() and not self._built(self._new_graph()):
                pass
        except Exception:  # the boundary of a thread: exact search goes on, only slower
            log.exception("the search graph could not be built; searches stay exact")
        finally:
            with self._lock:
                self._builder = None

    def _new_graph(self) -> Graph:
        with self._lock:
            capacity = int(GRAPH_HEADROOM * len(self._rows)) + BUILD_CHUNK
            return Graph(self._matrix.shape[1], capacity, ef=self._ef)

    def _built(self, graph: Graph) -> bool:
        """Fill the graph and put it in; False if the list outgrew it meanwhile."""
        while not self._closed.is_set():
            with self._lock:
                present, ever = self._labels[: len(self._rows)].copy(), graph.labels()
                missing = np.setdiff1d(present, ever)
                if graph.used + len(missing) > graph.capacity:
                    return False
                if len(missing) <= LAST_ROUND:
                    self._add_rows(graph, missing)
                    for label in np.setdiff1d(ever, present).tolist():
                        graph.remove(label)
                    self._graph = graph
                    return True
            for start in range(0, len(missing), BUILD_CHUNK):
                if self._closed.is_set():
                    return True
                with self._lock:
                    chunk = [label for label in missing[start : start + BUILD_CHUNK].tolist() if label in self._rows]
                    block = self._matrix[[self._rows[label] for label in chunk]]
                if chunk:
                    graph.add(np.array(chunk, np.int64), block)  # off the lock: nobody else has this graph yet
        return True

    def _add_rows(self, graph: Graph, labels: Labels) -> None:
        if len(labels):
            graph.add(labels, self._matrix[[self._rows[label] for label in labels.tolist()]])

    @property
    def has_graph(self) -> bool:
        """Whether searches are answered by a graph at present."""
        return self._graph is not None and len(self) > self._exact_limit

    def wait_until_built(self, seconds: float) -> None:
        """Wait for the graph that is being built, if one is."""
        builder = self._builder
        if builder is not None:
            builder.join(seconds)

    def close(self) -> None:
        """Give up what is being built; searches go on."""
        self._closed.set()
        self.wait_until_built(60)
