"""Numbers for Prometheus, of the real process."""

from __future__ import annotations

import io
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from real_process import Service

PHOTOS = Path(__file__).parent / "photos"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    running = Service(tmp_path_factory.mktemp("metrics") / "data").start()
    yield running
    running.end()


def blank() -> bytes:
    """A picture without a face."""
    held = io.BytesIO()
    Image.new("RGB", (320, 240), (90, 120, 150)).save(held, "JPEG")
    return held.getvalue()


def numbers(service: Service, token: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return what is told, by name and labels."""
    answer = requests.get(f"{service.url}/metrics", headers={"token": token}, timeout=30)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_what_happened_is_counted_and_named_by_nobody(service: Service) -> None:
    reader = service.token("read")
    before = numbers(service, reader)
    added = service.create((PHOTOS / "obama-1.jpg").read_bytes())
    assert added.status_code == 200
    person = added.json()["persons"][0]
    assert service.create((PHOTOS / "obama-2.jpg").read_bytes()).status_code == 201
    assert service.create(b"no picture").status_code == 201
    assert service.create(blank()).status_code == 201
    assert service.create().status_code == 400
    after = numbers(service, reader)

    def grew(name: str, **labels: str) -> float:
        key = (name, tuple(sorted(labels.items())))
        return after[key] - before.get(key, 0)

    assert grew("edge_faces_total", outcome="add") == 1
    assert grew("edge_faces_total", outcome="match") + grew("edge_faces_total", outcome="reject") == 1
    assert grew("edge_persons") == grew("edge_templates") == 1
    assert grew("edge_request_seconds_count", route="/person/create", code="200") == 1
    assert grew("edge_request_seconds_count", route="/person/create", code="201") == 3
    assert grew("edge_request_seconds_count", route="/person/create", code="400") == 1
    assert grew("edge_frames_without_face_total") == 1
    for stage in ("decode", "detect", "embed", "decide"):
        assert grew("edge_stage_seconds_count", stage=stage) == 3, "what could not be decoded has no stage behind it"
        assert 0 < grew("edge_stage_seconds_sum", stage=stage) < 60
    assert after[("edge_disk_free_bytes", ())] > 0
    (info,) = (labels for name, labels in after if name == "edge_info")
    assert {key for key, _ in info} == {"pack", "version"}
    told = repr(list(after))
    assert person["person_id"] not in told
    assert person["list_id"] not in told
    assert not re.search(r"[0-9a-f]{8}-[0-9a-f]{4}-", told), "no id of anything"


def test_what_comes_to_no_route_is_counted_by_its_code(service: Service) -> None:
    reader = service.token("read")
    before = numbers(service, reader)
    assert requests.get(f"{service.url}/nothing/here", timeout=30).status_code == 404
    assert requests.put(f"{service.url}/health", timeout=30).status_code == 405
    large = {"Content-Length": str(10**9), "token": reader}
    assert requests.post(f"{service.url}/detect", data=b"", headers=large, timeout=30).status_code == 413
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 400 ")
    after = numbers(service, reader)
    for code in ("404", "405", "413", "400"):
        key = ("edge_refused_total", (("code", code),))
        assert after[key] - before.get(key, 0) == 1, code
    assert requests.get(f"{service.url}/metrics", timeout=30).status_code == 401
    again = numbers(service, reader)
    refused = [key for key in again if key[0] == "edge_refused_total"]
    assert {key: again[key] for key in refused} == {key: after[key] for key in refused}, "401 has a route"


def test_who_works_who_waits_and_who_is_connected(tmp_path: Path) -> None:
    box = Service(tmp_path / "data", "models.workers=1").start()
    reader, token = box.token("read"), box.token("recognize")
    idle = numbers(box, reader)
    assert idle[("edge_workers", ())] == 1
    assert idle[("edge_workers_busy", ())] == idle[("edge_pictures_waiting", ())] == 0
    picture = (PHOTOS / "obama-1.jpg").read_bytes()
    urged = threading.Event()
    failed: list[int] = []

    def urge() -> None:
        while not urged.is_set():
            sent = {"headers": {"token": token}, "timeout": 120}
            code = requests.post(f"{box.url}/detect", files={"images": picture}, **sent).status_code
            if code != 200:
                failed.append(code)
                urged.set()

    clients = [threading.Thread(target=urge) for _ in range(4)]
    for client in clients:
        client.start()
    seen: set[tuple[float, bool]] = set()
    for _ in range(300):  # looks; four clients for one worker are nearly always so
        now = numbers(box, reader)
        assert now[("edge_workers_busy", ())] <= 1
        assert now[("edge_pictures_waiting", ())] <= 3
        assert now[("edge_connections", ())] >= 1
        seen.add((now[("edge_workers_busy", ())], now[("edge_pictures_waiting", ())] >= 1))
        if (1, True) in seen or urged.is_set():
            break
    urged.set()
    for client in clients:
        client.join()
    assert not failed
    assert (1, True) in seen, "a picture at work, and one that waits for it"
    assert box.end() == 0


def test_they_are_for_who_may_read(service: Service) -> None:
    assert requests.get(f"{service.url}/metrics", timeout=30).status_code == 401
    enrols = {"token": service.token("enrol")}
    assert requests.get(f"{service.url}/metrics", headers=enrols, timeout=30).status_code == 403
