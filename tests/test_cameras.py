"""Frames as cameras send them by themselves, to the real process."""

from __future__ import annotations

import base64
import concurrent.futures
import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from real_process import Service

PHOTOS = Path(__file__).parent / "photos"
PHOTO = (PHOTOS / "obama-1.jpg").read_bytes()
BURST = 12
FACE = b"\xff\xd8\xff a cut-out face, smaller than the frame"

HIKVISION = (
    b"--boundary\r\n"
    b'Content-Disposition: form-data; name="MoveDetection.xml"; filename="MoveDetection.xml"\r\n'
    b"Content-Type: application/xml\r\nContent-Length: 25\r\n\r\n<EventNotificationAlert/>\r\n"
    b"--boundary\r\n"
    b'Content-Disposition: form-data; name="moveDetectionImage"; filename="moveDetectionImage.jpg"\r\n'
    b"Content-Type: image/pjpeg\r\n\r\n" + PHOTO + b"\r\n--boundary--\r\n"
)
MIXED = (
    b"--myboundary\r\nContent-Type: text/plain\r\nContent-Length: 26\r\n\r\nEvents[0].EventBaseInfo.Code\r\n"
    b"--myboundary\r\nContent-Type: image/jpeg\r\n\r\n" + FACE + b"\r\n"
    b"--myboundary\r\nContent-Type: image/jpeg\r\n\r\n" + PHOTO + b"\r\n--myboundary--\r\n"
)
BODIES = {
    "raw": ("image/jpeg", PHOTO),
    "typeless": ("", PHOTO),
    "octets": ("application/octet-stream", PHOTO),
    "hikvision": ("multipart/form-data; boundary=boundary", HIKVISION),
    "hikvision that counts wrong": (
        "multipart/form-data; boundary=boundary",
        HIKVISION.replace(b"Length: 25", b"Length: 24"),
    ),
    "mixed": ("multipart/mixed; boundary=myboundary", MIXED),
    "replace": ("multipart/x-mixed-replace; boundary=myboundary", MIXED),
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("cameras") / "data", "models.workers=1").start()
    yield service
    assert service.end() == 0
    assert "Traceback" not in service.logged()


@pytest.fixture(scope="module")
def source(service: Service) -> dict[str, str]:
    """A source that adds to a list, a token bound to it, and the person of the photo, who is on the list."""
    admin = {"token": service.token("admin")}

    def ask(path: str, **body: Any) -> dict[str, Any]:
        answer: dict[str, Any] = service.session.post(service.url + path, json=body, headers=admin, timeout=60).json()
        return answer

    list_id = ask("/person/list/create", name="visitors")["list_id"]
    source_id = ask("/source/create", name="door", person_list_add=[list_id], person_list_search=[list_id])["source_id"]
    return {
        "id": source_id,
        "token": service.token("enrol", source=source_id),
        "list_id": list_id,
        "admin": admin["token"],
    }


def post(
    service: Service, source_id: str, body: bytes = PHOTO, kind: str = "image/jpeg", query: str = "", **headers: str
) -> tuple[int, dict[str, Any], Any]:
    """Post as a camera does: no library that adds a header."""
    connection = http.client.HTTPConnection(service.url.removeprefix("http://"), timeout=60)
    sent = {**({"Content-Type": kind} if kind else {}), **headers}
    connection.request("POST", f"/v1/source/{source_id}/frame{query}", body, sent)
    answer = connection.getresponse()
    content: dict[str, Any] = json.loads(answer.read())
    connection.close()
    return answer.status, content, answer.headers


@pytest.mark.parametrize("name", BODIES)
def test_every_wrapping_gives_the_picture(service: Service, source: dict[str, str], name: str) -> None:
    kind, body = BODIES[name]
    status, content, _ = post(service, source["id"], body, kind, f"?token={source['token']}")
    assert (status, content["status"], content["faces_total"]) == (200, "ok", 1), content
    (result,) = content["results"]
    assert result["matches"] or result["added"]["list_id"] == source["list_id"]
    assert (result["matches"] or [result["added"]])[0]["source_id"] == source["id"]


def test_the_query_says_what_a_form_would(service: Service, source: dict[str, str]) -> None:
    token = f"?token={source['token']}"
    _, content, _ = post(service, source["id"], query=f"{token}&thumb=true&results=2&new_person_threshold=0.8")
    assert content["results"][0]["thumb"]
    assert content["results"][0]["threshold"] == 0.8
    status, content, _ = post(service, source["id"], query=f"{token}&multi=perhaps")
    assert (status, content["message"], content["errors"][0]["field"]) == (400, "invalid schema", "multi")


def test_a_password_is_asked_for_and_taken(service: Service, source: dict[str, str]) -> None:
    status, content, headers = post(service, source["id"])
    assert (status, content) == (401, {"message": "access denied", "status": "failed"})
    assert headers["WWW-Authenticate"] == 'Basic realm="edge"'
    for password, expected in ((source["token"], 200), ("wrong", 401), (source["token"] + "0", 401)):
        basic = "Basic " + base64.b64encode(f"camera:{password}".encode()).decode()
        assert post(service, source["id"], Authorization=basic)[0] == expected
    assert post(service, source["id"], Authorization="Basic ***")[0] == 401
    assert post(service, source["id"], query="?token=")[0] == 401
    assert post(service, source["id"], query=f"?token={source['token']}&token=x")[0] == 401
    assert post(service, source["id"], token=source["token"])[0] == 200


def test_only_here_is_a_token_taken_from_the_query_or_a_password(service: Service, source: dict[str, str]) -> None:
    basic = "Basic " + base64.b64encode(f"camera:{source['admin']}".encode()).decode()
    url = f"{service.url}/v1/action"
    files = {"image": PHOTO}
    assert service.session.post(f"{url}?token={source['admin']}", files=files, timeout=60).status_code == 401
    refused = service.session.post(url, files=files, headers={"Authorization": basic}, timeout=60)
    assert refused.status_code == 401
    assert "WWW-Authenticate" not in refused.headers


def test_cameras_that_wait_to_be_asked_are_not_counted_as_guessing(service: Service, source: dict[str, str]) -> None:
    for _ in range(61):  # wrong_tokens_per_minute, and one
        assert post(service, source["id"], b"")[0] == 401


def test_what_has_no_picture_is_taken_note_of(service: Service, source: dict[str, str]) -> None:
    token = f"?token={source['token']}"
    for kind, body in (
        ("application/xml", b"<EventNotificationAlert/>"),
        ("multipart/form-data; boundary=boundary", HIKVISION.replace(PHOTO, b"")),
        ("multipart/mixed; boundary=myboundary", MIXED.replace(PHOTO, b"").replace(FACE, b"")),
        ("image/jpeg", b""),
    ):
        status, content, _ = post(service, source["id"], body, kind, token)
        assert (status, content["message"], content["results"]) == (200, "no image attached", []), kind
    status, content, _ = post(service, source["id"], b"no picture", query=token)
    assert (status, content["message"]) == (200, "image format is unknown")
    status, content, _ = post(service, source["id"], b"x", "multipart/mixed", token)
    assert (status, content["errors"][0]["reason"]) == (400, "multipart without a boundary")


def test_a_token_is_held_to_its_source(service: Service, source: dict[str, str]) -> None:
    other = "00000000-0000-1000-8000-000000000000"
    assert post(service, other, query=f"?token={source['token']}")[0] == 403
    assert post(service, other, query=f"?token={source['admin']}")[0] == 200, "recorded as it is"
    assert post(service, "door", query=f"?token={source['admin']}")[0] == 404


def test_of_a_burst_the_newest_is_worked_on(service: Service, source: dict[str, str]) -> None:
    """One worker, so those that come while it is busy wait: all but one of them give way, and that is counted."""
    health = f"{service.url}/health"
    before = service.session.get(health, timeout=60).json()["frames_superseded"]
    with concurrent.futures.ThreadPoolExecutor(BURST) as pool:
        query = f"?token={source['token']}"
        answers = list(pool.map(lambda _: post(service, source["id"], query=query), range(BURST)))
    assert {status for status, *_ in answers} == {200}
    superseded = [content for _, content, _ in answers if content["message"] == "superseded by a newer frame"]
    seen = [content for _, content, _ in answers if content["faces_total"] == 1]
    assert superseded and seen
    assert len(superseded) + len(seen) == BURST
    assert all(content["results"] == [] for content in superseded)
    assert superseded[0]["errors"] == [
        {"field": "image", "reason": "a newer frame of this source came before its turn"}
    ]
    assert service.session.get(health, timeout=60).json()["frames_superseded"] - before == len(superseded)
