#!/usr/bin/env python3
"""Shows the appliance's messages to a real Home Assistant, and says what that makes of them.

    scripts/try_home_assistant.py VENV

VENV has Home Assistant in it (`pip install homeassistant`; at its first start it installs more by itself). Mosquitto,
the appliance and Home Assistant are real processes with folders of their own. Home Assistant is set up as a person
does, by its own REST calls; then a photo is posted, each of the three is killed and started again, and the automation
of docs/events.md is run as it stands there. A check that fails ends it with exit code 1.

Needs Debian's mosquitto and what the tests need (scripts/setup test).
"""

from __future__ import annotations

import argparse
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from broker import Broker, free_port  # noqa: E402  (of tests/)
from real_process import Service  # noqa: E402

PHOTOS = ROOT / "tests" / "photos"
START_SECONDS = 600
"""Of Home Assistant, whose first start installs what its parts need."""

WAIT_SECONDS = 30
CONNECTION = "binary_sensor.edge_hall_connection"
PERSON, SIGHTING = "sensor.edge_hall_door_last_person", "event.edge_hall_door_sighting"
SNAPSHOT = "image.edge_hall_door_snapshot"
ENTITIES = (CONNECTION, PERSON, SIGHTING, SNAPSHOT)


class HomeAssistant:
    """Home Assistant, and the token of its owner."""

    def __init__(self, venv: Path, folder: Path, automation: str) -> None:
        self.port = free_port()
        self.told = folder / "notified"
        self._command = [str(venv / "bin" / "hass"), "-c", str(folder)]
        self._folder = folder
        self._headers: dict[str, str] = {}
        self._automation = automation
        self._configure("automation: []\n")

    def _configure(self, automation: str) -> None:
        (self._folder / "configuration.yaml").write_text(
            f"http:\n  server_host: 127.0.0.1\n  server_port: {self.port}\nfrontend:\nconfig:\n"
            f"command_line:\n  - notify:\n      name: mobile_app_phone\n      command: cat >> {self.told}\n{automation}"
        )

    def start(self) -> None:
        """Start, and wait until everything is set up."""
        with (self._folder / "output").open("a") as output:
            self.process = subprocess.Popen(self._command, stdout=output, stderr=output)
        self.until(lambda: self._is_up(), START_SECONDS)

    def _is_up(self) -> bool:
        path = "/api/config" if self._headers else "/api/onboarding"
        answer = requests.get(f"http://127.0.0.1:{self.port}{path}", headers=self._headers, timeout=10)
        return answer.ok and answer.json()[0 if not self._headers else "state"] != "NOT_RUNNING"

    def stop(self) -> None:
        """Stop in order."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)

    def ask(self, path: str, **body: Any) -> Any:
        """POST and return the answer."""
        answer = requests.post(f"http://127.0.0.1:{self.port}{path}", json=body, headers=self._headers, timeout=60)
        answer.raise_for_status()
        return answer.json()

    def set_up(self, broker_port: int) -> None:
        """Make the owner, tell where the broker is, and what is to be done by itself."""
        client = f"http://127.0.0.1:{self.port}/"
        owner = {"name": "owner", "username": "owner", "password": "correct horse battery", "language": "en"}
        code = self.ask("/api/onboarding/users", client_id=client, **owner)["auth_code"]
        form = {"grant_type": "authorization_code", "code": code, "client_id": client}
        answer = requests.post(f"{client}auth/token", data=form, timeout=60)
        self._headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
        flow = self.ask("/api/config/config_entries/flow", handler="mqtt")
        made = self.ask(f"/api/config/config_entries/flow/{flow['flow_id']}", broker="127.0.0.1", port=broker_port)
        assert made["type"] == "create_entry", made
        self._configure(self._automation)  # its trigger needs the broker
        self.ask("/api/services/automation/reload")

    def state(self, entity: str) -> dict[str, Any]:
        """Return the entity's state and attributes; none of an entity that is not there."""
        answer = requests.get(f"http://127.0.0.1:{self.port}/api/states/{entity}", headers=self._headers, timeout=10)
        return answer.json() if answer.ok else {"state": None, "attributes": {}}

    def picture(self, entity: str) -> bytes:
        """Return what an image entity shows."""
        address = f"http://127.0.0.1:{self.port}/api/image_proxy/{entity}"
        return requests.get(address, headers=self._headers, timeout=10).content

    def until(self, look: Callable[[], Any], seconds: float = WAIT_SECONDS) -> bool:
        """Whether it came about."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if look():
                    return True
            except requests.ConnectionError:
                assert self.process.poll() is None, (self._folder / "output").read_text()[-3000:]
            time.sleep(0.1)
        return False

    def complaints(self) -> list[str]:
        """Return the lines of its log that are about us or about MQTT."""
        logs = self._folder.glob("home-assistant.log*")  # of each start
        log = [line for one in logs for line in one.read_text().splitlines()]
        of_us = [one for one in log if re.search(r"WARNING|ERROR", one) and re.search(r"mqtt|edge|automation", one)]
        return [one for one in of_us if "connection was lost" not in one]  # when the broker is killed


def automation(source_id: str) -> str:
    """Return the automation of docs/events.md."""
    found = re.search(r"```yaml\n(automation:\n.*?)```", (ROOT / "docs" / "events.md").read_text(), re.S)
    assert found is not None, "it stands there"
    return found[1].replace("<source_id>", source_id)


class Trial:
    """The three, and what was found."""

    def __init__(self, folder: Path, venv: Path) -> None:
        self.failures = 0
        self.broker = Broker(folder)
        off = (f"mqtt.port={self.broker.port}", "mqtt.host=127.0.0.1", "mqtt.name=hall", "mqtt.snapshots=true")
        self.service = Service(folder / "data", *off, "events.names=true").start()
        self.admin = self.service.token("admin")
        self.source = self._ask("/source/create", name="door")["source_id"]
        (folder / "hass").mkdir()
        self.hass = HomeAssistant(venv, folder / "hass", automation(self.source))

    def _ask(self, path: str, **body: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.admin}"}
        answer = self.service.session.post(f"{self.service.url}/v1{path}", json=body, headers=headers, timeout=60)
        answer.raise_for_status()
        return answer.json()

    def check(self, what: str, found: bool, told: object = "") -> None:
        """Print it."""
        print(f"{'ok  ' if found else 'FAIL'} {what}{'' if found else f': {told}'}", flush=True)
        self.failures += not found

    def post(self, photo: str, path: str = "/action") -> None:
        """Post a photo as the camera at the door."""
        files = {"image": (photo, (PHOTOS / photo).read_bytes())}
        headers = {"Authorization": f"Bearer {self.admin}"}
        texts = {"source_id": self.source, "fields": "Anna"}
        answer = self.service.session.post(
            f"{self.service.url}/v1{path}", data=texts, files=files, headers=headers, timeout=60
        )
        answer.raise_for_status()

    def are(self, *states: str) -> Callable[[], bool]:
        """Whether every entity is in one of these states."""
        return lambda: all(self.hass.state(one)["state"] in states for one in ENTITIES)

    def are_not(self, *states: str | None) -> Callable[[], bool]:
        """Whether no entity is in one of these."""
        return lambda: all(self.hass.state(one)["state"] not in states for one in ENTITIES)

    def run(self) -> None:
        """Do all of it."""
        hass = self.hass
        hass.start()
        hass.set_up(self.broker.port)
        self.check("every entity is there", hass.until(self.are_not(None)), [hass.state(one) for one in ENTITIES])
        self.check("the box is connected", hass.until(lambda: hass.state(CONNECTION)["state"] == "on"))
        self.post("biden-1.jpg")
        is_seen = hass.until(lambda: hass.state(SIGHTING)["attributes"].get("event_type") == "reject")
        self.check("a stranger is an event of the type reject", is_seen, hass.state(SIGHTING))
        is_notified = hass.until(lambda: hass.told.exists() and "Unknown, " in hass.told.read_text())
        self.check("the automation of docs/events.md notifies", is_notified)
        is_shown = hass.until(lambda: hass.picture(SNAPSHOT).startswith(b"\xff\xd8"))
        self.check("the snapshot is a JPEG", is_shown)
        self.post("obama-1.jpg", "/person/create")
        is_named = hass.until(lambda: hass.state(PERSON)["state"] == "Anna")
        self.check("the last person has the name", is_named, hass.state(PERSON))
        attributes = hass.state(PERSON)["attributes"]
        self.check("and the rest as attributes", {"person_id", "score", "time"} <= attributes.keys(), attributes)
        self.service.end(signal.SIGKILL)
        gone = hass.until(
            lambda: hass.state(CONNECTION)["state"] == "off" and hass.state(PERSON)["state"] == "unavailable"
        )
        self.check("killed: not connected, the others unavailable", gone)
        self.service.start()
        self.check("started again: there", hass.until(self.are_not(None, "unavailable", "off")))
        self.check("and the last person is still known", hass.until(lambda: hass.state(PERSON)["state"] == "Anna"))
        self.broker.kill()
        self.check("the broker killed: unavailable", hass.until(lambda: hass.state(PERSON)["state"] == "unavailable"))
        self.broker.start()
        self.check("started again: there", hass.until(self.are_not(None, "unavailable", "off")))
        hass.stop()
        hass.start()
        self.check("Home Assistant started again: there", hass.until(self.are_not(None, "unavailable", "off")))
        self.post("obama-2.jpg")
        is_match = hass.until(lambda: hass.state(SIGHTING)["attributes"].get("event_type") == "match")
        self.check("and hears of the next sighting", is_match, hass.state(SIGHTING))
        self._ask("/source/delete", source_id=self.source)
        self.check("a source that is deleted is taken back", hass.until(lambda: hass.state(PERSON)["state"] is None))
        self.check("nothing to complain of in its log", not hass.complaints(), hass.complaints())

    def end(self) -> None:
        """Stop all of them."""
        if hasattr(self.hass, "process") and self.hass.process.poll() is None:
            self.hass.stop()
        if self.service.process is not None:
            self.service.end()
        self.broker.kill()


def main() -> int:
    """Try it once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("venv", type=Path, metavar="VENV")
    options = parser.parse_args()
    version = subprocess.run([options.venv / "bin" / "hass", "--version"], capture_output=True, text=True, check=True)
    print(f"Home Assistant {version.stdout.strip()}")
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(Path(folder), options.venv.resolve())
        try:
            trial.run()
        finally:
            trial.end()
    return 1 if trial.failures else 0


if __name__ == "__main__":
    sys.exit(main())
