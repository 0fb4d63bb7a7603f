"""Three boxes with a cluster of three NATS servers, set up by the command, each a process of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fleet.process import VECTOR_LENGTH, FleetBox, free_ports, until

pytest.importorskip("nats", reason="nats-py is not installed")
browser_module = pytest.importorskip("tests.browser", reason="selenium and axe-core-python are not installed")


def vector(seed: int) -> list[float]:
    return [round(float(one), 6) for one in np.random.default_rng(seed).normal(size=VECTOR_LENGTH)]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[FleetBox]]:
    folder = tmp_path_factory.mktemp("fleet")
    servers = [f"127.0.0.1:{port}" for port in free_ports(3)]
    boxes = [FleetBox(folder / name, name, server) for name, server in zip("abc", servers, strict=True)]
    code = boxes[0].init(servers)
    for box in boxes[1:]:
        box.join(code)
    try:
        for box in boxes:
            box.start_nats()
        for box in boxes:
            box.start()
        until(lambda: all(box.state()["connected"] and box.state()["position"] is not None for box in boxes), 60)
        yield boxes
    finally:
        for box in boxes:
            box.end()


def alike(boxes: list[FleetBox]) -> bool:
    states = [box.state() for box in boxes]
    return all(one["agrees"] and not one["outbox"] for one in states) and len({one["digest"] for one in states}) == 1


def test_a_person_added_at_one_box_is_known_at_every_other(fleet: list[FleetBox]) -> None:
    added = fleet[0].add(vector(1), "first")
    assert added.status_code == 200, added.text
    person = added.json()["persons"][0]

    def found(box: FleetBox) -> bool:
        answer = box.add(vector(1))
        assert answer.status_code == 201, answer.text
        (match,) = answer.json()["matches"]
        return bool(match["person_id"] == person["person_id"])

    until(lambda: all(box.count() == 1 for box in fleet))
    assert all(found(box) for box in fleet)
    until(lambda: alike(fleet))


def test_the_cluster_goes_on_when_one_of_three_brokers_is_killed(fleet: list[FleetBox]) -> None:
    before = fleet[0].count()
    fleet[1].kill_nats()
    assert fleet[1].add(vector(2)).status_code == 200, "a box whose broker is gone goes on"
    assert fleet[2].add(vector(3)).status_code == 200
    until(lambda: all(box.count() == before + 2 for box in fleet), 60)
    fleet[1].start_nats()
    until(lambda: alike(fleet), 60)


def test_a_box_that_is_killed_and_one_that_is_wiped_come_back_with_everybody(fleet: list[FleetBox]) -> None:
    code = fleet[0].service.edge("fleet", "code").strip()
    fleet[2].kill()
    assert fleet[0].add(vector(4)).status_code == 200
    fleet[2].start()
    until(lambda: alike(fleet), 60)
    fleet[2].end()
    shutil.rmtree(fleet[2].folder)
    fleet[2].join(code)
    del fleet[2].service._camera
    fleet[2].start_nats()
    fleet[2].start()
    until(lambda: fleet[2].count() == fleet[0].count() and alike(fleet), 90)


def test_what_is_erased_at_one_is_erased_at_all(fleet: list[FleetBox]) -> None:
    person = fleet[1].add(vector(5)).json()["persons"][0]
    before = fleet[1].count()
    until(lambda: all(box.count() == before for box in fleet))
    answer = fleet[2].erase(person["person_id"])
    assert answer.status_code == 200, answer.text
    until(lambda: all(box.count() == before - 1 for box in fleet))
    until(lambda: alike(fleet))


def test_the_commands_say_how_the_fleet_is(fleet: list[FleetBox]) -> None:
    box = fleet[0]
    until(lambda: alike(fleet))
    port = f"server.port={box.service.url.rsplit(':', 1)[1]}"
    told = doctor(box, port)
    assert (told["level"], told["message"].split(",")[0]) == ("ok", "2 other boxes"), told
    state = box.state()
    own, *others = box.service.edge("fleet", "show", "--set", port).splitlines()
    assert own == (
        f"a (this box): connected; at operation {state['position']}, 0 to tell;"
        f" {state['digest'][:8]} held, as by the others"
    )
    assert [one.split(": ")[0] for one in others] == ["b", "c"]
    assert all("; 0 operations behind, 0 to tell" in one and "silent" not in one for one in others)
    fleet[1].kill()
    until(lambda: any(one["silent"] for one in box.state()["peers"]))
    told = doctor(box, port)
    assert (told["level"], told["message"]) == ("warn", "silent: b")
    _, second, _ = box.service.edge("fleet", "show", "--set", port).splitlines()
    assert second.startswith("b: heard ") and " s ago, silent; " in second
    peers = json.loads(box.service.edge("fleet", "show", "--json", "--set", port))["peers"]
    assert [one["silent"] for one in peers] == [True, False]
    fleet[1].start()


def doctor(box: FleetBox, *settings: str) -> dict[str, Any]:
    flags = [flag for setting in settings for flag in ("--set", setting)]
    command = [sys.executable, "-m", "edge", "doctor", "--json", *flags]
    done = subprocess.run(command, env=box.service.environment(), capture_output=True, text=True, check=False)
    (found,) = [one for one in json.loads(done.stdout)["findings"] if one["check"] == "fleet"]
    return dict(found)


@pytest.mark.skipif(browser_module.MISSING is not None, reason=str(browser_module.MISSING))
def test_the_page_shows_the_fleet(fleet: list[FleetBox], tmp_path: Path) -> None:
    box = fleet[0]
    until(lambda: alike(fleet))
    page = browser_module.Browser(tmp_path)
    try:
        page.driver.get(box.service.url)
        page.press("Use a token instead")
        page.fill("Token", box.service.token("admin"))
        page.press("Sign in with the token")
        page.go("Box")
        page.until(lambda: "Other boxes" in page.driver.page_source, "the fleet")
        digest = box.state()["digest"]
        page.until(lambda: f">{digest[:8]}<" in page.driver.page_source, "what it holds")
        page.until(lambda: all(f">{one}<" in page.driver.page_source for one in "abc"), "every box")
        assert page.violations() == []
    finally:
        page.quit()
