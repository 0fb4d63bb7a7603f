"""Picture and points to the crop that the embedder was trained on."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.types import AlignmentPoint, CropVariant, Picture, Points

Matrix = NDArray[np.float64]
"""2 x 3: picture pixels to crop pixels."""


def similarity(origins: NDArray[np.float64], targets: NDArray[np.float64]) -> Matrix:
    """Return the turn, scale and shift (no mirroring) that takes n x 2 origins nearest to the targets.

    Least squares, in closed form: with both sets centred, scale and turn are one complex number.
    """
    origin_mean, target_mean = origins.mean(axis=0), targets.mean(axis=0)
    a = (origins - origin_mean) @ np.array([1, 1j])
    b = (targets - target_mean) @ np.array([1, 1j])
    turn = np.vdot(a, b) / max(float(np.vdot(a, a).real), 1e-12)
    linear = np.array([[turn.real, -turn.imag], [turn.imag, turn.real]])
    return np.column_stack([linear, target_mean - linear @ origin_mean])


def alignment(points: Points, template: Sequence[AlignmentPoint], rows: int, columns: int) -> Matrix:
    """Return the matrix that brings the mesh (468 x 3 pixels) onto the template of a crop of that size."""
    origins = np.array([points[list(point.mesh), :2].mean(axis=0) for point in template], np.float64)
    targets = np.array([(point.x * columns, point.y * rows) for point in template], np.float64)
    return similarity(origins, targets)


def varied(matrix: Matrix, variant: CropVariant, rows: int, columns: int) -> Matrix:
    """Return the matrix with the variant's scale about the crop's centre and its shift (mirroring is for `crop`)."""
    centre = np.array([columns / 2, rows / 2])
    changed = matrix * variant.scale
    changed[:, 2] += centre * (1 - variant.scale) + (variant.shift_x, variant.shift_y)
    return changed


def crop(picture: Picture, matrix: Matrix, variant: CropVariant, rows: int, columns: int) -> Picture:
    """Return the aligned crop, rows x columns x 3.

    A face more than twice the crop's size is first averaged down, so that no detail turns into noise (aliasing).
    """
    matrix = varied(matrix, variant, rows, columns)
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if scale < 0.5:
        picture, matrix = _averaged(picture, matrix, scale, rows, columns)
    warped = cv2.warpAffine(picture, matrix, (columns, rows), flags=cv2.INTER_LINEAR)
    return np.asarray(warped[:, ::-1] if variant.mirrored else warped, np.uint8)


def _averaged(picture: Picture, matrix: Matrix, scale: float, rows: int, columns: int) -> tuple[Picture, Matrix]:
    """Return the part of the picture that the crop shows, shrunk by a whole factor, and the matrix from there."""
    factor = int(1 / scale)
    back = cv2.invertAffineTransform(matrix)
    corners = np.array([(0, 0), (columns, 0), (0, rows), (columns, rows)]) @ back[:, :2].T + back[:, 2]
    height, width = picture.shape[:2]
    left, top = np.clip(np.floor(corners.min(axis=0)).astype(int) - factor, 0, (width - 1, height - 1))
    right, bottom = np.clip(np.ceil(corners.max(axis=0)).astype(int) + factor, (left + 1, top + 1), (width, height))
    part = picture[top:bottom, left:right]
    size = max(1, (right - left) // factor), max(1, (bottom - top) // factor)
    small = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8)
    step = np.array([(right - left) / size[0], (bottom - top) / size[1]])
    changed = matrix.copy()
    # A pixel's centre is at a whole number, so the middle of a shrunk pixel lies (step - 1) / 2 further on.
    changed[:, 2] += matrix[:, :2] @ (np.array([left, top]) + (step - 1) / 2)
    changed[:, :2] = matrix[:, :2] * step
    return small, changed
