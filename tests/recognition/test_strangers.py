"""Who is nobody yet, grouped: by likeness, and by the visits that their sightings make."""

from __future__ import annotations

import math

import numpy as np

from edge import assembly
from edge.gallery.history import History
from edge.gallery.store import EmbeddedGallery
from edge.matching import Calibration
from edge.recognition import Recognizer, StrangersRequest
from edge.recognition.passages import SAME_VISIT_SCORE
from edge.types import Box, Embedding, Pack, Sighting, Verdict

EVERYBODY = StrangersRequest(list_id=None, source_id=None, first_ms=None, last_ms=None, groups=100)
TURN = (0, 1, 2, 1)
"""A head that turns and turns back: each look is like the one before, the first and the last are not alike."""


def looks(pack: Pack, list_id: str, number: int, first_ms: int) -> list[Sighting]:
    """Return the sightings of somebody who turns the head for two seconds, four frames a second."""
    near = Calibration(pack.embedder.operating_points).similarity(SAME_VISIT_SCORE) + 0.01
    sightings = []
    for frame in range(8):
        angle = TURN[frame % 4] * math.acos(near)
        vector = np.zeros(pack.embedder.vector_length, np.float32)
        vector[2 * number : 2 * number + 2] = math.cos(angle), math.sin(angle)
        sightings.append(
            Sighting(
                sighting_id=f"{number} {frame}",
                time_ms=first_ms + 250 * frame,
                list_id=list_id,
                source_id="door",
                group_id=None,
                verdict=Verdict.REJECT,
                person_id=None,
                score=None,
                threshold=0.7,
                box=Box(0.0, 0.0, 90.0, 90.0),
                embedding=Embedding(vector, 0.0),
                pack_id=pack.id,
            )
        )
    return sightings


def test_a_head_that_turns_in_one_visit_is_one_person_and_two_visitors_are_two(
    recognizer: Recognizer, gallery: EmbeddedGallery, pack: Pack
) -> None:
    history = History(gallery.database, gallery.pictures, clock=assembly.now_ms, batch_seconds=0.01)
    now = assembly.now_ms()
    for number in (0, 1):  # one behind the other
        for one in looks(pack, gallery.main_list_id, number, now + 2000 * number):
            history.record(one)
    history.close()
    groups = recognizer.strangers(EVERYBODY)
    told = [[one.sighting.sighting_id.partition(" ")[0] for one in group.sightings] for group in groups]
    assert told == [["1"] * 8, ["0"] * 8]
