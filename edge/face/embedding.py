"""Crop to unit vector: the cheap probe, the rich template, and how near a vector is to everybody."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge.errors import Mistake, PackUnusable
from edge.face.alignment import alignment, crop
from edge.face.tflite import Model
from edge.types import AlignmentPoint, Cohort, CropVariant, Embedding, Picture, Points, Vector, unit

PLAIN = CropVariant(scale=1.0, shift_x=0.0, shift_y=0.0, mirrored=False)
"""The crop as the alignment has it."""


def cohort_similarity(vector: Vector, cohort: Cohort | None) -> float:
    """Return the mean cosine of a unit vector to its nearest cohort vectors; 0 without a cohort.

    Cohort normalisation takes it off the similarity, so that a face that resembles everybody matches nobody.
    """
    if cohort is None:
        return 0.0
    cosines = cohort.vectors @ vector
    nearest = np.partition(cosines, len(cosines) - cohort.nearest)[-cohort.nearest :]
    return float(nearest.mean())


class Embedder:
    """Aligned crops in, embeddings out."""

    def __init__(
        self,
        model: Model,
        *,
        template: Sequence[AlignmentPoint],
        probe_crops: Sequence[CropVariant],
        template_crops: Sequence[CropVariant],
        cohort: Cohort | None,
    ) -> None:
        """Take the pack's alignment template, crops and cohort; PackUnusable if the network is not of their length."""
        lengths = [math.prod(shape) for shape in model.output_shapes]
        if cohort is not None and lengths != [cohort.vectors.shape[1]]:
            reason = f"its network returns {model.output_shapes}, its cohort has vectors of {cohort.vectors.shape[1]}"
            raise PackUnusable(Mistake("embedder", reason))
        self.model = model
        self._template = template
        self._probe_crops = probe_crops
        self._template_crops = template_crops
        self._cohort = cohort

    def crop(self, picture: Picture, points: Points, variant: CropVariant = PLAIN) -> Picture:
        """Return the crop that the network sees of the face with these mesh points."""
        rows, columns = self.model.spec.rows, self.model.spec.columns
        return crop(picture, alignment(points, self._template, rows, columns), variant, rows, columns)

    def is_fed(self, points: Points, reduction: float = 1) -> bool:
        """Whether the picture in which the mesh has these points is at least as sharp as the network's input.

        Or whether it still is, so many times smaller.
        """
        rows, columns = self.model.spec.rows, self.model.spec.columns
        matrix = alignment(points, self._template, rows, columns)
        return math.hypot(matrix[0, 0], matrix[1, 0]) * reduction <= 1

    def probe(self, picture: Picture, points: Points) -> Embedding:
        """Return the embedding to search with: few crops, as every frame pays for it."""
        return self._mean(picture, points, self._probe_crops)

    def template(self, picture: Picture, points: Points) -> Embedding:
        """Return the embedding to keep: the mean over many crops, paid once, when a person is added."""
        return self._mean(picture, points, self._template_crops)

    def given(self, vector: NDArray[np.float32]) -> Embedding:
        """Return the embedding of a vector that a caller sent; ValueError if it has no direction."""
        return self._embedding(vector)

    def _mean(self, picture: Picture, points: Points, variants: Sequence[CropVariant]) -> Embedding:
        vectors = [self.model.run(self.crop(picture, points, variant))[0].ravel() for variant in variants]
        return self._embedding(np.mean([unit(vector) for vector in vectors], axis=0))

    def _embedding(self, vector: NDArray[np.float32]) -> Embedding:
        direction = unit(vector)
        return Embedding(direction, cohort_similarity(direction, self._cohort))
