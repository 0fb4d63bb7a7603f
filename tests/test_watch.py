"""A camera that is watched: an MJPEG stream over HTTP, and a service, both real."""

from __future__ import annotations

import http.server
import io
import re
import signal
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
from PIL import Image, ImageFilter
from real_process import Service
from rtsp import RtspCamera

from edge import cli
from edge.errors import Refusal
from edge.people.api import Api
from edge.watching import FIRST_WAIT_SECONDS, Gate, Watch

PHOTO = Path(__file__).parent / "photos" / "obama-1.jpg"
CONNECTIONS = 2
STILL, PASSING = 8, 12
SHARP = 7
"""Which of the frames with a face is not blurred."""


def frames() -> list[bytes]:
    """Nobody, then a face that goes by, blurred but for one moment, then nobody."""
    with Image.open(PHOTO) as opened:
        face = opened.convert("RGB")
    face.thumbnail((380, 380))
    made = []
    for number in range(-STILL, PASSING + STILL):
        frame = Image.new("RGB", (640, 480), (90, 100, 110))
        if 0 <= number < PASSING:
            passing = face if number == SHARP else face.filter(ImageFilter.GaussianBlur(9))
            frame.paste(passing, (20 + 25 * number, 90))
        encoded = io.BytesIO()
        frame.save(encoded, "JPEG", quality=95)
        made.append(encoded.getvalue())
    return made


class Camera(http.server.BaseHTTPRequestHandler):
    """Sends its frames and hangs up; after `CONNECTIONS` it has gone."""

    FRAMES: ClassVar = frames()
    left = CONNECTIONS

    def do_GET(self) -> None:
        Camera.left -= 1
        if Camera.left < 0:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for frame in self.FRAMES:
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(frame)}\r\n\r\n"
            self.wfile.write(head.encode() + frame + b"\r\n")
            time.sleep(0.01)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("watch") / "data").start()
    (service.folder / "admin.token").write_text(service.token("admin"))
    yield service
    assert service.end() == 0
    assert "Traceback" not in service.logged()


@pytest.fixture(scope="module")
def source_id(service: Service) -> str:
    headers = {"token": (service.folder / "admin.token").read_text()}
    lists = service.session.post(f"{service.url}/person/lists", headers=headers, timeout=30).json()["lists"]
    body = {"name": "door", "person_list_add": [lists[0]["id"]]}
    made = service.session.post(f"{service.url}/source/create", json=body, headers=headers, timeout=30).json()
    return str(made["source_id"])


def test_the_best_frame_of_each_passage_is_posted_and_a_camera_that_hangs_up_is_asked_again(
    service: Service, source_id: str
) -> None:
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 5:
            raise KeyboardInterrupt

    secret = (service.folder / "admin.token").read_text()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Camera) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/video.mjpg"
        watch = Watch(address, Api(service.url, {"token": secret}), source_id, Gate(passage_seconds=60))
        with pytest.raises(KeyboardInterrupt):
            watch.run(again=True, sleep=sleep)
        server.shutdown()
    counts = watch.counts
    assert counts.connections == CONNECTIONS
    assert counts.frames >= CONNECTIONS * (STILL + PASSING)
    assert counts.posted + counts.dropped == CONNECTIONS, "one passage each"
    assert waits == [FIRST_WAIT_SECONDS * factor for factor in (1, 1, 2, 4, 8)]
    persons = service.session.post(f"{service.url}/persons", headers={"token": secret}, timeout=30).json()["persons"]
    assert [one["source_id"] for one in persons] == [source_id], "sharp enough to be added"


class Rtsp(RtspCamera):
    """The same, for who knows the password."""

    FRAMES = Camera.FRAMES
    USER = "ann:correct horse"


class RtspServer(socketserver.ThreadingTCPServer):
    daemon_threads = True


def test_a_camera_is_watched_by_rtsp_with_the_address_and_its_password_in_a_file(
    service: Service, source_id: str, tmp_path: Path
) -> None:
    address = tmp_path / "address"
    common = ["watch", "--source", source_id, "--set", f"data.folder={service.folder}", "--url", service.url]
    with RtspServer(("127.0.0.1", 0), Rtsp) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        address.write_text(f"rtsp://ann:correct%20horse@127.0.0.1:{port}/live\n")
        address.chmod(0o600)
        command = [sys.executable, "-m", "edge", *common, "--address-file", str(address), "--passage", "60"]
        heeding = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # who runs this in the background may ignore it
        watch = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=heeding)
        assert watch.stderr is not None
        told = ""
        while "asked again" not in told and (line := watch.stderr.readline()):
            told += line
        watch.send_signal(signal.SIGINT)
        out, rest = watch.communicate(timeout=30)
        server.shutdown()
    assert "the stream has ended; asked again in 1 s" in told
    assert watch.returncode == 0
    found = re.search(r"(\d+) frames seen, (\d+) posted", out)
    assert found is not None and int(found[1]) >= STILL + PASSING and int(found[2]) == 1, out
    assert "horse" not in told + out + rest


def test_a_token_that_is_refused_ends_it(service: Service, source_id: str, tmp_path: Path) -> None:
    film = tmp_path / "film.mjpg"
    film.write_bytes(b"".join(Camera.FRAMES))
    watch = Watch(str(film), Api(service.url, {"token": "wrong"}), source_id, Gate())
    with pytest.raises(Refusal, match="access denied"):
        watch.run(again=False)


def test_the_command_takes_a_file_and_says_what_it_cannot_take(
    service: Service, source_id: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film = tmp_path / "film.mjpg"
    film.write_bytes(b"".join(Camera.FRAMES))
    common = ["--set", f"data.folder={service.folder}", "--url", service.url]
    assert cli.main(["watch", str(film), "--source", source_id, *common]) == 0
    assert f"{len(Camera.FRAMES)} frames seen, 1 posted, 0 dropped" in capsys.readouterr().out
    film.write_bytes(b"".join(Camera.FRAMES[:STILL]))
    assert cli.main(["watch", str(film), "--source", source_id, *common]) == 0
    assert f"{STILL} frames seen, 0 posted" in capsys.readouterr().out, "nothing moved"
    for arguments, told in (
        ([str(film), "--source", "door"], "--source: "),
        ([str(tmp_path / "none"), "--source", source_id], "URL: is neither a file that is there nor an address"),
        (["rtsp://ann:horse@127.0.0.1/live", "--source", source_id], "URL: holds a password"),
        (["--address-file", str(film), "--source", source_id], f"--address-file: {film} is for others to read"),
        (["--source", source_id], "URL: is needed, or --address-file"),
        ([str(film), "--source", source_id, "--motion", "2"], "--motion: 2 is not within 0 to 1"),
        ([str(film), "--source", source_id, "--passage", "0"], "--passage: 0 is not over 0"),
    ):
        assert cli.main(["watch", *arguments, *common]) == 1
        found = capsys.readouterr().err
        assert told in found
        assert "horse" not in found
