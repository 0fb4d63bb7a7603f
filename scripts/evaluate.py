"""How well a pack tells people apart, on pictures of your own: the product's own pipeline, nothing else.

    .venv/bin/pip install matplotlib
    .venv/bin/python scripts/evaluate.py FOLDER [--pack NAME] [--gallery 10 100 500] [--strangers 1000]
        [--out evaluation]

FOLDER holds a folder for each person with their pictures. A `pairs.txt` in it, in LFW's format, says which pictures to
compare (verification in ten folds, as LFW is reported); without one, or for the rates at low FMR, every picture is
compared with every other. The largest face of each picture counts. It prints

- failure to enrol: pictures without a face that may be compared,
- TMR (mated comparisons accepted) at FMR 1e-2, 1e-3 and 1e-4, each only where there are non-mated comparisons enough
  (ten false ones) to speak of it,
- 1:N: for galleries of so many people, with one template each, how many of the others are taken for somebody (FPIR)
  and how many of the enrolled are not found (FNIR), at the threshold that `auto` gives for that size; once over all
  galleries that are drawn, and once for exactly so many strangers' pictures as --strangers says. The error is the
  binomial one of so many distinct people as there are among the strangers: pictures of one person, and one picture
  before several galleries, are not independent,

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

from edge import assembly, catalogue, config, evaluation
from edge.evaluation import Comparisons, Sample, Sampler, Similarities
from edge.face import image
from edge.matching import Calibration, automatic_threshold
from edge.types import Pack

FMRS = (1e-2, 1e-3, 1e-4)

SEED = 20
"""Of the galleries that are drawn."""

GALLERY_DRAWS = 20


def embedded(folder: Path, sampler: Sampler) -> tuple[list[Sample], int]:
    """Return a sample for every picture with a face that may be compared, and how many pictures there are."""
    files = evaluation.pictures(folder)
    samples = []
    for number, path in enumerate(files):
        if sys.stderr.isatty() and number % 10 == 0:
            print(f"\r  {number} of {len(files)} pictures", end="", file=sys.stderr)
        sample = sampler(path)
        if sample is not None:
            samples.append(sample)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return samples, len(files)


# --- rates ---


def tmr_at(genuine: Similarities, impostor: Similarities, fmr: float) -> tuple[float, float] | None:
    """Return TMR and the similarity at that FMR; None where the comparisons are too few to say."""
    threshold = evaluation.similarity_at(impostor, fmr)
    tmr = None if threshold is None else evaluation.share_from(genuine, threshold)
    return None if threshold is None or tmr is None else (tmr, threshold)


def ten_folds(scores: Similarities, mated: NDArray[np.bool_]) -> tuple[float, float]:
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


@dataclass(frozen=True)
class Searches:
    """What became of searches in galleries of one size: by strangers, and by the enrolled with their other pictures."""

    galleries: int
    strangers: int
    stranger_people: int
    """Distinct people among them."""
    false_positives: int
    enrolled: int
    false_negatives: int
    """Who is not found as themselves."""

    @property
    def fpir(self) -> float:
        """The share of strangers that are taken for somebody."""
        return self.false_positives / self.strangers

    @property
    def fpir_error(self) -> float:
        """The binomial standard error, on distinct people; of one false positive where there was none."""
        share = max(self.fpir, 1 / self.strangers)
        return math.sqrt(share * (1 - share) / self.stranger_people)


def identification(
    samples: list[Sample],
    data: Comparisons,
    calibration: Calibration,
    size: int,
    threshold: float,
    strangers: int | None = None,
) -> Searches | None:
    """Search galleries of `size` people that are drawn, one template each; None where there are too few people.

    Everybody else is a stranger, with all their pictures. GALLERY_DRAWS galleries, or as many as it takes for
    `strangers` searches.
    """
    people = sorted({s.person for s in samples})
    if size >= len(people):
        return None
    of = {person: [n for n, s in enumerate(samples) if s.person == person] for person in people}
    rng = np.random.default_rng(SEED)
    galleries, searched, seen, false_positives, false_negatives, enrolled = 0, 0, set(), 0, 0, 0
    while galleries < GALLERY_DRAWS if strangers is None else searched < strangers:
        galleries += 1
        inside = [str(person) for person in rng.choice(people, size, replace=False)]
        templates = [of[person][0] for person in inside]
        outside = rng.permutation([n for person in people if person not in set(inside) for n in of[person]])
        if strangers is not None:
            outside = outside[: strangers - searched]
        best = data.similarity[np.ix_(outside, templates)].max(axis=1)
        false_positives += sum(calibration.score(float(one)) >= threshold for one in best)
        searched += len(outside)
        seen.update(samples[number].person for number in outside)
        for column, person in enumerate(inside):
            for probe in of[person][1:]:
                row = data.similarity[probe, templates]
                found = int(row.argmax()) == column and calibration.score(float(row[column])) >= threshold
                false_negatives += not found
                enrolled += 1
    return Searches(galleries, searched, len(seen), false_positives, enrolled, false_negatives)


# --- output ---


def draw(genuine: Similarities, impostor: Similarities, calibration: Calibration, file: Path) -> None:
    """Write FNMR against FMR, both on logarithmic axes, with the score that marks each point."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    # as many thresholds in every decade of FMR: quantiles would leave the low ones, which count, a handful of points
    false_matches = np.unique(np.geomspace(1, len(impostor), 400).astype(int))
    thresholds = np.sort(impostor)[-false_matches]
    fmr = false_matches / len(impostor)
    fnmr = np.searchsorted(np.sort(genuine), thresholds) / len(genuine)
    figure, axes = pyplot.subplots(figsize=(6, 4.5), dpi=110)
    axes.loglog(fmr, np.maximum(fnmr, 0.5 / len(genuine)))
    for score in (0.5, 0.6, 0.7, 0.8, 0.9):
        at = int(np.argmin([abs(calibration.score(float(t)) - score) for t in thresholds]))
        if 0 < at < len(thresholds) - 1:
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
    samples, pictures = embedded(folder, assembly.sampler(assembly.build_analyser(pack, settings), settings))
    if not samples:
        print(f"none of {pictures} pictures in {folder}/*/ shows a face that may be compared")
        return
    data = evaluation.compared(samples, pack.embedder.cohort_weight)
    calibration = Calibration(assembly.operating_points(pack, settings))
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
        report_searches(samples, data, calibration, size, settings.new_person.false_positive_rate, options.strangers)
    options.out.mkdir(parents=True, exist_ok=True)
    contact_sheet(samples, data, calibration, options.out / "worst.jpg")
    try:
        draw(genuine, impostor, calibration, options.out / "roc.png")
    except ImportError:
        print("matplotlib is not installed: no roc.png")


def report_searches(
    samples: list[Sample], data: Comparisons, calibration: Calibration, size: int, rate: float, strangers: int
) -> None:
    """Print what galleries of that size do at the threshold that `auto` gives for it."""
    threshold = automatic_threshold(size, rate)
    for limit in (None, strangers):
        found = identification(samples, data, calibration, size, threshold, limit)
        if found is None:
            print(f"gallery of {size}: too few people")
            return
        begin = f"gallery of {size}: threshold {threshold:.3f}" if limit is None else "  so many strangers"
        print(
            f"{begin}, FPIR {found.fpir:.4f} +- {found.fpir_error:.4f} ({rate:g} promised): {found.false_positives:,}"
            f" of {found.strangers:,} searches by {found.stranger_people} strangers in {found.galleries} galleries"
        )
        if limit is None:
            print(f"  FNIR {found.false_negatives / max(found.enrolled, 1):.4f} of {found.enrolled:,} searches")


def main() -> int:
    """Evaluate one pack on one folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pack", help="the pack's name (default: the one in force)")
    parser.add_argument("--gallery", type=int, nargs="*", default=[10, 100, 500])
    parser.add_argument("--strangers", type=int, default=1000, help="searches by strangers (default: 1000)")
    parser.add_argument("--out", type=Path, default=Path("evaluation"))
    options = parser.parse_args()
    settings = config.load()
    folders = assembly.pack_folders(settings)
    pack = catalogue.find(options.pack, folders) if options.pack else assembly.pack_in_force(settings)
    report(options.folder, pack, settings, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
