"""What a crash or a failing card leaves behind is found at the start, and the rest is served."""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.gallery.database import DATABASE_NAME
from edge.gallery.history import History
from edge.gallery.space import Space
from edge.gallery.store import EmbeddedGallery
from edge.gallery.upkeep import kept_up
from edge.types import Sighting, Verdict

Opening = Callable[..., EmbeddedGallery]


def tamper(folder: Path, statement: str) -> None:
    connection = sqlite3.connect(folder / DATABASE_NAME)
    with connection:
        assert connection.execute(statement).rowcount == 1
    connection.close()


DAMAGES = {
    "vector": "UPDATE templates SET vector = zeroblob(length(vector)) WHERE id = 2",
    "length": "UPDATE templates SET vector = substr(vector, 1, 60) WHERE id = 2",
    "odd length": "UPDATE templates SET vector = substr(vector, 1, 61) WHERE id = 2",
    "person": "UPDATE templates SET person = 1 WHERE id = 2",
    "cohort": "UPDATE templates SET cohort_similarity = 0.9 WHERE id = 2",
    "checksum": "UPDATE templates SET crc32 = crc32 + 1 WHERE id = 2",
}


@pytest.mark.parametrize("statement", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_template_is_set_aside_and_the_rest_is_served(
    open_gallery: Opening, folder: Path, faces: Any, caplog: pytest.LogCaptureFixture, statement: str
) -> None:
    gallery = open_gallery()
    added = [faces.enrol(gallery, seed, fields=["Name"]).person for seed in range(3)]
    gallery.close()
    tamper(folder, statement)
    gallery = open_gallery()
    assert gallery.counts().set_aside == 1
    assert [faces.best(gallery, seed) for seed in range(3)] == [added[0].person_id, None, added[2].person_id]
    assert gallery.person(gallery.main_list_id, added[1].person_id) == added[1]
    assert "template 2 of person" in caplog.text
    assert "Name" not in caplog.text


def test_any_flipped_bit_of_a_vector_is_noticed(open_gallery: Opening, folder: Path, faces: Any) -> None:
    gallery = open_gallery()
    faces.enrol(gallery, 1)
    gallery.close()
    vector = faces.embedding(1).vector.tobytes()
    for bit in range(0, 8 * len(vector), 37):
        flipped = bytearray(vector)
        flipped[bit // 8] ^= 1 << bit % 8
        tamper(folder, f"UPDATE templates SET vector = X'{flipped.hex()}'")
        gallery = open_gallery()
        assert gallery.counts().set_aside == 1
        assert gallery.identify(gallery.main_list_id, faces.embedding(1)) == []
        gallery.close()


def test_a_template_set_aside_goes_with_its_person_or_its_replacement(
    open_gallery: Opening, folder: Path, faces: Any
) -> None:
    gallery = open_gallery()
    added = [faces.enrol(gallery, seed).person.person_id for seed in range(3)]
    gallery.close()
    tamper(folder, "UPDATE templates SET crc32 = 0 WHERE id = 2")
    tamper(folder, "UPDATE templates SET crc32 = 0 WHERE id = 3")
    gallery = open_gallery()
    assert gallery.counts().set_aside == 2
    gallery.identify_or_enrol(gallery.main_list_id, [faces.probe(1)], faces.replacing(added[1]))
    assert gallery.counts().set_aside == 1
    assert faces.best(gallery, 1) == added[1]
    gallery.delete_persons(gallery.main_list_id, [added[2]])
    assert gallery.counts().set_aside == 0


def test_templates_of_another_pack_wait_and_their_persons_stay(open_gallery: Opening, faces: Any) -> None:
    gallery = open_gallery()
    added = faces.enrol(gallery, 1).person
    gallery.close()
    gallery = open_gallery(pack_id="pack-2")
    assert (gallery.counts().other_packs, gallery.counts().set_aside) == (1, 0)
    assert gallery.identify(gallery.main_list_id, faces.embedding(1)) == []
    assert gallery.person(gallery.main_list_id, added.person_id) == added
    gallery.close()
    assert faces.best(open_gallery(), 1) == added.person_id


def test_a_picture_that_no_row_names_is_swept(
    open_gallery: Opening, faces: Any, picture_files: Callable[[], list[str]]
) -> None:
    gallery = open_gallery()
    person = faces.enrol(gallery, 1, b"jpeg").person
    gallery.pictures.save([b"a crash came before the row"])
    assert len(picture_files()) == 2
    gallery.close()
    open_gallery()
    assert picture_files() == [f"{person.picture}.jpg"]


def test_a_missing_picture_is_noted_and_does_not_stop_the_start(
    open_gallery: Opening, faces: Any, caplog: pytest.LogCaptureFixture
) -> None:
    gallery = open_gallery()
    person = faces.enrol(gallery, 1, b"jpeg").person
    gallery.pictures.delete([person.picture])
    gallery.close()
    gallery = open_gallery()
    assert gallery.person(gallery.main_list_id, person.person_id).picture is None
    assert faces.best(gallery, 1) == person.person_id
    assert "1 pictures are missing" in caplog.text


def test_a_person_without_a_template_is_listed_and_matches_nobody(
    open_gallery: Opening, folder: Path, faces: Any
) -> None:
    gallery = open_gallery()
    added = faces.enrol(gallery, 1).person
    gallery.close()
    tamper(folder, "DELETE FROM templates")
    gallery = open_gallery()
    assert gallery.person(gallery.main_list_id, added.person_id).person_id == added.person_id
    assert gallery.identify(gallery.main_list_id, faces.embedding(1)) == []


def places(folder: Path, text: str) -> list[int]:
    """Where it stands in the file: in a row, and in each index of it."""
    content, found = (folder / DATABASE_NAME).read_bytes(), []
    while (start := content.find(text.encode(), found[-1] + 1 if found else 0)) >= 0:
        found.append(start)
    return found


@pytest.mark.parametrize("what", ["picture", "person_id"])
def test_a_flipped_bit_in_a_row_or_its_index_hides_nobody_and_keeps_nobody_from_being_erased(
    open_gallery: Opening, folder: Path, faces: Any, what: str
) -> None:
    gallery = open_gallery()
    added = [faces.enrol(gallery, seed, b"jpeg").person for seed in range(3)]
    gallery.close()
    sound = (folder / DATABASE_NAME).read_bytes()
    found = places(folder, getattr(added[1], what))
    assert len(found) == 2
    for place in found:
        damaged = bytearray(sound)
        damaged[place + 5] ^= 1
        (folder / DATABASE_NAME).write_bytes(damaged)
        gallery = open_gallery()
        assert all(faces.best(gallery, seed) is not None for seed in range(3))
        listed = [one.person_id for one in gallery.persons(gallery.main_list_id).items]
        assert gallery.delete_persons(gallery.main_list_id, listed) == 3
        assert gallery.counts().templates == 0
        gallery.close()


@pytest.fixture
def sighted(open_gallery: Opening, folder: Path, faces: Any, clock: Any) -> tuple[str, list[int]]:
    """A closed gallery of one person with a sighting: the person's id, and where the sighting's picture is named."""
    gallery = open_gallery()
    person = faces.enrol(gallery, 1).person
    history = History(gallery.database, gallery.pictures, clock=clock, batch_seconds=0)
    seen = Sighting("0" * 36, 1, person.list_id, None, None, Verdict.ADD, person.person_id, None, 0.7, None)
    history.record(dataclasses.replace(seen, picture=b"jpeg"))
    history.close()
    (name,) = gallery.database.read().execute("SELECT picture FROM sightings").fetchone()
    gallery.close()
    found = places(folder, name)
    assert len(found) == 2
    return person.person_id, found


def test_a_flipped_bit_in_a_sighting_or_its_index_costs_one_change_at_most(
    open_gallery: Opening, folder: Path, sighted: tuple[str, list[int]]
) -> None:
    person_id, found = sighted
    sound = (folder / DATABASE_NAME).read_bytes()
    for place in found:
        damaged = bytearray(sound)
        damaged[place + 5] ^= 1
        (folder / DATABASE_NAME).write_bytes(damaged)
        gallery = open_gallery()
        with contextlib.suppress(sqlite3.DatabaseError):
            gallery.delete_persons(gallery.main_list_id, [person_id])
        gallery.delete_persons(gallery.main_list_id, [person_id])
        assert gallery.counts().persons == 0
        assert gallery.database.read().execute("SELECT count(*) FROM sightings").fetchone() == (0,)
        gallery.close()


def test_a_damaged_sighting_does_not_end_the_upkeep(
    open_gallery: Opening, folder: Path, clock: Any, sighted: tuple[str, list[int]], caplog: pytest.LogCaptureFixture
) -> None:
    _, (in_row, _) = sighted
    damaged = bytearray((folder / DATABASE_NAME).read_bytes())
    damaged[in_row + 5] ^= 1
    (folder / DATABASE_NAME).write_bytes(damaged)
    gallery = open_gallery()
    history = History(gallery.database, gallery.pictures, clock=clock)
    with kept_up(history, Space(folder, reserve_bytes=0), days=0, picture_bytes=0):
        deadline = time.monotonic() + 30
        while "could not be kept up" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.01)
        assert "malformed" in caplog.text
        assert any(thread.name == "upkeep" for thread in threading.enumerate())
    assert history.prune(days=0, picture_bytes=0) == 1, "mended"
    history.close()
