"""Video, frame by frame, through OpenCV's own reader, and whether anything moves in it."""

from __future__ import annotations

import os

import cv2
import numpy as np
from numpy.typing import NDArray

OPEN_MS = READ_MS = 10_000
"""For a camera to answer, and between two frames, in milliseconds; over it the stream counts as ended."""

CAPTURE_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
"""What OpenCV has FFmpeg do. By RTSP over UDP, as some of its releases begin, lost packets make torn pictures."""

SMALL_COLUMNS = 160
"""Motion is looked for in a picture of this width: most noise is gone in it, and it costs next to nothing."""

LEAST_DIFFERENCE = 20
"""Of 255, of a pixel that has changed."""

FORGETTING = 0.05
"""How much of each frame goes into what counts as the background: who stands still becomes part of it within a few
seconds."""

JPEG_QUALITY = 92

Frame = NDArray[np.uint8]
"""Rows x columns x 3, as OpenCV has them: blue, green, red."""


class Stream:
    """An address (rtsp://, http:// with MJPEG) or a file that is read from its beginning to its end."""

    def __init__(self, address: str) -> None:
        os.environ.setdefault(CAPTURE_OPTIONS, "rtsp_transport;tcp")
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, READ_MS]
        self._capture = cv2.VideoCapture(address, cv2.CAP_FFMPEG, limits)

    def read(self) -> Frame | None:
        """Return the next frame; None: it has ended, or never began."""
        found, frame = self._capture.read()
        return np.asarray(frame, np.uint8) if found else None

    def close(self) -> None:
        """Let go of it."""
        self._capture.release()


class Motion:
    """How much of each frame differs from what has been there before."""

    def __init__(self) -> None:
        self._background: NDArray[np.float32] | None = None

    def share(self, frame: Frame) -> float:
        """Return the share of the picture that has changed, 0 to 1; of the first frame 0."""
        rows = max(1, round(frame.shape[0] * SMALL_COLUMNS / frame.shape[1]))
        small = cv2.resize(frame, (SMALL_COLUMNS, rows), interpolation=cv2.INTER_AREA)
        gray = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY).astype(np.float32)
        if self._background is None or self._background.shape != gray.shape:
            self._background = gray
            return 0.0
        changed = float(np.mean(np.abs(gray - self._background) > LEAST_DIFFERENCE))
        self._background += FORGETTING * (gray - self._background)
        return changed


def sharpness(frame: Frame) -> float:
    """Return how sharp a frame is, beside others of the same camera: the variance of its Laplacian."""
    return float(cv2.Laplacian(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), cv2.CV_32F).var())


def jpeg(frame: Frame) -> bytes:
    """Return the frame as a JPEG."""
    return bytes(cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1])
