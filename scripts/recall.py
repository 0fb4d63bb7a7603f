"""Which faces the detector finds, by their size: a table for each frame size, with milliseconds.

    .venv/bin/python scripts/recall.py FOLDER [--pack NAME ...] [--data DATA] [--faces 60] [--least-pixels 20]

FOLDER holds pictures of one face each, in folders (LFW's layout; portraits of your own will do). A face is pasted into
frames of 640x480, 1920x1080 and 3840x2160 at 1/3 to 1/60 of the frame's width (its longer side, brow to chin), at
random places, on a background with a camera's noise. It counts as found if the product's own pipeline, set to compare
faces of that size, reports one where it was put: a box that overlaps it by half (IoU), with presence enough. Sizes
under --least-pixels are left out: nothing could be recognised in them.

The milliseconds are the median of detector and face mesh together, all passes, on one thread; `one` is the same where
the largest face alone counts, so that finer passes are left out. `false` counts faces where there were none.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from edge import assembly, catalogue, config
from edge.errors import Refusal
from edge.face import image
from edge.face.analysis import Analyser, Face
from edge.types import Box, Picture

FRAMES = {"640x480": (480, 640), "1920x1080": (1080, 1920), "3840x2160": (2160, 3840)}
PARTS = (3, 5, 9, 15, 20, 24, 30, 40, 53, 60)
"""The face is 1/3 to 1/60 of the frame's width."""

FOUND_IOU = 0.5
SURROUNDINGS = 1.8
"""What is pasted: the face's box grown so many times, the whole head."""

SEED = 11


@dataclass(frozen=True, eq=False)
class Head:
    """A head cut from its picture, and where in it the face is."""

    picture: Picture
    face: Box


@dataclass(eq=False)
class Row:
    """What came of one size of face in one size of frame."""

    tried: int = 0
    found: int = 0
    false: int = 0
    all_ms: list[float] = field(default_factory=list)
    one_ms: list[float] = field(default_factory=list)


def heads(folder: Path, analyser: Analyser, settings: config.Config, count: int) -> list[Head]:
    """Return so many heads, of pictures that show one face and all of it."""
    files = sorted(path for path in folder.glob("*/*") if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
    found = []
    for number in np.random.default_rng(SEED).permutation(len(files)):
        try:
            picture = image.decode(files[number].read_bytes(), max_pixels=40_000_000, min_side=64)
        except Refusal:
            continue
        faces = faces_in(picture, analyser, settings, smallest=settings.faces.min_face_pixels)
        if len(faces) == 1 and faces[0].measures.inside == 1:
            rows, columns = picture.shape[:2]
            around = faces[0].box.grown(SURROUNDINGS).within(columns, rows)
            left, top = int(around.x), int(around.y)
            head = picture[top : int(around.y + around.height), left : int(around.x + around.width)]
            box = faces[0].box
            found.append(Head(head, Box(box.x - left, box.y - top, box.width, box.height)))
        if len(found) == count:
            break
    return found


def faces_in(
    picture: Picture, analyser: Analyser, settings: config.Config, *, smallest: float, one: bool = False
) -> list[Face]:
    """Return the faces as the product finds them, set to compare faces from `smallest` pixels up."""
    passes = analyser.passes(picture.shape, smallest, settings.detection.input_size)
    enough = smallest if one else None
    return analyser.faces(picture, passes, presence_floor=settings.faces.presence_floor, enough_pixels=enough)


def pasted(head: Head, rows: int, columns: int, pixels: float, random: np.random.Generator) -> tuple[Picture, Box]:
    """Return a frame with the face at a random place, and where it is."""
    light = np.linspace(70, 150, columns)[None, :] + np.linspace(0, 30, rows)[:, None]
    grey = np.clip(light, 0, 255).astype(np.uint8)
    frame = cv2.add(np.repeat(grey[:, :, None], 3, axis=2), random.integers(0, 12, (rows, columns, 3), np.uint8))
    scale = pixels / head.face.longer_side
    shape = (max(1, round(head.picture.shape[1] * scale)), max(1, round(head.picture.shape[0] * scale)))
    small = cv2.resize(head.picture, shape, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    small = small[:rows, :columns]
    top = int(random.integers(0, rows - small.shape[0] + 1))
    left = int(random.integers(0, columns - small.shape[1] + 1))
    frame[top : top + small.shape[0], left : left + small.shape[1]] = small
    face = head.face.scaled(scale)
    return np.asarray(frame, np.uint8), Box(face.x + left, face.y + top, face.width, face.height)


def iou(one: Box, other: Box) -> float:
    """Return the intersection over union."""
    shared = one.shared_area(other)
    return shared / (one.area + other.area - shared)


def measured(
    chosen: list[Head], analyser: Analyser, settings: config.Config, shape: tuple[int, int], pixels: float
) -> Row:
    """Return what is found of the heads at one size."""
    random, row = np.random.default_rng(SEED), Row()
    smallest = min(pixels * 0.95, settings.faces.min_face_pixels)
    for head in chosen:
        frame, truth = pasted(head, *shape, pixels, random)
        started = time.perf_counter()
        faces = faces_in(frame, analyser, settings, smallest=smallest)
        middle = time.perf_counter()
        faces_in(frame, analyser, settings, smallest=smallest, one=True)
        row.one_ms.append((time.perf_counter() - middle) * 1000)
        row.all_ms.append((middle - started) * 1000)
        hits = [face for face in faces if iou(face.box, truth) >= FOUND_IOU]
        row.tried += 1
        row.found += bool(hits)
        row.false += len(faces) - len(hits)
    return row


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pack", nargs="+", default=["default"])
    parser.add_argument("--data", type=Path, help="the data folder to which other packs were added")
    parser.add_argument("--faces", type=int, default=60)
    parser.add_argument("--least-pixels", type=float, default=20)
    arguments = parser.parse_args()
    flags = [] if arguments.data is None else [f"data.folder={arguments.data}"]
    settings = config.load(Path(os.devnull), environment={}, flags=flags)
    cv2.setNumThreads(1)
    analysers = {
        name: assembly.build_analyser(catalogue.find(name, assembly.pack_folders(settings)), settings)
        for name in arguments.pack
    }
    chosen = heads(arguments.folder, next(iter(analysers.values())), settings, arguments.faces)
    matter = settings.faces.min_face_pixels
    print(f"{len(chosen)} faces of {arguments.folder.name}; faces from {matter:g} pixels matter,")
    print("or from the size in question where that is smaller\n")
    print("| pack | frame | face | pixels | found | false | ms, all faces | ms, one face |")
    print("|---|---|---|---|---|---|---|---|")
    for name, analyser in analysers.items():
        for frame, shape in FRAMES.items():
            for part in PARTS:
                pixels = shape[1] / part
                if pixels < arguments.least_pixels or pixels * SURROUNDINGS > shape[0] * 1.2:
                    continue
                row = measured(chosen, analyser, settings, shape, pixels)
                ms = f"{statistics.median(row.all_ms):.0f} | {statistics.median(row.one_ms):.0f}"
                print(
                    f"| {name} | {frame} | 1/{part} | {pixels:.0f} | {row.found / row.tried:.2f} | {row.false} | {ms} |"
                )
                sys.stdout.flush()


if __name__ == "__main__":
    main()
