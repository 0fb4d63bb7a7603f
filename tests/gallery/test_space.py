"""What may be written with so much free, and the ballast: on a real file system, its free bytes as the test says."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.errors import StorageFull
from edge.gallery.database import Database
from edge.gallery.history import History
from edge.gallery.space import BALLAST_BYTES, BALLAST_NAME, LITTLE_BYTES, MEGABYTE, SPARE_BYTES, Space, State
from edge.gallery.store import EmbeddedGallery
from edge.types import Sighting, Verdict


class Disk:
    """Says how much is free: what the test says, less what the ballast takes."""

    def __init__(self, megabytes: float) -> None:
        self.megabytes = megabytes
        self.looks = 0
        self.seconds = 0.0

    def __call__(self, folder: Path) -> int:
        self.looks += 1
        ballast = folder / BALLAST_NAME
        taken = ballast.stat().st_blocks * 512 if ballast.exists() else 0
        return max(0, int(self.megabytes * MEGABYTE) - taken)

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def disk() -> Disk:
    return Disk(1000)


@pytest.fixture
def space(tmp_path: Path, disk: Disk) -> Space:
    return Space(tmp_path, free=disk, monotonic=disk.monotonic)


@pytest.mark.parametrize(
    ("megabytes", "state"), [(96, State.OK), (95.9, State.LOW), (64, State.LOW), (63.9, State.FULL), (0, State.FULL)]
)
def test_the_state_follows_from_what_is_free(space: Space, disk: Disk, megabytes: float, state: State) -> None:
    disk.megabytes = megabytes
    assert space.room().state is state
    if state is State.FULL:
        with pytest.raises(StorageFull, match=rf"{int(megabytes)} MB are free, 64 are kept"):
            space.check()
    else:
        space.check()


def test_the_file_system_is_asked_once_a_second(space: Space, disk: Disk) -> None:
    for _ in range(1000):
        disk.seconds += 0.01
        space.check()
    assert 9 <= disk.looks <= 11
    disk.megabytes = 0
    assert space.room().state is State.OK
    assert space.room(fresh=True).state is State.FULL


def test_a_disk_that_says_nothing_is_full(tmp_path: Path) -> None:
    space = Space(tmp_path / "unplugged")
    assert (space.room().free_bytes, space.room().state) == (0, State.FULL)


def ballast_bytes(folder: Path) -> int:
    path = folder / BALLAST_NAME
    return path.stat().st_blocks * 512 if path.exists() else 0


def test_the_ballast_is_really_allocated(space: Space, tmp_path: Path) -> None:
    space.keep_ballast()
    assert ballast_bytes(tmp_path) == BALLAST_BYTES


def test_a_ballast_of_holes_is_filled(space: Space, tmp_path: Path) -> None:
    (tmp_path / BALLAST_NAME).touch()
    os.truncate(tmp_path / BALLAST_NAME, BALLAST_BYTES)
    assert ballast_bytes(tmp_path) == 0
    space.keep_ballast()
    assert ballast_bytes(tmp_path) == BALLAST_BYTES


def test_an_erasure_leaves_no_time_in_which_there_is_no_ballast(disk: Disk, space: Space, tmp_path: Path) -> None:
    database = Database(tmp_path, space=space)
    space.keep_ballast()
    disk.megabytes = 40
    with database.write(essential=True):
        assert ballast_bytes(tmp_path) == 0
    database.erase_traces((), are_all=True)
    assert ballast_bytes(tmp_path) == BALLAST_BYTES
    disk.megabytes = 33
    space.make_way(LITTLE_BYTES)
    assert ballast_bytes(tmp_path) == BALLAST_BYTES, "for a row in the log there is room beside it"
    disk.megabytes = 32.4
    space.make_way(LITTLE_BYTES)
    assert ballast_bytes(tmp_path) == 0
    database.close()


def test_an_erasure_that_was_given_nothing_takes_nothing(disk: Disk, space: Space, tmp_path: Path) -> None:
    database = Database(tmp_path, space=space)
    with database.write(essential=True):
        pass
    database.erase_traces((), are_all=True)
    assert ballast_bytes(tmp_path) == 0
    database.close()


def test_the_ballast_goes_when_somebody_is_to_be_erased_and_comes_back_as_far_as_it_fits(
    space: Space, disk: Disk, tmp_path: Path
) -> None:
    space.keep_ballast()
    space.make_way()
    assert ballast_bytes(tmp_path) == BALLAST_BYTES, "there is room enough without it"
    disk.megabytes = 32
    space.make_way()
    assert ballast_bytes(tmp_path) == 0
    disk.megabytes = 20
    space.keep_ballast()
    assert ballast_bytes(tmp_path) == 20 * MEGABYTE - SPARE_BYTES
    disk.megabytes = 20.5
    space.keep_ballast()
    assert ballast_bytes(tmp_path) == 20 * MEGABYTE - SPARE_BYTES, "not for every few bytes"
    disk.megabytes = 200
    space.keep_ballast()
    assert ballast_bytes(tmp_path) == BALLAST_BYTES


def test_a_disk_that_refuses_the_ballast_stops_nothing(
    space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        space.keep_ballast()
    assert ballast_bytes(tmp_path) == 0
    space.keep_ballast()
    assert ballast_bytes(tmp_path) == BALLAST_BYTES


# --- the gallery on such a disk ---


@pytest.fixture
def shrunk(open_gallery: Callable[..., EmbeddedGallery], folder: Path, disk: Disk) -> EmbeddedGallery:
    folder.mkdir()
    return open_gallery(space=Space(folder, free=disk, monotonic=disk.monotonic))


@pytest.fixture
def history(shrunk: EmbeddedGallery, clock: Any) -> Iterator[History]:
    made = History(shrunk.database, shrunk.pictures, clock=clock, batch_seconds=0.01)
    yield made
    made.close()


def filled(disk: Disk, megabytes: float) -> None:
    disk.megabytes = megabytes
    disk.seconds += 2


def test_full_refuses_all_that_grows_and_nothing_else(
    shrunk: EmbeddedGallery, disk: Disk, faces: Any, picture_files: Callable[[], list[str]]
) -> None:
    main = shrunk.main_list_id
    persons = [faces.enrol(shrunk, seed, picture=b"face").person.person_id for seed in range(3)]
    other = shrunk.create_list("other")
    group, source = shrunk.create_group("group"), shrunk.create_source("source")
    files = picture_files()
    filled(disk, 63)
    growing: list[Callable[[], Any]] = [
        lambda: faces.enrol(shrunk, 9, picture=b"face"),
        lambda: shrunk.identify_or_enrol(main, [faces.probe(0)], faces.replacing(persons[0])),
        lambda: shrunk.add_templates(main, persons[0], [faces.template(faces.embedding(7), b"face")]),
        lambda: shrunk.add_templates(main, persons[0], [], replace_person_id=persons[1]),
        lambda: shrunk.update_person(main, persons[0], fields=["more"]),
        lambda: shrunk.create_list("new"),
        lambda: shrunk.create_group("new"),
        lambda: shrunk.create_source("new"),
    ]
    for grow in growing:
        with pytest.raises(StorageFull, match="63 MB are free"):
            grow()
    assert picture_files() == files
    assert faces.enrol(shrunk, 1, noise=0.01).person.person_id == persons[1], "whoever is known is recognised"
    assert shrunk.delete_persons(main, [persons[2]]) == 1
    shrunk.update_person(main, persons[1], drop_picture=True)
    assert len(picture_files()) == 1
    shrunk.delete_source(source.source_id)
    shrunk.delete_group(group.group_id)
    shrunk.delete_list(other.list_id)
    filled(disk, 64)
    assert faces.enrol(shrunk, 9, picture=b"face").person is not None


def test_templates_that_could_not_be_kept_are_not_asked_for(shrunk: EmbeddedGallery, disk: Disk, faces: Any) -> None:
    filled(disk, 0)
    bare = faces.probe(1)
    with pytest.raises(StorageFull):
        shrunk.identify_or_enrol(
            shrunk.main_list_id, [type(bare)(bare.embedding, bare.newcomer, None)], faces.known_or_new
        )


def sighting(gallery: EmbeddedGallery, number: int, picture: bytes | None = b"face") -> Sighting:
    return Sighting(
        sighting_id=f"sighting-{number}",
        time_ms=1_700_000_000_000 + number,
        list_id=gallery.main_list_id,
        source_id=None,
        group_id=None,
        verdict=Verdict.REJECT,
        person_id=None,
        score=None,
        threshold=0.7,
        box=None,
        picture=picture,
    )


def test_sightings_are_not_kept_while_it_is_full_and_that_is_said_once(
    shrunk: EmbeddedGallery,
    history: History,
    disk: Disk,
    caplog: pytest.LogCaptureFixture,
    picture_files: Callable[[], list[str]],
) -> None:
    filled(disk, 63)
    caplog.set_level(logging.WARNING, "edge.gallery.history")
    for number in range(5):
        history.record(sighting(shrunk, number))
        assert history.flush()
    assert (history.dropped, history.page().sightings, picture_files()) == (5, (), [])
    assert caplog.text.count("sightings are not kept") == 1
    filled(disk, 100)
    history.record(sighting(shrunk, 5))
    assert history.flush()
    assert len(history.page().sightings) == 1


def test_the_oldest_pictures_make_room_first_and_only_as_many_as_it_takes(
    shrunk: EmbeddedGallery,
    history: History,
    disk: Disk,
    monkeypatch: pytest.MonkeyPatch,
    picture_files: Callable[[], list[str]],
) -> None:
    monkeypatch.setattr("edge.gallery.history.PRUNE_BATCH", 10)
    for number in range(100):
        history.record(sighting(shrunk, number))
    assert history.flush()
    disk.megabytes = 90
    removed = shrunk.pictures.delete

    def frees(names: Any) -> None:
        names = list(names)
        disk.megabytes += len(names) / 5
        removed(names)

    monkeypatch.setattr(shrunk.pictures, "delete", frees)
    history.make_room()
    stored = history.page(limit=1000).sightings
    assert len(stored) == 100, "the sightings stay"
    assert [one.picture is None for one in stored] == [False] * 70 + [True] * 30, "the newest come first"
    assert len(picture_files()) == 70


def test_where_no_pictures_are_left_sightings_go_if_that_helps(
    shrunk: EmbeddedGallery, history: History, disk: Disk
) -> None:
    for number in range(50):
        history.record(sighting(shrunk, number, picture=None))
    assert history.flush()
    disk.megabytes = 0
    history.make_room()
    assert len(history.page().sightings) == 50, "nothing can be written anew in no room, so it would be for nothing"
    disk.megabytes = 64
    history.make_room()
    assert len(history.page().sightings) == 50, "nobody is refused yet"
    disk.megabytes = 63
    history.make_room()
    assert history.page().sightings == ()
