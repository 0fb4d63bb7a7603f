"""The story with its real parts behind it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge import assembly, config
from edge.events import Listeners
from edge.face.analysis import Analyser
from edge.gallery.store import EmbeddedGallery
from edge.matching import Calibration
from edge.recognition import Recognizer, Workers
from edge.types import Pack


@pytest.fixture
def gallery(tmp_path: Path, pack: Pack) -> Iterator[EmbeddedGallery]:
    opened = EmbeddedGallery.open(
        tmp_path,
        pack_id=pack.id,
        vector_length=pack.embedder.vector_length,
        cohort_weight=pack.embedder.cohort_weight,
        exact_limit=1000,
        main_list_name="main",
        clock=assembly.now_ms,
    )
    yield opened
    opened.close()


@pytest.fixture
def recognizer(gallery: EmbeddedGallery, pack: Pack, analyser: Analyser) -> Recognizer:
    return Recognizer(
        workers=Workers([analyser], max_waiting=1),
        gallery=gallery,
        listeners=Listeners(),
        calibration=Calibration(pack.embedder.operating_points),
        cohort_weight=pack.embedder.cohort_weight,
        pack_id=pack.id,
        settings=assembly.recognition_settings(config.load(Path("/dev/null"), environment={})),
        clock_ms=assembly.now_ms,
    )
