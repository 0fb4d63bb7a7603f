"""How often an address may try a password."""

from __future__ import annotations

import threading

import pytest

from edge.errors import TooManyAttempts
from edge.web.attempts import MOST_FAILURES, Attempts


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def fail(attempts: Attempts, address: str, times: int) -> None:
    for _ in range(times):
        attempts.begin(address)


def test_the_eleventh_within_a_minute_is_refused_and_other_addresses_are_not(clock: Clock) -> None:
    attempts = Attempts(clock=clock)
    fail(attempts, "a", 10)
    with pytest.raises(TooManyAttempts):
        attempts.begin("a")
    attempts.begin("b")


def test_a_failure_is_forgotten_after_a_minute_and_a_refusal_is_none(clock: Clock) -> None:
    attempts = Attempts(clock=clock)
    for _ in range(10):
        attempts.begin("a")
        clock.now += 1
    for _ in range(20):  # asking again does not make it longer
        with pytest.raises(TooManyAttempts):
            attempts.begin("a")
    clock.now = 1060.0
    attempts.begin("a")
    with pytest.raises(TooManyAttempts):
        attempts.begin("a")


def test_who_knows_the_password_is_never_refused(clock: Clock) -> None:
    attempts = Attempts(clock=clock)
    fail(attempts, "a", 9)
    for _ in range(50):
        attempts.begin("a")
        attempts.succeeded("a")


def test_memory_is_bounded(clock: Clock) -> None:
    attempts = Attempts(clock=clock, most_addresses=3)
    fail(attempts, "first", 10)
    for number in range(3):
        attempts.begin(str(number))
    attempts.begin("first")  # forgotten
    assert len(attempts._failures) == 3


def test_many_at_once_do_not_slip_through(clock: Clock) -> None:
    attempts = Attempts(clock=clock)
    passed: list[int] = []
    start = threading.Barrier(40)

    def attempt(number: int) -> None:
        start.wait()
        try:
            attempts.begin("a")
        except TooManyAttempts:
            return
        passed.append(number)

    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(passed) == MOST_FAILURES
