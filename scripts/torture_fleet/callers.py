"""Clients of every box who enrol, change and erase, and remember what they were told."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import numpy as np
import requests
from numpy.typing import NDArray

from tests.fleet.process import VECTOR_LENGTH, FleetBox

CALLERS = 8
POPULATION = 120
"""Persons from which on more are erased than enrolled, so that rounds stay short."""

ERASED_SHARE, CROWDED_SHARE = 0.15, 0.6
"""Of calls that erase somebody; where there are more than that."""

CHANGED_SHARE = 0.1
"""Of the others, that change somebody's fields."""

TWICE_SHARE = 0.1
"""Of faces that two boxes see in the same moment."""

OWN_SHARE = 0.6
"""Of a face in what it has in common with all others: any two are as unlike as strangers are."""

TIMEOUT_SECONDS = 20.0
PAUSE_SECONDS = 0.02


@dataclass
class Told:
    """What the boxes answered. Safe to use from several threads."""

    enrolled: set[str] = field(default_factory=set)
    erased: set[str] = field(default_factory=set)
    unsure: set[str] = field(default_factory=set)
    """Whose erasure was asked for and never answered, or that of another id of theirs was."""
    pairs: list[tuple[str, str]] = field(default_factory=list)
    """Ids that two boxes gave one face, in the same moment."""
    answered: int = 0
    unexpected: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def somebody(self, dice: random.Random) -> str | None:
        """Return somebody who was enrolled."""
        with self.lock:
            return dice.choice(sorted(self.enrolled)) if self.enrolled else None

    def taken(self, dice: random.Random) -> str | None:
        """Return somebody to be erased, whom nobody else erases."""
        one = self.somebody(dice)
        with self.lock:
            if one not in self.enrolled:
                return None
            for id_ in {one, *(other for pair in self.pairs if one in pair for other in pair)} & self.enrolled:
                self.enrolled.discard(id_)
                self.unsure.add(id_)
            return one

    def note_enrolled(self, *answered: str | None) -> None:
        """Remember under which ids a face was added, None: it was not; two ids are those of two boxes."""
        ids = [one for one in answered if one is not None]
        with self.lock:
            self.enrolled.update(ids)
            if len(ids) > 1:
                self.pairs.append((ids[0], ids[1]))

    def note(self, answer: requests.Response, box: FleetBox, *expected: int) -> bool:
        """Count an answer; return whether it is 200."""
        with self.lock:
            self.answered += 1
            if answer.status_code not in (200, 503, *expected):  # 503: too busy
                self.unexpected.append(f"{box.name}: {answer.status_code} {answer.text[:200]}")
        return answer.status_code == 200


class Callers:
    """Eight of them, each at a box of its own choice."""

    def __init__(self, boxes: Sequence[FleetBox], told: Told, face: NDArray[np.float64], seed: str) -> None:
        """`face`: what all faces have in common."""
        self._boxes, self._told, self._face, self._seed = boxes, told, face, seed
        self._stopped = threading.Event()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Let them call until the `with` ends."""
        threads = [threading.Thread(target=self._call, args=(number,), daemon=True) for number in range(CALLERS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            for thread in threads:
                thread.join()

    def _call(self, number: int) -> None:
        dice = random.Random(f"{self._seed} {number}")
        with requests.Session() as session, ThreadPoolExecutor(1) as second:
            while not self._stopped.wait(PAUSE_SECONDS):
                box = dice.choice(self._boxes)
                is_crowded = len(self._told.enrolled) > POPULATION
                try:
                    if dice.random() < (CROWDED_SHARE if is_crowded else ERASED_SHARE):
                        self._erase(session, box, dice)
                    elif dice.random() < CHANGED_SHARE:
                        self._change(session, box, dice)
                    elif dice.random() < TWICE_SHARE:
                        self._enrol_twice(second, dice)
                    else:
                        self._enrol(session, box, dice)
                except requests.RequestException:  # the box is dead, or dies
                    self._stopped.wait(0.1)

    def _headers(self, box: FleetBox) -> dict[str, str]:
        return {"Authorization": f"Bearer {box.service.camera}"}

    def _new_face(self, dice: random.Random) -> str:
        own = np.array([dice.gauss(0, 1) for _ in range(VECTOR_LENGTH)])
        face = self._face + OWN_SHARE * np.linalg.norm(self._face) * own / np.linalg.norm(own)
        return json.dumps([round(float(one), 6) for one in face])

    def _added(self, session: requests.Session, box: FleetBox, face: str) -> str | None:
        """Return the id under which the face was added; None: it was not."""
        form = {"embedding": (None, face)}
        url = f"{box.service.url}/v1/person/create"
        answer = session.post(url, files=form, headers=self._headers(box), timeout=TIMEOUT_SECONDS)
        if not self._told.note(answer, box, 201):  # 201: taken for somebody
            return None
        return str(answer.json()["persons"][0]["person_id"])

    def _enrol(self, session: requests.Session, box: FleetBox, dice: random.Random) -> None:
        self._told.note_enrolled(self._added(session, box, self._new_face(dice)))

    def _enrol_twice(self, second: ThreadPoolExecutor, dice: random.Random) -> None:
        """Let two boxes see one face in the same moment. Nobody erases one of the two before both are known."""
        face = self._new_face(dice)
        ids: list[str | None] = []
        with requests.Session() as here, requests.Session() as there:
            one, other = dice.sample(list(self._boxes), 2)
            asked = second.submit(self._added, there, other, face)
            for added in (lambda: self._added(here, one, face), asked.result):
                with suppress(requests.RequestException):  # that box is dead, or dies
                    ids.append(added())
        self._told.note_enrolled(*ids)

    def _change(self, session: requests.Session, box: FleetBox, dice: random.Random) -> None:
        person_id = self._told.somebody(dice)
        if person_id is not None:
            url = f"{box.service.url}/v1/person/update"
            body = {"person_id": person_id, "fields": [f"{dice.random()}"]}
            answer = session.post(url, json=body, headers=self._headers(box), timeout=TIMEOUT_SECONDS)
            self._told.note(answer, box, 404)  # 404: this box has not heard of them yet, or they were erased meanwhile

    def _erase(self, session: requests.Session, box: FleetBox, dice: random.Random) -> None:
        person_id = self._told.taken(dice)
        if person_id is None:
            return
        is_done = self._told.note(box.erase(person_id, session), box, 404)
        with self._told.lock:
            self._told.unsure.discard(person_id)
            if is_done:
                self._told.erased.add(person_id)
            else:  # nothing was done
                self._told.enrolled.add(person_id)
