"""The frames of one visit are decided on together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.face.analysis import Analyser
from edge.matching import Calibration, similarity
from edge.recognition.passages import FACES, FRAMES, SAME_VISIT_SCORE, SOURCES, Passages
from edge.types import Embedding, Pack, Picture
from tests.real_process import Service

SECONDS = 5.0
DOOR, GATE = "door", "gate"


class Clock:
    """Time that stands until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def passages(pack: Pack, clock: Clock) -> Passages:
    return Passages(SECONDS, Calibration(pack.embedder.operating_points), pack.embedder.cohort_weight, clock=clock)


@pytest.fixture(scope="module")
def probes(analyser: Analyser, pictures: dict[str, Picture]) -> dict[str, Embedding]:
    found = {}
    for name, picture in pictures.items():
        (face,) = analyser.faces(picture, analyser.passes(picture.shape, 50), presence_floor=0.5)
        found[name] = analyser.embedder.probe(picture, face.landmarks.points)
    return found


def test_frames_of_one_face_become_their_mean(
    passages: Passages, probes: dict[str, Embedding], analyser: Analyser
) -> None:
    given = analyser.embedder.given
    (first,) = passages.joined(DOOR, [probes["obama-1"]], given)
    assert first.frames == 1
    assert np.allclose(first.embedding.vector, probes["obama-1"].vector, atol=1e-6)
    (second,) = passages.joined(DOOR, [probes["obama-2"]], given)
    assert second.frames == 2
    mean = given(np.mean([probes["obama-1"].vector, probes["obama-2"].vector], axis=0))
    assert np.allclose(second.embedding.vector, mean.vector, atol=1e-6)
    assert second.embedding.cohort_similarity == pytest.approx(mean.cohort_similarity)


def test_somebody_else_is_another_visit(passages: Passages, probes: dict[str, Embedding], analyser: Analyser) -> None:
    passages.joined(DOOR, [probes["obama-1"]], analyser.embedder.given)
    (other,) = passages.joined(DOOR, [probes["biden-1"]], analyser.embedder.given)
    assert other.frames == 1
    both = passages.joined(DOOR, [probes["biden-1"], probes["obama-2"]], analyser.embedder.given)
    assert [one.frames for one in both] == [2, 2]


def test_twins_in_one_frame_are_two_visits(
    passages: Passages, probes: dict[str, Embedding], analyser: Analyser
) -> None:
    twins = [probes["obama-1"], probes["obama-1"]]
    for frames in (1, 2, 3):
        assert [one.frames for one in passages.joined(DOOR, twins, analyser.embedder.given)] == [frames, frames]


def test_a_visit_ends_and_sources_are_apart(
    passages: Passages, probes: dict[str, Embedding], analyser: Analyser, clock: Clock
) -> None:
    def frames(source: str) -> int:
        (one,) = passages.joined(source, [probes["obama-1"]], analyser.embedder.given)
        return one.frames

    assert [frames(DOOR), frames(GATE), frames(DOOR)] == [1, 1, 2]
    clock.now += SECONDS
    assert frames(DOOR) == 3, "seen again in time"
    clock.now += SECONDS + 0.1
    assert frames(DOOR) == 1


def test_only_the_latest_frames_count(passages: Passages, probes: dict[str, Embedding], analyser: Analyser) -> None:
    given = analyser.embedder.given
    passages.joined(DOOR, [probes["obama-2"]], given)
    for _ in range(FRAMES):
        (last,) = passages.joined(DOOR, [probes["obama-1"]], given)
    assert last.frames == FRAMES + 1
    assert np.allclose(last.embedding.vector, probes["obama-1"].vector, atol=1e-6)


def test_what_is_remembered_is_bounded(pack: Pack, clock: Clock) -> None:
    passages = Passages(60, Calibration(pack.embedder.operating_points), pack.embedder.cohort_weight, clock=clock)
    random = np.random.default_rng(1)

    def face() -> Embedding:
        vector = random.normal(size=128)
        return Embedding((vector / np.linalg.norm(vector)).astype(np.float32), 0.0)

    def given(vector: Any) -> Embedding:
        return Embedding(vector, 0.0)

    for number in range(SOURCES + 50):
        passages.joined(f"camera {number}", [face()], given)
    for _ in range(FACES + 5):
        passages.joined(DOOR, [face()], given)
    assert len(passages._visits) == SOURCES
    assert len(passages._visits[DOOR]) == FACES


def test_frames_of_one_visit_are_linked_and_strangers_are_not(probes: dict[str, Embedding], pack: Pack) -> None:
    calibration, weight = Calibration(pack.embedder.operating_points), pack.embedder.cohort_weight
    same = calibration.score(similarity(probes["obama-1"], probes["obama-5"], weight))
    other = calibration.score(similarity(probes["obama-1"], probes["biden-1"], weight))
    assert other < SAME_VISIT_SCORE < same


# --- over the socket ---


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder: Path = tmp_path_factory.mktemp("passages") / "data"
    settings = ("new_person.passage_seconds=60", "new_person.passage_frames=3")
    running = Service(folder, *settings).start()
    yield running
    assert running.end() == 0


def test_somebody_new_must_have_been_seen_in_three_frames(service: Service, photos: dict[str, bytes]) -> None:
    source = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"
    for frames in (1, 2):
        answer = service.create(photos["obama-1"], source_id=source)
        assert answer.status_code == 201
        (rejected,) = answer.json()["rejected"]
        assert rejected["passage_frames"] == frames
        assert rejected["reasons"] == [{"check": "passage_frames", "value": frames, "limit": 3}]
    added = service.create(photos["obama-2"], source_id=source).json()
    assert added["persons"][0]["passage_frames"] == 3
    matched = service.create(photos["obama-1"], source_id=source).json()
    assert matched["matches"][0]["passage_frames"] == 4
    assert matched["matches"][0]["person_id"] == added["persons"][0]["person_id"]


def test_a_single_post_is_decided_for_itself(service: Service, photos: dict[str, bytes]) -> None:
    added = service.create(photos["biden-1"]).json()
    assert added["persons_new"] == 1
    assert "passage_frames" not in added["persons"][0]


def test_off_by_default(tmp_path: Path, photos: dict[str, bytes]) -> None:
    running = Service(tmp_path / "data").start()
    try:
        source = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"
        added = running.create(photos["obama-1"], source_id=source).json()
        assert added["persons_new"] == 1
        assert "passage_frames" not in added["persons"][0]
    finally:
        running.end()
