"""The crop: pure geometry, checked against pictures whose every pixel is known."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge.face import alignment
from edge.face.alignment import Matrix
from edge.face.analysis import Analyser
from edge.types import AlignmentPoint, CropVariant, Embedding, Pack, Picture

PLAIN = CropVariant(1.0, 0.0, 0.0, mirrored=False)
SIDE = 150

COORDINATES = st.floats(-1000, 1000)
POINT_SETS = st.lists(st.tuples(COORDINATES, COORDINATES), min_size=2, max_size=8).map(np.array)


def similar(scale: float, degrees: float, shift_x: float, shift_y: float) -> Matrix:
    """Scale, turn (clockwise as seen), shift."""
    cosine, sine = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    return np.array([[cosine, -sine, shift_x], [sine, cosine, shift_y]])


def about(matrix: Matrix, x: float, y: float) -> Matrix:
    """The matrix with the shift that brings (x, y) to the middle of the crop."""
    matrix = matrix.copy()
    matrix[:, 2] = np.array([SIDE / 2, SIDE / 2]) - matrix[:, :2] @ (x, y)
    return matrix


def applied(matrix: Matrix, points: NDArray[np.float64]) -> NDArray[np.float64]:
    return points @ matrix[:, :2].T + matrix[:, 2]


# --- the similarity ---


@given(POINT_SETS, st.floats(0.05, 20), st.floats(-180, 180), COORDINATES, COORDINATES)
def test_a_similarity_is_recovered_from_what_it_does(
    origins: NDArray[np.float64], scale: float, degrees: float, shift_x: float, shift_y: float
) -> None:
    assume(np.ptp(origins, axis=0).max() > 1)
    matrix = similar(scale, degrees, shift_x, shift_y)
    found = alignment.similarity(origins, applied(matrix, origins))
    assert applied(found, origins) == pytest.approx(applied(matrix, origins), abs=1e-5 * scale)


@given(POINT_SETS, POINT_SETS, st.floats(-0.05, 0.05), st.floats(-3, 3), st.floats(-9, 9), st.floats(-9, 9))
def test_no_other_similarity_comes_nearer(
    origins: NDArray[np.float64],
    targets: NDArray[np.float64],
    scale: float,
    degrees: float,
    shift_x: float,
    shift_y: float,
) -> None:
    count = min(len(origins), len(targets))
    origins, targets = origins[:count], targets[:count]
    assume(np.ptp(origins, axis=0).max() > 1)
    best = alignment.similarity(origins, targets)
    change = similar(1 + scale, degrees, shift_x, shift_y)
    other = change[:, :2] @ best
    other[:, 2] += change[:, 2]
    error, other_error = (np.square(applied(m, origins) - targets).sum() for m in (best, other))
    assert error <= other_error * (1 + 1e-9) + 1e-6


def test_points_that_coincide_make_no_division_by_zero() -> None:
    found = alignment.similarity(np.full((3, 2), 7.0), np.array([(0.0, 0.0), (2.0, 0.0), (1.0, 3.0)]))
    assert applied(found, np.array([(7.0, 7.0)])) == pytest.approx(np.array([(1.0, 1.0)]))


def test_a_point_of_the_template_may_be_the_mean_of_several_of_the_mesh() -> None:
    points = np.zeros((468, 3), np.float32)
    points[[10, 11, 20], :2] = [(100, 100), (120, 100), (110, 160)]
    template = [
        AlignmentPoint("eyes", (10, 11), 0.5, 0.25),
        AlignmentPoint("mouth", (20,), 0.5, 0.75),
    ]
    matrix = alignment.alignment(points, template, rows=200, columns=100)
    moved = applied(matrix, np.array([(110.0, 100.0), (110.0, 160.0)]))
    assert moved == pytest.approx(np.array([(50.0, 50.0), (50.0, 150.0)]))


def test_a_face_s_points_come_to_lie_on_the_pack_s_template(
    analyser: Analyser, pack: Pack, pictures: dict[str, Picture]
) -> None:
    for name in ("biden-1", "collins-1", "obama-1"):
        picture = pictures[name]
        detection = analyser.detector.detect(picture, (192, 320))[0]
        points = analyser.mesh.locate(picture, detection).points
        template = pack.embedder.alignment
        matrix = alignment.alignment(points, template, SIDE, SIDE)
        for point in template:
            moved = applied(matrix, points[list(point.mesh), :2].mean(axis=0))
            assert np.hypot(*(moved - np.array([point.x * SIDE, point.y * SIDE]))) < 6, point.name


# --- the variants ---


@given(st.floats(0.5, 2), st.floats(-30, 30), st.floats(-30, 30), st.floats(0.1, 3), st.floats(-180, 180))
def test_a_variant_scales_about_the_crop_s_centre_and_then_shifts(
    scale: float, shift_x: float, shift_y: float, own_scale: float, degrees: float
) -> None:
    matrix = about(similar(own_scale, degrees, 0, 0), 400, 300)
    changed = alignment.varied(matrix, CropVariant(scale, shift_x, shift_y, mirrored=False), 100, SIDE)
    points = np.array([(400.0, 300.0), (410.0, 290.0), (350.0, 333.0)])
    centre = np.array([SIDE / 2, 50])
    expected = (applied(matrix, points) - centre) * scale + centre + (shift_x, shift_y)
    assert applied(changed, points) == pytest.approx(expected)


def test_the_plain_variant_changes_nothing() -> None:
    matrix = similar(0.7, 20, 5, 6)
    assert np.array_equal(alignment.varied(matrix, PLAIN, SIDE, SIDE), matrix)


def test_the_identity_s_crop_is_the_picture_itself() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (100, SIDE, 3), np.uint8)
    assert np.array_equal(alignment.crop(picture, similar(1, 0, 0, 0), PLAIN, 100, SIDE), picture)


def test_a_mirrored_crop_is_the_crop_mirrored() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (300, 300, 3), np.uint8)
    for matrix in (about(similar(1.3, 20, 0, 0), 150, 150), about(similar(0.3, 20, 0, 0), 150, 150)):
        for variant in (PLAIN, CropVariant(1.03, 4, 0, mirrored=False)):
            straight = alignment.crop(picture, matrix, variant, SIDE, SIDE)
            mirrored = CropVariant(variant.scale, variant.shift_x, variant.shift_y, mirrored=True)
            assert np.array_equal(alignment.crop(picture, matrix, mirrored, SIDE, SIDE), straight[:, ::-1])


def test_a_shifted_crop_is_the_crop_shifted() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (300, 300, 3), np.uint8)
    matrix = similar(1, 0, -60, -60)
    straight = alignment.crop(picture, matrix, PLAIN, SIDE, SIDE)
    right = alignment.crop(picture, matrix, CropVariant(1, 4, 0, mirrored=False), SIDE, SIDE)
    up = alignment.crop(picture, matrix, CropVariant(1, 0, -4, mirrored=False), SIDE, SIDE)
    assert np.array_equal(right[:, 4:], straight[:, :-4])
    assert np.array_equal(up[:-4], straight[4:])


# --- pixels ---


def smooth(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """A picture without detail, but steep enough that half a pixel shows: up to 8 levels a pixel, in each channel."""
    waves = [np.sin(x / 17) * np.cos(y / 23), np.sin((x + y) / 19), np.cos(x / 29 - y / 13)]
    return np.stack([127.5 + 120 * wave for wave in waves], axis=-1)


def smooth_picture(rows: int, columns: int) -> Picture:
    y, x = np.mgrid[0:rows, 0:columns].astype(float)
    return np.round(smooth(x, y)).astype(np.uint8)


def expected_crop(matrix: Matrix) -> NDArray[np.float64]:
    """What the crop of the smooth picture shows, by its formula."""
    v, u = np.mgrid[0:SIDE, 0:SIDE].astype(float)
    linear = np.linalg.inv(matrix[:, :2])
    places = (np.stack([u, v], axis=-1) - matrix[:, 2]) @ linear.T
    return smooth(places[..., 0], places[..., 1])


@pytest.mark.parametrize("degrees", [0, 25, -100])
@pytest.mark.parametrize("scale", [3.0, 1.0, 0.51, 0.49, 0.34, 0.3])
def test_plain_and_averaged_crops_show_the_same_place(scale: float, degrees: float) -> None:
    matrix = about(similar(scale, degrees, 0, 0), 601.3, 598.8)
    crop = alignment.crop(smooth_picture(1200, 1200), matrix, PLAIN, SIDE, SIDE)
    difference = np.abs(crop - expected_crop(matrix))
    # Averaging over a few pixels flattens the waves' tops a little; half a pixel would be 4 levels in the mean.
    assert difference.mean() < 1.5
    assert difference.max() < 8


@pytest.mark.parametrize("x", [45, 600, 1160])
def test_averaging_a_part_at_the_picture_s_edge_moves_nothing(x: float) -> None:
    matrix = about(similar(0.3, 10, 0, 0), x, 600)
    crop = alignment.crop(smooth_picture(1201, 1203), matrix, PLAIN, SIDE, SIDE)
    plain = cv2.warpAffine(smooth_picture(1201, 1203), matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR)
    inside = cv2.warpAffine(np.ones((1201, 1203), np.uint8), matrix, (SIDE, SIDE), flags=cv2.INTER_NEAREST)
    inside = cv2.erode(inside, np.ones((5, 5), np.uint8), borderValue=1) > 0
    assert np.abs(crop[inside].astype(float) - plain[inside]).max() < 8


def test_detail_is_averaged_and_does_not_turn_into_noise() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (1600, 1600, 3), np.uint8)
    matrix = about(similar(0.125, 0, 0, 0), 800, 800)
    assert alignment.crop(picture, matrix, PLAIN, SIDE, SIDE).std() < 74 / 6


@pytest.mark.parametrize("scale", [2.0, 0.6, 0.2, 0.01, 1e-6])
@pytest.mark.parametrize(("x", "y"), [(0, 0), (399, 150), (-5, 299), (3000, 100), (-3000, -3000), (200, 9000)])
def test_a_face_at_the_frame_s_edge_or_beyond_has_a_crop(scale: float, x: float, y: float) -> None:
    picture = np.full((300, 400, 3), 200, np.uint8)
    matrix = about(similar(scale, 30, 0, 0), x, y)
    for mirrored in (False, True):
        crop = alignment.crop(picture, matrix, CropVariant(1.03, 0, -4, mirrored), SIDE, SIDE)
        assert crop.shape == (SIDE, SIDE, 3)
        assert crop.dtype == np.uint8
        assert crop.max() <= 200
    if scale > 0.5 and (x, y) in ((3000, 100), (-3000, -3000), (200, 9000)):
        assert not crop.any(), "what is off the picture is black"


# --- a face as large as a telephone takes it ---


def embedded(analyser: Analyser, picture: Picture) -> Embedding:
    size = (320, 192) if picture.shape[0] > picture.shape[1] else (192, 320)
    found = analyser.detector.detect(picture, size)[0]
    return analyser.embedder.probe(picture, analyser.mesh.locate(picture, found).points)


@pytest.mark.parametrize("name", ["collins-1", "obama-1", "obama-2"])
def test_the_same_face_four_times_as_large_has_the_same_vector(
    analyser: Analyser, pictures: dict[str, Picture], name: str
) -> None:
    picture = pictures[name]
    large = np.asarray(cv2.resize(picture, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC), np.uint8)
    assert embedded(analyser, picture).vector @ embedded(analyser, large).vector > 0.97


def test_grain_that_the_crop_cannot_show_does_not_change_the_vector(
    analyser: Analyser, pictures: dict[str, Picture]
) -> None:
    picture = pictures["obama-1"]
    large = cv2.resize(picture, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    grain = np.random.default_rng(4).normal(0, 60, large.shape).astype(np.float32)
    grainy = np.clip(large + grain, 0, 255).astype(np.uint8)
    assert embedded(analyser, picture).vector @ embedded(analyser, grainy).vector > 0.98
