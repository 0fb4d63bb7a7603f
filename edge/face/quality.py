"""Picture and mesh to measures of quality, and measures and limits to reasons."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.types import Box, Landmarks, Limit, Measures, Picture, Points, Pose, Reason

PATCH_PIXELS = 96
"""The tight box is looked at in this size: about what the embedder's crop of 150 pixels shows of it, so that sharpness
means the same for a face of 60 pixels and one of 600."""

FINE_SIGMA, COARSE_SIGMA = 0.8, 2.0
"""Blurs of the patch, in its pixels: the first takes noise off, the second what any blurred face still has."""

SOFTEST, SHARPEST = 0.15, 0.55
"""The share of gradient between the two blurs that reads as 0 and 1: see `sharpness`."""

# Mesh points of each eye: outer and inner corner, then pairs of upper and lower lid (MediaPipe's face mesh topology).
_RIGHT_EYE = ((33, 133), ((159, 145), (158, 153), (160, 144)))
_LEFT_EYE = ((263, 362), ((386, 374), (385, 380), (387, 373)))

LIDS_SHUT, LIDS_OPEN = 0.08, 0.26
"""Lid distance over eye length that reads as 0 and 1: the first is what the mesh gives of shut eyes, the second the
median of the development half of LFW less a little, as narrow eyes are open too."""

# Inner lips: left and right corner, and the middle of the upper and the lower lip.
_MOUTH = ((78, 308), (13, 14))
LIPS_OPEN = 0.8
"""Distance of the inner lips over their width that reads as 1: a shout."""


def measure(picture: Picture, landmarks: Landmarks, pose: Pose) -> Measures:
    """Return the measures of a face of the upright picture."""
    points, box = landmarks.points, landmarks.box
    rows, columns = picture.shape[:2]
    inside = box.within(columns, rows)
    patch = _patch(picture, inside, box.longer_side)
    eyes = [points[list(corners), :2].mean(axis=0) for corners, _ in (_RIGHT_EYE, _LEFT_EYE)]
    return Measures(
        size=box.longer_side,
        yaw=pose.yaw_degrees,
        pitch=pose.pitch_degrees,
        roll=pose.roll_degrees,
        eye_distance=float(np.linalg.norm(eyes[1] - eyes[0])),
        eyes_open=min(_openness(points, *_RIGHT_EYE), _openness(points, *_LEFT_EYE)),
        mouth_open=_mouth_open(points),
        sharpness=sharpness(patch),
        brightness=float(patch.mean()) / 255 if patch.size else 0.0,
        face_presence=landmarks.presence,
        inside=inside.area / box.area if box.area > 0 else 0.0,
    )


def gate(measures: Measures, limits: Sequence[Limit]) -> tuple[Reason, ...]:
    """Return what the face misses, in the limits' order; nothing if it keeps to all."""
    reasons = []
    for limit in limits:
        value = measures.value(limit.measure)
        judged = abs(value) if limit.absolute else value
        if limit.least is not None and judged < limit.least:
            reasons.append(Reason(limit.check, value, limit.least))
        elif limit.most is not None and judged > limit.most:
            reasons.append(Reason(limit.check, value, limit.most))
    return tuple(reasons)


def sharpness(patch: NDArray[np.float32]) -> float:
    """Return how sharp a grey patch of PATCH_PIXELS is, 0 blurred .. 1 sharp.

    The share of its gradient that a blur takes away: little of a face that was blurred already, or blown up from few
    pixels. A share, so that contrast and light do not count. (After the no-reference blur measure of Crete et al.,
    2007.) A light blur first, so that noise does not count as detail.
    """
    if min(patch.shape) < 8:
        return 0.0
    fine = cv2.GaussianBlur(patch, (0, 0), FINE_SIGMA)
    coarse = cv2.GaussianBlur(patch, (0, 0), COARSE_SIGMA)
    before, after = (
        float(np.abs(np.diff(p, axis=0)).mean() + np.abs(np.diff(p, axis=1)).mean()) for p in (fine, coarse)
    )
    if before <= 0:
        return 0.0
    return _between(1 - after / before, SOFTEST, SHARPEST)


def _patch(picture: Picture, inside: Box, longer_side: float) -> NDArray[np.float32]:
    """Return the face in grey, at the scale where its whole box would have PATCH_PIXELS on its longer side."""
    left, top = int(inside.x), int(inside.y)
    part = picture[top : int(np.ceil(inside.y + inside.height)), left : int(np.ceil(inside.x + inside.width))]
    if not part.size or longer_side <= 0:
        return np.empty((0, 0), np.float32)
    scale = PATCH_PIXELS / longer_side
    size = max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale))
    small = cv2.resize(part, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    return cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)


def _openness(points: Points, corners: tuple[int, int], lids: Sequence[tuple[int, int]]) -> float:
    """Return how open one eye is, in three dimensions, so that a turned head does not look like open or shut eyes."""
    length = float(np.linalg.norm(points[corners[0]] - points[corners[1]]))
    gap = float(np.mean([np.linalg.norm(points[upper] - points[lower]) for upper, lower in lids]))
    return _between(gap / max(length, 1e-6), LIDS_SHUT, LIDS_OPEN)


def _mouth_open(points: Points) -> float:
    (left, right), (upper, lower) = _MOUTH
    width = float(np.linalg.norm(points[left] - points[right]))
    return _between(float(np.linalg.norm(points[upper] - points[lower])) / max(width, 1e-6), 0.0, LIPS_OPEN)


def _between(value: float, low: float, high: float) -> float:
    return min(1.0, max(0.0, (value - low) / (high - low)))
