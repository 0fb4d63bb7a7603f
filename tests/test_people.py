"""People in and out by the folder: `edge enrol` and `edge export` beside the real process."""

from __future__ import annotations

import csv
import http.server
import json
import shutil
import tarfile
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image, ImageFilter
from real_process import Service

from edge import cli
from edge.gallery.history import BATCH_SECONDS
from edge.people.api import Api

PHOTOS = Path(__file__).parent / "photos"
NOBODY = "00000000-0000-1000-8000-000000000000"
SOME_REFUSED = 3


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("people") / "data").start()
    (service.folder / "admin.token").write_text(service.token("admin"))
    yield service
    assert service.end() == 0
    assert "Traceback" not in service.logged()


def ask(service: Service, path: str, **body: Any) -> dict[str, Any]:
    headers = {"token": (service.folder / "admin.token").read_text()}
    answer = service.session.post(f"{service.url}/v1{path}", json=body, headers=headers, timeout=60)
    content: dict[str, Any] = answer.json()
    assert answer.status_code == 200, content
    return content


@pytest.fixture
def list_id(service: Service, request: pytest.FixtureRequest) -> str:
    """An empty list of the test's own."""
    return str(ask(service, "/person/list/create", name=request.node.name[:100])["list_id"])


Told = tuple[int, str, str]


class Edge:
    """The command, within this process: what it costs to start one more is measured elsewhere."""

    def __init__(self, service: Service, capsys: pytest.CaptureFixture[str]) -> None:
        self.service = service
        self.capsys = capsys

    def __call__(self, verb: str, *arguments: object) -> Told:
        self.capsys.readouterr()
        code = cli.main([verb, "--set", f"data.folder={self.service.folder}", *map(str, arguments)])
        return (code, *self.capsys.readouterr())

    def enrol(self, place: object, *flags: object) -> Told:
        return self("enrol", place, "--url", self.service.url, *flags)


@pytest.fixture
def edge(service: Service, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Edge:
    monkeypatch.delenv("EDGE_TOKEN", raising=False)
    monkeypatch.delenv("EDGE_CONFIG", raising=False)
    return Edge(service, capsys)


def folder_of(path: Path, **persons: str) -> Path:
    """Make a folder for each person: the photos' names, with commas between."""
    for name, photos in persons.items():
        (path / name).mkdir(parents=True)
        for photo in photos.split(","):
            shutil.copy(PHOTOS / f"{photo}.jpg", path / name)
    return path


def wait_for_sightings(service: Service, person_id: str, count: int) -> None:
    """They are written together, a second's at once."""
    while len(ask(service, "/history", person_id=person_id)["sightings"]) < count:
        time.sleep(0.05)


def persons(service: Service, list_id: str) -> dict[str, dict[str, Any]]:
    """Everybody of the list, with their vectors, by their first field."""
    found = ask(service, "/persons", list_id=list_id, embeddings=True)["persons"]
    by_name = {one["fields"][0]: one for one in found}
    assert len(by_name) == len(found), "nobody is there twice"
    return by_name


def test_a_folder_for_each_person(service: Service, edge: Edge, list_id: str, tmp_path: Path) -> None:
    staff = folder_of(tmp_path / "staff", Ann="obama-1,obama-2", Bea="biden-1")
    shutil.copy(PHOTOS / "obama-3.jpg", staff / "Bea" / "wrong folder.jpg")
    shutil.copy(PHOTOS / "collins-1.jpg", staff / "loose.jpg")
    (staff / "Cleo").mkdir()
    (staff / "Cleo" / "broken.jpg").write_bytes(b"no picture")
    (staff / "Ann" / "notes.txt").write_text("not a photo")
    report = tmp_path / "report.csv"
    code, told, _ = edge.enrol(staff, "--list", list_id, "--report", report)
    assert code == SOME_REFUSED
    assert "2 persons added, 1 more photos of them, 0 known already, 3 refused" in told
    found = persons(service, list_id)
    assert {name: len(one["embeddings"]) for name, one in found.items()} == {"Ann": 2, "Bea": 1}
    with report.open(newline="") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    assert {file: (row["outcome"], row["check"]) for file, row in rows.items()} == {
        "Ann/obama-1.jpg": ("added", ""),
        "Ann/obama-2.jpg": ("more", ""),
        "Bea/biden-1.jpg": ("added", ""),
        "Bea/wrong folder.jpg": ("refused", "is somebody else"),
        "Cleo/broken.jpg": ("refused", "image format is unknown"),
        "loose.jpg": ("refused", "lies in no person's folder"),
    }
    wrong = rows["Bea/wrong folder.jpg"]
    assert (wrong["person"], wrong["person_id"]) == ("Ann", found["Ann"]["person_id"])
    assert float(wrong["score"]) >= float(wrong["limit"]) == 0.7
    assert oct(report.stat().st_mode & 0o777) == oct(0o600)


def test_again_it_posts_nothing_and_a_lost_journal_adds_nobody_twice(
    service: Service, edge: Edge, list_id: str, tmp_path: Path
) -> None:
    staff = folder_of(tmp_path / "staff", Ann="obama-1,obama-2")
    first = edge.enrol(staff, "--list", list_id)
    assert first[0] == 0
    journal = tmp_path / "staff.enrolled.jsonl"
    assert oct(journal.stat().st_mode & 0o777) == oct(0o600)
    before = persons(service, list_id)
    end = time.monotonic() + 20
    while not (seen := ask(service, "/history", list_id=list_id)["sightings"]) and time.monotonic() < end:
        time.sleep(0.1)  # written within a second
    assert edge.enrol(staff, "--list", list_id)[:2] == first[:2], "the same report"
    time.sleep(2 * BATCH_SECONDS)
    later = ask(service, "/history", list_id=list_id)["sightings"]
    assert [one["id"] for one in later] == [one["id"] for one in seen] != [], "nothing was posted"
    with journal.open("a") as file:
        file.write('{"appliance": "cut o')  # as a power cut leaves it
    assert edge.enrol(staff, "--list", list_id)[0] == 0
    journal.unlink()
    assert edge.enrol(staff, "--list", list_id)[0] == 0
    after = persons(service, list_id)
    assert {name: len(one["embeddings"]) for name, one in after.items()} == {"Ann": 2}
    assert after["Ann"]["person_id"] == before["Ann"]["person_id"]
    journal.write_text("[]\n")
    code, _, told = edge.enrol(staff, "--list", list_id)
    assert (code, "not of an enrolment" in told) == (1, True)


def test_limits_are_told_with_value_and_limit_and_a_photo_can_be_tried_again(
    service: Service, edge: Edge, list_id: str, tmp_path: Path
) -> None:
    staff = folder_of(tmp_path / "staff", Ann="obama-1")
    with Image.open(PHOTOS / "obama-1.jpg") as photo:
        photo.filter(ImageFilter.GaussianBlur(12)).save(staff / "Ann" / "a-blurred.jpg")
    code, told, _ = edge.enrol(staff, "--list", list_id)
    assert code == SOME_REFUSED
    assert "Ann/a-blurred.jpg: sharpness 0." in told and "limit 0.25" in told
    assert list(persons(service, list_id)) == ["Ann"]
    assert "1 refused" in edge.enrol(staff, "--list", list_id, "--retry")[1]


def test_a_csv_with_lists_and_more_fields(service: Service, edge: Edge, list_id: str, tmp_path: Path) -> None:
    folder_of(tmp_path, photos="obama-1,biden-1,collins-1")
    table = tmp_path / "people.csv"
    table.write_text(
        "file,name,list,room\n"
        f"photos/obama-1.jpg,Ännchen,{list_id},12\n"
        f"photos/biden-1.jpg,Bea,test_a_csv_with_lists_and_more_fields,\n"
        "photos/collins-1.jpg,Cleo,nowhere,3\n"
        f"photos/gone.jpg,Dora,{list_id},4\n"
    )
    code, told, _ = edge.enrol(table)
    assert code == SOME_REFUSED
    assert "photos/collins-1.jpg: no list nowhere" in told
    assert "photos/gone.jpg: cannot be read; file: No such file or directory" in told
    assert {name: one["fields"] for name, one in persons(service, list_id).items()} == {
        "Ännchen": ["Ännchen", "12"],
        "Bea": ["Bea", ""],
    }
    table.write_text("file,person\nphotos/obama-1.jpg,Ann\n")
    code, _, told = edge.enrol(table)
    assert (code, "people.csv, row 2: needs the columns file and name" in told) == (1, True)


def test_an_export_goes_back_as_it_was(service: Service, edge: Edge, list_id: str, tmp_path: Path) -> None:
    staff = folder_of(tmp_path / "staff", Ann="obama-1,obama-2", Bea="biden-1")
    edge.enrol(staff, "--list", list_id)
    before = persons(service, list_id)
    wait_for_sightings(service, before["Ann"]["person_id"], 1)
    whole, folder = tmp_path / "all.tar", tmp_path / "all"
    assert edge("export", whole)[0] == 0
    assert edge("export", folder, "--history")[0] == 0
    assert oct(whole.stat().st_mode & 0o777) == oct(0o600)
    lines = [json.loads(line) for line in (folder / "persons.jsonl").read_text().splitlines()]
    ann = next(one for one in lines if one["person_id"] == before["Ann"]["person_id"])
    assert (ann["fields"], ann["list"]) == (["Ann"], "test_an_export_goes_back_as_it_was")
    assert [(folder / one["picture"]).read_bytes()[:2] for one in ann["templates"]] == [b"\xff\xd8"] * 2
    assert ann["created"] == before["Ann"]["created"]
    with tarfile.open(whole) as tar:
        names = set(tar.getnames())
    assert {one["picture"] for one in ann["templates"]} <= names
    assert not any(name.startswith(("sightings/", "history")) for name in names)
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert any(one["person_id"] == ann["person_id"] and one["picture"] and one["vector"] for one in history)
    assert edge("export", folder)[0] == 1, "it is there already"

    ask(service, "/person/list/delete", list_id=list_id)
    _, told, _ = edge.enrol(whole)
    assert "2 persons added" in told, told
    made = {one["name"]: one["id"] for one in ask(service, "/person/lists")["lists"]}
    after = persons(service, made["test_an_export_goes_back_as_it_was"])
    assert {name: one["fields"] for name, one in after.items()} == {"Ann": ["Ann"], "Bea": ["Bea"]}
    for name, one in before.items():
        assert len(after[name]["embeddings"]) == len(one["embeddings"])
        assert np.dot(after[name]["embeddings"][0], one["embeddings"][0]) == pytest.approx(1, abs=1e-4)
        assert after[name]["image_url"]
    again = edge.enrol(whole, "--journal", tmp_path / "another")[1]
    assert again.startswith("0 persons added, 0 more photos of them, ") and again.endswith(" 0 refused\n"), again
    assert persons(service, made["test_an_export_goes_back_as_it_was"]).keys() == after.keys()


def test_one_person_with_everything_that_is_kept_of_them(
    service: Service, edge: Edge, list_id: str, tmp_path: Path
) -> None:
    staff = folder_of(tmp_path / "staff", Ann="obama-1", Bea="biden-1")
    edge.enrol(staff, "--list", list_id)
    ann = persons(service, list_id)["Ann"]["person_id"]
    service.create((PHOTOS / "obama-2.jpg").read_bytes(), list_id=list_id)
    wait_for_sightings(service, ann, 2)
    code, told, _ = edge("export", tmp_path / "ann", "--person", ann)
    assert (code, "1 persons, " in told) == (0, True)
    (line,) = [json.loads(one) for one in (tmp_path / "ann" / "persons.jsonl").read_text().splitlines()]
    assert line["person_id"] == ann
    history = [json.loads(one) for one in (tmp_path / "ann" / "history.jsonl").read_text().splitlines()]
    assert {one["person_id"] for one in history} == {ann}
    assert [one["verdict"] for one in history] == ["match", "add"]
    assert not (tmp_path / "ann" / "lists.jsonl").exists()
    assert edge("export", tmp_path / "nobody", "--person", NOBODY)[0] == 1
    assert not list(tmp_path.glob(".*")), "nothing half written is left"


def test_double_takes_training_pictures(service: Service, edge: Edge, list_id: str, tmp_path: Path) -> None:
    folder_of(tmp_path / ".storage" / "train", ann="obama-1")
    folder_of(tmp_path / ".storage" / "matches", x="biden-1")
    code, told, _ = edge.enrol(tmp_path / ".storage", "--from", "double-take", "--list", list_id)
    assert (code, "1 persons added" in told) == (0, True)
    assert list(persons(service, list_id)) == ["ann"]


class CompreFace(http.server.BaseHTTPRequestHandler):
    """Answers as CompreFace's REST documentation says: two routes, pages of one."""

    FACES = (
        {"image_id": "a", "subject": "ann"},
        {"image_id": "b", "subject": "bea"},
        {"image_id": "c", "subject": "x"},
    )
    PHOTO_OF: ClassVar = {"a": "obama-1", "b": "biden-1"}

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        image = url.path.removeprefix("/api/v1/recognition/faces/").removesuffix("/img")
        if self.headers["x-api-key"] != "the-key":
            self.send_error(401)
            return
        if url.path == "/api/v1/recognition/faces":
            page = int(urllib.parse.parse_qs(url.query)["page"][0])
            body = json.dumps({"faces": self.FACES[page : page + 1], "page_number": page, "total_pages": 3}).encode()
        else:
            body = (PHOTOS / f"{self.PHOTO_OF[image]}.jpg").read_bytes() if image in self.PHOTO_OF else b""
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def test_compreface_over_its_api(service: Service, edge: Edge, list_id: str, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("the-key\n")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), CompreFace) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        flags = ("--from", "compreface", "--list", list_id, "--journal", tmp_path / "journal")
        code, told, _ = edge.enrol(url, *flags, "--key-file", key)
        assert code == SOME_REFUSED
        assert "c: cannot be read; image: CompreFace has not kept it" in told
        key.write_text("wrong")
        assert edge.enrol(url, *flags, "--key-file", key)[0] == 1
        server.shutdown()
    assert sorted(persons(service, list_id)) == ["ann", "bea"]


class Restarting(http.server.BaseHTTPRequestHandler):
    """Answers, is busy, hangs up, and answers again."""

    TURNS: ClassVar = iter((200, 503, None, 200))

    def do_GET(self) -> None:
        status = next(self.TURNS)
        if status is None:
            return
        self.send_response(status)
        self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(b'{"message": "busy"}')

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def test_a_service_that_restarts_in_the_middle_is_asked_again() -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Restarting) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        api = Api(f"http://127.0.0.1:{server.server_port}", {})
        assert [api.get("/health"), api.get("/health")] == [{"message": "busy"}] * 2
        server.shutdown()


def test_a_token_without_admin_is_enough(service: Service, edge: Edge, list_id: str, tmp_path: Path) -> None:
    staff = folder_of(tmp_path / "staff", Ann="obama-1,obama-2")
    secret = tmp_path / "token"
    secret.write_text(service.token("enrol", "recognize", "read"))
    assert edge.enrol(staff, "--list", list_id, "--token-file", secret)[0] == 0
    secret.write_text(service.token("enrol", list=list_id))
    code, _, error = edge.enrol(staff, "--token-file", secret)
    assert (code, "access denied" in error) == (1, True)


def test_what_it_says_where_nothing_can_be_done(
    service: Service, edge: Edge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staff = folder_of(tmp_path / "staff", Ann="obama-1")
    (tmp_path / "wrong").write_text("00000000-0000-4000-8000-000000000000")
    for flags, told in (
        (("--token-file", tmp_path / "wrong"), "access denied"),
        (("--token-file", tmp_path / "missing"), "No such file"),
        (("--list", "nowhere"), "no list nowhere"),
        (("--threshold", "7"), "--threshold: 7 is not within 0 to 1"),
    ):
        code, _, error = edge.enrol(staff, *flags)
        assert (code, told in error) == (1, True), error
    code, _, error = edge("enrol", staff, "--url", "http://127.0.0.1:9")
    assert (code, "http://127.0.0.1:9 does not answer" in error) == (1, True)
    code, _, error = edge("enrol", staff, "--url", "127.0.0.1")
    assert (code, "is not of the form http://host:port" in error) == (1, True)
    assert edge.enrol(tmp_path / "nowhere")[0] == 1
    monkeypatch.setenv("EDGE_TOKEN", "x")
    code, _, error = edge.enrol(staff)
    assert (code, "access denied" in error) == (1, True), "the environment comes before the file of the first start"
