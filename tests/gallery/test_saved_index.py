"""The graph of a large list is saved: what is in doubt is built anew, and who is erased is in no file."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.gallery import index as index_module
from edge.gallery import label_rows, saved, traces
from edge.gallery.graph import Graph
from edge.gallery.index import ListIndex
from edge.gallery.label_rows import NOWHERE, LabelRows
from edge.gallery.store import EmbeddedGallery
from edge.types import Decision, Person, Verdict

Opening = Callable[..., EmbeddedGallery]

LIMIT = 50
PEOPLE = 80
FLIPS = int(os.environ.get("EDGE_TEST_INDEX_FLIPS", "20"))
"""Single flipped bits that are tried; the long form is 200."""


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the graphs that are built."""
    counted: list[int] = []
    build = ListIndex._build

    def counting(self: ListIndex) -> None:
        counted.append(len(self))
        build(self)

    monkeypatch.setattr(ListIndex, "_build", counting)
    return counted


@pytest.fixture
def opening(open_gallery: Opening) -> Opening:
    """Opens the gallery with a small limit and waits for what it does in the background."""

    def opened(**settings: Any) -> EmbeddedGallery:
        gallery = open_gallery(**({"exact_limit": LIMIT} | settings))
        settled(gallery)
        return gallery

    return opened


@pytest.fixture
def kept(opening: Opening, faces: Any, folder: Path, tmp_path: Path) -> Iterator[Callable[[], None]]:
    """A data folder of 80 people with a saved index, closed; call it to have it again as it was."""
    gallery = opening()
    enrolled(gallery, faces, range(PEOPLE))
    gallery.close()
    assert sorted(path.name for path in indexes(folder).iterdir()) == ["1.graph", "1.json"]
    shutil.copytree(folder, tmp_path / "kept")

    def again() -> None:
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / "kept", folder)

    yield again


def indexes(folder: Path) -> Path:
    return folder / saved.FOLDER_NAME


def index_of(gallery: EmbeddedGallery) -> ListIndex:
    return gallery._indexes.of(1)


def settled(gallery: EmbeddedGallery) -> None:
    index_of(gallery).wait_until_built(60)
    assert index_of(gallery)._builder is None


def enrolled(gallery: EmbeddedGallery, faces: Any, seeds: range, list_id: str | None = None) -> dict[int, Person]:
    people: dict[int, Person] = {}
    for seed in seeds:
        target = list_id or gallery.main_list_id
        outcomes = gallery.search_or_enrol([], target, [faces.probe(seed)], lambda *_: Decision(Verdict.ADD))
        people[seed] = outcomes[0].person  # type: ignore[index,assignment]
    settled(gallery)
    return people


def assert_serves(gallery: EmbeddedGallery, faces: Any, seeds: range) -> None:
    """Everybody is found, by the graph."""
    index = index_of(gallery)
    assert index.has_graph
    before = index.graph_searches
    assert all(faces.best(gallery, seed) is not None for seed in seeds)
    assert index.graph_searches == before + len(seeds)


def files_of(folder: Path) -> bytes:
    return b"".join(path.name.encode() + path.read_bytes() for path in folder.rglob("*") if path.is_file())


def marks_of(faces: Any, seed: int) -> list[bytes]:
    return traces.slices(faces.embedding(seed).vector.tobytes())


# --- saving and loading ---


def test_it_is_saved_when_it_has_been_built_and_loaded_at_the_next_start(
    opening: Opening, faces: Any, folder: Path, built: list[int]
) -> None:
    gallery = opening()
    enrolled(gallery, faces, range(LIMIT))
    assert not indexes(folder).exists()
    enrolled(gallery, faces, range(LIMIT, LIMIT + 1))
    assert sorted(path.name for path in indexes(folder).iterdir()) == ["1.graph", "1.json"]
    assert len(built) == 1
    gallery.close()
    gallery = opening()
    assert len(built) == 1
    assert_serves(gallery, faces, range(LIMIT + 1))
    assert {path.stat().st_mode & 0o777 for path in indexes(folder).iterdir()} == {0o600}
    assert indexes(folder).stat().st_mode & 0o777 == 0o700


def test_what_was_added_since_is_saved_at_the_close(
    opening: Opening, faces: Any, folder: Path, built: list[int]
) -> None:
    gallery = opening()
    enrolled(gallery, faces, range(PEOPLE))
    first = (indexes(folder) / "1.graph").read_bytes()
    gallery.close()
    gallery.close()
    assert (indexes(folder) / "1.graph").read_bytes() != first
    sidecar = json.loads((indexes(folder) / "1.json").read_bytes())["graph"]
    assert sidecar["count"] == PEOPLE
    assert sidecar["origin"]["pack_id"] == faces.pack
    gallery = opening()
    added: list[int] = []
    index_of(gallery)._graph.add = lambda labels, rows: added.extend(labels)  # type: ignore[method-assign,union-attr]
    settled(gallery)
    assert added == []
    assert len(built) == 1
    assert_serves(gallery, faces, range(PEOPLE))


def test_nothing_is_written_at_a_close_without_changes(kept: Any, opening: Opening, folder: Path) -> None:
    before = (indexes(folder) / "1.graph").stat()
    opening().close()
    after = (indexes(folder) / "1.graph").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_list_within_the_limit_has_no_file(opening: Opening, faces: Any, folder: Path) -> None:
    gallery = opening(exact_limit=PEOPLE)
    enrolled(gallery, faces, range(PEOPLE))
    gallery.close()
    assert not indexes(folder).exists()


def test_it_is_saved_again_while_serving_once_it_is_time(
    opening: Opening, faces: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = opening()
    enrolled(gallery, faces, range(PEOPLE))
    old = (indexes(folder) / "1.json").read_bytes()
    enrolled(gallery, faces, range(PEOPLE, PEOPLE + 1))
    assert (indexes(folder) / "1.json").read_bytes() == old
    monkeypatch.setattr(index_module, "SAVE_SECONDS", 0.0)
    enrolled(gallery, faces, range(PEOPLE + 1, PEOPLE + 2))
    assert json.loads((indexes(folder) / "1.json").read_bytes())["graph"]["count"] == PEOPLE + 2


def test_exact_search_answers_while_it_is_loaded(
    kept: Any, open_gallery: Opening, faces: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_go_on = threading.Event(), threading.Event()
    load = Graph.load

    def slow(*arguments: Any, **more: Any) -> Graph:
        begun.set()
        assert may_go_on.wait(60)
        return load(*arguments, **more)

    monkeypatch.setattr(saved.Graph, "load", slow)
    gallery = open_gallery(exact_limit=LIMIT)
    assert begun.wait(60)
    assert faces.best(gallery, 7) is not None
    enrolled_now = gallery.search_or_enrol(
        [], gallery.main_list_id, [faces.probe(1000)], lambda *_: Decision(Verdict.ADD)
    )
    assert isinstance(enrolled_now, list)
    assert not index_of(gallery).has_graph
    may_go_on.set()
    settled(gallery)
    assert_serves(gallery, faces, range(PEOPLE))
    assert faces.best(gallery, 1000) is not None


def test_a_process_that_cannot_write_it_leaves_the_last_one(
    kept: Any, opening: Opening, faces: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    gallery = opening()
    enrolled(gallery, faces, range(PEOPLE, PEOPLE + 1))
    monkeypatch.setattr(Graph, "save", lambda self, path: 1 / 0)  # in the child
    gallery.close()
    assert "could not be saved" in caplog.text
    assert sorted(path.name for path in indexes(folder).iterdir()) == ["1.graph", "1.json"]


def test_a_disk_without_room_is_left_alone(
    opening: Opening, faces: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(saved, "SPARE", 1 << 60)
    gallery = opening()
    enrolled(gallery, faces, range(PEOPLE))
    assert "No space left on device" in caplog.text
    assert list(indexes(folder).iterdir()) == []
    assert_serves(gallery, faces, range(PEOPLE))


# --- doubt ---


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the description as a faithful writer would have."""
    path = indexes(folder) / "1.json"
    content = json.loads(path.read_bytes())["graph"]
    change(content)
    checksum = saved.hashlib.sha256(saved._text(content)).hexdigest()
    path.write_bytes(saved._text({"graph": content, "sha256": checksum}))


def truncated(folder: Path) -> None:
    path = indexes(folder) / "1.graph"
    path.write_bytes(path.read_bytes()[:-1000])


DAMAGES: dict[str, Callable[[Path], object]] = {
    "no graph": lambda folder: (indexes(folder) / "1.graph").unlink(),
    "no description": lambda folder: (indexes(folder) / "1.json").unlink(),
    "empty graph": lambda folder: (indexes(folder) / "1.graph").write_bytes(b""),
    "truncated": truncated,
    "empty description": lambda folder: (indexes(folder) / "1.json").write_bytes(b""),
    "garbage": lambda folder: (indexes(folder) / "1.json").write_bytes(b"\xff\x00garbage"),
    "another JSON": lambda folder: (indexes(folder) / "1.json").write_bytes(b'["a", 1]'),
    "nested JSON": lambda folder: (indexes(folder) / "1.json").write_bytes(b"[" * 100_000),
    "a marker": lambda folder: (indexes(folder) / "1.loading").touch(),
    "another pack": lambda folder: edit(folder, lambda one: one["origin"].update(pack_id="pack-2")),
    "another list": lambda folder: edit(folder, lambda one: one["origin"].update(list_id="somebody else's")),
    "other parameters": lambda folder: edit(folder, lambda one: one["origin"].update(neighbours=99)),
    "newer than the rows": lambda folder: edit(folder, lambda one: one.update(generation=10**6)),
    "another count": lambda folder: edit(folder, lambda one: one.update(count=PEOPLE - 1)),
    "removed that are not": lambda folder: edit(folder, lambda one: one.update(removed=list(range(1, 79)))),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_what_is_in_doubt_is_built_anew(
    kept: Any, opening: Opening, faces: Any, folder: Path, built: list[int], caplog: Any, damage: Any
) -> None:
    damage(folder)
    gallery = opening()
    assert built == [PEOPLE]
    assert caplog.text.count("is thrown away and built anew") == 1
    assert_serves(gallery, faces, range(PEOPLE))
    gallery.close()
    caplog.clear()
    gallery = opening()  # what was wrong is gone for good
    assert built == [PEOPLE]
    assert "thrown away" not in caplog.text
    assert_serves(gallery, faces, range(PEOPLE))


@pytest.mark.parametrize("name", ["1.graph", "1.json"])
def test_any_flipped_bit_is_noticed(
    kept: Callable[[], None], opening: Opening, faces: Any, folder: Path, built: list[int], name: str
) -> None:
    dice = random.Random(4)
    for _ in range(FLIPS):
        kept()
        bit = dice.randrange(8 * (indexes(folder) / name).stat().st_size)
        flip(indexes(folder) / name, bit)
        del built[:]
        gallery = opening()
        assert built == [PEOPLE], bit
        assert_serves(gallery, faces, range(0, PEOPLE, 20))
        gallery.close()


def test_the_vectors_of_another_pack_are_not_compared(
    kept: Any, opening: Opening, faces: Any, folder: Path, caplog: Any
) -> None:
    gallery = opening(pack_id="pack-2")
    assert gallery.counts().other_packs == PEOPLE
    assert not index_of(gallery).has_graph
    assert list(indexes(folder).iterdir()) == []


@pytest.mark.parametrize("weight", [0.0, 0.36])
def test_another_cohort_weight_makes_other_rows(
    kept: Any, opening: Opening, faces: Any, built: list[int], caplog: Any, weight: float
) -> None:
    gallery = opening(cohort_weight=weight)
    assert built == [PEOPLE]
    assert "its vectors are not those of the database" in caplog.text
    assert_serves(gallery, faces, range(PEOPLE))


def test_ids_that_a_restored_backup_gave_again_are_noticed(
    opening: Opening, faces: Any, folder: Path, tmp_path: Path, built: list[int], caplog: Any
) -> None:
    """The same number of changes after it, so that only the vectors can tell."""
    gallery = opening()
    enrolled(gallery, faces, range(PEOPLE))
    gallery.close()
    shutil.copytree(folder, tmp_path / "backup")
    gallery = opening()
    enrolled(gallery, faces, range(PEOPLE, PEOPLE + 10))
    gallery.close()
    shutil.copytree(indexes(folder), tmp_path / "index")
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "backup", folder)
    gallery = opening()
    enrolled(gallery, faces, range(1000, 1010))
    gallery.close()
    shutil.rmtree(indexes(folder))
    shutil.copytree(tmp_path / "index", indexes(folder))
    del built[:]
    gallery = opening()
    assert built == [PEOPLE + 10]
    assert "its vectors are not those of the database" in caplog.text
    assert_serves(gallery, faces, range(1000, 1010))


def test_a_process_killed_while_it_loads_drops_the_file(
    kept: Any, opening: Opening, faces: Any, folder: Path, built: list[int], caplog: Any
) -> None:
    program = (
        "import pathlib, signal, os, sys\n"
        "from edge.gallery import saved\n"
        "from edge.gallery.store import EmbeddedGallery\n"
        "saved.Graph.load = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)\n"
        "g = EmbeddedGallery.open(pathlib.Path(sys.argv[1]), pack_id=sys.argv[2], vector_length=int(sys.argv[3]),"
        f" cohort_weight={faces.weight}, exact_limit={LIMIT}, main_list_name='main', clock=lambda: 1)\n"
        "g._indexes.of(1).wait_until_built(60)\n"
    )
    arguments = [sys.executable, "-c", program, str(folder), faces.pack, str(faces.length)]
    assert subprocess.run(arguments, check=False).returncode == -signal.SIGKILL
    assert (indexes(folder) / "1.loading").exists()
    gallery = opening()
    assert built == [PEOPLE]
    assert "a start ended while it was being loaded" in caplog.text
    assert not (indexes(folder) / "1.loading").exists()
    assert_serves(gallery, faces, range(PEOPLE))


def test_what_was_left_half_written_is_removed(kept: Any, opening: Opening, faces: Any, folder: Path) -> None:
    for name in ("1.graph.tmp", "1.json.tmp", "77.graph", "77.json"):
        (indexes(folder) / name).write_bytes(b"vectors")
    opening()
    assert sorted(path.name for path in indexes(folder).iterdir()) == ["1.graph", "1.json"]


# --- behind the rows ---


def crashed(gallery: EmbeddedGallery, folder: Path, tmp_path: Path) -> None:
    """Put in the folder's place what a power cut at this moment would leave."""
    shutil.copytree(folder, tmp_path / "crash")
    gallery.close()
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "crash", folder)


def test_a_graph_behind_the_rows_is_brought_up_to_date(
    kept: Any, opening: Opening, faces: Any, folder: Path, tmp_path: Path, built: list[int], caplog: Any
) -> None:
    caplog.set_level(logging.INFO)
    gallery = opening()
    enrolled(gallery, faces, range(PEOPLE, PEOPLE + 15))
    crashed(gallery, folder, tmp_path)
    gallery = opening()
    assert built == []
    assert_serves(gallery, faces, range(PEOPLE + 15))
    assert index_of(gallery)._graph.used == PEOPLE + 15
    gallery.close()
    assert json.loads((indexes(folder) / "1.json").read_bytes())["graph"]["count"] == PEOPLE + 15


def test_a_crash_between_an_erasure_and_its_answer(
    kept: Any, opening: Opening, faces: Any, folder: Path, tmp_path: Path, built: list[int]
) -> None:
    """The row is gone, the file is still there: the start removes it, and the graph goes on without them."""
    stale = {path.name: path.read_bytes() for path in indexes(folder).iterdir()}
    gallery = opening()
    person = gallery.identify(gallery.main_list_id, faces.embedding(3), 1)[0].person
    gallery.delete_persons(gallery.main_list_id, [person.person_id])
    crashed(gallery, folder, tmp_path)
    for name, content in stale.items():
        (indexes(folder) / name).write_bytes(content)
    gallery = opening()
    assert built == []
    assert faces.best(gallery, 3) is None
    assert_serves(gallery, faces, range(4, PEOPLE))
    assert not any(mark in files_of(folder) for mark in marks_of(faces, 3))
    gallery.close()
    assert (indexes(folder) / "1.graph").exists()
    assert not any(mark in files_of(folder) for mark in marks_of(faces, 3))


def test_too_many_changes_are_not_worth_mending(
    kept: Any, opening: Opening, faces: Any, folder: Path, tmp_path: Path, built: list[int], caplog: Any
) -> None:
    gallery = opening()
    enrolled(gallery, faces, range(PEOPLE, PEOPLE + 40))
    crashed(gallery, folder, tmp_path)
    gallery = opening()
    assert built == [PEOPLE + 40]
    assert "too much has changed" in caplog.text
    assert_serves(gallery, faces, range(PEOPLE + 40))


# --- erasing ---


def everybody(gallery: EmbeddedGallery, faces: Any, seed: int) -> Person:
    return gallery.identify(gallery.main_list_id, faces.embedding(seed), 1)[0].person


def deleted(gallery: EmbeddedGallery, faces: Any, person: Person) -> None:
    gallery.delete_persons(gallery.main_list_id, [person.person_id])


def moved_and_deleted(gallery: EmbeddedGallery, faces: Any, person: Person) -> None:
    other = gallery.create_list("other").list_id
    gallery.update_person(gallery.main_list_id, person.person_id, new_list_id=other)
    gallery.delete_persons(other, [person.person_id])


def moved_and_list_deleted(gallery: EmbeddedGallery, faces: Any, person: Person) -> None:
    other = gallery.create_list("other").list_id
    gallery.update_person(gallery.main_list_id, person.person_id, new_list_id=other)
    gallery.delete_list(other)


def replaced_and_deleted(gallery: EmbeddedGallery, faces: Any, person: Person) -> None:
    gallery.identify_or_enrol(gallery.main_list_id, [faces.probe(5000)], faces.replacing(person.person_id))
    gallery.delete_persons(gallery.main_list_id, [person.person_id])


def fused_and_deleted(gallery: EmbeddedGallery, faces: Any, person: Person) -> None:
    other = everybody(gallery, faces, 20)
    gallery.add_templates(gallery.main_list_id, other.person_id, [], replace_person_id=person.person_id)
    gallery.delete_persons(gallery.main_list_id, [other.person_id])


@pytest.mark.parametrize(
    "erase", [deleted, moved_and_deleted, moved_and_list_deleted, replaced_and_deleted, fused_and_deleted]
)
@pytest.mark.parametrize("was_loaded", [True, False])
def test_who_is_erased_is_in_no_saved_index_then_or_later(
    opening: Opening, faces: Any, folder: Path, built: list[int], erase: Any, was_loaded: bool
) -> None:
    gallery = opening()
    enrolled(gallery, faces, range(PEOPLE))
    if was_loaded:
        gallery.close()
        gallery = opening()
    marks = marks_of(faces, 3)
    saved_bytes = b"".join(path.read_bytes() for path in indexes(folder).iterdir())
    assert all(mark in saved_bytes for mark in marks)
    erase(gallery, faces, everybody(gallery, faces, 3))
    assert not any(mark in files_of(folder) for mark in marks)
    enrolled(gallery, faces, range(1000, 1003))
    gallery.close()
    assert (indexes(folder) / "1.graph").exists()
    assert not any(mark in files_of(folder) for mark in marks)
    del built[:]
    gallery = opening()
    assert built == []
    assert faces.best(gallery, 3) is None
    assert_serves(gallery, faces, range(21, PEOPLE))
    assert_serves(gallery, faces, range(1000, 1003))


def test_who_is_erased_while_it_is_being_written_is_not_in_it(
    opening: Opening, faces: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    caplog.set_level(logging.INFO)
    gallery = opening()
    enrolled(gallery, faces, range(LIMIT))
    begun, may_go_on = threading.Event(), threading.Event()
    finish = saved.SavedGraph.finish

    def slow(self: Any, snapshot: Any) -> bool:
        os.waitid(os.P_PID, self._child, os.WEXITED | os.WNOWAIT)  # all is written, and not yet in its place
        begun.set()
        assert may_go_on.wait(60)
        return finish(self, snapshot)

    monkeypatch.setattr(saved.SavedGraph, "finish", slow)
    gallery.search_or_enrol([], gallery.main_list_id, [faces.probe(LIMIT)], lambda *_: Decision(Verdict.ADD))
    assert begun.wait(60)
    marks = marks_of(faces, 3)
    assert any(mark in (indexes(folder) / "1.graph.tmp").read_bytes() for mark in marks)
    deleted(gallery, faces, everybody(gallery, faces, 3))
    assert not any(mark in files_of(folder) for mark in marks)
    may_go_on.set()
    settled(gallery)
    assert "somebody was removed" in caplog.text
    assert list(indexes(folder).iterdir()) == []


def test_a_deleted_list_leaves_no_file(opening: Opening, faces: Any, folder: Path) -> None:
    gallery = opening()
    other = gallery.create_list("other").list_id
    enrolled(gallery, faces, range(PEOPLE), other)
    gallery._indexes.of(2).wait_until_built(60)
    assert (indexes(folder) / "2.graph").exists()
    gallery.delete_list(other)
    gallery.close()
    assert list(indexes(folder).iterdir()) == []


def test_a_person_who_comes_back_is_found_by_the_graph(opening: Opening, faces: Any, built: list[int]) -> None:
    """The vector was wiped from the graph meanwhile."""
    gallery = opening()
    enrolled(gallery, faces, range(PEOPLE))
    main, other = gallery.main_list_id, gallery.create_list("other").list_id
    person = everybody(gallery, faces, 3)
    gallery.update_person(main, person.person_id, new_list_id=other)
    gallery.close()
    gallery = opening()
    assert faces.best(gallery, 3) is None
    gallery.update_person(other, person.person_id, new_list_id=main)
    assert_serves(gallery, faces, range(PEOPLE))
    gallery.close()
    gallery = opening()
    assert_serves(gallery, faces, range(PEOPLE))
    assert len(built) == 1


def test_a_graph_with_vectors_that_were_removed_is_not_written(tmp_path: Path) -> None:
    graph = Graph(8, 100, ef=10)
    graph.add(np.arange(50), np.random.default_rng(1).normal(size=(50, 8)).astype(np.float32))
    graph.remove(3)
    with pytest.raises(ValueError, match="removed"):
        graph.save(str(tmp_path / "graph"))
    assert graph.wipe(4)
    graph.save(str(tmp_path / "graph"))


# --- where the rows are ---


def test_labels_are_found_whatever_was_sorted_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_rows, "RECENT_LIMIT", 7)
    dice, rows, expected = random.Random(1), LabelRows(), {}
    for number in range(2000):
        if dice.random() < 0.6 or not expected:
            labels = [10 * number + part for part in range(dice.randrange(1, 4))]
            rows.put_many(labels, number)
            expected.update({label: number + part for part, label in enumerate(labels)})
        elif dice.random() < 0.5:
            label = dice.choice(list(expected))
            rows.put(label, number)
            expected[label] = number
        else:
            label = expected.popitem()[0]
            rows.remove(label)
    labels = np.arange(20_005)
    assert rows.of(labels).tolist() == [expected.get(label, NOWHERE) for label in labels.tolist()]
