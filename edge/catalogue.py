"""models/<pack>/pack.json to a Pack. Nothing of a pack is loaded before its hashes have been checked."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge.errors import Mistake, PackUnusable
from edge.face.landmarks import POINTS
from edge.types import (
    AlignmentPoint,
    Cohort,
    CropVariant,
    DetectorSpec,
    EmbedderSpec,
    InputSpec,
    LandmarksSpec,
    ModelFile,
    OperatingPoint,
    Pack,
)

FORMAT = 1
"""The version of pack.json that this program reads."""


def packs(folders: list[Path]) -> dict[str, Path]:
    """Return the packs' names and folders: every folder with a pack.json; the first of a name counts."""
    found: dict[str, Path] = {}
    for folder in folders:
        for description in sorted(folder.glob("*/pack.json")):
            found.setdefault(description.parent.name, description.parent)
    return found


def find(name: str, folders: list[Path]) -> Pack:
    """Return the pack of that name, checked; PackUnusable names what is there instead."""
    known = packs(folders)
    if name not in known:
        there = ", ".join(known) or "none"
        raise PackUnusable(Mistake("models.pack", f"no pack '{name}' under {' or '.join(map(str, folders))}: {there}"))
    return load(known[name])


def load(folder: Path) -> Pack:
    """Return the pack in the folder, every file's hash checked.

    Raises PackUnusable with the first thing to mend: in pack.json, or a file that is missing or altered.
    """
    try:
        content = json.loads((folder / "pack.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise PackUnusable(Mistake(f"{folder.name}/pack.json", f"cannot be read: {error.strerror}")) from None
    except ValueError as error:
        raise PackUnusable(Mistake(f"{folder.name}/pack.json", f"is not JSON: {error}")) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise PackUnusable(
            Mistake(f"{folder.name}/pack.json", f"is not of format {FORMAT}, the one this program reads")
        )
    try:
        return Pack(
            id=str(content["id"]),
            name=str(content["name"]),
            description=str(content["description"]),
            folder=folder,
            detector=_detector(folder, content["detector"]),
            landmarks=_landmarks(folder, content["landmarks"]),
            embedder=_embedder(folder, content["embedder"]),
        )
    except KeyError as error:
        raise PackUnusable(Mistake(f"{folder.name}/pack.json", f"lacks {error}")) from None
    except (TypeError, ValueError, AttributeError, IndexError, EOFError) as error:
        raise PackUnusable(Mistake(f"{folder.name}/pack.json", f"has a value of the wrong form: {error}")) from None


def _file(folder: Path, entry: Mapping[str, Any]) -> ModelFile:
    name = str(entry["file"])
    path = folder / name
    if path.parent != folder:
        raise PackUnusable(Mistake(f"{folder.name}/pack.json", f"names a file outside its folder: {name}"))
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise PackUnusable(Mistake(f"{folder.name}/{name}", f"cannot be read: {error.strerror}")) from None
    if digest != entry["sha256"]:
        reason = "is not the file that pack.json names (its SHA-256 differs); install the pack again"
        raise PackUnusable(Mistake(f"{folder.name}/{name}", reason))
    return ModelFile(path, digest)


def _input(entry: Mapping[str, Any], size: Mapping[str, Any]) -> InputSpec:
    first, second, third = (float(n) for n in entry["mean"])  # in the order that `colour` names
    colour = str(entry["colour"])
    if colour not in ("RGB", "BGR"):
        raise ValueError(f"colour '{colour}' is neither RGB nor BGR")
    scale = float(entry["scale"])
    if not scale > 0:
        raise ValueError(f"scale {scale:g} is not above 0")
    return InputSpec(int(size["rows"]), int(size["columns"]), colour, (first, second, third), scale)


def _share(entry: Mapping[str, Any], name: str) -> float:
    value = float(entry[name])
    if not 0 < value < 1:
        raise ValueError(f"{name} {value:g} is not between 0 and 1")
    return value


def _detector(folder: Path, entry: Mapping[str, Any]) -> DetectorSpec:
    if not entry["inputs"]:
        raise ValueError("a detector needs at least one input")
    return DetectorSpec(
        decoding=str(entry["decoding"]),
        inputs=tuple((_file(folder, size), _input(entry, size)) for size in entry["inputs"]),
        score_threshold=_share(entry, "score_threshold"),
        iou_threshold=_share(entry, "iou_threshold"),
    )


def _landmarks(folder: Path, entry: Mapping[str, Any]) -> LandmarksSpec:
    return LandmarksSpec(_file(folder, entry), _input(entry, entry), float(entry["box_scale"]))


def _crops(entries: list[Mapping[str, Any]]) -> tuple[CropVariant, ...]:
    if not entries:
        raise ValueError("a pack needs at least one crop for a probe and one for a template")
    return tuple(
        CropVariant(float(e["scale"]), float(e["shift_x"]), float(e["shift_y"]), bool(e["mirrored"])) for e in entries
    )


def _alignment(entries: list[Mapping[str, Any]]) -> tuple[AlignmentPoint, ...]:
    points = tuple(
        AlignmentPoint(str(p["name"]), tuple(int(n) for n in p["mesh"]), float(p["x"]), float(p["y"])) for p in entries
    )
    if len(points) < 2 or not all(point.mesh and all(0 <= n < POINTS for n in point.mesh) for point in points):
        raise ValueError(f"alignment needs two or more points, each of mesh points from 0 to {POINTS - 1}")
    return points


def _embedder(folder: Path, entry: Mapping[str, Any]) -> EmbedderSpec:
    length = int(entry["vector_length"])
    cohort = entry.get("cohort")
    return EmbedderSpec(
        file=_file(folder, entry),
        input=_input(entry, entry),
        vector_length=length,
        alignment=_alignment(entry["alignment"]),
        probe_crops=_crops(entry["probe_crops"]),
        template_crops=_crops(entry["template_crops"]),
        cohort=_cohort(folder, cohort, length) if cohort else None,
        operating_points=_operating_points(entry["operating_points"]["rows"]),
    )


def _cohort(folder: Path, entry: Mapping[str, Any], length: int) -> Cohort:
    vectors = np.load(_file(folder, entry).path, allow_pickle=False).astype(np.float32)
    nearest = int(entry["nearest"])
    if vectors.ndim != 2 or vectors.shape[1] != length or not 1 <= nearest <= len(vectors):
        raise ValueError(f"the cohort is {vectors.shape}, not n x {length} with n at least the {nearest} nearest")
    # Kept as float16: scaled to unit length again after loading.
    with np.errstate(invalid="ignore"):
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(vectors).all():
        raise ValueError("the cohort has a vector without a direction")
    return Cohort(vectors, nearest, float(entry["weight"]))


def _operating_points(rows: list[list[float]]) -> tuple[OperatingPoint, ...]:
    points = tuple(OperatingPoint(fmr=float(row[0]), similarity=float(row[1])) for row in rows)
    falling = all(a.fmr > b.fmr and a.similarity < b.similarity for a, b in itertools.pairwise(points))
    if len(points) < 2 or not falling or points[0].fmr > 1 or points[-1].fmr <= 0 or points[0].similarity <= -1:
        raise ValueError(
            "operating points must be two or more, the FMR falling from 1 to 0 as the similarity rises from above -1"
        )
    return points
