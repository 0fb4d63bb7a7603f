"""Picture and mesh to measures of quality, and measures and limits to reasons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.types import Landmarks, Limit, Measures, Picture, Points, Pose, Reason

Grey = NDArray[np.float32]
"""Rows x columns, luma 0..255."""

PATCH_PIXELS = 96
"""The longer side of the tight box is brought to this before the face is looked at, so that sharpness means the same
for a face of 60 pixels and one of 600. The embedder's crop of 150 pixels shows the box at about 1.5 times this; detail
finer than a pixel of the patch changes no score, and noise lives there."""

FINE_SIGMA, COARSE_SIGMA = 0.8, 2.0
"""Blurs of the patch, in its pixels: the first takes noise off, the second what any blurred face still has."""

EDGE_SHARE = 0.1
"""The share of the face's pixels, those of the steepest gradient, whose sharpness is the face's: lids, nostrils, lips.
The rest is smooth skin, where a gradient is mostly noise."""

DIRECTIONS = 4
"""Directions in which the gradient is taken, evenly over half a turn; the least sharp counts: a face that moved is
sharp across its motion alone. With the direction left open, a third of the faces smeared by an eighth of their size
read as sharp as those at rest; with four, one in thirty does; eight are no better."""

SOFTEST, SHARPEST = 0.05, 0.50
"""The share of gradient between the two blurs that reads as 0 and 1. Faces of 110 pixels (development half of LFW) and
of 70 (a webcam) have 0.36 in the median; the softest hundredth of them, and those enlarged from 30 pixels, 0.24; a blur
of 4 % of the face leaves 0.08."""

LEAST_PIXELS = 64
"""Pixels of the patch that must lie on the face and in the picture for its sharpness to be known; else it is 0."""

# The mesh's outline, clockwise from the middle of the forehead (MediaPipe's face mesh topology, FACEMESH_FACE_OVAL).
_OUTLINE = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)

# Mesh points of each eye: outer and inner corner, then pairs of upper and lower lid (the same topology).
_RIGHT_EYE = ((33, 133), ((159, 145), (158, 153), (160, 144)))
_LEFT_EYE = ((263, 362), ((386, 374), (385, 380), (387, 373)))

LIDS_SHUT, LIDS_OPEN = 0.12, 0.25
"""Lid distance over eye length that reads as 0 and 1. The mesh sees lids less far apart or together than they are:
shut eyes of the development half of LFW lie at 0.12 to 0.16, screwed up or laughing ones at 0.14 to 0.2, and the median
of all at 0.26."""

# Inner lips: left and right corner, and the middle of the upper and the lower lip.
_MOUTH = ((78, 308), (13, 14))

_LENGTHS = tuple((corners, *lids) for corners, lids in (_RIGHT_EYE, _LEFT_EYE))
_STARTS, _ENDS = ([pair[end] for pairs in (*_LENGTHS, _MOUTH) for pair in pairs] for end in (0, 1))
"""Every distance of eyes and mouth, taken at once: each by itself costs ten times as much."""

LIPS_OPEN = 0.8
"""Distance of the inner lips over their width that reads as 1: a shout. One face in a hundred of LFW reaches 0.6."""


def measure(picture: Picture, landmarks: Landmarks, pose: Pose) -> Measures:
    """Return the measures of a face of the upright picture."""
    points, box = landmarks.points, landmarks.box
    rows, columns = picture.shape[:2]
    inside = box.within(columns, rows)
    grey, face = _patch(picture, points)
    right_eye, left_eye = (points[list(corners), :2].mean(axis=0) for corners, _ in (_RIGHT_EYE, _LEFT_EYE))
    # in three dimensions, so that a turned head does not look like open or shut eyes
    lengths = np.sqrt(np.square(points[_STARTS] - points[_ENDS]).sum(axis=1)).tolist()
    right, left, (mouth_width, lips_gap) = lengths[:4], lengths[4:8], lengths[8:]
    return Measures(
        size=box.longer_side,
        yaw=pose.yaw_degrees,
        pitch=pose.pitch_degrees,
        roll=pose.roll_degrees,
        eye_distance=math.dist(right_eye, left_eye),
        eyes_open=min(_openness(*right), _openness(*left)),
        mouth_open=_between(lips_gap / max(mouth_width, 1e-6), 0.0, LIPS_OPEN),
        sharpness=sharpness(grey, face),
        brightness=float(grey[face].mean()) / 255 if face.any() else 0.0,
        face_presence=landmarks.presence,
        inside=inside.area / box.area if box.area > 0 else 0.0,
    )


def gate(measures: Measures, limits: Sequence[Limit]) -> tuple[Reason, ...]:
    """Return what the face misses, in the limits' order; nothing if it keeps to all. A value on its limit keeps to it.

    A measure that is not a number keeps to no limit.
    """
    reasons = (_missed(limit, measures.value(limit.measure)) for limit in limits)
    return tuple(reason for reason in reasons if reason)


def misses_at_once(face: Mapping[str, float], limits: Sequence[Limit]) -> bool:
    """Whether a limit is missed by the measures that are known already, by name."""
    return any(_missed(limit, face[limit.measure]) for limit in limits if limit.measure in face)


def _missed(limit: Limit, value: float) -> Reason | None:
    judged = abs(value) if limit.absolute else value
    if limit.least is not None and not judged >= limit.least:
        return Reason(limit.check, value, limit.least)
    if limit.most is not None and not judged <= limit.most:
        return Reason(limit.check, value, limit.most)
    return None


def sharpness(grey: Grey, face: NDArray[np.bool_]) -> float:
    """Return how sharp a face is at the patch's scale, 0 blurred .. 1 sharp; `face` says which pixels are its.

    The share of the gradient at its edges that a blur takes away: little of a face that was blurred already, or blown
    up from few pixels. A share, so that contrast and light do not count (after the no-reference blur measure of Crete
    et al., 2007); a light blur first, and the edges alone, so that noise does not count as detail.
    """
    if int(face.sum()) < LEAST_PIXELS:
        return 0.0
    (fine_x, fine_y), (coarse_x, coarse_y) = (_gradient(grey, sigma, face) for sigma in (FINE_SIGMA, COARSE_SIGMA))
    shares = []
    for angle in np.arange(DIRECTIONS) * np.pi / DIRECTIONS:
        cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        fine, coarse = np.abs(cosine * fine_x + sine * fine_y), np.abs(cosine * coarse_x + sine * coarse_y)
        count = int(fine.size * EDGE_SHARE)
        edges = np.argpartition(fine, -count)[-count:]
        before, after = float(fine[edges].mean()), float(coarse[edges].mean())
        shares.append(1 - after / before if before > 0 else 0.0)
    return _between(min(shares), SOFTEST, SHARPEST)


def _gradient(grey: Grey, sigma: float, face: NDArray[np.bool_]) -> tuple[Grey, Grey]:
    """Return the gradient's x and y at the face's pixels, after a blur."""
    blurred = np.asarray(cv2.GaussianBlur(grey, (0, 0), sigma), np.float32)
    across, down = (cv2.Sobel(blurred, cv2.CV_32F, *order) for order in ((1, 0), (0, 1)))
    return np.asarray(across, np.float32)[face], np.asarray(down, np.float32)[face]


def _patch(picture: Picture, points: Points) -> tuple[Grey, NDArray[np.bool_]]:
    """Return the face in grey, its box's longer side PATCH_PIXELS, and which pixels are the face's.

    What lies outside the picture is left out: the patch of a cut face is smaller, at the same scale.
    """
    rows, columns = picture.shape[:2]
    outline = points[list(_OUTLINE), :2]
    start = np.clip(np.floor(outline.min(axis=0)), 0, (columns, rows)).astype(int)
    end = np.clip(np.ceil(outline.max(axis=0)) + 1, 0, (columns, rows)).astype(int)
    part = picture[start[1] : end[1], start[0] : end[0]]
    longer = float(np.ptp(outline, axis=0).max())
    if not part.size or longer <= 0:
        return np.zeros((1, 1), np.float32), np.zeros((1, 1), np.bool_)
    scale = PATCH_PIXELS / longer
    size = max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale))
    luma = cv2.cvtColor(part, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(luma, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    grey = small.astype(np.float32)
    face = np.zeros(grey.shape, np.uint8)
    cv2.fillPoly(face, [np.round((outline - start) * scale).astype(np.int32)], 1)
    # The border is where hair and background begin: not the face's own detail.
    return grey, cv2.erode(face, np.ones((5, 5), np.uint8), borderValue=1).astype(np.bool_)


def _openness(length: float, *gaps: float) -> float:
    """Return how open one eye is, from its length and the distances of its lids."""
    return _between(sum(gaps) / len(gaps) / max(length, 1e-6), LIDS_SHUT, LIDS_OPEN)


def _between(value: float, low: float, high: float) -> float:
    return min(1.0, max(0.0, (value - low) / (high - low)))
