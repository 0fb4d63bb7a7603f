"""Boxes that share a gallery: whatever happens where, and whoever hears of it when, they end alike."""

from __future__ import annotations

import random
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edge.errors import BodyTooLarge, ItemNotFound, ListNotFound, Refusal
from edge.gallery import reembedding, replica
from edge.gallery.database import DATABASE_NAME
from edge.gallery.operations import Kind, Operation, SharedTemplate, decoded, encoded
from edge.gallery.seeding import Alike, Heard
from edge.gallery.store import EmbeddedGallery, Probe
from edge.types import Candidate, Decision, Sighting, Verdict
from tests.gallery.conftest import LENGTH, PACK, WEIGHT, embedding_of, newcomer, template_of

SAME_FROM = 0.3


def decide(number: int, list_size: int, candidates: list[Candidate]) -> Decision:
    if candidates and candidates[0].similarity >= SAME_FROM:
        return Decision(Verdict.MATCH, candidates[0].person.person_id)
    return Decision(Verdict.ADD, same_from=SAME_FROM)


@dataclass
class Stream:
    """What JetStream does with messages: an order, and places that stay empty once it is emptied."""

    messages: dict[int, tuple[str, bytes]] = field(default_factory=dict)
    ids: dict[str, int] = field(default_factory=dict)
    last: int = 0

    def publish(self, subject: str, body: bytes, message_id: str) -> int:
        if message_id in self.ids:
            return self.ids[message_id]
        self.last += 1
        self.messages[self.last] = (subject, body)
        self.ids[message_id] = self.last
        return self.last

    def after(self, position: int) -> list[tuple[int, bytes]]:
        return [(number, body) for number, (_, body) in self.messages.items() if number > position]


class Box:
    """A gallery in a folder of its own, and its way to the stream."""

    def __init__(self, folder: Path, stream: Stream, main_list_id: str | None, pack_id: str = PACK) -> None:
        self.folder, self.stream, self.pack_id = folder, stream, pack_id
        self.main_list_id = replica.join(folder, main_list_id, "main")
        self.gallery = self._open()

    def _open(self) -> EmbeddedGallery:
        return EmbeddedGallery.open(
            self.folder,
            pack_id=self.pack_id,
            vector_length=LENGTH,
            cohort_weight=WEIGHT,
            exact_limit=1000,
            main_list_name="main",
            clock=lambda: 1_700_000_000_000,
        )

    def restart(self) -> None:
        self.gallery.close()
        self.gallery = self._open()

    def publish(self, count: int = 1000, *, is_answered: bool = True) -> None:
        for one in self.gallery.pending(count):
            sequence = self.stream.publish(one.subject, one.body, one.message_id)
            if is_answered:
                self.gallery.acknowledge({one.number: sequence})

    def clear(self, others: list[Box]) -> None:
        last = self.gallery.position
        assert last is not None
        if self.gallery.has_leftovers(last) and all(one.gallery.position == self.stream.last for one in others):
            self.stream.messages.clear()
            self.gallery.cleared(last)

    def hear(self, count: int = 1000) -> None:
        position = self.gallery.position
        assert position is not None
        messages = self.stream.after(position)[:count]
        if messages:
            self.gallery.apply(messages)

    def seed_from(self, other: Box) -> None:
        with other.gallery.snapshot() as lines:
            self.gallery.seed(list(lines))

    def add(self, seed: int, noise: float = 0.0, list_id: str | None = None, *fields: str) -> str:
        embedding = embedding_of(seed, noise)
        probe = Probe(embedding, newcomer(*(fields or (f"person {seed}",))), template_of(embedding))
        outcomes = self.gallery.identify_or_enrol(list_id or self.gallery.main_list_id, [probe], decide)
        assert isinstance(outcomes, list) and outcomes[0].person is not None
        return outcomes[0].person.person_id

    def who(self, seed: int, noise: float = 0.05) -> str | None:
        (best, *_) = [*self.gallery.identify(self.gallery.main_list_id, embedding_of(seed, noise)), None]
        return best.person.person_id if best is not None and best.similarity >= SAME_FROM else None


@pytest.fixture
def stream() -> Stream:
    return Stream()


@pytest.fixture
def boxes(tmp_path: Path, stream: Stream) -> Iterator[list[Box]]:
    first = Box(tmp_path / "a", stream, None)
    others = [Box(tmp_path / name, stream, first.main_list_id) for name in "bc"]
    for other in others:
        other.seed_from(first)
    yield [first, *others]
    for box in (first, *others):
        box.gallery.close()


def settle(boxes: list[Box]) -> None:
    """Let everything that was said be heard by all."""
    for _ in range(4):
        for box in boxes:
            box.publish()
        for box in boxes:
            box.hear()
    assert [box.gallery.outbox_length() for box in boxes] == [0] * len(boxes)


def assert_alike(boxes: list[Box]) -> None:
    digests = [box.gallery.digest() for box in boxes]
    assert digests[0] is not None and len(set(digests)) == 1, digests


# --- what travels ---


def test_an_operation_comes_back_from_its_bytes_as_it_was() -> None:
    template = SharedTemplate("p", bytes(range(16)), 0.1, 0.5, 7, b"\xff\xd8\n")
    told = Operation(Kind.PUT, "id", "o", 3, 4, 5, record={"fields": '["é"]'}, templates=(template,), removed=("k",))
    assert decoded(encoded(told)) == told


@pytest.mark.parametrize("cut", [0, 5, 20, 60, -1])
def test_bytes_that_were_cut_off_or_changed_are_no_operation(cut: int) -> None:
    body = encoded(Operation(Kind.PUT, "id", "o", 3, 4, 5, templates=(SharedTemplate("p", bytes(16), 0, 0, 0),)))
    with pytest.raises(ValueError):
        decoded(body[:cut])
    with pytest.raises(ValueError, match="checksum"):
        decoded(body[:-1] + bytes([body[-1] ^ 1]))


# --- one at a time ---


def test_who_is_added_at_one_box_is_known_at_the_others(boxes: list[Box]) -> None:
    added = boxes[0].add(1)
    settle(boxes)
    assert [box.who(1) for box in boxes] == [added] * 3
    (record,) = boxes[2].gallery.persons(boxes[2].gallery.main_list_id).items
    assert record == boxes[0].gallery.person(boxes[0].gallery.main_list_id, added)
    assert_alike(boxes)


def test_everything_that_can_be_changed_is_changed_everywhere(boxes: list[Box]) -> None:
    a, b, c = (box.gallery for box in boxes)
    first, second, third = (boxes[0].add(seed) for seed in (1, 2, 3))
    settle(boxes)
    staff = b.create_list("staff").list_id
    settle(boxes)
    c.update_person(c.main_list_id, first, fields=["other"], new_list_id=staff)
    a.add_templates(a.main_list_id, second, [template_of(embedding_of(2, 0.3))])
    settle(boxes)
    b.add_templates(b.main_list_id, second, [], replace_person_id=third)
    settle(boxes)
    a.rename_list(staff, "crew")
    (photo, _, *_) = c.photos(c.main_list_id, second)
    c.delete_photo(c.main_list_id, second, photo.photo_id)
    settle(boxes)
    assert_alike(boxes)
    for box in boxes:
        gallery = box.gallery
        assert gallery.person(staff, first).fields == ("other",)
        assert [one.name for one in gallery.lists().items] == ["main", "crew"]
        assert len(gallery.templates_of(second)) == 2
        assert gallery.find_person(third) is None
        assert box.who(3) == second
        assert gallery.identify(staff, embedding_of(1))[0].person.person_id == first
        assert gallery.identify(gallery.main_list_id, embedding_of(1))[0].person.person_id == second
    b.delete_list(staff)
    settle(boxes)
    assert_alike(boxes)
    with pytest.raises(ListNotFound):
        c.persons(staff)


def test_a_rejection_and_its_undoing_are_everybody_s(boxes: list[Box]) -> None:
    from edge.gallery.history import History

    added = boxes[0].add(1)
    settle(boxes)
    gallery = boxes[1].gallery
    history = History(gallery.database, gallery.pictures, clock=lambda: 1_700_000_000_000)
    face = embedding_of(1, 0.1)
    seen = Sighting("s-1", 1_700_000_000_000, gallery.main_list_id, None, None, Verdict.MATCH, added, 0.9, 0.8, None)
    import dataclasses

    history.record(dataclasses.replace(seen, embedding=face, pack_id=PACK))
    history.flush()
    gallery.reject(gallery.main_list_id, added, "s-1")
    settle(boxes)
    assert_alike(boxes)
    assert [len(box.gallery.rejections(box.gallery.main_list_id, added).items) for box in boxes] == [1, 1, 1]
    (found,) = boxes[2].gallery.identify(gallery.main_list_id, face)
    assert found.nearest_negative is not None
    boxes[0].gallery.undo_rejection(gallery.main_list_id, added, "s-1")
    settle(boxes)
    assert_alike(boxes)
    assert [len(box.gallery.rejections(box.gallery.main_list_id, added).items) for box in boxes] == [0, 0, 0]
    history.close()


# --- at the same moment ---


def test_one_face_added_at_two_boxes_in_the_same_moment_is_one_person(boxes: list[Box]) -> None:
    earlier, later = boxes[0].add(1), boxes[1].add(1, 0.02)
    assert earlier != later
    settle(boxes)
    assert_alike(boxes)
    for box in boxes:
        gallery = box.gallery
        assert gallery.counts().persons == 1
        assert len(gallery.templates_of(earlier)) == 2
        assert gallery.person(gallery.main_list_id, later).person_id == earlier, "the id that a client was told"


def test_two_faces_added_in_the_same_moment_stay_two(boxes: list[Box]) -> None:
    boxes[0].add(1)
    boxes[1].add(2)
    settle(boxes)
    assert_alike(boxes)
    assert [box.gallery.counts().persons for box in boxes] == [2, 2, 2]


def test_erasing_under_the_second_id_erases_the_person(boxes: list[Box]) -> None:
    earlier, later = boxes[0].add(1), boxes[1].add(1, 0.02)
    settle(boxes)
    assert boxes[2].gallery.delete_persons(boxes[2].gallery.main_list_id, [later]) == 1
    settle(boxes)
    assert_alike(boxes)
    assert [box.gallery.counts().persons for box in boxes] == [0, 0, 0]
    assert all(box.gallery.find_person(one) is None for box in boxes for one in (earlier, later))


def test_erasing_one_of_two_before_they_are_known_to_be_one_erases_both(boxes: list[Box]) -> None:
    boxes[0].add(1)
    later = boxes[1].add(1, 0.02)
    boxes[0].publish()
    boxes[1].publish()
    boxes[0].hear()
    boxes[2].hear()
    boxes[1].gallery.delete_persons(boxes[1].gallery.main_list_id, [later])
    settle(boxes)
    boxes[1].seed_from(boxes[0])  # what it has not heard of, its own erasure has removed from the stream
    settle(boxes)
    assert_alike(boxes)
    assert [box.gallery.counts().persons for box in boxes] == [0, 0, 0]


def test_an_erasure_at_a_box_that_takes_one_for_two_erases_both_there_too(boxes: list[Box]) -> None:
    earlier = boxes[0].add(1)
    boxes[0].publish()
    boxes[1].add(1, 0.02)
    boxes[1].hear()
    assert boxes[1].gallery.counts().persons == 2, "its own has not come back"
    boxes[1].gallery.delete_persons(boxes[1].gallery.main_list_id, [earlier])
    settle(boxes)
    assert_alike(boxes)
    assert [box.gallery.counts().persons for box in boxes] == [0, 0, 0]


def test_an_erasure_that_crosses_the_same_face_erases_it_at_all(boxes: list[Box]) -> None:
    earlier = boxes[0].add(1)
    boxes[0].publish()
    boxes[0].gallery.delete_persons(boxes[0].gallery.main_list_id, [earlier])
    boxes[1].add(1, 0.02)
    boxes[1].publish()
    settle(boxes)
    assert_alike(boxes)
    assert [box.gallery.counts().persons for box in boxes] == [0, 0, 0]


def test_a_merge_that_crosses_the_same_face_keeps_its_photo_and_its_id(boxes: list[Box]) -> None:
    first = boxes[0].add(1)
    boxes[0].publish()
    later = boxes[1].add(1, 0.02)
    boxes[1].publish()
    survivor = boxes[0].add(2)
    main = boxes[0].gallery.main_list_id
    boxes[0].gallery.add_templates(main, survivor, [], replace_person_id=first)
    settle(boxes)
    assert_alike(boxes)
    for box in boxes:
        assert box.gallery.counts().persons == 1
        assert len(box.gallery.templates_of(survivor)) == 3
        assert box.gallery.person(main, later).person_id == survivor


def test_what_a_box_changed_itself_stands_until_the_stream_has_come_to_it(boxes: list[Box]) -> None:
    added = boxes[0].add(1)
    settle(boxes)
    for number, box in enumerate(boxes[:2]):
        box.gallery.update_person(box.gallery.main_list_id, added, fields=[f"at {number}"])
    boxes[1].publish()
    boxes[0].hear()
    assert boxes[0].gallery.find_person(added).fields == ("at 0",), "it was told so, and is the later one"  # type: ignore[union-attr]
    settle(boxes)
    assert_alike(boxes)
    assert boxes[2].gallery.find_person(added).fields == ("at 0",)  # type: ignore[union-attr]


def test_photos_added_at_two_boxes_in_the_same_moment_are_both_kept(boxes: list[Box]) -> None:
    added = boxes[0].add(1)
    settle(boxes)
    for number, box in enumerate(boxes[:2]):
        template = template_of(embedding_of(1, 0.2 + number / 10))
        box.gallery.add_templates(box.gallery.main_list_id, added, [template], fields=[f"at {number}"])
    settle(boxes)
    assert_alike(boxes)
    assert len(boxes[2].gallery.templates_of(added)) == 3
    assert boxes[2].gallery.find_person(added).fields == ("at 1",), "the later in the stream"  # type: ignore[union-attr]


def test_lists_of_one_name_made_in_the_same_moment_are_told_apart(boxes: list[Box]) -> None:
    first, second = boxes[0].gallery.create_list("staff"), boxes[1].gallery.create_list("staff")
    settle(boxes)
    assert_alike(boxes)
    for box in boxes:
        names = {one.list_id: one.name for one in box.gallery.lists().items}
        assert names[first.list_id] == "staff"
        assert names[second.list_id] == f"staff ({second.list_id[:8]})"


# --- erased is for ever ---


def test_nobody_erased_comes_back_from_a_box_that_was_away(boxes: list[Box], stream: Stream) -> None:
    added = boxes[0].add(1)
    settle(boxes)
    boxes[0].gallery.delete_persons(boxes[0].gallery.main_list_id, [added])
    settle(boxes[:2])
    away = boxes[2]
    away.gallery.add_templates(away.gallery.main_list_id, added, [template_of(embedding_of(1, 0.2))], fields=["again"])
    settle(boxes)
    settle(boxes)
    assert_alike(boxes)
    assert [box.gallery.counts().persons for box in boxes] == [0, 0, 0]
    for box in boxes:
        box.clear(boxes)
        assert not box.gallery.has_leftovers(stream.last)
    assert not stream.messages, "and the stream keeps nothing of them"


def test_an_erased_person_is_in_no_file_of_any_box(boxes: list[Box]) -> None:
    added = boxes[0].add(1)
    vector = embedding_of(1).vector.astype("<f4").tobytes()
    settle(boxes)
    boxes[1].gallery.delete_persons(boxes[1].gallery.main_list_id, [added])
    settle(boxes)
    for box in boxes:
        for path in box.folder.glob(f"{DATABASE_NAME}*"):
            assert vector not in path.read_bytes()
            assert added.encode() not in path.read_bytes()


# --- a box that comes, or comes back ---


def test_a_box_with_people_of_its_own_joins_and_all_know_all(boxes: list[Box], tmp_path: Path, stream: Stream) -> None:
    known = boxes[0].add(1)
    settle(boxes)
    alone = EmbeddedGallery.open(
        tmp_path / "d",
        pack_id=PACK,
        vector_length=LENGTH,
        cohort_weight=WEIGHT,
        exact_limit=1000,
        main_list_name="main",
        clock=lambda: 1_700_000_000_000,
    )
    embedding = embedding_of(7)
    alone.identify_or_enrol(alone.main_list_id, [Probe(embedding, newcomer("own"), template_of(embedding))], decide)
    alone.close()
    joined = Box(tmp_path / "d", stream, boxes[0].main_list_id)
    assert joined.gallery.position is None
    joined.seed_from(boxes[1])
    settle([*boxes, joined])
    assert_alike([*boxes, joined])
    assert joined.who(1) == known
    assert boxes[0].who(7) is not None
    joined.gallery.close()


def test_a_snapshot_that_is_cut_off_or_older_changes_nothing(boxes: list[Box]) -> None:
    with boxes[0].gallery.snapshot() as lines:
        old = list(lines)
    boxes[0].add(1)
    settle(boxes)
    with boxes[0].gallery.snapshot() as lines:
        whole = list(lines)
    before = boxes[1].gallery.digest()
    for lot in (old, whole[:-1], whole[:1], [], [*whole[:-2], whole[-2] + b"x", whole[-1]], [*whole, whole[-1]]):
        with pytest.raises(replica.Incomplete):
            boxes[1].gallery.seed(lot)
    assert boxes[1].gallery.digest() == before


def test_what_went_wrong_in_a_box_is_mended_by_another_s_snapshot(boxes: list[Box]) -> None:
    ids = [boxes[0].add(seed) for seed in range(1, 6)]
    settle(boxes)
    with boxes[1].gallery.database.write(replicates=False) as transaction:
        transaction.execute("DELETE FROM persons WHERE person_id = ?", (ids[0],))
        transaction.execute("UPDATE persons SET fields = '[\"wrong\"]' WHERE person_id = ?", (ids[1],))
    assert boxes[1].gallery.digest() != boxes[0].gallery.digest()
    boxes[1].seed_from(boxes[0])
    settle(boxes)
    assert_alike(boxes)
    assert [box.who(1) for box in boxes] == [ids[0]] * 3


def test_one_vector_with_two_times_is_mended_too(boxes: list[Box]) -> None:
    added = boxes[0].add(1)
    settle(boxes)
    with boxes[1].gallery.database.write(replicates=False) as transaction:
        transaction.execute("UPDATE templates SET created_ms = created_ms + 5")
    assert boxes[1].gallery.digest() != boxes[0].gallery.digest()
    boxes[1].seed_from(boxes[0])
    settle(boxes)
    assert_alike(boxes)
    assert [box.who(1) for box in boxes] == [added] * 3


def test_a_restored_backup_says_nothing_twice_and_loses_nothing(boxes: list[Box], tmp_path: Path) -> None:
    import shutil

    boxes[0].add(1)
    settle(boxes)
    boxes[0].gallery.close()
    shutil.copytree(boxes[0].folder, tmp_path / "copy")
    boxes[0].gallery = boxes[0]._open()
    boxes[0].add(2)
    settle(boxes)
    boxes[0].gallery.close()
    shutil.rmtree(boxes[0].folder)
    shutil.copytree(tmp_path / "copy", boxes[0].folder)
    boxes[0].gallery = boxes[0]._open()
    boxes[0].add(3)
    settle(boxes)
    assert_alike(boxes)
    assert [box.gallery.counts().persons for box in boxes] == [3, 3, 3]


def test_a_box_with_another_pack_keeps_what_it_cannot_compare_and_says_whom(
    boxes: list[Box], tmp_path: Path, stream: Stream
) -> None:
    boxes[0].gallery.share_pictures()
    embedding = embedding_of(1)
    probe = Probe(embedding, newcomer("with a picture"), template_of(embedding, b"a crop"))
    boxes[0].gallery.identify_or_enrol(boxes[0].gallery.main_list_id, [probe], decide)
    other = Box(tmp_path / "d", stream, boxes[0].main_list_id, pack_id="pack-2")
    boxes[0].publish()
    boxes[0].hear()
    other.seed_from(boxes[0])
    later = boxes[0].add(2)
    settle([boxes[0], other])
    assert (other.gallery.counts().persons, other.gallery.counts().other_packs) == (2, 2)
    assert other.who(1) is None
    with reembedding.reading(other.folder) as connection:
        unreached = {one.person_id: one.has_picture for one in reembedding.unreached(connection, "pack-2")}
    assert len(unreached) == 2
    assert unreached[later] is False, "no picture was kept of them"
    (kept,) = [one for one, has_picture in unreached.items() if has_picture]
    (template,) = other.gallery.templates_of(kept)
    assert template.picture is not None
    assert other.gallery.picture(template.picture) == b"a crop"
    assert_alike([boxes[0], other])
    other.gallery.close()


def test_pictures_stay_where_they_are_unless_they_are_shared(boxes: list[Box]) -> None:
    embedding = embedding_of(1)
    probe = Probe(embedding, newcomer("with a picture"), template_of(embedding, b"a crop"))
    boxes[0].gallery.identify_or_enrol(boxes[0].gallery.main_list_id, [probe], decide)
    assert b"a crop" not in boxes[0].gallery.pending(1)[0].body
    settle(boxes)
    assert_alike(boxes)
    assert not list((boxes[1].folder / "pictures").glob("*/*.jpg"))


def test_a_record_that_no_message_can_hold_is_refused(boxes: list[Box]) -> None:
    with pytest.raises(BodyTooLarge) as refusal:
        boxes[0].add(1, 0.0, None, *["x" * 60_000] * 20)
    assert refusal.value.mistakes[0].field == "fields"
    assert boxes[0].gallery.counts().persons == 0
    assert boxes[0].gallery.outbox_length() == 0


def test_a_box_in_no_fleet_keeps_nothing_for_one(tmp_path: Path, stream: Stream) -> None:
    box = Box(tmp_path / "a", stream, None)
    box.add(1)
    box.gallery.close()
    assert replica.leave(tmp_path / "a") == 1
    box.restart()
    assert not box.gallery.is_in_fleet
    box.add(2)
    assert box.gallery.outbox_length() == 0
    box.gallery.close()


# --- anything, anywhere, in whatever order ---


def chance(dice: random.Random, box: Box, ids: list[str], erased: set[str]) -> None:
    """Do something to somebody."""
    gallery = box.gallery
    main = gallery.main_list_id
    what = dice.random()
    try:
        if what < 0.45:
            ids.append(box.add(dice.randrange(30), dice.choice([0.0, 0.02, 0.05])))
        elif what < 0.6:
            gallery.add_templates(main, dice.choice(ids), [template_of(embedding_of(dice.randrange(30), 0.3))])
        elif what < 0.7:
            gallery.update_person(main, dice.choice(ids), fields=[str(dice.random())])
        elif what < 0.8:
            gallery.add_templates(main, dice.choice(ids), [], replace_person_id=dice.choice(ids))
        elif what < 0.9:
            one = dice.choice(ids)
            if gallery.delete_persons(main, [one]):
                erased.add(one)
        else:
            photos = gallery.photos(main, dice.choice(ids))
            gallery.delete_photo(main, gallery.find_person(dice.choice(ids)).person_id, photos[0].photo_id)  # type: ignore[union-attr]
    except (Refusal, ItemNotFound, AttributeError, IndexError):
        pass  # nobody there to do it to


def test_what_is_changed_while_a_snapshot_is_compared_stays_so(
    boxes: list[Box], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    added = [boxes[0].add(seed) for seed in range(1, 5)]
    settle(boxes)
    compare, box = replica.alike, boxes[1]

    def compared(connection: sqlite3.Connection, snapshot: Heard) -> Alike:
        found = compare(connection, snapshot)
        assert sorted(ids[0] for ids in found.values()) == sorted(added), "nobody needs anything"
        change = threading.Thread(target=changed)
        change.start()
        change.join()
        return found

    def changed() -> None:
        list_id = box.gallery.main_list_id
        box.gallery.update_person(list_id, added[0], fields=["changed"])
        box.gallery.delete_persons(list_id, [added[1]])
        box.add(9)

    monkeypatch.setattr(replica, "alike", compared)
    box.seed_from(boxes[0])
    assert "only this box knew" not in caplog.text, "what it has to say waits in its outbox already"
    settle(boxes)
    assert_alike(boxes)
    for one in boxes:
        person = one.gallery.find_person(added[0])
        assert person is not None and list(person.fields) == ["changed"]
        assert one.gallery.find_person(added[1]) is None
        assert one.gallery.counts().persons == 4


@pytest.mark.parametrize("seed", range(12))
def test_in_whatever_order_they_hear_of_it_all_end_alike(boxes: list[Box], seed: int) -> None:
    dice = random.Random(seed)
    ids: list[str] = []
    erased: set[str] = set()
    for _ in range(120):
        box = dice.choice(boxes)
        step = dice.random()
        if step < 0.5:
            chance(dice, box, ids, erased)
        elif step < 0.7:
            box.publish(dice.randrange(1, 4), is_answered=dice.random() < 0.8)
        elif step < 0.95:
            box.hear(dice.randrange(1, 6))
        elif step < 0.97:
            box.clear(boxes)
        else:
            box.restart()
    settle(boxes)
    settle(boxes)
    gone = {box: [one for one in erased if box.gallery.find_person(one) is not None] for box in boxes}
    if len({box.gallery.digest() for box in boxes}) > 1:  # what the order alone does not settle, snapshots do
        for box in boxes[1:]:
            box.seed_from(boxes[0])
            settle(boxes)
        boxes[0].seed_from(boxes[1])
        settle(boxes)
    assert_alike(boxes)
    assert not any(gone.values())
