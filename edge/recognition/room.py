"""What every part of the story works with: the analysers and their line, the gallery, the listeners, the numbers."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field

from edge.errors import Mistake, Superseded, TooBusy
from edge.events import Listeners, StageDone
from edge.face import image
from edge.face.analysis import Analyser
from edge.face.image import Frame
from edge.face.passes import Size
from edge.gallery.identifiers import Identifiers
from edge.gallery.protocol import Gallery
from edge.matching import Calibration, ThresholdPolicy
from edge.recognition.passages import Passages
from edge.types import FeatureBound, Limit, NewPersonLimits

STREAMS = 1000
"""Sources and sizes of frames that are remembered: an id that no source has is taken as it is, so there is no end."""


@dataclass(frozen=True)
class Settings:
    """The plain numbers of the story; default.conf says what each is."""

    max_pixels: int
    min_side_pixels: int
    detector_size: Size | None
    """None: the passes follow from `min_face_pixels` and the picture's size."""
    min_face_pixels: float
    presence_floor: float
    threshold: float | None
    threshold_score: float | None
    margin: float
    false_positive_rate: float
    square_min: float
    yaw_max: float
    pitch_max: float
    limits: tuple[Limit, ...]
    """The appliance's own, beside those that a request can name."""
    passage_frames: int
    """Frames of one visit that somebody new must have been seen in, where frames are decided together."""
    portrait_pixels: int
    portrait_quality: int
    keeps_sightings: bool
    sighting_pictures: bool


class Workers:
    """As many analysers as pictures may be worked on at once, and a bounded line of those who wait for one.

    Of the frames of one stream that wait, only the newest stays in the line: by the time an older one had its turn,
    the camera would have seen something else.
    """

    def __init__(self, analysers: Sequence[Analyser], *, max_waiting: int) -> None:
        # The last one given back first: its weights are still in the processor's cache.
        self._free = [*analysers]
        self.count = len(analysers)
        self._changed = threading.Condition()
        self._line: list[object] = []
        self._newest: dict[Hashable, object] = {}
        """Of each stream with a frame in the line."""
        self.superseded = 0
        """Frames that were given up for a newer one, since the start."""
        self._places = threading.Semaphore(len(analysers) + max_waiting)

    @property
    def busy(self) -> int:
        """Workers that are lent."""
        return self.count - len(self._free)

    @property
    def waiting(self) -> int:
        """Pictures that wait for a worker."""
        return len(self._line)

    @contextlib.contextmanager
    def admitted(self) -> Iterator[None]:
        """Hold a place in the line for the length of a request; TooBusy at once if there is none."""
        if not self._places.acquire(blocking=False):
            raise TooBusy
        try:
            yield
        finally:
            self._places.release()

    @contextlib.contextmanager
    def one(self, stream: Hashable = None) -> Iterator[Analyser]:
        """Lend an analyser; only for who has been admitted, so the wait is as long as the line at most.

        `stream`: whose frame it is for; where a newer one of the stream joins the line, Superseded. None: of none.
        """
        analyser = self._taken(stream)
        try:
            yield analyser
        finally:
            with self._changed:
                self._free.append(analyser)
                self._changed.notify_all()

    def _taken(self, stream: Hashable) -> Analyser:
        mine = object()
        with self._changed:
            self._line.append(mine)
            if stream is not None:
                self._newest[stream] = mine
                self._changed.notify_all()
            try:
                while not (self._free and self._line[0] is mine):
                    if self._newest.get(stream, mine) is not mine:
                        self.superseded += 1
                        raise Superseded(Mistake("image", "a newer frame of this source came before its turn"))
                    self._changed.wait()
                return self._free.pop()
            finally:
                self._line.remove(mine)
                if self._newest.get(stream) is mine:
                    del self._newest[stream]
                self._changed.notify_all()  # whoever is first now


class Closeups:
    """Which sources have lately shown faces that need the whole frame: a guess at what the next frame needs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._streams: OrderedDict[Hashable, None] = OrderedDict()

    def has(self, stream: Hashable) -> bool:
        """Whether the stream's last frame needed it."""
        with self._lock:
            return stream in self._streams

    def note(self, stream: Hashable, *, needed: bool) -> None:
        """Remember what the stream's last frame needed."""
        with self._lock:
            self._streams.pop(stream, None)
            if needed:
                self._streams[stream] = None
                if len(self._streams) > STREAMS:
                    self._streams.popitem(last=False)


@dataclass(frozen=True, eq=False)
class Room:
    """The parts, and the settings applied to what a request asked for."""

    workers: Workers
    gallery: Gallery
    listeners: Listeners
    calibration: Calibration
    cohort_weight: float
    pack_id: str
    settings: Settings
    clock_ms: Callable[[], int]
    passages: Passages | None
    """None: every frame is decided for itself."""
    identifiers: Identifiers
    """Of sightings."""
    closeups: Closeups = field(default_factory=Closeups)

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Tell the listeners what the stage took, where it came to its end."""
        started = time.perf_counter()
        yield
        self.listeners.tell(StageDone(stage, time.perf_counter() - started))

    def frame(self, data: bytes) -> Frame:
        """Return the picture, not decoded yet. Raises UnknownPicture, PictureTooSmall."""
        return image.opened(data, max_pixels=self.settings.max_pixels, min_side=self.settings.min_side_pixels)

    def policy(self, asked: NewPersonLimits) -> ThresholdPolicy:
        """Return the thresholds: the request's own, else the setting's."""
        settings = self.settings
        return ThresholdPolicy(
            match=settings.threshold if asked.threshold is None else asked.threshold,
            uncertain=settings.threshold_score if asked.threshold_score is None else asked.threshold_score,
            false_positive_rate=settings.false_positive_rate,
            margin=settings.margin,
        )

    def limits(self, asked: NewPersonLimits, features: Sequence[FeatureBound]) -> tuple[Limit, ...]:
        """Return what a face must keep to, to be added: the request's limits, the appliance's, and bounded features."""
        settings = self.settings
        square_min = settings.square_min if asked.square_min is None else asked.square_min
        bounds = tuple(
            Limit(bound.name, bound.name, least=bound.least, most=bound.most)
            for bound in features
            if bound.least is not None or bound.most is not None
        )
        return (Limit("size", "size", least=square_min), *self.pose_limits(asked), *settings.limits, *bounds)

    def pose_limits(self, asked: NewPersonLimits) -> tuple[Limit, Limit]:
        """Return the limits of yaw and pitch."""
        yaw_max = self.settings.yaw_max if asked.yaw_max is None else asked.yaw_max
        pitch_max = self.settings.pitch_max if asked.pitch_max is None else asked.pitch_max
        return Limit("yaw", "yaw", most=yaw_max, absolute=True), Limit("pitch", "pitch", most=pitch_max, absolute=True)
