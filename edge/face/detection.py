"""Picture to detections: letterbox, the network, its decoding, suppression."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.errors import Mistake, PackUnusable
from edge.face.image import resized
from edge.face.passes import FaceRange, Pass, Size, Window, plan, whole
from edge.face.tflite import Model
from edge.types import Box, Detection, Picture

BLAZEFACE_STRIDE = 4
"""Input pixels a cell: one anchor at the centre of each (MediaPipe, face_detection_full_range.pbtxt: strides 4,
interpolated scale aspect ratio 0, fixed anchor size)."""

BLAZEFACE_NUMBERS = 16
"""Per anchor: box centre x and y, width, height, then six points, in input pixels relative to the anchor."""

YUNET_STRIDES = (8, 16, 32)
"""Input pixels a cell (OpenCV, modules/objdetect/src/face_detect.cpp, postProcess: the decoding followed here)."""

YUNET_NUMBERS = 16
"""Per cell, as scripts/build_yunet_pack.py joins them: two scores, four of the box, five points."""

YUNET_LARGEST_SIDE = 8.0
"""Logarithm of a box's side in strides: e to the 8 is 95,000 pixels, so that nothing overflows on a broken network."""


@dataclass(frozen=True)
class Letterbox:
    """How a picture lies in a model's input: scaled, in the middle, black around it."""

    scale: float
    left: int
    top: int


def letterbox(picture: Picture, size: Size, scale: float | None = None) -> tuple[Picture, Letterbox]:
    """Return the picture fitted into `size` without distortion, and how to find the way back.

    `scale`: input pixels a picture pixel, where it is to be less than what would fit.
    """
    rows, columns = size
    height, width = picture.shape[:2]
    scale = min(rows / height, columns / width, math.inf if scale is None else scale)
    inner = max(1, round(width * scale)), max(1, round(height * scale))
    small = picture
    if inner != (width, height):
        small = resized(picture, inner)
    if inner == (columns, rows):
        return small, Letterbox(scale, 0, 0)
    canvas = np.zeros((rows, columns, 3), np.uint8)
    left, top = (columns - inner[0]) // 2, (rows - inner[1]) // 2
    canvas[top : top + inner[1], left : left + inner[0]] = small
    return canvas, Letterbox(scale, left, top)


@functools.cache
def anchors(size: Size) -> NDArray[np.float32]:
    """Return the anchors' centres, n x 2 (x, y) input pixels, in the order of the network's output."""
    rows, columns = size
    y, x = np.mgrid[0 : rows // BLAZEFACE_STRIDE, 0 : columns // BLAZEFACE_STRIDE]
    centres = (np.stack([x.ravel(), y.ravel()], axis=1) + 0.5) * BLAZEFACE_STRIDE
    return centres.astype(np.float32)


def decode_blazeface(
    outputs: list[NDArray[np.float32]], size: Size, threshold: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return what scores at or above `threshold`: n x 16 (left, top, width, height, six points) and n scores.

    Coordinates in input pixels. The two outputs are told apart by their last dimension (16 numbers, 1 score).
    PackUnusable for any others.
    """
    cells = len(anchors(size))
    by_shape = {output.shape: output for output in outputs}
    if set(by_shape) != {(1, cells, BLAZEFACE_NUMBERS), (1, cells, 1)}:
        reason = f"its network returns {list(by_shape)}, which cannot be read as blazeface of {size[0]}x{size[1]}"
        raise PackUnusable(Mistake("detector.decoding", reason))
    numbers, logits = by_shape[1, cells, BLAZEFACE_NUMBERS][0], by_shape[1, cells, 1][0, :, 0]
    # The sigmoid is monotone: compare before it, and take it of the few that are left.
    kept = np.flatnonzero(logits >= np.log(threshold / (1 - threshold)))
    if not len(kept):
        return np.empty((0, BLAZEFACE_NUMBERS), np.float32), np.empty(0, np.float32)
    found = numbers[kept].copy()
    centres = anchors(size)[kept]
    found[:, 0:2] += centres - found[:, 2:4] / 2
    found[:, 4:] += np.tile(centres, 6)
    scores = 1 / (1 + np.exp(-np.clip(logits[kept], -80, 80)))
    return found, scores.astype(np.float32)


def decode_yunet(
    outputs: list[NDArray[np.float32]], size: Size, threshold: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return what scores at or above `threshold`: n x 14 (left, top, width, height, five points) and n scores.

    An output for each stride, told apart by how many cells they have; per cell 16 numbers: whether it is a face,
    whether there is something, the box's centre and the logarithms of its sides, then right eye, left eye, nose, right
    and left corner of the mouth. All in strides, relative to the cell's corner. PackUnusable for any other outputs.
    """
    rows, columns = size
    by_shape = {output.shape: output for output in outputs}
    shapes = {stride: (1, (rows // stride) * (columns // stride), YUNET_NUMBERS) for stride in YUNET_STRIDES}
    if set(by_shape) != set(shapes.values()):
        reason = f"its network returns {list(by_shape)}, which cannot be read as yunet of {rows}x{columns}"
        raise PackUnusable(Mistake("detector.decoding", reason))
    found, best = [], []
    for stride, shape in shapes.items():
        numbers = by_shape[shape][0]
        scores = np.sqrt(np.clip(numbers[:, 0], 0, 1) * np.clip(numbers[:, 1], 0, 1))
        kept = np.flatnonzero(scores >= threshold)
        corners = np.stack([kept % (columns // stride), kept // (columns // stride)], axis=1)
        boxes, points = numbers[kept, 2:6], numbers[kept, 6:]
        sides = np.exp(np.minimum(boxes[:, 2:], YUNET_LARGEST_SIDE))
        places = [boxes[:, :2] + corners - sides / 2, sides, points + np.tile(corners, 5)]
        found.append(np.concatenate(places, axis=1) * stride)
        best.append(scores[kept])
    return np.concatenate(found).astype(np.float32), np.concatenate(best).astype(np.float32)


Decoder = Callable[[list[NDArray[np.float32]], Size, float], tuple[NDArray[np.float32], NDArray[np.float32]]]

DECODERS: Mapping[str, Decoder] = {"blazeface": decode_blazeface, "yunet": decode_yunet}
"""The ways of reading a detector's output that a pack can name. The points begin with right and left eye in each."""


def overlaps(box: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the intersection over union of one box with n others (left, top, width, height)."""
    left_top = np.maximum(box[:2], others[:, :2])
    right_bottom = np.minimum(box[:2] + box[2:4], others[:, :2] + others[:, 2:4])
    shared = np.prod(np.clip(right_bottom - left_top, 0, None), axis=1)
    union = box[2] * box[3] + others[:, 2] * others[:, 3] - shared
    return np.asarray(np.where(union > 0, shared / np.maximum(union, 1e-9), 0), np.float32)


def suppress(
    found: NDArray[np.float32], scores: NDArray[np.float32], iou_threshold: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weighted non-maximum suppression, best first.

    Those that overlap the best one become one: the mean of their numbers weighted by score, with the best's score.
    """
    order = np.argsort(-scores, kind="stable")
    merged, best = [], []
    while len(order):
        same = overlaps(found[order[0]], found[order]) > iou_threshold
        same[0] = True  # a box without area overlaps nothing, itself included
        group = order[same]
        merged.append(np.average(found[group], axis=0, weights=scores[group]))
        best.append(scores[order[0]])
        order = order[~same]
    return np.asarray(merged, np.float32).reshape(-1, found.shape[1]), np.asarray(best, np.float32)


@dataclass(frozen=True, eq=False)
class Found:
    """What one pass found: n scores, and n x (left, top, width, height, points) in picture pixels."""

    numbers: NDArray[np.float32]
    scores: NDArray[np.float32]


class Detector:
    """Finds faces. One network, several input sizes, each loaded when it is first needed."""

    def __init__(
        self,
        sizes: Mapping[Size, Callable[[], Model]],
        *,
        decoding: str,
        score_threshold: float,
        iou_threshold: float,
        faces: FaceRange,
    ) -> None:
        """`sizes`: how to load the network for each input size. PackUnusable for an unknown decoding."""
        if decoding not in DECODERS:
            raise PackUnusable(Mistake("detector.decoding", f"'{decoding}' is none of {', '.join(DECODERS)}"))
        self._load = dict(sizes)
        self._models: dict[Size, Model] = {}
        self._decode = DECODERS[decoding]
        self._score_threshold = score_threshold
        self._iou_threshold = iou_threshold
        self._faces = faces

    @property
    def sizes(self) -> tuple[Size, ...]:
        """The input sizes that there are."""
        return tuple(self._load)

    @property
    def smallest(self) -> Size:
        """The cheapest input size."""
        return min(self._load, key=math.prod)

    def load(self, size: Size) -> Model:
        """Return the network for that input size (KeyError for one that the pack does not have)."""
        if size not in self._models:
            self._models[size] = self._load[size]()
        return self._models[size]

    def plan(self, rows: int, columns: int, smallest_face_pixels: float) -> tuple[Pass, ...]:
        """Return the passes that find faces from that size up in such a picture, the coarsest first (see passes.py)."""
        return plan(rows, columns, sizes=self._load, faces=self._faces, smallest_face_pixels=smallest_face_pixels)

    def detect(self, picture: Picture, size: Size) -> list[Detection]:
        """Return the faces of the upright RGB picture, seen whole in that input, best first, in its pixels."""
        return self.merged([self.look(picture, whole(size, *picture.shape[:2]))])

    def look(self, picture: Picture, one: Pass) -> Found:
        """Return what one pass finds in the upright RGB picture, nothing suppressed yet."""
        model = self.load(one.size)
        parts = [self._window(picture, one, window, model) for window in one.windows]
        return Found(np.concatenate([p.numbers for p in parts]), np.concatenate([p.scores for p in parts]))

    def merged(self, looks: Sequence[Found]) -> list[Detection]:
        """Return the faces that one or several passes found, each once, best first."""
        numbers, scores = np.concatenate([p.numbers for p in looks]), np.concatenate([p.scores for p in looks])
        if not len(scores):
            return []
        numbers, scores = suppress(numbers, scores, self._iou_threshold)
        return [
            Detection(Box(*(float(n) for n in row[:4])), float(score), row[4:].reshape(-1, 2))
            for row, score in zip(numbers, scores, strict=True)
        ]

    def _window(self, picture: Picture, one: Pass, window: Window, model: Model) -> Found:
        part = picture[window.top : window.bottom, window.left : window.right]
        fitted, box = letterbox(part, one.size, one.scale)
        numbers, scores = self._decode(model.run(fitted), one.size, self._score_threshold)
        _move(numbers, -box.left, -box.top)
        numbers /= box.scale
        kept = _not_cut(numbers, window, *picture.shape[:2])
        kept &= numbers[:, 2:4].max(axis=1, initial=0) >= one.least_box_pixels
        _move(numbers, window.left, window.top)
        return Found(numbers[kept], scores[kept])


def _move(numbers: NDArray[np.float32], x: float, y: float) -> None:
    """Shift corners and points; width and height stay."""
    numbers[:, 0] += x
    numbers[:, 1] += y
    numbers[:, 4::2] += x
    numbers[:, 5::2] += y


def _not_cut(numbers: NDArray[np.float32], window: Window, rows: int, columns: int) -> NDArray[np.bool_]:
    """Return which boxes (in the window's pixels) are not cut by an edge of it that lies within the picture.

    Such a face is whole in the window beside it.
    """
    left, top = numbers[:, 0], numbers[:, 1]
    right, bottom = left + numbers[:, 2], top + numbers[:, 3]
    kept = np.ones(len(numbers), np.bool_)
    if window.left > 0:
        kept &= left > 0
    if window.top > 0:
        kept &= top > 0
    if window.right < columns:
        kept &= right < window.right - window.left
    if window.bottom < rows:
        kept &= bottom < window.bottom - window.top
    return kept
