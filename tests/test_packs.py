"""Packs that are added and chosen: nothing unsound gets in, nothing is left of it, no choice is half made."""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import os
import shutil
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edge import assembly, catalogue, cli, config, packs
from edge.errors import Mistake, PackUnusable
from edge.face.networks import Networks
from edge.gallery import reembedding
from edge.gallery.database import Database
from edge.gallery.spool import Spool
from edge.types import Pack, Picture

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ROOT / "models"
DEFAULT = SHIPPED / "default"

WEB_PAGE = b"<!DOCTYPE html>\n<html><head><title>404</title></head><body>not found</body></html>\n"
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 2304924\n"


def script(name: str) -> ModuleType:
    """A program of scripts/ as a module; its folder stays on the path, for processes that it starts."""
    folder = str(ROOT / "scripts")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(name)


@pytest.fixture(scope="session")
def reid(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pack reid-0095 as its script makes it."""
    source = test_data / "pack-reid-0095"
    if not source.is_dir():
        pytest.skip(f"no network in {source}")
    folder = tmp_path_factory.mktemp("made") / "reid-0095"
    script("build_reid_pack").build(source, folder, "default")
    return folder


@pytest.fixture
def networks(interpreter: str) -> Networks:
    return Networks(interpreter)


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Where packs are added to."""
    return tmp_path / "data" / "models"


def describe(folder: Path, content: dict[str, Any]) -> Path:
    """Write a pack.json whose hashes are those of the files that are there."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = [*content.get("detector", {}).get("inputs", ()), content.get("landmarks"), content.get("embedder")]
    entries.append((content.get("embedder") or {}).get("cohort"))
    for entry in entries:
        if entry and (folder / entry["file"]).is_file():
            entry["sha256"] = hashlib.sha256((folder / entry["file"]).read_bytes()).hexdigest()
    (folder / "pack.json").write_text(json.dumps({"format": 1, "description": "for tests", **content}))
    return folder


def default_description() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((DEFAULT / "pack.json").read_text(encoding="utf-8"))
    return content


def another(folder: Path, **changes: Any) -> Path:
    """A pack of the default's embedder alone, under an id of its own."""
    folder.mkdir(parents=True)
    embedder = default_description()["embedder"]
    for name in ("embedder.tflite", "cohort.npy"):
        (folder / name).symlink_to(DEFAULT / name)
    return describe(folder, {"name": folder.name, "id": f"{folder.name}-1", "extends": "default"} | changes | {
        "embedder": {**embedder, **changes.get("embedder", {})}
    })  # fmt: skip


def zipped(folder: Path, prefix: str = "") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.iterdir()):
            archive.writestr(prefix + path.name, path.read_bytes())
    return file.getvalue()


def refused(work: Callable[[], Any]) -> Mistake:
    with pytest.raises(PackUnusable) as unusable:
        work()
    (mistake,) = unusable.value.mistakes
    return mistake


# --- packs that take roles from others ---


def test_a_pack_of_an_embedder_takes_the_rest_from_the_pack_it_extends(tmp_path: Path, pack: Pack) -> None:
    other = catalogue.load(another(tmp_path / "other"), [SHIPPED])
    assert (other.id, other.name) == ("other-1", "other")
    assert other.detector == pack.detector
    assert other.landmarks == pack.landmarks
    assert other.embedder.file.path.parent == tmp_path / "other"


def test_a_pack_of_a_detector_keeps_the_id_of_the_embedder_that_it_borrows(tmp_path: Path, pack: Pack) -> None:
    folder = tmp_path / "far"
    folder.mkdir()
    shutil.copy(DEFAULT / "detector-192x320.tflite", folder)
    detector = default_description()["detector"]
    detector["inputs"] = [entry for entry in detector["inputs"] if entry["file"] == "detector-192x320.tflite"]
    far = catalogue.load(describe(folder, {"name": "far", "extends": "default", "detector": detector}), [SHIPPED])
    assert (far.id, far.name) == (pack.id, "far")
    assert [(spec.rows, spec.columns) for _, spec in far.detector.inputs] == [(192, 320)]
    assert far.embedder.file == pack.embedder.file
    assert catalogue.identity(folder, [SHIPPED]) == pack.id


def test_roles_are_taken_by_way_of_several_packs(tmp_path: Path, pack: Pack) -> None:
    another(tmp_path / "first")
    describe(tmp_path / "second", {"name": "second", "extends": "first"})
    second = catalogue.find("second", [tmp_path, SHIPPED])
    assert second.id == "first-1"
    assert second.detector == pack.detector


@pytest.mark.parametrize("name", ["detector-192x320.tflite", "landmarks.tflite"])
def test_the_hashes_of_what_is_borrowed_are_checked_too(tmp_path: Path, name: str) -> None:
    shutil.copytree(DEFAULT, tmp_path / "shipped" / "default")
    altered = tmp_path / "shipped" / "default" / name
    altered.write_bytes(altered.read_bytes()[:-1] + b"\0\0")
    mistake = refused(lambda: catalogue.load(another(tmp_path / "other"), [tmp_path / "shipped"]))
    assert mistake.field == f"default/{name}"
    assert "is not the file that pack.json names (its SHA-256 differs): it begins like a TFLite model" in mistake.reason


def test_a_pack_that_extends_what_is_not_there_says_so(tmp_path: Path) -> None:
    folder = another(tmp_path / "other", extends="large")
    assert refused(lambda: catalogue.load(folder, [SHIPPED])) == Mistake(
        "other/pack.json", "extends 'large', which is not here: default"
    )


def test_packs_that_extend_each_other_are_no_endless_tale(tmp_path: Path) -> None:
    describe(tmp_path / "a", {"name": "a", "extends": "b"})
    describe(tmp_path / "b", {"name": "b", "extends": "a"})
    assert "takes roles from it in turn" in refused(lambda: catalogue.find("a", [tmp_path])).reason


def test_what_no_pack_of_the_chain_brings_is_lacking(tmp_path: Path) -> None:
    describe(tmp_path / "a", {"name": "a", "detector": default_description()["detector"]})
    describe(tmp_path / "b", {"name": "b", "extends": "a"})
    assert refused(lambda: catalogue.find("b", [tmp_path])) == Mistake("b/pack.json", "lacks 'landmarks'")


def test_the_pack_reid_0095_is_as_measured(reid: Path, pack: Pack) -> None:
    other = catalogue.load(reid, [SHIPPED])
    embedder = other.embedder
    assert other.id == "reid-0095-1"
    assert (other.detector, other.landmarks) == (pack.detector, pack.landmarks)
    assert (embedder.input.rows, embedder.input.columns, embedder.input.colour) == (128, 128, "BGR")
    assert (embedder.input.mean, embedder.input.scale, embedder.vector_length) == ((0, 0, 0), 1, 256)
    for crops in (embedder.probe_crops, embedder.template_crops):
        assert [(crop.scale, crop.mirrored) for crop in crops] == [(1, False), (1, True)]
    assert [(point.name, point.mesh) for point in embedder.alignment] == [
        ("right_eye", (33, 133)),
        ("left_eye", (362, 263)),
        ("nose_tip", (1,)),
        ("right_mouth_corner", (61,)),
        ("left_mouth_corner", (291,)),
    ]
    assert embedder.cohort is not None
    assert embedder.cohort.vectors.shape == (256, 256)
    by_rate = {point.fmr: point.similarity for point in embedder.operating_points}
    assert (by_rate[0.01], by_rate[0.0001]) == (0.0502, 0.2219)


def test_reid_0095_tells_the_two_people_of_the_photos_apart(
    reid: Path, networks: Networks, pictures: dict[str, Picture]
) -> None:
    other = catalogue.load(reid, [SHIPPED])
    analyser, cohort = networks.analyser(other), other.embedder.cohort
    assert cohort is not None
    vectors = {}
    for name in ("obama-1", "obama-2", "obama-3", "biden-1"):
        (face,) = analyser.faces(pictures[name], analyser.passes(pictures[name].shape, 50), presence_floor=0.5)[:1]
        vectors[name] = analyser.embedder.probe(pictures[name], face.landmarks.points)

    def similarity(one: str, two: str) -> float:
        a, b = vectors[one], vectors[two]
        return float(a.vector @ b.vector) - cohort.weight * (a.cohort_similarity + b.cohort_similarity)

    at = {point.fmr: point.similarity for point in other.embedder.operating_points}
    assert min(similarity("obama-1", "obama-2"), similarity("obama-1", "obama-3")) > at[1e-4]
    assert max(similarity(f"obama-{number}", "biden-1") for number in (1, 2, 3)) < at[1e-2]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda content: WEB_PAGE, "web page"),
        (lambda content: LFS_POINTER, "Git LFS pointer"),
        (lambda content: content[:1_000_000], "cut short"),
        (lambda content: (DEFAULT / "embedder.tflite").read_bytes(), "takes"),
    ],
    ids=["web page", "pointer", "cut", "another network"],
)
def test_its_script_makes_no_pack_of_anything_else(
    test_data: Path, tmp_path: Path, change: Callable[[bytes], bytes], sentence: str
) -> None:
    source = test_data / "pack-reid-0095" / "embedder.tflite"
    if not source.is_file():
        pytest.skip(f"no network in {source}")
    (tmp_path / "embedder.tflite").write_bytes(change(source.read_bytes()))
    build = script("build_reid_pack")
    with pytest.raises(build.BuildError, match=sentence):
        build.build(tmp_path, tmp_path / "made", "default")
    assert not (tmp_path / "made").exists()


# --- what a file is ---


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "it is empty"),
        (b"\n \n", "it is empty"),
        (LFS_POINTER, "Git LFS pointer"),
        (WEB_PAGE, "web page"),
        (b"\xef\xbb\xbf\r\n<HTML>", "web page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "web page"),
        ((DEFAULT / "landmarks.tflite").read_bytes()[:5000], "begins like a TFLite model and has 5,000 bytes"),
        (b"PK\x03\x04" + bytes(40), "archive"),
        (b"\x08\x07\x12\x07pytorch", "no TFLite model"),
    ],
)
def test_what_a_file_is_instead_of_a_model_is_said(content: bytes, sentence: str) -> None:
    assert sentence in catalogue.nature(content)


# --- adding ---


def test_a_folder_is_added_whole_and_with_its_notice(tmp_path: Path, mine: Path, networks: Networks) -> None:
    source = another(tmp_path / "other")
    (source / "NOTICE").write_text("whose it is")
    (source / "notes.txt").write_text("of no use")
    added = packs.add(source, mine, [mine, SHIPPED], networks)
    assert added.folder == mine / "other"
    assert {path.name for path in added.folder.iterdir()} == {"pack.json", "embedder.tflite", "cohort.npy", "NOTICE"}
    assert [path.name for path in mine.iterdir()] == ["other"]
    assert not (added.folder / "embedder.tflite").is_symlink()
    assert catalogue.find("other", [mine, SHIPPED]).id == "other-1"


@pytest.mark.parametrize("prefix", ["", "other-1.0/"])
def test_a_zip_is_added_with_the_pack_at_its_top_or_in_a_folder(
    reid: Path, tmp_path: Path, mine: Path, networks: Networks, prefix: str
) -> None:
    archive = tmp_path / "download.zip"
    archive.write_bytes(zipped(reid, prefix))
    added = packs.add(archive, mine, [mine, SHIPPED], networks)
    assert added.id == "reid-0095-1"
    for path in reid.iterdir():
        assert (mine / "reid-0095" / path.name).read_bytes() == path.read_bytes()


def put(name: str, change: Callable[[bytes], bytes], *, hash_follows: bool) -> Callable[[Path], None]:
    """A change of one file, with a pack.json that knows of it or does not."""

    def alter(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).unlink()  # it is a link
        (folder / name).write_bytes(change(content))
        if hash_follows:
            describe(folder, json.loads((folder / "pack.json").read_text()))

    return alter


@pytest.mark.parametrize("hash_follows", [False, True], ids=["altered", "made of it"])
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (lambda content: WEB_PAGE, "it is a web page that was saved in place of the model"),
        (lambda content: LFS_POINTER, "it is a Git LFS pointer"),
        (lambda content: content[:4_000_000], "begins like a TFLite model and has 4,000,000 bytes: altered, or cut"),
        (lambda content: b"", "it is empty"),
        (lambda content: content[:4] + b"ONNX" + content[8:], "it is no TFLite model"),
    ],
    ids=["web page", "pointer", "cut short", "empty", "no model"],
)
def test_what_is_no_model_is_refused_with_a_sentence_and_nothing_is_left(
    tmp_path: Path, mine: Path, networks: Networks, content: Callable[[bytes], bytes], sentence: str, hash_follows: bool
) -> None:
    source = another(tmp_path / "other")
    put("embedder.tflite", content, hash_follows=hash_follows)(source)
    mistake = refused(lambda: packs.add(source, mine, [mine, SHIPPED], networks))
    assert mistake.field == "other/embedder.tflite"
    assert sentence in mistake.reason
    assert list(mine.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"embedder": {"vector_length": 64, "cohort": None}}, "not one vector of 64 as pack.json says"),
        ({"embedder": {"rows": 112}}, "not (1, 112, 150, 3) float32"),
        ({"detector": {**default_description()["detector"], "decoding": "ssd"}}, "'ssd' is none of blazeface, yunet"),
        (
            {"landmarks": {**default_description()["landmarks"], "file": "embedder.tflite"}},
            "not (1, 192, 192, 3) float32",
        ),
    ],
    ids=["length", "input", "decoding", "role"],
)
def test_a_network_that_is_not_what_the_pack_says_is_refused(
    tmp_path: Path, mine: Path, networks: Networks, changes: dict[str, Any], sentence: str
) -> None:
    source = another(tmp_path / "other", **changes)
    if "detector" in changes:
        for entry in changes["detector"]["inputs"]:
            (source / entry["file"]).symlink_to(DEFAULT / entry["file"])
    mistake = refused(lambda: packs.add(source, mine, [mine, SHIPPED], networks))
    assert sentence in mistake.reason
    assert list(mine.iterdir()) == []


class Deadly(Networks):
    """An interpreter that a broken file ends, as native code can."""

    def mesh(self, spec: Any) -> Any:
        os.abort()


def test_a_file_that_ends_its_interpreter_ends_nothing_else(pack: Pack) -> None:
    mistake = refused(lambda: packs.try_out(pack, Deadly()))
    assert mistake.field == "default/landmarks.tflite"
    assert mistake.reason.startswith("ends the interpreter that tries to run it (it begins like a TFLite model")


@pytest.mark.parametrize("name", ["../other", "a/b", "", ".hidden", "Größe", "UPPER", "x" * 65, "-x"])
def test_a_name_that_is_no_plain_name_is_refused(tmp_path: Path, mine: Path, networks: Networks, name: str) -> None:
    source = another(tmp_path / "other", name=name)
    mistake = refused(lambda: packs.add(source, mine, [mine, SHIPPED], networks))
    assert "is not of small letters, digits, dots" in mistake.reason
    assert {path.name for path in tmp_path.rglob("*") if path.is_dir()} == {"other", "data", "models"}


def test_a_name_that_is_taken_is_refused_be_it_the_shipped_one(tmp_path: Path, mine: Path, networks: Networks) -> None:
    source = another(tmp_path / "other", name="default")
    assert "there is a pack 'default'" in refused(lambda: packs.add(source, mine, [mine, SHIPPED], networks)).reason


def test_two_embedders_cannot_have_one_id(reid: Path, tmp_path: Path, mine: Path, networks: Networks) -> None:
    other = tmp_path / "reid"
    shutil.copytree(reid, other)
    content = json.loads((other / "pack.json").read_text())
    describe(other, {**content, "name": "mine", "id": "default-1"})
    assert "give it its own" in refused(lambda: packs.add(other, mine, [mine, SHIPPED], networks)).reason
    moved = another(tmp_path / "moved", id="default-1", embedder={"rows": 150})
    content = json.loads((moved / "pack.json").read_text())
    content["embedder"]["alignment"][0]["x"] += 0.01
    describe(moved, content)
    assert "give it its own" in refused(lambda: packs.add(moved, mine, [mine, SHIPPED], networks)).reason


def test_the_same_embedder_may_come_again_under_its_id(tmp_path: Path, mine: Path, networks: Networks) -> None:
    assert packs.add(another(tmp_path / "same", id="default-1"), mine, [mine, SHIPPED], networks).id == "default-1"


def test_what_a_killed_add_left_is_no_pack_and_goes_with_the_next(
    tmp_path: Path, mine: Path, networks: Networks
) -> None:
    shutil.copytree(DEFAULT, mine / ".new-0123" / "half")
    another(mine / ".new-4567", name="whole")
    assert catalogue.packs([mine]) == {}
    packs.add(another(tmp_path / "other"), mine, [mine, SHIPPED], networks)
    assert [path.name for path in mine.iterdir()] == ["other"]


# --- archives ---


def archive(entries: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in entries.items():
            made.writestr(name, content)
    return file.getvalue()


@pytest.mark.parametrize("name", ["../outside.tflite", "/tmp/x.tflite", "a/../../x", "..\\x.tflite", "C:/x.tflite"])
def test_a_zip_with_a_file_that_wants_out_is_refused(tmp_path: Path, mine: Path, networks: Networks, name: str) -> None:
    source = tmp_path / "evil.zip"
    source.write_bytes(archive({"pack.json": (DEFAULT / "pack.json").read_bytes(), name: b"x"}))
    before = set(tmp_path.rglob("*"))
    mistake = refused(lambda: packs.add(source, mine, [mine, SHIPPED], networks))
    assert mistake.reason.startswith("holds a file that wants to lie outside its folder")
    assert set(tmp_path.rglob("*")) - before == {mine.parent, mine}


def test_a_pack_json_that_names_a_file_outside_is_refused(tmp_path: Path, mine: Path, networks: Networks) -> None:
    (tmp_path / "secret").write_bytes(b"x")
    source = another(tmp_path / "other")
    content = json.loads((source / "pack.json").read_text())
    content["embedder"]["file"] = "../secret"
    (source / "pack.json").write_text(json.dumps(content))
    for one in (source, tmp_path / "other.zip"):
        (tmp_path / "other.zip").write_bytes(zipped(source))
        mistake = refused(lambda one=one: packs.add(one, mine, [mine, SHIPPED], networks))
        assert mistake.reason == "names a file outside its folder: ../secret"


def lying(content: bytes, *, size: int) -> bytes:
    """A ZIP of one file that declares another size than it has."""
    made = bytearray(archive({"pack.json": content}))
    central = made.index(b"PK\x01\x02")
    for at in (22, central + 24):
        made[at : at + 4] = size.to_bytes(4, "little")
    return bytes(made)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (archive({"pack.json": b"{}", "embedder.tflite": bytes(3 << 20)}), "unpacks to 3,145,730 bytes"),
        (archive({"pack.json": b" " * (packs.MAX_DESCRIPTION_BYTES + 1)}), "has more than 1,048,576 bytes"),
        (archive({"pack.json": b"{}"} | {f"{number}": b"" for number in range(1000)}), "holds 1001 files"),
        (lying(b" " * 5000, size=3), "sound ZIP archive"),
        (archive({"a/pack.json": b"{}", "b/pack.json": b"{}"}), "has 2 pack.json"),
        (archive({"readme": b"x"}), "has no pack.json"),
        (archive({"pack.json": b"{}"})[:-30], "neither a folder nor a sound ZIP"),
        (WEB_PAGE, "neither a folder nor a sound ZIP"),
        (b"", "neither a folder nor a sound ZIP"),
    ],
    ids=["bomb", "large description", "many", "liar", "two packs", "none", "cut", "web page", "empty"],
)
def test_a_zip_that_is_too_much_or_none_is_refused(
    tmp_path: Path, mine: Path, networks: Networks, monkeypatch: pytest.MonkeyPatch, content: bytes, sentence: str
) -> None:
    monkeypatch.setattr(packs, "MAX_PACK_BYTES", 2 << 20)
    source = tmp_path / "pack.zip"
    source.write_bytes(content)
    assert sentence in refused(lambda: packs.add(source, mine, [mine, SHIPPED], networks)).reason
    assert list(mine.iterdir()) == []


def test_a_folder_larger_than_any_pack_is_refused(
    tmp_path: Path, mine: Path, networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packs, "MAX_PACK_BYTES", 2 << 20)
    mistake = refused(lambda: packs.add(another(tmp_path / "other"), mine, [mine, SHIPPED], networks))
    assert (mistake.field, "has more than" in mistake.reason) == ("other/embedder.tflite", True)
    assert list(mine.iterdir()) == []


def test_a_source_that_is_not_there_is_said_to_be_none(tmp_path: Path, mine: Path, networks: Networks) -> None:
    assert refused(lambda: packs.add(tmp_path / "nowhere", mine, [mine], networks)).reason == "is not there"
    (tmp_path / "empty").mkdir()
    assert refused(lambda: packs.add(tmp_path / "empty", mine, [mine], networks)) == Mistake(
        "empty/pack.json", "is not there"
    )


# --- choosing ---


def test_a_setting_comes_before_the_choice_and_the_choice_before_the_default(tmp_path: Path) -> None:
    assert packs.wanted(tmp_path, None) == "default"
    packs.choose(tmp_path, "other")
    assert packs.wanted(tmp_path, None) == "other"
    assert packs.wanted(tmp_path, "third") == "third"
    assert [path.name for path in tmp_path.iterdir()] == ["active-pack"]


def test_the_choice_is_read_whole_whenever_it_is_read(tmp_path: Path) -> None:
    packs.choose(tmp_path, "a" * 60)
    seen: set[str] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(packs.wanted(tmp_path, None))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(100):
        packs.choose(tmp_path, "ab"[number % 2] * 60)
    done.set()
    reader.join()
    assert seen <= {"a" * 60, "b" * 60}


def test_a_choice_that_is_no_name_is_mended_by_choosing_again(tmp_path: Path) -> None:
    (tmp_path / "active-pack").write_bytes(b"\xff\xfe")
    assert "choose again with `edge models use`" in refused(lambda: packs.wanted(tmp_path, None)).reason


def with_templates(folder: Path, pack_id: str) -> Path:
    """A gallery that says it has a template, and whose."""
    database = Database(folder)
    with database.write() as transaction:
        transaction.execute("UPDATE meta SET value = 1 WHERE key = 'templates'")
    reembedding.note(database, pack_id)
    database.close()
    return folder


def test_the_old_pack_answers_until_the_templates_are_of_the_new_one(tmp_path: Path) -> None:
    folders = [tmp_path / "data" / "models", SHIPPED]
    another(folders[0] / "other")
    data = tmp_path / "data"
    packs.choose(data, "other")
    assert packs.in_force(data, None, folders) == "other"  # nobody is known yet
    with_templates(data, "default-1")
    assert packs.in_force(data, None, folders) == "default"
    assert packs.in_force(data, "other", folders) == "default", "a setting forgets nobody either"
    spooled = Spool(data, "other-1")
    assert packs.in_force(data, None, folders) == "default"
    spooled.mark_ready()
    spooled.close()
    assert packs.in_force(data, None, folders) == "other"


def test_a_pack_with_another_detector_answers_at_once(tmp_path: Path) -> None:
    describe(tmp_path / "models" / "far", {"name": "far", "extends": "default"})
    with_templates(tmp_path, "default-1")
    assert packs.in_force(tmp_path, "far", [tmp_path / "models", SHIPPED]) == "far"


def test_where_the_old_pack_is_gone_the_new_one_answers(tmp_path: Path) -> None:
    with_templates(tmp_path, "lost-1")
    assert packs.in_force(tmp_path, None, [SHIPPED]) == "default"


# --- the command ---


@pytest.fixture
def edge(tmp_path: Path, interpreter: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run a verb in this process on a data folder of its own."""
    for name in [name for name in os.environ if name.startswith("EDGE_")]:
        monkeypatch.delenv(name)
    common = ["--set", f"data.folder={tmp_path / 'data'}", "--set", f"models.interpreter={interpreter}"]
    return lambda *words: cli.main([*words, *common])


def test_a_pack_is_added_chosen_and_shown(
    reid: Path, edge: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert edge("models", "add", str(reid)) == 0
    assert edge("models", "use", "reid-0095") == 0
    assert edge("models", "list") == 0
    told = capsys.readouterr().out
    assert "* reid-0095" in told
    assert "  default  " in told
    assert edge("models", "show", "reid-0095") == 0
    told = capsys.readouterr().out
    assert "128 x 128 BGR" in told
    assert "blazeface (of the pack default)" in told
    settings = config.load(Path(os.devnull), environment={}, flags=[f"data.folder={tmp_path / 'data'}"])
    assert assembly.pack_in_force(settings).id == "reid-0095-1"


def test_what_cannot_be_done_is_said_and_changes_nothing(
    edge: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "page.zip").write_bytes(WEB_PAGE)
    assert edge("models", "add", str(tmp_path / "page.zip")) == 1
    assert "page.zip: is neither a folder nor a sound ZIP archive" in capsys.readouterr().err
    assert edge("models", "use", "nothing") == 1
    assert "no pack 'nothing'" in capsys.readouterr().err
    assert edge("models", "use", "default", "--set", "models.pack=default") == 78
    assert "models.pack: is set to 'default', which comes before a choice" in capsys.readouterr().err
    assert not (tmp_path / "data" / "active-pack").exists()


def test_a_broken_pack_is_listed_with_what_is_wrong_with_it(
    edge: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    broken = another(tmp_path / "data" / "models" / "broken")
    (broken / "cohort.npy").unlink()
    (broken / "cohort.npy").write_bytes(LFS_POINTER)
    assert edge("models", "list") == 0
    told = capsys.readouterr().out
    assert "* default" in told
    assert "cannot be used: broken/cohort.npy" in told
    assert "Git LFS pointer" in told


def test_a_bgr_network_gets_its_colours_in_its_own_order(reid: Path, networks: Networks) -> None:
    """Red stays red: the network's own input is looked at, not what the code means to do."""
    spec = catalogue.load(reid, [SHIPPED]).embedder
    model = networks.embedder(spec).model
    picture = np.zeros((128, 128, 3), np.uint8)
    picture[:, :, 0], picture[:, :, 1] = 200, 30
    model.run(picture)
    assert model._input()[0, 0, 0].tolist() == [0, 30, 200]
