"""The door of the real process: wrong tokens, busy tokens, proxies, and keys that change while it serves."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
import requests
from real_process import Service

ROOT = Path(__file__).resolve().parent.parent
PHOTO = ROOT / "tests" / "photos" / "obama-1.jpg"
PASSWORD = "correct horse battery"
MOST_WRONG = 4


@contextlib.contextmanager
def serving(folder: Path, *settings: str) -> Iterator[Service]:
    service = Service(folder, *settings)
    service.start()
    try:
        yield service
    finally:
        service.end()


def ask(service: Service, token: str, **headers: str) -> requests.Response:
    """POST /v1/person/lists with a token."""
    headers = {"Authorization": f"Bearer {token}", **{name.replace("_", "-"): text for name, text in headers.items()}}
    return service.session.post(f"{service.url}/v1/person/lists", headers=headers, timeout=60)


def logged_in(service: Service) -> str:
    login = {"email": "ann@example.org", "password": PASSWORD}
    return str(service.session.post(f"{service.url}/user/login", json=login, timeout=60).json()["token"])


def add_user(service: Service) -> None:
    command = [sys.executable, "-m", "edge", "user", "add", "ann@example.org"]
    subprocess.run(command, env=service.environment(), input=f"{PASSWORD}\n", text=True, check=True)


def forged(service: Service) -> dict[str, str]:
    """Wrong tokens, each by what is wrong with it."""
    key = json.loads((service.folder / "keys.json").read_text())["keys"][0]
    good: dict[str, Any] = {"sub": "ann", "iat": 1_700_000_000, "exp": 4_000_000_000, "jti": "j", "scope": "admin"}

    def signed(claims: dict[str, Any], secret: bytes = b"x" * 64, algorithm: str = "HS256", **header: str) -> str:
        return jwt.encode(claims, secret, algorithm, headers={"kid": key["kid"], **header})

    right = base64.b64decode(key["key"])
    return {
        "nothing": "",
        "unknown": "0" * 8 + "-0000-4000-8000-" + "0" * 12,
        "alg none": jwt.encode(good, None, "none", headers={"kid": key["kid"]}),
        "another algorithm": signed(good, right * 2, "HS512"),
        "another key": signed(good),
        "a path for a key": signed(good, kid="../../../../dev/null"),
        "SQL for a key": signed(good, kid="' OR 1=1 --"),
        "expired": signed({**good, "exp": 1_700_000_100}, right),
        "not valid yet": signed({**good, "iat": 3_999_999_000}, right),
        "valid for ever": signed(good, right),
        "no end": signed({name: value for name, value in good.items() if name != "exp"}, right),
        "no id": signed({name: value for name, value in good.items() if name != "jti"}, right),
        "SQL": "' OR '1'='1' --",
        "a path": "../../etc/passwd",
    }


def test_all_wrong_tokens_are_refused_alike(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as service:
        add_user(service)
        answers = {name: ask(service, token) for name, token in forged(service).items()}
        gone = logged_in(service)
        assert ask(service, gone).status_code == 200
        service.session.post(f"{service.url}/user/logout", headers={"token": gone}, timeout=60)
        answers["replayed after logout"] = ask(service, gone)
        refusal = {"message": "access denied", "status": "failed"}
        assert {name: (one.status_code, one.json()) for name, one in answers.items()} == dict.fromkeys(
            answers, (401, refusal)
        )
        assert len({tuple(sorted(set(one.headers) - {"Date"})) for one in answers.values()}) == 1


def test_wrong_tokens_of_an_address_get_429_and_right_ones_beside_them_are_served(tmp_path: Path) -> None:
    settings = (f"server.wrong_tokens_per_minute={MOST_WRONG}", "server.trusted_proxy=127.0.0.1")
    with serving(tmp_path / "data", *settings) as service:
        good = service.token("admin")
        spoofed = [ask(service, "wrong", X_Forwarded_For=f"198.51.100.{n}, 192.0.2.1") for n in range(MOST_WRONG + 2)]
        assert [one.status_code for one in spoofed] == [401] * MOST_WRONG + [429] * 2
        assert spoofed[-1].headers["Retry-After"] == "60"
        assert ask(service, good, X_Forwarded_For="192.0.2.1").status_code == 200
        assert ask(service, "wrong", X_Forwarded_For="192.0.2.2").status_code == 401


def test_nobody_escapes_by_a_forwarding_header_where_no_proxy_is_trusted(tmp_path: Path) -> None:
    with serving(tmp_path / "data", f"server.wrong_tokens_per_minute={MOST_WRONG}") as service:
        codes = [ask(service, "wrong", X_Forwarded_For=f"192.0.2.{n}").status_code for n in range(MOST_WRONG + 1)]
        assert codes == [401] * MOST_WRONG + [429]


def test_a_token_over_its_share_waits_and_another_does_not(tmp_path: Path) -> None:
    with serving(tmp_path / "data", "server.requests_per_token_per_second=1") as service:
        wild, calm = service.token("read"), service.token("read")
        answers = [ask(service, wild) for _ in range(20)]
        over = [one for one in answers if one.status_code == 429]
        assert answers[0].status_code == 200
        assert over
        assert (over[0].json()["message"], over[0].headers["Retry-After"]) == ("too many requests", "1")
        assert ask(service, calm).status_code == 200


def test_a_new_key_holds_in_the_running_service(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as service:
        add_user(service)
        old = logged_in(service)
        address = service.create(PHOTO.read_bytes()).json()["persons"][0]["image_url"]
        service.edge("token", "rotate-key")
        new = logged_in(service)
        assert jwt.get_unverified_header(new)["kid"] != jwt.get_unverified_header(old)["kid"]
        assert ask(service, old).status_code == ask(service, new).status_code == 200
        assert service.session.get(address, timeout=60).status_code == 200
        assert stat.S_IMODE((service.folder / "keys.json").stat().st_mode) == 0o600

        service.edge("token", "rotate-key", "--now")
        assert ask(service, old).status_code == ask(service, new).status_code == 401
        assert service.session.get(address, timeout=60).status_code == 401
        assert ask(service, logged_in(service)).status_code == 200


def test_a_broken_file_of_keys_changes_nothing_while_it_serves(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as service:
        add_user(service)
        token = logged_in(service)
        (service.folder / "keys.json").write_text("{")
        assert ask(service, token).status_code == 200
        assert "the keys stay what they were" in service.logged()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
@pytest.mark.parametrize("unit", sorted((ROOT / "systemd").glob("*.service")), ids=lambda path: path.name)
def test_the_units_expose_little(unit: Path) -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=15", unit]
    judged = subprocess.run(command, capture_output=True, text=True)
    assert judged.returncode == 0, judged.stdout[-500:]
