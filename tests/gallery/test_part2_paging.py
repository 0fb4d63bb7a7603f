"""A walk from page to page while records come and go neither skips nor repeats one that stayed."""

from __future__ import annotations

import functools
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.gallery.history import History
from edge.gallery.store import EmbeddedGallery
from edge.types import Decision, Sighting, Verdict

KINDS = ("persons", "lists", "groups", "sources", "sightings")


class World:
    """One kind of record, made, changed, deleted and paged through by id."""

    def __init__(self, gallery: EmbeddedGallery, history: History, faces: Any, clock: Any, kind: str) -> None:
        self.gallery = gallery
        self.history = history
        self.faces = faces
        self.clock = clock
        self.kind = kind
        self.made = 0
        self.other = gallery.create_list(f"other of {kind}").list_id

    def make(self) -> str:
        self.made += 1
        gallery, number = self.gallery, self.made
        if self.kind == "persons":
            probe = self.faces.probe(number)
            add = Decision(Verdict.ADD)
            [outcome] = gallery.search_or_enrol([], gallery.main_list_id, [probe], lambda *_: add)  # type: ignore[misc]
            return str(outcome.person.person_id)
        if self.kind == "lists":
            return gallery.create_list(f"list {number}").list_id
        if self.kind == "groups":
            return gallery.create_group(f"group {number}").group_id
        if self.kind == "sources":
            return gallery.create_source(f"source {number}").source_id
        self.clock.now_ms += number % 3 - 1  # equal times, and times that go back
        sighting = Sighting(
            f"s{number}", self.clock(), gallery.main_list_id, None, None, Verdict.REJECT, None, None, 0.7, None
        )
        self.history.record(sighting)
        assert self.history.flush()
        return sighting.sighting_id

    def change(self, id_: str) -> None:
        gallery = self.gallery
        if self.kind == "persons":
            gallery.update_person(gallery.main_list_id, id_, fields=["x"])
        elif self.kind == "lists":
            gallery.rename_list(id_, f"renamed {id_}")
        elif self.kind == "groups":
            gallery.update_group(id_, name="renamed")
        elif self.kind == "sources":
            gallery.update_source(id_, lambda source: source)

    def delete(self, id_: str) -> None:
        gallery = self.gallery
        if self.kind == "persons" and int(id_[:8], 16) % 2:
            gallery.update_person(gallery.main_list_id, id_, new_list_id=self.other)  # gone from here, too
        elif self.kind == "persons":
            gallery.delete_persons(gallery.main_list_id, [id_])
        elif self.kind == "lists":
            gallery.delete_list(id_)
        elif self.kind == "groups":
            gallery.delete_group(id_)
        elif self.kind == "sources":
            gallery.delete_source(id_)
        else:
            with gallery.database.write() as transaction:
                transaction.execute("DELETE FROM sightings WHERE sighting_id = ?", (id_,))

    def page(self, cursor: str | None, limit: int) -> tuple[list[str], str | None]:
        gallery = self.gallery
        if self.kind == "persons":
            persons = gallery.persons(gallery.main_list_id, cursor, limit)
            return [one.person_id for one in persons.items], persons.cursor
        if self.kind == "lists":
            lists = gallery.lists(cursor, limit)
            return [one.list_id for one in lists.items], lists.cursor
        if self.kind == "groups":
            groups = gallery.groups(cursor, limit)
            return [one.group_id for one in groups.items], groups.cursor
        if self.kind == "sources":
            sources = gallery.sources(cursor, limit)
            return [one.source_id for one in sources.items], sources.cursor
        seen = self.history.page(cursor=cursor, limit=limit)
        return [one.sighting.sighting_id for one in seen.sightings], seen.cursor


Opening = Callable[[str], World]


@pytest.fixture
def world(open_gallery: Callable[..., EmbeddedGallery], faces: Any, clock: Any) -> Iterator[Opening]:
    gallery = open_gallery()
    with gallery.database._writing:
        gallery.database._writer.execute("PRAGMA synchronous = OFF")  # no power cut to survive
    history = History(gallery.database, gallery.pictures, clock=clock, batch_seconds=0.0)
    yield functools.cache(lambda kind: World(gallery, history, faces, clock, kind))
    history.close()


WRITES = st.lists(st.tuples(st.sampled_from(["make", "change", "delete"]), st.integers(0, 10**6)), max_size=6)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=st.integers(0, 12), limit=st.integers(1, 5), writes=st.lists(WRITES, max_size=8))
def test_who_stayed_is_met_exactly_once(
    world: Opening, kind: str, first: int, limit: int, writes: list[list[tuple[str, int]]]
) -> None:
    here = world(kind)
    for id_ in here.page(None, 1000)[0]:  # each example begins with none
        if id_ not in (here.other, here.gallery.main_list_id):
            here.delete(id_)
    present = [here.make() for _ in range(first)]
    stayed, met = set(present), []
    ids, cursor = here.page(None, limit)
    met += ids
    for batch in [*writes, *([[]] * 100)]:
        for action, number in batch:
            if action == "make":
                present.append(here.make())
            elif present and action == "change":
                here.change(present[number % len(present)])
            elif present:
                id_ = present.pop(number % len(present))
                here.delete(id_)
                stayed.discard(id_)
        if cursor is None:
            break
        ids, cursor = here.page(cursor, limit)
        assert len(ids) <= limit
        met += ids
    assert cursor is None
    assert len(met) == len(set(met))
    assert stayed <= set(met)


@pytest.mark.parametrize("kind", KINDS)
def test_a_walk_beside_threads_that_write_meets_who_stayed(world: Opening, kind: str) -> None:
    here = world(kind)
    stayed = {here.make() for _ in range(40)}
    over = threading.Event()
    turn = threading.Lock()  # World counts without a lock of its own; the gallery is what is tried here

    def write(seed: int) -> None:
        dice, mine = random.Random(seed), []
        while not over.is_set():
            with turn:
                if not mine or dice.random() < 0.5:
                    mine.append(here.make())
                else:
                    here.delete(mine.pop(dice.randrange(len(mine))))

    writers = [threading.Thread(target=write, args=(seed,)) for seed in range(2)]
    for thread in writers:
        thread.start()
    try:
        for limit in (1, 3, 7):
            met, (ids, cursor) = [], here.page(None, limit)
            met += ids
            while cursor is not None and len(met) < 5000 and not stayed <= set(met):
                ids, cursor = here.page(cursor, limit)
                met += ids
            assert len(met) == len(set(met))
            assert stayed <= set(met)
    finally:
        over.set()
        for thread in writers:
            thread.join()
