"""The line of a request, in the log of the real process."""

from __future__ import annotations

import re
from pathlib import Path

import requests
from real_process import ROOT_OF_PHOTOS, Service

SOURCE = "0f8fad5b-d9cb-469f-a165-70867728950e"
PREFIX = "INFO edge.web.request_log: "


def lines(service: Service) -> list[dict[str, str]]:
    found = [line.removeprefix(PREFIX) for line in service.logged().splitlines() if line.startswith(PREFIX)]
    return [dict(pair.split("=", 1) for pair in line.split(" ")) for line in found]


def test_a_line_for_each_request_by_ids_alone(tmp_path: Path) -> None:
    service = Service(tmp_path / "data", "log.requests=true").start()
    try:
        photo = (ROOT_OF_PHOTOS / "obama-1.jpg").read_bytes()
        added = service.create(photo, fields=[("fields", "Secret Name")], source_id=SOURCE)
        refused = requests.post(
            f"{service.url}/history", headers={"token": "no", "X-Request-Id": "Secret Name"}, timeout=30
        )
        address = added.json()["persons"][0]["image_url"]
        shown = requests.get(address, timeout=30)
        logged, wrote = lines(service), service.logged()
    finally:
        service.end()
    assert [added.status_code, refused.status_code, shown.status_code] == [200, 401, 200]
    create, denied, picture = logged
    assert (create["route"], create["status"], create["faces"]) == ("/person/create", "200", "1")
    assert create["source"] == SOURCE
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f-]{27}", create["token"])
    assert float(create["ms"]) > 0
    assert denied.keys() == {"request", "route", "status", "ms"}
    assert picture["route"] == "/images/<person_id>/<name>/<token>"
    assert [one["request"] for one in logged] == [one.headers["X-Request-Id"] for one in (added, refused, shown)]
    assert len({one["request"] for one in logged}) == 3
    for secret in ("Secret", service.camera, address.rpartition("/")[2], added.json()["persons"][0]["person_id"]):
        assert secret not in wrote


def test_none_unless_it_is_asked_for(tmp_path: Path) -> None:
    service = Service(tmp_path / "data").start()
    try:
        answer = requests.get(f"{service.url}/health", timeout=30)
        assert re.fullmatch("[0-9a-f]{16}", answer.headers["X-Request-Id"])
        assert lines(service) == []
    finally:
        service.end()
