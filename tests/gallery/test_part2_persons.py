"""Persons: read them page by page, change and move them, give them more templates."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.errors import Conflict, ItemNotFound, ListNotFound, PackMismatch
from edge.gallery.diversity import most_different
from edge.gallery.history import History
from edge.gallery.index import TEMPLATES_PER_PERSON, ListIndex
from edge.gallery.store import EmbeddedGallery
from edge.types import Embedding, Person, Sighting, Template, Verdict, unit

Opening = Callable[..., EmbeddedGallery]


def found_in(gallery: EmbeddedGallery, list_id: str, embedding: Embedding) -> str | None:
    """Who of the list the face is."""
    candidates = gallery.identify(list_id, embedding, 1)
    return candidates[0].person.person_id if candidates and candidates[0].similarity >= 0.3 else None


def served(gallery: EmbeddedGallery) -> int:
    """Templates in the main list's index."""
    number = gallery.database.read().execute("SELECT number FROM lists WHERE is_main").fetchone()[0]
    return len(gallery._indexes.of(number))


def sighting_of(person: Person, sighting_id: str = "seen") -> Sighting:
    return Sighting(sighting_id, 1, person.list_id, None, None, Verdict.MATCH, person.person_id, 0.9, 0.7, None)


# --- reading ---


def test_persons_are_paged_in_the_order_in_which_they_were_added(gallery: EmbeddedGallery, faces: Any) -> None:
    ids = [faces.enrol(gallery, seed, fields=[str(seed)]).person.person_id for seed in range(5)]
    gallery.create_list("other")
    seen: list[Person] = []
    cursor = None
    while True:
        page = gallery.persons(gallery.main_list_id, cursor, 2)
        seen += page.items
        cursor = page.cursor
        if cursor is None:
            break
    assert [person.person_id for person in seen] == ids
    assert seen == [gallery.person(gallery.main_list_id, one) for one in ids]


def test_a_page_of_another_list_is_empty(gallery: EmbeddedGallery, faces: Any) -> None:
    faces.enrol(gallery, 1)
    other = gallery.create_list("other").list_id
    assert gallery.persons(other).items == ()
    with pytest.raises(ListNotFound):
        gallery.persons("nothing")


def test_the_templates_of_a_person_are_told(gallery: EmbeddedGallery, faces: Any, clock: Any) -> None:
    person = faces.enrol(gallery, 1, b"picture").person
    [template] = gallery.templates_of(person.person_id)
    assert template.embedding.vector.tolist() == faces.embedding(1).vector.tolist()
    assert template.embedding.cohort_similarity == 0.5
    assert (template.pack_id, template.quality, template.created_ms) == (faces.pack, 0.5, clock())
    assert template.picture == person.picture
    assert gallery.templates_of("nobody") == ()


def test_a_damaged_template_is_not_told(gallery: EmbeddedGallery, faces: Any) -> None:
    person = faces.enrol(gallery, 1).person
    gallery.add_templates(gallery.main_list_id, person.person_id, [faces.template(faces.embedding(2))])
    with gallery.database.write() as transaction:
        transaction.execute("UPDATE templates SET crc32 = crc32 + 1 WHERE id = 1")
    [left] = gallery.templates_of(person.person_id)
    assert left.embedding.vector.tolist() == faces.embedding(2).vector.tolist()


# --- changing ---


def test_fields_take_the_place_of_all_there_were(gallery: EmbeddedGallery, faces: Any, clock: Any) -> None:
    person = faces.enrol(gallery, 1, fields=["a", "b"]).person
    clock.now_ms += 1000
    changed = gallery.update_person(gallery.main_list_id, person.person_id, fields=["c"])
    assert changed == replace(person, fields=("c",), updated_ms=clock())
    assert gallery.person(gallery.main_list_id, person.person_id) == changed
    assert gallery.update_person(gallery.main_list_id, person.person_id, fields=[]).fields == ()
    assert faces.best(gallery, 1) == person.person_id


def test_an_update_is_later_than_the_creation_even_if_the_clock_is_not(
    gallery: EmbeddedGallery, faces: Any, clock: Any
) -> None:
    person = faces.enrol(gallery, 1).person
    clock.now_ms -= 10**9
    assert gallery.update_person(gallery.main_list_id, person.person_id, fields=["x"]).updated_ms > person.created_ms


def test_a_dropped_picture_is_gone_and_the_face_still_known(
    gallery: EmbeddedGallery, faces: Any, folder: Path, picture_files: Callable[[], list[str]]
) -> None:
    person = faces.enrol(gallery, 1, b"first picture").person
    more = faces.template(faces.embedding(2), b"second picture")
    gallery.add_templates(gallery.main_list_id, person.person_id, [more])
    names = [template.picture.encode() for template in gallery.templates_of(person.person_id) if template.picture]
    assert len(names) == len(picture_files()) == 2
    changed = gallery.update_person(gallery.main_list_id, person.person_id, drop_picture=True)
    assert (changed.picture, picture_files()) == (None, [])
    files = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert [name for name in names if name in files] == []
    assert faces.best(gallery, 1) == faces.best(gallery, 2) == person.person_id


def test_a_person_moves_with_their_templates(open_gallery: Opening, faces: Any) -> None:
    gallery = open_gallery()
    main, other = gallery.main_list_id, gallery.create_list("other").list_id
    moving, staying = faces.enrol(gallery, 1, b"picture").person, faces.enrol(gallery, 2).person
    changed = gallery.update_person(main, moving.person_id, new_list_id=other, fields=["moved"])
    assert (changed.list_id, changed.fields, changed.picture) == (other, ("moved",), moving.picture)
    for _ in range(2):  # the indexes have followed, and so have the rows that they are loaded from
        assert found_in(gallery, other, faces.embedding(1)) == moving.person_id
        assert found_in(gallery, main, faces.embedding(1)) is None
        assert found_in(gallery, main, faces.embedding(2)) == staying.person_id
        assert (gallery.list_size(main), gallery.list_size(other)) == (1, 1)
        with pytest.raises(ItemNotFound):
            gallery.person(main, moving.person_id)
        gallery.close()
        gallery = open_gallery()
    gallery.update_person(other, moving.person_id, new_list_id=main)
    assert found_in(gallery, main, faces.embedding(1)) == moving.person_id
    assert gallery.update_person(main, moving.person_id, new_list_id=main).list_id == main


def test_a_person_moves_there_and_back_between_graphs(open_gallery: Opening, faces: Any) -> None:
    """The graph has removed labels in it: they must be found again."""
    gallery = open_gallery(exact_limit=10)
    main, other = gallery.main_list_id, gallery.create_list("other").list_id
    ids = [faces.enrol(gallery, seed).person.person_id for seed in range(40)]
    number = gallery.database.read().execute("SELECT number FROM lists WHERE is_main").fetchone()[0]
    index = gallery._indexes.of(number)
    index.wait_until_built(10)
    assert index.has_graph
    for _ in range(3):
        gallery.update_person(main, ids[7], new_list_id=other)
        assert found_in(gallery, main, faces.embedding(7)) is None
        gallery.update_person(other, ids[7], new_list_id=main)
        assert found_in(gallery, main, faces.embedding(7)) == ids[7]
    assert index._graph is not None
    assert index._graph.removed == 0
    assert [found_in(gallery, main, faces.embedding(seed)) for seed in range(40)] == ids


def test_a_person_who_moves_is_never_in_neither_list(gallery: EmbeddedGallery, faces: Any) -> None:
    main, other = gallery.main_list_id, gallery.create_list("other").list_id
    person_id = faces.enrol(gallery, 1).person.person_id
    missed: list[int] = []
    over = threading.Event()

    def search() -> None:
        while not over.is_set():
            found = gallery.identify_in_lists([main, other], faces.embedding(1), 2)
            if [one.person.person_id for one in found] != [person_id]:
                missed.append(len(found))

    searching = [threading.Thread(target=search) for _ in range(2)]
    for thread in searching:
        thread.start()
    for _ in range(40):
        gallery.update_person(main, person_id, new_list_id=other)
        gallery.update_person(other, person_id, new_list_id=main)
    over.set()
    for thread in searching:
        thread.join()
    assert missed == []


def test_who_slips_past_a_search_is_searched_for_again(
    gallery: EmbeddedGallery, faces: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    main, other = gallery.main_list_id, gallery.create_list("other").list_id
    person_id = faces.enrol(gallery, 1).person.person_id
    gallery.update_person(main, person_id, new_list_id=other)
    search, searches = ListIndex.search, []

    def searching(index: ListIndex, *probe: Any) -> Any:
        found = search(index, *probe)
        searches.append(found)
        if len(searches) == 1:  # the main list has been searched, the other one not yet
            gallery.update_person(other, person_id, new_list_id=main)
        return found

    monkeypatch.setattr(ListIndex, "search", searching)
    [found] = gallery.identify_in_lists([main, other], faces.embedding(1), 1)
    assert found.person.person_id == person_id
    assert searches[0] == []


def test_what_is_not_there_cannot_be_changed(gallery: EmbeddedGallery, faces: Any) -> None:
    main, other = gallery.main_list_id, gallery.create_list("other").list_id
    person = faces.enrol(gallery, 1).person
    with pytest.raises(ListNotFound) as refusal:
        gallery.update_person(main, person.person_id, fields=["x"], new_list_id="nothing")
    assert refusal.value.mistakes[0].field == "new_list_id"
    with pytest.raises(ListNotFound):
        gallery.update_person("nothing", person.person_id, fields=["x"])
    with pytest.raises(ItemNotFound):
        gallery.update_person(other, person.person_id, fields=["x"])
    assert gallery.person(main, person.person_id) == person


# --- more templates ---


def test_a_person_is_matched_by_the_best_of_their_templates(open_gallery: Opening, faces: Any, clock: Any) -> None:
    gallery = open_gallery()
    person = faces.enrol(gallery, 1, b"one", fields=["a"]).person
    faces.enrol(gallery, 3)
    clock.now_ms += 5
    better = replace(faces.template(faces.embedding(2), b"two"), quality=0.9)
    changed = gallery.add_templates(gallery.main_list_id, person.person_id, [better])
    assert changed == replace(person, updated_ms=clock(), picture=changed.picture)
    assert changed.picture != person.picture  # the better one's
    for _ in range(2):
        assert faces.best(gallery, 1) == faces.best(gallery, 2) == person.person_id
        assert gallery.list_size(gallery.main_list_id) == 2
        assert [one.quality for one in gallery.templates_of(person.person_id)] == [0.9, 0.5]
        gallery.close()
        gallery = open_gallery()


def test_the_same_vector_is_not_kept_twice(
    gallery: EmbeddedGallery, faces: Any, picture_files: Callable[[], list[str]]
) -> None:
    person = faces.enrol(gallery, 1, b"one").person
    again = [faces.template(faces.embedding(2), b"two") for _ in range(2)]
    for _ in range(2):
        gallery.add_templates(gallery.main_list_id, person.person_id, again)
        assert len(gallery.templates_of(person.person_id)) == gallery.counts().templates == 2
        assert len(picture_files()) == 2


def test_of_too_many_templates_the_most_different_stay(
    gallery: EmbeddedGallery, faces: Any, picture_files: Callable[[], list[str]]
) -> None:
    person = faces.enrol(gallery, 1, b"one").person
    near = [faces.template(faces.embedding(1, noise), b"near") for noise in np.linspace(0.001, 0.01, 15)]
    gallery.add_templates(gallery.main_list_id, person.person_id, near)
    assert len(gallery.templates_of(person.person_id)) == 16
    far = [faces.template(faces.embedding(seed), b"far") for seed in range(100, 116)]
    gallery.add_templates(gallery.main_list_id, person.person_id, far)
    kept = {one.embedding.vector.tobytes() for one in gallery.templates_of(person.person_id)}
    assert len(kept) == TEMPLATES_PER_PERSON == gallery.counts().templates == len(picture_files()) == 20
    assert {one.embedding.vector.tobytes() for one in far} < kept
    assert {faces.best(gallery, seed) for seed in range(100, 116)} == {person.person_id}
    assert served(gallery) == 20


def test_two_persons_who_are_one_become_one(
    open_gallery: Opening, faces: Any, clock: Any, picture_files: Callable[[], list[str]]
) -> None:
    gallery = open_gallery()
    main = gallery.main_list_id
    stays, goes = faces.enrol(gallery, 1, b"one", fields=["a"]).person, faces.enrol(gallery, 2, b"two").person
    history = History(gallery.database, gallery.pictures, clock=clock)
    history.record(replace(sighting_of(goes), picture=b"seen"))
    assert history.flush()
    new = faces.template(faces.embedding(3), b"three")
    record = gallery.add_templates(main, stays.person_id, [new], replace_person_id=goes.person_id)
    assert (record.person_id, record.fields) == (stays.person_id, ("a",))
    [seen] = history.page(person_id=stays.person_id).sightings
    assert seen.sighting.sighting_id == "seen"
    assert gallery.picture(seen.picture or "") == b"seen"
    history.close()
    for _ in range(2):
        assert {faces.best(gallery, seed) for seed in (1, 2, 3)} == {stays.person_id}
        assert sorted(filter(None, map(gallery.picture, names_of(gallery, stays)))) == [b"one", b"three", b"two"]
        assert len(picture_files()) == 4
        assert (gallery.counts().persons, gallery.counts().templates, gallery.counts().set_aside) == (1, 3, 0)
        assert served(gallery) == 3
        with pytest.raises(ItemNotFound):
            gallery.person(main, goes.person_id)
        gallery.close()
        gallery = open_gallery()


def names_of(gallery: EmbeddedGallery, person: Person) -> list[str]:
    return [one.picture for one in gallery.templates_of(person.person_id) if one.picture is not None]


def test_nothing_is_left_of_a_person_who_became_another(gallery: EmbeddedGallery, faces: Any, folder: Path) -> None:
    main = gallery.main_list_id
    stays, goes = faces.enrol(gallery, 1).person, faces.enrol(gallery, 2, b"two", fields=["Secret"]).person
    same_as_first = faces.template(faces.embedding(1, 1e-9))
    gallery.add_templates(main, stays.person_id, [same_as_first], replace_person_id=goes.person_id, fields=["b"])
    files = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert [mark for mark in (goes.person_id.encode(), b"Secret") if mark in files] == []
    assert faces.embedding(2).vector.tobytes() in files  # theirs now


def test_templates_of_another_pack_move_along(open_gallery: Opening, faces: Any) -> None:
    gallery = open_gallery(pack_id="old")
    old = [replace(faces.template(faces.embedding(seed)), pack_id="old") for seed in (1, 2)]
    ids = []
    for template in old:
        probe = replace(faces.probe(1), embedding=template.embedding, template=template)
        [outcome] = gallery.identify_or_enrol(gallery.main_list_id, [probe], faces.known_or_new)  # type: ignore[misc]
        ids.append(outcome.person.person_id)
    gallery.close()
    gallery = open_gallery()
    assert gallery.counts().other_packs == 2
    new = faces.template(faces.embedding(3))
    gallery.add_templates(gallery.main_list_id, ids[0], [new], replace_person_id=ids[1])
    assert sorted(one.pack_id for one in gallery.templates_of(ids[0])) == ["old", "old", faces.pack]
    assert gallery.counts().other_packs == 2
    assert faces.best(gallery, 3) == ids[0]
    gallery.delete_persons(gallery.main_list_id, [ids[0]])
    assert gallery.counts().other_packs == 0


def test_a_refused_fusion_changes_nothing(
    gallery: EmbeddedGallery, faces: Any, picture_files: Callable[[], list[str]]
) -> None:
    main, other = gallery.main_list_id, gallery.create_list("other").list_id
    person = faces.enrol(gallery, 1, b"one").person
    new = faces.template(faces.embedding(2), b"two")
    refused: list[tuple[type[Exception], Callable[[], Any]]] = [
        (Conflict, lambda: gallery.add_templates(main, person.person_id, [new], replace_person_id=person.person_id)),
        (ItemNotFound, lambda: gallery.add_templates(main, person.person_id, [new], replace_person_id="nobody")),
        (ItemNotFound, lambda: gallery.add_templates(other, person.person_id, [new])),
        (ListNotFound, lambda: gallery.add_templates("nothing", person.person_id, [new])),
        (PackMismatch, lambda: gallery.add_templates(main, person.person_id, [replace(new, pack_id="x")])),
        (PackMismatch, lambda: gallery.add_templates(main, person.person_id, [short(new)])),
    ]
    for reason, call in refused:
        with pytest.raises(reason):
            call()
    assert gallery.person(main, person.person_id) == person
    assert len(gallery.templates_of(person.person_id)) == len(picture_files()) == 1


def short(template: Template) -> Template:
    return replace(template, embedding=Embedding(unit(np.ones(3)), 0.0))


def test_adding_at_once_from_several_threads_loses_nothing_and_keeps_the_limit(
    gallery: EmbeddedGallery, faces: Any, picture_files: Callable[[], list[str]]
) -> None:
    person_id = faces.enrol(gallery, 0, b"p").person.person_id

    def add(first: int) -> None:
        for seed in range(first, first + 6):
            gallery.add_templates(gallery.main_list_id, person_id, [faces.template(faces.embedding(seed), b"p")])

    threads = [threading.Thread(target=add, args=(first,)) for first in range(1, 31, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = gallery.templates_of(person_id)
    assert len(kept) == gallery.counts().templates == served(gallery) == len(picture_files()) == 20
    for template in kept:
        assert found_in(gallery, gallery.main_list_id, template.embedding) == person_id


@pytest.mark.parametrize("action", ["add_templates", "update_person"])
def test_who_is_erased_while_a_change_waits_is_not_changed(gallery: EmbeddedGallery, faces: Any, action: str) -> None:
    main, person_id = gallery.main_list_id, faces.enrol(gallery, 1).person.person_id
    changes: dict[str, Callable[[], Any]] = {
        "add_templates": lambda: gallery.add_templates(main, person_id, [faces.template(faces.embedding(2))]),
        "update_person": lambda: gallery.update_person(main, person_id, fields=["x"]),
    }
    ended: list[str] = []

    def change() -> None:
        try:
            changes[action]()
            ended.append("changed")
        except ItemNotFound:
            ended.append("refused")

    waiting = threading.Thread(target=change)
    with gallery._lock:
        waiting.start()
        waiting.join(0.3)
        gallery.delete_persons(main, [person_id])
    waiting.join()
    assert ended == ["refused"]
    assert gallery.counts().templates == 0


# --- the rule ---


def test_the_choice_begins_with_the_best_and_goes_on_with_the_farthest() -> None:
    angles = np.radians([0, 10, 20, 80, 95, 180])
    vectors = [np.array([np.cos(a), np.sin(a)], np.float32) for a in angles]
    qualities = [0.1, 0.9, 0.1, 0.1, 0.1, 0.1]
    assert most_different(vectors, qualities, 1) == [1]
    assert most_different(vectors, qualities, 3) == [1, 5, 4]  # 180 degrees, then 95: 85 from either
    assert sorted(most_different(vectors, qualities, 6)) == [0, 1, 2, 3, 4, 5]
    assert most_different([], [], 20) == []


def test_of_equals_the_better_then_the_earlier_stays() -> None:
    vectors = [np.array(v, np.float32) for v in ([1, 0], [0, 1], [0, -1], [0, 1], [1, 0])]
    assert most_different(vectors, [0.5, 0.1, 0.2, 0.3, 0.5], 20) == [0, 3, 2]
    assert most_different(vectors, [0.5, 0.2, 0.2, 0.2, 0.5], 20) == [0, 1, 2]


def test_a_copy_that_differs_in_the_last_bits_does_not_take_the_place_of_what_is_there() -> None:
    kept, other = np.eye(8, dtype=np.float32)[:2]
    copy = (other + np.float32(-3e-8) * kept).astype(np.float32)
    assert copy @ kept < other @ kept, "a little farther, by how it was computed"
    assert most_different([kept, other, copy], [1.0, 0.5, 0.5], 3) == [0, 1]
