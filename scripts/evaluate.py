"""How well a pack tells people apart, on pictures of your own: the product's own pipeline, nothing else.

    .venv/bin/pip install matplotlib
    .venv/bin/python scripts/evaluate.py FOLDER [--pack NAME] [--gallery 10 100 500] [--out evaluation]

FOLDER holds a folder for each person with their pictures. A `pairs.txt` in it, in LFW's format, says which pictures to
compare (verification in ten folds, as LFW is reported); without one, or for the rates at low FMR, every picture is
compared with every other. The largest face of each picture counts. It prints

- failure to enrol: pictures without a face that may be compared,
- TMR (mated comparisons accepted) at FMR 1e-2, 1e-3 and 1e-4, each only where there are non-mated comparisons enough
  (ten false ones) to speak of it,
- 1:N: for galleries of so many people, with one template each, how many of the others are taken for somebody (FPIR)
  and how many of the enrolled are not found (FNIR), at the threshold that `auto` gives for that size,

and writes roc.png and worst.jpg (the worst mated and non-mated comparisons) into --out. A comparison is a probe
against a template, as the product compares; terms are those of ISO/IEC 19795.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge import catalogue, config, daemon
from edge.errors import Refusal
from edge.face import image
from edge.face.analysis import Analyser
from edge.matching import Calibration, automatic_threshold
from edge.types import Embedding, Pack

Matrix = NDArray[np.float64]

FMRS = (1e-2, 1e-3, 1e-4)
ENOUGH_FALSE_MATCHES = 10
"""A rate that rests on fewer false matches says little: its standard error is a third of it."""

PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
SEED = 20
"""Of the galleries that are drawn."""

GALLERY_DRAWS = 20


@dataclass(frozen=True, eq=False)
class Sample:
    """A picture whose largest face was embedded, as a probe and as a template."""

    person: str
    path: Path
    probe: Embedding
    template: Embedding


@dataclass(frozen=True, eq=False)
class Comparisons:
    """Normalised similarities of probes (rows) with templates (columns), and which of them are mated."""

    similarity: Matrix
    mated: NDArray[np.bool_]
    non_mated: NDArray[np.bool_]


# --- embedding ---


def embedded(folder: Path, analyser: Analyser, settings: config.Config) -> tuple[list[Sample], int]:
    """Return a sample for every picture with a face that may be compared, and how many pictures there are."""
    files = sorted(path for path in folder.glob("*/*") if path.suffix.lower() in PICTURES)
    samples = []
    for number, path in enumerate(files):
        if sys.stderr.isatty() and number % 10 == 0:
            print(f"\r  {number} of {len(files)} pictures", end="", file=sys.stderr)
        try:
            picture = image.decode(path.read_bytes(), max_pixels=40_000_000, min_side=settings.image.min_side_pixels)
        except Refusal:
            continue
        smallest = settings.faces.min_face_pixels
        passes = analyser.passes(picture.shape, smallest, settings.detection.input_size)
        faces = analyser.faces(picture, passes, presence_floor=settings.faces.presence_floor, enough_pixels=smallest)
        if faces and faces[0].measures.size >= settings.faces.min_face_pixels:
            points = faces[0].landmarks.points
            embedder = analyser.embedder
            probe, template = embedder.probe(picture, points), embedder.template(picture, points)
            samples.append(Sample(path.parent.name, path, probe, template))
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return samples, len(files)


def compared(samples: list[Sample], pack: Pack) -> Comparisons:
    """Return every probe against every template but that of its own picture."""
    probes, templates = ([getattr(s, kind) for s in samples] for kind in ("probe", "template"))
    cosines = np.array([p.vector for p in probes], np.float64) @ np.array([t.vector for t in templates], np.float64).T
    shared = np.add.outer([p.cohort_similarity for p in probes], [t.cohort_similarity for t in templates])
    people = np.array([s.person for s in samples])
    mated = people[:, None] == people[None, :]
    itself = np.eye(len(samples), dtype=bool)
    return Comparisons(cosines - pack.embedder.cohort_weight * shared, mated & ~itself, ~mated)


# --- rates ---


def tmr_at(genuine: Matrix, impostor: Matrix, fmr: float) -> tuple[float, float] | None:
    """Return TMR and the similarity at that FMR; None where the non-mated comparisons are too few to say."""
    allowed = int(fmr * len(impostor))
    if allowed < ENOUGH_FALSE_MATCHES:
        return None
    threshold = float(np.partition(impostor, len(impostor) - allowed)[len(impostor) - allowed])
    return float((genuine > threshold).mean()), threshold


def ten_folds(scores: Matrix, mated: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the mean accuracy and its standard error, each fold judged by the best threshold of the other nine."""
    order = np.random.default_rng(SEED).permutation(len(scores))
    accuracies = []
    for fold in np.array_split(order, 10):
        others = np.setdiff1d(order, fold)
        candidates = np.unique(scores[others])
        # sorted once: accuracy at a threshold is mated at or above it plus non-mated below it
        genuine, impostor = np.sort(scores[others][mated[others]]), np.sort(scores[others][~mated[others]])
        right = len(genuine) - np.searchsorted(genuine, candidates) + np.searchsorted(impostor, candidates)
        threshold = candidates[int(np.argmax(right))]
        accuracies.append(float(((scores[fold] >= threshold) == mated[fold]).mean()))
    return float(np.mean(accuracies)), float(np.std(accuracies) / math.sqrt(10))


def pairs_of(file: Path, samples: list[Sample]) -> list[tuple[int, int, bool]]:
    """Return LFW's pairs as numbers of samples, without those whose pictures hold no face."""
    number_of = {(s.person, s.path.stem.rsplit("_", 1)[-1].lstrip("0")): number for number, s in enumerate(samples)}
    pairs = []
    for line in file.read_text(encoding="utf-8").splitlines()[1:]:
        words = line.split()
        if len(words) == 3:
            ends = ((words[0], words[1]), (words[0], words[2]))
        elif len(words) == 4:
            ends = ((words[0], words[1]), (words[2], words[3]))
        else:
            continue
        if all(end in number_of for end in ends):
            pairs.append((number_of[ends[0]], number_of[ends[1]], len(words) == 3))
    return pairs


def identification(
    samples: list[Sample], data: Comparisons, calibration: Calibration, size: int, rate: float
) -> tuple[float, float, float, int, int] | None:
    """Return threshold, FPIR, FNIR, searches by strangers and by the enrolled; None where there are too few people.

    Galleries of `size` people are drawn, one template each; everybody else is a stranger, and the other pictures of
    the enrolled are their searches. FNIR counts who is not found as themselves.
    """
    people = sorted({s.person for s in samples})
    if size >= len(people):
        return None
    of = {person: [n for n, s in enumerate(samples) if s.person == person] for person in people}
    threshold = automatic_threshold(size, rate)
    scores = np.vectorize(calibration.score)
    rng = np.random.default_rng(SEED)
    false_positives, false_negatives, strangers, enrolled = 0, 0, 0, 0
    for _ in range(GALLERY_DRAWS):
        inside = [str(person) for person in rng.choice(people, size, replace=False)]
        templates = [of[person][0] for person in inside]
        outside = [of[person][0] for person in people if person not in set(inside)]
        best = scores(data.similarity[np.ix_(outside, templates)].max(axis=1))
        false_positives += int((best >= threshold).sum())
        strangers += len(outside)
        for column, person in enumerate(inside):
            for probe in of[person][1:]:
                row = data.similarity[probe, templates]
                found = int(row.argmax()) == column and calibration.score(float(row[column])) >= threshold
                false_negatives += not found
                enrolled += 1
    return threshold, false_positives / strangers, false_negatives / max(enrolled, 1), strangers, enrolled


# --- output ---


def draw(genuine: Matrix, impostor: Matrix, calibration: Calibration, file: Path) -> None:
    """Write FNMR against FMR, both on logarithmic axes, with the score that marks each point."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    thresholds = np.quantile(np.concatenate([genuine, impostor]), np.linspace(0, 1, 2000))
    fmr = 1 - np.searchsorted(np.sort(impostor), thresholds) / len(impostor)
    fnmr = np.searchsorted(np.sort(genuine), thresholds) / len(genuine)
    seen = fmr * len(impostor) >= 1
    figure, axes = pyplot.subplots(figsize=(6, 4.5), dpi=110)
    axes.loglog(fmr[seen], np.maximum(fnmr[seen], 0.5 / len(genuine)))
    for score in (0.5, 0.6, 0.7, 0.8, 0.9):
        at = int(np.argmin([abs(calibration.score(float(t)) - score) for t in thresholds]))
        if seen[at]:
            axes.annotate(f"{score}", (fmr[at], max(fnmr[at], 0.5 / len(genuine))), fontsize=8)
    axes.set_xlabel(f"FMR ({len(impostor):,} non-mated comparisons)")
    axes.set_ylabel(f"FNMR ({len(genuine):,} mated)")
    axes.grid(visible=True, which="both", alpha=0.3)
    figure.tight_layout()
    figure.savefig(file)


def contact_sheet(samples: list[Sample], data: Comparisons, calibration: Calibration, file: Path) -> None:
    """Write the eight mated comparisons that look least alike above the eight non-mated that look most alike."""
    lowest = np.where(data.mated, data.similarity, np.inf)
    highest = np.where(data.non_mated, data.similarity, -np.inf)
    side, columns = 120, 8
    sheet = np.full((4 * side + 40, columns * side, 3), 255, np.uint8)
    for top, order in ((0, np.argsort(lowest, axis=None)), (2 * side + 20, np.argsort(-highest, axis=None))):
        taken: set[frozenset[int]] = set()
        for flat in order:
            pair = divmod(int(flat), len(samples))
            if frozenset(pair) in taken:
                continue
            left = len(taken) * side
            for down, number in enumerate(pair):
                tile = image.decode(samples[number].path.read_bytes(), max_pixels=40_000_000, min_side=16)
                scale = side / max(tile.shape[:2])
                tile = cv2.resize(tile, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)[:side, :side]
                sheet[top + down * side :, left:][: tile.shape[0], : tile.shape[1]] = tile
            score = f"{calibration.score(float(data.similarity[pair])):.2f}"
            cv2.putText(sheet, score, (left + 4, top + 2 * side + 15), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1)
            taken.add(frozenset(pair))
            if len(taken) == columns:
                break
    file.write_bytes(image.encode_jpeg(sheet, quality=85))


def report(folder: Path, pack: Pack, settings: config.Config, options: argparse.Namespace) -> None:
    """Embed, compare, print and write."""
    analyser = daemon.build_analyser(pack, settings)
    samples, pictures = embedded(folder, analyser, settings)
    data = compared(samples, pack)
    calibration = Calibration(pack.embedder.operating_points)
    genuine, impostor = data.similarity[data.mated], data.similarity[data.non_mated]
    people = len({s.person for s in samples})
    print(f"pack {pack.id}: {pictures} pictures of {people} people in {folder.name}")
    print(f"failure to enrol: {pictures - len(samples)} ({(pictures - len(samples)) / max(pictures, 1):.2%})")
    print(f"mated comparisons {len(genuine):,}, non-mated {len(impostor):,}")
    for fmr in FMRS:
        found = tmr_at(genuine, impostor, fmr)
        if found:
            print(f"  TMR at FMR {fmr:g}: {found[0]:.4f} (score {calibration.score(found[1]):.3f})")
        else:
            print(f"  TMR at FMR {fmr:g}: too few non-mated comparisons to say")
    if (folder / "pairs.txt").exists():
        pairs = pairs_of(folder / "pairs.txt", samples)
        # a pair has no direction, so both are averaged
        scores = np.array([(data.similarity[a, b] + data.similarity[b, a]) / 2 for a, b, _ in pairs])
        same = np.array([mated for _, _, mated in pairs])
        accuracy, error = ten_folds(scores, same)
        print(f"pairs.txt: {len(pairs)} pairs, accuracy over ten folds {accuracy:.4f} +- {error:.4f}")
        found = tmr_at(scores[same], scores[~same], 2e-2)
        if found:
            print(f"  TMR at FMR 2e-2 on its {int((~same).sum())} non-mated pairs: {found[0]:.4f}")
    for size in options.gallery:
        rates = identification(samples, data, calibration, size, settings.new_person.false_positive_rate)
        if rates is None:
            print(f"gallery of {size}: too few people")
            continue
        threshold, fpir, fnir, strangers, enrolled = rates
        error = math.sqrt(max(fpir, 1 / strangers) * (1 - fpir) / (strangers / GALLERY_DRAWS))
        print(
            f"gallery of {size}: threshold {threshold:.3f}, FPIR {fpir:.4f} +- {error:.4f} of {strangers} searches by"
            f" strangers, FNIR {fnir:.4f} of {enrolled}"
        )
    options.out.mkdir(parents=True, exist_ok=True)
    contact_sheet(samples, data, calibration, options.out / "worst.jpg")
    try:
        draw(genuine, impostor, calibration, options.out / "roc.png")
    except ImportError:
        print("matplotlib is not installed: no roc.png")


def main() -> int:
    """Evaluate one pack on one folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pack", help="the pack's name (default: the one in force)")
    parser.add_argument("--gallery", type=int, nargs="*", default=[10, 100, 500])
    parser.add_argument("--out", type=Path, default=Path("evaluation"))
    options = parser.parse_args()
    settings = config.load()
    pack = catalogue.find(options.pack or settings.models.pack, daemon.pack_folders(settings))
    report(options.folder, pack, settings, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
