"""A group hears of the lists that it asked about, and of nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge import assembly, config
from edge.events import Event, FaceSighted, FrameSeen, ListAlertRaised, Listeners, StageDone
from edge.face.analysis import Analyser
from edge.gallery.history import History
from edge.gallery.store import EmbeddedGallery
from edge.matching import Calibration
from edge.recognition import ActionRequest, Recognizer, Workers
from edge.types import ListAlert, NewPersonLimits, Pack, PersonCreate


@pytest.fixture
def gallery(tmp_path: Path, pack: Pack) -> Iterator[EmbeddedGallery]:
    assert pack.embedder.cohort is not None
    gallery = EmbeddedGallery.open(
        tmp_path,
        pack_id=pack.id,
        vector_length=pack.embedder.vector_length,
        cohort_weight=pack.embedder.cohort.weight,
        exact_limit=1000,
        main_list_name="main",
        clock=assembly.now_ms,
    )
    yield gallery
    gallery.close()


@pytest.fixture
def heard() -> list[Event]:
    return []


@pytest.fixture
def recognizer(gallery: EmbeddedGallery, pack: Pack, analyser: Analyser, heard: list[Event]) -> Recognizer:
    assert pack.embedder.cohort is not None
    return Recognizer(
        workers=Workers([analyser], max_waiting=1),
        gallery=gallery,
        listeners=Listeners(heard.append),
        calibration=Calibration(pack.embedder.operating_points),
        cohort_weight=pack.embedder.cohort.weight,
        pack_id=pack.id,
        settings=assembly.recognition_settings(config.load(Path("/dev/null"), environment={})),
        clock_ms=assembly.now_ms,
    )


def alerts(heard: list[Event]) -> list[ListAlertRaised]:
    found = [event for event in heard if isinstance(event, ListAlertRaised)]
    heard.clear()
    return found


def test_alerts_of_a_group(
    gallery: EmbeddedGallery, recognizer: Recognizer, photos: dict[str, bytes], heard: list[Event]
) -> None:
    staff, banned, quiet = (gallery.create_list(name).list_id for name in ("staff", "banned", "quiet"))
    group = gallery.create_group(
        "door",
        (ListAlert(staff, "open", "call"), ListAlert(banned, {"topic": "siren"}, None), ListAlert(quiet, "", "")),
    )
    source = gallery.create_source("camera", group.group_id)
    obama = PersonCreate(image=photos["obama-1"], list_id=staff, source_id=source.source_id)

    recognizer.create(obama)
    (stranger,) = alerts(heard)
    assert (stranger.list_id, stranger.wanted, stranger.person_id) == (staff, "call", None), "before they were added"
    assert (stranger.group_id, stranger.sighting.source_id) == (group.group_id, source.source_id)

    recognizer.create(obama)
    (known,) = alerts(heard)
    assert (known.list_id, known.wanted) == (staff, "open")
    assert known.person_id is not None and known.score is not None and known.score >= 0.7

    recognizer.create(PersonCreate(image=photos["biden-1"], list_id=banned))
    assert alerts(heard) == [], "no source, no group, no alert"
    recognizer.act(ActionRequest(image=photos["biden-1"], search_lists=(staff,), source_id=source.source_id))
    assert [(one.list_id, one.wanted) for one in alerts(heard)] == [(staff, "call"), (banned, {"topic": "siren"})]


def test_a_face_that_is_not_somebody_of_the_list_is_reported_as_failed(
    gallery: EmbeddedGallery, recognizer: Recognizer, photos: dict[str, bytes], heard: list[Event]
) -> None:
    staff, guests = (gallery.create_list(name).list_id for name in ("staff", "guests"))
    group = gallery.create_group("door", (ListAlert(staff, "open", "call"),)).group_id
    recognizer.create(PersonCreate(image=photos["obama-1"], list_id=staff))
    limits = NewPersonLimits(threshold=0.3)  # so low that they are taken for each other
    biden = PersonCreate(image=photos["biden-1"], list_id=guests, group_id=group, limits=limits)
    heard.clear()
    recognizer.create(biden)
    (wrong,) = alerts(heard)
    assert wrong.wanted == "open" and wrong.person_id is not None

    history = History(gallery.database, gallery.pictures, clock=assembly.now_ms)
    history.record(wrong.sighting)
    history.close()
    gallery.reject(staff, wrong.person_id, wrong.sighting.sighting_id)
    recognizer.create(biden)
    (right,) = alerts(heard)
    assert (right.wanted, right.person_id) == ("call", None)


def test_looking_without_recording_raises_nothing(
    gallery: EmbeddedGallery, recognizer: Recognizer, photos: dict[str, bytes], heard: list[Event]
) -> None:
    group = gallery.create_group("door", (ListAlert(gallery.main_list_id, "open", "call"),))
    recognizer.create(PersonCreate(image=photos["obama-1"], group_id=group.group_id, embedding_only=True))
    assert [event for event in heard if not isinstance(event, StageDone | FrameSeen)] == []
    recognizer.create(PersonCreate(image=photos["obama-1"], group_id=group.group_id))
    assert [type(event) for event in heard if not isinstance(event, FaceSighted | StageDone | FrameSeen)][
        -1
    ] is ListAlertRaised
