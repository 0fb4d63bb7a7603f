"""The door of the story: everything that callers ask of recognition."""

from __future__ import annotations

from collections.abc import Callable

from edge.events import Listeners
from edge.gallery.identifiers import Identifiers
from edge.gallery.protocol import Gallery
from edge.matching import Calibration
from edge.recognition import acting, comparing, enrolment, faces, fusion, photos, strangers
from edge.recognition.acting import ActionResult, Searched
from edge.recognition.comparing import Comparison, Inspected
from edge.recognition.fusion import FusionResult
from edge.recognition.judging import CreateResult
from edge.recognition.passages import Passages
from edge.recognition.photos import PhotoRequest, Preview
from edge.recognition.requests import ActionRequest, CompareRequest, DetectRequest, FusionRequest, VectorSearch
from edge.recognition.room import Room, Settings, Workers
from edge.recognition.strangers import Group, NamingRequest, StrangersRequest
from edge.types import NewPersonLimits, Person, PersonCreate


class Recognizer:
    """Finds, judges and compares faces, and keeps those that nobody knew."""

    def __init__(
        self,
        *,
        workers: Workers,
        gallery: Gallery,
        listeners: Listeners,
        calibration: Calibration,
        cohort_weight: float,
        pack_id: str,
        settings: Settings,
        clock_ms: Callable[[], int],
        passages: Passages | None = None,
    ) -> None:
        self._room = Room(
            workers=workers,
            gallery=gallery,
            listeners=listeners,
            calibration=calibration,
            cohort_weight=cohort_weight,
            pack_id=pack_id,
            settings=settings,
            clock_ms=clock_ms,
            passages=passages,
            identifiers=Identifiers(clock_ms),
        )

    def create(self, request: PersonCreate) -> CreateResult:
        """Keep the faces that the list does not know; see enrolment.create."""
        return enrolment.create(self._room, request)

    def act(self, request: ActionRequest) -> ActionResult:
        """Search several lists, and add whom none of them knows; see acting.act."""
        return acting.act(self._room, request)

    def search(self, request: VectorSearch) -> tuple[Searched, ...]:
        """Search several lists by vectors; see acting.search."""
        return acting.search(self._room, request)

    def detect(self, request: DetectRequest) -> tuple[Inspected, ...]:
        """Find the faces of pictures; see comparing.detect."""
        return comparing.detect(self._room, request)

    def compare(self, request: CompareRequest) -> Comparison:
        """Compare the faces of two pictures; see comparing.compare."""
        return comparing.compare(self._room, request)

    def fuse(self, request: FusionRequest) -> FusionResult:
        """Add to what a person is recognised by; see fusion.fuse."""
        return fusion.fuse(self._room, request)

    def preview(self, list_id: str, image: bytes) -> Preview:
        """Look at a picture and keep nothing of it; see photos.preview."""
        return photos.preview(self._room, list_id, image)

    def add_photo(self, request: PhotoRequest) -> Person:
        """Add a photo to a person; see photos.add_photo."""
        return photos.add_photo(self._room, request)

    def strangers(self, request: StrangersRequest) -> tuple[Group, ...]:
        """Group who is nobody yet; see strangers.group."""
        return strangers.group(self._room, request)

    def name_strangers(self, request: NamingRequest) -> Person:
        """Let sightings be somebody's; see strangers.name."""
        return strangers.name(self._room, request)

    @property
    def superseded(self) -> int:
        """Frames that were given up for a newer one of the same source, since the start."""
        return self._room.workers.superseded

    @property
    def workload(self) -> dict[str, int]:
        """The workers, those that have a picture now, and the pictures that wait for one."""
        workers = self._room.workers
        return {"workers": workers.count, "workers_busy": workers.busy, "pictures_waiting": workers.waiting}

    @property
    def settings(self) -> Settings:
        """The plain numbers of the story."""
        return self._room.settings

    def threshold(self, list_size: int) -> float:
        """Return the score at which a face is a person of a list of that many, where nobody says otherwise."""
        return self._room.policy(NewPersonLimits()).at(list_size).match

    def thumb(self, portrait: bytes) -> bytes | None:
        """Return a stored portrait, made as small as a thumb; None where the file is damaged."""
        return faces.thumb_of(self._room, portrait)

    def self_check(self) -> None:
        """Send a blank picture through a worker and ask the gallery for its main list; hangs or raises if they do."""
        room = self._room
        with room.workers.one() as worker:
            worker.warm_up([worker.detector.smallest])
        room.gallery.find_list(room.gallery.main_list_id)
