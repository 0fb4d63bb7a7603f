"""Where a template stands: from its label to its row, in 16 bytes a template where a dict takes 130."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
Rows = NDArray[np.int64]

RECENT_LIMIT = 10_000
"""Changes that are kept in a dict before they are sorted in; above 80,000 labels an eighth of them."""

NOWHERE = -1


class LabelRows:
    """A sorted array of labels, and a dict of what has changed since it was sorted. For one thread at a time."""

    def __init__(self) -> None:
        self._labels: Labels = np.zeros(0, np.int64)
        self._rows: Rows = np.zeros(0, np.int64)
        self._recent: dict[int, int] = {}

    def put(self, label: int, row: int) -> None:
        """Say where the label's row is now."""
        self._recent[label] = row

    def put_many(self, labels: Sequence[int], first: int) -> None:
        """Say that the labels' rows follow each other from `first` on."""
        self._recent.update(zip(labels, range(first, first + len(labels)), strict=True))
        self._sort_in_if_due()

    def remove(self, label: int) -> None:
        """Forget a label that is there."""
        self._recent[label] = NOWHERE
        self._sort_in_if_due()

    def of(self, labels: Labels) -> Rows:
        """Return the rows, NOWHERE for labels that have none."""
        places = np.searchsorted(self._labels, labels)
        rows = np.full(len(labels), NOWHERE, np.int64)
        inside = places < len(self._labels)
        places = places[inside]
        rows[inside] = np.where(self._labels[places] == labels[inside], self._rows[places], NOWHERE)
        if self._recent:
            for position, label in enumerate(labels.tolist()):
                rows[position] = self._recent.get(label, rows[position])
        return rows

    def _sort_in_if_due(self) -> None:
        if len(self._recent) <= max(RECENT_LIMIT, len(self._labels) // 8):
            return
        recent = np.fromiter(self._recent.keys(), np.int64, len(self._recent))
        rows = np.fromiter(self._recent.values(), np.int64, len(self._recent))
        kept = ~np.isin(self._labels, recent)
        there = rows != NOWHERE
        labels = np.concatenate([self._labels[kept], recent[there]])
        order = np.argsort(labels, kind="stable")
        self._labels = labels[order]
        self._rows = np.concatenate([self._rows[kept], rows[there]])[order]
        self._recent = {}
