"""Frames that are decoded smaller than they are: what is answered is in the frame's own pixels all the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import pytest

from edge.face import image
from edge.face.analysis import Analyser
from edge.types import Box, Picture
from tests.real_process import Service

Paste = Callable[..., Box]
Wall = Callable[[int, int], Picture]

ROWS, COLUMNS = 2160, 3840


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    running = Service(tmp_path_factory.mktemp("large") / "data").start()
    yield running
    assert running.end() == 0


def posted(service: Service, frame: Picture, **texts: Any) -> dict[str, Any]:
    response = service.create(image.encode_jpeg(frame, quality=95), embedding_only="true", bbox="true", **texts)
    assert response.status_code == 200, response.text
    content: dict[str, Any] = response.json()
    return content


@pytest.mark.parametrize("face_pixels", [60, 150, 700])
def test_box_pose_and_vector_are_those_of_the_frame(
    service: Service, wall: Wall, paste: Paste, analyser: Analyser, face_pixels: int
) -> None:
    """With 700 pixels the face is cut from the reduced picture, with 60 from the frame itself."""
    frame = wall(ROWS, COLUMNS)
    truth = paste(frame, "collins-1", x=1511, y=1003, face_pixels=face_pixels)
    asked = {"bbox_pro": "true", "feature_check": '["eye_distance", "sharpness"]', "multi": "true"}
    (face,) = posted(service, frame, **asked)["faces"]
    box, corners = face["bbox"], face["bbox_pro"]
    assert box["x"] + box["w"] / 2 == pytest.approx(1511, abs=face_pixels / 6)
    assert box["y"] + box["h"] / 2 == pytest.approx(1003, abs=face_pixels / 6)
    assert max(box["w"], box["h"]) == pytest.approx(truth.longer_side, rel=0.15)
    assert corners[1][0] - corners[0][0] == pytest.approx(box["w"], rel=0.15)
    (eyes, _) = face["features"]
    assert float(eyes["result"]) == pytest.approx(truth.longer_side * 0.45, rel=0.2)
    (alone,) = analyser.faces(frame, analyser.passes(frame.shape, 50), presence_floor=0.5)
    vector = analyser.embedder.template(frame, alone.landmarks.points).vector
    assert sum(a * b for a, b in zip(face["embedding"], vector, strict=True)) > 0.97


def test_a_limit_of_size_means_pixels_of_the_frame(service: Service, wall: Wall, paste: Paste) -> None:
    frame = wall(ROWS, COLUMNS)
    paste(frame, "obama-1", x=1900, y=1000, face_pixels=600)
    answer = service.create(image.encode_jpeg(frame, quality=95), new_person_square_min=900).json()
    (reason,) = answer["rejected"][0]["reasons"]
    assert reason["check"] == "size"
    assert reason["value"] == pytest.approx(600, rel=0.15)


def test_the_person_is_recognised_near_and_far(service: Service, wall: Wall, paste: Paste) -> None:
    near, far = wall(ROWS, COLUMNS), wall(ROWS, COLUMNS)
    paste(near, "obama-2", x=1900, y=1000, face_pixels=800)
    paste(far, "obama-5", x=700, y=500, face_pixels=120)
    added = service.create(image.encode_jpeg(near, quality=95)).json()
    assert added["persons_new"] == 1
    portrait = service.session.get(added["persons"][0]["image_url"], timeout=60)
    assert max(cv2.imdecode(np.frombuffer(portrait.content, np.uint8), cv2.IMREAD_COLOR).shape) == 512
    found = service.create(image.encode_jpeg(far, quality=95)).json()
    assert [match["person_id"] for match in found["matches"]] == [added["persons"][0]["person_id"]]
