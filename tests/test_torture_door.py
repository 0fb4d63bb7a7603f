"""The short forms of the door's battery (scripts/torture_door): each verb once, at the real process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LOOSE = "100000"
"""For limits that are times: CI machines are busy, and figures are for the long forms."""

SHORT = {
    "malformed": ["--count", "300"],
    "bombs": ["--count", "1", "--milliseconds", LOOSE],
    "slow": [
        "--count=60",
        "--idle=20",
        "--seconds=2",
        "--deadline=2",
        "--idle-seconds=5",
        "--origin=many",
        "--growth",
        LOOSE,
    ],
    "smuggle": ["--straight"],
    "tokens": ["--count", "0"],
    "soak": ["--count", "60", "--sizes", "320x240"],
}


@pytest.fixture(scope="module")
def verbs() -> dict[str, Callable[[list[str]], int]]:
    sys.path.insert(0, str(ROOT / "scripts"))
    from torture_door import VERBS

    return VERBS


@pytest.mark.parametrize("verb", SHORT)
def test_the_door_holds(
    verb: str, verbs: dict[str, Callable[[list[str]], int]], capsys: pytest.CaptureFixture[str]
) -> None:
    code = verbs[verb](SHORT[verb])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert printed.out.splitlines()[-1].startswith(f"{verb}: ")
    assert printed.out.endswith("violations 0\n")


def test_a_violation_is_told_and_ends_with_1(verbs: object, capsys: pytest.CaptureFixture[str]) -> None:
    from torture_door.common import Answer, misshapen, report

    fine = Answer(400, {"content-type": "application/json; charset=utf-8"}, b'{"message":"m","status":"error"}')
    assert misshapen(fine) == ""
    for wrong in (
        Answer(500, fine.headers, fine.body),
        Answer(400, {"content-type": "text/html"}, fine.body),
        Answer(400, fine.headers, b'{"message":"m","status":"ok"}'),
        Answer(401, fine.headers, fine.body),
        Answer(200, fine.headers, b"[]"),
    ):
        assert misshapen(wrong)
    assert report("verb", {"sent": 2}, ["broke"]) == 1
    assert capsys.readouterr().out == "verb: sent 2, violations 1\n"
