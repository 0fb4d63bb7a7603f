"""The dashboard of docs/grafana asks for nothing that the real process does not tell."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families
from real_process import Service

ROOT = Path(__file__).resolve().parent.parent
DASHBOARD = json.loads((ROOT / "docs" / "grafana" / "edge.json").read_text(encoding="utf-8"))
ADDED_BY_PROMETHEUS = {"instance", "job"}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, set[str]]]:
    """The labels of every number, by its name, after a picture with a face too small to be added."""
    service = Service(tmp_path_factory.mktemp("dashboard") / "data").start()
    picture = (ROOT / "tests" / "photos" / "obama-1.jpg").read_bytes()
    assert service.create(picture, **{"new_person_square_min": 5000}).status_code == 201
    answer = requests.get(f"{service.url}/metrics", headers={"token": service.token("read")}, timeout=30)
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    yield found
    service.end()


def expressions() -> list[str]:
    targets: list[dict[str, Any]] = [one for panel in DASHBOARD["panels"] for one in panel["targets"]]
    return [one["expr"] for one in targets] + [one["query"] for one in DASHBOARD["templating"]["list"]]


def test_every_number_that_it_shows_is_told(told: dict[str, set[str]]) -> None:
    asked = {name for text in expressions() for name in re.findall(r"\bedge_\w+", text)}
    assert len(asked) > 8
    assert asked <= told.keys()


def test_every_label_that_it_goes_by_is_told(told: dict[str, set[str]]) -> None:
    for text in expressions():
        labels = {label.strip() for names in re.findall(r"by \(([^)]*)\)", text) for label in names.split(",")} | set(
            re.findall(r"[{,]\s*(\w+)\s*=", text)
        )
        known = set().union(*(told[name] for name in re.findall(r"\bedge_\w+", text)), ADDED_BY_PROMETHEUS)
        assert labels <= known, text
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            (name, *_) = re.findall(r"\bedge_\w+", target["expr"])
            assert shown <= told[name], target


def test_the_panels_lie_side_by_side() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24, "Grafana's grid has 24 columns"
        taken |= cells
