"""Which parts of a picture are looked at, and how closely."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.face.passes import FILLING, FaceRange, Pass, plan, whole

SIZES = [(192, 192), (192, 320), (320, 192), (320, 576), (576, 320), (512, 896), (896, 512)]
RANGE = FaceRange(14, 110)


def planned(rows: int, columns: int, smallest: float = 50) -> tuple[Pass, ...]:
    return plan(rows, columns, sizes=SIZES, faces=RANGE, smallest_face_pixels=smallest)


@pytest.mark.parametrize(
    ("rows", "columns", "smallest", "sizes"),
    [
        (480, 640, 50, [(192, 192)]),
        (720, 1280, 50, [(192, 192), (320, 576)]),
        (1080, 1920, 50, [(192, 192), (320, 576)]),
        (1920, 1080, 50, [(192, 192), (576, 320)]),
        (1080, 1920, 140, [(192, 192)]),
        (1080, 1920, 100, [(192, 192), (192, 320)]),
        (1080, 1920, 30, [(192, 192), (512, 896)]),
    ],
)
def test_the_smallest_face_picks_the_inputs(
    rows: int, columns: int, smallest: float, sizes: list[tuple[int, int]]
) -> None:
    passes = planned(rows, columns, smallest)
    assert [one.size for one in passes] == sizes
    assert all(len(one.windows) == 1 for one in passes)


def test_beyond_the_largest_input_it_is_tiled() -> None:
    *coarser, finest = planned(2160, 3840)
    assert [one.size for one in coarser] == [(192, 192), (192, 320)]
    assert finest.size == (512, 896)
    assert len(finest.windows) == 4
    assert finest.scale == pytest.approx((2 * (512 - 110) + 110) / 2160)


def test_a_head_that_fills_a_square_picture_is_looked_at_from_further_off() -> None:
    first, *_ = planned(600, 600)
    assert first.size == (192, 192)
    assert first.scale * 600 * FILLING == pytest.approx(RANGE.most)


shapes = st.tuples(st.integers(64, 8000), st.integers(64, 8000)).filter(lambda s: s[0] * s[1] <= 40_000_000)
ranges = st.tuples(st.floats(8, 30), st.floats(60, 180)).map(lambda ends: FaceRange(*ends))


@given(shapes, st.floats(20, 1000), ranges)
def test_every_face_that_matters_is_within_the_range_of_a_pass(
    shape: tuple[int, int], smallest: float, faces: FaceRange
) -> None:
    passes = plan(*shape, sizes=SIZES, faces=faces, smallest_face_pixels=smallest)
    scales = [one.scale for one in passes]
    assert scales == sorted(scales)
    assert faces.least / scales[-1] <= smallest * (1 + 1e-9)
    assert faces.most / scales[0] >= FILLING * min(shape) * (1 - 1e-9)


@given(shapes, st.floats(20, 1000), ranges)
def test_windows_cover_the_picture_and_fit_their_input(
    shape: tuple[int, int], smallest: float, faces: FaceRange
) -> None:
    for one in plan(*shape, sizes=SIZES, faces=faces, smallest_face_pixels=smallest):
        seen_rows, seen_columns = np.zeros(shape[0], bool), np.zeros(shape[1], bool)
        for window in one.windows:
            seen_rows[window.top : window.bottom] = True
            seen_columns[window.left : window.right] = True
            assert (window.bottom - window.top) * one.scale <= one.size[0] + 1e-6
            assert (window.right - window.left) * one.scale <= one.size[1] + 1e-6
        assert seen_rows.all()
        assert seen_columns.all()
        assert len(set(one.windows)) == len(one.windows)


@given(st.tuples(st.integers(1500, 6000), st.integers(1500, 6000)), st.floats(20, 60))
def test_a_face_for_which_there_are_tiles_is_whole_in_one_of_them(shape: tuple[int, int], smallest: float) -> None:
    finest = planned(*shape, smallest)[-1]
    face = RANGE.most / finest.scale - 4  # windows begin and end at whole pixels
    for side in (0, 1):
        edges = {((w.top, w.bottom), (w.left, w.right))[side] for w in finest.windows}
        for at in np.linspace(0, shape[side] - face, 50):
            assert any(start <= at and at + face <= end for start, end in edges)


def test_one_input_of_ones_own_choice() -> None:
    one = whole((192, 320), 1080, 1920)
    assert (one.scale, len(one.windows)) == (320 / 1920, 1)
