"""Lists, source groups and sources: page, change, delete, and what goes with them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge.errors import Conflict, InvalidSchema, ItemNotFound, ListNotFound
from edge.gallery.database import Database
from edge.gallery.schema import first_tables
from edge.gallery.store import EmbeddedGallery
from edge.types import FeatureBound, ListAlert, SourceDefaults

Opening = Callable[..., EmbeddedGallery]


def walked(page: Callable[..., Any], limit: int, **more: Any) -> list[Any]:
    """All items, page by page."""
    items: list[Any] = []
    found = page(limit=limit, **more)
    while True:
        items += found.items
        assert len(found.items) <= limit
        if found.cursor is None:
            return items
        assert len(found.items) == limit
        found = page(cursor=found.cursor, limit=limit, **more)


# --- lists ---


def test_lists_come_in_the_order_in_which_they_were_made(gallery: EmbeddedGallery, faces: Any) -> None:
    made = [gallery.create_list(f"list {number}").list_id for number in range(7)]
    faces.enrol(gallery, 1)
    for limit in (1, 3, 4, 8, 100):
        found = walked(gallery.lists, limit)
        assert [one.list_id for one in found] == [gallery.main_list_id, *made]
    assert (found[0].is_main, found[0].count, found[0].name) == (True, 1, "main")


def test_a_page_ends_exactly_where_the_lists_do(gallery: EmbeddedGallery) -> None:
    gallery.create_list("second")
    assert gallery.lists(limit=2).cursor is None
    assert gallery.lists(limit=1).cursor is not None


@pytest.mark.parametrize("cursor", ["", "x", "-1", "1.5", "9" * 19, "٣", " 1"])
def test_a_cursor_that_no_page_gave_is_refused(gallery: EmbeddedGallery, cursor: str) -> None:
    for page in (gallery.lists, gallery.groups, gallery.sources):
        with pytest.raises(InvalidSchema) as refusal:
            page(cursor=cursor)
        assert refusal.value.mistakes[0].field == "cursor"
    with pytest.raises(InvalidSchema):
        gallery.persons(gallery.main_list_id, cursor)


@pytest.mark.parametrize(("limit", "expected"), [(0, 1), (-5, 1), (1, 1), (10**9, 3)])
def test_a_limit_is_brought_into_its_range(gallery: EmbeddedGallery, limit: int, expected: int) -> None:
    gallery.create_list("second")
    gallery.create_list("third")
    assert len(gallery.lists(limit=limit).items) == expected


def test_no_page_is_longer_than_the_limit_of_all(gallery: EmbeddedGallery) -> None:
    with gallery.database.write() as transaction:
        transaction.executemany(
            "INSERT INTO lists (list_id, name, created_ms) VALUES (?, ?, 0)", [(f"i{n}", f"n{n}") for n in range(1200)]
        )
    assert len(gallery.lists(limit=5000).items) == 1000
    assert len(walked(gallery.lists, 1000)) == 1201


def test_a_list_is_renamed(open_gallery: Opening) -> None:
    gallery = open_gallery()
    made = gallery.create_list("before")
    assert gallery.rename_list(made.list_id, "after") == replace(made, name="after")
    assert gallery.rename_list(made.list_id, "after").name == "after"  # its own name is not taken
    gallery.close()
    assert open_gallery().find_list(made.list_id) == replace(made, name="after")


def test_a_list_cannot_have_anothers_name(gallery: EmbeddedGallery) -> None:
    made = gallery.create_list("one")
    gallery.create_list("two")
    with pytest.raises(Conflict) as refusal:
        gallery.rename_list(made.list_id, "two")
    assert refusal.value.mistakes[0].field == "name"
    assert gallery.find_list(made.list_id) == made


def test_the_main_list_can_be_neither_renamed_nor_deleted(gallery: EmbeddedGallery, faces: Any) -> None:
    person_id = faces.enrol(gallery, 1).person.person_id
    for refused in (
        lambda: gallery.rename_list(gallery.main_list_id, "x"),
        lambda: gallery.delete_list(gallery.main_list_id),
    ):
        with pytest.raises(Conflict) as refusal:
            refused()
        assert "main list" in refusal.value.mistakes[0].reason
    assert gallery.list_size(gallery.main_list_id) == 1
    assert faces.best(gallery, 1) == person_id


def test_an_unknown_list_can_be_neither_renamed_nor_deleted(gallery: EmbeddedGallery) -> None:
    with pytest.raises(ListNotFound):
        gallery.rename_list("nothing", "x")
    with pytest.raises(ListNotFound):
        gallery.delete_list("nothing")


def test_a_deleted_list_leaves_groups_and_sources(open_gallery: Opening) -> None:
    gallery = open_gallery()
    gone, kept = gallery.create_list("gone").list_id, gallery.create_list("kept").list_id
    group = gallery.create_group("floor", (ListAlert(kept, "a"), ListAlert(gone, "b"), ListAlert(kept, "c")))
    source = gallery.create_source("door", person_list_add=(gone,), person_list_search=(gone, kept, gone))
    assert gallery.delete_list(gone) == 0
    assert gallery.find_list(gone) is None
    assert gallery.group(group.group_id) == replace(group, alerts=(ListAlert(kept, "a"), ListAlert(kept, "c")))
    assert gallery.source(source.source_id) == replace(source, person_list_add=(), person_list_search=(kept,))
    assert gallery.counts().lists == 2
    assert gallery.create_list("gone").list_id != gone  # the name is free again


def test_the_lists_of_sources_survive_the_migration(folder: Path, open_gallery: Opening) -> None:
    database = Database(folder, migrations=(first_tables,))
    with database.write() as transaction:
        for number, list_id in enumerate("abc"):
            row = (list_id, list_id, int(number == 0))
            transaction.execute("INSERT INTO lists (list_id, name, created_ms, is_main) VALUES (?, ?, 0, ?)", row)
        transaction.execute(
            "INSERT INTO sources (source_id, name, created_ms, defaults, person_list_add, person_list_search)"
            " VALUES ('s', 'door', 5, '{}', '[\"b\"]', '[\"c\", \"unknown\", \"a\", \"c\"]')"
        )
    database.close()
    source = open_gallery().source("s")
    assert source is not None
    assert (source.person_list_add, source.person_list_search) == (("b",), ("c", "a", "c"))


# --- groups ---


def test_groups_are_paged_with_their_alerts(gallery: EmbeddedGallery) -> None:
    made = [gallery.create_group(f"g{n}", (ListAlert(gallery.main_list_id, n),)) for n in range(5)]
    assert walked(gallery.groups, 2) == made


def test_a_group_changes_only_in_what_is_given(open_gallery: Opening) -> None:
    gallery = open_gallery()
    other = gallery.create_list("other").list_id
    group = gallery.create_group("floor", (ListAlert(gallery.main_list_id, "x"),))
    renamed = gallery.update_group(group.group_id, name="ceiling")
    assert renamed == replace(group, name="ceiling")
    alerts = (ListAlert(other, {"a": 1}), ListAlert(gallery.main_list_id, None, [2]))
    assert gallery.update_group(group.group_id, alerts=alerts) == replace(renamed, alerts=alerts)
    gallery.close()
    gallery = open_gallery()
    assert gallery.group(group.group_id) == replace(renamed, alerts=alerts)
    assert gallery.update_group(group.group_id, alerts=()).alerts == ()


def test_a_group_with_an_alert_on_an_unknown_list_stays_as_it_was(gallery: EmbeddedGallery) -> None:
    group = gallery.create_group("floor", (ListAlert(gallery.main_list_id),))
    with pytest.raises(ListNotFound):
        gallery.update_group(group.group_id, name="x", alerts=(ListAlert("nothing"),))
    assert gallery.group(group.group_id) == group


def test_sources_stay_when_their_group_goes(gallery: EmbeddedGallery) -> None:
    group = gallery.create_group("floor", (ListAlert(gallery.main_list_id),))
    source = gallery.create_source("door", group.group_id)
    gallery.delete_group(group.group_id)
    assert gallery.group(group.group_id) is None
    assert gallery.source(source.source_id) == replace(source, group_id=None)
    assert gallery.groups().items == ()


def test_an_unknown_group_can_be_neither_changed_nor_deleted(gallery: EmbeddedGallery) -> None:
    with pytest.raises(ItemNotFound):
        gallery.update_group("nothing", name="x")
    with pytest.raises(ItemNotFound):
        gallery.delete_group("nothing")
    with pytest.raises(ItemNotFound):
        gallery.sources(group_id="nothing")


# --- sources ---


def test_sources_are_paged_all_or_of_a_group(gallery: EmbeddedGallery) -> None:
    groups = [gallery.create_group("a").group_id, gallery.create_group("b").group_id, None]
    made = [gallery.create_source(f"s{n}", groups[n % 3], person_list_add=(gallery.main_list_id,)) for n in range(10)]
    assert walked(gallery.sources, 3) == made
    assert walked(gallery.sources, 2, group_id=groups[1]) == made[1::3]


def test_a_source_changes_only_in_what_is_given(open_gallery: Opening) -> None:
    gallery = open_gallery()
    group = gallery.create_group("floor").group_id
    defaults = SourceDefaults(new_person_threshold=0.8, feature_check=(FeatureBound("yaw"),))
    made = gallery.create_source("door", group, defaults, (gallery.main_list_id,))

    updated = gallery.update_source(
        made.source_id, lambda source: replace(source, defaults=replace(source.defaults, new_person_square_min=120))
    )
    assert updated == replace(made, defaults=replace(defaults, new_person_square_min=120))
    nothing = gallery.update_source(
        made.source_id, lambda source: replace(source, name="gate", group_id=None, person_list_add=())
    )
    assert nothing == replace(updated, name="gate", group_id=None, person_list_add=())
    gallery.close()
    assert open_gallery().source(made.source_id) == nothing


def test_a_source_keeps_its_id_whatever_changes_say(gallery: EmbeddedGallery) -> None:
    made = gallery.create_source("door")
    changed = gallery.update_source(made.source_id, lambda source: replace(source, source_id="x", created_ms=0))
    assert changed == made == gallery.source(made.source_id)


def test_a_source_that_would_name_nothing_stays_as_it_was(gallery: EmbeddedGallery) -> None:
    made = gallery.create_source("door", person_list_search=(gallery.main_list_id,))
    with pytest.raises(ItemNotFound):
        gallery.update_source(made.source_id, lambda source: replace(source, name="x", group_id="nothing"))
    with pytest.raises(ListNotFound) as refusal:
        gallery.update_source(made.source_id, lambda source: replace(source, name="x", person_list_add=("nothing",)))
    assert refusal.value.mistakes[0].field == "person_list_add"
    assert gallery.source(made.source_id) == made


def test_a_deleted_source_stays_in_the_records(gallery: EmbeddedGallery, faces: Any) -> None:
    made = gallery.create_source("door")
    probe = replace(faces.probe(1), newcomer=faces.newcomer(source_id=made.source_id))
    outcomes = gallery.identify_or_enrol(gallery.main_list_id, [probe], faces.known_or_new)
    gallery.delete_source(made.source_id)
    assert gallery.source(made.source_id) is None
    assert isinstance(outcomes, list)
    assert outcomes[0].person is not None
    person = gallery.person(gallery.main_list_id, outcomes[0].person.person_id)
    assert person.source_id == made.source_id
    with pytest.raises(ItemNotFound):
        gallery.delete_source(made.source_id)
    with pytest.raises(ItemNotFound):
        gallery.update_source(made.source_id, lambda source: source)


# --- scale ---


class Steps:
    """Counts what SQLite does for a call, in tens of its own instructions."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def of(self, call: Callable[[], Any]) -> int:
        count = 0

        def counting() -> int:
            nonlocal count
            count += 1
            return 0

        self._connection.set_progress_handler(counting, 10)
        call()
        self._connection.set_progress_handler(None, 0)
        return count


def test_a_first_page_costs_the_same_however_many_there_are(gallery: EmbeddedGallery) -> None:
    main = gallery.main_list_id

    def add(first: int, end: int) -> None:
        with gallery.database.write() as transaction:
            for n in range(first, end):
                transaction.execute(
                    "INSERT INTO lists (list_id, name, created_ms) VALUES (?, ?, 0)", (f"i{n}", f"n{n}")
                )
                transaction.execute(
                    "INSERT INTO sources (source_id, name, created_ms, defaults) VALUES (?, 's', 0, '{}')", (f"s{n}",)
                )
                transaction.execute(
                    "INSERT INTO persons (person_id, list, created_ms, updated_ms, fields, features)"
                    " VALUES (?, ?, 0, 0, '[]', '[]')",
                    (f"p{n}", n % 2 + 1),
                )

    pages = [
        lambda: gallery.lists(limit=50),
        lambda: gallery.sources(limit=50),
        lambda: gallery.persons(main, limit=50),
    ]
    add(0, 200)
    steps = Steps(gallery.database.read())
    before = [steps.of(page) for page in pages]
    add(200, 5000)
    assert [steps.of(page) for page in pages] == pytest.approx(before, rel=0.1)
