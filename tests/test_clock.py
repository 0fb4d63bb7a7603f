"""The real process on boards whose clock is wrong: in 1970 after every start, or years ahead."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_process import Service

DAY = 86_400

SHIFT = """\
import os, time
_right, _shift = time.time_ns, int(os.environ["CLOCK_SHIFT_SECONDS"]) * 10**9
time.time_ns = lambda: _right() + _shift
time.time = lambda: time.time_ns() / 1e9
"""
"""What Python imports at every start: the process then has another clock, and the rest of the machine keeps its own."""


class WrongClock(Service):
    """The appliance on a board whose clock is so many seconds ahead."""

    def __init__(self, folder: Path, shifts: Path) -> None:
        super().__init__(folder)
        self.shift_seconds = 0
        self.shifts = shifts
        (shifts / "sitecustomize.py").write_text(SHIFT)

    def environment(self) -> dict[str, str]:
        there = super().environment()
        paths = [str(self.shifts), *filter(None, [there.get("PYTHONPATH")])]
        return {**there, "PYTHONPATH": os.pathsep.join(paths), "CLOCK_SHIFT_SECONDS": str(self.shift_seconds)}

    def started_at(self, shift_seconds: int) -> WrongClock:
        if self.process is not None:
            assert self.end() == 0
        self.shift_seconds = shift_seconds
        self.start()
        return self

    def status(self, token: str) -> int:
        answer = self.session.post(f"{self.url}/v1/person/lists", headers={"token": token}, timeout=30)
        return answer.status_code


@pytest.fixture
def service(tmp_path: Path) -> Iterator[WrongClock]:
    (tmp_path / "shift").mkdir()
    made = WrongClock(tmp_path / "data", tmp_path / "shift")
    yield made
    if made.process is not None:
        made.end()


def in_1970() -> int:
    return 60 - int(time.time())


def logged_in(service: WrongClock, valid_days: int) -> str:
    command = [sys.executable, "-m", "edge", "user", "add", "ann@example.org"]
    subprocess.run(command, env=service.environment(), input="secret-1\n", check=True, capture_output=True, text=True)
    body = {"email": "ann@example.org", "password": "secret-1", "valid_days": valid_days}
    answer = service.session.post(f"{service.url}/v1/user/login", json=body, timeout=30)
    return str(answer.json()["token"])


def test_a_start_in_1970_stops_nothing_and_uses_no_id_again(service: WrongClock, photos: dict[str, bytes]) -> None:
    service.started_at(0)
    camera = service.token("enrol")
    first = service.create(photos["obama-1"], camera).json()["persons"][0]["person_id"]
    service.started_at(in_1970())
    known = service.create(photos["obama-2"], camera)
    assert (known.status_code, known.json()["matches"][0]["person_id"]) == (201, first)
    second = service.create(photos["biden-1"], camera).json()["persons"][0]["person_id"]
    service.started_at(0)
    third = service.create(photos["collins-1"], camera).json()["persons"][0]["person_id"]
    assert len({first, second, third}) == 3
    reader, deadline = service.token("read"), time.monotonic() + 30
    while True:
        answer = service.session.post(f"{service.url}/v1/history", headers={"token": reader}, timeout=30).json()
        if len(answer["sightings"]) == 4 or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    assert len(answer["sightings"]) == 4
    assert all(one["time"] > "2026" for one in answer["sightings"]), "1970 is no time that anything was seen"


def test_a_token_that_has_expired_stays_so_in_1970(service: WrongClock) -> None:
    service.started_at(0)
    token = logged_in(service, valid_days=1)
    assert service.status(token) == 200
    assert service.started_at(DAY + 3600).status(token) == 401
    assert service.started_at(in_1970()).status(token) == 401


def test_a_picture_address_that_has_expired_stays_so_in_1970(service: WrongClock, photos: dict[str, bytes]) -> None:
    service.started_at(0)
    camera = service.token("enrol")

    def address() -> str:
        answer = service.create(photos["obama-1"], camera).json()
        [person] = answer["persons"] or answer["matches"]
        return "/images/" + person["image_url"].partition("/images/")[2]

    def status(path: str) -> int:
        return service.session.get(service.url + path, timeout=30).status_code

    old = address()
    assert status(old) == 200
    service.started_at(DAY + 3600)
    assert status(old) == 401
    service.started_at(in_1970())
    assert (status(old), status(address())) == (401, 200)


def test_a_start_years_ahead_ends_no_token_and_no_history(service: WrongClock, photos: dict[str, bytes]) -> None:
    service.started_at(0)
    service.create(photos["obama-1"])
    token = logged_in(service, valid_days=1)
    ahead = 70 * 365 * DAY
    assert service.started_at(ahead).status(token) == 401, "while it is ahead there is no telling"
    assert service.started_at(0).status(token) == 200
    answer = service.session.post(f"{service.url}/v1/history", headers={"token": token}, timeout=30).json()
    assert len(answer["sightings"]) == 1


def test_health_says_that_the_clock_is_not_believed(service: WrongClock) -> None:
    def clock() -> str:
        return str(service.session.get(f"{service.url}/health", timeout=30).json()["clock"])

    assert [service.started_at(shift) and clock() for shift in (0, 30 * DAY, in_1970(), DAY)] == [
        "ok",
        "ahead",
        "behind",
        "ok",
    ]


def test_an_orderly_stop_keeps_the_time_to_the_second(service: WrongClock) -> None:
    service.started_at(0)
    service.token("read")
    began_ms = time.time() * 1000
    while time.time() * 1000 < began_ms + 1:
        time.sleep(0.01)
    assert service.end() == 0
    with contextlib.closing(sqlite3.connect(service.folder / "access.sqlite3")) as access:
        assert access.execute("SELECT latest_ms FROM clock").fetchone()[0] > began_ms


def test_the_way_back_is_for_a_service_that_is_stopped(service: WrongClock) -> None:
    service.started_at(0)
    with pytest.raises(subprocess.CalledProcessError) as refused:
        service.edge("token", "set-clock")
    assert "in use by another process" in refused.value.stderr
    service.end()
    assert "present time" in service.edge("token", "set-clock")
