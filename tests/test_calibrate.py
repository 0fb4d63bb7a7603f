"""The site's own operating points: measured, kept, chosen, and refused where they are not the pack's."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from real_process import Service

from edge import calibration, evaluation
from edge.calibration import SiteCalibration
from edge.errors import ConfigMistakes, InvalidSchema
from edge.evaluation import Sample
from edge.types import Embedding, OperatingPoint, Pack, unit

PHOTOS = Path(__file__).parent / "photos"
SITE = "models.operating_points=site"
POINTS = tuple(
    OperatingPoint(fmr, similarity)
    for fmr, similarity in ((0.5, 0.05), (0.1, 0.2), (0.01, 0.3), (0.001, 0.36), (0.0001, 0.4), (0.00001, 0.45))
)


def synthetic(people: int, each: int, *, length: int = 32, seed: int = 1) -> list[Sample]:
    """Pictures of people who are nothing but directions: one of them for each person, with noise for each picture."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(people):
        person = rng.normal(size=length)
        for picture in range(each):
            one, other = (Embedding(unit(person + rng.normal(size=length) * 0.5), 0.0) for _ in range(2))
            found.append(Sample(f"{number}", Path(f"{number}/{picture}.jpg"), one, other))
    return found


def with_points(pack: Pack, points: Sequence[OperatingPoint] = POINTS) -> Pack:
    """The pack without a cohort, which synthetic vectors have nothing to do with."""
    return dataclasses.replace(
        pack, embedder=dataclasses.replace(pack.embedder, cohort=None, operating_points=tuple(points))
    )


# --- what is measured ---


def test_a_measured_row_is_reached_by_its_share_of_the_non_mated_comparisons() -> None:
    data = evaluation.compared(synthetic(40, 3), 0.0)
    non_mated = data.similarity[data.non_mated]
    assert len(non_mated) == 120 * 117
    points, measured = calibration.site_points(POINTS, data)
    assert [point.fmr for point in points] == [point.fmr for point in POINTS]
    assert measured == 4, "0.0001 of 14,040 would be one false match"
    for point in points[:measured]:
        reached = int((non_mated >= np.float32(point.similarity)).sum())
        assert reached == pytest.approx(int(point.fmr * len(non_mated)), abs=1)


def test_what_the_pictures_cannot_show_is_the_packs_moved_with_the_last_measured_row() -> None:
    points, measured = calibration.site_points(POINTS, evaluation.compared(synthetic(40, 3), 0.0))
    shift = points[measured - 1].similarity - POINTS[measured - 1].similarity
    assert abs(shift) > 0.01
    for site, packs in zip(points[measured:], POINTS[measured:], strict=True):
        assert site.similarity == pytest.approx(packs.similarity + shift, abs=1e-4)


def test_a_picture_is_not_compared_with_itself_and_counts_for_its_person() -> None:
    data = evaluation.compared(synthetic(4, 3), 0.0)
    assert (int(data.mated.sum()), int(data.non_mated.sum())) == (4 * 3 * 2, 12 * 9)
    assert not (data.mated & data.non_mated).any()


def test_a_comparison_is_as_the_product_compares() -> None:
    from edge.matching import similarity

    samples = [
        dataclasses.replace(one, probe=dataclasses.replace(one.probe, cohort_similarity=0.1 * number))
        for number, one in enumerate(synthetic(3, 2))
    ]
    data = evaluation.compared(samples, 0.35)
    for row, column in ((0, 1), (2, 5), (5, 0)):
        expected = similarity(samples[row].probe, samples[column].template, 0.35)
        assert data.similarity[row, column] == pytest.approx(expected, abs=1e-6)


def test_the_similarity_of_a_rate_rests_on_ten_false_matches() -> None:
    hundred = np.arange(100, dtype=np.float32)
    assert evaluation.similarity_at(hundred, 0.1) == 90
    assert evaluation.similarity_at(hundred, 0.29) == 71, "0.29 * 100 is a little less than 29"
    assert evaluation.similarity_at(hundred, 0.099) is None


def test_pictures_that_are_there_twice_leave_no_two_rows_at_one_similarity(pack: Pack) -> None:
    once = synthetic(12, 1)
    samples = [dataclasses.replace(one, template=one.probe) for one in once]
    copies = [dataclasses.replace(one, person=f"{one.person} again") for one in samples]
    more = [dataclasses.replace(one, person=f"{one.person} once more") for one in samples]
    points = [OperatingPoint(fmr, 0.3 - fmr) for fmr in (0.2, 0.1, 0.05, 0.04, 0.02, 0.001)]
    measured, _ = calibration.calibrate(with_points(pack, points), [*samples, *copies, *more], 36, "2026-11-22")
    assert [fmr for fmr, _, _ in measured.rows] == [0.2, 0.1, 0.05, 0.001], "72 of 1,260 are pictures with themselves"
    assert [similarity for _, similarity, _ in measured.rows[2:]] == [1, pytest.approx(1.049)]


def test_scores_of_the_sites_points_hold_what_they_promise(pack: Pack) -> None:
    measured, data = calibration.calibrate(with_points(pack), synthetic(60, 3), 180, "2026-11-22")
    points = [OperatingPoint(fmr, similarity) for fmr, similarity, _ in measured.rows]
    assert measured.non_mated == 180 * 177
    assert calibration.false_matches(points, data, 0.6) == pytest.approx(measured.non_mated * 0.01, abs=2)
    assert calibration.false_matches(points, data, 0.7) == pytest.approx(measured.non_mated * 0.001, abs=2)
    assert calibration.false_matches(POINTS, data, 0.6) > 2 * measured.non_mated * 0.01, "the pack's are too low here"


def test_counts_are_told_and_nothing_else(pack: Pack, tmp_path: Path) -> None:
    measured, _ = calibration.calibrate(with_points(pack), synthetic(12, 3), 40, "2026-11-22")
    assert (measured.people, measured.pictures, measured.without_face) == (12, 40, 4)
    assert (measured.non_mated, measured.mated) == (36 * 33, 12 * 6)
    content = json.loads(calibration.keep(tmp_path, pack, measured).read_text(encoding="utf-8"))
    assert set(content) == {
        *(field.name for field in dataclasses.fields(SiteCalibration) if field.name != "rows"),
        "format",
        "operating_points",
    }
    assert ".jpg" not in json.dumps(content)


@pytest.mark.parametrize(("people", "each"), [(9, 20), (10, 3)])
def test_too_few_people_or_comparisons_are_refused_with_the_numbers(pack: Pack, people: int, each: int) -> None:
    comparisons = f"{people * each * (people - 1) * each:,}"
    with pytest.raises(
        InvalidSchema, match=rf"{people} people .* {comparisons} comparisons .* 10 people and 1,000 com"
    ):
        calibration.calibrate(with_points(pack), synthetic(people, each), people * each, "2026-11-22")


def test_no_mated_comparisons_leave_the_tmr_open(pack: Pack) -> None:
    measured, _ = calibration.calibrate(with_points(pack), synthetic(40, 1), 40, "2026-11-22")
    assert [tmr for _, _, tmr in measured.rows] == [None] * len(measured.rows)


def test_more_pictures_than_memory_may_hold_are_refused_before_any_is_looked_at(tmp_path: Path) -> None:
    for person in range(10):
        (tmp_path / f"{person}").mkdir()
        for number in range(501):
            (tmp_path / f"{person}" / f"{number}.jpg").touch()
    with pytest.raises(InvalidSchema, match=r"FOLDER: holds 5,010 pictures: 5,000 are the most"):
        calibration.pictures(tmp_path)


# --- the file ---


@pytest.fixture
def kept(pack: Pack, tmp_path: Path) -> Path:
    """The file of points that were measured for the shipped pack, in a data folder."""
    data = tmp_path / "data"
    data.mkdir()
    points = [(point.fmr, point.similarity + 0.5, None) for point in pack.embedder.operating_points]
    site = SiteCalibration(pack.id, pack.embedder.file.sha256, "2026-11-22", 50, 100, 0, 9800, 100, 7, tuple(points))
    return calibration.keep(data, pack, site)


def test_what_is_kept_is_what_is_loaded(pack: Pack, kept: Path) -> None:
    points = calibration.load(kept.parent.parent, pack)
    assert points == tuple(
        OperatingPoint(point.fmr, point.similarity + 0.5) for point in pack.embedder.operating_points
    )
    assert [path.name for path in kept.parent.iterdir()] == ["default.json"]
    assert kept.parent.stat().st_mode & 0o077 == 0


def altered(content: dict[str, Any], **changes: Any) -> str:
    return json.dumps({**content, **changes})


GARBAGE = {
    "no JSON": "{",
    "not an object": "[1, 2]",
    "deep": "[" * 100_000,
    "bytes": "\udcff\udcfe",
    "no rows": '{"format": 1}',
    "another format": None,
    "rows of words": {"operating_points": {"rows": [["a", "b"], ["c", "d"]]}},
    "rising FMR": {"operating_points": {"rows": [[0.01, 0.3, 1], [0.1, 0.4, 1]]}},
    "not a number": {"operating_points": {"rows": [[0.1, 0.3, 1], [0.01, float("nan"), 1]]}},
    "endless": {"operating_points": {"rows": [[0.1, 0.3, 1], [0.01, float("inf"), 1]]}},
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_refused(pack: Pack, kept: Path, name: str) -> None:
    wrong, content = GARBAGE[name], json.loads(kept.read_text(encoding="utf-8"))
    text = wrong if isinstance(wrong, str) else altered(content, **(wrong or {"format": 2}))
    kept.write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(ConfigMistakes, match=r"models.operating_points: is site, but .*`edge calibrate FOLDER"):
        calibration.load(kept.parent.parent, pack)


@pytest.mark.parametrize("change", [{"pack_id": "default-2"}, {"embedder_sha256": "0" * 64}])
def test_points_of_another_version_of_the_pack_are_refused(pack: Pack, kept: Path, change: dict[str, str]) -> None:
    kept.write_text(altered(json.loads(kept.read_text(encoding="utf-8")), **change), encoding="utf-8")
    with pytest.raises(ConfigMistakes, match="those of another version of it"):
        calibration.load(kept.parent.parent, pack)


# --- the real thing ---


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path / "data")
    yield service
    if service.process is not None:
        service.end(signal.SIGKILL)


def run(service: Service, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge", *arguments]
    return subprocess.run(command, env=service.environment(), capture_output=True, text=True, timeout=300, check=False)


def test_the_site_points_decide_once_they_are_chosen(service: Service, kept: Path, photos: dict[str, bytes]) -> None:
    """Among the people of this place everybody is alike, say the points: no two photos are of one person any more."""
    service.start()
    assert service.create(photos["obama-1"]).json()["persons_new"] == 1
    (match,) = service.create(photos["obama-2"], new_person_square_min=9999).json()["matches"]
    service.end()
    service.settings = (SITE,)
    service.start()
    answer = service.create(photos["obama-2"], new_person_square_min=9999).json()
    assert (match["score"] > 0.8, answer["matches"]) == (True, [])
    assert service.end() == 0
    assert "site" in service.edge("config", "--set", SITE)


@pytest.mark.parametrize("there", ["nothing", "garbage", "another pack's"])
def test_it_does_not_start_with_anything_but_the_packs_own(
    service: Service, kept: Path, pack: Pack, there: str
) -> None:
    if there == "nothing":
        kept.unlink()
    elif there == "garbage":
        kept.write_bytes(b"\x00\xff")
    else:
        content = json.loads(kept.read_text(encoding="utf-8"))
        kept.write_text(altered(content, embedder_sha256="0" * 64), encoding="utf-8")
    refused = run(service, "serve", "--set", "server.port=0", "--set", SITE)
    assert refused.returncode == 78
    assert "models.operating_points: is site, but for the pack 'default' this site has" in refused.stderr
    assert "`edge calibrate FOLDER --pack default` measures them" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert run(service, "models", "use", "default", "--set", SITE).returncode == 78, "a choice that could not start"


def test_too_few_pictures_are_refused_before_they_are_embedded(service: Service, tmp_path: Path) -> None:
    folder = tmp_path / "people"
    for photo in PHOTOS.glob("*.jpg"):
        person = folder / photo.stem.partition("-")[0]
        person.mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, person)
    refused = run(service, "calibrate", str(folder))
    assert refused.returncode == 1
    assert "FOLDER: holds pictures of 3 people, each in a folder of their own: 10 are the least" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (service.folder / "calibration").exists()
    assert run(service, "calibrate", str(tmp_path / "nowhere")).returncode == 1


def test_people_without_faces_are_counted_as_such(service: Service, tmp_path: Path) -> None:
    for person in range(12):
        (tmp_path / "people" / f"{person}").mkdir(parents=True)
        (tmp_path / "people" / f"{person}" / "1.jpg").write_bytes(b"no picture")
    refused = run(service, "calibrate", str(tmp_path / "people"))
    assert refused.returncode == 1
    assert "has 0 people with a face that may be compared, and 0 comparisons between people" in refused.stderr


def test_a_folder_is_measured_kept_and_served_with(service: Service, test_data: Path, tmp_path: Path) -> None:
    everybody = sorted(path for path in (test_data / "lfw-dev").iterdir() if path.is_dir())
    several = [path for path in everybody if len(list(path.glob("*.jpg"))) > 1][:20]
    for path in several:
        (tmp_path / "people" / path.name).mkdir(parents=True)
        for picture in sorted(path.glob("*.jpg"))[:2]:
            shutil.copy(picture, tmp_path / "people" / path.name)
    (tmp_path / "people" / several[0].name / "broken.jpg").write_bytes(b"no picture")
    measured = run(service, "calibrate", str(tmp_path / "people"))
    assert measured.returncode == 0, measured.stderr
    assert "default (default-1) on 41 pictures of 20 people" in measured.stdout
    assert "(failure to enrol): 1 (2.4%)" in measured.stdout
    assert "1,520 comparisons between people, 40 of people with themselves" in measured.stdout
    assert "0.7 is promised 0.001, and has " in measured.stdout
    assert "`operating_points = site` under [models]" in measured.stdout
    assert "embedding with default: 41/41" in measured.stderr
    text = (service.folder / "calibration" / "default.json").read_text(encoding="utf-8")
    assert not any(path.name in text for path in several)
    content = json.loads(text)
    assert (content["people"], content["pictures"], content["without_face"], content["measured_rows"]) == (20, 41, 1, 5)
    service.settings = (SITE,)
    service.start()
    assert service.end() == 0
