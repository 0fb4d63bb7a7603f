"""Who is erased by any of the ways there are is gone: database, log, free space, pictures, whatever else is there."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge.gallery import traces
from edge.gallery.history import History
from edge.gallery.store import EmbeddedGallery
from edge.types import Decision, Person, Sighting, Verdict


def everything_in(folder: Path) -> bytes:
    """The bytes and the names of every file: database, WAL, pictures, and whatever else there may be."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return b"".join(path.name.encode() + b"\n" + path.read_bytes() + b"\n" for path in files)


def sighting_of(list_id: str, person: Person | None, number: int, picture: bytes) -> Sighting:
    verdict, person_id = (Verdict.MATCH, person.person_id) if person else (Verdict.REJECT, None)
    return Sighting(
        f"sighting-{number}", number, list_id, None, None, verdict, person_id, 0.9, 0.7, None, picture=picture
    )


@pytest.fixture
def fast(gallery: EmbeddedGallery) -> EmbeddedGallery:
    with gallery.database._writing:
        gallery.database._writer.execute("PRAGMA synchronous = OFF")  # hundreds of commits, no power cut to survive
    return gallery


def enrolled(gallery: EmbeddedGallery, faces: Any, list_id: str, seed: int) -> Person:
    probe = faces.probe(seed, f"picture of {seed:06d}".encode(), fields=[f"name-{seed:06d}"])
    [outcome] = gallery.search_or_enrol([], list_id, [probe], lambda *_: Decision(Verdict.ADD))  # type: ignore[misc]
    assert outcome.person is not None
    return outcome.person


def marks_of(faces: Any, person: Person, seed: int) -> list[bytes]:
    assert person.picture is not None
    return [
        faces.embedding(seed).vector.tobytes(),
        *traces.slices(faces.embedding(seed).vector.tobytes()),
        person.person_id.encode(),
        person.picture.encode(),
        f"name-{seed:06d}".encode(),
        f"picture of {seed:06d}".encode(),
    ]


def test_nothing_is_left_of_a_deleted_list(
    fast: EmbeddedGallery, faces: Any, clock: Any, folder: Path, picture_files: Callable[[], list[str]]
) -> None:
    main, gone = fast.main_list_id, fast.create_list("gone").list_id
    history = History(fast.database, fast.pictures, clock=clock, batch_seconds=0.0)
    stays = [enrolled(fast, faces, main, seed) for seed in range(10)]
    goes = [enrolled(fast, faces, gone, seed) for seed in range(100, 130)]
    for number, person in enumerate([*stays, *goes]):
        history.record(sighting_of(person.list_id, person, number, f"seen {number:04d}".encode()))
    history.record(sighting_of(gone, None, 99, b"a stranger in the list that goes"))
    moved = fast.update_person(main, stays[9].person_id, new_list_id=gone)  # seen in a list that stays
    assert history.flush()
    rows = history.page(list_id=gone).sightings
    marks = [mark for seed, one in enumerate(goes, start=100) for mark in marks_of(faces, one, seed)]
    marks += [*marks_of(faces, moved, 9), b"seen 0009", b"a stranger in the list"]
    marks += [row.picture.encode() for row in rows if row.picture] + [f"seen {n:04d}".encode() for n in range(10, 40)]
    present = everything_in(folder)
    assert [mark for mark in marks if mark not in present] == []
    history.record(sighting_of(gone, goes[0], 100, b"pending of a person"))
    history.record(sighting_of(gone, None, 101, b"pending of a stranger"))
    assert fast.delete_list(gone) == 31
    assert history.flush()
    left = everything_in(folder)
    assert [mark for mark in (*marks, b"pending of") if mark in left] == []
    kept = [mark for seed, one in enumerate(stays[:9]) for mark in marks_of(faces, one, seed)]
    assert [mark for mark in kept if mark not in left] == []
    assert len(picture_files()) == 18  # nine persons, each seen once
    assert len(history.page().sightings) == 9
    assert [faces.best(fast, seed) for seed in range(9)] == [one.person_id for one in stays[:9]]
    counts = fast.counts()
    assert (counts.lists, counts.persons, counts.templates) == (1, 9, 9)
    history.close()


def test_the_pictures_names_of_a_persons_sightings_go_too(
    fast: EmbeddedGallery, faces: Any, clock: Any, folder: Path
) -> None:
    main = fast.main_list_id
    person, other = enrolled(fast, faces, main, 1), enrolled(fast, faces, main, 2)
    history = History(fast.database, fast.pictures, clock=clock, batch_seconds=0.0)
    for number in range(60):
        history.record(sighting_of(main, person if number % 2 else other, number, f"seen {number:04d}".encode()))
    assert history.flush()
    names = [row.picture.encode() for row in history.page(person_id=person.person_id).sightings if row.picture]
    assert len(names) == 30
    assert fast.delete_persons(main, [person.person_id]) == 1
    left = everything_in(folder)
    assert [mark for mark in (*names, *marks_of(faces, person, 1)) if mark in left] == []
    assert len(history.page().sightings) == 30
    history.close()


def test_a_copy_of_a_sightings_row_is_looked_for(
    fast: EmbeddedGallery, faces: Any, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = enrolled(fast, faces, fast.main_list_id, 1)
    history = History(fast.database, fast.pictures, clock=clock, batch_seconds=0.0)
    history.record(sighting_of(fast.main_list_id, person, 1, b"seen"))
    assert history.flush()
    name = history.page().sightings[0].picture
    history.close()
    looked_for: list[bytes] = []
    monkeypatch.setattr(fast.database, "erase_traces", lambda needles, are_all: looked_for.extend(needles))
    fast.delete_persons(fast.main_list_id, [person.person_id])
    assert name is not None
    assert {name.encode(), person.person_id.encode(), (person.picture or "").encode()} < set(looked_for)


def test_the_database_is_written_anew_for_a_list_unless_it_is_empty(
    fast: EmbeddedGallery, faces: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    vacuumed: list[bool] = []
    monkeypatch.setattr(fast.database, "_vacuum", lambda: vacuumed.append(True))
    gone = fast.create_list("gone").list_id
    enrolled(fast, faces, gone, 1)
    fast.delete_list(fast.create_list("empty").list_id)
    assert vacuumed == []
    fast.delete_list(gone)
    assert vacuumed == [True]


@pytest.mark.parametrize("seed", [5, 6])
def test_not_even_a_stale_copy_is_left_after_moves_fusions_and_changes(
    fast: EmbeddedGallery, faces: Any, folder: Path, seed: int
) -> None:
    """What SQLite moves between pages leaves copies; everything that is done to persons here moves rows."""
    dice = random.Random(seed)
    where = [fast.main_list_id, fast.create_list("second").list_id]
    alive: list[tuple[str, Person, list[int]]] = []
    gone: list[bytes] = []
    for number in range(250):
        action = dice.random()
        if action < 0.5 or len(alive) < 3:
            list_id = dice.choice(where)
            alive.append((list_id, enrolled(fast, faces, list_id, number), [number]))
            continue
        list_id, person, seeds = alive.pop(dice.randrange(len(alive)))
        if action < 0.6:
            target = dice.choice(where)
            person = fast.update_person(list_id, person.person_id, new_list_id=target, fields=[f"name-{number:06d}"])
            alive.append((target, person, seeds))
            continue
        if action < 0.75:
            new = replace(faces.template(faces.embedding(number), b"more"), quality=dice.random())
            same = [one for one in alive if one[0] == list_id]
            former = dice.choice(same) if same and dice.random() < 0.5 else None
            person = fast.add_templates(
                list_id, person.person_id, [new], replace_person_id=former[1].person_id if former else None
            )
            if former:
                alive.remove(former)
                gone.append(former[1].person_id.encode())
            alive.append((list_id, person, [*seeds, *(former[2] if former else []), number]))
            continue
        gone += [faces.embedding(one).vector.tobytes() for one in seeds]
        gone += [person.person_id.encode(), *(f"picture of {one:06d}".encode() for one in seeds)]
        gone += [one.picture.encode() for one in fast.templates_of(person.person_id) if one.picture]
        fast.delete_persons(list_id, [person.person_id])
    left = everything_in(folder)
    assert [mark for mark in gone if mark in left] == []
    for list_id, person, seeds in alive:
        for one in seeds:
            assert fast.identify(list_id, faces.embedding(one), 1)[0].person.person_id == person.person_id
