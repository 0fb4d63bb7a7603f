"""Groups of strangers that the same visits lead through: one person, whom likeness alone leaves in pieces.

Whoever turns the head or comes nearer may look unlike themselves a second before, and the two groups are then no more
alike than two look-alikes are. What tells them apart is time: a person's groups take turns within visits, those of two
people only meet where one visitor follows the other. Of four sources that played the clips of five people (two of them
look-alikes) in several orders, each clip right behind the other, groups of one person took turns at 20 to 50 % of the
smaller one's sightings, those of two people at 11 % at most.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence

from edge.types import Box, Sighting

SAME_VISIT_MS = 1000
"""Between two frames of a visit, at most."""

SAME_FRAME_MS = 20
"""Between the sightings of one frame, at most: each is stamped as it is decided."""

LEAST_SHARE = 0.15
"""Turns between two groups, of the smaller one's sightings, from which they are one person's."""

LEAST_TURNS = 2
"""At least so many: one is what any two visitors make, the one right behind the other."""

Pair = tuple[int, int]


def joined(
    sightings: Sequence[Sighting], groups: Sequence[Sequence[int]], is_alike: Callable[[int, int], bool]
) -> list[list[int]]:
    """Return the groups (of places among the sightings), those of one person as one.

    `is_alike`: whether the faces at two places, of frames that follow each other, may be of one visit. Two faces beside
    each other in one frame are two people, and so are the groups that they are in.
    """
    group_of = {place: number for number, group in enumerate(groups) for place in group}
    turns: Counter[Pair] = Counter()
    apart: set[Pair] = set()
    for frame, following in _frames(sightings):
        beside = ((a, b) for a, b in itertools.combinations(frame, 2) if _are_apart(sightings[a].box, sightings[b].box))
        apart |= {_pair(group_of[a], group_of[b]) for a, b in beside}
        pairs = [(a, b) for a in frame for b in following if group_of[a] != group_of[b]]
        turns.update({_pair(group_of[a], group_of[b]) for a, b in pairs if is_alike(a, b)})
    members = {number: {number} for number in range(len(groups))}
    for (a, b), count in sorted(turns.items(), key=lambda turn: (-turn[1], turn[0])):
        one, other = members[a], members[b]
        is_often = count >= max(LEAST_TURNS, LEAST_SHARE * min(len(groups[a]), len(groups[b])))
        if one is not other and is_often and not any(_pair(x, y) in apart for x in one for y in other):
            one |= other
            members |= dict.fromkeys(other, one)
    distinct = {min(ones): ones for ones in members.values()}
    return sorted(sorted(place for number in ones for place in groups[number]) for ones in distinct.values())


def _frames(sightings: Sequence[Sighting]) -> Iterator[tuple[Sequence[int], Sequence[int]]]:
    """Yield the faces (places) of each frame and those of the next of its source: none if it came too late for that."""
    sources: defaultdict[str, list[int]] = defaultdict(list)
    for place, one in enumerate(sightings):
        if one.source_id is not None:
            sources[one.source_id].append(place)
    for places in sources.values():
        frames: list[list[int]] = []
        for place in sorted(places, key=lambda one: sightings[one].time_ms):
            if frames and sightings[place].time_ms - sightings[frames[-1][0]].time_ms <= SAME_FRAME_MS:
                frames[-1].append(place)
            else:
                frames.append([place])
        for frame, following in zip(frames, [*frames[1:], []], strict=True):
            gap_ms = sightings[following[0]].time_ms - sightings[frame[-1]].time_ms if following else 0
            yield frame, following if gap_ms <= SAME_VISIT_MS else ()


def _are_apart(one: Box | None, other: Box | None) -> bool:
    """Whether the boxes do not touch."""
    if one is None or other is None:
        return False
    (x, y), (other_x, other_y) = one.centre, other.centre
    return abs(x - other_x) > (one.width + other.width) / 2 or abs(y - other_y) > (one.height + other.height) / 2


def _pair(a: int, b: int) -> Pair:
    return (a, b) if a < b else (b, a)
