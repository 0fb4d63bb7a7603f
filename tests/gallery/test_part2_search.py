"""Several lists at once: search them, and add whom none of them knows, in one step."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from edge.errors import ItemNotFound, ListNotFound, PackMismatch
from edge.gallery.store import EmbeddedGallery, Outcome, Probe, TemplatesWanted
from edge.types import Candidate, Decision, Verdict

Lists = tuple[str, str, str]


@pytest.fixture
def three(gallery: EmbeddedGallery) -> Lists:
    return gallery.main_list_id, gallery.create_list("second").list_id, gallery.create_list("third").list_id


def added(gallery: EmbeddedGallery, list_id: str, probe: Probe) -> str:
    [outcome] = done(gallery.search_or_enrol([], list_id, [probe], lambda *_: Decision(Verdict.ADD)))
    assert outcome.person is not None
    return outcome.person.person_id


def done(outcomes: list[Outcome] | TemplatesWanted) -> list[Outcome]:
    assert isinstance(outcomes, list)
    return outcomes


def ids(candidates: Sequence[Candidate]) -> list[str]:
    return [one.person.person_id for one in candidates]


# --- search ---


def test_the_best_of_several_lists_come_first(gallery: EmbeddedGallery, faces: Any, three: Lists) -> None:
    people = {seed: added(gallery, three[seed % 3], faces.probe(seed)) for seed in range(30)}
    probe = faces.embedding(4, 0.05)
    every = gallery.identify_in_lists(three, probe, 30)
    assert len(every) == len(set(ids(every))) == 30
    assert ids(every)[0] == people[4]
    similarities = [one.similarity for one in every]
    assert similarities == sorted(similarities, reverse=True)
    merged = [one for list_id in three for one in gallery.identify(list_id, probe, 30)]
    assert {(one.person.person_id, one.similarity) for one in merged} == {
        (one.person.person_id, one.similarity) for one in every
    }
    assert ids(gallery.identify_in_lists(three, probe, 5)) == ids(every)[:5]
    two = gallery.identify_in_lists(three[1:], probe, 30)
    assert ids(two) == [one.person.person_id for one in every if one.person.list_id in three[1:]]


def test_a_list_that_is_named_twice_is_searched_once(gallery: EmbeddedGallery, faces: Any, three: Lists) -> None:
    person_id = faces.enrol(gallery, 1).person.person_id
    assert ids(gallery.identify_in_lists([three[0], three[0]], faces.embedding(1), 3)) == [person_id]
    assert gallery.identify_in_lists([], faces.embedding(1)) == []


def test_lists_and_embeddings_are_checked(gallery: EmbeddedGallery, faces: Any, three: Lists) -> None:
    with pytest.raises(ListNotFound):
        gallery.identify_in_lists([three[0], "nothing"], faces.embedding(1))
    wrong = replace(faces.embedding(1), vector=faces.embedding(1).vector[:3])
    with pytest.raises(PackMismatch):
        gallery.identify_in_lists(three, wrong)


# --- search and add ---


def test_whom_no_list_knows_is_added_to_one(
    gallery: EmbeddedGallery, faces: Any, three: Lists, picture_files: Callable[[], list[str]]
) -> None:
    known = added(gallery, three[1], faces.probe(1))
    seen: list[tuple[int, int, list[str]]] = []

    def decide(number: int, list_size: int, candidates: Sequence[Candidate]) -> Decision:
        seen.append((number, list_size, ids(candidates)))
        return faces.known_or_new(number, list_size, candidates)  # type: ignore[no-any-return]

    probes = [faces.probe(1, b"1"), faces.probe(2, b"2"), faces.probe(2, b"2 again")]
    outcomes = done(gallery.search_or_enrol(three[:2], three[2], probes, decide))
    assert [one.decision.verdict for one in outcomes] == [Verdict.MATCH, Verdict.ADD, Verdict.ADD]
    assert [one.person.list_id for one in outcomes if one.person] == [three[1], three[2], three[2]]
    assert seen == [(0, 1, [known]), (1, 1, [known]), (2, 1, [known])]  # the third list is not searched
    assert [gallery.list_size(one) for one in three] == [0, 1, 2]
    assert len(picture_files()) == 2
    assert ids(gallery.identify(three[2], faces.embedding(2), 1))[0] in {one.person.person_id for one in outcomes[1:]}


def test_a_list_that_is_searched_and_added_to_sees_its_newcomers(
    gallery: EmbeddedGallery, faces: Any, three: Lists
) -> None:
    probes = [faces.probe(1), faces.probe(1, noise=0.01), faces.probe(2)]
    outcomes = done(gallery.search_or_enrol(three, three[1], probes, faces.known_or_new))
    assert [one.decision.verdict for one in outcomes] == [Verdict.ADD, Verdict.MATCH, Verdict.ADD]
    assert [one.list_size for one in outcomes] == [0, 1, 1]
    assert outcomes[0].person == outcomes[1].person
    assert gallery.list_size(three[1]) == 2


def test_a_decision_sees_as_many_candidates_as_are_asked_for(
    gallery: EmbeddedGallery, faces: Any, three: Lists
) -> None:
    for seed in range(12):
        added(gallery, three[seed % 3], faces.probe(seed))
    reject = Decision(Verdict.REJECT)
    [outcome] = done(gallery.search_or_enrol(three, None, [faces.probe(0)], lambda *_: reject, 10))
    assert (len(outcome.candidates), outcome.list_size) == (10, 12)
    [outcome] = done(gallery.search_or_enrol(three, None, [faces.probe(0)], lambda *_: reject))
    assert len(outcome.candidates) == 3


def test_a_person_of_any_searched_list_can_be_replaced(gallery: EmbeddedGallery, faces: Any, three: Lists) -> None:
    person_id = added(gallery, three[1], faces.probe(1))
    other = added(gallery, three[2], faces.probe(9))
    [outcome] = done(gallery.search_or_enrol(three[:2], None, [faces.probe(2)], faces.replacing(person_id)))
    assert outcome.person is not None
    assert (outcome.person.person_id, outcome.person.list_id) == (person_id, three[1])
    assert ids(gallery.identify(three[1], faces.embedding(2), 1)) == [person_id]
    for nobody in (other, "nobody"):
        match = Decision(Verdict.MATCH, nobody)
        for decide in (faces.replacing(nobody), lambda *_, match=match: match):
            with pytest.raises(ItemNotFound):
                gallery.search_or_enrol(three[:2], None, [faces.probe(2)], decide)


def test_a_refusal_leaves_nothing_behind(
    gallery: EmbeddedGallery, faces: Any, three: Lists, picture_files: Callable[[], list[str]]
) -> None:
    add = Decision(Verdict.ADD)
    with pytest.raises(ListNotFound) as refusal:
        gallery.search_or_enrol(three, "nothing", [faces.probe(1, b"1")], lambda *_: add)
    assert refusal.value.mistakes[0].field == "person_list_add"
    with pytest.raises(ListNotFound):
        gallery.search_or_enrol([*three, "nothing"], None, [faces.probe(1, b"1")], lambda *_: add)
    with pytest.raises(ValueError, match="no list to add to"):
        gallery.search_or_enrol(three, None, [faces.probe(1, b"1")], lambda *_: add)
    bare = replace(faces.probe(2), template=None)
    wanted = gallery.search_or_enrol(three, three[2], [faces.probe(1, b"1"), bare], lambda *_: add)
    assert wanted == TemplatesWanted((1,))
    assert (gallery.counts().persons, picture_files()) == (0, [])


def test_one_request_is_one_commit(gallery: EmbeddedGallery, faces: Any, three: Lists) -> None:
    commits: list[bool] = []
    gallery.database._committed = lambda: commits.append(True)  # type: ignore[method-assign]
    probes = [faces.probe(seed) for seed in range(5)]
    done(gallery.search_or_enrol(three, three[2], probes, faces.known_or_new))
    assert commits == [True]


def test_one_face_from_many_threads_is_one_person(gallery: EmbeddedGallery, faces: Any, three: Lists) -> None:
    """Different lists are searched, in different orders; the list that is added to is always among them."""
    orders = [(three[0], three[1]), (three[1], three[0]), (three[1],), (three[2], three[1])]
    start = threading.Barrier(8)

    def post(number: int) -> None:
        start.wait()
        for seed in range(5):
            gallery.search_or_enrol(orders[number % 4], three[1], [faces.probe(seed)], faces.known_or_new)

    threads = [threading.Thread(target=post, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [gallery.list_size(one) for one in three] == [0, 5, 0]


def test_deleting_a_list_beside_searches_and_adds_hurts_nobody(
    gallery: EmbeddedGallery, faces: Any, three: Lists
) -> None:
    problems: list[Exception] = []
    over = threading.Event()

    def use(number: int) -> None:
        while not over.is_set():
            doomed = target[0]
            try:
                gallery.search_or_enrol([three[0], doomed], doomed, [faces.probe(number)], faces.known_or_new)
                gallery.identify_in_lists([three[0], doomed], faces.embedding(number))
            except ListNotFound:
                pass
            except Exception as error:
                problems.append(error)

    target = [gallery.create_list("doomed 0").list_id]
    threads = [threading.Thread(target=use, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for number in range(1, 9):
        old, target[0] = target[0], gallery.create_list(f"doomed {number}").list_id
        gallery.delete_list(old)
    over.set()
    for thread in threads:
        thread.join()
    assert problems == []
    assert gallery.list_size(three[0]) == 0
    assert gallery.counts().persons == gallery.list_size(target[0])
