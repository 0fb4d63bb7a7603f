"""The mesh: where it looks, what comes back in the picture's pixels, and whether there is a face at all."""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge.errors import PackUnusable
from edge.face import landmarks
from edge.face.analysis import Analyser
from edge.face.landmarks import FaceMesh
from edge.face.tflite import Model
from edge.types import Box, Detection, Landmarks, Pack, Picture

RIGHT_EYE_OUTER, LEFT_EYE_OUTER, NOSE_TIP, UPPER_LIP, CHIN, BROW = 33, 263, 1, 13, 152, 10
"""Points of the mesh; left and right are the subject's."""

NAMES = ["biden-1", "collins-1", "obama-1", "obama-2", "obama-3", "obama-4", "obama-5"]


def invented(box: Box, *, turned_degrees: float = 0) -> Detection:
    """A detection with its points where a face's would be."""
    x, y = box.centre
    angle = math.radians(turned_degrees)
    across, down = np.array([math.cos(angle), math.sin(angle)]), np.array([-math.sin(angle), math.cos(angle)])
    places = [(-0.2, -0.15), (0.2, -0.15), (0, 0.05), (0, 0.25), (-0.4, 0), (0.4, 0)]
    points = np.array([(x, y) + box.width * (u * across + v * down) for u, v in places], np.float32)
    return Detection(box, 0.9, points)


def seen(analyser: Analyser, picture: Picture) -> Landmarks:
    """The mesh of the picture's best detection."""
    size = (320, 192) if picture.shape[0] > picture.shape[1] else (192, 320)
    return analyser.mesh.locate(picture, analyser.detector.detect(picture, size)[0])


def mean_distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(a[:, :2] - b[:, :2], axis=1).mean())


# --- where it looks ---


@given(st.floats(-100, 2000), st.floats(-100, 2000), st.floats(20, 900), st.floats(0.5, 2), st.floats(-180, 180))
def test_the_region_is_the_grown_square_with_level_eyes(
    x: float, y: float, width: float, aspect: float, degrees: float
) -> None:
    detection = invented(Box(x, y, width, width * aspect), turned_degrees=degrees)
    matrix = landmarks.region(detection, 1.5, 192)
    assert matrix @ [*detection.box.centre, 1] == pytest.approx([96, 96], abs=0.05)
    eyes = np.column_stack([detection.points[:2], np.ones(2)]) @ matrix.T
    assert eyes[0, 0] < eyes[1, 0]
    assert eyes[0, 1] == pytest.approx(eyes[1, 1], abs=0.05)
    scale = math.sqrt(np.linalg.det(matrix[:, :2]))
    assert 192 / scale == pytest.approx(1.5 * detection.box.longer_side, rel=1e-3)
    assert matrix[:, :2] @ matrix[:, :2].T == pytest.approx(scale**2 * np.eye(2), abs=1e-3)


def test_a_box_without_extent_has_a_region_too() -> None:
    assert np.isfinite(landmarks.region(invented(Box(5, 5, 0, 0)), 1.5, 192)).all()


# --- real faces ---


@pytest.mark.parametrize("name", NAMES)
def test_the_points_lie_on_the_face(
    analyser: Analyser, pictures: dict[str, Picture], face_boxes: dict[str, Box], name: str
) -> None:
    found = seen(analyser, pictures[name])
    assert found.presence > 0.8
    assert found.points.shape == (468, 3)
    assert found.points.dtype == np.float32
    truth = face_boxes[name].grown(1.25)
    for low, size, values in ((truth.x, truth.width, found.points[:, 0]), (truth.y, truth.height, found.points[:, 1])):
        assert low < values.min()
        assert values.max() < low + size
    assert found.box.width > 0.75 * face_boxes[name].width
    assert found.box.height > 0.75 * face_boxes[name].height
    points = found.points
    assert points[RIGHT_EYE_OUTER, 0] < points[NOSE_TIP, 0] < points[LEFT_EYE_OUTER, 0]
    assert points[BROW, 1] < points[RIGHT_EYE_OUTER, 1] < points[NOSE_TIP, 1] < points[UPPER_LIP, 1] < points[CHIN, 1]


def test_depth_is_in_pixels_and_grows_away_from_the_camera(analyser: Analyser, pictures: dict[str, Picture]) -> None:
    small = seen(analyser, pictures["collins-1"])
    large = seen(analyser, np.asarray(cv2.resize(pictures["collins-1"], None, fx=2, fy=2), np.uint8))
    nose_to_ear = small.points[234, 2] - small.points[NOSE_TIP, 2]
    assert 0.3 * small.box.width < nose_to_ear < small.box.width
    assert large.points[234, 2] - large.points[NOSE_TIP, 2] == pytest.approx(2 * nose_to_ear, rel=0.15)


@pytest.mark.parametrize("degrees", [-30, 30])
@pytest.mark.parametrize("name", ["collins-1", "obama-1", "obama-3"])
def test_a_turned_picture_has_turned_points(
    analyser: Analyser, pictures: dict[str, Picture], face_boxes: dict[str, Box], name: str, degrees: float
) -> None:
    picture = pictures[name]
    rows, columns = picture.shape[:2]
    matrix = cv2.getRotationMatrix2D(face_boxes[name].centre, degrees, 1.0)
    matrix[:, 2] += 200
    turned = np.asarray(cv2.warpAffine(picture, matrix, (columns + 400, rows + 400)), np.uint8)
    straight, found = seen(analyser, picture), seen(analyser, turned)
    assert found.presence > 0.8
    expected = straight.points[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    assert mean_distance(found.points, expected) < 0.04 * straight.box.width


def test_where_the_box_lies_a_little_makes_little_difference(analyser: Analyser, pictures: dict[str, Picture]) -> None:
    picture = pictures["obama-1"]
    (detection,) = analyser.detector.detect(picture, (320, 192))
    straight = analyser.mesh.locate(picture, detection)
    box = detection.box
    for moved in (Box(box.x + 12, box.y - 12, box.width, box.height), box.grown(1.1), box.grown(0.9)):
        other = analyser.mesh.locate(picture, Detection(moved, 0.9, detection.points))
        assert mean_distance(straight.points, other.points) < 0.03 * straight.box.width


def test_a_face_of_a_thousand_pixels_has_the_same_points(analyser: Analyser, pictures: dict[str, Picture]) -> None:
    large = np.asarray(cv2.resize(pictures["obama-1"], None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC), np.uint8)
    grainy = np.clip(large + np.random.default_rng(2).normal(0, 15, large.shape).astype(np.float32), 0, 255)
    straight, found = seen(analyser, pictures["obama-1"]), seen(analyser, grainy.astype(np.uint8))
    assert mean_distance(found.points / 4, straight.points) < 0.02 * straight.box.width


# --- no face ---


def test_where_no_face_is_presence_is_low(analyser: Analyser, wall: Callable[[int, int], Picture]) -> None:
    rng = np.random.default_rng(5)
    blobs = cv2.resize(rng.integers(0, 256, (36, 64, 3), np.uint8), (1280, 720), interpolation=cv2.INTER_CUBIC)
    empty = {
        "noise": rng.integers(0, 256, (720, 1280, 3), np.uint8),
        "blobs": np.asarray(blobs, np.uint8),
        "wall": wall(720, 1280),
        "black": np.zeros((720, 1280, 3), np.uint8),
    }
    for name, picture in empty.items():
        for box in (Box(100, 100, 100, 100), Box(500, 200, 300, 300), Box(1100, 500, 200, 200)):
            assert analyser.mesh.locate(picture, invented(box)).presence < 0.5, name


def test_a_hand_and_a_flag_are_no_faces(analyser: Analyser, pictures: dict[str, Picture]) -> None:
    for box in (Box(160, 600, 180, 180), Box(40, 250, 150, 150)):
        assert analyser.mesh.locate(pictures["obama-1"], invented(box)).presence < 0.5


@pytest.mark.parametrize("box", [Box(-500, -500, 100, 100), Box(5000, 100, 100, 100), Box(100, 100, 0, 0)])
def test_a_box_off_the_picture_has_no_face(analyser: Analyser, pictures: dict[str, Picture], box: Box) -> None:
    found = analyser.mesh.locate(pictures["obama-1"], invented(box))
    assert found.presence < 0.5
    assert np.isfinite(found.points).all()


# --- the pack ---


def test_a_network_that_is_no_mesh_makes_the_pack_unusable(pack: Pack, interpreter: str) -> None:
    embedder = Model(pack.embedder.file.path, pack.embedder.input, interpreter=interpreter)
    with pytest.raises(PackUnusable, match="landmarks: is no face mesh"):
        FaceMesh(embedder, box_scale=1.5)
