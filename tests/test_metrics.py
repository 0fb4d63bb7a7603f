"""Numbers for Prometheus, of the real process."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families
from real_process import Service

PHOTOS = Path(__file__).parent / "photos"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    running = Service(tmp_path_factory.mktemp("metrics") / "data").start()
    yield running
    running.end()


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
    assert service.create().status_code == 400
    after = numbers(service, reader)

    def grew(name: str, **labels: str) -> float:
        key = (name, tuple(sorted(labels.items())))
        return after[key] - before.get(key, 0)

    assert grew("edge_faces_total", outcome="add") == 1
    assert grew("edge_faces_total", outcome="match") + grew("edge_faces_total", outcome="reject") == 1
    assert grew("edge_persons") == grew("edge_templates") == 1
    assert grew("edge_request_seconds_count", route="/person/create", code="200") == 1
    assert grew("edge_request_seconds_count", route="/person/create", code="201") == 2
    assert grew("edge_request_seconds_count", route="/person/create", code="400") == 1
    for stage in ("decode", "detect", "embed", "decide"):
        assert grew("edge_stage_seconds_count", stage=stage) == 2, "what could not be decoded has no stage behind it"
        assert 0 < grew("edge_stage_seconds_sum", stage=stage) < 60
    assert after[("edge_disk_free_bytes", ())] > 0
    (info,) = (labels for name, labels in after if name == "edge_info")
    assert {key for key, _ in info} == {"pack", "version"}
    told = repr(list(after))
    assert person["person_id"] not in told
    assert person["list_id"] not in told
    assert not re.search(r"[0-9a-f]{8}-[0-9a-f]{4}-", told), "no id of anything"


def test_they_are_for_who_may_read(service: Service) -> None:
    assert requests.get(f"{service.url}/metrics", timeout=30).status_code == 401
    enrols = {"token": service.token("enrol")}
    assert requests.get(f"{service.url}/metrics", headers=enrols, timeout=30).status_code == 403
