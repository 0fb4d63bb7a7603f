"""Sixteen callers that mix every write route for ten minutes, over a list large enough for a search graph.

No request may hang or be answered with a fault, and at the end rows, pictures and the index that answers must agree:
every template that the database has is found by /vector/search, and whoever is found is in the database.
"""

from __future__ import annotations

import json
import random
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import requests
from real_process import ROOT_OF_PHOTOS, Service

from torture_data import report
from torture_data.callers import PHOTOS, SETTINGS, VECTOR_LENGTH, looked_after
from torture_data.ledger import Ledger
from torture_data.report import Report

CALLERS = 16
EXACT_LIMIT = 60
"""So that the list has a search graph, which is changed under the searches."""

KEPT = {"person": 250, "list": 6, "group": 6, "source": 6, "token": 10}
"""How many of each there may be before more are removed than added."""

DEADLOCK_SECONDS = 60.0
VECTORS_AT_ONCE = 100


class Crowd:
    """What the callers share: the ids that they were given, and what they were answered."""

    def __init__(self, service: Service, admin: str) -> None:
        self.service = service
        self.admin = admin
        self.ids: dict[str, list[str]] = {kind: [] for kind in KEPT}
        self.sightings: list[tuple[str, str]] = []
        self.answers: Counter[str] = Counter()
        self.faults: list[str] = []
        self.stopped = threading.Event()
        self.lock = threading.Lock()

    def call(self, number: int, seed: int) -> None:
        """Be one caller until stopped."""
        dice = random.Random(f"{seed} {number}")
        photos = [(ROOT_OF_PHOTOS / f"{name}.jpg").read_bytes() for name in PHOTOS]
        with requests.Session() as session:
            session.headers["token"] = self.admin
            caller = Caller(self, session, dice, photos)
            while not self.stopped.is_set():
                ask = dice.choices([one for one, _ in MIX], [weight for _, weight in MIX])[0]
                try:
                    ask(caller)
                except requests.RequestException as error:
                    self.faults.append(f"{ask.__name__}: {error!r}")
                    return


class Caller:
    """One caller's hand."""

    def __init__(self, crowd: Crowd, session: requests.Session, dice: random.Random, photos: list[bytes]) -> None:
        self.crowd = crowd
        self.session = session
        self.dice = dice
        self.photos = photos

    def some(self, kind: str) -> str:
        """Return an id of that kind, maybe one that is gone by now, maybe nobody's."""
        with self.crowd.lock:
            ids = self.crowd.ids[kind]
            return self.dice.choice(ids) if ids else "8bc56950-e6ac-11f1-b8f9-4149838eb53e"

    def note(self, kind: str, identifier: str) -> None:
        """Remember a new one."""
        with self.crowd.lock:
            self.crowd.ids[kind].append(identifier)

    def doomed(self, kind: str) -> str | None:
        """Take one out, to be removed; None while there are few."""
        with self.crowd.lock:
            ids = self.crowd.ids[kind]
            if len(ids) < KEPT[kind] // 2 or (len(ids) < KEPT[kind] and self.dice.random() < 0.7):
                return None
            return ids.pop(self.dice.randrange(len(ids)))

    def ask(self, route: str, body: dict[str, Any] | None = None, method: str = "POST", **more: Any) -> dict[str, Any]:
        """Ask, and return the answer; a fault is noted."""
        url = f"{self.crowd.service.url}/v1/{route}"
        answer = self.session.request(method, url, json=body, timeout=DEADLOCK_SECONDS, **more)
        with self.crowd.lock:
            self.crowd.answers[f"{answer.status_code}"] += 1
        if answer.status_code >= 500 and answer.status_code != 503:
            self.crowd.faults.append(f"{route}: {answer.status_code} {answer.text[:300]}")
        found: dict[str, Any] = answer.json()
        return found if answer.status_code < 300 else {}

    def vector(self) -> str:
        """Return a vector of nobody's."""
        return json.dumps([round(self.dice.gauss(0, 1), 6) for _ in range(VECTOR_LENGTH)])

    # --- persons ---

    def create(self) -> None:
        """Add or replace somebody, by a vector, now and then with a picture or by one alone."""
        form: dict[str, Any] = {"fields": (None, "somebody")}
        by_picture = self.dice.random() < 0.05
        if not by_picture:
            form["embedding"] = (None, self.vector())
        if by_picture or self.dice.random() < 0.2:
            form["image"] = ("frame.jpg", self.dice.choice(self.photos))
        if self.dice.random() < 0.25:
            form["replace_on_found"] = (None, self.some("person"))
        if self.dice.random() < 0.2:
            form["list_id"] = (None, self.some("list"))
        body = self.ask("person/create", files=form)
        for one in body.get("persons", ()):
            if one["status"] == "init":
                self.note("person", one["person_id"])
        for one in body.get("matches", ()):
            with self.crowd.lock:
                self.crowd.sightings = [*self.crowd.sightings[-50:], (one["person_id"], one.get("sighting_id", ""))]

    def act(self) -> None:
        """Ask who is on a picture, and add who is not known."""
        form = [("person_list_add", (None, self.some("list"))), ("image", ("a.jpg", self.dice.choice(self.photos)))]
        for one in self.ask("action", files=form).get("results", ()):
            if one.get("person"):
                self.note("person", one["person"]["person_id"])

    def update(self) -> None:
        """Other fields, another list, no picture."""
        changes: list[dict[str, Any]] = [
            {"fields": ["renamed"]},
            {"new_list_id": self.some("list")},
            {"drop_image": True},
        ]
        self.ask("person/update", {"person_id": self.some("person"), **self.dice.choice(changes)}, "PUT")

    def fuse(self) -> None:
        """More vectors for somebody; now and then two become one."""
        body: dict[str, Any] = {"person_id": self.some("person"), "embeddings": [json.loads(self.vector())]}
        if self.dice.random() < 0.3:
            body["replace_person_id"] = self.some("person")
        self.ask("person/fusion", body)

    def reject(self) -> None:
        """Say that a face is not who it was taken for, or that it is after all."""
        with self.crowd.lock:
            seen = self.crowd.sightings[-1] if self.crowd.sightings else None
        if seen is not None and seen[1]:
            body = {"person_id": seen[0], "sighting_id": seen[1]}
            self.ask("person/reject", body, self.dice.choice(["POST", "DELETE"]))

    def delete(self) -> None:
        """Erase one, or several at once."""
        doomed = [one for one in (self.doomed("person") for _ in range(self.dice.choice([1, 1, 5]))) if one]
        if doomed:
            self.ask("person/delete", {"person_id": doomed})

    # --- the rest ---

    def list_(self) -> None:
        """Make, rename or delete a list."""
        name = f"list {self.dice.random()}"
        doomed = self.doomed("list")
        if doomed:
            self.ask("person/list/delete", {"list_id": doomed})
        elif self.dice.random() < 0.5:
            self.ask("person/list/update", {"list_id": self.some("list"), "name": name})
        else:
            made = self.ask("person/list/create", {"name": name})
            if made:
                self.note("list", made["list_id"])

    def source(self) -> None:
        """Make, change or delete a source or a group of them."""
        kind = self.dice.choice(["group", "source"])
        route = {"group": "source/group", "source": "source"}[kind]
        key, body = f"{kind}_id", {"name": "door", "person_list_search": [{"id": self.some("list")}]}
        doomed = self.doomed(kind)
        if doomed:
            self.ask(f"{route}/delete", {key: doomed})
        elif self.dice.random() < 0.5:
            self.ask(f"{route}/update", {key: self.some(kind), **body})
        else:
            made = self.ask(f"{route}/create", body)
            if made:
                self.note(kind, made[key])

    def token(self) -> None:
        """Make, change or revoke a token."""
        doomed = self.doomed("token")
        if doomed:
            self.ask("token/delete", {"token_id": doomed})
        elif self.dice.random() < 0.3:
            self.ask("token/update", {"token_id": self.some("token"), "valid_days": 3})
        else:
            made = self.ask("token/create", {"valid_days": 2, "name": "a camera", "scope": ["enrol"]})
            if made:
                self.note("token", made["token"]["id"])

    def read(self) -> None:
        """Page, search, look at the history."""
        self.ask("persons", {"limit": 50, "list_id": self.some("list")})
        self.ask("vector/search", {"embeddings": [json.loads(self.vector())]})
        self.ask("history", {"limit": 20})


MIX: tuple[tuple[Callable[[Caller], None], int], ...] = (
    (Caller.create, 40),
    (Caller.update, 12),
    (Caller.delete, 14),
    (Caller.fuse, 8),
    (Caller.act, 2),
    (Caller.reject, 3),
    (Caller.list_, 3),
    (Caller.source, 4),
    (Caller.token, 2),
    (Caller.read, 6),
)


def main(arguments: list[str]) -> int:
    """Run the verb."""
    parser = report.options(__doc__, "threads")
    parser.add_argument("--seconds", type=float, default=600)
    options = parser.parse_args(arguments)
    with report.working_folder(options.folder) as folder:
        return run(folder, options.seconds, options.seed)


def run(folder: Path, seconds: float, seed: int) -> int:
    """Let them at it for so long."""
    told = Report("threads")
    settings = (*SETTINGS, f"gallery.exact_limit={EXACT_LIMIT}", "server.wrong_tokens_per_minute=100000")
    service = Service(folder / "data", *settings).start()
    with looked_after(service, told):
        crowd = Crowd(service, service.token("admin"))
        _let_loose(crowd, seconds, seed, told)
        told.add("the answers", crowd.faults)
        before = _checked(service, crowd.admin, told, "while it runs")
        told.check("the end", service.end() == 0, "exit code")
        service.start()  # whose sweep finds nothing to mend, and whose index is made of the rows
        _checked(service, crowd.admin, told, "started again")
        told.check("the end", service.end() == 0, "exit code")
    total, good = sum(crowd.answers.values()), crowd.answers["200"] + crowd.answers["201"]
    told.check("the answers", good > total / 2, f"too few did anything: {crowd.answers}")
    return told.end({"s": seconds, "requests": total, "of them done": good, "templates compared at the end": before})


def _let_loose(crowd: Crowd, seconds: float, seed: int, told: Report) -> None:
    threads = [threading.Thread(target=crowd.call, args=(number, seed), daemon=True) for number in range(CALLERS)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(thread.is_alive() for thread in threads):
        time.sleep(0.5)
        told.progress(f"{sum(crowd.answers.values())} requests, {len(crowd.faults)} faults")
    crowd.stopped.set()
    for thread in threads:
        thread.join(2 * DEADLOCK_SECONDS)
        told.check("the callers", not thread.is_alive(), "deadlock: a caller still waits")


def _checked(service: Service, token: str, told: Report, where: str) -> int:
    """Compare rows, pictures and what answers; return how many templates were compared."""
    ledger = Ledger()
    time.sleep(1.5)  # sightings are written within a second of the answer
    told.add(where, [one for one in ledger.settle(service.folder) if not one.startswith("from nowhere")])
    with closing(sqlite3.connect(f"file:{service.folder / 'gallery.sqlite3'}?mode=ro", uri=True)) as database:
        rows = database.execute(
            "SELECT lists.list_id, person_id, vector FROM templates JOIN persons ON persons.number = templates.person"
            " JOIN lists ON lists.number = persons.list ORDER BY lists.number"
        ).fetchall()
        disputed = {one for (one,) in database.execute(
            "SELECT person_id FROM rejections JOIN persons ON persons.number = rejections.person"
        )}  # fmt: skip
    answer = service.session.get(f"{service.url}/health", timeout=DEADLOCK_SECONDS).json()
    counted = (answer["persons"], answer["templates"], answer["templates_set_aside"], answer["pictures_missing"])
    expected = (len({person for _, person, _ in rows}), len(rows), 0, 0)
    told.check(where, counted == expected, f"/health counts {counted}, there are {expected}")
    found_in = _Found(told, where, {person for _, person, _ in rows}, disputed)
    _search(service, token, found_in, rows)
    return len(rows)


@dataclass(frozen=True)
class _Found:
    """What a search has to agree with: `people` there are, of whom `disputed` may be withheld."""

    told: Report
    where: str
    people: set[str]
    disputed: set[str]

    def check(self, person: str, found: list[str]) -> None:
        """Note a violation where the vector of that person found others than it should."""
        is_there = person in found or person in self.disputed
        self.told.check(self.where, is_there, f"{person} is in the rows and not in the index")
        gone = [one for one in found if one not in self.people]
        self.told.check(self.where, not gone, f"{gone} are in the index and not in the rows")


def _search(service: Service, token: str, wanted: _Found, rows: list[tuple[str, str, bytes]]) -> None:
    """See that each template is found by what answers, and that nobody is found who is gone."""
    for list_id in {row[0] for row in rows}:
        mine = [row for row in rows if row[0] == list_id]
        for start in range(0, len(mine), VECTORS_AT_ONCE):
            part = mine[start : start + VECTORS_AT_ONCE]
            body = {
                "embeddings": [np.frombuffer(vector, "<f4").tolist() for _, _, vector in part],
                "list_ids": [list_id],
                "results": "all",
                "threshold": 0.7,
            }
            answer = service.session.post(
                f"{service.url}/v1/vector/search", json=body, headers={"token": token}, timeout=DEADLOCK_SECONDS
            ).json()
            for (_, person, _), result in zip(part, answer["results"], strict=True):
                wanted.check(person, [one["person_id"] for one in result["matches"]])
