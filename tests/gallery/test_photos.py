"""Photos one by one, strangers who get a name, persons found by words: on a real file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.errors import Conflict, ItemNotFound
from edge.events import Listeners, SightingRecorded
from edge.gallery.history import History
from edge.gallery.store import EmbeddedGallery
from edge.types import Box, Embedding, Sighting, Verdict


def everything_in(folder: Path) -> bytes:
    """The bytes of every file."""
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def seen(
    list_id: str, number: int, embedding: Embedding, person_id: str | None = None, picture: bytes | None = None
) -> Sighting:
    return Sighting(
        sighting_id=f"0000{number:04d}-0000-1000-8000-000000000000",
        time_ms=1_700_000_000_000 + number,
        list_id=list_id,
        source_id=None,
        group_id=None,
        verdict=Verdict.MATCH if person_id else Verdict.REJECT,
        person_id=person_id,
        score=None,
        threshold=0.7,
        box=Box(0, 0, 100, 100),
        picture=picture,
        embedding=embedding,
        pack_id="pack-1",
    )


def kept(gallery: EmbeddedGallery, clock: Any, *sightings: Sighting) -> list[str]:
    history = History(gallery.database, gallery.pictures, clock=clock)
    for one in sightings:
        history.record(one)
    assert history.flush()
    history.close()
    return [one.sighting_id for one in sightings]


def found(gallery: EmbeddedGallery, embedding: Embedding) -> str:
    return gallery.identify(gallery.main_list_id, embedding, 1)[0].person.person_id


def left_of(vectors: list[Embedding], folder: Path) -> list[int]:
    content = everything_in(folder)
    return [number for number, one in enumerate(vectors) if one.vector.tobytes() in content]


def test_a_photo_goes_with_its_picture_and_its_bytes_and_the_portrait_changes(
    gallery: EmbeddedGallery, faces: Any, folder: Path, picture_files: Callable[[], list[str]]
) -> None:
    person = faces.enrol(gallery, 1, b"first picture", fields=["Ann"]).person
    more = [faces.template(faces.embedding(1, 0.5), b"second picture"), faces.template(faces.embedding(2), None)]
    gallery.add_templates(gallery.main_list_id, person.person_id, more)
    photos = gallery.photos(gallery.main_list_id, person.person_id)
    assert [one.is_portrait for one in photos] == [True, False, False]
    after = gallery.delete_photo(gallery.main_list_id, person.person_id, photos[0].photo_id)
    assert after.picture == photos[1].template.picture
    assert left_of([faces.embedding(1), faces.embedding(1, 0.5), faces.embedding(2)], folder) == [1, 2]
    assert b"first picture" not in everything_in(folder)
    assert len(picture_files()) == 1
    assert found(gallery, faces.embedding(1, 0.5)) == person.person_id
    with pytest.raises(ItemNotFound):
        gallery.delete_photo(gallery.main_list_id, person.person_id, photos[0].photo_id)
    gallery.delete_photo(gallery.main_list_id, person.person_id, photos[1].photo_id)
    with pytest.raises(Conflict):
        gallery.delete_photo(gallery.main_list_id, person.person_id, photos[2].photo_id)


def test_a_split_off_person_takes_their_sightings_along_and_leaves_nothing_when_erased(
    gallery: EmbeddedGallery, faces: Any, folder: Path, clock: Any
) -> None:
    main = gallery.main_list_id
    person = faces.enrol(gallery, 1, b"picture of one", fields=["Ann"]).person
    gallery.add_templates(main, person.person_id, [faces.template(faces.embedding(2), b"picture of two")])
    theirs = [faces.embedding(2, 0.3), faces.embedding(1, 0.3)]
    ids = kept(gallery, clock, *(seen(main, n, one, person.person_id) for n, one in enumerate(theirs)))
    other = faces.enrol(gallery, 3).person
    gallery.reject(main, other.person_id, ids[0])
    _, second = gallery.photos(main, person.person_id)
    with pytest.raises(Conflict):
        gallery.split_person(
            main, person.person_id, [one.photo_id for one in gallery.photos(main, person.person_id)], ()
        )
    new = gallery.split_person(main, person.person_id, [second.photo_id], ["Eve"])
    assert (new.fields, new.picture) == (("Eve",), second.template.picture)
    assert found(gallery, faces.embedding(2)) == new.person_id
    assert found(gallery, faces.embedding(1)) == person.person_id
    owners = [one.sighting.person_id for one in gallery.faces(ids)]
    assert owners == [new.person_id, person.person_id]
    gallery.delete_persons(main, [new.person_id])
    gone = [faces.embedding(2), *theirs, faces.embedding(1)]
    assert left_of(gone, folder) == [2, 3]
    assert gallery.rejections(main, other.person_id).items == (), "it was of their face"
    assert b"picture of two" not in everything_in(folder)


def test_a_person_made_of_strangers_leaves_nothing_when_erased(
    gallery: EmbeddedGallery, faces: Any, folder: Path, clock: Any, picture_files: Callable[[], list[str]]
) -> None:
    main = gallery.main_list_id
    strangers = [faces.embedding(1), faces.embedding(1, 0.2), faces.embedding(2)]
    ids = kept(gallery, clock, *(seen(main, n, one, picture=b"face %d" % n) for n, one in enumerate(strangers)))
    assert [one.sighting.sighting_id for one in gallery.strangers(limit=2)] == ids[:0:-1], "the newest first"
    other = faces.enrol(gallery, 3).person
    gallery.reject(main, other.person_id, ids[0])
    templates = [faces.template(one, b"kept %d" % n) for n, one in enumerate(strangers[:2])]
    person = gallery.name_strangers(main, ids[:2], templates, fields=["Ann"])
    assert (person.fields, len(gallery.photos(main, person.person_id)), person.pose) == (("Ann",), 2, None)
    assert [one.sighting.sighting_id for one in gallery.strangers(limit=9)] == ids[2:]
    with pytest.raises(Conflict):
        gallery.name_strangers(main, ids[1:], [], fields=["Eve"])
    assert len(picture_files()) == 5
    gallery.delete_persons(main, [person.person_id])
    assert left_of(strangers, folder) == [2]
    assert gallery.rejections(main, other.person_id).items == ()
    content = everything_in(folder)
    assert [mark for mark in (b"kept 0", b"kept 1", b"face 0", b"face 1", b"Ann") if mark in content] == []
    assert len(picture_files()) == 1


def test_a_name_undoes_what_was_said_of_the_same_face_before(gallery: EmbeddedGallery, faces: Any, clock: Any) -> None:
    main = gallery.main_list_id
    person = faces.enrol(gallery, 1).person
    face = faces.embedding(1, 0.3)
    (id_,) = kept(gallery, clock, seen(main, 1, face))
    gallery.reject(main, person.person_id, id_)
    assert gallery.identify(main, face, 1)[0].is_disputed
    gallery.name_strangers(main, [id_], [faces.template(face)], person_id=person.person_id)
    assert gallery.rejections(main, person.person_id).items == ()
    (best,) = gallery.identify(main, face, 1)
    assert (best.person.person_id, best.is_disputed, best.nearest_negative) == (person.person_id, False, None)


def test_a_photo_whose_vector_a_sighting_has_goes_without_the_database_being_written_anew(
    gallery: EmbeddedGallery, faces: Any, clock: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = gallery.main_list_id
    strangers = [faces.embedding(1), faces.embedding(1, 0.5)]
    ids = kept(gallery, clock, *(seen(main, n, one) for n, one in enumerate(strangers)))
    person = gallery.name_strangers(main, ids, [faces.template(one) for one in strangers])
    written_anew: list[None] = []
    vacuum = gallery.database._vacuum
    monkeypatch.setattr(gallery.database, "_vacuum", lambda: (written_anew.append(None), vacuum()))
    first, _ = gallery.photos(main, person.person_id)
    gallery.delete_photo(main, person.person_id, first.photo_id)
    assert written_anew == []
    gallery.delete_persons(main, [person.person_id])
    assert left_of(strangers, folder) == []


def test_listeners_hear_of_a_sighting_once_it_is_on_disk_and_of_none_that_is_not(
    gallery: EmbeddedGallery, faces: Any, clock: Any
) -> None:
    heard: list[Any] = []
    history = History(gallery.database, gallery.pictures, clock=clock, listeners=Listeners(heard.append))
    first = seen(gallery.main_list_id, 1, faces.embedding(1), picture=b"face")
    history.record(first)
    history.record(seen(gallery.main_list_id, 2, faces.embedding(1), person_id="erased meanwhile"))
    assert history.flush()
    history.close()
    (event,) = heard
    assert isinstance(event, SightingRecorded)
    assert (event.sighting.sighting_id, event.sighting.picture) == (first.sighting_id, None)
    assert event.picture is not None
    assert gallery.picture(event.picture) == b"face"


def test_what_was_written_after_a_sighting_is_found_in_its_order(
    gallery: EmbeddedGallery, faces: Any, clock: Any
) -> None:
    main = gallery.main_list_id
    ids = kept(gallery, clock, *(seen(main, n, faces.embedding(n)) for n in range(5)))
    history = History(gallery.database, gallery.pictures, clock=clock)
    after = history.after(ids[1])
    assert after is not None
    assert [one.sighting.sighting_id for one in after] == ids[2:]
    assert history.after(ids[4]) == ()
    assert history.after(ids[0], source_id="no such door") == ()
    assert history.after("nobody") is None
    history.close()


def test_a_walk_over_every_person_finds_each_once(gallery: EmbeddedGallery, faces: Any) -> None:
    everybody = [faces.enrol(gallery, number, fields=[f"Müller {number}"]).person.person_id for number in range(7)]
    walked: list[str] = []
    cursor = None
    while True:
        page = gallery.find_persons("MÜLLER", None, cursor, 3)
        walked += [one.person_id for one in page.items]
        cursor = page.cursor
        if cursor is None:
            break
    assert walked == everybody
    assert [one.person_id for one in gallery.find_persons("ller 3").items] == [everybody[3]]
    assert np.all([gallery.find_person(one) is not None for one in everybody])
    assert gallery.find_person("nobody") is None
