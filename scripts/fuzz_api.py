#!/usr/bin/env python3
"""Asks a real process what /openapi.json allows and what it does not, and holds every answer against it.

    scripts/fuzz_api.py [--cases 2000] [--seed 1] [--include REGEX]

schemathesis makes the requests, from the document alone, and judges the answers with all its checks: no 500, no status,
field or type that is not documented, nothing invalid accepted, nothing valid refused, no route without its token. The
process runs on a data folder of its own, with a few persons, lists and sources in it. With one seed, the requests are
the same every time. Exits with 1 if a check fails.

schemathesis loads this file too, for the values that no schema can describe and for a check of ours: see `hooks`.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
STATE = "FUZZ_STATE"
"""The environment's name for the file of what the hooks need to know, as JSON."""

PHASES = "examples,coverage,fuzzing,stateful"

CONFIG = """\
[checks.negative_data_rejection]
# 413: too many of something are too many parts before they are too many values
expected-statuses = ["400", "401", "403", "404", "413"]
[generation]
database = "none"
"""

CROSS_FIELD = (
    "must not be above new_person_threshold",
    "is above max",
    "is named more than once",
    "is past",
    "either this or valid_days must be given",
    "not one that a page",
    "must be given, or the list's name",
    "must be given too",
    "must be given with the password",
    "must be an address with one @",
    "limit is 4096",
    "none of id, on_found, on_failed",
)
"""Reasons that no JSON schema can foresee: they are about several values, the time, or what was answered before."""

RANGES = ("must be a number from", "must be a whole number from", "or days from 1 to", "not JSON")
"""Reasons that schemathesis cannot foresee where it draws texts from their pattern without regard to their format."""


# --- the process and its data ---


def prepared(service: Any, headers: dict[str, str], many: int) -> dict[str, list[str]]:
    """Fill the gallery: `many` of each; return the ids by the name that they are sent under."""

    def ask(path: str, **body: Any) -> dict[str, Any]:
        answer = service.session.post(f"{service.url}{path}", json=body, headers=headers, timeout=30)
        answer.raise_for_status()
        content: dict[str, Any] = answer.json()
        return content

    ids: dict[str, list[str]] = {"list_id": [], "person_id": [], "group_id": [], "source_id": [], "token_id": []}
    for number in range(many):
        list_id = ask("/person/list/create", name=f"list {number}")["list_id"]
        vector = [float(n == number) for n in range(128)]
        person = ask("/person/create", embedding=vector, list_id=list_id)["persons"][0]["person_id"]
        alerts = [{"id": list_id, "on_found": "ring"}]
        group = ask("/source/group/create", name=f"floor {number}", person_list_search=alerts)["group_id"]
        source = ask("/source/create", name=f"door {number}", group_id=group, person_list_add=[list_id])["source_id"]
        token = ask("/token/create", expires="never", scope=["read"])["token"]["token_id"]
        for name, id_ in zip(ids, (list_id, person, group, source, token), strict=True):
            ids[name].append(id_)
    ids["list_id"][0] = ask("/person/lists", limit=1)["lists"][0]["id"]  # the main one, which cannot be deleted
    return ids


def prepare(service: Any, headers: dict[str, str], folder: Path, many: int) -> Path:
    """Write what schemathesis and the hooks read; return the file of the document."""
    document = service.session.get(f"{service.url}/openapi.json", headers=headers, timeout=30).json()
    tokens = service.session.post(f"{service.url}/tokens", headers=headers, timeout=30).json()["tokens"]
    state = {
        "own": [*(one["id"] for one in tokens), *headers.values()],
        "ids": prepared(service, headers, min(many, 120)),
        "photo": base64.b64encode((ROOT / "tests" / "photos" / "obama-3.jpg").read_bytes()).decode(),
        "formats": sorted({node["format"] for node in _walk(document) if isinstance(node.get("format"), str)}),
    }
    (folder / STATE).write_text(json.dumps(state))
    (folder / "schemathesis.toml").write_text(CONFIG)
    file = folder / "openapi.json"
    file.write_text(json.dumps(document))
    return file


def run(folder: Path, *, cases: int, seed: int, include: str | None = None, phases: str = PHASES) -> int:
    """Start a process, let schemathesis at it, stop it; return the exit code."""
    sys.path.insert(0, str(ROOT / "tests"))
    from real_process import Service

    service = Service(
        folder / "data", "server.max_connections_per_address=1000", "server.wrong_tokens_per_minute=100000"
    ).start()
    try:
        token = service.token("admin")
        file = prepare(service, {"token": token}, folder, many=max(8, cases // 4))
        command = [str(Path(sys.executable).with_name("schemathesis")), "--config-file", "schemathesis.toml", "run"]
        command += [str(file), "--url", f"{service.url}/v1", "--checks", "all", "--max-examples", str(cases)]
        command += ["--seed", str(seed), "--header", f"Authorization: Bearer {token}", "--request-timeout", "60"]
        command += ["--suppress-health-check", "all", "--continue-on-failure", "--phases", phases]
        # ours takes its place: a request can be well formed and still contradict what is there, a taken name say
        command += ["--exclude-checks", "positive_data_acceptance"]
        command += ["--include-path-regex", include] if include else []
        command += ["--exclude-path", "/events"]  # its answer has no end
        environment = {**os.environ, "SCHEMATHESIS_HOOKS": str(Path(__file__).resolve()), STATE: str(folder / STATE)}
        code = subprocess.run(command, cwd=folder, env=environment, check=False).returncode
    finally:
        ended = service.end()
    if "Traceback" in service.logged():
        print(service.logged(), file=sys.stderr)
        return 1
    return code or ended


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description="Fuzz every route against /openapi.json.")
    parser.add_argument("--cases", type=int, default=2000, help="cases for each route, at most (default: 2000)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed asks the same (default: 1)")
    parser.add_argument("--include", metavar="REGEX", help="only routes whose path matches")
    parser.add_argument("--phases", default=PHASES, help=f"of schemathesis (default: {PHASES})")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return run(Path(folder), cases=options.cases, seed=options.seed, include=options.include, phases=options.phases)


# --- inside schemathesis ---


def formats(state: dict[str, Any], known: list[str]) -> dict[str, Any]:
    """Return the strategies for the formats of /openapi.json that need more than their schema."""
    from hypothesis import strategies as st

    ids = st.sampled_from(known)
    uuids = ids | ids | ids | st.uuids().map(str)
    photo = base64.b64decode(state["photo"])
    # a photo now and then: each takes a tenth of a second
    pictures = st.integers(0, 9).flatmap(lambda n: st.just(photo) if n == 9 else st.binary(min_size=1, max_size=64))
    vectors = st.lists(st.floats(-1, 1, width=32), min_size=128, max_size=128).filter(
        lambda numbers: sum(n * n for n in numbers) > 1e-3
    )
    features = st.sampled_from(["yaw", "eyes_open", "sharpness"])
    bounds = st.fixed_dictionaries({"name": features}, optional={"min": st.floats(-9, 0), "max": st.floats(0, 9)})
    texts = {
        "uuid": uuids,
        "binary": pictures,
        "base64": pictures.map(lambda data: base64.b64encode(data).decode()),
        "vector:128": vectors.map(lambda numbers: ",".join(map(repr, numbers))),
        "date-time": st.datetimes().map(lambda at: f"{at:%Y-%m-%dT%H:%M:%S}Z".rjust(20, "0")),
        "date": st.dates().map(str),
        "json:feature": bounds.map(json.dumps),
        "json:feature_check": st.lists(bounds, min_size=1, max_size=1).map(json.dumps),
        "json:alert": uuids.map(lambda id_: json.dumps({"id": id_})),
        "json:list": uuids.map(lambda id_: json.dumps({"id": id_})),
        "json:embeddings": st.lists(vectors, min_size=1, max_size=2).map(json.dumps),
        "json:scope": st.just('["read"]'),
        **{f"json:{name}": st.lists(uuids, min_size=1, max_size=1).map(json.dumps) for name in LISTS_OF_IDS},
    }
    for name in state["formats"]:
        kind, _, bounds_text = name.partition(":")
        if kind in ("number", "integer"):
            least, most = map(float, bounds_text.split(":"))
            numbers = st.integers(int(least), int(most)) if kind == "integer" else st.floats(least, most)
            texts[name] = numbers.map(lambda n: f"{n:.17f}" if isinstance(n, float) else str(n))
    return texts


def hooks(state: dict[str, Any]) -> None:
    """Register formats, what is sent in their place, and our check."""
    import schemathesis

    known = [id_ for several in state["ids"].values() for id_ in several]
    for name, strategy in formats(state, known).items():
        schemathesis.openapi.format(name, strategy)

    @schemathesis.hook
    def filter_case(context: Any, case: Any) -> bool:
        """Pass over forms with an empty array or object: on the wire it is nothing, so neither right nor wrong."""
        is_form = case.media_type != "application/json" and isinstance(case.body, dict)
        return not is_form or all(value not in ([], {}) for value in case.body.values())

    @schemathesis.hook
    def before_call(context: Any, case: Any, kwargs: Any) -> None:
        """Send known ids under the names that they belong to, and leave the run its own token."""
        if not isinstance(case.body, dict):
            return
        # a body, once touched, is judged anew, as if forms had types: so not what is meant to be wrong, nor pictures
        is_valid = case.meta is not None and case.meta.generation.mode.is_positive
        if is_valid and not {"image", "images"} & set(case.body):
            place(case.body, state["ids"], set(known))
        if case.body.get("token_id") in state["own"]:
            case.body["token_id"] = state["ids"]["token_id"][0]

    @schemathesis.check
    def valid_is_never_invalid_schema(ctx: Any, response: Any, case: Any) -> None:
        """Refuse that a body which the schema allows is called invalid."""
        is_valid = case.meta is not None and case.meta.generation.mode.is_positive
        if not is_valid or response.status_code != 400:
            return
        answer = response.json()
        told = CROSS_FIELD if case.meta.phase.name.value == "fuzzing" else (*CROSS_FIELD, *RANGES)
        unforeseen = [error for error in answer.get("errors", []) if not any(one in error["reason"] for one in told)]
        if answer["message"] == "invalid schema" and unforeseen:
            raise AssertionError(f"valid, yet called invalid: {unforeseen}")


LISTS_OF_IDS = ("list_ids", "person_list_search", "person_list_add", "person_id", "sighting_ids")


def place(body: dict[str, Any], ids: dict[str, list[str]], known: set[str]) -> None:
    """Put an id of the right sort wherever one of another sort stands, so that most requests are about something."""

    def fitting(name: str, value: Any) -> Any:
        several = ids[name]
        return several[sum(value.encode()) % len(several)] if isinstance(value, str) and value in known else value

    for name in ids:
        value = body.get(name)
        if value is not None:
            body[name] = [fitting(name, one) for one in value] if isinstance(value, list) else fitting(name, value)
    person = body.get("person_id")
    if person in ids["person_id"] and "list_id" in body:
        body["list_id"] = ids["list_id"][ids["person_id"].index(person)]


def _walk(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    for one in node if isinstance(node, list) else ():
        yield from _walk(one)


if STATE in os.environ:
    hooks(json.loads(Path(os.environ[STATE]).read_text()))
elif __name__ == "__main__":
    sys.exit(main())
