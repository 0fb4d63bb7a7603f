"""Clients that enrol, replace, change and delete without a pause, and note in the ledger what they were told."""

from __future__ import annotations

import json
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import requests
from real_process import ROOT_OF_PHOTOS, Service

from torture_data.ledger import Change, Ledger
from torture_data.report import Report

CALLERS = 8
POPULATION = 150
"""Persons around whom it levels off: more are deleted than added above, so that rounds stay short."""

PHOTOS = ("biden-1", "collins-1", "obama-3")
TIMEOUT_SECONDS = 60.0
VECTOR_LENGTH = 128

SETTINGS = (
    "new_person.threshold=1",  # vectors of chance are not all strangers to each other
    "log.level=warning",
    "server.max_connections_per_address=1000",
)


@contextmanager
def looked_after(service: Service, told: Report) -> Iterator[Service]:
    """Yield the service, begun or not; it ends with the `with`, and a traceback in its log is a violation."""
    try:
        yield service
    finally:
        if service.process is not None:
            service.end(signal.SIGKILL)
    told.check("the log", "Traceback" not in service.logged(), "a traceback: " + service.logged()[-3000:])


@dataclass
class Unanswered:
    """A request that got no answer: when it was begun, by the monotonic clock."""

    mark: str
    begun: float


@dataclass
class Callers:
    """Eight of them, against one service."""

    service: Service
    ledger: Ledger
    seed: str
    unexpected: list[str] = field(default_factory=list)
    unanswered: list[Unanswered] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)
    pictures: bool = True
    deletes: bool = True

    @contextmanager
    def at_work(self, count: int = CALLERS) -> Iterator[None]:
        """Let them call until the `with` ends or the service does."""
        threads = [threading.Thread(target=self._call, args=(number,), daemon=True) for number in range(count)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.stopped.set()
            for thread in threads:
                thread.join()

    def _call(self, number: int) -> None:
        dice = random.Random(f"{self.seed} {number}")
        photos = {name: (ROOT_OF_PHOTOS / f"{name}.jpg").read_bytes() for name in PHOTOS}
        with requests.Session() as session:
            session.headers["token"] = self.service.camera
            while not self.stopped.is_set():
                begun = time.monotonic()
                change = self._change(dice)
                try:
                    self._asked(session, change, dice, photos)
                except requests.RequestException:  # no answer: it stays open
                    self.unanswered.append(Unanswered(change.mark, begun))
                    return

    def _change(self, dice: random.Random) -> Change:
        crowded = len(self.ledger.known) > POPULATION
        fewer = 50 if self.deletes else 0
        (what,) = dice.choices(("add", "change", "delete"), (25, 25, fewer) if crowded else (65, 25, fewer // 5))
        person_id = None if what == "add" else self.ledger.taken(dice)
        return self.ledger.begin(person_id, deletes=person_id is not None and what == "delete")

    def _asked(self, session: requests.Session, change: Change, dice: random.Random, photos: dict[str, bytes]) -> None:
        if change.deletes:
            self._post(session, change, "person/delete", {"person_id": change.person_id})
        elif change.person_id is not None and dice.random() < 0.4:
            body = {"person_id": change.person_id, "fields": [change.mark]}
            self._post(session, change, "person/update", body)
        else:
            self._enrol(session, change, dice, photos)

    def _post(self, session: requests.Session, change: Change, route: str, body: dict[str, Any]) -> None:
        answer = session.post(f"{self.service.url}/v1/{route}", json=body, timeout=TIMEOUT_SECONDS)
        if answer.status_code == 200:
            assert change.person_id is not None
            picture = None if change.deletes else self.ledger.picture_of(change.person_id)
            self.ledger.done(change, change.person_id, picture)
        else:
            self._refused(change, answer)

    def _enrol(self, session: requests.Session, change: Change, dice: random.Random, photos: dict[str, bytes]) -> None:
        """Add somebody, or replace who is meant: by a vector, a vector with a picture to keep, or a picture alone."""
        form: dict[str, Any] = {"fields": (None, change.mark)}
        if change.person_id is not None:
            form["replace_on_found"] = (None, change.person_id)
        kind = dice.random()
        if kind > 0.03 or not self.pictures:
            vector = [round(dice.gauss(0, 1), 6) for _ in range(VECTOR_LENGTH)]
            form["embedding"] = (None, json.dumps(vector))
        if kind < 0.4 and self.pictures:
            form["image"] = ("frame.jpg", photos[dice.choice(PHOTOS)])
        answer = session.post(f"{self.service.url}/v1/person/create", files=form, timeout=TIMEOUT_SECONDS)
        if answer.status_code == 200:
            person = answer.json()["persons"][0]
            address = person.get("image_url")
            self.ledger.done(change, person["person_id"], address and address.split("/")[-2])
        else:
            self._refused(change, answer, known=201)

    def _refused(self, change: Change, answer: requests.Response, known: int = 0) -> None:
        """Nothing was changed; with anything but `known` or too many waiting, that is not as it should be."""
        self.ledger.done(change, None)
        if answer.status_code not in (known, 503):
            self.unexpected.append(f"{answer.status_code} {answer.text[:200]}")
