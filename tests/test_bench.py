"""`edge bench`, as an integrator runs it: what it prints, and that it leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edge import assembly, bench
from edge.face import image
from edge.face.analysis import Analyser
from edge.gallery.store import EmbeddedGallery
from edge.types import Box, Pack, Picture

ROOT = Path(__file__).resolve().parent.parent


def environment(folder: Path) -> dict[str, str]:
    mine = {key: text for key, text in os.environ.items() if not key.startswith("EDGE_")}
    interpreter = os.environ.get("EDGE_MODELS_INTERPRETER", "auto")
    return {**mine, "EDGE_DATA_FOLDER": str(folder), "EDGE_MODELS_INTERPRETER": interpreter}


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`edge bench`, from its start to its end."""
    command = [sys.executable, "-m", "edge", "bench", *arguments]
    return subprocess.run(command, env=environment(folder), capture_output=True, text=True)


def contents(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def opened(folder: Path, pack: Pack) -> EmbeddedGallery:
    return EmbeddedGallery.open(
        folder,
        pack_id=pack.id,
        vector_length=128,
        cohort_weight=0.0,
        exact_limit=1000,
        main_list_name="main",
        clock=assembly.now_ms,
    )


def test_it_names_the_machine_measures_every_stage_and_leaves_a_running_service_alone(
    tmp_path: Path, pack: Pack
) -> None:
    folder = tmp_path / "data"
    gallery = opened(folder, pack)  # as a running service holds it
    try:
        before = contents(folder)
        done = run(folder, "--seconds", "0.001", "--set", "models.workers=2")
        assert done.returncode == 0, done.stderr
        assert contents(folder) == before
    finally:
        gallery.close()
    processor, system, heading, *lines = done.stdout.splitlines()
    assert re.search(r", \d+ cores?$", processor)
    assert re.search(r"(litert|tflite-runtime) with 1 thread a network, pack default-1$", system)
    assert heading.split()[-3:] == ["640x480", "1920x1080", "3840x2160"]
    rows = {line[:32].strip(): [float(number) for number in line[32:].split()] for line in lines}
    assert {name: len(numbers) for name, numbers in rows.items()} == {
        "decode": 3,
        "detect": 3,
        "landmarks": 3,
        "pose and quality": 3,
        "one probe": 3,
        "one template": 3,
        "search among 10,000 templates": 1,
        "durable commit": 1,
        "frames a second, 2 workers": 3,
    }
    assert all(number > 0 for numbers in rows.values() for number in numbers)


def test_nothing_is_left_beside_a_gallery_that_no_service_has_open(tmp_path: Path, pack: Pack) -> None:
    folder = tmp_path / "data"
    opened(folder, pack).close()
    before = contents(folder)
    done = run(folder, "--seconds", "0.001")
    assert done.returncode == 0, done.stderr
    assert contents(folder) == before


def test_a_data_folder_that_is_not_there_is_not_made_and_a_picture_of_ones_own_is_taken(
    tmp_path: Path, photos: dict[str, bytes]
) -> None:
    photo = tmp_path / "me.jpg"
    photo.write_bytes(photos["obama-1"])
    done = run(tmp_path / "some" / "data", "--seconds", "0.001", "--picture", str(photo))
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == [photo]


def test_a_picture_without_a_face_is_refused_with_the_limit_and_nothing_is_left(
    tmp_path: Path, wall: Callable[[int, int], Picture]
) -> None:
    photo = tmp_path / "wall.jpg"
    photo.write_bytes(image.encode_jpeg(wall(480, 640), quality=90))
    done = run(tmp_path, "--picture", str(photo))
    assert done.returncode == 1
    assert "--picture: shows no face of at least 50 pixels on its longer side" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == [photo]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_where_it_is_ended_half_way(tmp_path: Path, number: int) -> None:
    command = [sys.executable, "-m", "edge", "bench", "--seconds", "0.2"]
    with subprocess.Popen(
        command,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # a shell's background jobs ignore SIGINT
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("milliseconds"):
                break
        assert list(tmp_path.iterdir()), "its folder is there while it measures"
        process.send_signal(number)
        assert process.wait(60) != 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "61"])
def test_a_time_that_makes_no_sense_is_refused_with_the_limit(tmp_path: Path, seconds: str) -> None:
    done = run(tmp_path, f"--seconds={seconds}")
    assert done.returncode == 1
    assert "--seconds: must be over 0, up to 60" in done.stderr


def test_a_frame_is_of_its_size_and_shows_every_head_that_was_put_into_it(
    pictures: dict[str, Picture], face_boxes: dict[str, Box], analyser: Analyser
) -> None:
    heads = [
        bench.head(pictures[name], face_boxes[name])
        for name in ("collins-1", "biden-1", "obama-1", "obama-2", "obama-3")
    ]
    for columns, rows in bench.SIZES[:2]:
        picture = image.decode(bench.frame(heads, columns, rows), max_pixels=40_000_000, min_side=64)
        assert picture.shape == (rows, columns, 3)
        faces = analyser.faces(picture, analyser.passes(picture.shape, 50), presence_floor=0.5)
        assert len(faces) == 5
        assert all(face.measures.size > 0.9 * bench.FACE_SHARE * columns for face in faces)


# --- the scripts, which measure the real process ---


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (
            ["bench_frame.py", "--count=2", "--callers=2", "--faces=1", "--floor-seconds=0"],
            [
                r"^640x480, 1 face known \(\d+ KB\)$",
                r"^640x480, 1 face unknown \(\d+ KB\)$",
                r"^  floor, one core .* = decode .* shrink .* detect .* mesh .* embed ",
                r"^  2 callers p50 .* p95 .* p99 .* frames/s .* CPU ms a frame   rate / \(cores / floor\) \d",
            ],
        ),
        (
            ["bench_memory.py", "--requests=40", "--persons=30"],
            [
                r"^  after the start \(.* s\)   VmRSS +\d+",
                r"^  anonymous grew [+-]\d+\.\d+ \+- \d+\.\d+ MB a thousand requests$",
                r"^30 persons: ready after \d+\.\d+ s",
            ],
        ),
    ],
    ids=["frame", "memory"],
)
def test_a_script_measures_and_leaves_nothing(tmp_path: Path, arguments: list[str], lines: list[str]) -> None:
    script, *flags = arguments
    command = [sys.executable, str(ROOT / "scripts" / script), *flags, "--sizes=640x480", "--set", "models.workers=1"]
    there = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, env=there, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for line in lines:
        assert re.search(line, done.stdout, re.MULTILINE), f"{line} in {done.stdout}"
    assert not list(tmp_path.iterdir())
