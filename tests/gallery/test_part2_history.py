"""One sighting of the history, by its id."""

from __future__ import annotations

from typing import Any

from edge.gallery.history import History
from edge.gallery.store import EmbeddedGallery
from edge.types import Box, Reason, Sighting, Verdict


def test_a_sighting_is_found_by_its_id(gallery: EmbeddedGallery, faces: Any, clock: Any) -> None:
    person = faces.enrol(gallery, 1).person
    history = History(gallery.database, gallery.pictures, clock=clock, batch_seconds=0.0)
    for number in range(3):
        reasons = (Reason("yaw", 50.0, 45.0),)
        history.record(
            Sighting(
                sighting_id=f"sighting {number}",
                time_ms=clock(),
                list_id=gallery.main_list_id,
                source_id="door",
                group_id=None,
                verdict=Verdict.MATCH,
                person_id=person.person_id,
                score=0.9,
                threshold=0.7,
                box=Box(1, 2, 3, 4),
                reasons=reasons,
                picture=f"seen {number}".encode(),
            )
        )
    assert history.flush()
    found = history.sighting("sighting 1")
    assert found == history.page().sightings[1]
    assert found is not None
    assert gallery.picture(found.picture or "") == b"seen 1"
    assert history.sighting("nothing") is None
    gallery.delete_persons(gallery.main_list_id, [person.person_id])
    assert history.sighting("sighting 1") is None
    history.close()
