"""Part 2 of the contract asked of the real process: what a client finds that has changed nothing but the address."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import subprocess
import sys
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
from requests.adapters import HTTPAdapter

from edge.types import Scope
from edge.web.routes import ROUTES
from edge.web.site import Route

PHOTOS = Path(__file__).parent / "photos"
EMAIL, PASSWORD = "Ann@example.com", "correct horse"
NOBODY = "00000000-0000-1000-8000-000000000000"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def photo(name: str) -> bytes:
    return (PHOTOS / f"{name}.jpg").read_bytes()


class Client:
    """Asks as the cloud's own library does: forms with files where there are pictures, JSON elsewhere, the token in
    the body; and looks at `status` before anything else."""

    def __init__(self, service: Service, token: str = "", session: requests.Session | None = None) -> None:
        self.url = service.url
        self.token = token
        self.session = session or service.session

    def ask(self, path: str, *, images: dict[str, list[bytes]] | None = None, **body: Any) -> requests.Response:
        method = body.pop("method", "POST")
        prefix = body.pop("prefix", "/v1")
        if self.token:
            body["token"] = self.token
        url = f"{self.url}{prefix}{path}"
        if images is None:
            return self.session.request(method, url, json=body, timeout=120)
        parts = [(name, (f"{n}.jpg", one)) for name, several in images.items() for n, one in enumerate(several)]
        for name, value in body.items():
            for one in value if isinstance(value, (list, tuple)) else [value]:
                parts.append((name, (None, str(one))))  # type: ignore[arg-type]
        return self.session.request(method, url, files=parts, timeout=120)

    def ok(self, path: str, status: int = 200, **body: Any) -> dict[str, Any]:
        answer = self.ask(path, **body)
        content: dict[str, Any] = answer.json()
        assert answer.status_code == status, (path, answer.status_code, content)
        assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
        assert content["status"] in ("ok", "init"), content
        return content

    def refused(self, path: str, status: int, message: str, field: str = "", **body: Any) -> None:
        answer = self.ask(path, **body)
        content = answer.json()
        assert (answer.status_code, content["message"]) == (status, message), (path, content)
        assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
        assert content["status"] == ("failed" if status in (401, 403) else "error")
        if field:
            assert any(error["field"].startswith(field) for error in content["errors"]), content

    def enrolled(self, name: str, list_id: str, **body: Any) -> str:
        """Add the person of a photo; return the id."""
        content = self.ask("/person/create", images={"image": [photo(name)]}, list_id=list_id, **body).json()
        (person,) = content["persons"]
        return str(person["person_id"])


def add_user(service: Service, email: str = EMAIL, password: str = PASSWORD, *flags: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "edge", "user", "add", email, *flags],
        env=service.environment(),
        input=f"{password}\n",
        text=True,
        check=True,
        capture_output=True,
    )


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("part2") / "data", "server.wrong_tokens_per_minute=1000").start()
    yield service
    assert service.end() == 0
    assert "Traceback" not in service.logged()


@pytest.fixture(scope="module")
def admin(service: Service) -> Client:
    return Client(service, service.token("admin"))


@pytest.fixture
def list_id(admin: Client) -> str:
    """An empty list of the test's own."""
    return str(admin.ok("/person/list/create", name=str(uuid.uuid4()))["list_id"])


# --- one walk, from login to logout ---


@pytest.mark.parametrize("mode", ["documented", "cloud"])
def test_a_client_of_the_cloud_walks_from_login_to_logout(tmp_path: Path, mode: str) -> None:
    service = Service(tmp_path / "data", f"server.status_codes={mode}").start()
    made, unmade = (200, 201) if mode == "documented" else (201, 200)
    add_user(service)
    client = Client(service)
    client.token = client.ok("/user/login", email=EMAIL.lower(), password=PASSWORD, valid_days=1)["token"]

    list_id = client.ok("/person/list/create", 200 if mode == "documented" else 201, name="staff")["list_id"]
    client.refused("/person/list/create", 400, "conflict", "name", name="staff")
    group = client.ok("/source/group/create", name="lobby", person_list_search=[{"id": list_id, "on_found": "open"}])
    assert group["message"] == "source group created"
    source = client.ok("/source/create", group_id=group["group_id"], name="door", new_person_threshold="0.7")
    assert source["message"] == "source created"

    persons = {}
    for name, label in (("obama-1", "Barack"), ("biden-1", "Joe"), ("collins-1", "Eileen")):
        content = client.ok(
            "/person/create",
            made,
            images={"image": [photo(name)]},
            list_id=list_id,
            source_id=source["source_id"],
            fields=[label, "staff"],
            bbox="true",
        )
        assert (content["persons_new"], content["persons_total"], content["faces_total"]) == (1, 1, 1)
        assert content["persons"][0]["group_id"] == group["group_id"], "a known source brings its group"
        persons[label] = content["persons"][0]["person_id"]
    again = client.ok("/person/create", unmade, images={"image": [photo("obama-2")]}, list_id=list_id)
    assert [one["person_id"] for one in again["matches"]] == [persons["Barack"]]

    done = client.ok("/person/update", person_id=persons["Joe"], list_id=list_id, fields=["Joseph"])
    assert done["message"] == "operation succeeded"
    record = client.ok("/person", person_id=persons["Joe"], list_id=list_id)
    assert (record["fields"], record["status"]) == (["Joseph"], "init")
    assert client.session.get(record["image_url"], timeout=30).headers["Content-Type"] == "image/jpeg"

    first = client.ok("/persons", list_id=list_id, limit=2, cursor="")
    rest = client.ok("/persons", list_id=list_id, limit=2, cursor=first["cursor"])
    assert [one["person_id"] for one in (*first["persons"], *rest["persons"])] == [*persons.values()]
    assert rest["cursor"] is None
    lists = client.ok("/person/lists")["lists"]
    assert [(one["name"], one["count"]) for one in lists] == [("main", 0), ("staff", 3)]

    vector = client.ok("/persons", list_id=list_id, limit=1, embeddings=True)["persons"][0]["embeddings"][0]
    text = ",".join(map(str, vector))
    found = client.ok("/vector/search", embeddings=text, list_ids=list_id, threshold="0.7", person_data=True)
    assert found["results"][0]["matches"][0]["person"]["person_id"] == persons["Barack"]
    acted = client.ok("/action", images={"image": [photo("obama-3")]}, person_list_search=list_id, results=3)
    assert acted["results"][0]["matches"][0]["person_id"] == persons["Barack"]

    negative = {
        "person_id": persons["Barack"],
        "list_id": list_id,
        "sighting_id": acted["results"][0]["sighting_id"],
    }
    assert client.ok("/person/reject", **negative)["rejection"]["sighting_id"] == negative["sighting_id"]
    listed = client.ok("/person/rejections", person_id=persons["Barack"], list_id=list_id)
    assert [one["sighting_id"] for one in listed["rejections"]] == [negative["sighting_id"]]
    assert client.ok("/person/reject/delete", **negative)["message"] == "1 rejection(s) deleted"

    deleted = client.ok("/person/delete", person_id=persons["Barack"], list_id=list_id)
    assert deleted["message"] == "1 person(s) deleted"
    client.refused("/person/delete", 404, "item with this id not found", person_id=persons["Barack"], list_id=list_id)
    assert client.ok("/source/delete", **{"source_id": source["source_id"]})["message"] == "1 source(s) deleted"
    assert client.ok("/source/group/delete", group_id=group["group_id"])["message"] == "1 group(s) deleted"
    assert client.ok("/person/list/delete", list_id=list_id)["message"] == f"list {list_id} deleted"
    client.ok("/user/logout")
    client.refused("/person/lists", 401, "access denied")
    assert service.end() == 0


# --- the table: every route, a valid and an invalid use, every prefix, verb and scope ---

INVALID: dict[str, dict[str, Any]] = {
    "/person/create": {"images": {"image": [b"x"]}, "multi": "1"},
    "/action": {"images": {"image": [b"x"]}, "results": "many"},
    "/detect": {"images": {"images": [b"x"]}, "feature_check": "age"},
    "/compare": {"images": {"images": [b"x"]}},
    "/vector/search": {"embeddings": "1,2,3"},
    "/persons": {"limit": 1001},
    "/person": {"person_id": "7"},
    "/person/update": {"fields": ["x"]},
    "/person/delete": {"person_id": []},
    "/person/fusion": {"person_id": NOBODY, "embeddings": "x"},
    "/person/reject": {"person_id": NOBODY, "sighting_id": "x"},
    "/person/reject/delete": {"person_id": NOBODY},
    "/person/rejections": {"person_id": NOBODY, "limit": 0},
    "/person/photos": {"person_id": "x"},
    "/person/photo/add": {"images": {"image": [b"x"]}, "person_id": NOBODY, "force": "1"},
    "/person/photo/delete": {"person_id": NOBODY, "photo_id": "first"},
    "/person/split": {"person_id": NOBODY, "photo_ids": []},
    "/person/preview": {"images": {"image": [b"x"]}, "list_id": "x"},
    "/person/find": {"text": "x" * 201},
    "/unknowns": {"to": "tomorrow"},
    "/unknowns/name": {"sighting_ids": []},
    "/person/lists": {"limit": 0},
    "/person/list/create": {"name": ""},
    "/person/list/update": {"list_id": NOBODY},
    "/person/list/delete": {},
    "/source/groups": {"limit": "all"},
    "/source/group/create": {"name": "x" * 101},
    "/source/group/update": {"group_id": NOBODY, "person_list_search": [{"id": "x"}]},
    "/source/group/delete": {},
    "/sources": {"group_id": "x"},
    "/source/create": {"name": "x", "new_person_yaw_max": 91},
    "/source/update": {"source_id": NOBODY, "person_list_add": [NOBODY, NOBODY]},
    "/source/delete": {"group_id": NOBODY},
    "/user/login": {"email": EMAIL, "password": "short"},
    "/token/create": {},
    "/token/update": {"token_id": NOBODY, "expires": "soon"},
    "/token/delete": {"token_id": "x"},
    "/history": {"from": "yesterday"},
    "/session/begin": {"email": "ann@example.org"},
    "/user/create": {"email": "nobody", "password": "long enough"},
    "/user/update": {"email": "ann@example.org", "password": "short"},
    "/user/delete": {"email": ""},
    "/audit": {"id": "somebody"},
    "/source/<source_id>/frame": {"multi": "1"},
}
NOTHING_TO_GET_WRONG = {
    "/",
    "/console/<name>",
    "/session",
    "/box",
    "/users",
    "/backups",
    "/backup/create",
    "/user/logout",
    "/tokens",
    "/images/<person_id>/<name>/<token>",
    "/health",
    "/openapi.json",
    "/events",
    "/metrics",
}

UNKNOWN: dict[str, dict[str, Any]] = {
    "/action": {"images": {"image": [b"x"]}, "person_list_search": NOBODY},
    "/vector/search": {"embeddings": [1.0] + [0.0] * 127, "list_ids": [NOBODY]},
    "/persons": {"list_id": NOBODY},
    "/person/update": {"person_id": NOBODY, "fields": ["x"]},
    "/person/delete": {"person_id": NOBODY},
    "/person/fusion": {"person_id": NOBODY, "embeddings": [1.0] + [0.0] * 127},
    "/person/reject": {"person_id": NOBODY, "sighting_id": NOBODY},
    "/person/reject/delete": {"person_id": NOBODY, "sighting_id": NOBODY},
    "/person/rejections": {"person_id": NOBODY},
    "/person/photos": {"person_id": NOBODY},
    "/person/photo/add": {"images": {"image": [b"x"]}, "person_id": NOBODY},
    "/person/photo/delete": {"person_id": NOBODY, "photo_id": "1"},
    "/person/split": {"person_id": NOBODY, "photo_ids": ["1"]},
    "/person/preview": {"images": {"image": [b"x"]}, "list_id": NOBODY},
    "/person/find": {"text": "x", "list_id": NOBODY},
    "/unknowns": {"list_id": NOBODY},
    "/unknowns/name": {"sighting_ids": [NOBODY]},
    "/person/list/update": {"list_id": NOBODY, "name": "x"},
    "/person/list/delete": {"list_id": NOBODY},
    "/source/group/create": {"name": "x", "person_list_search": [{"id": NOBODY}]},
    "/source/group/update": {"group_id": NOBODY, "name": "x"},
    "/source/group/delete": {"group_id": NOBODY},
    "/sources": {"group_id": NOBODY},
    "/source/create": {"name": "x", "group_id": NOBODY},
    "/source/update": {"source_id": NOBODY, "name": "x"},
    "/source/delete": {"source_id": NOBODY},
    "/token/create": {"expires": "never", "list_id": NOBODY},
    "/token/update": {"token_id": NOBODY, "expires": "never"},
    "/token/delete": {"token_id": NOBODY},
    "/history": {"list_id": NOBODY},
    "/user/update": {"email": "nobody@example.org", "password": "long enough"},
    "/user/delete": {"email": "nobody@example.org"},
}


def by_path(route: Route) -> str:
    return route.path


def test_every_route_has_an_invalid_use() -> None:
    assert set(INVALID) | NOTHING_TO_GET_WRONG == {route.path for route in ROUTES}


def test_every_route_has_a_valid_use() -> None:
    here = "".join(Path(__file__).with_name(name).read_text() for name in ("test_part2.py", "test_operator.py"))
    asked_for = {
        route.path for route in ROUTES if f'ok("{route.path}"' in here or f'ok(\n        "{route.path}"' in here
    }
    by_get = {route.path for route in ROUTES if route.methods == ("GET",)}
    in_a_loop = {"/person/create"}
    by_cameras = {"/source/<source_id>/frame"}
    assert asked_for | by_get | in_a_loop | by_cameras == {route.path for route in ROUTES}


@pytest.mark.parametrize("path", INVALID)
@pytest.mark.parametrize("prefix", ["", "/v1"])
def test_an_invalid_use_of_every_route(admin: Client, path: str, prefix: str) -> None:
    admin.refused(path, 400, "invalid schema", prefix=prefix, **INVALID[path])


@pytest.mark.parametrize("path", UNKNOWN)
def test_an_unknown_id_on_every_route(admin: Client, path: str) -> None:
    admin.refused(path, 404, "item with this id not found", **UNKNOWN[path])


def test_unknown_ids_of_person(admin: Client) -> None:
    main = admin.ok("/person/lists")["lists"][0]["id"]
    admin.refused("/person", 404, f"person id {NOBODY} does not found", "person_id", person_id=NOBODY)
    admin.refused("/person", 404, f"person id {NOBODY} does not found", person_id=NOBODY, list_id=main)
    admin.refused("/person", 404, f"list id {NOBODY} does not found", "list_id", person_id=NOBODY, list_id=NOBODY)


SCOPED = [route for route in ROUTES if route.scopes]


@pytest.fixture(scope="module")
def one_scope(service: Service) -> dict[Scope, Client]:
    return {scope: Client(service, service.token(scope.value)) for scope in Scope}


def asked(client: Client, route: Route, method: str | None = None) -> requests.Response:
    """The route with a body that is none of its own, the token in a header."""
    url = f"{client.url}/v1{route.path}"
    headers = {"token": client.token} if client.token else {}
    answer = client.session.request(
        method or route.methods[0], url, json={}, headers=headers, timeout=60, stream=route.path == "/events"
    )
    if answer.headers["Content-Type"].startswith("text/event-stream"):
        answer.close()  # it would go on for ever
    return answer


@pytest.mark.parametrize("route", SCOPED, ids=by_path)
def test_every_route_needs_a_token_with_its_scope(one_scope: dict[Scope, Client], route: Route) -> None:
    nobody = Client.__new__(Client)
    nobody.url, nobody.session, nobody.token = one_scope[Scope.READ].url, requests.Session(), ""
    for method in route.methods:
        answer = asked(nobody, route, method)
        assert (answer.status_code, answer.json()) == (401, {"message": "access denied", "status": "failed"})
    for scope, client in one_scope.items():
        may = scope in route.scopes or scope is Scope.ADMIN
        answer = asked(client, route)
        assert (answer.status_code == 403) == (not may), (route.path, scope)
        wanted = " or ".join(sorted(one.value for one in route.scopes))
        assert (f'"token has no scope {wanted}"' in answer.headers.get("WWW-Authenticate", "")) == (not may)


@pytest.mark.parametrize("route", [route for route in ROUTES if len(route.methods) > 1], ids=by_path)
def test_every_verb_reads_the_body(admin: Client, route: Route) -> None:
    answers = [admin.ask(route.path, method=method, **UNKNOWN.get(route.path, {})) for method in route.methods]
    statuses = {answer.status_code for answer in answers}
    assert statuses == ({200} if route.path == "/tokens" else {404}), "the ids in the body were read"


@pytest.mark.parametrize("route", [route for route in ROUTES if "<" not in route.path], ids=by_path)
def test_other_verbs_are_refused(admin: Client, route: Route) -> None:
    answer = admin.session.patch(f"{admin.url}/v1{route.path}", timeout=30)
    assert (answer.status_code, answer.json()["message"]) == (405, "method not allowed")
    assert set(answer.headers["Allow"].split(",")) - {"HEAD"} == set(route.methods)


# --- users and tokens ---


def test_login_tells_nobody_which_of_the_two_was_wrong(service: Service) -> None:
    add_user(service, "bob@example.com")
    client = Client(service, session=from_address("127.0.0.2"))
    for email, password in (("bob@example.com", "wrong horse"), ("eve@example.com", PASSWORD)):
        client.refused("/user/login", 403, "invalid user credentials", email=email, password=password)
    assert client.ok("/user/login", email="bob@example.com", password=PASSWORD)["token"].count(".") == 2


def from_address(address: str) -> requests.Session:
    """A session of another machine: all of 127.0.0.0/8 is this one."""

    class Adapter(HTTPAdapter):
        def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
            super().init_poolmanager(*arguments, source_address=(address, 0), **options)

    session = requests.Session()
    session.mount("http://", Adapter())
    return session


def test_ten_failures_in_a_minute_are_enough(service: Service) -> None:
    add_user(service, "carol@example.com")
    client = Client(service, session=from_address("127.0.0.3"))
    for _ in range(5):
        client.ok("/user/login", email="carol@example.com", password=PASSWORD)
    for _ in range(10):
        client.refused("/user/login", 403, "invalid user credentials", email="carol@example.com", password="guess 1")
    answer = client.ask("/user/login", email="carol@example.com", password=PASSWORD)
    assert (answer.status_code, answer.json()["message"]) == (429, "too many attempts")
    assert answer.headers["Retry-After"] == "60"
    elsewhere = Client(service, session=from_address("127.0.0.4"))
    elsewhere.ok("/user/login", email="carol@example.com", password=PASSWORD)


def test_a_removed_user_is_out_at_once_and_so_is_an_old_password(service: Service) -> None:
    add_user(service, "dan@example.com", PASSWORD, "--scope", "read")
    client = Client(service, session=from_address("127.0.0.5"))
    client.token = client.ok("/user/login", email="dan@example.com", password=PASSWORD, valid_days=0)["token"]
    client.ok("/person/lists")
    client.refused("/token/create", 403, "access denied", expires="never")
    assert re.search(r"^dan@example\.com +read ", service.edge("user", "list"), re.MULTILINE)
    assert service.edge("user", "remove", "DAN@example.com") == "removed\n"
    client.refused("/person/lists", 401, "access denied")
    add_user(service, "dan@example.com", "other horse")
    client.refused("/person/lists", 401, "access denied")


def test_a_password_is_never_an_argument(service: Service) -> None:
    command = [sys.executable, "-m", "edge", "user", "add", "x@example.com", "--password", "secret1"]
    refused = subprocess.run(command, env=service.environment(), capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    short = subprocess.run(
        command[:-2], env=service.environment(), input="12345\n", capture_output=True, text=True, check=False
    )
    assert (short.returncode, "6 to 1024 characters" in short.stderr) == (1, True)


def test_a_token_is_shown_once(service: Service, admin: Client) -> None:
    made = admin.ok("/token/create", valid_days=2, name="gate", scope=["read"])
    assert made["message"] == "new token created"
    secret = made["token"]["id"]
    assert TIME.fullmatch(made["token"]["expires"])
    Client(service, secret).ok("/person/lists")
    for method in ("POST", "GET"):
        headers = {"token": admin.token}
        answer = admin.session.request(method, f"{admin.url}/tokens", headers=headers, timeout=30)
        assert answer.status_code == 200
        assert secret not in answer.text
        (own,) = [one for one in answer.json()["tokens"] if one["name"] == "gate"]
        assert own["id"] == made["token"]["token_id"]
        assert (own["scope"], own["list_id"], own["expires"]) == (["read"], None, made["token"]["expires"])
    assert admin.ok("/token/update", token_id=secret, expires="never")["token"] == {"id": secret, "expires": "never"}
    later = admin.ok("/token/update", token_id=own["id"], expires="2099-12-31T23:59:59Z", method="PUT")
    assert later["token"]["expires"] == "2099-12-31T23:59:59.000Z"
    admin.refused("/token/update", 400, "invalid schema", "expires", token_id=own["id"], expires="2020-01-01")
    admin.refused("/token/update", 400, "invalid schema", "expires", token_id=own["id"], expires=1, valid_days=1)
    assert admin.ok("/token/delete", token_id=secret)["message"] == "1 token(s) deleted"
    Client(service, secret).refused("/person/lists", 401, "access denied")


def test_a_token_made_by_default_is_good_for_what_its_maker_is(service: Service, admin: Client) -> None:
    secret = admin.ok("/token/create", expires="7")["token"]["id"]
    Client(service, secret).ok("/tokens")


# --- thresholds ---


def test_the_threshold_of_each_list_follows_its_size_and_a_fixed_one_does_not(tmp_path: Path) -> None:
    service = Service(tmp_path / "data", "new_person.false_positive_rate=0.001").start()
    client = Client(service, service.token("admin"))
    staff = client.ok("/person/list/create", name="staff")["list_id"]
    before = health(service)
    main = main_list(client)
    assert [one["list_id"] for one in before["thresholds"]] == [main, staff], "the main list first"
    assert [(one["persons"], one["threshold"]) for one in before["thresholds"]] == [(0, 0.7), (0, 0.7)]
    for name in ("obama-1", "biden-1"):
        client.enrolled(name, staff)
    after = health(service)
    assert [one["threshold"] for one in after["thresholds"]] == pytest.approx([0.7, 0.4 + 0.1 * math.log10(2000)])
    assert (after["templates_other_packs"], after["lists_not_shown"]) == (0, 0)
    assert "staff" not in json.dumps(after), "nobody needs a token for it, so no names"
    listed = {one["id"]: one["threshold"] for one in client.ok("/person/lists")["lists"]}
    assert listed == {one["list_id"]: one["threshold"] for one in after["thresholds"]}
    (match,) = client.ask("/person/create", images={"image": [photo("obama-2")]}, list_id=staff).json()["matches"]
    assert match["threshold"] == pytest.approx(listed[staff]), "what is told is what decides"
    service.end()
    service.settings = ("new_person.threshold=0.85",)
    service.start()
    assert [one["threshold"] for one in health(service)["thresholds"]] == [0.85, 0.85]
    assert service.end() == 0


def test_health_tells_of_so_many_lists_and_how_many_more_there_are(service: Service, admin: Client) -> None:
    while (lists := health(service)["lists"]) < 103:
        for _ in range(103 - lists):
            admin.ok("/person/list/create", name=str(uuid.uuid4()))
    told = health(service)
    assert len(told["thresholds"]) == 100
    assert told["lists_not_shown"] == told["lists"] - 100
    assert told["thresholds"][0]["list_id"] == main_list(admin)


def health(service: Service) -> dict[str, Any]:
    body: dict[str, Any] = service.session.get(f"{service.url}/health", timeout=60).json()
    return body


# --- bound tokens ---


@pytest.fixture(scope="module")
def bound(service: Service, admin: Client) -> tuple[Client, str, str]:
    """A client whose token is good for everything, in one list and for one source alone."""
    own = admin.ok("/person/list/create", name="own")["list_id"]
    group = admin.ok("/source/group/create", name="own group", person_list_search=[own, main_list(admin)])["group_id"]
    source = admin.ok(
        "/source/create", name="own door", group_id=group, person_list_search=[main_list(admin)], person_list_add=[own]
    )["source_id"]
    admin.ok("/source/create", name="other door")
    secret = admin.ok("/token/create", expires="never", list_id=own, source_id=source)["token"]["id"]
    return Client(service, secret), own, source


def main_list(client: Client) -> str:
    return str(client.ok("/person/lists", limit=1)["lists"][0]["id"])


BEYOND: list[tuple[str, dict[str, Any]]] = [
    ("/person/create", {"embedding": [1.0] + [0.0] * 127, "list_id": "main"}),
    ("/person/create", {"embedding": [1.0] + [0.0] * 127, "source_id": NOBODY}),
    ("/action", {"images": {"image": [b"x"]}, "person_list_search": "main"}),
    ("/action", {"images": {"image": [b"x"]}, "person_list_add": "main"}),
    ("/vector/search", {"embeddings": [1.0] + [0.0] * 127, "list_ids": ["main"]}),
    ("/persons", {"list_id": "main"}),
    ("/person", {"list_id": "main", "person_id": NOBODY}),
    ("/person/update", {"person_id": NOBODY, "new_list_id": "main"}),
    ("/person/delete", {"list_id": "main", "person_id": NOBODY}),
    ("/person/fusion", {"list_id": "main", "person_id": NOBODY, "fields": ["x"]}),
    ("/person/reject", {"list_id": "main", "person_id": NOBODY, "sighting_id": NOBODY}),
    ("/person/rejections", {"list_id": "main", "person_id": NOBODY}),
    ("/history", {"list_id": "main"}),
    ("/history", {"source_id": NOBODY}),
    ("/person/photos", {"list_id": "main", "person_id": NOBODY}),
    ("/person/photo/delete", {"list_id": "main", "person_id": NOBODY, "photo_id": "1"}),
    ("/person/split", {"list_id": "main", "person_id": NOBODY, "photo_ids": ["1"]}),
    ("/person/preview", {"images": {"image": [b"x"]}, "list_id": "main"}),
    ("/person/find", {"list_id": "main", "text": "x"}),
    ("/unknowns", {"list_id": "main"}),
    ("/unknowns", {"source_id": NOBODY}),
    ("/unknowns/name", {"list_id": "main", "sighting_ids": [NOBODY]}),
    *((route.path, {}) for route in ROUTES if route.administers),
]


@pytest.mark.parametrize(("path", "body"), BEYOND)
def test_a_bound_token_reaches_nothing_else(
    bound: tuple[Client, str, str], admin: Client, path: str, body: dict[str, Any]
) -> None:
    body = {name: main_list(admin) if value == "main" else value for name, value in body.items()}
    body = {name: [main_list(admin)] if value == ["main"] else value for name, value in body.items()}
    bound[0].refused(path, 403, "access denied", **body)


def test_a_bound_token_works_with_its_own(bound: tuple[Client, str, str], admin: Client) -> None:
    client, own, source = bound
    assert [one["id"] for one in client.ok("/person/lists")["lists"]] == [own]
    assert [one["source_id"] for one in client.ok("/sources")["sources"]] == [source]
    assert client.ok("/sources")["sources"][0]["person_list_search"] == [], "of other lists it is told nothing"
    (group,) = client.ok("/source/groups")["groups"]
    assert [alert["id"] for alert in group["person_list_search"]] == [own]
    main = admin.enrolled("biden-1", main_list(admin))
    images = {"image": [photo("biden-1")]}
    acted = client.ok("/action", images=images)
    assert acted["results"][0]["matches"] == [], "its source searches the main list too, but the token may not"
    assert acted["results"][0]["added"]["list_id"] == own
    assert acted["results"][0]["added"]["source_id"] == source
    assert [one["list_id"] for one in client.ok("/persons")["persons"]] == [own]
    (vector,) = client.ok("/persons", embeddings=True)["persons"][0]["embeddings"]
    hits = client.ok("/vector/search", embeddings=[vector], results="all")["results"][0]["matches"]
    assert [one["list_id"] for one in hits] == [own]
    client.refused("/person", 404, f"person id {main} does not found", person_id=main)
    time.sleep(1.5)
    assert {one["list_id"] for one in client.ok("/history")["sightings"]} == {own}


def test_a_token_that_may_not_enrol_adds_nobody_by_its_source(service: Service, admin: Client, list_id: str) -> None:
    source = admin.ok("/source/create", name="adds", person_list_add=[list_id])["source_id"]
    looker = Client(service, service.token("recognize"))
    images = {"image": [photo("collins-1")]}
    looker.refused("/action", 403, "access denied", images=images, source_id=source)
    looker.refused("/action", 403, "access denied", images=images, person_list_add=list_id)
    looker.ok("/action", images=images, person_list_search=list_id)


# --- lists, groups, sources ---


def test_lists(admin: Client) -> None:
    made = admin.ok("/person/list/create", name="guests")["list_id"]
    admin.refused("/person/list/update", 400, "conflict", "name", list_id=made, name="main")
    admin.ok("/person/list/update", list_id=made, name="visitors", method="PUT")
    shown = [one for one in all_pages(admin, "/person/lists", "lists", limit=2) if one["id"] == made]
    assert shown == [
        {"id": made, "name": "visitors", "count": 0, "created": shown[0]["created"], "main": False, "threshold": 0.7}
    ]
    main = main_list(admin)
    admin.refused("/person/list/update", 400, "conflict", list_id=main, name="x")
    admin.refused("/person/list/delete", 400, "conflict", list_id=main)
    admin.enrolled("obama-1", made)
    deleted = admin.ok("/person/list/delete", name="visitors", method="DELETE")
    assert (deleted["message"], deleted["persons_deleted"]) == (f"list {made} deleted", 1)
    admin.refused("/person/list/delete", 404, "item with this id not found", "name", name="visitors")


def all_pages(client: Client, path: str, key: str, **body: Any) -> list[dict[str, Any]]:
    found, cursor = [], ""
    while True:
        page = client.ok(path, cursor=cursor, **body)
        assert len(page[key]) <= body["limit"]
        found += page[key]
        if page["cursor"] is None:
            return found
        cursor = page["cursor"]


def test_source_groups(admin: Client, list_id: str) -> None:
    alerts = [{"id": list_id, "on_found": {"topic": "bell"}, "on_failed": ""}]
    made = admin.ok("/source/group/create", name="floor 1", person_list_search=alerts)["group_id"]
    (shown,) = [one for one in admin.ok("/source/groups")["groups"] if one["group_id"] == made]
    assert (shown["name"], shown["person_list_search"]) == ("floor 1", alerts)
    admin.refused("/source/group/update", 400, "nothing to change", group_id=made)
    assert admin.ok("/source/group/update", group_id=made, name="floor 2", method="PUT")["message"] == (
        "source group updated"
    )
    admin.ok("/source/group/update", group_id=made, person_list_search=[])
    (shown,) = [one for one in admin.ok("/source/groups")["groups"] if one["group_id"] == made]
    assert (shown["name"], shown["person_list_search"]) == ("floor 2", [])
    assert admin.ok("/source/group/delete", group_id=made, method="DELETE")["message"] == "1 group(s) deleted"
    admin.refused("/source/group/delete", 404, "item with this id not found", group_id=made)


def test_sources(admin: Client, list_id: str) -> None:
    group = admin.ok("/source/group/create", name="yard")["group_id"]
    made = admin.ok(
        "/source/create",
        name="gate",
        group_id=group,
        feature_check=["yaw", {"name": "sharpness", "min": 0.2}],
        new_person_threshold="70",
        new_person_square_min=100,
        new_person_yaw_max="20",
        new_person_pitch_max=15,
        person_list_add=[list_id],
        person_list_search=[{"id": list_id}],
    )["source_id"]
    (shown,) = admin.ok("/sources", group_id=group)["sources"]
    expected = {
        "source_id": made,
        "group_id": group,
        "name": "gate",
        "created": shown["created"],
        "feature_check": [{"name": "yaw"}, {"name": "sharpness", "min": 0.2}],
        "new_person_threshold": 0.7,
        "new_person_threshold_score": None,
        "new_person_square_min": 100,
        "new_person_yaw_max": 20,
        "new_person_pitch_max": 15,
        "person_list_add": [list_id],
        "person_list_search": [list_id],
    }
    assert shown == expected
    admin.refused("/source/update", 400, "nothing to change", source_id=made)
    admin.ok("/source/update", source_id=made, new_person_yaw_max=30, person_list_search=[], method="PUT")
    (shown,) = admin.ok("/sources", group_id=group)["sources"]
    assert shown == {**expected, "new_person_yaw_max": 30, "person_list_search": []}, "what is not given stays"
    assert admin.ok("/source/delete", source_id=made, method="DELETE")["message"] == "1 source(s) deleted"
    assert admin.ok("/sources", group_id=group)["sources"] == []


@pytest.mark.parametrize("path", ["/person/create", "/action"])
def test_a_source_brings_its_defaults(admin: Client, list_id: str, path: str) -> None:
    source = admin.ok("/source/create", name="strict", new_person_square_min=5000, feature_check=["roll"])["source_id"]
    lists = {"list_id": list_id} if path == "/person/create" else {"person_list_add": list_id}
    images = {"image": [photo("obama-1")]}
    content = admin.ask(path, images=images, source_id=source, **lists).json()
    (face,) = content["rejected"] if path == "/person/create" else content["results"]
    assert face["reasons"][0] == {"check": "size", "value": face["reasons"][0]["value"], "limit": 5000}
    content = admin.ask(path, images=images, source_id=source, new_person_square_min=50, **lists).json()
    added = content["persons"][0] if path == "/person/create" else content["results"][0]["added"]
    assert [one["name"] for one in added["features"]] == ["roll"]
    assert content["persons_new"] == 1


# --- persons ---


def test_person_update_and_move(admin: Client, list_id: str) -> None:
    person_id = admin.enrolled("obama-1", list_id, fields=["a", "b"])
    admin.refused("/person/update", 400, "nothing to change", list_id=list_id, person_id=person_id, drop_image=False)
    address = admin.ok("/person", list_id=list_id, person_id=person_id)["image_url"]
    admin.ok("/person/update", list_id=list_id, person_id=person_id, drop_image=True, method="PUT")
    assert "image_url" not in admin.ok("/person", list_id=list_id, person_id=person_id)
    assert admin.session.get(address, timeout=30).status_code == 404
    admin.ok("/person/update", list_id=list_id, person_id=person_id, fields=[])
    assert admin.ok("/person", list_id=list_id, person_id=person_id)["fields"] == []
    other = admin.ok("/person/list/create", name=str(uuid.uuid4()))["list_id"]
    admin.ok("/person/update", list_id=list_id, person_id=person_id, new_list_id=other)
    assert admin.ok("/person", list_id=other, person_id=person_id)["list_id"] == other
    found = admin.ok("/action", images={"image": [photo("obama-2")]}, person_list_search=other)
    assert found["results"][0]["matches"][0]["person_id"] == person_id, "the vectors moved too"


def test_person_delete_takes_one_or_many(admin: Client, list_id: str) -> None:
    ids = [admin.enrolled(name, list_id) for name in ("obama-1", "biden-1", "collins-1")]
    many = admin.ok("/person/delete", list_id=list_id, person_id=[*ids[:2], NOBODY], method="DELETE")
    assert many["message"] == "2 person(s) deleted"
    assert admin.ok("/person/delete", list_id=list_id, person_id=ids[2])["message"] == "1 person(s) deleted"
    assert admin.ok("/persons", list_id=list_id)["persons"] == []


def test_persons_with_thumbs_and_embeddings(admin: Client, list_id: str) -> None:
    admin.enrolled("obama-1", list_id)
    (plain,) = admin.ok("/persons", list_id=list_id)["persons"]
    assert not {"thumb", "embeddings"} & set(plain)
    (rich,) = admin.ok("/persons", list_id=list_id, thumbs="true", embeddings=True)["persons"]
    assert max(Image.open(io.BytesIO(base64.b64decode(rich["thumb"]))).size) == 256
    assert np.array(rich["embeddings"]).shape == (1, 128)
    assert rich["model"] == "default-1"


def test_a_picture_that_is_damaged_costs_its_thumb_alone(service: Service, admin: Client, list_id: str) -> None:
    damaged, sound = (admin.enrolled(name, list_id) for name in ("obama-1", "biden-1"))
    name = admin.ok("/person", list_id=list_id, person_id=damaged)["image_url"].split("/")[-2]
    for content in (b"", b"garbage"):
        (service.folder / "pictures" / name[:2] / f"{name}.jpg").write_bytes(content)
        persons = admin.ok("/persons", list_id=list_id, thumbs="true")["persons"]
        assert {one["person_id"]: "thumb" in one for one in persons} == {damaged: False, sound: True}


def test_paging_neither_skips_nor_repeats_while_persons_come_and_go(admin: Client, list_id: str) -> None:
    def add(number: int) -> str:
        vector = np.zeros(128)
        vector[number] = 1
        body = admin.ok("/person/create", embedding=vector.tolist(), list_id=list_id, new_person_threshold=1)
        return str(body["persons"][0]["person_id"])

    ids = [add(number) for number in range(12)]
    met, cursor, turn = [], "", 0
    while cursor is not None:
        page = admin.ok("/persons", list_id=list_id, limit=3, cursor=cursor)
        met += [one["person_id"] for one in page["persons"]]
        cursor = page["cursor"]
        admin.ok("/person/delete", list_id=list_id, person_id=ids[turn])  # already met
        if turn < 2:
            ids.append(add(50 + turn))
        admin.ok("/person/update", list_id=list_id, person_id=ids[-1], fields=["changed"])
        turn += 1
    assert met == ids


def test_person_fusion(admin: Client, list_id: str) -> None:
    person_id = admin.enrolled("obama-1", list_id, fields=["kept"])
    pictures = [photo("obama-3"), b"not a picture", jpeg(Image.new("RGB", (300, 300)))]
    fused = admin.ok("/person/fusion", images={"images": pictures}, list_id=list_id, person_id=person_id)
    assert (fused["message"], fused["added"], fused["embeddings_total"]) == ("operation succeeded", 1, 2)
    assert fused["person"]["fields"] == ["kept"]
    assert [(one["image"], one["message"]) for one in fused["rejected"]] == [
        (1, "image format is unknown"),
        (2, "no faces found"),
    ]
    none = admin.ok("/person/fusion", images={"images": pictures[1:]}, list_id=list_id, person_id=person_id)
    assert (none["message"], none["added"], none["embeddings_total"]) == ("image format is unknown", 0, 2)
    limits = {"new_person_square_min": 5000}
    small = admin.ok("/person/fusion", images={"images": pictures[:1]}, list_id=list_id, person_id=person_id, **limits)
    assert (small["added"], small["rejected"][0]["reasons"][0]["check"]) == (0, "size")
    admin.refused("/person/fusion", 400, "nothing to change", list_id=list_id, person_id=person_id)


def test_person_fusion_with_vectors_and_another_person(admin: Client, list_id: str) -> None:
    one, other = admin.enrolled("obama-1", list_id), admin.enrolled("biden-1", list_id)
    vector = [0.0] * 127 + [1.0]
    fused = admin.ok("/person/fusion", list_id=list_id, person_id=one, embeddings=vector, fields=["both"])
    assert (fused["added"], fused["embeddings_total"], fused["person"]["fields"]) == (1, 2, ["both"])
    merged = admin.ok("/person/fusion", list_id=list_id, person_id=one, replace_person_id=other)
    assert merged["embeddings_total"] == 3
    admin.refused("/person", 404, f"person id {other} does not found", list_id=list_id, person_id=other)
    found = admin.ok("/action", images={"image": [photo("biden-1")]}, person_list_search=list_id)
    assert found["results"][0]["matches"][0]["person_id"] == one, "known by the other's face too"


def jpeg(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=92)
    return out.getvalue()


# --- recognition ---


def test_action_searches_several_lists_and_adds_strangers_once(admin: Client) -> None:
    staff, guests, strangers = (admin.ok("/person/list/create", name=str(uuid.uuid4()))["list_id"] for _ in range(3))
    in_staff, in_guests = admin.enrolled("obama-1", staff), admin.enrolled("obama-3", guests)
    admin.enrolled("biden-1", guests)
    body = {"person_list_search": [staff, guests], "person_list_add": strangers, "results": 5}
    known = admin.ok("/action", images={"image": [photo("obama-2")]}, **body)
    (face,) = known["results"]
    assert {match["person_id"] for match in face["matches"]} == {in_staff, in_guests}
    assert [match["score"] for match in face["matches"]] == sorted((m["score"] for m in face["matches"]), reverse=True)
    assert "added" not in face
    one = admin.ok("/action", images={"image": [photo("obama-2")]}, **{**body, "results": 1})
    assert len(one["results"][0]["matches"]) == 1
    new = admin.ok("/action", images={"image": [photo("collins-1")]}, **body)
    assert (new["persons_new"], new["results"][0]["added"]["list_id"]) == (1, strangers)
    again = admin.ok("/action", images={"image": [photo("collins-1")]}, **body)
    assert again["persons_new"] == 0, "the list that is added to is searched too"
    assert again["results"][0]["matches"][0]["person_id"] == new["results"][0]["added"]["person_id"]


def test_action_is_uncertain_of_two_who_fit_even_where_the_best_alone_is_asked_for(admin: Client) -> None:
    guests = admin.ok("/person/list/create", name=str(uuid.uuid4()))["list_id"]
    one, other = admin.enrolled("obama-1", guests), admin.enrolled("biden-1", guests)
    replaced = {"list_id": guests, "replace_on_found": other}
    admin.ok("/person/create", images={"image": [photo("obama-2")]}, **replaced)
    body = {"person_list_search": [guests], "person_list_add": guests}
    (face,) = admin.ok("/action", images={"image": [photo("obama-3")]}, **body)["results"]
    assert len(face["matches"]) == 1
    assert "added" not in face
    assert [reason["check"] for reason in face["reasons"]] == ["uncertain_match"]
    assert {face[key]["person_id"] for key in ("candidate", "rival")} == {one, other}


def test_action_without_a_list_searches_the_main_one_and_adds_nobody(admin: Client) -> None:
    main = main_list(admin)
    before = admin.ok("/person/lists", limit=1)["lists"][0]["count"]
    content = admin.ok("/action", images={"image": [photo("obama-4")]}, normalized="true")
    (face,) = content["results"]
    assert (face["reasons"], content["persons_new"]) == ([], 0)
    assert {"bbox", "normalized"} <= set(face)
    assert admin.ok("/person/lists", limit=1)["lists"][0]["count"] == before
    assert all(match["list_id"] == main for match in face["matches"])
    admin.refused("/action", 400, "no image attached")


def test_vector_search(admin: Client, list_id: str) -> None:
    ids = [admin.enrolled(name, list_id) for name in ("obama-1", "biden-1")]
    stored = {one["person_id"]: one["embeddings"][0] for one in pages_with_vectors(admin, list_id)}
    both = [stored[one] for one in ids]
    top = admin.ok("/vector/search", embeddings=both, list_ids=[list_id])
    assert [[match["person_id"] for match in one["matches"]] for one in top["results"]] == [[one] for one in ids]
    assert "person" not in top["results"][0]["matches"][0]
    everybody = admin.ok("/vector/search", embeddings=both[0], list_ids=[list_id], results="all", threshold="0.01")
    assert [match["person_id"] for match in everybody["results"][0]["matches"]] == ids
    admin.refused("/vector/search", 400, "invalid schema", "embeddings", list_ids=[list_id])
    admin.refused("/vector/search", 400, "invalid schema", "results", embeddings=both[0], results="best")


def pages_with_vectors(client: Client, list_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.ok("/persons", list_id=list_id, embeddings=True)["persons"]
    return found


def test_compare(admin: Client) -> None:
    same = admin.ok("/compare", images={"images": [photo("obama-1"), photo("obama-3")]}, bbox="true")
    swapped = admin.ok("/compare", images={"images": [photo("obama-3"), photo("obama-1")]})
    assert same["match"] is True
    assert same["score"] == swapped["score"] >= same["threshold"] == 0.7
    assert [len(faces) for faces in same["results"]] == [1, 1]
    assert "bbox" in same["results"][0][0]
    other = admin.ok("/compare", images={"images": [photo("obama-1"), photo("biden-1")]})
    assert (other["match"], other["score"] < 0.7) == (False, True)
    lenient = admin.ok("/compare", images={"images": [photo("obama-1"), photo("biden-1")]}, threshold="1")
    assert lenient["threshold"] == 1.0
    nobody = admin.ok("/compare", images={"images": [photo("obama-1"), jpeg(Image.new("RGB", (200, 200)))]})
    assert (nobody["score"], nobody["match"], nobody["results"][1]) == (None, False, [])
    admin.refused("/compare", 400, "unexpected field", images={"images": [photo("obama-1")] * 3})


def test_compare_every_face_where_multi(admin: Client) -> None:
    frame = three_faces()[0]
    one = admin.ok("/compare", images={"images": [frame, photo("biden-1")]})
    best = admin.ok("/compare", images={"images": [frame, photo("biden-1")]}, multi="true")
    assert (one["match"], best["match"]) == (False, True)


def three_faces() -> tuple[bytes, list[tuple[int, int]]]:
    """A frame with three heads, the third turned by 25 degrees, and about where their middles are."""
    canvas = Image.new("RGB", (1500, 640), (120, 120, 120))
    middles = []
    heads = (("obama-1", 0), ("biden-1", 0), ("collins-1", 25))
    boxes = {"obama-1": (330, 110, 210, 260), "biden-1": (190, 100, 135, 155), "collins-1": (175, 68, 100, 110)}
    for number, (name, degrees) in enumerate(heads):
        x, y, width, height = boxes[name]
        head = Image.open(io.BytesIO(photo(name))).convert("RGB")
        side = int(max(width, height) * 1.7)
        left, top = x + width // 2 - side // 2, y + height // 2 - side // 2
        head = head.crop((left, top, left + side, top + side)).resize((420, 420))
        head = head.rotate(-degrees, resample=Image.Resampling.BICUBIC, fillcolor=(120, 120, 120))
        canvas.paste(head, (40 + 490 * number, 100))
        middles.append((40 + 490 * number + 210, 310))
    return jpeg(canvas), middles


def test_detect_three_faces(admin: Client, tmp_path: Path) -> None:
    frame, middles = three_faces()
    asked_for = {"bbox": "true", "bbox_pro": "true", "thumb": "true", "feature_check": ["roll", "eyes_open"]}
    content = admin.ok("/detect", images={"images": [frame, b"junk"]}, multi="true", **asked_for)
    faces, none = content["results"]
    assert (content["faces_total"], len(faces), none) == (3, 3, [])
    assert [error["field"] for error in content["errors"]] == ["images[1]"]
    faces.sort(key=lambda face: face["bbox"]["x"])
    for face, (x, y) in zip(faces, middles, strict=True):
        box, corners = face["bbox"], np.array(face["bbox_pro"])
        assert abs(box["x"] + box["w"] / 2 - x) < 60 and abs(box["y"] + box["h"] / 2 - y) < 60
        assert 180 < box["h"] < 330
        along = corners[1] - corners[0]
        turned = np.degrees(np.arctan2(along[1], along[0]))
        assert turned == pytest.approx(face["roll"], abs=2), "bbox_pro turns with the head"
        assert max(Image.open(io.BytesIO(base64.b64decode(face["thumb"]))).size) == 256
        assert [one["name"] for one in face["features"]] == ["roll", "eyes_open"]
    assert [abs(face["roll"]) < 16 for face in faces] == [True, True, False]
    assert 15 < faces[2]["roll"] < 35
    only = admin.ok("/detect", images={"images": [frame]})["results"]
    assert [len(faces) for faces in only] == [1], "the largest alone, without multi"
    admin.refused("/detect", 400, "unexpected field", "images", images={"images": [b"x"] * 17})
    admin.refused("/detect", 400, "no image attached", "images")


def test_pictures_in_json(admin: Client) -> None:
    encoded = [base64.b64encode(photo(name)).decode() for name in ("obama-1", "biden-1")]
    headers = {"token": admin.token}
    answer = admin.session.post(f"{admin.url}/detect", json={"images": encoded}, headers=headers, timeout=60)
    assert [len(faces) for faces in answer.json()["results"]] == [1, 1]
    assert admin.ok("/action", image=encoded[0])["faces_total"] == 1


# --- history ---


def test_history(admin: Client, list_id: str) -> None:
    source = str(uuid.uuid4())
    person_id = admin.enrolled("obama-1", list_id, source_id=source)
    admin.ask("/action", images={"image": [photo("obama-2")]}, person_list_search=list_id, source_id=source)
    time.sleep(1.5)  # written in batches, a second apart
    newest, oldest = admin.ok("/history", source_id=source)["sightings"]
    assert [newest["verdict"], oldest["verdict"]] == ["match", "add"]
    assert newest["person_id"] == oldest["person_id"] == person_id
    assert newest["list_id"] == list_id and TIME.fullmatch(newest["time"])
    assert admin.session.get(newest["image_url"], timeout=30).headers["Content-Type"] == "image/jpeg"
    assert len(all_pages(admin, "/history", "sightings", person_id=person_id, limit=1)) == 2
    only = admin.ok("/history", list_id=list_id, **{"from": newest["time"]})["sightings"]
    assert [one["id"] for one in only] == [newest["id"]]
    before = admin.ok("/history", source_id=source, to=oldest["time"])["sightings"]
    assert [one["id"] for one in before] == [oldest["id"]]
    admin.refused("/history", 400, "invalid schema", "cursor", cursor="x")
    admin.ok("/person/delete", list_id=list_id, person_id=person_id)
    assert admin.ok("/history", source_id=source)["sightings"] == []


def test_openapi_needs_a_token(admin: Client) -> None:
    assert admin.session.get(f"{admin.url}/openapi.json", timeout=30).status_code == 401
    document = admin.session.get(f"{admin.url}/openapi.json", headers={"token": admin.token}, timeout=30).json()
    assert json.dumps(document).count("/person/create") >= 1


def test_the_audit_log_knows_who_made_what(admin: Client) -> None:
    list_id = admin.ok("/person/list/create", name="audited")["list_id"]
    (made,) = admin.ok("/audit", id=list_id)["acts"]
    assert (made["action"], made["outcome"], made["ids"]) == (
        "/person/list/create",
        "done",
        [{"names": "list_id", "id": list_id}],
    )
    assert admin.ok("/audit", action="/nothing") == {"status": "ok", "acts": [], "cursor": None, "lost": 0}


def test_who_may_log_in_is_said_here_too(admin: Client) -> None:
    made = admin.ok("/user/create", email="cleo@example.org", password="a password", scope=["read"])["user"]
    assert (made["email"], made["scope"]) == ("cleo@example.org", ["read"])
    assert made in admin.ok("/users")["users"]
    admin.refused("/user/create", 400, "conflict", "email", email="Cleo@example.org", password="a password")
    begun = admin.ok("/session/begin", email="cleo@example.org", password="a password")
    assert (begun["signed_in"], begun["name"], begun["scope"]) == (True, "cleo@example.org", ["read"])
    admin.session.cookies.clear()  # the session's, which would come before the token in the body
    admin.ok("/user/update", email="cleo@example.org", password="another password")
    admin.refused("/session/begin", 403, "invalid user credentials", email="cleo@example.org", password="a password")
    admin.ok("/user/delete", email="cleo@example.org")
    assert made["email"] not in {one["email"] for one in admin.ok("/users")["users"]}


def test_the_box_says_what_decides_and_backs_itself_up(admin: Client) -> None:
    box = admin.ok("/box")
    assert (box["threshold"], box["false_positive_rate"], box["score_at_fmr_1"]) == (None, 0.01, 0.4)
    assert "Apache" in box["licences"][0]["text"]
    made = admin.ok("/backup/create")["backup"]
    assert made in admin.ok("/backups")["backups"]
