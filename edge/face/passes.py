"""Which parts of a picture the detector looks at, and at which scale, so that faces of every size are found."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Size = tuple[int, int]
"""Rows, columns."""

FILLING = 0.75
"""The largest face, brow to chin, as a share of the picture's shorter side: above it the head no longer fits in."""

OVERLAP = 1.25
"""How far the ranges of two passes must overlap: near its ends a range is not quite as good as within."""


@dataclass(frozen=True)
class Window:
    """A part of a picture: its first and last row and column, the last not included."""

    top: int
    left: int
    bottom: int
    right: int


@dataclass(frozen=True)
class Pass:
    """One look at the whole picture: in one window, or in several that overlap, each in an input of that size."""

    size: Size
    scale: float
    """Input pixels a picture pixel."""
    windows: tuple[Window, ...]
    least_box_pixels: float = 0.0
    """Longer side in picture pixels: what seems smaller is left to a finer pass, that sees it better."""


@dataclass(frozen=True)
class FaceRange:
    """The faces that a detector finds reliably: longer side of the mesh's box, in pixels of the detector's input."""

    least: float
    most: float


def whole(size: Size, rows: int, columns: int) -> Pass:
    """Return the pass that fits a picture of so many pixels into one input of that size."""
    return Pass(size, _fitting(size, rows, columns), (Window(0, 0, rows, columns),))


def turned(size: Size, rows: int, columns: int) -> Size:
    """Return the input size as it suits such a picture: lying for a lying picture, upright for an upright one."""
    return (max(size), min(size)) if rows > columns else (min(size), max(size))


def plan(
    rows: int, columns: int, *, sizes: Iterable[Size], faces: FaceRange, smallest_face_pixels: float
) -> tuple[Pass, ...]:
    """Return the passes that find faces from `smallest_face_pixels` up in a picture of that size, the coarsest first.

    The finest pass is the cheapest input that shows the smallest face large enough; beyond the largest input, tiles of
    it. What is too large for that pass is left to cheaper ones, as few as cover the rest. The picture alone decides
    and not what it shows: whoever wants only the largest face can stop at the first pass that has one.
    """
    needed = faces.least / smallest_face_pixels
    fits = sorted((whole(size, rows, columns) for size in sizes), key=lambda one: (math.prod(one.size), -one.scale))
    enough = [one for one in fits if one.scale >= needed]
    finest = enough[0] if enough else _tiled(max(fits, key=lambda one: one.scale).size, rows, columns, needed, faces)
    fits = [dataclasses.replace(one, least_box_pixels=faces.least / one.scale) for one in fits]
    passes = [finest]
    largest = FILLING * min(rows, columns)
    while faces.most / passes[-1].scale < largest:
        reach = faces.most / passes[-1].scale / OVERLAP
        coarser = [one for one in fits if one.scale < passes[-1].scale and faces.least / one.scale <= reach]
        if not coarser:
            break
        passes.append(coarser[0])
    if faces.most / passes[-1].scale < largest:
        passes.append(dataclasses.replace(fits[0], scale=min(fits[0].scale, faces.most / largest)))
    return tuple(reversed(passes))


def _fitting(size: Size, rows: int, columns: int) -> float:
    return min(size[0] / rows, size[1] / columns)


def _tiled(size: Size, rows: int, columns: int, needed: float, faces: FaceRange) -> Pass:
    """Return as few tiles as show the picture at the scale `needed`, at the finest scale that so many allow.

    They overlap by the largest face that they are for, so that each face is whole in one of them.
    """
    counts = [
        max(1, math.ceil((side * needed - faces.most) / (input_ - faces.most)))
        for side, input_ in zip((rows, columns), size, strict=True)
    ]
    scale = min(
        (count * (input_ - faces.most) + faces.most) / side
        for count, input_, side in zip(counts, size, (rows, columns), strict=True)
    )
    tops, lefts = (
        _starts(side, _span(input_, scale), count)
        for side, input_, count in zip((rows, columns), size, counts, strict=True)
    )
    high, wide = (_span(input_, scale) for input_ in size)
    windows = tuple(
        Window(top, left, min(rows, top + high), min(columns, left + wide)) for top in tops for left in lefts
    )
    return Pass(size, scale, windows)


def _span(input_: int, scale: float) -> int:
    return math.floor(input_ / scale + 1e-6)  # a whole number may have come out a little under itself


def _starts(side: int, span: int, count: int) -> Sequence[int]:
    """Return where `count` windows of `span` pixels begin, evenly spread over `side`."""
    if count == 1:
        return (0,)
    return [round(number * (side - span) / (count - 1)) for number in range(count)]
