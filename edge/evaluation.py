"""What a pack makes of a folder of pictures: one folder for each person, every picture compared with every other.

The product's own pipeline, and a comparison as the product compares: a probe against a template. `edge calibrate` and
scripts/evaluate.py both measure with it. Terms are those of ISO/IEC 19795.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.errors import Refusal
from edge.face import image
from edge.face.analysis import Analyser
from edge.face.passes import Size
from edge.types import Embedding

Similarities = NDArray[np.float32]

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})

ENOUGH_FALSE_MATCHES = 10
"""A rate that rests on fewer false matches says little: its standard error is a third of it.

Of two pictures either is the probe once, and people have several pictures, so ten may be few pairs of people: what
rests on them is told with the number of people."""


@dataclass(frozen=True, eq=False)
class Sample:
    """A picture whose largest face was embedded, as a probe and as a template."""

    person: str
    path: Path
    probe: Embedding
    template: Embedding


@dataclass(frozen=True, eq=False)
class Comparisons:
    """Normalised similarities of probes (rows) with templates (columns), and which of them are mated."""

    similarity: Similarities
    mated: NDArray[np.bool_]
    non_mated: NDArray[np.bool_]


@dataclass(frozen=True)
class Sampler:
    """Embeds the largest face of a picture; default.conf says what the numbers are."""

    analyser: Analyser
    detector_size: Size | None
    presence_floor: float
    min_face_pixels: float
    max_pixels: int
    min_side_pixels: int

    def __call__(self, path: Path) -> Sample | None:
        """Return the sample; None for a failure to enrol: no picture, no face, or one too small to be compared."""
        try:
            picture = image.decode(path.read_bytes(), max_pixels=self.max_pixels, min_side=self.min_side_pixels)
        except Refusal:
            return None
        passes = self.analyser.passes(picture.shape, self.min_face_pixels, self.detector_size)
        faces = self.analyser.faces(
            picture, passes, presence_floor=self.presence_floor, enough_pixels=self.min_face_pixels
        )
        if not faces or faces[0].size < self.min_face_pixels:
            return None
        points, embedder = faces[0].landmarks.points, self.analyser.embedder
        return Sample(path.parent.name, path, embedder.probe(picture, points), embedder.template(picture, points))


def pictures(folder: Path) -> list[Path]:
    """Return the pictures of a folder that holds a folder for each person, in their order."""
    return sorted(path for path in folder.glob("*/*") if path.suffix.lower() in PICTURES and path.is_file())


def compared(samples: Sequence[Sample], cohort_weight: float) -> Comparisons:
    """Return every probe against every template but that of its own picture: one sample or more.

    8 bytes of memory a comparison.
    """
    probes, templates = [s.probe for s in samples], [s.template for s in samples]
    similarity = np.array([p.vector for p in probes]) @ np.array([t.vector for t in templates]).T
    similarity -= cohort_weight * np.array([p.cohort_similarity for p in probes], np.float32)[:, None]
    similarity -= cohort_weight * np.array([t.cohort_similarity for t in templates], np.float32)[None, :]
    people = np.array([s.person for s in samples])
    mated = people[:, None] == people[None, :]
    itself = np.eye(len(samples), dtype=bool)
    return Comparisons(similarity, mated & ~itself, ~mated)


def similarity_at(non_mated: Similarities, fmr: float) -> float | None:
    """Return the similarity that no more than this share (0..1) of the non-mated comparisons reaches.

    None where fewer than ENOUGH_FALSE_MATCHES would reach it: too few comparisons to say.
    """
    allowed = int(fmr * len(non_mated) + 1e-6)  # the product may fall short of a whole number by a rounding
    if allowed < ENOUGH_FALSE_MATCHES:
        return None
    return float(np.partition(non_mated, len(non_mated) - allowed)[len(non_mated) - allowed])


def share_from(similarities: Similarities, similarity: float) -> float | None:
    """Return the share of comparisons (0..1) at or above the similarity: TMR of mated ones, FMR of non-mated.

    None where there are no comparisons.
    """
    return float((similarities >= np.float32(similarity)).mean()) if len(similarities) else None
