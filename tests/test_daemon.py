"""The real process under many hands: starts, stops, crashes, and what it has promised by then."""

from __future__ import annotations

import contextlib
import io
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image
from real_process import Service

PHOTOS = Path(__file__).parent / "photos"


def photo(name: str) -> bytes:
    return (PHOTOS / f"{name}.jpg").read_bytes()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path / "data")
    yield service
    if service.process is not None:
        service.end(signal.SIGKILL)


def all_at_once(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Do the work that many times, all starting at one moment."""
    barrier = threading.Barrier(count)

    def one(number: int) -> Any:
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def posted(service: Service, image: bytes, **texts: str) -> dict[str, Any]:
    """Post with a connection of its own, as another camera would."""
    headers = {"Authorization": f"Bearer {service.camera}"}
    url = f"{service.url}/v1/person/create"
    answer = requests.post(url, files={"image": image}, data=texts, headers=headers, timeout=120)
    assert answer.status_code in (200, 201), answer.text
    body: dict[str, Any] = answer.json()
    return body


# --- one decision at a time ---


def test_one_new_face_posted_32_times_at_once_is_one_person(service: Service) -> None:
    service.start()
    assert service.camera
    image = photo("obama-1")
    bodies = all_at_once(32, lambda _: posted(service, image))
    assert sum(body["persons_new"] for body in bodies) == 1
    assert sum(len(body["matches"]) for body in bodies) == 31
    found = {record["person_id"] for body in bodies for record in (*body["persons"], *body["matches"])}
    assert len(found) == 1


def frames_of_twenty_people(test_data: Path) -> list[bytes]:
    """Ten frames of each of twenty people: a photo of theirs, a little larger, smaller, brighter, darker."""
    folders = sorted(folder for folder in (test_data / "lfw-dev").iterdir() if folder.is_dir())
    random.Random(7).shuffle(folders)
    frames = []
    for folder in folders[:20]:
        picture = Image.open(sorted(folder.glob("*.jpg"))[0]).convert("RGB")
        for number in range(10):
            out = io.BytesIO()
            side = 230 + 8 * number
            picture.resize((side, side)).point(lambda value, n=number: min(255, int(value * (0.9 + 0.02 * n)))).save(
                out, "JPEG", quality=90
            )
            frames.append(out.getvalue())
    random.Random(8).shuffle(frames)
    return frames


def test_eight_callers_find_as_many_persons_as_one(service: Service, test_data: Path, tmp_path: Path) -> None:
    frames = frames_of_twenty_people(test_data)
    service.start()
    assert service.camera
    with ThreadPoolExecutor(8) as pool:
        together = sum(body["persons_new"] for body in pool.map(lambda frame: posted(service, frame), frames))
    service.end()
    alone = Service(tmp_path / "alone").start()
    try:
        in_turn = sum(posted(alone, frame)["persons_new"] for frame in frames)
    finally:
        alone.end()
    assert together == in_turn == 20


# --- start and stop ---


def test_a_start_finds_what_the_last_run_left(service: Service) -> None:
    service.start()
    added = posted(service, photo("obama-1"))["persons"][0]
    assert service.end() == 0
    service.start()
    match = posted(service, photo("obama-2"))["matches"][0]
    assert match["person_id"] == added["person_id"]
    assert requests.get(match["image_url"], timeout=30).status_code == 200


def test_sightings_are_kept_no_longer_than_the_settings_say(service: Service) -> None:
    service.start()
    posted(service, photo("obama-1"))
    posted(service, photo("obama-2"))
    service.end()
    assert _held(service.folder) == (1, 2, 3), "a person, two sightings, a picture of each"
    service.start()
    service.end()
    assert _held(service.folder) == (1, 2, 3), "nothing is old yet"
    service.settings = ("history.keep_days=0",)
    service.start()
    deadline = time.monotonic() + 30
    while _held(service.folder)[2] != 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    service.end()
    assert _held(service.folder) == (1, 0, 1), "the person stays"


def _held(folder: Path) -> tuple[int, int, int]:
    """Return how many persons, sightings and picture files there are."""
    connection = sqlite3.connect(f"file:{folder / 'gallery.sqlite3'}?mode=ro", uri=True)
    try:
        (persons,) = connection.execute("SELECT count(*) FROM persons").fetchone()
        (sightings,) = connection.execute("SELECT count(*) FROM sightings").fetchone()
    finally:
        connection.close()
    return persons, sightings, len(list((folder / "pictures").rglob("*.jpg")))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopping_answers_what_is_in_hand_and_ends_with_0(service: Service, number: signal.Signals) -> None:
    service.start()
    assert service.camera
    image = photo("obama-1")
    with ThreadPoolExecutor(12) as pool:
        running = [pool.submit(posted, service, image) for _ in range(12)]
        # the first answer says that the others are in hand as well, or waiting in line
        next(iter(future for future in _as_they_come(running)))
        code = service.end(number)
        bodies = [future.result() for future in running]
    assert code == 0
    assert sum(body["persons_new"] for body in bodies) == 1
    assert "Traceback" not in service.logged()


def _as_they_come(futures: list[Any]) -> Iterator[Any]:
    from concurrent.futures import as_completed

    return iter(as_completed(futures))


def test_two_services_cannot_share_a_data_folder(service: Service) -> None:
    service.start()
    second = subprocess.run(
        [sys.executable, "-m", "edge", "serve", "--set", "server.port=0"],
        env=service.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert second.returncode == 1
    assert "Traceback" not in second.stderr
    assert "in use" in second.stderr


def test_a_taken_port_is_said_in_a_sentence(service: Service, tmp_path: Path) -> None:
    service.start()
    port = service.url.rsplit(":", 1)[1]
    other = Service(tmp_path / "other")
    second = subprocess.run(
        [sys.executable, "-m", "edge", "serve", "--set", f"server.port={port}"],
        env=other.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert second.returncode == 1
    assert "Traceback" not in second.stderr
    assert port in second.stderr
    assert not (tmp_path / "other").exists(), "nothing was made or loaded before that was known"


def test_every_mistake_in_the_settings_is_told_at_once(service: Service) -> None:
    command = [sys.executable, "-m", "edge", "serve", "--set", "server.port=99999", "--set", "server.hots=x"]
    run = subprocess.run(command, env=service.environment(), capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 78
    assert "server.port" in run.stderr
    assert "did you mean server.host" in run.stderr


def test_what_was_told_to_systemd(service: Service, tmp_path: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        path = tmp_path / "notify"
        manager.bind(str(path))
        manager.settimeout(60)
        environment = service.environment
        service.environment = lambda: {  # type: ignore[method-assign]
            **environment(), "NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "400000",
        }  # fmt: skip
        service.start()
        said = [manager.recv(100) for _ in range(3)]
        assert said == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
        assert posted(service, photo("obama-1"))["persons_new"] == 1
        service.end()
        manager.setblocking(False)
        rest = []
        with contextlib.suppress(BlockingIOError):
            while True:
                rest.append(manager.recv(100))
        assert rest[-1] == b"STOPPING=1" or b"STOPPING=1" in rest


# --- bad input costs little and leaves nothing ---


def test_bad_input_leaves_the_process_as_it_was(service: Service) -> None:
    service.start()
    assert service.camera
    headers = {"Authorization": f"Bearer {service.camera}"}
    url = f"{service.url}/v1/person/create"
    header = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + (60_000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0" + b"\0" * 4
    bomb = header + b"\0\0\0\0IEND" + b"\0" * 4
    posted(service, b"not a picture")

    def resident() -> int:
        assert service.process is not None
        status = Path(f"/proc/{service.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) * 1024

    before = resident()
    for _ in range(20):
        assert posted(service, bomb)["message"] == "image format is unknown"
        assert posted(service, photo("obama-1")[:30_000])["message"] == "image format is unknown"
        with contextlib.suppress(requests.ConnectionError):  # the answer may overtake the body
            assert requests.post(url, data=b"\0" * (30 << 20), headers=headers, timeout=60).status_code == 413
    assert resident() < before + (100 << 20)
    assert not list((service.folder / "pictures").rglob("*.jpg"))
    connection = sqlite3.connect(f"file:{service.folder / 'gallery.sqlite3'}?mode=ro", uri=True)
    assert connection.execute("SELECT count(*) FROM persons").fetchone() == (0,)
    connection.close()
    assert posted(service, photo("obama-1"))["persons_new"] == 1
