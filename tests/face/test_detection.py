"""Where the faces are: the geometry, what the network's numbers mean, and real faces."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge.errors import PackUnusable
from edge.face import detection, passes
from edge.face.analysis import Analyser
from edge.face.detection import Detector
from edge.face.passes import FaceRange, Size
from edge.face.tflite import Model
from edge.types import Box, InputSpec, Picture

LYING, UPRIGHT = (192, 320), (320, 192)
SIZES = [(192, 192), (192, 320), (320, 192), (320, 576), (576, 320), (512, 896), (896, 512)]

RANGE = FaceRange(14, 110)

Paste = Callable[..., Box]
Wall = Callable[[int, int], Picture]
Floats = NDArray[np.float32]


def overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    width = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
    height = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
    shared = max(width, 0) * max(height, 0)
    return shared / (a.area + b.area - shared)


# --- letterbox ---


@given(st.integers(1, 600), st.integers(1, 600), st.sampled_from(SIZES))
def test_a_picture_lies_in_the_middle_of_the_input(rows: int, columns: int, size: Size) -> None:
    fitted, box = detection.letterbox(np.full((rows, columns, 3), 200, np.uint8), size)
    assert fitted.shape == (*size, 3)
    lit = np.argwhere(fitted[..., 0])
    (top, left), (bottom, right) = lit.min(axis=0), lit.max(axis=0) + 1
    assert (left, top) == (box.left, box.top)
    assert np.all(fitted[top:bottom, left:right] == 200)
    for first, last, most in ((left, right, size[1]), (top, bottom, size[0])):
        assert abs(first - (most - last)) <= 1
    assert left == 0 or top == 0, "it is as large as it can be"
    assert right - left == pytest.approx(columns * box.scale, abs=1)
    assert bottom - top == pytest.approx(rows * box.scale, abs=1)


@given(
    st.sampled_from([(240, 320), (480, 200), (1080, 1920), (100, 150)]),
    st.sampled_from(SIZES),
    st.floats(0.1, 0.9),
    st.floats(0.1, 0.9),
)
@settings(max_examples=40)
def test_what_is_found_in_the_input_is_found_in_the_picture(
    shape: tuple[int, int], size: Size, across: float, down: float
) -> None:
    rows, columns = shape
    x, y, half = across * columns, down * rows, 0.06 * min(shape)
    picture = np.zeros((rows, columns, 3), np.uint8)
    picture[round(y - half) : round(y + half), round(x - half) : round(x + half)] = 255
    fitted, box = detection.letterbox(picture, size)
    weight = fitted[..., 0].astype(float)
    middle_y, middle_x = (np.average(np.arange(n) + 0.5, weights=weight.sum(1 - axis)) for axis, n in enumerate(size))
    assert (middle_x - box.left) / box.scale == pytest.approx(x, abs=1 + 0.5 / box.scale)
    assert (middle_y - box.top) / box.scale == pytest.approx(y, abs=1 + 0.5 / box.scale)


def test_a_picture_of_the_inputs_size_is_taken_as_it_is() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (192, 320, 3), np.uint8)
    fitted, box = detection.letterbox(picture, LYING)
    assert np.array_equal(fitted, picture)
    assert box == detection.Letterbox(1.0, 0, 0)


@pytest.mark.parametrize(
    ("shape", "size", "turned"),
    [
        ((1080, 1920), LYING, LYING),
        ((1920, 1080), LYING, UPRIGHT),
        ((1080, 1920), UPRIGHT, LYING),
        ((1920, 1080), UPRIGHT, UPRIGHT),
        ((500, 500), UPRIGHT, LYING),
        ((1920, 1080), (192, 192), (192, 192)),
    ],
)
def test_the_input_is_turned_like_the_picture(shape: tuple[int, int], size: Size, turned: Size) -> None:
    assert passes.turned(size, *shape) == turned


# --- the network's numbers ---


def test_anchors_are_the_cells_centres_row_by_row() -> None:
    centres = detection.anchors((192, 320))
    assert centres.shape == (48 * 80, 2)
    assert centres[:2].tolist() == [[2, 2], [6, 2]]
    assert centres[80].tolist() == [2, 6]
    assert centres[-1].tolist() == [318, 190]


def outputs_of(size: Size, logits: dict[int, float], numbers: dict[int, list[float]]) -> list[Floats]:
    cells = size[0] * size[1] // 16
    scores, boxes = np.full((1, cells, 1), -100, np.float32), np.zeros((1, cells, 16), np.float32)
    for at, logit in logits.items():
        scores[0, at, 0] = logit
    for at, values in numbers.items():
        boxes[0, at] = values
    return [boxes, scores]


@pytest.mark.parametrize("order", [1, -1])
def test_numbers_are_relative_to_the_anchor(order: int) -> None:
    numbers = [3.0, -2.0, 40.0, 30.0, *range(12)]
    outputs = outputs_of(LYING, {81: 2.0}, {81: numbers})[::order]
    found, scores = detection.decode_blazeface(outputs, LYING, 0.5)
    x, y = 6.0, 6.0
    assert found.shape == (1, 16)
    assert found[0, :4].tolist() == [x + 3 - 20, y - 2 - 15, 40, 30]
    assert found[0, 4:].tolist() == [n + (x, y)[n % 2] for n in range(12)]
    assert scores == pytest.approx([1 / (1 + np.exp(-2.0))])


def test_decoding_changes_nothing_that_the_network_owns() -> None:
    outputs = outputs_of(LYING, {7: 5.0}, {7: [1.0] * 16})
    before = [output.copy() for output in outputs]
    detection.decode_blazeface(outputs, LYING, 0.5)
    assert all(np.array_equal(a, b) for a, b in zip(outputs, before, strict=True))


@pytest.mark.parametrize(("threshold", "kept"), [(0.5, 3), (0.6, 2), (0.95, 1), (0.999999, 0)])
def test_only_what_scores_at_the_threshold_is_kept(threshold: float, kept: int) -> None:
    logits = {0: 0.0, 1: float(np.log(0.6 / 0.4)) + 1e-6, 2: 5.0, 3: -0.001}
    found, scores = detection.decode_blazeface(outputs_of(LYING, logits, {}), LYING, threshold)
    assert len(found) == len(scores) == kept


def test_no_score_is_so_extreme_that_it_overflows() -> None:
    with np.errstate(all="raise"):
        _, scores = detection.decode_blazeface(outputs_of(LYING, {0: 1e30}, {}), LYING, 0.5)
    assert scores.tolist() == [1.0]


@pytest.mark.parametrize(
    "outputs",
    [
        [np.zeros((1, 3840, 16), np.float32)],
        [np.zeros((1, 3840, 16), np.float32), np.zeros((1, 3840, 2), np.float32)],
        [np.zeros((1, 2304, 16), np.float32), np.zeros((1, 2304, 1), np.float32)],
        [np.zeros((1, 128), np.float32)],
    ],
    ids=["no scores", "two classes", "another input size", "a vector"],
)
def test_a_network_that_is_no_blazeface_makes_the_pack_unusable(outputs: list[Floats]) -> None:
    with pytest.raises(PackUnusable, match="cannot be read as blazeface of 192x320"):
        detection.decode_blazeface(outputs, LYING, 0.5)


# --- suppression ---


def rows_of(boxes: list[tuple[float, float, float, float]]) -> Floats:
    """Each box with six points in its middle."""
    return np.array([[x, y, w, h, *((x + w / 2, y + h / 2) * 6)] for x, y, w, h in boxes], np.float32).reshape(-1, 16)


BOXES = st.lists(
    st.tuples(st.floats(-50, 300), st.floats(-50, 300), st.floats(0, 100), st.floats(0, 100), st.floats(0.5, 1)),
    min_size=1,
    max_size=12,
)


@given(BOXES)
def test_suppression_keeps_within_what_it_was_given(boxes: list[tuple[float, float, float, float, float]]) -> None:
    found, scores = rows_of([box[:4] for box in boxes]), np.array([box[4] for box in boxes], np.float32)
    merged, best = detection.suppress(found, scores, 0.3)
    assert 1 <= len(merged) == len(best) <= len(found)
    assert best.tolist() == sorted(best.tolist(), reverse=True)
    assert best[0] == scores.max()
    assert set(best.tolist()) <= set(scores.tolist())
    least, most = found[:, :2].min(axis=0), (found[:, :2] + found[:, 2:4]).max(axis=0)
    assert np.all(merged[:, :2] >= least - 0.01)
    assert np.all(merged[:, :2] + merged[:, 2:4] <= most + 0.01)
    for box in found:
        assert any(detection.overlaps(box, merged) > 0) or box[2] * box[3] < 1e-3, "nothing is lost"


@given(
    st.lists(
        st.tuples(
            st.integers(0, 30),
            st.floats(20, 60),
            st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3), st.floats(0.5, 1)), min_size=1, max_size=5),
        ),
        min_size=1,
        max_size=6,
        unique_by=lambda group: group[0],
    ),
    st.randoms(use_true_random=False),
)
def test_each_group_becomes_one_and_no_group_is_lost(
    groups: list[tuple[int, float, list[tuple[float, float, float]]]], order: random.Random
) -> None:
    """Groups 100 pixels apart, each of boxes a few pixels apart."""
    entries = [((100.0 * cell + dx, dy, side, side), score) for cell, side, group in groups for dx, dy, score in group]
    order.shuffle(entries)
    merged, best = detection.suppress(
        rows_of([box for box, _ in entries]), np.array([score for _, score in entries], np.float32), 0.3
    )
    assert len(merged) == len(groups)
    by_cell = {round(row[0] / 100): (row, score) for row, score in zip(merged, best, strict=True)}
    for cell, side, group in groups:
        row, score = by_cell[cell]
        assert score == pytest.approx(max(score for _, _, score in group))
        assert row[2:4] == pytest.approx([side, side], rel=1e-5)
        weights = [score for _, _, score in group]
        assert row[0] == pytest.approx(100 * cell + np.average([dx for dx, _, _ in group], weights=weights), abs=1e-2)
        assert row[4:] == pytest.approx(np.tile(row[:2] + row[2:4] / 2, 6), abs=1e-2)


def test_neighbours_that_overlap_a_little_stay_two() -> None:
    found = rows_of([(0, 0, 100, 100), (60, 0, 100, 100)])  # IoU 0.25
    merged, _ = detection.suppress(found, np.array([0.9, 0.8], np.float32), 0.3)
    assert np.array_equal(merged, found)


def test_overlap_is_intersection_over_union() -> None:
    box = np.array([0, 0, 10, 10], np.float32)
    others = np.array([[0, 0, 10, 10], [5, 0, 10, 10], [10, 0, 10, 10], [0, 0, 0, 0], [2, 2, 5, 5]], np.float32)
    assert detection.overlaps(box, others) == pytest.approx([1, 1 / 3, 0, 0, 0.25])
    assert detection.overlaps(np.zeros(4, np.float32), np.zeros((1, 4), np.float32)).tolist() == [0]


# --- the detector ---


class CountedLoads:
    """Loads nothing and counts how often it is asked to."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> Model:
        self.times += 1
        return object()  # type: ignore[return-value]


def test_each_size_is_loaded_once_and_only_when_it_is_needed() -> None:
    small, large = CountedLoads(), CountedLoads()
    sizes: dict[Size, Callable[[], Model]] = {(192, 320): small, (512, 896): large}
    detector = Detector(sizes, decoding="blazeface", score_threshold=0.5, iou_threshold=0.3, faces=RANGE)
    assert detector.sizes == ((192, 320), (512, 896))
    assert detector.load((192, 320)) is detector.load((192, 320))
    assert (small.times, large.times) == (1, 0)
    with pytest.raises(KeyError):
        detector.load((100, 100))


def test_a_decoding_that_nobody_knows_makes_the_pack_unusable() -> None:
    with pytest.raises(PackUnusable, match="'yolo' is none of blazeface"):
        Detector({}, decoding="yolo", score_threshold=0.5, iou_threshold=0.3, faces=RANGE)


def test_a_pack_whose_detector_is_another_network_is_unusable(test_data: Path, interpreter: str) -> None:
    path = test_data / "pack-reid-0095" / "embedder.tflite"
    spec = InputSpec(128, 128, "BGR", (0.0, 0.0, 0.0), 1.0)
    detector = Detector(
        {(128, 128): lambda: Model(path, spec, interpreter=interpreter)},
        decoding="blazeface",
        score_threshold=0.5,
        iou_threshold=0.3,
        faces=RANGE,
    )
    with pytest.raises(PackUnusable, match=r"returns \[\(1, 256\)\]"):
        detector.detect(np.zeros((128, 128, 3), np.uint8), (128, 128))


# --- real faces ---


@pytest.mark.parametrize(
    "name", ["biden-1", "collins-1", "obama-1", "obama-2", "obama-3", "obama-4", "obama-5"], ids=str
)
@pytest.mark.parametrize("size", [LYING, UPRIGHT], ids=["lying", "upright"])
def test_a_portraits_face_is_found_where_it_is(
    analyser: Analyser, pictures: dict[str, Picture], face_boxes: dict[str, Box], name: str, size: Size
) -> None:
    found = analyser.detector.detect(pictures[name], size)
    best = max(found, key=lambda one: one.score)
    assert found[0] is best
    assert overlap(best.box, face_boxes[name]) > 0.6
    right_eye, left_eye, nose, mouth, right_ear, left_ear = best.points
    assert right_eye[0] < nose[0] < left_eye[0], "the subject's right is on the picture's left"
    low, high = (best.box.x, best.box.y), (best.box.x + best.box.width, best.box.y + best.box.height)
    for point in (right_eye, left_eye, nose, mouth):
        assert np.all(low < point)
        assert np.all(point < high)
    assert right_ear[0] < right_eye[0] < left_eye[0] < left_ear[0]
    assert max(right_eye[1], left_eye[1]) < nose[1] < mouth[1]


def gradient() -> Picture:
    return np.tile(np.linspace(0, 255, 1280).astype(np.uint8)[None, :, None], (720, 1, 3))


EMPTY = {
    "black": np.zeros((720, 1280, 3), np.uint8),
    "white": np.full((720, 1280, 3), 255, np.uint8),
    "gradient": gradient(),
    "noise": np.random.default_rng(0).integers(0, 256, (720, 1280, 3), np.uint8),
}


@pytest.mark.parametrize("name", EMPTY)
def test_where_nothing_is_nothing_is_found(analyser: Analyser, name: str) -> None:
    for size in (LYING, UPRIGHT, (320, 576)):
        assert analyser.detector.detect(EMPTY[name], size) == []


@pytest.mark.parametrize(("x", "y"), [(300, 280), (1600, 290), (960, 540), (280, 790), (1640, 800)])
@pytest.mark.parametrize("face_pixels", [150, 220, 300])
def test_a_face_is_found_where_it_was_pasted(
    analyser: Analyser, wall: Wall, paste: Paste, x: int, y: int, face_pixels: int
) -> None:
    frame = wall(1080, 1920)
    truth = paste(frame, "collins-1", x=x, y=y, face_pixels=face_pixels)
    (found,) = analyser.detector.detect(frame, LYING)
    assert overlap(found.box, truth) > 0.6


def test_two_faces_side_by_side_are_two(analyser: Analyser, wall: Wall, paste: Paste) -> None:
    frame = wall(1080, 1920)
    truths = [
        paste(frame, "biden-1", x=700, y=500, face_pixels=250),
        paste(frame, "obama-1", x=1150, y=520, face_pixels=250),
    ]
    found = sorted(analyser.detector.detect(frame, LYING), key=lambda one: one.box.x)
    assert len(found) == 2
    for one, truth in zip(found, truths, strict=True):
        assert overlap(one.box, truth) > 0.6


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_input_size_of_the_pack_finds_the_same_face(
    analyser: Analyser, wall: Wall, paste: Paste, size: Size
) -> None:
    assert set(analyser.detector.sizes) == set(SIZES)
    frame = wall(1920, 1080) if size[0] > size[1] else wall(1080, 1920)
    truth = paste(frame, "obama-1", x=540, y=560, face_pixels=170)
    (found,) = analyser.detector.detect(frame, size)
    assert overlap(found.box, truth) > 0.6


def test_a_small_picture_is_enlarged(
    analyser: Analyser, pictures: dict[str, Picture], face_boxes: dict[str, Box]
) -> None:
    small = cv2.resize(pictures["collins-1"], (128, 128), interpolation=cv2.INTER_AREA)
    (found,) = analyser.detector.detect(np.asarray(small, np.uint8), LYING)
    box = face_boxes["collins-1"]
    assert overlap(found.box, Box(box.x / 4, box.y / 4, box.width / 4, box.height / 4)) > 0.6
