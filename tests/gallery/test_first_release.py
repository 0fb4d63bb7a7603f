"""What the first release wrote, today's code reads: tests/fixtures/gallery-1.sqlite3, see make_gallery_1.py there."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edge.gallery.database import DATABASE_NAME
from edge.gallery.history import History
from edge.gallery.schema import MIGRATIONS
from edge.gallery.store import EmbeddedGallery
from edge.types import Embedding, Pose, unit

FIXTURE = Path(__file__).resolve().parent.parent / "fixtures" / "gallery-1.sqlite3"


def vector(number: int) -> np.ndarray:  # type: ignore[type-arg]
    return unit(np.random.default_rng(number).normal(size=32))


def test_the_first_release_s_database_is_opened_with_everything_in_it(
    open_gallery: Callable[..., EmbeddedGallery], folder: Path
) -> None:
    folder.mkdir()
    shutil.copy(FIXTURE, folder / DATABASE_NAME)
    with sqlite3.connect(folder / DATABASE_NAME) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    connection.close()

    gallery = open_gallery()
    version = gallery.database.read().execute("PRAGMA user_version").fetchone()
    assert version == (len(MIGRATIONS),)
    counts = gallery.counts()
    assert (counts.lists, counts.persons, counts.templates, counts.set_aside, counts.other_packs) == (3, 5, 6, 0, 0)

    by_name = {one.name: one for one in gallery.lists().items}
    assert {name: one.count for name, one in by_name.items()} == {"main": 3, "staff": 1, "guests": 1}
    assert by_name["main"].list_id == gallery.main_list_id
    (group,) = gallery.groups().items
    assert (group.name, [alert.on_found for alert in group.alerts]) == ("hall", [{"relay": 1}])
    (source,) = gallery.sources().items
    staff, main = by_name["staff"].list_id, by_name["main"].list_id
    assert (source.name, source.group_id, source.defaults.new_person_square_min) == ("door", group.group_id, 60)
    assert (source.person_list_add, source.person_list_search) == ((staff,), (staff, main))

    persons = {one.fields[0]: one for listed in by_name.values() for one in gallery.persons(listed.list_id).items}
    assert sorted(persons) == [f"person {number}" for number in range(1, 6)]
    second = persons["person 2"]
    assert (second.pose, second.score, second.source_id) == (Pose(1.5, -2.5, 3.5), 0.9, source.source_id)
    assert second.updated_ms - second.created_ms == 2
    held = {name: gallery.templates_of(one.person_id) for name, one in persons.items()}
    assert {name: len(templates) for name, templates in held.items()} == {
        "person 1": 1,
        "person 2": 2,
        "person 3": 1,
        "person 4": 1,
        "person 5": 1,
    }
    assert all(one.embedding.vector.tobytes() for templates in held.values() for one in templates)
    kept = [held["person 1"][0].embedding.vector, held["person 5"][0].embedding.vector]
    assert np.allclose(kept, [vector(1), vector(6)], atol=1e-7)
    found = gallery.identify(main, Embedding(vector(4), 0.5), 1)
    assert found[0].person.person_id == persons["person 3"].person_id

    history = History(gallery.database, gallery.pictures, clock=lambda: 1_700_000_000_000)
    sightings = history.page().sightings
    history.close()
    assert [one.sighting.person_id for one in sightings] == [second.person_id, persons["person 1"].person_id]
