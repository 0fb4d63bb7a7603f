"""Search, decide and write in one step: what is written, what is not, and what survives."""

from __future__ import annotations

import dataclasses
import sqlite3
import threading
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from edge.errors import Conflict, ItemNotFound, ListNotFound, PackMismatch, StorageFull
from edge.gallery import persons
from edge.gallery.store import EmbeddedGallery, Gallery, Outcome, Probe, TemplatesWanted
from edge.types import Candidate, Decision, Embedding, Pose, Template, Verdict

Opening = Callable[..., EmbeddedGallery]
Files = Callable[[], list[str]]


def reject(number: int, list_size: int, candidates: Sequence[Candidate]) -> Decision:
    return Decision(Verdict.REJECT)


def add(number: int, list_size: int, candidates: Sequence[Candidate]) -> Decision:
    return Decision(Verdict.ADD)


def done(outcomes: list[Outcome] | TemplatesWanted) -> list[Outcome]:
    assert isinstance(outcomes, list)
    return outcomes


def test_is_a_gallery(gallery: EmbeddedGallery) -> None:
    as_protocol: Gallery = gallery
    assert all(hasattr(as_protocol, name) for name in dir(Gallery) if not name.startswith("_"))


# --- adding ---


def test_who_is_new_is_added_with_everything_that_was_said_of_them(
    gallery: EmbeddedGallery, faces: Any, clock: Any
) -> None:
    embedding = faces.embedding(1)
    newcomer = faces.newcomer("Ada", "№ 7 \ud800", source_id="source", group_id="group")
    probe = Probe(embedding, newcomer, faces.template(embedding, b"jpeg"))
    [outcome] = done(gallery.identify_or_enrol(gallery.main_list_id, [probe], faces.known_or_new))
    person = outcome.person
    assert outcome.decision == Decision(Verdict.ADD)
    assert (outcome.candidates, outcome.list_size) == ((), 0)
    assert person is not None
    assert person.list_id == gallery.main_list_id
    assert (person.fields, person.source_id, person.group_id) == (("Ada", "№ 7 \ud800"), "source", "group")
    assert (person.created_ms, person.updated_ms) == (clock.now_ms, clock.now_ms)
    assert (person.pose, person.score, person.features) == (Pose(1.5, -2.5, 3.5), 0.9, newcomer.features)
    assert person.picture is not None
    assert gallery.picture(person.picture) == b"jpeg"
    assert gallery.person(gallery.main_list_id, person.person_id) == person


def test_a_person_without_pose_score_and_picture_is_one_too(gallery: EmbeddedGallery, faces: Any) -> None:
    newcomer = dataclasses.replace(faces.newcomer(), pose=None, score=None, features=())
    probe = Probe(faces.embedding(1), newcomer, faces.template(faces.embedding(1)))
    [outcome] = done(gallery.identify_or_enrol(gallery.main_list_id, [probe], faces.known_or_new))
    assert outcome.person is not None
    assert (outcome.person.pose, outcome.person.score, outcome.person.picture) == (None, None, None)
    assert gallery.person(gallery.main_list_id, outcome.person.person_id) == outcome.person


def test_what_was_answered_is_there_after_reopening(open_gallery: Opening, faces: Any) -> None:
    gallery = open_gallery()
    added = [faces.enrol(gallery, seed, b"jpeg %d" % seed).person for seed in range(5)]
    list_id = gallery.main_list_id
    gallery.close()
    gallery = open_gallery(main_list_name="another name changes nothing")
    assert gallery.main_list_id == list_id
    assert [gallery.person(list_id, person.person_id) for person in added] == added
    assert [faces.best(gallery, seed) for seed in range(5)] == [person.person_id for person in added]
    assert [gallery.picture(person.picture) for person in added] == [b"jpeg %d" % seed for seed in range(5)]


def test_what_was_answered_is_there_after_a_crash(
    open_gallery: Opening, folder: Any, faces: Any, tmp_path: Any
) -> None:
    """The files as a power cut leaves them: nothing closed, nothing checkpointed."""
    gallery = open_gallery()
    added = faces.enrol(gallery, 1, b"jpeg").person
    for path in [*folder.rglob("*")]:
        if path.is_file():
            copy = tmp_path / "copy" / path.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    gallery.close()
    folder.rename(tmp_path / "old")
    (tmp_path / "copy").rename(folder)
    gallery = open_gallery()
    assert gallery.person(gallery.main_list_id, added.person_id) == added
    assert faces.best(gallery, 1) == added.person_id


def test_identifiers_rise_although_the_clock_was_set_back(open_gallery: Opening, faces: Any, clock: Any) -> None:
    gallery = open_gallery()
    before = uuid.UUID(faces.enrol(gallery, 1).person.person_id)
    gallery.close()
    clock.now_ms = 1000
    after = uuid.UUID(faces.enrol(open_gallery(), 2).person.person_id)
    assert after.time > before.time


# --- matching ---


def test_who_is_known_is_matched_and_nothing_is_written(
    gallery: EmbeddedGallery, faces: Any, picture_files: Files
) -> None:
    added = faces.enrol(gallery, 1, b"first").person
    generation = gallery._meta("generation")
    again = faces.enrol(gallery, 1, b"second", noise=0.02)
    assert again.decision == Decision(Verdict.MATCH, added.person_id)
    assert again.person == added
    assert again.list_size == 1
    assert again.candidates[0].person == added
    assert gallery.counts().persons == 1
    assert gallery._meta("generation") == generation
    assert picture_files() == [f"{added.picture}.jpg"]


def test_the_decision_sees_the_three_nearest_persons_best_first(gallery: EmbeddedGallery, faces: Any) -> None:
    for seed in range(20):
        faces.enrol(gallery, seed)
    probe = faces.embedding(3, noise=0.05)
    seen: list[Any] = []

    def watching(number: int, list_size: int, candidates: Sequence[Candidate]) -> Decision:
        seen.append((number, list_size, tuple(candidates)))
        return Decision(Verdict.REJECT)

    [outcome] = done(gallery.identify_or_enrol(gallery.main_list_id, [Probe(probe, faces.newcomer(), None)], watching))
    assert seen == [(0, 20, outcome.candidates)]
    similarities = [candidate.similarity for candidate in outcome.candidates]
    assert len(similarities) == 3
    assert similarities == sorted(similarities, reverse=True)
    cosine = float(probe.vector @ faces.embedding(3).vector)
    assert similarities[0] == pytest.approx(cosine - faces.weight * (0.5 + 0.5), abs=1e-6)
    assert outcome.candidates == tuple(gallery.identify(gallery.main_list_id, probe))


def test_a_rejected_face_leaves_nothing(gallery: EmbeddedGallery, faces: Any, picture_files: Files) -> None:
    [outcome] = done(gallery.identify_or_enrol(gallery.main_list_id, [faces.probe(1, b"jpeg")], reject))
    assert (outcome.decision, outcome.person) == (Decision(Verdict.REJECT), None)
    assert gallery.counts().persons == 0
    assert picture_files() == []


def test_lists_know_nothing_of_each_other(gallery: EmbeddedGallery, faces: Any) -> None:
    other = gallery.create_list("other").list_id
    faces.enrol(gallery, 1)
    assert gallery.identify(other, faces.embedding(1)) == []
    [outcome] = done(gallery.identify_or_enrol(other, [faces.probe(1)], faces.known_or_new))
    assert outcome.decision.verdict is Verdict.ADD
    assert (gallery.list_size(gallery.main_list_id), gallery.list_size(other)) == (1, 1)
    with pytest.raises(ItemNotFound):
        gallery.person(gallery.main_list_id, outcome.person.person_id)


# --- templates on demand ---


def test_templates_are_asked_for_only_where_something_would_be_written(gallery: EmbeddedGallery, faces: Any) -> None:
    faces.enrol(gallery, 1)
    bare = [dataclasses.replace(faces.probe(seed), template=None) for seed in (1, 2, 3)]
    wanted = gallery.identify_or_enrol(gallery.main_list_id, bare, faces.known_or_new)
    assert wanted == TemplatesWanted((1, 2))
    assert gallery.counts().persons == 1
    full = [bare[0], faces.probe(2), faces.probe(3)]
    outcomes = done(gallery.identify_or_enrol(gallery.main_list_id, full, faces.known_or_new))
    assert [outcome.decision.verdict for outcome in outcomes] == [Verdict.MATCH, Verdict.ADD, Verdict.ADD]


def test_nothing_at_all_is_written_while_one_template_is_wanted(
    gallery: EmbeddedGallery, faces: Any, picture_files: Files
) -> None:
    probes = [faces.probe(1, b"jpeg"), dataclasses.replace(faces.probe(2), template=None)]
    assert gallery.identify_or_enrol(gallery.main_list_id, probes, add) == TemplatesWanted((1,))
    assert gallery.counts().persons == 0
    assert picture_files() == []
    assert gallery.identify(gallery.main_list_id, faces.embedding(1)) == []


def test_a_replacement_without_a_template_wants_one_if_the_person_exists(gallery: EmbeddedGallery, faces: Any) -> None:
    added = faces.enrol(gallery, 1).person
    bare = [dataclasses.replace(faces.probe(2), template=None)]
    wanted = gallery.identify_or_enrol(gallery.main_list_id, bare, faces.replacing(added.person_id))
    assert wanted == TemplatesWanted((0,))
    with pytest.raises(ItemNotFound):
        gallery.identify_or_enrol(gallery.main_list_id, bare, faces.replacing("nobody"))


# --- several faces ---


def test_faces_of_one_request_see_each_other(gallery: EmbeddedGallery, faces: Any, picture_files: Files) -> None:
    probes = [faces.probe(1, b"a"), faces.probe(1, b"b", noise=0.02), faces.probe(2, b"c")]
    first, second, third = done(gallery.identify_or_enrol(gallery.main_list_id, probes, faces.known_or_new))
    assert second.decision == Decision(Verdict.MATCH, first.person.person_id)
    assert second.person == first.person == second.candidates[0].person
    assert [outcome.list_size for outcome in (first, second, third)] == [0, 1, 1]
    assert third.decision.verdict is Verdict.ADD
    assert len(picture_files()) == 2
    assert gallery.counts().persons == 2


def test_a_face_sees_a_replacement_by_an_earlier_one(gallery: EmbeddedGallery, faces: Any) -> None:
    added = faces.enrol(gallery, 1).person
    replace_first = [Decision(Verdict.REPLACE, added.person_id)]

    def decide(number: int, list_size: int, candidates: Sequence[Candidate]) -> Decision:
        return replace_first.pop() if replace_first else faces.known_or_new(number, list_size, candidates)

    probes = [faces.probe(2), faces.probe(2, noise=0.02), faces.probe(1)]
    replaced, matched, new = done(gallery.identify_or_enrol(gallery.main_list_id, probes, decide))
    assert matched.decision == Decision(Verdict.MATCH, replaced.person.person_id)
    assert new.decision.verdict is Verdict.ADD  # the vector that they had matches no longer


def test_a_person_added_and_replaced_by_one_request_is_written_once(
    gallery: EmbeddedGallery, faces: Any, picture_files: Files
) -> None:
    def decide(number: int, list_size: int, candidates: Sequence[Candidate]) -> Decision:
        if candidates:
            return Decision(Verdict.REPLACE, candidates[0].person.person_id)
        return Decision(Verdict.ADD)

    probes = [faces.probe(1, b"a"), faces.probe(1, b"b", noise=0.02)]
    first, second = done(gallery.identify_or_enrol(gallery.main_list_id, probes, decide))
    assert first.person == second.person == gallery.person(gallery.main_list_id, first.person.person_id)
    assert gallery.picture(first.person.picture) == b"b"
    assert len(picture_files()) == 1
    assert gallery.counts().templates == 1


# --- replacing ---


def test_a_replacement_leaves_id_and_creation_and_changes_the_rest(
    gallery: EmbeddedGallery, faces: Any, clock: Any, picture_files: Files
) -> None:
    before = faces.enrol(gallery, 1, b"old", fields=["old"]).person
    clock.now_ms += 5000
    embedding = faces.embedding(2)
    newcomer = dataclasses.replace(faces.newcomer("new", source_id="s2", group_id="g2", score=0.5), features=())
    probe = Probe(embedding, newcomer, faces.template(embedding, b"new"))
    [outcome] = done(gallery.identify_or_enrol(gallery.main_list_id, [probe], faces.replacing(before.person_id)))
    after = outcome.person
    assert (after.person_id, after.created_ms) == (before.person_id, before.created_ms)
    assert (after.updated_ms, after.fields, after.score, after.features) == (clock.now_ms, ("new",), 0.5, ())
    assert (after.source_id, after.group_id) == ("s2", "g2")
    assert gallery.person(gallery.main_list_id, before.person_id) == after
    assert gallery.picture(after.picture) == b"new"
    assert picture_files() == [f"{after.picture}.jpg"]
    assert faces.best(gallery, 2) == before.person_id
    assert outcome.candidates[0].person == before


def test_a_replaced_vector_matches_no_longer(open_gallery: Opening, faces: Any) -> None:
    gallery = open_gallery()
    person_id = faces.enrol(gallery, 1).person.person_id
    gallery.identify_or_enrol(gallery.main_list_id, [faces.probe(2)], faces.replacing(person_id))
    for _ in range(2):
        assert faces.best(gallery, 1) is None
        assert faces.best(gallery, 2) == person_id
        gallery.close()
        gallery = open_gallery()


def test_what_the_newcomer_does_not_say_stays(gallery: EmbeddedGallery, faces: Any) -> None:
    embedding = faces.embedding(1)
    probe = Probe(embedding, faces.newcomer("Ada", source_id="s", group_id="g"), faces.template(embedding, b"old"))
    [added] = done(gallery.identify_or_enrol(gallery.main_list_id, [probe], add))
    silent = faces.probe(2)  # neither fields nor source nor picture
    [outcome] = done(gallery.identify_or_enrol(gallery.main_list_id, [silent], faces.replacing(added.person.person_id)))
    assert (outcome.person.fields, outcome.person.source_id, outcome.person.group_id) == (("Ada",), "s", "g")
    assert outcome.person.picture is None  # it showed what has been replaced


def test_a_replaced_person_must_be_in_the_list(gallery: EmbeddedGallery, faces: Any, picture_files: Files) -> None:
    other = gallery.create_list("other").list_id
    added = faces.enrol(gallery, 1).person
    with pytest.raises(ItemNotFound) as refusal:
        gallery.identify_or_enrol(other, [faces.probe(1, b"jpeg")], faces.replacing(added.person_id))
    assert refusal.value.mistakes[0].field == "replace_on_found"
    assert picture_files() == []


# --- refusals and faults ---


def test_an_unknown_list_is_refused(gallery: EmbeddedGallery, faces: Any, picture_files: Files) -> None:
    for call in (
        lambda: gallery.identify_or_enrol("no list", [faces.probe(1, b"jpeg")], add),
        lambda: gallery.identify("no list", faces.embedding(1)),
        lambda: gallery.person("no list", "nobody"),
        lambda: gallery.delete_persons("no list", []),
        lambda: gallery.list_size("no list"),
    ):
        with pytest.raises(ListNotFound):
            call()
    assert gallery.find_list("no list") is None
    assert picture_files() == []


def test_vectors_of_two_packs_never_meet(gallery: EmbeddedGallery, faces: Any) -> None:
    embedding = faces.embedding(1)
    longer = Embedding(np.append(embedding.vector, np.float32(0)), 0.5)
    for probe in (
        Probe(embedding, faces.newcomer(), faces.template(embedding, pack="another")),
        Probe(embedding, faces.newcomer(), faces.template(longer)),
        Probe(longer, faces.newcomer(), None),
    ):
        with pytest.raises(PackMismatch):
            gallery.identify_or_enrol(gallery.main_list_id, [probe], add)
    with pytest.raises(PackMismatch):
        gallery.identify(gallery.main_list_id, longer)
    assert gallery.counts().persons == 0


def test_numbers_that_are_not_finite_do_not_get_in(gallery: EmbeddedGallery, faces: Any) -> None:
    for broken in (
        Embedding(np.full(faces.length, np.nan, np.float32), 0.5),
        Embedding(faces.embedding(1).vector, float("nan")),
    ):
        with pytest.raises(ValueError, match="not finite"):
            gallery.identify_or_enrol(gallery.main_list_id, [Probe(broken, faces.newcomer(), None)], add)


@pytest.mark.parametrize("statement", ["INSERT_PERSON", "INSERT_TEMPLATE", "UPDATE_TEMPLATE_CRC"])
def test_a_fault_in_the_middle_leaves_no_row_no_picture_and_no_index_entry(
    gallery: EmbeddedGallery, faces: Any, picture_files: Files, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    kept = faces.enrol(gallery, 1, b"jpeg").person
    files = picture_files()
    with monkeypatch.context() as patch:
        patch.setattr(persons, statement, "INSERT INTO nowhere VALUES (1)")
        with pytest.raises(sqlite3.OperationalError):
            gallery.identify_or_enrol(gallery.main_list_id, [faces.probe(2, b"a"), faces.probe(3, b"b")], add)
    assert (gallery.counts().persons, gallery.counts().templates) == (1, 1)
    assert gallery.list_size(gallery.main_list_id) == 1
    assert picture_files() == files
    assert (faces.best(gallery, 1), faces.best(gallery, 2)) == (kept.person_id, None)
    assert faces.enrol(gallery, 2).decision.verdict is Verdict.ADD  # and the gallery goes on


def test_a_fault_in_a_replacement_leaves_the_person_as_they_were(
    gallery: EmbeddedGallery, faces: Any, picture_files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = faces.enrol(gallery, 1, b"jpeg").person
    with monkeypatch.context() as patch:
        patch.setattr(persons, "INSERT_TEMPLATE", "INSERT INTO nowhere VALUES (1)")
        with pytest.raises(sqlite3.OperationalError):
            gallery.identify_or_enrol(gallery.main_list_id, [faces.probe(2, b"new")], faces.replacing(before.person_id))
    assert gallery.person(gallery.main_list_id, before.person_id) == before
    assert picture_files() == [f"{before.picture}.jpg"]
    assert faces.best(gallery, 1) == before.person_id


def test_a_fault_in_a_decision_writes_nothing(gallery: EmbeddedGallery, faces: Any, picture_files: Files) -> None:
    decisions = iter([Decision(Verdict.ADD)])
    with pytest.raises(StopIteration):
        gallery.identify_or_enrol(
            gallery.main_list_id, [faces.probe(1, b"a"), faces.probe(2, b"b")], lambda *_: next(decisions)
        )
    assert gallery.counts().persons == 0
    assert picture_files() == []


def test_an_index_that_fails_is_loaded_anew_and_the_answer_stands(
    gallery: EmbeddedGallery, faces: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = faces.enrol(gallery, 1).person
    with monkeypatch.context() as patch:
        patch.setattr("edge.gallery.index.ListIndex.add", lambda *_: 1 / 0)
        added = faces.enrol(gallery, 2).person
    assert faces.best(gallery, 1) == kept.person_id
    assert faces.best(gallery, 2) == added.person_id


def test_a_full_disk_refuses_who_is_new_and_goes_on_recognising(
    gallery: EmbeddedGallery, faces: Any, picture_files: Files
) -> None:
    known = faces.enrol(gallery, 1, b"jpeg").person
    with gallery.database.write() as transaction:
        pages = transaction.execute("PRAGMA page_count").fetchone()[0]
        transaction.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageFull):
        for seed in range(2, 200):
            faces.enrol(gallery, seed, b"jpeg")
    assert len(picture_files()) == gallery.counts().persons
    assert faces.enrol(gallery, 1).decision == Decision(Verdict.MATCH, known.person_id)
    assert gallery.delete_persons(gallery.main_list_id, [known.person_id]) == 1


# --- at the same moment ---


def together(count: int, work: Callable[[int], Any]) -> list[Any]:
    results: list[Any] = [None] * count
    barrier = threading.Barrier(count)

    def run(number: int) -> None:
        barrier.wait()
        results[number] = work(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def as_recognition_does(gallery: EmbeddedGallery, faces: Any, seeds: Sequence[int]) -> list[Outcome]:
    """First without templates, then with those that are wanted."""
    probes = [dataclasses.replace(faces.probe(seed), template=None) for seed in seeds]
    outcomes = gallery.identify_or_enrol(gallery.main_list_id, probes, faces.known_or_new)
    while isinstance(outcomes, TemplatesWanted):
        for number in outcomes.numbers:
            template = Template(probes[number].embedding, faces.pack, 0.5, b"jpeg")
            probes[number] = dataclasses.replace(probes[number], template=template)
        outcomes = gallery.identify_or_enrol(gallery.main_list_id, probes, faces.known_or_new)
    return outcomes


def test_32_requests_for_one_new_face_make_one_person(
    gallery: EmbeddedGallery, faces: Any, picture_files: Files
) -> None:
    outcomes = [outcome for [outcome] in together(32, lambda _: as_recognition_does(gallery, faces, [7]))]
    verdicts = [outcome.decision.verdict for outcome in outcomes]
    assert (verdicts.count(Verdict.ADD), verdicts.count(Verdict.MATCH)) == (1, 31)
    assert len({outcome.person.person_id for outcome in outcomes}) == 1
    assert gallery.counts().persons == 1
    assert len(picture_files()) == 1


def test_8_callers_with_20_people_end_as_one_caller_would(open_gallery: Opening, faces: Any) -> None:
    gallery = open_gallery()

    def caller(number: int) -> None:
        for seed in np.random.default_rng(number).integers(0, 20, 40).tolist():
            as_recognition_does(gallery, faces, [seed, (seed * 7 + number) % 20])

    together(8, caller)
    found = [faces.best(gallery, seed) for seed in range(20)]
    assert gallery.counts().persons == len(set(found)) == 20
    gallery.close()
    assert [faces.best(open_gallery(), seed) for seed in range(1)] == found[:1]


def test_adding_replacing_and_erasing_together_leaves_index_and_rows_equal(
    open_gallery: Opening, faces: Any, picture_files: Files
) -> None:
    gallery = open_gallery(exact_limit=10)

    def caller(number: int) -> None:
        rng = np.random.default_rng(number)
        for step in range(25):
            seed = int(rng.integers(0, 12))
            [outcome] = as_recognition_does(gallery, faces, [seed])
            try:
                if step % 3 == 0:
                    gallery.delete_persons(gallery.main_list_id, [outcome.person.person_id])
                elif step % 3 == 1:
                    gallery.identify_or_enrol(
                        gallery.main_list_id,
                        [faces.probe(seed, b"new", noise=0.02)],
                        faces.replacing(outcome.person.person_id),
                    )
            except ItemNotFound:
                pass  # another caller erased them first

    together(8, caller)
    served = [faces.best(gallery, seed) for seed in range(12)]
    counts, files = gallery.counts(), len(picture_files())
    assert counts.persons == counts.templates == files == gallery.list_size(gallery.main_list_id)
    gallery.close()
    gallery = open_gallery()
    assert [faces.best(gallery, seed) for seed in range(12)] == served
    assert gallery.counts() == counts


def test_readers_do_not_wait_for_a_writer(gallery: EmbeddedGallery, faces: Any) -> None:
    added = faces.enrol(gallery, 1, b"jpeg").person
    answers: list[Any] = []

    def read() -> None:
        answers.append(gallery.person(gallery.main_list_id, added.person_id))
        answers.append(gallery.picture(added.picture))
        answers.append(gallery.find_list(gallery.main_list_id))
        answers.append(gallery.identify(gallery.main_list_id, faces.embedding(1)))
        answers.append(gallery.counts())

    with gallery._lock, gallery.database.write():
        reader = threading.Thread(target=read)
        reader.start()
        reader.join(5)
    assert len(answers) == 5


# --- lists ---


def test_the_main_list_is_there_from_the_first_start(gallery: EmbeddedGallery) -> None:
    main = gallery.find_list(gallery.main_list_id)
    assert main is not None
    assert (main.name, main.is_main, main.count) == ("main", True, 0)


def test_a_list_is_made_once_under_its_name(gallery: EmbeddedGallery, clock: Any) -> None:
    made = gallery.create_list("staff")
    assert gallery.find_list(made.list_id) == made
    assert (made.name, made.is_main, made.count, made.created_ms) == ("staff", False, 0, clock.now_ms)
    with pytest.raises(Conflict):
        gallery.create_list("staff")
    assert gallery.counts().lists == 2


def test_lists_count_their_persons(gallery: EmbeddedGallery, faces: Any) -> None:
    added = [faces.enrol(gallery, seed).person.person_id for seed in range(4)]
    gallery.delete_persons(gallery.main_list_id, added[:1])
    assert gallery.list_size(gallery.main_list_id) == 3
    assert gallery.find_list(gallery.main_list_id).count == 3
