"""The stages in their order: from a picture to its faces, the largest first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from edge.errors import PackUnusable
from edge.face.analysis import Analyser, Face
from edge.face.detection import Detector, Found
from edge.face.passes import FaceRange, Pass, Size
from edge.face.tflite import Model
from edge.types import Box, Detection, InputSpec, Picture

LYING, UPRIGHT = (192, 320), (320, 192)

Paste = Callable[..., Box]
Wall = Callable[[int, int], Picture]


def faces(analyser: Analyser, picture: Picture, *, size: Size = LYING, presence_floor: float = 0.5) -> list[Face]:
    """The faces that one pass over the whole picture finds."""
    return analyser.faces(picture, analyser.passes(picture.shape, 50, size), presence_floor=presence_floor)


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

    def look(self, picture: Picture, one: Pass) -> Found:
        return self.real.look(picture, one)

    def merged(self, looks: Sequence[Found]) -> list[Detection]:
        (first, *_) = self.real.merged(looks)
        corner = Box(0, 412, 90, 90)
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
    (one,) = analyser.passes(shape, 50, LYING)
    assert one.size == asked


# --- passes ---


class Counts(Detector):
    """The real detector, and which passes it was asked for."""

    def __init__(self, real: Detector) -> None:
        self.real = real
        self.asked: list[Pass] = []

    def look(self, picture: Picture, one: Pass) -> Found:
        self.asked.append(one)
        return self.real.look(picture, one)

    def merged(self, looks: Sequence[Found]) -> list[Detection]:
        return self.real.merged(looks)


def counted(analyser: Analyser) -> tuple[Analyser, Counts]:
    counts = Counts(analyser.detector)
    return Analyser(counts, analyser.mesh, analyser.embedder), counts


@pytest.mark.parametrize(("rows", "columns"), [(480, 640), (1080, 1920), (1920, 1080), (2160, 3840)])
@pytest.mark.parametrize("face_pixels", [52, 110, 230])
def test_a_face_of_any_size_is_found_once_in_any_frame(
    analyser: Analyser, wall: Wall, paste: Paste, rows: int, columns: int, face_pixels: int
) -> None:
    frame = wall(rows, columns)
    truth = paste(frame, "collins-1", x=columns // 2 + 37, y=rows // 2 - 21, face_pixels=face_pixels)
    (face,) = analyser.faces(frame, analyser.passes(frame.shape, 50), presence_floor=0.5)
    assert contains(truth, face.landmarks.box.centre)
    assert face.landmarks.box.longer_side == pytest.approx(truth.longer_side, rel=0.2)


def test_a_distant_and_a_near_face_are_both_found(analyser: Analyser, wall: Wall, paste: Paste) -> None:
    frame = wall(2160, 3840)
    far = paste(frame, "obama-1", x=400, y=300, face_pixels=54)
    near = paste(frame, "collins-1", x=2300, y=1080, face_pixels=1100)
    first, second = analyser.faces(frame, analyser.passes(frame.shape, 50), presence_floor=0.5)
    assert contains(near, first.landmarks.box.centre)
    assert contains(far, second.landmarks.box.centre)


def test_where_the_largest_face_is_enough_the_finer_passes_are_left_out(
    analyser: Analyser, wall: Wall, paste: Paste
) -> None:
    frame = wall(1080, 1920)
    paste(frame, "obama-1", x=1200, y=500, face_pixels=400)
    paste(frame, "collins-1", x=300, y=500, face_pixels=60)
    counting, counts = counted(analyser)
    passes = analyser.passes(frame.shape, 50)
    (face,) = counting.faces(frame, passes, presence_floor=0.5, enough_pixels=50)
    assert face.landmarks.box.longer_side > 300
    assert counts.asked == [passes[0]]
    assert len(counting.faces(frame, passes, presence_floor=0.5)) == 2
    assert counts.asked[1:] == list(passes)


def test_a_small_face_alone_takes_all_passes(analyser: Analyser, wall: Wall, paste: Paste) -> None:
    frame = wall(1080, 1920)
    paste(frame, "collins-1", x=300, y=500, face_pixels=60)
    counting, counts = counted(analyser)
    passes = analyser.passes(frame.shape, 50)
    assert len(counting.faces(frame, passes, presence_floor=0.5, enough_pixels=50)) == 1
    assert counts.asked == list(passes)


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
    analyser.warm_up([LYING, UPRIGHT])
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
        faces=FaceRange(14, 110),
    )
    with pytest.raises(PackUnusable):
        Analyser(detector, analyser.mesh, analyser.embedder).warm_up([(128, 128)])
