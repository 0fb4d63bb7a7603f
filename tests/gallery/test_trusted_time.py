"""The time that is believed while the clock jumps about."""

from __future__ import annotations

import pytest

from edge.gallery.trusted_time import BELIEVED_SECONDS, LEAP_MS, TrustedTime

NOW = 1_780_000_000_000
DAY_MS = 86_400_000
FAR = NOW + 70 * 365 * DAY_MS


class Monotonic:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def monotonic() -> Monotonic:
    return Monotonic()


def test_where_nothing_is_known_the_clock_is_believed(monotonic: Monotonic) -> None:
    assert TrustedTime(0, follows_back=False, monotonic=monotonic).now(NOW) == NOW


@pytest.mark.parametrize("follows_back", [False, True])
def test_a_clock_that_is_nearly_right_is_followed_ahead_and_not_back(monotonic: Monotonic, follows_back: bool) -> None:
    trusted = TrustedTime(NOW, follows_back=follows_back, monotonic=monotonic)
    assert trusted.now(NOW + LEAP_MS) == NOW + LEAP_MS
    monotonic.seconds += 10
    assert trusted.now(NOW) == NOW + LEAP_MS + 10_000


def test_a_leap_ahead_is_believed_after_an_hour(monotonic: Monotonic) -> None:
    trusted = TrustedTime(NOW, follows_back=False, monotonic=monotonic)
    assert trusted.now(FAR) == NOW
    monotonic.seconds += BELIEVED_SECONDS - 1
    assert trusted.now(FAR + (BELIEVED_SECONDS - 1) * 1000) == NOW + (BELIEVED_SECONDS - 1) * 1000
    monotonic.seconds += 1
    assert trusted.now(FAR + BELIEVED_SECONDS * 1000) == FAR + BELIEVED_SECONDS * 1000


def test_a_clock_that_was_put_right_within_the_hour_begins_anew(monotonic: Monotonic) -> None:
    trusted = TrustedTime(NOW, follows_back=False, monotonic=monotonic)
    trusted.now(FAR)
    monotonic.seconds += 1800
    assert trusted.now(NOW + 1_800_000) == NOW + 1_800_000
    monotonic.seconds += 1800
    assert trusted.now(FAR) == NOW + 3_600_000, "the second leap has an hour of its own"


def test_a_clock_that_leaps_about_is_never_believed(monotonic: Monotonic) -> None:
    trusted = TrustedTime(NOW, follows_back=True, monotonic=monotonic)
    for number in range(20):
        assert trusted.now(FAR + number * 30 * DAY_MS) == NOW + number * 1_800_000
        monotonic.seconds += 1800


def test_a_leap_back_is_believed_only_by_who_follows_back(monotonic: Monotonic) -> None:
    history, tokens = (TrustedTime(NOW, follows_back=one, monotonic=monotonic) for one in (True, False))
    back = NOW - 100 * DAY_MS
    assert history.now(back) == tokens.now(back) == NOW
    monotonic.seconds += BELIEVED_SECONDS
    back += BELIEVED_SECONDS * 1000
    assert history.now(back) == back
    assert tokens.now(back) == NOW + BELIEVED_SECONDS * 1000


@pytest.mark.parametrize("follows_back", [False, True])
def test_a_board_that_begins_in_1970_at_every_start_still_ages(monotonic: Monotonic, follows_back: bool) -> None:
    kept, day = NOW, 20 * 3600
    for _ in range(30):
        trusted = TrustedTime(kept, follows_back=follows_back, monotonic=monotonic)
        trusted.now(0)
        monotonic.seconds += day
        kept = trusted.now(day * 1000)
    assert kept == NOW + 30 * day * 1000
