"""The audit log: asked of the real process and the real command, and of the file where neither can show it."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from box import add, automatic, fill, opened
from real_process import Service

from edge import restoring
from edge.errors import InvalidSchema
from edge.gallery import acts
from edge.gallery.audit import AUDIT_NAME, Audit
from edge.types import Actor, ActOutcome, NewPerson

PHOTOS = Path(__file__).parent / "photos"
NOW_MS = 1_790_000_000_000
DAY_MS = 86_400_000


def actor(action: str = "/person/delete", time_ms: int = NOW_MS, caller_id: str | None = None) -> Actor:
    return Actor(action, caller_id, "door", "192.0.2.7", time_ms)


def shown(page: Any) -> list[tuple[str, str]]:
    return [(one.actor.action, one.outcome.value) for one in page.acts]


# --- the real process ---


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("audit") / "data").start()
    yield service
    assert service.end() == 0
    assert "Traceback" not in service.logged() and "not in the audit log" not in service.logged()


@pytest.fixture(scope="module")
def admin(service: Service) -> str:
    return service.token("admin")


def ask(service: Service, token: str, path: str, **body: Any) -> tuple[int, dict[str, Any]]:
    answer = service.session.post(f"{service.url}/v1{path}", json=body, headers={"token": token}, timeout=60)
    return answer.status_code, answer.json()


def entries(service: Service, admin: str, **conditions: Any) -> list[dict[str, Any]]:
    status, page = ask(service, admin, "/audit", **conditions)
    assert status == 200 and page["lost"] == 0, page
    return list(page["acts"])


def ids(entry: dict[str, Any]) -> dict[str, str]:
    return {one["names"]: one["id"] for one in entry["ids"]}


def photo(name: str) -> bytes:
    return (PHOTOS / f"{name}.jpg").read_bytes()


def test_the_life_of_a_person_is_there_by_their_id_alone_after_they_are_erased(service: Service, admin: str) -> None:
    assert service.create(photo("obama-1"), fields=[("fields", "Barack")]).status_code == 200
    person = ask(service, admin, "/persons")[1]["persons"][0]
    known = service.create(photo("obama-1"))
    assert len(known.json()["matches"]) == 1
    assert ask(service, admin, "/person/update", person_id=person["person_id"], fields=["Obama"])[0] == 200
    assert ask(service, admin, "/person/delete", person_id=person["person_id"])[0] == 200
    assert ask(service, admin, "/person/delete", person_id=person["person_id"])[0] == 404

    life = entries(service, admin, id=person["person_id"])
    assert [(one["action"], one["outcome"]) for one in life] == [
        ("/person/delete", "refused"),
        ("/person/delete", "done"),
        ("/person/update", "done"),
        ("/person/create", "added"),  # and the match is not
    ]
    assert {one["address"] for one in life} == {"127.0.0.1"}
    camera = next(one for one in ask(service, admin, "/tokens")[1]["tokens"] if one["scope"] == ["enrol"])
    assert (life[-1]["caller_id"], life[-1]["caller"]) == (camera["id"], camera["name"])
    assert ids(life[-1]) == {"person_id": person["person_id"], "list_id": person["list_id"]}

    files = [path for path in service.folder.rglob("*") if path.is_file() and path.name != "ballast"]
    for needle in (b"Barack", b"Obama", person["person_id"].encode()):
        assert not [path for path in files if needle in path.read_bytes()], needle


def test_tokens_are_named_and_never_shown(service: Service, admin: str) -> None:
    made = ask(service, admin, "/token/create", expires="never", name="gate")[1]["token"]
    assert ask(service, admin, "/token/update", token_id=made["id"], valid_days=3)[0] == 200
    assert ask(service, admin, "/token/delete", token_id=made["id"])[0] == 200
    about = entries(service, admin, id=made["token_id"])
    assert [one["action"] for one in about] == ["/token/delete", "/token/update", "/token/create"]
    assert not entries(service, admin, id=made["id"])
    raw = (service.folder / AUDIT_NAME).read_bytes()
    assert uuid.UUID(made["id"]).bytes not in raw and made["id"].encode() not in raw


def test_vectors_and_pictures_in_bulk_are_exports_and_reading_is_not(service: Service, admin: str) -> None:
    before = len(entries(service, admin, action="/persons"))
    for values in ({}, {"thumbs": True}, {"embeddings": True}):
        assert ask(service, admin, "/persons", **values)[0] == 200
    assert ask(service, admin, "/history")[0] == 200
    assert len(entries(service, admin, action="/persons")) == before + 2
    assert not entries(service, admin, action="/history")


def test_log_in_and_lists_and_sources(service: Service, admin: str) -> None:
    command = [sys.executable, "-m", "edge", "user", "add", "ann@example.org"]
    subprocess.run(command, env=service.environment(), input="secret-1\n", text=True, check=True, capture_output=True)
    credentials = {"email": "ann@example.org", "password": "secret-1"}
    token = service.session.post(f"{service.url}/v1/user/login", json=credentials, timeout=60).json()["token"]
    made = ask(service, token, "/person/list/create", name="staff")[1]["list_id"]
    assert ask(service, token, "/person/list/delete", name="staff")[0] == 200
    (added,) = entries(service, admin, action="edge user add")
    (entered,) = entries(service, admin, action="/user/login")
    assert entered["caller_id"] == ids(added)["user_id"]
    assert [one["action"] for one in entries(service, admin, id=made)] == [
        "/person/list/delete",
        "/person/list/create",
    ]
    assert {one["caller_id"] for one in entries(service, admin, id=made)} == {entered["caller_id"]}
    assert b"ann@example.org" not in (service.folder / AUDIT_NAME).read_bytes()


def test_it_is_for_administrators_and_bound_tokens_are_none(service: Service, admin: str) -> None:
    list_id = ask(service, admin, "/person/lists")[1]["lists"][0]["id"]
    for token in (service.token("read", "enrol"), service.token("admin", list=list_id)):
        assert ask(service, token, "/audit")[0] == 403


def test_the_command_shows_the_same_and_pages_meet_each_entry_once(service: Service, admin: str) -> None:
    printed = service.edge("audit", "--limit", "1000").splitlines()
    found, cursor = [], None
    while True:
        page = ask(service, admin, "/audit", limit=2, cursor=cursor)[1]
        found += page["acts"]
        cursor = page["cursor"]
        if cursor is None:
            break
    assert len(found) == len(printed) > 5
    assert [one["time"] for one in found] == sorted((one["time"] for one in found), reverse=True)
    for line, one in zip(printed, found, strict=True):
        assert line.split("  ")[1:3] == [one["action"], one["outcome"]]
    assert service.edge("audit", "--action", "edge token create", "--limit", "1").count("edge token create") == 1
    assert ask(service, admin, "/audit", cursor="x")[0] == 400


def test_what_was_cut_short_stays_begun_and_changed_settings_are_told(tmp_path: Path) -> None:
    service = Service(tmp_path / "data").start()
    number = Audit(service.folder, now_ms=NOW_MS).begin(actor())
    assert number is not None
    service.end(signal.SIGKILL)
    service.settings = ("history.keep_days=7", "server.stop_seconds=3")
    service.start()
    service.end()
    lines = service.edge("audit").splitlines()
    assert any("/person/delete  begun" in line for line in lines)
    (told,) = (line for line in lines if "edge serve" in line)
    assert "history.keep_days, server.stop_seconds" in told and "7" not in told.partition("by ")[2]


# --- the file ---


def test_enrolments_stand_in_the_transaction_that_adds_the_person(tmp_path: Path) -> None:
    newcomer = NewPerson((), (), None, None, None, None, actor("/person/create", caller_id=str(uuid.uuid4())))
    (tmp_path / "data").mkdir()
    audit = Audit(tmp_path / "data", now_ms=NOW_MS)
    with opened(tmp_path / "data") as gallery:
        added = add(gallery, 1, newcomer=newcomer)
        (one,) = audit.page().acts
        assert one.outcome is ActOutcome.ADDED and dict(one.ids)["person_id"] == added
        with pytest.raises(RuntimeError), gallery.database.write() as transaction:
            acts.insert(transaction, actor(), ActOutcome.ADDED, ())
            raise RuntimeError
        assert len(audit.page().acts) == 1
        gallery.delete_persons(gallery.main_list_id, [added])
        assert len(audit.page(id_=added).acts) == 1, "erasing a person leaves what was done, by the id"
        assert added.encode() not in (tmp_path / "data" / "gallery.sqlite3").read_bytes()


def test_old_entries_go_and_a_camera_pushes_out_none_of_what_people_did(tmp_path: Path) -> None:
    fill(tmp_path / "data")
    audit = Audit(tmp_path / "data", now_ms=NOW_MS)
    for day in range(10):
        audit.note(actor(time_ms=NOW_MS - (9 - day) * DAY_MS), ActOutcome.DONE)
    with opened(tmp_path / "data") as gallery:
        with gallery.database.write() as transaction:
            for _ in range(1000):
                acts.insert(transaction, actor("/person/create"), ActOutcome.ADDED, ())
        bounds: dict[str, Any] = {"now_ms": NOW_MS, "most_bytes": 20_000}
        assert audit.prune(gallery.database, days=5, **bounds) == 4 + 1000 - 119
        assert audit.prune(gallery.database, days=5, **bounds) == 0
        assert len(audit.page(action="/person/delete", limit=1000).acts) == 6
        assert audit.prune(gallery.database, days=5, now_ms=NOW_MS + 99 * DAY_MS, most_bytes=20_000) == 6 + 119
        assert audit.page().acts == ()


def test_a_broken_log_is_set_aside_and_the_next_one_says_so(tmp_path: Path) -> None:
    Audit(tmp_path, now_ms=NOW_MS).note(actor(), ActOutcome.DONE)
    (tmp_path / AUDIT_NAME).write_bytes(b"not a database" * 1000)
    audit = Audit(tmp_path, now_ms=NOW_MS + 1)
    (one,) = audit.page().acts
    assert one.outcome is ActOutcome.FAILED and f"{AUDIT_NAME}.broken-{NOW_MS + 1}" in one.detail
    assert (tmp_path / f"{AUDIT_NAME}.broken-{NOW_MS + 1}").exists()


def test_an_entry_that_cannot_be_written_is_in_the_services_log_and_stops_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    audit = Audit(tmp_path, now_ms=NOW_MS)
    (tmp_path / AUDIT_NAME).unlink()
    number = audit.begin(actor(), (("person_id", str(uuid.UUID(int=7))),))
    assert number is None
    audit.end(number, actor(), ActOutcome.DONE)
    assert audit.lost == 2 and "00000000-0000-0000-0000-000000000007" in caplog.text and "done" in caplog.text


def test_a_restore_takes_nothing_back_and_a_new_box_takes_the_backups(tmp_path: Path) -> None:
    fill(tmp_path / "data")
    audit = Audit(tmp_path / "data", now_ms=NOW_MS)
    audit.note(actor("before"), ActOutcome.DONE)
    made = automatic(tmp_path / "data")
    audit.note(actor("after"), ActOutcome.DONE)
    restoring.restore(made, tmp_path / "data", now_ms=NOW_MS)
    assert shown(Audit(tmp_path / "data", now_ms=NOW_MS).page()) == [("after", "done"), ("before", "done")]
    restoring.restore(made, tmp_path / "new", now_ms=NOW_MS)
    assert shown(Audit(tmp_path / "new", now_ms=NOW_MS).page()) == [("before", "done")]


def test_a_cursor_that_no_page_gave_is_refused(tmp_path: Path) -> None:
    audit = Audit(tmp_path, now_ms=NOW_MS)
    for cursor in ("", "1", "1.x", "-1.2", "1.2.3", "²." * 2):
        with pytest.raises(InvalidSchema):
            audit.page(cursor=cursor)


def test_it_is_for_its_owner_alone(tmp_path: Path) -> None:
    Audit(tmp_path, now_ms=NOW_MS)
    assert (tmp_path / AUDIT_NAME).stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(tmp_path / AUDIT_NAME)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
