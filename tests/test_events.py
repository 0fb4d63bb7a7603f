"""A listener cannot hurt the core, nor its neighbours."""

from __future__ import annotations

import logging

import pytest

from edge.events import Event, Listeners, PersonAdded, PersonReplaced

ADDED = PersonAdded("person", "list")


def failing(_: Event) -> None:
    raise RuntimeError("no broker")


def test_listeners_are_told_in_the_order_in_which_they_joined() -> None:
    heard: list[tuple[str, Event]] = []
    listeners = Listeners(lambda event: heard.append(("first", event)), lambda event: heard.append(("second", event)))
    listeners.join(lambda event: heard.append(("third", event)))
    listeners.tell(ADDED)
    assert heard == [("first", ADDED), ("second", ADDED), ("third", ADDED)]


def test_a_failing_listener_stops_neither_the_next_nor_the_teller(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Event] = []
    listeners = Listeners(failing, heard.append, failing, heard.append)
    with caplog.at_level(logging.ERROR, logger="edge.events"):
        listeners.tell(ADDED)
    assert heard == [ADDED, ADDED]
    assert [record.getMessage() for record in caplog.records] == ["a listener failed on PersonAdded"] * 2
    assert all(record.exc_info for record in caplog.records), "with its traceback"


def test_a_listener_that_failed_is_told_the_next_event_too() -> None:
    heard: list[Event] = []

    def first_time_failing(event: Event) -> None:
        heard.append(event)
        if len(heard) == 1:
            raise OSError("disk full")

    listeners = Listeners(first_time_failing)
    replaced = PersonReplaced("person", "list")
    listeners.tell(ADDED)
    listeners.tell(replaced)
    assert heard == [ADDED, replaced]


def test_being_told_to_stop_is_not_a_listener_s_fault() -> None:
    def stopped(_: Event) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Listeners(stopped).tell(ADDED)


def test_nobody_need_listen() -> None:
    Listeners().tell(ADDED)
