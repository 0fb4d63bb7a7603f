"""Which templates of a person to keep: those that differ most from each other show most of the person."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge.types import Vector

SAME = 1 - 1e-6
"""Cosine from which on two vectors are one: two pictures of a face never come near it, one picture sent twice does."""


def most_different(vectors: Sequence[Vector], qualities: Sequence[float], most: int) -> list[int]:
    """Return the places of up to `most` unit vectors to keep, by a greedy choice of the farthest point.

    First the one of the best quality; then, again and again, the one whose greatest cosine to those chosen is the
    least (of equals the better, then the earlier). It ends before `most` where only copies of the chosen are left.
    """
    if not vectors:
        return []
    points, rank = np.stack(vectors).astype(np.float64), -np.asarray(qualities, np.float64)
    chosen = [int(np.argmin(rank))]
    nearest = points @ points[chosen[0]]
    while len(chosen) < most:
        alike = np.flatnonzero(nearest <= nearest.min() + (1 - SAME))  # one picture sent twice differs in the last bits
        farthest = int(alike[np.argmin(rank[alike])])
        if nearest[farthest] >= SAME:  # the chosen themselves are at 1
            break
        chosen.append(farthest)
        nearest = np.maximum(nearest, points @ points[farthest])
    return chosen
