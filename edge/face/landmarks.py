"""Picture and detection to the 468 points of the face mesh, and whether there is a face at all."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.errors import Mistake, PackUnusable
from edge.face.tflite import Model
from edge.types import Detection, Landmarks, Picture

POINTS = 468
"""Points of MediaPipe's face mesh."""

RIGHT_EYE, LEFT_EYE = 0, 1
"""The subject's eyes among the detector's points, whichever detector it is."""


def region(detection: Detection, box_scale: float, side: int) -> NDArray[np.float64]:
    """Return the 2 x 3 matrix from picture pixels to the mesh's square input of `side` pixels.

    The square about the box's centre, `box_scale` times its longer side, turned so that the eyes are level.
    """
    eyes = detection.points[LEFT_EYE] - detection.points[RIGHT_EYE]
    angle = math.atan2(float(eyes[1]), float(eyes[0]))
    scale = side / max(1.0, detection.box.longer_side * box_scale)
    cosine, sine = math.cos(angle) * scale, math.sin(angle) * scale
    x, y = detection.box.centre
    return np.array(
        [
            [cosine, sine, side / 2 - cosine * x - sine * y],
            [-sine, cosine, side / 2 + sine * x - cosine * y],
        ]
    )


class FaceMesh:
    """Runs the face mesh."""

    def __init__(self, model: Model, *, box_scale: float) -> None:
        """`box_scale`: how far the detector's box is grown for the network's input. PackUnusable for no face mesh."""
        self.model = model
        self._box_scale = box_scale
        sizes = [math.prod(shape) for shape in model.output_shapes]
        if POINTS * 3 not in sizes or 1 not in sizes or model.spec.rows != model.spec.columns:
            reason = f"is no face mesh: a square picture to {POINTS} x 3 coordinates and a presence"
            raise PackUnusable(Mistake("landmarks", reason))
        self._points, self._presence = sizes.index(POINTS * 3), sizes.index(1)

    def locate(self, picture: Picture, detection: Detection) -> Landmarks:
        """Return the mesh of the detected face in picture pixels, and its presence."""
        side = self.model.spec.rows
        matrix = region(detection, self._box_scale, side)
        fitted = cv2.warpAffine(picture, matrix, (side, side), flags=cv2.INTER_LINEAR)
        outputs = self.model.run(np.asarray(fitted, np.uint8))
        raw = outputs[self._points].reshape(POINTS, 3)
        back = cv2.invertAffineTransform(matrix)
        points = np.empty((POINTS, 3), np.float32)
        points[:, :2] = raw[:, :2] @ back[:, :2].T + back[:, 2]
        points[:, 2] = raw[:, 2] * np.hypot(back[0, 0], back[0, 1])
        logit = float(outputs[self._presence].ravel()[0])
        return Landmarks(points, 1 / (1 + math.exp(-max(-80.0, min(80.0, logit)))))
