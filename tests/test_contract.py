"""Part 1 of the contract, row by row, asked of the real process over a real socket."""

from __future__ import annotations

import base64
import io
import json
import re
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image
from real_process import Service

from edge.assembly import now_ms
from edge.gallery.access import Access
from edge.gallery.store import EmbeddedGallery
from edge.types import Scope, SourceDefaults
from edge.web.auth import Authenticator, Keys

PHOTOS = Path(__file__).parent / "photos"
VERSION_1_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-1[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
VECTOR = [1.0] + [0.0] * 127
FULL_BODY = {
    "faces_total",
    "matches",
    "message",
    "persons",
    "persons_new",
    "persons_total",
    "spent",
    "status",
    "persons_updated",
    "rejected",
}
SHORT_BODY = {"faces_total", "message", "spent", "status"}


def photo(name: str) -> bytes:
    return (PHOTOS / f"{name}.jpg").read_bytes()


def jpeg(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=92)
    return out.getvalue()


def resized(name: str, side: int) -> bytes:
    """The photo, its longer side that many pixels, on a grey 640 x 640 canvas: the face as small as it says."""
    picture = Image.open(io.BytesIO(photo(name))).convert("RGB")
    picture.thumbnail((side, side))
    canvas = Image.new("RGB", (640, 640), (120, 120, 120))
    canvas.paste(picture, (100, 100))
    return jpeg(canvas)


def beside_each_other(*names: str) -> bytes:
    """One frame with a face from each photo, the first one the largest."""
    canvas = Image.new("RGB", (640 * len(names), 700), (120, 120, 120))
    for number, name in enumerate(names):
        picture = Image.open(io.BytesIO(photo(name))).convert("RGB")
        picture.thumbnail((640, 700 if number == 0 else 480))
        canvas.paste(picture, (640 * number, 0))
    return jpeg(canvas)


def prepared(folder: Path, lists: int) -> tuple[list[str], str]:
    """Make a gallery with empty lists and a known source before the service is started on it."""
    folder.mkdir(mode=0o700)
    gallery = EmbeddedGallery.open(
        folder,
        pack_id="default-1",
        vector_length=128,
        cohort_weight=0.35,
        exact_limit=1000,
        main_list_name="main",
        clock=now_ms,
    )
    made = [gallery.create_list(f"list {number}").list_id for number in range(lists)]
    source = gallery.create_source("door", defaults=SourceDefaults(new_person_square_min=5000.0))
    gallery.close()
    return made, source.source_id


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, list[str], str]]:
    folder = tmp_path_factory.mktemp("contract") / "data"
    lists, source_id = prepared(folder, 120)
    service = Service(folder).start()
    yield service, lists, source_id
    assert service.end() == 0
    assert "Traceback" not in service.logged()


@pytest.fixture(scope="module")
def service(started: tuple[Service, list[str], str]) -> Service:
    return started[0]


@pytest.fixture
def known_source(started: tuple[Service, list[str], str]) -> str:
    """A source whose own limit for new faces no face meets."""
    return started[2]


@pytest.fixture
def list_id(started: tuple[Service, list[str], str]) -> str:
    """An empty list of the test's own."""
    return started[1].pop()


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("cloud") / "data"
    service = Service(folder, "server.status_codes=cloud").start()
    yield service
    assert service.end() == 0


def refused(response: requests.Response, status: int, message: str, field: str | None = None) -> None:
    """The refusal's status, message and shape; the field that it says to mend."""
    assert response.headers["Content-Type"] == "application/json; charset=utf-8"
    body = response.json()
    assert (response.status_code, body["message"]) == (status, message), body
    assert body["status"] == ("failed" if status in (401, 403) else "error")
    if field is not None:
        assert any(error["field"].startswith(field) and error["reason"] for error in body["errors"]), body


def full(response: requests.Response, status: int = 200) -> dict[str, Any]:
    assert response.headers["Content-Type"] == "application/json; charset=utf-8"
    assert response.status_code == status, response.text
    body: dict[str, Any] = response.json()
    assert set(body) >= FULL_BODY
    assert body["status"] == "ok"
    assert isinstance(body["spent"], int)
    return body


# --- who may call: three places, two kinds, one refusal ---


def temporary(service: Service, *scopes: Scope, seconds: int = 60) -> str:
    access = Access(service.folder / "access.sqlite3")
    return Authenticator(Keys.load(service.folder / "keys.json"), access, now_ms).issue(
        "test", frozenset(scopes), seconds
    )


@pytest.fixture(params=["permanent", "temporary"])
def either_token(request: pytest.FixtureRequest, service: Service) -> str:
    return service.camera if request.param == "permanent" else temporary(service, Scope.ENROL)


@pytest.mark.parametrize("place", ["authorization", "header", "field"])
@pytest.mark.parametrize("prefix", ["", "/v1"])
def test_token_in_each_place_and_of_each_kind(service: Service, either_token: str, place: str, prefix: str) -> None:
    headers = {"authorization": {"Authorization": f"Bearer {either_token}"}, "header": {"token": either_token}}
    form = {"embedding_only": "true", "embedding": json.dumps(VECTOR)}
    if place == "field":
        form["token"] = either_token
    response = requests.post(f"{service.url}{prefix}/person/create", data=form, headers=headers.get(place), timeout=30)
    assert response.status_code == 200, response.text


def test_token_first_place_counts(service: Service) -> None:
    bad = {"Authorization": f"Bearer {uuid.uuid4()}", "token": service.camera}
    refused(post(service, headers=bad, embedding=VECTOR, token=service.camera), 401, "access denied")
    refused(post(service, headers={"token": "no"}, embedding=VECTOR, token=service.camera), 401, "access denied")


def post(service: Service, headers: dict[str, str], **texts: Any) -> requests.Response:
    form = {name: json.dumps(value) if isinstance(value, list) else value for name, value in texts.items()}
    return requests.post(f"{service.url}/v1/person/create", data=form, headers=headers, timeout=30)


def test_token_missing_malformed_unknown_expired_revoked_are_refused_alike(service: Service) -> None:
    expired = temporary(service, Scope.ENROL, seconds=-10)
    revoked = service.token("enrol")
    listed = service.edge("token", "list").splitlines()
    service.edge("token", "revoke", listed[-1].split()[0])
    answers = [requests.post(f"{service.url}/v1/person/create", timeout=30)]
    for token in ("", "no token", str(uuid.uuid4()), "a.b.c", expired, revoked):
        answers.append(post(service, {"Authorization": f"Bearer {token}"}, embedding=VECTOR))
    for answer in answers:
        assert (answer.status_code, answer.json()) == (401, {"message": "access denied", "status": "failed"})


def test_token_without_the_scope_403(service: Service) -> None:
    reader, recognizer = service.token("read"), service.token("recognize")
    for token in (reader, recognizer):
        answer = post(service, {"token": token}, embedding=VECTOR)
        assert (answer.status_code, answer.json()) == (403, {"message": "access denied", "status": "failed"})
    assert post(service, {"token": recognizer}, embedding=VECTOR, embedding_only="true").status_code == 200


def test_token_bound_to_a_list_and_a_source(service: Service, list_id: str) -> None:
    source = str(uuid.uuid4())
    token = service.token("enrol", list=list_id, source=source)
    body = full(service.create(photo("collins-1"), token))
    assert body["persons"][0]["list_id"] == list_id
    assert body["persons"][0]["source_id"] == source
    refused(service.create(photo("collins-1"), token, list_id=str(uuid.uuid4())), 403, "access denied")
    refused(service.create(photo("collins-1"), token, source_id=str(uuid.uuid4())), 403, "access denied")


def test_token_missing_counts_before_a_body_that_is_not_read(service: Service) -> None:
    answer = requests.post(
        f"{service.url}/v1/person/create", data=b"hello", headers={"Content-Type": "text/plain"}, timeout=30
    )
    refused(answer, 401, "access denied")


# --- the order of refusals ---


def test_order_401_comes_before_everything(service: Service) -> None:
    refused(service.create(b"not a picture", str(uuid.uuid4()), list_id="x"), 401, "access denied")
    broken = requests.post(
        f"{service.url}/v1/person/create",
        data=b"--x",
        headers={"Content-Type": "multipart/form-data; boundary=y"},
        timeout=30,
    )
    refused(broken, 401, "access denied")


def test_order_no_image_attached_comes_before_the_schema(service: Service) -> None:
    refused(service.create(list_id="x"), 400, "no image attached")


def test_order_unexpected_field_comes_before_the_schema(service: Service) -> None:
    files = [("photo", ("a.jpg", photo("biden-1"))), ("image", ("a.jpg", photo("biden-1"))), ("list_id", (None, "x"))]
    refused(multipart(service, files), 400, "unexpected field", "photo")
    twice = [("image", ("a.jpg", photo("biden-1"))), ("image", ("b.jpg", photo("biden-1"))), ("list_id", (None, "x"))]
    refused(multipart(service, twice), 400, "unexpected field", "image")


def multipart(service: Service, files: list[tuple[str, Any]]) -> requests.Response:
    headers = {"Authorization": f"Bearer {service.camera}"}
    return requests.post(f"{service.url}/v1/person/create", files=files, headers=headers, timeout=30)


def test_order_invalid_schema_comes_before_an_unknown_list(service: Service) -> None:
    refused(service.create(photo("biden-1"), list_id=str(uuid.uuid4()), multi="1"), 400, "invalid schema", "multi")


def test_order_an_unknown_list_comes_before_the_picture(service: Service) -> None:
    answer = service.create(b"not a picture", list_id=str(uuid.uuid4()))
    refused(answer, 400, "list with this id does not exists", "list_id")


def test_invalid_schema_names_every_mistake_at_once(service: Service) -> None:
    answer = service.create(photo("biden-1"), list_id="x", multi="0", yaw="NaN", new_person_square_min="-1")
    refused(answer, 400, "invalid schema")
    assert {error["field"] for error in answer.json()["errors"]} == {"list_id", "multi", "yaw", "new_person_square_min"}


# --- parameters: a valid use and an invalid one ---


def test_parameter_image(service: Service, list_id: str) -> None:
    body = full(service.create(photo("obama-1"), list_id=list_id))
    assert body["message"] == "1 face(s) successfully processed"
    assert (body["faces_total"], body["persons_new"], body["persons_total"], body["persons_updated"]) == (1, 1, 1, 0)
    refused(service.create(), 400, "no image attached")
    refused(multipart(service, [("image", ("empty.jpg", b""))]), 400, "no image attached")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_parameter_image_of_every_format(service: Service, list_id: str, kind: str) -> None:
    out = io.BytesIO()
    Image.open(io.BytesIO(photo("collins-1"))).save(out, kind)
    assert full(service.create(out.getvalue(), list_id=list_id))["persons_new"] == 1


def test_parameter_image_in_json(service: Service, list_id: str) -> None:
    content = {"image": base64.b64encode(photo("obama-1")).decode(), "list_id": list_id, "fields": ["a", "b"]}
    headers = {"token": service.camera}
    url = f"{service.url}/v1/person/create"
    body = full(requests.post(url, json=content, headers=headers, timeout=30))
    assert body["persons"][0]["fields"] == ["a", "b"]
    answer = requests.post(url, json={**content, "image": "not base64"}, headers=headers, timeout=30)
    refused(answer, 400, "invalid schema", "image")


def test_parameter_list_id(service: Service, list_id: str) -> None:
    body = full(service.create(photo("obama-1"), list_id=list_id.upper()))
    assert body["persons"][0]["list_id"] == list_id
    refused(service.create(photo("obama-1"), list_id="7"), 400, "invalid schema", "list_id")


def test_parameter_group_id_and_source_id(service: Service, list_id: str) -> None:
    group, source = str(uuid.uuid4()), str(uuid.uuid4())
    record = full(service.create(photo("obama-1"), list_id=list_id, group_id=group, source_id=source))["persons"][0]
    assert (record["group_id"], record["source_id"]) == (group, source)
    refused(service.create(photo("obama-1"), group_id="x"), 400, "invalid schema", "group_id")
    refused(service.create(photo("obama-1"), source_id="x"), 400, "invalid schema", "source_id")


def test_parameter_source_id_brings_its_own_defaults(service: Service, list_id: str, known_source: str) -> None:
    body = full(service.create(photo("obama-1"), list_id=list_id, source_id=known_source), 201)
    assert body["rejected"][0]["reasons"][0]["check"] == "size"
    assert body["rejected"][0]["reasons"][0]["limit"] == 5000
    asked = service.create(photo("obama-1"), list_id=list_id, source_id=known_source, new_person_square_min=80)
    assert full(asked)["persons_new"] == 1


def test_parameter_yaw_and_pitch(service: Service, list_id: str) -> None:
    body = full(service.create(photo("obama-1"), list_id=list_id, yaw="12.5", pitch="-7"))
    assert (body["persons"][0]["yaw"], body["persons"][0]["pitch"]) == (12.5, -7)
    refused(service.create(photo("obama-1"), yaw="left"), 400, "invalid schema", "yaw")
    refused(service.create(photo("obama-1"), pitch="Infinity"), 400, "invalid schema", "pitch")


def test_parameter_yaw_is_used_instead_of_the_appliances_own(service: Service, list_id: str) -> None:
    body = full(service.create(photo("obama-1"), list_id=list_id, yaw="60"), 201)
    assert body["rejected"][0]["reasons"] == [{"check": "yaw", "value": 60, "limit": 45}]


FEATURES = [
    "yaw",
    "pitch",
    "roll",
    "eye_distance",
    "eyes_open",
    "mouth_open",
    "sharpness",
    "brightness",
    "face_presence",
]


@pytest.mark.parametrize("form", ["repeated", "array"])
def test_parameter_feature_check(service: Service, list_id: str, form: str) -> None:
    pairs = [("feature_check", name) for name in FEATURES] if form == "repeated" else []
    texts = {} if pairs else {"feature_check": json.dumps(FEATURES)}
    record = full(service.create(photo("obama-1"), fields=pairs, list_id=list_id, **texts))["persons"][0]
    assert [feature["name"] for feature in record["features"]] == FEATURES
    for feature in record["features"]:
        assert set(feature) == {"name", "version", "result", "confidence", "spent"}
        assert isinstance(feature["result"], float)
        assert isinstance(feature["confidence"], str) and len(feature["confidence"]) <= 6


def test_parameter_feature_check_with_a_bound(service: Service, list_id: str) -> None:
    bound = json.dumps([{"name": "brightness", "max": 0.01}])
    body = full(service.create(photo("obama-1"), list_id=list_id, feature_check=bound), 201)
    reason = body["rejected"][0]["reasons"][0]
    assert (reason["check"], reason["limit"]) == ("brightness", 0.01)
    assert reason["value"] > 0.01


@pytest.mark.parametrize("value", ["race", "age", "", "[]", "[3]", '[{"name": "yaw", "min": "x"}]'])
def test_parameter_feature_check_unknown_or_empty(service: Service, value: str) -> None:
    refused(service.create(photo("obama-1"), feature_check=value), 400, "invalid schema", "feature_check")


def test_parameter_feature_check_says_which_are_known(service: Service) -> None:
    answer = service.create(photo("obama-1"), feature_check="race")
    assert all(name in answer.text for name in FEATURES)


def test_parameter_new_person_threshold(service: Service, list_id: str) -> None:
    full(service.create(photo("obama-1"), list_id=list_id))
    found = full(service.create(photo("biden-1"), list_id=list_id, new_person_threshold="0.05"), 201)
    assert (len(found["matches"]), found["matches"][0]["threshold"]) == (1, 0.05)
    assert full(service.create(photo("biden-1"), list_id=list_id, new_person_threshold="70"))["persons_new"] == 1
    for bad in ("-0.1", "100.5", "high", "nan"):
        answer = service.create(photo("obama-1"), new_person_threshold=bad)
        refused(answer, 400, "invalid schema", "new_person_threshold")


def test_parameter_new_person_threshold_score(service: Service, list_id: str) -> None:
    full(service.create(photo("obama-1"), list_id=list_id))
    answer = service.create(photo("biden-1"), list_id=list_id, new_person_threshold_score="0.1")
    body = full(answer, 201)
    assert (body["matches"], body["persons"]) == ([], [])
    rejected = body["rejected"][0]
    assert rejected["reasons"][0]["check"] == "uncertain_match"
    assert 0.1 <= rejected["reasons"][0]["value"] < rejected["reasons"][0]["limit"] == 0.7
    assert rejected["candidate"]["score"] == rejected["reasons"][0]["value"]
    refused(service.create(photo("biden-1"), new_person_threshold_score="x"), 400, "invalid schema", "new_person_thr")


def test_parameter_new_person_square_min(service: Service, list_id: str) -> None:
    small = resized("collins-1", 340)  # a face of about 70 pixels
    reasons = full(service.create(small, list_id=list_id), 201)["rejected"][0]["reasons"]
    assert [reason for reason in reasons if reason["check"] == "size" and reason["value"] < reason["limit"] == 80]
    assert full(service.create(small, list_id=list_id, new_person_square_min=50))["persons_new"] == 1
    refused(service.create(small, new_person_square_min="big"), 400, "invalid schema", "new_person_square_min")


@pytest.mark.parametrize("angle", ["yaw", "pitch"])
def test_parameter_new_person_yaw_max_and_pitch_max(service: Service, list_id: str, angle: str) -> None:
    limit = {f"new_person_{angle}_max": "10"}
    body = full(service.create(photo("obama-1"), list_id=list_id, **{angle: "-11"}, **limit), 201)
    assert body["rejected"][0]["reasons"] == [{"check": angle, "value": -11, "limit": 10}]
    assert full(service.create(photo("obama-1"), list_id=list_id, **{angle: "-9"}, **limit))["persons_new"] == 1
    for bad in ("91", "-1", "wide"):
        refused(service.create(photo("obama-1"), **{f"new_person_{angle}_max": bad}), 400, "invalid schema")


@pytest.mark.parametrize("name", ["fields", "fields[]"])
def test_parameter_fields(service: Service, list_id: str, name: str) -> None:
    sent = ["second floor", "", "Füße 😀", "x" * 65_535]
    body = full(service.create(photo("obama-1"), fields=[(name, text) for text in sent], list_id=list_id))
    assert body["persons"][0]["fields"] == sent
    too_long = service.create(photo("obama-1"), fields=[(name, "x" * 65_536)])
    refused(too_long, 400, "invalid schema", "fields")
    refused(service.create(photo("obama-1"), fields=[(name, "x")] * 257), 400, "invalid schema", "fields")


@pytest.mark.parametrize(("multi", "persons"), [("true", 2), ("FALSE", 1), (None, 1)])
def test_parameter_multi(service: Service, list_id: str, multi: str | None, persons: int) -> None:
    texts = {} if multi is None else {"multi": multi}
    body = full(service.create(beside_each_other("obama-1", "collins-1"), list_id=list_id, **texts))
    assert (body["faces_total"], body["persons_new"]) == (2, persons)
    assert body["message"] == f"{persons} face(s) successfully processed"


@pytest.mark.parametrize("name", ["multi", "drop_image", "embedding_only", "thumb", "normalized", "bbox", "bbox_pro"])
@pytest.mark.parametrize("value", ["0", "1", "str", "", "yes"])
def test_parameter_booleans_are_true_or_false_alone(service: Service, name: str, value: str) -> None:
    refused(service.create(photo("biden-1"), **{name: value}), 400, "invalid schema", name)


def test_parameter_replace_on_found(service: Service, list_id: str) -> None:
    first = full(service.create(photo("obama-1"), fields=[("fields", "old")], list_id=list_id))["persons"][0]
    same = full(service.create(photo("obama-2"), fields=[("fields", "new")], list_id=list_id), 201)
    assert same["matches"][0]["fields"] == ["old"]
    body = full(service.create(photo("obama-2"), fields=[("fields", "new")], list_id=list_id, replace_on_found="true"))
    replaced = body["persons"][0]
    assert (body["persons_new"], body["persons_updated"], body["persons_total"]) == (0, 1, 1)
    assert (replaced["person_id"], replaced["status"]) == (first["person_id"], "replaced")
    assert (replaced["fields"], replaced["created"]) == (["new"], first["created"])
    assert replaced["updated"] > first["updated"]
    refused(service.create(photo("obama-2"), replace_on_found="maybe"), 400, "invalid schema", "replace_on_found")


def test_parameter_replace_on_found_with_a_person(service: Service, list_id: str) -> None:
    first = full(service.create(photo("obama-1"), list_id=list_id))["persons"][0]
    body = full(service.create(photo("biden-1"), list_id=list_id, replace_on_found=first["person_id"]))
    assert (body["persons"][0]["person_id"], body["persons"][0]["status"]) == (first["person_id"], "replaced")
    assert full(service.create(photo("biden-1"), list_id=list_id), 201)["matches"]
    assert full(service.create(photo("obama-1"), list_id=list_id))["persons_new"] == 1
    unknown = service.create(photo("biden-1"), list_id=list_id, replace_on_found=str(uuid.uuid4()))
    refused(unknown, 404, "item with this id not found", "replace_on_found")


def test_parameter_thumb_normalized_bbox_bbox_pro(service: Service, list_id: str) -> None:
    asked = {"thumb": "true", "normalized": "True", "bbox": "TRUE", "bbox_pro": "true"}
    for status, key in ((200, "persons"), (201, "matches")):
        record = full(service.create(photo("obama-1"), list_id=list_id, **asked), status)[key][0]
        thumb = Image.open(io.BytesIO(base64.b64decode(record["thumb"])))
        assert (thumb.format, max(thumb.size)) == ("JPEG", 256)
        assert Image.open(io.BytesIO(base64.b64decode(record["normalized"]))).size == (150, 150)
        box = record["bbox"]
        assert all(isinstance(box[side], int) for side in "xywh")
        corners = np.array(record["bbox_pro"])
        assert corners.shape == (4, 2)
        assert abs(corners.mean(axis=0) - (box["x"] + box["w"] / 2, box["y"] + box["h"] / 2)).max() < box["w"] / 4
    plain = full(service.create(photo("obama-1"), list_id=list_id), 201)["matches"][0]
    assert not {"thumb", "normalized", "bbox", "bbox_pro"} & set(plain)


def test_parameter_drop_image(service: Service, list_id: str) -> None:
    time.sleep(1.5)  # sightings, those of earlier tests too, are written in batches, a second apart
    before = pictures(service)
    record = full(service.create(photo("obama-1"), list_id=list_id, drop_image="true"))["persons"][0]
    assert "image_url" not in record
    full(service.create(photo("obama-2"), list_id=list_id, drop_image="true"), 201)
    time.sleep(1.5)
    assert pictures(service) == before
    kept = full(service.create(photo("biden-1"), list_id=list_id))["persons"][0]
    assert "image_url" in kept
    assert pictures(service) > before


def pictures(service: Service) -> set[Path]:
    return {path for path in service.folder.rglob("*") if path.suffix == ".jpg"}


def test_parameter_embedding_only(service: Service, list_id: str) -> None:
    answer = service.create(photo("obama-1"), list_id=list_id, embedding_only="true", bbox="true", thumb="true")
    assert answer.status_code == 200
    body = answer.json()
    assert set(body) == SHORT_BODY | {"faces"}
    (face,) = body["faces"]
    assert (face["model"], len(face["embedding"])) == ("default-1", 128)
    assert np.linalg.norm(face["embedding"]) == pytest.approx(1, abs=1e-5)
    assert {"bbox", "thumb"} <= set(face)
    assert full(service.create(photo("obama-1"), list_id=list_id))["persons_new"] == 1, "something was recorded"


@pytest.mark.parametrize("form", ["commas", "array", "base64"])
def test_parameter_embedding(service: Service, list_id: str, form: str) -> None:
    answer = service.create(photo("obama-1"), embedding_only="true").json()
    vector = answer["faces"][0]["embedding"]
    written = {
        "commas": ",".join(map(str, vector)),
        "array": json.dumps(vector),
        "base64": base64.b64encode(np.array(vector, "<f4").tobytes()).decode(),
    }[form]
    url, headers = f"{service.url}/v1/person/create", {"token": service.camera}
    data = {"embedding": written, "list_id": list_id}
    record = full(requests.post(url, data=data, headers=headers, timeout=30))["persons"][0]
    assert "image_url" not in record
    found = full(service.create(photo("obama-2"), list_id=list_id), 201)
    assert found["matches"][0]["person_id"] == record["person_id"]
    for bad in ("1,2,3", "[1]", "AAAA", "x", ",".join(["nan"] * 128), ",".join(["0"] * 128)):
        answer = requests.post(url, data={"embedding": bad}, headers=headers, timeout=30)
        refused(answer, 400, "invalid schema", "embedding")


def test_parameter_embedding_with_an_image_beside_it(service: Service, list_id: str) -> None:
    vector = service.create(photo("obama-1"), embedding_only="true").json()["faces"][0]["embedding"]
    record = full(service.create(photo("biden-1"), list_id=list_id, embedding=json.dumps(vector)))["persons"][0]
    kept = Image.open(io.BytesIO(requests.get(record["image_url"], timeout=30).content))
    assert kept.size == (225, 512), "the picture is kept whole, 512 pixels at most"
    assert full(service.create(photo("obama-2"), list_id=list_id), 201)["matches"], "the vector is used"
    assert full(service.create(photo("biden-1"), list_id=list_id))["persons_new"] == 1, "the picture is not"


def test_text_fields_that_are_not_in_the_table_are_ignored(service: Service, list_id: str) -> None:
    assert full(service.create(photo("obama-1"), list_id=list_id, colour="red", limit="x"))["persons_new"] == 1


# --- messages ---


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"hello, I am a text", "image format is unknown"),
        (photo("obama-1")[:20_000], "image format is unknown"),
        (jpeg(Image.new("RGB", (63, 200))), "image is too small"),
        (jpeg(Image.new("RGB", (640, 480), (90, 120, 200))), "no faces found"),
    ],
    ids=["not a picture", "cut in half", "too small", "no face"],
)
def test_message_without_a_face(service: Service, image: bytes, message: str) -> None:
    body = full(service.create(image), 201)
    assert (body["message"], body["faces_total"]) == (message, 0)
    assert (body["persons"], body["matches"], body["rejected"]) == ([], [], [])
    short = service.create(image, embedding_only="true")
    assert short.status_code == 200
    assert set(short.json()) - {"errors"} == SHORT_BODY
    assert short.json()["message"] == message


def test_message_faces_too_small(service: Service) -> None:
    body = full(service.create(resized("collins-1", 180)), 201)  # a face of about 38 pixels
    assert body["message"] == "1 faces detected, but they are too small"
    assert (body["faces_total"], body["rejected"]) == (1, [])


# --- answers ---


def test_answer_of_a_person(service: Service, list_id: str) -> None:
    record = full(service.create(photo("obama-1"), list_id=list_id))["persons"][0]
    assert VERSION_1_UUID.fullmatch(record["person_id"])
    assert VERSION_1_UUID.fullmatch(record["list_id"])
    assert TIME.fullmatch(record["created"]) and record["created"] == record["updated"]
    assert (record["status"], record["fields"], record["features"]) == ("init", [], [])
    assert all(isinstance(record[angle], float) and abs(record[angle]) < 30 for angle in ("yaw", "pitch", "roll"))
    assert 0.5 < record["score"] <= 1
    picture = requests.get(record["image_url"], timeout=30)
    assert (picture.status_code, picture.headers["Content-Type"]) == (200, "image/jpeg")
    tampered = requests.get(record["image_url"][:-1] + ("A" if record["image_url"][-1] != "A" else "B"), timeout=30)
    refused(tampered, 401, "access denied")


def test_answer_of_a_match(service: Service, list_id: str) -> None:
    known = full(service.create(photo("obama-1"), list_id=list_id))["persons"][0]
    body = full(service.create(photo("obama-3"), list_id=list_id), 201)
    (match,) = body["matches"]
    assert match["person_id"] == known["person_id"]
    assert 0.7 <= match["score"] <= 1
    assert (body["persons_new"], body["persons_total"], body["rejected"]) == (0, 1, [])


def test_answer_a_face_that_fails_the_limits_is_still_matched(service: Service, list_id: str) -> None:
    full(service.create(photo("obama-1"), list_id=list_id))
    body = full(service.create(photo("obama-2"), list_id=list_id, new_person_square_min=5000), 201)
    assert (len(body["matches"]), body["rejected"]) == (1, [])
    kept = full(
        service.create(photo("obama-2"), list_id=list_id, new_person_square_min=5000, replace_on_found="true"), 201
    )
    assert (len(kept["matches"]), kept["persons_updated"]) == (1, 0)


def test_answer_a_face_that_fits_two_people_is_added_to_neither(service: Service, list_id: str) -> None:
    one = full(service.create(photo("obama-1"), list_id=list_id))["persons"][0]
    other = full(service.create(photo("biden-1"), list_id=list_id))["persons"][0]
    full(service.create(photo("obama-2"), list_id=list_id, replace_on_found=other["person_id"]))
    body = full(service.create(photo("obama-3"), list_id=list_id), 201)
    assert (body["matches"], body["persons"]) == ([], [])
    rejected = body["rejected"][0]
    (reason,) = rejected["reasons"]
    assert (reason["check"], reason["limit"]) == ("uncertain_match", 0.1)
    assert reason["value"] < 0.1
    assert {rejected[key]["person_id"] for key in ("candidate", "rival")} == {one["person_id"], other["person_id"]}


def test_answer_of_one_picture_with_a_known_and_a_new_face(service: Service, list_id: str) -> None:
    full(service.create(photo("obama-1"), list_id=list_id))
    body = full(service.create(beside_each_other("obama-2", "collins-1"), list_id=list_id, multi="true"))
    assert (len(body["persons"]), len(body["matches"]), body["persons_total"]) == (1, 1, 2)


def test_answer_two_faces_of_one_new_person_are_one_person(service: Service, list_id: str) -> None:
    body = full(service.create(beside_each_other("obama-1", "obama-3"), list_id=list_id, multi="true"))
    assert (body["faces_total"], body["persons_new"], len(body["matches"]), body["persons_total"]) == (2, 1, 1, 1)


def test_answer_status_codes_as_the_cloud_has_them(cloud: Service) -> None:
    full(cloud.create(photo("obama-1")), 201)
    full(cloud.create(photo("obama-2")), 200)
    full(cloud.create(photo("obama-2"), replace_on_found="true"), 200)
    full(cloud.create(b"not a picture"), 200)
    assert cloud.create(photo("obama-1"), embedding_only="true").status_code == 200
    refused(cloud.create(), 400, "no image attached")


# --- whatever goes wrong ---


def test_everything_is_answered_in_json(service: Service) -> None:
    refused(requests.get(f"{service.url}/nowhere", timeout=30), 404, "not found")
    refused(requests.get(f"{service.url}/v1/person/create", timeout=30), 405, "method not allowed")
    for path in ("%ff%fe", "health%ff"):  # not another path with these bytes left out
        refused(requests.get(f"{service.url}/{path}", timeout=30), 404, "not found")


FORM = "multipart/form-data; boundary=x"
URLENCODED = "application/x-www-form-urlencoded"
TOO_LARGE = "request body is too large"


@pytest.mark.parametrize(
    ("content_type", "content", "status", "message"),
    [
        (FORM, b"", 400, "no image attached"),
        ("", b"", 400, "no image attached"),
        ("text/plain", b"hello", 400, "invalid schema"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\nab',
            400,
            "invalid schema",
        ),
        (
            "multipart/form-data; boundary=x",
            b"--x\r\nContent-Disposition: form-data\r\n\r\nab\r\n--x--\r\n",
            400,
            "invalid schema",
        ),
        ("application/json", b'{"image": ', 400, "invalid schema"),
        ("application/json", b"[" * 100_000, 413, TOO_LARGE),
        (
            "application/x-www-form-urlencoded",
            b"&".join(b"fields=%d" % n for n in range(10_000)),
            413,
            "request body is too large",
        ),
        ("application/octet-stream", b"\0" * (25 << 20), 413, TOO_LARGE),
    ],
    ids=["empty form", "empty", "text", "cut short", "no name", "broken JSON", "deep JSON", "10,000 fields", "25 MB"],
)
def test_bad_bodies(service: Service, content_type: str, content: bytes, status: int, message: str) -> None:
    headers = {"Authorization": f"Bearer {service.camera}", "Content-Type": content_type}
    answer = requests.post(f"{service.url}/v1/person/create", data=content, headers=headers, timeout=60)
    refused(answer, status, message)


def test_two_list_ids(service: Service, list_id: str) -> None:
    answer = service.create(photo("biden-1"), fields=[("list_id", list_id), ("list_id", list_id)])
    refused(answer, 400, "invalid schema", "list_id")


def test_a_png_that_declares_sixty_thousand_pixels_a_side(service: Service) -> None:
    header = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + (60_000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0" + b"\0" * 4
    body = full(service.create(header + b"\0\0\0\0IEND" + b"\0" * 4), 201)
    assert body["message"] == "image format is unknown"
    assert "40 megapixels" in body["errors"][0]["reason"]


def test_a_gif_that_is_named_jpg(service: Service) -> None:
    out = io.BytesIO()
    Image.new("P", (100, 100)).save(out, "GIF")
    assert full(service.create(out.getvalue()), 201)["message"] == "image format is unknown"
