"""The templates of a list in memory, searched exactly. Not for two threads at once: index.py locks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge.gallery.label_rows import LabelRows, Labels, Rows
from edge.types import Vector

FIRST_CAPACITY = 4

DOUBLED_UP_TO = 4096
"""Rows up to which the room doubles when it is full; above it grows by a sixteenth, in place."""

GROWTH = 16

FIRST_TAKE = 64
"""Templates looked at in the first round of an exact search; eight times more if they are of too few persons."""

ROUNDING = 1e-5
"""More than single and double precision differ by in an inner product of 128 numbers (measured: 3e-7)."""


class ExactRows:
    """A matrix of rows and whose they are.

    The similarity of a probe a and a template b is cos(a, b) - weight * (m_a + m_b), m the cohort similarity. A row is
    the template's vector with -weight * m_b behind it, a query the probe's with 1 behind it, so that one inner product
    is the similarity but for -weight * m_a, which is the same for every row.
    """

    def __init__(self, vector_length: int, *, cohort_weight: float) -> None:
        """Begin with no rows."""
        self._cohort_weight = cohort_weight
        self._matrix = np.zeros((FIRST_CAPACITY, vector_length + 1), np.float32)
        self._labels: Labels = np.zeros(FIRST_CAPACITY, np.int64)
        self._persons: NDArray[np.int64] = np.zeros(FIRST_CAPACITY, np.int64)
        self._count = 0
        self._rows = LabelRows()

    def __len__(self) -> int:
        """Templates."""
        return self._count

    def _append(
        self,
        labels: Sequence[int],
        persons: Sequence[int],
        vectors: NDArray[np.float32],
        cohort_similarities: NDArray[np.float64],
    ) -> None:
        first, end = self._count, self._count + len(labels)
        if end > len(self._labels):
            self._reserve(max(end, self._larger()))
        self._matrix[first:end, :-1] = vectors
        self._matrix[first:end, -1] = -self._cohort_weight * cohort_similarities
        self._labels[first:end] = labels
        self._persons[first:end] = persons
        self._rows.put_many(labels, first)
        self._count = end

    def _larger(self) -> int:
        capacity = len(self._labels)
        return 2 * capacity if capacity <= DOUBLED_UP_TO else capacity + capacity // GROWTH

    def _reserve(self, capacity: int) -> None:
        """Grow in place: a copy of a million rows beside them would be 0.5 GB more. Nobody else has the arrays."""
        if capacity > len(self._labels):
            self._matrix.resize((capacity, self._matrix.shape[1]), refcheck=False)
            self._labels.resize(capacity, refcheck=False)
            self._persons.resize(capacity, refcheck=False)

    def _remove_row(self, row: int) -> int:
        """Move the last row into the gap; return the label that is gone."""
        last = self._count - 1
        label = int(self._labels[row])
        if row != last:
            self._matrix[row] = self._matrix[last]
            self._labels[row] = self._labels[last]
            self._persons[row] = self._persons[last]
            self._rows.put(int(self._labels[last]), row)
        self._matrix[last] = 0  # an erased vector is not left in memory
        self._rows.remove(label)
        self._count = last
        return label

    def _found_exactly(self, query: Vector, persons: int) -> list[tuple[int, float]]:
        count = self._count
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

    def _best_persons(self, rows: Rows, query: Vector, persons: int) -> list[tuple[int, float]]:
        """Decide among the rows in double precision, in which a product does not depend on where its row stands."""
        products = (self._matrix[rows].astype(np.float64) * query.astype(np.float64)).sum(axis=1)
        numbers = self._persons[rows]
        order = np.lexsort((numbers, -products))
        _, firsts = np.unique(numbers[order], return_index=True)
        best = order[np.sort(firsts)[:persons]]
        return list(zip(numbers[best].tolist(), products[best].tolist(), strict=True))
