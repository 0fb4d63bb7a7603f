"""An HNSW graph that proposes templates near to a probe. It may miss some: exact products decide (index.py)."""

from __future__ import annotations

import hnswlib
import numpy as np
from numpy.typing import NDArray

from edge.gallery.label_rows import Labels

NEIGHBOURS = 16
"""M: links of an element per layer. Measured with ef_construction 200 on clustered galleries of up to a million."""

EF_CONSTRUCTION = 200

LEAST_EF = 800
MOST_EF = 1600
ROWS_PER_EF = 500
"""How far a search looks: a candidate for so many rows, within these limits. Measured recall@1 on two galleries: of
100,000 templates 1.000 and 1.000 at 800; of a million .993 and .998 at 800, .996 and 1.000 at 1600."""

GROWTH = 16
"""A full graph grows by one part in so many."""


class Graph:
    """A graph. Not safe beside itself: hnswlib's adds, queries and growth crash each other, so one thread at a time.

    Labels are never used twice. A removed element stays in the graph, walked through and never proposed; its vector
    stays as well until it is wiped.
    """

    def __init__(self, columns: int, capacity: int, *, ef: int) -> None:
        """`columns`: length of a row; `capacity`: rows that there is room for to begin with; `ef`: the least."""
        self._prepare(columns, ef)
        self._index.init_index(max_elements=capacity, M=NEIGHBOURS, ef_construction=EF_CONSTRUCTION)

    def _prepare(self, columns: int, ef: int) -> None:
        self._least_ef = ef
        self._index = hnswlib.Index(space="ip", dim=columns)
        self._index.set_num_threads(1)  # the other cores are the models'
        self._nothing = np.zeros((1, columns), np.float32)
        self._removed: set[int] = set()
        self._unwiped: set[int] = set()

    @classmethod
    def load(cls, path: str, columns: int, removed: frozenset[int], *, ef: int) -> Graph:
        """Return what `save` wrote, in which `removed` had been removed. Only ever a file that is known to be whole.

        hnswlib believes whatever it reads. It holds the interpreter's lock meanwhile: 1 s for a million rows.
        """
        graph = cls.__new__(cls)
        graph._prepare(columns, ef)
        graph._index.load_index(path)
        graph._removed = set(removed)
        return graph

    def save(self, path: str) -> None:
        """Write the graph. Holds the interpreter's lock until all is written. ValueError before everything is wiped."""
        if self._unwiped:
            raise ValueError("a graph with vectors that were removed must not be written")
        self._index.save_index(path)

    @property
    def used(self) -> int:
        """Rows, the removed ones included."""
        return int(self._index.get_current_count())

    @property
    def capacity(self) -> int:
        """Rows that there is room for."""
        return int(self._index.get_max_elements())

    @property
    def removed(self) -> int:
        """Removed rows."""
        return len(self._removed)

    @property
    def removed_labels(self) -> tuple[int, ...]:
        """The labels of removed rows."""
        return tuple(self._removed)

    @property
    def removed_share(self) -> float:
        """0..1: removed rows are still walked through, so many of them make it slow."""
        return len(self._removed) / max(1, self.used)

    def labels(self) -> Labels:
        """Return the labels of the rows that were not removed."""
        ever = np.array(self._index.get_ids_list(), dtype=np.int64)
        return np.setdiff1d(ever, np.fromiter(self._removed, np.int64, len(self._removed)), assume_unique=True)

    def rows(self, labels: Labels) -> NDArray[np.float32]:
        """Return the rows of labels that are there."""
        return np.array(self._index.get_items(labels.astype(np.uint64)), np.float32)

    def add(self, labels: Labels, rows: NDArray[np.float32]) -> None:
        """Add rows under labels that are not there. A removed label may come back with its row."""
        if self.used + len(labels) > self.capacity:
            self._index.resize_index(max(self.used + len(labels), self.capacity + self.capacity // GROWTH))
        self._index.add_items(rows, labels.astype(np.uint64), num_threads=1)  # takes the mark off those that were there
        self._removed.difference_update(labels.tolist())
        self._unwiped.difference_update(labels.tolist())

    def remove(self, label: int) -> None:
        """Never propose the label again."""
        self._index.mark_deleted(label)
        self._removed.add(label)
        self._unwiped.add(label)

    def wipe(self, most: int) -> bool:
        """Overwrite up to `most` vectors of removed rows with zeros; return whether none is left."""
        for _ in range(min(most, len(self._unwiped))):
            label = self._unwiped.pop()
            self._index.add_items(self._nothing, np.array([label], np.uint64), num_threads=1)
            self._index.mark_deleted(label)
        return not self._unwiped

    def propose(self, query: NDArray[np.float32], count: int) -> Labels | None:
        """Return the labels of `count` or more rows of great inner product, the greatest first.

        None if the graph does not reach so many.
        """
        ef = max(self._least_ef, min(MOST_EF, self.used // ROWS_PER_EF), count)
        count = min(ef, self.used - len(self._removed))
        if count < 1:
            return None
        self._index.set_ef(ef)
        try:
            labels, _ = self._index.knn_query(query, k=count, num_threads=1)
        except RuntimeError:  # how hnswlib says that it found fewer
            return None
        found: Labels = labels[0].astype(np.int64)
        return found
