"""A camera that posts nothing by itself is watched: of everything that moves before it, the best frame is posted.

A process of its own beside the service. One thread reads, for a camera whose frames nobody takes falls behind; another
posts, and where the service is slower than the camera, the newest frame takes the place of the one that waits.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from edge.face.stream import Frame, Motion, Stream, jpeg, sharpness
from edge.people.api import Api, ApiRefusal

log = logging.getLogger(__name__)

FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 60.0
"""Before a camera that is away is asked again: twice as long each time."""


@dataclass(frozen=True)
class Gate:
    """What counts as somebody passing."""

    least_motion: float = 0.01
    """Share of the picture that has to change: head and shoulders around a face of 50 pixels in 1080p are as much."""
    passage_seconds: float = 1.0
    """A frame is posted for each so many seconds of motion, and for what is left of it when it ends."""


@dataclass
class Counts:
    """What has come of it so far."""

    frames: int = 0
    posted: int = 0
    dropped: int = 0
    """For a newer one, while the service was busy."""
    refused: int = 0
    connections: int = 0


class Passage:
    """The frames of one stretch of motion, of which the sharpest is kept."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._motion = Motion()
        self._best: Frame | None = None
        self._sharpness = self._since = 0.0

    def frame(self, frame: Frame, seconds: float) -> Frame | None:
        """Take the next frame; return the best one of a passage that is over with it."""
        moves = self._motion.share(frame) >= self._gate.least_motion
        if moves:
            sharp = sharpness(frame)
            if self._best is None:
                self._since, self._sharpness = seconds, -1.0
            if sharp > self._sharpness:
                self._best, self._sharpness = frame, sharp
        over = not moves or seconds - self._since >= self._gate.passage_seconds
        return self.rest() if over else None

    def rest(self) -> Frame | None:
        """Return the best frame of a passage that was cut short, and begin anew."""
        best, self._best = self._best, None
        return best


class Watch:
    """One camera."""

    def __init__(self, address: str, api: Api, source_id: str, gate: Gate) -> None:
        self._address = address
        self._api = api
        self._path = f"/v1/source/{source_id}/frame?multi=true"
        self._gate = gate
        self._waiting: queue.Queue[bytes | None] = queue.Queue(1)
        self.counts = Counts()

    def run(self, *, again: bool, sleep: Callable[[float], None] = time.sleep) -> None:
        """Watch until the stream ends, or where it is to be asked `again`, for good. Raises ApiRefusal."""
        refused: list[ApiRefusal] = []
        poster = threading.Thread(target=self._post_all, args=(refused,), name="poster", daemon=True)
        poster.start()
        wait = FIRST_WAIT_SECONDS
        try:
            while not refused:
                came = self._read(refused)
                if came:
                    wait = FIRST_WAIT_SECONDS
                if not again or refused:
                    break
                what = "the stream has ended" if came else "no picture came from the address"
                log.warning("%s; asked again in %.0f s", what, wait)
                sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT_SECONDS)
        finally:
            self._waiting.put(None)
            poster.join()
        if refused:
            raise refused[0]

    def _read(self, refused: list[ApiRefusal]) -> bool:
        """Read until the stream ends; return whether anything came."""
        stream, passage, came = Stream(self._address), Passage(self._gate), False
        try:
            while not refused and (frame := stream.read()) is not None:
                self.counts.connections += not came
                came = True
                self.counts.frames += 1
                self._offer(passage.frame(frame, time.monotonic()))
        finally:
            stream.close()
        self._offer(passage.rest())
        return came

    def _offer(self, frame: Frame | None) -> None:
        """Let a frame wait for the poster, in place of the one that does already."""
        if frame is None:
            return
        with contextlib.suppress(queue.Empty):
            self._waiting.get_nowait()
            self.counts.dropped += 1
        self._waiting.put(jpeg(frame))

    def _post_all(self, refused: list[ApiRefusal]) -> None:
        while (picture := self._waiting.get()) is not None:
            try:
                self._api.bytes("POST", self._path, picture, "image/jpeg")
                self.counts.posted += 1
            except ApiRefusal as refusal:  # of the token or the source: no later frame will do better
                if not refused:
                    refused.append(refusal)
                self.counts.refused += 1
