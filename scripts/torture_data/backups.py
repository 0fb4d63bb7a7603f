"""Backups restored elsewhere, and the first release's data folder opened today.

Each backup is made while eight callers enrol, replace, change and delete, and is compared with what they were told;
then one of the service at rest, which must be the same record by record. The first release's folder is a fixture
(tests/fixtures/first_release), compared with what that release had answered.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from box import rows
from real_process import Service

from torture_data import report
from torture_data.callers import SETTINGS, Callers, looked_after
from torture_data.ledger import Ledger
from torture_data.power import opened_as_a_start_does
from torture_data.report import Report

FIRST_RELEASE = Path(__file__).resolve().parent.parent.parent / "tests" / "fixtures" / "first_release"
PHOTOS = FIRST_RELEASE.parent.parent / "photos"
FOR_EVER = "history.keep_days=36500"
"""The fixture grows older than any history is kept by default."""


def main(arguments: list[str]) -> int:
    """Run the verb."""
    parser = report.options(__doc__, "backup")
    parser.add_argument("--rounds", type=int, default=20, help="backups under load")
    options = parser.parse_args(arguments)
    told = Report("backup")
    with report.working_folder(options.folder) as folder:
        ledger = Ledger()
        with looked_after(Service(folder / "data", *SETTINGS), told) as service:
            seconds = _under_load(service, ledger, folder, told, options.rounds, str(options.seed))
            records = _at_rest(service, folder, told)
        upgraded = _upgraded(folder / "first-release", told)
    return told.end(
        {"backups under load": options.rounds, "changes answered": ledger.answered}
        | {"s a backup": report.middle_and_most(seconds), "rows and files equal at rest": records}
        | {"records of the first release equal": upgraded}
    )


def _edge(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge", *arguments]
    environment = Service(folder).environment()
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def _under_load(service: Service, ledger: Ledger, folder: Path, told: Report, rounds: int, seed: str) -> list[float]:
    """Back up so many times; return how many seconds each took."""
    service.start()
    seconds = []
    callers = Callers(service, ledger, seed)
    with callers.at_work():
        time.sleep(1)
        for number in range(rounds):
            where, saved, elsewhere = f"backup {number}", folder / "saved.tar", folder / "elsewhere"
            before, begun = ledger.copy(), time.monotonic()
            made = _edge(service.folder, "backup", str(saved))
            seconds.append(time.monotonic() - begun)
            after = ledger.copy()
            if told.check(where, made.returncode == 0, made.stderr):
                restored = _edge(elsewhere, "restore", str(saved))
                if told.check(where, restored.returncode == 0, restored.stderr):
                    opened_as_a_start_does(elsewhere)  # pictures of who was erased meanwhile are swept then
                    told.add(where, before.settle_between(after, elsewhere))
            saved.unlink(missing_ok=True)
            shutil.rmtree(elsewhere, ignore_errors=True)
            told.progress(f"{number + 1} backups, {ledger.answered} changes answered")
    told.add("the answers", [*callers.unexpected, *(f"unanswered: {one.mark}" for one in callers.unanswered)])
    told.check("the end", service.end() == 0, "exit code")
    return seconds


def _at_rest(service: Service, folder: Path, told: Report) -> int:
    """Compare the restored backup with the folder it is of; return how many rows and files are equal."""
    saved, elsewhere = folder / "rest.tar", folder / "at-rest"
    for where, arguments in ((service.folder, ("backup",)), (elsewhere, ("restore",))):
        done = _edge(where, *arguments, str(saved))
        told.check("at rest", done.returncode == 0, done.stderr)
    here, there = _state(service.folder), _state(elsewhere)
    for name in sorted(here.keys() | there.keys()):
        told.check("at rest", here.get(name) == there.get(name), f"{name} differs")
    return sum(here[name] == there.get(name) for name in here)


def _state(folder: Path) -> dict[str, Any]:
    """Return every row of both databases, every picture and the keys, by names."""
    found: dict[str, Any] = {"keys.json": (folder / "keys.json").read_bytes()}
    for name in ("gallery.sqlite3", "access.sqlite3"):
        for table, records in rows(folder / name).items():
            found |= {f"{name}: {table} {number}": record for number, record in enumerate(records)}
    return found | {path.name: path.read_bytes() for path in (folder / "pictures").rglob("*.jpg")}


# --- the first release ---


def _upgraded(folder: Path, told: Report) -> int:
    """Open the first release's folder with today's process; return how many records are as it had them."""
    shutil.copytree(FIRST_RELEASE / "folder", folder)
    (folder / "keys.json").chmod(0o600)  # version control does not keep that
    record = json.loads((FIRST_RELEASE / "record.json").read_text())
    service = Service(folder, "log.level=warning", FOR_EVER).start()
    try:
        found = _served(service) | {"vectors": _vectors(folder), "files": _files(folder)}
        matches = service.create((PHOTOS / "obama-2.jpg").read_bytes(), record["token"]).json()["matches"]
        known = [record["persons"][0]["person_id"]]
        told.check("the first release", [one["person_id"] for one in matches] == known, f"matched {matches}")
    finally:
        told.check("the first release", service.end() == 0, "exit code")
    expected = {
        "persons": {one["person_id"]: {**one, "threshold": None} for one in record["persons"]},
        "sightings": {one["sighting_id"]: (one["person_id"], one["verdict"]) for one in record["sightings"]},
        "vectors": {one["person_id"]: one["vector"] for one in record["templates"]},
        "files": record["pictures"],
    }
    equal = 0
    for kind, records in expected.items():
        told.check("the first release", found[kind].keys() == records.keys(), f"other {kind} than there were")
        for name, one in records.items():
            equal += told.check("the first release", found[kind].get(name) == one, f"{kind} {name} is not as it was")
    return equal


def _served(service: Service) -> dict[str, Any]:
    """Return persons and sightings as today's process answers them."""
    headers = {"token": service.token("read")}
    persons = service.session.post(f"{service.url}/v1/persons", json={}, headers=headers, timeout=60).json()["persons"]
    known = {
        one["person_id"]: {key: one[key] for key in one if key not in ("image_url", "status")} | {"threshold": None}
        for one in persons
    }
    answer = service.session.post(f"{service.url}/v1/history", json={"limit": 1000}, headers=headers, timeout=60)
    seen = {one["id"]: (one["person_id"], one["verdict"]) for one in answer.json()["sightings"]}
    return {"persons": known, "sightings": seen}


def _vectors(folder: Path) -> dict[str, str]:
    tables = rows(folder / "gallery.sqlite3")
    ids = {row[0]: row[1] for row in tables["persons"]}
    return {ids[row[1]]: base64.b64encode(row[3]).decode() for row in tables["templates"]}


def _files(folder: Path) -> dict[str, str]:
    return {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in (folder / "pictures").rglob("*.jpg")}
