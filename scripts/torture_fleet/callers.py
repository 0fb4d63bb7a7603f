"""Clients of every box who enrol and erase, and remember what they were told."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import requests
from numpy.typing import NDArray

from tests.fleet.process import VECTOR_LENGTH, FleetBox

CALLERS = 8
POPULATION = 120
"""Persons from which on more are erased than enrolled, so that rounds stay short."""

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
    """Whose erasure was asked for and never answered."""
    answered: int = 0
    unexpected: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def taken(self, dice: random.Random) -> str | None:
        """Return somebody to be erased, whom nobody else erases."""
        with self.lock:
            if not self.enrolled:
                return None
            one = dice.choice(sorted(self.enrolled))
            self.enrolled.discard(one)
            self.unsure.add(one)
            return one


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
        with requests.Session() as session:
            while not self._stopped.wait(PAUSE_SECONDS):
                box = dice.choice(self._boxes)
                is_crowded = len(self._told.enrolled) > POPULATION
                try:
                    if dice.random() < (0.6 if is_crowded else 0.15):
                        self._erase(session, box, dice)
                    else:
                        self._enrol(session, box, dice)
                except requests.RequestException:  # the box is dead, or dies
                    self._stopped.wait(0.1)

    def _headers(self, box: FleetBox) -> dict[str, str]:
        return {"Authorization": f"Bearer {box.service.camera}"}

    def _enrol(self, session: requests.Session, box: FleetBox, dice: random.Random) -> None:
        own = np.array([dice.gauss(0, 1) for _ in range(VECTOR_LENGTH)])
        face = self._face + OWN_SHARE * np.linalg.norm(self._face) * own / np.linalg.norm(own)
        vector = json.dumps([round(float(one), 6) for one in face])
        form = {"embedding": (None, vector)}
        url = f"{box.service.url}/v1/person/create"
        answer = session.post(url, files=form, headers=self._headers(box), timeout=TIMEOUT_SECONDS)
        with self._told.lock:
            self._told.answered += 1
            if answer.status_code == 200:
                self._told.enrolled.add(answer.json()["persons"][0]["person_id"])
            elif answer.status_code not in (201, 503):  # taken for somebody, or too busy
                self._told.unexpected.append(f"{box.name}: {answer.status_code} {answer.text[:200]}")

    def _erase(self, session: requests.Session, box: FleetBox, dice: random.Random) -> None:
        person_id = self._told.taken(dice)
        if person_id is None:
            return
        url = f"{box.service.url}/v1/person/delete"
        answer = session.post(url, json={"person_id": person_id}, headers=self._headers(box), timeout=TIMEOUT_SECONDS)
        with self._told.lock:
            self._told.answered += 1
            self._told.unsure.discard(person_id)
            if answer.status_code == 200:
                self._told.erased.add(person_id)
            else:  # this box has not heard of them yet, or is too busy: nothing was done
                self._told.enrolled.add(person_id)
