"""Who a face was said not to be, they are not: in searches, over restarts, and gone when it is taken back."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge.errors import Conflict, ItemNotFound, PackMismatch
from edge.gallery import rejections
from edge.gallery.database import DATABASE_NAME
from edge.gallery.history import History
from edge.gallery.schema import MIGRATIONS
from edge.gallery.store import EmbeddedGallery
from edge.types import Candidate, Embedding, Person, Sighting, Verdict

Opening = Callable[..., EmbeddedGallery]
See = Callable[..., str]


@pytest.fixture
def history(gallery: EmbeddedGallery, clock: Any) -> Iterator[History]:
    history = History(gallery.database, gallery.pictures, clock=clock)
    yield history
    history.close()


@pytest.fixture
def see(gallery: EmbeddedGallery, history: History, faces: Any) -> See:
    """Records that a face was taken for somebody; returns the sighting's id."""
    made: list[str] = []

    def seen(embedding: Embedding, person: Person | None, pack: str | None = faces.pack) -> str:
        made.append(f"sighting {len(made)}")
        history.record(
            Sighting(
                sighting_id=made[-1],
                time_ms=1,
                list_id=gallery.main_list_id,
                source_id=None,
                group_id=None,
                verdict=Verdict.MATCH if person else Verdict.REJECT,
                person_id=person.person_id if person else None,
                score=0.9,
                threshold=0.7,
                box=None,
                embedding=embedding if pack else None,
                pack_id=pack,
            )
        )
        assert history.flush()
        return made[-1]

    return seen


def reject(gallery: EmbeddedGallery, person: Person, sighting_id: str) -> None:
    gallery.reject(person.list_id, person.person_id, sighting_id)


def best(gallery: EmbeddedGallery, embedding: Embedding) -> Candidate:
    return gallery.identify(gallery.main_list_id, embedding, 1)[0]


def rejected(gallery: EmbeddedGallery, person: Person) -> list[str]:
    return [one.sighting_id for one in gallery.rejections(person.list_id, person.person_id).items]


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_a_search_says_how_near_the_rejected_face_is(gallery: EmbeddedGallery, faces: Any, see: See) -> None:
    person = faces.enrol(gallery, 1).person
    probe = faces.embedding(1, 0.3)
    assert best(gallery, probe).nearest_negative is None
    reject(gallery, person, see(probe, person))
    found = best(gallery, probe)
    assert found.person == person
    assert found.nearest_negative == pytest.approx(1 - 2 * faces.weight * probe.cohort_similarity)
    assert found.is_disputed
    own = best(gallery, faces.embedding(1))
    assert own.nearest_negative is not None
    assert not own.is_disputed, "the person's own face is more like their template"


def test_a_template_that_is_the_rejected_face_itself_is_as_near(gallery: EmbeddedGallery, faces: Any, see: See) -> None:
    for seed in range(20):
        person = faces.enrol(gallery, seed).person
        reject(gallery, person, see(faces.embedding(seed), person))
        found = best(gallery, faces.embedding(seed))
        assert found.nearest_negative == found.similarity


def test_whoever_comes_next_takes_the_place(gallery: EmbeddedGallery, faces: Any, see: See) -> None:
    """However many the face was said not to be, as many others as are asked for are handed over."""
    probe = faces.embedding(1, 0.3)
    people = [faces.enrol(gallery, seed).person for seed in range(30)]
    ranked = [one.person for one in gallery.identify(gallery.main_list_id, probe, 30)]
    sighting = see(probe, people[1])
    for person in ranked[:12]:
        reject(gallery, person, sighting)
    found = gallery.identify(gallery.main_list_id, probe, 3)
    assert [one.person for one in found] == ranked[:15]
    assert [one.is_disputed for one in found] == [True] * 12 + [False] * 3
    for person in ranked[12:]:
        reject(gallery, person, sighting)
    assert len(gallery.identify(gallery.main_list_id, probe, 3)) == 30


def test_a_decision_under_the_lock_sees_it_too(gallery: EmbeddedGallery, faces: Any, see: See) -> None:
    person = faces.enrol(gallery, 1).person
    reject(gallery, person, see(faces.embedding(1, 0.3), person))
    outcome = faces.enrol(gallery, 1, noise=0.3)
    assert outcome.candidates[0].is_disputed
    gallery.identify_or_enrol(gallery.main_list_id, [faces.probe(7)], faces.replacing(person.person_id))
    assert rejected(gallery, person) == ["sighting 0"], "replacing keeps them"
    assert best(gallery, faces.embedding(7)).nearest_negative is not None


def test_it_outlives_a_restart_and_a_move(
    open_gallery: Opening, gallery: EmbeddedGallery, faces: Any, see: See
) -> None:
    person = faces.enrol(gallery, 1).person
    probe = faces.embedding(1, 0.3)
    reject(gallery, person, see(probe, person))
    other = gallery.create_list("other").list_id
    gallery.update_person(person.list_id, person.person_id, new_list_id=other)
    gallery.close()
    gallery = open_gallery()
    (found,) = gallery.identify(other, probe, 1)
    assert found.is_disputed
    assert rejected(gallery, replace(person, list_id=other)) == ["sighting 0"]


def test_twice_is_once_and_what_is_unknown_is_refused(
    gallery: EmbeddedGallery, faces: Any, see: See, clock: Any
) -> None:
    person = faces.enrol(gallery, 1).person
    sighting = see(faces.embedding(1, 0.3), person)
    first = gallery.reject(person.list_id, person.person_id, sighting)
    clock.now_ms += 1000
    assert gallery.reject(person.list_id, person.person_id, sighting) == first
    assert gallery.rejections(person.list_id, person.person_id).items == (first,)
    for person_id, sighting_id, field in ((person.person_id, "none", "sighting_id"), ("nobody", sighting, "person_id")):
        with pytest.raises(ItemNotFound) as refused:
            gallery.reject(person.list_id, person_id, sighting_id)
        assert refused.value.mistakes[0].field == field
        with pytest.raises(ItemNotFound) as refused:
            gallery.undo_rejection(person.list_id, person_id, sighting_id)
        assert refused.value.mistakes[0].field == field


def test_a_sighting_that_cannot_be_compared_is_refused(gallery: EmbeddedGallery, faces: Any, see: See) -> None:
    person = faces.enrol(gallery, 1).person
    with pytest.raises(Conflict, match="kept no vectors"):
        reject(gallery, person, see(faces.embedding(1), person, pack=None))
    with pytest.raises(PackMismatch, match="pack-2, not with pack-1"):
        reject(gallery, person, see(faces.embedding(1), person, pack="pack-2"))
    assert rejected(gallery, person) == []


def test_there_is_a_limit(gallery: EmbeddedGallery, faces: Any, see: See, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.gallery.rejecting.REJECTIONS_PER_PERSON", 2)
    person = faces.enrol(gallery, 1).person
    made = [see(faces.embedding(seed), person) for seed in range(3)]
    reject(gallery, person, made[0])
    reject(gallery, person, made[1])
    with pytest.raises(Conflict, match="2 faces are rejected"):
        reject(gallery, person, made[2])
    reject(gallery, person, made[0])  # it is there already
    gallery.undo_rejection(person.list_id, person.person_id, made[0])
    reject(gallery, person, made[2])


def test_another_pack_does_not_consult_it_and_its_own_does_again(
    open_gallery: Opening, gallery: EmbeddedGallery, faces: Any, see: See
) -> None:
    person = faces.enrol(gallery, 1).person
    probe = faces.embedding(1, 0.3)
    reject(gallery, person, see(probe, person))
    gallery.close()
    other = open_gallery(pack_id="pack-2")
    other.add_templates(person.list_id, person.person_id, [faces.template(faces.embedding(1), pack="pack-2")])
    found = best(other, probe)
    assert found.person.person_id == person.person_id
    assert found.nearest_negative is None
    assert rejections.of_other_packs(other.database.read(), "pack-2") == 1
    assert rejections.of_other_packs(other.database.read(), faces.pack) == 0
    other.close()
    assert best(open_gallery(), probe).is_disputed


@pytest.mark.parametrize(
    "damage",
    [
        "vector = zeroblob(length(vector))",
        "vector = substr(vector, 1, 61)",
        "cohort_similarity = 0.9",
        "crc32 = crc32 + 1",
    ],
)
def test_a_damaged_one_is_set_aside(
    open_gallery: Opening,
    gallery: EmbeddedGallery,
    folder: Path,
    faces: Any,
    see: See,
    caplog: pytest.LogCaptureFixture,
    damage: str,
) -> None:
    person = faces.enrol(gallery, 1).person
    probe = faces.embedding(1, 0.3)
    reject(gallery, person, see(probe, person))
    gallery.close()
    with sqlite3.connect(folder / DATABASE_NAME) as connection:
        assert connection.execute(f"UPDATE rejections SET {damage}").rowcount == 1
    connection.close()
    gallery = open_gallery()
    assert "rejection 1 of person 1 is damaged" in caplog.text
    assert best(gallery, probe).nearest_negative is None
    gallery.undo_rejection(person.list_id, person.person_id, "sighting 0")  # it can still be taken back
    assert rejected(gallery, person) == []


# --- erasing ---


def test_what_is_taken_back_is_gone(
    gallery: EmbeddedGallery, faces: Any, see: See, history: History, folder: Path, clock: Any
) -> None:
    person = faces.enrol(gallery, 1).person
    probe = faces.embedding(1, 0.3)
    reject(gallery, person, see(probe, person))
    history.prune(days=1, picture_bytes=0)
    assert history.page().sightings == ()
    gallery.flush()
    assert probe.vector.tobytes() in everything_in(folder), "the rejection does not need the history any more"
    assert best(gallery, probe).is_disputed
    gallery.undo_rejection(person.list_id, person.person_id, "sighting 0")
    assert probe.vector.tobytes()[:64] not in everything_in(folder)
    assert best(gallery, probe).nearest_negative is None


@pytest.mark.parametrize("is_pruned", [False, True])
def test_nothing_of_it_is_left_of_an_erased_person(
    gallery: EmbeddedGallery, faces: Any, see: See, history: History, folder: Path, is_pruned: bool
) -> None:
    person = faces.enrol(gallery, 1).person
    probes = [faces.embedding(1, 0.3), faces.embedding(2), faces.embedding(3)]
    reject(gallery, person, see(probes[0], person))
    see(probes[1], person)
    reject(gallery, person, see(probes[2], None))
    if is_pruned:
        history.prune(days=1, picture_bytes=0)
    gallery.delete_persons(person.list_id, [person.person_id])
    left = everything_in(folder)
    assert [probe.vector.tobytes()[:64] in left for probe in probes] == [False, False, not is_pruned]
    assert gallery.database.read().execute("SELECT count(*) FROM rejections").fetchone() == (0,)


def test_whose_sighting_it_was_takes_it_with_them(gallery: EmbeddedGallery, faces: Any, see: See, folder: Path) -> None:
    """Their face is not left behind as somebody else's exception."""
    person, seen = faces.enrol(gallery, 1).person, faces.enrol(gallery, 2).person
    reject(gallery, person, see(faces.embedding(2, 0.3), seen))
    gallery.delete_persons(seen.list_id, [seen.person_id])
    assert faces.embedding(2, 0.3).vector.tobytes()[:64] not in everything_in(folder)
    assert rejected(gallery, person) == []


def test_a_person_whose_sightings_were_pruned_is_erased_by_writing_the_database_anew(
    gallery: EmbeddedGallery, faces: Any, see: See, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite may have left copies of the pruned rows, and nobody knows any more what to look for."""
    pruned, other = faces.enrol(gallery, 1).person, faces.enrol(gallery, 2).person
    see(faces.embedding(1, 0.3), pruned)
    history.prune(days=1, picture_bytes=0)
    vacuumed: list[bool] = []
    monkeypatch.setattr(gallery.database, "_vacuum", lambda: vacuumed.append(True))
    gallery.delete_persons(other.list_id, [other.person_id])
    assert vacuumed == []
    gallery.delete_persons(pruned.list_id, [pruned.person_id])
    assert vacuumed == [True]


@pytest.mark.parametrize("is_rejected", [False, True])
def test_a_copy_of_a_vector_that_sqlite_left_behind_is_looked_for(
    gallery: EmbeddedGallery, faces: Any, see: See, monkeypatch: pytest.MonkeyPatch, is_rejected: bool
) -> None:
    person, other = faces.enrol(gallery, 1).person, faces.enrol(gallery, 2).person
    probe = faces.embedding(1, 0.3)
    sighting = see(probe, None if is_rejected else person)
    if is_rejected:
        reject(gallery, person, sighting)
    with gallery.database.write() as transaction:
        stray = {"bytes": probe.vector.tobytes()}
        transaction.execute("INSERT INTO meta (key, value) VALUES ('stray', :bytes)", stray)
    vacuumed: list[bool] = []
    monkeypatch.setattr(gallery.database, "_vacuum", lambda: vacuumed.append(True))
    gallery.delete_persons(other.list_id, [other.person_id])
    assert vacuumed == []
    gallery.delete_persons(person.list_id, [person.person_id])
    assert vacuumed == [True]


@pytest.mark.parametrize("is_pruned", [False, True])
def test_what_is_taken_back_is_looked_for_as_soon_as_only_copies_can_be_left(
    gallery: EmbeddedGallery, faces: Any, see: See, history: History, monkeypatch: pytest.MonkeyPatch, is_pruned: bool
) -> None:
    person = faces.enrol(gallery, 1).person
    probe = faces.embedding(1, 0.3)
    reject(gallery, person, see(probe, None))
    with gallery.database.write() as transaction:
        stray = {"bytes": probe.vector.tobytes()}
        transaction.execute("INSERT INTO meta (key, value) VALUES ('stray', :bytes)", stray)
    if is_pruned:
        history.prune(days=1, picture_bytes=0)
    vacuumed: list[bool] = []
    monkeypatch.setattr(gallery.database, "_vacuum", lambda: vacuumed.append(True))
    gallery.undo_rejection(person.list_id, person.person_id, "sighting 0")
    assert vacuumed == [True] * is_pruned, "while the sighting is there, its bytes are"
    gallery.delete_persons(person.list_id, [person.person_id])
    assert vacuumed == [True]


def test_a_list_without_persons_takes_the_vectors_of_its_sightings_with_it(
    gallery: EmbeddedGallery, faces: Any, history: History, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    list_id = gallery.create_list("strangers").list_id
    probe = faces.embedding(1)
    history.record(
        Sighting("id", 1, list_id, None, None, Verdict.REJECT, None, None, 0.7, None, embedding=probe, pack_id="pack-1")
    )
    assert history.flush()
    gallery.flush()
    assert probe.vector.tobytes() in everything_in(folder)
    vacuumed: list[bool] = []
    vacuum = gallery.database._vacuum
    monkeypatch.setattr(gallery.database, "_vacuum", lambda: (vacuumed.append(True), vacuum()))
    gallery.delete_list(list_id)
    assert vacuumed == [True], "they are too many to look for"
    assert probe.vector.tobytes()[:64] not in everything_in(folder)


# --- two persons who turn out to be one ---


def test_a_fused_person_s_rejections_become_the_other_s(gallery: EmbeddedGallery, faces: Any, see: See) -> None:
    one, other = faces.enrol(gallery, 1).person, faces.enrol(gallery, 2).person
    mine, theirs = see(faces.embedding(1, 0.3), one), see(faces.embedding(2, 0.3), other)
    both = see(faces.embedding(3), None)
    for person, sighting in ((one, mine), (other, theirs), (one, both), (other, both)):
        reject(gallery, person, sighting)
    gallery.add_templates(one.list_id, one.person_id, [], replace_person_id=other.person_id)
    assert sorted(rejected(gallery, one)) == sorted([mine, theirs, both])
    assert best(gallery, faces.embedding(2, 0.3)).is_disputed


def test_a_fusion_that_says_the_opposite_comes_first(gallery: EmbeddedGallery, faces: Any, see: See) -> None:
    """A face was said not to be one person, became another, and now the two are one: so it was."""
    one, other = faces.enrol(gallery, 1).person, faces.enrol(gallery, 2).person
    reject(gallery, one, see(faces.embedding(2, 0.1), one))
    reject(gallery, other, see(faces.embedding(1, 0.1), other))
    gallery.add_templates(one.list_id, one.person_id, [], replace_person_id=other.person_id)
    assert rejected(gallery, one) == []
    assert not best(gallery, faces.embedding(2, 0.1)).is_disputed


def test_fused_rejections_keep_to_the_limit(faces: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rejections, "REJECTIONS_PER_PERSON", 3)
    made = [rejections.Negative(str(n), None, faces.pack, faces.embedding(n), created_ms=n) for n in range(5)]
    kept = rejections.fused((made[::2], []), (made[1::2], []), faces.weight)
    assert [one.sighting_id for one in kept] == ["2", "3", "4"]


# --- a database of before ---


def test_a_sighting_of_an_earlier_release_says_why_it_cannot_be_rejected(
    open_gallery: Opening, folder: Path, faces: Any
) -> None:
    folder.mkdir()
    with sqlite3.connect(folder / DATABASE_NAME) as connection:
        for migration in MIGRATIONS[:2]:
            migration(connection)
        connection.execute("PRAGMA user_version = 2")
        connection.execute("INSERT INTO lists (list_id, name, created_ms, is_main) VALUES ('main', 'main', 0, 1)")
        connection.execute(
            "INSERT INTO sightings (sighting_id, time_ms, list, verdict, threshold, reasons)"
            " VALUES ('old', 1, 1, 'reject', 0.7, '[]')"
        )
    connection.close()
    gallery = open_gallery()
    person = faces.enrol(gallery, 1).person
    with pytest.raises(Conflict, match="kept no vectors"):
        reject(gallery, person, "old")
