"""How large a frame is decoded follows from what the last one of its source needed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edge.face import image
from edge.recognition import Recognizer
from edge.recognition.room import STREAMS, Closeups
from edge.types import Box, PersonCreate, Picture

Paste = Callable[..., Box]
Wall = Callable[[int, int], Picture]
DOOR, GATE = "1b4e28ba-2fa1-11d2-883f-0016d3cca427", "2b4e28ba-2fa1-11d2-883f-0016d3cca427"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """By how much each picture was reduced, in turn."""
    reductions: list[int] = []
    picture = image.Frame.picture

    def noted(frame: image.Frame, reduction: int = 1) -> Picture:
        reductions.append(reduction)
        return picture(frame, reduction)

    monkeypatch.setattr(image.Frame, "picture", noted)
    return reductions


def test_the_whole_frame_is_decoded_while_a_small_face_is_there(
    recognizer: Recognizer, decoded: list[int], wall: Wall, paste: Paste
) -> None:
    empty, small, large = (wall(1080, 1920) for _ in range(3))
    paste(small, "obama-1", x=900, y=500, face_pixels=120)
    paste(large, "obama-1", x=900, y=500, face_pixels=480)

    def post(frame: Picture, source_id: str | None = DOOR) -> list[int]:
        decoded.clear()
        data = image.encode_jpeg(frame, quality=95)
        recognizer.create(PersonCreate(image=data, list_id=None, source_id=source_id))
        return list(decoded)

    assert post(empty) == [2]
    assert post(large) == [2]
    assert post(small) == [2, 1], "found, and too small for the embedder"
    assert post(small) == [1]
    assert post(empty, GATE) == [2], "another source has nothing to do with it"
    assert post(large) == [1], "one that could have been smaller"
    assert post(large) == [2]
    assert post(small) == [2, 1]
    assert post(empty) == [1]
    assert post(empty) == [2]


def test_the_memory_is_bounded() -> None:
    closeups = Closeups()
    for number in range(STREAMS + 10):
        closeups.note(number, needed=True)
    assert not closeups.has(9)
    assert closeups.has(10)
    closeups.note(10, needed=False)
    assert not closeups.has(10)
    assert np.all([closeups.has(number) for number in range(11, STREAMS + 10)])
