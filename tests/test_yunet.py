"""The second detector: its numbers read as OpenCV reads them, and its converted network as good as the original."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edge import catalogue
from edge.errors import PackUnusable
from edge.face.analysis import Analyser
from edge.face.detection import Size, decode_yunet, letterbox, overlaps, suppress
from edge.face.networks import Networks
from edge.types import Detection, Picture

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ROOT / "models"
SIZE: Size = (384, 640)
SCORE, IOU = 0.6, 0.3
LEAST_OVERLAP = 0.9
"""With OpenCV's boxes. It keeps the best of those that overlap, and we their weighted mean: 0.913 is the least seen."""


@pytest.fixture(scope="module")
def onnx(test_data: Path) -> Path:
    path = test_data / "detector-yunet" / "yunet_n_640_640.onnx"
    if not path.is_file():
        pytest.skip(f"no network in {path}")
    return path


@pytest.fixture(scope="module")
def converting() -> str:
    """A Python with the extra [convert]: this one, or the one that EDGE_TEST_CONVERT_PYTHON names."""
    python = os.environ.get("EDGE_TEST_CONVERT_PYTHON", sys.executable)
    if python == sys.executable and not all(map(importlib.util.find_spec, ("tensorflow", "onnx"))):
        pytest.skip("the extra [convert] is not installed (EDGE_TEST_CONVERT_PYTHON names a Python that has it)")
    return python


@pytest.fixture(scope="module")
def yunet(onnx: Path, converting: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pack as its script makes it."""
    folder = tmp_path_factory.mktemp("made") / "yunet"
    subprocess.run([converting, ROOT / "scripts" / "build_yunet_pack.py", onnx, "--out", folder], check=True)
    return folder


@pytest.fixture(scope="module")
def far(yunet: Path, interpreter: str) -> Analyser:
    return Networks(interpreter).analyser(catalogue.load(yunet, [SHIPPED]))


@pytest.fixture(scope="module")
def scenes(pictures: dict[str, Picture], test_data: Path) -> list[Picture]:
    """The product's own photos and frames with several people, as the network's input has them."""
    frames = sorted((test_data / "camera").glob("*/*.jpg"))[::25]
    read = [cv2.imread(str(path), cv2.IMREAD_COLOR)[:, :, ::-1] for path in frames]
    return [letterbox(np.ascontiguousarray(picture), SIZE)[0] for picture in (*pictures.values(), *read)]


def opencv(onnx: Path, picture: Picture) -> NDArray[np.float32]:
    """OpenCV's own: a row for each face, box, five points and score."""
    detector = cv2.FaceDetectorYN.create(str(onnx), "", SIZE[::-1], SCORE, IOU, 5000)
    _, found = detector.detect(np.ascontiguousarray(picture[:, :, ::-1]))
    return np.empty((0, 15), np.float32) if found is None else np.asarray(found, np.float32)


def agrees(theirs: NDArray[np.float32], boxes: NDArray[np.float32], points: NDArray[np.float32]) -> None:
    """One of ours for each of theirs, about as large and with its points in the same order."""
    assert len(boxes) == len(theirs)
    for row in theirs:
        shared = overlaps(row[:4], boxes)
        best = int(np.argmax(shared))
        assert shared[best] > LEAST_OVERLAP
        assert np.abs(points[best].ravel() - row[4:14]).max() < 0.1 * row[3]


def joined(onnx: Path, picture: Picture) -> list[NDArray[np.float32]]:
    """The original network's outputs, run by OpenCV and joined as the converted network joins them."""
    network = cv2.dnn.readNet(str(onnx))
    network.setInput(cv2.dnn.blobFromImage(picture, swapRB=True))
    heads = [f"{head}_{stride}" for stride in (8, 16, 32) for head in ("cls", "obj", "bbox", "kps")]
    values = dict(zip(heads, network.forward(heads), strict=True))
    return [np.concatenate([values[name] for name in heads[4 * n : 4 * n + 4]], axis=-1) for n in (2, 0, 1)]


# --- decoding ---


def test_a_cell_s_numbers_become_a_face_where_they_say() -> None:
    outputs = [np.zeros((1, 8 * 12 // n**2, 16), np.float32) for n in (1, 2, 4)]
    numbers = outputs[1]  # strides of 16: 4 rows of 6 cells; the second row's fourth
    numbers[0, 6 + 3] = [0.81, 1.0, 0.5, 0.25, np.log(2), np.log(3), *range(10)]
    found, scores = decode_yunet(outputs, (64, 96), 0.5)
    assert scores == pytest.approx([0.9])
    centre, sides = (16 * 3.5, 16 * 1.25), (32, 48)
    assert found[0, :4] == pytest.approx([centre[0] - 16, centre[1] - 24, *sides])
    assert found[0, 4:].reshape(5, 2) == pytest.approx(16 * (np.arange(10).reshape(5, 2) + np.array([3, 1])))


def test_what_scores_under_the_threshold_is_nothing() -> None:
    outputs = [np.full((1, 8 * 12 // n**2, 16), 0.49, np.float32) for n in (1, 2, 4)]
    found, scores = decode_yunet(outputs, (64, 96), 0.5)
    assert found.shape == (0, 14)
    assert scores.shape == (0,)


def test_numbers_beyond_reason_do_not_overflow() -> None:
    outputs = [np.full((1, 8 * 12 // n**2, 16), 1e9, np.float32) for n in (1, 2, 4)]
    found, scores = decode_yunet(outputs, (64, 96), 0.5)
    assert np.isfinite(found).all()
    assert scores.max() == 1


@pytest.mark.parametrize("shapes", [[(1, 96, 16)], [(1, 96, 16), (1, 24, 16), (1, 6, 15)], []], ids=str)
def test_outputs_of_another_shape_are_refused(shapes: list[tuple[int, ...]]) -> None:
    with pytest.raises(PackUnusable, match="cannot be read as yunet of 64x96"):
        decode_yunet([np.zeros(shape, np.float32) for shape in shapes], (64, 96), 0.5)


def test_the_original_network_s_numbers_are_read_as_opencv_reads_them(onnx: Path, scenes: list[Picture]) -> None:
    faces = 0
    for picture in scenes:
        theirs = opencv(onnx, picture)
        found, _ = suppress(*decode_yunet(joined(onnx, picture), SIZE, SCORE), IOU)
        agrees(theirs, found[:, :4], found[:, 4:])
        faces += len(theirs)
    assert faces > 15, "too few to show anything"


# --- the converted network ---


def test_the_pack_finds_what_opencv_finds(far: Analyser, onnx: Path, scenes: list[Picture]) -> None:
    for picture in scenes:
        ours = far.detector.detect(picture, SIZE)
        boxes = np.array([(d.box.x, d.box.y, d.box.width, d.box.height) for d in ours], np.float32).reshape(-1, 4)
        agrees(opencv(onnx, picture), boxes, np.array([d.points.ravel() for d in ours]))


def test_every_size_of_the_pack_finds_the_photos_face(far: Analyser, pictures: dict[str, Picture]) -> None:
    assert set(far.detector.sizes) == {(192, 320), (320, 192), (384, 640), (640, 384)}
    for size in far.detector.sizes:
        (face,) = far.detector.detect(pictures["obama-1"], size)
        assert isinstance(face, Detection)
        assert face.points.shape == (5, 2)
        right_eye, left_eye = face.points[:2]
        assert right_eye[0] < left_eye[0], "the subject's right eye is on the picture's left"


def test_its_faces_have_the_vectors_of_the_default_pack_s(
    far: Analyser, analyser: Analyser, pictures: dict[str, Picture]
) -> None:
    for name in ("obama-1", "obama-2", "biden-1"):
        (ours,) = far.faces(pictures[name], far.passes(pictures[name].shape, 50), presence_floor=0.5)
        (theirs,) = analyser.faces(pictures[name], analyser.passes(pictures[name].shape, 50), presence_floor=0.5)
        one = far.embedder.probe(pictures[name], ours.landmarks.points).vector
        two = analyser.embedder.probe(pictures[name], theirs.landmarks.points).vector
        assert float(one @ two) > 0.98


def test_the_pack_keeps_everybody_known(yunet: Path) -> None:
    pack = catalogue.load(yunet, [SHIPPED])
    assert (pack.name, pack.id, pack.detector.decoding) == ("yunet", "default-1", "yunet")


# --- the script ---


def test_the_script_makes_no_pack_of_what_is_not_yunet(converting: str, tmp_path: Path) -> None:
    (tmp_path / "page.onnx").write_bytes(b"<!DOCTYPE html>")
    command = [converting, ROOT / "scripts" / "build_yunet_pack.py", tmp_path / "page.onnx"]
    run = subprocess.run([*command, "--out", tmp_path / "made"], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "cannot be read as ONNX" in run.stderr or "is not YuNet" in run.stderr
    assert not (tmp_path / "made").exists()
