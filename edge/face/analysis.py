"""The stages in their order, for one picture: what a worker does with its own set of networks."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass

import numpy as np

from edge.face import pose, quality
from edge.face.detection import Detector, Size, turned
from edge.face.embedding import Embedder
from edge.face.landmarks import FaceMesh
from edge.types import Box, Detection, Landmarks, Measures, Picture, Points, Pose


@dataclass(frozen=True, eq=False)
class Face:
    """A face of a picture, as far as it is needed to judge and to embed it."""

    detection: Detection
    landmarks: Landmarks
    pose: Pose
    measures: Measures
    measured_ms: int
    """What pose and measures took."""

    @property
    def corners(self) -> Points:
        """4 x 2: the box turned with the face's roll, from the top left clockwise."""
        return pose.turned_box(self.landmarks.points, self.pose.roll_degrees)

    def with_pose(self, yaw_degrees: float | None, pitch_degrees: float | None) -> Face:
        """Return the face with the caller's own measurement of the pose in place of ours."""
        changes = {
            name: value
            for name, value in (("yaw_degrees", yaw_degrees), ("pitch_degrees", pitch_degrees))
            if value is not None
        }
        posed = dataclasses.replace(self.pose, **changes)
        measures = dataclasses.replace(self.measures, yaw=posed.yaw_degrees, pitch=posed.pitch_degrees)
        return dataclasses.replace(self, pose=posed, measures=measures)


@dataclass(frozen=True, eq=False)
class Analyser:
    """One set of networks. Not for two threads at once."""

    detector: Detector
    mesh: FaceMesh
    embedder: Embedder

    def faces(self, picture: Picture, *, size: Size, presence_floor: float) -> list[Face]:
        """Return the faces of the upright picture, the largest first.

        `size` is the detector's input for a lying picture. What the mesh gives a presence under `presence_floor` was
        no face.
        """
        found = []
        for detection in self.detector.detect(picture, turned(size, picture)):
            landmarks = self.mesh.locate(picture, detection)
            if landmarks.presence < presence_floor:
                continue
            started = time.perf_counter()
            posed = pose.estimate(landmarks.points)
            measures = quality.measure(picture, landmarks, posed)
            measured_ms = int((time.perf_counter() - started) * 1000)
            found.append(Face(detection, landmarks, posed, measures, measured_ms))
        return sorted(found, key=lambda face: -face.landmarks.box.area)

    def warm_up(self, size: Size) -> None:
        """Run every network once on a blank picture, so that the first frame finds everything allocated.

        Raises what a network that cannot run raises: at the start, and not at a camera's first frame.
        """
        for rows, columns in (size, size[::-1]):
            self.detector.detect(np.zeros((rows, columns, 3), np.uint8), (rows, columns))
        side = float(min(size))
        upright = [(0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.5, 0.8), (0.1, 0.5), (0.9, 0.5)]
        blank = np.zeros((*size, 3), np.uint8)
        landmarks = self.mesh.locate(blank, Detection(Box(0, 0, side, side), 1.0, np.array(upright, np.float32) * side))
        self.embedder.probe(blank, landmarks.points)
