"""The stages in their order: from a picture to its faces, the largest first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge.errors import PackUnusable
from edge.face.analysis import Analyser, Face
from edge.face.detection import Detector, Size
from edge.face.tflite import Model
from edge.types import Box, Detection, InputSpec, Picture

LYING, UPRIGHT = (192, 320), (320, 192)

Paste = Callable[..., Box]
Wall = Callable[[int, int], Picture]


def faces(analyser: Analyser, picture: Picture, *, size: Size = LYING, presence_floor: float = 0.5) -> list[Face]:
    return analyser.faces(picture, size=size, presence_floor=presence_floor)


def contains(box: Box, point: tuple[float, float]) -> bool:
    return box.x <= point[0] <= box.x + box.width and box.y <= point[1] <= box.y + box.height


@pytest.mark.parametrize("name", ["biden-1", "collins-1", "obama-1", "obama-2", "obama-3", "obama-4", "obama-5"])
def test_a_portrait_has_one_face(
    analyser: Analyser, pictures: dict[str, Picture], face_boxes: dict[str, Box], name: str
) -> None:
    (face,) = faces(analyser, pictures[name])
    assert contains(face_boxes[name], face.landmarks.box.centre)
    assert face.landmarks.presence > 0.8
    assert face.detection.score > 0.5
    assert face.measured_ms >= 0


def test_pose_and_measures_are_of_the_same_face(analyser: Analyser, pictures: dict[str, Picture]) -> None:
    (face,) = faces(analyser, pictures["obama-2"])
    assert face.measures.size == face.landmarks.box.longer_side
    assert face.measures.face_presence == face.landmarks.presence
    assert (face.measures.yaw, face.measures.pitch, face.measures.roll) == (
        face.pose.yaw_degrees,
        face.pose.pitch_degrees,
        face.pose.roll_degrees,
    )


def test_the_largest_face_comes_first(analyser: Analyser, wall: Wall, paste: Paste) -> None:
    frame = wall(1080, 1920)
    truths = {
        "collins-1": paste(frame, "collins-1", x=400, y=500, face_pixels=180),
        "obama-1": paste(frame, "obama-1", x=1000, y=500, face_pixels=320),
        "biden-1": paste(frame, "biden-1", x=1550, y=500, face_pixels=250),
    }
    found = faces(analyser, frame)
    assert len(found) == 3
    for face, name in zip(found, ["obama-1", "biden-1", "collins-1"], strict=True):
        assert contains(truths[name], face.landmarks.box.centre)
        assert face.landmarks.box.longer_side == pytest.approx(truths[name].longer_side, rel=0.15)


def test_what_the_detector_invented_is_no_face(analyser: Analyser, pictures: dict[str, Picture]) -> None:
    """The folded hands of one portrait pass for a face with the detector, and not with the mesh."""
    picture = pictures["obama-4"]
    detections = analyser.detector.detect(picture, UPRIGHT)
    presences = sorted(analyser.mesh.locate(picture, detection).presence for detection in detections)
    assert presences[-1] > 0.8
    assert all(presence < 0.5 for presence in presences[:-1])
    (face,) = faces(analyser, picture)
    assert face.landmarks.presence == presences[-1]


class Invents(Detector):
    """A detector that says a blank picture and a real face are both faces."""

    def __init__(self, real: Detector) -> None:
        self.real = real

    def detect(self, picture: Picture, size: Size) -> list[Detection]:
        (first, *_) = self.real.detect(picture, size)
        corner = Box(0, picture.shape[0] - 100.0, 90, 90)
        shift = np.array(corner.centre) - np.array(first.box.centre)
        return [Detection(corner, 0.99, (first.points + shift).astype(np.float32)), first]


def test_the_presence_floor_is_applied(analyser: Analyser, pictures: dict[str, Picture]) -> None:
    inventive = Analyser(Invents(analyser.detector), analyser.mesh, analyser.embedder)
    picture = pictures["collins-1"]
    assert len(faces(inventive, picture)) == 1
    assert len(faces(inventive, picture, presence_floor=0)) == 2
    assert faces(inventive, picture, presence_floor=1.01) == []


@pytest.mark.parametrize(("shape", "asked"), [((300, 400), LYING), ((400, 300), UPRIGHT), ((300, 300), LYING)])
def test_the_input_lies_as_the_picture_does(analyser: Analyser, shape: Size, asked: Size) -> None:
    class Asked(Detector):
        def __init__(self) -> None:
            self.sizes_asked: list[Size] = []

        def detect(self, _: Picture, size: Size) -> list[Detection]:
            self.sizes_asked.append(size)
            return []

    detector = Asked()
    assert faces(Analyser(detector, analyser.mesh, analyser.embedder), np.zeros((*shape, 3), np.uint8)) == []
    assert detector.sizes_asked == [asked]


def test_an_empty_room_has_no_faces(analyser: Analyser, wall: Wall) -> None:
    assert faces(analyser, wall(1080, 1920)) == []


# --- a face's own answers ---


def test_the_corners_are_of_the_box_turned_with_the_roll(analyser: Analyser, pictures: dict[str, Picture]) -> None:
    (face,) = faces(analyser, pictures["collins-1"])
    top_left, top_right, bottom_right, bottom_left = face.corners
    assert face.corners.shape == (4, 2)
    assert top_left[0] < top_right[0]
    assert top_left[1] < bottom_left[1]
    assert bottom_right - bottom_left == pytest.approx(top_right - top_left, abs=1e-2)
    roll = np.degrees(np.arctan2(*(top_right - top_left)[::-1]))
    assert roll == pytest.approx(face.pose.roll_degrees, abs=0.1)


@pytest.mark.parametrize(
    ("yaw", "pitch"), [(None, None), (12.5, None), (None, -40.0), (12.5, -40.0), (0.0, 0.0)], ids=str
)
def test_the_caller_s_pose_takes_the_place_of_ours(
    analyser: Analyser, pictures: dict[str, Picture], yaw: float | None, pitch: float | None
) -> None:
    (face,) = faces(analyser, pictures["obama-2"])
    own_yaw, own_pitch = face.pose.yaw_degrees, face.pose.pitch_degrees
    posed = face.with_pose(yaw, pitch)
    assert posed.pose.yaw_degrees == posed.measures.yaw == (own_yaw if yaw is None else yaw)
    assert posed.pose.pitch_degrees == posed.measures.pitch == (own_pitch if pitch is None else pitch)
    assert posed.pose.roll_degrees == posed.measures.roll == face.pose.roll_degrees
    assert posed.measures.size == face.measures.size
    assert posed.landmarks is face.landmarks
    assert (face.pose.yaw_degrees, face.measures.yaw) == (own_yaw, own_yaw), "the face itself stays as it was"


# --- warming up ---


def test_warming_up_runs_every_network_once(
    analyser: Analyser, monkeypatch: pytest.MonkeyPatch, pictures: dict[str, Picture]
) -> None:
    ran: list[tuple[int, int, int]] = []
    run = Model.run
    monkeypatch.setattr(Model, "run", lambda self, picture: ran.append(picture.shape) or run(self, picture))
    analyser.warm_up(LYING)
    assert sorted(ran) == [(150, 150, 3), (192, 192, 3), (192, 320, 3), (320, 192, 3)]
    assert len(faces(analyser, pictures["biden-1"])) == 1


def test_a_network_that_does_not_fit_is_found_at_the_start(
    analyser: Analyser, interpreter: str, test_data: Path
) -> None:
    path = test_data / "pack-reid-0095" / "embedder.tflite"
    spec = InputSpec(128, 128, "BGR", (0.0, 0.0, 0.0), 1.0)
    detector = Detector(
        {(128, 128): lambda: Model(path, spec, interpreter=interpreter)},
        decoding="blazeface",
        score_threshold=0.5,
        iou_threshold=0.3,
    )
    with pytest.raises(PackUnusable):
        Analyser(detector, analyser.mesh, analyser.embedder).warm_up((128, 128))
