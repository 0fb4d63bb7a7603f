"""Identifiers: version 1, rising, never twice, without a hardware address."""

from __future__ import annotations

import threading
import uuid
from typing import Any

from edge.gallery.identifiers import Identifiers


def test_are_version_1_uuids_of_their_time(clock: Any) -> None:
    made = uuid.UUID(Identifiers(clock).new())
    assert (made.version, made.variant) == (1, uuid.RFC_4122)
    unix_ms = (made.time - 0x01B21DD213814000) // 10_000
    assert unix_ms == clock.now_ms


def test_the_node_is_no_hardware_address_and_differs_between_starts(clock: Any) -> None:
    nodes = {uuid.UUID(Identifiers(clock).new()).node for _ in range(20)}
    assert len(nodes) == 20
    assert all(node >> 40 & 1 for node in nodes)  # the multicast bit, which no network card has


def test_rise_even_while_the_clock_stands_still_or_goes_back(clock: Any) -> None:
    identifiers = Identifiers(clock)
    made = [uuid.UUID(identifiers.new()) for _ in range(100)]
    clock.now_ms -= 86_400_000
    made += [uuid.UUID(identifiers.new()) for _ in range(100)]
    assert [one.time for one in made] == sorted({one.time for one in made})


def test_go_on_from_the_latest_time_ever_used(clock: Any) -> None:
    before = Identifiers(clock)
    last = uuid.UUID(before.new())
    clock.now_ms = 0  # a board without a battery
    assert uuid.UUID(Identifiers(clock, not_before_ms=before.latest_ms).new()).time > last.time


def test_never_come_twice_from_many_threads(clock: Any) -> None:
    identifiers, made = Identifiers(clock), []
    threads = [threading.Thread(target=lambda: made.extend([identifiers.new() for _ in range(1000)])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 8000
