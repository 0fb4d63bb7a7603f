#!/usr/bin/env python3
"""How much each quality measure costs: FNMR against it, on faces made worse on purpose, and the limits that follow.

    .venv/bin/pip install matplotlib                      # for the pictures alone
    .venv/bin/python scripts/quality_curves.py FOLDER... [--out FOLDER] [--pairs 250] [--seed 1]

A FOLDER is either of LFW's form (one folder a person, and pairs.txt) or of clips before a fixed camera (one folder a
clip, and people.json: person -> clips). One picture of every mated pair becomes a template as the appliance makes it;
the other is blurred, shrunk, darkened, brightened, covered or cut, found again, measured, and compared as a probe.

Printed: a table per measure (FNMR and FMR at the score 0.7, by the measured value), what covering does to presence, and
for each limit of the settings the value where FNMR reaches HURTS, beside the share of ordinary faces that it refuses.
Written to --out: a curve per measure (PNG), and all measurements (CSV).
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import importlib
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import edge.face  # noqa: F401  (first: it sets what OpenCV reads when it is loaded)

# isort: split
import cv2
import numpy as np

from edge import assembly, catalogue, config
from edge.config import Config
from edge.face import image
from edge.face.analysis import Analyser, Face
from edge.matching import Calibration, similarity
from edge.types import MEASURE_NAMES, Box, Embedding, Landmarks, Pack, Picture

ROOT = Path(__file__).resolve().parent.parent
THRESHOLD = 0.7
"""The contract's documented threshold: one false match in a thousand comparisons."""

HURTS = 0.2
"""A face with one chance in five not to be known again is not worth keeping."""

LARGEST_REFUSAL = 0.02
"""Of ordinary faces, no limit should refuse more."""

EMBEDDER_PIXELS = 150
"""Blurs are given in pixels of a face of that longer side, whatever it has in the picture."""

CELLS = 10
"""Points of a curve: as many measurements in each."""


# --- pictures made worse ---


@dataclass(frozen=True)
class Worse:
    """A way to make a picture worse, and the measure that should notice."""

    kind: str
    level: float
    measure: str
    make: Callable[[Picture, Landmarks], Picture]


def blurred(level: float) -> Callable[[Picture, Landmarks], Picture]:
    """Out of focus: a Gaussian of that sigma."""

    def make(picture: Picture, face: Landmarks) -> Picture:
        return np.asarray(cv2.GaussianBlur(picture, (0, 0), level * face.box.longer_side / EMBEDDER_PIXELS), np.uint8)

    return make


def moved(level: float) -> Callable[[Picture, Landmarks], Picture]:
    """In motion: a slanting line of that length."""

    def make(picture: Picture, face: Landmarks) -> Picture:
        length = max(2, round(level * face.box.longer_side / EMBEDDER_PIXELS))
        line = np.zeros((length, length), np.float32)
        cv2.line(line, (0, length // 3), (length - 1, length - 1 - length // 3), 1.0)
        return np.asarray(cv2.filter2D(picture, -1, line / line.sum()), np.uint8)

    return make


def shrunk(level: float, *, enlarge: bool) -> Callable[[Picture, Landmarks], Picture]:
    """Far away: a face of that longer side; or blown up again from it, as a digital zoom does."""

    def make(picture: Picture, face: Landmarks) -> Picture:
        scale = min(1.0, level / face.box.longer_side)
        small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        if enlarge:
            small = cv2.resize(small, (picture.shape[1], picture.shape[0]), interpolation=cv2.INTER_CUBIC)
        return np.asarray(small, np.uint8)

    return make


def lit(level: float) -> Callable[[Picture, Landmarks], Picture]:
    """Darker or brighter by that factor, with a sensor's noise, cut off at white."""

    def make(picture: Picture, face: Landmarks) -> Picture:
        noise = np.random.default_rng(1).normal(0, 2, picture.shape)
        return np.clip(picture * level + noise, 0, 255).astype(np.uint8)

    return make


def covered(level: float, side: str) -> Callable[[Picture, Landmarks], Picture]:
    """That share of the face hidden by something of the skin's colour or nearly black: `side` says from where."""

    def make(picture: Picture, face: Landmarks) -> Picture:
        points, box = face.points[:, :2], face.box
        down = points[152] - points[10]
        down /= np.linalg.norm(down)
        along = {"below": -down, "above": down, "side": np.array([-down[1], down[0]]), "dark below": -down}[side]
        reach = points @ along
        hidden_to = reach.min() + level * np.ptp(reach)
        y, x = np.mgrid[0 : picture.shape[0], 0 : picture.shape[1]]
        distance = np.hypot(x - box.centre[0], y - box.centre[1]) / box.longer_side
        mask = ((x * along[0] + y * along[1]) < hidden_to) & (distance < 0.65)
        skin = np.median(picture[distance < 0.25], axis=0) * (0.25 if side.startswith("dark") else 0.9)
        grain = np.random.default_rng(2).normal(0, 3, picture.shape)
        soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), box.longer_side / 60)[:, :, None]
        return np.asarray(np.clip(picture * (1 - soft) + (skin + grain) * soft, 0, 255), np.uint8)

    return make


def cut(level: float, side: str) -> Callable[[Picture, Landmarks], Picture]:
    """That share of the box beyond the frame's edge."""

    def make(picture: Picture, face: Landmarks) -> Picture:
        box = face.box
        first_column = max(0, int(box.x + level * box.width)) if side == "left" else 0
        last_row = max(1, int(box.y + (1 - level) * box.height)) if side == "below" else picture.shape[0]
        return np.ascontiguousarray(picture[:last_row, first_column:])

    return make


def degradations() -> list[Worse]:
    """Return everything that is tried; the first leaves the picture as it is."""
    as_it_is = Worse("as it is", 0, "", lambda picture, _: picture)
    tried = [Worse("blur", s, "sharpness", blurred(s)) for s in (1, 2, 3, 4, 5, 6, 8)]
    tried += [Worse("motion", s, "sharpness", moved(s)) for s in (6, 12, 18, 24)]
    tried += [Worse("zoom", n, "sharpness", shrunk(n, enlarge=True)) for n in (60, 45, 35, 28, 22, 17)]
    tried += [Worse("shrink", n, "size", shrunk(n, enlarge=False)) for n in (60, 45, 35, 28, 22, 17)]
    tried += [Worse("light", f, "brightness", lit(f)) for f in (0.05, 0.08, 0.12, 0.2, 0.35, 0.6, 1.4, 1.8, 2.3, 3, 4)]
    shares = {"below": (0.25, 0.4, 0.55), "dark below": (0.4, 0.55), "above": (0.3, 0.45, 0.55), "side": (0.3, 0.5)}
    tried += [Worse(f"cover {k}", s, "face_presence", covered(s, k)) for k, v in shares.items() for s in v]
    tried += [Worse(f"cut {k}", s, "inside", cut(s, k)) for k in ("left", "below") for s in (0.1, 0.2, 0.3, 0.4, 0.5)]
    return [as_it_is, *tried]


# --- pairs of pictures ---


@dataclass(frozen=True)
class Pair:
    """Two pictures of one person."""

    person: str
    reference: Path
    probe: Path


def mated_pairs(folder: Path) -> list[Pair]:
    """Return the pairs of a data folder of either form."""
    if (folder / "pairs.txt").is_file():
        return _lfw_pairs(folder)
    if (folder / "people.json").is_file():
        return _camera_pairs(folder)
    raise SystemExit(f"{folder}: has neither pairs.txt nor people.json")


def _lfw_pairs(folder: Path) -> list[Pair]:
    rows = [line.split() for line in (folder / "pairs.txt").read_text(encoding="utf-8").splitlines()]
    mated = [(row[0], int(row[1]), int(row[2])) for row in rows if len(row) == 3]
    return [
        Pair(name, folder / name / f"{name}_{first:04}.jpg", folder / name / f"{name}_{second:04}.jpg")
        for name, first, second in mated
    ]


def _camera_pairs(folder: Path) -> list[Pair]:
    """Each frame with the first one of the same person's next clip."""
    people = json.loads((folder / "people.json").read_text(encoding="utf-8"))
    pairs = []
    for person, clips in people.items():
        frames = [sorted((folder / clip).glob("*.jpg")) for clip in clips]
        for number, probes in enumerate(frames):
            reference = frames[(number + 1) % len(frames)][0]
            pairs += [Pair(person, reference, probe) for probe in probes]
    return pairs


# --- measuring ---


@dataclass(frozen=True)
class Measured:
    """One probe: where from, how made worse, what was measured of it, and how it scored. No values: not found."""

    data: str
    kind: str
    level: float
    measure: str
    values: Mapping[str, float] | None = None
    own_score: float = 0.0
    false_matches: int = 0
    strangers: int = 0


@dataclass(frozen=True, eq=False)
class Bench:
    """The pack's networks and what its similarities mean."""

    settings: Config
    pack: Pack
    analyser: Analyser
    calibration: Calibration

    @classmethod
    def load(cls) -> Bench:
        """Return the bench of the shipped pack, at the default settings."""
        pack = catalogue.load(ROOT / "models" / "default")
        settings = config.load(Path(os.devnull), environment={}, flags=[])
        return cls(settings, pack, assembly.build_analyser(pack, settings), Calibration(pack.embedder.operating_points))

    def faces(self, picture: Picture) -> list[Face]:
        """Return the faces as the appliance finds them, the largest first."""
        faces = self.settings.faces
        passes = self.analyser.passes(picture.shape, faces.min_face_pixels, self.settings.detection.input_size)
        return self.analyser.faces(picture, passes, presence_floor=faces.presence_floor)

    def score(self, probe: Embedding, template: Embedding) -> float:
        """Return the score of a comparison as the appliance gives it."""
        return self.calibration.score(similarity(probe, template, self.pack.embedder.cohort_weight))


def read(path: Path) -> Picture:
    """Return the picture as the appliance decodes it."""
    return image.decode(path.read_bytes(), max_pixels=40_000_000, min_side=16)


def measured(bench: Bench, folder: Path, pairs: Sequence[Pair]) -> Iterator[Measured]:
    """Yield one measurement for each pair and degradation."""
    templates: dict[Path, tuple[str, Embedding]] = {}
    for pair in pairs:
        picture = read(pair.reference)
        faces = bench.faces(picture) if pair.reference not in templates else []
        if faces:
            template = bench.analyser.embedder.template(picture, faces[0].landmarks.points)
            templates[pair.reference] = pair.person, template
    for number, pair in enumerate(pairs):
        picture = read(pair.probe)
        faces = bench.faces(picture)
        if not faces or pair.reference not in templates:
            continue
        own = templates[pair.reference][1]
        strangers = [template for person, template in templates.values() if person != pair.person]
        for worse in degradations():
            row = Measured(folder.name, worse.kind, worse.level, worse.measure)
            made = worse.make(picture, faces[0].landmarks)
            probe = same_face(bench, made, faces[0].landmarks.box, moved_in(made, picture, worse))
            yield _compared(bench, row, made, probe, own, strangers) if probe else row
        if number % 25 == 0:
            print(f"{folder.name}: {number} of {len(pairs)} pairs", file=sys.stderr)


def moved_in(made: Picture, picture: Picture, worse: Worse) -> tuple[float, float]:
    """Return how much smaller the picture was made, and how many columns were cut off at its left."""
    if worse.measure == "inside":
        return 1.0, picture.shape[1] - made.shape[1]
    return made.shape[1] / picture.shape[1], 0.0


def same_face(bench: Bench, made: Picture, box: Box, moved: tuple[float, float]) -> Face | None:
    """Return the face that was at `box` before the picture was made worse; None if it is not found any more."""
    scale, cut_columns = moved
    x, y = (box.centre[0] - cut_columns) * scale, box.centre[1] * scale
    for face in bench.faces(made) if min(made.shape[:2]) >= 16 else []:
        at = face.landmarks.box
        if np.hypot(at.centre[0] - x, at.centre[1] - y) < box.longer_side * scale / 3:
            return face
    return None


def _compared(
    bench: Bench, row: Measured, picture: Picture, found: Face, own: Embedding, strangers: Sequence[Embedding]
) -> Measured:
    probe = bench.analyser.embedder.probe(picture, found.landmarks.points)
    return dataclasses.replace(
        row,
        values={name: found.measures.value(name) for name in MEASURE_NAMES},
        own_score=bench.score(probe, own),
        false_matches=sum(bench.score(probe, other) >= THRESHOLD for other in strangers),
        strangers=len(strangers),
    )


# --- curves ---


@dataclass(frozen=True)
class Cell:
    """A stretch of a measure: its bounds, the middle value, and the rates there."""

    least: float
    middle: float
    most: float
    count: int
    fnmr: float
    fmr: float

    @property
    def error(self) -> float:
        """Half the 95 % interval of the FNMR (Agresti and Coull, 1998)."""
        count = self.count + 4
        share = (self.fnmr * self.count + 2) / count
        return float(1.96 * np.sqrt(share * (1 - share) / count))


def curve(rows: Sequence[Measured], measure: str) -> list[Cell]:
    """Return CELLS cells with as many measurements each, in the order of the measure (of its size, for angles)."""
    angle = measure in ("yaw", "pitch", "roll")
    valued = [(abs(row.values[measure]) if angle else row.values[measure], row) for row in rows if row.values]
    valued.sort(key=lambda pair: pair[0])
    bounds = np.linspace(0, len(valued), CELLS + 1).astype(int)
    cells = []
    for start, end in itertools.pairwise(bounds):
        part = valued[start:end]
        if not part:
            continue
        missed = sum(row.own_score < THRESHOLD for _, row in part)
        false, strangers = sum(row.false_matches for _, row in part), sum(row.strangers for _, row in part)
        middle = part[len(part) // 2][0]
        rates = missed / len(part), false / max(1, strangers)
        cells.append(Cell(part[0][0], middle, part[-1][0], len(part), *rates))
    return cells


def where_it_hurts(cells: Sequence[Cell], *, upward: bool) -> float | None:
    """Return the value beyond which FNMR stays at or over HURTS, between two cells in proportion; None if nowhere."""
    ordered = list(cells) if upward else list(reversed(cells))
    for inner, outer in itertools.pairwise(ordered):
        rest = ordered[ordered.index(outer) :]
        if inner.fnmr < HURTS <= outer.fnmr and all(cell.fnmr >= HURTS for cell in rest):
            share = (HURTS - inner.fnmr) / (outer.fnmr - inner.fnmr)
            return inner.middle + share * (outer.middle - inner.middle)
    return None


# (setting, measure, whether it is the most that is allowed)
LIMITS = (
    ("sharpness_min", "sharpness", False),
    ("square_min", "size", False),
    ("brightness_min", "brightness", False),
    ("brightness_max", "brightness", True),
    ("presence_min", "face_presence", False),
    ("inside_min", "inside", False),
    ("yaw_max", "yaw", True),
    ("pitch_max", "pitch", True),
)


def concerning(rows: Sequence[Measured], measure: str, *, data: str | None = None) -> list[Measured]:
    """Return what a measure's curve is drawn from: pictures as they are, and those made worse in its way."""
    return [row for row in rows if row.measure in ("", measure) and data in (None, row.data)]


def half(rows: Sequence[Measured], measure: str, *, upward: bool) -> list[Measured]:
    """Return one side of a measure that hurts at both ends: brightness."""
    if measure != "brightness":
        return list(rows)
    return [row for row in rows if not row.measure or (row.level > 1) == upward]


def recommend(rows: Sequence[Measured]) -> None:
    """Print, for each limit, where FNMR reaches HURTS, and the ordinary faces' own tail."""
    ordinary = [row.values for row in rows if not row.measure and row.values]
    print(f"\nLimits: where FNMR at {THRESHOLD} reaches {HURTS:.0%}, and what share of {len(ordinary)} ordinary faces")
    print(
        f"it refuses; the value that refuses {LARGEST_REFUSAL:.0%} of them. The milder of the two is the most to ask."
    )
    print(f"{'limit':<16}{'hurts at':>10}{'refuses':>10}{'2 % at':>10}")
    for setting, measure, upward in LIMITS:
        hurts = where_it_hurts(curve(half(concerning(rows, measure), measure, upward=upward), measure), upward=upward)
        values = np.array([value[measure] for value in ordinary])
        values = np.abs(values) if measure in ("yaw", "pitch") else values
        tail = float(np.quantile(values, 1 - LARGEST_REFUSAL if upward else LARGEST_REFUSAL))
        if hurts is None:
            print(f"{setting:<16}{'nowhere':>10}{'':>10}{tail:>10.4g}")
            continue
        refused = float(np.mean(values > hurts if upward else values < hurts))
        print(f"{setting:<16}{hurts:>10.4g}{refused:>10.1%}{tail:>10.4g}")


def print_curves(rows: Sequence[Measured]) -> None:
    """Print every measure's table, data by data."""
    for measure in MEASURE_NAMES:
        for data in dict.fromkeys(row.data for row in rows):
            cells = curve(concerning(rows, measure, data=data), measure)
            print(f"\n{measure}, {data}: {sum(cell.count for cell in cells)} probes")
            print(f"{'from':>10}{'to':>10}{'probes':>8}{'FNMR':>9}{'+-':>8}{'FMR':>10}")
            for c in cells:
                print(f"{c.least:>10.4g}{c.most:>10.4g}{c.count:>8}{c.fnmr:>9.1%}{c.error:>8.1%}{c.fmr:>10.4%}")


def print_levels(rows: Sequence[Measured]) -> None:
    """Print what each degradation does: faces not found, the measure that should notice, and FNMR."""
    print(f"\n{'made worse':<18}{'level':>7}{'data':>10}{'lost':>8}{'measure':>15}", end="")
    print(f"{'5 %':>8}{'50 %':>8}{'95 %':>8}{'FNMR':>8}")
    key = lambda row: (row.kind, row.level, row.data, row.measure)  # noqa: E731
    for (kind, level, data, measure), part in itertools.groupby(sorted(rows, key=key), key):
        group = list(part)
        found = [row for row in group if row.values]
        lost = 1 - len(found) / len(group)
        if not found or not measure:
            continue
        low, middle, high = np.quantile([row.values[measure] for row in found if row.values], (0.05, 0.5, 0.95))
        fnmr = sum(row.own_score < THRESHOLD for row in found) / len(found)
        print(
            f"{kind:<18}{level:>7g}{data:>10}{lost:>8.1%}{measure:>15}{low:>8.3f}{middle:>8.3f}{high:>8.3f}{fnmr:>8.1%}"
        )


def print_presence(rows: Sequence[Measured]) -> None:
    """Print what share of ordinary and of covered faces each presence limit refuses, and the FNMR of those it keeps."""
    ordinary = np.array([row.values["face_presence"] for row in rows if not row.measure and row.values])
    hidden = [row for row in rows if row.kind.startswith("cover") and row.values]
    presence = np.array([row.values["face_presence"] for row in hidden if row.values])
    missed = np.array([row.own_score < THRESHOLD for row in hidden])
    print(
        f"\n{'presence_min':>13}{'ordinary':>10}{'covered':>9}{'of those not known again':>26}{'FNMR of the kept':>18}"
    )
    for limit in (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9999, 0.99999):
        kept = presence >= limit
        caught = float(np.mean(~kept[missed])) if missed.any() else 0.0
        fnmr = float(missed[kept].mean()) if kept.any() else 0.0
        print(f"{limit:>13}{np.mean(ordinary < limit):>10.2%}{np.mean(~kept):>9.1%}{caught:>26.1%}{fnmr:>18.1%}")


def draw(rows: Sequence[Measured], out: Path) -> None:
    """Write a picture per measure: the curve of each data folder, and below it where ordinary faces lie."""
    try:
        pyplot: Any = importlib.import_module("matplotlib.pyplot")
    except ImportError:
        print("\nmatplotlib is not installed: no pictures", file=sys.stderr)
        return
    for measure in MEASURE_NAMES:
        figure, (upper, lower) = pyplot.subplots(2, 1, sharex=True, figsize=(6, 4.2), height_ratios=(3, 1))
        for data in dict.fromkeys(row.data for row in rows):
            part = concerning(rows, measure, data=data)
            cells = curve(part, measure)
            x = [cell.middle for cell in cells]
            upper.errorbar(
                x, [c.fnmr for c in cells], [c.error for c in cells], label=data, marker="o", ms=3, capsize=2
            )
            values = [row.values[measure] for row in part if not row.measure and row.values]
            values = [abs(value) for value in values] if measure in ("yaw", "pitch", "roll") else values
            lower.hist(values, bins=40, density=True, alpha=0.5)
        upper.set_ylabel(f"FNMR at {THRESHOLD}")
        upper.set_ylim(0, 1)
        upper.grid(alpha=0.3)
        upper.legend()
        lower.set_yticks([])
        lower.set_ylabel("ordinary")
        lower.set_xlabel(measure)
        figure.tight_layout()
        figure.savefig(out / f"quality-{measure}.png", dpi=110)
        pyplot.close(figure)


def write_rows(rows: Sequence[Measured], path: Path) -> None:
    """Write every measurement as a line."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("data", "kind", "level", "own_score", "false_matches", "strangers", *MEASURE_NAMES))
        for row in rows:
            values = [round(row.values[name], 6) for name in MEASURE_NAMES] if row.values else [""] * len(MEASURE_NAMES)
            scores = (round(row.own_score, 4), row.false_matches, row.strangers) if row.values else ("", "", "")
            writer.writerow((row.data, row.kind, row.level, *scores, *values))


def main() -> int:
    """Measure the folders, print the tables, write the pictures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--out", type=Path, default=Path("build/quality"))
    parser.add_argument("--pairs", type=int, default=250, help="at most so many of each folder, drawn at random")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    bench = Bench.load()
    rows: list[Measured] = []
    for folder in arguments.folders:
        pairs = mated_pairs(folder.resolve())
        order = np.random.default_rng(arguments.seed).permutation(len(pairs))
        rows += measured(bench, folder.resolve(), [pairs[index] for index in order[: arguments.pairs]])
    if not any(row.values for row in rows):
        print("no face found in any pair", file=sys.stderr)
        return 1
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_rows(rows, arguments.out / "measurements.csv")
    print_levels(rows)
    print_curves(rows)
    print_presence(rows)
    recommend(rows)
    draw(rows, arguments.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
