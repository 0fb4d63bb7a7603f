"""Backup and restore as an operator meets them: the real process, before, during and after."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from box import automatic, fill, rows, state
from real_process import Service

PHOTOS = Path(__file__).parent / "photos"
DATABASE = "gallery.sqlite3"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path / "data")
    yield service
    if service.process is not None:
        service.end(signal.SIGKILL)


def run(service: Service, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge", *arguments]
    return subprocess.run(command, env=service.environment(), capture_output=True, text=True)


def health(service: Service) -> dict[str, Any]:
    body: dict[str, Any] = requests.get(f"{service.url}/health", timeout=30).json()
    return body


def enrolled(service: Service, number: int) -> list[str]:
    """Post a random vector over a connection of its own; return the id if it is somebody new, as nearly all are."""
    vector = ",".join(f"{one:.6f}" for one in np.random.default_rng(number).normal(size=128))
    answer = requests.post(
        f"{service.url}/v1/person/create",
        files={"embedding": (None, vector), "fields": (None, f"person {number}")},
        headers={"Authorization": f"Bearer {service.camera}"},
        timeout=60,
    )
    assert answer.status_code in (200, 201), answer.text
    return [str(person["person_id"]) for person in answer.json()["persons"]]


def test_a_backup_amid_enrolment_restores_what_was_answered_and_the_tokens_go_on(
    service: Service, tmp_path: Path
) -> None:
    service.settings = ("new_person.threshold=1",)  # vectors of chance are not all strangers to each other
    service.start()
    photo = (PHOTOS / "obama-1.jpg").read_bytes()
    seen = service.create(photo).json()["persons"][0]["person_id"]
    answered: list[str] = [seen]
    with ThreadPoolExecutor(4) as pool:
        work = [pool.submit(lambda n=n: answered.extend(enrolled(service, n))) for n in range(400)]
        work[40].result()
        before = [*answered]
        done = run(service, "backup", str(tmp_path / "saved.tar"))
        for one in work:
            one.result()
    assert done.returncode == 0, done.stderr
    assert "backing up" in done.stderr and "It holds faces and keys" in done.stdout
    assert 20 < len(before) < len(answered)
    refused = run(service, "restore", str(tmp_path / "saved.tar"))
    assert (refused.returncode, "stop the service first" in refused.stderr) == (1, True)

    elsewhere = Service(tmp_path / "elsewhere")
    restored = run(elsewhere, "restore", str(tmp_path / "saved.tar"))
    assert restored.returncode == 0, restored.stderr
    assert "erase them again" in restored.stdout
    here, there = rows(service.folder / DATABASE), rows(elsewhere.folder / DATABASE)
    ids = {row[1] for row in there["persons"]}
    assert {*before} <= ids <= {*answered}
    assert {*there["persons"]} <= {*here["persons"]}
    assert {*there["templates"]} <= {*here["templates"]}
    elsewhere.start()
    elsewhere._camera = service.camera  # type: ignore[attr-defined]  # the same token as before
    body = elsewhere.create(photo).json()
    assert [match["person_id"] for match in body["matches"]] == [seen]
    address = body["matches"][0]["image_url"]
    assert requests.get(address, timeout=30).content[:2] == b"\xff\xd8"
    assert health(elsewhere)["restored_from"] is None
    assert elsewhere.end() == 0
    assert service.end() == 0


def test_who_was_erased_since_is_not_back_unless_it_is_wanted(service: Service, tmp_path: Path) -> None:
    def asked(path: str, **fields: Any) -> dict[str, Any]:
        answer = requests.post(f"{service.url}/v1{path}", json=fields, headers={"token": admin}, timeout=60)
        assert answer.status_code in (200, 201), answer.text
        body: dict[str, Any] = answer.json()
        return body

    def there() -> set[str]:
        return {row[1] for row in rows(service.folder / DATABASE)["persons"]}

    service.settings = ("new_person.threshold=1",)
    service.start()
    admin = service.token("admin")
    photos = [(PHOTOS / f"{name}.jpg").read_bytes() for name in ("obama-1", "biden-1")]
    stays, goes = (service.create(photo).json()["persons"][0]["person_id"] for photo in photos)
    staff = asked("/person/list/create", name="staff")["list_id"]
    vector = [1.0] + [0.0] * 127
    listed = asked("/person/create", list_id=staff, embedding=vector, fields=["x"])["persons"][0]["person_id"]
    saved = tmp_path / "saved.tar"
    service.edge("backup", str(saved))
    asked("/person/delete", person_id=[goes, listed])  # the second of them is in another list: not erased by this
    assert there() == {stays, listed}
    assert service.end() == 0

    told = service.edge("restore", str(saved))
    assert "Erased again, as the audit log here says: 1 persons (--with-erased" in told
    assert there() == {stays, listed}
    assert goes.encode() not in (service.folder / DATABASE).read_bytes()
    pictures = {row[7] for row in rows(service.folder / DATABASE)["templates"]} - {None}
    assert {path.stem for path in (service.folder / "pictures").glob("*/*.jpg")} >= pictures
    sightings = {row[12] for row in rows(service.folder / DATABASE)["sightings"]} - {None}
    assert {path.stem for path in (service.folder / "pictures").glob("*/*.jpg")} == pictures | sightings

    service.start()
    asked("/person/list/delete", list_id=staff)
    assert there() == {stays}
    assert service.end() == 0
    assert "says: 2 persons" in service.edge("restore", str(saved))
    assert there() == {stays}
    assert "Erased again" not in service.edge("restore", str(saved), "--with-erased")
    assert there() == {stays, goes, listed}
    assert "Erased again" not in service.edge("restore", str(saved))  # they had been brought back
    assert there() == {stays, goes, listed}


def test_a_killed_backup_leaves_nothing_that_counts(service: Service, tmp_path: Path) -> None:
    fill(service.folder, persons=300)
    target = tmp_path / "there" / "saved.tar"
    target.parent.mkdir()
    for lines in (1, 3, 6, 10):
        process = subprocess.Popen(
            [sys.executable, "-m", "edge", "backup", str(target)],
            env=service.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None and process.stdout is not None
        for _ in range(lines):
            process.stderr.readline()
        process.kill()
        process.wait()
        process.stderr.close()
        process.stdout.close()
        if target.exists():  # it was quicker: then it is whole
            assert run(Service(tmp_path / f"from-{lines}"), "restore", str(target)).returncode == 0
            target.unlink()
    assert run(service, "backup", str(target)).returncode == 0
    assert os.listdir(target.parent) == [target.name]
    elsewhere = Service(tmp_path / "elsewhere")
    assert run(elsewhere, "restore", str(target)).returncode == 0
    assert state(elsewhere.folder) == state(service.folder)


def test_a_garbage_header_is_answered_with_the_newest_backup_and_told(service: Service) -> None:
    service.start()
    (known,) = enrolled(service, 1)
    service.edge("backup", "--auto")
    wanted = rows(service.folder / DATABASE)
    enrolled(service, 2)
    assert service.end() == 0
    content = (service.folder / DATABASE).read_bytes()
    (service.folder / DATABASE).write_bytes(b"\0" * 100 + content[100:])
    service.start()
    told = health(service)
    assert told["persons"] == 1
    (backup,) = (service.folder / "backups").iterdir()
    moment = told["restored_from"].replace("-", "").replace(":", "")
    assert backup.name == f"edge-{moment}.tar"
    assert "erase them again" in service.logged()
    assert known not in service.logged()
    there = rows(service.folder / DATABASE)
    assert {name: there[name] for name in ("persons", "templates", "lists")} == {
        name: wanted[name] for name in ("persons", "templates", "lists")
    }
    assert service.edge("restore", "--acknowledge") == "noted\n"
    assert health(service)["restored_from"] is None
    assert service.end() == 0


def test_a_garbage_header_without_a_backup_is_refused_with_what_to_do(service: Service) -> None:
    service.start()
    assert service.end() == 0
    (service.folder / DATABASE).write_bytes(b"garbage " * 1000)
    for _ in range(2):
        done = run(service, "serve", "--set", "server.port=0")
        assert done.returncode == 1
        assert "edge restore FILE" in done.stderr
        assert "Traceback" not in done.stderr
    assert (service.folder / DATABASE).read_bytes() == b"garbage " * 1000


def test_a_missing_and_a_garbage_picture_stop_nothing(service: Service) -> None:
    photos = [(PHOTOS / f"{name}.jpg").read_bytes() for name in ("obama-1", "biden-1")]
    service.settings = ("history.keep_days=0",)
    service.start()
    ids = [service.create(photo).json()["persons"][0]["person_id"] for photo in photos]
    assert service.end() == 0
    pictures = {row[1]: row[7] for row in rows(service.folder / DATABASE)["templates"]}
    gone, garbage = (service.folder / "pictures" / pictures[n][:2] / f"{pictures[n]}.jpg" for n in (1, 2))
    gone.unlink()
    garbage.write_bytes(b"garbage")
    service.start()
    assert health(service)["pictures_missing"] == 1
    bodies = [service.create(photo).json() for photo in photos]
    assert [body["matches"][0]["person_id"] for body in bodies] == ids
    assert bodies[0]["matches"][0].get("image_url") is None
    assert requests.get(bodies[1]["matches"][0]["image_url"], timeout=30).content == b"garbage"
    assert service.end() == 0


def test_bad_calls_are_refused_with_a_sentence(service: Service, tmp_path: Path) -> None:
    fill(service.folder, persons=1)
    automatic(service.folder)
    for arguments, sentence in {
        ("backup",): "name a file, or say --auto",
        ("backup", "x.tar", "--auto"): "name a file, or say --auto",
        ("restore",): "name a backup, or say --acknowledge",
        ("restore", str(tmp_path / "nowhere")): "No such file",
        ("backup", str(tmp_path)): "is there already",
        ("backup", "--auto", "--set", "backup.keep=0"): "0 is not within 1 to 1000",
    }.items():
        done = run(service, *arguments)
        assert done.returncode != 0
        assert sentence in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
