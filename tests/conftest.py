"""What several tests need: the photos, the shipped pack, and its networks as the product builds them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

# Before anything imports cv2: it sets the limits that OpenCV reads once, when it is loaded.
import edge.face  # noqa: F401

# isort: split
import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from edge import catalogue, config
from edge.face import image
from edge.types import Box, Pack, Picture

if TYPE_CHECKING:
    from edge.face.analysis import Analyser

# No property is about time: a busy board may take as long as it takes.
settings.register_profile("edge", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("edge")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def photos() -> dict[str, bytes]:
    """The files of tests/photos by their name without `.jpg`."""
    return {path.stem: path.read_bytes() for path in sorted((ROOT / "tests" / "photos").glob("*.jpg"))}


@pytest.fixture(scope="session")
def pictures(photos: dict[str, bytes]) -> dict[str, Picture]:
    """The same, decoded; not to be written to, by no stage either."""
    decoded = {name: image.decode(data, max_pixels=40_000_000, min_side=64) for name, data in photos.items()}
    for picture in decoded.values():
        picture.flags.writeable = False
    return decoded


@pytest.fixture(scope="session")
def face_boxes() -> dict[str, Box]:
    """Where the one face of each photo is, brow to chin and cheek to cheek, as a person sees it."""
    return {
        "biden-1": Box(190, 100, 135, 155),
        "collins-1": Box(175, 68, 100, 110),
        "obama-1": Box(330, 110, 210, 260),
        "obama-2": Box(160, 228, 240, 297),
        "obama-3": Box(275, 125, 117, 136),
        "obama-4": Box(-34, 112, 205, 257),  # cut by the picture's left edge
        "obama-5": Box(329, 110, 210, 260),  # and by its right
    }


@pytest.fixture(scope="session")
def paste(pictures: dict[str, Picture], face_boxes: dict[str, Box]) -> Callable[..., Box]:
    """Put the head of a photo into a picture; return where its face is then."""

    def put(canvas: Picture, name: str, *, x: int, y: int, face_pixels: int) -> Box:
        """`x`, `y`: the middle of the face; `face_pixels`: its longer side."""
        box = face_boxes[name]
        head = image.cut(pictures[name], box.grown(1.8), longest=10_000)
        scale = face_pixels / box.longer_side
        small = cv2.resize(head, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        rows, columns = small.shape[:2]
        canvas[y - rows // 2 :, x - columns // 2 :][:rows, :columns] = small
        return Box(x - box.width * scale / 2, y - box.height * scale / 2, box.width * scale, box.height * scale)

    return put


@pytest.fixture(scope="session")
def wall() -> Callable[[int, int], Picture]:
    """Make a picture of a grey wall, rows x columns, lit from one side, with a camera's noise."""

    def make(rows: int, columns: int) -> Picture:
        light = np.linspace(70, 150, columns)[None, :, None] + np.linspace(0, 30, rows)[:, None, None]
        grain = np.random.default_rng(3).normal(0, 4, (rows, columns, 3))
        return np.clip(light + grain, 0, 255).astype(np.uint8)

    return make


@pytest.fixture(scope="session")
def pack() -> Pack:
    return catalogue.load(ROOT / "models" / "default")


@pytest.fixture(scope="session")
def interpreter() -> str:
    """The interpreter that the suite is to run on, as the setting names it."""
    return os.environ.get("EDGE_MODELS_INTERPRETER", "auto")


@pytest.fixture(scope="session")
def analyser(pack: Pack, interpreter: str) -> Analyser:
    """One worker's networks, built by the product from its default settings."""
    from edge import assembly

    defaults = config.load(Path(os.devnull), environment={}, flags=[f"models.interpreter={interpreter}"])
    return assembly.build_analyser(pack, defaults)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of pictures that are no part of the product."""
    folder = Path(os.environ.get("EDGE_TEST_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no test data in {folder} (EDGE_TEST_DATA names another folder)")
    return folder
