"""How often an address may try a password."""

from __future__ import annotations

import threading

import pytest

from edge.errors import TooManyAttempts, TooManyRequests
from edge.web.attempts import MOST_FAILURES, SLOW_SECONDS, SLOWED_AT_ONCE, Attempts, Pace, WrongTokens


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


# --- wrong tokens, and the pace of right ones ---


def test_wrong_tokens_are_slowed_from_half_of_them_on_and_then_refused(clock: Clock) -> None:
    paused: list[float] = []
    wrong = WrongTokens(4, clock=clock, pause=paused.append)
    for expected in (0, 0, 1, 2):
        wrong.denied("192.0.2.1")
        assert len(paused) == expected
    with pytest.raises(TooManyAttempts):
        wrong.denied("192.0.2.1")
    wrong.denied("192.0.2.2")
    clock.now += 60
    wrong.denied("192.0.2.1")
    assert paused == [SLOW_SECONDS] * 2


def test_few_are_held_back_at_once_and_the_rest_not_at_all(clock: Clock) -> None:
    held: list[str] = []

    def pause(_seconds: float) -> None:
        held.append("")
        wrong.denied("192.0.2.1")  # another comes while this one is held back

    wrong = WrongTokens(100, clock=clock, pause=pause)
    for _ in range(51):
        wrong.denied("192.0.2.1")
    assert len(held) == SLOWED_AT_ONCE


def test_addresses_and_tokens_are_forgotten_where_they_are_too_many(clock: Clock) -> None:
    wrong = WrongTokens(1, clock=clock, most_addresses=2)
    pace = Pace(1, clock=clock, most_tokens=2)
    for number in range(3):
        wrong.denied(str(number))
        pace.admit(str(number))
    wrong.denied("0")
    pace.admit("0")
    with pytest.raises(TooManyAttempts):
        wrong.denied("2")
    with pytest.raises(TooManyRequests):
        pace.admit("2")


def test_a_token_may_make_so_many_requests_a_second(clock: Clock) -> None:
    pace = Pace(4, clock=clock)
    for _ in range(4):
        pace.admit("a")
    with pytest.raises(TooManyRequests):
        pace.admit("a")
    pace.admit("b")
    clock.now += 0.25
    pace.admit("a")
    with pytest.raises(TooManyRequests):
        pace.admit("a")
    clock.now += 1000
    for _ in range(4):
        pace.admit("a")
    with pytest.raises(TooManyRequests):
        pace.admit("a")


def test_without_a_limit_no_token_is_counted(clock: Clock) -> None:
    pace = Pace(0, clock=clock)
    for _ in range(100):
        pace.admit("a")
