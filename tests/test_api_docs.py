"""docs/api.md as its reader pastes it: every line into one shell, against the real process."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families
from real_process import Service

from edge.web.routes import ROUTES

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")

LINES = [line for block in re.findall(r"^```sh\n(.*?)^```$", DOCUMENT, re.M | re.S) for line in block.splitlines()]
"""One command each."""
PRINTED = re.compile(r"\S  # (.+)$")
"""What a line prints; a remark has more blanks before it."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    running = Service(tmp_path_factory.mktemp("api") / "data").start()
    yield running
    running.end()


@pytest.fixture(scope="module")
def pasted(service: Service, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """What each line that says so was to print, and what it has printed."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "data").mkdir()
    (folder / "data" / "admin.token").write_text(service.token("admin") + "\n")
    (folder / "tests").symlink_to(ROOT / "tests")
    (folder / ".curlrc").write_text("fail-with-body\nsilent\nshow-error\nmax-time = 60\n")
    script = ["set -eu"]
    for number, line in enumerate(LINES):
        promised = PRINTED.search(line)
        wanted = promised[1].replace('"', '\\"') if promised else ""
        script += [line, f'printf "\\n@@%s@@%s@@\\n" {number} "{wanted}"']
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "CURL_HOME": str(folder), "EDGE": service.url}
    ran = subprocess.run(
        ["sh", "-c", "\n".join(script)], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    marks = re.findall(r"(?s)(.*?)\n@@(\d+)@@([^\n]*)@@\n", ran.stdout)
    failed = LINES[len(marks)] if len(marks) < len(LINES) else ""
    assert ran.returncode == 0, f"{failed}\n{ran.stdout[-500:]}\n{ran.stderr[-500:]}"
    return {
        LINES[int(number)]: (wanted, printed.strip())
        for printed, number, wanted in marks
        if PRINTED.search(LINES[int(number)])
    }


def test_every_line_works_and_prints_what_it_says(pasted: dict[str, tuple[str, str]]) -> None:
    assert len(pasted) > 40
    for line, (wanted, printed) in pasted.items():
        assert printed == wanted, line


@pytest.mark.usefixtures("pasted")
def test_every_route_was_asked_with_success_by_them(service: Service) -> None:
    answer = requests.get(f"{service.url}/metrics", headers={"token": service.token("read")}, timeout=30)
    answered = {
        (sample.labels["route"], sample.labels["code"])
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
        if sample.name == "edge_request_seconds_count"
    }
    assert {code for _, code in answered} <= {"200", "201"}
    assert {route.path for route in ROUTES} == {route for route, _ in answered}
