"""Groups of strangers that the same visits lead through are one person's."""

from __future__ import annotations

from collections.abc import Sequence

from edge.recognition import visits
from edge.types import Box, Sighting, Verdict

LIST = "5f0c1b8e-0000-4000-8000-000000000000"
DOOR, GATE = "door", "gate"


def seen(times: Sequence[int], source: str | None = DOOR, x: float = 0.0) -> list[Sighting]:
    """Return sightings at these times, all at one place of the picture."""
    return [
        Sighting(
            sighting_id=f"{source} {x} {time_ms}",
            time_ms=time_ms,
            list_id=LIST,
            source_id=source,
            group_id=None,
            verdict=Verdict.REJECT,
            person_id=None,
            score=None,
            threshold=0.7,
            box=Box(x, 0.0, 80.0, 80.0),
        )
        for time_ms in times
    ]


def always(_a: int, _b: int) -> bool:
    return True


def test_groups_that_take_turns_in_a_visit_are_one_person() -> None:
    sightings = seen([200 * number for number in range(8)])
    turning = [[0, 1, 4, 5], [2, 3, 6, 7]]
    assert visits.joined(sightings, turning, always) == [list(range(8))]
    assert visits.joined(sightings, turning, lambda *_: False) == turning


def test_one_visitor_right_behind_another_stays_another() -> None:
    sightings = seen([200 * number for number in range(6)])
    assert visits.joined(sightings, [[0, 1, 2], [3, 4, 5]], always) == [[0, 1, 2], [3, 4, 5]]


def test_a_queue_that_meets_now_and_then_is_not_one_person() -> None:
    """Two that follow each other three times in forty sightings meet more than once, and still seldom."""
    starts = [0, 60_000, 120_000]
    sightings = seen([start + 200 * number for start in starts for number in range(40)])
    first = [place for place in range(120) if place % 40 < 20]
    second = [place for place in range(120) if place % 40 >= 20]
    assert visits.joined(sightings, [first, second], always) == [first, second]


def test_only_frames_of_one_source_within_a_second_make_a_visit() -> None:
    turning = [[0, 2, 4], [1, 3, 5]]
    assert visits.joined(seen(range(0, 1200, 200)), turning, always) == [[0, 1, 2, 3, 4, 5]]
    assert visits.joined(seen(range(0, 12_000, 2000)), turning, always) == turning
    assert visits.joined(seen(range(0, 1200, 200), None), turning, always) == turning
    two = seen(range(0, 1200, 400)) + seen(range(200, 1400, 400), GATE)
    assert visits.joined(two, [[0, 1, 2], [3, 4, 5]], always) == [[0, 1, 2], [3, 4, 5]]


def test_two_faces_of_one_frame_are_two_people() -> None:
    """However much they take turns, and whoever else would join them."""
    times = [0, 200, 400, 600, 800]
    one, other = seen(times), seen([time_ms + 3 for time_ms in times], x=300.0)
    groups = [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    assert visits.joined(one + other, groups, always) == groups
    same_place = seen([time_ms + 3 for time_ms in times])
    assert visits.joined(one + same_place, groups, always) == [list(range(10))]
    third = seen([1000, 1200, 1400, 1600])
    chain = [[0, 1, 2, 3, 4, 10, 12], [5, 6, 7, 8, 9], [11, 13]]
    found = visits.joined(one + other + third, chain, always)
    assert found == [[0, 1, 2, 3, 4, 10, 11, 12, 13], [5, 6, 7, 8, 9]]


def test_nobody_is_in_no_visit() -> None:
    assert visits.joined([], [], always) == []
