"""What the operator's page asks for, of the real process: the live stream, strangers, photos, a preview, a search."""

from __future__ import annotations

import http.client
import io
import json
import queue
import socket
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image
from real_process import Service

PHOTOS = Path(__file__).parent / "photos"
NOBODY = "00000000-0000-1000-8000-000000000000"
PATIENCE = 20.0
DOOR = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"


def photo(name: str) -> bytes:
    return (PHOTOS / f"{name}.jpg").read_bytes()


def small(name: str) -> bytes:
    """The photo made so small that its face has too few pixels to be added."""
    buffer = io.BytesIO()
    with Image.open(PHOTOS / f"{name}.jpg") as picture:
        picture.reduce(4).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("operator") / "data", "server.live_streams=3").start()
    yield service
    assert service.end() == 0
    assert "Traceback" not in service.logged()


class Operator:
    """Whoever sits before the page: a token, and a list of the test's own."""

    def __init__(self, service: Service, token: str, list_id: str = "") -> None:
        self.service, self.token, self.list_id = service, token, list_id

    def ask(self, path: str, images: dict[str, bytes] | None = None, **body: Any) -> requests.Response:
        url, headers = f"{self.service.url}/v1{path}", {"token": self.token}
        if images is None:
            return self.service.session.post(url, json=body, headers=headers, timeout=60)
        return self.service.session.post(url, files=images, data=body, headers=headers, timeout=60)

    def ok(self, path: str, images: dict[str, bytes] | None = None, **body: Any) -> dict[str, Any]:
        answer = self.ask(path, images, **body)
        assert answer.status_code == 200, (path, answer.json())
        content: dict[str, Any] = answer.json()
        assert content["status"] == "ok"
        return content

    def refused(self, path: str, status: int, images: dict[str, bytes] | None = None, **body: Any) -> dict[str, Any]:
        answer = self.ask(path, images, **body)
        assert answer.status_code == status, (path, answer.json())
        content: dict[str, Any] = answer.json()
        return content

    def enrolled(self, name: str, **body: Any) -> dict[str, Any]:
        (person,) = self.ok("/person/create", {"image": photo(name)}, list_id=self.list_id, **body)["persons"]
        return dict(person)

    def seen(self, name: str, **body: Any) -> dict[str, Any]:
        """Show a photo to the camera: nobody is added."""
        (face,) = self.ok("/action", {"image": photo(name)}, person_list_search=self.list_id, **body)["results"]
        return dict(face)

    def matched(self, name: str) -> list[str]:
        return [one["person_id"] for one in self.seen(name)["matches"]]


@pytest.fixture
def operator(service: Service) -> Operator:
    operator = Operator(service, admin(service))
    operator.list_id = operator.ok("/person/list/create", name=str(uuid.uuid4()))["list_id"]
    return operator


def admin(service: Service) -> str:
    if not hasattr(service, "_admin"):
        service._admin = service.token("admin")  # type: ignore[attr-defined]
    return str(service._admin)  # type: ignore[attr-defined]


# --- GET /events ---


class Watch:
    """An open stream, read in a thread of its own."""

    def __init__(self, service: Service, token: str, last: str = "") -> None:
        headers = {"token": token, **({"Last-Event-ID": last} if last else {})}
        connection = http.client.HTTPConnection(service.url.removeprefix("http://"), timeout=PATIENCE)
        connection.request("GET", "/v1/events", headers=headers)
        self.socket = connection.sock
        self.answer = connection.getresponse()
        self.is_whole = False
        """Whether the server said that it ends here."""
        self.events: queue.Queue[tuple[str, dict[str, Any]] | None] = queue.Queue()
        self.thread = threading.Thread(target=self._read, daemon=True)
        if self.answer.status == 200:
            self.thread.start()

    def leave(self) -> None:
        """Close the connection, though its thread is reading."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def _read(self) -> None:
        name = ""
        with suppress(OSError, http.client.HTTPException):  # we left
            while line := self.answer.readline():
                key, _, value = line.decode().strip().partition(": ")
                if key == "event":
                    name = value
                elif key == "data":
                    self.events.put((name, json.loads(value)))
            self.is_whole = True
        self.events.put(None)

    def next(self) -> tuple[str, dict[str, Any]] | None:
        """The next event; None: the stream has ended."""
        return self.events.get(timeout=PATIENCE)

    def sighting(self, list_id: str) -> dict[str, Any]:
        """The next sighting of that list."""
        while (event := self.next()) is not None:
            if event[0] == "sighting" and event[1]["list_id"] == list_id:
                return event[1]
        raise AssertionError("the stream has ended")


@contextmanager
def watching(service: Service, token: str, last: str = "") -> Iterator[Watch]:
    watch = Watch(service, token, last)
    try:
        yield watch
    finally:
        watch.leave()


def opened(service: Service, token: str) -> Watch:
    """Open a stream, as soon as a place is free: those of other tests are let go of when the server sees them leave."""
    end = time.monotonic() + PATIENCE
    while (watch := Watch(service, token)).answer.status == 503 and time.monotonic() < end:
        time.sleep(0.05)
    assert watch.answer.status == 200
    return watch


def test_a_sighting_is_told_as_the_history_has_it_with_the_fields_of_the_person(operator: Operator) -> None:
    person = operator.enrolled("obama-1", fields="Barack")
    with watching(operator.service, operator.token) as watch:
        assert watch.answer.headers["Content-Type"].startswith("text/event-stream")
        face = operator.seen("obama-2", source_id=DOOR)
        told = watch.sighting(operator.list_id)
        while told["id"] != face["sighting_id"]:  # that of the enrolment may have been on its way
            told = watch.sighting(operator.list_id)
    assert (told["fields"], told["person_id"], told["source_id"]) == (["Barack"], person["person_id"], DOOR)
    (kept, *_) = operator.ok("/history", list_id=operator.list_id)["sightings"]
    assert requests.get(told["image_url"], timeout=30).headers["Content-Type"] == "image/jpeg"
    for record in (told, kept):  # the address has the time in it that it expires
        record.pop("image_url")
    assert told == {**kept, "fields": ["Barack"]}


def test_whoever_comes_back_is_told_what_they_missed(operator: Operator) -> None:
    ids = [operator.seen("obama-1")["sighting_id"] for _ in range(3)]
    deadline = time.monotonic() + PATIENCE
    while len(operator.ok("/history", list_id=operator.list_id)["sightings"]) < 3 and time.monotonic() < deadline:
        time.sleep(0.1)
    with watching(operator.service, operator.token, last=ids[0]) as watch:
        assert [watch.sighting(operator.list_id)["id"] for _ in ids[1:]] == ids[1:]
        now = operator.seen("obama-1")["sighting_id"]
        assert watch.sighting(operator.list_id)["id"] == now
    with watching(operator.service, operator.token, last=NOBODY) as watch:
        assert watch.next() == ("missed", {"count": None})


def test_a_bound_token_sees_its_list_and_source_alone(operator: Operator) -> None:
    bound = operator.service.token("read", list=operator.list_id, source=DOOR)
    main = operator.ok("/person/lists", limit=1)["lists"][0]["id"]
    with watching(operator.service, bound) as watch:
        operator.ok("/action", {"image": photo("obama-1")}, person_list_search=main, source_id=DOOR)
        operator.seen("obama-1")
        mine = operator.seen("obama-1", source_id=DOOR)
        name, told = watch.next() or ("", {})
        assert (name, told["id"]) == ("sighting", mine["sighting_id"])


def test_there_are_so_many_and_no_more_and_a_place_is_free_when_a_reader_leaves(operator: Operator) -> None:
    service = operator.service
    watches = [opened(service, operator.token) for _ in range(3)]
    with watching(service, operator.token) as one_too_many:
        assert one_too_many.answer.status == 503
        assert int(one_too_many.answer.headers["Retry-After"]) > 0
        assert json.loads(one_too_many.answer.read())["message"] == "too many live streams"
    assert operator.seen("obama-1"), "frames are answered as ever"
    watches[0].leave()
    watches[0] = opened(service, operator.token)
    for watch in watches:
        watch.leave()


def test_a_revoked_token_ends_its_stream(operator: Operator) -> None:
    made = operator.ok("/token/create", expires="never", scope=["read"])["token"]
    watch = opened(operator.service, made["id"])
    operator.ok("/token/delete", token_id=made["token_id"])
    while (event := watch.next()) is not None:
        assert event[0] == "sighting"


def test_a_stop_ends_the_streams_at_once(tmp_path: Path) -> None:
    service = Service(tmp_path / "data", "server.stop_seconds=0").start()
    token = service.token("read")
    watches = [opened(service, token) for _ in range(2)]
    assert service.end() == 0, "nothing was cut that anybody could lose"
    assert [watch.next() for watch in watches] == [None, None]
    assert all(watch.is_whole for watch in watches)


# --- strangers ---


def test_strangers_are_grouped_and_become_a_person_by_a_word(operator: Operator) -> None:
    shown = ("obama-1", "biden-1", "obama-2", "obama-3", "biden-1", "collins-1")
    ids = {name: operator.seen(name, source_id=DOOR)["sighting_id"] for name in shown}
    groups: list[dict[str, Any]] = []
    end = time.monotonic() + PATIENCE
    while sum(one["count"] for one in groups) < len(shown) and time.monotonic() < end:  # written within a second
        groups = operator.ok("/unknowns", list_id=operator.list_id)["groups"]
    by_size = {one["count"]: one for one in groups}
    assert sorted(by_size) == [1, 2, 3]
    obama = by_size[3]
    assert set(obama["sighting_ids"]) == {ids[name] for name in shown if name.startswith("obama")}
    assert obama["group_key"] == ids["obama-1"]
    assert (obama["source_ids"], obama["first"] < obama["last"]) == ([DOOR], True)
    assert {one["id"] for one in obama["sightings"]} == set(obama["sighting_ids"])
    areas = [one["bbox"]["w"] * one["bbox"]["h"] for one in obama["sightings"]]
    assert areas[0] == max(areas), "the best first"
    assert [one["group_key"] for one in groups[:1]] == [ids["collins-1"]], "who was seen last first"
    (only,) = operator.ok("/unknowns", list_id=operator.list_id, limit=1)["groups"]
    assert only["sighting_ids"] == groups[0]["sighting_ids"]  # not the addresses of pictures, which expire in turn
    assert operator.ok("/unknowns", source_id=NOBODY)["groups"] == []

    named = operator.ok(
        "/unknowns/name", sighting_ids=obama["sighting_ids"], list_id=operator.list_id, fields=["Barack"]
    )["person"]
    assert (named["fields"], named["list_id"]) == (["Barack"], operator.list_id)
    assert requests.get(named["image_url"], timeout=30).headers["Content-Type"] == "image/jpeg"
    assert operator.matched("obama-1") == [named["person_id"]]
    assert {one["count"] for one in operator.ok("/unknowns", list_id=operator.list_id)["groups"]} == {1, 2}
    theirs = operator.ok("/history", person_id=named["person_id"])["sightings"]
    assert set(obama["sighting_ids"]) <= {one["id"] for one in theirs}
    photos = operator.ok("/person/photos", person_id=named["person_id"])["photos"]
    assert len(photos) == 3
    assert [one["image_url"] for one in photos if one["is_portrait"]] == [named["image_url"]]

    again = {"sighting_ids": by_size[2]["sighting_ids"], "person_id": named["person_id"]}
    assert operator.ok("/unknowns/name", **again)["person"]["person_id"] == named["person_id"]
    assert named["person_id"] in operator.matched("biden-1"), "the operator's word"
    taken = operator.refused("/unknowns/name", 400, sighting_ids=obama["sighting_ids"])
    assert (taken["message"], taken["errors"][0]["field"]) == ("conflict", "sighting_ids[0]")
    unknown = operator.refused("/unknowns/name", 404, sighting_ids=[NOBODY])
    assert unknown["errors"][0]["field"] == "sighting_ids[0]"
    bound = Operator(operator.service, operator.service.token("enrol", list=operator.list_id, source=NOBODY))
    bound.refused("/unknowns/name", 403, sighting_ids=by_size[1]["sighting_ids"])

    vectors = vectors_of(operator.service)
    operator.ok("/person/delete", person_id=named["person_id"], list_id=operator.list_id)
    assert len(vectors) > len(left := vectors_of(operator.service))
    files = b"".join(path.read_bytes() for path in operator.service.folder.glob("gallery.sqlite3*"))
    assert [one for one in vectors - left if one in files] == []


def vectors_of(service: Service) -> set[bytes]:
    """Every vector that a template or a sighting has."""
    with closing(sqlite3.connect(f"file:{service.folder}/gallery.sqlite3?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT vector FROM templates UNION SELECT vector FROM sightings").fetchall()
    return {vector for (vector,) in rows if vector is not None}


# --- photos ---


def test_photos_are_added_taken_away_and_split_off(operator: Operator) -> None:
    person = operator.enrolled("obama-1", fields="Barack")
    one = {"person_id": person["person_id"]}
    (first,) = operator.ok("/person/photos", **one)["photos"]
    assert (first["is_portrait"], first["image_url"].split("/")[-2]) == (True, person["image_url"].split("/")[-2])
    refused = operator.refused("/person/photo/delete", 400, **one, photo_id=first["photo_id"])
    assert refused["errors"] == [{"field": "photo_id", "reason": "it is the last one: erase the person instead"}]

    added = operator.ok("/person/photo/add", {"image": photo("obama-2")}, **one)
    assert added["photo"]["photo_id"] != first["photo_id"]
    assert added["photo"]["measures"]["sharpness"] > 0
    assert operator.ok("/person/photo/add", {"image": photo("obama-2")}, **one)["photo"] is None, "it is there already"
    poor = operator.refused("/person/photo/add", 400, {"image": small("obama-2")}, **one)
    assert poor["message"] == "the face misses the limits of a new person"
    assert "image.size" in {mistake["field"] for mistake in poor["errors"]}
    biden = operator.enrolled("biden-1")["person_id"]
    wrong = operator.refused("/person/photo/add", 400, {"image": photo("biden-1")}, **one)
    assert wrong["message"] == "the face is somebody else's"
    assert biden in wrong["errors"][0]["reason"]
    forced = operator.ok("/person/photo/add", {"image": photo("biden-1")}, **one, force="true")["photo"]
    assert operator.refused("/person/photo/add", 400, {"image": b"x"}, **one)["message"] == "image format is unknown"

    photos = operator.ok("/person/photos", **one)["photos"]
    assert photos[0]["photo_id"] == first["photo_id"]
    assert len(photos) == 3
    assert sum(photo["is_portrait"] for photo in photos) == 1
    operator.ok("/person/delete", person_id=biden, list_id=operator.list_id)
    new = operator.ok("/person/split", **one, photo_ids=[forced["photo_id"]], fields=["Joe"])["person"]
    assert (new["fields"], new["list_id"]) == (["Joe"], operator.list_id)
    assert operator.matched("biden-1") == [new["person_id"]]
    assert operator.matched("obama-1") == [person["person_id"]]
    everybody = [photo["photo_id"] for photo in operator.ok("/person/photos", **one)["photos"]]
    assert operator.refused("/person/split", 400, **one, photo_ids=everybody)["message"] == "conflict"
    assert operator.refused("/person/split", 404, **one, photo_ids=["0"])["errors"][0]["field"] == "photo_ids"

    gone = requests.get(added["photo"]["image_url"], timeout=30)
    assert gone.status_code == 200
    operator.ok("/person/photo/delete", **one, photo_id=added["photo"]["photo_id"])
    assert requests.get(added["photo"]["image_url"], timeout=30).status_code == 404
    assert operator.refused("/person/photo/delete", 404, **one, photo_id=added["photo"]["photo_id"])
    assert len(operator.ok("/person/photos", **one)["photos"]) == 1


# --- a preview ---


def test_a_preview_tells_everything_and_keeps_nothing(operator: Operator) -> None:
    person = operator.enrolled("obama-1", fields="Barack")
    operator.seen("obama-1")
    end = time.monotonic() + PATIENCE
    while len(operator.ok("/history", list_id=operator.list_id)["sightings"]) < 2 and time.monotonic() < end:
        time.sleep(0.1)
    before = operator.ok("/history")["sightings"]
    (face,) = operator.ok("/person/preview", {"image": photo("obama-2")}, list_id=operator.list_id)["faces"]
    assert (face["reasons"], face["is_match"], face["is_uncertain"]) == ([], True, False)
    assert (face["nearest"]["person_id"], face["nearest"]["fields"]) == (person["person_id"], ["Barack"])
    assert face["nearest"]["score"] >= face["threshold"]
    measures = {one["name"]: one for one in face["measures"]}
    assert all(one["ok"] for one in measures.values())
    assert measures["size"]["least"] == 80
    assert (measures["yaw"]["least"], measures["yaw"]["most"]) == (-45, 45)
    (poor,) = operator.ok("/person/preview", {"image": small("obama-2")}, list_id=operator.list_id)["faces"]
    failed = {one["name"] for one in poor["measures"] if not one["ok"]}
    assert "size" in failed
    assert failed == {one["check"].replace("presence", "face_presence") for one in poor["reasons"]}
    (stranger,) = operator.ok("/person/preview", {"image": photo("biden-1")})["faces"]
    assert (stranger["nearest"], stranger["is_match"]) == (None, False), "the main list has nobody in it"
    assert operator.refused("/person/preview", 400, {"image": b"x"})["message"] == "image format is unknown"
    assert operator.refused("/person/preview", 400, {}, list_id=operator.list_id)["message"] == "no image attached"

    time.sleep(1.2)  # longer than a sighting waits to be written
    assert [one["id"] for one in operator.ok("/history")["sightings"]] == [one["id"] for one in before]
    assert len(operator.ok("/persons", list_id=operator.list_id, limit=10)["persons"]) == 1


# --- finding by words ---


def test_persons_are_found_by_a_part_of_a_field(operator: Operator) -> None:
    def add(number: int, *fields: str) -> str:
        vector = [float(n == number) for n in range(128)]
        body = {"embedding": vector, "list_id": operator.list_id, "fields": list(fields)}
        return str(operator.ok("/person/create", **body)["persons"][0]["person_id"])

    jurgen, jorg = add(0, "Jürgen Groß", "porter"), add(1, "JÖRG", 'a "quoted" \\ one')
    decomposed = add(2, "Ju\u0308rgen")

    def found(text: str, **more: Any) -> list[str]:
        page = operator.ok("/person/find", text=text, list_id=operator.list_id, **more)
        return [one["person_id"] for one in page["persons"]]

    assert found("JÜRGEN") == [jurgen, decomposed]
    assert found("jörg") == [jorg]
    assert found("GROSS") == [jurgen]
    assert found("PORT") == [jurgen]
    assert found('"quoted" \\') == [jorg]
    assert found("ü") == [jurgen, decomposed]
    assert found('", "') == [], "what lies between two fields is in none"
    first = operator.ok("/person/find", text="rgen", list_id=operator.list_id, limit=1)
    assert [one["person_id"] for one in first["persons"]] == [jurgen]
    rest = operator.ok("/person/find", text="rgen", list_id=operator.list_id, limit=1, cursor=first["cursor"])
    assert ([one["person_id"] for one in rest["persons"]], rest["cursor"]) == ([decomposed], None)
    nameless, blank = add(3), add(4, " ", "")
    page = operator.ok("/person/find", text="", list_id=operator.list_id)
    assert [one["person_id"] for one in page["persons"]] == [nameless, blank]
    operator.refused("/person/find", 400)
    everywhere = operator.ok("/person/find", text="jürgen gro")["persons"]
    assert [one["person_id"] for one in everywhere] == [jurgen]
    bound = Operator(operator.service, operator.service.token("read", list=operator.list_id))
    assert len(bound.ok("/person/find", text="j")["persons"]) == 3
    main = operator.ok("/person/lists", limit=1)["lists"][0]["id"]
    bound.refused("/person/find", 403, text="j", list_id=main)
