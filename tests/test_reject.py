"""Not this person: asked of the real process, with real faces."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from real_process import Service

PHOTOS = Path(__file__).parent / "photos"
NOBODY = "00000000-0000-1000-8000-000000000000"
LOW = 0.3  # a threshold at which two of the photos' people are taken for each other


def photo(name: str) -> bytes:
    return (PHOTOS / f"{name}.jpg").read_bytes()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path / "data").start()
    yield service
    assert service.end() == 0
    assert "Traceback" not in service.logged()


def ask(service: Service, path: str, method: str = "POST", **body: Any) -> tuple[int, dict[str, Any]]:
    headers = {"token": service.camera}
    answer = service.session.request(method, f"{service.url}/v1{path}", json=body, headers=headers, timeout=60)
    return answer.status_code, answer.json()


def seen(service: Service, name: str, threshold: float = LOW) -> dict[str, Any]:
    """What /action makes of the photo: adds nobody."""
    headers = {"token": service.camera}
    files = {"image": photo(name)}
    data = {"new_person_threshold": threshold}
    answer = service.session.post(f"{service.url}/v1/action", files=files, data=data, headers=headers, timeout=60)
    (result,) = answer.json()["results"]
    return dict(result)


def matched(service: Service, name: str) -> list[str]:
    return [one["person_id"] for one in seen(service, name)["matches"]]


def test_a_face_that_is_not_this_person_is_not_matched_again_until_it_is_taken_back(service: Service) -> None:
    (obama,) = service.create(photo("obama-1")).json()["persons"]
    content = service.create(photo("biden-1"), new_person_threshold=LOW).json()
    (wrong,) = content["matches"]
    assert wrong["person_id"] == obama["person_id"]
    negative = {"person_id": obama["person_id"], "sighting_id": wrong["sighting_id"]}

    status, content = ask(service, "/person/reject", **negative)  # at once: it may not be on disk yet
    assert (status, content["message"], content["status"]) == (200, "operation succeeded", "ok")
    assert {name: content["rejection"][name] for name in negative} == negative
    assert ask(service, "/person/reject", **negative)[1]["rejection"] == content["rejection"], "twice is once"
    assert matched(service, "biden-1") == []
    assert matched(service, "obama-2") == [obama["person_id"]]
    assert matched(service, "obama-1") == [obama["person_id"]]

    service.end()
    service.start()
    assert matched(service, "biden-1") == []
    reader = {"token": service.token("read")}
    url = f"{service.url}/v1/person/rejections"
    listed = service.session.post(url, json={"person_id": obama["person_id"]}, headers=reader, timeout=30).json()
    assert (listed["rejections"], listed["cursor"]) == ([content["rejection"]], None)

    status, undone = ask(service, "/person/reject", "DELETE", **negative)
    assert (status, undone["message"]) == (200, "1 rejection(s) deleted")
    assert matched(service, "biden-1") == [obama["person_id"]]
    assert ask(service, "/person/reject", "DELETE", **negative)[0] == 404
    assert ask(service, "/person/reject/delete", **negative)[0] == 404

    ask(service, "/person/reject", **negative)
    created = service.create(photo("biden-1"), new_person_threshold=LOW).json()
    (biden,) = created["persons"]
    assert biden["person_id"] != obama["person_id"]
    assert matched(service, "biden-1") == [biden["person_id"]]


def test_it_counts_for_vectors(service: Service) -> None:
    (obama,) = service.create(photo("obama-1")).json()["persons"]
    embedded = service.create(photo("biden-1"), embedding_only=True).json()["faces"][0]["embedding"]
    text = ",".join(map(str, embedded))
    (wrong,) = service.create(embedding=text, new_person_threshold=LOW).json()["matches"]
    recognizer = {"token": service.token("recognize")}
    search = {"embeddings": text, "threshold": LOW, "results": "all"}

    def found() -> list[str]:
        url = f"{service.url}/v1/vector/search"
        (result,) = service.session.post(url, json=search, headers=recognizer, timeout=30).json()["results"]
        return [one["person_id"] for one in result["matches"]]

    assert found() == [obama["person_id"]]
    ask(service, "/person/reject", person_id=obama["person_id"], sighting_id=wrong["sighting_id"])
    assert found() == []


def test_what_it_refuses(service: Service) -> None:
    (obama,) = service.create(photo("obama-1")).json()["persons"]
    one = {"person_id": obama["person_id"], "sighting_id": obama["sighting_id"]}
    status, content = ask(service, "/person/reject", **{**one, "sighting_id": NOBODY})
    assert (status, content["message"], content["errors"][0]["field"]) == (
        404,
        "item with this id not found",
        "sighting_id",
    )
    assert ask(service, "/person/reject", **{**one, "person_id": NOBODY})[1]["errors"][0]["field"] == "person_id"
    assert ask(service, "/person/reject", **one, list_id=str(uuid.uuid1()))[0] == 404
    assert ask(service, "/person/reject", person_id=obama["person_id"])[0] == 400
    reader = {"token": service.token("read")}
    assert service.session.post(f"{service.url}/person/reject", json=one, headers=reader, timeout=30).status_code == 403


def test_a_bound_token_names_sightings_of_its_own_list_and_source_alone(service: Service) -> None:
    headers = {"token": service.token("admin")}
    made = service.session.post(f"{service.url}/person/list/create", json={"name": "b"}, headers=headers, timeout=30)
    other = made.json()["list_id"]
    (mine,) = service.create(photo("obama-1"), list_id=other).json()["persons"]
    (elsewhere,) = service.create(photo("biden-1")).json()["persons"]
    body = {"person_id": mine["person_id"], "list_id": other}

    def status(token: str, sighting_id: str) -> int:
        one = {**body, "sighting_id": sighting_id}
        answer = service.session.post(f"{service.url}/person/reject", json=one, headers={"token": token}, timeout=30)
        return answer.status_code

    bound = service.token("enrol", list=other)
    assert status(bound, elsewhere["sighting_id"]) == 404
    assert status(service.token("enrol", source=str(uuid.uuid1())), mine["sighting_id"]) == 404
    assert status(bound, mine["sighting_id"]) == 200
    assert status(service.camera, elsewhere["sighting_id"]) == 200


def test_a_face_of_any_verdict_can_be_named(service: Service) -> None:
    content = service.create(photo("obama-1"), new_person_square_min=9999).json()
    (refused,) = content["rejected"]
    (obama,) = service.create(photo("obama-2")).json()["persons"]
    assert ask(service, "/person/reject", person_id=obama["person_id"], sighting_id=refused["sighting_id"])[0] == 200
    assert matched(service, "obama-1") == []


def test_without_a_history_there_is_nothing_to_name(tmp_path: Path) -> None:
    service = Service(tmp_path / "data", "history.keep_days=0").start()
    (obama,) = service.create(photo("obama-1")).json()["persons"]
    assert "sighting_id" not in obama
    assert "sighting_id" not in service.create(photo("obama-1")).json()["matches"][0]
    assert "sighting_id" not in seen(service, "obama-1")
    assert ask(service, "/person/reject", person_id=obama["person_id"], sighting_id=NOBODY)[0] == 404
    assert service.end() == 0
