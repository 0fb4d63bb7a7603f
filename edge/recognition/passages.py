"""The frames of one visit, decided together: what a source has seen of a face in the last seconds.

One frame may show a hand before the face, or the one angle from which somebody looks like somebody else. The mean of
the vectors of a visit is nearer to the person than most of them alone. Of 229 frames of five people before one camera,
posted clip by clip in twenty orders, frame by frame 28 were taken for somebody else in the mean; with the frames of a
clip together, and the threshold at 0.9, which single frames do not reach reliably, 4.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from edge import matching
from edge.matching import Calibration
from edge.types import Embedding, Vector

FRAMES = 10
"""The latest frames of a face that count: two seconds of most cameras."""

SAME_VISIT_SCORE = 0.75
"""The score from which a face is the one of the frames before. Low, because whoever stands before a camera is more
likely the one who stood there a second ago than anybody else; of one visit 2 frames in 100 score less."""

FACES = 32
"""Faces of one source that are remembered at once; the one not seen for longest goes first."""

SOURCES = 1000
"""Likewise sources: an id that no source has is recorded as it is, so a client could send any number of them."""


@dataclass(frozen=True)
class Passed:
    """A face as its visit shows it: the mean of its frames, and how many they are, this one included."""

    embedding: Embedding
    frames: int


@dataclass(eq=False)
class _Visit:
    seen_at: float
    frames: deque[Embedding] = field(default_factory=lambda: deque(maxlen=FRAMES))
    count: int = 0


class Passages:
    """What every source has seen in the last seconds. In memory alone; for any thread."""

    def __init__(
        self,
        seconds: float,
        calibration: Calibration,
        cohort_weight: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`seconds`: how long a face may be out of sight and still be on the same visit."""
        self._seconds = seconds
        self._calibration = calibration
        self._cohort_weight = cohort_weight
        self._clock = clock
        self._lock = threading.Lock()
        self._visits: OrderedDict[str, list[_Visit]] = OrderedDict()

    def joined(
        self, source_id: str, faces: Sequence[Embedding], embedding_of: Callable[[Vector], Embedding]
    ) -> list[Passed]:
        """Return the faces of one frame of the source, each together with those of its visit, and remember them.

        `embedding_of` makes the embedding of a mean of vectors.
        """
        now = self._clock()
        with self._lock:
            visits = self._current(source_id, now)
            found = self._matched(faces, visits)
            for number, face in enumerate(faces):
                visit = found.setdefault(number, _Visit(now))
                visit.seen_at = now
                visit.frames.append(face)
                visit.count += 1
            fresh = [visit for visit in found.values() if visit not in visits]
            self._visits[source_id] = sorted([*visits, *fresh], key=lambda visit: -visit.seen_at)[:FACES]
            means = [np.mean([one.vector for one in found[number].frames], axis=0) for number in range(len(faces))]
            counts = [found[number].count for number in range(len(faces))]
        return [Passed(embedding_of(mean), count) for mean, count in zip(means, counts, strict=True)]

    def _current(self, source_id: str, now: float) -> list[_Visit]:
        for known in list(self._visits):
            self._visits[known] = [one for one in self._visits[known] if now - one.seen_at <= self._seconds]
            if not self._visits[known]:
                del self._visits[known]
        visits = self._visits.pop(source_id, [])
        while len(self._visits) >= SOURCES:
            self._visits.popitem(last=False)
        return visits

    def _matched(self, faces: Sequence[Embedding], visits: Sequence[_Visit]) -> dict[int, _Visit]:
        """Return the visit that each face goes on with, if any: the likeliest pairs first, none used twice."""
        pairs = sorted(
            (
                (self._score(face, visit), number, at)
                for number, face in enumerate(faces)
                for at, visit in enumerate(visits)
            ),
            key=lambda pair: (-pair[0], pair[1:]),
        )
        found: dict[int, _Visit] = {}
        taken: set[int] = set()
        for score, number, at in pairs:
            if score >= SAME_VISIT_SCORE and number not in found and at not in taken:
                found[number] = visits[at]
                taken.add(at)
        return found

    def _score(self, face: Embedding, visit: _Visit) -> float:
        return max(self._calibration.score(matching.similarity(face, one, self._cohort_weight)) for one in visit.frames)
