"""The stages in their order, for one picture: what a worker does with its own set of networks."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from edge.face import pose, quality
from edge.face.detection import Detector, Found
from edge.face.embedding import Embedder
from edge.face.landmarks import FaceMesh
from edge.face.passes import Pass, Size, turned, whole
from edge.types import Box, Detection, Landmarks, Limit, Measures, Picture, Points, Pose

SAME_FACE_SHARE = 0.6
"""Two boxes that share more than this of the smaller one are of one face: nobody's face shows that much of another."""


@dataclass(frozen=True, eq=False)
class Face:
    """A face of a picture, as far as it is needed to judge and to embed it."""

    picture: Picture
    """The one in whose pixels detection and landmarks are."""
    detection: Detection
    landmarks: Landmarks
    pose: Pose
    reduction: int = 1
    """How many times smaller than the frame the picture is.

    Everything else is in pixels of the frame.
    """

    @property
    def size(self) -> float:
        """Longer side of the tight box, pixels of the frame."""
        return self.landmarks.box.longer_side * self.reduction

    @property
    def measures(self) -> Measures:
        """What is measured of the face: once it is asked for, as of most faces, which are known, nobody does."""
        return self._measured[0]

    @property
    def measured_ms(self) -> int:
        """What the measures took."""
        return self._measured[1]

    @cached_property
    def _measured(self) -> tuple[Measures, int]:
        started = time.perf_counter()
        measures = quality.measure(self.picture, self.landmarks, self.pose)
        if self.reduction > 1:
            measures = dataclasses.replace(
                measures, size=measures.size * self.reduction, eye_distance=measures.eye_distance * self.reduction
            )
        return measures, int((time.perf_counter() - started) * 1000)

    @property
    def box(self) -> Box:
        """The tight box of the mesh, in the frame."""
        return self.landmarks.box.scaled(self.reduction)

    @property
    def corners(self) -> Points:
        """4 x 2: the box turned with the face's roll, from the top left clockwise, in the frame."""
        return pose.turned_box(self.landmarks.points, self.pose.roll_degrees) * self.reduction

    def misses_at_once(self, limits: Sequence[Limit]) -> bool:
        """Whether it misses one of the limits for which its pixels need not be looked at."""
        known = {
            "size": self.size,
            "yaw": self.pose.yaw_degrees,
            "pitch": self.pose.pitch_degrees,
            "face_presence": self.landmarks.presence,
        }
        return quality.misses_at_once(known, limits)

    def with_pose(self, yaw_degrees: float | None, pitch_degrees: float | None) -> Face:
        """Return the face with the caller's own measurement of the pose in place of ours."""
        changes = {
            name: value
            for name, value in (("yaw_degrees", yaw_degrees), ("pitch_degrees", pitch_degrees))
            if value is not None
        }
        return dataclasses.replace(self, pose=dataclasses.replace(self.pose, **changes))


@dataclass(frozen=True, eq=False)
class Analyser:
    """One set of networks. Not for two threads at once."""

    detector: Detector
    mesh: FaceMesh
    embedder: Embedder

    def passes(self, shape: tuple[int, ...], smallest_face_pixels: float, size: Size | None = None) -> tuple[Pass, ...]:
        """Return the passes that find faces from that size up, or the one of the input size that is asked for.

        `size` is for a lying picture; an upright one takes it turned.
        """
        rows, columns = shape[:2]
        if size is None:
            return self.detector.plan(rows, columns, smallest_face_pixels)
        return (whole(turned(size, rows, columns), rows, columns),)

    def faces(
        self,
        picture: Picture,
        passes: Sequence[Pass],
        *,
        presence_floor: float,
        enough_pixels: float | None = None,
        reduction: int = 1,
    ) -> list[Face]:
        """Return the faces of the upright picture, the largest first.

        `passes`: the detector's, coarse first. What the mesh gives a presence under `presence_floor` was no face.
        `enough_pixels`: the largest face alone is wanted, so the finer passes are left out once one of that size is
        found; None: all faces are. `reduction`: how many times smaller than the frame the picture is; passes and
        `enough_pixels` are the picture's.
        """
        looks: list[Found] = []
        located: list[tuple[Detection, Landmarks]] = []
        for number, one in enumerate(passes, 1):
            looks.append(self.detector.look(picture, one))
            if enough_pixels is None and number < len(passes):
                continue
            located = self._located(picture, self.detector.merged(looks), presence_floor)
            if enough_pixels is not None and any(marks.box.longer_side >= enough_pixels for _, marks in located):
                break
        faces = [_face(picture, detection, landmarks, reduction) for detection, landmarks in located]
        return sorted(faces, key=lambda face: -face.landmarks.box.area)

    def closer(self, picture: Picture, faces: Sequence[Face]) -> list[Face]:
        """Return the faces as they are in the frame itself, after they were found in it made smaller."""
        closer = []
        for face in faces:
            found = face.detection
            detection = Detection(found.box.scaled(face.reduction), found.score, found.points * face.reduction)
            closer.append(_face(picture, detection, self.mesh.locate(picture, detection), reduction=1))
        return closer

    def _located(
        self, picture: Picture, detections: Sequence[Detection], presence_floor: float
    ) -> list[tuple[Detection, Landmarks]]:
        """Return the faces among the detections: what the mesh is surest of first, and none twice.

        Two boxes may be of one face and yet overlap too little for the detector to join them, one of them being loose.
        """
        located = [(detection, self.mesh.locate(picture, detection)) for detection in detections]
        kept: list[tuple[Detection, Landmarks]] = []
        for detection, marks in sorted(located, key=lambda one: -one[1].presence):
            if marks.presence >= presence_floor and not any(_is_same(marks.box, other.box) for _, other in kept):
                kept.append((detection, marks))
        return kept

    def warm_up(self, sizes: Sequence[Size]) -> None:
        """Run every network once on a blank picture, so that the first frame finds everything allocated.

        `sizes`: the detector's inputs to begin with; a further one is loaded when the first picture needs it. Raises
        what a network that cannot run raises: at the start, and not at a camera's first frame.
        """
        for rows, columns in sizes:
            self.detector.detect(np.zeros((rows, columns, 3), np.uint8), (rows, columns))
        side = 192.0
        upright = [(0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.5, 0.8), (0.1, 0.5), (0.9, 0.5)]
        blank = np.zeros((int(side), int(side), 3), np.uint8)
        landmarks = self.mesh.locate(blank, Detection(Box(0, 0, side, side), 1.0, np.array(upright, np.float32) * side))
        self.embedder.probe(blank, landmarks.points)


def _is_same(one: Box, other: Box) -> bool:
    return one.shared_area(other) > SAME_FACE_SHARE * min(one.area, other.area)


def _face(picture: Picture, detection: Detection, landmarks: Landmarks, reduction: int) -> Face:
    return Face(picture, detection, landmarks, pose.estimate(landmarks.points), reduction)
