"""Who is erased is gone: from rows, index, log, free space, pictures and sightings."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.gallery import traces
from edge.gallery.database import Database
from edge.gallery.history import History
from edge.gallery.store import EmbeddedGallery
from edge.types import Box, Decision, Person, Sighting, Verdict


def everything_in(folder: Path) -> bytes:
    """The bytes and the names of every file."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return b"".join(path.name.encode() + b"\n" + path.read_bytes() + b"\n" for path in files)


def sighting_of(person: Person, picture: bytes | None = b"seen") -> Sighting:
    return Sighting(
        sighting_id="sighting",
        time_ms=1,
        list_id=person.list_id,
        source_id=None,
        group_id=None,
        verdict=Verdict.MATCH,
        person_id=person.person_id,
        score=0.9,
        threshold=0.7,
        box=Box(1, 2, 3, 4),
        picture=picture,
    )


def test_nothing_is_left_of_an_erased_person(
    gallery: EmbeddedGallery, faces: Any, folder: Path, clock: Any, picture_files: Callable[[], list[str]]
) -> None:
    kept = faces.enrol(gallery, 1, b"picture of one", fields=["Kept"]).person
    gone = faces.enrol(gallery, 2, b"picture of two", fields=["Secret Name"]).person
    history = History(gallery.database, gallery.pictures, clock=clock)
    history.record(sighting_of(kept))
    history.record(sighting_of(gone, b"sighting of two"))
    assert history.flush()
    marks = [
        faces.embedding(2).vector.tobytes(),
        gone.picture.encode(),
        gone.person_id.encode(),
        b"Secret Name",
        b"picture of two",
        b"sighting of two",
    ]
    assert all(mark in everything_in(folder) for mark in marks)
    assert gallery.delete_persons(gallery.main_list_id, [gone.person_id]) == 1
    left = everything_in(folder)
    assert [mark for mark in marks if mark in left] == []
    assert faces.best(gallery, 2) is None
    assert faces.best(gallery, 1) == kept.person_id
    assert faces.embedding(1).vector.tobytes() in left
    assert len(picture_files()) == 2  # the other's portrait and sighting
    assert len(history.page().sightings) == 1
    history.close()


@pytest.mark.parametrize(("seed", "replaced_share"), [(4, 0.3), (1, 0.0), (3, 0.0)])
def test_not_even_a_stale_copy_is_left(
    gallery: EmbeddedGallery, faces: Any, folder: Path, seed: int, replaced_share: float
) -> None:
    """SQLite leaves copies of rows that it moves between pages; with these seeds some are of people erased later."""
    with gallery.database._writing:
        gallery.database._writer.execute("PRAGMA synchronous = OFF")  # a thousand commits, no power cut to survive
    dice = random.Random(seed)
    alive: list[tuple[int, Person]] = []
    gone: list[bytes] = []
    for number in range(1000):
        if dice.random() < 0.6 or not alive:
            probe = faces.probe(number, fields=[f"name-{number:06d}-{'x' * dice.randrange(300)}"])
            [outcome] = gallery.identify_or_enrol(gallery.main_list_id, [probe], lambda *_: Decision(Verdict.ADD))
            alive.append((number, outcome.person))
            continue
        old, person = alive.pop(dice.randrange(len(alive)))
        gone += [faces.embedding(old).vector.tobytes(), person.person_id.encode(), person.fields[0][:11].encode()]
        if dice.random() < replaced_share:
            probe = faces.probe(number + 10_000)
            gallery.identify_or_enrol(gallery.main_list_id, [probe], faces.replacing(person.person_id))
            gone.append(probe.embedding.vector.tobytes())
        gallery.delete_persons(gallery.main_list_id, [person.person_id])
    left = everything_in(folder)
    assert [mark for mark in gone if mark in left] == []
    assert all(faces.best(gallery, number) == person.person_id for number, person in alive)


def test_a_copy_that_is_found_makes_the_database_be_written_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(folder)
    vacuumed: list[bool] = []
    monkeypatch.setattr(database, "_vacuum", lambda: vacuumed.append(True))
    with database.write() as transaction:
        transaction.execute("INSERT INTO lists (list_id, name, created_ms) VALUES ('1', 'a needle in the file', 0)")
    database.erase_traces([b"no such thing"], are_all=True)
    assert vacuumed == []
    database.erase_traces([b"no such thing", b"needle in the"], are_all=True)
    assert vacuumed == [True]
    database.erase_traces([], are_all=False)
    assert vacuumed == [True, True]
    database.close()


def test_a_trace_is_found_across_the_chunks_that_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "CHUNK", 16)
    path = tmp_path / "file"
    path.write_bytes(b"-" * 13 + b"needle" + b"-" * 50 + b"end")
    with path.open("rb") as file:
        assert traces.are_in(file.fileno(), [b"nothing", b"needle"])
        assert traces.are_in(file.fileno(), [b"end"])
        assert not traces.are_in(file.fileno(), [b"nothing"])
        assert not traces.are_in(file.fileno(), [])


def test_erasing_counts_whom_there_was(gallery: EmbeddedGallery, faces: Any) -> None:
    ids = [faces.enrol(gallery, seed).person.person_id for seed in range(3)]
    assert gallery.delete_persons(gallery.main_list_id, [ids[0], ids[0], "nobody", ids[2]]) == 2
    assert gallery.delete_persons(gallery.main_list_id, ids[:1]) == 0
    assert gallery.counts().persons == 1
    assert [faces.best(gallery, seed) for seed in range(3)] == [None, ids[1], None]


def test_who_is_in_another_list_is_not_erased(gallery: EmbeddedGallery, faces: Any) -> None:
    other = gallery.create_list("other").list_id
    person_id = faces.enrol(gallery, 1).person.person_id
    assert gallery.delete_persons(other, [person_id]) == 0
    assert faces.best(gallery, 1) == person_id


def test_numbers_are_never_given_twice(open_gallery: Callable[..., EmbeddedGallery], faces: Any) -> None:
    """A number that came back would let a stale reference mean somebody else."""
    gallery = open_gallery()
    used: set[tuple[int, int]] = set()
    for seed in range(5):
        person_id = faces.enrol(gallery, seed).person.person_id
        row = gallery.database.read().execute("SELECT person, id FROM templates").fetchone()
        gallery.delete_persons(gallery.main_list_id, [person_id])
        used.add(row)
        if seed == 2:
            gallery.close()
            gallery = open_gallery()
    assert len({person for person, _ in used}) == len({id_ for _, id_ in used}) == 5
