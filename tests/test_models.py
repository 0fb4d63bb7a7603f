"""The shipped pack's files: as pack.json records them, small, runnable, and equal to what they were made from."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edge.face import tflite

ROOT = Path(__file__).resolve().parent.parent
PACK = ROOT / "models" / "default"
DESCRIPTION: dict[str, Any] = json.loads((PACK / "pack.json").read_text(encoding="utf-8"))
PHOTOS = ROOT / "tests" / "photos"
REFERENCE = ROOT / "tests" / "reference"
DLIB_VECTORS: dict[str, list[float]] = json.loads((REFERENCE / "dlib_vectors.json").read_text(encoding="utf-8"))[
    "vectors"
]
SIZES = [(entry["rows"], entry["columns"]) for entry in DESCRIPTION["detector"]["inputs"]]
FLOAT16_ERROR = 1e-3
"""Largest difference in one element that 16-bit weights may make: 2.3e-4 measured, of vectors about 1.4 long."""


@pytest.fixture(scope="module")
def build_models() -> ModuleType:
    """scripts/build_models.py, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("build_models", ROOT / "scripts" / "build_models.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["build_models"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def copied_pack(tmp_path: Path) -> Path:
    """The pack's folder, to be altered."""
    return Path(shutil.copytree(PACK, tmp_path / "default"))


def entries() -> list[dict[str, Any]]:
    """What pack.json says of each file."""
    embedder = DESCRIPTION["embedder"]
    return [*DESCRIPTION["detector"]["inputs"], DESCRIPTION["landmarks"], embedder, embedder["cohort"]]


def run(interpreter: str, name: str, values: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Run a model of the pack on one input, with nothing of the product in between but the choice of interpreter."""
    model = tflite.installed(interpreter)[1](model_path=str(PACK / name), num_threads=1)
    model.allocate_tensors()
    (taken,) = model.get_input_details()
    assert tuple(taken["shape"]) == values.shape
    assert taken["dtype"] == np.float32
    model.set_tensor(taken["index"], values)
    model.invoke()
    return [model.get_tensor(output["index"]).copy() for output in model.get_output_details()]


def noise(rows: int, columns: int) -> NDArray[np.float32]:
    return np.random.default_rng(5).uniform(-1, 1, (1, rows, columns, 3)).astype(np.float32)


# --- the files ---


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: str(entry["file"]))
def test_a_file_is_the_one_that_is_recorded(entry: dict[str, Any]) -> None:
    assert hashlib.sha256((PACK / entry["file"]).read_bytes()).hexdigest() == entry["sha256"]


def test_the_folder_holds_nothing_that_is_not_recorded() -> None:
    named = {entry["file"] for entry in entries()} | {"pack.json", "NOTICE"}
    assert {path.name for path in PACK.iterdir()} == named


def test_the_folder_stays_small() -> None:
    assert sum(path.stat().st_size for path in PACK.iterdir()) < 24_000_000


def test_the_notice_names_every_model_and_licence() -> None:
    notice = (PACK / "NOTICE").read_text(encoding="utf-8")
    for words in ("detector-*.tflite", "landmarks.tflite", "embedder.tflite", "cohort.npy"):
        assert words in notice
    for licence in (
        "Apache License\n                           Version 2.0",
        "CC0 1.0 Universal\n\nStatement of Purpose",
    ):
        assert licence in notice


def test_the_notice_names_every_photo() -> None:
    notice = (PHOTOS / "NOTICE").read_text(encoding="utf-8")
    for path in PHOTOS.glob("*.jpg"):
        named = path.stem in notice or (path.stem.startswith("obama-") and "obama-1 ... obama-5" in notice)
        assert named, path.name


# --- the models run ---


@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_a_detector_gives_a_box_and_then_a_score_for_each_anchor(interpreter: str, rows: int, columns: int) -> None:
    boxes, scores = run(interpreter, f"detector-{rows}x{columns}.tflite", noise(rows, columns))
    anchors = rows // 4 * (columns // 4)
    assert boxes.shape == (1, anchors, 16)
    assert scores.shape == (1, anchors, 1)
    assert np.isfinite(boxes).all() and np.isfinite(scores).all()
    assert np.ptp(boxes) > 1 and np.ptp(scores) > 1


def test_the_mesh_gives_points_and_then_presence(interpreter: str) -> None:
    points, presence = run(interpreter, "landmarks.tflite", noise(192, 192))
    assert points.shape == (1, 1, 1, 468 * 3)
    assert presence.shape == (1, 1, 1, 1)
    assert np.isfinite(points).all() and np.isfinite(presence).all()


def test_the_embedder_gives_one_vector(interpreter: str) -> None:
    (vector,) = run(interpreter, "embedder.tflite", noise(150, 150))
    assert vector.shape == (1, DESCRIPTION["embedder"]["vector_length"])
    assert np.isfinite(vector).all()
    assert np.linalg.norm(vector) > 0.1


# --- the embedder is dlib's ---


@pytest.mark.parametrize("name", sorted(DLIB_VECTORS))
def test_the_embedder_agrees_with_dlib(interpreter: str, name: str) -> None:
    crop = cv2.imread(str(REFERENCE / name), cv2.IMREAD_COLOR)
    assert crop is not None
    embedder = DESCRIPTION["embedder"]
    values = (crop[np.newaxis, :, :, ::-1].astype(np.float32) - np.array(embedder["mean"])) / embedder["scale"]
    (vector,) = run(interpreter, "embedder.tflite", values.astype(np.float32))
    np.testing.assert_allclose(vector[0], DLIB_VECTORS[name], rtol=0, atol=FLOAT16_ERROR)


def test_there_is_a_dlib_vector_for_each_portrait() -> None:
    portraits = {path.stem for path in PHOTOS.glob("*.jpg")} - {"collins-1"}
    assert {Path(name).stem for name in DLIB_VECTORS} == portraits
    assert len(portraits) == 6


# --- the script that builds them ---


def test_the_script_finds_the_committed_files_in_order(build_models: ModuleType) -> None:
    build_models.check_folder(PACK)


@pytest.mark.parametrize("name", [entry["file"] for entry in entries()])
def test_the_script_finds_one_altered_bit(build_models: ModuleType, copied_pack: Path, name: str) -> None:
    content = bytearray((copied_pack / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copied_pack / name).write_bytes(content)
    with pytest.raises(build_models.BuildError, match=name):
        build_models.check_folder(copied_pack)


def test_the_script_guards_the_measurements(build_models: ModuleType, copied_pack: Path) -> None:
    text = (copied_pack / "pack.json").read_text(encoding="utf-8")
    assert "0.2688" in text
    (copied_pack / "pack.json").write_text(text.replace("0.2688", "0.2687"), encoding="utf-8")
    with pytest.raises(build_models.BuildError, match="operating points"):
        build_models.check_folder(copied_pack)


def test_the_script_says_which_file_differs(build_models: ModuleType) -> None:
    whole = (PACK / "landmarks.tflite").read_bytes()
    assert build_models.differences({"landmarks.tflite": whole}, DESCRIPTION) == []
    (difference,) = build_models.differences({"landmarks.tflite": whole + b"x"}, DESCRIPTION)
    assert difference.startswith("landmarks.tflite: built ")


def test_the_script_records_what_it_writes_and_nothing_else(build_models: ModuleType, copied_pack: Path) -> None:
    before = (copied_pack / "pack.json").read_text(encoding="utf-8")
    build_models.write_files({"landmarks.tflite": b"other"}, copied_pack)
    after = (copied_pack / "pack.json").read_text(encoding="utf-8")
    old, new = DESCRIPTION["landmarks"]["sha256"], hashlib.sha256(b"other").hexdigest()
    assert after == before.replace(old, new)
    assert after != before
    build_models.check_folder(copied_pack)


def test_a_download_that_is_another_file_is_refused(build_models: ModuleType, tmp_path: Path) -> None:
    (tmp_path / build_models.MEDIAPIPE.filename).write_bytes(b"not the wheel")
    with pytest.raises(build_models.BuildError, match="delete it and try again"):
        build_models.fetch(build_models.MEDIAPIPE, tmp_path)


@pytest.mark.parametrize(
    ("content", "value"),
    [(b"\x01\x96", 150), (b"\x02\x00\x01", 256), (b"\x81\x05", -5), (b"\x00", 0)],
    ids=["one byte", "two bytes", "negative", "none"],
)
def test_dlib_s_integers_are_read(build_models: ModuleType, content: bytes, value: int) -> None:
    assert build_models.DlibReader(content).integer() == value


def test_dlib_s_tensors_are_read_one_after_the_other(build_models: ModuleType) -> None:
    values = np.arange(6, dtype="<f4")
    tensor = bytes([1, 2]) + bytes([1, 1, 1, 2, 1, 3, 1, 1]) + values.tobytes()
    reader = build_models.DlibReader(b"rubbish" + bytes([1, 5]) + b"con_4" + tensor + bytes([1, 9]))
    reader.seek_layer("con_4")
    np.testing.assert_array_equal(reader.tensor(), values.reshape(1, 2, 3, 1))
    assert reader.integer() == 9


def test_a_layer_that_is_not_there_is_said_to_be_missing(build_models: ModuleType) -> None:
    with pytest.raises(build_models.BuildError, match="no further layer fc_2"):
        build_models.DlibReader(b"nothing of the kind").seek_layer("fc_2")


@pytest.mark.parametrize("size", [(200, 192), (192, 200)])
def test_a_detector_size_that_does_not_divide_is_refused(build_models: ModuleType, size: tuple[int, int]) -> None:
    with pytest.raises(build_models.BuildError, match="does not divide by 32"):
        build_models.resize_detector(b"", *size)
