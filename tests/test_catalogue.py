"""pack.json to a pack: nothing is taken on trust, and whoever has to mend something is told what."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge import catalogue
from edge.errors import Mistake, PackUnusable
from edge.types import Cohort, CropVariant, InputSpec, OperatingPoint, Pack

Change = Callable[[dict[str, Any]], None]

FILES = ("detector.tflite", "landmarks.tflite", "embedder.tflite", "cohort.npy")


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


COHORT = np.array([[3, 4, 0], [0, 0, 2], [1, 0, 0]], np.float16)


def description() -> dict[str, Any]:
    """A pack.json with everything in it, but for the hashes."""
    picture = {"colour": "RGB", "mean": [1, 2, 3], "scale": 4}
    return {
        "format": 1,
        "id": "small-1",
        "name": "small",
        "description": "for tests",
        "detector": {
            **picture,
            "decoding": "blazeface",
            "score_threshold": 0.5,
            "iou_threshold": 0.3,
            "least_face_pixels": 14,
            "most_face_pixels": 110,
            "inputs": [{"file": "detector.tflite", "rows": 192, "columns": 320}],
        },
        "landmarks": {"file": "landmarks.tflite", "rows": 192, "columns": 192, **picture, "box_scale": 1.5},
        "embedder": {
            "file": "embedder.tflite",
            "rows": 128,
            "columns": 112,
            **picture,
            "colour": "BGR",
            "vector_length": 3,
            "alignment": [
                {"name": "right_eye", "mesh": [33, 133], "x": 0.3, "y": 0.4},
                {"name": "left_eye", "mesh": [263], "x": 0.7, "y": 0.4},
            ],
            "probe_crops": [{"scale": 1, "shift_x": 0, "shift_y": 0, "mirrored": False}],
            "template_crops": [
                {"scale": 1, "shift_x": 0, "shift_y": 0, "mirrored": False},
                {"scale": 1.06, "shift_x": 4, "shift_y": -4, "mirrored": True},
            ],
            "cohort": {"file": "cohort.npy", "nearest": 2, "weight": 0.35},
            "operating_points": {"rows": [[0.5, 0.1, 0.99], [0.01, 0.2, 0.9], [0.0001, 0.3, 0.8]]},
        },
    }


def unchanged(_: dict[str, Any]) -> None:
    """Leave the description as it is."""


def write(folder: Path, change: Change = unchanged, *, cohort: bytes | None = None) -> Path:
    """Write a pack of four small files whose hashes are right; `change` comes after that."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (folder / name).write_bytes(name.encode() * 10)
    (folder / "cohort.npy").write_bytes(npy(COHORT) if cohort is None else cohort)
    return describe(folder, change)


def describe(folder: Path, change: Change) -> Path:
    """Write the pack.json of files that are there."""
    content = copy.deepcopy(description())
    embedder = content["embedder"]
    for entry in (*content["detector"]["inputs"], content["landmarks"], embedder, embedder["cohort"]):
        entry["sha256"] = hashlib.sha256((folder / entry["file"]).read_bytes()).hexdigest()
    change(content)
    (folder / "pack.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def refused(folder: Path) -> Mistake:
    """The one thing to mend."""
    with pytest.raises(PackUnusable) as unusable:
        catalogue.load(folder)
    (mistake,) = unusable.value.mistakes
    return mistake


# --- what is read ---


def test_a_pack_is_what_its_description_says(tmp_path: Path) -> None:
    folder = write(tmp_path / "small")
    pack = catalogue.load(folder)
    assert (pack.id, pack.name, pack.description, pack.folder) == ("small-1", "small", "for tests", folder)
    ((file, spec),) = pack.detector.inputs
    assert file.path == folder / "detector.tflite"
    assert file.sha256 == hashlib.sha256(file.path.read_bytes()).hexdigest()
    assert spec == InputSpec(192, 320, "RGB", (1.0, 2.0, 3.0), 4.0)
    assert (pack.detector.decoding, pack.detector.score_threshold, pack.detector.iou_threshold) == (
        "blazeface",
        0.5,
        0.3,
    )
    assert pack.landmarks.box_scale == 1.5
    embedder = pack.embedder
    assert embedder.input == InputSpec(128, 112, "BGR", (1.0, 2.0, 3.0), 4.0)
    assert embedder.vector_length == 3
    assert [(p.name, p.mesh, p.x, p.y) for p in embedder.alignment] == [
        ("right_eye", (33, 133), 0.3, 0.4),
        ("left_eye", (263,), 0.7, 0.4),
    ]
    assert embedder.probe_crops == (CropVariant(1, 0, 0, mirrored=False),)
    assert embedder.template_crops == (CropVariant(1, 0, 0, mirrored=False), CropVariant(1.06, 4, -4, mirrored=True))
    assert embedder.operating_points == (
        OperatingPoint(0.5, 0.1),
        OperatingPoint(0.01, 0.2),
        OperatingPoint(0.0001, 0.3),
    )


def test_cohort_vectors_are_scaled_to_unit_length_again(tmp_path: Path) -> None:
    cohort = catalogue.load(write(tmp_path / "small")).embedder.cohort
    assert isinstance(cohort, Cohort)
    assert (cohort.nearest, cohort.weight) == (2, 0.35)
    assert cohort.vectors.dtype == np.float32
    assert cohort.vectors == pytest.approx(np.array([[0.6, 0.8, 0], [0, 0, 1], [1, 0, 0]]))


def test_a_pack_may_do_without_a_cohort(tmp_path: Path) -> None:
    pack = catalogue.load(write(tmp_path / "small", lambda content: content["embedder"].pop("cohort")))
    assert pack.embedder.cohort is None


def test_the_shipped_pack_is_as_measured(pack: Pack) -> None:
    assert pack.id == "default-1"
    assert {(spec.rows, spec.columns) for _, spec in pack.detector.inputs} >= {(192, 320), (320, 192)}
    assert pack.embedder.vector_length == 128
    assert len(pack.embedder.probe_crops) == 1
    assert len(pack.embedder.template_crops) == 10
    cohort = pack.embedder.cohort
    assert cohort is not None
    assert cohort.vectors.shape == (256, 128)
    assert np.linalg.norm(cohort.vectors, axis=1) == pytest.approx(np.ones(256), abs=1e-5)
    assert (cohort.nearest, cohort.weight) == (5, 0.35)
    dlib_points = {
        "left_eye_outer": ((263,), 0.8595674595992, 0.2134981538014),
        "left_eye_inner": ((362,), 0.6460604764104, 0.2289674387677),
        "right_eye_outer": ((33,), 0.1205750620789, 0.2137274526848),
        "right_eye_inner": ((133,), 0.3340850613712, 0.2290642403242),
        "nose_base": ((2,), 0.4901123135679, 0.6277975316475),
    }
    assert {point.name for point in pack.embedder.alignment} == set(dlib_points)
    for point in pack.embedder.alignment:
        mesh, x, y = dlib_points[point.name]
        assert point.mesh == mesh
        assert (point.x, point.y) == pytest.approx(((x + 0.25) / 1.5, (y + 0.25) / 1.5), abs=1e-6)


# --- files ---


@pytest.mark.parametrize("name", FILES)
def test_an_altered_byte_is_found_and_the_file_named(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "small")
    content = bytearray((folder / name).read_bytes())
    content[7] ^= 1
    (folder / name).write_bytes(content)
    mistake = refused(folder)
    assert mistake.field == f"small/{name}"
    assert mistake.reason.startswith("is not the file that pack.json names (its SHA-256 differs)")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "small")
    (folder / name).unlink()
    assert refused(folder) == Mistake(f"small/{name}", "cannot be read: No such file or directory")


def test_a_folder_in_a_file_s_place_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "small")
    (folder / "landmarks.tflite").unlink()
    (folder / "landmarks.tflite").mkdir()
    assert refused(folder) == Mistake("small/landmarks.tflite", "cannot be read: Is a directory")


@pytest.mark.parametrize("name", ["../outside.tflite", "/etc/hostname", "sub/model.tflite", "../small/../x", "", "."])
def test_a_file_outside_the_folder_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / "outside.tflite").write_bytes(b"x")

    def change(content: dict[str, Any]) -> None:
        content["landmarks"]["file"] = name

    folder = write(tmp_path / "small", change)
    read: list[Path] = []
    monkeypatch.setattr(Path, "read_bytes", lambda self: read.append(self) or b"")
    with pytest.raises(PackUnusable):
        catalogue.load(folder)
    monkeypatch.undo()
    assert all(path.parent == folder for path in read)
    assert refused(folder) == Mistake("small/pack.json", f"names a file outside its folder: {name}")


# --- pack.json ---


def test_a_folder_without_pack_json_is_no_pack(tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    assert refused(tmp_path / "small") == Mistake("small/pack.json", "cannot be read: No such file or directory")


@pytest.mark.parametrize("content", [b"", b"{", b"<html>", b"\xff\xfe\x00", b"{'format': 1}"])
def test_what_is_not_json_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    folder = write(tmp_path / "small")
    (folder / "pack.json").write_bytes(content)
    mistake = refused(folder)
    assert mistake.field == "small/pack.json"
    assert mistake.reason.startswith("is not JSON: ")


@pytest.mark.parametrize("content", ["[]", "null", '"text"', "{}", '{"format": 2}', '{"format": "1"}'])
def test_another_format_is_not_guessed_at(tmp_path: Path, content: str) -> None:
    folder = write(tmp_path / "small")
    (folder / "pack.json").write_text(content, encoding="utf-8")
    assert refused(folder) == Mistake("small/pack.json", "is not of format 1, the one this program reads")


def keys_of(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in the description, innermost last."""
    found: list[tuple[Any, ...]] = []
    items: list[tuple[Any, Any]] = []
    if isinstance(content, dict):
        items = list(content.items())
    elif isinstance(content, list) and content and isinstance(content[0], dict):
        items = list(enumerate(content))
    for key, value in items:
        found += [(*path, key), *keys_of(value, (*path, key))]
    return found


ALL_KEYS = [path for path in keys_of(description()) if isinstance(path[-1], str) and path != ("format",)]


def at(content: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        content = content[key]
    return content


@pytest.mark.parametrize(
    "path",
    [path for path in [*ALL_KEYS, ("landmarks", "sha256")] if path != ("embedder", "cohort")],
    ids=lambda path: ".".join(map(str, path)),
)
def test_a_lacking_key_is_named(tmp_path: Path, path: tuple[Any, ...]) -> None:
    folder = write(tmp_path / "small", lambda content: at(content, path[:-1]).pop(path[-1]))
    assert refused(folder) == Mistake("small/pack.json", f"lacks '{path[-1]}'")


@pytest.mark.parametrize("value", [None, [], {}, "text", -1, [[]]], ids=repr)
def test_no_value_of_the_wrong_form_is_more_than_a_pack_that_cannot_be_used(tmp_path: Path, value: Any) -> None:
    folder = write(tmp_path / "small")
    for path in ALL_KEYS:
        describe(folder, put(value, *path))
        with contextlib.suppress(PackUnusable):
            catalogue.load(folder)


def put(value: Any, *path: Any) -> Change:
    """A change of one value."""
    return lambda content: at(content, path[:-1]).__setitem__(path[-1], value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (put("GBR", "embedder", "colour"), "colour 'GBR' is neither RGB nor BGR"),
        (put([1, 2], "landmarks", "mean"), "not enough values"),
        (put(0, "landmarks", "scale"), "scale 0 is not above 0"),
        (put(float("nan"), "landmarks", "scale"), "scale nan is not above 0"),
        (put(0, "detector", "score_threshold"), "score_threshold 0 is not between 0 and 1"),
        (put(1, "detector", "score_threshold"), "score_threshold 1 is not between 0 and 1"),
        (
            put(0, "detector", "least_face_pixels"),
            "least_face_pixels 0 and most_face_pixels 110 are no range from 1 up",
        ),
        (
            put(14, "detector", "most_face_pixels"),
            "least_face_pixels 14 and most_face_pixels 14 are no range from 1 up",
        ),
        (put(1.5, "detector", "iou_threshold"), "iou_threshold 1.5 is not between 0 and 1"),
        (put([], "detector", "inputs"), "a detector needs at least one input"),
        (put([], "embedder", "probe_crops"), "at least one crop"),
        (put([], "embedder", "template_crops"), "at least one crop"),
        (put([], "embedder", "alignment"), "alignment needs two or more points"),
        (put([468], "embedder", "alignment", 0, "mesh"), "each of mesh points from 0 to 467"),
        (put([-1], "embedder", "alignment", 0, "mesh"), "each of mesh points from 0 to 467"),
        (put([], "embedder", "alignment", 0, "mesh"), "each of mesh points from 0 to 467"),
        (put(4, "embedder", "vector_length"), "the cohort is (3, 3), not n x 4"),
        (put(4, "embedder", "cohort", "nearest"), "at least the 4 nearest"),
        (put(0, "embedder", "cohort", "nearest"), "the cohort is (3, 3)"),
    ],
)
def test_a_value_that_cannot_be_is_explained(tmp_path: Path, change: Change, reason: str) -> None:
    mistake = refused(write(tmp_path / "small", change))
    assert mistake.field == "small/pack.json"
    assert mistake.reason.startswith("has a value of the wrong form: ")
    assert reason in mistake.reason


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [[0.1, 0.2, 1]],
        [[0.1, 0.2, 1], [0.1, 0.3, 1]],
        [[0.1, 0.2, 1], [0.2, 0.3, 1]],
        [[0.1, 0.2, 1], [0.01, 0.2, 1]],
        [[0.1, 0.2, 1], [0.01, 0.1, 1]],
        [[1.1, 0.2, 1], [0.01, 0.3, 1]],
        [[0.1, 0.2, 1], [0, 0.3, 1]],
        [[0.1, -1, 1], [0.01, 0.3, 1]],
        [[0.1, float("nan"), 1], [0.01, 0.3, 1]],
    ],
    ids=str,
)
def test_operating_points_fall_as_the_similarity_rises(tmp_path: Path, rows: list[list[float]]) -> None:
    mistake = refused(write(tmp_path / "small", put(rows, "embedder", "operating_points", "rows")))
    assert "the FMR falling from 1 to 0 as the similarity rises from above -1" in mistake.reason


@pytest.mark.parametrize(
    "content",
    [
        npy(np.zeros((3, 3), np.float16)),
        npy(np.full((3, 3), np.nan, np.float16)),
        npy(np.zeros(3, np.float16)),
        npy(np.array([{}], object)),
        b"not an array",
        npy(COHORT)[:40],
        npy(COHORT)[:-4],
        b"\x93NUMPY",
        b"",
    ],
    ids=[
        "zeros",
        "nan",
        "one dimension",
        "objects",
        "text",
        "cut in the header",
        "cut in the numbers",
        "magic",
        "empty",
    ],
)
def test_a_cohort_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    mistake = refused(write(tmp_path / "small", cohort=content))
    assert mistake.reason.startswith("has a value of the wrong form: ")


# --- finding ---


def test_packs_are_folders_with_a_description_and_the_first_of_a_name_counts(tmp_path: Path) -> None:
    added, shipped = tmp_path / "added", tmp_path / "shipped"
    for folder in (added / "b", shipped / "a", shipped / "b"):
        write(folder)
    (shipped / "no-pack").mkdir()
    (shipped / "notes.txt").write_text("x", encoding="utf-8")
    found = catalogue.packs([added, tmp_path / "missing", shipped])
    assert found == {"b": added / "b", "a": shipped / "a"}
    assert catalogue.find("b", [added, shipped]).folder == added / "b"


def test_who_asks_for_a_pack_that_is_not_there_is_told_what_is(tmp_path: Path) -> None:
    write(tmp_path / "small")
    write(tmp_path / "other")
    with pytest.raises(PackUnusable) as unusable:
        catalogue.find("large", [tmp_path])
    assert unusable.value.mistakes == (Mistake("models.pack", f"no pack 'large' under {tmp_path}: other, small"),)
    with pytest.raises(PackUnusable, match="none"):
        catalogue.find("../small", [tmp_path / "nowhere"])


def test_no_name_leads_out_of_the_folders(tmp_path: Path) -> None:
    write(tmp_path / "outside")
    (tmp_path / "packs").mkdir()
    with pytest.raises(PackUnusable):
        catalogue.find("../outside", [tmp_path / "packs"])
