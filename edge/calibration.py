"""The site's own operating points: what a pack's similarities are worth among the people of this place.

`edge calibrate` measures them on the integrator's own pictures and keeps them in <data>/calibration; the setting
`models.operating_points` chooses between them and the pack's. They hold for the embedder that made them and no other.
Nothing of the pictures is kept but how many they were.
"""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge import catalogue, durable, evaluation
from edge.errors import ConfigMistakes, Mistake, invalid
from edge.evaluation import Comparisons, Sample
from edge.matching import Calibration
from edge.types import OperatingPoint, Pack

FOLDER_NAME = "calibration"
"""In the data folder: a file for each pack."""

FORMAT = 1
"""The version of the file that this program reads."""

LEAST_PEOPLE = 10
"""Under ten people, one pair of look-alikes is a fiftieth of everything that is measured."""

LEAST_COMPARISONS = 1_000
"""Non-mated ones: the least that shows an FMR of 1 % by ten false matches."""

MOST_PICTURES = 5_000
"""25 million comparisons take 200 MB of memory at once, and say all down to an FMR of a millionth."""

DECIMALS = 5
"""Of a measured similarity: finer ones are a single product's rounding, not a difference between faces."""

SETTING = "models.operating_points"

Row = tuple[float, float, "float | None"]
"""FMR, normalised similarity, and the TMR there; None where no two pictures are of one person."""


@dataclass(frozen=True)
class SiteCalibration:
    """The site's operating points and what they rest on: counts, the day (ISO, UTC), and the embedder they hold for."""

    pack_id: str
    embedder_sha256: str
    made: str
    people: int
    pictures: int
    without_face: int
    non_mated: int
    mated: int
    measured_rows: int
    """Of the rows, the first so many were measured; those after them are the pack's, shifted."""
    rows: tuple[Row, ...]


def pictures(folder: Path) -> list[Path]:
    """Return the pictures to measure on. Raises InvalidSchema at once where they cannot be enough, or are too many."""
    files = evaluation.pictures(folder)
    people = len({path.parent for path in files})
    if people < LEAST_PEOPLE:
        reason = f"holds pictures of {people} people, each in a folder of their own: {LEAST_PEOPLE} are the least"
        raise invalid("FOLDER", reason)
    if len(files) > MOST_PICTURES:
        raise invalid("FOLDER", f"holds {len(files):,} pictures: {MOST_PICTURES:,} are the most")
    return files


def calibrate(pack: Pack, samples: Sequence[Sample], looked_at: int, made: str) -> tuple[SiteCalibration, Comparisons]:
    """Measure the pack's operating points on the samples of so many pictures; return the comparisons as well.

    Raises InvalidSchema where the people or the comparisons are too few to say anything.
    """
    per_person: dict[str, int] = {}
    for sample in samples:
        per_person[sample.person] = per_person.get(sample.person, 0) + 1
    non_mated = len(samples) ** 2 - sum(count**2 for count in per_person.values())
    if len(per_person) < LEAST_PEOPLE or non_mated < LEAST_COMPARISONS:
        reason = (
            f"has {len(per_person)} people with a face that may be compared, and {non_mated:,} comparisons between"
            f" people: {LEAST_PEOPLE} people and {LEAST_COMPARISONS:,} comparisons are the least that says anything"
        )
        raise invalid("FOLDER", reason)
    data = evaluation.compared(samples, pack.embedder.cohort_weight)
    points, measured = site_points(pack.embedder.operating_points, data)
    genuine = data.similarity[data.mated]
    rows = tuple((point.fmr, point.similarity, evaluation.share_from(genuine, point.similarity)) for point in points)
    return SiteCalibration(
        pack_id=pack.id,
        embedder_sha256=pack.embedder.file.sha256,
        made=made,
        people=len(per_person),
        pictures=looked_at,
        without_face=looked_at - len(samples),
        non_mated=non_mated,
        mated=len(genuine),
        measured_rows=measured,
        rows=rows,
    ), data


def site_points(points: Sequence[OperatingPoint], data: Comparisons) -> tuple[tuple[OperatingPoint, ...], int]:
    """Return the points as these comparisons have them, and how many of them, the first ones, were measured.

    A row is measured where its FMR rests on ten false matches or more. The rarer errors these pictures cannot show:
    their rows are the pack's own, moved by the same similarity as the last measured one. A row that is no higher than
    the one before it is left out: of pictures that are in the folder twice. Raises InvalidSchema where nothing is left.
    """
    non_mated = data.similarity[data.non_mated]
    measured: list[OperatingPoint] = []
    rest: list[OperatingPoint] = []
    shift = 0.0
    for point in points:
        similarity = evaluation.similarity_at(non_mated, point.fmr)
        if similarity is None:
            rest.append(OperatingPoint(point.fmr, point.similarity + shift))
        elif not measured or round(similarity, DECIMALS) > measured[-1].similarity:
            measured.append(OperatingPoint(point.fmr, round(similarity, DECIMALS)))
            shift = measured[-1].similarity - point.similarity
    if not measured:
        raise invalid("FOLDER", f"has too few comparisons for an FMR of {points[0].fmr:g}, the pack's highest")
    try:
        return catalogue.operating_points([dataclasses.astuple(point) for point in (*measured, *rest)]), len(measured)
    except ValueError as error:
        raise invalid("FOLDER", f"says nothing of its people: {error}") from None


def false_matches(points: Sequence[OperatingPoint], data: Comparisons, score: float) -> int:
    """Return how many of the non-mated comparisons reach the score, as the points have it."""
    scale = Calibration(points)
    similarities = np.sort(data.similarity[data.non_mated])
    return len(similarities) - bisect.bisect_left(similarities, score, key=lambda one: scale.score(float(one)))


# --- the file ---


def path_of(data_folder: Path, pack: Pack) -> Path:
    """Return where the site's points for the pack are kept."""
    return data_folder / FOLDER_NAME / f"{pack.folder.name}.json"


def keep(data_folder: Path, pack: Pack, measured: SiteCalibration) -> Path:
    """Write the file, durably, and return where: it is the old one or the new one, never half of one."""
    path = path_of(data_folder, pack)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    content = dataclasses.asdict(measured)
    content["operating_points"] = {"rows": content.pop("rows")}
    temporary = path.with_suffix(".new")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump({"format": FORMAT, **content}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    durable.sync(path.parent)
    return path


def load(data_folder: Path, pack: Pack) -> tuple[OperatingPoint, ...]:
    """Return the site's points for the pack. Raises ConfigMistakes: none, those of another embedder, or garbage."""
    path = path_of(data_folder, pack)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _unusable(pack, "has none yet") from None
    except OSError as error:
        raise _unusable(pack, f"has them in {path}, which cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise _unusable(pack, f"has them in {path}, which is not JSON") from None
    with contextlib.suppress(KeyError, TypeError, ValueError, IndexError, OverflowError):
        if content["format"] == FORMAT:
            return _points_of(content, pack)
    raise _unusable(pack, f"has {path}, which holds no operating points that this program can read")


def _points_of(content: Any, pack: Pack) -> tuple[OperatingPoint, ...]:
    points = catalogue.operating_points(content["operating_points"]["rows"])
    if (content["pack_id"], content["embedder_sha256"]) != (pack.id, pack.embedder.file.sha256):
        raise _unusable(pack, "has those of another version of it")
    return points


def _unusable(pack: Pack, found: str) -> ConfigMistakes:
    name = pack.folder.name
    mend = f"`edge calibrate FOLDER --pack {name}` measures them; until then set it to pack"
    return ConfigMistakes(Mistake(SETTING, f"is site, but for the pack '{name}' this site {found}: {mend}"))
