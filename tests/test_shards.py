"""scripts/shards.py: a gallery in shards over a real nats-server finds whom one search of all finds, and does not take
silence for a stranger."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edge import catalogue
from edge.matching import Calibration, ThresholdPolicy

pytest.importorskip("nats")

ROOT = Path(__file__).resolve().parent.parent
SHARDS = ("shard-0", "shard-1", "shard-2")
PERSONS = 3000
PROBES = 60
DEADLINE_S = 2.0


@pytest.fixture(scope="module")
def shards() -> Iterator[ModuleType]:
    folder = str(ROOT / "scripts")
    sys.path.append(folder)  # the script imports its neighbours
    yield importlib.import_module("shards")
    sys.path.remove(folder)


@pytest.fixture(scope="module")
def sharding(shards: ModuleType) -> ModuleType:
    return sys.modules["sharding"]


@pytest.fixture(scope="module")
def pack() -> Any:
    return catalogue.find("default", [ROOT / "models"])


@pytest.fixture(scope="module")
def made(shards: ModuleType, pack: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return shards.make(tmp_path_factory.mktemp("shards"), pack, PERSONS, PROBES, SHARDS)


@pytest.fixture(scope="module")
def fleet(shards: ModuleType, pack: Any, made: Any) -> Iterator[Any]:
    with shards.Fleet(made.folder, pack, 50_000) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def figures(shards: ModuleType, fleet: Any, made: Any) -> Any:
    """Of the shards, which go on."""
    return shards.run(fleet, made, SHARDS, 1, DEADLINE_S)


def test_shards_find_whom_one_exact_search_of_all_finds(figures: Any) -> None:
    assert [answer.is_complete for answer in figures.answers] == [True] * PROBES
    assert figures.recall == 1
    assert sum(told["persons"] for told in figures.started) == PERSONS
    assert all(answer.persons_searched == PERSONS for answer in figures.answers)


@pytest.mark.usefixtures("figures")
def test_a_silent_shard_makes_no_strangers(shards: ModuleType, pack: Any, fleet: Any, made: Any) -> None:
    for silenced in asyncio.run(shards.silence(fleet, made, SHARDS, pack, DEADLINE_S)):
        assert silenced.violations() == []
        strangers = [one for one in silenced.during if one.person_id is None]
        assert strangers
        assert not any(one.decision.may_enrol for one in silenced.during)
        assert any(one.decision.may_enrol for one in silenced.before)
        told = silenced.during[-1].answer.told()
        assert (told["complete"], told["silent"]) == (False, [SHARDS[-1]])
        assert 0 < told["searched"] < 1
        assert any(one.decision.verdict.value == "match" for one in silenced.during)


def test_another_box_of_the_shard_answers_in_place_of_a_killed_one(shards: ModuleType, pack: Any, made: Any) -> None:
    with shards.Fleet(made.folder, pack, 50_000) as fleet:
        for shard in SHARDS[:2] * 2:
            fleet.start(shard)
        answers = asyncio.run(shards.lost_boxes(fleet, made, SHARDS[:2], DEADLINE_S))
    assert all(answer.is_complete for answer in answers)


def test_another_shard_takes_its_part_from_all_and_nobody_moves_otherwise(sharding: ModuleType) -> None:
    ids = [number.to_bytes(16, "big") for number in range(4000)]
    before = [sharding.owner(one, SHARDS) for one in ids]
    after = [sharding.owner(one, (*SHARDS, "shard-3")) for one in ids]
    moved = [new for old, new in zip(before, after, strict=True) if old != new]
    assert set(moved) == {"shard-3"}
    assert abs(len(moved) / len(ids) - 1 / 4) < 0.03
    assert all(abs(before.count(name) / len(ids) - 1 / 3) < 0.03 for name in SHARDS)


def test_silence_is_no_stranger_whatever_was_found_elsewhere(sharding: ModuleType, pack: Any) -> None:
    calibration = Calibration(pack.embedder.operating_points)
    policy = ThresholdPolicy(0.9, 0.8, 0.01, 0.1)

    def decided(score: float, silent: tuple[str, ...]) -> tuple[str, bool]:
        found = (sharding.Found(bytes(16), calibration.similarity(score)),)
        answer = sharding.Answer(found, 30, 30 - 10 * len(silent), silent, 0.1, 0.1)
        decision = sharding.decide(answer, policy, calibration)
        return decision.verdict.value, decision.may_enrol

    silent = ("shard-1",)
    assert [decided(0.95, silent), decided(0.85, silent), decided(0.5, silent)] == [
        ("match", False),
        ("uncertain", False),
        ("unknown", False),
    ]
    assert [decided(0.95, ()), decided(0.85, ()), decided(0.5, ())] == [
        ("match", False),
        ("uncertain", False),
        ("nobody", True),
    ]


def test_what_no_shard_says_is_refused(sharding: ModuleType) -> None:
    reply = sharding.Reply("shard-0", 3, 0.5, (sharding.Found(bytes(16), 0.25),))
    assert sharding.decoded(reply.encoded()) == reply
    for body in (b"", reply.encoded()[:-1], b"x"):
        with pytest.raises(ValueError, match="not what a shard says"):
            sharding.decoded(body)
