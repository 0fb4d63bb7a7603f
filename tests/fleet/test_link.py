"""Boxes linked by a real nats-server: what one learns the others know, whatever is away in between."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest

pytest.importorskip("nats", reason="nats-py is not installed")
from edge.fleet.following import LOOK_SECONDS
from edge.fleet.link import Link
from edge.fleet.state import Terms
from edge.fleet.stream import Stream
from edge.gallery import replica
from edge.gallery.store import EmbeddedGallery, Probe
from edge.types import Candidate, Decision, Verdict
from tests.fleet.servers import NatsServer
from tests.gallery.conftest import LENGTH, PACK, WEIGHT, embedding_of, newcomer, template_of

SAME_FROM = 0.3


def decide(number: int, list_size: int, candidates: list[Candidate]) -> Decision:
    if candidates and candidates[0].similarity >= SAME_FROM:
        return Decision(Verdict.MATCH, candidates[0].person.person_id)
    return Decision(Verdict.ADD, same_from=SAME_FROM)


class Box:
    """A gallery and its link."""

    def __init__(self, folder: Path, url: str, main_list_id: str | None) -> None:
        self.folder, self._url, self.digest_seconds = folder, url, 0.5
        self.main_list_id = replica.join(folder, main_list_id, "main")
        self.start()

    def start(self) -> None:
        self.gallery = EmbeddedGallery.open(
            self.folder,
            pack_id=PACK,
            vector_length=LENGTH,
            cohort_weight=WEIGHT,
            exact_limit=1000,
            main_list_name="main",
            clock=lambda: time.time_ns() // 1_000_000,
        )
        self.link = Link(
            self.gallery,
            Terms(
                servers=(self._url,),
                user="",
                password="",
                tls=None,
                prefix="edge",
                box=self.folder.name,
                pack=PACK,
                digest_seconds=self.digest_seconds,
                stream_days=1,
                stream_bytes=100_000_000,
                spool=self.folder,
            ),
        )
        self.link.start()

    def stop(self) -> None:
        self.link.stop(1)
        self.gallery.close()

    def add(self, seed: int, noise: float = 0.0) -> str:
        embedding = embedding_of(seed, noise)
        probe = Probe(embedding, newcomer(f"person {seed}"), template_of(embedding))
        outcomes = self.gallery.identify_or_enrol(self.gallery.main_list_id, [probe], decide)
        assert isinstance(outcomes, list) and outcomes[0].person is not None
        return outcomes[0].person.person_id

    def knows(self, person_id: str) -> bool:
        return self.gallery.find_person(person_id) is not None


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


def alike(boxes: list[Box]) -> bool:
    digests = {box.gallery.digest() for box in boxes}
    return len(digests) == 1 and None not in digests


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    made = NatsServer(tmp_path / "nats")
    made.start()
    yield made
    made.kill()


@pytest.fixture
def boxes(tmp_path: Path, server: NatsServer) -> Iterator[list[Box]]:
    first = Box(tmp_path / "a", server.url, None)
    made = [first, Box(tmp_path / "b", server.url, first.main_list_id)]
    until(lambda: all(box.gallery.position is not None for box in made))
    yield made
    for box in made:
        box.stop()


def test_who_is_added_at_one_is_known_at_the_other_and_erased_at_both(boxes: list[Box]) -> None:
    added = boxes[0].add(1)
    until(lambda: boxes[1].knows(added))
    boxes[1].gallery.delete_persons(boxes[1].gallery.main_list_id, [added])
    until(lambda: not boxes[0].knows(added))
    until(lambda: all(box.gallery.has_leftovers(100) for box in boxes))
    until(lambda: not any(box.gallery.has_leftovers(100) for box in boxes))
    vector = embedding_of(1).vector.astype("<f4").tobytes()
    files = [path for path in boxes[0].folder.parent.rglob("*") if path.is_file()]
    assert len(files) > 10
    for path in files:
        assert vector[:64] not in path.read_bytes(), "neither in a box nor in what the server had"
    until(lambda: alike(boxes))
    until(lambda: boxes[0].link.state().agrees is True)
    state = boxes[0].link.state()
    assert (state.connected, state.outbox, [one["box"] for one in state.peers]) == (True, 0, ["b"])


def test_boxes_go_on_alone_and_lose_nothing_while_the_broker_is_down(boxes: list[Box], server: NatsServer) -> None:
    before = boxes[0].add(1)
    until(lambda: boxes[1].knows(before))
    server.kill()
    here, there = boxes[0].add(2), boxes[1].add(3)
    both = [box.add(4, noise) for box, noise in zip(boxes, (0.0, 0.02), strict=True)]
    until(lambda: not boxes[0].link.state().connected)
    boxes[1].stop()
    boxes[1].start()
    server.start()
    until(lambda: alike(boxes), 40)
    assert all(box.knows(one) for box in boxes for one in (before, here, there, *both))
    assert boxes[0].gallery.counts().persons == 4


def test_a_broker_that_hangs_is_given_up_and_found_again(boxes: list[Box], server: NatsServer) -> None:
    server.send(signal.SIGSTOP)
    added = boxes[0].add(1)
    until(lambda: not boxes[0].link.state().connected, 30)
    assert boxes[0].link.state().outbox == 1
    server.send(signal.SIGCONT)
    until(lambda: boxes[1].knows(added), 40)
    until(lambda: alike(boxes))


def test_a_new_box_is_seeded_by_another_and_goes_on_behind_it(
    boxes: list[Box], server: NatsServer, tmp_path: Path
) -> None:
    known = [boxes[0].add(seed) for seed in range(1, 40)]
    until(lambda: alike(boxes))
    new = Box(tmp_path / "c", server.url, boxes[0].main_list_id)
    until(lambda: all(new.knows(one) for one in known))
    later = boxes[1].add(100)
    until(lambda: new.knows(later))
    until(lambda: alike([*boxes, new]))
    assert new.link.state().seeded == 1
    new.stop()


def test_a_difference_is_seen_told_and_mended(boxes: list[Box], caplog: pytest.LogCaptureFixture) -> None:
    added = [boxes[0].add(seed) for seed in range(1, 4)]
    until(lambda: alike(boxes))
    with boxes[1].gallery.database.write(replicates=False) as transaction:
        transaction.execute("DELETE FROM persons WHERE person_id = ?", (added[0],))
    boxes[1].stop()
    boxes[1].start()
    until(lambda: boxes[1].knows(added[0]))
    until(lambda: alike(boxes) and boxes[1].link.state().agrees is True)
    assert "differ at position" in caplog.text


class Behind(Stream):
    """A stream whose server has not heard of all that others have: only a cluster has that, for moments."""

    known: ClassVar[int | None] = None

    async def read(self, sequence: int) -> list[tuple[int, bytes]]:
        found = await super().read(sequence)
        return [one for one in found if self.known is None or one[0] <= self.known]


def test_what_a_server_that_is_behind_does_not_send_is_waited_for(
    boxes: list[Box], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = boxes[0].add(1)
    until(lambda: alike(boxes))
    boxes[1].link.stop(1)
    monkeypatch.setattr("edge.fleet.link.Stream", Behind)
    monkeypatch.setattr(Behind, "known", 1)
    boxes[1].link = Link(boxes[1].gallery, boxes[1].link._terms)
    boxes[1].link.start()
    until(lambda: boxes[1].link.state().connected)
    second = boxes[0].add(2)
    until(lambda: boxes[1].link.readings()["fleet_behind"] == 1)
    time.sleep(2 * LOOK_SECONDS)
    assert boxes[1].gallery.position == 1, "nothing is passed over"
    assert boxes[1].link.state().connected, "and nothing is wrong"
    monkeypatch.setattr(Behind, "known", None)
    until(lambda: boxes[1].knows(second))
    assert boxes[1].knows(first) and boxes[1].link.state().seeded == 0, "by the stream alone"


def test_a_stream_that_was_lost_is_begun_anew(boxes: list[Box], server: NatsServer, tmp_path: Path) -> None:

    known = [boxes[0].add(seed) for seed in range(1, 6)]
    until(lambda: alike(boxes))
    server.kill()
    shutil.rmtree(tmp_path / "nats" / "store")
    later = boxes[1].add(7)
    server.start()
    until(lambda: boxes[0].knows(later), 40)
    until(lambda: alike(boxes))
    assert all(box.knows(one) for box in boxes for one in known)
    assert [box.gallery.position for box in boxes] == [1, 1]


def test_a_box_that_was_away_while_the_stream_was_emptied_waits_for_another_to_be_seeded_by(boxes: list[Box]) -> None:
    erased = boxes[0].add(1)
    until(lambda: alike(boxes))
    boxes[1].stop()
    kept = boxes[0].add(2)
    boxes[0].gallery.delete_persons(boxes[0].gallery.main_list_id, [erased])
    until(lambda: boxes[0].gallery.outbox_length() == 0 and not boxes[0].gallery.has_leftovers(100))
    behind = boxes[0].add(4)
    until(lambda: boxes[0].gallery.outbox_length() == 0)
    boxes[0].stop()
    boxes[1].digest_seconds = 10
    boxes[1].start()
    until(lambda: boxes[1].link.state().connected)
    time.sleep(6)  # it is not a matter of a moment
    assert boxes[1].gallery.position == 1, "what is gone from the stream is not passed over"
    boxes[0].start()
    until(lambda: boxes[1].knows(kept) and boxes[1].knows(behind) and not boxes[1].knows(erased))
    until(lambda: alike(boxes))
    assert boxes[1].link.state().seeded == 1
    later = boxes[1].add(3)
    until(lambda: boxes[0].knows(later))
