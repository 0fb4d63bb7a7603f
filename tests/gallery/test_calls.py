"""Requests that wait for the gallery together share a commit, and nothing else."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from edge.errors import ItemNotFound, StorageFull
from edge.gallery.protocol import Outcome, Probe, TemplatesWanted
from edge.gallery.store import EmbeddedGallery
from edge.types import Candidate, Decision, Verdict

from .conftest import Faces

WAIT_SECONDS = 10


@pytest.fixture
def commits(gallery: EmbeddedGallery, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A mark for every transaction."""
    seen: list[str] = []
    write = gallery.database.write

    @contextlib.contextmanager
    def counted() -> Iterator[Any]:
        with write() as transaction:
            yield transaction
        seen.append("commit")

    monkeypatch.setattr(gallery.database, "write", counted)
    return seen


def together(gallery: EmbeddedGallery, works: Sequence[Callable[[], Any]]) -> list[Any]:
    """Have all of them wait for the gallery before the first one gets it; return what each returned or raised."""
    for one in gallery.lists().items:  # a list is loaded when it is first used, and that takes the lock too
        gallery.identify(one.list_id, Faces().embedding(99))
    results: list[Any] = [None] * len(works)

    def run(number: int) -> None:
        try:
            results[number] = works[number]()
        except Exception as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(works))]
    with gallery._lock:
        for number, thread in enumerate(threads):
            thread.start()
            end = time.monotonic() + WAIT_SECONDS
            while len(gallery._waiting._calls) <= number and time.monotonic() < end:
                time.sleep(0.001)
    for thread in threads:
        thread.join(WAIT_SECONDS)
    return results


def enrolling(gallery: EmbeddedGallery, faces: Faces, seed: int, list_id: str | None = None) -> Callable[[], Any]:
    return lambda: gallery.identify_or_enrol(
        list_id or gallery.main_list_id, [faces.probe(seed, picture=b"picture %d" % seed)], faces.known_or_new
    )


def test_strangers_that_wait_together_take_one_commit(
    gallery: EmbeddedGallery, faces: Faces, commits: list[str], picture_files: Callable[[], list[str]]
) -> None:
    results = together(gallery, [enrolling(gallery, faces, seed) for seed in range(8)])
    assert commits == ["commit"]
    ids = [outcome.person.person_id for (outcome,) in results]
    assert len(set(ids)) == 8
    assert [faces.best(gallery, seed) for seed in range(8)] == ids
    assert len(picture_files()) == 8


def test_one_stranger_in_all_of_them_is_one_person(
    gallery: EmbeddedGallery, faces: Faces, commits: list[str], picture_files: Callable[[], list[str]]
) -> None:
    results = together(gallery, [enrolling(gallery, faces, 1) for _ in range(8)])
    assert commits == ["commit"]
    assert [outcome.decision.verdict for (outcome,) in results] == [Verdict.ADD] + [Verdict.MATCH] * 7
    assert len({outcome.person.person_id for (outcome,) in results}) == 1
    assert [outcome.list_size for (outcome,) in results] == [0] + [1] * 7
    assert len(picture_files()) == 1, "those of the others are gone"


def test_what_is_refused_of_one_harms_no_other(gallery: EmbeddedGallery, faces: Faces, commits: list[str]) -> None:
    nobody = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"

    def stranger_then_nobody(number: int, _size: int, _candidates: Sequence[Candidate]) -> Decision:
        return Decision(Verdict.ADD) if number == 0 else Decision(Verdict.MATCH, nobody)

    def refused() -> Any:
        probes = [faces.probe(20), faces.probe(21)]
        return gallery.identify_or_enrol(gallery.main_list_id, probes, stranger_then_nobody)

    first, second, third = together(gallery, [enrolling(gallery, faces, 1), refused, enrolling(gallery, faces, 2)])
    assert isinstance(second, ItemNotFound)
    assert [outcome.decision.verdict for (outcome,) in (first, third)] == [Verdict.ADD] * 2
    assert [outcome.list_size for (outcome,) in (first, third)] == [0, 1], "the refused one's stranger does not count"
    assert faces.best(gallery, 20) is None
    assert gallery.list_size(gallery.main_list_id) == 2
    assert commits == ["commit"]


def test_who_wants_a_template_first_has_written_nothing(gallery: EmbeddedGallery, faces: Faces) -> None:
    without = Probe(faces.embedding(11), faces.newcomer(), None)

    def half() -> Any:
        return gallery.identify_or_enrol(gallery.main_list_id, [faces.probe(10), without], faces.known_or_new)

    wanted, (added,) = together(gallery, [half, enrolling(gallery, faces, 1)])
    assert wanted == TemplatesWanted((1,))
    assert added.list_size == 0
    assert (faces.best(gallery, 10), faces.best(gallery, 11)) == (None, None)


def test_other_lists_are_another_commit(gallery: EmbeddedGallery, faces: Faces, commits: list[str]) -> None:
    other = gallery.create_list("other").list_id
    commits.clear()
    works = [enrolling(gallery, faces, seed, list_id) for seed in (1, 2) for list_id in (None, other)]
    assert all(isinstance(result, list) for result in together(gallery, works))
    assert commits == ["commit", "commit"]
    assert (gallery.list_size(gallery.main_list_id), gallery.list_size(other)) == (2, 2)


def test_on_a_full_disk_whoever_is_known_is_still_matched(
    gallery: EmbeddedGallery, faces: Faces, monkeypatch: pytest.MonkeyPatch, picture_files: Callable[[], list[str]]
) -> None:
    known = faces.enrol(gallery, 1).person
    assert known is not None

    @contextlib.contextmanager
    def full() -> Iterator[Any]:
        raise StorageFull
        yield

    monkeypatch.setattr(gallery.database, "write", full)
    works = [enrolling(gallery, faces, seed) for seed in (2, 1, 3)]
    first, (matched,), third = together(gallery, works)
    assert isinstance(first, StorageFull) and isinstance(third, StorageFull)
    assert isinstance(matched, Outcome) and matched.person == known
    assert picture_files() == []


def test_a_crowd_is_taken_in_portions(
    gallery: EmbeddedGallery, faces: Faces, commits: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.gallery.calls.MOST_CALLS", 3)
    results = together(gallery, [enrolling(gallery, faces, seed) for seed in range(7)])
    assert all(isinstance(result, list) for result in results)
    assert len(commits) == 3
    assert gallery.list_size(gallery.main_list_id) == 7
