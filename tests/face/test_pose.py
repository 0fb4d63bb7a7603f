"""How the head is turned: signs, sizes, and what must not change it; and the box that turns with the roll."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge.face import image, pose
from edge.face.analysis import Analyser, Face
from edge.types import Picture, Points, Pose

FRONTAL = ["obama-1", "obama-4", "obama-5", "collins-1"]
TURNED = {"obama-2": -18, "obama-3": 12, "biden-1": 11}
"""Yaw as a person judges it, to within 10 degrees: obama-2 looks to the picture's left, the others to its right."""

NAMES = [*FRONTAL, *TURNED]
WHOLE = ["obama-1", "obama-2", "obama-3", "biden-1", "collins-1"]
"""Photos that do not cut the face."""


def largest(analyser: Analyser, picture: Picture) -> Face:
    return analyser.faces(picture, analyser.passes(picture.shape, 50), presence_floor=0.5)[0]


def posed(analyser: Analyser, picture: Picture) -> Pose:
    return largest(analyser, picture).pose


def turned_picture(picture: Picture, degrees: float) -> Picture:
    """The picture turned clockwise about its middle, on a canvas that holds all of it."""
    rows, columns = picture.shape[:2]
    side = int(np.hypot(rows, columns))
    matrix = cv2.getRotationMatrix2D((columns / 2, rows / 2), -degrees, 1.0)
    matrix[:, 2] += ((side - columns) / 2, (side - rows) / 2)
    return np.asarray(cv2.warpAffine(picture, matrix, (side, side)), np.uint8)


def rotation(yaw: float, pitch: float, roll: float) -> NDArray[np.float64]:
    """A head's turn by its definition: up, then to the picture's right, then clockwise. x right, y down, z away."""
    y, p, r = np.radians([yaw, pitch, roll])
    up = np.array([[1, 0, 0], [0, np.cos(p), np.sin(p)], [0, -np.sin(p), np.cos(p)]])
    right = np.array([[np.cos(y), 0, -np.sin(y)], [0, 1, 0], [np.sin(y), 0, np.cos(y)]])
    clockwise = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    return np.asarray(clockwise @ right @ up)


@pytest.fixture(scope="module")
def level(analyser: Analyser, pictures: dict[str, Picture]) -> NDArray[np.float64]:
    """A real mesh about its middle, turned back until its pose is 0, 0, 0."""
    points = largest(analyser, pictures["obama-1"]).landmarks.points.astype(np.float64)
    points -= points.mean(axis=0)
    read = pose.estimate(points.astype(np.float32))
    undo = rotation(read.yaw_degrees / pose.TURN_GAIN, read.pitch_degrees / pose.TURN_GAIN, read.roll_degrees).T
    return np.asarray(points @ undo.T)


# --- signs and sizes, by the definition ---


def test_the_rotation_of_these_tests_has_the_signs_that_are_documented() -> None:
    """A viewer sees the nose, which stands out toward them (z negative), move where the face turns."""
    nose, brow = np.array([0.0, 0.0, -1.0]), np.array([0.0, -1.0, 0.0])
    assert (rotation(30, 0, 0) @ nose)[0] > 0, "to the picture's right"
    assert (rotation(0, 30, 0) @ nose)[1] < 0, "up"
    assert (rotation(0, 0, 30) @ brow)[0] > 0, "clockwise"


@given(st.floats(-60, 60), st.floats(-60, 60), st.floats(-170, 170))
def test_a_known_turn_is_read_back(level: NDArray[np.float64], yaw: float, pitch: float, roll: float) -> None:
    points = (level @ rotation(yaw, pitch, roll).T).astype(np.float32)
    read = pose.estimate(points)
    assert read.yaw_degrees == pytest.approx(yaw * pose.TURN_GAIN, abs=0.05)
    assert read.pitch_degrees == pytest.approx(pitch * pose.TURN_GAIN, abs=0.05)
    assert read.roll_degrees == pytest.approx(roll, abs=0.05)


def test_more_than_a_right_angle_is_never_read(level: NDArray[np.float64]) -> None:
    read = pose.estimate((level @ rotation(88, 0, 0).T).astype(np.float32))
    assert read.yaw_degrees == 90


@given(st.floats(-3000, 3000), st.floats(-3000, 3000), st.floats(0.1, 10))
def test_where_in_the_picture_and_how_large_a_face_is_does_not_matter(
    level: NDArray[np.float64], x: float, y: float, scale: float
) -> None:
    turned = level @ rotation(20, -10, 5).T
    here = pose.estimate(turned.astype(np.float32))
    there = pose.estimate((turned * scale + (x, y, 0)).astype(np.float32))
    assert there.yaw_degrees == pytest.approx(here.yaw_degrees, abs=0.2)
    assert there.pitch_degrees == pytest.approx(here.pitch_degrees, abs=0.2)
    assert there.roll_degrees == pytest.approx(here.roll_degrees, abs=0.2)


def test_points_that_are_all_in_one_place_have_some_pose() -> None:
    read = pose.estimate(np.full((468, 3), 7, np.float32))
    assert np.isfinite([read.yaw_degrees, read.pitch_degrees, read.roll_degrees]).all()


# --- photos ---


@pytest.mark.parametrize("name", FRONTAL)
def test_a_frontal_portrait_is_near_zero(analyser: Analyser, pictures: dict[str, Picture], name: str) -> None:
    """The residual that the module states: 6.5 degrees about a median that is up to 3 off."""
    read = posed(analyser, pictures[name])
    assert abs(read.yaw_degrees) < 8
    assert abs(read.pitch_degrees) < 9.5
    assert abs(read.roll_degrees) < 5


@pytest.mark.parametrize(("name", "yaw"), TURNED.items())
def test_a_turned_portrait_is_turned_to_the_side_that_one_sees(
    analyser: Analyser, pictures: dict[str, Picture], name: str, yaw: float
) -> None:
    assert posed(analyser, pictures[name]).yaw_degrees == pytest.approx(yaw, abs=10)


@pytest.mark.parametrize("name", WHOLE)
def test_a_mirrored_picture_changes_the_signs_of_yaw_and_roll(
    analyser: Analyser, pictures: dict[str, Picture], name: str
) -> None:
    plain = posed(analyser, pictures[name])
    mirrored = posed(analyser, np.ascontiguousarray(pictures[name][:, ::-1]))
    assert mirrored.yaw_degrees == pytest.approx(-plain.yaw_degrees, abs=5)
    assert mirrored.roll_degrees == pytest.approx(-plain.roll_degrees, abs=3)
    assert mirrored.pitch_degrees == pytest.approx(plain.pitch_degrees, abs=4)


@pytest.mark.parametrize("degrees", [-30, -15, 15, 30])
@pytest.mark.parametrize("name", WHOLE)
def test_a_turned_picture_changes_the_roll_by_as_much_and_nothing_else(
    analyser: Analyser, pictures: dict[str, Picture], name: str, degrees: float
) -> None:
    plain = posed(analyser, pictures[name])
    turned = posed(analyser, turned_picture(pictures[name], degrees))
    assert turned.roll_degrees - plain.roll_degrees == pytest.approx(degrees, abs=3)
    assert turned.yaw_degrees == pytest.approx(plain.yaw_degrees, abs=5)
    assert turned.pitch_degrees == pytest.approx(plain.pitch_degrees, abs=5)


@pytest.mark.parametrize("name", WHOLE)
def test_a_smaller_picture_has_the_same_pose(analyser: Analyser, pictures: dict[str, Picture], name: str) -> None:
    plain = posed(analyser, pictures[name])
    small = posed(analyser, image.shrunk(pictures[name], longest=500))
    assert small.yaw_degrees == pytest.approx(plain.yaw_degrees, abs=4)
    assert small.pitch_degrees == pytest.approx(plain.pitch_degrees, abs=4)
    assert small.roll_degrees == pytest.approx(plain.roll_degrees, abs=2)


def test_a_face_at_the_frames_edge_reads_as_in_its_middle(
    analyser: Analyser, wall: Callable[[int, int], Picture], paste: Callable[..., object]
) -> None:
    """What a camera's unknown field of view must not change."""
    read = []
    for x in (160, 640, 1120):
        frame = wall(720, 1280)
        paste(frame, "obama-1", x=x, y=360, face_pixels=150)
        read.append(posed(analyser, frame))
    assert np.ptp([one.yaw_degrees for one in read]) < 4
    assert np.ptp([one.pitch_degrees for one in read]) < 4


# --- clips, as a person sees them ---


def frame_poses(analyser: Analyser, folder: Path) -> dict[str, list[Pose]]:
    """The poses in every frame of a clip, from left to right."""
    read = {}
    for path in sorted(folder.glob("*.jpg")):
        picture = image.decode(path.read_bytes(), max_pixels=40_000_000, min_side=64)
        faces = analyser.faces(picture, analyser.passes(picture.shape, 50), presence_floor=0.5)
        read[path.stem] = [face.pose for face in sorted(faces, key=lambda face: face.landmarks.box.x)]
    return read


def test_a_woman_who_turns_her_head(analyser: Analyser, test_data: Path) -> None:
    """Far to the picture's left in the first two frames, then to its right, further right, and a little to its left."""
    read = frame_poses(analyser, test_data / "camera" / "head-pose-face-detection-female")
    yaws = {name: faces[0].yaw_degrees for name, faces in read.items()}
    assert -65 < yaws["0000"] < -35
    assert -65 < yaws["0005"] < -35
    assert 10 < yaws["0010"] < yaws["0015"] < 45
    assert -30 < yaws["0020"] < -5


def test_two_people_who_tilt_their_heads(analyser: Analyser, test_data: Path) -> None:
    """Both heads lean counter-clockwise; the woman on the left looks away to the left, the man at the camera."""
    read = frame_poses(analyser, test_data / "camera" / "head-pose-face-detection-female-and-male")
    start_woman, start_man = read["0000"]
    end_woman, end_man = read["0055"]
    assert end_woman.roll_degrees < start_woman.roll_degrees - 10
    assert end_man.roll_degrees < start_man.roll_degrees - 20
    assert -55 < end_woman.roll_degrees < -30
    assert -55 < end_man.roll_degrees < -30
    assert end_woman.yaw_degrees < -35
    assert abs(end_man.yaw_degrees) < 12


def test_a_man_who_looks_into_the_camera(analyser: Analyser, test_data: Path) -> None:
    for (face,) in frame_poses(analyser, test_data / "camera" / "head-pose-face-detection-male").values():
        assert abs(face.yaw_degrees) < 6
        assert abs(face.pitch_degrees) < 9
        assert abs(face.roll_degrees) < 5


def test_a_man_who_raises_his_head(analyser: Analyser, test_data: Path) -> None:
    """The camera looks a little upward; he looks over it, then lifts his chin."""
    read = frame_poses(analyser, test_data / "camera" / "want")
    assert abs(read["0000"][0].pitch_degrees) < 9
    assert all(read[name][0].pitch_degrees > 15 for name in ("0018", "0024", "0030", "0036", "0042"))


@pytest.mark.parametrize(
    ("name", "sign"),
    [
        ("Lawrence_Roberts/Lawrence_Roberts_0001", 1),
        ("Shane_Mosley/Shane_Mosley_0002", 1),
        ("Ashley_Judd/Ashley_Judd_0001", 1),
        ("Leonid_Kuchma/Leonid_Kuchma_0004", -1),
        ("Sheila_Wellstone/Sheila_Wellstone_0001", -1),
    ],
)
def test_who_looks_up_and_who_looks_down(analyser: Analyser, test_data: Path, name: str, sign: int) -> None:
    data = (test_data / "lfw-dev" / f"{name}.jpg").read_bytes()
    read = posed(analyser, image.decode(data, max_pixels=40_000_000, min_side=64))
    assert sign * read.pitch_degrees > 18


# --- the turned box ---


def rectangle_points() -> Points:
    """A face of 100 x 200 pixels whose corners are points of the mesh."""
    inner = np.random.default_rng(0).uniform((-50, -100), (50, 100), (464, 2))
    corners = [(-50, -100), (50, -100), (50, 100), (-50, 100)]
    return np.column_stack([np.concatenate([corners, inner]), np.zeros(468)]).astype(np.float32)


@given(st.floats(-180, 180), st.floats(0, 2000), st.floats(0, 2000))
def test_the_box_turns_with_the_face(degrees: float, x: float, y: float) -> None:
    upright = rectangle_points()
    points = (upright @ rotation(0, 0, degrees).T + (x, y, 0)).astype(np.float32)
    corners = pose.turned_box(points, degrees)
    assert corners.shape == (4, 2)
    assert corners.dtype == np.float32
    # The face's own top left, top right, bottom right, bottom left, wherever they are in the picture.
    assert corners == pytest.approx(points[:4, :2], abs=0.05)


def test_without_roll_it_is_the_tight_box(analyser: Analyser, pictures: dict[str, Picture]) -> None:
    landmarks = largest(analyser, pictures["obama-2"]).landmarks
    box = landmarks.box
    right, bottom = box.x + box.width, box.y + box.height
    expected = [(box.x, box.y), (right, box.y), (right, bottom), (box.x, bottom)]
    assert pose.turned_box(landmarks.points, 0) == pytest.approx(np.array(expected), abs=0.01)


@pytest.mark.parametrize("name", NAMES)
def test_it_holds_every_point_and_touches_each_side(
    analyser: Analyser, pictures: dict[str, Picture], name: str
) -> None:
    face = largest(analyser, pictures[name])
    top_left, top_right, _, bottom_left = pose.turned_box(face.landmarks.points, face.pose.roll_degrees)
    for origin_to in (top_right, bottom_left):
        side = (origin_to - top_left) / np.linalg.norm(origin_to - top_left)
        along = (face.landmarks.points[:, :2] - top_left) @ side
        assert along.min() == pytest.approx(0, abs=0.05)
        assert along.max() == pytest.approx(np.linalg.norm(origin_to - top_left), abs=0.05)
