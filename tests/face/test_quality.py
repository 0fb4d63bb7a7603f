"""What is measured of a face, what must and must not change each measure, and the gate."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.face import image, quality
from edge.face.analysis import Analyser, Face
from edge.types import MEASURE_NAMES, Box, Landmarks, Limit, Measures, Picture, Points, Pose, Reason

NAMES = ["biden-1", "collins-1", "obama-1", "obama-2", "obama-3"]
AHEAD = Pose(0, 0, 0)


def largest(analyser: Analyser, picture: Picture) -> Face:
    return analyser.faces(picture, analyser.passes(picture.shape, 50), presence_floor=0.5)[0]


def opened(path: Path) -> Picture:
    return image.decode(path.read_bytes(), max_pixels=40_000_000, min_side=64)


@pytest.fixture(scope="module")
def meshes(analyser: Analyser, pictures: dict[str, Picture]) -> dict[str, Landmarks]:
    return {name: largest(analyser, pictures[name]).landmarks for name in NAMES}


def scaled(picture: Picture, landmarks: Landmarks, factor: float) -> tuple[Picture, Landmarks]:
    """The picture at another size, and its mesh there."""
    interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    other = np.asarray(cv2.resize(picture, None, fx=factor, fy=factor, interpolation=interpolation), np.uint8)
    ratio = np.array([other.shape[1] / picture.shape[1], other.shape[0] / picture.shape[0], factor], np.float32)
    return other, dataclasses.replace(landmarks, points=landmarks.points * ratio)


def blurred(picture: Picture, landmarks: Landmarks, share: float) -> Picture:
    """Out of focus: a Gaussian whose sigma is that share of the face."""
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), share * landmarks.box.longer_side), np.uint8)


def noisy(picture: Picture, sigma: float) -> Picture:
    return np.clip(picture + np.random.default_rng(0).normal(0, sigma, picture.shape), 0, 255).astype(np.uint8)


def sharpness(picture: Picture, landmarks: Landmarks) -> float:
    return quality.measure(picture, landmarks, AHEAD).sharpness


def moved_lids(points: Points, share: float) -> Points:
    """The mesh with both eyes' lids that share of their distance apart."""
    changed = points.copy()
    for upper, lower in ((159, 145), (158, 153), (160, 144), (386, 374), (385, 380), (387, 373)):
        middle = (points[upper] + points[lower]) / 2
        changed[[upper, lower]] = middle + share * (points[[upper, lower]] - middle)
    return changed


# --- plain measures ---


@pytest.mark.parametrize("name", NAMES)
def test_sizes_are_in_the_pictures_pixels(
    pictures: dict[str, Picture], meshes: dict[str, Landmarks], face_boxes: dict[str, Box], name: str
) -> None:
    measures = quality.measure(pictures[name], meshes[name], AHEAD)
    assert measures.size == meshes[name].box.longer_side
    assert measures.size == pytest.approx(face_boxes[name].longer_side, rel=0.15)
    # Eyes stand about three eighths of a face's height apart.
    assert 0.25 < measures.eye_distance / measures.size < 0.5


def test_pose_and_presence_are_passed_on(pictures: dict[str, Picture], meshes: dict[str, Landmarks]) -> None:
    landmarks = dataclasses.replace(meshes["obama-1"], presence=0.83)
    measures = quality.measure(pictures["obama-1"], landmarks, Pose(-12.5, 3.25, 7.75))
    assert (measures.yaw, measures.pitch, measures.roll, measures.face_presence) == (-12.5, 3.25, 7.75, 0.83)


@pytest.mark.parametrize("name", NAMES)
def test_shares_lie_between_0_and_1(pictures: dict[str, Picture], meshes: dict[str, Landmarks], name: str) -> None:
    measures = quality.measure(pictures[name], meshes[name], AHEAD)
    for share in ("eyes_open", "mouth_open", "sharpness", "brightness", "inside"):
        assert 0 <= measures.value(share) <= 1, share


# --- sharpness ---


@pytest.mark.parametrize("name", NAMES)
def test_a_photo_is_sharp_and_less_so_the_more_it_is_blurred(
    pictures: dict[str, Picture], meshes: dict[str, Landmarks], name: str
) -> None:
    picture, mesh = pictures[name], meshes[name]
    values = [sharpness(picture, mesh)]
    values += [sharpness(blurred(picture, mesh, share), mesh) for share in (0.01, 0.02, 0.03, 0.05)]
    assert values[0] > 0.6
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.15


@pytest.mark.parametrize("degrees", [0, 30, 60, 90, 135])
@pytest.mark.parametrize("name", NAMES)
def test_a_face_that_moved_is_not_sharp_whichever_way_it_went(
    pictures: dict[str, Picture], meshes: dict[str, Landmarks], name: str, degrees: float
) -> None:
    picture, mesh = scaled(pictures[name], meshes[name], 150 / meshes[name].box.longer_side)
    line = np.zeros((19, 19), np.uint8)
    reach = 9 * np.array([math.cos(math.radians(degrees)), math.sin(math.radians(degrees))])
    start, end = (9 - reach).round().astype(int).tolist(), (9 + reach).round().astype(int).tolist()
    kernel = cv2.line(line, start, end, 1).astype(np.float32)
    smeared = np.asarray(cv2.filter2D(picture, -1, kernel / kernel.sum()), np.uint8)
    assert sharpness(smeared, mesh) < 0.6 * sharpness(picture, mesh)


@pytest.mark.parametrize("factor", [0.4, 0.7, 1.5, 3.0])
@pytest.mark.parametrize("name", NAMES)
def test_it_means_the_same_for_large_and_small_faces(
    pictures: dict[str, Picture], meshes: dict[str, Landmarks], name: str, factor: float
) -> None:
    """Down to 60 pixels, from where on detail is lost that the embedder would use."""
    plain = sharpness(pictures[name], meshes[name])
    factor = max(factor, 60 / meshes[name].box.longer_side)
    assert sharpness(*scaled(pictures[name], meshes[name], factor)) == pytest.approx(plain, abs=0.12)


@pytest.mark.parametrize("name", NAMES)
def test_a_face_of_few_pixels_is_not_sharp_blown_up_or_not(
    pictures: dict[str, Picture], meshes: dict[str, Landmarks], name: str
) -> None:
    plain = sharpness(pictures[name], meshes[name])
    small = scaled(pictures[name], meshes[name], 22 / meshes[name].box.longer_side)
    enlarged = scaled(*small, 8.0)
    assert sharpness(*small) < 0.65 * plain
    assert sharpness(*enlarged) < 0.65 * plain
    assert sharpness(*enlarged) == pytest.approx(sharpness(*small), abs=0.12)


@pytest.mark.parametrize("name", NAMES)
def test_noise_is_not_sharpness(pictures: dict[str, Picture], meshes: dict[str, Landmarks], name: str) -> None:
    picture, mesh = scaled(pictures[name], meshes[name], 110 / meshes[name].box.longer_side)
    assert sharpness(noisy(picture, 10), mesh) == pytest.approx(sharpness(picture, mesh), abs=0.05)
    soft = blurred(picture, mesh, 0.04)
    assert sharpness(noisy(soft, 10), mesh) < sharpness(picture, mesh) / 2


@pytest.mark.parametrize("factor", [0.2, 0.5, 1.3])
def test_light_and_contrast_are_not_sharpness(
    pictures: dict[str, Picture], meshes: dict[str, Landmarks], factor: float
) -> None:
    picture, mesh = pictures["obama-2"], meshes["obama-2"]
    dark = np.clip(picture * factor, 0, 255).astype(np.uint8)
    assert sharpness(dark, mesh) == pytest.approx(sharpness(picture, mesh), abs=0.04)


def test_the_background_does_not_count(pictures: dict[str, Picture], meshes: dict[str, Landmarks]) -> None:
    picture, mesh = pictures["obama-2"], meshes["obama-2"]
    outside = cv2.fillConvexPoly(
        np.ones(picture.shape[:2], np.uint8), cv2.convexHull(np.round(mesh.points[:, :2]).astype(np.int32)), 0
    ).astype(bool)
    changed = picture.copy()
    changed[outside] = np.random.default_rng(0).choice([0, 255], (int(outside.sum()), 1)).astype(np.uint8)
    before, after = (quality.measure(one, mesh, AHEAD) for one in (picture, changed))
    assert after.sharpness == pytest.approx(before.sharpness, abs=0.04)
    assert after.brightness == pytest.approx(before.brightness, abs=0.02)


def test_an_even_grey_is_not_sharp(meshes: dict[str, Landmarks], pictures: dict[str, Picture]) -> None:
    assert sharpness(np.full_like(pictures["obama-1"], 128), meshes["obama-1"]) == 0


# --- brightness ---


@pytest.mark.parametrize("value", [0, 51, 128, 255])
def test_brightness_is_the_mean_of_the_face(
    meshes: dict[str, Landmarks], pictures: dict[str, Picture], value: int
) -> None:
    even = np.full_like(pictures["collins-1"], value)
    assert quality.measure(even, meshes["collins-1"], AHEAD).brightness == pytest.approx(value / 255, abs=0.005)


def test_half_the_light_is_half_the_brightness(meshes: dict[str, Landmarks], pictures: dict[str, Picture]) -> None:
    plain = quality.measure(pictures["biden-1"], meshes["biden-1"], AHEAD).brightness
    half = quality.measure((pictures["biden-1"] // 2).astype(np.uint8), meshes["biden-1"], AHEAD).brightness
    assert half == pytest.approx(plain / 2, abs=0.01)


def test_brightness_is_luma(meshes: dict[str, Landmarks], pictures: dict[str, Picture]) -> None:
    """Green counts most, blue least (ITU-R BT.601), and red is the first channel."""
    for channel, weight in enumerate((0.299, 0.587, 0.114)):
        coloured = np.zeros_like(pictures["collins-1"])
        coloured[:, :, channel] = 255
        assert quality.measure(coloured, meshes["collins-1"], AHEAD).brightness == pytest.approx(weight, abs=0.005)


# --- eyes and mouth ---


@pytest.mark.parametrize("name", NAMES)
def test_open_eyes_are_open_and_lids_together_are_shut(
    pictures: dict[str, Picture], meshes: dict[str, Landmarks], name: str
) -> None:
    mesh = meshes[name]
    opening = [
        quality.measure(pictures[name], dataclasses.replace(mesh, points=moved_lids(mesh.points, share)), AHEAD)
        for share in (1, 0.75, 0.5, 0.2)
    ]
    values = [measures.eyes_open for measures in opening]
    assert values[0] > 0.55
    assert values == sorted(values, reverse=True)
    assert values[-1] == 0


def test_the_less_open_eye_counts(pictures: dict[str, Picture], meshes: dict[str, Landmarks]) -> None:
    mesh = meshes["biden-1"]
    one_shut = mesh.points.copy()
    shut = moved_lids(mesh.points, 0)
    lids_of_the_left = [386, 374, 385, 380, 387, 373]
    one_shut[lids_of_the_left] = shut[lids_of_the_left]
    assert quality.measure(pictures["biden-1"], dataclasses.replace(mesh, points=one_shut), AHEAD).eyes_open == 0


@given(st.floats(-60, 60), st.floats(-40, 40))
def test_turning_the_head_neither_opens_nor_shuts_eyes_or_mouth(
    pictures: dict[str, Picture], meshes: dict[str, Landmarks], yaw: float, pitch: float
) -> None:
    mesh = meshes["obama-2"]
    y, p = np.radians([yaw, pitch])
    turn = np.array([[np.cos(y), 0, -np.sin(y)], [0, 1, 0], [np.sin(y), 0, np.cos(y)]]) @ np.array(
        [[1, 0, 0], [0, np.cos(p), np.sin(p)], [0, -np.sin(p), np.cos(p)]]
    )
    middle = mesh.points.mean(axis=0)
    turned = dataclasses.replace(mesh, points=((mesh.points - middle) @ turn.T + middle).astype(np.float32))
    before, after = (quality.measure(pictures["obama-2"], one, AHEAD) for one in (mesh, turned))
    assert after.eyes_open == pytest.approx(before.eyes_open, abs=0.01)
    assert after.mouth_open == pytest.approx(before.mouth_open, abs=0.01)


def test_lips_together_are_shut(pictures: dict[str, Picture], meshes: dict[str, Landmarks]) -> None:
    assert quality.measure(pictures["biden-1"], meshes["biden-1"], AHEAD).mouth_open < 0.1
    assert quality.measure(pictures["obama-2"], meshes["obama-2"], AHEAD).mouth_open > 0.25, "a laugh"
    points = meshes["obama-2"].points.copy()
    points[13] = points[14]
    shut = dataclasses.replace(meshes["obama-2"], points=points)
    assert quality.measure(pictures["obama-2"], shut, AHEAD).mouth_open == 0


@pytest.mark.parametrize("name", ["Phil_Jackson/Phil_Jackson_0001", "Gerhard_Schroeder/Gerhard_Schroeder_0026"])
def test_real_shut_eyes(analyser: Analyser, test_data: Path, name: str) -> None:
    assert largest(analyser, opened(test_data / "lfw-dev" / f"{name}.jpg")).measures.eyes_open < 0.3


@pytest.mark.parametrize("name", ["Roy_Moore/Roy_Moore_0003", "Stan_Heath/Stan_Heath_0002"])
def test_a_real_shout(analyser: Analyser, test_data: Path, name: str) -> None:
    assert largest(analyser, opened(test_data / "lfw-dev" / f"{name}.jpg")).measures.mouth_open > 0.6


# --- a hand before the face ---


def test_a_hand_before_the_face_lowers_its_presence(analyser: Analyser, test_data: Path) -> None:
    """One clip: the bare face, then a hand over nose and mouth."""
    clip = test_data / "camera" / "bird"
    bare, hidden = (largest(analyser, opened(clip / f"{name}.jpg")).measures for name in ("0000", "0036"))
    assert bare.face_presence > 0.999
    assert hidden.face_presence < 0.99


# --- the frame's edge ---


@pytest.mark.parametrize(("shift", "share"), [((0, 0), 1.0), ((-0.5, 0), 0.5), ((0, -0.25), 0.75), ((-1.2, 0), 0.0)])
def test_inside_is_the_share_of_the_box_in_the_picture(
    meshes: dict[str, Landmarks], shift: tuple[float, float], share: float
) -> None:
    box = meshes["obama-1"].box
    points = meshes["obama-1"].points.copy()
    points[:, 0] += box.width * shift[0] - box.x
    points[:, 1] += box.height * shift[1] - box.y
    canvas = np.full((800, 800, 3), 100, np.uint8)
    measures = quality.measure(canvas, dataclasses.replace(meshes["obama-1"], points=points), AHEAD)
    assert measures.inside == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("shift", [-5000, 5000])
def test_a_face_that_is_not_in_the_picture_has_measures_too(
    pictures: dict[str, Picture], meshes: dict[str, Landmarks], shift: float
) -> None:
    far = dataclasses.replace(meshes["obama-1"], points=(meshes["obama-1"].points + shift).astype(np.float32))
    measures = quality.measure(pictures["obama-1"], far, AHEAD)
    assert (measures.inside, measures.sharpness, measures.brightness) == (0, 0, 0)


def test_a_sliver_of_a_face_is_too_little_to_call_it_sharp(meshes: dict[str, Landmarks]) -> None:
    points = meshes["obama-1"].points.copy()
    points[:, 0] += 5 - points[:, 0].max()
    checked = np.kron(np.indices((100, 100)).sum(axis=0) % 2, np.ones((8, 8)))[:, :, None].repeat(3, axis=2)
    measures = quality.measure((checked * 255).astype(np.uint8), Landmarks(points, 1.0), AHEAD)
    assert 0 < measures.inside < 0.05
    assert measures.sharpness == 0


@pytest.mark.parametrize("size", [0, 0.5, 1, 3])
def test_a_face_of_hardly_a_pixel_has_measures_too(meshes: dict[str, Landmarks], size: float) -> None:
    points = meshes["obama-1"].points
    tiny = ((points - points.min(axis=0)) * size / np.ptp(points[:, :2]) + 10).astype(np.float32)
    measures = quality.measure(np.full((64, 64, 3), 100, np.uint8), Landmarks(tiny, 0.2), AHEAD)
    assert all(math.isfinite(measures.value(name)) for name in MEASURE_NAMES)
    assert measures.sharpness == 0


def test_the_picture_is_only_read(pictures: dict[str, Picture], meshes: dict[str, Landmarks]) -> None:
    before = pictures["obama-3"].copy(), meshes["obama-3"].points.copy()
    assert quality.measure(pictures["obama-3"], meshes["obama-3"], AHEAD) == quality.measure(
        pictures["obama-3"], meshes["obama-3"], AHEAD
    )
    assert np.array_equal(before[0], pictures["obama-3"])
    assert np.array_equal(before[1], meshes["obama-3"].points)


# --- the gate ---


@pytest.fixture
def measures() -> Measures:
    return Measures(
        size=120,
        yaw=-30,
        pitch=10,
        roll=0,
        eye_distance=50,
        eyes_open=0.9,
        mouth_open=0.1,
        sharpness=0.6,
        brightness=0.5,
        face_presence=0.99,
        inside=1,
    )


def test_a_face_that_keeps_to_every_limit_has_no_reasons(measures: Measures) -> None:
    limits = [Limit("size", "size", least=80), Limit("yaw", "yaw", most=45, absolute=True)]
    assert quality.gate(measures, limits) == ()
    assert quality.gate(measures, []) == ()


def test_each_missed_limit_is_a_reason_with_value_and_limit_in_the_limits_order(measures: Measures) -> None:
    limits = [
        Limit("too small", "size", least=121),
        Limit("sharpness", "sharpness", least=0.2),
        Limit("brightness", "brightness", least=0.1, most=0.4),
    ]
    assert quality.gate(measures, limits) == (Reason("too small", 120, 121), Reason("brightness", 0.5, 0.4))


def test_an_absolute_limit_bounds_both_sides_and_reports_the_sign(measures: Measures) -> None:
    assert quality.gate(measures, [Limit("yaw", "yaw", most=20, absolute=True)]) == (Reason("yaw", -30, 20),)
    assert quality.gate(measures, [Limit("yaw", "yaw", most=20)]) == ()
    assert quality.gate(measures, [Limit("yaw", "yaw", least=-20)]) == (Reason("yaw", -30, -20),)


def test_a_value_on_its_limit_keeps_to_it(measures: Measures) -> None:
    limits = [Limit("size", "size", least=120, most=120), Limit("yaw", "yaw", most=30, absolute=True)]
    assert quality.gate(measures, limits) == ()


def test_a_limit_without_bounds_is_kept(measures: Measures) -> None:
    assert quality.gate(measures, [Limit("size", "size")]) == ()


def test_what_is_not_a_number_keeps_to_no_limit(measures: Measures) -> None:
    unknown = dataclasses.replace(measures, sharpness=math.nan)
    for limit in (Limit("sharpness", "sharpness", least=0.0), Limit("sharpness", "sharpness", most=1.0)):
        (reason,) = quality.gate(unknown, [limit])
        assert reason.check == "sharpness"
        assert math.isnan(reason.value)


def test_a_measure_that_is_not_measured_is_a_mistake(measures: Measures) -> None:
    with pytest.raises(KeyError):
        quality.gate(measures, [Limit("beauty", "beauty", least=1)])
