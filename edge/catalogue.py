"""models/<pack>/pack.json to a Pack. Nothing of a pack is loaded before its hashes have been checked.

A pack may bring some of the three roles (detector, landmarks, embedder) and take the others from the pack that it
`extends`. Its id is that of the embedder's pack: the id says whose vectors compare with whose.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
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


SNIFFED_BYTES = 512
"""Enough of a file's beginning to tell what it is: a web page's first tags come late after comments and blanks."""

Description = Mapping[str, Any]
"""What a pack.json holds."""


def packs(folders: Sequence[Path]) -> dict[str, Path]:
    """Return the packs' names and folders: every folder with a pack.json; the first of a name counts."""
    found: dict[str, Path] = {}
    for folder in folders:
        for description in sorted(folder.glob("[!.]*/pack.json")):
            found.setdefault(description.parent.name, description.parent)
    return found


def find(name: str, folders: Sequence[Path]) -> Pack:
    """Return the pack of that name, checked; PackUnusable names what is there instead."""
    return load(folder_of(name, folders), folders)


def folder_of(name: str, folders: Sequence[Path]) -> Path:
    """Return the folder of the pack of that name; PackUnusable names what is there instead."""
    known = packs(folders)
    if name not in known:
        there = ", ".join(known) or "none"
        raise PackUnusable(Mistake("models.pack", f"no pack '{name}' under {' or '.join(map(str, folders))}: {there}"))
    return known[name]


def load(folder: Path, folders: Sequence[Path] = ()) -> Pack:
    """Return the pack in the folder, every file's hash checked, also of the roles that it takes from another pack.

    `folders`: where the packs are that it may extend. Raises PackUnusable with the first thing to mend: in a
    pack.json, or a file that is missing or altered.
    """
    chain = _chain(folder, folders)
    _, own = chain[0]
    with _explained(folder):
        name, description = str(own["name"]), str(own["description"])
    detectors, detector = _bringer(chain, "detector")
    meshes, mesh = _bringer(chain, "landmarks")
    embedders, embedder = _bringer(chain, "embedder")
    with _explained(detectors):
        detector_spec = _detector(detectors, detector["detector"])
    with _explained(meshes):
        landmarks_spec = _landmarks(meshes, mesh["landmarks"])
    with _explained(embedders):
        embedder_spec, id_ = _embedder(embedders, embedder["embedder"]), str(embedder["id"])
    return Pack(id_, name, description, folder, detector_spec, landmarks_spec, embedder_spec)


def identity(folder: Path, folders: Sequence[Path] = ()) -> str:
    """Return the pack's id without a look at its files. Raises PackUnusable."""
    embedders, embedder = _bringer(_chain(folder, folders), "embedder")
    with _explained(embedders):
        return str(embedder["id"])


def _chain(folder: Path, folders: Sequence[Path]) -> list[tuple[Path, Description]]:
    """Return the pack's folder and description, then those of the packs that it takes roles from, nearest first."""
    known = packs(folders)
    chain: list[tuple[Path, Description]] = []
    while True:
        content = _description(folder)
        chain.append((folder, content))
        base = content.get("extends")
        if base is None:
            return chain
        field = f"{folder.name}/pack.json"
        if not isinstance(base, str) or base not in known:
            raise PackUnusable(Mistake(field, f"extends '{base}', which is not here: {', '.join(known) or 'no packs'}"))
        folder = known[base]
        if folder in [one for one, _ in chain]:
            raise PackUnusable(Mistake(field, f"extends '{base}', which takes roles from it in turn"))


def _description(folder: Path) -> Description:
    field = f"{folder.name}/pack.json"
    try:
        content = json.loads((folder / "pack.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise PackUnusable(Mistake(field, f"cannot be read: {error.strerror}")) from None
    except (ValueError, RecursionError) as error:
        raise PackUnusable(Mistake(field, f"is not JSON: {error}")) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise PackUnusable(Mistake(field, f"is not of format {FORMAT}, the one this program reads"))
    return content


def _bringer(chain: Sequence[tuple[Path, Description]], role: str) -> tuple[Path, Description]:
    """Return the first pack of the chain that brings the role."""
    for folder, content in chain:
        if role in content:
            return folder, content
    raise PackUnusable(Mistake(f"{chain[0][0].name}/pack.json", f"lacks '{role}'"))


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turn what reading a description raises into a refusal that names its pack.json."""
    field = f"{folder.name}/pack.json"
    try:
        yield
    except KeyError as error:
        raise PackUnusable(Mistake(field, f"lacks {error}")) from None
    except (TypeError, ValueError, AttributeError, IndexError, EOFError) as error:
        raise PackUnusable(Mistake(field, f"has a value of the wrong form: {error}")) from None


def files(folder: Path) -> tuple[str, ...]:
    """Return the names of the files that the folder's own pack.json lists, none of them outside it.

    Raises PackUnusable.
    """
    content = _description(folder)
    with _explained(folder):
        entries = [*content.get("detector", {}).get("inputs", ()), content.get("landmarks"), content.get("embedder")]
        entries.append((content.get("embedder") or {}).get("cohort"))
        return tuple(dict.fromkeys(_name(folder, entry) for entry in entries if entry is not None))


def _name(folder: Path, entry: Description) -> str:
    name = str(entry["file"])
    if (folder / name).parent != folder:
        raise PackUnusable(Mistake(f"{folder.name}/pack.json", f"names a file outside its folder: {name}"))
    return name


def _file(folder: Path, entry: Description) -> ModelFile:
    name = _name(folder, entry)
    path = folder / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PackUnusable(Mistake(f"{folder.name}/{name}", f"cannot be read: {error.strerror}")) from None
    digest = hashlib.sha256(content).hexdigest()
    if digest != entry["sha256"]:
        reason = "is not the file that pack.json names (its SHA-256 differs)"
        raise PackUnusable(Mistake(f"{folder.name}/{name}", f"{reason}: {nature(content)}; install the pack again"))
    return ModelFile(path, digest)


def nature(content: bytes) -> str:
    """Say what a file is that should be a model, by its first bytes."""
    head = content[:SNIFFED_BYTES].lstrip(b"\xef\xbb\xbf \t\r\n")
    if not head:
        return "it is empty"
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        return "it is a Git LFS pointer, which only says where the model is; `git lfs pull` fetches the model itself"
    if head[:1] == b"<" and re.search(rb"<(!doctype html|html|head|body|title|\?xml|error)", head, re.IGNORECASE):
        return "it is a web page that was saved in place of the model"
    if content[4:8] == b"TFL3":  # the file identifier of TFLite's FlatBuffer schema, behind the root's offset
        return f"it begins like a TFLite model and has {len(content):,} bytes: altered, or cut short on its way here"
    if head.startswith(b"\x93NUMPY"):
        return (
            f"it begins like an array of numbers and has {len(content):,} bytes: altered, or cut short on its way here"
        )
    if head.startswith((b"PK\x03\x04", b"\x1f\x8b")):
        return "it is an archive, which has to be unpacked first"
    return "it is no TFLite model"


def _input(entry: Description, size: Description) -> InputSpec:
    first, second, third = (float(n) for n in entry["mean"])  # in the order that `colour` names
    colour = str(entry["colour"])
    if colour not in ("RGB", "BGR"):
        raise ValueError(f"colour '{colour}' is neither RGB nor BGR")
    scale = float(entry["scale"])
    if not scale > 0:
        raise ValueError(f"scale {scale:g} is not above 0")
    return InputSpec(int(size["rows"]), int(size["columns"]), colour, (first, second, third), scale)


def _share(entry: Description, name: str) -> float:
    value = float(entry[name])
    if not 0 < value < 1:
        raise ValueError(f"{name} {value:g} is not between 0 and 1")
    return value


def _detector(folder: Path, entry: Description) -> DetectorSpec:
    if not entry["inputs"]:
        raise ValueError("a detector needs at least one input")
    least, most = float(entry["least_face_pixels"]), float(entry["most_face_pixels"])
    if not 1 <= least < most:
        raise ValueError(f"least_face_pixels {least:g} and most_face_pixels {most:g} are no range from 1 up")
    return DetectorSpec(
        decoding=str(entry["decoding"]),
        inputs=tuple((_file(folder, size), _input(entry, size)) for size in entry["inputs"]),
        score_threshold=_share(entry, "score_threshold"),
        iou_threshold=_share(entry, "iou_threshold"),
        least_face_pixels=least,
        most_face_pixels=most,
    )


def _landmarks(folder: Path, entry: Description) -> LandmarksSpec:
    return LandmarksSpec(_file(folder, entry), _input(entry, entry), float(entry["box_scale"]))


def _crops(entries: list[Description]) -> tuple[CropVariant, ...]:
    if not entries:
        raise ValueError("a pack needs at least one crop for a probe and one for a template")
    return tuple(
        CropVariant(float(e["scale"]), float(e["shift_x"]), float(e["shift_y"]), bool(e["mirrored"])) for e in entries
    )


def _alignment(entries: list[Description]) -> tuple[AlignmentPoint, ...]:
    points = tuple(
        AlignmentPoint(str(p["name"]), tuple(int(n) for n in p["mesh"]), float(p["x"]), float(p["y"])) for p in entries
    )
    if len(points) < 2 or not all(point.mesh and all(0 <= n < POINTS for n in point.mesh) for point in points):
        raise ValueError(f"alignment needs two or more points, each of mesh points from 0 to {POINTS - 1}")
    return points


def _embedder(folder: Path, entry: Description) -> EmbedderSpec:
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
        operating_points=operating_points(entry["operating_points"]["rows"]),
    )


def _cohort(folder: Path, entry: Description, length: int) -> Cohort:
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


def operating_points(rows: Sequence[Sequence[float]]) -> tuple[OperatingPoint, ...]:
    """Return the points of rows that begin with FMR and similarity; ValueError where they are in no order."""
    points = tuple(OperatingPoint(fmr=float(row[0]), similarity=float(row[1])) for row in rows)
    falling = all(a.fmr > b.fmr and a.similarity < b.similarity for a, b in itertools.pairwise(points))
    ends = points and points[0].fmr <= 1 and points[-1].fmr > 0
    if len(points) < 2 or not falling or not ends or not -1 < points[0].similarity < points[-1].similarity < math.inf:
        raise ValueError(
            "operating points must be two or more, the FMR falling from 1 to 0 as the similarity rises from above -1"
        )
    return points
