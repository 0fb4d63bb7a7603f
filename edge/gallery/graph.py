"""An HNSW graph that proposes templates near to a probe. It may miss some: exact products decide (index.py)."""

from __future__ import annotations

import hnswlib
import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]

NEIGHBOURS = 16
"""M: links of an element per layer. Measured with ef_construction 200 on clustered galleries of up to a million."""

EF_CONSTRUCTION = 200

LEAST_EF = 800
"""Measured at a million templates: recall@1 .993 at 800, .986 at 400, .956 at 200."""


class Graph:
    """A graph of fixed capacity. Not safe beside itself: hnswlib's adds and queries crash each other.

    Resizing in place is not safe either, so a full graph is replaced by a new one. Labels are never used twice.
    """

    def __init__(self, columns: int, capacity: int, *, ef: int) -> None:
        """`columns`: length of a row; `capacity`: rows, the removed ones included."""
        self.capacity = capacity
        self.removed = 0
        self._ef = max(ef, LEAST_EF)
        self._index = hnswlib.Index(space="ip", dim=columns)
        self._index.init_index(max_elements=capacity, M=NEIGHBOURS, ef_construction=EF_CONSTRUCTION)
        self._index.set_num_threads(1)  # the other cores are the models'

    @property
    def used(self) -> int:
        """Rows, the removed ones included."""
        return int(self._index.get_current_count())

    @property
    def removed_share(self) -> float:
        """0..1: removed rows are still walked through, so many of them make it slow."""
        return self.removed / max(1, self.used)

    def labels(self) -> Labels:
        """Return every label ever added."""
        return np.array(self._index.get_ids_list(), dtype=np.int64)

    def add(self, labels: Labels, rows: NDArray[np.float32]) -> None:
        """Add rows under labels that are not there; there must be room. A removed label may come back with its row."""
        used = self.used
        self._index.add_items(rows, labels.astype(np.uint64), num_threads=1)
        self.removed -= len(labels) - (self.used - used)  # hnswlib takes the mark off those that were there before

    def remove(self, label: int) -> None:
        """Never propose the label again."""
        self._index.mark_deleted(label)
        self.removed += 1

    def propose(self, query: NDArray[np.float32], count: int) -> Labels | None:
        """Return the labels of `count` rows of great inner product, None if the graph does not reach so many."""
        count = min(max(count, self._ef), self.used - self.removed)
        if count < 1:
            return None
        self._index.set_ef(max(self._ef, count))
        try:
            labels, _ = self._index.knn_query(query, k=count, num_threads=1)
        except RuntimeError:  # how hnswlib says that it found fewer
            return None
        found: Labels = labels[0].astype(np.int64)
        return found
