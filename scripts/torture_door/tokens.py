"""Every wrong token there is a name for: refused alike in status, body and headers, and in like time.

Times are measured in turn, reason after reason, round after round, so that whatever else the machine does falls on all
of them. What is held against a limit is the difference of the medians, over the whole request as a client sees it.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import json
import random
import socket
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jwt

from torture_door.common import Answer, connected, misshapen, port_of, progress, read_answer, report, request, serving

if TYPE_CHECKING:
    from real_process import Service

PASSWORD = "correct horse battery"  # noqa: S105 (of the process that this starts)
USER = "ann@example.org"
LIKE_MICROSECONDS = 250.0
"""Between the fastest and the slowest reason, medians: the network's own spread on a LAN is as large, and what is left
says only which step of the judging a guess reached; none of them depends on how near a secret was."""

REFUSAL = {"message": "access denied", "status": "failed"}
TRICKS = (
    "' OR '1'='1' --",
    "'; DROP TABLE tokens; --",
    "../../../../etc/passwd",
    "%2e%2e%2f",
    "\\..\\",
    "a" * 5000,
    "{}",
    "null",
)


def unpadded(data: bytes) -> str:
    """Return it as a JWT has it."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def raw(header: Mapping[str, Any], claims: Any, key: bytes) -> str:
    """Return a token with any header at all, signed with HMAC-SHA256 whatever it says."""
    signed = ".".join(unpadded(json.dumps(part).encode()) for part in (header, claims))
    return f"{signed}.{unpadded(hmac.new(key, signed.encode(), hashlib.sha256).digest())}"


def forged(service: Service) -> dict[str, str]:
    """Return wrong tokens by what is wrong with them; where it is not the signature, they are signed with our key."""
    stored = json.loads((service.folder / "keys.json").read_text())["keys"][0]
    kid, key, now = stored["kid"], base64.b64decode(stored["key"]), int(time.time())
    good: dict[str, Any] = {"sub": USER, "iat": now - 10, "exp": now + 3600, "jti": str(uuid.uuid4()), "scope": "admin"}

    def signed(secret: bytes = key, algorithm: str = "HS256", **claims: Any) -> str:
        return jwt.encode({**good, **claims}, secret, algorithm, headers={"kid": kid})

    made = {
        "permanent, unknown": str(uuid.uuid4()),
        "no token at all": "x",
        "alg none": jwt.encode(good, None, "none", headers={"kid": kid}),
        "alg None, signed": raw({"alg": "None", "typ": "JWT", "kid": kid}, good, key),
        "alg HS512": signed(key * 2, "HS512"),
        "alg RS256, signed as HS256": raw({"alg": "RS256", "typ": "JWT", "kid": kid}, good, key),
        "alg ES256 and a key of its own": raw(
            {"alg": "ES256", "jwk": {"kty": "oct", "k": "AA"}, "kid": kid}, good, b""
        ),
        "a list of algorithms": raw({"alg": ["HS256", "none"], "kid": kid}, good, key),
        "empty key": raw({"alg": "HS256", "kid": kid}, good, b""),
        "another key": signed(b"x" * 32),
        "a public key as the secret": raw({"alg": "HS256", "kid": kid}, good, b"-----BEGIN PUBLIC KEY-----\n"),
        "no kid": raw({"alg": "HS256"}, good, key),
        "kid unknown": raw({"alg": "HS256", "kid": "0" * 16}, good, key),
        "a critical header nobody knows": raw({"alg": "HS256", "kid": kid, "crit": ["x"], "x": 1}, good, key),
        "claims that are a list": raw({"alg": "HS256", "kid": kid}, [good], key),
        "expired": signed(iat=now - 7200, exp=now - 3600),
        "not valid yet": signed(iat=now + 7200, exp=now + 9000),
        "nbf ahead": signed(nbf=now + 7200),
        "valid for ever": signed(exp=now + 50 * 365 * 86400),
        "times that are texts": signed(exp=str(now + 3600)),
        "a user who is gone": signed(sub=f"{uuid.uuid4()}@{now * 1000}"),
        "an unknown scope": signed(scope="admin root"),
        "signature cut": signed()[:-4],
        "signature of another": signed().rpartition(".")[0] + "." + signed(sub="bob").rpartition(".")[2],
    }
    for name in ("exp", "iat", "sub", "jti", "scope"):
        made[f"no {name}"] = jwt.encode(
            {k: v for k, v in good.items() if k != name}, key, "HS256", headers={"kid": kid}
        )
    for number, trick in enumerate(TRICKS):
        made[f"trick {number} as a token"] = trick
        made[f"trick {number} as kid"] = raw({"alg": "HS256", "kid": trick}, good, key)
        made[f"trick {number} as scope"] = signed(scope=trick)
        made[f"trick {number} as exp"] = signed(exp=trick)
    return made


class Client:
    """A kept connection that asks one thing."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._sock: socket.socket | None = None

    def ask(self, data: bytes) -> Answer:
        """Return the answer, on a new connection where the last one was ended."""
        if self._sock is None:
            self._sock = connected(self._port)
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock.sendall(data)
        answer, _ = read_answer(self._sock)
        assert answer is not None, "the connection ended without an answer"
        if answer.headers.get("connection") == "close":
            self._sock.close()
            self._sock = None
        return answer


def carriers(token: str) -> dict[str, bytes]:
    """Return the same question with the token in each place where one may stand."""
    path = "/v1/person/lists"
    made = {"the body": request(path, json.dumps({"token": token}).encode(), Content_Type="application/json")}
    if len(token) < 16_000:
        made["Authorization"] = request(path, Authorization=f"Bearer {token}")
        made["the header token"] = request(path, token=token)
    return made


def alike(port: int, wrong: Mapping[str, str]) -> list[str]:
    """Ask with each, in each place; return which were not refused like the others."""
    violations, client, seen = [], Client(port), set()
    for name, token in wrong.items():
        for place, data in carriers(token).items():
            answer = client.ask(data)
            seen.add((answer.status, answer.body, tuple(sorted(set(answer.headers) - {"date"}))))
            if answer.status != 401 or answer.json != REFUSAL:
                violations.append(f"{name} in {place}: {answer.status} {answer.body[:200]!r}")
    return violations + ([f"the refusals differ: {seen}"] if len(seen) > 1 else [])


def bound(service: Service, port: int, good: str) -> list[str]:
    """Use right tokens for what they are not bound to, and put tricks into every field; return what was let in."""
    headers = {"token": good, "Content_Type": "application/json"}
    client = Client(port)

    def ask(path: str, using: str, **body: Any) -> Answer:
        return client.ask(request(path, json.dumps(body).encode(), **{**headers, "token": using}))

    one, other = (ask("/person/list/create", good, name=name).json["list_id"] for name in ("one", "other"))
    mine, source = service.token("admin", list=one), service.token("enrol", source=one)
    vector = [1.0] + [0.0] * 127
    asked: dict[str, Callable[[], Answer]] = {
        "a wrong list": lambda: ask("/persons", mine, list_id=other),
        "a wrong list to add to": lambda: ask("/person/create", mine, list_id=other, embedding=vector),
        "a wrong list to search": lambda: ask("/action", mine, person_list_search=[other], image="AAAA"),
        "a wrong source": lambda: ask("/person/create", source, source_id=other, embedding=vector),
        "another's tokens": lambda: ask("/token/create", mine, expires="never"),
    }
    violations = []
    refusals = {name: send() for name, send in asked.items()}
    for name, answer in refusals.items():
        if answer.status != 403 or (answer.json["message"], answer.json["status"]) != ("access denied", "failed"):
            violations.append(f"{name}: {answer.status} {answer.body[:200]!r}")
    fields = ("list_id", "person_id", "source_id", "group_id", "token_id", "cursor", "new_list_id", "sighting_id")
    for path in (
        "/person",
        "/persons",
        "/person/delete",
        "/person/create",
        "/history",
        "/token/delete",
        "/source/delete",
    ):
        for field in fields:
            for trick in TRICKS[:6]:
                needed = {"list_id": one, "person_id": other} if path == "/person" else {}
                answer = ask(path, good, **{**needed, field: trick})
                known = answer.status in (200, 201) and field not in ANSWERED.get(path, fields)
                if not known and (answer.status not in (400, 404) or misshapen(answer)):
                    violations.append(f"{trick[:30]!r} as {field} of {path}: {answer.status} {answer.body[:200]!r}")
    lists = [found["id"] for found in ask("/person/lists", good).json["lists"]]
    return violations + ([] if {one, other} <= set(lists) else ["lists are gone"])


ANSWERED = {
    "/persons": ("list_id", "cursor"),
    "/history": ("list_id", "person_id", "source_id", "cursor"),
}
"""Fields that a route reads; where only these are given, others are ignored as the contract says, and it may answer."""


def spread(port: int, wrong: Mapping[str, str], count: int) -> dict[str, float]:
    """Return the median of each reason in microseconds; asked in an order that changes with every round."""
    requests = {name: request("/v1/person/lists", token=token) for name, token in wrong.items()}
    times: dict[str, list[float]] = {name: [] for name in wrong}
    client, names, order = Client(port), list(wrong), random.Random(1)
    for turn in range(count):
        order.shuffle(names)
        for name in names:
            started = time.perf_counter_ns()
            client.ask(requests[name])
            times[name].append((time.perf_counter_ns() - started) / 1000)
        if turn % 200 == 0:
            progress(f"tokens: round {turn:,} of {count:,}")
    return {name: statistics.median(several) for name, several in times.items()}


def main(arguments: list[str]) -> int:
    """Refused, alike, in like time."""
    parser = argparse.ArgumentParser(prog="tokens", description=__doc__)
    parser.add_argument("--count", type=int, default=2000, help="rounds of timing (default: 2,000; 0: none)")
    options = parser.parse_args(arguments)
    with serving("models.workers=1") as service:
        port = port_of(service)
        command = [sys.executable, "-m", "edge", "user", "add", USER]
        subprocess.run(
            command, env=service.environment(), input=f"{PASSWORD}\n", text=True, check=True, capture_output=True
        )
        wrong, client = forged(service), Client(port)
        login = json.dumps({"email": USER, "password": PASSWORD}).encode()
        gone = client.ask(request("/user/login", login, Content_Type="application/json")).json["token"]
        violations = [] if client.ask(request("/person/lists", token=gone)).status == 200 else ["a log-in is refused"]
        client.ask(request("/user/logout", token=gone))
        wrong["replayed after logout"] = gone
        violations += alike(port, wrong)
        violations += bound(service, port, service.token("admin"))
        timed = {name: one for name, one in wrong.items() if "trick" not in name}
        medians = spread(port, timed, options.count) if options.count else {}
    figures: dict[str, object] = {"refused alike": len(wrong), "places": 3}
    if medians:
        ordered = sorted(medians, key=lambda name: medians[name])
        for name in ordered:
            progress(f"tokens: {medians[name]:8.1f} us  {name}")
        apart = medians[ordered[-1]] - medians[ordered[0]]
        figures["rounds"] = f"{options.count:,}"
        figures["medians"] = f"{medians[ordered[0]]:.0f} to {medians[ordered[-1]]:.0f} us"
        figures["apart"] = f"{apart:.0f} us ({ordered[0]}, {ordered[-1]})"
        if apart > LIKE_MICROSECONDS:
            violations.append(f"{ordered[-1]} takes {apart:.0f} us longer than {ordered[0]}")
    return report("tokens", figures, violations)
