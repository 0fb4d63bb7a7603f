"""Who watches is told everything in order, of their own list and source, and never holds anybody up."""

from __future__ import annotations

import pytest

from edge.errors import TooManyStreams
from edge.events import FaceSighted, PersonAdded, SightingRecorded
from edge.types import Sighting, Verdict
from edge.web.watching import WAITING, Live


def sighting(number: int, list_id: str = "staff", source_id: str | None = "door") -> Sighting:
    return Sighting(
        sighting_id=str(number),
        time_ms=number,
        list_id=list_id,
        source_id=source_id,
        group_id=None,
        verdict=Verdict.REJECT,
        person_id=None,
        score=None,
        threshold=0.7,
        box=None,
        picture=b"face",
    )


def test_of_more_than_may_wait_the_oldest_are_dropped_and_counted() -> None:
    live = Live(1, has_history=True)
    watcher = live.open(None, None)
    for number in range(WAITING + 5):
        live.listen(SightingRecorded(sighting(number), None))
    news = watcher.take(0)
    assert news is not None
    assert (news.missed, len(news.sightings), news.sightings[0].sighting.sighting_id) == (5, WAITING, "5")
    after = watcher.take(0)
    assert after is not None
    assert (after.missed, after.sightings) == (0, ())


def test_each_sees_their_own_list_and_source() -> None:
    live = Live(3, has_history=True)
    watchers = [live.open(None, None), live.open("staff", None), live.open("staff", "door")]
    for number, (list_id, source_id) in enumerate([("staff", "door"), ("staff", None), ("guests", "door")]):
        live.listen(SightingRecorded(sighting(number, list_id, source_id), None))
    taken = [watcher.take(0) for watcher in watchers]
    assert [[one.sighting.sighting_id for one in news.sightings] for news in taken if news] == [
        ["0", "1", "2"],
        ["0", "1"],
        ["0"],
    ]


@pytest.mark.parametrize("has_history", [True, False])
def test_without_a_history_a_sighting_is_told_when_it_is_seen(has_history: bool) -> None:
    live = Live(1, has_history=has_history)
    watcher = live.open(None, None)
    live.listen(FaceSighted(sighting(1)))
    live.listen(PersonAdded("somebody", "staff"))
    news = watcher.take(0)
    assert news is not None
    assert [one.sighting.picture for one in news.sightings] == ([] if has_history else [None])


def test_an_end_wakes_and_a_place_is_free_once() -> None:
    live = Live(1, has_history=True)
    watcher = live.open(None, None)
    with pytest.raises(TooManyStreams):
        live.open(None, None)
    watcher.end()
    assert watcher.take(60) is None
    live.close(watcher)
    live.close(watcher)
    live.open(None, None)
    with pytest.raises(TooManyStreams):
        live.open(None, None)
