"""Sightings: written behind the answer, paged without gaps, pruned from the oldest."""

from __future__ import annotations

import dataclasses
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from edge.errors import InvalidSchema, ListNotFound
from edge.gallery import sightings
from edge.gallery.history import DAY_MS, History
from edge.gallery.store import EmbeddedGallery
from edge.types import Box, Reason, Sighting, Verdict

NOW = 1_700_000_000_000


@pytest.fixture
def history(gallery: EmbeddedGallery, clock: Any) -> Iterator[History]:
    made = History(gallery.database, gallery.pictures, clock=clock, batch_seconds=0.01)
    yield made
    made.close()


@pytest.fixture
def sighting(gallery: EmbeddedGallery) -> Callable[..., Sighting]:
    def make(number: int = 0, **changes: Any) -> Sighting:
        plain = Sighting(
            sighting_id=f"sighting-{number}",
            time_ms=NOW + number,
            list_id=gallery.main_list_id,
            source_id=None,
            group_id=None,
            verdict=Verdict.REJECT,
            person_id=None,
            score=None,
            threshold=0.7,
            box=None,
        )
        return dataclasses.replace(plain, **changes)

    return make


def ids(page: Any) -> list[str]:
    return [stored.sighting.sighting_id for stored in page.sightings]


def test_a_sighting_comes_back_as_it_was(
    gallery: EmbeddedGallery, history: History, sighting: Callable[..., Sighting], faces: Any
) -> None:
    person = faces.enrol(gallery, 1).person
    full = sighting(
        source_id="source",
        group_id="group",
        verdict=Verdict.MATCH,
        person_id=person.person_id,
        score=0.75,
        box=Box(1.5, 2, 3, 4),
        reasons=(Reason("yaw", 50.0, 45.0),),
        picture=b"face",
    )
    history.record(full)
    history.record(sighting(1))
    assert history.flush()
    plain, stored = history.page().sightings
    assert stored.sighting == dataclasses.replace(full, picture=None)
    assert gallery.picture(stored.picture) == b"face"
    assert (plain.sighting, plain.picture) == (sighting(1), None)


def test_is_written_behind_the_answer_within_the_time_of_a_batch(
    history: History, sighting: Callable[..., Sighting]
) -> None:
    history.record(sighting())
    deadline = time.monotonic() + 5
    while not history.page().sightings and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(history.page().sightings) == 1


def test_a_full_batch_does_not_wait(gallery: EmbeddedGallery, clock: Any, sighting: Callable[..., Sighting]) -> None:
    history = History(gallery.database, gallery.pictures, clock=clock, batch_seconds=1000)
    for number in range(64):
        history.record(sighting(number))
    deadline = time.monotonic() + 5
    while not history.page().sightings and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(history.page().sightings) == 64
    history.record(sighting(64))
    history.close()  # writes what waits
    assert len(history.page().sightings) == 65


def test_a_batch_is_one_transaction(
    gallery: EmbeddedGallery, clock: Any, sighting: Callable[..., Sighting], monkeypatch: pytest.MonkeyPatch
) -> None:
    history = History(gallery.database, gallery.pictures, clock=clock, batch_seconds=1000)
    before = gallery.database._commits
    for number in range(10):
        history.record(sighting(number))
    assert history.flush()
    assert gallery.database._commits == before + 1
    history.close()


def test_recording_never_waits_and_the_oldest_give_way(
    gallery: EmbeddedGallery, clock: Any, sighting: Callable[..., Sighting]
) -> None:
    history = History(gallery.database, gallery.pictures, clock=clock, queue_limit=100, batch_seconds=1000)
    with gallery.database.write():  # the writer is busy, so nothing can be written
        started = time.monotonic()
        for number in range(500):
            history.record(sighting(number))
        assert time.monotonic() - started < 1
    assert history.flush()
    written = ids(history.page(limit=1000))
    assert written[0] == "sighting-499"
    assert len(written) + history.dropped == 500
    assert 100 <= len(written) <= 100 + 64
    history.close()


def test_a_batch_that_cannot_be_written_is_counted_and_leaves_no_picture(
    gallery: EmbeddedGallery,
    history: History,
    sighting: Callable[..., Sighting],
    monkeypatch: pytest.MonkeyPatch,
    picture_files: Callable[[], list[str]],
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sightings, "INSERT_SIGHTING", "INSERT INTO nowhere VALUES (1)")
        history.record(sighting(picture=b"face"))
        assert history.flush()
    assert history.dropped == 1
    assert picture_files() == []
    history.record(sighting(1, picture=b"face"))
    assert history.flush()
    assert ids(history.page()) == ["sighting-1"]


def test_recording_after_the_end_is_counted(history: History, sighting: Callable[..., Sighting]) -> None:
    history.close()
    history.record(sighting())
    assert history.dropped == 1


# --- erasing ---


def test_a_waiting_sighting_of_somebody_erased_is_not_written(
    gallery: EmbeddedGallery,
    clock: Any,
    sighting: Callable[..., Sighting],
    faces: Any,
    picture_files: Callable[[], list[str]],
) -> None:
    history = History(gallery.database, gallery.pictures, clock=clock, batch_seconds=1000)
    person = faces.enrol(gallery, 1).person
    history.record(sighting(0, person_id=person.person_id, verdict=Verdict.MATCH, picture=b"face"))
    history.record(sighting(1, list_id="a list that is gone"))
    history.record(sighting(2))
    gallery.delete_persons(gallery.main_list_id, [person.person_id])
    assert history.flush()
    assert ids(history.page()) == ["sighting-2"]
    assert picture_files() == []
    history.close()


# --- pages ---


@pytest.fixture
def busy(gallery: EmbeddedGallery, history: History, sighting: Callable[..., Sighting], faces: Any) -> dict[str, Any]:
    """60 sightings: two people, two lists, three sources, several at the same moment."""
    people = [faces.enrol(gallery, seed).person.person_id for seed in range(2)]
    other = gallery.create_list("other").list_id
    made = [
        sighting(
            number,
            time_ms=NOW + number // 3,
            source_id=[None, "a", "b"][number % 3],
            person_id=people[number % 2] if number % 5 else None,
            list_id=other if number % 4 == 0 else gallery.main_list_id,
        )
        for number in range(60)
    ]
    for one in made:
        history.record(one)
    assert history.flush()
    return {"made": made[::-1], "person": people[0], "list": other}


FILTERS: list[set[str]] = [
    set(),
    {"person_id"},
    {"list_id"},
    {"source_id"},
    {"person_id", "list_id"},
    {"person_id", "source_id"},
    {"source_id", "list_id"},
    {"person_id", "source_id", "list_id"},
]


@pytest.mark.parametrize("chosen", FILTERS, ids=lambda chosen: "+".join(sorted(chosen)) or "all")
@pytest.mark.parametrize("times", [False, True])
def test_pages_meet_every_condition_newest_first(
    history: History, busy: dict[str, Any], chosen: set[str], times: bool
) -> None:
    conditions = {"person_id": busy["person"], "list_id": busy["list"], "source_id": "a"}
    conditions = {name: value for name, value in conditions.items() if name in chosen}
    bounds = {"first_ms": NOW + 4, "last_ms": NOW + 15} if times else {}
    wanted = [
        one.sighting_id
        for one in busy["made"]
        if all(getattr(one, name) == value for name, value in conditions.items())
        and (not times or NOW + 4 <= one.time_ms <= NOW + 15)
    ]
    found: list[str] = []
    cursor = None
    while True:
        page = history.page(**conditions, **bounds, cursor=cursor, limit=7)
        found += ids(page)
        cursor = page.cursor
        if cursor is None:
            break
        assert len(page.sightings) == 7
    assert found == wanted


def test_pages_neither_skip_nor_repeat_while_sightings_come_and_go(
    history: History, busy: dict[str, Any], sighting: Callable[..., Sighting], clock: Any
) -> None:
    found: list[str] = []
    cursor = None
    for step in range(100):
        page = history.page(cursor=cursor, limit=5)
        found += ids(page)
        cursor = page.cursor
        if cursor is None:
            break
        history.record(sighting(1000 + step, time_ms=NOW + 1000 + step))
        assert history.flush()
    assert found == [one.sighting_id for one in busy["made"]]


def test_the_history_of_nobody_is_empty_and_of_no_list_is_refused(history: History, busy: dict[str, Any]) -> None:
    assert history.page(person_id="nobody").sightings == ()
    with pytest.raises(ListNotFound):
        history.page(list_id="no list")


@pytest.mark.parametrize("cursor", ["", "1", "a.b", "1.2.3", "-1.2", "1.5e3", "1." + "9" * 30, "１.２", " 1.2"])
def test_a_cursor_that_no_page_gave_is_refused(history: History, cursor: str) -> None:
    with pytest.raises(InvalidSchema) as refusal:
        history.page(cursor=cursor)
    assert refusal.value.mistakes[0].field == "cursor"


# --- pruning ---


def test_what_is_too_old_goes_with_its_picture(
    history: History, sighting: Callable[..., Sighting], clock: Any, picture_files: Callable[[], list[str]]
) -> None:
    for number, age_days in enumerate([10, 5, 3.1, 2.9, 0]):
        history.record(sighting(number, time_ms=clock() - int(age_days * DAY_MS), picture=b"face"))
    assert history.flush()
    assert history.prune(days=3, picture_bytes=10**9) == 3
    assert sorted(ids(history.page())) == ["sighting-3", "sighting-4"]
    assert len(picture_files()) == 2
    assert history.prune(days=3, picture_bytes=10**9) == 0


class Monotonic:
    """The clock that cannot be set."""

    def __init__(self) -> None:
        self.seconds = 5000.0

    def __call__(self) -> float:
        return self.seconds

    def on(self, clock: Any, seconds: int) -> None:
        self.seconds += seconds
        clock.now_ms += seconds * 1000


@pytest.fixture
def monotonic() -> Monotonic:
    return Monotonic()


@pytest.fixture
def aged(gallery: EmbeddedGallery, clock: Any, monotonic: Monotonic) -> Iterator[Callable[[], History]]:
    """Opens the history as a start does, whoever had it open before."""
    opened: list[History] = []

    def opening() -> History:
        for one in opened:
            one.close()
        opened.append(History(gallery.database, gallery.pictures, clock=clock, batch_seconds=0.01, monotonic=monotonic))
        return opened[-1]

    yield opening
    for one in opened:
        one.close()


def pruned(history: History) -> int:
    return history.prune(days=30, picture_bytes=10**9)


def recorded(history: History, sighting: Sighting) -> None:
    history.record(sighting)
    assert history.flush()


def test_a_clock_far_ahead_removes_nothing_until_it_has_been_so_for_an_hour(
    aged: Callable[[], History], sighting: Callable[..., Sighting], clock: Any, monotonic: Monotonic
) -> None:
    history = aged()
    assert pruned(history) == 0
    recorded(history, sighting(0, time_ms=clock()))
    clock.now_ms += 70 * 365 * DAY_MS
    assert pruned(history) == 0
    assert pruned(aged()) == 0, "nor by a start, which has an hour of its own"
    history = aged()
    assert pruned(history) == 0
    monotonic.on(clock, 3500)
    assert pruned(history) == 0
    monotonic.on(clock, 100)
    assert pruned(history) == 1


def test_a_history_from_before_the_time_was_kept_is_as_safe(
    aged: Callable[[], History], sighting: Callable[..., Sighting], clock: Any
) -> None:
    recorded(aged(), sighting(0, time_ms=clock()))
    clock.now_ms += 70 * 365 * DAY_MS
    assert pruned(aged()) == 0


def test_what_a_clock_far_ahead_has_stamped_ages_once_it_is_right_again(
    aged: Callable[[], History], sighting: Callable[..., Sighting], clock: Any, monotonic: Monotonic
) -> None:
    history = aged()
    assert pruned(history) == 0
    ahead = 70 * 365 * DAY_MS
    clock.now_ms += ahead
    recorded(history, sighting(0, time_ms=clock()))
    assert pruned(history) == 0
    assert history.page().sightings[0].sighting.time_ms == clock(), "while it is so, it may be right"
    clock.now_ms -= ahead
    assert pruned(history) == 0
    assert history.page().sightings[0].sighting.time_ms == clock()
    monotonic.on(clock, 31 * 86_400)
    assert pruned(history) == 1


def test_a_clock_that_begins_in_1970_keeps_what_it_sees_and_not_for_ever(
    aged: Callable[[], History], sighting: Callable[..., Sighting], clock: Any, monotonic: Monotonic
) -> None:
    assert pruned(aged()) == 0
    right = clock.now_ms
    clock.now_ms = 0
    history = aged()
    recorded(history, sighting(0, time_ms=clock()))
    assert pruned(history) == 0
    assert history.page().sightings[0].sighting.time_ms == right, "the latest time that was believed"
    days, gone = 0, 0
    while not gone and days < 60:  # begins in 1970 every day anew
        history = aged()
        clock.now_ms = 0
        gone = pruned(history)
        monotonic.on(clock, 86_000)
        gone += pruned(history)
        days += 1
    assert (gone, history.page().sightings) == (1, ())
    assert days == 31


def test_the_oldest_go_until_the_pictures_fit(
    gallery: EmbeddedGallery,
    history: History,
    sighting: Callable[..., Sighting],
    picture_files: Callable[[], list[str]],
) -> None:
    for number in range(1200):
        history.record(sighting(number, picture=b"x" * 100 if number % 2 else None))
        if number % 300 == 0:
            assert history.flush()
    assert history.flush()
    assert history.prune(days=10_000, picture_bytes=1050) == 1180
    assert ids(history.page(limit=1000)) == [f"sighting-{number}" for number in range(1199, 1179, -1)]
    assert len(picture_files()) == 10
    assert sightings.picture_bytes(gallery.database.read()) == 1000


def test_bytes_are_counted_however_sightings_go(
    gallery: EmbeddedGallery, history: History, sighting: Callable[..., Sighting], faces: Any
) -> None:
    person = faces.enrol(gallery, 1).person
    history.record(sighting(0, picture=b"12345"))
    history.record(sighting(1, picture=b"123", person_id=person.person_id))
    assert history.flush()
    assert sightings.picture_bytes(gallery.database.read()) == 8
    gallery.delete_persons(gallery.main_list_id, [person.person_id])
    assert sightings.picture_bytes(gallery.database.read()) == 5


def test_a_missing_picture_of_a_sighting_is_noted_at_the_start(
    open_gallery: Callable[..., EmbeddedGallery],
    clock: Any,
    sighting: Callable[..., Sighting],
    gallery: EmbeddedGallery,
) -> None:
    history = History(gallery.database, gallery.pictures, clock=clock)
    history.record(sighting(picture=b"face"))
    assert history.flush()
    [stored] = history.page().sightings
    gallery.pictures.delete([stored.picture])
    history.close()
    gallery.close()
    gallery = open_gallery()
    history = History(gallery.database, gallery.pictures, clock=clock)
    [stored] = history.page().sightings
    assert stored.picture is None
    assert sightings.picture_bytes(gallery.database.read()) == 0
    history.close()


def test_many_threads_record_while_one_prunes_and_one_reads(
    gallery: EmbeddedGallery, history: History, sighting: Callable[..., Sighting]
) -> None:
    faults: list[BaseException] = []

    def guarded(work: Callable[[], Any]) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except BaseException as fault:
                faults.append(fault)

        return threading.Thread(target=run)

    def record() -> None:
        for number in range(200):
            history.record(sighting(number, picture=b"face"))

    threads = [guarded(record) for _ in range(4)]
    threads.append(guarded(lambda: [history.prune(days=10_000, picture_bytes=100) for _ in range(20)]))
    threads.append(guarded(lambda: [history.page() for _ in range(50)]))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert history.flush()
    history.prune(days=10_000, picture_bytes=100)
    assert faults == []
    assert len(history.page().sightings) == 25


def test_sqlite_is_not_shared_between_threads(gallery: EmbeddedGallery) -> None:
    readers: list[sqlite3.Connection] = []
    thread = threading.Thread(target=lambda: readers.append(gallery.database.read()))
    thread.start()
    thread.join()
    assert readers[0] is not gallery.database.read()
